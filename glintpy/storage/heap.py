"""The arrays of a table on one server, which grow in place, in files or in memory; knows no key and no updater.

Each array lies in a file of its own, allocated to its full length, so that a full disk is an error now and not a SIGBUS
later. To grow it is to allocate more and map it anew: the file's pages are where they were, so nothing is copied, and
who still has the shorter mapping sees the same memory. In memory it is the same with files that have no name.

Whether what lies in the files can be trusted, the segment beside them says (``storage.segment``).
"""

from __future__ import annotations

import math
import mmap
import os
import sys
import weakref
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from glintpy.errors import ConfigError, ModelLost, NotEnoughMemory
from glintpy.storage.mapped import NO_ROOM

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from glintpy.storage.arrays import ArraySpec

SUFFIX = ".heap"

_FIRST_ROWS = 1024
_FIRST_BYTES = 1024 * 1024

_SHARE = 8
"""A heap grows by one part in so many: what is allocated and not used is little, and mapping anew stays cheap."""


class Heap:
    """Arrays of equally many rows.

    Attributes:
        kinds: what they are.
        num_rows: that there is room for.
        has_grown: told how many rows there are, when there are more.
    """

    def __init__(self, kinds: Sequence[ArraySpec], files: Sequence[_File]) -> None:
        """Bind files; use ``make`` or ``open``."""
        self.kinds = tuple(kinds)
        self._files = list(files)
        self.has_grown: Callable[[int], None] = lambda _: None
        self.row_bytes = sum(kind.row_bytes for kind in kinds)
        # One that was killed while it grew has made some arrays longer than others.
        pairs = zip(self.kinds, self._files, strict=False)
        self.num_rows = min((file.num_bytes // kind.row_bytes for kind, file in pairs), default=0)

    @classmethod
    def make(cls, kinds: Sequence[ArraySpec], path: Path | None, num_rows: int | None = None) -> Self:
        """Make arrays of zeros.

        Args:
            kinds: of a row of at least one byte each.
            path: beside which the files lie, of another suffix; None: in memory.
            num_rows: to begin with; None: a few.

        Raises:
            NotEnoughMemory: there is no room.
            ConfigError: the place can't be written.
        """
        if path is not None:
            remove(path)
        heap = cls(kinds, [])
        try:
            for number in range(len(kinds)):
                heap._files.append(_File.make(None if path is None else path_of(path, number)))
            heap.grow(first_rows(heap.row_bytes) if num_rows is None else max(1, num_rows))
        except BaseException:
            heap.delete()
            raise
        return heap

    @classmethod
    def open(cls, kinds: Sequence[ArraySpec], path: Path) -> Self:
        """Open what was made.

        Raises:
            ModelLost: a file is missing or empty.
            ConfigError: it can't be read.
        """
        files: list[_File] = []
        try:
            files.extend(_File.open(path_of(path, number)) for number in range(len(kinds)))
            heap = cls(kinds, files)
        except BaseException:
            for file in files:
                file.close()
            raise
        if not heap.num_rows:
            heap.close()
            raise ModelLost(f"the files beside {path} have no row")
        return heap

    @property
    def num_bytes(self) -> int:
        """Bytes that are allocated."""
        return self.num_rows * self.row_bytes

    def arrays(self) -> list[NDArray[Any]]:
        """Return the arrays, (num_rows, ...) each; every call returns the same memory."""
        found = []
        for kind, file in zip(self.kinds, self._files, strict=True):
            shape = (self.num_rows, *kind.row_shape)
            found.append(np.frombuffer(file.memory(), kind.dtype, math.prod(shape)).reshape(shape))
        return found

    def grow(self, num_rows: int) -> None:
        """Make room for more rows, zeros; arrays that were returned before go on to be good.

        Raises:
            NotEnoughMemory: there is none; the heap is as it was.
        """
        for kind, file in zip(self.kinds, self._files, strict=True):
            file.grow(num_rows * kind.row_bytes)
        self.num_rows = num_rows
        self.has_grown(num_rows)

    def flush(self) -> None:
        """Write all of it through to its disk.

        Raises:
            ConfigError: the file system fails.
        """
        for file in self._files:
            file.flush()

    def close(self) -> None:
        """Let go of the files; again does nothing."""
        self.has_grown = lambda _: None
        for file in self._files:
            file.close()

    def delete(self) -> None:
        """Remove the files; their memory goes with the last array over it.

        Raises:
            ConfigError: the directory can't be written to any more.
        """
        try:
            for file in self._files:
                file.unlink()
        finally:
            self.close()


def first_rows(row_bytes: int) -> int:
    """Return how many rows an empty table has room for."""
    return max(1, min(_FIRST_ROWS, _FIRST_BYTES // row_bytes))


def next_rows(num_rows: int, needed: int, row_bytes: int) -> int:
    """Return how many rows a heap that has ``num_rows`` should grow to, to have at least ``needed``."""
    step = max(num_rows // _SHARE, min(num_rows, _FIRST_BYTES // row_bytes))
    return max(needed, num_rows + step)


def path_of(segment: Path, number: int) -> Path:
    """Return where an array lies, beside a segment."""
    return segment.with_name(f"{segment.stem}.{number}{SUFFIX}")


def remove(segment: Path) -> None:
    """Remove the files beside a segment, of which nothing is known.

    Raises:
        ConfigError: the directory can't be written to.
    """
    for path in segment.parent.glob(f"{segment.stem}.*{SUFFIX}"):
        _unlink(path)


class _File:
    """A file that grows, mapped as far as it goes."""

    def __init__(self, descriptor: int, path: Path | None, num_bytes: int) -> None:
        self._descriptor: int | None = descriptor
        self._path = path
        self.num_bytes = num_bytes
        self._map = mmap.mmap(descriptor, num_bytes) if num_bytes else None
        # A table in memory that is just dropped lets go of its descriptors too.
        self._let_go = weakref.finalize(self, os.close, descriptor)

    @classmethod
    def make(cls, path: Path | None) -> _File:
        if path is None:
            return cls(_nameless(), None, 0)
        return cls(_opened(path, os.O_RDWR | os.O_CREAT | os.O_EXCL), path, 0)

    @classmethod
    def open(cls, path: Path) -> _File:
        if not path.exists():
            raise ModelLost(f"{path} is missing")
        descriptor = _opened(path, os.O_RDWR)
        try:
            return cls(descriptor, path, os.fstat(descriptor).st_size)
        except OSError as error:
            os.close(descriptor)
            raise ConfigError(f"can't map {path}: {error.strerror}") from error

    def memory(self) -> memoryview:
        return memoryview(b"" if self._map is None else self._map)

    def grow(self, num_bytes: int) -> None:
        if num_bytes <= self.num_bytes:
            return
        assert self._descriptor is not None, "it was closed"
        try:
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(self._descriptor, self.num_bytes, num_bytes - self.num_bytes)
            else:
                os.ftruncate(self._descriptor, num_bytes)  # macOS and Windows: a full disk is noticed late
            self._map = mmap.mmap(self._descriptor, num_bytes)
        except (OSError, OverflowError) as error:
            os.ftruncate(self._descriptor, self.num_bytes)
            where = "memory" if self._path is None else str(self._path.parent)
            if isinstance(error, OSError) and error.errno not in NO_ROOM:
                raise ConfigError(f"can't allocate {num_bytes} bytes in {where}: {error.strerror}") from error
            raise NotEnoughMemory(f"{num_bytes - self.num_bytes} bytes more don't fit in {where}") from error
        self.num_bytes = num_bytes

    def flush(self) -> None:
        if self._path is None or self._map is None or self._descriptor is None:
            return
        try:
            self._map.flush()
            os.fsync(self._descriptor)
        except OSError as error:
            raise ConfigError(f"can't write {self._path} through to its disk: {error.strerror}") from error

    def unlink(self) -> None:
        if self._path is not None:
            _unlink(self._path)

    def close(self) -> None:
        self._descriptor = self._map = None
        self._let_go()


def _nameless() -> int:
    if sys.platform == "linux":
        return os.memfd_create("glintpy-table")
    import tempfile  # noqa: PLC0415 - not where there are better files

    with tempfile.TemporaryFile() as file:
        return os.dup(file.fileno())


def _opened(path: Path, flags: int) -> int:
    try:
        return os.open(path, flags, 0o600)
    except OSError as error:
        raise ConfigError(f"can't open {path}: {error.strerror}") from error


def _unlink(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError as error:
        raise ConfigError(f"can't remove {path}: {error.strerror}") from error
