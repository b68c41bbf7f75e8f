"""What a server answers to sessions: order, gaps, receipts, windows; pure: time is an argument.

**A server applies a session's pushes in sequence order**: the next number is applied, a lower one gets its
recorded outcome again, a higher one is answered ``gap`` and changes nothing. A number that its client gave
up is passed over by the floor and never applied later. An unknown session is refused, never made anew: its
receipts may have lived and died elsewhere.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import Any

import numpy as np

from glintpy import config, failpoints
from glintpy.actors.durable import Durable
from glintpy.actors.parking import RoundOpenError
from glintpy.errors import Expelled, GlintError, ProtocolMismatch, RemoteFailure
from glintpy.protocol.failures import APPLIED, PASSED_OVER, code_of, error_of
from glintpy.protocol.messages import (
    FEATURES,
    VERSION,
    Applied,
    BeginCut,
    Bye,
    Change,
    Compute,
    Gap,
    Hello,
    Message,
    Probe,
    Pull,
    Push,
    PushLevels,
    Report,
    Values,
    Welcome,
)
from glintpy.protocol.messages_tables import CountKeys, PullKeys, PushKeys, ScanKeys
from glintpy.storage.journal import Journal, Session
from glintpy.storage.log_format import LogFailed

logger = logging.getLogger("glintpy.actors")

Numbered = Push | PushLevels | Change | PushKeys
Followed = Compute | BeginCut | ScanKeys | CountKeys
"""What isn't numbered, and is answered in the order of the session."""
Apply = Callable[[Any], None]
Read = Callable[[Any], np.ndarray[Any, Any]]


