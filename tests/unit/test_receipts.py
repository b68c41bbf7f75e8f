"""A session's pushes are applied once and in order, and what became of each is remembered."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from glintpy import config
from glintpy.actors.receipts import Receipts
from glintpy.errors import Expelled, GlintError, KeyRangeError, ProtocolMismatch, RemoteFailure, ShapeError
from glintpy.protocol.messages import (
    VERSION,
    Applied,
    BeginCut,
    Bye,
    Change,
    Gap,
    Hello,
    Message,
    Probe,
    Pull,
    Push,
    Values,
    Welcome,
)
from glintpy.storage.journal import Journal

VALUES = np.array([1.5, 2.5])
CLIENT = b"c" * 16


class Server:
    """Receipts over a journal in memory, and a model that is a list of what was applied."""

    def __init__(self, settings: config.ServerSettings | None = None, *, sessions_max: int = 8) -> None:
        names = itertools.count(1)
        self.journal = Journal.create(None, "server", sessions_max)
        self.receipts = Receipts(
            self.journal,
            settings or config.ServerSettings(),
            new_session_id=lambda: next(names).to_bytes(16, "big"),
        )
        self.applied: list[int] = []
        self.error: Exception | None = None
        self.read_error: Exception | None = None
        self._request_ids = itertools.count(1)

    def hello(
        self, client_id: bytes = CLIENT, *, session: bytes = b"", floor: int = 1, now: float = 0.0
    ) -> Welcome:
        request_id = next(self._request_ids)
        return self.receipts.hello(Hello(request_id, VERSION, VERSION, "", client_id, session, floor), now)

    def message(self, session: bytes, sequence: int, *, floor: int = 1) -> Push:
        rows = np.array([0], np.int64)
        request_id = next(self._request_ids)
        return Push(
            request_id, session, floor, sequence, 1, 1, 5, False, False, 0, 0, 0, False, rows, None, VALUES
        )

    def push(self, message: Push, now: float = 0.0) -> Message:
        return self.receipts.push(message, now, apply=self._apply, read=self._read)

    def pull(self, session: bytes, *, after: int = 0, floor: int = 1) -> Message:
        rows = np.array([0], np.int64)
        pull = Pull(next(self._request_ids), session, floor, after, 1, 1, 5, 0, 0, 0, False, rows, None)
        return self.receipts.pull(pull, 0.0, read=self._read)

    def _apply(self, message: Push | Change) -> None:
        if self.error is not None:
            raise self.error
        self.applied.append(message.sequence)

    def _read(self, message: Pull | Push) -> np.ndarray:
        del message
        if self.read_error is not None:
            raise self.read_error
        return VALUES


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def session(server: Server) -> bytes:
    return server.hello().session


def test_pushes_are_applied_in_order_and_answered_by_part(server: Server, session: bytes) -> None:
    for sequence in (1, 2, 3):
        answer = server.push(server.message(session, sequence))
        assert isinstance(answer, Applied)
        assert (answer.part, answer.window_bytes) == (5, server.receipts.window_bytes)
    assert server.applied == [1, 2, 3]
    assert server.receipts.num_pushes == 3


def test_a_number_ahead_is_a_gap_and_changes_nothing(server: Server, session: bytes) -> None:
    for ahead in (2, 3, 2**62):
        gap = server.push(server.message(session, ahead))
        assert isinstance(gap, Gap)
        assert (gap.expected, gap.part) == (1, 5)
    assert server.applied == []
    assert isinstance(server.push(server.message(session, 1)), Applied)
    assert server.receipts.num_gaps == 3


def test_a_repeated_push_is_answered_again_and_not_applied(server: Server, session: bytes) -> None:
    for _ in range(3):
        assert isinstance(server.push(server.message(session, 1)), Applied)
    values = server.push(replace(server.message(session, 1), wants_values=True))
    assert isinstance(values, Values)
    np.testing.assert_array_equal(values.values, VALUES)
    assert server.applied == [1]
    assert server.receipts.num_repeats == 3


def test_a_refusal_is_recorded_and_said_again(server: Server, session: bytes) -> None:
    server.error = KeyRangeError("row 9 is outside [0, 5)")
    with pytest.raises(KeyRangeError) as first:
        server.push(server.message(session, 1))
    server.error = None
    with pytest.raises(KeyRangeError) as again:
        server.push(server.message(session, 1))
    assert str(again.value) == str(first.value)
    assert server.applied == []
    assert isinstance(server.push(server.message(session, 2)), Applied)


def test_an_unexpected_error_is_recorded_as_a_failure_of_the_server(server: Server, session: bytes) -> None:
    server.error = ZeroDivisionError("what?")
    with pytest.raises(ZeroDivisionError):
        server.push(server.message(session, 1))
    server.error = None
    with pytest.raises(RemoteFailure, match="what"):
        server.push(server.message(session, 1))
    assert server.applied == []


def test_refusals_outlive_their_texts(server: Server, session: bytes) -> None:
    other = server.hello(b"d" * 16).session
    server.error = ShapeError("a text of its own")
    with pytest.raises(ShapeError):
        server.push(server.message(session, 1))
    for sequence in range(1, config.RECEIPTS + 2):  # texts are kept for so many in all
        with pytest.raises(ShapeError):
            server.push(server.message(other, sequence))
    with pytest.raises(ShapeError, match="refused before"):
        server.push(server.message(session, 1))


def test_a_push_that_is_in_is_never_refused_though_its_values_cannot_be_read(
    server: Server, session: bytes
) -> None:
    for sequence, error in enumerate((ShapeError("no"), MemoryError()), start=1):
        server.read_error = error
        assert isinstance(server.push(replace(server.message(session, sequence), wants_values=True)), Applied)
    assert server.applied == [1, 2]


def test_numbers_below_the_floor_are_passed_over_and_never_applied(server: Server, session: bytes) -> None:
    server.push(server.message(session, 1))
    assert isinstance(server.push(server.message(session, 5, floor=5)), Applied)
    for given_up in (2, 3, 4):
        with pytest.raises(GlintError, match=f"push {given_up} was given up"):
            server.push(server.message(session, given_up))
    assert server.applied == [1, 5]


def test_a_floor_above_its_own_push_gives_that_up_too(server: Server, session: bytes) -> None:
    with pytest.raises(GlintError, match="given up"):
        server.push(server.message(session, 3, floor=4))
    assert server.applied == []
    assert isinstance(server.push(server.message(session, 4)), Applied)


def test_a_floor_far_away_costs_nothing(server: Server, session: bytes) -> None:
    report = server.receipts.probe(Probe(1, session, 2**62, 1), 0.0)
    assert report.applied == 2**62 - 1
    assert isinstance(server.push(server.message(session, 2**62, floor=2**62)), Applied)


def test_what_lies_too_far_back_is_not_guessed(server: Server, session: bytes) -> None:
    for sequence in range(1, config.RECEIPTS + 2):
        server.push(server.message(session, sequence))
    with pytest.raises(Expelled, match="push 1 "):
        server.push(server.message(session, 1))
    assert isinstance(server.push(server.message(session, 2)), Applied)
    assert len(server.applied) == config.RECEIPTS + 1


def test_a_pull_follows_its_own_clients_pushes(server: Server, session: bytes) -> None:
    server.push(server.message(session, 1))
    assert isinstance(server.pull(session, after=1), Values)
    gap = server.pull(session, after=2)
    assert isinstance(gap, Gap)
    assert gap.expected == 2
    # The pushes before it were given up: there is nothing left to wait for.
    assert isinstance(server.pull(session, after=2, floor=3), Values)


def test_a_cut_follows_them_too(server: Server, session: bytes) -> None:
    gap = server.receipts.follows(BeginCut(7, session, 1, 1, 1), 0.0)
    assert gap is not None
    assert (gap.request_id, gap.part, gap.expected) == (7, 0, 1)
    server.push(server.message(session, 1))
    assert server.receipts.follows(BeginCut(7, session, 1, 1, 1), 0.0) is None


def test_a_probe_tells_every_outcome(server: Server, session: bytes) -> None:
    server.push(server.message(session, 1))
    server.error = ShapeError("no")
    with pytest.raises(ShapeError):
        server.push(server.message(session, 2))
    server.error = None
    server.push(server.message(session, 4, floor=4))
    report = server.receipts.probe(Probe(9, session, 1, 4), 0.0)
    assert (report.request_id, report.first, report.applied) == (9, 1, 4)
    assert report.outcomes.tolist() == [0, 3, 255, 0]
    later = server.receipts.probe(Probe(9, session, 4, 4), 0.0)
    assert (later.first, later.outcomes.tolist()) == (4, [0])


def test_sessions_do_not_share_numbers(server: Server, session: bytes) -> None:
    other = server.hello(b"d" * 16).session
    assert other != session
    server.push(server.message(session, 1))
    server.push(server.message(other, 1))
    assert server.applied == [1, 1]


def test_a_greeting_that_is_repeated_gets_the_same_session(server: Server, session: bytes) -> None:
    server.push(server.message(session, 1))
    again = server.hello()
    assert (again.session, again.applied) == (session, 1)
    resumed = server.hello(session=session, floor=3)
    assert (resumed.session, resumed.applied) == (session, 2)
    assert server.journal.num_sessions == 1


def test_an_unknown_session_is_refused_and_not_made(server: Server) -> None:
    nobody = bytes(16)
    attempts: list[Callable[[], object]] = [
        lambda: server.hello(session=nobody),
        lambda: server.push(server.message(nobody, 1)),
        lambda: server.pull(nobody),
        lambda: server.receipts.probe(Probe(1, nobody, 1, 1), 0.0),
        lambda: server.receipts.follows(BeginCut(1, nobody, 1, 0, 1), 0.0),
    ]
    for attempt in attempts:
        with pytest.raises(Expelled, match="00000000"):
            attempt()
    assert server.journal.num_sessions == 0
    assert server.applied == []


def test_other_versions_are_named(server: Server) -> None:
    for low, high in ((VERSION + 1, 9), (200, 255)):
        with pytest.raises(ProtocolMismatch, match=rf"{low} to {high}.* speaks {VERSION}"):
            server.receipts.hello(Hello(1, low, high, "", CLIENT, b"", 1), 0.0)
    assert server.receipts.hello(Hello(1, 1, 255, "x,y", CLIENT, b"", 1), 0.0).version == VERSION


def test_a_session_ends_with_its_bye_and_is_expired_by_silence(server: Server, session: bytes) -> None:
    server.receipts.bye(Bye(1, session))
    server.receipts.bye(Bye(2, session))  # again does nothing
    with pytest.raises(Expelled):
        server.pull(session)
    settings = config.ServerSettings()
    quiet = server.hello(now=0.0).session
    server.receipts.expire(settings.session_expiry_s)
    assert server.journal.find(quiet) is not None
    server.receipts.probe(Probe(3, quiet, 1, 0), 100.0)
    server.receipts.expire(settings.session_expiry_s + 100.0)
    assert server.journal.find(quiet) is not None
    server.receipts.expire(settings.session_expiry_s + 100.1)
    assert server.journal.find(quiet) is None


def test_the_budget_is_shared_by_the_sessions_that_are_alive() -> None:
    settings = config.ServerSettings(
        budget_bytes=1000, window_bytes_max=600, window_bytes_min=150, session_idle_s=60.0
    )
    server = Server(settings, sessions_max=16)
    assert server.hello(b"%16d" % 0, now=0.0).window_bytes == 600
    assert server.hello(b"%16d" % 1, now=0.0).window_bytes == 500
    assert server.hello(b"%16d" % 2, now=50.0).window_bytes == 333
    server.receipts.share_budget(61.0)  # two have been silent for too long to count
    assert server.receipts.window_bytes == 600
    for number in range(3, 13):
        server.hello(b"%16d" % number, now=61.0)
    assert server.receipts.window_bytes == 150


def test_parts_of_one_request_count_once(server: Server, session: bytes) -> None:
    first = server.message(session, 1)
    server.push(first)
    server.push(replace(server.message(session, 2), request_id=first.request_id, part=6))
    server.push(first)
    assert server.receipts.num_requests == 1
    server.pull(session)
    assert server.receipts.num_requests == 2
