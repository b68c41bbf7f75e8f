"""How a log lies in its files, byte by byte; opens none of them, and knows records as kinds and bytes.

A file is allocated to its full length, begins with 64 bytes of header and goes on with records, each at a multiple
of 8::

    0  u32  magic                         12  u8   kind, and three zeros
    4  u32  CRC-32 of all that follows    16  u64  the record's number, one more than the last one's
    8  u32  bytes of the body             24  u64  the number below which all was synced at that time
                                          32       the body

Checksums are seeded with random bytes of the log's own, and with the file's number: nothing that a client sends can
pass for a record, nor anything that lay in a file of these blocks before.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from glintpy.errors import ConfigError
from glintpy.records import record

if TYPE_CHECKING:
    from pathlib import Path

    from glintpy.storage.files import Buffer

VERSION = 1
PREFIX = "log-"
HEADER_BYTES = 64
END_KIND = 255
"""The last record of a file that has a successor."""

_FILE = struct.Struct("<8sIIQQ16s")
_FILE_MAGIC = b"glintlog"
_RECORD = struct.Struct("<IIIB3xQQ")
_RECORD_MAGIC = b"\x9dLg\xe7"
_RECORD_MAGIC_NUMBER = int.from_bytes(_RECORD_MAGIC, "little")
_AFTER_CRC = 8
_ALIGNMENT = 8
_NOTE = struct.Struct("<16sQQQQI")

END_BYTES = _RECORD.size
NOTE_BYTES = _NOTE.size


class LogFailed(Exception):
    """The disk didn't take what was written: what it holds can't be known any more, and asking again would lie."""


class LogDamaged(ConfigError):
    """A log that lacks something which was once synced."""


@record
class LogFile:
    """One file of a log.

    Attributes:
        index: its number; they follow one another.
        first: the number of its first record.
        num_bytes: of its header and records.
    """

    index: int
    first: int
    num_bytes: int

    @property
    def name(self) -> str:
        """What it is called."""
        return f"{PREFIX}{self.index:08d}"


@record
class Entry:
    """A record that was read.

    Attributes:
        number: its own.
        kind: what the body is.
        body: over the memory of its whole file.
    """

    number: int
    kind: int
    body: memoryview


@record
class Note:
    """What is noted after each sync, and not itself synced.

    Attributes:
        synced: all records below this number are on the disk.
        had_failed: whether a sync failed.
        boot: of the machine, when it was noted.
        served: the last incarnation of the server that had everything back and served; 0: none did.
    """

    synced: int = 0
    had_failed: bool = False
    boot: int = 0
    served: int = 0

    def pack(self, log_id: bytes) -> bytes:
        """Return its bytes."""
        head = _NOTE.pack(log_id, self.synced, self.had_failed, self.boot, self.served, 0)[:-4]
        return head + struct.pack("<I", zlib.crc32(head))

    @classmethod
    def unpack(cls, data: bytes | bytearray, log_id: bytes) -> Note:
        """Return the note in these bytes; one that says nothing if they are none of this log's."""
        if len(data) == _NOTE.size:
            found, synced, failed, boot, served, checksum = _NOTE.unpack(data)
            if found == log_id and checksum == zlib.crc32(data[:-4]):
                return cls(synced, bool(failed), boot, served)
        return cls()


def pack_header(index: int, first: int, log_id: bytes) -> bytes:
    """Return the header of a file."""
    tail = struct.pack("<QQ16s", index, first, log_id)
    return _FILE.pack(_FILE_MAGIC, VERSION, zlib.crc32(tail), index, first, log_id)


def unpack_header(data: bytes | bytearray, path: Path, size: int) -> tuple[LogFile, bytes]:
    """Return a file and the id of its log.

    Args:
        data: its first bytes.
        path: of the file.
        size: of the file in bytes.

    Raises:
        LogDamaged: cut short, or damaged.
        ConfigError: of another version.
    """
    if len(data) < HEADER_BYTES:
        raise LogDamaged(f"{path} has {len(data)} bytes, less than its header")
    magic, version, checksum, index, first, log_id = _FILE.unpack_from(data)
    if magic == _FILE_MAGIC and version != VERSION:
        raise ConfigError(f"{path} has layout {version}; this version of glintpy reads layout {VERSION}")
    if magic != _FILE_MAGIC or zlib.crc32(data[16 : _FILE.size]) != checksum:
        raise LogDamaged(f"{path} has a damaged header")
    if path.name != f"{PREFIX}{index:08d}":
        raise LogDamaged(f"{path} is file {index} of a log")
    return LogFile(index, first, size), log_id


def seed_of(log_id: bytes, index: int) -> int:
    """Return what the checksums in one file of a log begin with."""
    return zlib.crc32(struct.pack("<Q", index), zlib.crc32(log_id))


def record_bytes(body_bytes: int) -> int:
    """Return what a record takes in its file."""
    return _RECORD.size + body_bytes + -body_bytes % _ALIGNMENT


def pack_record(kind: int, body: Sequence[Buffer], *, number: int, synced: int, seed: int) -> bytes:
    """Return what stands before a body.

    Args:
        kind: what the body is.
        body: in pieces.
        number: of the record.
        synced: the number below which all is synced.
        seed: of the file.
    """
    length = sum(map(len, body))
    rest = _RECORD.pack(0, 0, length, kind, number, synced)[_AFTER_CRC:]
    checksum = zlib.crc32(rest, seed)
    for piece in body:
        checksum = zlib.crc32(piece, checksum)
    return struct.pack("<II", _RECORD_MAGIC_NUMBER, checksum) + rest


def read_record(data: memoryview, offset: int, seed: int) -> tuple[Entry, int, int] | None:
    """Return the record at an offset, where it ends, and what was synced when it was written.

    Args:
        data: a file.
        offset: where it may begin.
        seed: of the file.

    Returns:
        None if there is no whole record.
    """
    if offset + _RECORD.size > len(data):
        return None
    magic, checksum, length, kind, number, synced = _RECORD.unpack_from(data, offset)
    begin = offset + _RECORD.size
    if magic != _RECORD_MAGIC_NUMBER or begin + length > len(data):
        return None
    if zlib.crc32(data[offset + _AFTER_CRC : begin + length], seed) != checksum:
        return None
    return Entry(number, kind, data[begin : begin + length]), offset + record_bytes(length), synced


def records_in(data: memoryview, file: LogFile, seed: int) -> Iterator[tuple[Entry, int]]:
    """Yield a file's records, each with the offset behind it, up to its end or the first that is not whole."""
    offset, number = HEADER_BYTES, file.first
    while (found := read_record(data, offset, seed)) is not None:
        entry, stop, _ = found
        if entry.number != number:
            return
        yield entry, stop
        if entry.kind == END_KIND:
            return
        number, offset = number + 1, stop


def synced_behind(data: bytearray, end: int, seed: int) -> int:
    """Return the highest number below which all was synced by the word of any whole record behind an offset, or 0."""
    highest = 0
    offset = data.find(_RECORD_MAGIC, end)
    while offset >= 0:
        found = read_record(memoryview(data), offset, seed) if offset % _ALIGNMENT == 0 else None
        if found is not None:
            highest = max(highest, found[2])
        offset = data.find(_RECORD_MAGIC, offset + 1)
    return highest
