"""Receipts against a dictionary that forgets nothing, and journals that come back with their sessions."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glintpy import config
from glintpy.errors import ConfigError, ModelLost, NotEnoughMemory
from glintpy.storage.journal import Journal
from glintpy.storage.segment import Segment

R = config.RECEIPTS


def ident(number: int) -> bytes:
    return number.to_bytes(16, "big")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "journal"


@pytest.fixture
def journal() -> Journal:
    return Journal.create(None, "server-1", 4)


def test_a_new_session_has_no_outcomes(journal: Journal) -> None:
    session = journal.open_session(ident(1), ident(2), 50.0)
    assert (session.session_id, session.client_id) == (ident(1), ident(2))
    assert (session.applied, session.highest_request, session.last_heard) == (0, 0, 50.0)
    assert [session.outcome(sequence) for sequence in (-1, 0, 1)] == [None] * 3
    start, outcomes = session.outcomes(1)
    assert (start, outcomes.tolist()) == (1, [])
    assert outcomes.dtype == np.uint8


def test_a_push_out_of_sequence_is_never_recorded(journal: Journal) -> None:
    session = journal.open_session(ident(1), ident(2), 0.0)
    for sequence in (0, 2):
        with pytest.raises(AssertionError):
            session.record(sequence, 0)
    session.record(1, 0)
    with pytest.raises(AssertionError):
        session.record(1, 0)
    assert session.applied == 1


def test_a_floor_far_away_is_passed_over_at_once(journal: Journal) -> None:
    session = journal.open_session(ident(1), ident(2), 0.0)
    session.record(1, 0)
    session.advance(2**62)
    assert session.applied == 2**62 - 1
    start, outcomes = session.outcomes(1)
    assert start == 2**62 - R
    assert outcomes.tolist() == [255] * R
    session.record(2**62, 3)
    assert session.outcome(2**62) == 3


ACTIONS = st.one_of(
    st.tuples(st.just("record"), st.integers(0, 254)),
    st.tuples(st.just("record many"), st.integers(1, R + 10)),
    st.tuples(st.just("advance"), st.integers(-3, R + 10)),
    st.tuples(st.just("reopen"), st.just(0)),
)


@settings(max_examples=60, deadline=None)
@given(st.lists(ACTIONS, max_size=12), st.integers(-5, 5), st.booleans())
def test_a_session_agrees_with_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, actions: list[tuple[str, int]], first: int, clean: bool
) -> None:
    path = tmp_path_factory.mktemp("journal") / "journal"
    journal = Journal.create(path, "server-1", 2)
    session = journal.open_session(ident(1), ident(2), 0.0)
    expected: dict[int, int] = {}
    for action, number in actions:
        if action == "reopen":
            journal.close(clean=clean)
            journal = Journal.open(path)
            found = journal.find(ident(1))
            assert found is not None
            session = found
        elif action == "advance":
            # Relative, so that floors behind and ahead are both common.
            floor = len(expected) + 1 + number
            expected |= dict.fromkeys(range(len(expected) + 1, floor), 255)
            session.advance(floor)
        else:
            codes = [number] if action == "record" else [index % 7 for index in range(number)]
            for code in codes:
                expected[len(expected) + 1] = code
                session.record(len(expected), code)
        assert session.applied == len(expected)
    last = len(expected)
    for sequence in {0, 1, last - R - 1, last - R, last - R + 1, last // 2, last, last + 1}:
        remembered = last - R < sequence
        assert session.outcome(sequence) == (expected.get(sequence) if remembered else None)
    for asked in (0, 1, last - R + first, last + first):
        start, outcomes = session.outcomes(asked)
        assert start == max(asked, 1, last - R + 1)
        assert outcomes.tolist() == [expected[sequence] for sequence in range(start, last + 1)]
    journal.close(clean=True)


def test_outcomes_are_a_copy(journal: Journal) -> None:
    session = journal.open_session(ident(1), ident(2), 0.0)
    session.record(1, 5)
    session.outcomes(1)[1][:] = 0
    assert session.outcome(1) == 5


def test_a_row_used_again_remembers_nothing_of_the_session_before() -> None:
    journal = Journal.create(None, "server-1", 1)
    first = journal.open_session(ident(1), ident(2), 5.0)
    first.record(1, 7)
    journal.end(ident(1))
    second = journal.open_session(ident(3), ident(4), 6.0)
    assert (second.applied, second.last_heard, second.outcome(1)) == (0, 6.0, None)


def test_a_session_that_has_ended_cannot_write_into_the_next_ones_row() -> None:
    journal = Journal.create(None, "server-1", 1)
    ended = journal.open_session(ident(1), ident(2), 5.0)
    journal.end(ident(1))
    second = journal.open_session(ident(3), ident(4), 6.0)
    with pytest.raises(ValueError, match="released"):
        ended.record(1, 0)
    with pytest.raises(ValueError, match="released"):
        ended.advance(9)
    with pytest.raises(ValueError, match="released"):
        ended.last_heard = 7.0
    assert (second.applied, second.last_heard) == (0, 6.0)


def test_sessions_are_found_by_their_id_and_by_their_client(journal: Journal) -> None:
    first = journal.open_session(ident(1), ident(9), 5.0)
    second = journal.open_session(ident(2), ident(9), 6.0)
    assert journal.find(ident(1)) is first
    assert journal.find(ident(3)) is None
    assert journal.find_client(ident(9)) is second
    first.last_heard = 7.0
    assert journal.find_client(ident(9)) is first
    assert journal.find_client(ident(8)) is None
    assert journal.sessions() == [first, second]
    assert journal.num_sessions == 2


def test_an_ended_session_is_forgotten_and_ending_it_again_is_nothing(journal: Journal) -> None:
    journal.open_session(ident(1), ident(9), 5.0)
    journal.end(ident(1))
    journal.end(ident(1))
    assert journal.find(ident(1)) is None
    assert journal.num_sessions == 0
    for number in range(4):
        journal.open_session(ident(number), ident(9), 5.0)
    assert journal.num_sessions == 4


def test_an_id_is_used_once_and_has_16_bytes(journal: Journal) -> None:
    journal.open_session(ident(1), ident(9), 5.0)
    for session_id, client_id in ((ident(1), ident(8)), (b"short", ident(8)), (ident(2), b"short")):
        with pytest.raises(AssertionError):
            journal.open_session(session_id, client_id, 5.0)


def test_a_full_journal_expels_the_session_that_was_silent_longest(journal: Journal) -> None:
    for number in range(4):
        journal.open_session(ident(number), ident(9), 10.0 + number)
    oldest = journal.find(ident(0))
    assert oldest is not None
    oldest.last_heard = 20.0
    journal.open_session(ident(4), ident(9), 30.0)
    assert {session.session_id for session in journal.sessions()} == {ident(n) for n in (0, 2, 3, 4)}


def test_silent_sessions_expire_and_a_clock_that_was_set_back_expels_nobody(journal: Journal) -> None:
    journal.open_session(ident(1), ident(9), 100.0)
    journal.open_session(ident(2), ident(9), 150.0)
    assert journal.expire(-1e9, older_than_s=60) == []
    assert journal.num_alive(160.0, within_s=60) == 2
    assert journal.num_alive(161.0, within_s=60) == 1
    assert journal.expire(160.0, older_than_s=60) == []
    assert journal.expire(161.0, older_than_s=60) == [ident(1)]
    assert [session.session_id for session in journal.sessions()] == [ident(2)]


def test_a_journal_comes_back_with_its_sessions_under_the_next_incarnation(path: Path) -> None:
    journal = Journal.create(path, "server-1", 4)
    assert (journal.server_id, journal.incarnation, journal.sessions_max) == ("server-1", 1, 4)
    for number in range(3):
        session = journal.open_session(ident(number), ident(number + 10), float(number))
        session.record(1, 0)
        session.record(2, number)
        session.highest_request = 99
    journal.end(ident(1))
    journal.close(clean=True)
    journal.close(clean=True)
    found = Journal.open(path)
    assert (found.server_id, found.incarnation, found.sessions_max) == ("server-1", 2, 4)
    assert found.was_clean
    assert {session.session_id for session in found.sessions()} == {ident(0), ident(2)}
    session = found.sessions()[-1]
    number = int.from_bytes(session.session_id, "big")
    assert (session.client_id, session.last_heard) == (ident(number + 10), float(number))
    assert (session.applied, session.outcome(2), session.highest_request) == (2, number, 0)
    for number in range(20, 22):
        found.open_session(ident(number), ident(9), 5.0)
    assert found.num_sessions == 4
    found.close(clean=True)


KILLED = """
import os, signal, sys
from pathlib import Path
from glintpy.storage.journal import Journal
journal = Journal.open(Path(sys.argv[1]))
session = journal.find(bytes(15) + b"\\x01")
session.record(2, 4)
session.advance(5)
session.last_heard = 8.0
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_receipts_outlive_a_killed_process_and_say_that_it_was_killed(path: Path) -> None:
    journal = Journal.create(path, "server-1", 4)
    journal.open_session(ident(1), ident(2), 1.0).record(1, 0)
    journal.close(clean=True)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)], check=False, cwd=Path(__file__).parents[2]
    )
    assert killed.returncode == -signal.SIGKILL
    found = Journal.open(path)
    assert not found.was_clean
    assert found.incarnation == 3
    session = found.find(ident(1))
    assert session is not None
    assert (session.applied, session.last_heard) == (4, 8.0)
    assert session.outcomes(1)[1].tolist() == [0, 4, 255, 255]
    found.close(clean=True)


