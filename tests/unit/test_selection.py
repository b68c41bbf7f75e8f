"""Selections: what they select, against numpy, and what they refuse before anything is touched."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glintpy.errors import KeyRangeError, ShapeError
from glintpy.protocol.selection import (
    Selection,
    axis_indices,
    axis_length,
    check_axis,
    is_slices,
    slices_of,
)

BIG = 2**63 - 1


@st.composite
def slice_triples(draw: st.DrawFn) -> tuple[int, int, int]:
    start = draw(st.integers(0, 30))
    return start, draw(st.integers(start, 30)), draw(st.integers(1, 9))


@st.composite
def axes(draw: st.DrawFn) -> NDArray[Any]:
    """Any axis whose indices are below 30."""
    if draw(st.booleans()):
        return slices_of(*draw(st.lists(slice_triples(), max_size=5)))
    dtype = draw(st.sampled_from([np.int64, np.uint32]))
    return np.array(draw(st.lists(st.integers(0, 29), max_size=8)), dtype=dtype)


def written_out(axis: NDArray[Any]) -> list[int]:
    """Return an axis as a list, by Python's own slices."""
    if not is_slices(axis):
        return [int(index) for index in axis]
    return [index for start, stop, step in axis.tolist() for index in range(30)[start:stop:step]]


@given(axes())
def test_an_axis_selects_what_python_selects(axis: NDArray[Any]) -> None:
    indices = axis_indices(axis)
    assert indices.dtype == np.int64
    assert indices.tolist() == written_out(axis)
    assert axis_length(axis) == len(indices)


@given(axes(), st.integers(0, 30))
def test_an_axis_is_refused_exactly_where_an_index_is_outside(axis: NDArray[Any], size: int) -> None:
    outside = [index for index in written_out(axis) if index >= size]
    if outside:
        with pytest.raises(KeyRangeError, match=rf"\[0, {size}\)"):
            check_axis(axis, size, what="row")
    else:
        check_axis(axis, size, what="row")


@pytest.mark.parametrize("length", [15, 16, 17, 1000])
@pytest.mark.parametrize("position", [0, 7, 14])
def test_one_bad_index_is_found_among_few_and_many(length: int, position: int) -> None:
    for bad, dtype in (
        (10, "<u4"),
        (10, "<i8"),
        (-1, "<i8"),
        (2**32 - 1, "<u4"),
        (BIG, "<i8"),
        (-BIG - 1, "<i8"),
    ):
        axis = np.arange(length).astype(dtype) % 10
        assert check_axis(axis, 10, what="row") == length
        axis[position] = bad
        with pytest.raises(KeyRangeError, match=rf"row {bad} at position {position} is outside \[0, 10\)"):
            check_axis(axis, 10, what="row")


@given(axes(), st.none() | axes(), st.integers(1, 4))
def test_checking_tells_the_shape(rows: NDArray[Any], cols: NDArray[Any] | None, num_cols: int) -> None:
    width = 30 if cols is not None else num_cols
    selection = Selection(rows, cols)
    assert selection.check(30, width) == selection.shape(width)
    if cols is None:
        assert selection.check(30, None) == selection.shape(None)
    elif not is_slices(rows) and not is_slices(cols) and rows.size == cols.size:
        assert Selection(rows, cols, paired=True).check(30, 30) == (rows.size,)


@given(axes(), st.none() | axes(), st.integers(1, 4))
def test_the_shape_is_that_of_numpy(rows: NDArray[Any], cols: NDArray[Any] | None, num_cols: int) -> None:
    matrix = np.zeros((30, 30 if cols is not None else num_cols))
    chosen = (
        matrix[written_out(rows)] if cols is None else matrix[np.ix_(written_out(rows), written_out(cols))]
    )
    assert Selection(rows, cols).shape(matrix.shape[1]) == chosen.shape


def test_elements_have_one_dimension() -> None:
    selection = Selection(np.array([3, 1, 3]), np.array([0, 0, 1]), paired=True)
    assert selection.shape(4) == (3,)
    assert selection.num_rows() == 3
    selection.check(4, 2)


def test_rows_of_a_vector_have_one_dimension() -> None:
    assert Selection(slices_of((0, 10, 3))).shape(None) == (4,)


