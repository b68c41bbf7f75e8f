"""What a server did, in order, in files that are synced in groups; knows records as kinds and bytes, no model.

``append`` writes a record to the file at once, and ``sync`` brings it to the disk. So a process that is killed leaves
in its log, in the system's memory, everything that it had begun to do, and the next one needs only to sync that before
it lets anybody see it. ``append`` comes before the deed: then the deed can lack the last record, but never the reverse.

**A torn tail or damage?** Both look like a record that is not whole. It was synced once, and so is damage, if a later
record says so, since each carries the number below which all was synced; or if the note ``log-synced`` does, which is
rewritten after each sync and never synced itself. Else nobody was ever told about it, and it is cut off.
"""

from __future__ import annotations

import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Self

from glintpy import failpoints
from glintpy.errors import ConfigError, GlintError, NotEnoughMemory
from glintpy.storage.files import Buffer, Files
from glintpy.storage.log_format import (
    END_BYTES,
    END_KIND,
    HEADER_BYTES,
    NOTE_BYTES,
    PREFIX,
    Entry,
    LogDamaged,
    LogFailed,
    LogFile,
    Note,
    pack_header,
    pack_record,
    read_record,
    record_bytes,
    records_in,
    seed_of,
    synced_behind,
    unpack_header,
)

logger = logging.getLogger("glintpy.storage")

NOTE = f"{PREFIX}synced"
UNFINISHED = ".new"

RESERVE_BYTES = 256 * 1024
"""Room at the end of each file that large records leave to small ones, so that refusals and the ends of sessions can
be written down when the disk is full."""


