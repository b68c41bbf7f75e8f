"""One group of workers: ranks, clocks, barriers and losses; pure, and knows no request and no other group.

Every question here is about where workers are, so answers follow from the state alone and are the same however often a
question is put. A group of a fixed size is *complete* once each rank was somebody's, even if some of them were lost
meanwhile: who was lost is not waited for, who has not come yet is. So who takes over a rank counts once with the one
that had it. Who asks for no rank is one of those that are to come as long as there are any.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from glintpy.errors import ConfigError
from glintpy.protocol.rounds import RANKS_MAX

NAMED_MAX = 8
"""Workers that an error names."""

LOSSES_KEPT = 64
"""Losses of which a group remembers who it was; of earlier ones it knows the number."""

VACANT_KEPT = 4096
"""Vacant ranks that a group without a size remembers, as many as it may have workers; one with a size knows all."""


MISSED_S = 1.0
"""After the moment at which a worker counts as lost it has been missed for sure."""


@dataclass(slots=True, eq=False)
class Worker:
    """A client's place in a group.

    Attributes:
        client_id: the member with which it is lost.
        clock: steps that it has finished.
        arrived: the number of the last barrier that it has arrived at.
        away_until: a moment at which it is lost, unless its client is back; None: it is there.
        member: its number among all that ever joined the group, from 1: a rank may have several holders, one after
            another, and this has one.
        sent: the number of its last message that was taken.
        is_successor: whether another one had its rank before.
    """

    token: bytes
    rank: int
    client_id: str
    name: str = ""
    host: str = ""
    pid: int = 0
    clock: int = 0
    arrived: int = 0
    away_until: float | None = None
    member: int = 0
    sent: int = 0
    is_successor: bool = False

    def to_content(self) -> dict[str, Any]:
        """Return plain data for answers and status."""
        return {
            "rank": self.rank,
            "clock": self.clock,
            "name": self.name,
            "host": self.host,
            "pid": self.pid,
        }

    def to_row(self, group: str) -> dict[str, Any]:
        """Return plain data for the registry."""
        return {
            **self.to_content(),
            "group": group,
            "token": self.token.hex(),
            "client_id": self.client_id,
            "arrived": self.arrived,
            "member": self.member,
            "sent": self.sent,
            "is_successor": self.is_successor,
        }

    @classmethod
    def from_row(cls, row: dict[str, Any], away_until: float) -> Worker:
        """Return a worker from the registry, which is away until its client is back."""
        return cls(
            bytes.fromhex(row["token"]),
            row["rank"],
            row["client_id"],
            row["name"],
            row["host"],
            row["pid"],
            row["clock"],
            row["arrived"],
            away_until,
            row.get("member", 0),  # an earlier version had no messages
            row.get("sent", 0),
            row.get("is_successor", False),
        )


@dataclass(slots=True, eq=False)
class Group:
    """Workers by token.

    Attributes:
        num_workers: its fixed size; 0: whoever is there.
        tells_losses: whether whoever waits is told of a loss.
        num_joins: workers that ever joined.
        barrier: the number of the last barrier that has ended.
        num_losses: workers that were lost.
        lost: the last of them.
        num_messages: messages that were ever sent in it, and so the number of the last one.
        vacant: ranks that somebody had and nobody has now, in the order in which they became so.
    """

    name: str
    num_workers: int
    tells_losses: bool
    num_joins: int = 0
    barrier: int = 0
    num_losses: int = 0
    lost: list[dict[str, Any]] = field(default_factory=list)
    num_messages: int = 0
    vacant: list[int] = field(default_factory=list)
    workers: dict[bytes, Worker] = field(default_factory=dict)

    def to_row(self) -> dict[str, Any]:
        """Return plain data for the registry, without the workers, which have rows of their own."""
        return {
            "name": self.name,
            "num_workers": self.num_workers,
            "tells_losses": self.tells_losses,
            "num_joins": self.num_joins,
            "barrier": self.barrier,
            "num_losses": self.num_losses,
            "lost": self.lost,
            "num_messages": self.num_messages,
            "vacant": self.vacant,
        }

    @classmethod
    def from_row(cls, row: dict[str, Any], taken: set[int]) -> Group:
        """Return a group from the registry, still without its workers.

        Args:
            row: the group's.
            taken: the ranks of the workers.
        """
        if "vacant" in row:
            return cls(**row)
        # An earlier version counted joins alone: what was complete stays so.
        vacant = list(dict.fromkeys(one["rank"] for one in row["lost"] if one["rank"] not in taken))
        for rank in range(row["num_workers"]):
            if len(taken) + len(vacant) < row["num_joins"] and rank not in taken and rank not in vacant:
                vacant.append(rank)
        return cls(**row, vacant=vacant)

    @property
    def size(self) -> int:
        """The fixed size, or how many there are."""
        return self.num_workers or len(self.workers)

    def has_place(self, rank: int | None) -> bool:
        """Whether a rank is free; None: any."""
        if rank is None:
            return not 0 < self.num_workers <= len(self.workers)
        return all(worker.rank != rank for worker in self.workers.values())

    @property
    def num_departures(self) -> int:
        """How many workers have gone, lost ones and others."""
        return self.num_joins - len(self.workers)

    @property
    def num_unjoined(self) -> int:
        """How many have still to join before anything that all must do can be done."""
        return max(0, self.num_workers - len(self.workers) - len(self.vacant))

    @property
    def slowest(self) -> int:
        """The lowest clock; of those that have not joined it is 0."""
        if self.num_unjoined:
            return 0
        return min((worker.clock for worker in self.workers.values()), default=0)

    @property
    def fastest(self) -> int:
        """The highest clock."""
        return max((worker.clock for worker in self.workers.values()), default=0)

    @property
    def live(self) -> int:
        """A bit for each rank that others wait for: of who is there, and of who is to come; 0: too many for bits."""
        ranks = {worker.rank for worker in self.workers.values()}
        ranks |= set(range(self.num_workers)).difference(self.vacant)
        return 0 if any(rank >= RANKS_MAX for rank in ranks) else sum(1 << rank for rank in ranks)

    # --- coming and going -------------------------------------------------------------------------------------

    def join(self, token: bytes, client_id: str, rank: int | None = None) -> Worker:
        """Add a worker, under a rank that is free; None: the lowest one, and of those that nobody ever had, if any.

        It starts at the slowest clock, so that it holds nobody back and is not ahead, and takes part in barriers from
        the first one on at which nobody has arrived yet: one that is under way must not wait for a newcomer's first
        round. Those that complete a group are no newcomers, and begin where it began.
        """
        if rank is None:
            taken = {worker.rank for worker in self.workers.values()}
            if self.num_unjoined:
                taken.update(self.vacant)
            rank = next(rank for rank in range(len(taken) + 1) if rank not in taken)
        worker = Worker(token, rank, client_id, clock=self.slowest, arrived=self.barrier)
        if not self.num_unjoined:
            worker.arrived = max((other.arrived for other in self.workers.values()), default=self.barrier)
        worker.is_successor = rank in self.vacant
        self.vacant = [one for one in self.vacant if one != rank]
        self.workers[token] = worker
        self.num_joins += 1
        worker.member = self.num_joins
        return worker

    def place(self, worker: Worker) -> dict[str, Any]:
        """Return what a worker is told about itself when it joins."""
        return {
            "rank": worker.rank,
            "size": self.size,
            "clock": worker.clock,
            "barrier": worker.arrived,
            "losses": self.num_losses,
            "member": worker.member,
            "is_successor": worker.is_successor,
        }

    def remove(self, worker: Worker, *, is_lost: bool) -> None:
        """End a worker.

        Where losses are told, the barrier under way is void: some hear of the loss there and some elsewhere, and what
        each of them does next must begin with the same barrier.
        """
        del self.workers[worker.token]
        self.vacant = [*self.vacant, worker.rank][-max(VACANT_KEPT, self.num_workers) :]
        if not is_lost:
            return
        self.num_losses += 1
        self.lost = [*self.lost, worker.to_content()][-LOSSES_KEPT:]
        if self.tells_losses:
            for other in self.workers.values():
                other.arrived = self.barrier

    # --- barriers, clocks and losses --------------------------------------------------------------------------

    def end_barriers(self) -> bool:
        """Count the barriers at which all have arrived; whether there were any."""
        if self.num_unjoined or not self.workers:
            return False
        ended = min(worker.arrived for worker in self.workers.values())
        if ended <= self.barrier:
            return False
        self.barrier = ended
        return True

    def late_for_barrier(self, barrier: int) -> list[Worker]:
        """Return who has not arrived, by rank."""
        return self._ordered([worker for worker in self.workers.values() if worker.arrived < barrier])

    def late_for_clock(self, clock: int) -> list[Worker]:
        """Return whose clock is lower, by rank."""
        return self._ordered([worker for worker in self.workers.values() if worker.clock < clock])

    def losses_since(self, num_heard: int) -> list[dict[str, Any]]:
        """Return the losses that somebody has not heard of, as far as they are remembered."""
        num_new = self.num_losses - num_heard
        return self.lost[-num_new:] if num_new > 0 else []

    @staticmethod
    def _ordered(workers: list[Worker]) -> list[Worker]:
        return sorted(workers, key=lambda worker: worker.rank)

    # --- telling ------------------------------------------------------------------------------------------------

    def check_joined_alike(self, *, num_workers: int, tells_losses: bool) -> None:
        """Refuse a worker that takes the group for another one.

        Raises:
            ConfigError: another size or policy, with both.
        """
        differ = [
            (f"num_workers={self.num_workers or None}", f"num_workers={num_workers or None}"),
            (f"on_worker_lost={_policy(self.tells_losses)!r}", f"on_worker_lost={_policy(tells_losses)!r}"),
        ]
        for ours, theirs in differ:
            if ours != theirs:
                raise ConfigError(
                    f"group {self.name!r} was made with {ours}, and this worker joins it with {theirs}: all say the "
                    "same, or take another name"
                )

    def frees_by(self, now: float, place_s: float) -> float:
        """Return the moment by which a place has come free, if one does: who is away is missed by then, or back."""
        away = [worker.away_until for worker in self.workers.values() if worker.away_until is not None]
        return max([now + place_s, *(moment + MISSED_S for moment in away)])

    def no_place(self, rank: int | None) -> ConfigError:
        """Return the error for who finds no place: of this rank, or none at all."""
        for worker in self.workers.values():
            if worker.rank == rank:
                return ConfigError(
                    f"rank {rank} of group {self.name!r} is taken by {worker.name} (pid {worker.pid} on "
                    f"{worker.host}), which is alive; take another rank, or none, or end that one"
                )
        named = self._ordered(list(self.workers.values()))[:NAMED_MAX]
        who = ", ".join(
            f"{worker.rank}: {worker.name} (pid {worker.pid} on {worker.host})" for worker in named
        )
        more = "" if len(named) == len(self.workers) else f" and {len(self.workers) - len(named)} more"
        return ConfigError(
            f"group {self.name!r} has its {self.num_workers} workers already; by rank {who}{more}. Start no more of "
            "them, or use another name"
        )

    def to_content(self, waits_for: dict[bytes, str], num_messages: Mapping[bytes, int]) -> dict[str, Any]:
        """Return plain data for status.

        Args:
            waits_for: what workers wait for.
            num_messages: how many messages wait for workers.
        """
        return {
            "name": self.name,
            "num_workers": self.num_workers or None,
            "on_worker_lost": _policy(self.tells_losses),
            "clock": self.slowest,
            "barrier": self.barrier,
            "num_unjoined": self.num_unjoined,
            "num_losses": self.num_losses,
            "lost": self.lost,
            "workers": [
                {
                    **worker.to_content(),
                    "client_id": worker.client_id,
                    "is_away": worker.away_until is not None,
                    "waits_for": waits_for.get(worker.token),
                    "num_messages": num_messages.get(worker.token, 0),
                }
                for worker in self._ordered(list(self.workers.values()))
            ],
        }


def _policy(tells_losses: bool) -> str:
    return "raise" if tells_losses else "shrink"
