"""Gather and scatter against numpy's own fancy indexing and ``np.add.at``."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glintpy.protocol import dtypes
from glintpy.protocol.selection import Selection, axis_indices, slices_of
from glintpy.storage import kernels

Array = NDArray[Any]


def axes(size: int) -> st.SearchStrategy[Array]:
    """Indices of both dtypes with repeats, and slices that may overlap, of an axis of this size."""
    index = st.lists(st.integers(0, size - 1), max_size=12) if size else st.just([])
    indices = st.builds(np.array, index, st.sampled_from(["<i8", "<u4"]))
    ends = st.tuples(st.integers(0, size), st.integers(0, size), st.integers(1, 4))
    triples = st.lists(ends.map(lambda e: (min(e[:2]), max(e[:2]), e[2])), max_size=4)
    return indices | triples.map(np.array).map(lambda found: found.astype(np.int64).reshape(-1, 3))


@st.composite
def cases(draw: st.DrawFn) -> tuple[Array, Selection, Array]:
    """Values, a selection of them, and an array of the selection's shape; wide and narrow, every dtype."""
    dtype = draw(st.sampled_from(list(dtypes.BY_CODE.values())))
    num_rows = draw(st.integers(0, 9))
    num_cols = draw(st.sampled_from([None, 0, 1, 3, 20]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = draw(axes(num_rows))
    if num_cols is None:
        selection = Selection(rows)
    elif rows.ndim == 1 and draw(st.booleans()):
        if num_cols == 0:
            rows = rows[:0]
        cols: Array = random.integers(0, max(1, num_cols), size=rows.shape)
        selection = Selection(rows, cols, paired=True)
    else:
        selection = Selection(rows, draw(st.none() | axes(num_cols)))
    selection.check(num_rows, num_cols)
    row_shape = () if num_cols is None else (num_cols,)
    values = numbers(random, (num_rows, *row_shape), dtype)
    return values, selection, numbers(random, selection.shape(num_cols), dtype)


def numbers(random: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "f":
        # Small whole numbers, so that no sum depends on its order.
        return random.integers(-8, 8, shape).astype(dtype)
    return (
        np.frombuffer(random.bytes(int(np.prod(shape)) * dtype.itemsize), f"u{dtype.itemsize}")
        .reshape(shape)
        .astype(dtype)
    )


def numpy_index(selection: Selection, values: Array) -> tuple[Array, ...]:
    rows = axis_indices(selection.rows)
    if values.ndim == 1:
        return (rows,)
    if selection.paired:
        assert selection.cols is not None
        return rows, selection.cols
    cols = np.arange(values.shape[1]) if selection.cols is None else axis_indices(selection.cols)
    return np.ix_(rows, cols)


@given(cases())
def test_gather_gives_what_numpy_gives_in_a_new_array(case: tuple[Array, Selection, Array]) -> None:
    values, selection, _ = case
    found = kernels.gather(values, selection)
    expected = values[numpy_index(selection, values)]
    assert found.dtype == values.dtype
    assert found.flags.c_contiguous
    assert found.flags.writeable
    assert not np.shares_memory(found, values)
    np.testing.assert_array_equal(found, expected, strict=True)


@given(cases())
def test_scatter_add_gives_what_add_at_gives(case: tuple[Array, Selection, Array]) -> None:
    values, selection, deltas = case
    expected = values.copy()
    np.add.at(expected, numpy_index(selection, values), deltas)
    deltas.flags.writeable = False  # as arrays from the network are
    kernels.scatter_add(values, selection, deltas)
    np.testing.assert_array_equal(values, expected, strict=True)


@given(cases())
def test_assign_keeps_the_last_of_several(case: tuple[Array, Selection, Array]) -> None:
    values, selection, new = case
    cells = np.arange(values.size).reshape(values.shape)[numpy_index(selection, values)]
    expected = values.copy()
    for cell, value in zip(cells.reshape(-1), new.reshape(-1), strict=True):
        expected.reshape(-1)[cell] = value
    kernels.assign(values, selection, new)
    np.testing.assert_array_equal(values, expected, strict=True)


@pytest.mark.parametrize("num_cols", [1, 2, 15, 16, 40])
def test_repeated_rows_all_count_whether_rows_are_wide_or_narrow(num_cols: int) -> None:
    values = np.zeros((5, num_cols), np.int64)
    kernels.scatter_add(values, Selection(np.array([3, 0, 3, 3])), np.ones((4, num_cols), np.int64))
    assert values[:, 0].tolist() == [1, 0, 0, 3, 0]
    assert (values == values[:, :1]).all()


def test_rows_that_are_unique_and_unsorted_take_the_wide_path_correctly() -> None:
    values = np.zeros((5, 20), np.float32)
    deltas = np.arange(60, dtype=np.float32).reshape(3, 20)
    kernels.scatter_add(values, Selection(np.array([4, 0, 2], np.uint32)), deltas)
    np.testing.assert_array_equal(values[[4, 0, 2]], deltas)
    assert not values[[1, 3]].any()


def test_uint32_rows_times_columns_do_not_wrap_at_32_bits() -> None:
    # 5 million rows of 1000 columns would be 5 GB, so the flat index is asked directly.
    cells = kernels._cells(Selection(np.array([5_000_000], np.uint32), np.array([7], np.uint32)), 1000)
    assert cells.tolist() == [[5_000_000_007]]


def test_overflow_warns_nobody() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for num_cols in (1, 20):
            small = np.full((2, num_cols), 127, np.int8)
            kernels.scatter_add(small, Selection(np.array([0, 0])), np.ones((2, num_cols), np.int8))
            assert small[0, 0] == -127
            large = np.full((2, num_cols), 60000, np.float16)
            deltas = np.full((1, num_cols), 60000, np.float16)
            kernels.scatter_add(large, Selection(np.array([0])), deltas)
            kernels.scatter_add(large, Selection(slices_of((1, 2, 1))), deltas)
            assert np.isinf(large).all()


def test_bools_are_ored() -> None:
    values = np.array([False, True, False])
    kernels.scatter_add(values, Selection(np.array([0, 0, 1])), np.array([True, True, True]))
    assert values.tolist() == [True, True, False]
