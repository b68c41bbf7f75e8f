"""Answers on their way out, kept in order and within bounds for peers that read slowly; knows no message."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from typing import Protocol

from glintpy.transport import Delivery

Buffer = bytes | bytearray | memoryview


class Sender(Protocol):
    """What it needs of a listener."""

    def send(self, peer: bytes, frames: Sequence[Buffer]) -> Delivery:
        """Send to a peer that has sent something before."""
        ...


class Outlet:
    """Sends to peers; never waits for one.

    What a slow peer doesn't take is kept, up to a number of bytes a peer; what exceeds it is dropped and
    counted. A client notices by its probe and asks again, so nothing is lost but the slow client's time.
    """

    def __init__(self, listener: Sender, *, bytes_max: int) -> None:
        self._listener = listener
        self._bytes_max = bytes_max
        self._queues: dict[bytes, deque[list[Buffer]]] = {}
        self._sizes: dict[bytes, int] = {}
        self.num_dropped = 0
        self.num_bytes = 0

    def send(self, peer: bytes, frames: Sequence[Buffer]) -> bool:
        """Send, or keep for later; False if the peer is gone or has too much waiting already."""
        if peer in self._queues:
            return self._keep(peer, list(frames))
        delivery = self._listener.send(peer, frames)
        if delivery is Delivery.BUSY:
            return self._keep(peer, list(frames))
        if delivery is Delivery.SENT:
            self.num_bytes += _length(frames)
        return delivery is Delivery.SENT

    def flush(self) -> None:
        """Try again what was kept."""
        for peer in list(self._queues):
            queue = self._queues[peer]
            while queue:
                delivery = self._listener.send(peer, queue[0])
                if delivery is Delivery.BUSY:
                    break
                if delivery is Delivery.GONE:
                    queue.clear()
                    break
                length = _length(queue.popleft())
                self._sizes[peer] -= length
                self.num_bytes += length
            if not queue:
                del self._queues[peer], self._sizes[peer]

    @property
    def is_waiting(self) -> bool:
        """Whether anything is kept."""
        return bool(self._queues)

    @property
    def backlog_bytes(self) -> int:
        """Bytes kept for all peers."""
        return sum(self._sizes.values())

    def _keep(self, peer: bytes, frames: list[Buffer]) -> bool:
        length = _length(frames)
        size = self._sizes.get(peer, 0)
        if size + length > self._bytes_max:
            self.num_dropped += 1
            return False
        self._queues.setdefault(peer, deque()).append(frames)
        self._sizes[peer] = size + length
        return True


def _length(frames: Sequence[Buffer]) -> int:
    return sum(map(len, frames))
