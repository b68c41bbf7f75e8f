"""Models and receipts from snapshots and a log, exactly as they were; knows no thread and no actor.

The same pushes in the same order make the same bits, so what comes out equals what a server that never stopped would
have, up to the last record of the log. Whoever asks may have some of it already: models that survived in their own
files, or receipts that did, and these are left as they are.
"""

from __future__ import annotations

import logging
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from glintpy.errors import GlintError, NotEnoughMemory, ShapeError
from glintpy.protocol.failures import APPLIED, code_of
from glintpy.protocol.spec import ModelSpec
from glintpy.storage import initialise
from glintpy.storage.arrays import fill_slots
from glintpy.storage.files import Files
from glintpy.storage.gathering import Ending
from glintpy.storage.journal import Journal, Session
from glintpy.storage.log import Log
from glintpy.storage.log_format import LogDamaged
from glintpy.storage.log_keys import KeysRecord
from glintpy.storage.log_records import (
    AdvancedRecord,
    ConfiguredRecord,
    DestroyedRecord,
    EndedRecord,
    LiveRecord,
    MadeRecord,
    OpenedRecord,
    OutcomeRecord,
    PushRecord,
    Record,
    RoundRecord,
    StartedRecord,
    decode,
    is_undone_by,
)
from glintpy.storage.shard import Shard
from glintpy.storage.snapshot import RECEIPTS, SnapshotDamaged, SnapshotReader, snapshots_in
from glintpy.storage.table import TableShard

logger = logging.getLogger("glintpy.storage")

_SESSION = struct.Struct("<16s16sQQ")


class Keeper(Protocol):
    """Who keeps models; a server's shelf."""

    def restore(self, description: dict[str, Any]) -> Shard:
        """Return a model of this description, made anew, its values all zero; its pushes are not to be undone."""

    def destroy(self, model_id: int) -> None:
        """End a model; one that isn't there is ended already."""

    def configured(self, model_id: int, version: int, numbers: str) -> None:
        """Give a model's updater numbers that were written down before; older ones than it has are no news."""


class DiskKeeper(Keeper, Protocol):
    """What is needed of a shelf.

    Attributes:
        has_damaged: whether something survived that can't be used.
    """

    has_damaged: bool

    def kept(self) -> dict[int, Shard]:
        """Return the models of this level that are there and whole."""
        ...

    def restored(self, model_id: int) -> None:
        """Take a restored model into use."""
        ...


@dataclass(slots=True)
class Recovered:
    """What came of it.

    Attributes:
        positions: by model, the first record that no snapshot of it holds.
        receipts_position: the same of the receipts.
        restored: the models that were made anew.
        lost: models of which too little is left.
        identity: what the server last said of itself.
    """

    positions: dict[int, int] = field(default_factory=dict)
    receipts_position: int = 0
    restored: set[int] = field(default_factory=set)
    lost: set[int] = field(default_factory=set)
    identity: dict[str, Any] = field(default_factory=dict)


def receipts_block(journal: Journal) -> bytes:
    """Return all sessions and their receipts as the one block of a snapshot."""
    pieces = []
    for session in journal.sessions():
        _, outcomes = session.outcomes(1)
        head = _SESSION.pack(session.session_id, session.client_id, session.applied, len(outcomes))
        pieces += [head, outcomes.tobytes()]
    return b"".join(pieces)


def restore_receipts(journal: Journal, block: bytes | bytearray, now: float) -> None:
    """Put sessions and their receipts into an empty journal.

    Args:
        journal: without sessions.
        block: from ``receipts_block``.
        now: when each counts as heard.
    """
    offset = 0
    while offset < len(block):
        session_id, client_id, applied, length = _SESSION.unpack_from(block, offset)
        offset += _SESSION.size
        session = journal.open_session(session_id, client_id, now)
        session.advance(applied - length + 1)
        for sequence, code in enumerate(block[offset : offset + length], session.applied + 1):
            session.record(sequence, code)
        offset += length


def models_in(log: Log) -> set[int]:
    """Return the models that a log makes and does not end.

    Raises:
        LogDamaged, ConfigError: as of ``Log.records``.
    """
    found: set[int] = set()
    for entry in log.records():
        if entry.kind in {MadeRecord.KIND, DestroyedRecord.KIND}:
            match decode(entry.kind, entry.body):
                case MadeRecord(description):
                    found.add(description["model_id"])
                case DestroyedRecord(model_id):
                    found.discard(model_id)
    return found


