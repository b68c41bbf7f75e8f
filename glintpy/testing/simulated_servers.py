"""Servers of the simulation: the real ``ServerActor``, built and called without its thread, on virtual time.

Its segments and its journal are real files, so that it can be stopped or killed and started again; only its mailbox
and its listener are not. Knows no client and nothing of what is checked.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glintpy import config
from glintpy.actors.mailbox import Arrival, Idle, Tick
from glintpy.actors.outlet import Outlet
from glintpy.actors.receipts import Receipts
from glintpy.actors.server import Admitted, FromMaster, ServerActor
from glintpy.actors.shelf import Shelf
from glintpy.models.bundles import Bundle
from glintpy.protocol import wire
from glintpy.protocol.messages import Done, Message
from glintpy.protocol.session import Session
from glintpy.storage.journal import Journal
from glintpy.testing.simulated_network import Buffer, Frames, Network
from glintpy.transport import Delivery

TICK_S = 0.05
"""Between two looks at the deadlines of a client; a server's are five times as far apart."""


def _keep(journal: Journal) -> None:
    del journal


@dataclass(frozen=True, slots=True)
class Build:
    """What is simulated. A test that plants a defect puts its own class in.

    Attributes:
        session: the client's half.
        receipts: the server's half.
        bundle: small requests that travel together.
        at_restart: done to the journal of a server that comes back.
        shelf: its models, and how they come back.
    """

    session: type[Session] = Session
    receipts: type[Receipts] = Receipts
    bundle: type[Bundle] = Bundle
    at_restart: Callable[[Journal], None] = _keep
    shelf: type[Shelf] = Shelf


class Killed(BaseException):
    """What a place raises at which a server is killed: nothing in the server may catch it."""


class SimulatedInbox:
    """An inbox that nobody waits at: the simulation hands each message over itself."""

    def __init__(self) -> None:
        self.has_work = False
        self.tick_soon = False
        self._local: deque[Any] = deque()

    def put(self, envelope: Any, /) -> None:
        """Add a message from this process."""
        self._local.append(envelope)

    def get(self) -> Any:
        """Return the next message; there must be one."""
        return self._local.popleft()

    def empty(self) -> bool:
        """Whether nothing is left."""
        return not self._local


class SimulatedListener:
    """The server's end of all lines, for its outlet."""

    def __init__(self, address: str, network: Network) -> None:
        self.address = address
        self._network = network
        self._num_disconnects = 0

    def filenos(self) -> list[int]:
        """Return no descriptor: nobody polls."""
        return []

    def receive(self) -> tuple[bytes, list[Buffer]] | None:
        """Return nothing: messages are handed to the actor."""
        return None

    def send(self, peer: bytes, frames: Sequence[Buffer]) -> Delivery:
        """Put an answer on its way."""
        line = self._network.line_of(peer)
        if line is None:
            return Delivery.GONE
        if self._network.source.random() < self._network.faults.busy:
            return Delivery.BUSY
        line.send_back(frames)
        return Delivery.SENT

    def num_disconnects(self) -> int:
        """Return how many connections have ended."""
        return self._num_disconnects

    def disconnected(self) -> None:
        """Count a connection that has ended."""
        self._num_disconnects += 1

    def close(self) -> None:
        """Nothing to release."""


