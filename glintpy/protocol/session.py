"""The client's half of a session with one server: order, resends, probes, windows.

Pure: no socket, thread or clock. Theory of operation:

Pushes are numbered in the order in which they are sent, and the server applies them in that order. A
connection is first-in first-out and loses nothing while it lives; what dies with it is found out by
asking. So silence is met with a *probe*, a message of under 100 bytes; its answer, a *report*, left the
server behind every answer to what was sent before the probe. What was sent before and is not answered by
then is missing, and only that is sent again. After a reconnect the welcome plays the report's part.

Every send gets a *stamp*, a count of sends, so that "sent before the probe" is a comparison.
"""

from __future__ import annotations

import random
from collections import deque
from collections.abc import Callable
from typing import Literal

from glintpy import config
from glintpy.errors import Expelled, GlintError, LocalProtocolError, ProtocolMismatch, PushOutcomeUnknown
from glintpy.protocol import wire
from glintpy.protocol.calls import Call, Failed, Fate, Stamp
from glintpy.protocol.failures import APPLIED, PASSED_OVER, code_of, error_of
from glintpy.protocol.messages import (
    FEATURES,
    VERSION,
    Applied,
    Computed,
    Done,
    Failure,
    Gap,
    Hello,
    Message,
    Probe,
    Report,
    Values,
    Welcome,
)
from glintpy.protocol.messages_tables import Scanned

Phase = Literal["down", "greeting", "open"]

IN_FLIGHT_MAX = config.RECEIPTS // 2
"""Numbers between the floor and the newest: the server's ring remembers twice as many."""

PULLS_IN_FLIGHT_MAX = 1024