def test_a_journal_in_use_is_refused_until_its_owner_lets_go(path: Path) -> None:
    journal = Journal.create(path, "server-1", 4)
    held = journal.open_session(ident(1), ident(2), 1.0)
    with pytest.raises(ConfigError, match="in use by another process"):
        Journal.open(path)
    journal.close(clean=False)
    found = Journal.open(path)
    assert not found.was_clean
    with pytest.raises(ValueError, match="released"):
        held.record(1, 0)
    found.close(clean=True)


def test_what_is_no_journal_is_a_config_error(path: Path) -> None:
    with pytest.raises(ConfigError, match="missing"):
        Journal.open(path)
    Segment.create(path, {"model_id": 1}, 100).close(clean=True)
    with pytest.raises(ConfigError, match="something else"):
        Journal.open(path)


def test_a_journal_is_no_segment(path: Path) -> None:
    Journal.create(path, "server-1", 4).close(clean=True)
    with pytest.raises(ModelLost, match="something else"):
        Segment.open(path)


def test_room_for_no_session_or_for_too_many_is_refused(path: Path) -> None:
    with pytest.raises(ConfigError, match="at least 1, not 0"):
        Journal.create(path, "server-1", 0)
    with pytest.raises(NotEnoughMemory):
        Journal.create(path, "server-1", 2**40)
    assert not path.exists()


def test_a_journal_keeps_the_number_of_receipts_it_was_made_with(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "RECEIPTS", 5)
    journal = Journal.create(path, "server-1", 3)
    session = journal.open_session(ident(1), ident(2), 1.0)
    for sequence in range(1, 8):
        session.record(sequence, sequence)
    journal.close(clean=True)
    monkeypatch.undo()
    found = Journal.open(path)
    assert found.sessions_max == 3
    start, outcomes = found.sessions()[0].outcomes(0)
    assert (start, outcomes.tolist()) == (3, [3, 4, 5, 6, 7])
    found.close(clean=True)
