"""One moment of an array, read in slices while pushes go on; no thread or clock, and knows no model.

A slice is copied just before the first push that would change it; all others are read from the live array.
So holding a moment costs nothing, and a save that reads fast copies little.

The reader may ask again, since answers get lost. Each read therefore says its *floor*: the slices below it
have arrived and may be forgotten. A slice from the floor on gives the same values however often it is
read, so it stays under the cut's protection also after it was read.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from glintpy.errors import ModelError, ShapeError
from glintpy.protocol.selection import axis_indices, is_slices

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glintpy.protocol.selection import Selection


class Cut:
    """The values of an array as they were when this was made.

    Attributes:
        slice_rows: rows of each slice but the last, which may be shorter.
        num_slices: 0 for an array without rows.
    """

    def __init__(self, values: NDArray[Any], slice_rows: int) -> None:
        """Hold this moment.

        Args:
            values: (num_rows, ...) the live array.
            slice_rows: at least one.

        Raises:
            ShapeError: a slice without rows.
        """
        if slice_rows < 1:
            raise ShapeError(f"a slice has at least one row, not {slice_rows}")
        self.slice_rows = slice_rows
        self.num_slices = -(-values.shape[0] // slice_rows)
        self._values = values
        self._floor = 0
        self._saved: dict[int, NDArray[Any]] = {}
        self._exposed = np.ones(self.num_slices, dtype=bool)  # neither saved nor done with

    @property
    def num_bytes(self) -> int:
        """Bytes of the copies that this cut holds."""
        return sum(saved.nbytes for saved in self._saved.values())

    def before_push(self, selection: Selection) -> None:
        """Copy the slices that a push is about to change.

        Args:
            selection: the push's, checked.

        Raises:
            MemoryError: no room for a copy; the cut still holds its moment if the push is not applied.
        """
        touched = np.zeros(self.num_slices, dtype=bool)
        if is_slices(selection.rows):
            for rows in (range(*triple) for triple in selection.rows.tolist()):
                if rows and rows.step <= self.slice_rows:
                    # Steps no longer than a slice leave none out, so the ends say it all.
                    touched[rows[0] // self.slice_rows : rows[-1] // self.slice_rows + 1] = True
                else:
                    touched[np.arange(rows.start, rows.stop, rows.step) // self.slice_rows] = True
        else:
            touched[axis_indices(selection.rows) // self.slice_rows] = True
        for index in np.flatnonzero(touched & self._exposed).tolist():
            self._saved[index] = self._live(index).copy()
            self._exposed[index] = False

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
        for done in range(self._floor, lowest):
            self._saved.pop(done, None)
        self._exposed[self._floor : lowest] = False
        self._floor = lowest
        saved = self._saved.get(index)
        return (self._live(index) if saved is None else saved).copy()

    def _live(self, index: int) -> NDArray[Any]:
        return self._values[index * self.slice_rows : (index + 1) * self.slice_rows]
