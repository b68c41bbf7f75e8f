"""Workers in front of the master's groups, without a master: what they ask, hear and know; knows no test."""

from __future__ import annotations

import json
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from glintpy.actors.groups import GroupMessage, Groups
from glintpy.actors.membership import Member
from glintpy.actors.writing import Row
from glintpy.config import GroupSettings
from glintpy.errors import GlintError, RemoteFailure
from glintpy.protocol.messages_master import (
    Advance,
    Arrive,
    AwaitClocks,
    JoinGroup,
    LeaveGroup,
    ReceiveMessages,
    SendMessage,
)

SETTINGS = GroupSettings()


class Followers:
    """Models that follow groups, as a test says.

    Attributes:
        clocks: by group, the clock up to which all is applied.
        names: by group, the servers that are waited for.
        begun: the groups that were made.
    """

    def __init__(self) -> None:
        self.clocks: dict[str, int] = {}
        self.names: dict[str, list[str]] = {}
        self.begun: list[str] = []

    def position(self, group: str) -> int | None:
        return self.clocks.get(group)

    def pending(self, group: str) -> list[str]:
        return self.names.get(group, [])

    def began_anew(self, group: str) -> None:
        self.begun.append(group)


@dataclass(eq=False)
class Asked:
    """A request, and what became of it."""

    message: GroupMessage
    deadline: float
    answers: list[dict[str, Any] | GlintError] = field(default_factory=list)

    @property
    def answer(self) -> Any:
        """The one answer; an error is raised."""
        (answer,) = self.answers
        if isinstance(answer, GlintError):
            raise answer
        return answer

    @property
    def is_open(self) -> bool:
        return not self.answers


class World:
    """Groups, a disk, members, and a clock that is set by hand.

    Attributes:
        disk: what has been saved.
        is_full: whether saving fails.
        asked: all that was ever asked.
    """

    def __init__(self, **settings: Any) -> None:
        self.settings = replace(SETTINGS, **settings)
        self.now = 0.0
        self.disk: dict[str, dict[str, str]] = {"groups": {}, "workers": {}, "messages": {}}
        self.is_full = False
        self.members: dict[str, Member] = {}
        self.asked: list[Asked] = []
        self._num_requests = 0
        self.followed_by = Followers()
        self.groups = self._begin()

    def _begin(self) -> Groups:
        groups = Groups(
            save=self._save, client=self.members.get, settings=self.settings, followed_by=self.followed_by
        )
        saved = {table: [json.loads(rows[key]) for key in sorted(rows)] for table, rows in self.disk.items()}
        groups.restore(saved["groups"], saved["workers"], saved["messages"], self.now)
        return groups

    def _save(self, rows: list[Row]) -> None:
        if self.is_full:
            raise RemoteFailure("no space left")
        for table, key, row in rows:
            if row is None:
                self.disk[table].pop(key, None)
            else:
                self.disk[table][key] = json.dumps(row)

    def restart(self) -> None:
        """Begin with a new master, which knows what was saved and nobody yet."""
        self.members.clear()
        self.groups = self._begin()

    # --- members ----------------------------------------------------------------------------------------------

    def come(self, client_id: str) -> None:
        """Have a client join the master."""
        self.members[client_id] = Member(
            client_id, False, f"name-{client_id}", "", 0, 100, "host", 0, state="alive"
        )
        self.groups.came(self.members[client_id], self.now)

    def lose(self, client_id: str, reason: str = "no heartbeat for 4.0 s") -> None:
        """Have the master miss a client for good."""
        self.members.pop(client_id, None)
        self.groups.lost(client_id, reason, self.now)

    def cut(self, client_id: str) -> None:
        """End a client's connection."""
        self.members.pop(client_id, None)
        self.groups.went_away(client_id, self.now)

    def pass_time(self, seconds: float) -> None:
        """Let time pass, with a tick at its end."""
        self.now += seconds
        self.groups.tick(self.now)

    # --- asking -----------------------------------------------------------------------------------------------

    def ask(self, message: GroupMessage) -> Asked:
        """Ask, as the master does when a message has come."""
        wait_s = min(getattr(message, "wait_ms", 0) / 1000, self.settings.wait_s)
        asked = Asked(message, self.now + wait_s)
        self.asked.append(asked)
        try:
            self.groups.ask(message, self.now, asked.answers.append)
        except GlintError as error:
            asked.answers.append(error)
        return asked

    def request_id(self) -> int:
        """Return a new one."""
        self._num_requests += 1
        return self._num_requests


