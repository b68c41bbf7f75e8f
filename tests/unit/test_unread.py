"""A connection that sends what nobody reads is cut at its limit, and none that is read ever is."""

from __future__ import annotations

import socket
import sys
import time
from collections.abc import Iterator

import pytest

from glintpy.config import KIB, MIB, ServerSettings
from glintpy.testing.waiting import deliver, poll, receive_from, until
from glintpy.transport import Delivery, connect, listen
from glintpy.transport.unread import UnreadGuard, UnreadLimits, traffic_of, wire_bytes
from tests.cluster.raw_sockets import connected, greeted, message

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="the kernel's counter is Linux's")


def received(fileno: int) -> int | None:
    traffic = traffic_of(fileno)
    return None if traffic is None else traffic.received


LIMITS = UnreadLimits(unfinished=1000, each=5000, total=12_000)


class Lines:
    """TCP connections within this process."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.ends: list[tuple[socket.socket, socket.socket]] = []

    def open(self) -> tuple[socket.socket, socket.socket]:
        """Return the end that sends and the one that is watched."""
        sender = socket.create_connection(self._listener.getsockname())
        self.ends.append((sender, self._listener.accept()[0]))
        return self.ends[-1]

    def close(self) -> None:
        for pair in self.ends:
            for end in pair:
                end.close()
        self._listener.close()


@pytest.fixture
def lines() -> Iterator[Lines]:
    lines = Lines()
    yield lines
    lines.close()


def put(sender: socket.socket, watched: socket.socket, num_bytes: int) -> None:
    """Send, and take it from the kernel as libzmq does."""
    sender.sendall(bytes(num_bytes))
    while num_bytes:
        num_bytes -= len(watched.recv(num_bytes))


def is_open(sender: socket.socket) -> bool:
    sender.setblocking(False)
    try:
        return bool(sender.recv(1))
    except BlockingIOError:
        return True
    finally:
        sender.setblocking(True)


def test_the_kernel_counts_what_it_received(lines: Lines) -> None:
    sender, watched = lines.open()
    assert received(watched.fileno()) == 0
    put(sender, watched, 70_000)
    assert received(watched.fileno()) == 70_000
    assert received(0) is None
    assert received(-1) is None


def test_a_message_that_does_not_end_is_cut_at_its_limit(lines: Lines) -> None:
    guard = UnreadGuard(LIMITS)
    sender, watched = lines.open()
    guard.opened(watched.fileno())
    put(sender, watched, 1000)
    assert guard.look(drained=True) == []
    put(sender, watched, 1)
    assert guard.look(drained=True) == [watched.fileno()]
    assert not is_open(sender)
    assert guard.look(drained=True) == []  # once
    assert guard.num_cut == 1


def test_messages_that_wait_have_a_wider_limit(lines: Lines) -> None:
    guard = UnreadGuard(LIMITS)
    sender, watched = lines.open()
    guard.opened(watched.fileno())
    put(sender, watched, 5000)
    assert guard.look(drained=False) == []
    guard.read(watched.fileno(), 2000)
    put(sender, watched, 2000)
    assert guard.look(drained=False) == []
    put(sender, watched, 1)
    assert guard.look(drained=False) == [watched.fileno()]


def test_what_is_read_never_adds_up(lines: Lines) -> None:
    guard = UnreadGuard(LIMITS)
    sender, watched = lines.open()
    guard.opened(watched.fileno())
    for _ in range(50):
        put(sender, watched, 700)
        guard.read(watched.fileno(), 690)  # signs of life take the rest
        assert guard.look(drained=True) == []
    assert is_open(sender)


def test_what_the_kernel_holds_is_not_counted(lines: Lines) -> None:
    guard = UnreadGuard(LIMITS)
    sender, watched = lines.open()
    guard.opened(watched.fileno())
    sender.sendall(bytes(1500))
    until(lambda: received(watched.fileno()) == 1500, what="arrival")
    assert guard.look(drained=True) == []
    watched.recv(1500)
    assert guard.look(drained=True) == [watched.fileno()]


def test_of_many_together_the_one_farthest_ahead_is_cut(lines: Lines) -> None:
    guard = UnreadGuard(LIMITS)
    pairs = [lines.open() for _ in range(3)]
    for (sender, watched), num_bytes in zip(pairs, (4000, 4500, 3500), strict=True):
        guard.opened(watched.fileno())
        put(sender, watched, num_bytes)
    assert guard.look(drained=False) == []
    put(*pairs[0], 1)
    assert guard.look(drained=False) == [pairs[1][1].fileno()]
    assert [is_open(sender) for sender, _ in pairs] == [True, False, True]
    assert guard.look(drained=False) == []


def test_a_closed_connection_is_forgotten(lines: Lines) -> None:
    guard = UnreadGuard(LIMITS)
    sender, watched = lines.open()
    guard.opened(watched.fileno())
    put(sender, watched, 2000)
    guard.closed(watched.fileno())
    guard.read(watched.fileno(), 5)
    assert guard.look(drained=True) == []
    assert guard.num_connections == 0
    assert is_open(sender)


def test_limits_grow_with_what_a_server_grants() -> None:
    assert UnreadLimits.of(ServerSettings()) == UnreadLimits()
    wide = UnreadLimits.of(ServerSettings(budget_bytes=2048 * MIB, window_bytes_max=1024 * MIB))
    assert wide.each == 3 * 1024 * MIB
    assert wide.total == 2 * 2048 * MIB
    assert UnreadLimits.of(ServerSettings(budget_bytes=MIB, window_bytes_max=MIB)) == UnreadLimits()


def test_lengths_are_those_on_the_wire() -> None:
    """As libzmq sends them: counted by the kernel at the other end."""
    listener, connection = listen("tcp://127.0.0.1:0"), connect("tcp://127.0.0.1:1")
    connection.close()
    connection = connect(listener.address)
    try:
        frames = [b"", b"x" * 255, b"y" * 256, bytes(MIB)]
        deliver(connection, [b"first"])
        receive_from(listener)
        fileno = next(iter(listener._filenos.values()))  # type: ignore[attr-defined]  # only a ZeroMQ one has it
        before = received(fileno)
        assert before is not None
        connection.send(frames)
        receive_from(listener)
        assert received(fileno) == before + wire_bytes(frames) == before + 2 + 257 + 265 + MIB + 9
    finally:
        connection.close()
        listener.close()


def test_a_listener_cuts_who_sends_without_end_and_reads_on_from_others() -> None:
    listener = listen("tcp://127.0.0.1:0", limits=UnreadLimits(unfinished=64 * KIB, each=MIB, total=2 * MIB))
    good, much = connect(listener.address), connect(listener.address)
    try:
        deliver(good, [b"hello"])
        peer, _ = receive_from(listener)
        deliver(much, [bytes(60 * KIB)] * 2)  # a whole message may be longer than an unfinished one
        receive_from(listener)
        # The monitor may tell of a connection later than it brings its first message.
        until(lambda: not listener.num_disconnects() and num_connections(listener) == 2, what="word of both")
        # Whole messages that nobody reads: the listener looks at its connections when it is asked for the next.
        for _ in range(40):
            while much.send([bytes(60 * KIB)]).value == "busy":
                poll([much], 0.01)
        until(lambda: received_total(listener) >= 40 * 60 * KIB, what="arrival of it all")
        deadline = time.monotonic() + 30
        while not listener.num_disconnects():
            assert time.monotonic() < deadline
            listener.receive()
            poll([listener], 0.05)
        assert peer
        for _ in range(200):  # more than any limit, read one by one
            deliver(good, [bytes(60 * KIB)])
            while receive_from(listener)[0] != peer:
                pass
        assert listener.num_disconnects() == 1
    finally:
        good.close()
        much.close()
        listener.close()


def num_connections(listener: object) -> int:
    return len(listener._guard._connections)  # type: ignore[attr-defined]  # only a ZeroMQ one has it


def received_total(listener: object) -> int:
    guard = listener._guard  # type: ignore[attr-defined]  # only a ZeroMQ one has it
    return sum(received(fileno) or 0 for fileno in guard._connections)


# --- the other direction ------------------------------------------------------------------------------------


def test_a_peer_that_does_not_read_is_busy_at_its_limit_and_ready_again_when_it_has_read(
    lines: Lines,
) -> None:
    guard = UnreadGuard(UnreadLimits(unsent=100_000))
    reader, watched = lines.open()
    fileno = watched.fileno()
    guard.opened(fileno)
    guard.sent(fileno, 100_000)  # to libzmq, which has not sent it
    assert not guard.is_full(fileno)
    guard.sent(fileno, 1)
    assert guard.is_full(fileno)
    watched.sendall(bytes(60_000))
    read(reader, 60_000)
    until(lambda: not guard.is_full(fileno), what="acknowledgement")
    guard.sent(fileno, 60_000)
    assert guard.is_full(fileno)
    assert guard.closed(fileno) is False  # not much
    assert not guard.is_full(fileno)


def test_what_is_sent_without_being_noted_gives_no_room_for_later(lines: Lines) -> None:
    guard = UnreadGuard(UnreadLimits(unsent=1000))
    reader, watched = lines.open()
    fileno = watched.fileno()
    guard.opened(fileno)
    watched.sendall(bytes(50_000))
    read(reader, 50_000)
    until(lambda: (traffic_of(fileno) or (0,))[0] >= 50_000, what="acknowledgement")
    guard.look(drained=True)
    guard.sent(fileno, 1001)
    assert guard.is_full(fileno)


def test_the_end_of_a_connection_that_held_much_is_told(lines: Lines) -> None:
    guard = UnreadGuard(UnreadLimits())
    _, watched = lines.open()
    guard.opened(watched.fileno())
    guard.sent(watched.fileno(), 9 * MIB)
    assert guard.closed(watched.fileno())
    assert not guard.closed(watched.fileno())


def test_a_listener_holds_a_number_of_bytes_for_a_peer_and_not_of_messages() -> None:
    listener = listen("tcp://127.0.0.1:0", limits=UnreadLimits(unsent=8 * MIB))
    stranger = greeted(listener.address)
    try:
        stranger.sendall(message([b"hello"]))
        peer, _ = receive_from(listener)
        num_sent = 0
        while listener.send(peer, [bytes(MIB)]) is Delivery.SENT:
            num_sent += 1
        assert (
            8 <= num_sent < 64
        )  # what the kernels hold is ahead, too; 256 and more without a limit on bytes
        read(stranger, num_sent * (MIB + 9))
        until(lambda: listener.send(peer, [bytes(MIB)]) is Delivery.SENT, what="room")
        read(stranger, MIB + 9)
    finally:
        stranger.close()
        listener.close()


def read(reader: socket.socket, num_bytes: int) -> None:
    while num_bytes:
        num_bytes -= len(reader.recv(num_bytes))


def test_strangers_who_come_and_go_while_nobody_looks_hold_up_nobody() -> None:
    """libzmq's one I/O thread blocks when 2,000 events of a monitor wait, unless it is told that they may."""
    listener = listen("tcp://127.0.0.1:0")
    try:
        for _ in range(1100):  # each comes, and goes: two events
            with connected(listener.address) as stranger:
                stranger.sendall(b"GET / HTTP/1.1\r\n\r\n")
        greeted(listener.address).close()
        until(lambda: listener.num_disconnects() >= 1100, listener, what="news of all")
    finally:
        listener.close()
