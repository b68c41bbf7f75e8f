"""Endpoint: a client's sockets, and the hand-over from them to the pure links; knows no model.

A socket is used by one thread at a time, handed over under a lock. A caller sends from its own thread, and
while it waits for its answer it receives, for everybody; else the endpoint's thread does. Each saves a
wake-up. Links settle their calls under that lock, so what they call must not block.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Hashable
from typing import Protocol

from glintpy.ending import end_process
from glintpy.errors import GlintError, RemoteProtocolError
from glintpy.protocol import wire
from glintpy.protocol.calls import Call, Load
from glintpy.protocol.messages import Message
from glintpy.transport import Connection, Delivery, EagerWaiter, Waiter, Wakeup, connect

logger = logging.getLogger("glintpy.rpc")

IDLE_S = 0.1
"""The longest sleep: deadlines and probes are looked at by then even if nothing else happens."""

ACTIVE_S = 0.05
"""The same while calls are open: half of the first probe's wait."""

BUSY_S = 0.002
"""The same while a socket has no room for what is to be sent."""

CALLER_RETURNS_S = 0.003
"""After a caller sent, or had its answer, the endpoint's thread stands by so much longer: in a loop the next call comes
within microseconds and receives too, and two threads that wake up for one message cost more than one."""

STANDBY_S = 0.001
"""How long an answer that nobody waits for may lie then."""

MESSAGES_A_TURN = 64
"""Messages taken from one connection before the next one's turn."""


class Link(Protocol):
    """A pure link: ``protocol.session.Session`` or ``protocol.calls.Asks``."""

    def submit(self, call: Call) -> None:
        """Take a call."""
        ...

    def connected(self, now: float) -> None:
        """The connection came up."""
        ...

    def disconnected(self, now: float) -> None:
        """The connection went down."""
        ...

    def receive(self, message: Message, now: float) -> None:
        """A message came."""
        ...

    def tick(self, now: float) -> None:
        """Time has passed."""
        ...

    def outgoing(self, now: float) -> list[list[wire.Buffer]]:
        """What to send now."""
        ...

    def fail_all(self, error: GlintError, *, hasty_only: bool = False) -> None:
        """Fail everything that is open, or only what doesn't want to wait."""
        ...


class Peer:
    """One address, its connection and its link."""

    def __init__(self, address: str, link: Link, load: Load) -> None:
        self.address = address
        self.link = link
        self.load = load
        self.connection: Connection = connect(address)
        self.pending: deque[list[wire.Buffer]] = deque()
        self.is_up = False