class Told:
    """A worker as its own program knows it."""

    def __init__(self, world: World, client_id: str, token: bytes) -> None:
        self.world, self.client_id, self.token = world, client_id, token
        self.rank = -1
        self.clock = self.barrier = self.losses = 0
        self.sent = self.received = self.departures = 0

    def join(
        self,
        name: str = "g",
        num_workers: int = 0,
        *,
        rank: int | None = None,
        tells_losses: bool = False,
        wait_s: float = 30.0,
    ) -> Asked:
        asked = self.world.ask(
            JoinGroup(
                self.world.request_id(),
                self.client_id,
                self.token,
                name,
                num_workers,
                0 if rank is None else rank + 1,
                tells_losses,
                int(wait_s * 1000),
            )
        )
        if asked.answers and isinstance(asked.answers[0], dict):
            self.take(asked.answers[0])
        return asked

    def take(self, answer: dict[str, Any]) -> None:
        """Begin as the answer to joining says."""
        self.rank, self.clock = answer["rank"], answer["clock"]
        self.barrier, self.losses = answer["barrier"], answer["losses"]

    def tick(self) -> Asked:
        asked = self.world.ask(Advance(self.world.request_id(), self.token, self.clock + 1))
        if isinstance(asked.answers[0], dict):
            self.clock += 1
        return asked

    def wait(self, staleness: int = 0, wait_s: float = 30.0, *, is_applied: bool = False) -> Asked:
        return self.world.ask(
            AwaitClocks(
                self.world.request_id(),
                self.token,
                self.clock,
                staleness,
                is_applied,
                self.losses,
                int(wait_s * 1000),
            )
        )

    def arrive(self, wait_s: float = 30.0) -> Asked:
        return self.world.ask(
            Arrive(self.world.request_id(), self.token, self.barrier + 1, self.losses, int(wait_s * 1000))
        )

    def send(self, body: str = "", *ranks: int, head: int = 0, number: int | None = None) -> Asked:
        """Send a message to ranks, or to all others; a ``number`` repeats an earlier one."""
        self.sent += number is None
        to = np.array(ranks, np.int64) if ranks else None
        raw = np.frombuffer(body.encode(), np.uint8)
        message = SendMessage(self.world.request_id(), self.token, number or self.sent, head, to, raw)
        return self.world.ask(message)

    def receive(self, wait_s: float = 30.0) -> Asked:
        """Ask for messages behind those that were taken."""
        return self.world.ask(
            ReceiveMessages(
                self.world.request_id(), self.token, self.received, self.departures, int(wait_s * 1000)
            )
        )

    def leave(self, *, is_orderly: bool = True) -> Asked:
        return self.world.ask(LeaveGroup(self.world.request_id(), self.token, is_orderly))


def a_world(num_clients: int, **settings: Any) -> tuple[World, list[Told]]:
    """Return a world and workers that have not joined yet, each of a client of its own."""
    world = World(**settings)
    workers = [Told(world, f"c{index}", bytes([index + 1]) * 16) for index in range(num_clients)]
    for worker in workers:
        world.come(worker.client_id)
    return world, workers


def state(asked: Asked) -> str:
    return str(asked.answer["state"]) if asked.answers else "open"


def states(*several: Asked) -> list[str]:
    return [state(asked) for asked in several]


def joined(num_workers: int, *, fixed: bool = True, tells_losses: bool = False) -> tuple[World, list[Told]]:
    """Return a world with a group that is complete."""
    world, workers = a_world(num_workers)
    for worker in workers:
        worker.join(num_workers=num_workers if fixed else 0, tells_losses=tells_losses).answer  # noqa: B018 - no error
    return world, workers