class Log:
    """The log of one server; one thread.

    Attributes:
        folder: where its files lie.
        next_number: of the record that is appended next; numbers begin at 1.
        synced: all records below this number are on the disk.
        is_same_boot: whether the process before this one had it in the same boot of this machine.
        appended_bytes: of all records since this process has it.
        served: the last incarnation of the server that had everything back; 0: none, or it isn't known.
        had_failed: whether a sync failed, of this process or one before, since ``forget_failure``.
    """

    def __init__(self, files: Files, folder: Path, *, log_id: bytes, file_bytes: int, boot: int) -> None:
        """Bind a folder; use ``create`` or ``open``."""
        self.folder = folder
        self.is_same_boot = True
        self.next_number = 1
        self.synced = 1
        self.appended_bytes = 0
        self.served = 0
        self.had_failed = False
        self._files = files
        self._log_id = log_id
        self._file_bytes = file_bytes
        self._boot = boot
        self._list: list[LogFile] = []
        self._descriptor = -1
        self._note = -1
        self._size = 0  # of the last file, allocated
        self._unsynced_bytes = 0

    # --- beginning --------------------------------------------------------------------------------------------

    @classmethod
    def create(cls, files: Files, folder: Path, *, file_bytes: int, boot: int) -> Self:
        """Begin a log in a folder; what an earlier one left there is removed.

        Args:
            files: the disk.
            folder: is made, with those above.
            file_bytes: of each file, unless one record needs more.
            boot: a number that this boot of the machine has and no other; 0: it isn't known.

        Raises:
            NotEnoughMemory: no room.
            ConfigError: the folder can't be used.
        """
        log = cls(files, folder, log_id=os.urandom(16), file_bytes=file_bytes, boot=boot)
        try:
            files.make_folder(folder)
            for name in files.names(folder):
                if name.startswith(PREFIX):
                    files.unlink(folder / name)
            files.sync_folder(folder)
            # The names of new folders must last, too. Where one may not be read, it was not made just now.
            files.sync_folder(folder.parent)
            with suppress(PermissionError):
                files.sync_folder(folder.parent.parent)
            log._note = files.open(folder / NOTE, new=True)
            log._begin_file(0)
        except OSError as error:
            raise ConfigError(f"can't keep a log in {folder}: {error.strerror}") from error
        return log

    @classmethod
    def open(cls, files: Files, folder: Path, *, file_bytes: int, boot: int) -> Self | None:
        """Take up a log where it ends: what lies behind its last whole record is cut off, and all else is synced.

        Args:
            files: the disk.
            folder: where it lies.
            file_bytes: of each new file.
            boot: a number that this boot of the machine has and no other; 0: it isn't known.

        Returns:
            The log, or None where there is none.

        Raises:
            LogDamaged: something that was synced is missing.
            ConfigError: of another version, or the folder can't be read or written.
        """
        names = [name for name in files.names(folder) if name.startswith(PREFIX)]
        try:
            for name in [name for name in names if name.endswith(UNFINISHED)]:
                files.unlink(folder / name)
            found = sorted(name for name in names if name.removeprefix(PREFIX).isdecimal())
            if not found:
                return None
            log = cls(files, folder, log_id=b"", file_bytes=file_bytes, boot=boot)
            try:
                log._take_up(found)
            except BaseException:
                log.close()
                raise
        except LogFailed as error:
            raise ConfigError(str(error)) from error
        except OSError as error:
            raise ConfigError(f"can't use the log in {folder}: {error.strerror or error}") from error
        return log

    def _take_up(self, names: list[str]) -> None:
        for name in names:
            self._list.append(self._read_header(name))
        indices = [file.index for file in self._list]
        if indices != list(range(indices[0], indices[0] + len(indices))):
            raise LogDamaged(f"{self.folder} has the log files {names}: one is missing")
        last = self._list[-1]
        self._descriptor = self._files.open(self.folder / last.name)
        self._size = self._files.size(self._descriptor)
        noted = self._read_note()
        data = self._files.read(self._descriptor, self._size, 0)
        kept_from = end = HEADER_BYTES
        number = last.first
        ended = False
        for entry, stop in records_in(memoryview(data), last, seed_of(self._log_id, last.index)):
            ended = entry.kind == END_KIND
            number, end = entry.number + 1, stop
            if entry.number < noted:
                kept_from = end
        self._check_tail(data, end, number=number, noted=noted)
        self._list[-1] = replace(last, num_bytes=end)
        self.next_number = number
        # Written once more and not merely synced: after a failed sync the system may take for written what is not.
        # Behind the end zeros, lest a record of the lost tail ever follows a new one of just the right length.
        behind = len(data[end:].rstrip(b"\0"))
        self._files.write(self._descriptor, [memoryview(data)[kept_from:end], bytes(behind)], kept_from)
        self._files.sync(self._descriptor)
        self._files.sync_folder(self.folder)
        self.synced = number
        self._write_note()
        if ended:
            self._begin_file(0)

    def _check_tail(self, data: bytearray, end: int, *, number: int, noted: int) -> None:
        """Refuse a log whose bad record was synced once."""
        last = self._list[-1]
        proof = max(noted, synced_behind(data, end, seed_of(self._log_id, last.index)))
        if proof > number:
            raise LogDamaged(
                f"record {number} in {self.folder / last.name}, at byte {end}, is damaged, and it was synced once, as "
                f"all below {proof}: the disk lost what it had taken. Nothing is cut off; see to the disk, and move "
                "the folder away to start without these models"
            )

    # --- writing ----------------------------------------------------------------------------------------------

    @property
    def needs_sync(self) -> bool:
        """Whether something was appended that is not on the disk."""
        return self.synced < self.next_number

    @property
    def unsynced_bytes(self) -> int:
        """Bytes appended since the last sync."""
        return self._unsynced_bytes

    @property
    def num_bytes(self) -> int:
        """Bytes of all records and headers."""
        return sum(file.num_bytes for file in self._list)

    @property
    def files(self) -> tuple[LogFile, ...]:
        """The files that there are."""
        return tuple(self._list)

    def make_room(self, body_bytes: int, *, small: bool = False) -> None:
        """Begin a new file unless a record fits into this one, so that a full disk is met before the deed.

        Args:
            body_bytes: of the record to come.
            small: where the disk is full it may take of ``RESERVE_BYTES``.

        Raises:
            NotEnoughMemory: the disk is full; the log goes on in the file that there is.
            LogFailed: it doesn't work any more.
        """
        needed = record_bytes(body_bytes)
        left = self._size - self._list[-1].num_bytes - END_BYTES
        if needed > left - RESERVE_BYTES:
            try:
                self._begin_file(needed)
            except NotEnoughMemory:
                if not small or needed > left:
                    raise

    def append(self, kind: int, body: Sequence[Buffer], *, small: bool = False) -> int:
        """Write a record, not yet synced, and return its number.

        Args:
            kind: what the body is, below 255.
            body: bytes, in pieces of one dimension.
            small: see ``make_room``.

        Raises:
            NotEnoughMemory: as by ``make_room``.
            LogFailed: it could not be written.
        """
        self.make_room(sum(map(len, body)), small=small)
        return self._append(kind, body)

    def _append(self, kind: int, body: Sequence[Buffer]) -> int:
        failpoints.hit("log.before_write")
        last, number = self._list[-1], self.next_number
        head = pack_record(
            kind, body, number=number, synced=self.synced, seed=seed_of(self._log_id, last.index)
        )
        needed = record_bytes(sum(map(len, body)))
        try:
            if failpoints.is_armed("log.torn_write"):
                whole = head + b"".join(body)
                self._files.write(self._descriptor, [whole[: len(whole) // 2 + 1]], last.num_bytes)
                failpoints.hit("log.torn_write")
            self._files.write(self._descriptor, [head, *body], last.num_bytes)
        except OSError as error:
            raise self._failed("written", error) from error
        self._list[-1] = replace(last, num_bytes=last.num_bytes + needed)
        self.next_number = number + 1
        self._unsynced_bytes += needed
        self.appended_bytes += needed
        return number

    def sync(self) -> None:
        """Bring all that was appended to the disk.

        Raises:
            LogFailed: the disk refused. Never ask again: the system may have dropped what it could not write.
        """
        if not self.needs_sync:
            return
        failpoints.hit("log.before_sync")
        try:
            self._files.sync(self._descriptor)
        except OSError as error:
            raise self._failed("synced", error) from error
        failpoints.hit("log.after_sync")
        self.synced = self.next_number
        self._unsynced_bytes = 0
        try:
            self._write_note()
        except OSError as error:
            raise self._failed("noted", error) from error

    def drop_below(self, number: int) -> None:
        """Remove the files all of whose records are below a number: snapshots hold what they say.

        Raises:
            LogFailed: the folder can't be written to.
        """
        try:
            while len(self._list) > 1 and self._list[1].first <= number:
                # The oldest first, and each for good before the next, so that the files always follow one another.
                self._files.unlink(self.folder / self._list[0].name)
                self._files.sync_folder(self.folder)
                del self._list[0]
        except OSError as error:
            raise self._failed("trimmed", error) from error

    def close(self) -> None:
        """Let go of the files, without a sync."""
        for descriptor in (self._descriptor, self._note):
            if descriptor >= 0:
                self._files.close(descriptor)
        self._descriptor = self._note = -1

    def serve(self, incarnation: int) -> None:
        """Note that a server has everything back, and that nothing is left of a sync that failed.

        Args:
            incarnation: the server's.

        Raises:
            LogFailed: it can't be noted.
        """
        self.had_failed = False
        self.served = incarnation
        try:
            self._write_note()
        except OSError as error:
            raise self._failed("noted", error) from error

    # --- reading ----------------------------------------------------------------------------------------------

    def records(self, first: int = 0) -> Iterator[Entry]:
        """Yield the records from a number on, in order; each file is read whole, one after the other.

        Raises:
            LogDamaged: a file that was ended is not whole, or there are no records so old.
            ConfigError: a file can't be read.
        """
        if first and first < self._list[0].first:
            raise LogDamaged(f"the log in {self.folder} begins at {self._list[0].first}, after {first}")
        for file, following in zip(self._list, [*self._list[1:], None], strict=True):
            if following is not None and following.first <= first:
                continue
            number = file.first
            for entry, _ in records_in(memoryview(self._read(file)), file, seed_of(self._log_id, file.index)):
                number = entry.number + 1
                if entry.number >= first and entry.kind != END_KIND:
                    yield entry
            if number != (self.next_number if following is None else following.first):
                raise LogDamaged(
                    f"{self.folder / file.name} is damaged at record {number}, which was synced once"
                )

    def last_entry(self) -> Entry | None:
        """Return the last record, from the last file or the one before; None: there is none."""
        found = None
        for entry in self.records(max(self._list[0].first, self.next_number - 2)):
            found = entry
        return found

    def _read(self, file: LogFile) -> bytearray:
        try:
            descriptor = self._files.open(self.folder / file.name)
            try:
                return self._files.read(descriptor, self._files.size(descriptor), 0)
            finally:
                self._files.close(descriptor)
        except OSError as error:
            raise ConfigError(f"can't read {self.folder / file.name}: {error.strerror}") from error

    # --- files ------------------------------------------------------------------------------------------------

    def _begin_file(self, needed: int) -> None:
        """Go on in a new file: it is whole before the old one ends, and has its name only after that."""
        num_bytes = max(self._file_bytes, HEADER_BYTES + needed + RESERVE_BYTES + END_BYTES)
        old, ends = (self._list[-1] if self._list else None), False
        if old is not None:
            ends = self._descriptor >= 0 and not self._is_ended
        index = 1 if old is None else old.index + 1
        first = self.next_number + ends
        path = self.folder / f"{PREFIX}{index:08d}"
        unfinished = path.with_name(path.name + UNFINISHED)
        descriptor = self._make_file(unfinished, num_bytes, index=index, first=first)
        try:
            if ends:
                self._append(END_KIND, [])
                self.sync()
            try:
                self._files.rename(unfinished, path)
                self._files.sync_folder(self.folder)
            except OSError as error:
                raise self._failed("renamed", error) from error
        except BaseException:
            self._files.close(descriptor)
            raise
        if self._descriptor >= 0:
            self._files.close(self._descriptor)
        self._descriptor, self._size = descriptor, num_bytes
        self._list.append(LogFile(index, first, HEADER_BYTES))

    @property
    def _is_ended(self) -> bool:
        """Whether the last file's last record is its end: its successor was cut off before it had a name."""
        last = self._list[-1]
        if last.num_bytes < HEADER_BYTES + END_BYTES:
            return False
        head = self._files.read(self._descriptor, END_BYTES, last.num_bytes - END_BYTES)
        found = read_record(memoryview(head), 0, seed_of(self._log_id, last.index))
        return found is not None and found[0].kind == END_KIND

    def _make_file(self, path: Path, num_bytes: int, *, index: int, first: int) -> int:
        descriptor = -1
        try:
            free = self._files.free_bytes(self.folder)
            if free < num_bytes:
                raise NotEnoughMemory(_no_room(self.folder, num_bytes, free))
            descriptor = self._files.open(path, new=True)
            self._files.allocate(descriptor, num_bytes)
            self._files.write(descriptor, [pack_header(index, first, self._log_id)], 0)
            self._files.sync(descriptor)
        except (OSError, GlintError) as error:
            if descriptor >= 0:
                self._files.close(descriptor)
                self._files.unlink(path)
            if isinstance(error, GlintError):
                raise
            raise NotEnoughMemory(f"can't begin a log file in {self.folder}: {error.strerror}") from error
        return descriptor

    def _read_header(self, name: str) -> LogFile:
        descriptor = self._files.open(self.folder / name)
        try:
            head = self._files.read(descriptor, HEADER_BYTES, 0)
            size = self._files.size(descriptor)
        finally:
            self._files.close(descriptor)
        file, log_id = unpack_header(head, self.folder / name, size)
        if self._log_id not in {b"", log_id}:
            raise LogDamaged(f"{self.folder / name} is of another log than the files before it")
        self._log_id = log_id
        return file

    # --- the note ---------------------------------------------------------------------------------------------

    def _read_note(self) -> int:
        """Take in the note, and return the number below which all was synced; 0 if nothing is noted."""
        self._note = self._files.open(self.folder / NOTE, new=NOTE not in self._files.names(self.folder))
        note = Note.unpack(self._files.read(self._note, NOTE_BYTES, 0), self._log_id)
        self.is_same_boot = note.boot != 0 and note.boot == self._boot
        self.had_failed = note.had_failed
        self.served = note.served
        return note.synced

    def _write_note(self) -> None:
        note = Note(self.synced, self.had_failed, self._boot, self.served)
        self._files.write(self._note, [note.pack(self._log_id)], 0)

    def _failed(self, what: str, error: OSError) -> LogFailed:
        self.had_failed = True
        try:
            self._write_note()
        except OSError:
            logger.warning("the failure of the log in %s could not be noted either", self.folder)
        return LogFailed(f"the log in {self.folder} could not be {what}: {error.strerror or error}")


def _no_room(folder: Path, needed: int, free: int) -> str:
    return (
        f"the next log file takes {needed} bytes in {folder}, where {free} are free: models that survive a power cut "
        "can be read and not changed until there is room"
    )
