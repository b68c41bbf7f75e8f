"""A cut gives the values of its moment, whatever is pushed, read, and read again."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glintpy.errors import ModelError, ShapeError
from glintpy.protocol.selection import Selection, slices_of
from glintpy.storage import kernels
from glintpy.storage.cut import Cut


def push(cut: Cut, values: NDArray[np.int64], selection: Selection) -> None:
    cut.before_push(selection)
    kernels.scatter_add(values, selection, np.ones((selection.num_rows(), *values.shape[1:]), np.int64))


def test_a_slice_is_copied_only_when_a_push_touches_it() -> None:
    values = np.arange(10)
    cut = Cut(values, 4)
    assert cut.num_slices == 3
    assert cut.num_bytes == 0
    push(cut, values, Selection(np.array([9, 8])))
    assert cut.num_bytes == 2 * 8
    push(cut, values, Selection(np.array([8])))
    assert cut.num_bytes == 2 * 8
    push(cut, values, Selection(slices_of((0, 5, 1))))
    assert cut.num_bytes == 10 * 8


def test_a_step_longer_than_a_slice_copies_only_the_slices_it_lands_in() -> None:
    values = np.arange(12)
    cut = Cut(values, 2)
    push(cut, values, Selection(slices_of((1, 12, 5), (0, 0, 1))))
    assert cut.num_bytes == 3 * 2 * 8
    assert [cut.read(index).tolist() for index in (0, 3, 5)] == [[0, 1], [6, 7], [10, 11]]


def test_a_push_waits_for_copies_in_proportion_to_what_it_changes() -> None:
    values = np.zeros(1 << 20)
    cut = Cut(values, 1 << 18)
    keys = np.arange(0, 1 << 20, 1 << 14)
    cut.before_push(Selection(keys))
    assert cut.num_bytes == len(keys) * 512
    cut.before_push(Selection(keys + 1))
    assert cut.num_bytes == len(keys) * 512
    cut.before_push(Selection(slices_of((0, 100, 1), (1 << 18, (1 << 18) + 1, 1))))
    assert cut.num_bytes == len(keys) * 512 + 512
    values[:] = 1.0
    touched = np.concatenate([cut.read(index) for index in range(4)]) == 0.0
    assert touched.sum() * 8 == cut.num_bytes


def test_rows_longer_than_a_page_are_copied_alone() -> None:
    values = np.zeros((100, 1000))
    cut = Cut(values, 10)
    cut.before_push(Selection(np.array([7, 55, 7])))
    assert cut.num_bytes == 2 * 8000


def test_the_last_page_of_a_slice_may_be_shorter() -> None:
    values = np.arange(10)
    cut = Cut(values, 7, page_bytes=16)
    push(cut, values, Selection(np.array([6, 9])))
    assert cut.num_bytes == 2 * 8
    assert cut.read(0).tolist() == list(range(7))
    push(cut, values, Selection(slices_of((0, 10, 1))))
    assert cut.num_bytes == 10 * 8
    assert (cut.read(0).tolist(), cut.read(1).tolist()) == (list(range(7)), [7, 8, 9])


def test_rows_without_cells_have_nothing_to_copy() -> None:
    cut = Cut(np.empty((5, 0)), 2)
    cut.before_push(Selection(np.array([1, 4])))
    assert cut.num_bytes == 0
    assert cut.read(2).shape == (1, 0)


def test_a_slice_can_be_read_again_until_a_floor_above_it_is_named() -> None:
    values = np.arange(6)
    cut = Cut(values, 2)
    assert cut.read(0).tolist() == [0, 1]
    push(cut, values, Selection(slices_of((0, 6, 1))))
    assert cut.read(0).tolist() == [0, 1]
    assert cut.read(1, floor=1).tolist() == [2, 3]
    with pytest.raises(ModelError, match="no slice 0 in a cut of 3 of which those below 1 are done with"):
        cut.read(0)
    assert cut.read(1).tolist() == [2, 3]
    assert cut.num_bytes == 2 * 2 * 8


def test_slices_that_are_done_with_are_not_copied_any_more() -> None:
    values = np.arange(6)
    cut = Cut(values, 2)
    cut.read(2, floor=2)
    push(cut, values, Selection(slices_of((0, 4, 1))))
    assert cut.num_bytes == 0


@pytest.mark.parametrize(("index", "floor"), [(3, 0), (-1, 0), (1, 2), (3, 3), (0, 2**32)])
def test_a_slice_that_is_not_there_is_refused_and_moves_no_floor(index: int, floor: int) -> None:
    cut = Cut(np.arange(6), 2)
    with pytest.raises(ModelError):
        cut.read(index, floor=floor)
    assert cut.read(0).tolist() == [0, 1]


def test_what_is_read_is_a_copy_of_its_own() -> None:
    values = np.arange(4)
    cut = Cut(values, 2)
    cut.read(0)[:] = 99
    push(cut, values, Selection(np.array([0])))
    cut.read(0)[:] = 99
    assert cut.read(0).tolist() == [0, 1]
    assert values.tolist() == [1, 1, 2, 3]


def test_an_empty_array_has_no_slices() -> None:
    cut = Cut(np.empty((0, 3)), 5)
    assert cut.num_slices == 0
    cut.before_push(Selection(slices_of((0, 0, 1))))
    with pytest.raises(ModelError):
        cut.read(0)


def test_a_slice_without_rows_is_refused() -> None:
    with pytest.raises(ShapeError, match="not 0"):
        Cut(np.zeros(3), 0)


@st.composite
def selections(draw: st.DrawFn, num_rows: int) -> Selection:
    if draw(st.booleans()):
        found = draw(st.lists(st.integers(0, num_rows - 1), max_size=4))
        return Selection(np.array(found, draw(st.sampled_from(["<i8", "<u4"]))))
    ends = st.tuples(st.integers(0, num_rows), st.integers(0, num_rows), st.integers(1, 9))
    triples = draw(st.lists(ends, max_size=3))
    return Selection(slices_of(*[(min(a, b), max(a, b), step) for a, b, step in triples]))


@given(
    st.data(), st.integers(1, 25), st.integers(1, 8), st.integers(1, 50), st.sampled_from([(), (1,), (2,)])
)
def test_any_run_of_pushes_and_reads_sees_one_moment(
    data: st.DataObject, num_rows: int, slice_rows: int, page_bytes: int, row_shape: tuple[int, ...]
) -> None:
    values = np.arange(num_rows * math.prod(row_shape)).reshape(num_rows, *row_shape)
    moment = values.copy()
    cut = Cut(values, slice_rows, page_bytes=page_bytes)
    floor = 0
    for _ in range(data.draw(st.integers(0, 20))):
        if data.draw(st.booleans()):
            push(cut, values, data.draw(selections(num_rows)))
        else:
            index = data.draw(st.integers(floor, cut.num_slices - 1))
            floor = data.draw(st.integers(floor, index))
            expected = moment[index * slice_rows : (index + 1) * slice_rows]
            np.testing.assert_array_equal(cut.read(index, floor=floor), expected, strict=True)
