"""Keys as users type them: every form gives what numpy gives, and every mistake its numbers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from glintpy.errors import DTypeError, KeyRangeError, ShapeError
from glintpy.models.indexing import parse_item, parse_pull
from tests.unit.asking import assert_same, item, pulled

MATRIX = np.arange(60).reshape(10, 6)
VECTOR = np.arange(10) * 7
MASK = np.arange(10) % 3 == 0  # 4 of 10
COL_MASK = np.array([True, False, True, True, False, True])  # 4 of 6


class Number:
    """An object that numpy reads as an array, as tensors are."""

    def __init__(self, array: Any) -> None:
        self.array = np.asarray(array)

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> NDArray[Any]:
        return self.array


# --- pull -------------------------------------------------------------------------------------------------

AXIS_FORMS: list[tuple[Any, Any]] = [
    # what is typed, and what numpy understands by it
    (3, 3),
    (np.int8(3), 3),
    (np.uint64(3), 3),
    (np.array(3), 3),
    (Number(3), 3),
    (slice(2, 9, 2), slice(2, 9, 2)),
    (slice(None), slice(None)),
    (slice(-3, None), slice(-3, None)),
    (slice(None, None, -1), slice(None, None, -1)),
    (slice(8, 1, -3), slice(8, 1, -3)),
    (slice(5, 2), slice(5, 2)),
    (slice(2, 3, 10**30), slice(2, 3, 1)),
    (slice(np.int16(1), np.uint8(4)), slice(1, 4)),
    ([5, 1, 5], [5, 1, 5]),
    ((5, 1, 5), [5, 1, 5]),
    ([np.int64(1), np.uint64(2)], [1, 2]),
    (np.array([5, 1, 5], dtype=np.uint8), [5, 1, 5]),
    (np.array([5, 1, 5], dtype=np.uint64), [5, 1, 5]),
    (np.array([5, 1, 5], dtype=">i4"), [5, 1, 5]),
    (np.arange(10)[::-3], [9, 6, 3, 0]),
    (Number([4, 2]), [4, 2]),
    (range(2, 5), [2, 3, 4]),
    (range(1, 8, 3), [1, 4, 7]),
    (range(8, 1, -3), [8, 5, 2]),
    (range(5, 5), []),
    ([], []),
    ((), []),
    (np.array([], dtype=np.int32), []),
    (MASK, MASK),
    (MASK.tolist(), MASK),
    (np.zeros(10, np.bool_), np.zeros(10, np.bool_)),
    (None, slice(None)),
]


def as_index(meaning: Any) -> Any:
    return np.array(meaning, dtype=np.int64) if isinstance(meaning, list) else meaning


@pytest.mark.parametrize(("typed", "meaning"), AXIS_FORMS)
def test_rows_are_read_in_every_form(typed: Any, meaning: Any) -> None:
    assert_same(pulled(MATRIX, typed), MATRIX[as_index(meaning)])


@pytest.mark.parametrize(("typed", "meaning"), AXIS_FORMS)
def test_columns_alone_are_whole_columns(typed: Any, meaning: Any) -> None:
    assert_same(pulled(MATRIX.T, None, typed), MATRIX.T[:, as_index(meaning)])


@pytest.mark.parametrize(("typed", "meaning"), AXIS_FORMS)
def test_keys_of_a_vector_are_read_in_every_form(typed: Any, meaning: Any) -> None:
    assert_same(pulled(VECTOR, typed), VECTOR[as_index(meaning)])


@pytest.mark.parametrize(
    ("rows", "cols", "expected"),
    [
        ([3, 1, 3], [0, 5, 0], [18, 11, 18]),
        (3, 4, 22),
        (np.int32(3), np.uint8(4), 22),
        ([3], [4], [22]),
        ([], [], []),
        (slice(0, 3), [5, 4, 3], [5, 10, 15]),
        (slice(2, None, -1), [5, 4, 3], [17, 10, 3]),
        (range(2, -1, -1), range(3), [12, 7, 2]),
        (slice(0, 6), slice(None), [0, 7, 14, 21, 28, 35]),
        (MASK, COL_MASK, [0, 20, 39, 59]),
        (MASK, [0, 0, 0, 0], [0, 18, 36, 54]),
    ],
)
def test_rows_with_columns_are_elements_in_pairs(rows: Any, cols: Any, expected: Any) -> None:
    assert_same(pulled(MATRIX, rows, cols), expected)


@pytest.mark.parametrize(
    ("rows", "cols", "lengths"),
    [
        ([1, 2, 3], [1, 2], (3, 2)),
        (1, [1, 2], (1, 2)),
        (1, [1], (1, 1)),
        ([1, 2], 1, (2, 1)),
        (slice(None), slice(None), (10, 6)),
        (MASK, [1], (4, 1)),
        ([], 0, (0, 1)),
    ],
)
def test_pairs_of_different_lengths_are_refused_with_both(
    rows: Any, cols: Any, lengths: tuple[int, int]
) -> None:
    with pytest.raises(ShapeError, match=rf"rows .*length {lengths[0]}\b.*cols .*length {lengths[1]}\b"):
        pulled(MATRIX, rows, cols)


OUTSIDE: list[tuple[Any, str]] = [
    (-1, r": -1 is outside \[0, 10\).*count from the end only in m\[\.\.\.\]"),
    (10, r": 10 is outside \[0, 10\)$"),
    (2**70, rf": {2**70} is outside"),
    (np.uint64(2**64 - 1), rf": {2**64 - 1} is outside"),
    ([1, 2, -3, -4], r": -3 at position 2 is outside"),
    ([1, 10, -3], r": 10 at position 1 is outside"),
    ([1, 2**63], rf": {2**63} at position 1"),
    ([1, 2**64], rf": {2**64} at position 1"),
    ([-1, 2**63], r": -1 at position 0"),
    ([np.int64(1), np.uint64(20)], r": 20 at position 1"),
    (np.array([0, 2**63], dtype=np.uint64), rf": {2**63} at position 1"),
    (np.array([0, -128], dtype=np.int8), r": -128 at position 1"),
    (np.array([0, -(2**63)]), rf": {-(2**63)} at position 1"),
    (range(8, 12), r": 10 at position 2"),
    (range(7, 30, 2), r": 11 at position 2"),
    (range(2, -3, -1), r": -1 at position 3"),
    (range(3, -3, -2), r": -1 at position 2"),
    (range(-2, 3), r": -2 at position 0"),
    (range(12, 3, -1), r": 12 at position 0"),
    (range(10**40), r": 10 at position 10"),
]


@pytest.mark.parametrize(("keys", "message"), OUTSIDE)
def test_keys_outside_are_named_with_their_position(keys: Any, message: str) -> None:
    with pytest.raises(KeyRangeError, match="^rows" + message):
        pulled(MATRIX, keys)
    with pytest.raises(KeyRangeError, match="^cols" + message):
        pulled(MATRIX.T, None, keys)
    with pytest.raises(KeyRangeError, match="^keys" + message):
        pulled(VECTOR, keys)


def raising(error: Exception) -> Any:
    class Unreadable:
        def __array__(self, dtype: Any = None, copy: bool | None = None) -> Any:
            raise error

    return Unreadable()


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        (1.0, "float64 1.0"),
        ([1.0, 2.0], "an array of float64"),
        ([1, 2.5], "an array of float64"),
        (np.array([]), "an array of float64"),
        (np.float32(1), "float32"),
        ("a", "<U1 'a'"),
        (["a"], "an array of <U1"),
        (b"a", r"\|S1"),
        (True, "bool True"),
        (np.True_, "bool"),
        (np.array(False), "bool"),
        (1j, "complex128"),
        (object(), "object"),
        ({1, 2}, "a set, can.t be read"),
        (..., "object"),
        ([None], "object"),
        (np.array([1, 2], dtype=object), "object"),
        (np.timedelta64(3), "timedelta64"),
        ([np.timedelta64(3)], "timedelta64"),
        (np.datetime64("2020-01-01"), "datetime64"),
        (np.ma.array([1, 2], mask=[False, True]), "masked array"),
        (slice("a", "b"), "between integers"),
        (slice(0, 2.5), "between integers"),
        (raising(TypeError("it lies on a device")), "it lies on a device"),
        (raising(RuntimeError("it wants a gradient")), "it wants a gradient"),
    ],
)
def test_what_is_no_integer_is_a_type_error(keys: Any, message: str) -> None:
    with pytest.raises(DTypeError, match=f"^rows.*{message}") as caught:
        pulled(MATRIX, keys)
    assert isinstance(caught.value, TypeError)
    with pytest.raises(DTypeError, match=f"^cols.*{message}"):
        pulled(MATRIX, None, keys)
    with pytest.raises(DTypeError, match=f"^keys.*{message}"):
        pulled(VECTOR, keys)


@pytest.mark.parametrize(
    ("keys", "message"),
    [
        ([[1, 2]], r"2 dimensions, shape \(1, 2\)"),
        ([[]], r"2 dimensions, shape \(1, 0\)"),
        (np.zeros((10, 6), np.bool_), r"2 dimensions, shape \(10, 6\)"),
        ([[1], [2, 3]], "can't be read as one array"),
        (MASK[:7], "mask of length 7 for an axis of length 10"),
        ([True], "mask of length 1 for an axis of length 10"),
        (slice(0, 5, 0), "step isn't 0"),
    ],
)
def test_keys_of_a_wrong_shape_are_refused(keys: Any, message: str) -> None:
    with pytest.raises(ShapeError, match=f"^rows.*{message}"):
        pulled(MATRIX, keys)
    with pytest.raises(ShapeError, match=f"^things.*{message}"):
        parse_pull(keys, num_rows=10, num_cols=None, what="things")


def test_a_vector_has_no_columns() -> None:
    with pytest.raises(ShapeError, match="a vector has no columns"):
        pulled(VECTOR, [1], [1])


@pytest.mark.parametrize("shape", [(0, 6), (10, 0), (0, 0)])
def test_models_without_cells_are_asked_for_nothing(shape: tuple[int, int]) -> None:
    model = np.empty(shape)
    keys: list[Any] = [None, [], slice(None), slice(None, None, -1), np.zeros(shape[0], np.bool_)]
    for key in keys:
        assert parse_pull(key, num_rows=shape[0], num_cols=shape[1]).empty
        pulled(model, key)
    assert_same(pulled(model), model)
    assert_same(item(model, ...), model)


def test_ranges_stay_ranges_whatever_the_size() -> None:
    huge = 2**61
    asked = parse_pull(None, num_rows=huge, num_cols=None)
    assert asked.rows == range(huge)
    assert asked.shape == (huge,)
    assert parse_pull(range(5, huge, 7), num_rows=huge, num_cols=3).rows == range(5, huge, 7)
    backward = parse_item((slice(None, None, -1), slice(0, 3)), num_rows=huge, num_cols=3)
    assert (backward.rows, backward.flip_rows, backward.cols) == (range(huge), True, None)
    assert parse_pull([huge - 1, 0], num_rows=huge, num_cols=3).shape == (2, 3)
    with pytest.raises(KeyRangeError, match=rf"{huge} at position 1"):
        parse_pull([0, huge], num_rows=huge, num_cols=3)


@pytest.mark.parametrize("keys", [np.array([3, 1]), np.array([3, 1], dtype=np.uint64)])
def test_keys_are_ours_and_the_callers_array_stays_as_it_was(keys: NDArray[Any]) -> None:
    for asked in (
        parse_pull(keys, num_rows=10, num_cols=6),
        parse_pull(keys, keys, num_rows=10, num_cols=6),
        parse_item(keys, num_rows=10, num_cols=6),
    ):
        assert isinstance(asked.rows, np.ndarray)
        assert not np.shares_memory(asked.rows, keys)
    negative = np.array([-1, 2])
    parse_item(negative, num_rows=10, num_cols=6)
    assert negative.tolist() == [-1, 2]


def test_out_is_written_through_the_wire_view() -> None:
    asked = parse_pull(slice(4, 1, -1), num_rows=10, num_cols=6)
    out = np.zeros((3, 6))
    asked.to_wire(out)[...] = MATRIX[2:5]
    assert_same(out, MATRIX[4:1:-1])
    single = parse_pull(3, 4, num_rows=10, num_cols=6)
    scalar = np.zeros(())
    single.to_wire(scalar)[...] = 22
    assert scalar == 22


def test_a_broadcast_is_not_written_out_on_its_way() -> None:
    values = np.broadcast_to(np.float64(1), (6,))
    assert parse_pull(3, num_rows=10, num_cols=6).to_wire(values).strides[-1] == 0


# --- m[...] -----------------------------------------------------------------------------------------------

LISTS = [[1, 5], [-1, 0, -1], [], [2], np.array([3, -3], dtype=np.int8), np.array([4], dtype=np.uint64)]
MATRIX_KEYS: list[Any] = [
    3, -1, np.int64(-2), np.array(-2), ..., (), slice(None), slice(2, 9, 2), slice(None, None, -1),
    *LISTS, MASK, MASK.tolist(), range(3), range(-2, 2), range(-10, 3, 4), range(2, -3, -1), range(5, 1, -2),
    (3, 4), (-1, -1), (3, slice(None, 4)), (slice(1, 3), slice(2, 5)), (slice(None), 0), (slice(None), -1),
    (slice(None, None, -2), slice(None, None, -1)), (slice(None, None, -1), 2), (2, slice(None, None, -1)),
    ([1, 2], [3, 4]), ([1, 2], [3]), ([1], [3, 4]), ([], [1]), ([1], []), ([], []),
    (range(3, 0, -1), [1, 2, 3]),
    (range(3, 0, -1), range(-1, 2)), ([1, 2], slice(2, 5)), (slice(2, 5), [1, 2]), ([-1, 2], slice(None)),
    ([1, 2], 3), (3, [1, 2]), (3, []), (MASK, 0), (0, COL_MASK), (MASK, COL_MASK), (MASK, slice(0, 2)),
    (slice(0, 2), COL_MASK), (MASK, [5]), (..., 0), (..., [1, 2]), (0, ...), ([1, 2], ...), (3, 4, ...),
    (..., 3, 4), (3, ..., 4), ([1, 2], ..., [3, 4]), (slice(1, 2), ..., slice(1, 2)), ((1, 2),),
]  # fmt: skip
VECTOR_KEYS: list[Any] = [
    3, -1, ..., (), (3,), (3, ...), (..., -3), slice(None), slice(2, 5), slice(None, None, -3), *LISTS, MASK,
    range(-2, 2), (slice(1, 3),), ([1, 2],),
]  # fmt: skip


@pytest.mark.parametrize("key", MATRIX_KEYS)
def test_a_matrix_reads_as_numpy(key: Any) -> None:
    assert_same(item(MATRIX, key), MATRIX[key])


@pytest.mark.parametrize("key", VECTOR_KEYS)
def test_a_vector_reads_as_numpy(key: Any) -> None:
    assert_same(item(VECTOR, key), VECTOR[key])


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (None, "newaxis"),
        ((slice(None), None), "newaxis"),
        ((1, 2, 3), "3 indices for 2 axes"),
        ((1, 2, None), "newaxis"),
        ((..., ...), "more than one"),
        ([[1, 2]], "2 dimensions"),
        (np.zeros((10, 6), np.bool_), "2 dimensions"),
        (1.0, "float64"),
        ("a", "<U1"),
        (True, "bool"),
        ((0, 1.5), "float64"),
        ([0.5], "float64"),
        (slice(None, None, 0), "step isn't 0"),
        (slice("a", None), "between integers"),
        (MASK[:3], "mask of length 3 for an axis of length 10"),
        (([1, 2, 3], [1, 2]), "rows has length 3 and cols 2"),
        (([1, 2], []), "rows has length 2 and cols 0"),
    ],
)
def test_what_is_not_supported_names_pull(key: Any, message: str) -> None:
    with pytest.raises(KeyRangeError, match=rf"{message}.*use pull\(rows, cols\)") as caught:
        item(MATRIX, key)
    assert isinstance(caught.value, IndexError)


def test_what_a_vector_does_not_support_names_its_pull() -> None:
    for key in ((1, 2), None, "a", [[1]], (0, 1.5)):
        with pytest.raises(KeyRangeError, match=r"use pull\(keys\)"):
            item(VECTOR, key)


@pytest.mark.parametrize(
    ("key", "message"),
    [
        (10, r"rows: 10 is outside \[-10, 10\)"),
        (-11, r"rows: -11 is outside \[-10, 10\)"),
        ((0, 6), r"cols: 6 is outside \[-6, 6\)"),
        ([0, -11, 10], r"rows: -11 at position 1"),
        (np.array([0, 2**64 - 1], dtype=np.uint64), rf"rows: {2**64 - 1} at position 1"),
        (([10], []), r"rows: 10 at position 0"),
        ((slice(None), [0, 1, -7]), r"cols: -7 at position 2"),
        (range(-9, 30), r"rows: 10 at position 19"),
        (range(0, -30, -4), r"rows: -12 at position 3"),
        ([-(2**70)], rf"rows: {-(2**70)} at position 0"),
    ],
)
def test_items_outside_are_named_with_their_position(key: Any, message: str) -> None:
    with pytest.raises(KeyRangeError, match=message):
        item(MATRIX, key)
