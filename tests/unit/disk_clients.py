"""Clients of a server on a disk that fails: without any cleverness, but what they were told they never forget."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from glintpy import config
from glintpy.actors.mailbox import Arrival, Idle
from glintpy.actors.server import ServerActor
from glintpy.protocol import wire
from glintpy.protocol.failures import APPLIED, PASSED_OVER
from glintpy.protocol.messages import (
    Applied,
    Bye,
    Failure,
    Gap,
    Hello,
    Message,
    Probe,
    Pull,
    Push,
    Report,
    Values,
    Welcome,
)
from glintpy.protocol.selection import slices_of
from glintpy.transport import Delivery

NUM_ROWS, NUM_SHARED, NUM_COLS = 200, 8, 32
KEY_RANGE = 5
REMOTE_FAILURE = 12


@dataclass(eq=False)
class Issued:
    """One push: it adds 1 to a row of its own, and numbers to rows that all share."""

    model_id: int
    own_row: int
    message: Push
    is_bad: bool
    outcome: int | None = None  # as it was told
    given_up: bool = False


@dataclass(eq=False)
class Client:
    """A client's half, without any cleverness: what it was told it never forgets."""

    name: bytes
    session: bytes = b""
    floor: int = 1
    next_sequence: int = 1
    pushes: dict[int, Issued] = field(default_factory=dict)
    is_welcome: bool = False

    def move_floor(self) -> None:
        while self.floor < self.next_sequence:
            push = self.pushes[self.floor]
            if push.outcome is None and not push.given_up:
                break
            self.floor += 1


