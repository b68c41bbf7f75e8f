"""``tcp://`` and ``ipc://`` over ZeroMQ, a ROUTER that listens and DEALERs that connect; knows no message.

zmq lives here only, and its errors end here. Facts that shape this file (libzmq 4.3.5): its queues bound
messages, not bytes, and hold per peer; it loses what was queued when a connection breaks and tells nobody,
hence the monitors; a ROUTER without MANDATORY drops silently; a fixed routing id lets a second client with
the same one receive the first one's answers, hence none is ever set; the default linger keeps a process
with one undeliverable message from ever exiting.
"""

from __future__ import annotations

import itertools
import os
import struct
import threading
import time
from collections.abc import Sequence
from pathlib import Path

import zmq

from glintpy import config
from glintpy.errors import ConfigError
from glintpy.transport.allocator import give_back_memory, keep_freed_memory
from glintpy.transport.base import Buffer, Delivery
from glintpy.transport.unread import LOOK_S, LOOK_S_MAX, LOOK_SHARE_MIN, UnreadGuard, UnreadLimits, wire_bytes

LIBZMQ_VERSION: str = zmq.zmq_version()
"""Of the library under pyzmq."""

_EVENT = struct.Struct("=Hi")
"""What a monitor tells of an event: kind and value. pyzmq's own parser would do, but its module loads asyncio."""

COPY_BYTES_MAX = 16 * config.KIB
"""Frames up to this size are cheaper copied out of libzmq's memory than referred to there."""

SENT_COPY_BYTES_MAX = 768 * config.KIB
"""Frames up to this size are cheaper copied into it: what is sent by reference wakes up pyzmq's collector thread, which
takes the interpreter's lock from whoever works, and that costs as much as copying so much."""

MESSAGES_MAX = 256
"""Messages waiting for or from one peer. What matters is bounded in bytes, above: by granted windows."""

RECONNECT_FIRST_MS = 50
RECONNECT_LAST_MS = 250
HANDSHAKE_MS = 5000
"""A connection that doesn't speak ZMTP is dropped after this: the default of 30 s feeds exhaustion."""
DEAD_LINK_MS = 10_000
"""A connection whose peer acknowledges nothing for so long is dropped, however busy its sender is: ZMTP's own
heartbeats never notice a dead network while the send buffer is full."""

KEEPALIVE_S = (60, 10, 3)
"""Silence before the kernel asks whether an idle connection's other end is there, the pause between questions, and how
many may go unanswered: one whose machine has gone is closed after 90 s. Only the kernels talk, so a program that is
stopped or busy keeps its connection, which it wouldn't with ZMTP's heartbeats."""

CLOSE_MS = 1000
"""How long closing waits for libzmq to let go of an address; it takes less than one."""

TIDY_UP_S = (0.5, 2.0, 8.0)
"""After a connection has ended, memory is given back so much later: to free millions of small frames takes libzmq a
second, on a busy machine more, and nothing tells when it is done."""

PEERS_SLACK = 64
"""Peers that are gone may be remembered for so long as they are not more than these and those that are there."""

# As plain integers: pyzmq's own are enums, whose every | and & costs a microsecond.
_EVENTS = zmq.EVENTS
_POLLIN = int(zmq.POLLIN)
_DONTWAIT = int(zmq.DONTWAIT)
_DONTWAIT_MORE = int(zmq.DONTWAIT | zmq.SNDMORE)

_context: zmq.Context[zmq.Socket[bytes]] | None = None
_context_pid = 0
_context_lock = threading.Lock()


def _shared_context() -> zmq.Context[zmq.Socket[bytes]]:
    # One context a process: its I/O thread is shared. A forked child has neither the thread nor a right to
    # the parent's sockets, so it makes its own and never touches the inherited one, not even to close it.
    global _context, _context_pid
    with _context_lock:
        if _context is None or _context_pid != os.getpid():
            if _context is not None:
                _inherited.append(_context)
            keep_freed_memory()
            _context, _context_pid = zmq.Context(), os.getpid()
            _context.set(zmq.MAX_SOCKETS, 16_000)
        return _context


_inherited: list[zmq.Context[zmq.Socket[bytes]]] = []
"""Contexts of parent processes, kept so that no destructor ever runs on them."""


def _reset_lock_in_child() -> None:
    global _context_lock  # noqa: PLW0603 - another thread may have held it at the moment of the fork
    _context_lock = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_reset_lock_in_child)


