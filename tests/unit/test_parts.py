"""Cutting requests into parts: together they are the request, and none is larger than a part may be."""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from glintpy import config
from glintpy.protocol.parts import Part, Positions, cut
from glintpy.protocol.selection import axis_indices, is_slices, slices_of
from glintpy.storage import kernels

ITEM_BYTES = 8


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "PART_BYTES", 96)


shared = settings(suppress_health_check=[HealthCheck.function_scoped_fixture])


@st.composite
def index_rows(draw: st.DrawFn, num_rows: int) -> tuple[NDArray[Any], Positions]:
    """Draw indices with their positions in a longer array, or all of it."""
    drawn = draw(st.lists(st.integers(0, num_rows - 1), min_size=1, max_size=60))
    rows = np.array(drawn, dtype=draw(st.sampled_from([np.int64, np.uint32])))
    if draw(st.booleans()):
        return rows, slice(0, len(drawn), 1)
    return rows, np.array(draw(st.permutations(range(len(drawn)))), dtype=np.int64)


@st.composite
def slice_rows(draw: st.DrawFn, num_rows: int) -> tuple[NDArray[Any], Positions]:
    """Draw slices one behind another, empty ones among them, and where their rows stand."""
    triples = []
    for _ in range(draw(st.integers(1, 4))):
        start = draw(st.integers(0, num_rows - 1))
        triples.append((start, draw(st.integers(start + 1, num_rows)), draw(st.integers(1, 5))))
    rows = slices_of(*triples)
    count = axis_indices(rows).size
    if draw(st.booleans()):
        step = draw(st.integers(1, 3))
        return rows, slice(2, 2 + (count - 1) * step + 1, step)
    return rows, np.array(draw(st.permutations(range(count))), dtype=np.int64)


def length_of(positions: Positions, count: int) -> int:
    """Return how long the caller's array must be."""
    if isinstance(positions, slice):
        return int(positions.stop)
    return int(positions.max()) + 1 if count else 0


def values_of(shape: tuple[int, ...]) -> NDArray[np.int64]:
    return np.arange(1, 1 + int(np.prod(shape)), dtype=np.int64).reshape(shape)


def check_sizes(parts: list[Part], num_cols: int | None) -> None:
    for part in parts:
        selected = int(np.prod(part.selection.shape(num_cols)))
        assert selected > 0
        assert part.num_bytes == selected * ITEM_BYTES
        assert part.num_bytes <= max(config.PART_BYTES, ITEM_BYTES)


def check_round_trip(
    parts: list[Part], given_values: NDArray[Any], rows: NDArray[Any], positions: Positions, cols: Any
) -> None:
    """Compare with numpy: a push of all parts is the push, a pull of all parts is the pull.

    Args:
        parts: all of them.
        given_values: (positions, ...) the caller's array.
        rows: of the request.
        positions: where they stand in the caller's array.
        cols: (c,) column indices; None: all, or a vector.
    """
    row_shape = () if given_values.ndim == 1 else (24,)
    stored, expected = np.zeros((30, *row_shape), np.int64), np.zeros((30, *row_shape), np.int64)
    for part in parts:
        own = part.of(given_values)
        assert own.flags.c_contiguous
        assert not np.shares_memory(own, given_values)
        kernels.scatter_add(stored, part.selection, own)
    where: Any = axis_indices(rows) if cols is None else (axis_indices(rows)[:, None], cols)
    np.add.at(expected, where, given_values[positions])
    np.testing.assert_array_equal(stored, expected)
    pulled = np.full_like(given_values, -1)
    for part in parts:
        part.into(pulled, kernels.gather(stored, part.selection))
    untouched = np.ones(given_values.shape[0], dtype=bool)
    untouched[positions] = False
    np.testing.assert_array_equal(pulled[positions], expected[where])
    assert (pulled[untouched] == -1).all()


either_rows = st.one_of(index_rows(30), slice_rows(30))


@shared
@given(either_rows)
def test_parts_of_a_vector_are_the_request(drawn: tuple[NDArray[Any], Positions]) -> None:
    rows, positions = drawn
    values = values_of((length_of(positions, axis_indices(rows).size),))
    parts = list(cut(rows, positions, cols=None, paired=False, num_cols=None, item_bytes=ITEM_BYTES))
    check_sizes(parts, None)
    check_round_trip(parts, values, rows, positions, None)


@shared
@given(either_rows, st.data())
def test_parts_of_a_matrix_are_the_request_also_where_a_row_is_wide(
    drawn: tuple[NDArray[Any], Positions], data: st.DataObject
) -> None:
    rows, positions = drawn
    form = data.draw(st.sampled_from(["all", "slice", "indices"]))
    cols: NDArray[Any] | None = None
    if form == "slice":
        start = data.draw(st.integers(0, 23))
        cols = slices_of((start, data.draw(st.integers(start + 1, 24)), data.draw(st.integers(1, 4))))
    elif form == "indices":
        cols = np.array(data.draw(st.lists(st.integers(0, 23), min_size=1, max_size=24, unique=True)))
    picked = None if cols is None else axis_indices(cols)
    num_cols = 24 if picked is None else picked.size
    values = values_of((length_of(positions, axis_indices(rows).size), num_cols))
    parts = list(cut(rows, positions, cols=cols, paired=False, num_cols=num_cols, item_bytes=ITEM_BYTES))
    check_sizes(parts, 24)
    check_round_trip(parts, values, rows, positions, picked)


