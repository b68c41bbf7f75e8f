"""A shard pulls copies, pushes whole or not at all, and checks everything before the first write."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from glintpy.errors import DTypeError, GlintError, KeyRangeError, ModelError, ShapeError
from glintpy.protocol.selection import Selection, slices_of
from glintpy.protocol.spec import ModelSpec
from glintpy.storage.cut import Cut
from glintpy.storage.shard import Shard

EVERY_ROW = Selection(slices_of((0, 4, 1)))


def a_shard(*, dtype: str = "float32", cols: int | None = 3, finite: bool = False) -> Shard:
    spec = ModelSpec("m", 100, cols, dtype, finite=finite)
    values = np.arange(4 * (cols or 1)).astype(dtype).reshape(4, *spec.row_shape)
    return Shard(5, spec, 1, values)


def indices(*found: int) -> NDArray[np.int64]:
    return np.array(found, np.int64)


def test_a_pull_is_a_copy_that_later_pushes_do_not_change() -> None:
    for selection in (EVERY_ROW, Selection(indices(0, 1, 2, 3)), Selection(EVERY_ROW.rows, indices(0, 1, 2))):
        shard = a_shard()
        found = shard.pull(selection)
        shard.push(selection, np.ones((4, 3), np.float32))
        np.testing.assert_array_equal(found, np.arange(12).reshape(4, 3))
        np.testing.assert_array_equal(shard.values, np.arange(12).reshape(4, 3) + 1)


def test_a_push_adds_and_an_assign_stores() -> None:
    shard = a_shard(cols=None)
    shard.push(Selection(indices(3, 0, 3)), np.array([1, 2, 3], np.float32))
    assert shard.values.tolist() == [2, 1, 2, 7]
    shard.push(Selection(indices(3, 0, 3)), np.array([1, 2, 3], np.float32), assign=True)
    assert shard.values.tolist() == [2, 1, 2, 3]


def test_a_shard_knows_its_size() -> None:
    shard = a_shard()
    assert (shard.num_rows, shard.num_bytes, shard.model_id, shard.routing) == (4, 48, 5, 1)


ONES = np.ones((2, 3), np.float32)


@pytest.mark.parametrize(
    ("selection", "values", "error", "text"),
    [
        (Selection(indices(0, 4)), ONES, KeyRangeError, "row 4 at position 1"),
        (Selection(indices(-1, 0)), ONES, KeyRangeError, "row -1 at position 0"),
        (Selection(indices(0, 1), indices(0, 1, 3)), ONES, KeyRangeError, "column 3 at position 2"),
        (Selection(slices_of((0, 5, 1))), ONES, KeyRangeError, "0:5:1"),
        (Selection(slices_of((2, 0, 1))), ONES, ShapeError, "2:0:1"),
        (Selection(indices(0, 1), indices(0), paired=True), ONES, ShapeError, r"\(2,\).*\(1,\)"),
        (Selection(indices(0, 1, 2)), ONES, ShapeError, r"\(2, 3\) for a selection of shape \(3, 3\)"),
        (Selection(indices(0, 1)), ONES[0], ShapeError, r"\(3,\) for a selection of shape \(2, 3\)"),
        (Selection(indices(0, 1)), ONES.astype("f8"), DTypeError, "float64 for a model of float32"),
    ],
)
@pytest.mark.parametrize("assign", [False, True])
def test_a_push_that_does_not_fit_changes_nothing(
    selection: Selection, values: NDArray[Any], error: type[GlintError], text: str, *, assign: bool
) -> None:
    shard = a_shard()
    before = shard.values.copy()
    with pytest.raises(error, match=text):
        shard.push(selection, values, assign=assign)
    np.testing.assert_array_equal(shard.values, before)


def test_a_pull_that_reaches_outside_is_refused() -> None:
    with pytest.raises(KeyRangeError, match="row 4 at position 0"):
        a_shard().pull(Selection(indices(4)))
    with pytest.raises(ShapeError, match="no columns"):
        a_shard(cols=None).pull(Selection(indices(1), indices(0)))


@pytest.mark.parametrize(
    "selection",
    [
        EVERY_ROW,
        Selection(slices_of((0, 1, 1), (3, 4, 1))),
        Selection(indices(3, 0, 3)),
        Selection(indices(3), slices_of((0, 2, 1))),
        Selection(indices(3, 0), indices(1)),
        Selection(indices(3, 0), indices(1, 2), paired=True),
        Selection(slices_of()),
    ],
)
def test_a_pull_into_an_array_overwrites_all_of_it(selection: Selection) -> None:
    shard = a_shard()
    expected = shard.pull(selection)
    out = np.full_like(expected, 99)
    assert shard.pull(selection, out=out) is out
    np.testing.assert_array_equal(out, expected, strict=True)
    shard.push(selection, np.ones_like(out))
    np.testing.assert_array_equal(out, expected)


@pytest.mark.parametrize(
    ("out", "error", "text"),
    [
        (np.empty((3, 3), np.float32), ShapeError, r"\(3, 3\) for a selection of shape \(2, 3\)"),
        (np.empty(6, np.float32), ShapeError, r"\(6,\) for a selection of shape \(2, 3\)"),
        (np.empty((2, 3)), DTypeError, "float64 for a model of float32"),
        (np.empty((3, 2), np.float32).T, ShapeError, "C-contiguous"),
        (np.frombuffer(bytes(24), np.float32).reshape(2, 3), ShapeError, "can be written to"),
    ],
)
def test_an_array_that_cannot_be_pulled_into_is_refused(
    out: NDArray[Any], error: type[GlintError], text: str
) -> None:
    with pytest.raises(error, match=text):
        a_shard().pull(Selection(indices(0, 1)), out=out)


def test_a_pull_that_reaches_outside_leaves_the_array_alone() -> None:
    out = np.full((1, 3), 99, np.float32)
    with pytest.raises(KeyRangeError):
        a_shard().pull(Selection(indices(4)), out=out)
    assert (out == 99).all()


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_finite_model_names_the_first_bad_value_and_changes_nothing(bad: float) -> None:
    shard = a_shard(finite=True)
    before = shard.values.copy()
    values = np.ones((2, 3), np.float32)
    values[1, 0] = values[1, 2] = bad
    with pytest.raises(DTypeError, match=rf"value {bad} at position \(1, 0\) is not finite"):
        shard.push(Selection(indices(0, 1)), values)
    np.testing.assert_array_equal(shard.values, before)
    a_shard().push(Selection(indices(0, 1)), values)


def test_a_finite_model_loads_what_it_held_when_it_was_saved() -> None:
    shard = a_shard(finite=True, cols=None)
    largest = np.full(4, np.finfo("f4").max, np.float32)
    shard.push(EVERY_ROW, largest)
    shard.push(EVERY_ROW, largest)
    saved = shard.pull(EVERY_ROW)
    assert np.isinf(saved).all()
    fresh = a_shard(finite=True, cols=None)
    fresh.push(EVERY_ROW, saved, assign=True)
    np.testing.assert_array_equal(fresh.values, saved)


def test_a_push_goes_to_every_cut_before_it_is_applied() -> None:
    shard = a_shard(cols=None)
    first = shard.begin_cut(1, slice_rows=2)
    shard.push(EVERY_ROW, np.ones(4, np.float32))
    second = shard.begin_cut(2, slice_rows=3)
    shard.push(EVERY_ROW, np.ones(4, np.float32), assign=True)
    assert [first.read(index).tolist() for index in range(2)] == [[0, 1], [2, 3]]
    assert [second.read(index).tolist() for index in range(2)] == [[1, 2, 3], [4]]
    assert shard.values.tolist() == [1, 1, 1, 1]


def test_a_refused_push_copies_nothing_into_a_cut() -> None:
    shard = a_shard()
    cut = shard.begin_cut(1, slice_rows=2)
    with pytest.raises(ShapeError):
        shard.push(Selection(indices(0)), np.ones((2, 3), np.float32))
    assert cut.num_bytes == 0


def test_no_room_for_a_cut_refuses_the_push_and_leaves_the_values(monkeypatch: pytest.MonkeyPatch) -> None:
    shard = a_shard()
    shard.begin_cut(1, slice_rows=2)
    before = shard.values.copy()

    def fails(_cut: Cut, _selection: Selection) -> None:
        raise MemoryError

    monkeypatch.setattr(Cut, "before_push", fails)
    with pytest.raises(MemoryError):
        shard.push(EVERY_ROW, np.ones((4, 3), np.float32))
    np.testing.assert_array_equal(shard.values, before)


def test_cuts_begin_once_and_end_once() -> None:
    shard = a_shard()
    cut = shard.begin_cut(1, slice_rows=2)
    assert shard.cuts == {1: cut}
    with pytest.raises(ModelError, match="cut 1 of model 'm' is there already"):
        shard.begin_cut(1, slice_rows=2)
    shard.end_cut(1)
    assert shard.cuts == {}
    with pytest.raises(ModelError, match="no cut 1"):
        shard.end_cut(1)


@pytest.mark.parametrize(
    ("values", "error"),
    [
        (np.zeros((4, 2), np.float32), ShapeError),
        (np.zeros(4, np.float32), ShapeError),
        (np.float32(1), ShapeError),
        (np.zeros((3, 4), np.float32).T, ShapeError),
        (np.zeros((4, 3), np.float64), DTypeError),
        (np.frombuffer(bytes(48), np.float32).reshape(4, 3), ShapeError),
    ],
)
def test_an_array_that_cannot_be_a_shards_is_refused(values: NDArray[Any], error: type[GlintError]) -> None:
    with pytest.raises(error):
        Shard(5, ModelSpec("m", 100, 3, "float32"), 1, values)
