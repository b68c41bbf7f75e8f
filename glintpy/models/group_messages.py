"""What a worker sends to others of its group, and what they have sent to it; knows no master's inside.

Messages leave one at a time: the next one when the master has written down the one before. So they keep their order,
and one that is repeated after a lost connection is known by its number. What comes is held by the master until the
program has taken it: it is let go of by asking for what comes behind it.
"""

from __future__ import annotations

import base64
import logging
import threading
from collections import deque
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from glintpy.config import MESSAGE_BYTES_MAX
from glintpy.errors import ConfigError, Expelled, GlintError, MasterUnreachable, Overloaded, WorkersMissing
from glintpy.futures import Future
from glintpy.models.deadlines import Deadline
from glintpy.protocol.messages_master import ReceiveMessages, SendMessage
from glintpy.scalars import plain
from glintpy.ties import Tie

logger = logging.getLogger("glintpy.client")

UNDER_WAY_MAX = 1024
"""Messages of a worker that the master has not written down yet."""

LISTEN_S = 60.0
"""How long a thread that listens waits at a time."""

RETRY_S = 0.5
"""How long it waits after an error until it asks again."""


@dataclass(frozen=True, slots=True)
class Received:
    """A message from another worker of the group.

    Attributes:
        head: the number that it was sent with.
        body: its bytes.
        rank: of who sent it.
        member: the number of who sent it among all that ever joined the group: a rank may pass to another worker, this
            never does.
    """

    head: int
    body: bytes
    rank: int
    member: int

    @property
    def text(self) -> str:
        """The body as text.

        Raises:
            UnicodeDecodeError: it is none.
        """
        return self.body.decode()


@dataclass(slots=True, eq=False)
class _Outgoing:
    ranks: np.ndarray[Any, Any] | None
    head: int
    body: np.ndarray[Any, Any]
    deadline: Deadline
    future: Future[dict[int, int]]
    answer: Future[Any] | None = None
    is_sent: bool = False


