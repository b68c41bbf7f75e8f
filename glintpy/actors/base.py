"""One request in, exactly one answer out: what the master and the servers share; knows no model.

``on_receive`` never waits and lets no exception escape: in pykka an exception while handling a told
message kills the actor silently. Whatever can't be answered at once is answered *later*, by ``answer``.
"""

from __future__ import annotations

import logging
import traceback
from abc import abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, ClassVar, Protocol

import pykka
from pykka import ActorRegistry

from glintpy import failpoints
from glintpy.actors.mailbox import Arrival, Idle, Letter, Tick
from glintpy.errors import GlintError, RemoteProtocolError
from glintpy.protocol import wire
from glintpy.protocol.failures import code_of, fitting_text
from glintpy.protocol.messages import Failure, Message
from glintpy.records import record

logger = logging.getLogger("glintpy.actors")

FAILURE_TEXT_MAX = 2900

COMPLAIN_S = 10.0
"""Between two log lines about malformed messages."""


class Later:
    """Returned by ``handle`` instead of an answer: it will come through ``answer``."""


LATER = Later()


@record
class Stop:
    """Ask the actor to stop in good order; told through its mailbox."""


class Inbox(Protocol):
    """What the base needs of a mailbox; the simulation has its own."""

    has_work: bool
    tick_soon: bool

    def put(self, envelope: Any, /) -> None:
        """Add a message from this process."""
        ...

    def get(self) -> Any:
        """Return the next message."""
        ...

    def empty(self) -> bool:
        """Whether nothing is left."""
        ...


class Way(Protocol):
    """What the base needs of an outlet."""

    def send(self, peer: bytes, frames: Sequence[wire.Buffer]) -> bool:
        """Send, now or later; False if it is known that it won't arrive."""
        ...

    def flush(self) -> None:
        """Try again what was kept for slow peers."""
        ...

    @property
    def is_waiting(self) -> bool:
        """Whether anything is kept for slow peers."""
        ...


