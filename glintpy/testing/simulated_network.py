"""Virtual time and a network that misbehaves from a seed; knows frames, not messages.

One heap of events is the whole world: no socket, no thread, no sleep. A *line* is a client's way to one
server, connection after connection. In faithful networks each direction of a connection is first-in
first-out and loses nothing while it lives, as TCP; in hostile ones any message may be lost, repeated (also
much later) or overtaken.
"""

from __future__ import annotations

import heapq
import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol

Buffer = bytes | bytearray | memoryview
Frames = list[Buffer]
Action = Callable[[], None]


class Scheduler:
    """What happens when; ``now`` is in seconds and moves only from event to event."""

    def __init__(self, start_s: float = 100.0) -> None:
        self.now = start_s
        self._events: list[tuple[float, int, Action]] = []
        self._numbers = itertools.count()

    def after(self, delay_s: float, action: Action) -> None:
        """Do something later; what is planned for one moment happens in the order planned."""
        heapq.heappush(self._events, (self.now + delay_s, next(self._numbers), action))

    def step(self) -> None:
        """Go to the next event and let it happen."""
        self.now, _, action = heapq.heappop(self._events)
        action()


@dataclass(frozen=True, slots=True)
class Faults:
    """How a network misbehaves.

    Attributes:
        is_fifo: faithful: nothing is lost, repeated or overtaken on a connection that lives.
        drop: share of messages that are lost.
        repeat: share of messages that arrive twice.
        late: share of messages of which a copy arrives seconds later.
        delay_min_s: the shortest time on the way.
        delay_max_s: the longest.
        busy: share of sends that a server's socket has no room for at first.
    """

    is_fifo: bool = True
    drop: float = 0.0
    repeat: float = 0.0
    late: float = 0.0
    delay_min_s: float = 0.0005
    delay_max_s: float = 0.01
    busy: float = 0.0


class ClientEnd(Protocol):
    """What a line needs of its client."""

    def connection_made(self) -> None:
        """The connection came up."""
        ...

    def connection_lost(self) -> None:
        """The connection went down."""
        ...

    def arrived(self, frames: Frames) -> None:
        """A message came from the server."""
        ...


class ServerEnd(Protocol):
    """What a line needs of its server."""

    is_up: bool

    def arrived(self, peer: bytes, frames: Frames) -> None:
        """A message came from a client."""
        ...

    def peer_lost(self) -> None:
        """A connection ended."""
        ...


class Network:
    """Lines, and the one source of their misfortune."""

    def __init__(self, scheduler: Scheduler, faults: Faults, source: random.Random) -> None:
        self.scheduler = scheduler
        self.faults = faults
        self.source = source
        self.lines: list[Line] = []
        self.num_in_flight = 0
        self.num_messages = 0
        self.num_lost = 0
        self._peers = itertools.count(1)
        self._line_of: dict[bytes, Line] = {}

    def heal(self) -> None:
        """From now on nothing new goes wrong; what is under way arrives."""
        self.faults = Faults(is_fifo=self.faults.is_fifo)

    def line(self, client: ClientEnd, server: ServerEnd) -> Line:
        """Make a line; its first connection comes up soon."""
        made = Line(self, client, server)
        self.lines.append(made)
        made.connect_later()
        return made

    def line_of(self, peer: bytes) -> Line | None:
        """Return the line whose connection a server knows under this name, while that lives."""
        return self._line_of.get(peer)

    def opened(self, line: Line) -> bytes:
        """Return the name under which a server knows a new connection."""
        peer = next(self._peers).to_bytes(5, "big")
        self._line_of[peer] = line
        return peer

    def closed(self, peer: bytes) -> None:
        """Forget a connection."""
        del self._line_of[peer]


class Line:
    """A client's way to one server.

    Attributes:
        peer: the server's name of the connection; empty while there is none.
    """

    def __init__(self, network: Network, client: ClientEnd, server: ServerEnd) -> None:
        self._network = network
        self._client = client
        self._server = server
        self.peer = b""
        self.is_closed = False
        self._up_until: dict[str, float] = {"out": 0.0, "back": 0.0}  # FIFO: the last arrival of a direction
        self._is_connecting = False

    @property
    def server(self) -> ServerEnd:
        """Where it leads."""
        return self._server

    def connect_later(self, delay_s: float | None = None) -> None:
        """Begin to connect; where nobody listens it is tried again."""
        if self._is_connecting or self.is_closed:
            return
        self._is_connecting = True
        wait_s = self._network.source.uniform(0.001, 0.1) if delay_s is None else delay_s
        self._network.scheduler.after(wait_s, self._connect)

    def reset(self) -> None:
        """Break the connection: what is under way is lost at once; the client notices a little later."""
        if not self.peer:
            return
        self._network.closed(self.peer)
        self.peer = b""
        self._server.peer_lost()
        self._network.scheduler.after(self._network.source.uniform(0.0, 0.3), self._noticed)

    def close(self) -> None:
        """End it for good, the client's way: what it sent before still arrives."""
        self.is_closed = True

    def send_out(self, frames: Sequence[Buffer]) -> None:
        """Carry a message to the server; into the void where the connection is dead already."""
        peer = self.peer

        def arrive(copy: Frames) -> None:
            # A hostile network replays old messages on whatever connection there is.
            name = peer if self._network.faults.is_fifo or self.peer == peer else self.peer
            if name and self.peer == name and self._server.is_up:
                self._server.arrived(name, copy)

        if peer:
            self._carry("out", frames, arrive)

    def send_back(self, frames: Sequence[Buffer]) -> None:
        """Carry a message to the client."""
        peer = self.peer

        def arrive(copy: Frames) -> None:
            if self.peer == peer and not self.is_closed:
                self._client.arrived(copy)

        self._carry("back", frames, arrive)

    def _carry(self, direction: str, frames: Sequence[Buffer], arrive: Callable[[Frames], None]) -> None:
        network = self._network
        faults, source = network.faults, network.source
        copied: Frames = [bytes(frame) for frame in frames]  # the sender may change or free what it sent
        network.num_messages += 1
        delay_s = source.uniform(faults.delay_min_s, faults.delay_max_s)
        if faults.is_fifo:
            moment = max(self._up_until[direction], network.scheduler.now + delay_s)
            self._up_until[direction] = moment
            self._deliver(moment - network.scheduler.now, copied, arrive)
            return
        if source.random() < faults.drop:
            network.num_lost += 1
        else:
            self._deliver(delay_s, copied, arrive)
        if source.random() < faults.repeat:
            self._deliver(source.uniform(faults.delay_min_s, 2 * faults.delay_max_s), copied, arrive)
        if source.random() < faults.late:
            self._deliver(source.uniform(0.5, 6.0), copied, arrive)

    def _deliver(self, delay_s: float, frames: Frames, arrive: Callable[[Frames], None]) -> None:
        network = self._network
        network.num_in_flight += 1

        def happen() -> None:
            network.num_in_flight -= 1
            arrive(list(frames))

        network.scheduler.after(delay_s, happen)

    def _connect(self) -> None:
        self._is_connecting = False
        if self.peer or self.is_closed:
            return
        if not self._server.is_up:
            self.connect_later()
            return
        self.peer = self._network.opened(self)
        self._client.connection_made()

    def _noticed(self) -> None:
        if not self.is_closed:
            self._client.connection_lost()
            self.connect_later()
