"""What a request's future raises, from the fates of its parts: never a guess, and never a lie."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glintpy.errors import (
    GlintError,
    KeyRangeError,
    ModelLost,
    ModelNotFound,
    PullFailed,
    PushOutcomeUnknown,
    PushRefused,
    RequestError,
    ServerLost,
)
from glintpy.protocol.calls import Failed, Fate
from glintpy.protocol.outcomes import Tally

A, B = "tcp://a:1", "tcp://b:2"


def push_tally() -> Tally:
    return Tally("push", "weights", timeout_s=30)


def error_of(tally: Tally) -> RequestError:
    error = tally.error()
    assert isinstance(error, RequestError)
    return error


def test_all_parts_in_is_no_error() -> None:
    for tally in (push_tally(), Tally("pull", "weights", timeout_s=30)):
        tally.succeeded(A)
        tally.succeeded(B)
        assert tally.error() is None


def test_a_push_refused_everywhere_changed_nothing_and_says_why() -> None:
    tally = push_tally()
    cause = KeyRangeError("row 9 at position 0 is outside [0, 5)")
    tally.failed(A, Failed(cause, "refused"), attempts=1)
    tally.failed(B, Failed(KeyRangeError("another"), "refused"), attempts=3)
    error = error_of(tally)
    assert isinstance(error, PushRefused)
    assert "row 9 at position 0" in str(error)
    assert "no cell changed" in str(error)
    assert error.__cause__ is cause
    assert (error.outcome, error.model, error.address, error.attempts) == ("none", "weights", A, 3)
    assert error.parts == {
        A: {"applied": 0, "refused": 1, "unknown": 0},
        B: {"applied": 0, "refused": 1, "unknown": 0},
    }


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (ModelNotFound, "push to 'weights': gone"),
        (ServerLost, "gone"),
        (ModelLost, "push to 'weights': gone"),
    ],
)
def test_what_says_by_itself_that_nothing_changed_stays_what_it_is(kind: type[GlintError], text: str) -> None:
    tally = push_tally()
    tally.failed(A, Failed(kind("gone"), "refused"), attempts=1)
    error = tally.error()
    assert type(error) is kind
    assert str(error) == text


def test_a_push_that_never_left_was_refused_and_names_the_way_it_lacked() -> None:
    tally = push_tally()
    tally.failed(A, Failed(GlintError("no answer"), "unsent", timed_out=True), attempts=0)
    error = error_of(tally)
    assert isinstance(error, PushRefused)
    assert "no way to tcp://a:1 within 30 s" in str(error)
    assert error.parts[A] == {"applied": 0, "refused": 1, "unknown": 0}


def test_one_part_in_and_one_refused_is_partial() -> None:
    tally = push_tally()
    tally.succeeded(A)
    tally.failed(B, Failed(KeyRangeError("bad"), "refused"), attempts=1)
    error = error_of(tally)
    assert isinstance(error, PushOutcomeUnknown)
    assert error.outcome == "partial"
    assert "tcp://a:1: 1 applied" in str(error)
    assert "tcp://b:2: 1 refused" in str(error)


def test_a_push_given_up_under_way_is_unknown_whatever_failed_first() -> None:
    tally = push_tally()
    tally.failed(A, Failed(KeyRangeError("bad"), "refused"), attempts=1)
    tally.failed(B, Failed(GlintError("no answer"), "unknown", timed_out=True), attempts=7)
    error = error_of(tally)
    assert isinstance(error, PushOutcomeUnknown)
    assert (error.outcome, error.attempts) == ("unknown", 7)
    assert error.parts[B]["unknown"] == 1


@pytest.mark.parametrize("kind", [ServerLost, ModelLost])
def test_a_lost_server_stays_named_and_its_outcome_is_told(kind: type[RequestError]) -> None:
    tally = push_tally()
    tally.succeeded(A)
    tally.failed(B, Failed(kind("gone"), "unknown"), attempts=2)
    error = error_of(tally)
    assert type(error) is kind
    assert error.outcome == "unknown"


def test_a_pull_past_its_deadline_failed_and_says_how_long_and_how_often() -> None:
    tally = Tally("pull", "weights", timeout_s=2.5)
    tally.succeeded(A)
    tally.failed(B, Failed(GlintError("no answer"), "unknown", timed_out=True), attempts=4)
    error = error_of(tally)
    assert isinstance(error, PullFailed)
    assert isinstance(error, TimeoutError)
    assert "tcp://b:2 within 2.5 s (4 attempts)" in str(error)
    assert (error.outcome, error.parts) == ("none", {})


def test_a_pull_raises_what_the_server_said() -> None:
    tally = Tally("pull", "weights", timeout_s=None)
    cause = KeyRangeError("row 9 at position 0 is outside [0, 5)")
    tally.failed(A, Failed(cause, "refused"), attempts=1)
    assert tally.error() is cause


@pytest.mark.parametrize("kind", [ModelNotFound, ModelLost])
def test_what_a_server_says_of_a_number_is_told_with_the_model_s_name(kind: type[GlintError]) -> None:
    tally = Tally("pull", "weights", timeout_s=None, doing="function 'dot' of")
    tally.failed(A, Failed(kind("there is no model 3 here"), "refused"), attempts=1)
    error = tally.error()
    assert type(error) is kind
    assert str(error) == "function 'dot' of 'weights': there is no model 3 here"


@given(
    st.lists(
        st.tuples(st.sampled_from([A, B]), st.sampled_from([None, "unsent", "refused", "unknown"])),
        min_size=1,
    )
)
def test_the_outcome_follows_from_the_fates_alone(parts: list[tuple[str, Fate | None]]) -> None:
    tally = push_tally()
    for address, fate in parts:
        if fate is None:
            tally.succeeded(address)
        else:
            tally.failed(address, Failed(GlintError("why"), fate), attempts=1)
    fates = [fate for _, fate in parts]
    error = tally.error()
    if not any(fates):
        assert error is None
        return
    assert isinstance(error, RequestError)
    expected = "unknown" if "unknown" in fates else "partial" if None in fates else "none"
    assert error.outcome == expected
    assert isinstance(error, PushRefused) == (expected == "none")
    assert sum(sum(counts.values()) for counts in error.parts.values()) == len(parts)
