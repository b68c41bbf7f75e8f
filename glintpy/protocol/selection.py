"""What a request touches: rows times columns, or single elements; knows no partition and no message.

Rows and columns are arrays of indices, or slices as a (k, 3) array of (start, stop, step), so that slices
and whole models never travel as index lists. Rows are *server rows*: positions in the one array that a
server keeps for a model.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy.errors import KeyRangeError, ShapeError

IndexArray = NDArray[np.int64] | NDArray[np.uint32]

_FEW = 16
"""Up to here Python's min and max are faster than a reduction of numpy's, which costs 0.6 us before it begins."""


def slices_of(*triples: tuple[int, int, int]) -> NDArray[np.int64]:
    """Return slices as the (k, 3) int64 array in which they travel."""
    return np.array(triples, dtype=np.int64).reshape(-1, 3)


def is_slices(axis: NDArray[Any]) -> bool:
    """Tell slices, (k, 3), from indices, (n,)."""
    return axis.ndim == 2


def axis_length(axis: NDArray[Any]) -> int:
    """Return how many indices an axis selects.

    Args:
        axis: (n,) indices, or (k, 3) int64 slices; foreign ones too, before ``check_axis`` has seen them.

    Raises:
        ShapeError: a slice that doesn't run forward.
    """
    if not is_slices(axis):
        return int(axis.shape[0])
    return sum(_slice_length(*triple, what="index") for triple in axis.tolist())


def axis_indices(axis: NDArray[Any]) -> NDArray[np.int64]:
    """Return an axis as (n,) int64 indices, slices written out."""
    if not is_slices(axis):
        return axis.astype(np.int64, copy=False)
    # numpy would work out how many they are in floating point, and beyond 2**53 leave one out.
    pieces = [
        start + step * np.arange(len(range(start, stop, step)), dtype=np.int64)
        for start, stop, step in axis.tolist()
    ]
    return np.concatenate(pieces) if pieces else np.empty(0, np.int64)


def check_axis(axis: NDArray[Any], size: int, *, what: str) -> int:
    """Refuse an axis that reaches outside [0, size).

    Args:
        axis: (n,) int64 or uint32 indices, or (k, 3) int64 slices.
        size: of the axis, below 2**63.
        what: its name in the message: ``"row"`` or ``"column"``.

    Returns:
        How many indices it selects.

    Raises:
        KeyRangeError: naming the first bad index and its position.
        ShapeError: a slice that doesn't run forward inside the axis.
    """
    if axis.ndim == 2:
        return _check_slices(axis, size, what=what)
    length: int = axis.size
    if length <= _FEW:
        few = axis.tolist()
        if not few or (min(few) >= 0 and max(few) < size):
            return length
    # One pass: seen as unsigned, what is negative is larger than any size.
    elif np.maximum.reduce(axis.view(np.uint64) if axis.dtype == np.int64 else axis) < size:
        return length
    bad = np.flatnonzero((axis < 0) | (axis >= size))
    position = int(bad[0])
    raise KeyRangeError(f"{what} {int(axis[position])} at position {position} is outside [0, {size})")


def _check_slices(axis: NDArray[Any], size: int, *, what: str) -> int:
    total = 0
    for start, stop, step in axis.tolist():
        length = _slice_length(start, stop, step, what=what)
        if length and start + (length - 1) * step >= size:
            raise KeyRangeError(f"slice {start}:{stop}:{step} reaches outside [0, {size}) of {what}s")
        total += length
    return total


@dataclass(slots=True, eq=False)
class Selection:
    """Rows times columns, or elements.

    Nobody changes one. It is not frozen only because that makes the making, once or more a request, take three
    times as long.

    Attributes:
        rows: (n,) int64 or uint32 indices, or (k, 3) int64 slices.
        cols: the same for columns; None: all columns (and always None for a vector).
        paired: element i is (rows[i], cols[i]); both are (n,) indices.
    """

    rows: NDArray[Any]
    cols: NDArray[Any] | None = None
    paired: bool = False

    def num_rows(self) -> int:
        """Return how many rows (or elements) are selected."""
        return axis_length(self.rows)

    def shape(self, num_cols: int | None) -> tuple[int, ...]:
        """Return the shape of the selected values.

        Args:
            num_cols: the model's number of columns; None for a vector.
        """
        num_rows = self.num_rows()
        if num_cols is None or self.paired:
            return (num_rows,)
        return (num_rows, num_cols if self.cols is None else axis_length(self.cols))

    def check(self, num_rows: int, num_cols: int | None) -> tuple[int, ...]:
        """Refuse what reaches outside an array of this shape; nothing is touched before.

        Args:
            num_rows: rows of the array.
            num_cols: its columns; None for a vector.

        Returns:
            The shape of the selected values.

        Raises:
            KeyRangeError: an index outside, with the first bad one and its position.
            ShapeError: columns of a vector, pairs of different lengths, backward slices.
        """
        length = check_axis(self.rows, num_rows, what="row")
        cols = self.cols
        if cols is None:
            if self.paired:
                raise ShapeError("elements need columns")
            return (length,) if num_cols is None else (length, num_cols)
        if num_cols is None:
            raise ShapeError("a vector has no columns")
        if self.paired and (is_slices(self.rows) or is_slices(cols) or self.rows.shape != cols.shape):
            raise ShapeError(f"elements need a column a row, not {self.rows.shape}, {cols.shape}")
        width = check_axis(cols, num_cols, what="column")
        return (length,) if self.paired else (length, width)


def _slice_length(start: int, stop: int, step: int, *, what: str) -> int:
    # Not len(range(...)): its ValueError and OverflowError for foreign numbers would be nobody's fault.
    if step < 1 or start < 0 or stop < start:
        raise ShapeError(f"{what} slice {start}:{stop}:{step} doesn't run forward")
    return -(-(stop - start) // step)
