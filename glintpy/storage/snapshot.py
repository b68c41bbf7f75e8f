"""One moment of a model or of the receipts, in a file that appears under its name when it is whole.

Knows no thread, clock or model: what it holds is described by a document, and its content is blocks of bytes.

::

    0   8 bytes  magic                  then each block:  u32  its bytes, u32 CRC-32 of what follows
    8   u32      version                                  u32  its number, and four zeros
    12  u32      bytes of the document                         the block
    16  u32      CRC-32 of the document  an empty block ends the file
    20           the document, JSON

The number in a name says how far it goes: it holds what all records of the log below that number did, and nothing of
the others. A file is allocated whole before its first block, so that a full disk is met early.
"""

from __future__ import annotations

import errno
import json
import logging
import re
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple, Self

from glintpy import failpoints
from glintpy.errors import ConfigError, NotEnoughMemory
from glintpy.storage.files import Buffer, Files

logger = logging.getLogger("glintpy.storage")

VERSION = 2
RECEIPTS = "receipts"
SYNC_BYTES = 8 * 1024 * 1024
"""Written between two syncs: one sync of a large file at its end would hold its server up for as long as it takes."""

_NAME = re.compile(r"snapshot-([a-z0-9]+)-([0-9]{20})")
_UNFINISHED = ".new"
_HEAD = struct.Struct("<8sIII")
_MAGIC = b"glintsnp"
_BLOCK = struct.Struct("<IIII")
_AFTER_CRC = 8
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG})


class SnapshotDamaged(ConfigError):
    """A snapshot that is not as it was written."""


class SnapshotFile(NamedTuple):
    """A snapshot that has its name, and so was whole.

    Attributes:
        key: what it is of: ``RECEIPTS``, or a model's id as text.
        position: the number of the first record of the log that it doesn't hold.
    """

    key: str
    position: int

    @property
    def name(self) -> str:
        """What it is called."""
        return f"snapshot-{self.key}-{self.position:020d}"


def snapshots_in(files: Files, folder: Path) -> list[SnapshotFile]:
    """Return what there is, for each key the newest first."""
    forms = [form for name in files.names(folder) if (form := _NAME.fullmatch(name)) is not None]
    found = [SnapshotFile(form[1], int(form[2])) for form in forms]
    return sorted(found, key=lambda file: (file.key, -file.position))


def remove_unfinished(files: Files, folder: Path) -> None:
    """Remove what processes that were cut off left behind."""
    for name in files.names(folder):
        if _NAME.fullmatch(name.removesuffix(_UNFINISHED)) and name.endswith(_UNFINISHED):
            files.unlink(folder / name)


class SnapshotWriter:
    """Writes one snapshot, block by block. After an error it can only be abandoned."""

    def __init__(
        self,
        files: Files,
        folder: Path,
        file: SnapshotFile,
        document: dict[str, Any],
        *,
        num_bytes: int,
        num_blocks: int,
    ) -> None:
        """Make the file, under another name, and allocate it.

        Args:
            files: the disk.
            folder: where it goes.
            file: what it is of, and how far it goes.
            document: what it is, as JSON can hold it.
            num_bytes: of all blocks.
            num_blocks: that will be written.

        Raises:
            NotEnoughMemory: no room.
            OSError: the disk fails.
        """
        failpoints.hit("snapshot.before_file")
        self.file = file
        self._files = files
        self._folder = folder
        self._path = folder / (file.name + _UNFINISHED)
        self._num_blocks = 0
        self._unsynced_bytes = 0
        text = json.dumps(document, separators=(",", ":")).encode()
        head = _HEAD.pack(_MAGIC, VERSION, len(text), zlib.crc32(text)) + text
        needed = len(head) + num_bytes + (num_blocks + 1) * _BLOCK.size
        free = files.free_bytes(folder)
        if free < needed:
            raise NotEnoughMemory(f"{file.name} takes {needed} bytes in {folder}, where {free} are free")
        self._descriptor = files.open(self._path, new=True)
        self._offset = 0
        try:
            files.allocate(self._descriptor, needed)
            self._put([head])
        except OSError as error:
            self.abandon()
            if error.errno in _NO_ROOM:
                raise NotEnoughMemory(f"{file.name} takes {needed} bytes; {folder} has no room") from error
            raise

    def write(self, block: Buffer) -> None:
        """Append a block of at least one byte; not kept.

        Raises:
            OSError: the disk fails.
        """
        self._append(block)
        if self._unsynced_bytes >= SYNC_BYTES:
            self._files.sync(self._descriptor)
            self._unsynced_bytes = 0

    def finish(self) -> None:
        """Bring the file to the disk, and only then under its name, and that to the disk as well.

        Raises:
            OSError: the disk fails.
        """
        self._append(b"")
        self._files.sync(self._descriptor)
        failpoints.hit("snapshot.before_rename")
        self._files.rename(self._path, self._folder / self.file.name)
        self._files.sync_folder(self._folder)
        failpoints.hit("snapshot.after_rename")
        self._close()

    def abandon(self) -> None:
        """Give it up; after ``finish`` nothing."""
        if self._descriptor >= 0:
            self._close()
            try:
                self._files.unlink(self._path)
            except OSError as error:
                logger.warning("%s could not be removed: %s", self._path, error.strerror)

    def _append(self, block: Buffer) -> None:
        rest = _BLOCK.pack(0, 0, self._num_blocks, 0)[_AFTER_CRC:]
        self._num_blocks += 1
        checksum = zlib.crc32(block, zlib.crc32(rest))
        self._put([struct.pack("<II", len(block), checksum) + rest, block])

    def _put(self, buffers: list[Buffer]) -> None:
        self._files.write(self._descriptor, buffers, self._offset)
        length = sum(map(len, buffers))
        self._offset += length
        self._unsynced_bytes += length

    def _close(self) -> None:
        self._files.close(self._descriptor)
        self._descriptor = -1


