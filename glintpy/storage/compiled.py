"""Gather and scatter by loops over indices: which loop a selection gets, and how its arrays are handed over.

Knows no numba: the loops are arguments, compiled or not. Whatever is faster with numpy goes there.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glintpy.protocol.selection import Selection, axis_indices
from glintpy.records import record
from glintpy.storage.loops import Loop
from glintpy.storage.numpy_kernels import Array, assign, gather, is_blocks
from glintpy.storage.updating import Updating
from glintpy.updaters import Updater, arithmetic_dtype

Gather = Callable[[Array, Selection, Array | None], Array]
Scatter = Callable[[Array, Selection, Array], None]
Saving = Callable[[Array, Selection, Array, Array, Array], None]
"""As ``Scatter``, with ``old`` and ``saved`` of ``loops.add_keys_saving``; for selections that ``can_save``."""

INDEX_MAX = 2**32
"""Loops take uint32 indices only, which is what clients send to shards of fewer rows. An array with an axis of this
length is numpy's."""

_FEW_KEYS = 128
"""Fewer single cells than this are read as fast by numpy."""

_INDEX = np.dtype(np.uint32)


@record
class Lone:
    """A loop, or none, for ``Updating``."""

    update_loop: Loop | None


class Ways(NamedTuple):
    """A way to read and one to change values, both as ``numpy_kernels`` says; and one that saves as it changes."""

    gather: Gather
    scatter: Scatter
    saving: Saving | None = None


def gather_of_vectors(take: Loop) -> Gather:
    """Return how vectors are read, by ``loops.take_keys``."""

    def gather_keys(values: Array, selection: Selection, out: Array | None = None) -> Array:
        keys = selection.rows
        if keys.ndim == 2 or keys.size < _FEW_KEYS:
            return gather(values, selection, out)
        if out is None:
            out = np.empty(keys.size, values.dtype)
        take(values, _indices(keys), out)
        return out

    return gather_keys


def scatter_of_vectors(change: Loop, *, reference: Scatter) -> Scatter:
    """Return how vectors are changed, by the updater's loop over keys, and slices by its numpy way."""

    def scatter_keys(values: Array, selection: Selection, deltas: Array) -> None:
        keys = selection.rows
        if keys.ndim == 2:
            reference(values, selection, deltas)
        else:
            change(values, _indices(keys), _in_order(deltas))

    return scatter_keys


def gather_of_matrices(*, pairs: Loop, grid: Loop) -> Gather:
    """Return how matrices are read.

    Args:
        pairs: ``loops.take_pairs``.
        grid: ``loops.take_grid``.
    """

    def gather_cells(values: Array, selection: Selection, out: Array | None = None) -> Array:
        rows, cols = selection.rows, selection.cols
        if cols is None or rows.size < _FEW_KEYS > cols.size or _is_numpys(selection):
            return gather(values, selection, out)
        if selection.paired:
            if out is None:
                out = np.empty(rows.size, values.dtype)
            pairs(values, _indices(rows), _indices(cols), out)
            return out
        rows, cols = _indices(rows), _indices(cols)
        if out is None:
            out = np.empty((rows.size, cols.size), values.dtype)
        grid(values, rows, cols, out)
        return out

    return gather_cells


def scatter_of_matrices(*, rows: Loop, pairs: Loop, grid: Loop, reference: Scatter) -> Scatter:
    """Return how matrices are changed.

    Args:
        rows: the updater's loop over rows.
        pairs: the one over single cells.
        grid: the one over rows by columns.
        reference: its numpy way, for slices.
    """
    change_rows, change_pairs, change_grid = rows, pairs, grid

    def scatter(values: Array, selection: Selection, deltas: Array) -> None:
        rows, cols = selection.rows, selection.cols
        if cols is None and rows.ndim == 1:
            change_rows(values, _indices(rows), _in_order(deltas))
        elif cols is None or _is_numpys(selection):
            reference(values, selection, deltas)
        elif selection.paired:
            change_pairs(values, _indices(rows), _indices(cols), _in_order(deltas))
        else:
            change_grid(values, _indices(rows), _indices(cols), _in_order(deltas))

    return scatter


def can_save(selection: Selection, ndim: int) -> bool:
    """Whether it is of single cells, and of so many that one pass over them pays rather than two.

    Args:
        selection: checked.
        ndim: 1 for vectors, 2 for matrices.
    """
    is_cells = selection.paired if ndim == 2 else selection.rows.ndim == 1
    return is_cells and selection.rows.size >= _FEW_KEYS


def saving_of_vectors(change: Loop) -> Saving:
    """Return how single entries of vectors are changed and saved, by ``loops.add_keys_saving``."""

    def scatter_keys(values: Array, selection: Selection, deltas: Array, old: Array, saved: Array) -> None:
        change(values, _indices(selection.rows), _in_order(deltas), old, saved)

    return scatter_keys


