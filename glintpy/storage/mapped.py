"""Files that outlive the process that writes them: a header, and a body that is memory; knows no model.

A file is memory-mapped and shared, so the kernel keeps it as the last executed store left it when the
process is killed; it is allocated to its full length at once, so that a full disk is an error now and not a
SIGBUS later; and its owner holds a lock on it. One page or more of header, then the body::

    0   8 bytes  magic, by kind of file         32  u64  bytes of the body
    8   u32      version of this layout         40  u64  bytes of the description
    12  u32      1 closed in order, 2 open      48  u32  CRC-32 of the description
    16  u64      incarnation: times opened      52  u32  1 once its maker has filled it
    24  u64      where the body starts, on a page   56  u64  the boot in which it was opened
                                                64       the description, JSON

A file that is found open was not closed in order: its owner was killed, or the machine stopped. Nothing is
written through to a disk meanwhile, so its body is what it was only as long as the machine is up: that is
what the boot is for.
"""

from __future__ import annotations

import errno
import functools
import json
import mmap
import os
import struct
import sys
import uuid
import zlib
from pathlib import Path
from typing import Any, ClassVar, Self

from glintpy.errors import ConfigError, GlintError, NotEnoughMemory

if sys.platform != "win32":
    import fcntl

VERSION = 3

_HEADER = struct.Struct("<8sIIQQQQIIQ")
_STATE_OFFSET = 12
_FILLED_OFFSET = 52
_BOOT_OFFSET = 56
_DESCRIPTION_OFFSET = 64
_PAGE_BYTES = 4096
_CLOSED, _OPEN = 1, 2
_UNFINISHED = ".new"
NO_ROOM = frozenset({errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.ENOMEM})
"""What a system says that has no room for a file or a mapping."""


class FileInUse(ConfigError):
    """Another process has the file; it may let go of it."""


@functools.cache
def boot_number() -> int:
    """Return a number that this machine's uptime has and no other; 0 where the system doesn't tell."""
    try:
        if sys.platform == "linux":
            text = Path("/proc/sys/kernel/random/boot_id").read_text()
        elif sys.platform == "darwin":
            import subprocess  # noqa: PLC0415 - other systems say it without a process

            command = ["/usr/sbin/sysctl", "-n", "kern.bootsessionuuid"]
            done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603 - nothing of it is foreign
            text = done.stdout
        else:
            return 0
        return uuid.UUID(text.strip()).int % 2**64
    except (OSError, ValueError):
        return 0


class MappedFile:
    """A locked file of a header and a body that is memory.

    Attributes:
        path: where it lies.
        description: the document it was made with.
        incarnation: how often it was opened, making it included; raised by ``mark_open``.
        was_clean: whether it was closed in order before it was opened here.
        has_survived: whether its body is what its last owner's last store left: it was closed in order, or only the
            process that had it is gone, not the machine.
        is_filled: whether its maker has said that the body is what it should begin with.
        body: the bytes behind the header; not to be used after ``close``.
    """

    MAGIC: ClassVar[bytes]
    """8 bytes that tell this kind of file from others."""
    DAMAGED: ClassVar[type[GlintError]] = ConfigError
    """What a file is that is missing, cut short or something else."""

    def __init__(self, path: Path, descriptor: int, memory: mmap.mmap, description: dict[str, Any]) -> None:
        self.path = path
        self.description = description
        _, _, state, self.incarnation, offset, num_bytes, _, _, filled, boot = _HEADER.unpack_from(memory)
        self.was_clean = state == _CLOSED
        self.has_survived = self.was_clean or (boot != 0 and boot == boot_number())
        self.is_filled = filled == 1
        self.body = memoryview(memory)[offset : offset + num_bytes]
        self._memory: mmap.mmap | None = memory
        self._descriptor = descriptor

    @classmethod
    def create(
        cls, path: Path, description: dict[str, Any], num_bytes: int, *, replaces: bool = False
    ) -> Self:
        """Make a file with a body of zeros, open and locked.

        It is made under another name and renamed when its header stands, so that a process killed in here
        leaves nothing under ``path``.

        Args:
            path: must not exist.
            description: anything that JSON can hold.
            num_bytes: of the body.
            replaces: it may exist, and be the caller's own: then it is replaced when all is well, and else left alone.

        Raises:
            NotEnoughMemory: no room on the file system; nothing is left behind.
            ConfigError: the path is taken, in use or can't be written.
        """
        text = json.dumps(description).encode()
        offset = -(-(_DESCRIPTION_OFFSET + len(text)) // _PAGE_BYTES) * _PAGE_BYTES
        unfinished = path.with_name(path.name + _UNFINISHED)
        descriptor = _open_locked(unfinished, os.O_RDWR | os.O_CREAT)
        try:
            if not replaces:
                _check_free(path)
            memory = _allocate(descriptor, offset + num_bytes, unfinished)
            memory[_DESCRIPTION_OFFSET : _DESCRIPTION_OFFSET + len(text)] = text
            fixed = (cls.MAGIC, VERSION, _OPEN, 1, offset, num_bytes, len(text), zlib.crc32(text))
            _HEADER.pack_into(memory, 0, *fixed, 0, boot_number())
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
        struct.pack_into("<Q", memory, _BOOT_OFFSET, boot_number())
        struct.pack_into("<IQ", memory, _STATE_OFFSET, _OPEN, self.incarnation)
        _flush(memory, self.path, num_bytes=_PAGE_BYTES)

    def secure(self) -> None:
        """Bring what the file is, and its name, to the disk; what its body holds is not to be relied upon there.

        Raises:
            ConfigError: the file system fails.
        """
        try:
            os.fsync(self._descriptor)
            folder = os.open(self.path.parent, os.O_RDONLY)
            try:
                os.fsync(folder)
            finally:
                os.close(folder)
        except OSError as error:
            raise ConfigError(f"can't write {self.path} through to its disk: {error.strerror}") from error

    def mark_filled(self, *, is_filled: bool = True) -> None:
        """Write down whether the body is what it should begin with; a process killed before leaves it unfilled."""
        struct.pack_into("<I", self._mapped(), _FILLED_OFFSET, is_filled)
        self.is_filled = is_filled

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
            raise FileInUse(
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
        if isinstance(error, OSError) and error.errno not in NO_ROOM:
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
    found, version, state, _, offset, body, length, checksum, _, _ = _HEADER.unpack_from(memory)
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