class SnapshotReader:
    """Reads one snapshot; a context manager.

    Attributes:
        document: what it is.
    """

    def __init__(self, files: Files, folder: Path, file: SnapshotFile) -> None:
        """Open it.

        Raises:
            SnapshotDamaged: not as it was written, or of another version.
            ConfigError: it can't be read now, which says nothing about what it holds.
        """
        self._files = files
        self._path = folder / file.name
        try:
            self._descriptor = files.open(self._path)
            self._size = files.size(self._descriptor)
        except OSError as error:
            raise ConfigError(f"{self._path} can't be read: {error.strerror}") from error
        try:
            self.document = self._read_document()
        except BaseException:
            self.close()
            raise

    def blocks(self) -> Iterator[bytearray]:
        """Yield the blocks in order.

        Raises:
            SnapshotDamaged: one is missing or not as it was written. What came before is as it was.
            ConfigError: it can't be read now.
        """
        number = 0
        while True:
            head = self._read(_BLOCK.size)
            length, checksum, found, _ = _BLOCK.unpack(head)
            if found != number or length > self._size:
                raise SnapshotDamaged(f"{self._path} has a damaged block {number}")
            block = self._read(length)
            if zlib.crc32(block, zlib.crc32(head[_AFTER_CRC:])) != checksum:
                raise SnapshotDamaged(f"{self._path} has a damaged block {number}")
            if not length:
                return
            yield block
            number += 1

    def close(self) -> None:
        """Let go of the file."""
        if self._descriptor >= 0:
            self._files.close(self._descriptor)
            self._descriptor = -1

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def _read_document(self) -> dict[str, Any]:
        self._offset = 0
        magic, version, length, checksum = _HEAD.unpack(self._read(_HEAD.size))
        if magic != _MAGIC or version != VERSION:
            raise SnapshotDamaged(f"{self._path} starts with {magic!r} of version {version}")
        if length > self._size:
            raise SnapshotDamaged(f"{self._path} has a damaged header")
        text = self._read(length)
        # Zeros are the checksum of nothing: a header whose end is missing has none of its text, and looks whole.
        if not length or zlib.crc32(text) != checksum:
            raise SnapshotDamaged(f"{self._path} has a damaged header")
        document: dict[str, Any] = json.loads(bytes(text))
        return document

    def _read(self, num_bytes: int) -> bytearray:
        try:
            data = self._files.read(self._descriptor, num_bytes, self._offset)
        except OSError as error:
            raise ConfigError(f"{self._path} can't be read: {error.strerror}") from error
        if len(data) < num_bytes:
            raise SnapshotDamaged(f"{self._path} ends at byte {self._offset + len(data)}, in a block")
        self._offset += num_bytes
        return data
