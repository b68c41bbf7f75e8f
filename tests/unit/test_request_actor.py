"""Every request has exactly one answer, whatever handling it meets, and nothing kills the actor."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Iterator

import numpy as np
import pykka
import pytest

from glintpy import config
from glintpy.actors.base import LATER, Later, RequestActor, Stop
from glintpy.actors.mailbox import Arrival, Idle, Letter, SocketMailbox, Tick
from glintpy.actors.outlet import Outlet
from glintpy.errors import GlintError, KeyRangeError, RemoteFailure, RemoteProtocolError
from glintpy.protocol import wire
from glintpy.protocol.failures import code_of
from glintpy.protocol.messages import Done, Failure, Message, ServerStatus
from glintpy.protocol.messages_master import OpenModel
from glintpy.testing.waiting import poll
from glintpy.transport import Connection, Listener, connect, listen

WAIT_S = 60.0

_names = itertools.count()


class Answerer(RequestActor):
    """Does what the name of the model that is asked for says."""

    role = "answerer"
    peer = b""
    fails_on_tick = False
    num_turns = 0

    def handle(self, peer: bytes, message: Message) -> Message | Later | None:
        self.peer = peer
        if not isinstance(message, OpenModel):
            return Done(message.request_id, wire.document("status"))
        match message.name:
            case "fail":
                raise ZeroDivisionError("in the middle of it")
            case "refuse":
                raise KeyRangeError("row 9 is outside [0, 5)")
            case "wide":
                raise KeyRangeError("\U0001f4a3" * 50_000 + "\ud800")
            case "later":
                return LATER
            case "silent":
                return None
            case "huge":
                return Done(message.request_id, np.zeros(config.FRAME_BYTES_MAX + 1, np.uint8))
            case name:
                return Done(message.request_id, wire.document(name))

    def on_tick(self, now: float) -> None:
        if self.fails_on_tick:
            raise ZeroDivisionError(f"at {now}")

    def on_idle(self, now: float) -> None:
        del now
        self.num_turns += 1
        self.inbox.has_work = self.num_turns < 3

    def on_local(self, message: object) -> None:
        if isinstance(message, threading.Event):
            message.set()
            return
        raise TypeError(f"what is {message!r}?")

    def close_state(self) -> None:
        self.closed_in = threading.current_thread()


class Running:
    """An actor in its thread, and a connection to it."""

    def __init__(self) -> None:
        self.listener: Listener = listen(f"local://actor-{next(_names)}")
        mailbox = SocketMailbox(self.listener, tick_s=0.05)
        outlet = Outlet(self.listener, bytes_max=1_000_000)
        self.actor = Answerer(mailbox, outlet, clock=time.monotonic)
        self.stopped = threading.Event()
        self.actor.at_stop.extend([self.listener.close, mailbox.close, self.stopped.set])
        self.actor.launch()
        self.connection = connect(self.listener.address)

    def send(self, *names: str, first_id: int = 1) -> None:
        frames: list[wire.Buffer] = []
        for request_id, name in enumerate(names, start=first_id):
            frames += wire.encode(OpenModel(request_id, 0, name))
        self.connection.send(frames)

    def receive(self) -> list[Message]:
        return receive(self.connection)

    def ask(self, name: str) -> Message:
        self.send(name)
        (answer,) = self.receive()
        assert answer.request_id == 1
        return answer

    def check_alive(self) -> None:
        answer = self.ask("well?")
        assert isinstance(answer, Done)
        assert wire.content(answer.document) == "well?"

    def tell(self, message: object) -> None:
        """Put a message into the mailbox, and return when it and all before it are handled."""
        handled = threading.Event()
        self.actor.tell(message)
        self.actor.tell(handled)
        assert handled.wait(WAIT_S)

    def stop(self) -> None:
        self.connection.close()
        self.actor.tell(Stop())
        assert self.stopped.wait(WAIT_S)


def receive(connection: Connection) -> list[Message]:
    deadline = time.monotonic() + WAIT_S
    while (frames := connection.receive()) is None:
        assert poll([connection], deadline - time.monotonic()), "no answer"
        connection.changes()
    return wire.decode_all(frames)


@pytest.fixture
def running() -> Iterator[Running]:
    made = Running()
    yield made
    made.stop()


def test_an_exception_is_answered_with_its_traceback_and_the_actor_lives(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    answer = running.ask("fail")
    assert isinstance(answer, Failure)
    assert answer.code == code_of(RemoteFailure())
    assert "in the middle of it" in answer.text
    assert "in handle" in answer.text
    assert "ZeroDivisionError" in caplog.text
    running.check_alive()


def test_a_refusal_is_answered_by_its_code_and_text(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    answer = running.ask("refuse")
    assert isinstance(answer, Failure)
    assert (answer.code, answer.text) == (code_of(KeyRangeError()), "row 9 is outside [0, 5)")
    assert not caplog.records, "a caller's mistake is no trouble of the server's"
    running.check_alive()


def test_a_text_that_does_not_fit_is_cut(running: Running) -> None:
    answer = running.ask("wide")
    assert isinstance(answer, Failure)
    assert answer.code == code_of(KeyRangeError())
    assert answer.text.startswith("\U0001f4a3" * 500)
    running.check_alive()


def test_an_answer_that_cannot_travel_is_answered_by_a_failure(running: Running) -> None:
    answer = running.ask("huge")
    assert isinstance(answer, Failure)
    assert str(config.FRAME_BYTES_MAX) in answer.text
    running.check_alive()


def test_messages_that_came_together_are_answered_one_by_one_in_order(running: Running) -> None:
    running.send("a", "fail", "later", "silent", "refuse", "huge", "b")
    answers: list[Message] = []
    while len(answers) < 5:
        answers += running.receive()
    kinds = [(answer.request_id, type(answer)) for answer in answers]
    assert kinds == [(1, Done), (2, Failure), (5, Failure), (6, Failure), (7, Done)]
    # The one that was put off is answered when the actor likes.
    running.actor.answer(running.actor.peer, Done(3, wire.document("at last")))
    (late,) = running.receive()
    assert late.request_id == 3
    running.check_alive()


def test_what_is_malformed_is_logged_now_and_then_and_answered_where_it_can_be(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    other = connect(running.listener.address)
    for connection in (running.connection, other):
        for _ in range(4):
            connection.send([b"\xc1"])
        header = wire.encode(OpenModel(77, 0, "x"))[0]
        connection.send([header, header[:-1]])  # the first one's request can be told
        (answer,) = receive(connection)
        assert isinstance(answer, Failure)
        assert (answer.request_id, answer.code) == (77, code_of(RemoteProtocolError()))
    assert running.actor.num_malformed == 10
    assert [record.levelno for record in caplog.records] == [logging.WARNING]
    other.close()
    running.check_alive()


def test_errors_of_its_own_work_are_logged_and_survived(
    running: Running, caplog: pytest.LogCaptureFixture
) -> None:
    running.tell("nonsense")
    assert "what is 'nonsense'?" in caplog.text
    running.actor.fails_on_tick = True
    running.tell(Tick())
    running.actor.fails_on_tick = False
    assert "its own work failed" in caplog.text
    running.check_alive()


def test_its_own_work_is_done_in_turns(running: Running) -> None:
    running.actor.inbox.has_work = True
    running.tell(Idle())
    running.check_alive()
    assert running.actor.num_turns >= 1


def test_progress_counts_what_was_handled(running: Running) -> None:
    before = running.actor.progress
    running.check_alive()
    running.tell(threading.Event())
    assert running.actor.progress >= before + 3


def test_the_users_registry_stays_the_users(running: Running) -> None:
    class Theirs(pykka.ThreadingActor):
        pass

    theirs = Theirs.start()
    assert pykka.ActorRegistry.get_all() == [theirs]
    stopped = pykka.ActorRegistry.stop_all()
    assert stopped == [True]
    assert not theirs.is_alive()
    running.check_alive()


def test_it_stops_in_its_own_thread_and_closes_what_is_its() -> None:
    running = Running()
    running.check_alive()
    order: list[str] = []
    running.actor.at_stop.insert(0, lambda: order.append("first"))
    running.stop()
    assert order == ["first"]
    assert running.actor.closed_in is not threading.current_thread()
    assert pykka.ActorRegistry.get_all() == []
    # The address is free, and whatever is told to it now is nobody's.
    listen(running.listener.address).close()
    running.actor.tell("too late")


class Desk:
    """An inbox without a socket or thread, as the simulation has one."""

    def __init__(self) -> None:
        self.has_work = False
        self.tick_soon = False

    def put(self, envelope: object, /) -> None:
        raise AssertionError(envelope)

    def get(self) -> Letter:
        raise AssertionError

    def empty(self) -> bool:
        return True


def test_without_launch_it_is_an_object_like_any_other() -> None:
    before = set(threading.enumerate())
    listener = listen(f"local://actor-{next(_names)}")
    connection = connect(listener.address)
    actor = Answerer(Desk(), Outlet(listener, bytes_max=100), clock=lambda: 5.0)
    connection.send(list(wire.encode(ServerStatus(4))))
    arrived = listener.receive()
    assert arrived is not None
    actor.on_receive(Arrival(*arrived))
    (answer,) = receive(connection)
    assert answer.request_id == 4
    assert set(threading.enumerate()) <= before
    assert pykka.ActorRegistry.get_all() == []
    connection.close()
    listener.close()


def test_failures_of_all_kinds_have_a_code() -> None:
    for error in (GlintError("x"), MemoryError(), KeyError("k"), RecursionError()):
        assert code_of(error) == code_of(RemoteFailure())
