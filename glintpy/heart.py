"""Heart: joins the master and beats, on a connection and thread of its own; knows no model.

Of its own, because a heartbeat behind 200 MB of data took 2 s, and 9 ms here. A master that comes back
doesn't know its members: its answer to a beat says so, and the heart joins again.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
from collections import deque
from collections.abc import Callable
from dataclasses import replace
from typing import Any

from glintpy import config, failpoints
from glintpy.ending import end_process
from glintpy.errors import GlintError, MasterUnreachable, RemoteProtocolError
from glintpy.protocol import wire
from glintpy.protocol.failures import error_of
from glintpy.protocol.messages import VERSION, Done, Failure, Message
from glintpy.protocol.messages_master import Beat, BeatSeen, Join, Leave
from glintpy.records import record
from glintpy.transport import Connection, Delivery, Waiter, Wakeup, connect

logger = logging.getLogger("glintpy.heart")

Frames = list[wire.Buffer]

LOOK_S = 0.2
"""Between two looks at whether joining is still wanted."""

LEAVE_S = 1.0
"""How long a member that leaves waits for the master to have heard it."""


@record
class Identity:
    """Who joins.

    Attributes:
        address: where a server is reached; empty for a client.
        cluster_id: of the cluster that a server's models belong to.
        era: of the master that took it last.
    """

    member_id: str
    name: str
    is_server: bool
    address: str = ""
    incarnation: int = 0
    cluster_id: str = ""
    era: str = ""


def _nothing(*_: Any) -> None:
    """Ignore the news."""


@record
class Listeners:
    """Who hears what; all are called in the heart's thread and must not block.

    Attributes:
        joined: the content of the master's answer, each time.
        changed: the master's count of changes among the servers, when it differs from the last one.
        arrived: frames that are for the server's actor.
        beat: before each beat.
        refused: the master refuses this member.
    """

    joined: Callable[[dict[str, Any]], None] = _nothing
    changed: Callable[[int], None] = _nothing
    arrived: Callable[[Frames], None] = _nothing
    beat: Callable[[], None] = _nothing
    refused: Callable[[GlintError], None] = _nothing


class Heart:
    """A member's tie to the master.

    Args:
        master_address: where the master is reached.
        identity: who joins.
        settings: of beats.
        progress: what the member has done so far; the same twice says that it stands still.
        listeners: who hears what.
        highest_model: the highest id among a server's models; 0 if it holds none, and so belongs to no cluster yet.

    Threads:
        ``send``, ``wait_joined`` and ``stop`` are safe from any thread.
    """

    def __init__(
        self,
        master_address: str,
        identity: Identity,
        *,
        settings: config.MembershipSettings,
        progress: Callable[[], int],
        listeners: Listeners,
        highest_model: Callable[[], int] = lambda: 0,
    ) -> None:
        self._master_address = master_address
        self._identity = identity
        self._settings = settings
        self._progress = progress
        self._highest_model = highest_model
        self._listeners = listeners
        self._connection: Connection = connect(master_address)
        self._wakeup = Wakeup()
        self._outbox: deque[Frames] = deque()
        self._answered = threading.Event()
        self._refusal: GlintError | None = None
        self._is_up = False
        self._is_joined = False
        self._changes = -1
        self._next_request_id = 0
        self._joins: set[int] = set()
        self._leave_id = 0
        self._is_leaving = False
        self._stopping = False
        self._left = threading.Event()
        self._thread = threading.Thread(target=self._run, name="glintpy-heart", daemon=True)

    def start(self) -> None:
        """Begin to join."""
        self._thread.start()

    def wait_joined(self, timeout_s: float, *, keep_trying: Callable[[], bool] = lambda: True) -> None:
        """Return when the master has taken this member.

        Args:
            timeout_s: how long to wait.
            keep_trying: asked now and then; False gives up.

        Raises:
            MasterUnreachable: nobody answered in time.
            GlintError: the master's refusal.
        """
        end = time.monotonic() + timeout_s
        while not self._answered.wait(min(LOOK_S, max(0.0, end - time.monotonic()))):
            if keep_trying() and time.monotonic() < end:
                continue
            raise MasterUnreachable(
                f"no master answered at {self._master_address} within {timeout_s:g} s; start one with: glintpy master"
            )
        if self._refusal is not None:
            raise self._refusal

    def send(self, frames: Frames) -> None:
        """Send frames to the master, after those before them."""
        self._outbox.append(frames)
        self._wakeup.set()

    def stop(self, *, say_goodbye: bool = True) -> None:
        """Leave the cluster and end the thread."""
        if say_goodbye and self._is_joined and self._thread.is_alive():
            # From here on it neither beats nor joins: a master that has heard the word of leaving doesn't know whoever
            # beats after it, says so, and would take the member again only to lose it.
            self._is_leaving = True
            self._leave_id = self._new_request_id()
            self.send(wire.encode(Leave(self._leave_id, self._identity.member_id)))
            # Closing at once could overtake the word of leaving.
            self._left.wait(LEAVE_S)
        self._stopping = True
        self._wakeup.set()
        if self._thread.is_alive() and threading.current_thread() is not self._thread:
            self._thread.join()

    # --- the thread ---------------------------------------------------------------------------------------------

    def _run(self) -> None:
        waiter = Waiter([self._wakeup.fileno(), *self._connection.filenos()])
        next_beat = 0.0
        try:
            while not self._stopping:
                self._wakeup.clear()
                self._take_news()
                now = time.monotonic()
                if now >= next_beat:
                    next_beat = now + self._settings.beat_s
                    self._beat()
                self._send_all()
                while (frames := self._connection.receive()) is not None:
                    self._take(frames)
                self._send_all()
                waiter.wait(next_beat - time.monotonic())
        except BaseException:  # noqa: BLE001 - whatever it is, nobody is served any more
            # Without it the member would be taken for dead while it believes to live.
            end_process(logger, "the heartbeat thread died")
        finally:
            self._connection.close()
            self._wakeup.close()

    def _take_news(self) -> None:
        for is_up in self._connection.changes():
            self._is_up = is_up
            if not is_up:
                self._joins.clear()
                self._outbox.clear()
            else:
                self._join()

    def _beat(self) -> None:
        failpoints.hit("heart.before_beat")
        self._listeners.beat()
        if self._is_leaving:
            return
        if self._is_up and self._is_joined:
            identity = self._identity
            beat = Beat(self._new_request_id(), identity.member_id, identity.incarnation, self._progress())
            self._outbox.append(wire.encode(beat))
        elif self._is_up and not self._joins:
            self._join()

    def _join(self) -> None:
        if self._is_leaving:
            return
        identity, highest_model = self._identity, self._highest_model()
        request_id = self._new_request_id()
        self._joins.add(request_id)
        join = Join(
            request_id,
            VERSION,
            VERSION,
            identity.is_server,
            identity.member_id,
            identity.name,
            identity.address,
            identity.incarnation,
            os.getpid(),
            socket.gethostname()[:256],
            identity.cluster_id if highest_model else "",
            identity.era if highest_model else "",
            highest_model,
        )
        self._outbox.appendleft(wire.encode(join))

    def _send_all(self) -> None:
        while self._outbox and self._is_up:
            if self._connection.send(self._outbox[0]) is Delivery.BUSY:
                return
            self._outbox.popleft()

    def _take(self, frames: Frames) -> None:
        try:
            messages = wire.decode_all(frames)
        except RemoteProtocolError as error:
            logger.warning("dropped a malformed message from the master: %s", error)
            return
        for message in messages:
            self._handle(message, frames)

    def _handle(self, message: Message, frames: Frames) -> None:
        match message:
            case BeatSeen():
                if not message.known:
                    self._is_joined = False
                    self._join()
                elif message.changes != self._changes:
                    self._changes = message.changes
                    self._listeners.changed(message.changes)
            case Done() if message.request_id in self._joins:
                self._joins.clear()
                self._is_joined = True
                content = wire.content(message.document)
                self._identity = replace(
                    self._identity, cluster_id=str(content["cluster_id"]), era=str(content["era"])
                )
                self._listeners.joined(content)
                self._answered.set()
            case Failure() if message.request_id in self._joins:
                self._joins.clear()
                self._refusal = error_of(message.code, message.text)
                self._listeners.refused(self._refusal)
                self._answered.set()
            case Done() | Failure():
                if message.request_id == self._leave_id:
                    self._left.set()
            case _:
                self._listeners.arrived(frames)

    def _new_request_id(self) -> int:
        self._next_request_id += 1
        return self._next_request_id