class Receipts:
    """Sessions of one server."""

    def __init__(
        self,
        journal: Journal,
        settings: config.ServerSettings,
        *,
        new_session_id: Callable[[], bytes] = lambda: os.urandom(16),
    ) -> None:
        self._journal = journal
        self._settings = settings
        self._new_session_id = new_session_id
        self.durable: Durable | None = None  # hears of what is about to be recorded
        self._refusals: dict[tuple[bytes, int], str] = {}  # texts of recent refusals, for repetitions
        self.window_bytes = settings.window_bytes_max
        self.num_requests = 0
        self.num_pulls = 0
        self.num_computed = 0
        self.num_pushes = 0
        self.num_repeats = 0
        self.num_gaps = 0

    def hello(self, message: Hello, now: float) -> Welcome:
        """Open a session, or confirm one.

        Raises:
            ProtocolMismatch: no version in common.
            Expelled: the session isn't known (any more).
        """
        if not message.version_min <= VERSION <= message.version_max:
            raise ProtocolMismatch(
                f"the client speaks protocol versions {message.version_min} to {message.version_max}, "
                f"this server speaks {VERSION}: upgrade the older side"
            )
        if message.session:
            session = self.find(message.session, now)
            self._advance(session, message.floor)
        else:
            # A greeting that is repeated, because its answer was lost, gets the same session again.
            failpoints.hit("session.before_open")
            session = self._journal.find_client(message.client_id) or self._journal.open_session(
                self._new_session_id(), message.client_id, now
            )
            session.last_heard = now
        self.share_budget(now)
        return Welcome(
            message.request_id,
            VERSION,
            ",".join(FEATURES),
            self._journal.server_id,
            self._journal.incarnation,
            session.session_id,
            self.window_bytes,
            session.applied,
        )

    def find(self, session_id: bytes, now: float) -> Session:
        """Return a session and note that it was heard.

        Raises:
            Expelled: it isn't known (any more).
        """
        session = self._journal.find(session_id)
        if session is None:
            raise Expelled(f"session {session_id.hex()[:8]} is not known here (any more)")
        session.last_heard = now
        return session

    def push(self, message: Numbered, now: float, *, apply: Apply, read: Read) -> Message:
        """Apply one part of a push or a change, exactly once, or say what became of it.

        Args:
            message: the part.
            now: the moment.
            apply: changes the values, all of the part or, by an exception, nothing.
            read: returns the values of the part, for a push that wants them.

        Raises:
            GlintError: the recorded refusal, or ``Expelled``.
            RoundOpenError: it is applied, and its answer waits, see ``receipt``.
        """
        session = self._heard(message, now)
        if message.sequence <= session.applied:
            return self._repeat(session, message, read)
        if message.sequence > session.applied + 1:
            return self._gap(session, message)
        self._count(session, message)
        try:
            apply(message)
        except LogFailed:
            # The server ends, and whether this push is refused is not its to say.
            raise
        except Exception as error:
            refusal = error if isinstance(error, GlintError) else RemoteFailure(repr(error))
            if self.durable is not None:
                self.durable.refused(message, code_of(refusal))
            session.record(message.sequence, code_of(refusal))
            if len(self._refusals) >= config.RECEIPTS:
                del self._refusals[next(iter(self._refusals))]
            self._refusals[session.session_id, message.sequence] = str(refusal)
            raise
        session.record(message.sequence, APPLIED)
        failpoints.hit("push.recorded")
        self._journal.settle()
        failpoints.hit("push.flag_cleared")
        self.num_pushes += 1
        receipt = self.receipt(message, read)
        failpoints.hit("push.before_ack")
        return receipt

    def receipt(self, message: Numbered, read: Read) -> Message:
        """Return the answer to a part of a push or a change that is applied.

        Args:
            message: the part.
            read: as of ``push``.

        Raises:
            RoundOpenError: the values that it wants are those after a round that has not ended.
        """
        if isinstance(message, Push | PushKeys) and message.wants_values:
            try:
                return Values(message.request_id, message.part, self.window_bytes, read(message))
            except RoundOpenError:
                raise
            except Exception as error:  # it is applied, whatever reading meets
                # The bare receipt makes the client pull the values, and that pull says what is wrong.
                expected = isinstance(error, GlintError | MemoryError)
                logger.warning(
                    "values after a push could not be read: %r", error, exc_info=None if expected else error
                )
        return Applied(message.request_id, message.part, self.window_bytes)

    def pull(self, message: Pull | PullKeys, now: float, *, read: Read) -> Message:
        """Read one part, if everything that its client issued before has been handled.

        Raises:
            GlintError: from reading, or ``Expelled``.
        """
        session = self._heard(message, now)
        if message.after > session.applied:
            return self._gap(session, message)
        self._count(session, message)
        self.num_pulls += 1
        return Values(message.request_id, message.part, self.window_bytes, read(message))

    def compute(self, message: Compute, now: float, *, run: Callable[[Compute], Message]) -> Message:
        """Run a function on one part, if everything that its client issued before has been handled.

        Raises:
            GlintError: from the function, or ``Expelled``.
        """
        session = self._heard(message, now)
        if message.after > session.applied:
            return self._gap(session, message)
        self._count(session, message)
        self.num_computed += 1
        return run(message)

    def follows(self, message: BeginCut | ScanKeys | CountKeys, now: float) -> Gap | None:
        """Return a gap if something that its client issued before has not arrived.

        Raises:
            Expelled: the session isn't known.
        """
        session = self._heard(message, now)
        if message.after > session.applied:
            return self._gap(session, message)
        return None

    def probe(self, message: Probe, now: float) -> Report:
        """Tell the session as it stands.

        Raises:
            Expelled: it isn't known.
        """
        session = self._heard(message, now)
        first, outcomes = session.outcomes(message.floor)
        return Report(message.request_id, self.window_bytes, session.applied, first, outcomes)

    def bye(self, message: Bye) -> None:
        """Forget a session whose client has all its outcomes."""
        self._journal.end(message.session)

    def share_budget(self, now: float) -> None:
        """Work out the window of each session: the budget by the sessions that are alive."""
        settings = self._settings
        alive = max(1, self._journal.num_alive(now, within_s=settings.session_idle_s))
        share = settings.budget_bytes // alive
        self.window_bytes = max(settings.window_bytes_min, min(settings.window_bytes_max, share))

    def expire(self, now: float) -> None:
        """Forget sessions that have been silent for too long."""
        self._journal.expire(now, older_than_s=self._settings.session_expiry_s)

    def _heard(self, message: Pull | PullKeys | Numbered | Followed | Probe, now: float) -> Session:
        session = self.find(message.session, now)
        self._advance(session, message.floor)
        return session

    def _advance(self, session: Session, floor: int) -> None:
        if self.durable is not None and floor > session.applied + 1:
            self.durable.advanced(session.session_id, floor)
        session.advance(floor)

    def _count(self, session: Session, message: Pull | PullKeys | Numbered | Compute) -> None:
        # Request ids grow, and parts of one request share theirs: so distinct requests are counted.
        if message.request_id > session.highest_request:
            session.highest_request = message.request_id
            self.num_requests += 1

    def _gap(self, session: Session, message: Pull | PullKeys | Numbered | Followed) -> Gap:
        self.num_gaps += 1
        part: int = getattr(message, "part", 0)
        return Gap(message.request_id, part, session.applied + 1, self.window_bytes)

    def _repeat(self, session: Session, message: Numbered, read: Read) -> Message:
        self.num_repeats += 1
        outcome = session.outcome(message.sequence)
        if outcome == APPLIED:
            return self.receipt(message, read)
        if outcome is None:
            raise Expelled(f"push {message.sequence} lies too far back for this session's receipts")
        if outcome == PASSED_OVER:
            # Nobody waits for it any more, and the session is as good as before.
            raise RemoteFailure(f"push {message.sequence} was given up by its client and is not applied")
        raise error_of(outcome, self._refusals.get((session.session_id, message.sequence), "refused before"))