class Endpoint:
    """Peers by key.

    Args:
        name: of the thread.
        on_change: called without the lock when a connection went up or down.
        before_wait: called without the lock by whoever is about to wait for an answer, and soon after ``poke``:
            submits what was put off.

    Threads:
        Safe from any thread. Belongs to the process that made it: after a fork the child makes its own.
    """

    def __init__(
        self,
        name: str,
        *,
        on_change: Callable[[Hashable, bool], None] | None = None,
        before_wait: Callable[[], None] = lambda: None,
    ) -> None:
        self._lock = threading.Lock()
        self._room = threading.Condition(self._lock)
        self._peers: dict[Hashable, Peer] = {}
        self.load = Load()
        self._wakeup = Wakeup()
        self._waiter = Waiter([self._wakeup.fileno()])
        self._on_change = on_change
        self._before_wait = before_wait
        self._may_sleep = False
        self._changes: list[tuple[Hashable, bool]] = []
        self._closed = False
        # A caller that waits receives for everybody meanwhile; the endpoint's thread then stands by.
        self._guest = threading.Lock()
        self._guest_thread = 0
        self._caller_left = 0.0
        self._others_wait = False
        self._has_unread = False
        self._guest_wakeup = Wakeup()
        self._guest_waiter = EagerWaiter([self._guest_wakeup.fileno()])
        self._standby = Waiter([self._wakeup.fileno()])
        self.progress = 0
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)
        self._thread.start()

    def add(self, key: Hashable, address: str, link: Link) -> None:
        """Add a peer, and begin to connect."""
        with self._lock:
            if key in self._peers:
                return
            load = Load(self.load)
            self._attach(key, Peer(address, link, load))
        self._wakeup.set()

    def has(self, key: Hashable) -> bool:
        """Whether there is such a peer."""
        return key in self._peers

    def keys(self) -> list[Hashable]:
        """Return the peers' keys."""
        return list(self._peers)

    def address_of(self, key: Hashable) -> str:
        """Return a peer's address."""
        return self._peers[key].address

    def move(self, key: Hashable, address: str) -> None:
        """Connect a peer to another address; its link goes on there."""
        with self._lock:
            peer = self._peers.get(key)
            if peer is None or peer.address == address or self._closed:
                return
            self._detach(peer)
            self._attach(key, Peer(address, peer.link, peer.load))
        self._wakeup.set()

    def link_of(self, key: Hashable) -> Link:
        """Return a peer's link, for its counters."""
        return self._peers[key].link

    def down_peers(self) -> list[Hashable]:
        """Return the peers without a connection."""
        with self._lock:
            return [key for key, peer in self._peers.items() if not peer.is_up]

    def submit(self, key: Hashable, call: Call, *, bytes_max: int | None = None) -> bool:
        """Hand a call to a peer's link, and send what may be sent.

        Args:
            key: the peer's.
            call: settled later, under the lock.
            bytes_max: wait here until the peer's open calls have fewer bytes than this, or the call's
                deadline has passed; None doesn't wait.

        Returns:
            False if the deadline passed, or the endpoint was closed, before the call was handed over.
        """
        with self._lock:
            if bytes_max is not None and not self._wait_for_room(key, call, bytes_max):
                return False
            if self._closed:
                return False
            peer = self._peers[key]
            if not call.is_quiet:
                peer.load.add(call)
            peer.link.submit(call)
            self._caller_left = time.monotonic()
            more = self._exchange(peer, self._caller_left)
            if more or peer.pending:
                # What is left to do here is the endpoint's thread's, which may be asleep.
                self._wakeup.set()
        return True

    def poke(self) -> None:
        """Have ``before_wait`` called by the endpoint's thread, within ``STANDBY_S`` if nobody waits before."""
        if self._may_sleep:
            self._wakeup.set()

    def expect_others(self) -> None:
        """Note that somebody waits for an answer without receiving: in asyncio, by a callback, in another thread."""
        self._others_wait = True
        if self._has_unread or not self._may_sleep:
            self._wakeup.set()

    def wait_for(self, is_done: Callable[[], bool], timeout_s: float | None) -> None:
        """Receive in the caller's thread until its answer is there: saves the hand-over between two threads.

        Returns at once if another caller receives already; its answer then comes by that one's hands.

        Args:
            is_done: whether the caller has what it waits for.
            timeout_s: seconds; None: no limit.
        """
        self._before_wait()
        if not self._guest.acquire(blocking=False):
            self.expect_others()
            return
        try:
            self._guest_thread = threading.get_ident()
            end = None if timeout_s is None else time.monotonic() + timeout_s
            # Nothing is lost by waiting first: whoever sent last has taken what had come by then. Only a caller that
            # left with its own answer may have left others behind it, which no descriptor tells of any more.
            if self._has_unread and not is_done():
                self._receive_as_guest(is_done)
            while not is_done() and not self._closed:
                left_s = ACTIVE_S if end is None else min(ACTIVE_S, end - time.monotonic())
                if left_s <= 0:
                    return
                if self._guest_waiter.wait(left_s):
                    self._guest_wakeup.clear()
                    if not self._receive_as_guest(is_done):
                        self._wakeup.set()  # for something that is not a caller's business
                    self._before_wait()  # an answer may have led to more
        finally:
            self._guest_thread = 0
            self._caller_left = time.monotonic()
            self._guest.release()
            if self._others_wait and self.load.num_open:
                self._wakeup.set()  # whoever receives next must know at once

    def _receive_as_guest(self, is_done: Callable[[], bool]) -> bool:
        received = False
        with self._lock:
            now = time.monotonic()
            for peer in self._peers.values():
                if self._closed or not peer.load.num_open:
                    continue
                while self._receive_one(peer, now):
                    received = True
                    if is_done():
                        self._has_unread = True
                        return True
            self._has_unread = False
        return received

    def fail(self, key: Hashable, error: GlintError) -> None:
        """Fail what is open at a peer and doesn't want to wait for its return."""
        with self._lock:
            if key in self._peers:
                self._peers[key].link.fail_all(error, hasty_only=True)

    def say(self, key: Hashable, message: Message) -> None:
        """Send a message that is not answered, if there is a connection."""
        with self._lock:
            peer = self._peers.get(key)
            if peer is not None and peer.is_up:
                peer.pending.append(wire.encode(message))
                self._service(key, peer, time.monotonic())

    def close(self, error: GlintError) -> None:
        """End the thread and the connections; what is open fails with ``error``."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            for peer in self._peers.values():
                peer.link.fail_all(error)
            self._room.notify_all()
        self._wakeup.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    # --- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        try:
            while not self._closed:
                self._turn()
            with self._lock:
                for peer in self._peers.values():
                    self._detach(peer)
                self._wakeup.close()
                self._guest_wakeup.close()
        except BaseException:  # noqa: BLE001 - whatever it is, nobody is served any more
            # Without this thread every future of the process would wait for ever: say so, and go.
            end_process(logger, "the network thread died")

    def _turn(self) -> None:
        self._wakeup.clear()
        self.progress += 1
        self._may_sleep = True  # what is put off from here on pokes; what was before is seen now
        self._before_wait()
        with self._lock:
            now = time.monotonic()
            wait_s = IDLE_S
            for key, peer in list(self._peers.items()):
                more = self._service(key, peer, now)
                peer.link.tick(now)
                self._flush(peer, now)
                if more:
                    wait_s = 0.0
                elif peer.pending:
                    wait_s = min(wait_s, BUSY_S)
                elif peer.load.num_open:
                    wait_s = min(wait_s, ACTIVE_S)
            changes, self._changes = self._changes, []
            if not self.load.num_open:
                self._others_wait = False
        if self._on_change is not None:
            for key, is_up in changes:
                self._on_change(key, is_up)
        if not self._closed and not self._stand_by():
            self._waiter.wait(wait_s)

    def _stand_by(self) -> bool:
        """Leave receiving to a caller, if one does or did just now; whether it was so.

        Deadlines and probes are this thread's all the same, so it comes back for them.
        """
        end = time.monotonic() + ACTIVE_S
        stood_by = False
        while self._guest.locked() or (
            not self._others_wait and time.monotonic() - self._caller_left < CALLER_RETURNS_S
        ):
            stood_by, self._may_sleep = True, False
            self._before_wait()
            if self._standby.wait(STANDBY_S) or time.monotonic() >= end:
                break
        return stood_by

    def _service(self, key: Hashable, peer: Peer, now: float) -> bool:
        """Take news and messages from a connection, send what may be sent; whether more may wait."""
        for is_up in peer.connection.changes():
            peer.is_up = is_up
            peer.pending.clear()
            if is_up:
                peer.link.connected(now)
            else:
                peer.link.disconnected(now)
            self._changes.append((key, is_up))
        return self._exchange(peer, now)

    def _exchange(self, peer: Peer, now: float) -> bool:
        """Send what may be sent, and take what has come, since a send may have swallowed its signal."""
        self._flush(peer, now)
        return all(self._receive_one(peer, now) for _ in range(MESSAGES_A_TURN))

    def _receive_one(self, peer: Peer, now: float) -> bool:
        """Take one message; whether there was one."""
        frames = peer.connection.receive()
        if frames is None:
            return False
        self._take(peer, frames, now)
        if self._guest_thread not in {0, threading.get_ident()}:
            self._guest_wakeup.set()  # it may have been the answer that a caller polls for
        self._flush(peer, now)
        return True

    def _take(self, peer: Peer, frames: list[wire.Buffer], now: float) -> None:
        try:
            messages = wire.decode_all(frames)
        except RemoteProtocolError as error:
            logger.warning("dropped a malformed message from %s: %s", peer.address, error)
            return
        for message in messages:
            peer.link.receive(message, now)

    def _flush(self, peer: Peer, now: float) -> None:
        if not peer.is_up:
            return
        while True:
            if not peer.pending:
                peer.pending.extend(peer.link.outgoing(now))
            if not peer.pending:
                return
            while peer.pending:
                delivery = peer.connection.send(peer.pending[0])
                if delivery is Delivery.BUSY:
                    return
                peer.pending.popleft()  # sent; or gone, and then the link hears of it and sends again

    def _wait_for_room(self, key: Hashable, call: Call, bytes_max: int) -> bool:
        while not self._closed:
            load = self._peers[key].load
            if load.num_bytes == 0 or load.num_bytes + call.cost_bytes <= bytes_max:
                return True
            left_s = None if call.deadline is None else call.deadline - time.monotonic()
            if left_s is not None and left_s <= 0:
                return False
            load.on_release = self._room.notify_all  # from here on; the condition's lock is held for it
            self._room.wait(left_s)
        return False

    def _attach(self, key: Hashable, peer: Peer) -> None:
        self._peers[key] = peer
        for fileno in peer.connection.filenos():
            self._waiter.add(fileno)
            self._guest_waiter.add(fileno)

    def _detach(self, peer: Peer) -> None:
        for fileno in peer.connection.filenos():
            self._waiter.remove(fileno)
            self._guest_waiter.remove(fileno)
        peer.connection.close()
        peer.link.disconnected(time.monotonic())