def is_done(record: Record, journal: Journal, models: set[int]) -> bool:
    """Tell whether what the last record of a log says was done, by the files of a process that was killed.

    What needs no more than the journal to be done is done here.

    Args:
        record: the last one.
        journal: as it survived.
        models: those that survived.
    """
    match record:
        case PushRecord() | KeysRecord() | OutcomeRecord():
            session = journal.find(record.session)
            return session is not None and session.applied >= record.sequence
        case OpenedRecord():
            return journal.find(record.session) is not None
        case AdvancedRecord():
            session = journal.find(record.session)
            if session is not None:
                session.advance(record.floor)
        case EndedRecord():
            journal.end(record.session)
        case MadeRecord():
            return int(record.description["model_id"]) in models
        case _:
            pass
    return True


class Recovery:
    """One replay.

    Args:
        files: the disk.
        folder: where log and snapshots lie.
        log: opened.
        keeper: gets the models.
        kept: the models that survived by themselves; they are only looked at.
        journal: to be filled, without sessions; None: it survived by itself.
        now: when each session counts as heard.
    """

    def __init__(
        self,
        files: Files,
        folder: Path,
        log: Log,
        *,
        keeper: Keeper,
        kept: frozenset[int],
        journal: Journal | None,
        now: float,
    ) -> None:
        self._files = files
        self._folder = folder
        self._log = log
        self._keeper = keeper
        self._kept = kept
        self._journal = journal
        self._now = now
        self._shards: dict[int, Shard] = {}
        self._found = Recovered()

    def run(self) -> Recovered:
        """Load the snapshots, apply the log.

        Raises:
            LogDamaged: something that was synced is missing.
            ConfigError: a file can't be read. What can't be read now isn't lost: whoever is to see to that finds it.
            NotEnoughMemory: the models don't fit any more.
        """
        self._load_snapshots()
        pending: tuple[int, Record] | None = None
        for entry in self._log.records():
            record = decode(entry.kind, entry.body)
            if pending is not None and not is_undone_by(pending[1], record, number=pending[0]):
                self._apply(*pending)
            pending = (entry.number, record)
        if pending is not None:
            self._apply(*pending)
        for model_id in self._found.lost:
            logger.warning("model %d is lost: neither a whole snapshot nor its beginning is left", model_id)
        return self._found

    # --- snapshots --------------------------------------------------------------------------------------------

    def _load_snapshots(self) -> None:
        first = self._log.files[0].first
        done: set[str] = set()
        for file in snapshots_in(self._files, self._folder):
            if file.key in done:
                continue
            if file.position < first:
                logger.warning("%s is too old for the log, which begins at %d", file.name, first)
                continue
            try:
                with SnapshotReader(self._files, self._folder, file) as reader:
                    if file.key == RECEIPTS:
                        self._load_receipts(reader, file.position)
                    else:
                        self._load_model(reader, file.position)
            except SnapshotDamaged as error:
                logger.error("a snapshot is damaged: %s", error)  # noqa: TRY400 - a disk's fault, not ours
                continue
            done.add(file.key)
        if RECEIPTS not in done:
            raise LogDamaged(f"{self._folder} has no whole snapshot of the receipts that the log follows on")

    def _load_receipts(self, reader: SnapshotReader, position: int) -> None:
        blocks = [bytes(block) for block in reader.blocks()]
        self._found.receipts_position = position
        self._found.identity = dict(reader.document["identity"])
        if self._journal is not None:
            restore_receipts(self._journal, b"".join(blocks), self._now)

    def _load_model(self, reader: SnapshotReader, position: int) -> None:
        description = reader.document["description"]
        model_id = int(description["model_id"])
        if model_id not in self._kept:
            shard = self._keeper.restore(description)
            try:
                _load(shard, reader)
            except SnapshotDamaged:
                self._keeper.destroy(model_id)
                raise
            self._shards[model_id] = shard
            self._found.restored.add(model_id)
        self._found.positions[model_id] = position

    # --- the log ----------------------------------------------------------------------------------------------

    def _apply(self, number: int, record: Record) -> None:
        match record:
            case PushRecord() | KeysRecord():
                code = self._push(number, record)
                self._receipt(number, record.session, record.sequence, code)
            case OutcomeRecord():
                self._receipt(number, record.session, record.sequence, record.code)
            case MadeRecord():
                self._make(number, record.description)
            case DestroyedRecord():
                self._destroy(record.model_id)
            case StartedRecord():
                self._started(number, record)
            case OpenedRecord() | EndedRecord() | AdvancedRecord():
                self._session(number, record)
            case ConfiguredRecord():
                if record.model_id in self._found.positions:
                    self._keeper.configured(record.model_id, record.version, record.numbers)
            case RoundRecord() | LiveRecord():
                self._round(number, record)
            case _:
                pass  # its predecessor's end, which was seen to

    def _push(self, number: int, record: PushRecord | KeysRecord) -> int:
        model_id = record.model_id
        shard = self._shards.get(model_id)
        if shard is None:
            if model_id not in self._kept and model_id not in self._found.positions:
                self._found.lost.add(model_id)
            return APPLIED
        if number < self._found.positions[model_id]:
            return APPLIED
        try:
            _apply_to(shard, record)
        except NotEnoughMemory:
            raise  # there was room when it was acknowledged; without it now, the table can't be had back
        except GlintError as error:
            # The server met it too; the record that says so was the next one, and the power went before.
            return code_of(error)
        return APPLIED

    def _round(self, number: int, record: RoundRecord | LiveRecord) -> None:
        shard = self._shards.get(record.model_id)
        if shard is None or number < self._found.positions[record.model_id]:
            return
        if isinstance(record, LiveRecord):
            shard.live = record.live
        else:
            shard.end_round(record.first, record.stop, Ending(record.live))

    def _started(self, number: int, record: StartedRecord) -> None:
        self._found.identity = record.identity
        for model_id, shard in self._shards.items():
            if number >= self._found.positions[model_id]:
                shard.live = 0  # until its master said so again

    def _receipt(self, number: int, session_id: bytes, sequence: int, code: int) -> None:
        session = self._session_at(number, session_id)
        if session is None:
            return
        if sequence <= session.applied:
            raise LogDamaged(f"record {number} is of push {sequence}, whose outcome was known before")
        session.advance(sequence)  # what lies between was passed over
        session.record(sequence, code)

    def _session(self, number: int, record: OpenedRecord | EndedRecord | AdvancedRecord) -> None:
        if self._journal is None or number < self._found.receipts_position:
            return
        if isinstance(record, OpenedRecord):
            self._journal.open_session(record.session, record.client, self._now)
        elif isinstance(record, EndedRecord):
            self._journal.end(record.session)
        elif (session := self._session_at(number, record.session)) is not None:
            session.advance(record.floor)

    def _session_at(self, number: int, session_id: bytes) -> Session | None:
        if self._journal is None or number < self._found.receipts_position:
            return None
        session = self._journal.find(session_id)
        if session is None:
            raise LogDamaged(f"record {number} is of session {session_id.hex()[:8]}, which never began")
        return session

    def _make(self, number: int, description: dict[str, Any]) -> None:
        model_id = int(description["model_id"])
        if model_id in self._found.positions:
            return  # its snapshot is of later
        self._found.positions[model_id] = number
        self._found.lost.discard(model_id)
        if model_id not in self._kept:
            shard = self._shards[model_id] = self._keeper.restore(description)
            self._found.restored.add(model_id)
            extents = np.array(description["extents"], np.int64).reshape(-1, 4)
            fill_whole(shard, extents)

    def _destroy(self, model_id: int) -> None:
        self._keeper.destroy(model_id)
        self._shards.pop(model_id, None)
        self._found.positions.pop(model_id, None)
        self._found.restored.discard(model_id)
        self._found.lost.discard(model_id)


