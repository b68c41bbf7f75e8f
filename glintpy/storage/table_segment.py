"""The segment of a table: what any segment is, with a heap of arrays beside it; knows no thread or clock."""

from __future__ import annotations

import struct
from functools import partial
from typing import TYPE_CHECKING, Any, Self

from glintpy.errors import ModelLost, ShapeError
from glintpy.storage.heap import Heap, remove
from glintpy.storage.segment import MemorySegment, Segment

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from glintpy.storage.arrays import ArraySpec

ROOM = "room"
"""The extent that says how many rows the heap has."""

_ROOM = struct.Struct("<Q")


class TableSegment(Segment):
    """A segment that may have a heap.

    The segment says whether the heap's files can be trusted: it is made before them, and closed in order after them.
    """

    _heap: Heap | None = None

    @classmethod
    def make_table(
        cls,
        path: Path,
        description: dict[str, Any],
        extents: Mapping[str, int],
        kinds: Sequence[ArraySpec],
        num_rows: int = 0,
    ) -> Self:
        """Make a table's segment, and its heap.

        Args:
            path: must not exist.
            description: anything that JSON can hold.
            extents: bytes of what lies in the segment itself, by its name.
            kinds: the arrays of the heap.
            num_rows: that there is to be room for; 0: a few.

        Raises:
            NotEnoughMemory, ConfigError: nothing is left behind.
        """
        segment = cls.make(path, description, {**extents, ROOM: _ROOM.size})
        try:
            segment._keep(Heap.make(kinds, path, num_rows or None))  # noqa: SLF001 - of this class
        except BaseException:
            segment.delete()
            raise
        return segment

    def open_heap(self, kinds: Sequence[ArraySpec]) -> None:
        """Open the heap that lies beside.

        Raises:
            ModelLost: there is none, or it has fewer rows than there was room for.
        """
        heap = Heap.open(kinds, self.path)
        if (place := self._room_at()) is not None:
            (num_rows,) = _ROOM.unpack_from(self.body, place)
            if heap.num_rows < num_rows:
                heap.close()
                raise ModelLost(
                    f"the files beside {self.path} have {heap.num_rows} rows, and had {num_rows}: one was cut short"
                )
        self._keep(heap)

    def _keep(self, heap: Heap) -> None:
        """Take a heap, and write down how many rows it has, now and whenever it has grown.

        A process that is killed in between leaves too small a number: what is beyond holds nothing yet.
        """
        self._heap = heap
        if (place := self._room_at()) is not None:
            heap.has_grown = partial(_ROOM.pack_into, self.body, place)
            heap.has_grown(heap.num_rows)

    def _room_at(self) -> int | None:
        """Return where in the body the number of rows stands; None: an earlier version made it."""
        place = self.description["extents"].get(ROOM)
        return None if place is None else int(place[0])

    @property
    def heap(self) -> Heap:
        """The table's arrays."""
        if self._heap is None:
            raise ShapeError(f"{self.path} has no heap")
        return self._heap

    def close(self, *, clean: bool) -> None:
        """Let go of the files; see ``MappedFile.close``.

        Raises:
            ConfigError: the file system fails; then the table counts as not closed in order.
        """
        if self._heap is None:
            super().close(clean=clean)
            return
        try:
            if clean:
                self._heap.flush()
        except BaseException:
            super().close(clean=False)
            raise
        finally:
            self._heap.close()
        super().close(clean=clean)

    def delete(self) -> None:
        """Remove the files.

        Raises:
            ConfigError: the directory can't be written to any more; they are let go of all the same.
        """
        try:
            if self._heap is None:
                remove(self.path)
            else:
                self._heap.delete()
        finally:
            super().delete()


class MemoryTable(MemorySegment):
    """The same without files: gone with its process."""

    def __init__(self, kinds: Sequence[ArraySpec]) -> None:
        """Reserve memory for a few rows.

        Raises:
            NotEnoughMemory: the system refuses.
        """
        super().__init__({})
        self.heap = Heap.make(kinds, None)

    def delete(self) -> None:
        """Let go of the memory; it goes with the last array over it."""
        self.heap.close()