class Clients(ABC):
    """Clients of one server, in one thread."""

    actor: ServerActor

    def __init__(self, source: random.Random, num_clients: int) -> None:
        self.source = source
        self.now = 0.0
        self.clients = [Client(f"client-{number}".encode()) for number in range(num_clients)]
        self.models: dict[int, bool] = {}  # those whose making was confirmed; whether they are on disk
        self.num_rows_used: dict[int, int] = {}
        self.seen: dict[int, set[int]] = {}  # rows that somebody was shown with a push in them
        self.issued: list[Issued] = []
        self.complaint: AssertionError | None = None
        self._request_id = 0

    @abstractmethod
    def settle(self) -> None:
        """Let the server do all that it has to do."""

    def send(self, peer: bytes, frames: Sequence[Any]) -> Delivery:
        """Deliver an answer: what a client was told counts."""
        client = next(client for client in self.clients if client.name == peer)
        for message in wire.decode_all([bytes(frame) for frame in frames]):
            try:
                self._told(client, message)
            except AssertionError as error:
                # The actor would take it for a failure of its own.
                self.complaint = self.complaint or error
        return Delivery.SENT

    # --- the clients --------------------------------------------------------------------------------------------------

    def step(self) -> None:
        """Do one thing, at random."""
        client = self.source.choice(self.clients)
        if not client.is_welcome:
            self.greet(client)
            self.settle()
            return
        act = self.source.choices(
            [self.push, self.again, self.pull, self.give_up, self.probe, self.bye, self.idle],
            weights=[12, 2, 2, 1, 1, 0.3, 3],
        )[0]
        act(client)

    def idle(self, client: Client) -> None:
        del client
        self.actor.on_receive(Idle(is_quiet=self.source.random() < 0.7))

    def push(self, client: Client) -> None:
        if not self.models:
            return
        messages = []
        for _ in range(self.source.choice([1, 1, 2, 5])):
            model_id = self.source.choice(list(self.models))
            own = self.num_rows_used[model_id]
            if own >= NUM_ROWS:
                break
            self.num_rows_used[model_id] += 1
            is_bad = self.source.random() < 0.05
            shared = sorted(self.source.sample(range(NUM_SHARED), self.source.randrange(4)))
            rows = np.array([own, *(NUM_ROWS + row for row in shared)], np.int64)
            values = np.ones((len(rows), NUM_COLS), np.int64)
            values[1:] *= self.source.randrange(1, 1000)
            if is_bad:
                rows[0] = NUM_ROWS + NUM_SHARED
            message = self._push_message(client, model_id, rows, values)
            issued = Issued(model_id, own, message, is_bad)
            client.pushes[client.next_sequence] = issued
            client.next_sequence += 1
            self.issued.append(issued)
            messages.append(message)
        if self.source.random() < 0.1:
            self.source.shuffle(messages)
        if messages and self.source.random() < 0.95:
            self._deliver(client, *messages)

    def again(self, client: Client) -> None:
        """Send any earlier push again, as a network might."""
        recent = [number for number in client.pushes if number > client.next_sequence - config.RECEIPTS // 2]
        if recent:
            self._deliver(client, client.pushes[self.source.choice(recent)].message)

    def pull(self, client: Client) -> None:
        if self.models:
            model_id = self.source.choice(list(self.models))
            self._deliver(client, self._pull_message(client, model_id))

    def give_up(self, client: Client) -> None:
        open_ones = [push for push in client.pushes.values() if push.outcome is None and not push.given_up]
        for push in open_ones[: self.source.randrange(3)]:
            push.given_up = True
        client.move_floor()

    def probe(self, client: Client) -> None:
        client.move_floor()
        self._deliver(
            client,
            Probe(
                self._next_id(),
                session=client.session,
                floor=client.floor,
                highest=client.next_sequence - 1,
            ),
        )

    def bye(self, client: Client) -> None:
        client.move_floor()
        if client.floor == client.next_sequence:
            self._deliver(client, Bye(self._next_id(), session=client.session))
            self.clients[self.clients.index(client)] = Client(client.name + b"'")

    def greet(self, client: Client) -> None:
        client.move_floor()
        self._deliver(
            client,
            Hello(
                self._next_id(),
                version_min=1,
                version_max=1,
                features="",
                client_id=client.name.ljust(16)[:16] if len(client.name) <= 16 else client.name[-16:],
                session=client.session,
                floor=client.floor,
            ),
        )

    def finish(self, client: Client) -> None:
        """Bring everything that is under way to an outcome, as a client does after a reconnect."""
        for _ in range(20):
            if not client.is_welcome:
                self.greet(client)
                self.settle()
            self.probe(client)
            self.settle()
            open_ones = [number for number, push in client.pushes.items() if push.outcome is None]
            messages = [client.pushes[number].message for number in open_ones if number >= client.floor]
            if not messages:
                return
            for message in messages:
                self._deliver(client, replace(message, floor=client.floor))
            self.settle()
        raise AssertionError("a push gets no outcome")

    # --- inside -------------------------------------------------------------------------------------------------------

    def _told(self, client: Client, message: Message) -> None:
        match message:
            case Welcome(session=session):
                assert client.session in {b"", session}, "a session was lost"
                client.session, client.is_welcome = session, True
            case Applied():
                self._settled(client, message.request_id, APPLIED)
            case Failure(code=code):
                assert message.request_id, message.text
                found = self._settled(client, message.request_id, code)
                assert found or code in {1, 10}, f"{client.name!r} was told: {message.text}"
            case Report(first=first, outcomes=outcomes):
                for number, code in enumerate(outcomes.tolist(), first):
                    self._note(client.pushes[number], code)
            case Values(values=values):
                model_id = message.part
                whole = values - model_id
                for row in np.flatnonzero(whole[:NUM_ROWS, 0] == 1).tolist():
                    if model_id in self.seen:
                        self.seen[model_id].add(row)
            case Gap():
                pass
            case _:
                raise AssertionError(f"a client was told {message!r}")
        client.move_floor()

    def _settled(self, client: Client, request_id: int, code: int) -> bool:
        for push in client.pushes.values():
            if push.message.request_id == request_id:
                if (
                    code != REMOTE_FAILURE
                ):  # of a number that was passed over, or so long ago that it is forgotten
                    self._note(push, code)
                return True
        return False

    def _note(self, push: Issued, code: int) -> None:
        if code == PASSED_OVER:
            assert push.given_up or push.outcome is not None, "a push was passed over that nobody gave up"
            if push.outcome is None:
                push.outcome = code
            return
        if not self.models.get(push.model_id):
            push.outcome = code
            return
        assert push.outcome in {None, code}, f"told {push.outcome} first, and then {code}"
        push.outcome = code

    def _push_message(self, client: Client, model_id: int, rows: Any, values: Any) -> Push:
        return Push(
            self._next_id(),
            session=client.session,
            floor=client.floor,
            sequence=client.next_sequence,
            model_id=model_id,
            routing=1,
            part=0,
            wants_values=False,
            assign=False,
            array=0,
            round=0,
            rank=0,
            paired=False,
            rows=rows,
            cols=None,
            values=values,
        )

    def _pull_message(self, client: Client, model_id: int) -> Pull:
        return Pull(
            self._next_id(),
            session=client.session,
            floor=client.floor,
            after=0,
            model_id=model_id,
            routing=1,
            part=model_id,
            array=0,
            round=0,
            rank=0,
            paired=False,
            rows=slices_of((0, NUM_ROWS + NUM_SHARED, 1)),
            cols=None,
        )

    def _deliver(self, client: Client, *messages: Message) -> None:
        if self.complaint is not None:
            raise self.complaint
        for message in messages:
            self.now += 0.01
            frames: list[Any] = [bytes(frame) for frame in wire.encode(message)]
            self.actor.on_receive(Arrival(client.name, frames))

    def _next_id(self) -> int:
        self._request_id += 1
        return self._request_id
