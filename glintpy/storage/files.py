"""The few calls by which logs and snapshots reach a disk, so that a test can put another disk in their place.

Knows no format. Errors are ``OSError``, as the system gives them: only the caller knows what a failed write costs. A
mapped file isn't written through here: it is memory, and survives a power cut only by luck.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

Buffer = bytes | bytearray | memoryview

REMOVED = "removed"
"""While it lies in a folder, nothing else there counts."""

_BUFFERS_MAX = 512
"""Buffers in one call; the system takes 1024."""


class Files:
    """What the system offers; a test's disk has the same methods.

    What is written counts as kept only after ``sync``; a name that was made, moved or removed only after
    ``sync_folder``. What is written, synced or not, outlives this process: only the machine's end takes it.
    """

    def make_folder(self, folder: Path) -> None:
        """Make a folder and those above; one that is there is fine."""
        folder.mkdir(parents=True, exist_ok=True)

    def names(self, folder: Path) -> list[str]:
        """Return what lies in a folder, sorted; nothing if there is no such folder."""
        try:
            return sorted(os.listdir(folder))  # noqa: PTH208 - names are what is asked for
        except FileNotFoundError:
            return []

    def free_bytes(self, folder: Path) -> int:
        """Return what a folder's file system has left for this user."""
        free = os.statvfs(folder)
        return free.f_bavail * free.f_frsize

    def open(self, path: Path, *, new: bool = False) -> int:
        """Open a file for reading and writing.

        Args:
            path: of a file that exists.
            new: make it, empty, whatever lay there before.
        """
        return os.open(path, os.O_RDWR | os.O_CLOEXEC | (os.O_CREAT | os.O_TRUNC if new else 0), 0o600)

    def allocate(self, descriptor: int, num_bytes: int) -> None:
        """Give a new file its length and its blocks, all zero, so that a full disk is met here and not later."""
        if num_bytes and hasattr(os, "posix_fallocate"):
            os.posix_fallocate(descriptor, 0, num_bytes)
        else:
            os.ftruncate(descriptor, num_bytes)  # macOS: a full disk is noticed late

    def size(self, descriptor: int) -> int:
        """Return a file's length in bytes."""
        return os.fstat(descriptor).st_size

    def read(self, descriptor: int, num_bytes: int, offset: int) -> bytearray:
        """Return bytes of a file; fewer where it ends."""
        found = bytearray(num_bytes)
        view, length = memoryview(found), 0
        while length < num_bytes:
            step = os.preadv(descriptor, [view[length:]], offset + length)
            if not step:
                break
            length += step
        view.release()
        del found[length:]
        return found

    def write(self, descriptor: int, buffers: Sequence[Buffer], offset: int) -> None:
        """Write buffers one behind the other, all of them or, by an exception, any part.

        Args:
            descriptor: of an open file.
            buffers: bytes, each of one dimension; at most some hundreds.
            offset: where the first one goes.
        """
        left = [memoryview(buffer) for buffer in buffers if len(buffer)]
        while left:
            num_bytes = os.pwritev(descriptor, left[:_BUFFERS_MAX], offset)
            offset += num_bytes
            while left and num_bytes >= len(left[0]):
                num_bytes -= len(left.pop(0))
            if num_bytes:
                left[0] = left[0][num_bytes:]

    def sync(self, descriptor: int) -> None:
        """Return when all that was written to a file is on its disk."""
        getattr(os, "fdatasync", os.fsync)(descriptor)

    def close(self, descriptor: int) -> None:
        """Let go of a file."""
        os.close(descriptor)

    def rename(self, path: Path, target: Path) -> None:
        """Give a file another name; who has it is replaced."""
        path.replace(target)

    def unlink(self, path: Path) -> None:
        """Remove a name; one that isn't there is fine."""
        path.unlink(missing_ok=True)

    def sync_folder(self, folder: Path) -> None:
        """Return when the names in a folder are on its disk."""
        descriptor = os.open(folder, os.O_RDONLY | os.O_CLOEXEC)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def empty_folder(files: Files, folder: Path) -> None:
    """Remove all that lies in a folder, or, if cut off in here, leave it so that ``is_being_emptied`` says so.

    Raises:
        OSError: the folder can't be written to.
    """
    files.close(files.open(folder / REMOVED, new=True))
    files.sync_folder(folder)
    for name in files.names(folder):
        if name != REMOVED:
            files.unlink(folder / name)
    files.sync_folder(folder)
    files.unlink(folder / REMOVED)


def is_being_emptied(files: Files, folder: Path) -> bool:
    """Tell whether ``empty_folder`` was cut off: what is left there is half of something, and to be removed."""
    return REMOVED in files.names(folder)
