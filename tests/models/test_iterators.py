"""The iterators: what they yield and what they keep in flight."""

from __future__ import annotations

import asyncio
import itertools
from typing import Any

import numpy as np
import pytest

from glintpy.config import KIB, MIB
from glintpy.models.iterators import ColumnIterator, RowBlockIterator, RowIterator
from tests.models.fake_model import FakeModel, HugeMatrix, Request
from tests.models.iterating import (
    EVERY,
    Make,
    assert_same,
    blocks_of_three,
    collected,
    columns,
    expected_of,
    matrix,
    rows_by_threes,
    rows_one_by_one,
    spans,
    values_of,
    wide_columns,
)

# --- what they yield ------------------------------------------------------------------------------------


SHAPES = [(10, 3), (9, 3), (1, 1), (1, 4), (4, 1), (2, 7), (0, 3), (5, 0), (0, 0)]


@EVERY
def test_every_way_to_iterate_yields_the_matrix(make: Make) -> None:
    for shape, dtype in itertools.product(SHAPES, ["float32", "int16", "bool"]):
        m = matrix(*shape, dtype=dtype)
        expected = expected_of(make, m.array)
        iterator = make(m, 4)
        assert len(iterator) == len(expected)
        assert_same(list(iterator), expected)
        assert_same(list(iterator), expected)  # each pass begins anew
        assert_same(values_of(m, iterator), expected)
        assert_same(asyncio.run(collected(iterator)), expected)


@pytest.mark.parametrize("make", [rows_one_by_one, rows_by_threes, blocks_of_three])
def test_no_rows_send_nothing(make: Make) -> None:
    m = matrix(0, 3)
    iterator = make(m, 4)
    assert list(iterator) == list(iterator.futures()) == asyncio.run(collected(iterator)) == []
    assert m.requests == []


def test_no_columns_send_nothing() -> None:
    m = matrix(3, 0)
    assert list(ColumnIterator(m)) == []
    assert m.requests == []


@EVERY
def test_items_are_contiguous_and_the_consumers_to_change(make: Make) -> None:
    m = matrix(7, 5)
    before = m.array.copy()
    items = list(make(m, 2))
    for item in items:
        assert item.flags.c_contiguous
        np.copyto(item, item + 1)
    # None was seen through another, and none is the model's.
    assert_same(items, [item + 1 for item in expected_of(make, before)])
    np.testing.assert_array_equal(m.array, before)


@pytest.mark.parametrize("kind", [RowIterator, ColumnIterator])
def test_a_kept_item_does_not_keep_its_block(kind: type[RowIterator | ColumnIterator]) -> None:
    m = matrix(50, 40)
    assert all(item.base is None for item in kind(m))
    assert all(item.base is None for item in values_of(m, kind(m)))


def test_rows_start_and_stop_where_they_are_told() -> None:
    m = matrix(10, 3)
    iterator = RowIterator(m, start=2, stop=9, block_rows=4)
    assert len(iterator) == 7
    assert_same(list(iterator), list(m.array[2:9]))
    assert spans(m) == [(2, 6), (6, 9)]
    assert list(RowIterator(m, start=4, stop=4)) == []
    assert list(RowIterator(m, start=10)) == []
    assert_same(list(RowIterator(m, start=9)), [m.array[9]])


