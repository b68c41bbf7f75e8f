"""Bounds what libzmq holds of each TCP connection, in both directions; knows descriptors and counts, no message.

libzmq's own marks count frames and whole messages, never the parts of a message: one that never ends, of frames
that each are small enough, took a server from 40 to 600 MB in a second, and its memory with it. So what the kernel
has received on a connection is compared with what came out of the socket, and a connection that is too far ahead is
shut down. libzmq then drops what it holds of it, as of any connection that breaks. In the other direction a peer that
doesn't read is busy as soon as so many bytes wait for it, where libzmq would take 256 messages of any size.

Linux only, since the kernel's counter is: elsewhere nothing is watched.
"""

from __future__ import annotations

import array
import contextlib
import ctypes
import logging
import os
import socket
import struct
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from typing import NamedTuple, Self

if sys.platform != "win32":
    import fcntl
    import termios

from glintpy import config

logger = logging.getLogger("glintpy.transport")

WINDOWS = 3
"""How many windows one connection may be ahead: a client that sends all it has again after a loss is not hostile."""

BUDGETS = 2
"""How many times what a server grants all of them together the connections may be ahead together."""

LOOK_S = 0.05
"""Between two looks. In that time a fast sender is ahead by as much again as it may be."""

LOOK_SHARE_MIN = 50
"""At least so many times longer than a look takes is the pause behind it: with thousands of connections it is rarer."""

LOOK_S_MAX = 0.5
"""The longest pause, whatever a look took on a busy machine."""

_TCP_INFO_BYTES = 192
_TRAFFIC, _TRAFFIC_OFFSET = struct.Struct("=QQ"), 120
"""``tcpi_bytes_acked`` and ``tcpi_bytes_received`` in Linux's ``struct tcp_info``; there since 4.1."""

MUCH_BYTES = 8 * config.MIB
"""Held of a connection that ends: from here on it is worth while to give memory back to the system."""


class Traffic(NamedTuple):
    """Bytes of a connection that its peer's machine has acknowledged, and that this one has received."""

    acknowledged: int
    received: int


@dataclass(frozen=True, slots=True)
class UnreadLimits:
    """What connections may have sent, in bytes of the wire.

    Attributes:
        unfinished: of one message that has not ended. The largest that is ever sent is a part with its index lists.
        each: of one connection, messages that wait to be read included.
        total: of all connections.
        unsent: handed to libzmq for one connection and not yet taken by its peer's machine: one window, which is all
            that a client with manners asks for.
    """

    unfinished: int = 2 * config.FRAME_BYTES_MAX
    each: int = WINDOWS * config.ServerSettings().window_bytes_max
    total: int = BUDGETS * config.ServerSettings().budget_bytes
    unsent: int = config.ServerSettings().window_bytes_max

    @classmethod
    def of(cls, settings: config.ServerSettings) -> Self:
        """Return those that fit what a server grants."""
        return cls(
            each=max(cls().each, WINDOWS * settings.window_bytes_max),
            total=max(cls().total, BUDGETS * settings.budget_bytes),
            unsent=max(cls().unsent, settings.window_bytes_max),
        )


@dataclass(slots=True)
class _Connection:
    """What is known of one.

    Attributes:
        base: what the kernel had received when that and what was read were last level.
        read: what has been read since then.
        sent: what was handed to libzmq, in the count of what the peer has acknowledged.
        acknowledged: by the peer's machine, when last asked.
    """

    base: int = 0
    read: int = 0
    sent: int = 0
    acknowledged: int = 0


