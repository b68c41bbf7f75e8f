"""The groups of a cluster: who waits for what, until when, and what is written down; pure: time is an argument.

What can't be answered at once is parked, with a deadline. An answer leaves only when what it rests on has been saved,
see ``writing``. Who comes and goes is decided by ``membership``; what a group is, by ``group``; who gets which
message, by ``post``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from typing import Any, Literal, Protocol

from glintpy.actors.group import Group, Worker
from glintpy.actors.membership import Member
from glintpy.actors.post import Post
from glintpy.actors.writing import Row, Settle, Table, Writing
from glintpy.config import GroupSettings
from glintpy.errors import ConfigError, Expelled, GlintError, Overloaded, RemoteProtocolError
from glintpy.protocol.messages_master import (
    Advance,
    Arrive,
    AwaitClocks,
    JoinGroup,
    LeaveGroup,
    ReceiveMessages,
    SendMessage,
)
from glintpy.protocol.spec import check_name
from glintpy.records import record

logger = logging.getLogger("glintpy.master")

GroupMessage = JoinGroup | Arrive | Advance | AwaitClocks | LeaveGroup | SendMessage | ReceiveMessages

NOBODY = (
    "the master knows no such worker: it was started anew without its --data-dir, or the worker's membership ended "
    "before that; join again"
)


class FollowedBy(Protocol):
    """The models that follow groups, see ``actors.rounds``."""

    def position(self, group: str) -> int | None:
        """Return up to which clock all models that follow a group have it applied; None: there are none."""

    def pending(self, group: str) -> list[str]:
        """Return the servers on which a group waits."""
        ...

    def began_anew(self, group: str) -> None:
        """A group was made whose name one may have had that has ended."""


@record
class _Parked:
    """A worker that waits for others: at a barrier, until all clocks are at its goal, or until that is applied."""

    token: bytes
    kind: Literal["barrier", "clock", "round"]
    goal: int
    num_heard: int
    deadline: float
    settle: Settle


@record
class _Queued:
    """A client that waits for a place in a full group."""

    message: JoinGroup
    deadline: float
    settle: Settle


class Groups:
    """Groups by name.

    Args:
        save: writes rows down, all of them or none, before anybody hears of it.
        client: returns a client that is alive, by its id.
        settings: the limits.
        followed_by: the models that follow groups.
    """

    def __init__(
        self,
        *,
        save: Callable[[list[Row]], None],
        client: Callable[[str], Member | None],
        settings: GroupSettings,
        followed_by: FollowedBy,
    ) -> None:
        self._writing = Writing(save, self._row)
        self._post = Post(self._writing, settings)
        self._followed_by = followed_by
        self._client = client
        self._settings = settings
        self._groups: dict[str, Group] = {}
        self._homes: dict[bytes, Group] = {}
        self._of_client: dict[str, list[bytes]] = {}
        self._ended: dict[bytes, str] = {}
        self._parked: dict[str, list[_Parked]] = {}
        self._queue: list[_Queued] = []

    def restore(
        self,
        groups: Iterable[dict[str, Any]],
        workers: Iterable[dict[str, Any]],
        messages: Iterable[dict[str, Any]],
        now: float,
    ) -> None:
        """Take what an earlier master had saved; its workers are away until their clients are back.

        Args:
            groups: their rows.
            workers: their rows.
            messages: the rows of what waits for workers, in order.
            now: the moment.
        """
        rows = list(workers)
        taken: dict[str, set[int]] = {}
        for row in rows:
            taken.setdefault(row["group"], set()).add(row["rank"])
        for row in groups:
            self._groups[row["name"]] = Group.from_row(row, taken.get(row["name"], set()))
        for row in rows:
            worker = Worker.from_row(row, now + self._settings.restart_s)
            self._add(self._groups[row["group"]], worker)
        self._post.restore(messages, self._groups)

    @property
    def client_ids(self) -> frozenset[str]:
        """The clients on which others may wait."""
        return frozenset(self._of_client)

    def clocks(self, name: str) -> tuple[int, int]:
        """Return the lowest and the highest clock of a group; zeros if there is none of that name."""
        group = self._groups.get(name)
        return (0, 0) if group is None else (group.slowest, group.fastest)

    def live(self, name: str) -> int:
        """Return a bit for each rank of a group that others wait for; 0 if there is none of that name."""
        group = self._groups.get(name)
        return 0 if group is None else group.live

    def applied(self, name: str, now: float) -> None:
        """Models that follow a group may have applied more of it."""
        if self._parked.get(name):
            self._review(self._groups[name])
            self._commit(now)

    # --- what workers ask -------------------------------------------------------------------------------------

    def ask(self, message: GroupMessage, now: float, settle: Settle) -> None:
        """Take a request; it is settled now or later.

        Args:
            message: the request.
            now: the moment.
            settle: hears the answer.

        Raises:
            ConfigError, Overloaded, Expelled, RemoteProtocolError: nothing was changed.
        """
        match message:
            case JoinGroup():
                self._join(message, now, settle)
            case Arrive():
                self._arrive(message, now, settle)
            case Advance():
                self._advance(message, settle)
            case AwaitClocks():
                self._await_clocks(message, now, settle)
            case LeaveGroup():
                self._leave(message, settle)
            case SendMessage():
                self._post.send(*self._find(message.token), message, settle)
            case ReceiveMessages():
                self._post.receive(*self._find(message.token), message, now, settle)
        self._commit(now)

    def _join(self, message: JoinGroup, now: float, settle: Settle) -> None:
        if message.token in self._ended:
            raise Expelled(self._ended[message.token])
        self._check(message)
        self._queue = [queued for queued in self._queue if queued.message.token != message.token]
        group = self._groups.get(message.name)
        if message.token not in self._homes and group is not None and not group.has_place(_rank(message)):
            deadline = min(now + message.wait_ms / 1000, group.frees_by(now, self._settings.place_s))
            if deadline <= now or len(self._queue) >= self._settings.workers_max:
                raise group.no_place(_rank(message))
            self._queue.append(_Queued(message, deadline, settle))
            return
        self._place(message, now, settle)

    def _check(self, message: JoinGroup) -> None:
        check_name(message.name, whose="a group's")
        if message.num_workers > self._settings.workers_max:
            raise ConfigError(
                f"a group has at most {self._settings.workers_max} workers, not {message.num_workers}"
            )
        if 0 < message.num_workers < message.rank:
            raise ConfigError(f"{message.num_workers} workers have no rank {message.rank - 1}")
        group = self._groups.get(message.name)
        if group is None:
            if len(self._groups) >= self._settings.groups_max:
                raise Overloaded(f"there are {len(self._groups)} groups, and no more can be made")
            return
        group.check_joined_alike(num_workers=message.num_workers, tells_losses=message.tells_losses)
        if len(group.workers) >= self._settings.workers_max and message.token not in group.workers:
            raise Overloaded(
                f"group {group.name!r} has {len(group.workers)} workers, and no more can join it"
            )

    def _place(self, message: JoinGroup, now: float, settle: Settle) -> None:
        group = self._homes.get(message.token)
        if group is None:
            if message.name not in self._groups:
                self._groups[message.name] = Group(message.name, message.num_workers, message.tells_losses)
                self._followed_by.began_anew(message.name)
            group = self._groups[message.name]
            worker = group.join(message.token, message.member_id, _rank(message))
            member = self._client(message.member_id)
            if member is None:
                # Its heart is about to come back to a master that was restarted: this request was faster.
                worker.away_until = now + self._settings.restart_s
            else:
                worker.name, worker.host, worker.pid = member.name, member.host, member.pid
            self._add(group, worker)
            self._note(group, worker)
            logger.info(
                "worker %d of group %s joined (%s on %s)", worker.rank, group.name, worker.name, worker.host
            )
        worker = group.workers[message.token]
        self._writing.answer(settle, group.place(worker))

    def _arrive(self, message: Arrive, now: float, settle: Settle) -> None:
        group, worker = self._find(message.token)
        if not self._has_unheard(group, message.losses):
            if message.barrier > worker.arrived + 1:
                raise RemoteProtocolError(
                    f"arrived at barrier {message.barrier} after barrier {worker.arrived}"
                )
            if message.barrier > worker.arrived:
                worker.arrived = message.barrier
                self._note(None, worker)
        self._park(
            group,
            _Parked(
                message.token,
                "barrier",
                message.barrier,
                message.losses,
                self._until(message.wait_ms, now),
                settle,
            ),
            now,
        )

    def _advance(self, message: Advance, settle: Settle) -> None:
        group, worker = self._find(message.token)
        self._reach(group, worker, message.clock)
        self._writing.answer(settle, {"size": group.size})

    def _await_clocks(self, message: AwaitClocks, now: float, settle: Settle) -> None:
        group, worker = self._find(message.token)
        self._reach(group, worker, message.clock)
        goal = max(0, message.clock - message.staleness)
        self._park(
            group,
            _Parked(
                message.token,
                "round" if message.is_applied else "clock",
                goal,
                message.losses,
                self._until(message.wait_ms, now),
                settle,
            ),
            now,
        )

    def _leave(self, message: LeaveGroup, settle: Settle) -> None:
        self._writing.answer(settle, {})
        self._queue = [queued for queued in self._queue if queued.message.token != message.token]
        group = self._homes.get(message.token)
        if group is not None:
            reason = "it left" if message.is_orderly else "it left by an exception"
            self._end(group, group.workers[message.token], reason, is_lost=not message.is_orderly)

    def _find(self, token: bytes) -> tuple[Group, Worker]:
        group = self._homes.get(token)
        if group is None:
            raise Expelled(self._ended.get(token, NOBODY))
        return group, group.workers[token]

    def _until(self, wait_ms: int, now: float) -> float:
        return now + min(wait_ms / 1000, self._settings.wait_s)

    def _reach(self, group: Group, worker: Worker, clock: int) -> None:
        if clock > worker.clock:
            worker.clock = clock
            self._note(None, worker)
            if self._parked.get(group.name):
                self._review(group)

    # --- who comes and goes -----------------------------------------------------------------------------------

    def came(self, member: Member, now: float) -> None:
        """A client joined, perhaps again: its workers are there."""
        for token in self._of_client.get(member.member_id, ()):
            worker = self._homes[token].workers[token]
            worker.away_until = None
            if (worker.name, worker.host, worker.pid) != (member.name, member.host, member.pid):
                worker.name, worker.host, worker.pid = member.name, member.host, member.pid
                self._note(None, worker)
        self._commit(now)

    def went_away(self, client_id: str, now: float) -> None:
        """A client's connection ended: it is back in a moment, or dead."""
        for token in self._of_client.get(client_id, ()):
            self._homes[token].workers[token].away_until = now + self._settings.back_s

    def lost(self, client_id: str, reason: str, now: float) -> None:
        """A client is gone: end its workers."""
        self._queue = [queued for queued in self._queue if queued.message.member_id != client_id]
        for token in list(self._of_client.get(client_id, ())):
            group = self._homes[token]
            self._end(group, group.workers[token], reason, is_lost=True)
        self._commit(now)

    def tick(self, now: float) -> None:
        """Miss who stays away, and answer who has waited long enough."""
        away = [
            (group, worker)
            for group in self._groups.values()
            for worker in group.workers.values()
            if worker.away_until is not None and now >= worker.away_until
        ]
        for group, worker in away:
            self._end(group, worker, "its connection ended, and it did not come back", is_lost=True)
        for name, waiting in list(self._parked.items()):
            group = self._groups[name]
            self._parked[name] = [parked for parked in waiting if now < parked.deadline]
            for parked in waiting:
                if now >= parked.deadline:
                    self._writing.answer(parked.settle, self._late(group, parked))
        for group in self._groups.values():
            self._post.tick(group, now)
        self._fill_places(now)
        overdue = [queued for queued in self._queue if now >= queued.deadline]
        self._queue = [queued for queued in self._queue if now < queued.deadline]
        for queued in overdue:
            group = self._groups[queued.message.name]
            self._writing.answer(queued.settle, group.no_place(_rank(queued.message)))
        self._commit(now)

    def _add(self, group: Group, worker: Worker) -> None:
        group.workers[worker.token] = worker
        self._homes[worker.token] = group
        self._of_client.setdefault(worker.client_id, []).append(worker.token)

    def _end(self, group: Group, worker: Worker, reason: str, *, is_lost: bool) -> None:
        log = logger.warning if is_lost else logger.info
        log(
            "worker %d of group %s (%s, pid %d on %s) is %s: %s",
            worker.rank,
            group.name,
            worker.name,
            worker.pid,
            worker.host,
            "lost" if is_lost else "gone",
            reason,
        )
        group.remove(worker, is_lost=is_lost)
        del self._homes[worker.token]
        tokens = self._of_client[worker.client_id]
        tokens.remove(worker.token)
        if not tokens:
            del self._of_client[worker.client_id]
        self._ended[worker.token] = f"its membership has ended ({reason}); join again"
        while len(self._ended) > self._settings.ended_max:
            del self._ended[next(iter(self._ended))]
        if not group.workers:
            del self._groups[group.name]
        self._note(group, worker)
        if group.tells_losses:
            self._note(None, *group.workers.values())  # what they had arrived at is void
        self._post.departed(group, worker, Expelled(self._ended[worker.token]))
        self._review(group)

    def _fill_places(self, now: float) -> None:
        queue, self._queue = self._queue, []
        for queued in queue:
            group = self._groups.get(queued.message.name)
            if group is not None and not group.has_place(_rank(queued.message)):
                self._queue.append(queued)
                continue
            self._place(queued.message, now, queued.settle)

    # --- who waits ----------------------------------------------------------------------------------------------

    def _park(self, group: Group, parked: _Parked, now: float) -> None:
        waiting = self._parked.setdefault(group.name, [])
        waiting.append(parked)
        own = [other for other in waiting if other.token == parked.token]
        if len(own) > self._settings.parked_max:
            # Most belong to connections that have ended; whoever still waits asks again.
            waiting.remove(own[0])
            self._writing.answer(own[0].settle, self._late(group, own[0]))
        self._review(group)
        if now >= parked.deadline and parked in self._parked.get(group.name, ()):
            self._parked[group.name].remove(parked)
            self._writing.answer(parked.settle, self._late(group, parked))

    def _review(self, group: Group) -> None:
        """Settle what can be settled, after something has changed."""
        if group.end_barriers():
            self._note(group)
        slowest = group.slowest
        waiting = self._parked.pop(group.name, [])
        still = []
        for parked in waiting:
            result = self._result(group, parked, slowest)
            if result is None:
                still.append(parked)
            else:
                self._writing.answer(parked.settle, result)
        if still:
            self._parked[group.name] = still

    def _result(self, group: Group, parked: _Parked, slowest: int) -> dict[str, Any] | GlintError | None:
        if parked.token not in group.workers:
            return Expelled(self._ended.get(parked.token, NOBODY))
        if self._has_unheard(group, parked.num_heard):
            return {
                **self._common("lost", group),
                "barrier": group.barrier,
                "lost": group.losses_since(parked.num_heard),
            }
        position = group.barrier if parked.kind == "barrier" else slowest
        if parked.kind == "round" and (applied := self._followed_by.position(group.name)) is not None:
            position = min(position, applied)
        return self._common("done", group) if position >= parked.goal else None

    def _late(self, group: Group, parked: _Parked) -> dict[str, Any]:
        late = group.late_for_barrier if parked.kind == "barrier" else group.late_for_clock
        return {
            **self._common("late", group),
            "missing": [worker.to_content() for worker in late(parked.goal)],
            "num_unjoined": group.num_unjoined,
            "unapplied": self._followed_by.pending(group.name) if parked.kind == "round" else [],
        }

    @staticmethod
    def _common(state: str, group: Group) -> dict[str, Any]:
        return {"state": state, "size": group.size, "losses": group.num_losses}

    @staticmethod
    def _has_unheard(group: Group, num_heard: int) -> bool:
        return group.tells_losses and group.num_losses > num_heard

    # --- writing down and answering ---------------------------------------------------------------------------

    def _note(self, group: Group | None, *workers: Worker) -> None:
        if group is not None:
            self._writing.note("groups", group.name)
        for worker in workers:
            self._writing.note("workers", worker.token.hex())

    def _row(self, table: Table, key: str) -> dict[str, Any] | None:
        if table == "messages":
            return self._post.row(key)
        if table == "groups":
            kept = self._groups.get(key)
            return None if kept is None else kept.to_row()
        token = bytes.fromhex(key)
        home = self._homes.get(token)
        return None if home is None else home.workers[token].to_row(home.name)

    def _commit(self, now: float) -> None:
        self._fill_places(now)
        self._writing.commit()

    # --- telling ------------------------------------------------------------------------------------------------

    def to_content(self) -> list[dict[str, Any]]:
        """Return the groups as plain data, by name."""
        num_messages = self._post.num_messages()
        return [self._told(self._groups[name], num_messages) for name in sorted(self._groups)]

    def _told(self, group: Group, num_messages: dict[bytes, int]) -> dict[str, Any]:
        waits = {token: "a message" for token in group.workers if self._post.is_waiting(token)}
        waits |= {parked.token: f"{parked.kind} {parked.goal}" for parked in self._parked.get(group.name, ())}
        return group.to_content(waits, num_messages)


def _rank(message: JoinGroup) -> int | None:
    return message.rank - 1 if message.rank else None
