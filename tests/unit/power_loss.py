"""A disk in memory that keeps, when the power is cut, only what was synced, and of the rest what chance leaves.

What is written and not synced may be there whole, in part, or torn in the middle of a write; names that were made,
moved or removed in a folder that was not synced since may or may not be so. That is what file systems allow
themselves, and more than most of them do.
"""

from __future__ import annotations

import errno
import os
import random
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

from glintpy.storage.files import Buffer, Files

SECTOR_BYTES = 512


class PowerCut(BaseException):
    """The machine stops here; no handler of the program's own may run on."""


class _Inode:
    """A file: what is on the disk, what programs see, and the changes between the two."""

    def __init__(self) -> None:
        self.kept = bytearray()
        self.live = bytearray()
        self.changes: list[tuple[int, bytes]] = []  # offset, bytes

    def write(self, offset: int, data: bytes) -> None:
        self.changes.append((offset, data))
        _put(self.live, offset, data)

    def sync(self) -> None:
        self.kept = bytearray(self.live)
        self.changes.clear()

    def cut(self, source: random.Random) -> None:
        mood = source.choice(["none", "all", "prefix", "any", "sectors"])
        last = source.randrange(len(self.changes) + 1)
        for index, (offset, data) in enumerate(self.changes):
            if mood == "none" or (mood == "prefix" and index > last):
                continue
            if mood == "any" and source.random() < 0.5:
                continue
            if mood == "prefix" and index == last:
                _put(self.kept, offset, data[: source.randrange(len(data) + 1)])
            elif mood == "sectors":
                for first in range(0, len(data), SECTOR_BYTES):
                    if source.random() < 0.5:
                        _put(self.kept, offset + first, data[first : first + SECTOR_BYTES])
            else:
                _put(self.kept, offset, data)
        self.live = bytearray(self.kept)
        self.changes.clear()


class LossyFiles(Files):
    """The disk.

    Attributes:
        before: called with the name of each call that changes something, before it does; may raise.
        num_free: bytes that are left.
        is_off: nobody reaches it: what a process that is dead would still do, it doesn't.
    """

    def __init__(self, num_free: int = 2**40) -> None:
        self.before: Callable[[str, Path], None] = nothing
        self.num_free = num_free
        self.is_off = False
        self._kept: dict[Path, _Inode] = {}
        self._live: dict[Path, _Inode] = {}
        self._renames: dict[Path, list[Callable[[dict[Path, _Inode]], None]]] = {}  # by folder
        self._open: dict[int, tuple[_Inode, Path]] = {}
        self._next = 1000

    # --- what happens to the machine ----------------------------------------------------------------------------

    def kill(self) -> None:
        """End the process: its descriptors are gone, and nothing else."""
        self._open.clear()
        self.is_off = False

    def cut_power(self, source: random.Random) -> None:
        """End the machine."""
        self.kill()
        for changes in self._renames.values():
            last = source.randrange(len(changes) + 1)
            in_order = source.random() < 0.7
            for index, change in enumerate(changes):
                if index < last if in_order else source.random() < 0.5:
                    change(self._kept)
        self._renames.clear()
        for inode in self._kept.values():
            inode.cut(source)
        self._live = dict(self._kept)

    def content(self, path: Path) -> bytearray:
        """Return a file as it is; to be changed at will."""
        return self._live[path].live

    def damage(self, path: Path, offset: int) -> None:
        """Flip the bits of one byte, for programs and on the disk."""
        for data in (self._live[path].live, self._live[path].kept):
            data[offset] ^= 0xFF

    # --- what programs call ---------------------------------------------------------------------------------------

    def make_folder(self, folder: Path) -> None:
        del folder

    def names(self, folder: Path) -> list[str]:
        return sorted(path.name for path in self._live if path.parent == folder)

    def free_bytes(self, folder: Path) -> int:
        del folder
        return self.num_free

    def open(self, path: Path, *, new: bool = False) -> int:
        if new:
            self.before("open", path)
            if path in self._live:
                inode = self._live[path]
                inode.live.clear()
                inode.kept.clear()
                inode.changes.clear()
            else:
                inode = _Inode()
                self._change(path.parent, lambda names: names.__setitem__(path, inode))
        elif path not in self._live:
            raise FileNotFoundError(errno.ENOENT, "No such file", str(path))
        self._next += 1
        self._open[self._next] = (self._live[path], path)
        return self._next

    def allocate(self, descriptor: int, num_bytes: int) -> None:
        inode, path = self._open[descriptor]
        self.before("allocate", path)
        if num_bytes > self.num_free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.num_free -= num_bytes
        inode.write(0, bytes(num_bytes))

    def size(self, descriptor: int) -> int:
        return len(self._open[descriptor][0].live)

    def read(self, descriptor: int, num_bytes: int, offset: int) -> bytearray:
        return self._open[descriptor][0].live[offset : offset + num_bytes]

    def write(self, descriptor: int, buffers: Sequence[Buffer], offset: int) -> None:
        if self.is_off:
            return
        inode, path = self._open[descriptor]
        self.before("write", path)
        inode.write(offset, b"".join(bytes(buffer) for buffer in buffers))

    def sync(self, descriptor: int) -> None:
        if self.is_off:
            return
        inode, path = self._open[descriptor]
        self.before("sync", path)
        inode.sync()

    def close(self, descriptor: int) -> None:
        if not self.is_off:
            del self._open[descriptor]

    def rename(self, path: Path, target: Path) -> None:
        self.before("rename", path)
        inode = self._live[path]

        def change(names: dict[Path, _Inode]) -> None:
            names.pop(path, None)
            names[target] = inode

        self._change(path.parent, change)

    def unlink(self, path: Path) -> None:
        if self.is_off:
            return
        self.before("unlink", path)
        inode = self._live.get(path)

        def change(names: dict[Path, _Inode]) -> None:
            # Of a name that another file has meanwhile only the old bearer goes.
            if names.get(path) is inode:
                names.pop(path, None)

        if inode is not None:
            self.num_free += len(inode.live)
            self._change(path.parent, change)

    def sync_folder(self, folder: Path) -> None:
        self.before("sync_folder", folder)
        for change in self._renames.pop(folder, []):
            change(self._kept)

    @property
    def num_open(self) -> int:
        """How many descriptors are open."""
        return len(self._open)

    def _change(self, folder: Path, change: Callable[[dict[Path, _Inode]], None]) -> None:
        change(self._live)
        self._renames.setdefault(folder, []).append(change)


@contextmanager
def power_cut_at(disk: LossyFiles, call: int) -> Iterator[None]:
    """Stop the machine before the call of this number that changes something, counted from here on, if it comes."""
    left = call

    def count(what: str, path: Path) -> None:
        nonlocal left
        del what, path
        left -= 1
        if left < 0:
            disk.is_off = True
            raise PowerCut

    disk.before = count
    try:
        with suppress(PowerCut):
            yield
    finally:
        disk.before = nothing


@contextmanager
def failing(disk: LossyFiles, what: str) -> Iterator[None]:
    """Have all calls of one kind fail as a broken disk's do."""

    def fail(found: str, path: Path) -> None:
        if found == what:
            raise OSError(errno.EIO, os.strerror(errno.EIO), str(path))

    disk.before = fail
    try:
        yield
    finally:
        disk.before = nothing


def nothing(what: str, path: Path) -> None:
    """Let a call happen."""
    del what, path


def _put(content: bytearray, offset: int, data: bytes) -> None:
    if len(content) < offset + len(data):
        content.extend(bytes(offset + len(data) - len(content)))
    content[offset : offset + len(data)] = data
