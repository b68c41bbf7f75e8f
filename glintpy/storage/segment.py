"""Files that outlive the process that writes them, and in them the values of one model on one server.

Knows no model, thread or clock: a description is any document, values are any array.

A file is memory-mapped and shared, so the kernel keeps it as the last executed store left it when the
process is killed; it is allocated to its full length at once, so that a full disk is an error now and not a
SIGBUS later; and its owner holds a lock on it. One page or more of header, then the body::

    0   8 bytes  magic, by kind of file         32  u64  bytes of the body
    8   u32      version of this layout         40  u64  bytes of the description
    12  u32      1 closed in order, 2 open      48  u32  CRC-32 of the description
    16  u64      incarnation: times opened      64       the description, JSON
    24  u64      where the body starts, on a page

A file that is found open was not closed in order: its owner was killed, and what its body holds may be half
of a change. Whoever opens it decides what that means.
"""

from __future__ import annotations

import errno
import json
import math
import mmap
import os
import struct
import sys
import zlib
from typing import TYPE_CHECKING, Any, ClassVar, Protocol, Self

import numpy as np

from glintpy.errors import ConfigError, GlintError, ModelLost, NotEnoughMemory, ShapeError

if sys.platform != "win32":
    import fcntl

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from glintpy.protocol.dtypes import DTypeAny

VERSION = 1

_HEADER = struct.Struct("<8sIIQQQQI")
_STATE_OFFSET = 12
_DESCRIPTION_OFFSET = 64
_PAGE_BYTES = 4096
_CLOSED, _OPEN = 1, 2
_UNFINISHED = ".new"
_NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM})


class Store(Protocol):
    """Where a shard's array lies."""

    def values(self, dtype: DTypeAny, shape: Sequence[int]) -> NDArray[Any]:
        """Return the store as an array; every call returns the same memory."""

    def close(self, *, clean: bool) -> None:
        """Let go of the store; a clean one is whole when it is opened again."""

    def delete(self) -> None:
        """End the store and what it holds."""