class RequestActor(pykka.ThreadingActor):
    """An actor that answers requests.

    Built and called without ``launch`` it starts no thread: so the simulation runs it.
    """

    use_daemon_thread = True
    role: ClassVar[str] = "actor"

    def __init__(self, inbox: Inbox, outlet: Way, *, clock: Callable[[], float]) -> None:
        super().__init__()
        self.inbox = inbox
        self.actor_inbox = inbox
        # A ref keeps the inbox that it found: the one made by pykka.
        self._actor_ref = pykka.ActorRef(self)
        self.outlet = outlet
        self.clock = clock
        self.progress = 0
        """Messages handled, ticks included; read by the thread that sends the heartbeats."""
        self.at_stop: list[Callable[[], None]] = []
        """Called in the actor's thread when it stops, after its own state is closed."""
        self.num_malformed = 0
        self.num_bytes_in = 0
        """In frames from peers, as an outlet counts those to them."""
        self.is_killed = False
        """Whether it is to leave its files as a killed process would."""
        self.is_quiet = True
        """Whether nothing had arrived when ``on_idle`` was called last."""
        self._complains_again = 0.0

    def launch(self) -> None:
        """Start the actor's thread.

        The process-wide registry is left at once: ``ActorRegistry.stop_all()``, the documented ending of a
        pykka program, is the user's to call, and these actors are not the user's.
        """
        # What pykka's Actor.start() does, for an actor that is built already.
        ActorRegistry.register(self.actor_ref)
        self._start_actor_loop()
        ActorRegistry.unregister(self.actor_ref)

    # --- for subclasses -------------------------------------------------------------------------------------

    @abstractmethod
    def handle(self, peer: bytes, message: Message) -> Message | Later | None:
        """Return the answer to a message; an exception is answered as a failure."""

    def on_tick(self, now: float) -> None:
        """Look at deadlines; called a few times a second."""

    def on_idle(self, now: float) -> None:
        """Do a slice of the actor's own work; called while ``inbox.has_work``."""

    def on_local(self, message: object) -> None:
        """Handle what another thread of this process told the actor."""

    def close_state(self) -> None:
        """Close what the actor keeps; called once, when it stops."""

    def abandon_state(self) -> None:
        """Let go of what the actor keeps as if its process had been killed; called instead of the above."""
        self.close_state()

    def leave_files_as_killed(self) -> None:
        """Have the stop that follows leave everything as ``kill -9`` would."""
        self.is_killed = True

    def on_stop(self) -> None:
        """Close everything in good order; pykka calls this in the actor's thread."""
        try:
            if self.is_killed:
                self.abandon_state()
            else:
                self.close_state()
                self.outlet.flush()
        finally:
            for close in self.at_stop:
                close()

    # --- the loop -------------------------------------------------------------------------------------------

    def tell(self, message: object) -> None:
        """Put a message from this process into the mailbox; safe from any thread."""
        self.inbox.put(Letter(message))

    def on_receive(self, message: Any) -> None:
        """Handle one message of the mailbox."""
        failpoints.hit("actor.before_message")
        self.progress += 1
        try:
            match message:
                case Arrival(peer, frames):
                    self._on_arrival(peer, frames)
                case Tick():
                    self._guard(self.on_tick)
                case Idle(is_quiet):
                    self.is_quiet = is_quiet
                    self._guard(self.on_idle)
                case Stop():
                    self.stop()
                case _:
                    self.on_local(message)
        except Exception:
            # Nothing gets here that belongs to one request; the actor goes on, and says what happened.
            logger.exception("%s: an unexpected error", self.role)
        except BaseException:
            # The thread ends here, in the middle of something: that is no stop in good order.
            self.leave_files_as_killed()
            raise
        if self.outlet.is_waiting:
            self.outlet.flush()
        self.inbox.tick_soon = self.outlet.is_waiting

    def answer(self, peer: bytes, message: Message) -> None:
        """Send an answer that comes later than its request."""
        self.outlet.send(peer, wire.encode(message))

    def failure(self, request_id: int, error: BaseException, *, part: int = 0) -> Failure:
        """Return the answer for a request that failed."""
        if isinstance(error, GlintError):
            text = str(error)
        else:
            # Its end says what went wrong; the beginning is the actor's own loop.
            text = "".join(traceback.format_exception(error))[-FAILURE_TEXT_MAX:]
            logger.error("%s: a request failed: %s", self.role, text)
        return Failure(request_id, part, code_of(error), self.window_bytes(), fitting_text(text))

    def window_bytes(self) -> int:
        """Return the window that answers grant."""
        return 0

    def _on_arrival(self, peer: bytes, frames: list[bytes | bytearray | memoryview]) -> None:
        self.num_bytes_in += sum(map(len, frames))
        try:
            messages = wire.decode_all(frames)
        except RemoteProtocolError as error:
            self._malformed(peer, frames, error)
            return
        for joined in wire.merge(self._answers_to(peer, messages)):
            self.outlet.send(peer, joined)

    def _answers_to(self, peer: bytes, messages: Iterable[Message]) -> Iterator[list[wire.Buffer]]:
        # One by one: a large answer is on its way while the next is made.
        for message in messages:
            answer = self._answer_to(peer, message)
            if answer is not None:
                yield answer

    def _answer_to(self, peer: bytes, message: Message) -> list[wire.Buffer] | None:
        try:
            answer = self.handle(peer, message)
            # In here: an answer that can't travel is no answer, and its request must have one.
            return None if answer is None or isinstance(answer, Later) else wire.encode(answer)
        except Exception as error:  # noqa: BLE001 - whatever one request meets is its own answer
            return wire.encode(self.failure(message.request_id, error, part=getattr(message, "part", 0)))

    def _malformed(self, peer: bytes, frames: list[Any], error: RemoteProtocolError) -> None:
        self.num_malformed += 1
        now = self.clock()
        if now >= self._complains_again:
            # Not one line for each: strangers come with a new connection each time, and would fill a disk.
            self._complains_again = now + COMPLAIN_S
            logger.warning(
                "%s: dropped a malformed message, number %d by now: %s", self.role, self.num_malformed, error
            )
        request_id = wire.request_id_of(frames)
        if request_id is not None:
            self.answer(peer, self.failure(request_id, error))

    def _guard(self, work: Callable[[float], None]) -> None:
        try:
            work(self.clock())
        except Exception:
            logger.exception("%s: its own work failed", self.role)