class Session:
    """Calls to one server."""

    def __init__(
        self,
        *,
        client_id: bytes,
        settings: config.ClientSettings,
        new_request_id: Callable[[], int],
        random_source: random.Random,
        server_id: str = "",
    ) -> None:
        self._server_id = server_id
        self.incarnation = 0
        """The highest one of the server that is known: an older process of it is not listened to any more."""
        self._client_id = client_id
        self._settings = settings
        self._new_request_id = new_request_id
        self._random = random_source
        self.phase: Phase = "down"
        self.session = b""
        self.window_bytes = settings.queued_bytes_max
        self.in_flight_bytes = 0
        self._next_sequence = 1
        self._last_used: dict[int, int] = {}  # by model: the last number used
        self._open: dict[tuple[int, int], Call] = {}  # sent, in order of their last send
        self._pushes: dict[int, Call] = {}  # the numbered ones of them, in order of their numbers
        self._queue: deque[Call] = deque()  # never sent in this session
        self._again: deque[Call] = deque()  # to be sent again
        self._urgent: list[Message] = []
        self._greetings: set[int] = set()
        self._probes: dict[int, int] = {}  # request id to the stamp at which it was sent
        self._stamp = 0
        self._asked_at = 0.0
        self._sent_at = 0.0
        self._wait_s = settings.probe_first_s
        self._gap: tuple[int, float] = (0, 0.0)
        self._gap_stamp = 0
        self._next_deadline = float("inf")
        self.num_probes = 0
        self.num_payload_resends = 0

    # --- what happens to it -------------------------------------------------------------------------------

    def submit(self, call: Call) -> None:
        """Take a call; it is sent when the session is open and the window has room, in order."""
        self._queue.append(call)
        if call.deadline is not None:
            self._next_deadline = min(self._next_deadline, call.deadline)

    def connected(self, now: float) -> None:
        """Greet: open a session, or go on with the one there is."""
        self._greet(now)

    def disconnected(self, now: float) -> None:
        """Stop sending until the next connection."""
        del now
        self.phase = "down"
        self._urgent.clear()
        self._greetings.clear()
        self._probes.clear()

    def receive(self, message: Message, now: float) -> None:
        """Handle what the server says."""
        window = getattr(message, "window_bytes", None)
        if window is not None:
            self.window_bytes = max(window, 1)
        match message:
            case Welcome():
                self._welcomed(message, now)
            case Report():
                self._reported(message)
            case Failure() if message.request_id in self._greetings:
                self._rejected(message, now)
            case Failure() if message.code == code_of(Expelled()):
                # Only by what this session sent: a late answer to the one before says nothing about it.
                is_ours = (
                    message.request_id,
                    message.part,
                ) in self._open or message.request_id in self._probes
                if self.phase == "open" and is_ours:
                    self._session_lost(Expelled(message.text), now)
            case Gap():
                self._gapped(message, now)
            case Values() | Applied() | Computed() | Scanned() | Failure() | Done():
                self._answered(message)
            case _:
                pass  # a kind that servers don't send: nothing of ours waits for it

    def tick(self, now: float) -> None:
        """Give up what is past its deadline; probe, or greet again, after silence."""
        if now >= self._next_deadline:
            self._expire(now)
        if self.phase == "greeting" and now >= self._asked_at + self._wait_s:
            self._greet(now, again=True)
        elif self.phase == "open" and self._open:
            oldest = next(iter(self._open.values()))
            if now >= max(oldest.sent_at, self._asked_at) + self._wait_s:
                self._probe(now)
        elif self.phase == "open" and now >= max(self._sent_at, self._asked_at) + self._settings.keep_alive_s:
            self._probe(now)

    def fail_all(self, error: GlintError, *, hasty_only: bool = False) -> None:
        """Fail everything, or only what doesn't want to wait for a lost server."""
        for call in [*self._open.values(), *self._queue]:
            if hasty_only and not call.is_hasty:
                continue
            fate: Fate = "unknown" if call.sent_stamp else "unsent"
            self._close(call)
            call.finish(Failed(error, fate))
        self._queue = deque(call for call in self._queue if not call.is_settled)

    @property
    def num_waiting(self) -> int:
        """Calls without an answer."""
        return len(self._open) + len(self._queue)

    # --- what it sends --------------------------------------------------------------------------------------

    def outgoing(self, now: float) -> list[list[wire.Buffer]]:
        """Return the frames of each ZeroMQ message to send now, small ones merged."""
        if not (self._queue or self._urgent or self._again):
            return []
        encoded = [(wire.encode(message), 0) for message in self._urgent]
        self._urgent.clear()
        if self.phase == "open":
            while self._again:
                call = self._again.popleft()
                call.is_waiting = False
                if not call.is_settled:
                    self._send(call, now, encoded)
            while self._queue and self._has_room(self._queue[0]):
                call = self._queue.popleft()
                if call.is_settled:
                    continue
                self._enter(call)
                self._send(call, now, encoded)
        if len(encoded) < 2:
            return [frames for frames, _ in encoded]
        return list(wire.merge((frames for frames, _ in encoded), weights=(weight for _, weight in encoded)))

    @property
    def floor(self) -> int:
        """The oldest number whose outcome isn't known."""
        return next(iter(self._pushes), self._next_sequence)

    def _has_room(self, call: Call) -> bool:
        if call.numbered and self._next_sequence - self.floor >= IN_FLIGHT_MAX:
            return False
        if len(self._open) >= PULLS_IN_FLIGHT_MAX:
            return False
        return not self._open or self.in_flight_bytes + call.cost_bytes <= self.window_bytes

    def _enter(self, call: Call) -> None:
        self.in_flight_bytes += call.cost_bytes
        self._open[call.key] = call
        if call.numbered:
            call.sequence = self._next_sequence
            self._next_sequence += 1
            self._pushes[call.sequence] = call
            if call.model_id is not None:
                self._last_used[call.model_id] = call.sequence
        elif call.model_id is not None:
            call.after = self._last_used.get(call.model_id, 0)
            if call.other_model_id is not None:
                call.after = max(call.after, self._last_used.get(call.other_model_id, 0))

    def _send(self, call: Call, now: float, encoded: list[tuple[list[wire.Buffer], int]]) -> None:
        try:
            frames = wire.encode(call.build(Stamp(self.session, self.floor, call.after, call.sequence)))
        except LocalProtocolError as error:
            # One that can't travel fails by itself; its number is left behind by the floor.
            fate: Fate = "unknown" if call.sent_stamp else "unsent"
            self._close(call)
            call.finish(Failed(error, fate))
            return
        if call.attempts and call.numbered:
            self.num_payload_resends += 1
        call.attempts += 1
        self._stamp += 1
        call.sent_stamp, call.sent_at, self._sent_at = self._stamp, now, now
        self._open[call.key] = self._open.pop(call.key)  # the newest send stands last
        encoded.append((frames, call.cost_bytes))

    def _greet(self, now: float, *, again: bool = False) -> None:
        request_id = self._new_request_id()
        if not again:
            self._wait_s = self._settings.probe_first_s
        else:
            self._back_off()
        self.phase, self._asked_at = "greeting", now
        self._greetings.add(request_id)
        hello = Hello(
            request_id, VERSION, VERSION, ",".join(FEATURES), self._client_id, self.session, self.floor
        )
        self._urgent.append(hello)

    def _probe(self, now: float) -> None:
        self._stamp += 1
        request_id = self._new_request_id()
        self._probes[request_id] = self._stamp
        if len(self._probes) > 64:
            del self._probes[next(iter(self._probes))]
        self._asked_at = now
        self._back_off()
        self.num_probes += 1
        self._urgent.append(Probe(request_id, self.session, self.floor, self._next_sequence - 1))

    def _back_off(self) -> None:
        wait_s = min(self._wait_s * self._settings.probe_factor, self._settings.probe_max_s)
        spread = self._settings.probe_jitter
        self._wait_s = wait_s * (1 + spread * (2 * self._random.random() - 1))

    def _schedule(self, call: Call) -> None:
        if not call.is_waiting:
            call.is_waiting = True
            self._again.append(call)

    # --- what the server says -------------------------------------------------------------------------------

    def _welcomed(self, welcome: Welcome, now: float) -> None:
        if self.phase != "greeting" or welcome.request_id not in self._greetings:
            return
        if self._server_id not in {"", welcome.server_id} or welcome.incarnation < self.incarnation:
            # Another server has the port, or an owner that was replaced is still about. The next greeting comes after a
            # while; the master says meanwhile where the server is.
            return
        self.incarnation = welcome.incarnation
        self._greetings.clear()
        if self.session and welcome.session != self.session:
            self._session_lost(Expelled("the server gave another session"), now)
            return
        self.session = welcome.session
        self.phase = "open"
        self._wait_s = self._settings.probe_first_s
        if not self._open:
            return
        # The connection that carried these is gone: what has no outcome by now goes out again, in order. Of
        # pushes that have one only the outcome is missing, and a report has it.
        for call in sorted(self._open.values(), key=lambda call: call.sent_stamp):
            if not call.numbered or call.sequence > welcome.applied:
                self._schedule(call)
        if any(sequence <= welcome.applied for sequence in self._pushes):
            self._probe(now)

    def _rejected(self, failure: Failure, now: float) -> None:
        error = error_of(failure.code, failure.text)
        self._greetings.clear()
        if isinstance(error, Expelled) and self.session:
            self._session_lost(error, now)
            return
        if isinstance(error, ProtocolMismatch):
            self.fail_all(error)
        # Anything else (too many sessions) may pass: the next greeting comes after a while.

    def _session_lost(self, error: GlintError, now: float) -> None:
        """Begin anew: numbered calls that were sent have no known outcome, the rest is sent again."""
        lost = list(self._pushes.values())
        again = [call for call in self._open.values() if not call.numbered]
        queue = [*sorted(again, key=lambda call: call.sent_stamp), *self._queue]
        self._forget_all()
        self.session, self._next_sequence, self._last_used = b"", 1, {}
        # Under the old id a server that still has the old session would give it back, as to a greeting that
        # was repeated; and then number 1 would be one that has its outcome long since.
        self._client_id = self._random.randbytes(16)
        self._queue.extend(queue)
        for call in queue:
            call.is_waiting = False
            if call.deadline is not None:
                self._next_deadline = min(self._next_deadline, call.deadline)
        for call in lost:
            unknown = PushOutcomeUnknown(f"the server no longer knows this client's session: {error}")
            call.finish(Failed(unknown, "unknown"))
        if self.phase != "down":
            self._greet(now)

    def _forget_all(self) -> None:
        self._open.clear()
        self._pushes.clear()
        self._queue.clear()
        self._again.clear()
        self._probes.clear()
        self.in_flight_bytes = 0
        self._next_deadline = float("inf")

    def _answered(self, message: Values | Applied | Computed | Scanned | Failure | Done) -> None:
        call = self._open.get((message.request_id, getattr(message, "part", 0)))
        if call is None:
            return
        is_read_back = call.sequence > 0 and not call.numbered
        if isinstance(message, Applied) and is_read_back:
            return  # said again; its values are on their way
        self._wait_s = self._settings.probe_first_s
        if isinstance(message, Applied) and call.build_read is not None:
            self._read_back(call)
            return
        self._close(call)
        if isinstance(message, Failure):
            # A push that is in was not refused, though its values can't be had.
            fate: Fate = "unknown" if is_read_back else "refused"
            call.finish(Failed(error_of(message.code, message.text), fate))
        else:
            call.finish(message)

    def _gapped(self, gap: Gap, now: float) -> None:
        # Everything from the expected number on that was sent before is refused alike, so one gap sends all of
        # it again; the gaps that the others bring along, still under way, must not send it once more.
        expected, until = self._gap
        if gap.expected != expected or now >= until:
            self._gap, self._gap_stamp = (gap.expected, now + self._wait_s), self._stamp
            for sequence, push in self._pushes.items():
                if sequence >= gap.expected:
                    self._schedule(push)
        call = self._open.get((gap.request_id, gap.part))
        # One that was sent behind them already waits for a probe: were the pushes lost again, it would go to and
        # fro without pause, and twice as often with each message that the network repeats.
        if call is not None and not call.numbered and call.sent_stamp <= self._gap_stamp:
            self._schedule(call)

    def _reported(self, report: Report) -> None:
        asked_stamp = self._probes.pop(report.request_id, None)
        if asked_stamp is None:
            return
        for call in list(self._open.values()):
            if call.sent_stamp >= asked_stamp or call.is_waiting:
                continue
            if not call.numbered or call.sequence > report.applied:
                self._schedule(call)
            else:
                position = call.sequence - report.first
                known = 0 <= position < report.outcomes.size
                self._learn(call, int(report.outcomes[position]) if known else PASSED_OVER)

    def _learn(self, call: Call, outcome: int) -> None:
        """Settle a push whose answer was lost, from its recorded outcome."""
        self._wait_s = self._settings.probe_first_s
        if outcome == APPLIED and call.build_read is not None:
            self._read_back(call)
            return
        self._close(call)
        if outcome == APPLIED:
            call.finish(Applied(call.request_id, call.part, self.window_bytes))
        elif outcome == PASSED_OVER:
            call.finish(Failed(PushOutcomeUnknown("the server has no record of its outcome"), "unknown"))
        else:
            error = error_of(outcome, "refused by the server; the text of the refusal was lost on the way")
            call.finish(Failed(error, "refused"))

    def _read_back(self, call: Call) -> None:
        """Turn a push that is in, but whose values were lost, into the pull of those values."""
        assert call.build_read is not None
        self._pushes.pop(call.sequence, None)
        call.build, call.build_read = call.build_read, None
        call.numbered, call.after = False, call.sequence
        self._schedule(call)

    def _close(self, call: Call) -> None:
        if self._open.pop(call.key, None) is not None:
            self.in_flight_bytes -= call.cost_bytes
        if call.numbered:
            self._pushes.pop(call.sequence, None)

    def _expire(self, now: float) -> None:
        self._next_deadline = float("inf")
        for call in [*self._open.values(), *self._queue]:
            if call.deadline is None:
                continue
            if now < call.deadline:
                self._next_deadline = min(self._next_deadline, call.deadline)
                continue
            # A push that is given up leaves the floor behind: the server passes its number over.
            fate: Fate = "unknown" if call.sent_stamp else "unsent"
            self._close(call)
            call.finish(Failed(GlintError("no answer within its time"), fate, timed_out=True))
        self._queue = deque(call for call in self._queue if not call.is_settled)
