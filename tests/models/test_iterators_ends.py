"""How the iterators end: by their end, a failure, a break, or a mistake in their arguments."""

from __future__ import annotations

import asyncio
import gc
import weakref
from contextlib import aclosing
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from glintpy.errors import ConfigError, ModelNotFound, PullFailed, ShapeError
from glintpy.futures import Future, failed
from glintpy.models.iterators import ColumnIterator, RowBlockIterator, RowIterator
from tests.models.fake_model import FakeModel, Request
from tests.models.iterating import (
    EVERY,
    Make,
    assert_same,
    blocks_of_three,
    collected,
    columns,
    expected_of,
    matrix,
    rows_one_by_one,
    wide_columns,
)


@EVERY
def test_next_drives_one_pass_that_stays_ended(make: Make) -> None:
    m = matrix()
    iterator = make(m, 4)
    expected = expected_of(make, m.array)
    assert_same([next(iterator) for _ in expected], expected)
    num_requests = len(m.requests)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(iterator)
    assert len(m.requests) == num_requests
    assert_same(list(iterator), expected)  # iter() is another pass


def test_anext_drives_one_pass_that_stays_ended() -> None:
    async def main() -> None:
        m = matrix(2, 3)
        iterator = RowIterator(m)
        assert_same([await anext(iterator), await anext(iterator)], list(m.array))
        for _ in range(2):
            with pytest.raises(StopAsyncIteration):
                await anext(iterator)

    asyncio.run(main())


def fail_the_third(m: FakeModel) -> PullFailed:
    """Have the third request fail, and all others succeed."""
    error = PullFailed("late")

    def answer(request: Request) -> None:
        if m.requests.index(request) == 2:
            request.fail(error)
        else:
            request.complete()

    m.on_wait = answer
    return error


@pytest.mark.parametrize("make", [rows_one_by_one, blocks_of_three, columns])
def test_a_failure_raises_in_its_place_and_ends_the_pass(make: Make) -> None:
    m = wide_columns() if make is columns else matrix(30, 3)
    fail_the_third(m)
    iterator = iter(make(m, 3))
    expected = expected_of(make, m.array)
    assert_same([next(iterator), next(iterator)], expected[:2])
    with pytest.raises(PullFailed, match="late"):
        next(iterator)
    num_requests = len(m.requests)
    for _ in range(2):
        with pytest.raises(StopIteration):
            next(iterator)
    assert len(m.requests) == num_requests == 5
    assert all(request.future.seen for request in m.requests)


def test_a_failure_ends_an_async_pass() -> None:
    m = matrix(30, 3)
    fail_the_third(m)
    got: list[NDArray[Any]] = []

    async def main() -> None:
        iterator = RowBlockIterator(m, 3)
        while True:
            got.append(await anext(iterator))

    with pytest.raises(PullFailed, match="late"):
        asyncio.run(main())
    assert_same(got, [m.array[:3], m.array[3:6]])
    assert all(request.future.seen for request in m.requests)


def test_futures_carry_a_failure_to_each_of_their_rows() -> None:
    m = matrix(6, 3)
    error = PullFailed("late")
    futures = list(RowIterator(m, block_rows=2, depth=1).futures())
    m.requests[1].fail(error)
    m.requests[0].complete()
    m.requests[2].complete()
    assert [future.exception(0) for future in futures] == [None, None, error, error, None, None]


def test_a_pull_that_raises_does_so_behind_the_blocks_before_it() -> None:
    m = matrix(10, 3)
    iterator = iter(RowBlockIterator(m, 2, depth=2))
    np.testing.assert_array_equal(next(iterator), m.array[:2])
    m.refuse = ModelNotFound("it was destroyed")
    np.testing.assert_array_equal(next(iterator), m.array[2:4])
    m.refuse = None
    num_requests = len(m.requests)
    np.testing.assert_array_equal(next(iterator), m.array[4:6])
    with pytest.raises(ModelNotFound, match="destroyed"):
        next(iterator)
    with pytest.raises(StopIteration):
        next(iterator)
    assert len(m.requests) == num_requests  # nothing was sent behind the one that was refused


@EVERY
def test_a_break_leaves_nothing_that_nobody_looks_at(make: Make) -> None:
    m = wide_columns() if make is columns else matrix(30, 3)
    for _ in make(m, 4):
        break
    num_requests = len(m.requests)
    assert len(m.in_flight) == 4
    assert all(request.future.seen for request in m.requests)
    m.complete_all()
    assert len(m.requests) == num_requests


def test_a_break_out_of_async_for_leaves_nothing_that_nobody_looks_at() -> None:
    m = matrix(30, 3)

    async def main() -> None:
        async with aclosing(aiter(RowBlockIterator(m, 3))) as blocks:
            async for _ in blocks:
                break
        assert len(m.in_flight) == 4
        assert all(request.future.seen for request in m.requests)

    asyncio.run(main())


def test_a_cancelled_async_pass_leaves_nothing_that_nobody_looks_at() -> None:
    m = matrix(30, 3)
    m.on_wait = lambda _: None

    async def main() -> None:
        task = asyncio.ensure_future(collected(RowBlockIterator(m, 3)))
        await asyncio.sleep(0)
        assert len(m.in_flight) == 4
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert all(request.future.seen for request in m.requests)

    asyncio.run(main())


def test_a_failed_pass_holds_no_cycle() -> None:
    kept: list[weakref.ref[Any]] = []

    class Failing(FakeModel):
        def pull(self, rows: Any = None, cols: Any = None) -> Future[NDArray[Any]]:
            del rows, cols
            future: Future[NDArray[Any]] = failed(PullFailed("late"))
            kept.append(weakref.ref(future))
            return future

    gc.disable()
    try:
        with pytest.raises(PullFailed):
            list(RowBlockIterator(Failing(np.zeros((30, 3))), 3))
        assert [future() for future in kept] == [None] * 4
    finally:
        gc.enable()


# --- arguments ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("bad", [0, -1, 2.5, "4", None])
def test_depth_and_block_rows_are_checked_in_the_constructor(bad: Any) -> None:
    m = matrix()
    told = str(bad) if isinstance(bad, int) else repr(bad)
    for make in (
        lambda: RowIterator(m, depth=bad),
        lambda: ColumnIterator(m, depth=bad),
        lambda: RowBlockIterator(m, 2, depth=bad),
    ):
        with pytest.raises(ConfigError, match=rf"depth.*{told}"):
            make()
    with pytest.raises(ConfigError, match=rf"block_rows.*{told}"):
        RowBlockIterator(m, bad)
    if bad is not None:
        with pytest.raises(ConfigError, match=rf"block_rows.*{told}"):
            RowIterator(m, block_rows=bad)
    assert m.requests == []


@pytest.mark.parametrize(("start", "stop"), [(-1, 5), (6, 5), (0, 11), (11, None), (11, 11), (0, -1)])
def test_rows_outside_the_matrix_are_refused_with_the_numbers(start: int, stop: int | None) -> None:
    with pytest.raises(ShapeError, match=rf"start is {start} and stop {10 if stop is None else stop};.*10"):
        RowIterator(matrix(10, 3), start=start, stop=stop)


def test_bounds_are_integers() -> None:
    with pytest.raises(ShapeError, match=r"start is a row number.*1\.5"):
        RowIterator(matrix(), start=1.5)  # type: ignore[arg-type]
    assert_same(list(RowIterator(m := matrix(), start=np.int16(8))), list(m.array[8:]))
