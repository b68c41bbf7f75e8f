"""Group: a worker's place among others, with a rank, a clock and barriers; knows no master's inside.

All that is asked says where the worker is, so it can be asked again. An answer that others hold up comes in a minute
or so and says who is missing; as long as the caller's own deadline has not passed, it is asked for again.
"""

from __future__ import annotations

import logging
import operator
import os
import threading
from collections.abc import Callable, Iterable
from typing import Any, Literal, NoReturn, Self

from glintpy.errors import ConfigError, Expelled, GlintError, ServerLost, WorkerLost, WorkersMissing
from glintpy.futures import Future
from glintpy.models.base import ANSWER_S, check_timeout
from glintpy.models.deadlines import Deadline
from glintpy.models.group_messages import GroupMessages, Received
from glintpy.protocol.messages import Message
from glintpy.protocol.messages_master import Advance, Arrive, AwaitClocks, JoinGroup, LeaveGroup
from glintpy.protocol.spec import check_name
from glintpy.ties import Tie

logger = logging.getLogger("glintpy.client")

NAMED_MAX = 8
"""Workers that an error names."""

OnWorkerLost = Literal["shrink", "raise"]


def join_group(
    tie: Tie,
    name: str,
    num_workers: int | None,
    *,
    rank: int | None,
    on_worker_lost: OnWorkerLost,
    timeout_s: float | None,
) -> Group:
    """Become a worker of a group; see ``Client.join``.

    Args:
        tie: to the cluster.
        name: the group's.
        num_workers: its fixed size; None: whoever is there.
        rank: the one that it wants; None: the lowest free one.
        on_worker_lost: ``"shrink"`` or ``"raise"``.
        timeout_s: seconds; None: the client's own setting.

    Raises:
        ConfigError, Overloaded, MasterUnreachable: it is none.
    """
    check_name(name, whose="a group's")
    if on_worker_lost not in {"shrink", "raise"}:
        raise ConfigError(f'on_worker_lost is "shrink" or "raise", not {on_worker_lost!r}')
    size = 0 if num_workers is None else _count("num_workers", num_workers, at_least=1)
    wanted = 0 if rank is None else _count("rank", rank, at_least=0) + 1
    if size and wanted > size:
        raise ConfigError(
            f"group {name!r} of {size} workers has the ranks 0 to {size - 1}, and not {wanted - 1}"
        )
    deadline = Deadline(tie, timeout_s)
    token, runtime = os.urandom(16), tie.runtime()
    try:
        answer = runtime.ask_master(
            lambda request_id: JoinGroup(
                request_id,
                runtime.member_id,
                token,
                name,
                size,
                wanted,
                on_worker_lost == "raise",
                deadline.wait_ms(),
            ),
            timeout_s=deadline.answer_s(),
        )
    except BaseException:
        # It may be one all the same, if the answer was lost: others would wait for it.
        runtime.ask_master_later(
            lambda request_id: LeaveGroup(request_id, token, is_orderly=True), timeout_s=ANSWER_S
        )
        raise
    return Group(tie, name, token, answer)


