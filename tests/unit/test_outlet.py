"""Answers reach slow peers in order and within bounds, and a slow peer is nobody else's problem."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import pytest

from glintpy.actors.outlet import Outlet
from glintpy.transport import Delivery
from glintpy.transport.base import Buffer


class FakeListener:
    """Takes what its peers have room for."""

    address = "fake"

    def __init__(self) -> None:
        self.room: dict[bytes, int] = defaultdict(lambda: 1_000_000)
        self.gone: set[bytes] = set()
        self.sent: dict[bytes, list[bytes]] = defaultdict(list)

    def filenos(self) -> list[int]:
        return []

    def receive(self) -> None:
        return None

    def num_disconnects(self) -> int:
        return 0

    def close(self) -> None:
        pass

    def send(self, peer: bytes, frames: Sequence[Buffer]) -> Delivery:
        if peer in self.gone:
            return Delivery.GONE
        if not self.room[peer]:
            return Delivery.BUSY
        self.room[peer] -= 1
        self.sent[peer].append(b"|".join(frames))
        return Delivery.SENT


@pytest.fixture
def listener() -> FakeListener:
    return FakeListener()


@pytest.fixture
def outlet(listener: FakeListener) -> Outlet:
    return Outlet(listener, bytes_max=10)


def test_what_a_peer_takes_is_sent_at_once(listener: FakeListener, outlet: Outlet) -> None:
    assert outlet.send(b"a", [b"one", b"two"])
    assert listener.sent[b"a"] == [b"one|two"]
    assert (outlet.num_bytes, outlet.backlog_bytes, outlet.is_waiting) == (6, 0, False)


def test_what_a_slow_peer_does_not_take_follows_in_order(listener: FakeListener, outlet: Outlet) -> None:
    listener.room[b"slow"] = 1
    for text in (b"1", b"2", b"3"):
        assert outlet.send(b"slow", [text])
    assert listener.sent[b"slow"] == [b"1"]
    assert (outlet.backlog_bytes, outlet.is_waiting) == (2, True)
    listener.room[b"slow"] = 1
    assert outlet.send(b"slow", [b"4"])  # there is room now, and others were before
    assert listener.sent[b"slow"] == [b"1"]
    outlet.flush()
    assert listener.sent[b"slow"] == [b"1", b"2"]
    listener.room[b"slow"] = 9
    outlet.flush()
    assert listener.sent[b"slow"] == [b"1", b"2", b"3", b"4"]
    assert (outlet.num_bytes, outlet.backlog_bytes, outlet.is_waiting) == (4, 0, False)
    assert outlet.send(b"slow", [b"5"])
    assert listener.sent[b"slow"][-1] == b"5"


def test_a_slow_peer_delays_nobody_else(listener: FakeListener, outlet: Outlet) -> None:
    listener.room[b"slow"] = 0
    outlet.send(b"slow", [b"x"])
    assert outlet.send(b"fast", [b"y"])
    outlet.flush()
    assert listener.sent == {b"fast": [b"y"]}


def test_what_is_kept_for_a_peer_is_bounded(listener: FakeListener, outlet: Outlet) -> None:
    for peer in (b"slow", b"slower"):
        listener.room[peer] = 0
        assert outlet.send(peer, [b"12345", b"678"])
        assert not outlet.send(peer, [b"901"])  # 11 bytes
        assert outlet.send(peer, [b"90"])  # 10 bytes
        assert not outlet.send(peer, [b"x"])
    assert outlet.backlog_bytes == 20
    assert outlet.num_dropped == 4
    listener.room[b"slow"] = 5
    outlet.flush()
    assert listener.sent[b"slow"] == [b"12345|678", b"90"]
    assert outlet.backlog_bytes == 10
    assert outlet.send(b"slow", [b"1234567890"])


def test_a_peer_that_is_gone_costs_nothing(listener: FakeListener, outlet: Outlet) -> None:
    listener.room[b"peer"] = 0
    outlet.send(b"peer", [b"kept"])
    listener.gone.add(b"peer")
    outlet.flush()
    assert (outlet.backlog_bytes, outlet.is_waiting, outlet.num_dropped) == (0, False, 0)
    assert not outlet.send(b"peer", [b"x"])
    assert (outlet.backlog_bytes, outlet.is_waiting, outlet.num_bytes) == (0, False, 0)
