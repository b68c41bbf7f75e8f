"""Gather and scatter against numpy's own fancy indexing and ``np.add.at``."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glintpy.protocol.selection import Selection, axis_indices, slices_of
from glintpy.storage import kernels, numpy_kernels
from tests.unit.kernel_cases import Array, cases, numbers


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
def test_gather_into_an_array_gives_the_same_and_that_array(case: tuple[Array, Selection, Array]) -> None:
    values, selection, deltas = case
    out = np.empty_like(deltas)
    assert kernels.gather(values, selection, out) is out
    np.testing.assert_array_equal(out, kernels.gather(values, selection), strict=True)


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
    cells = numpy_kernels._cells(Selection(np.array([5_000_000], np.uint32), np.array([7], np.uint32)), 1000)
    assert cells.tolist() == [[5_000_000_007]]


@pytest.mark.parametrize("num_rows", [2, 16, 17, 128, 129, 300])
@pytest.mark.parametrize("num_cols", [3, 40])
@pytest.mark.parametrize("repeats", [False, True])
def test_every_number_of_rows_is_added_like_one_after_the_other(
    seed: int, num_rows: int, num_cols: int, *, repeats: bool
) -> None:
    random = np.random.default_rng(seed)
    rows = random.integers(0, 300, num_rows) if repeats else random.permutation(300)[:num_rows]
    values = random.normal(size=(300, num_cols)).astype(np.float32)
    deltas = random.normal(size=(num_rows, num_cols)).astype(np.float32)
    expected = values.copy()
    for row, delta in zip(rows.tolist(), deltas, strict=True):
        expected[row] += delta
    kernels.scatter_add(values, Selection(rows), deltas)
    assert values.tobytes() == expected.tobytes()


@given(st.integers(0, 4), st.integers(0, 30), st.integers(0, 30), st.integers(1, 4), st.integers(0, 9))
def test_a_piece_of_one_row_is_read_and_changed(row: int, one: int, other: int, step: int, seed: int) -> None:
    values = numbers(np.random.default_rng(seed), (5, 30), np.dtype("f4"))
    start, stop = sorted((one, other))
    selection = Selection(np.array([row], np.uint32), slices_of((start, stop, step)))
    expected = values[[row], start:stop:step]
    np.testing.assert_array_equal(kernels.gather(values, selection), expected, strict=True)
    kernels.scatter_add(values, selection, expected)
    np.testing.assert_array_equal(values[[row], start:stop:step], 2 * expected)
    kernels.assign(values, selection, expected)
    np.testing.assert_array_equal(values[[row], start:stop:step], expected)


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
