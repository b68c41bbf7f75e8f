"""An endpoint hands calls over and answers back, makes callers wait for room, and leaves nothing open."""

from __future__ import annotations

import itertools
import threading
import time
from collections import deque
from collections.abc import Hashable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from glintpy.errors import GlintError, ServerLost
from glintpy.protocol import wire
from glintpy.protocol.calls import Asks, Call, Failed, Result
from glintpy.protocol.messages import Bye, Done
from glintpy.protocol.messages_master import OpenModel
from glintpy.rpc import Endpoint
from glintpy.testing.waiting import receive_from
from glintpy.transport import Delivery, Listener, listen

WAIT_S = 60.0
PEER = "peer"

_names = itertools.count()


class Outcome:
    """A call, and what becomes of it."""

    _ids = itertools.count(1)

    def __init__(self, *, cost_bytes: int = 0, timeout_s: float | None = None, name: str = "x") -> None:
        self._result: Future[Result] = Future()
        request_id = next(self._ids)
        self.call = Call(
            request_id,
            lambda _: OpenModel(request_id, 0, name),
            self._result.set_result,
            deadline=None if timeout_s is None else time.monotonic() + timeout_s,
            cost_bytes=cost_bytes,
        )
        self.request_id = request_id

    def result(self) -> Result:
        return self._result.result(WAIT_S)

    @property
    def is_settled(self) -> bool:
        return self._result.done()


class HastyAsks(Asks):
    """A link some of whose calls fail with their peer."""

    def fail_all(self, error: GlintError, *, hasty_only: bool = False) -> None:
        if not hasty_only:
            super().fail_all(error)
            return
        for call in [call for call in self._open.values() if call.is_hasty]:
            del self._open[call.request_id]
            call.finish(Failed(error, "unknown"))


class Line:
    """An endpoint, and listeners that answer when the test says so."""

    def __init__(self) -> None:
        self.changes: deque[tuple[Hashable, bool]] = deque()
        self._changed = threading.Condition()
        self.endpoint = Endpoint("test-rpc", on_change=self._note)
        self.listeners: list[Listener] = []
        self.link = HastyAsks()

    def _note(self, key: Hashable, is_up: bool) -> None:
        with self._changed:
            self.changes.append((key, is_up))
            self._changed.notify_all()

    def wait_for(self, *, is_up: bool) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: (PEER, is_up) in self.changes, WAIT_S)
            self.changes.clear()

    def listen(self, address: str | None = None) -> Listener:
        made = listen(address or f"local://rpc-{next(_names)}")
        self.listeners.append(made)
        return made

    def up(self) -> Listener:
        """Return a listener that the endpoint is connected to."""
        listener = self.listen()
        self.endpoint.add(PEER, listener.address, self.link)
        self.wait_for(is_up=True)
        return listener

    def submit(self, outcome: Outcome, *, bytes_max: int | None = None) -> bool:
        return self.endpoint.submit(PEER, outcome.call, bytes_max=bytes_max)

    def close(self) -> None:
        self.endpoint.close(GlintError("the test is over"))
        for listener in self.listeners:
            listener.close()


@pytest.fixture
def line() -> Iterator[Line]:
    made = Line()
    yield made
    made.close()


@pytest.fixture
def pool() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(4) as made:
        yield made


def asked(listener: Listener) -> tuple[bytes, list[int]]:
    """Return who sent the next ZeroMQ message, and the request ids in it."""
    peer, frames = receive_from(listener)
    return peer, [message.request_id for message in wire.decode_all(frames)]


def answer(listener: Listener, peer: bytes, *request_ids: int) -> None:
    for request_id in request_ids:
        frames = wire.encode(Done(request_id, wire.document(request_id)))
        assert listener.send(peer, frames) is Delivery.SENT


def test_a_call_is_sent_and_settled_by_its_answer(line: Line) -> None:
    listener = line.up()
    first, second = Outcome(), Outcome()
    assert line.submit(first)
    assert line.submit(second)
    peer, first_ids = asked(listener)
    _, second_ids = asked(listener)
    assert (first_ids, second_ids) == ([first.request_id], [second.request_id])
    answer(
        listener, peer, second.request_id, 10**6, first.request_id
    )  # in any order; a stranger's is nobody's
    for outcome in (first, second):
        found = outcome.result()
        assert isinstance(found, Done)
        assert found.request_id == outcome.request_id