class UnreadGuard:
    """Watches the connections that a listening socket has accepted.

    Args:
        limits: theirs.

    Threads:
        Belongs to the thread that owns the socket.
    """

    def __init__(self, limits: UnreadLimits) -> None:
        self._limits = limits
        self._connections: dict[int, _Connection] = {}
        self.num_cut = 0

    @property
    def num_connections(self) -> int:
        """How many connections there are."""
        return len(self._connections)

    def opened(self, fileno: int) -> None:
        """Note a connection."""
        self._connections[fileno] = _Connection()

    def closed(self, fileno: int) -> bool:
        """Forget a connection; whether much that was held of it is free now."""
        gone = self._connections.pop(fileno, None)
        return gone is not None and gone.sent - gone.acknowledged > MUCH_BYTES

    def read(self, fileno: int, num_bytes: int) -> None:
        """Note that so much of what a connection brought has been read."""
        connection = self._connections.get(fileno)
        if connection is not None:
            connection.read += num_bytes

    def sent(self, fileno: int, num_bytes: int) -> None:
        """Note that so much was handed to libzmq for a connection."""
        connection = self._connections.get(fileno)
        if connection is not None:
            connection.sent += num_bytes

    def is_full(self, fileno: int) -> bool:
        """Tell whether too much waits for a connection's peer already."""
        connection = self._connections.get(fileno)
        if connection is None or connection.sent - connection.acknowledged <= self._limits.unsent:
            return False
        self._level(connection, traffic_of(fileno))
        return connection.sent - connection.acknowledged > self._limits.unsent

    def look(self, *, drained: bool) -> list[int]:
        """Shut down the connections that are too far ahead, and the one farthest ahead if all together are.

        Args:
            drained: nothing waited to be read just now, so what is unread is the beginning of a message.

        Returns:
            Their descriptors.
        """
        unread = {fileno: self._unread(fileno, drained=drained) for fileno in self._connections}
        limit = self._limits.unfinished if drained else self._limits.each
        # What libzmq has not taken yet is in no memory of this process.
        cut = [
            fileno
            for fileno, num_bytes in unread.items()
            if num_bytes > limit and num_bytes - _kernel_bytes(fileno) > limit
        ]
        if not cut and sum(unread.values()) > self._limits.total:
            cut = [max(unread, key=lambda fileno: unread[fileno])]
        for fileno in cut:
            logger.warning(
                "cut a connection from %s, which sent %d bytes %s: the limits are %d for one and %d for all",
                _peer_of(fileno),
                unread[fileno],
                "that are no whole message" if drained else "that wait to be read",
                limit,
                self._limits.total,
            )
            _shut_down(fileno)
            self.closed(fileno)
            self.num_cut += 1
        return cut

    def _unread(self, fileno: int, *, drained: bool) -> int:
        traffic = traffic_of(fileno)
        if traffic is None:
            return 0
        connection = self._connections[fileno]
        self._level(connection, traffic)
        unread = traffic.received - connection.base - connection.read
        if unread < 0 or (drained and connection.read):
            # Level again: what the peer's own signs of life take on the wire must not add up for ever.
            connection.base, connection.read = traffic.received, 0
            return 0
        return unread

    @staticmethod
    def _level(connection: _Connection, traffic: Traffic | None) -> None:
        if traffic is not None:
            connection.acknowledged = traffic.acknowledged
            # libzmq sends a little by itself, which was never noted as sent.
            connection.sent = max(connection.sent, traffic.acknowledged)


def wire_bytes(frames: Iterable[bytes | bytearray | memoryview]) -> int:
    """Return what a message's frames take on the wire, ZMTP's lengths and flags included."""
    num_bytes = 0
    for frame in frames:
        length = len(frame)
        num_bytes += length + (2 if length < 256 else 9)
    return num_bytes


def traffic_of(fileno: int) -> Traffic | None:
    """Return what the kernel counts on a TCP connection; None if it doesn't say."""
    if _getsockopt is None:
        return None
    length = ctypes.c_uint(_TCP_INFO_BYTES)
    info = ctypes.create_string_buffer(_TCP_INFO_BYTES)
    failed = _getsockopt(fileno, socket.IPPROTO_TCP, socket.TCP_INFO, info, ctypes.byref(length))
    if failed or length.value < _TRAFFIC_OFFSET + _TRAFFIC.size:
        return None
    return Traffic(*_TRAFFIC.unpack_from(info, _TRAFFIC_OFFSET))


def _kernel_bytes(fileno: int) -> int:
    """Return how much of it libzmq has not taken yet: no memory of this process."""
    if sys.platform == "win32":
        return 0
    found = array.array("i", [0])
    try:
        fcntl.ioctl(fileno, termios.FIONREAD, found)
    except OSError:
        return 0
    return found[0]


def _peer_of(fileno: int) -> str:
    # A descriptor of its own: libzmq may close the other at any moment.
    try:
        with socket.socket(fileno=os.dup(fileno)) as connection:
            host, port, *_ = connection.getpeername()
    except (OSError, ValueError):
        return "an unknown peer"
    return f"{host}:{port}"


def _shut_down(fileno: int) -> None:
    # By a reset, when libzmq closes it: after an orderly end a peer that waits for room to send hears nothing for a
    # minute, as long as the kernel remembers the connection. On a descriptor of its own, as above.
    with contextlib.suppress(OSError), socket.socket(fileno=os.dup(fileno)) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("=ii", 1, 0))
        connection.shutdown(socket.SHUT_RDWR)


_getsockopt = ctypes.CDLL(None).getsockopt if sys.platform == "linux" else None