def test_requests_have_the_size_that_suits_the_network() -> None:
    m = FakeModel(np.zeros((1000, KIB // 4), np.float32))
    next(RowIterator(m))
    assert spans(m)[:2] == [(0, 256), (256, 512)]
    m = FakeModel(np.zeros((64 * KIB, 40), np.float32))
    next(ColumnIterator(m))
    assert spans(m)[:2] == [(0, 4), (4, 8)]
    m = FakeModel(np.zeros((3, MIB), np.float32))  # a row larger than a request
    next(RowIterator(m, depth=2))
    assert spans(m) == [(0, 1), (1, 2), (2, 3)]


def test_columns_travel_as_slices_of_columns() -> None:
    m = matrix(10, 3)
    list(ColumnIterator(m))
    assert [(request.rows, request.cols) for request in m.requests] == [(None, slice(0, 3))]


def test_a_huge_matrix_does_not_overflow() -> None:
    num_rows = 2**40 + 1
    m = HugeMatrix(num_rows)
    iterator = RowIterator(m, start=num_rows - 3, block_rows=2)
    assert [int(row[0]) for row in iterator] == [num_rows - 3, num_rows - 2, num_rows - 1]
    whole = RowIterator(m)
    assert len(whole) == num_rows
    assert int(next(whole)[0]) == 0
    assert len(RowBlockIterator(m, 2)) == 2**39 + 1


# --- what they keep in flight ---------------------------------------------------------------------------


@EVERY
def test_nothing_is_sent_before_the_first_item_is_asked_for(make: Make) -> None:
    m = matrix()
    iterator = make(m, 4)
    passes: list[Any] = [iter(iterator), iterator.futures(), aiter(iterator)]
    assert len(iterator) > 0
    assert m.requests == []
    del passes
    assert m.requests == []


@pytest.mark.parametrize("depth", [1, 2, 4, 100])
@pytest.mark.parametrize("make", [rows_one_by_one, blocks_of_three, columns])
def test_depth_requests_are_in_flight_ahead_of_the_consumer(make: Make, depth: int) -> None:
    m = wide_columns() if make is columns else matrix(30, 3)
    num_requests = 30 if make is rows_one_by_one else 10
    for number, _ in enumerate(make(m, depth), start=1):
        assert len(m.requests) == min(number + depth, num_requests)
        assert len(m.in_flight) == min(depth, num_requests - number)
    assert m.peak == min(depth, num_requests)
    assert len(m.requests) == num_requests


@pytest.mark.parametrize("depth", [1, 3])
def test_depth_holds_under_async_for(depth: int) -> None:
    m = matrix(30, 3)

    async def main() -> None:
        number = 0
        async for _ in RowBlockIterator(m, 3, depth=depth):
            number += 1
            assert len(m.in_flight) == min(depth, 10 - number)

    asyncio.run(main())
    assert m.peak == depth
    assert len(m.requests) == 10


@EVERY
def test_answers_in_any_order_change_nothing(make: Make) -> None:
    m = wide_columns() if make is columns else matrix(20, 3)

    def backwards(_: Request) -> None:
        for request in reversed(m.in_flight):
            request.complete()

    m.on_wait = backwards
    assert_same(list(make(m, 4)), expected_of(make, m.array))
    assert_same(asyncio.run(collected(make(m, 4))), expected_of(make, m.array))


def test_futures_are_handed_out_undone_and_keep_depth_in_flight() -> None:
    m = matrix(30, 3)
    stream = RowBlockIterator(m, 3, depth=4).futures()
    first = next(stream)
    assert not first.done()
    assert len(m.in_flight) == 4
    second = next(stream)
    assert not second.done()
    assert len(m.in_flight) == 5
    m.complete_all()
    np.testing.assert_array_equal(second.result(0), m.array[3:6])
    next(stream)
    assert len(m.in_flight) == 1
    assert spans(m) == [(start, start + 3) for start in range(0, 18, 3)]


def test_futures_of_rows_share_the_request_of_their_block() -> None:
    m = matrix(10, 3)
    stream = RowIterator(m, block_rows=4, depth=2).futures()
    futures = [next(stream) for _ in range(4)]
    assert spans(m) == [(0, 4), (4, 8)]
    assert not any(future.done() for future in futures)
    m.requests[0].complete()
    assert_same([future.result(0) for future in futures], list(m.array[:4]))
    futures.extend(stream)
    m.complete_all()
    assert_same([future.result(0) for future in futures], list(m.array))
