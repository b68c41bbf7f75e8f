"""A process's place among the nodes of a job, with a role, a rank and barriers, as ps-lite has it; knows no app.

A node is a worker of several groups: one of the nodes of its role, which gives its rank; one for each sum of roles that
it belongs to, for barriers, where its rank follows from that one; and one of all nodes, where its rank is its number
among all, for messages.
"""

from __future__ import annotations

import contextlib
import os
import threading
from typing import ClassVar, Literal, Self

from glintpy import Client, ConfigError, Future, GlintError, Group
from glintpy.kvstore.environment import Job, role_of
from glintpy.kvstore.integers import integer_of
from glintpy.kvstore.membership import job_of
from glintpy.kvstore.roles import (
    ALL,
    GROUP_OF,
    SCHEDULER,
    SERVERS,
    WORKERS,
    Role,
    check_group,
    check_role,
    node_id,
    node_of,
)
from glintpy.kvstore.switchboard import Switchboard

TIMEOUT_S = 30.0


class Postoffice:
    """A node of a job.

    Args:
        role: ``"scheduler"``, ``"server"`` or ``"worker"``; None: what ``DMLC_ROLE`` says, and else a worker.
        client: a client, or the master's address; None: the environment says it.
        job: the job's name.
        rank: among the nodes of the role; None: what the environment says, and else the lowest free one. It takes over
            the rank of a node that is lost.
        num_workers: how many there are to be; None: what the environment says, and else whoever is there.
        num_servers: how many nodes have the role of a server; None: what the environment says, and else none, or
            whoever is there where nothing is said of workers either. The servers that hold values are none of them.
        with_scheduler: whether a node has the role of the scheduler. The master does all that ps-lite's does.
        on_worker_lost: see ``Client.join``.
        timeout_s: how long other nodes are waited for.

    Raises:
        ConfigError: a role or number that can't be; or all nodes of the role are there already.
        MasterUnreachable: nobody answers at the address.

    Threads:
        Safe from any thread. A process arrives at a barrier once, however many of its threads call it.
    """

    _open: ClassVar[list[Postoffice]] = []
    _opening: ClassVar[threading.Lock] = threading.Lock()

    def __init__(
        self,
        role: Role | None = None,
        client: Client | str | None = None,
        *,
        job: str | None = None,
        rank: int | None = None,
        num_workers: int | None = None,
        num_servers: int | None = None,
        with_scheduler: bool = False,
        on_worker_lost: Literal["shrink", "raise"] | None = None,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        environment = dict(os.environ)
        self._role = role_of(environment) if role is None else check_role(role, whose="role")
        found = job_of(
            client,
            environment,
            name=job,
            num_workers=num_workers,
            num_role_servers=num_servers,
            on_worker_lost=on_worker_lost,
        )
        if rank is None and found.role == self._role:
            rank = found.rank  # else the environment speaks of another role's
        num_servers = found.num_role_servers
        if num_servers is None and found.num_workers is not None:
            num_servers = 0
        counts = {SCHEDULER: int(with_scheduler), SERVERS: num_servers, WORKERS: found.num_workers}
        if counts[GROUP_OF[self._role]] == 0:
            raise ConfigError(
                "this node is the scheduler: all nodes of the job have to say with_scheduler=True"
                if self._role == "scheduler"
                else f"this node is a {self._role}, and the job has none: give num_{self._role}s to all nodes"
            )
        self.job = found.name
        self._counts = counts
        self._present = sum(group for group, count in counts.items() if count != 0)
        self.timeout_s = timeout_s
        self._owned = not isinstance(client, Client)
        self._pid = os.getpid()
        self._is_over = False
        self.client = client if isinstance(client, Client) else Client(found.address, timeout_s=timeout_s)
        self._groups: dict[int, Group] = {}
        self._joined: list[Group] = []
        try:
            self._join(found, rank)
        except BaseException:
            self._leave(None)
            raise
        self.switchboard = Switchboard(self._nodes.send)
        self._nodes.listen(
            self.switchboard.heard, on_departure=self.switchboard.departed, on_end=self.switchboard.end
        )
        with self._opening:
            self._open.append(self)

    def _join(self, job: Job, rank: int | None) -> None:
        own = GROUP_OF[self._role]
        masks = [own, *(mask for mask in range(1, ALL + 1) if mask & own and mask != own)]
        for mask in dict.fromkeys(mask & self._present for mask in masks):
            counts = [count for group, count in self._counts.items() if group & mask]
            size = sum(count for count in counts if count is not None) if None not in counts else None
            if mask == own:
                wanted = 0 if self._role == "scheduler" else rank
            else:  # so that a node and the one in whose place it comes count as one here, too
                wanted = None if size is None else self._groups[own].rank + self._num_before(mask)
            self._groups[mask] = self.client.join(
                f"{job.name}/group-{mask}",
                size,
                rank=wanted,
                on_worker_lost=job.on_worker_lost,
                timeout_s=self.timeout_s,
            )
            self._joined.append(self._groups[mask])
        self._rank = self._groups[own].rank
        self._nodes = self.client.join(
            f"{job.name}/nodes", rank=node_id(self._role, self._rank), timeout_s=self.timeout_s
        )
        self._joined.append(self._nodes)

    def _num_before(self, mask: int) -> int:
        """Return how many nodes of a group have a role that comes before this one's."""
        own = GROUP_OF[self._role]
        return sum(count or 0 for group, count in self._counts.items() if group & mask and group < own)

    # --- who there is -----------------------------------------------------------------------------------------

    @classmethod
    def of_process(cls) -> Postoffice:
        """Return the one node that this process is.

        Raises:
            ConfigError: it is none, or several.
        """
        with cls._opening:
            found = [node for node in cls._open if node.is_of_this_process]
        if len(found) != 1:
            raise ConfigError(
                f"this process is {len(found)} nodes: "
                + ("say which one, by node=" if found else "make a Postoffice first")
            )
        return found[0]

    @classmethod
    def with_client(cls, client: Client | None) -> Postoffice | None:
        """Return the one node of this process that has a client; None: there is none, or several.

        Args:
            client: which; None: any.
        """
        with cls._opening:
            found = [
                node
                for node in cls._open
                if node.is_of_this_process and (client is None or node.client is client)
            ]
        return found[0] if len(found) == 1 else None

    @property
    def is_of_this_process(self) -> bool:
        """Whether this process made it: a forked one has to be a node of its own."""
        return self._pid == os.getpid()

    @property
    def role(self) -> Role:
        """What this node is."""
        return self._role

    @property
    def is_worker(self) -> bool:
        """Whether this node is a worker."""
        return self._role == "worker"

    @property
    def is_server(self) -> bool:
        """Whether this node has the role of a server."""
        return self._role == "server"

    @property
    def is_scheduler(self) -> bool:
        """Whether this node is the scheduler."""
        return self._role == "scheduler"

    @property
    def my_rank(self) -> int:
        """This node's number among those of its role, from 0."""
        return self._rank

    @property
    def node_id(self) -> int:
        """This node's number among all: the scheduler's is 1, servers' ``2 * rank + 8``, workers' ``2 * rank + 9``."""
        return self._nodes.rank

    @property
    def num_workers(self) -> int:
        """How many workers there are to be; where nobody said it, how many there are."""
        return self._num(WORKERS)

    @property
    def num_servers(self) -> int:
        """How many nodes have the role of a server, as ``num_workers``."""
        return self._num(SERVERS)

    @property
    def is_recovery(self) -> bool:
        """Whether this node came in the place of one that has gone; False where nobody said how many there are.

        Known as long as there is a node of any role.
        """
        return self._counts[GROUP_OF[self._role]] is not None and self._nodes.is_successor

    def _num(self, group: int) -> int:
        count = self._counts[group]
        return len(self.live_nodes(group)) if count is None else count

    def live_nodes(self, group: int = ALL) -> list[int]:
        """Return the numbers of the nodes that are there.

        Args:
            group: only those of this one.

        Raises:
            ConfigError: no group.
            MasterUnreachable: the master did not answer.
        """
        return [number for number in self._told()[0] if _is_in(number, check_group(group))]

    def dead_nodes(self, group: int = ALL) -> list[int]:
        """Return the numbers of the nodes that were lost and in whose place nobody has come; of the last 64 losses.

        Args:
            group: only those of this one.

        Raises:
            ConfigError: no group.
            MasterUnreachable: the master did not answer.
        """
        live, lost = self._told()
        return sorted({number for number in lost if _is_in(number, check_group(group))} - set(live))

    def _told(self) -> tuple[list[int], list[int]]:
        for group in self.client.status(timeout_s=0)["groups"]:
            if group["name"] == self._nodes.name:
                return [one["rank"] for one in group["workers"]], [one["rank"] for one in group["lost"]]
        return [], []

    # --- meeting ----------------------------------------------------------------------------------------------

    def barrier(self, group: int = ALL, timeout_s: float | None = None) -> None:
        """Flush, and return when each node of a group has come to this point, once; see ``Group.barrier``.

        Args:
            group: a sum of ``SCHEDULER``, ``SERVERS`` and ``WORKERS``; this node is in it.
            timeout_s: seconds to wait; None: the client's own setting.

        Raises:
            ConfigError: no group, or one that this node isn't in.
            WorkersMissing: others had not come in time; the message says who, and calling again waits on.
            WorkerLost, PushFailed, Expelled, MasterUnreachable: as ``Group.barrier``.
        """
        group = check_group(group)
        if not group & GROUP_OF[self._role]:
            raise ConfigError(
                f"this node is a {self._role}, and not in group {group}: it can't meet its nodes"
            )
        self._groups[group & self._present].barrier(timeout_s)

    # --- messages, for apps -----------------------------------------------------------------------------------

    def receivers(self, to: int) -> list[int]:
        """Return whom a message to a node or group is for: all of the group but this node.

        Args:
            to: a node's number, or a group.

        Raises:
            ConfigError: no such node or group, or nobody is in it.
            MasterUnreachable: the master did not answer.
        """
        number = integer_of(to)
        if number is not None and number > ALL and node_of(number) is not None:
            return [number]
        group = check_group(to)
        found: list[int] = []
        for role, one in GROUP_OF.items():
            count = self._counts[one]
            if group & one and count is None:
                found += self.live_nodes(one)
            elif group & one:
                found += [node_id(role, rank) for rank in range(count or 0)]
        others = [number for number in found if number != self.node_id]
        if not others:
            hint = (
                "; functions on the servers that hold values are called by a store's send_command_to_servers, or by "
                "model.call"
                if group & SERVERS
                else ""
            )
            raise ConfigError(f"group {group} has no node but this one to send anything to{hint}")
        return others

    def send(self, body: str, to: list[int]) -> Future[dict[int, int]]:
        """Send something to nodes; see ``Group.send``."""
        return self._nodes.send(body, to)

    def has_gone(self, member: int) -> bool:
        """Whether a node is known to have gone; see ``Group.has_gone``."""
        return self._nodes.has_gone(member)

    # --- the end ----------------------------------------------------------------------------------------------

    def finalize(self, *, do_barrier: bool = True) -> None:
        """Meet all nodes, and be none any more; again it does nothing.

        Args:
            do_barrier: False: go without meeting them.

        Raises:
            WorkersMissing: others had not come in time; this node has left all the same.
            PushFailed, WorkerLost, Expelled, MasterUnreachable: as ``barrier``; it has left all the same.
        """
        if self._is_over or os.getpid() != self._pid:
            return
        try:
            if do_barrier:
                self.barrier(self._present)
        finally:
            self._end(None)

    def _end(self, error: BaseException | None) -> None:
        self._is_over = True
        with self._opening:
            self._open.remove(self)
        try:
            self._leave(error)
        finally:
            self.switchboard.end(GlintError(f"{self!r} has left"))

    def _leave(self, error: BaseException | None) -> None:
        """Leave all groups; with an error as one that is lost, so that the others hear of it."""
        kind = None if error is None else type(error)
        with contextlib.ExitStack() as stack:  # all of it, also behind something that fails
            if self._owned:
                stack.callback(self.client.__exit__, kind, error, None)
            for group in self._joined:
                stack.callback(group.__exit__, kind, error, None)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, error: BaseException | None, traceback: object) -> None:
        if error is None:
            self.finalize()
        elif not self._is_over and os.getpid() == self._pid:
            self._end(error)

    def __repr__(self) -> str:
        return f"Postoffice({self._role!r}, my_rank={self._rank}, node_id={self.node_id})"


def _is_in(number: int, group: int) -> bool:
    found = node_of(number)
    return found is not None and bool(GROUP_OF[found[0]] & group)