def saving_of_matrices(change: Loop) -> Saving:
    """Return how single cells of matrices are changed and saved, by ``loops.add_pairs_saving``."""

    def scatter_pairs(values: Array, selection: Selection, deltas: Array, old: Array, saved: Array) -> None:
        assert selection.cols is not None, "whole rows aren't single cells"
        rows, cols = _indices(selection.rows), _indices(selection.cols)
        change(values, rows, cols, _in_order(deltas), old, saved)

    return scatter_pairs


def prove(ways: Ways, reference: Ways, *, dtype: np.dtype[Any], ndim: int) -> None:
    """Refuse ways that don't give what numpy gives: from a damaged cache, or one that another machine wrote.

    These are also numba's first calls, which look at types for 100 us each, before a request makes them: with
    arrays that are read-only and at odd addresses, as those that arrive in messages are.

    Args:
        ways: to be proved.
        reference: numpy's.
        dtype: of the values.
        ndim: 1 for vectors, 2 for matrices.

    Raises:
        RuntimeError: the ways give other numbers.
    """
    shape = (5,) if ndim == 1 else (5, 3)
    num_cols = None if ndim == 1 else 3
    few, many = np.array([3, 0, 3], _INDEX), np.arange(2 * _FEW_KEYS, dtype=_INDEX) % 5
    selections = [Selection(few), Selection(many)]
    if ndim == 2:
        cols = np.array([2, 1], _INDEX)
        selections += [Selection(many, many % 3, paired=True), Selection(many, cols)]
    for selection in selections:
        expected = np.arange(np.prod(shape)).reshape(shape).astype(dtype)
        values = expected.copy()
        deltas = np.ones(selection.shape(num_cols), dtype)
        for arrived in (lambda array: array, _as_received):
            theirs = Selection(
                arrived(selection.rows),
                None if selection.cols is None else arrived(selection.cols),
                selection.paired,
            )
            ways.scatter(values, theirs, arrived(deltas))
            reference.scatter(expected, selection, deltas)
            found = ways.gather(values, theirs, None)
            if not np.array_equal(values, expected) or not np.array_equal(
                found, reference.gather(expected, selection, None)
            ):
                raise RuntimeError("a compiled loop doesn't give what numpy gives")
            if ways.saving is not None and can_save(selection, ndim):
                old, saved = np.zeros_like(deltas), np.zeros(1, np.uint64)
                ways.saving(values, theirs, arrived(deltas), old, saved)
                back = Selection(
                    selection.rows[::-1],
                    selection.cols if selection.cols is None else selection.cols[::-1],
                    ndim == 2,
                )
                assign(values, back, old[::-1])
                if saved[0] != len(old) + 1 or not np.array_equal(values, expected):
                    raise RuntimeError("a compiled loop doesn't write down what it changes")


def prove_update(loop: Loop, updater: Updater, dtype: np.dtype[Any]) -> None:
    """Refuse an updater's loop that doesn't give what its formula gives; also numba's first calls, as ``prove``'s.

    Args:
        loop: to be proved.
        updater: whose it is.
        dtype: of the values.

    Raises:
        RuntimeError: it gives other numbers.
    """
    kept_in = arithmetic_dtype(dtype)
    for ndim in (1, 2):
        shape = (6,) if ndim == 1 else (6, 3)
        arrays = [
            [
                (np.arange(np.prod(shape)).reshape(shape) % 5).astype(dtype),
                *(np.full(shape, slot.init, kept_in) for slot in updater.slots),
                *([np.zeros(6, np.uint32)] if updater.counts_steps else []),
            ]
            for _ in range(2)
        ]
        formula, looped = (
            Updating(updater, each, Lone(each_loop))
            for each, each_loop in zip(arrays, (None, loop), strict=True)
        )
        for rows in (np.array([4, 0, 3], _INDEX), np.array([0, 0, 5], _INDEX)):
            selection = Selection(_as_received(rows))
            deltas = _as_received(
                (np.arange(np.prod((3, *shape[1:]))) % 3).reshape(3, *shape[1:]).astype(dtype)
            )
            formula.apply(selection, deltas)
            looped.apply(selection, deltas)
        for expected, found in zip(*arrays, strict=True):
            if not np.array_equal(found, expected, equal_nan=expected.dtype.kind == "f"):
                raise RuntimeError(
                    f"the compiled loop of updater {updater.name!r} doesn't give what its formula gives"
                )


def _is_numpys(selection: Selection) -> bool:
    """Tell whether basic slicing reaches everything, which nothing beats."""
    return not selection.paired and is_blocks(selection)


def _indices(axis: NDArray[Any]) -> NDArray[np.uint32]:
    """Return a checked axis as the loops take it, slices written out."""
    if axis.dtype == _INDEX and axis.flags.c_contiguous:
        return axis
    return axis_indices(axis).astype(_INDEX, order="C")


def _in_order(entries: Array) -> Array:
    return entries if entries.flags.c_contiguous else np.ascontiguousarray(entries)


def _as_received(array: Array) -> Array:
    return np.frombuffer(b"\x00" + array.tobytes(), array.dtype, offset=1).reshape(array.shape)
