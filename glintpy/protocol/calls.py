"""Requests in flight: what every one of them is, and the plain ones that need no session.

Pure: no socket, thread or clock; ``now`` is an argument, in seconds of any monotonic clock.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from glintpy.errors import GlintError, LocalProtocolError
from glintpy.protocol import wire
from glintpy.protocol.failures import error_of
from glintpy.protocol.messages import Failure, Message
from glintpy.records import record

Fate = Literal["unsent", "refused", "unknown"]


@record
class Failed:
    """What became of a call that did not succeed.

    Attributes:
        error: why.
        fate: ``unsent``: it never left; ``refused``: the peer said no and changed nothing; ``unknown``:
            it was sent and nothing is known.
        timed_out: whether its deadline passed.
    """

    error: GlintError
    fate: Fate
    timed_out: bool = False


Result = Message | Failed


@dataclass(slots=True)
class Stamp:
    """What a session adds to a message at the moment it is sent."""

    session: bytes = b""
    floor: int = 0
    after: int = 0
    sequence: int = 0


class Load:
    """Calls without an outcome, and their bytes: at one peer, or as ``total`` at several.

    Attributes:
        num_open: calls.
        num_bytes: what they bring or ask for.
        on_release: called after a call was settled, while somebody waits for that.
    """

    __slots__ = ("_total", "num_bytes", "num_open", "on_release")

    def __init__(self, total: Load | None = None) -> None:
        self._total = total
        self.num_open = 0
        self.num_bytes = 0
        self.on_release: Callable[[], None] | None = None

    def add(self, call: Call) -> None:
        """Count a call, until it is settled."""
        call.load = self
        self._count(1, call.cost_bytes)

    def release(self, call: Call) -> None:
        """Count it no more."""
        self._count(-1, -call.cost_bytes)
        if self.on_release is not None:
            self.on_release()

    def _count(self, num: int, num_bytes: int) -> None:
        self.num_open += num
        self.num_bytes += num_bytes
        if self._total is not None:
            self._total._count(num, num_bytes)  # noqa: SLF001 - of the same class


@dataclass(slots=True, eq=False)
class Call:
    """One part of a request.

    Attributes:
        request_id: shared by all parts of a request.
        part: its number.
        build: makes the message, anew for each time it is sent.
        settle: called once, with the answer or the failure; must not block.
        deadline: a moment; None waits for ever.
        cost_bytes: what it brings to the server or asks of it: counts against the window.
        model_id: the model it touches, so that a pull follows its own client's pushes.
        other_model_id: a second one that it touches.
        numbered: it changes something: it has a sequence number and is applied exactly once.
        is_hasty: it fails when its server is lost, rather than wait for its return.
        is_quiet: it may be open for minutes, and nothing is under way because of it: it doesn't count as load.
        build_read: for a push that wants values: makes the pull that fetches them when only the receipt of
            the push is known, so that its payload need not be sent again.
    """

    request_id: int
    build: Callable[[Stamp], Message]
    settle: Callable[[Result], None]
    part: int = 0
    deadline: float | None = None
    cost_bytes: int = 0
    model_id: int | None = None
    other_model_id: int | None = None
    numbered: bool = False
    build_read: Callable[[Stamp], Message] | None = None
    is_hasty: bool = False
    is_quiet: bool = False
    # What the link notes about it.
    attempts: int = 0
    sequence: int = 0
    after: int = 0
    sent_stamp: int = 0
    sent_at: float = 0.0
    is_waiting: bool = field(default=False)
    """Stands in a queue, to be sent (again)."""
    is_settled: bool = False
    load: Load | None = None

    @property
    def key(self) -> tuple[int, int]:
        """What answers carry."""
        return (self.request_id, self.part)

    def finish(self, result: Result) -> None:
        """Settle it, once."""
        if not self.is_settled:
            self.is_settled = True
            # What settles a call mostly knows the call. Without this parting its arrays would be freed by the
            # collector only, some hundred megabytes later.
            settle, self.settle = self.settle, _settled
            if self.load is not None:
                self.load.release(self)
            settle(result)


def _settled(result: Result) -> None:
    raise AssertionError(f"settled twice: {result!r}")


class Asks:
    """Calls to a peer that keeps no session: the master.

    Whatever is asked must bear repetition: after a reconnect everything unanswered is asked again.
    """

    def __init__(self) -> None:
        self._open: dict[int, Call] = {}
        self._queue: list[Call] = []
        self.is_up = False

    def submit(self, call: Call) -> None:
        """Take a call."""
        self._open[call.request_id] = call
        self._queue.append(call)

    def connected(self, now: float) -> None:
        """Begin to send; ask again what has no answer."""
        del now
        self.is_up = True
        self._queue = list(self._open.values())

    def disconnected(self, now: float) -> None:
        """Stop sending."""
        del now
        self.is_up = False

    def receive(self, message: Message, now: float) -> None:
        """Settle the call that a message answers; others are late and dropped."""
        del now
        call = self._open.pop(message.request_id, None)
        if call is None:
            return
        if isinstance(message, Failure):
            call.finish(Failed(error_of(message.code, message.text), "refused"))
        else:
            call.finish(message)

    def tick(self, now: float) -> None:
        """Give up what is past its deadline."""
        for call in list(self._open.values()):
            if call.deadline is not None and now >= call.deadline:
                del self._open[call.request_id]
                fate: Fate = "unknown" if call.attempts else "unsent"
                call.finish(Failed(GlintError("no answer within its time"), fate, timed_out=True))

    def fail_all(self, error: GlintError, *, hasty_only: bool = False) -> None:
        """Fail everything that is open; a master's return is always waited for."""
        if hasty_only:
            return
        calls, self._open, self._queue = list(self._open.values()), {}, []
        for call in calls:
            call.finish(Failed(error, "unknown" if call.attempts else "unsent"))

    def outgoing(self, now: float) -> list[list[wire.Buffer]]:
        """Return the frames to send now."""
        if not self.is_up:
            return []
        queue, self._queue = self._queue, []
        encoded = []
        for call in queue:
            if not call.is_settled:
                try:
                    frames = wire.encode(call.build(Stamp()))
                except LocalProtocolError as error:
                    # One that can't travel fails by itself; the others behind it in the queue go on.
                    del self._open[call.request_id]
                    call.finish(Failed(error, "unsent"))
                    continue
                call.attempts += 1
                call.sent_at = now
                encoded.append(frames)
        return encoded
