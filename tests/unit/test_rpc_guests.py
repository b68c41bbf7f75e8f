"""A caller that waits receives for everybody, and what it leaves behind is found without the endpoint's thread."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Hashable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from glintpy import rpc
from glintpy.errors import GlintError
from glintpy.protocol import wire
from glintpy.protocol.calls import Asks, Call, Failed, Result
from glintpy.protocol.messages import Done
from glintpy.protocol.messages_master import OpenModel
from glintpy.rpc import Endpoint
from glintpy.testing.waiting import receive_from
from glintpy.transport import Delivery, Listener, listen

WAIT_S = 30.0
PEER = "peer"


class Outcome:
    """A call, and what becomes of it."""

    _ids = itertools.count(1)

    def __init__(self) -> None:
        self.request_id = next(self._ids)
        self.results: list[Result] = []
        self.call = Call(
            self.request_id, lambda _: OpenModel(self.request_id, 0, "x"), self.results.append, cost_bytes=10
        )

    def is_done(self) -> bool:
        return bool(self.results)


class Line:
    """An endpoint and a listener that answers when the test says so."""

    def __init__(self, address: str) -> None:
        self.num_issued = 0
        self._is_up = threading.Event()
        self.listener: Listener = listen(address)
        self.endpoint = Endpoint("test-rpc", on_change=self._note, before_wait=self._issue)
        self.endpoint.add(PEER, self.listener.address, Asks())
        assert self._is_up.wait(WAIT_S)

    def _note(self, _: Hashable, is_up: bool) -> None:
        if is_up:
            self._is_up.set()

    def _issue(self) -> None:
        self.num_issued += 1

    def submit(self) -> Outcome:
        outcome = Outcome()
        assert self.endpoint.submit(PEER, outcome.call)
        return outcome

    def answer(self, *outcomes: Outcome) -> None:
        """Answer calls in this order, each by a message of its own, whatever order they came in."""
        left = {outcome.request_id for outcome in outcomes}
        while left:
            peer, frames = receive_from(self.listener)
            left -= {message.request_id for message in wire.decode_all(frames)}
        for outcome in outcomes:
            answer = wire.encode(Done(outcome.request_id, wire.document(1)))
            assert self.listener.send(peer, answer) is Delivery.SENT

    def close(self) -> None:
        self.endpoint.close(GlintError("the test is over"))
        self.listener.close()


@pytest.fixture(params=["ipc", "tcp", "local"])
def line(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Line]:
    addresses = {"ipc": f"ipc://{tmp_path}/line", "tcp": "tcp://127.0.0.1:0", "local": "local://*"}
    made = Line(addresses[request.param])
    yield made
    made.close()


@pytest.fixture
def guest_only(line: Line, monkeypatch: pytest.MonkeyPatch) -> Line:
    """A line whose own thread leaves receiving to callers from here on, for longer than any test takes."""
    monkeypatch.setattr(rpc, "CALLER_RETURNS_S", 10 * WAIT_S)
    monkeypatch.setattr(rpc, "ACTIVE_S", 10 * WAIT_S)
    monkeypatch.setattr(rpc, "IDLE_S", 10 * WAIT_S)
    return line


def test_an_answer_behind_another_one_is_found_by_its_own_caller(guest_only: Line) -> None:
    # ZeroMQ signals the first of several messages only: who takes that and leaves takes the signal along.
    for _ in range(20):
        outcomes = [guest_only.submit() for _ in range(5)]
        guest_only.answer(*outcomes)
        began = time.monotonic()
        for outcome in outcomes:
            guest_only.endpoint.wait_for(outcome.is_done, WAIT_S)
            assert outcome.is_done()
        assert time.monotonic() - began < WAIT_S


def test_an_answer_behind_another_one_is_found_for_who_does_not_receive(guest_only: Line) -> None:
    for _ in range(20):
        first, second = guest_only.submit(), guest_only.submit()
        done = threading.Event()
        settle = second.call.settle

        def settle_and_tell(result: Result, settle: object = settle, done: threading.Event = done) -> None:
            assert callable(settle)
            settle(result)
            done.set()

        second.call.settle = settle_and_tell
        guest_only.answer(first, second)
        guest_only.endpoint.wait_for(first.is_done, WAIT_S)
        guest_only.endpoint.expect_others()
        assert done.wait(WAIT_S)


def test_a_caller_receives_for_another_one(line: Line) -> None:
    with ThreadPoolExecutor(2) as pool:
        first, second = line.submit(), line.submit()
        waiting = [
            pool.submit(line.endpoint.wait_for, outcome.is_done, WAIT_S) for outcome in (first, second)
        ]
        line.answer(second, first)
        for future in waiting:
            future.result(WAIT_S)
        # One of them may have come when the other received already; then it returns, and is told otherwise.
        line.endpoint.wait_for(lambda: first.is_done() and second.is_done(), WAIT_S)
        assert isinstance(first.results[0], Done)
        assert isinstance(second.results[0], Done)


def test_waiting_ends_with_its_time_and_the_call_goes_on(line: Line) -> None:
    outcome = line.submit()
    line.endpoint.wait_for(outcome.is_done, 0.0)
    line.endpoint.wait_for(outcome.is_done, 0.001)
    assert not outcome.is_done()
    line.answer(outcome)
    line.endpoint.wait_for(outcome.is_done, WAIT_S)
    assert outcome.is_done()


def test_who_is_about_to_wait_issues_what_was_put_off(line: Line) -> None:
    outcome = line.submit()
    line.answer(outcome)
    before = line.num_issued
    line.endpoint.wait_for(outcome.is_done, WAIT_S)
    assert line.num_issued > before


def test_a_poke_has_it_issued_by_somebody(guest_only: Line) -> None:
    for _ in range(5):
        before = guest_only.num_issued
        guest_only.endpoint.poke()
        end = time.monotonic() + WAIT_S
        while guest_only.num_issued == before:
            assert time.monotonic() < end, "nobody came by"


def test_waiting_ends_when_the_endpoint_is_closed(line: Line) -> None:
    outcome = line.submit()
    began = threading.Event()

    def is_done() -> bool:
        began.set()
        return outcome.is_done()

    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(line.endpoint.wait_for, is_done, None)
        assert began.wait(WAIT_S)
        line.endpoint.close(GlintError("closed under way"))
        waiting.result(WAIT_S)
    assert isinstance(outcome.results[0], Failed)
    assert "closed under way" in str(outcome.results[0].error)
    line.endpoint.wait_for(lambda: False, None)  # nobody waits at what is closed
    line.endpoint.poke()
    line.endpoint.expect_others()