def test_calls_wait_for_a_listener_that_comes_later(line: Line) -> None:
    address = f"local://rpc-{next(_names)}"
    line.endpoint.add(PEER, address, line.link)
    outcomes = [Outcome() for _ in range(3)]
    for outcome in outcomes:
        assert line.submit(outcome)
    assert line.endpoint.down_peers() == [PEER]
    listener = line.listen(address)
    peer, first = asked(listener)
    assert first == [outcomes[0].request_id]
    answer(listener, peer, *(outcome.request_id for outcome in outcomes))
    for outcome in outcomes:
        assert isinstance(outcome.result(), Done)
    assert line.endpoint.down_peers() == []


def test_what_has_no_answer_is_asked_again_after_a_reconnect(line: Line) -> None:
    listener = line.up()
    answered, lost = Outcome(), Outcome()
    line.submit(answered)
    line.submit(lost)
    peer, _ = asked(listener)
    answer(listener, peer, answered.request_id)
    assert isinstance(answered.result(), Done)
    address = listener.address
    line.listeners.remove(listener)
    listener.close()
    line.wait_for(is_up=False)
    listener = line.listen(address)
    peer, again = asked(listener)
    assert again == [lost.request_id]
    answer(listener, peer, lost.request_id)
    assert isinstance(lost.result(), Done)


def test_a_call_past_its_deadline_is_given_up(line: Line) -> None:
    line.up()
    outcome = Outcome(timeout_s=0.01)
    line.submit(outcome)
    found = outcome.result()
    assert isinstance(found, Failed)
    assert (found.timed_out, found.fate) == (True, "unknown")


def test_a_caller_waits_for_room_and_goes_on_when_there_is_some(line: Line, pool: ThreadPoolExecutor) -> None:
    listener = line.up()
    large, next_one = Outcome(cost_bytes=80), Outcome(cost_bytes=30)
    assert line.submit(large, bytes_max=100)
    waiting = pool.submit(line.submit, next_one, bytes_max=100)
    peer, _ = asked(listener)
    small = Outcome(cost_bytes=20)
    assert line.submit(small, bytes_max=100)  # what fits doesn't wait for what doesn't
    assert asked(listener)[1] == [small.request_id]
    assert not waiting.done()
    answer(listener, peer, large.request_id)
    assert waiting.result(WAIT_S)
    assert asked(listener)[1] == [next_one.request_id]


def test_a_call_larger_than_all_room_goes_alone(line: Line, pool: ThreadPoolExecutor) -> None:
    listener = line.up()
    huge, other = Outcome(cost_bytes=1000), Outcome(cost_bytes=1)
    assert line.submit(huge, bytes_max=100)
    waiting = pool.submit(line.submit, other, bytes_max=100)
    peer, ids = asked(listener)
    assert ids == [huge.request_id]
    assert not waiting.done()
    answer(listener, peer, huge.request_id)
    assert waiting.result(WAIT_S)


def test_waiting_for_room_ends_with_the_deadline(line: Line) -> None:
    line.up()
    line.submit(Outcome(cost_bytes=100))
    late = Outcome(cost_bytes=1, timeout_s=0.01)
    assert not line.submit(late, bytes_max=100)
    assert not late.is_settled, "it was never handed over: its caller settles it"


def test_waiting_for_room_ends_when_the_endpoint_is_closed(line: Line, pool: ThreadPoolExecutor) -> None:
    line.up()
    line.submit(Outcome(cost_bytes=100))
    waiting = [pool.submit(line.submit, Outcome(cost_bytes=1), bytes_max=100) for _ in range(3)]
    line.close()
    assert [waiter.result(WAIT_S) for waiter in waiting] == [False] * 3


def test_closing_fails_what_is_open_and_takes_nothing_more(line: Line) -> None:
    listener = line.up()
    sent = Outcome()
    line.submit(sent)
    asked(listener)
    line.endpoint.add("other", "local://nobody-there", HastyAsks())
    unsent = Outcome()
    line.endpoint.submit("other", unsent.call)
    line.endpoint.close(ServerLost("closed"))
    line.endpoint.close(GlintError("again does nothing"))
    for outcome, fate in ((sent, "unknown"), (unsent, "unsent")):
        found = outcome.result()
        assert isinstance(found, Failed)
        assert isinstance(found.error, ServerLost)
        assert found.fate == fate
    assert not line.submit(Outcome())