def test_the_first_bad_index_and_its_position_are_named() -> None:
    with pytest.raises(KeyRangeError, match=r"row 12 at position 2 is outside \[0, 10\)"):
        check_axis(np.array([9, 0, 12, 13]), 10, what="row")
    with pytest.raises(KeyRangeError, match=r"column -1 at position 1 is outside \[0, 10\)"):
        check_axis(np.array([9, -1]), 10, what="column")
    with pytest.raises(KeyRangeError, match=r"row 4294967295 at position 0"):
        check_axis(np.array([2**32 - 1], dtype=np.uint32), 10, what="row")


@pytest.mark.parametrize(
    "triple", [(0, 5, 0), (0, 5, -1), (-1, 5, 1), (5, 4, 1), (-(2**63), BIG, 1), (0, -1, 1)]
)
def test_slices_that_do_not_run_forward_are_refused(triple: tuple[int, int, int]) -> None:
    axis = slices_of((0, 1, 1), triple)
    with pytest.raises(ShapeError, match="doesn't run forward"):
        check_axis(axis, 10, what="row")
    # A server asks for the shape of a foreign selection, too.
    with pytest.raises(ShapeError, match="doesn't run forward"):
        axis_length(axis)


@pytest.mark.parametrize(
    "triple", [(0, 11, 1), (10, 11, 1), (1, 11, 9), (0, BIG, BIG - 1), (BIG - 1, BIG, 1)]
)
def test_slices_that_reach_outside_are_refused(triple: tuple[int, int, int]) -> None:
    with pytest.raises(KeyRangeError, match=r"reaches outside \[0, 10\)"):
        check_axis(slices_of(triple), 10, what="row")


@pytest.mark.parametrize(
    "triple", [(0, 10, 1), (9, 10, 1), (0, BIG, BIG), (0, 12, 12), (BIG, BIG, 1), (0, 0, 1)]
)
def test_slices_whose_last_index_is_inside_are_taken(triple: tuple[int, int, int]) -> None:
    check_axis(slices_of(triple), 10, what="row")


def test_lengths_beyond_32_and_63_bits_are_exact() -> None:
    assert axis_length(slices_of((0, BIG, 1))) == BIG
    assert axis_length(slices_of((0, BIG, 1), (0, BIG, 1))) == 2 * BIG
    assert axis_length(slices_of((0, 2**40, 3))) == -(-(2**40) // 3)


def test_slices_of_indices_that_no_float_holds_are_written_out_exactly() -> None:
    first, step = 2**40, 2**50
    written = axis_indices(slices_of((first, first + 8 * step + 1, step), (2**62, 2**62 + 2, 1)))
    assert written.tolist() == [*(first + step * number for number in range(9)), 2**62, 2**62 + 1]


def test_empty_selections() -> None:
    for empty in (np.empty(0, np.int64), np.empty(0, np.uint32), slices_of(), slices_of((3, 3, 1))):
        assert axis_length(empty) == 0
        assert axis_indices(empty).tolist() == []
        check_axis(empty, 0, what="row")
        assert Selection(empty).shape(5) == (0, 5)
        assert Selection(empty, empty).shape(5) == (0, 0)


@pytest.mark.parametrize(
    ("selection", "num_cols", "reason"),
    [
        (Selection(np.array([0]), None, paired=True), 2, "elements need columns"),
        (Selection(np.array([0]), np.array([0])), None, "a vector has no columns"),
        (Selection(np.array([0]), np.array([0, 1]), paired=True), 2, "elements need a column a row"),
        (Selection(slices_of((0, 1, 1)), np.array([0]), paired=True), 2, "elements need a column a row"),
        (Selection(np.array([0]), slices_of((0, 1, 1)), paired=True), 2, "elements need a column a row"),
    ],
    ids=["no columns", "vector", "lengths", "row slices", "column slices"],
)
def test_rows_and_columns_that_do_not_fit_are_refused(
    selection: Selection, num_cols: int | None, reason: str
) -> None:
    with pytest.raises(ShapeError, match=reason):
        selection.check(5, num_cols)


def test_columns_are_checked_against_the_columns() -> None:
    selection = Selection(np.array([4]), np.array([3]))
    selection.check(5, 4)
    with pytest.raises(KeyRangeError, match="column 3"):
        selection.check(5, 3)
    with pytest.raises(KeyRangeError, match="row 4"):
        selection.check(4, 4)