class SimulatedServer:
    """A server process that can be paused, stopped in good order and started again.

    Args:
        number: among the servers.
        network: with its virtual time.
        folder: where its segments and its journal lie; None: in memory, and then it can't be restarted.
        settings: the server's limits.
        build: the classes to use.
    """

    def __init__(
        self,
        number: int,
        network: Network,
        *,
        folder: Path | None,
        settings: config.ServerSettings,
        build: Build,
    ) -> None:
        self.server_id = f"server-{number}"
        self.address = f"simulated://{number}"
        self.is_up = False
        self.is_paused = False
        self.model_ids: set[int] = set()
        self.num_incarnations = 0
        self.num_kills = 0
        self.at_end: Callable[[SimulatedServer], None] = lambda _: None
        """Called before the actor is given up, for its counters."""
        self._network = network
        self._folder = folder
        self._settings = settings
        self._build = build
        self._inboxes: dict[bytes, deque[Frames]] = {}
        self.answers: list[Message] = []
        if folder is not None:
            folder.mkdir()
        self.start()

    def start(self) -> None:
        """Open what there is on disk, or make it, and serve."""
        journal = self._open_journal()
        network, source = self._network, self._network.source
        try:
            shelf = self._build.shelf(
                None if self._folder is None else self._folder / "models",
                journal=None if self._folder is None else journal,
                free_bytes=lambda: 1 << 40,
            )
        except Killed:
            # In the middle of coming back; the next one begins with what this one left.
            journal.close(clean=False)
            self._start_again()
            return
        self.num_incarnations += 1
        self._listener = SimulatedListener(self.address, network)
        self.actor = ServerActor(
            SimulatedInbox(),
            Outlet(self._listener, bytes_max=self._settings.answers_bytes_max),
            journal=journal,
            shelf=shelf,
            settings=self._settings,
            control=self,
            clock=lambda: network.scheduler.now,
            receipts=self._build.receipts(
                journal, self._settings, new_session_id=lambda: source.randbytes(16)
            ),
        )
        self.is_up = True
        self.actor.on_receive(Admitted(frozenset(self.model_ids)))
        network.scheduler.after(5 * TICK_S, self._ticker(self.num_incarnations))

    def stop(self) -> None:
        """Stop in good order; whoever is connected loses the connection, and what waits is dropped."""
        self._go_down()
        self.actor.close_state()

    def kill(self) -> None:
        """End as by ``kill -9``, and start again after a while."""
        if self.is_up:
            self._go_down()
            self.actor.abandon_state()
            self._start_again()

    def _go_down(self) -> None:
        self.is_up = False
        self.at_end(self)
        self._inboxes.clear()
        for line in self._network.lines:
            if line.server is self:
                line.reset()

    def _start_again(self) -> None:
        self.num_kills += 1
        self._network.scheduler.after(self._network.source.uniform(0.02, 0.6), self.start)

    def create(self, request: Message, model_id: int) -> None:
        """Make its part of a model, as the master asks for it."""
        self.model_ids.add(model_id)
        self.actor.on_receive(FromMaster([bytes(frame) for frame in wire.encode(request)]))
        while self.actor.inbox.has_work:
            self.actor.on_receive(Idle())
        assert isinstance(self.answers[-1], Done), f"a model could not be made: {self.answers[-1]}"

    def send(self, frames: list[wire.Buffer]) -> None:
        """Take an answer to the master: a server sees its control connection as this."""
        self.answers += wire.decode_all(frames)

    def arrived(self, peer: bytes, frames: Frames) -> None:
        """Put a message into the mailbox, and handle what is there."""
        self._inboxes.setdefault(peer, deque()).append(frames)
        self.pump()

    def pump(self) -> None:
        """Handle what has arrived; connections take turns, so there is no order between them."""
        while self._inboxes and self.is_up and not self.is_paused:
            peer = self._network.source.choice(list(self._inboxes))
            queue = self._inboxes[peer]
            frames = queue.popleft()
            if not queue:
                del self._inboxes[peer]
            try:
                self.actor.on_receive(Arrival(peer, frames))
            except Killed:
                self.kill()

    def pause(self) -> None:
        """Stand still, as a stopped process does; what arrives waits."""
        self.is_paused = True

    def resume(self) -> None:
        """Go on with what came meanwhile."""
        self.is_paused = False
        self.pump()

    def peer_lost(self) -> None:
        """Count it; what that peer sent before is still handled."""
        self._listener.disconnected()

    def _open_journal(self) -> Journal:
        path = None if self._folder is None else self._folder / "server.journal"
        if path is None or not path.exists():
            return Journal.create(path, self.server_id, self._settings.sessions_max)
        journal = Journal.open(path)
        assert journal.was_clean or self.num_kills, "stopped in good order, and found in disorder"
        self._build.at_restart(journal)
        return journal

    def _ticker(self, incarnation: int) -> Callable[[], None]:
        def tick() -> None:
            if not self.is_up or incarnation != self.num_incarnations:
                return
            if not self.is_paused:
                self.actor.on_receive(Tick())
            wait_s = 0.005 if self.actor.inbox.tick_soon else 5 * TICK_S
            self._network.scheduler.after(wait_s, tick)

        return tick