class MappedFile:
    """A locked file of a header and a body that is memory.

    Attributes:
        path: where it lies.
        description: the document it was made with.
        incarnation: how often it was opened, making it included; raised by ``mark_open``.
        was_clean: whether it was closed in order before it was opened here.
        body: the bytes behind the header; not to be used after ``close``.
    """

    MAGIC: ClassVar[bytes]
    """8 bytes that tell this kind of file from others."""
    DAMAGED: ClassVar[type[GlintError]] = ConfigError
    """What a file is that is missing, cut short or something else."""

    def __init__(self, path: Path, descriptor: int, memory: mmap.mmap, description: dict[str, Any]) -> None:
        self.path = path
        self.description = description
        _, _, state, self.incarnation, offset, num_bytes, _, _ = _HEADER.unpack_from(memory)
        self.was_clean = state == _CLOSED
        self.body = memoryview(memory)[offset : offset + num_bytes]
        self._memory: mmap.mmap | None = memory
        self._descriptor = descriptor

    @classmethod
    def create(cls, path: Path, description: dict[str, Any], num_bytes: int) -> Self:
        """Make a file with a body of zeros, open and locked.

        It is made under another name and renamed when its header stands, so that a process killed in here
        leaves nothing under ``path``.

        Args:
            path: must not exist.
            description: anything that JSON can hold.
            num_bytes: of the body.

        Raises:
            NotEnoughMemory: no room on the file system; nothing is left behind.
            ConfigError: the path is taken, in use or can't be written.
        """
        text = json.dumps(description).encode()
        offset = -(-(_DESCRIPTION_OFFSET + len(text)) // _PAGE_BYTES) * _PAGE_BYTES
        unfinished = path.with_name(path.name + _UNFINISHED)
        descriptor = _open_locked(unfinished, os.O_RDWR | os.O_CREAT)
        try:
            _check_free(path)
            memory = _allocate(descriptor, offset + num_bytes, unfinished)
            memory[_DESCRIPTION_OFFSET : _DESCRIPTION_OFFSET + len(text)] = text
            _HEADER.pack_into(
                memory, 0, cls.MAGIC, VERSION, _OPEN, 1, offset, num_bytes, len(text), zlib.crc32(text)
            )
            unfinished.rename(path)
        except BaseException:
            unfinished.unlink(missing_ok=True)
            _unlock(descriptor)
            raise
        return cls(path, descriptor, memory, description)

    @classmethod
    def open(cls, path: Path) -> Self:
        """Open and lock a file that exists; ``mark_open`` must follow before the first write.

        Raises:
            ConfigError: in use by another process, or of another version.
            ModelLost, ConfigError: missing, cut short or something else; by kind of file, see ``DAMAGED``.
        """
        try:
            descriptor = _open_locked(path, os.O_RDWR)
        except ConfigError as error:
            if isinstance(error.__cause__, FileNotFoundError):
                raise cls.DAMAGED(f"{path} is missing") from error
            raise
        try:
            memory, description = _read_header(path, descriptor, magic=cls.MAGIC, damaged=cls.DAMAGED)
        except BaseException:
            _unlock(descriptor)
            raise
        return cls(path, descriptor, memory, description)

    def mark_open(self) -> None:
        """Write down that the body is about to change, in one page and through to the disk.

        Raises:
            ConfigError: the file system fails.
        """
        self.incarnation += 1
        memory = self._mapped()
        struct.pack_into("<IQ", memory, _STATE_OFFSET, _OPEN, self.incarnation)
        _flush(memory, self.path, num_bytes=_PAGE_BYTES)

    def close(self, *, clean: bool) -> None:
        """Unlock the file and let go of it; again does nothing.

        Arrays over the body keep their memory alive until the last one is gone.

        Args:
            clean: whether the body is whole. It is written through first, and only then marked.

        Raises:
            ConfigError: the file system fails; the file is unlocked and stays marked as open.
        """
        memory, self._memory = self._memory, None
        if memory is None:
            return
        try:
            if clean:
                _flush(memory, self.path, num_bytes=len(memory))
                struct.pack_into("<I", memory, _STATE_OFFSET, _CLOSED)
                _flush(memory, self.path, num_bytes=_PAGE_BYTES)
        finally:
            _unlock(self._descriptor)
            self.body = memoryview(b"")

    def delete(self) -> None:
        """Remove the file; its memory goes with the last array over it.

        Raises:
            ConfigError: the directory can't be written to any more; the file is let go of all the same.
        """
        try:
            _unlink(self.path)
        finally:
            self.close(clean=False)

    def _mapped(self) -> mmap.mmap:
        if self._memory is None:
            raise ConfigError(f"{self.path} was closed")
        return self._memory


class Segment(MappedFile):
    """The values of one model on one server, in one file.

    If it ``was_clean`` not, its values can't be trusted and the model counts as lost.
    """

    MAGIC = b"glintseg"
    DAMAGED = ModelLost

    def values(self, dtype: DTypeAny, shape: Sequence[int]) -> NDArray[Any]:
        """Return the body as an array over the file.

        Raises:
            ShapeError: not the size that the segment was made for.
        """
        return _as_array(self.body, dtype, shape)


class MemorySegment:
    """The same without a file: gone with its process."""

    def __init__(self, num_bytes: int) -> None:
        """Reserve memory.

        Raises:
            NotEnoughMemory: the system refuses.
        """
        try:
            self._bytes = np.zeros(num_bytes, dtype=np.uint8)
        except MemoryError as error:
            raise NotEnoughMemory(f"the system has no {num_bytes} bytes for a model") from error

    def values(self, dtype: DTypeAny, shape: Sequence[int]) -> NDArray[Any]:
        """Return the memory as an array.

        Raises:
            ShapeError: not the size that the segment was made for.
        """
        return _as_array(self._bytes.data, dtype, shape)

    def close(self, *, clean: bool) -> None:  # noqa: ARG002 -- there is nothing to come back to
        """Let go of the memory."""
        self.delete()

    def delete(self) -> None:
        """Let go of the memory; it goes with the last array over it."""
        self._bytes = np.zeros(0, dtype=np.uint8)


def remove_unfinished(directory: Path) -> list[Path]:
    """Remove what processes killed while making a file left behind, and return it.

    Only for who holds the lock on the directory's journal: it asks no file whether it is in use.

    Raises:
        ConfigError: the directory can't be written to.
    """
    found = sorted(directory.glob(f"*{_UNFINISHED}"))
    for path in found:
        _unlink(path)
    return found


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"can't remove {path}: {error.strerror}") from error


