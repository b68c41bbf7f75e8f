"""``local://``: the same bytes between threads of one process, for tests and notebooks; knows no message."""

from __future__ import annotations

import itertools
import math
import threading
from collections import deque
from collections.abc import Sequence

from glintpy.errors import ConfigError
from glintpy.transport.base import Buffer, Delivery
from glintpy.transport.wakeup import Wakeup

MESSAGES_MAX = 1000
"""Messages waiting at one end from one peer; the marks of ZeroMQ's sockets have the same size."""

_lock = threading.RLock()
_listeners: dict[str, LocalListener] = {}
_waiting: list[LocalConnection] = []
_numbers = itertools.count(1)


class LocalListener:
    """A listener at a name of this process."""

    look_s = math.inf

    def __init__(self, address: str) -> None:
        if address.endswith("://*"):
            address = f"local://{next(_numbers)}"
        self.address = address
        self._wakeup = Wakeup()
        self._inbox: deque[tuple[bytes, list[Buffer]]] = deque()
        self._peers: dict[bytes, LocalConnection] = {}
        self._num_disconnects = 0
        self._num_told = 0
        with _lock:
            if address in _listeners:
                raise ConfigError(f"{address} is taken: somebody in this process listens there already")
            _listeners[address] = self
            for connection in [entry for entry in _waiting if entry.address == address]:
                _waiting.remove(connection)
                self.attach(connection)

    def filenos(self) -> list[int]:
        """Return the descriptor that fires when something arrives."""
        return [self._wakeup.fileno()]

    def receive(self) -> tuple[bytes, list[Buffer]] | None:
        """Return the next message as (peer, frames), or None."""
        with _lock:
            if self._inbox:
                return self._inbox.popleft()
            if self._num_told == self._num_disconnects:
                self._wakeup.clear()
            return None

    def send(self, peer: bytes, frames: Sequence[Buffer]) -> Delivery:
        """Put a copy of the frames into the peer's inbox."""
        copied: list[Buffer] = [bytes(frame) for frame in frames]
        with _lock:
            connection = self._peers.get(peer)
            return Delivery.GONE if connection is None else connection.accept(copied)

    def num_disconnects(self) -> int:
        """Return how many connections have ended so far."""
        with _lock:
            self._num_told = self._num_disconnects
            return self._num_told

    def close(self) -> None:
        """Drop every connection and everything that waits."""
        with _lock:
            if _listeners.get(self.address) is self:
                del _listeners[self.address]
            for connection in self._peers.values():
                connection.detached()
                _waiting.append(connection)
            self._peers.clear()
            self._inbox.clear()
            self._wakeup.close()

    def attach(self, connection: LocalConnection) -> None:
        """Take a connection; called with the module's lock held."""
        peer = next(_numbers).to_bytes(8, "little")
        self._peers[peer] = connection
        connection.attached(self, peer)

    def detach(self, peer: bytes) -> None:
        """Lose a connection; called with the module's lock held."""
        if self._peers.pop(peer, None) is not None:
            self._num_disconnects += 1
            self._wakeup.set()

    def accept(self, peer: bytes, frames: list[Buffer]) -> Delivery:
        """Put frames into the inbox; called with the module's lock held."""
        if len(self._inbox) >= MESSAGES_MAX * max(1, len(self._peers)):
            return Delivery.BUSY
        self._inbox.append((peer, frames))
        self._wakeup.set()
        return Delivery.SENT


class LocalConnection:
    """A connection to a name of this process."""

    def __init__(self, address: str) -> None:
        self.address = address
        self._wakeup = Wakeup()
        self._inbox: deque[list[Buffer]] = deque()
        self._changes: deque[bool] = deque()
        self._listener: LocalListener | None = None
        self._peer = b""
        with _lock:
            listener = _listeners.get(address)
            if listener is None:
                _waiting.append(self)
            else:
                listener.attach(self)

    def filenos(self) -> list[int]:
        """Return the descriptor that fires when something arrives or changes."""
        return [self._wakeup.fileno()]

    def changes(self) -> list[bool]:
        """Return ups and downs since the last call."""
        with _lock:
            found = list(self._changes)
            self._changes.clear()
            return found

    def receive(self) -> list[Buffer] | None:
        """Return the next message's frames, or None."""
        with _lock:
            if self._inbox:
                return self._inbox.popleft()
            if not self._changes:
                self._wakeup.clear()
            return None

    def send(self, frames: Sequence[Buffer]) -> Delivery:
        """Put a copy of the frames into the listener's inbox."""
        copied: list[Buffer] = [bytes(frame) for frame in frames]
        with _lock:
            if self._listener is None:
                return Delivery.GONE
            return self._listener.accept(self._peer, copied)

    def close(self) -> None:
        """End the connection."""
        with _lock:
            if self in _waiting:
                _waiting.remove(self)
            if self._listener is not None:
                self._listener.detach(self._peer)
                self._listener = None
            self._wakeup.close()

    def attached(self, listener: LocalListener, peer: bytes) -> None:
        """Note that somebody listens now; called with the module's lock held."""
        self._listener, self._peer = listener, peer
        self._changes.append(True)
        self._wakeup.set()

    def detached(self) -> None:
        """Note that nobody listens any more; called with the module's lock held."""
        self._listener = None
        self._inbox.clear()
        self._changes.append(False)
        self._wakeup.set()

    def accept(self, frames: list[Buffer]) -> Delivery:
        """Put frames into the inbox; called with the module's lock held."""
        if len(self._inbox) >= MESSAGES_MAX:
            return Delivery.BUSY
        self._inbox.append(frames)
        self._wakeup.set()
        return Delivery.SENT
