"""Level ``disk`` on one server: what is written to the log before a deed, and synced before its answer; no thread.

The server actor tells it what is about to happen; it writes that down. As long as something is not synced, the actor's
outlet keeps every answer back. The actor has it sync when nothing more is there to be done, or when the group is
full, and work at snapshots when it is idle. Until the first model of this level is made there is no log, and it costs
nothing.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy import config, failpoints
from glintpy.errors import ConfigError, NotEnoughMemory
from glintpy.protocol.messages import Change, Push, PushLevels
from glintpy.protocol.messages_tables import PushKeys
from glintpy.storage.files import Files, empty_folder, is_being_emptied
from glintpy.storage.gathering import Ending
from glintpy.storage.journal import Journal
from glintpy.storage.log import RESERVE_BYTES, Log
from glintpy.storage.log_format import LogFailed
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
    VoidRecord,
    decode,
)
from glintpy.storage.mapped import boot_number
from glintpy.storage.recovery import DiskKeeper, Recovered, Recovery, is_done, models_in
from glintpy.storage.rounds import SLICE_BYTES, Snapshots, Steps, description_of
from glintpy.storage.shard import Shard
from glintpy.storage.snapshot import RECEIPTS, remove_unfinished, snapshots_in

logger = logging.getLogger("glintpy.actors")

GROUP_PUSHES = 64
GROUP_BYTES = 4 * config.MIB
"""A group that is larger is synced at once: its clients have waited long enough, and a sync costs little beside it."""


class Durable:
    """The log and the snapshots of one server.

    Attributes:
        failure: what the disk refused, or what else ends the server, which must answer nobody any more; None: nothing.
    """

    def __init__(
        self,
        folder: Path | None,
        journal: Journal,
        *,
        log_bytes_max: int,
        files: Files | None = None,
        boot: int | None = None,
    ) -> None:
        """Do nothing yet: ``open`` looks for what there is.

        Args:
            folder: where log and snapshots go; None: this server can't keep a model at this level.
            journal: the sessions.
            log_bytes_max: what the log may grow by between two rounds of snapshots, at least; see ``ServerSettings``.
            files: the disk.
            boot: of the machine; see ``boot_number``.
        """
        self.failure: LogFailed | None = None
        self._folder = folder
        self._journal = journal
        self._log_bytes_max = log_bytes_max
        self._file_bytes = max(2 * RESERVE_BYTES, log_bytes_max // 4)
        self._files = files or Files()
        self._boot = boot_number() if boot is None else boot
        self._log: Log | None = None
        self._snapshots = Snapshots(self._files, folder or Path(), journal)
        self._shards = self._snapshots.shards
        self._num_pushes = 0  # in the group
        self._must_sync = False
        self._has_room = True  # for small records; said once when it ends
        self._since_round = 0  # bytes appended since the last round of snapshots began
        self._since_work = 0  # bytes appended since the last slice
        self._round: Steps | None = None
        self._to_remove: list[int] = []  # models whose end is not synced yet

    # --- coming back --------------------------------------------------------------------------------------------

    def open(self, keeper: DiskKeeper, now: float) -> Recovered:
        """Take up what the last process left: after it was killed at once, after a power cut by a replay.

        Args:
            keeper: has the models that survived, gets the others.
            now: when each restored session counts as heard.

        Raises:
            LogDamaged: something that was synced is missing.
            ConfigError: the folder can't be used.
            NotEnoughMemory: the models don't fit any more.
        """
        folder, files = self._folder, self._files
        if folder is None:
            self._journal.mark_whole()
            return Recovered()
        try:
            if is_being_emptied(files, folder):
                empty_folder(files, folder)
            self._log = Log.open(files, folder, file_bytes=self._file_bytes, boot=self._boot)
            found = Recovered() if self._log is None else self._take_up(self._log, folder, keeper, now)
            self._adopt(keeper.kept())
            if self._log is not None and not self._shards:
                self._log.close()
                self._log = None
                empty_folder(files, folder)
            if self._log is not None:
                self._journal.observer = self
                self._append(StartedRecord(self._snapshots.identity()))
                for shard in self._shards.values():
                    shard.live = 0
                self.sync()
                self._log.serve(self._journal.incarnation)
                self._since_round = self._log.num_bytes
            self._journal.mark_whole()
        except (LogFailed, OSError) as error:
            self.close(clean=False)
            raise ConfigError(f"can't keep models at level 'disk' in {folder}: {error}") from error
        except BaseException:
            self.close(clean=False)
            raise
        return found

    def _take_up(self, log: Log, folder: Path, keeper: DiskKeeper, now: float) -> Recovered:
        remove_unfinished(self._files, folder)
        # A process that died after a power cut, before it had everything back, left a journal of this boot, and
        # segments, that are not whole. After a kill the journal is right, and where a model keeps no log only the
        # journal is, however many starts have failed since; but such a start may have dropped a model half restored.
        has_journal = self._journal.was_whole
        has_models = log.served == self._journal.incarnation - 1
        kept = keeper.kept()
        if not has_journal:
            for model_id in kept:
                keeper.destroy(model_id)
            kept = {}
        else:
            self._reconcile(log, keeper, kept)
        snapshots = snapshots_in(self._files, folder)
        known = {int(file.key) for file in snapshots if file.key != RECEIPTS}
        if not kept:  # all were ended, or their files are gone: the log tells
            known |= models_in(log)
        if has_journal and has_models and log.is_same_boot and known <= set(kept) and not keeper.has_damaged:
            found = Recovered(dict.fromkeys(kept, log.files[0].first), log.files[0].first)
            for file in reversed(snapshots):
                if file.key == RECEIPTS:
                    found.receipts_position = file.position
                else:
                    found.positions[int(file.key)] = file.position
        else:
            found = self._replay(log, folder, keeper, set(kept), has_journal=has_journal, now=now)
            kept = keeper.kept()
        self._shards.update({model_id: kept[model_id] for model_id in found.positions})
        self._snapshots.positions.update(found.positions)
        self._snapshots.receipts_position = found.receipts_position
        if log.had_failed:
            # What the disk refused may be in the values that survived: only snapshots of all bring it there.
            _exhaust(self._snapshots.all(log, self.sync))
        return found

    def _adopt(self, kept: dict[int, Shard]) -> None:
        """Take in models that survived and that the log doesn't know: somebody removed it."""
        strangers = {model_id: shard for model_id, shard in kept.items() if model_id not in self._shards}
        if not strangers:
            return
        log = self._begin() if self._log is None else self._log
        self._shards.update(strangers)
        for model_id in strangers:
            logger.warning("server: model %d has no log: a snapshot of it is taken", model_id)
            _exhaust(self._snapshots.model(model_id, log, self.sync))

    def _replay(
        self, log: Log, folder: Path, keeper: DiskKeeper, kept: set[int], *, has_journal: bool, now: float
    ) -> Recovered:
        journal = None if has_journal else self._journal
        if journal is not None:
            for session in journal.sessions():
                journal.end(session.session_id)
        recovery = Recovery(
            self._files, folder, log, keeper=keeper, kept=frozenset(kept), journal=journal, now=now
        )
        found = recovery.run()
        failpoints.hit("recover.replayed")
        for model_id in found.restored:
            keeper.restored(model_id)
        for file in snapshots_in(self._files, folder):
            if file.key != RECEIPTS and int(file.key) not in found.positions:
                self._files.unlink(folder / file.name)
        logger.info("server: restored %d models from the log", len(found.restored))
        return found

    def _reconcile(self, log: Log, keeper: DiskKeeper, kept: dict[int, Shard]) -> None:
        """Have the log's last record agree with the files that survived: only that one's deed may be lacking."""
        entry = log.last_entry()
        if entry is None:
            return
        record = decode(entry.kind, entry.body)
        if isinstance(record, DestroyedRecord):
            keeper.destroy(record.model_id)
            kept.pop(record.model_id, None)
        elif isinstance(record, ConfiguredRecord):
            if record.model_id in kept:
                keeper.configured(record.model_id, record.version, record.numbers)
        elif isinstance(record, RoundRecord):
            if record.model_id in kept:
                kept[record.model_id].end_round(record.first, record.stop, Ending(record.live))
        elif not is_done(record, self._journal, set(kept)):
            self._append(VoidRecord(entry.number))

    # --- what is about to happen --------------------------------------------------------------------------------

    @property
    def is_offered(self) -> bool:
        """Whether this server can keep a model at this level."""
        return self._folder is not None

    def keeps(self, model_id: int) -> bool:
        """Whether a model is of this level."""
        return model_id in self._shards

    def made(self, shard: Shard, extents: NDArray[Any]) -> None:
        """A model has its initial values, and is about to be used.

        Args:
            shard: the model.
            extents: (k, 4) int64, from which it was filled.

        Raises:
            NotEnoughMemory: no room for the log.
            LogFailed, ConfigError: the disk refuses.
        """
        if self._log is None:
            self._begin()
        extents_list = np.asarray(extents, np.int64).reshape(-1, 4).tolist()
        number = self._append(MadeRecord({**description_of(shard), "extents": extents_list}), small=False)
        self._shards[shard.model_id] = shard
        self._snapshots.positions[shard.model_id] = number

    def configured(self, model_id: int, version: int, numbers: str) -> None:
        """A model's updater is about to get other numbers.

        Raises:
            NotEnoughMemory: the disk is full; nothing may be changed.
            LogFailed: the disk refuses.
        """
        if model_id in self._shards:
            self._append(ConfiguredRecord(model_id, version, numbers), small=False)

    def about_round(self, record: RoundRecord | LiveRecord) -> None:
        """Rounds of a model are about to end, or to wait for others than before; raises as ``configured``."""
        if record.model_id in self._shards:
            self._append(record, small=False)

    def destroyed(self, model_id: int) -> None:
        """A model is about to end."""
        if self._shards.pop(model_id, None) is None:
            return
        self._snapshots.positions.pop(model_id, None)
        self._append_if_room(DestroyedRecord(model_id))
        self._to_remove.append(model_id)

    def push(self, message: Push | PushKeys, now: float = 0.0) -> None:
        """A push is about to be applied, to a model of any level.

        Args:
            message: the push.
            now: of one to a table, the time that it is applied at.

        Raises:
            NotEnoughMemory: the disk is full; nothing may be changed.
            LogFailed: the disk refuses, or something else has ended this server already.
        """
        if self.failure is not None:
            raise self.failure
        if self._log is None:
            return
        if message.model_id not in self._shards:
            self._append_if_room(OutcomeRecord(message.session, message.sequence, 0), lazily=True)
            return
        self._append(
            PushRecord.of_message(message)
            if isinstance(message, Push)
            else KeysRecord.of_message(message, now),
            small=False,
        )
        self._num_pushes += 1

    def refused(self, message: Push | PushLevels | Change | PushKeys, code: int) -> None:
        """A push is about to be refused."""
        record = OutcomeRecord(message.session, message.sequence, code)
        self._append_if_room(record, lazily=message.model_id not in self._shards)

    def opened(self, session_id: bytes, client_id: bytes) -> None:
        """A session is about to begin.

        Raises:
            NotEnoughMemory: the disk is full.
            LogFailed: it refuses.
        """
        if self._log is not None:
            self._append(OpenedRecord(session_id, client_id))

    def ended(self, session_id: bytes) -> None:
        """A session is about to be forgotten."""
        self._append_if_room(EndedRecord(session_id), lazily=True)

    def advanced(self, session_id: bytes, floor: int) -> None:
        """Numbers below a floor are about to be passed over."""
        self._append_if_room(AdvancedRecord(session_id, floor))

    def _append_if_room(self, record: Record, *, lazily: bool = False) -> None:
        """Write down what may be missing if the disk is full: the next push's number and floor say it again."""
        if self._log is None:
            return
        try:
            self._append(record, lazily=lazily)
            self._has_room = True
        except NotEnoughMemory as error:
            if self._has_room:
                logger.warning("server: the log has no room left at all: %s", error)
            self._has_room = False

    def _append(self, record: Record, *, lazily: bool = False, small: bool = True) -> int:
        """Write a record; a lazy one lets answers go, since nobody could notice that it is lost."""
        log = self._log
        assert log is not None, "there is a log"
        if self.failure is not None:
            raise self.failure
        before = log.appended_bytes
        try:
            number = log.append(record.KIND, record.body(), small=small)
        except LogFailed as error:
            self.failure = error
            raise
        num_bytes = log.appended_bytes - before
        self._since_round += num_bytes
        self._since_work += num_bytes
        self._must_sync |= not lazily
        return number

    def _begin(self) -> Log:
        """Begin the log: from here on the receipts are kept, too.

        Raises:
            NotEnoughMemory: no room.
            ConfigError: there is no folder, or the disk refuses.
        """
        folder, files = self._folder, self._files
        if folder is None:
            raise ConfigError(
                "level 'disk' needs a folder that outlives the server: start it with --data-dir"
            )
        try:
            files.make_folder(folder)
            for file in snapshots_in(files, folder):
                files.unlink(folder / file.name)
            self._journal.secure()
            # Before the log, which nobody can follow without it.
            self._snapshots.receipts(1)
            log = self._log = Log.create(files, folder, file_bytes=self._file_bytes, boot=self._boot)
            self._append(StartedRecord(self._snapshots.identity()))
            log.serve(self._journal.incarnation)
        except (OSError, LogFailed, NotEnoughMemory) as error:
            # The next model begins another one: this one hears of no session.
            if self._log is not None:
                self._log.close()
            self._log, self._must_sync = None, self.has_failed
            if isinstance(error, NotEnoughMemory):
                raise
            raise ConfigError(f"can't keep a log in {folder}: {error}") from error
        self._journal.observer = self
        self._since_round = self._since_work = 0
        return log

    # --- groups -------------------------------------------------------------------------------------------------

    @property
    def has_failed(self) -> bool:
        """Whether the disk refused something."""
        return self.failure is not None

    @property
    def holds_answers(self) -> bool:
        """Whether nobody may be answered before the next sync."""
        return self._must_sync or self.has_failed

    @property
    def is_full(self) -> bool:
        """Whether the group shouldn't grow any more."""
        log = self._log
        return log is not None and (self._num_pushes >= GROUP_PUSHES or log.unsynced_bytes >= GROUP_BYTES)

    def sync(self) -> None:
        """Bring the group to the disk; then its answers may go.

        Raises:
            LogFailed: the disk refused, and the server must end.
        """
        if self._log is None:
            return
        if self.failure is not None:
            raise self.failure
        try:
            self._log.sync()
        except LogFailed as error:
            self.failure = error
            raise
        self._must_sync = False
        self._num_pushes = 0
        while self._to_remove:
            self._snapshots.remove(str(self._to_remove.pop()), below=self._log.next_number + 1)

    def close(self, *, clean: bool) -> None:
        """Let go of the files.

        Args:
            clean: sync first; to be called before the models are closed, so that these are never ahead.

        Raises:
            LogFailed: the disk refused.
        """
        if self._round is not None:
            self._round.close()
            self._round = None
        log = self._log
        if log is None:
            return
        self._journal.observer = None
        try:
            if clean:
                self.sync()
        finally:
            self._log = None
            log.close()

    # --- snapshots ----------------------------------------------------------------------------------------------

    @property
    def has_work(self) -> bool:
        """Whether a round of snapshots is under way or due."""
        if self._log is None or self.has_failed:
            return False
        return self._round is not None or self._since_round > max(
            self._log_bytes_max, self._snapshots.num_bytes
        )

    def work(self) -> None:
        """Do a slice of a round; more of it, the more was pushed since the last one, so that the log can't run away.

        Raises:
            LogFailed: the disk refused what belongs to the log.
        """
        log = self._log
        if log is None or self.has_failed:
            return
        if self._round is None:
            self._since_round = 0
            self._round = self._snapshots.all(log, self.sync)
        left, self._since_work = max(SLICE_BYTES, self._since_work), 0
        try:
            while left > 0:
                left -= next(self._round)
        except StopIteration:
            self._round = None
        except LogFailed as error:
            self.failure = error
            raise
        except (OSError, NotEnoughMemory, MemoryError) as error:
            # The log stays as long as it is, and grows; the next round may do better.
            logger.warning("server: a snapshot can't be written, and the log not cut: %s", error)
            self._round = None


def _exhaust(steps: Iterator[int]) -> None:
    for _ in steps:
        pass