def _new_socket(kind: int, address: str) -> zmq.Socket[bytes]:
    socket: zmq.Socket[bytes] = _shared_context().socket(kind)
    socket.set(zmq.LINGER, 0)
    socket.set(zmq.SNDHWM, MESSAGES_MAX)
    socket.set(zmq.RCVHWM, MESSAGES_MAX)
    socket.set(zmq.MAXMSGSIZE, config.FRAME_BYTES_MAX)
    socket.set(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    socket.set(zmq.TCP_MAXRT, DEAD_LINK_MS)
    socket.set(zmq.TCP_KEEPALIVE, 1)
    idle_s, interval_s, count = KEEPALIVE_S
    socket.set(zmq.TCP_KEEPALIVE_IDLE, idle_s)
    socket.set(zmq.TCP_KEEPALIVE_INTVL, interval_s)
    socket.set(zmq.TCP_KEEPALIVE_CNT, count)
    # With IPv6 allowed, 127.0.0.1 is bound, and shown to users, as [::ffff:127.0.0.1].
    socket.set(zmq.IPV6, int("[" in address or address.startswith("tcp://*")))
    return socket


def _monitor_of(socket: zmq.Socket[bytes], events: int) -> zmq.Socket[bytes]:
    """Return the socket that tells of a socket's connections.

    pyzmq's own way leaves it with the default mark of 1,000 messages at each end; libzmq's I/O thread, the only one of
    the process, *blocks* once 2,000 events wait, and with it every connection: that many strangers connecting while a
    server was busy were enough.
    """
    address = f"inproc://glintpy-monitor-{next(_monitor_numbers)}"
    socket.monitor(address, events)
    monitor: zmq.Socket[bytes] = _shared_context().socket(zmq.PAIR)
    monitor.set(zmq.RCVHWM, 0)
    monitor.connect(address)
    return monitor


_monitor_numbers = itertools.count()


def _send(socket: zmq.Socket[bytes], frames: Sequence[Buffer]) -> Delivery:
    """Send all frames or none."""
    last = len(frames) - 1
    try:
        for number, frame in enumerate(frames):
            flags = _DONTWAIT_MORE if number < last else _DONTWAIT
            socket.send(frame, flags, copy=len(frame) <= SENT_COPY_BYTES_MAX)
    except zmq.Again:
        return Delivery.BUSY
    except zmq.ZMQError as error:
        if error.errno == zmq.EHOSTUNREACH:
            return Delivery.GONE
        raise
    return Delivery.SENT


def _receive(socket: zmq.Socket[bytes]) -> list[Buffer] | None:
    frame = _first_frame(socket)
    return None if frame is None else [_taken(frame), *_other_frames(socket, frame)]


def _first_frame(socket: zmq.Socket[bytes]) -> zmq.Frame | None:
    # Asking first costs 2 us; being told by an exception, which is what most calls end with, 7.
    if not socket.get(_EVENTS) & _POLLIN:  # type: ignore[operator]  # this option is an int
        return None
    try:
        return socket.recv(_DONTWAIT, copy=False)
    except zmq.Again:
        return None


def _other_frames(socket: zmq.Socket[bytes], frame: zmq.Frame) -> list[Buffer]:
    frames = []
    while frame.more:  # the rest of a message is there when its beginning is
        frame = socket.recv(_DONTWAIT, copy=False)
        frames.append(_taken(frame))
    return frames


def _fileno_of(frame: zmq.Frame) -> int:
    """Return the descriptor of the connection that a frame came over, or -1."""
    try:
        return int(frame.get(zmq.SRCFD))
    except zmq.ZMQError:
        return -1


def _taken(frame: zmq.Frame) -> Buffer:
    return frame.bytes if len(frame) <= COPY_BYTES_MAX else frame.buffer


class ZeroMQListener:
    """A ROUTER socket."""

    def __init__(self, address: str, limits: UnreadLimits | None = None) -> None:
        self._socket = _new_socket(zmq.ROUTER, address)
        self._socket.set(zmq.ROUTER_MANDATORY, 1)
        self._monitor = _monitor_of(
            self._socket, zmq.EVENT_ACCEPTED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CLOSED
        )
        self._num_disconnects = 0
        self._guard = UnreadGuard(limits or UnreadLimits()) if address.startswith("tcp://") else None
        self._filenos: dict[bytes, int] = {}  # by peer
        self._next_look = 0.0
        self._tidy_up_at: list[float] = []
        self.look_s = float("inf") if self._guard is None else LOOK_S
        self._path: Path | None = None
        try:
            self._bind(address)
        except (zmq.ZMQError, ConfigError) as error:
            self._release()
            raise ConfigError(f"can't listen at {address}: {error}") from error
        self.address = self._socket.get_string(zmq.LAST_ENDPOINT)

    def _bind(self, address: str) -> None:
        if address.startswith("ipc://"):
            path = Path(address.removeprefix("ipc://"))
            # libzmq removes a socket file that it finds and binds anew: a second server would take the first
            # one's clients. Connecting tells whether its owner lives.
            if path.exists() and _somebody_listens(path):
                raise ConfigError("somebody listens there already")
            self._path = path
        self._socket.bind(address)

    def filenos(self) -> list[int]:
        """Return the socket's and its monitor's descriptors."""
        return [int(self._socket.get(zmq.FD)), int(self._monitor.get(zmq.FD))]

    def receive(self) -> tuple[bytes, list[Buffer]] | None:
        """Return the next message as (peer, frames), or None."""
        frame = _first_frame(self._socket)
        if self._guard is not None and (now := time.monotonic()) >= self._next_look:
            self._look(self._guard, now, drained=frame is None)
        if frame is None:
            return None
        peer = frame.bytes
        frames = _other_frames(self._socket, frame)
        if self._guard is not None:
            fileno = self._filenos.get(peer)
            if fileno is None:
                fileno = self._filenos[peer] = _fileno_of(frame)
            self._guard.read(fileno, wire_bytes(frames))
        return peer, frames

    def send(self, peer: bytes, frames: Sequence[Buffer]) -> Delivery:
        """Send to a peer."""
        if self._guard is None:
            return _send(self._socket, [peer, *frames])
        fileno = self._filenos.get(peer, -1)
        if self._guard.is_full(fileno):
            return Delivery.BUSY
        delivery = _send(self._socket, [peer, *frames])
        if delivery is Delivery.SENT:
            self._guard.sent(fileno, wire_bytes(frames))
        return delivery

    def num_disconnects(self) -> int:
        """Return how many connections have ended so far."""
        while (frames := _receive(self._monitor)) is not None:
            event, fileno = _event(frames)
            if event == zmq.EVENT_ACCEPTED:
                if self._guard is not None:
                    self._guard.opened(fileno)
            elif event == zmq.EVENT_DISCONNECTED:
                self._num_disconnects += 1
                if self._guard is not None and self._guard.closed(fileno):
                    self._tidy_up_soon(time.monotonic())
        return self._num_disconnects

    def _tidy_up_soon(self, now: float) -> None:
        # What is due next stays due: else somebody who comes and goes all the time would put it off for ever.
        self._tidy_up_at = [*self._tidy_up_at[:1], *(now + wait_s for wait_s in TIDY_UP_S)]

    def _look(self, guard: UnreadGuard, now: float, *, drained: bool) -> None:
        self.num_disconnects()  # the events of the same descriptor, given to a newer connection, stand in order
        has_cut = bool(guard.look(drained=drained))
        if len(self._filenos) > 2 * guard.num_connections + PEERS_SLACK:
            self._filenos.clear()  # of peers that are gone; the others' are asked for again
        self._next_look = now + min(LOOK_S_MAX, max(LOOK_S, LOOK_SHARE_MIN * (time.monotonic() - now)))
        if has_cut:
            self._tidy_up_soon(now)
        elif self._tidy_up_at and now >= self._tidy_up_at[0]:
            del self._tidy_up_at[0]
            give_back_memory()  # of messages that never arrived: more than a process should keep

    def close(self) -> None:
        """Release the address."""
        # libzmq closes on a thread of its own: without a wait the address stays taken for a moment, or a
        # socket file vanishes under whoever binds it next.
        self._socket.unbind(self.address)
        while self._monitor.poll(CLOSE_MS):
            frames = _receive(self._monitor)
            if frames is not None and _event(frames)[0] == zmq.EVENT_CLOSED:
                break
        self._release()
        if self._path is not None:
            self._path.unlink(missing_ok=True)

    def _release(self) -> None:
        self._socket.monitor(None, 0)
        self._monitor.close(0)
        self._socket.close(0)


def _event(frames: list[Buffer]) -> tuple[int, int]:
    """Return an event's kind and value: a descriptor, where it tells of one."""
    kind, value = _EVENT.unpack(frames[0])
    return kind, value


def _somebody_listens(path: Path) -> bool:
    import socket as sockets  # noqa: PLC0415 - needed in this one rare case

    with sockets.socket(sockets.AF_UNIX, sockets.SOCK_STREAM) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except OSError:
            return False
        return True


class ZeroMQConnection:
    """A DEALER socket with its monitor."""

    def __init__(self, address: str) -> None:
        self._socket = _new_socket(zmq.DEALER, address)
        self._socket.set(zmq.IMMEDIATE, 1)  # queue for real connections only, never for one to come
        self._socket.set(zmq.RECONNECT_IVL, RECONNECT_FIRST_MS)
        self._socket.set(zmq.RECONNECT_IVL_MAX, RECONNECT_LAST_MS)
        self._monitor = _monitor_of(
            self._socket,
            zmq.EVENT_HANDSHAKE_SUCCEEDED | zmq.EVENT_DISCONNECTED | zmq.EVENT_CONNECT_RETRIED,
        )
        try:
            self._socket.connect(address)
        except zmq.ZMQError as error:
            self.close()
            raise ConfigError(f"can't connect to {address}: {error}") from error

    def filenos(self) -> list[int]:
        """Return the socket's and its monitor's descriptors."""
        return [int(self._socket.get(zmq.FD)), int(self._monitor.get(zmq.FD))]

    def changes(self) -> list[bool]:
        """Return ups and downs since the last call."""
        found: list[bool] = []
        while (frames := _receive(self._monitor)) is not None:
            found.append(_event(frames)[0] == zmq.EVENT_HANDSHAKE_SUCCEEDED)
        return found

    def receive(self) -> list[Buffer] | None:
        """Return the next message's frames, or None."""
        return _receive(self._socket)

    def send(self, frames: Sequence[Buffer]) -> Delivery:
        """Send to the listener."""
        return _send(self._socket, frames)

    def close(self) -> None:
        """End the connection; what was sent just before has a moment to leave."""
        self._socket.monitor(None, 0)
        self._monitor.close(0)
        self._socket.close(200)
