"""Gather and scatter with numpy: the reference of the compiled loops, and what stands in for them; knows no model.

Selections have been checked before they come here: nothing below looks for an index outside the array, and
nothing below fails half way.

What is fast was measured (numpy 2, 50,000 cells or 2,500 rows of 100 cells). ``np.add.at`` on a flat array
takes about half the time of ``a[i] += v``, and needs no word about repeats; on rows of a matrix it takes 2 to
3 times as long as on the flat index of each cell, so that is what it gets. Wide rows without repeats are
faster by ``+=``, which moves whole rows; a few rows, one by one.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy.protocol.selection import Selection, axis_indices, is_slices

Array = NDArray[Any]

_WIDE_ROW_COLS = 16
"""From here on moving whole rows beats adding cell by cell, the sort that looks for repeats included."""

_FEW_ROWS = 16
"""Up to here adding row by row, 0.4 us each, beats what numpy has for many."""

_FEW_INDICES = 128
"""Up to here a set of Python's tells sooner than a sort whether there are repeats."""


def gather(values: Array, selection: Selection, out: Array | None = None) -> Array:
    """Copy what is selected.

    Args:
        values: (num_rows, num_cols) or (num_rows,), C-contiguous.
        selection: checked against that shape.
        out: C-contiguous, of the selection's shape and the dtype of ``values``, to be overwritten; None: a
            new array.

    Returns:
        ``out``, or a new C-contiguous array, of the selection's shape and the dtype of ``values``.
    """
    rows, cols = selection.rows, selection.cols
    if cols is None and rows.ndim == 1:
        # "clip", because the check is done; the method, because the function np.take costs as much again.
        return values.take(rows, 0, out, "clip")
    if not selection.paired and is_blocks(selection):
        return _gather_blocks(values, selection, out)
    return values.reshape(-1).take(_cells(selection, values.shape[1]), None, out, "clip")


def scatter_add(values: Array, selection: Selection, deltas: Array) -> None:
    """Add to what is selected; a cell that is selected twice is added to twice, in the order of the deltas.

    Integers wrap, bools are or-ed, floats overflow to infinity; numpy's warnings about it are silenced,
    since nobody on a server reads them.

    Args:
        values: (num_rows, num_cols) or (num_rows,), C-contiguous; changed in place.
        selection: checked against that shape.
        deltas: of the selection's shape and the dtype of ``values``.
    """
    if values.dtype.kind == "f":
        with np.errstate(all="ignore"):
            _scatter_add(values, selection, deltas)
    else:
        # numpy never warns about integers in arrays, and the context costs more than adding a row.
        _scatter_add(values, selection, deltas)


def assign(values: Array, selection: Selection, new: Array) -> None:
    """Store values as they are; of several for one cell the last stays.

    Args:
        values: (num_rows, num_cols) or (num_rows,), C-contiguous; changed in place.
        selection: checked against that shape.
        new: of the selection's shape and the dtype of ``values``.
    """
    if not selection.paired and is_blocks(selection):
        for index, start, stop in _blocks(selection):
            values[index] = new[start:stop]
        return
    if selection.cols is None:
        rows = axis_indices(selection.rows)
        kept = _last_of_each(rows)
        values[rows[kept]] = new[kept]
        return
    cells = _flat_cells(values, selection)
    kept = _last_of_each(cells)
    values.reshape(-1)[cells[kept]] = new.reshape(-1)[kept]


def is_blocks(selection: Selection) -> bool:
    """Tell whether basic slicing reaches everything: slices of rows by all columns or one slice of them.

    One row by a slice of columns, too: a piece of a row that is too long for one message.
    """
    rows, cols = selection.rows, selection.cols
    if cols is None:
        return is_slices(rows)
    return is_slices(cols) and cols.shape[0] == 1 and (is_slices(rows) or rows.size == 1)


def _scatter_add(values: Array, selection: Selection, deltas: Array) -> None:
    rows = selection.rows
    if selection.cols is None and rows.ndim == 1:
        if values.ndim == 1:
            np.add.at(values, rows, deltas)
        else:
            _add_rows(values, selection, deltas)
    elif not selection.paired and is_blocks(selection):
        # One slice has no repeats; several may overlap, and are added one after the other.
        for index, start, stop in _blocks(selection):
            values[index] += deltas[start:stop]
    else:
        np.add.at(values.reshape(-1), _flat_cells(values, selection), deltas.reshape(-1))


def _add_rows(values: Array, selection: Selection, deltas: Array) -> None:
    rows = selection.rows
    num_rows, num_cols = deltas.shape
    if num_rows == 1:
        stored = values[rows.item()]
        np.add(stored, deltas[0], stored)
    elif num_cols >= _WIDE_ROW_COLS and _is_unique(rows):
        values[rows] += deltas
    elif num_rows <= _FEW_ROWS:
        for row, delta in zip(rows.tolist(), deltas, strict=True):
            stored = values[row]
            np.add(stored, delta, stored)
    else:
        np.add.at(values.reshape(-1), _cells(selection, num_cols).reshape(-1), deltas.reshape(-1))


def _gather_blocks(values: Array, selection: Selection, out: Array | None) -> Array:
    blocks = _blocks(selection)
    if out is None:
        if len(blocks) == 1:
            # Not the view itself, and in C order even where it is strided.
            return values[blocks[0][0]].copy(order="C")
        out = np.empty(selection.shape(values.shape[1] if values.ndim == 2 else None), values.dtype)
    for index, start, stop in blocks:
        out[start:stop] = values[index]
    return out


def _blocks(selection: Selection) -> list[tuple[tuple[slice, ...], int, int]]:
    """Return for each slice of rows its basic index, and where its values start and stop in the caller's."""
    cols = () if selection.cols is None else (slice(*selection.cols[0].tolist()),)
    blocks: list[tuple[tuple[slice, ...], int, int]] = []
    position = 0
    rows = selection.rows.tolist()
    for triple in rows if is_slices(selection.rows) else [(row, row + 1, 1) for row in rows]:
        stop = position + len(range(*triple))
        blocks.append(((slice(*triple), *cols), position, stop))
        position = stop
    return blocks


def _cells(selection: Selection, num_cols: int) -> NDArray[np.int64]:
    """Return the flat index of each selected cell of a matrix, in the selection's shape.

    int64 throughout: uint32 rows times columns would wrap.
    """
    rows = axis_indices(selection.rows)
    if selection.cols is None:
        return rows[:, None] * num_cols + np.arange(num_cols, dtype=np.int64)  # (n, num_cols)
    cols = axis_indices(selection.cols)
    if selection.paired:
        return rows * num_cols + cols  # (n,)
    return rows[:, None] * num_cols + cols  # (n, m)


def _flat_cells(values: Array, selection: Selection) -> NDArray[np.int64]:
    if values.ndim == 1:
        return axis_indices(selection.rows)
    return _cells(selection, values.shape[1]).reshape(-1)


def _is_rising(indices: Array) -> bool:
    return bool(np.all(indices[1:] > indices[:-1]))


def _is_unique(indices: Array) -> bool:
    if indices.size <= _FEW_INDICES:
        return len(set(indices.tolist())) == indices.size
    return _is_rising(indices) or _is_rising(np.sort(indices))


def _last_of_each(indices: NDArray[np.int64]) -> NDArray[np.int64] | slice:
    """Return the position of each index's last occurrence; numpy promises no order of repeated stores."""
    if _is_rising(indices):
        return slice(None)
    order = np.argsort(indices, kind="stable")
    ordered = indices[order]
    return order[np.concatenate((ordered[1:] != ordered[:-1], [True]))]