@shared
@given(index_rows(30), st.integers(0, 2**32))
def test_parts_of_elements_keep_each_row_with_its_column(
    drawn: tuple[NDArray[Any], Positions], number: int
) -> None:
    rows, positions = drawn
    length = length_of(positions, rows.size)
    cols = np.random.default_rng(number).integers(0, 24, size=length)
    values = values_of((length,))
    parts = list(cut(rows, positions, cols=cols, paired=True, num_cols=None, item_bytes=ITEM_BYTES))
    check_sizes(parts, 24)
    stored, expected = np.zeros((30, 24), np.int64), np.zeros((30, 24), np.int64)
    for part in parts:
        kernels.scatter_add(stored, part.selection, part.of(values))
    np.add.at(expected, (rows, cols[positions]), values[positions])
    np.testing.assert_array_equal(stored, expected)


@shared
@given(st.lists(st.integers(1, 30), min_size=1, max_size=12), st.booleans())
def test_cells_of_a_row_stay_in_one_part_where_they_are_to(runs: list[int], in_order: bool) -> None:
    rows = np.repeat(np.arange(len(runs), dtype=np.uint32), runs)
    cols = np.concatenate([np.arange(run) for run in runs])
    positions: Positions = slice(0, rows.size, 1)
    if not in_order:
        positions = np.random.default_rng(rows.size).permutation(rows.size)
        cols[positions] = cols.copy()
    values = values_of((rows.size,))
    parts = list(
        cut(rows, positions, cols=cols, paired=True, num_cols=None, item_bytes=ITEM_BYTES, keeps_rows=True)
    )
    most = config.PART_BYTES // (ITEM_BYTES + 4 + 4)
    found = [part.selection.rows for part in parts]
    assert [set(part.tolist()) for part in found if part.size > most] == [
        {i} for i, n in enumerate(runs) if n > most
    ]
    # As many rows as fit: with the next row it would be more than a part.
    for one, other in pairwise(found):
        assert one[-1] != other[0]
        assert one.size + runs[int(other[0])] > most
    stored, expected = np.zeros((12, 30), np.int64), np.zeros((12, 30), np.int64)
    for part in parts:
        kernels.scatter_add(stored, part.selection, part.of(values))
    np.add.at(expected, (rows, cols[positions]), values[positions])
    np.testing.assert_array_equal(stored, expected)


def test_a_request_that_fits_is_one_part() -> None:
    (part,) = cut(slices_of((0, 4, 1)), slice(0, 4, 1), cols=None, paired=False, num_cols=3, item_bytes=8)
    assert part.selection.rows.tolist() == [[0, 4, 1]]
    assert (part.num_bytes, part.cols_at) == (96, None)


def test_slices_stay_slices_in_every_part() -> None:
    parts = list(
        cut(slices_of((0, 1000, 3)), slice(0, 334, 1), cols=None, paired=False, num_cols=1, item_bytes=8)
    )
    assert len(parts) == -(-334 // 12)
    assert all(is_slices(part.selection.rows) for part in parts)
    assert sum(part.selection.num_rows() for part in parts) == 334


def test_more_slices_than_a_message_may_have_are_several_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(config, "PART_BYTES", config.MIB)
    monkeypatch.setattr(config, "SLICES_MAX", 5)
    rows = slices_of(*[(10 * number, 10 * number + 2, 1) for number in range(12)])
    parts = list(cut(rows, slice(0, 24, 1), cols=None, paired=False, num_cols=None, item_bytes=8))
    assert [len(part.selection.rows) for part in parts] == [5, 5, 2]


def test_a_row_wider_than_a_part_is_cut_by_columns() -> None:
    parts = list(
        cut(np.array([4, 2]), slice(0, 2, 1), cols=None, paired=False, num_cols=30, item_bytes=ITEM_BYTES)
    )
    assert [(part.cols_at.start, part.cols_at.stop) for part in parts if part.cols_at is not None] == [
        (0, 12),
        (12, 24),
        (24, 30),
    ] * 2


def test_what_is_cut_is_a_copy() -> None:
    values = values_of((6,))
    parts = list(
        cut(slices_of((0, 6, 1)), slice(0, 6, 1), cols=None, paired=False, num_cols=None, item_bytes=8)
    )
    (own,) = [part.of(values) for part in parts]
    values[...] = 0
    assert own.tolist() == [1, 2, 3, 4, 5, 6]