class GroupMessages:
    """A worker's messages.

    Args:
        tie: to the cluster.
        token: the worker's.
        who: it in words, for errors.

    Threads:
        Safe from any thread.
    """

    def __init__(self, tie: Tie, token: bytes, who: str) -> None:
        self._tie = tie
        self._token = token
        self._who = who
        self._lock = threading.Lock()
        self._queue: deque[_Outgoing] = deque()
        self._current: _Outgoing | None = None
        self._num_sent = 0
        self._receiving = threading.Lock()
        self._buffer: deque[tuple[int, Received]] = deque()
        self._newest = 0
        self._taken = 0
        self._departures = 0
        self._present: tuple[int, frozenset[int]] = (0, frozenset())
        self._listener: threading.Thread | None = None
        self._is_over = threading.Event()

    # --- sending --------------------------------------------------------------------------------------------------

    def send(self, body: bytes | str, to: int | Iterable[int] | None, head: int) -> Future[dict[int, int]]:
        """Send a message; see ``Group.send``.

        Args:
            body: bytes or text.
            to: a rank, ranks, or None.
            head: an integer.
        """
        outgoing = _Outgoing(
            _ranks_of(to), _head_of(head), _body_of(body), Deadline(self._tie, None), Future()
        )
        outgoing.future.bringer = self._tie.runtime()
        with self._lock:
            if len(self._queue) >= UNDER_WAY_MAX:
                raise Overloaded(
                    f"{len(self._queue)} messages of {self._who} are still to be sent; wait for their futures"
                )
            self._queue.append(outgoing)
        self._pump()
        return outgoing.future

    def _pump(self) -> None:
        """Settle what has its answer, and send what comes next; never waits."""
        while True:
            with self._lock:
                current, self._current = self._current, None
                if current is None:
                    if not self._queue:
                        return
                    self._begin(self._queue.popleft())
                    continue
                if current.answer is None or not current.answer.done():
                    self._current = current
                    return
            self._settle(current, current.answer)

    def _begin(self, outgoing: _Outgoing) -> None:
        self._num_sent += 1
        number = self._num_sent
        self._current = outgoing
        try:
            if outgoing.deadline.has_passed:
                raise MasterUnreachable(
                    f"{self._who}: the messages before this one were not written down within "
                    f"{outgoing.deadline.limit_s:g} s; this one was not sent"
                )
            outgoing.answer = self._tie.runtime().ask_master_later(
                lambda request_id: SendMessage(
                    request_id, self._token, number, outgoing.head, outgoing.ranks, outgoing.body
                ),
                timeout_s=outgoing.deadline.left_s(),
                then=self._pump,
            )
            outgoing.is_sent = True
        except GlintError as error:
            outgoing.answer = Future()
            outgoing.answer.set_exception(error)

    def _settle(self, outgoing: _Outgoing, answer: Future[Any]) -> None:
        error = answer.exception()
        if error is None:
            content = answer.result()
            if content["state"] == "done":
                outgoing.future.set_result(dict(content["to"]))
                return
            ranks = tuple(content["ranks"])
            error = WorkersMissing(
                f"{self._who} sent a message to ranks that nobody has: {', '.join(map(str, ranks))}; it was sent to "
                "nobody",
                ranks=ranks,
            )
        elif isinstance(error, Expelled):
            error = Expelled(f"{self._who}: {error}")
        elif isinstance(error, MasterUnreachable) and outgoing.is_sent:
            error = MasterUnreachable(f"{error}; whether the message was sent is not known")
        outgoing.future.set_exception(error)

    # --- receiving ------------------------------------------------------------------------------------------------

    def receive(self, timeout_s: float | None) -> Received:
        """Return the next message; see ``Group.receive``."""
        deadline = Deadline(self._tie, timeout_s)
        if self._listener is not None:
            raise GlintError(f"{self._who} has a listener, which receives all messages")
        left_s = deadline.left_s()
        if not self._receiving.acquire(timeout=-1 if left_s is None else left_s):
            raise self._nothing(deadline)
        try:
            while not self._buffer:
                self._ask(deadline)
                if not self._buffer and deadline.has_passed:
                    raise self._nothing(deadline)
            return self._take()
        finally:
            self._receiving.release()

    def _nothing(self, deadline: Deadline) -> TimeoutError:
        return TimeoutError(f"{self._who} received no message within {deadline.limit_s:g} s")

    def _take(self) -> Received:
        self._taken, received = self._buffer.popleft()
        return received

    def _ask(self, deadline: Deadline, *, is_quiet: bool = False) -> bool:
        """Ask for what comes next, and return whether anybody has gone."""
        try:
            answer = (
                self._tie.runtime()
                .ask_master_later(
                    lambda request_id: ReceiveMessages(
                        request_id, self._token, self._taken, self._departures, deadline.wait_ms()
                    ),
                    timeout_s=deadline.answer_s(),
                    is_quiet=is_quiet,
                )
                .result()
            )
        except Expelled as error:
            raise Expelled(f"{self._who}: {error}") from None
        for told in answer["messages"]:
            if told["number"] > self._newest:
                self._newest = told["number"]
                body = base64.b64decode(told["body"])
                self._buffer.append(
                    (self._newest, Received(told["head"], body, told["rank"], told["member"]))
                )
        if answer["members"] is None:
            return False
        self._departures = answer["departures"]
        present = frozenset(answer["members"])
        self._present = (self._departures + len(present), present)
        return True

    def has_gone(self, member: int) -> bool:
        """Whether a member is known to have left, or to be lost."""
        num_joins, present = self._present
        return member <= num_joins and member not in present

    # --- listening ------------------------------------------------------------------------------------------------

    def listen(
        self,
        on_message: Callable[[Received], object],
        on_departure: Callable[[], object] | None,
        on_end: Callable[[GlintError], object] | None,
    ) -> None:
        """Begin to listen; see ``Group.listen``.

        Args:
            on_message: hears each message.
            on_departure: hears that somebody has gone.
            on_end: hears of an end that is none of this worker's own doing.
        """
        others = (("on_departure", on_departure), ("on_end", on_end))
        for name, function in (("on_message", on_message), *(one for one in others if one[1] is not None)):
            if not callable(function):
                raise ConfigError(f"{name} is a function, not {function!r:.80}")
        with self._lock:
            if self._listener is not None:
                raise GlintError(f"{self._who} has a listener already")
            self._listener = threading.Thread(
                target=self._listen,
                args=(on_message, on_departure, on_end),
                name="glintpy-listener",
                daemon=True,
            )
        self._listener.start()

    def end(self) -> None:
        """End listening; whoever calls this leaves the group."""
        self._is_over.set()

    def _listen(
        self,
        on_message: Callable[[Received], object],
        on_departure: Callable[[], object] | None,
        on_end: Callable[[GlintError], object] | None,
    ) -> None:
        while not self._is_over.is_set():
            try:
                with self._receiving:
                    has_gone = not self._buffer and self._ask(Deadline(self._tie, LISTEN_S), is_quiet=True)
            except GlintError as error:
                if self._is_over.is_set():
                    return
                if isinstance(error, Expelled) or self._tie.current() is None:
                    logger.warning("%s listens no more: %s", self._who, error)
                    _call(on_end, error)
                    return
                logger.warning("%s listens, and goes on after: %s", self._who, error)
                self._is_over.wait(RETRY_S)
                continue
            while self._buffer and not self._is_over.is_set():
                _call(on_message, self._take())
            if has_gone:
                _call(on_departure)


def _call(function: Callable[..., object] | None, *arguments: object) -> None:
    """Call what a user gave; what it raises is logged, and ends nothing."""
    if function is None:
        return
    try:
        function(*arguments)
    except BaseException:  # as of sys.exit(): it would end the thread, and nothing more were heard
        logger.exception("%r failed", function)


def _ranks_of(to: Any) -> np.ndarray[Any, Any] | None:
    if to is None:
        return None
    found = list(to) if isinstance(to, Iterable) else [to]
    for rank in found:
        if isinstance(rank, bool) or not isinstance(rank, int | np.integer) or not 0 <= rank < 2**63:
            raise ConfigError(f"a message goes to ranks, integers of at least 0, not {rank!r:.80}")
    return np.array(found, np.int64)


def _head_of(head: Any) -> int:
    number = plain(head)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**63:
        raise ConfigError(f"a message's head is an integer of at least 0, not {head!r:.80}")
    return number


def _body_of(body: Any) -> np.ndarray[Any, Any]:
    if not isinstance(body, bytes | bytearray | memoryview | str):
        raise ConfigError(f"a message's body is bytes or text, not {type(body).__name__}")
    try:
        found = body.encode() if isinstance(body, str) else bytes(body)
    except UnicodeEncodeError as error:
        raise ConfigError(
            f"a message's text travels as UTF-8, which has no {body!r:.80}: {error.reason}"
        ) from None
    if len(found) > MESSAGE_BYTES_MAX:
        raise ConfigError(
            f"a message has at most {MESSAGE_BYTES_MAX} bytes, not {len(found)}: push values to a model, and send word "
            "of it"
        )
    return np.frombuffer(found, np.uint8)
