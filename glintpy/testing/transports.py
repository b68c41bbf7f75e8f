"""What every transport must satisfy, as tests to inherit; knows of one only the interface and its addresses."""

from __future__ import annotations

import random
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from glintpy.errors import ConfigError
from glintpy.testing.waiting import STEP_S, WAIT_S, deliver, poll, receive, receive_from, until
from glintpy.transport import Connection, Delivery, Listener, connect, listen
from glintpy.transport.base import Buffer

NUM_ORDERED = 3000
"""Messages of the tests of order: more than any queue on the way holds."""


class Ends:
    """Listeners and connections that are closed when a test ends.

    Args:
        address: where to listen; with port 0 each listener has its own.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        self._open: list[Listener | Connection] = []

    def listen(self, address: str | None = None) -> Listener:
        """Return a new listener.

        Args:
            address: None: the test's own.
        """
        made = listen(address or self.address)
        self._open.append(made)
        return made

    def connect(self, address: str, *, is_up: bool = True) -> Connection:
        """Return a new connection.

        Args:
            address: of a listener.
            is_up: wait until it is.
        """
        made = connect(address)
        self._open.append(made)
        if is_up:
            until(lambda: True in made.changes(), made, what="connection")
        return made

    def pair(self) -> tuple[Listener, Connection, bytes]:
        """Return a listener, a connection to it, and the peer that the listener knows it as."""
        listener = self.listen()
        connection = self.connect(listener.address)
        deliver(connection, [b"first"])
        peer, frames = receive_from(listener)
        assert frames == [b"first"]
        return listener, connection, peer

    def close(self, end: Listener | Connection) -> None:
        """Close an end now.

        Args:
            end: one that was made here.
        """
        self._open.remove(end)
        end.close()

    def close_all(self) -> None:
        """Close what is open."""
        while self._open:
            self._open.pop().close()


class TransportTests(ABC):
    """Inherit it in a test module, say where to listen, and pytest runs the rest.

    ::

        class TestMine(TransportTests):
            def new_address(self, folder):
                return "tcp://127.0.0.1:0"
    """

    @abstractmethod
    def new_address(self, folder: Path) -> str:
        """Return an address that nobody listens at.

        Args:
            folder: an empty one of the test's own.
        """

    @pytest.fixture
    def ends(self, tmp_path: Path) -> Iterator[Ends]:
        """Close whatever a test opens."""
        made = Ends(self.new_address(tmp_path))
        yield made
        made.close_all()

    def test_messages_keep_their_order_both_ways(self, ends: Ends) -> None:
        """Also when there are more than fit into the queues: what was SENT arrives, once, in order."""
        listener, connection, peer = ends.pair()
        _flood(
            connection.send,
            lambda: None if (found := listener.receive()) is None else found[1],
            (listener, connection),
        )
        _flood(lambda frames: listener.send(peer, frames), connection.receive, (connection, listener))

    def test_each_of_many_peers_gets_its_own_answers(self, ends: Ends) -> None:
        """Peers differ, and keep their names from message to message."""
        listener = ends.listen()
        connections = [ends.connect(listener.address) for _ in range(24)]
        peers: dict[bytes, bytes] = {}
        for round_number in range(3):
            for number, connection in enumerate(connections):
                deliver(connection, [str(number).encode()])
            for _ in connections:
                peer, frames = receive_from(listener)
                assert peers.setdefault(frames[0], peer) == peer
                assert listener.send(peer, [b"for", frames[0]]) is Delivery.SENT
            for number, connection in enumerate(connections):
                assert receive(connection) == [b"for", str(number).encode()], f"round {round_number}"
        assert len(set(peers.values())) == len(connections)

    def test_large_frames_arrive_whole(self, ends: Ends) -> None:
        """Several megabytes, beside small ones and of every kind of buffer."""
        listener, connection, peer = ends.pair()
        block = random.Random(5).randbytes(5_000_001)  # noqa: S311 - bytes to compare, not a secret
        frames: list[Buffer] = [block, b"small", bytearray(block[:70_000]), memoryview(block)[:3_000_000]]
        expected = [bytes(frame) for frame in frames]
        assert connection.send(frames) is Delivery.SENT
        assert receive_from(listener) == (peer, expected)
        assert listener.send(peer, frames) is Delivery.SENT
        assert receive(connection) == expected

    def test_empty_frames_and_messages_of_many_frames_arrive_as_they_are(self, ends: Ends) -> None:
        """The number of frames is part of the message."""
        listener, connection, peer = ends.pair()
        many = [str(number).encode() * (number % 3) for number in range(500)]
        for frames in ([b""], [b"", b""], [b"", b"x", b""], many):
            assert connection.send(frames) is Delivery.SENT
            assert receive_from(listener) == (peer, frames)
            assert listener.send(peer, frames) is Delivery.SENT
            assert receive(connection) == frames

    def test_a_peer_that_vanished_is_gone_and_others_are_not(self, ends: Ends) -> None:
        """Never a silent drop; a name that never was is gone too."""
        listener, connection, peer = ends.pair()
        other = ends.connect(listener.address)
        deliver(other, [b"other"])
        other_peer, _ = receive_from(listener)
        ends.close(connection)

        def is_gone() -> bool:
            assert listener.receive() is None  # the end stands behind the last message
            return listener.send(peer, [b"x"]) is Delivery.GONE

        until(is_gone, listener, what="news of the end")
        assert listener.send(b"nobody", [b"x"]) is Delivery.GONE
        assert listener.send(other_peer, [b"still here"]) is Delivery.SENT
        assert receive(other) == [b"still here"]

    def test_a_peer_that_does_not_read_is_busy_and_no_others_problem(self, ends: Ends) -> None:
        """A sender never waits, and nothing that was SENT is lost."""
        listener, connection, peer = ends.pair()
        other = ends.connect(listener.address)
        deliver(other, [b"other"])
        other_peer, _ = receive_from(listener)
        num_sent = _send_until_busy(lambda frames: listener.send(peer, frames))
        assert listener.send(other_peer, [b"you read"]) is Delivery.SENT
        assert receive(other) == [b"you read"]
        for number in range(num_sent):
            assert receive(connection)[0] == str(number).encode()
        until(lambda: listener.send(peer, [b"again"]) is Delivery.SENT, listener, connection, what="room")
        assert receive(connection) == [b"again"]

    def test_a_listener_that_does_not_read_is_busy(self, ends: Ends) -> None:
        """The same the other way."""
        listener, connection, _ = ends.pair()
        num_sent = _send_until_busy(connection.send)
        for number in range(num_sent):
            assert receive_from(listener)[1][0] == str(number).encode()
        until(lambda: connection.send([b"again"]) is Delivery.SENT, listener, connection, what="room")
        assert receive_from(listener)[1] == [b"again"]

    def test_a_connection_waits_for_a_listener_that_comes_later(self, ends: Ends) -> None:
        """Nothing is accepted before, and the coming up is news."""
        first = ends.listen()
        address = first.address
        ends.close(first)
        connection = ends.connect(address, is_up=False)
        assert connection.send([b"too early"]) is not Delivery.SENT
        assert connection.receive() is None
        listener = ends.listen(address)
        until(lambda: True in connection.changes(), connection, what="connection")
        deliver(connection, [b"now"])
        assert receive_from(listener)[1] == [b"now"]

    def test_a_listener_goes_and_comes_back_at_its_address(self, ends: Ends) -> None:
        """A down is told, then an up, and messages flow again; each of them fires a descriptor."""
        listener, connection, _ = ends.pair()
        for round_number in range(3):
            address = listener.address
            _quiet(connection)
            ends.close(listener)
            seen = _changes_until(connection, is_up=False)
            assert seen[0] is False, f"round {round_number}: {seen}"
            # News of the end may overtake the end itself, as a thread of the library's own brings both.
            until(lambda: connection.send([b"into the void"]) is not Delivery.SENT, connection, what="end")
            listener = ends.listen(address)
            assert listener.address == address
            _changes_until(connection, is_up=True)
            deliver(connection, [b"back"])
            peer, frames = receive_from(listener)
            assert frames == [b"back"], "what was sent while nobody listened must not turn up"
            assert listener.send(peer, [b"welcome"]) is Delivery.SENT
            assert receive(connection) == [b"welcome"]

    def test_ended_connections_are_counted_and_wake_the_listener(self, ends: Ends) -> None:
        """Growth is the only news of a death."""
        listener, connection, _ = ends.pair()
        connections = [connection, *(ends.connect(listener.address) for _ in range(3))]
        for ended in connections:
            assert listener.receive() is None
            before = listener.num_disconnects()
            ends.close(ended)
            deadline = time.monotonic() + WAIT_S
            while listener.num_disconnects() == before:
                # As a mailbox does: whatever fired is read before the next poll.
                assert listener.receive() is None
                assert poll([listener], deadline - time.monotonic()), "nothing told of the end"
            assert listener.num_disconnects() == before + 1

    def test_an_address_that_is_taken_is_refused(self, ends: Ends) -> None:
        """And whoever has it keeps it, with its peers."""
        listener, connection, peer = ends.pair()
        with pytest.raises(ConfigError, match=r"taken|in use|listens there already"):
            ends.listen(listener.address)
        assert connection.send([b"still mine?"]) is Delivery.SENT
        assert receive_from(listener) == (peer, [b"still mine?"])

    def test_an_address_is_free_as_soon_as_its_listener_is_closed(self, ends: Ends) -> None:
        """A server that is restarted must not fail on its own shadow, nor lose its address to it later."""
        address = ends.address
        for _ in range(20):
            listener = ends.listen(address)
            address = listener.address
            connection = ends.connect(address)
            deliver(connection, [b"hello"])
            receive_from(listener)
            ends.close(connection)
            ends.close(listener)

    def test_descriptors_wake_a_poll_that_began_before(self, ends: Ends) -> None:
        """Receive until None, then poll: then each arrival ends the poll, also after many sends."""
        listener, connection, peer = ends.pair()
        for number in range(200):
            name = [str(number).encode()]
            assert listener.receive() is None
            assert connection.send(name) is Delivery.SENT
            assert receive_from(listener) == (peer, name)
            assert connection.receive() is None
            assert listener.send(peer, name) is Delivery.SENT
            assert receive(connection) == name

    def test_closing_releases_every_descriptor(self, ends: Ends) -> None:
        """Round after round, with and without traffic."""
        warm_up = ends.pair()
        for end in warm_up[:2]:
            ends.close(end)
        before = self._num_descriptors()
        for _ in range(10):
            listener, _, peer = ends.pair()
            assert listener.send(peer, [b"never read"]) is Delivery.SENT
            ends.connect(listener.address, is_up=False)  # closed while it comes up
            ends.close_all()
        # Some libraries close theirs on a thread of their own.
        until(lambda: self._num_descriptors() <= before, what="end of the descriptors")

    @staticmethod
    def _num_descriptors() -> int:
        folder = Path("/proc/self/fd")
        if not folder.is_dir():
            pytest.skip("descriptors are counted in /proc")
        return len(list(folder.iterdir()))


def _quiet(connection: Connection) -> None:
    """Read all news, so that the next poll is about what comes."""
    while connection.changes() or connection.receive() is not None:
        pass


def _changes_until(connection: Connection, *, is_up: bool) -> list[bool]:
    """Return the changes up to the one that is waited for, woken by nothing but descriptors."""
    seen: list[bool] = []
    deadline = time.monotonic() + WAIT_S
    while is_up not in seen:
        seen += connection.changes()
        assert connection.receive() is None
        if is_up not in seen:
            assert poll([connection], deadline - time.monotonic()), f"no descriptor told of {is_up}; {seen}"
    return seen


def _send_until_busy(send: Callable[[Sequence[Buffer]], Delivery]) -> int:
    """Send numbered messages of 1 KiB until one is not accepted; return how many were."""
    filling = bytes(1024)
    for number in range(200_000):
        delivery = send([str(number).encode(), filling])
        if delivery is Delivery.BUSY:
            return number
        assert delivery is Delivery.SENT
    raise AssertionError("200,000 messages were accepted that nobody reads")


def _flood(
    send: Callable[[Sequence[Buffer]], Delivery],
    take: Callable[[], Sequence[Buffer] | None],
    ends: Sequence[Listener | Connection],
) -> None:
    """Send as fast as messages are accepted, and read as they come."""
    num_sent = num_received = 0
    deadline = time.monotonic() + WAIT_S
    while num_received < NUM_ORDERED:
        while num_sent < NUM_ORDERED and send([str(num_sent).encode()]) is Delivery.SENT:
            num_sent += 1
        while (frames := take()) is not None:
            assert [bytes(frame) for frame in frames] == [str(num_received).encode()]
            num_received += 1
        assert time.monotonic() < deadline, f"{num_received} of {num_sent} messages arrived"
        poll(ends, STEP_S)
