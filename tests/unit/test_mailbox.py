"""A mailbox gives what arrives, what is put, ticks and turns for its actor's own work, and starves none."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from glintpy.actors.mailbox import Arrival, Letter, SocketMailbox, Tick
from glintpy.transport import Connection, Listener, connect, listen

FOR_EVER_S = 10_000.0

_names = itertools.count()


class Box:
    """A mailbox over a listener of this process, with a clock that the test moves."""

    def __init__(self) -> None:
        self.now = 0.0
        self.listener: Listener = listen(f"local://mailbox-{next(_names)}")
        self.mailbox = SocketMailbox(self.listener, tick_s=FOR_EVER_S, clock=lambda: self.now)
        self._connections: list[Connection] = []

    def connect(self) -> Connection:
        made = connect(self.listener.address)
        self._connections.append(made)
        return made

    def get(self) -> object:
        letter = self.mailbox.get()
        assert isinstance(letter, Letter)
        assert letter.reply_to is None
        return letter.message

    def texts(self, number: int) -> list[bytes | str]:
        """Return what the next messages are: an arrival's first frame, or a name."""
        found = [self.get() for _ in range(number)]
        return [bytes(one.frames[0]) if isinstance(one, Arrival) else type(one).__name__ for one in found]

    def close(self) -> None:
        for connection in self._connections:
            connection.close()
        self.listener.close()
        self.mailbox.close()


@pytest.fixture
def box() -> Iterator[Box]:
    made = Box()
    yield made
    made.close()


def test_what_arrives_is_given_in_order_with_its_peer(box: Box) -> None:
    connection, other = box.connect(), box.connect()
    for text in (b"1", b"2"):
        connection.send([text, b"x"])
    other.send([b"3"])
    first, second, third = box.get(), box.get(), box.get()
    assert isinstance(first, Arrival)
    assert isinstance(second, Arrival)
    assert isinstance(third, Arrival)
    assert (first.frames, second.frames, third.frames) == ([b"1", b"x"], [b"2", b"x"], [b"3"])
    assert first.peer == second.peer != third.peer
    box.listener.send(third.peer, [b"answer"])
    assert other.receive() == [b"answer"]


def test_time_is_told_whatever_arrives(box: Box) -> None:
    connection = box.connect()
    for _ in range(3):
        connection.send([b"m"])
    assert box.texts(1) == [b"m"]
    box.now = FOR_EVER_S
    assert box.texts(2) == ["Tick", b"m"]
    box.now = 2 * FOR_EVER_S - 0.1
    assert box.texts(1) == [b"m"]
    box.now = 2 * FOR_EVER_S
    assert box.texts(1) == ["Tick"]


def test_an_ended_connection_is_a_tick_at_once(box: Box) -> None:
    connection = box.connect()
    connection.send([b"last words"])
    connection.close()
    assert box.texts(2) == [b"last words", "Tick"]


def test_own_work_and_arrivals_take_turns(box: Box) -> None:
    connection = box.connect()
    for _ in range(3):
        connection.send([b"m"])
    box.mailbox.has_work = True
    assert box.texts(8) == [b"m", "Idle", b"m", "Idle", b"m", "Idle", "Idle", "Idle"]
    connection.send([b"late"])
    assert box.texts(3) == [b"late", "Idle", "Idle"]
    box.now = FOR_EVER_S
    assert box.texts(2) == ["Tick", "Idle"]
    box.mailbox.has_work = False
    connection.send([b"end"])
    assert box.texts(1) == [b"end"]


def test_what_is_put_comes_before_what_arrives(box: Box) -> None:
    box.connect().send([b"m"])
    for name in ("one", "two"):
        box.mailbox.put(Letter(name))
    assert [box.get(), box.get()] == ["one", "two"]
    assert box.texts(1) == [b"m"]


@pytest.mark.parametrize("how", ["put", "arrival", "end"])
def test_whatever_comes_wakes_a_mailbox_that_waits(box: Box, how: str) -> None:
    connection = box.connect()
    wake: dict[str, Callable[[], object]] = {
        "put": lambda: box.mailbox.put(Letter("hello")),
        "arrival": lambda: connection.send([b"hello"]),
        "end": connection.close,
    }
    with ThreadPoolExecutor(1) as pool:
        # Its next tick is hours away: only a wake-up ends this in time.
        waiting = pool.submit(box.get)
        wake[how]()
        found = waiting.result(timeout=60)
    assert found == "hello" if how == "put" else isinstance(found, Arrival if how == "arrival" else Tick)


def test_a_tick_comes_soon_when_the_actor_asks_for_it(box: Box) -> None:
    box.mailbox.tick_soon = True
    assert box.texts(2) == ["Tick", "Tick"]  # and not in hours


def test_it_is_empty_when_nothing_was_put_or_it_is_closed(box: Box) -> None:
    assert box.mailbox.empty()
    box.mailbox.put(Letter("x"))
    assert not box.mailbox.empty()
    box.mailbox.close()
    assert box.mailbox.empty()  # pykka drains until then
    box.mailbox.put(Letter("too late"))
    assert box.mailbox.empty()
