"""What the end of a worker means for its job."""

from __future__ import annotations

from glintpy.cluster.fates import Fates


def test_a_job_is_over_when_all_have_done_their_part() -> None:
    fates = Fates(3)
    assert [fates.ended(number, 0) for number in (2, 0, 1)] == ["on", "on", "over"]
    assert fates.exit_code == 0


def test_one_failure_ends_the_job_with_its_exit_code() -> None:
    fates = Fates(3)
    assert fates.ended(0, 0) == "on"
    assert fates.ended(2, 7) == "over"
    assert fates.exit_code == 7


def test_where_losses_are_borne_the_others_go_on() -> None:
    fates = Fates(3, ends_all=False)
    assert [fates.ended(0, 9), fates.ended(1, 0), fates.ended(2, 0)] == ["on", "on", "over"]
    assert fates.exit_code == 0


def test_a_job_that_nobody_did_fails_with_the_first_exit_code() -> None:
    fates = Fates(2, ends_all=False)
    assert [fates.ended(1, 137), fates.ended(0, 2)] == ["on", "over"]
    assert fates.exit_code == 137


def test_a_worker_is_started_again_as_long_as_it_has_attempts() -> None:
    fates = Fates(2, attempts=3)
    assert [fates.ended(0, 5), fates.ended(1, 0), fates.ended(0, 5)] == ["again", "on", "again"]
    assert fates.ended(0, 0) == "over"
    assert fates.exit_code == 0


def test_a_worker_without_attempts_left_is_lost() -> None:
    fates = Fates(2, attempts=2)
    assert [fates.ended(0, 5), fates.ended(0, 6)] == ["again", "over"]
    assert fates.exit_code == 5