def _open_locked(path: Path, flags: int) -> int:
    try:
        descriptor = os.open(path, flags, 0o600)
    except OSError as error:
        raise ConfigError(f"can't open {path}: {error.strerror}") from error
    if sys.platform == "win32":
        return descriptor  # it can't be opened twice there while it is mapped
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:
        os.close(descriptor)
        if isinstance(error, BlockingIOError):
            raise ConfigError(
                f"{path} is in use by another process; stop it, or use another directory"
            ) from error
        raise ConfigError(f"can't lock {path}: {error.strerror}") from error
    return descriptor


def _check_free(path: Path) -> None:
    if path.exists():
        raise ConfigError(f"{path} exists already")


def _unlock(descriptor: int) -> None:
    # A map holds its file open through a descriptor of its own, so closing ours alone would not unlock.
    if sys.platform != "win32":
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    os.close(descriptor)


def _allocate(descriptor: int, num_bytes: int, path: Path) -> mmap.mmap:
    """Give a file its length and its blocks, all zero, and map it."""
    try:
        os.ftruncate(descriptor, 0)
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, num_bytes)
        else:
            os.ftruncate(descriptor, num_bytes)  # macOS and Windows: a full disk is noticed late
        return mmap.mmap(descriptor, num_bytes)
    except (OSError, OverflowError) as error:
        if isinstance(error, OSError) and error.errno not in _NO_ROOM:
            raise ConfigError(f"can't allocate {num_bytes} bytes in {path}: {error.strerror}") from error
        free = os.statvfs(path.parent)
        raise NotEnoughMemory(
            f"{num_bytes} bytes don't fit in {path.parent}, where {free.f_bavail * free.f_frsize} are free"
        ) from error


def _read_header(
    path: Path, descriptor: int, *, magic: bytes, damaged: type[GlintError]
) -> tuple[mmap.mmap, dict[str, Any]]:
    size = os.fstat(descriptor).st_size
    if size < _PAGE_BYTES:
        raise damaged(f"{path} has {size} bytes, less than its header")
    try:
        memory = mmap.mmap(descriptor, size)
    except OSError as error:
        raise ConfigError(f"can't map the {size} bytes of {path}: {error.strerror}") from error
    found, version, state, _, offset, body, length, checksum = _HEADER.unpack_from(memory)
    if found != magic:
        raise damaged(f"{path} starts with {found!r} instead of {magic!r}: it is something else")
    if version != VERSION:
        raise ConfigError(f"{path} has layout {version}; this version of glintpy reads layout {VERSION}")
    if size != offset + body or _DESCRIPTION_OFFSET + length > offset:
        raise damaged(f"{path} has {size} bytes; its header says {offset} + {body}, with a text of {length}")
    text = memory[_DESCRIPTION_OFFSET : _DESCRIPTION_OFFSET + length]
    if zlib.crc32(text) != checksum or state not in {_CLOSED, _OPEN}:
        raise damaged(f"{path} has a damaged header")
    return memory, json.loads(text)


def _flush(memory: mmap.mmap, path: Path, *, num_bytes: int) -> None:
    try:
        memory.flush(0, num_bytes)
    except OSError as error:
        raise ConfigError(f"can't write {path} through to its disk: {error.strerror}") from error


def _as_array(body: memoryview, dtype: DTypeAny, shape: Sequence[int]) -> NDArray[Any]:
    needed: int = math.prod(shape) * dtype.itemsize
    if needed != body.nbytes:
        raise ShapeError(
            f"{tuple(shape)} of {dtype.name} takes {needed} bytes; the segment has {body.nbytes}"
        )
    if needed == 0:
        return np.zeros(tuple(shape), dtype)  # numpy makes no array over an empty buffer
    return np.frombuffer(body, dtype=dtype).reshape(tuple(shape))
