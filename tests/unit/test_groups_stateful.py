"""Whatever workers, connections and masters do: nobody passes too early, waits for nothing, or is forgotten."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from glintpy.actors.group import MISSED_S
from glintpy.errors import ConfigError, GlintError, RemoteFailure
from glintpy.protocol.messages_master import Arrive, AwaitClocks, JoinGroup
from tests.unit.group_world import SETTINGS, Asked, Told, World

CLIENTS = 5
WAITS_S = (0.0, 3.0, 100.0, 100.0)

SELDOM = st.sampled_from([True, False, False, False])
"""Whether something bad really happens: groups must live long enough to get somewhere."""

clients = st.integers(0, CLIENTS - 1)


@dataclass(eq=False)
class Known:
    """What must be true of a worker, by what it asked and was answered; the master is not looked into."""

    worker: Told
    arrived: int
    open: list[Asked] = field(default_factory=list)


def wanted_rank(asked: Asked) -> int | None:
    assert isinstance(asked.message, JoinGroup)
    return asked.message.rank - 1 if asked.message.rank else None


class GroupMachine(RuleBasedStateMachine):
    """One group, its workers, their connections, and a master that may start again at any moment."""

    def __init__(self) -> None:
        super().__init__()
        self.world = World()
        self.known: dict[int, Known] = {}
        self.joining: dict[int, tuple[Told, Asked]] = {}
        self.num_joins = 0
        self.ranks: set[int] = set()
        """Those that anybody ever had."""
        self.num_tokens = 0
        self.barrier = 0
        """The last barrier that has ended, as far as anybody can know."""

    @initialize(num_workers=st.sampled_from([0, 1, 3, 4]), tells_losses=st.booleans())
    def begin(self, num_workers: int, tells_losses: bool) -> None:
        self.num_workers, self.tells_losses = num_workers, tells_losses
        for client in range(CLIENTS):
            self.world.come(f"c{client}")

    # --- what may be expected ---------------------------------------------------------------------------------

    @property
    def num_unjoined(self) -> int:
        return max(0, self.num_workers - len(self.ranks))

    @property
    def slowest(self) -> int:
        if self.num_unjoined:
            return 0
        return min((known.worker.clock for known in self.known.values()), default=0)

    def is_reached(self, asked: Asked) -> bool:
        """Whether what a request waits for is so."""
        if isinstance(asked.message, AwaitClocks):
            return self.slowest >= asked.message.clock - asked.message.staleness
        assert isinstance(asked.message, Arrive)
        barrier = asked.message.barrier
        all_arrived = all(known.arrived >= barrier for known in self.known.values())
        return barrier <= self.barrier or (not self.num_unjoined and all_arrived)

    def has_unheard(self, asked: Asked) -> bool:
        return self.tells_losses and self.num_losses > getattr(asked.message, "losses", 0)

    num_losses = 0

    def look(self) -> None:
        """Take the answers that have come, each against what may be expected."""
        if self.known and not self.num_unjoined:
            self.barrier = max(self.barrier, min(known.arrived for known in self.known.values()))
        for client, (worker, asked) in list(self.joining.items()):
            if asked.answers:
                del self.joining[client]
                self.take_place(client, worker, asked)
        for known in self.known.values():
            for asked in [asked for asked in known.open if asked.answers]:
                known.open.remove(asked)
                self.take(known, asked)

    def take(self, known: Known, asked: Asked) -> None:
        answer = asked.answer
        if answer["state"] == "lost":
            assert self.has_unheard(asked), "told of a loss that it had heard of"
            assert answer["losses"] == self.num_losses
            known.worker.losses, known.worker.barrier = answer["losses"], answer["barrier"]
            assert known.worker.barrier == self.barrier
        elif answer["state"] == "done":
            assert not self.has_unheard(asked)
            assert self.is_reached(asked), "it passed too early"
            if isinstance(asked.message, Arrive):
                known.worker.barrier = asked.message.barrier
        else:
            assert self.world.now >= asked.deadline, "its time is not over"
            assert not self.is_reached(asked), "it was late for what was so"
            waited_for = {
                other.worker.rank
                for other in self.known.values()
                if (
                    other.worker.clock < asked.message.clock - asked.message.staleness
                    if isinstance(asked.message, AwaitClocks)
                    else other.arrived < getattr(asked.message, "barrier", 0)
                )
            }
            assert {entry["rank"] for entry in answer["missing"]} == waited_for
            assert answer["num_unjoined"] == self.num_unjoined

    def take_place(self, client: int, worker: Told, asked: Asked) -> None:
        if isinstance(asked.answers[0], GlintError):
            assert isinstance(asked.answers[0], ConfigError)
            assert not self.has_place(asked), "there was a place"
            assert (
                self.world.now >= asked.deadline or self.world.now >= self.asked_at[client] + SETTINGS.place_s
            )
            return
        if not self.known:  # a new group
            self.num_joins = self.barrier = self.num_losses = 0
            self.ranks = set()
        assert self.has_place(asked)
        slowest = self.slowest
        worker.take(asked.answers[0])
        assert worker.clock == slowest, "it starts with the slowest"
        assert worker.losses == self.num_losses
        # One that completes the group begins with its first barrier, a newcomer behind the one that is under way.
        under_way = max((known.arrived for known in self.known.values()), default=self.barrier)
        assert worker.barrier == (self.barrier if self.num_unjoined else under_way)
        self.num_joins += 1
        assert asked.answer["member"] == self.num_joins
        assert asked.answer["is_successor"] == (worker.rank in self.ranks)
        assert not (wanted_rank(asked) is None and self.num_unjoined and worker.rank in self.ranks)
        self.ranks.add(worker.rank)
        self.known[client] = Known(worker, worker.barrier)

    def has_place(self, asked: Asked) -> bool:
        """Whether the rank that a request wants, or any, is free."""
        wanted = wanted_rank(asked)
        if wanted is None:
            return not 0 < self.num_workers <= len(self.known)
        return all(known.worker.rank != wanted for known in self.known.values())

    def end(self, client: int, *, is_lost: bool) -> None:
        known = self.known.pop(client, None)
        if known is None:
            return
        for asked in known.open:
            assert isinstance(asked.answers[0], GlintError), "who is no worker any more is told"
        if is_lost:
            self.num_losses += 1
            if self.tells_losses:
                for other in self.known.values():
                    other.arrived = self.barrier

    # --- what workers do --------------------------------------------------------------------------------------

    @rule(client=clients, wait_s=st.sampled_from(WAITS_S), rank=st.none() | clients)
    def join(self, client: int, wait_s: float, rank: int | None) -> None:
        if client in self.known or client in self.joining:
            return
        self.num_tokens += 1
        worker = Told(self.world, f"c{client}", self.num_tokens.to_bytes(16, "big"))
        self.asked_at: dict[int, float] = getattr(self, "asked_at", {}) | {client: self.world.now}
        if rank is not None and self.num_workers:
            rank %= self.num_workers
        asked = worker.join("g", self.num_workers, rank=rank, tells_losses=self.tells_losses, wait_s=wait_s)
        self.joining[client] = (worker, asked)
        self.look()

    @rule()
    def all_join(self) -> None:
        for client in range(self.num_workers or CLIENTS):
            self.join(client, WAITS_S[-1], None)

    @rule()
    def all_join_under_ranks_of_their_own(self) -> None:
        for client in range(self.num_workers or CLIENTS):
            self.join(client, WAITS_S[-1], client)

    @rule()
    def all_tick(self) -> None:
        for client in range(CLIENTS):
            self.tick(client)

    @rule(but=clients)
    def all_wait(self, but: int) -> None:
        for client in range(CLIENTS):
            if client != but:
                self.wait(client, 0, WAITS_S[-1])

    @rule(but=clients)
    def all_arrive(self, but: int) -> None:
        for client in range(CLIENTS):
            if client != but:
                self.arrive(client, WAITS_S[-1])

    @rule(client=clients)
    def tick(self, client: int) -> None:
        if client in self.known:
            assert self.known[client].worker.tick().answer["size"] == (self.num_workers or len(self.known))
            self.look()

    @rule(client=clients, staleness=st.integers(0, 3), wait_s=st.sampled_from(WAITS_S))
    def wait(self, client: int, staleness: int, wait_s: float) -> None:
        if client in self.known:
            known = self.known[client]
            known.open.append(known.worker.wait(staleness, wait_s))
            self.look()

    @rule(client=clients, wait_s=st.sampled_from(WAITS_S))
    def arrive(self, client: int, wait_s: float) -> None:
        if client in self.known:
            known = self.known[client]
            asked = known.worker.arrive(wait_s)
            if not self.has_unheard(asked):
                known.arrived = max(known.arrived, known.worker.barrier + 1)
            known.open.append(asked)
            self.look()

    @rule(client=clients, is_orderly=st.booleans(), really=SELDOM)
    def leave(self, client: int, is_orderly: bool, really: bool) -> None:
        if really and client in self.known:
            self.known[client].worker.leave(is_orderly=is_orderly)
            self.end(client, is_lost=not is_orderly)
            self.look()

    # --- what goes wrong ----------------------------------------------------------------------------------------

    @rule(client=clients)
    def ask_again(self, client: int) -> None:
        """Repeat what has no answer, as after a lost connection."""
        for asked in list(self.known[client].open) if client in self.known else ():
            again = self.world.ask(asked.message)
            again.deadline = max(again.deadline, self.world.now)
            self.known[client].open.append(again)
        self.look()

    @rule(client=clients, really=SELDOM)
    def lose(self, client: int, really: bool) -> None:
        if not really:
            return
        self.world.lose(f"c{client}")
        self.joining.pop(client, None)
        self.end(client, is_lost=True)
        self.world.come(f"c{client}")
        self.look()

    @rule(client=clients, comes_back=SELDOM.map(lambda is_lost: not is_lost))
    def cut(self, client: int, comes_back: bool) -> None:
        self.world.cut(f"c{client}")
        self.pass_time(SETTINGS.back_s / 2)
        if not comes_back:
            self.world.pass_time(SETTINGS.back_s / 2)
            self.end(client, is_lost=True)
        self.world.come(f"c{client}")
        self.look()

    @rule(seconds=st.sampled_from([0.1, 0.1, 1.0, 10.0, 100.0]))
    def pass_time(self, seconds: float) -> None:
        self.world.pass_time(seconds)
        self.look()

    @rule()
    def restart(self) -> None:
        """A new master: everything open is asked again, and all come back."""
        self.world.restart()
        for client in range(CLIENTS):
            self.world.come(f"c{client}")
        for known in self.known.values():
            known.open = [self.world.ask(asked.message) for asked in known.open]
        for client, (worker, asked) in list(self.joining.items()):
            self.joining[client] = (worker, self.world.ask(asked.message))
            self.asked_at[client] = self.world.now
        self.look()

    @precondition(lambda self: self.known)
    @rule()
    def write_nothing_for_a_moment(self) -> None:
        """A disk that is full for the time of one step of somebody."""
        client = min(self.known)
        known = self.known[client]
        self.world.is_full = True
        before = known.worker.clock
        asked = known.worker.tick()
        self.world.is_full = False
        assert isinstance(asked.answers[0], RemoteFailure)
        assert known.worker.clock == before
        # Whoever was to hear of it was told so too, and asks again; the step may be in.
        for other in self.known.values():
            for failed in [
                one for one in other.open if one.answers and isinstance(one.answers[0], GlintError)
            ]:
                other.open.remove(failed)
                other.open.append(self.world.ask(failed.message))
        known.worker.tick()
        self.look()

    # --- what is always so --------------------------------------------------------------------------------------

    @invariant()
    def nobody_is_answered_twice(self) -> None:
        assert all(len(asked.answers) <= 1 for asked in self.world.asked)

    @invariant()
    def ranks_differ(self) -> None:
        ranks = sorted(known.worker.rank for known in self.known.values())
        assert len(set(ranks)) == len(ranks)
        assert not self.num_workers or all(rank < self.num_workers for rank in ranks)

    @invariant()
    def nobody_waits_for_nothing(self) -> None:
        for known in self.known.values():
            for asked in known.open:
                assert not self.is_reached(asked), "nobody is behind"
                assert not self.has_unheard(asked)
                assert self.world.now < asked.deadline, "its time is over"
        for client, (_, asked) in self.joining.items():
            assert not self.has_place(asked), "there is a place"
            # After a restart those that are not back yet are waited for longer.
            patience_s = max(SETTINGS.place_s, SETTINGS.restart_s + MISSED_S)
            assert self.world.now < self.asked_at[client] + patience_s

    @invariant()
    def what_is_known_is_written_down(self) -> None:
        told = self.world.groups.to_content()
        fresh = World()
        fresh.disk = self.world.disk
        fresh.restart()
        saved = fresh.groups.to_content()
        for group in (*told, *saved):
            for worker in group["workers"]:
                del worker["is_away"], worker["waits_for"]
        assert saved == told

    @invariant()
    def the_master_knows_the_same(self) -> None:
        told: list[dict[str, Any]] = self.world.groups.to_content()
        assert bool(told) == bool(self.known)
        if told:
            clocks = {worker["client_id"]: worker["clock"] for worker in told[0]["workers"]}
            assert clocks == {f"c{client}": known.worker.clock for client, known in self.known.items()}
            assert told[0]["barrier"] == self.barrier


@pytest.mark.parametrize(
    "num_examples", [80, pytest.param(1500, marks=pytest.mark.soak)], ids=["few", "many"]
)
def test_a_group_keeps_its_promises_whatever_happens(num_examples: int) -> None:
    run_state_machine_as_test(
        GroupMachine,
        settings=settings(
            max_examples=num_examples,
            stateful_step_count=50,
            deadline=None,
            suppress_health_check=list(HealthCheck),
        ),
    )