def test_only_who_does_not_want_to_wait_fails_with_a_lost_server(line: Line) -> None:
    listener = line.up()
    patient, hasty = Outcome(), Outcome()
    hasty.call.is_hasty = True
    line.submit(patient)
    line.submit(hasty)
    peer, _ = asked(listener)
    line.endpoint.fail(PEER, ServerLost("gone"))
    line.endpoint.fail("nobody", ServerLost("gone"))
    found = hasty.result()
    assert isinstance(found, Failed)
    assert isinstance(found.error, ServerLost)
    assert not patient.is_settled
    answer(listener, peer, patient.request_id)
    assert isinstance(patient.result(), Done)


def test_a_peer_that_moved_is_asked_at_its_new_address(line: Line, pool: ThreadPoolExecutor) -> None:
    old = line.up()
    outcome = Outcome(cost_bytes=100)
    line.submit(outcome)
    asked(old)
    waiting = pool.submit(line.submit, Outcome(cost_bytes=50), bytes_max=100)
    new = line.listen()
    line.endpoint.move(PEER, new.address)
    assert line.endpoint.address_of(PEER) == new.address
    line.endpoint.move(PEER, new.address)  # it is there already
    line.endpoint.move("nobody", new.address)
    peer, ids = asked(new)
    assert ids == [outcome.request_id]
    assert not waiting.done(), "what is under way moved along, and still takes its room"
    answer(new, peer, outcome.request_id)
    assert isinstance(outcome.result(), Done)
    assert waiting.result(WAIT_S)
    assert old.num_disconnects() == 1


def test_a_peer_is_added_once(line: Line) -> None:
    line.up()
    line.endpoint.add(PEER, "local://elsewhere", HastyAsks())
    assert line.endpoint.link_of(PEER) is line.link
    assert line.endpoint.keys() == [PEER]
    assert line.endpoint.has(PEER)
    assert not line.endpoint.has("nobody")


def test_what_cannot_be_read_is_dropped_and_the_next_answer_counts(
    line: Line, caplog: pytest.LogCaptureFixture
) -> None:
    listener = line.up()
    outcome = Outcome()
    line.submit(outcome)
    peer, _ = asked(listener)
    for frames in ([b"\xc1"], [b""], [b"GET / HTTP/1.1"]):
        assert listener.send(peer, frames) is Delivery.SENT
    answer(listener, peer, outcome.request_id)
    assert isinstance(outcome.result(), Done)
    assert listener.address in caplog.text


def test_a_question_that_cannot_travel_fails_and_takes_no_other_along(line: Line) -> None:
    address = f"local://rpc-{next(_names)}"
    line.endpoint.add(PEER, address, line.link)
    before, wrong, after = Outcome(), Outcome(name="x" * 1000), Outcome()
    for outcome in (before, wrong, after):
        line.submit(outcome)
    listener = line.listen(address)
    found = wrong.result()
    assert isinstance(found, Failed)
    assert found.fate == "unsent"
    peer, _ = asked(listener)
    answer(listener, peer, before.request_id, after.request_id)
    assert isinstance(before.result(), Done)
    assert isinstance(after.result(), Done)


def test_what_is_said_is_not_answered_and_not_kept(line: Line) -> None:
    listener = line.up()
    line.endpoint.say(PEER, Bye(7, bytes(16)))
    assert asked(listener)[1] == [7]
    line.endpoint.say("nobody", Bye(8, bytes(16)))
    line.endpoint.add("down", "local://nobody-there", HastyAsks())
    line.endpoint.say("down", Bye(9, bytes(16)))
    outcome = Outcome()
    line.submit(outcome)
    assert asked(listener)[1] == [outcome.request_id]


def test_many_threads_share_one_endpoint(line: Line, pool: ThreadPoolExecutor) -> None:
    listener = line.up()
    outcomes = [[Outcome(cost_bytes=30) for _ in range(50)] for _ in range(4)]

    def submit_all(mine: list[Outcome]) -> bool:
        return all(line.submit(outcome, bytes_max=100) for outcome in mine)

    submitted = [pool.submit(submit_all, mine) for mine in outcomes]
    for _ in range(200):
        peer, ids = asked(listener)
        answer(listener, peer, *ids)
    assert all(done.result(WAIT_S) for done in submitted)
    for mine in outcomes:
        for outcome in mine:
            found = outcome.result()
            assert isinstance(found, Done)
            assert wire.content(found.document) == outcome.request_id
