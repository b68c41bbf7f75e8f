"""Clients of the simulation: the real ``Session``, behind the few methods that requests use of a runtime.

Knows nothing of what is checked; whoever checks is a ``Watcher``.
"""

from __future__ import annotations

import itertools
import random
from collections import deque
from collections.abc import Callable, Sequence

from glintpy import config
from glintpy.errors import GlintError
from glintpy.protocol import wire
from glintpy.protocol.calls import Call
from glintpy.protocol.messages import Bye
from glintpy.protocol.session import Session
from glintpy.pushes import OpenPushes
from glintpy.testing.simulated_network import Frames, Line, Network
from glintpy.testing.simulated_servers import TICK_S, Build, SimulatedServer


class Watcher:
    """Is told what a client's sessions do; this one says nothing."""

    def submitted(self, client: int, server: int, call: Call) -> None:
        """Before a call goes to its session; may wrap its ``build`` and ``settle``."""

    def flushed(self, client: int, server: int, session: Session) -> None:
        """After a session was asked for what it sends."""


class SimulatedRuntime:
    """What requests need of a process's tie to its cluster.

    Args:
        number: among the clients.
        network: with its virtual time.
        servers: all of them.
        settings: the client's.
        build: the classes to use.
        watcher: told what happens.
    """

    def __init__(
        self,
        number: int,
        network: Network,
        servers: Sequence[SimulatedServer],
        *,
        settings: config.ClientSettings,
        build: Build,
        watcher: Watcher,
    ) -> None:
        self.number = number
        self.pushes = OpenPushes()
        self.network = network
        self.is_paused = False
        self.is_closed = False
        self._servers = {server.server_id: (place, server) for place, server in enumerate(servers)}
        self._settings = settings
        self._build = build
        self.watcher = watcher
        self._request_ids = itertools.count(1)
        self._random = random.Random(network.source.getrandbits(64))  # noqa: S311 - simulated misfortune, not a secret
        self._client_id = self._random.randbytes(16)
        self.ends: dict[str, SimulatedEnd] = {}
        network.scheduler.after(TICK_S, self._tick)

    def new_request_id(self) -> int:
        """Return an id for a request; ids grow."""
        return next(self._request_ids)

    def deadline(self, timeout_s: float | None) -> float | None:
        """Return the moment at which a request issued now is given up."""
        return None if timeout_s is None else self.network.scheduler.now + timeout_s

    def link(self, server_id: str, address: str) -> None:
        """See to it that there is a session with a server, or one on its way."""
        if server_id in self.ends:
            return
        place, server = self._servers[server_id]
        assert server.address == address, f"{server_id} is at {server.address}, not at {address}"
        session = self._build.session(
            client_id=self._client_id,
            settings=self._settings,
            new_request_id=self.new_request_id,
            random_source=self._random,
        )
        self.ends[server_id] = SimulatedEnd(self, place, session, server)

    def submit(self, server_id: str, call: Call, *, waits_for_room: bool = False) -> None:
        """Hand a call to a server's session; nothing here can wait, so the session queues it."""
        del waits_for_room
        end = self.ends[server_id]
        self.watcher.submitted(self.number, end.place, call)
        end.session.submit(call)
        end.flush()

    def wait_for(self, is_done: Callable[[], bool], timeout_s: float | None) -> None:
        """Refuse: virtual time doesn't pass while somebody waits."""
        del is_done, timeout_s
        raise AssertionError("a simulated request can't be waited for")

    def expect_others(self) -> None:
        """Note nothing: in virtual time nobody waits."""

    def pause(self) -> None:
        """Stand still, as a stopped process does; what arrives waits."""
        self.is_paused = True

    def resume(self) -> None:
        """Handle what came while it was paused."""
        self.is_paused = False
        for end in self.ends.values():
            end.pump()

    def close(self) -> None:
        """End the sessions as a real client does: say goodbye where nothing is open, fail the rest."""
        self.is_closed = True
        for end in self.ends.values():
            session = end.session
            if session.session and session.num_waiting == 0 and session.phase != "down":
                end.line.send_out(wire.encode(Bye(self.new_request_id(), session.session)))
            session.fail_all(GlintError("the client was closed before this was answered"))
            end.line.close()

    def _tick(self) -> None:
        if self.is_closed:
            return
        self.network.scheduler.after(TICK_S, self._tick)
        if not self.is_paused:
            for end in self.ends.values():
                end.session.tick(self.network.scheduler.now)
                end.flush()


class SimulatedEnd:
    """A client's end of one line: what the endpoint does between a connection and a session."""

    def __init__(
        self, runtime: SimulatedRuntime, place: int, session: Session, server: SimulatedServer
    ) -> None:
        self._runtime = runtime
        self.place = place
        self.session = session
        self._is_up = False
        self._inbox: deque[Frames | bool] = deque()  # messages, and changes of the connection
        self.line: Line = runtime.network.line(self, server)

    def connection_made(self) -> None:
        """Note it, in order with what arrives."""
        self._inbox.append(True)
        self.pump()

    def connection_lost(self) -> None:
        """Note it, in order with what arrived before."""
        self._inbox.append(False)
        self.pump()

    def arrived(self, frames: Frames) -> None:
        """Note a message."""
        self._inbox.append(frames)
        self.pump()

    def pump(self) -> None:
        """Handle what has come."""
        runtime, session = self._runtime, self.session
        while self._inbox and not runtime.is_paused and not runtime.is_closed:
            entry, now = self._inbox.popleft(), runtime.network.scheduler.now
            if isinstance(entry, bool):
                self._is_up = entry
                if entry:
                    session.connected(now)
                else:
                    session.disconnected(now)
            else:
                for message in wire.decode_all(entry):
                    session.receive(message, now)
            self.flush()

    def flush(self) -> None:
        """Send what the session has to send."""
        runtime = self._runtime
        if not self._is_up or runtime.is_paused or runtime.is_closed:
            return
        while encoded := self.session.outgoing(runtime.network.scheduler.now):
            runtime.watcher.flushed(runtime.number, self.place, self.session)
            for frames in encoded:
                self.line.send_out(frames)
