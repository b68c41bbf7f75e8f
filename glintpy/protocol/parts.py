"""How a request is cut into parts; pure arithmetic, and knows no message.

A part carries about ``config.PART_BYTES`` of values: larger messages fall out of the allocator's arena and
cost 2 to 3 times as much, and while one part is handled nobody else is.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy import config
from glintpy.protocol.selection import Selection, is_slices

Positions = NDArray[np.int64] | slice


@dataclass(slots=True, eq=False)
class Part:
    """A piece of what a request touches on one server.

    Attributes:
        selection: server rows (and columns).
        rows_at: where its rows (or elements) stand in the caller's array.
        cols_at: where its columns stand there; None: it has all columns asked for.
        num_bytes: of its values.
    """

    selection: Selection
    rows_at: Positions
    cols_at: slice | None
    num_bytes: int

    def of(self, array: NDArray[Any], *, is_ours: bool = False) -> NDArray[Any]:
        """Return this part of the caller's values as a copy: theirs may change at once.

        Args:
            array: the values of the whole request.
            is_ours: they aren't the caller's any more, so that a view of them will do.
        """
        picked = _pick(array, self.rows_at)
        if self.cols_at is not None:
            picked = picked[:, self.cols_at]
        # A slice is a view, an index array gives a copy already: exactly one copy is made.
        owned = picked.flags.c_contiguous and (is_ours or (picked.base is None and picked.flags.owndata))
        return picked if owned else np.array(picked, order="C", copy=True)

    def into(self, array: NDArray[Any], values: NDArray[Any]) -> None:
        """Put this part's values into the caller's array."""
        if self.cols_at is None:
            array[self.rows_at] = values
        elif isinstance(self.rows_at, slice):
            array[self.rows_at, self.cols_at] = values
        else:
            array[self.rows_at[:, None], np.arange(self.cols_at.start, self.cols_at.stop)] = values


def cut(
    rows: NDArray[Any],
    positions: Positions,
    *,
    cols: NDArray[Any] | None,
    paired: bool,
    num_cols: int | None,
    item_bytes: int,
    key_bytes: int = 0,
    keeps_rows: bool = False,
) -> Iterator[Part]:
    """Cut what a request touches on one server.

    Args:
        rows: (n,) indices or (k, 3) slices of server rows.
        positions: where each row stands in the caller's array.
        cols: (c,) indices or (1, 3) slices; for pairs (n,) columns of the caller's whole array; None: all.
        paired: rows and columns are pairs.
        num_cols: how many columns are asked for; None for a vector and for pairs.
        item_bytes: of one value.
        key_bytes: of a row's key beside its number.
        keeps_rows: of pairs: those of one row stand side by side, and stay in one part, however many they are.
    """
    index_bytes = 0 if is_slices(rows) else rows.dtype.itemsize
    width = 1 if num_cols is None else num_cols
    if num_cols is not None and width * item_bytes > config.PART_BYTES:
        yield from _cut_wide(rows, positions, cols=cols, num_cols=num_cols, item_bytes=item_bytes)
        return
    row_bytes = width * item_bytes + key_bytes
    rows_max = max(1, config.PART_BYTES // (row_bytes + index_bytes + (4 if paired else 0)))
    chunks = _whole_rows if keeps_rows and paired else _chunks
    for piece, rows_at, count in chunks(rows, positions, rows_max):
        piece_cols = _pick(cols, rows_at) if paired and cols is not None else cols
        yield Part(Selection(piece, piece_cols, paired), rows_at, None, count * row_bytes)


def _cut_wide(
    rows: NDArray[Any], positions: Positions, *, cols: NDArray[Any] | None, num_cols: int, item_bytes: int
) -> Iterator[Part]:
    """Cut rows of which one alone is more than a part: each into pieces of columns."""
    cols_max = max(1, config.PART_BYTES // item_bytes)
    for piece, rows_at, _ in _chunks(rows, positions, 1):
        for first in range(0, num_cols, cols_max):
            stop = min(num_cols, first + cols_max)
            selection = Selection(piece, _columns(cols, first, stop))
            yield Part(selection, rows_at, slice(first, stop), (stop - first) * item_bytes)


def _columns(cols: NDArray[Any] | None, first: int, stop: int) -> NDArray[Any]:
    if cols is None:
        return np.array([[first, stop, 1]], dtype=np.int64)
    if not is_slices(cols):
        return cols[first:stop]
    start, _, step = cols[0].tolist()
    return np.array([[start + first * step, start + (stop - 1) * step + 1, step]], dtype=np.int64)


def _chunks(
    rows: NDArray[Any], positions: Positions, rows_max: int
) -> Iterator[tuple[NDArray[Any], Positions, int]]:
    """Yield (rows, their positions, how many) with at most ``rows_max`` rows each."""
    if not is_slices(rows):
        total = rows.shape[0]
        if total <= rows_max:
            yield rows, positions, total
            return
        for first in range(0, total, rows_max):
            stop = min(total, first + rows_max)
            yield rows[first:stop], _sub(positions, first, stop), stop - first
        return
    done = 0
    held: list[tuple[int, int, int]] = []
    count = 0
    for start, slice_stop, step in rows.tolist():
        left = range(start, slice_stop, step)
        while left:
            taken = left[: rows_max - count]
            left = left[len(taken) :]
            held.append((taken.start, taken[-1] + 1, step))
            count += len(taken)
            if count == rows_max or len(held) == config.SLICES_MAX:
                yield np.array(held, dtype=np.int64), _sub(positions, done, done + count), count
                done, held, count = done + count, [], 0
    if held:
        yield np.array(held, dtype=np.int64), _sub(positions, done, done + count), count


def _whole_rows(
    rows: NDArray[Any], positions: Positions, rows_max: int
) -> Iterator[tuple[NDArray[Any], Positions, int]]:
    """Yield as ``_chunks`` does, each cut moved back to where a row ends; a longer row is a chunk of its own."""
    total = len(rows)
    if total <= rows_max:
        yield rows, positions, total
        return
    ends = np.append(np.flatnonzero(rows[1:] != rows[:-1]) + 1, total)
    first = num_done = 0
    while first < total:
        num_done = max(num_done + 1, int(np.searchsorted(ends, first + rows_max, side="right")))
        stop = int(ends[num_done - 1])
        yield rows[first:stop], _sub(positions, first, stop), stop - first
        first = stop


def _sub(positions: Positions, first: int, stop: int) -> Positions:
    if not isinstance(positions, slice):
        return positions[first:stop]
    start, step = positions.start or 0, positions.step or 1
    return slice(start + first * step, start + (stop - 1) * step + 1, step)


def _pick(array: NDArray[Any], positions: Positions) -> NDArray[Any]:
    if isinstance(positions, slice):
        return array[positions]
    return np.take(array, positions, axis=0)