def _apply_to(shard: Shard, record: PushRecord | KeysRecord) -> None:
    if isinstance(record, PushRecord):
        shard.push(
            record.selection, record.values, assign=record.assign, array=record.array, turn=record.turn
        )
        return
    if not isinstance(shard, TableShard):
        raise ShapeError(f"model {shard.spec.name!r} is no table, and a record of it has keys")
    shard.push_keys(record.keys, record.values, action=record.action, array=record.array, now=record.now)


def _load(shard: Shard, reader: SnapshotReader) -> None:
    arrays = [array.reshape(-1).view(np.uint8) for array in shard.arrays]
    filled, waiting = 0, [cells for cells in arrays if cells.size]
    for block in reader.blocks():
        # Blocks are of one array each, see ``rounds``.
        filled += len(block)
        if not waiting or len(block) > len(waiting[0]):
            continue
        waiting[0][: len(block)] = np.frombuffer(block, np.uint8)
        waiting[0] = waiting[0][len(block) :]
        if not len(waiting[0]):
            waiting.pop(0)
    num_bytes = sum(array.nbytes for array in shard.arrays)
    if waiting or filled != num_bytes:
        raise SnapshotDamaged(f"model {shard.model_id} has {num_bytes} bytes, its snapshot {filled}")


def fill_whole(shard: Shard, extents: np.ndarray[Any, np.dtype[np.int64]]) -> None:
    """Give a model its initial values, slice by slice, as its making does."""
    spec: ModelSpec = shard.spec
    if spec.keys:
        return  # a table begins without keys, and its rows get theirs with them
    fill_slots(shard.arrays[1:], shard.updater, 0, shard.num_rows)
    if spec.init_depends_on_row and not extents.size:
        return  # whoever made it filled it by pushes
    slice_rows = max(1, 1_000_000 // max(1, spec.num_cols or 1))
    for first in range(0, shard.num_rows, slice_rows):
        stop = min(shard.num_rows, first + slice_rows)
        initialise.fill(shard.values, spec=spec, extents=extents, first=first, stop=stop)
