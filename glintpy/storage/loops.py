"""The loops that ``kernels`` compiles, as plain Python functions; knows no numba, no model and no selection.

Indices are inside their arrays when they come here. Each loop goes through its arguments in order, so that
floats are rounded as if each entry had been handled alone, and repeats all count.

An updater brings one such function for each shape of a selection, and a numpy reference that gives the same
bits. They are written out, four times two lines, rather than made of one rule by closures: numba can't keep
closures over compiled functions on disk.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]
Indices = NDArray[np.uint32]
Loop = Callable[..., None]


class Loops(NamedTuple):
    """What is compiled for an updater.

    Attributes:
        keys: of a vector: ``(values (n,), keys (k,), deltas (k,))``.
        rows: of a matrix: ``(values (n, c), rows (k,), deltas (k, c))``.
        pairs: single cells of a matrix: ``(values (n, c), rows (k,), cols (k,), deltas (k,))``.
        grid: some columns of some rows: ``(values (n, c), rows (k,), cols (m,), deltas (k, m))``.
        keys_saving: as ``keys``, with ``old (k,)`` and ``saved (1,)``: what an entry was is written down first.
        pairs_saving: as ``pairs``, likewise.
    """

    keys: Loop
    rows: Loop
    pairs: Loop
    grid: Loop
    keys_saving: Loop
    pairs_saving: Loop


def add_keys(values: Array, keys: Indices, deltas: Array) -> None:
    """Add to entries of a vector."""
    for i in range(keys.size):
        values[keys[i]] += deltas[i]


def in_order() -> None:
    """Keep what is stored before it before what is stored after it, also where a compiler would rather not.

    Enough for who reads the memory of a process that was killed: it finds the stores of all instructions up to one.
    """


def add_keys_saving(values: Array, keys: Indices, deltas: Array, old: Array, saved: Array) -> None:
    """Add to entries of a vector, and write down each one's old value just before it changes.

    Args:
        values: (n,) of any dtype.
        keys: (k,) uint32.
        deltas: (k,) of the dtype of ``values``.
        old: (k,) of that dtype, to be written.
        saved: (1,) uint64: from 1 on, one more for each entry of ``old`` that has been written. Where it ends, all
            changed values have their old ones there: put back from the last to the first, as keys may repeat.
    """
    for i in range(keys.size):
        key = keys[i]
        before = values[key]
        old[i] = before
        in_order()
        saved[0] = i + 2
        in_order()
        values[key] = before + deltas[i]


def add_pairs_saving(  # noqa: PLR0917 - compiled loops take no keywords
    values: Array, rows: Indices, cols: Indices, deltas: Array, old: Array, saved: Array
) -> None:
    """Add to single cells of a matrix, as ``add_keys_saving`` does to a vector's.

    Args:
        values: (n, c) of any dtype.
        rows: (k,) uint32.
        cols: (k,) uint32, paired with the rows.
        deltas: (k,) of the dtype of ``values``.
        old: see there.
        saved: see there.
    """
    for i in range(rows.size):
        row, col = rows[i], cols[i]
        before = values[row, col]
        old[i] = before
        in_order()
        saved[0] = i + 2
        in_order()
        values[row, col] = before + deltas[i]


def add_rows(values: Array, rows: Indices, deltas: Array) -> None:
    """Add to whole rows of a matrix."""
    for i in range(rows.size):
        row = rows[i]
        for j in range(values.shape[1]):
            values[row, j] += deltas[i, j]


def add_pairs(values: Array, rows: Indices, cols: Indices, deltas: Array) -> None:
    """Add to single cells of a matrix.

    Args:
        values: (n, c) of any dtype.
        rows: (k,) uint32.
        cols: (k,) uint32, paired with the rows.
        deltas: (k,) of the dtype of ``values``.
    """
    for i in range(rows.size):
        values[rows[i], cols[i]] += deltas[i]


def add_grid(values: Array, rows: Indices, cols: Indices, deltas: Array) -> None:
    """Add to some columns of some rows of a matrix.

    Args:
        values: (n, c) of any dtype.
        rows: (k,) uint32.
        cols: (m,) uint32.
        deltas: (k, m) of the dtype of ``values``.
    """
    for i in range(rows.size):
        row = rows[i]
        for j in range(cols.size):
            values[row, cols[j]] += deltas[i, j]


def take_keys(values: Array, keys: Indices, out: Array) -> None:
    """Copy entries of a vector."""
    for i in range(keys.size):
        out[i] = values[keys[i]]


def take_pairs(values: Array, rows: Indices, cols: Indices, out: Array) -> None:
    """Copy single cells of a matrix.

    Args:
        values: (n, c) of any dtype.
        rows: (k,) uint32.
        cols: (k,) uint32, paired with the rows.
        out: (k,) of the dtype of ``values``.
    """
    for i in range(rows.size):
        out[i] = values[rows[i], cols[i]]


def take_grid(values: Array, rows: Indices, cols: Indices, out: Array) -> None:
    """Copy some columns of some rows of a matrix.

    Args:
        values: (n, c) of any dtype.
        rows: (k,) uint32.
        cols: (m,) uint32.
        out: (k, m) of the dtype of ``values``.
    """
    for i in range(rows.size):
        row = rows[i]
        for j in range(cols.size):
            out[i, j] = values[row, cols[j]]


ADD = Loops(
    keys=add_keys,
    rows=add_rows,
    pairs=add_pairs,
    grid=add_grid,
    keys_saving=add_keys_saving,
    pairs_saving=add_pairs_saving,
)
"""Of the updater ``add``. ``values[i] += delta`` is an *or* of bools, whose sum is stored as whether it is one."""
