"""The server actor: one thread that owns every value of its process, so numpy needs no locks.

Knows nothing of partitions: requests name server rows. What it decides lies in pure objects beside it:
receipts (who may push what, once), shards (what a push does), and the shelf (which models there are).
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any, ClassVar, Protocol, TypedDict

import numpy as np

from glintpy import config, failpoints
from glintpy.actors.base import LATER, Inbox, Later, RequestActor
from glintpy.actors.computing import Computing
from glintpy.actors.cuts import Cuts
from glintpy.actors.durable import Durable
from glintpy.actors.held import HeldOutlet
from glintpy.actors.levels import written_out
from glintpy.actors.outlet import Outlet
from glintpy.actors.parking import Parked, RoundOpenError
from glintpy.actors.preparing import is_preparing
from glintpy.actors.receipts import Receipts
from glintpy.actors.shelf import Shelf
from glintpy.actors.tables import Tables
from glintpy.errors import RemoteProtocolError
from glintpy.protocol import wire
from glintpy.protocol.messages import (
    BeginCut,
    Bye,
    Change,
    Compute,
    Computed,
    ConfigureShard,
    CreateShard,
    DestroyShard,
    Done,
    EndCut,
    EndRound,
    Hello,
    Message,
    Probe,
    Pull,
    Push,
    PushLevels,
    ReadCut,
    ServerStatus,
    SetLive,
    as_fields,
)
from glintpy.protocol.messages_tables import CountKeys, PullKeys, PushKeys, ScanKeys
from glintpy.protocol.rounds import Turn
from glintpy.protocol.selection import Selection
from glintpy.protocol.spec import ModelSpec
from glintpy.records import record
from glintpy.storage.gathering import Ending
from glintpy.storage.journal import Journal
from glintpy.storage.log_format import LogFailed
from glintpy.storage.log_records import LiveRecord, RoundRecord
from glintpy.storage.shard import Shard

logger = logging.getLogger("glintpy.actors")

Job = CreateShard | EndRound | SetLive


@record
class FromMaster:
    """Frames that came over the control connection."""

    frames: list[bytes | bytearray | memoryview]


@record
class Admitted:
    """The master took this server as a member and says which models it should hold."""

    model_ids: frozenset[int]


class Control(Protocol):
    """The way back to the master."""

    def send(self, frames: list[wire.Buffer]) -> None:
        """Send to the master; safe from any thread."""
        ...


class _How(TypedDict):
    """How a push is applied, see ``Shard.push``."""

    assign: bool
    array: int
    turn: Turn


class ServerActor(RequestActor):
    """Answers clients on its socket and the master on the control connection."""

    role: ClassVar[str] = "server"

    def __init__(
        self,
        inbox: Inbox,
        outlet: Outlet,
        *,
        journal: Journal,
        shelf: Shelf,
        settings: config.ServerSettings,
        control: Control,
        clock: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
        receipts: Receipts | None = None,
    ) -> None:
        durable = shelf.durable or Durable(None, journal, log_bytes_max=settings.log_bytes_max)
        held = HeldOutlet(outlet, durable, on_held=self._held_back, on_failed=self._log_failed)
        super().__init__(inbox, held, clock=clock)
        self.durable = durable
        self.held = held
        self.journal = journal
        self.shelf = shelf
        self.settings = settings
        self._computing = Computing(shelf, settings.allow)
        self.control = control
        self.receipts = receipts or Receipts(journal, settings)
        self.receipts.durable = durable
        self._tables = Tables(shelf, self.receipts, durable, roll_back=self._roll_back, wall_clock=wall_clock)
        self._started = clock()
        self._cuts = Cuts(shelf, self.receipts, incarnation=journal.incarnation)
        self._parked = Parked()
        self._freed: list[tuple[int, range]] = []  # rows whose rounds a push has ended
        self._jobs: list[tuple[Job, Iterator[Message | None]]] = []

    # --- clients --------------------------------------------------------------------------------------------

    def handle(self, peer: bytes, message: Message) -> Message | Later | None:
        """Return the answer to a client."""
        now = self.clock()
        match message:
            case Pull():
                return self._pull(peer, message, now)
            case Push() | PushLevels() | Change():
                return self._push(peer, message, now)
            case Compute():
                return self.receipts.compute(message, now, run=self._compute)
            case PullKeys() | PushKeys() | ScanKeys() | CountKeys():
                return self._of_table(message, now)
            case Probe():
                return self.receipts.probe(message, now)
            case Hello():
                return self.receipts.hello(message, now)
            case Bye():
                self.receipts.bye(message)
                return None
            case ServerStatus():
                return Done(message.request_id, wire.document(self.status()))
            case BeginCut() | ReadCut() | EndCut():
                return self._cuts.handle(message, now)
            case _:
                # Most likely a Join, of somebody who took this address for the master's.
                raise RemoteProtocolError(
                    f"this is a server's address, and {type(message).__name__} is not for a server; the master's "
                    "address is the one that `glintpy master` prints"
                )

    def window_bytes(self) -> int:
        """Return the window that answers grant."""
        return self.receipts.window_bytes

    def _push(self, peer: bytes, message: Push | PushLevels | Change, now: float) -> Message | Later:
        answer: Message | Later = LATER
        try:
            answer = self.receipts.push(message, now, apply=self._apply, read=self._read)
        except RoundOpenError:
            assert isinstance(message, Push), "nothing else is answered with values"
            # Its own are in, and must not be held for as long as others take.
            self._parked.add(peer, replace(message, values=np.empty(0, message.values.dtype)), now)
        while self._freed:
            self._look_again(*self._freed.pop())
        return answer

    def _pull(self, peer: bytes, message: Pull, now: float) -> Message | Later:
        try:
            return self.receipts.pull(message, now, read=self._read)
        except RoundOpenError:
            self._parked.add(peer, message, now)
            return LATER

    def _look_again(self, model_id: int, rows: range | None = None) -> None:
        """Answer those whose rounds have ended meanwhile, and those that can't wait any more."""
        for peer, message in self._parked.take(model_id, rows):
            if isinstance(message, Push):
                self._receipt_to(peer, message)
                continue
            frames = self._answer_to(peer, message)  # or it is parked again
            if frames is not None:
                self.outlet.send(peer, frames)

    def _receipt_to(self, peer: bytes, message: Push) -> None:
        """Answer a push that has waited for its round, or have it wait on."""
        try:
            self.answer(peer, self.receipts.receipt(message, self._read))
        except RoundOpenError:
            self._parked.add(peer, message, self.clock())

    def _of_table(self, message: PullKeys | PushKeys | ScanKeys | CountKeys, now: float) -> Message:
        if isinstance(message, PushKeys):
            self.num_bytes_in += message.keys.nbytes + (
                0 if message.values is None else message.values.nbytes
            )
        return self._tables.handle(message, now)

    def _compute(self, message: Compute) -> Message:
        arrays = self._computing.read(message)
        return Computed(message.request_id, message.part, self.window_bytes(), *as_fields(arrays))

    def _apply(self, request: Push | PushLevels | Change) -> None:
        message = self._written_out(request)
        if isinstance(message, PushKeys):
            self._tables.apply(message)
            return
        shard = self.shelf.shard(message.model_id, routing=message.routing)
        selection = Selection(message.rows, message.cols, message.paired)
        turn = Turn(message.round, message.rank)
        how = _How(assign=message.assign, array=message.array, turn=turn)
        if message.wants_values:
            # Before anything is written: what could never be answered is refused, not half done.
            shard.check_pull(selection, config.FRAME_BYTES_MAX, array=message.array)
        if self.durable.keeps(message.model_id):
            # Before it is written down: a log is no place for what would be refused.
            shard.check_push(selection, message.values, **how)
        self.durable.push(message)
        if shard.undo is None:
            self._ended(message, shard.push(selection, message.values, **how))
            return
        shard.undo.begin(message.session, message.sequence)
        try:
            self._ended(message, shard.push(selection, message.values, **how))
        except Exception:
            self._roll_back()
            raise

    def _written_out(self, request: Push | PushLevels | Change) -> Push | PushKeys:
        """Return the push that a request comes to."""
        match request:
            case Change():
                return self._computing.push_of(request)
            case PushLevels():
                return written_out(request, self.shelf.shard(request.model_id, routing=request.routing))
            case _:
                return request

    def _ended(self, message: Push, rows: range) -> None:
        if rows:
            # When the push has its receipt: who reads now might read what would be undone.
            self._freed.append((message.model_id, rows))

    def _roll_back(self) -> None:
        """Undo the push under way; if that fails too, end as if killed: the next process does it."""
        try:
            self.shelf.roll_back()
        except Exception as error:
            # Half of a push may be in the values. Nobody is answered any more, nor is the push's outcome recorded.
            self.durable.failure = LogFailed(f"a push that failed could not be undone: {error!r}")
            self.held.when_synced(lambda: None)
            raise self.durable.failure from error

    def _read(self, message: Pull | Push) -> np.ndarray[Any, Any]:
        shard = self.shelf.shard(message.model_id, routing=message.routing)
        selection = Selection(message.rows, message.cols, message.paired)
        if message.round:
            # Bounds first: what doesn't fit the model is refused at once.
            shard.check_pull(selection, config.FRAME_BYTES_MAX, array=message.array)
            if shard.is_open(selection, Turn(message.round, message.rank)):
                raise RoundOpenError
        failpoints.hit("pull.before_copy")
        values = shard.pull(selection, array=message.array, bytes_max=config.FRAME_BYTES_MAX)
        failpoints.hit("pull.before_send")
        return values

    # --- the master -----------------------------------------------------------------------------------------

    def on_local(self, message: object) -> None:
        """Handle the control connection's news."""
        match message:
            case FromMaster(frames):
                for request in wire.decode_all(frames):
                    self._answer_master(request)
            case Admitted(model_ids):
                self.shelf.keep_only(model_ids)
                self._cancel_jobs(lambda model_id: model_id not in model_ids)
            case _:
                raise TypeError(f"nobody tells a server {message!r}")

    def _answer_master(self, request: Message) -> None:
        try:
            answer = self._handle_master(request)
        except Exception as error:  # noqa: BLE001 - whatever one request meets is its own answer
            answer = self.failure(request.request_id, error)
        if answer is not None:
            self._tell_master(answer)

    def _tell_master(self, answer: Message) -> None:
        frames = wire.encode(answer)
        self.held.when_synced(lambda: self.control.send(frames))

    def _handle_master(self, request: Message) -> Message | None:
        done = Done(request.request_id, wire.document({}))
        match request:
            case CreateShard():
                spec = ModelSpec.from_content(wire.content(request.spec))
                if request.reserve_only:
                    self.shelf.reserve(request.model_id, spec, num_rows=request.num_rows)
                    return done
                steps = self.shelf.create(
                    request.model_id,
                    spec,
                    routing=request.routing,
                    num_rows=request.num_rows,
                    extents=request.extents,
                    slice_cells=self.settings.slice_cells,
                )
                self._begin(request, steps)
                return None
            case EndRound():
                self._begin(request, self._round(request.model_id, request.version))
                return None
            case SetLive():
                self._begin(request, self._live(request.model_id, request.version, request.live))
                return None
            case DestroyShard():
                self._destroy(request.model_id)
                return done
            case ConfigureShard():
                numbers = wire.content(request.numbers)
                self.shelf.configure(request.model_id, request.version, numbers)
                return done
            case ServerStatus():
                return Done(request.request_id, wire.document(self.status()))
            case _:
                raise RemoteProtocolError(f"{type(request).__name__} is not for a server")

    def _begin(self, request: Job, steps: Iterator[None]) -> None:
        self._jobs.append((request, self._job(steps, request)))
        self.inbox.has_work = True

    def _round(self, model_id: int, version: int) -> Iterator[None]:
        """End a step of a model, a slice at each step; again does nothing."""
        shard = self.shelf.shard(model_id)
        if version > shard.round_version:
            yield from self._end_rounds(shard, Ending())
            shard.round_version = version

    def _live(self, model_id: int, version: int, live: int) -> Iterator[None]:
        """Have rounds with tags wait for other ranks than before; those that have all of them end, slice by slice."""
        shard = self.shelf.shard(model_id)
        if version > shard.live_version:
            self.durable.about_round(LiveRecord(model_id, live))
            shard.live, shard.live_version = live, version
            if live:
                yield from self._end_rounds(shard, Ending(live))
            self._look_again(model_id)

    def _end_rounds(self, shard: Shard, ending: Ending) -> Iterator[None]:
        for first, stop in shard.pieces_of_round(ending):
            if self.shelf.find(shard.model_id) is not shard:
                return  # destroyed meanwhile
            self.durable.about_round(RoundRecord(shard.model_id, first, stop, ending.live))
            try:
                shard.end_round(first, stop, ending)
            except Exception:
                self._roll_back()
                raise
            yield

    def _job(self, steps: Iterator[None], request: Job) -> Iterator[Message | None]:
        try:
            for _ in steps:
                yield None
            yield Done(request.request_id, wire.document({}))
        except Exception as error:  # noqa: BLE001 - whatever it meets, the master must not wait for it
            yield self.failure(request.request_id, error)

    def _destroy(self, model_id: int) -> None:
        self._cuts.drop_of(model_id)
        self.shelf.destroy(model_id)
        self._cancel_jobs(lambda ended: ended == model_id)
        self._look_again(model_id)

    def _cancel_jobs(self, has_ended: Callable[[int], bool]) -> None:
        """Have what waits its turn at a model only answer, lest the model be made after its end."""
        for index, (request, _) in enumerate(self._jobs):
            if has_ended(request.model_id):
                self._jobs[index] = request, iter([Done(request.request_id, wire.document({}))])

    # --- its own work -----------------------------------------------------------------------------------------

    def on_idle(self, now: float) -> None:
        """Do one slice of the oldest job; end a group of pushes where nothing more is there to be done."""
        del now
        if self.is_quiet:
            self.held.release()
        if self._jobs:
            try:
                answer = next(self._jobs[0][1])
            except StopIteration:
                self._jobs.pop(0)
            else:
                if answer is not None:
                    self._tell_master(answer)
        elif self.durable.has_work:
            try:
                self.durable.work()
            except LogFailed:
                self.held.release()
        self.inbox.has_work = bool(self._jobs) or self.held.is_holding or self.durable.has_work

    def on_tick(self, now: float) -> None:
        """Forget what has been silent for too long; share the budget anew."""
        self.receipts.share_budget(now)
        self.receipts.expire(now)
        self._parked.forget(now)
        self._cuts.forget(now, idle_s=self.settings.cut_idle_s)
        if self.durable.has_failed:
            self.held.release()

    def close_state(self) -> None:
        """Close models and receipts in good order."""
        self.held.release()
        if self.durable.has_failed:
            self.abandon_state()
            return
        self.durable.close(clean=True)
        self.shelf.close()
        self.journal.close(clean=True)

    def abandon_state(self) -> None:
        """Leave models and receipts as a killed process would."""
        self.durable.close(clean=False)
        self.shelf.close(clean=False)
        self.journal.close(clean=False)

    def _held_back(self) -> None:
        # The mailbox says when it has nothing more: then the group is synced and its answers go.
        self.inbox.has_work = True

    def _log_failed(self, error: Exception) -> None:
        # What the disk has of the last group can't be known. So nobody hears of it, and whoever comes next begins
        # with what the files say.
        logger.critical("server: it ends, as if killed: %s", str(error))
        self.leave_files_as_killed()
        self.stop()

    def status(self) -> dict[str, Any]:
        """Return what this server holds and has done, as plain data."""
        receipts = self.receipts
        return {
            "server_id": self.journal.server_id,
            "incarnation": self.journal.incarnation,
            "up_s": round(self.clock() - self._started, 3),
            "models": self.shelf.status(),
            "model_bytes": self.shelf.num_bytes,
            "memory_limit": self.shelf.limit_bytes(),
            "sessions": self.journal.num_sessions,
            "requests": receipts.num_requests,
            "pulls": receipts.num_pulls,
            "pushes": receipts.num_pushes,
            "computed": receipts.num_computed,
            "repeats": receipts.num_repeats,
            "gaps": receipts.num_gaps,
            "malformed": self.num_malformed,
            "bytes_in": self.num_bytes_in,
            "bytes_out": self.held.num_bytes,
            "backlog_bytes": self.held.backlog_bytes,
            "dropped": self.held.num_dropped,
            "window_bytes": receipts.window_bytes,
            "cuts": self._cuts.num,
            "compiling": is_preparing(),
        }
