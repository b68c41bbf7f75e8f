"""One moment of an array, read in slices while pushes go on; no thread or clock, and knows no model.

What a push would change is copied just before, in *pages* of some hundred bytes; all else is read from the live
array. So holding a moment costs next to nothing, a save that reads fast copies little, and a push waits for copies
in proportion to what it changes: were whole slices copied, the first push to random keys would wait for all of the
model.

The reader may ask again, since answers get lost. Each read therefore says its *floor*: the slices below it
have arrived and may be forgotten. A slice from the floor on gives the same values however often it is
read, so it stays under the cut's protection also after it was read.
"""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from glintpy.errors import ModelError, ShapeError
from glintpy.protocol.selection import axis_indices, is_slices

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from glintpy.protocol.selection import Selection


PAGE_BYTES = 512
"""What is copied at once. More copies more than a push changes, less takes more notes: one byte a page."""

WHOLE_SHARE = 2
"""A push that wants more than one page in so many of a slice has all of it copied: one by one they take as long."""


class Cut:
    """The values of an array as they were when this was made.

    Attributes:
        slice_rows: rows of each slice but the last, which may be shorter.
        num_slices: 0 for an array without rows.
    """

    def __init__(self, values: NDArray[Any], slice_rows: int, *, page_bytes: int = PAGE_BYTES) -> None:
        """Hold this moment.

        Args:
            values: (num_rows, ...) the live array, C-contiguous.
            slice_rows: at least one.
            page_bytes: what is copied at once, in whole rows, one at least and a slice at most.

        Raises:
            ShapeError: a slice without rows.
        """
        if slice_rows < 1:
            raise ShapeError(f"a slice has at least one row, not {slice_rows}")
        self.slice_rows = slice_rows
        self.num_slices = -(-values.shape[0] // slice_rows)
        self._values = values
        self._floor = 0
        self._row_cells = int(np.prod(values.shape[1:], dtype=np.int64))
        row_bytes = self._row_cells * values.itemsize
        self._page_rows = min(slice_rows, max(1, page_bytes // max(1, row_bytes)))
        self._slice_pages = -(-slice_rows // self._page_rows)  # of which the last may be shorter
        self._saved: dict[int, list[_Pages]] = {}  # by slice
        # Neither saved nor done with, (num_slices * slice_pages,); the last slice may lack some of its pages.
        self._exposed = np.ones(self.num_slices * self._slice_pages, dtype=bool)

    @property
    def num_bytes(self) -> int:
        """Bytes of the copies that this cut holds."""
        return sum(pages.values.nbytes for saved in self._saved.values() for pages in saved)

    def before_push(self, selection: Selection) -> None:
        """Copy what a push is about to change.

        Args:
            selection: the push's, checked.

        Raises:
            MemoryError: no room for a copy; the cut still holds its moment if the push is not applied.
        """
        if not self._row_cells:
            return
        if not is_slices(selection.rows):
            self._save(self._exposed_of(axis_indices(selection.rows)))
            return
        for rows in (range(*triple) for triple in selection.rows.tolist()):
            if rows and rows.step <= self._page_rows:
                # Steps no longer than a page leave none out, so the ends say it all.
                first, last = (int(self._pages_of(row)) for row in (rows[0], rows[-1]))
                self._save(first + np.flatnonzero(self._exposed[first : last + 1]))
            else:
                self._save(self._exposed_of(np.arange(rows.start, rows.stop, rows.step)))

    def read(self, index: int, *, floor: int = 0) -> NDArray[Any]:
        """Return one slice as it was; again, as long as no floor above it was named.

        Args:
            index: of the slice, in [0, num_slices), in any order.
            floor: all slices below are done with; what was copied of them is dropped. It never falls.

        Returns:
            (k, ...) a new array, the caller's to keep.

        Raises:
            ModelError: no such slice, or one that is done with.
        """
        lowest = max(floor, self._floor)
        if not lowest <= index < self.num_slices:
            raise ModelError(
                f"no slice {index} in a cut of {self.num_slices} of which those below {lowest} are done with"
            )
        self.forget(lowest)
        live, saved = self._live(index), self._saved.get(index, [])
        pages_here = slice(index * self._slice_pages, (index + 1) * self._slice_pages)
        found = live.copy() if self._exposed[pages_here].any() else np.empty_like(live)
        full, tail = self._in_pages(found)
        for pages in saved:
            if pages.numbers is None:
                tail[:] = pages.values
            else:
                full[pages.numbers] = pages.values
        return found

    def forget(self, floor: int) -> None:
        """Drop what was copied of the slices below a floor, which are done with; a lower one does nothing."""
        for done in range(self._floor, floor):
            self._saved.pop(done, None)
        self._exposed[self._floor * self._slice_pages : floor * self._slice_pages] = False
        self._floor = max(floor, self._floor)

    def _pages_of(self, rows: Any) -> Any:
        """Return the page of a row, or of each of several."""
        slices, within = divmod(rows, self.slice_rows)
        return slices * self._slice_pages + within // self._page_rows

    def _exposed_of(self, rows: NDArray[Any]) -> NDArray[np.int64]:
        """Return the pages of some rows that a change would reach, each once, in order."""
        pages = self._pages_of(rows.astype(np.int64, copy=False))
        return np.unique(pages[self._exposed[pages]])

    def _save(self, pages: NDArray[np.int64]) -> None:
        """Copy pages that are exposed.

        Args:
            pages: (k,) in order, each once.
        """
        slices, numbers = np.divmod(pages, self._slice_pages)
        starts = np.flatnonzero(np.diff(slices, prepend=-1)).tolist()
        for start, stop in itertools.pairwise([*starts, len(pages)]):
            self._save_in_slice(int(slices[start]), numbers[start:stop])

    def _save_in_slice(self, index: int, numbers: NDArray[np.int64]) -> None:
        full, tail = self._in_pages(self._live(index))
        exposed = self._exposed[index * self._slice_pages : (index + 1) * self._slice_pages]
        exposed = exposed[: len(full) + bool(len(tail))]
        if len(numbers) * WHOLE_SHARE > len(exposed):
            numbers = np.flatnonzero(exposed)
        saved = self._saved.setdefault(index, [])
        within = numbers[: int(np.searchsorted(numbers, len(full)))]
        if len(within) == len(full):
            saved.append(_Pages(slice(None), full.copy()))
        elif len(within):
            saved.append(_Pages(within.copy(), full[within]))
        if numbers[-1] == len(full):
            saved.append(_Pages(None, tail.copy()))
        exposed[numbers] = False

    def _in_pages(self, rows: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return views of a slice: its full pages, each in a row, and the rows behind them."""
        num_full = len(rows) // self._page_rows
        full, tail = rows[: num_full * self._page_rows], rows[num_full * self._page_rows :]
        return full.reshape(num_full, self._page_rows * self._row_cells), tail

    def _live(self, index: int) -> NDArray[Any]:
        return self._values[index * self.slice_rows : (index + 1) * self.slice_rows]


class Moment:
    """The arrays of a model as they were, all of one moment.

    Slices are counted through: first those of the first array, then those of the second one.

    Attributes:
        num_rows: of each array.
        slice_rows: rows of each slice but the last of each array.
        num_slices: of all arrays.
    """

    def __init__(self, arrays: Sequence[NDArray[Any]], slice_rows: int) -> None:
        """Hold this moment.

        Args:
            arrays: (num_rows, ...) each, with the same number of rows.
            slice_rows: at least one.

        Raises:
            ShapeError: a slice without rows.
        """
        self._cuts = [Cut(array, slice_rows) for array in arrays]
        self._each = self._cuts[0].num_slices
        self.num_rows = len(arrays[0])
        self.slice_rows = slice_rows
        self.num_slices = self._each * len(arrays)

    @property
    def num_bytes(self) -> int:
        """Bytes of the copies that are held."""
        return sum(cut.num_bytes for cut in self._cuts)

    def before_push(self, selection: Selection, arrays: range) -> None:
        """Copy what a push is about to change; see ``Cut.before_push``.

        Args:
            selection: the push's, checked.
            arrays: which of them it changes.
        """
        for index in arrays:
            self._cuts[index].before_push(selection)

    def read(self, index: int, *, floor: int = 0) -> NDArray[Any]:
        """Return one slice as it was; see ``Cut.read``."""
        if not 0 <= index < self.num_slices:
            raise ModelError(f"no slice {index} in a cut of {self.num_slices}")
        array, within = divmod(index, self._each)
        for earlier, cut in enumerate(self._cuts[:array]):
            if earlier * self._each < floor:
                cut.forget(min(self._each, floor - earlier * self._each))
        found: NDArray[Any] = self._cuts[array].read(within, floor=max(0, floor - array * self._each))
        return found


class _Pages(NamedTuple):
    """Copies of pages of one slice.

    Attributes:
        numbers: (k,) which full pages, counted within the slice, or all of them; None: the shorter one behind them.
        values: (k, cells of a page), or the rows of the shorter one.
    """

    numbers: NDArray[np.int64] | slice | None
    values: NDArray[Any]