class Group:
    """A worker's place in a group; made by ``Client.join``. As a context manager it leaves at the end.

    It belongs to its process and ends with its client: a forked or spawned process joins by itself.

    Threads:
        Safe from any thread. Each call speaks for the one worker, so steps are counted together.
    """

    def __init__(self, tie: Tie, name: str, token: bytes, answer: dict[str, Any]) -> None:
        self._tie = tie
        self._name = name
        self._token = token
        self._pid = os.getpid()
        self._has_left = False
        self._lock = threading.Lock()
        self._rank: int = answer["rank"]
        self._clock: int = answer["clock"]
        self._barrier: int = answer["barrier"]
        self._size: int = answer["size"]
        self._losses: int = answer["losses"]
        self._member: int = answer["member"]
        self._is_successor: bool = answer.get("is_successor", False)  # an earlier master says nothing of it
        self._messages = GroupMessages(tie, token, f"worker {self._rank} of group {name!r}")
        self._is_followed = False
        self._is_applied = True
        self._expelled: Expelled | None = None
        self._ties = [tie]  # of this group's client, and of other handles that follow it

    @property
    def name(self) -> str:
        """The group's name."""
        return self._name

    @property
    def rank(self) -> int:
        """This worker's number, from 0; no other has it as long as this one is a worker of the group."""
        return self._rank

    @property
    def size(self) -> int:
        """The ``num_workers`` of the group; without it, how many there were when the master answered last."""
        return self._size

    @property
    def member(self) -> int:
        """This worker's number among all that ever joined the group, from 1; no other ever has it."""
        return self._member

    @property
    def is_successor(self) -> bool:
        """Whether another worker of the group had this rank before, and was lost or has left."""
        return self._is_successor

    @property
    def clock(self) -> int:
        """Steps finished: one more with each ``tick``. A newcomer starts at the clock of the slowest."""
        return self._clock

    # --- steps ------------------------------------------------------------------------------------------------

    def tick(self, timeout_s: float | None = None) -> None:
        """Finish a step: flush, then raise the clock by one.

        Without waiting for others: whoever sees this clock, by ``wait``, can pull all that was pushed up to then. Only
        where this process has a model that follows the group (``consistency="bsp"``) it returns when all workers have
        finished the step and every server has applied it. If that fails, the step is finished all the same, and the
        next call goes on waiting for it.

        Args:
            timeout_s: seconds to wait for the others and the servers; None: the client's own setting, of which None
                waits for ever.

        Raises:
            PushFailed: a push failed and nobody has looked at it; the clock stays.
            WorkersMissing: others had not finished the step when the time was over; the message says who.
            ServerLost: all had, and a server has not applied it; the message says which.
            WorkerLost: as ``wait``.
            ConfigError: a time that can't be.
            Expelled: the worker's membership has ended: it was silent for too long, or the master forgot it.
            MasterUnreachable: the master did not answer; calling again counts the step once.
            GlintError: the group was left, or belongs to another process.
        """
        self.check()
        check_timeout(timeout_s)
        self._flush()
        with self._lock:
            if self._is_applied:
                clock = self._clock + 1
                self._ask(
                    lambda request_id: Advance(request_id, self._token, clock),
                    timeout_s=self._tie.settings.timeout_s,
                )
                self._clock = clock
                self._is_applied = not self._is_followed
        if not self._is_applied:
            self._wait_for_clocks(0, timeout_s, is_applied=True)
            self._is_applied = True

    def follow(self, tie: Tie, *, in_rounds: bool) -> None:
        """Have ``tick`` flush what a handle pushes, and wait until servers have applied the step.

        Args:
            tie: the handle's; one that came from elsewhere may have another than the group's client.
            in_rounds: whether servers gather what the handle pushes.

        Raises:
            ConfigError: it is of another cluster.
            GlintError, Expelled: as of ``check``.
        """
        self.check()
        if tie.address != self._tie.address:
            raise ConfigError(
                f"group {self._name!r} is of the cluster at {self._tie.address}, not {tie.address}"
            )
        with self._lock:
            if tie not in self._ties:
                self._ties.append(tie)
        self._is_followed |= in_rounds

    def wait(self, staleness: int = 0, timeout_s: float | None = None) -> None:
        """Return when no clock in the group is more than ``staleness`` below this worker's.

        Args:
            staleness: steps that others may be behind; 0: none.
            timeout_s: seconds to wait; None: the client's own setting, of which None waits for ever.

        Raises:
            WorkersMissing: others were further behind when the time was over; the message says who.
            WorkerLost: another worker was lost, in a group with ``on_worker_lost="raise"``; told once.
            ConfigError: a staleness or time that can't be.
            Expelled, MasterUnreachable, GlintError: as ``tick``.
        """
        self._wait_for_clocks(_count("staleness", staleness, at_least=0), timeout_s, is_applied=False)

    def barrier(self, timeout_s: float | None = None) -> None:
        """Flush, and return when all workers of the group have come to this point.

        What each pushed before is applied then. After ``WorkersMissing`` the arrival stands: the next call waits at the
        same barrier. After ``WorkerLost`` the barrier is void: the next call is at a new one, for all.

        Args:
            timeout_s: seconds to wait; None: the client's own setting, of which None waits for ever.

        Raises:
            PushFailed: a push failed and nobody has looked at it; this worker has not arrived.
            WorkersMissing: others had not come when the time was over; the message says who.
            WorkerLost: as ``wait``.
            ConfigError: a time that can't be.
            Expelled, MasterUnreachable, GlintError: as ``tick``.
        """
        self.check()
        self._flush()
        barrier = self._barrier + 1
        self._wait(
            lambda request_id, wait_ms: Arrive(request_id, self._token, barrier, self._losses, wait_ms),
            timeout_s,
            f"barrier {barrier}",
        )
        with self._lock:
            self._barrier = max(self._barrier, barrier)

    # --- messages -----------------------------------------------------------------------------------------------

    def send(
        self, body: bytes | str, to: int | Iterable[int] | None = None, *, head: int = 0
    ) -> Future[dict[int, int]]:
        """Send a few words to other workers of the group.

        They get it once, behind all that this worker sent before, as long as they are workers. It doesn't flush: push,
        flush, and then send word of it.

        Args:
            body: at most 1 MiB; text travels as UTF-8.
            to: a rank, or several; None: all others. All get it or none.
            head: a number of at least 0, for whatever the workers agree on.

        Returns:
            A future of those to whom it goes, a ``member`` by rank. It is done when the master has written it down;
            then it reaches each of them that does not leave and is not lost before.

        Raises:
            ConfigError: a body that is too long, text that isn't UTF-8's, or what can't be a rank or a head; here.
            Overloaded: 1024 messages of this worker are not written down yet; here.
            GlintError: the group was left, or belongs to another process; here.

        The future raises:
            WorkersMissing: nobody has that rank; nothing was sent.
            Overloaded: too much waits for one of them, which receives nothing; nothing was sent.
            Expelled: as ``tick``.
            MasterUnreachable: the master did not answer within the client's ``timeout_s``; it may have been sent.
        """
        self.check()
        return self._messages.send(body, to, head)

    def receive(self, timeout_s: float | None = None) -> Received:
        """Return the next message of another worker of the group; wait for it.

        Args:
            timeout_s: seconds to wait; None: the client's own setting, of which None waits for ever.

        Raises:
            TimeoutError: none came in time.
            ConfigError: a time that can't be.
            GlintError: the group was left, belongs to another process, or has a listener.
            Expelled, MasterUnreachable: as ``tick``.
        """
        self.check()
        return self._messages.receive(timeout_s)

    def listen(
        self,
        on_message: Callable[[Received], object],
        *,
        on_departure: Callable[[], object] | None = None,
        on_end: Callable[[GlintError], object] | None = None,
    ) -> None:
        """Have each message passed to a function, in a thread that begins here and ends with this worker's membership.

        What the functions raise is logged under ``glintpy.client``. While one runs, what comes waits at the master.

        Args:
            on_message: called with each message, in order.
            on_departure: called when somebody has left or is lost; ``has_gone`` says who.
            on_end: called with the reason when the worker's membership ends without its doing.

        Raises:
            ConfigError: what can't be called.
            GlintError: it has a listener already, was left, or belongs to another process.
        """
        self.check()
        self._messages.listen(on_message, on_departure, on_end)

    def has_gone(self, member: int) -> bool:
        """Return whether a worker is known to be none any more; asks nobody, so it needs a listener, or ``receive``.

        Args:
            member: a worker's ``member``, as ``send`` returns them.
        """
        return self._messages.has_gone(member)

    # --- the end ----------------------------------------------------------------------------------------------

    def leave(self) -> None:
        """Flush, and be a worker no more: nobody waits for it. Again, or in another process, it does nothing.

        Raises:
            PushFailed: a push failed and nobody has looked at it; it has left all the same.
            MasterUnreachable: the master did not answer; it is left when the client is closed.
        """
        if self._has_left or os.getpid() != self._pid:
            return
        try:
            self._flush()
        finally:
            self._leave(is_orderly=True, timeout_s=self._tie.settings.timeout_s)

    def _leave(self, *, is_orderly: bool, timeout_s: float | None) -> None:
        self._has_left = True
        self._messages.end()
        self._tie.runtime().ask_master(
            lambda request_id: LeaveGroup(request_id, self._token, is_orderly), timeout_s=timeout_s
        )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, traceback: object) -> None:
        if kind is None:
            self.leave()
        elif not self._has_left and os.getpid() == self._pid:
            try:
                # It counts as lost: what it was to do is not done.
                self._leave(is_orderly=False, timeout_s=self._tie.settings.close_timeout_s)
            except GlintError as failure:
                logger.error("while leaving group %s after an error: %s", self._name, failure)  # noqa: TRY400 - its traceback says nothing

    def __repr__(self) -> str:
        return f"Group({self._name!r}, rank={self._rank}, size={self._size}, clock={self._clock})"

    def __reduce__(self) -> NoReturn:
        raise TypeError(
            f"{self!r} is this process's place in the group; let each process join by itself: client.join(...)"
        )

    # --- inside -------------------------------------------------------------------------------------------------

    def check(self) -> None:
        """Refuse what only a worker may do; asks nobody.

        Raises:
            GlintError: the group was left, or belongs to another process.
            Expelled: a call was told before that the worker's membership has ended.
        """
        if os.getpid() != self._pid:
            raise GlintError(
                f"{self!r} belongs to process {self._pid}; this one ({os.getpid()}) has to join by itself: "
                "client.join(...)"
            )
        if self._has_left:
            raise GlintError(f"{self!r} was left; join again: client.join(...)")
        if self._expelled is not None:
            raise Expelled(str(self._expelled))

    def _flush(self) -> None:
        for tie in self._ties:
            tie.flush()

    def _ask(self, build: Callable[[int], Message], *, timeout_s: float | None) -> Any:
        try:
            answer = self._tie.runtime().ask_master(build, timeout_s=timeout_s)
        except Expelled as error:
            self._expelled = Expelled(f"worker {self._rank} of group {self._name!r}: {error}")
            raise self._expelled from None
        self._size = answer["size"]
        return answer

    def _wait_for_clocks(self, slack: int, timeout_s: float | None, *, is_applied: bool) -> None:
        clock = self._clock
        self._wait(
            lambda request_id, wait_ms: AwaitClocks(
                request_id, self._token, clock, slack, is_applied, self._losses, wait_ms
            ),
            timeout_s,
            f"clock {clock - slack}",
        )

    def _wait(self, build: Callable[[int, int], Message], timeout_s: float | None, goal: str) -> None:
        self.check()
        deadline = Deadline(self._tie, timeout_s)
        while True:
            answer = self._ask(
                lambda request_id: build(request_id, deadline.wait_ms()), timeout_s=deadline.answer_s()
            )
            if answer["state"] == "done":
                return
            if answer["state"] == "lost":
                self._tell_loss(answer)
            if deadline.has_passed:
                raise self._missing(answer, goal, deadline)

    def _tell_loss(self, answer: dict[str, Any]) -> NoReturn:
        with self._lock:
            self._losses = answer["losses"]
            self._barrier = answer["barrier"]
        lost = answer["lost"]
        raise WorkerLost(
            f"group {self._name!r} lost {_named(lost)}; it goes on with {self._size}"
            if self._size
            else f"group {self._name!r} lost {_named(lost)}",
            ranks=tuple(int(worker["rank"]) for worker in lost),
        )

    def _missing(self, answer: dict[str, Any], goal: str, deadline: Deadline) -> GlintError:
        missing, num_unjoined, unapplied = answer["missing"], answer["num_unjoined"], answer["unapplied"]
        if unapplied and not missing and not num_unjoined:
            return ServerLost(
                f"group {self._name!r}: all workers have reached {goal}, and {len(unapplied)} servers have not applied "
                f"it within {deadline.limit_s:g} s ({', '.join(unapplied[:NAMED_MAX])}); they do when they are back"
            )
        told = [_named(missing)] if missing else []
        if num_unjoined:
            told.append(f"{num_unjoined} of {self._size} that have not joined yet")
        return WorkersMissing(
            f"group {self._name!r}: {goal} was not reached by all within {deadline.limit_s:g} s; missing "
            f"{' and '.join(told)}",
            ranks=tuple(int(worker["rank"]) for worker in missing),
        )


def _named(workers: list[dict[str, Any]]) -> str:
    told = [
        f"rank {worker['rank']} (clock {worker['clock']}, {worker['name']}, pid {worker['pid']} on {worker['host']})"
        for worker in workers[:NAMED_MAX]
    ]
    if len(workers) > NAMED_MAX:
        told.append(f"{len(workers) - NAMED_MAX} more")
    return ", ".join(told)


def _count(what: str, number: Any, *, at_least: int) -> int:
    try:
        count = operator.index(number)
    except TypeError:
        count = at_least - 1
    if isinstance(number, bool) or not at_least <= count < 2**63:
        raise ConfigError(f"{what} is an integer of at least {at_least}, not {number!r}")
    return count
