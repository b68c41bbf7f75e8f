"""The iterators in every way that the tests use them, and what each must yield."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from glintpy.config import MIB
from glintpy.models.iterators import ColumnIterator, RowBlockIterator, RowIterator
from tests.models.fake_model import FakeModel

Iterators = RowIterator | RowBlockIterator | ColumnIterator
Make = Callable[[FakeModel, int], Iterators]


def matrix(num_rows: int = 10, num_cols: int = 3, dtype: str = "float32") -> FakeModel:
    return FakeModel(np.arange(num_rows * num_cols).reshape(num_rows, num_cols).astype(dtype))


def wide_columns() -> FakeModel:
    """Return ten columns of which one fills a request."""
    return FakeModel(np.arange(10 * MIB // 4, dtype=np.int32).reshape(MIB // 4, 10))


def spans(model: FakeModel) -> list[tuple[int, int]]:
    """Return the rows or columns that were asked for."""
    asked = [request.cols if request.rows is None else request.rows for request in model.requests]
    return [(span.start, span.stop) for span in asked]


def rows_one_by_one(m: FakeModel, depth: int) -> Iterators:
    return RowIterator(m, block_rows=1, depth=depth)


def rows_by_threes(m: FakeModel, depth: int) -> Iterators:
    return RowIterator(m, block_rows=3, depth=depth)


def blocks_of_three(m: FakeModel, depth: int) -> Iterators:
    return RowBlockIterator(m, 3, depth=depth)


def columns(m: FakeModel, depth: int) -> Iterators:
    return ColumnIterator(m, depth=depth)


EVERY = pytest.mark.parametrize("make", [rows_one_by_one, rows_by_threes, blocks_of_three, columns])


def expected_of(make: Make, array: NDArray[Any]) -> list[NDArray[Any]]:
    if make is blocks_of_three:
        return [array[start : start + 3] for start in range(0, len(array), 3)]
    return list(array.T if make is columns else array)


def assert_same(got: list[NDArray[Any]], expected: list[NDArray[Any]]) -> None:
    assert len(got) == len(expected)
    for mine, theirs in zip(got, expected, strict=True):
        np.testing.assert_array_equal(mine, theirs, strict=True)


def values_of(m: FakeModel, iterator: Iterators) -> list[NDArray[Any]]:
    """Return what the futures of a pass give once they are answered."""
    futures = list(iterator.futures())
    m.complete_all()
    return [future.result(0) for future in futures]


async def collected(iterator: Iterators) -> list[NDArray[Any]]:
    return [item async for item in iterator]
