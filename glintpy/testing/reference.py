"""numpy as the reference of what models do: selections, values, reading and adding; knows no model's inside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy.client import Client
from glintpy.models.dense import BigModel
from glintpy.partitioning import Partitioner
from glintpy.testing.partitioners import scattered

NUM_ROWS, NUM_COLS = 23, 5
"""Of the models that the selections below are for: small, and no multiple of a number of servers."""

PARTITIONERS = ("range", "cyclic", "custom")
"""What ``partitioner_of`` takes."""

_MASK = np.arange(NUM_COLS) % 2 == 0

ITEMS: tuple[Any, ...] = (
    3,
    -1,
    np.uint8(7),
    slice(2, 9, 2),
    slice(None, None, -3),
    slice(-4, None),
    slice(9, 2),
    [1, 5, 1, -2],
    np.arange(NUM_ROWS) % 3 == 1,
    range(20, 3, -4),
    [],
    ...,
    (3, 4),
    (-2, -1),
    (slice(1, 3), slice(2, 5)),
    (slice(None, None, -1), slice(None, None, -2)),
    (slice(None), 0),
    (slice(5, 2, -1), [4, 0, 0]),
    (slice(None), _MASK),
    ([2, 2, 0], slice(None, None, 2)),
    ([2, 7, 2], [1, -1, 1]),
    ([2, 7, 2], 3),
    (4, [0, 0, 2]),
    (..., 2),
    (6, ...),
)
"""What stands in ``m[...]`` of a (NUM_ROWS, NUM_COLS) matrix, each meaning what it means to numpy."""


def partitioner_of(kind: str, num_keys: int) -> str | Partitioner:
    """Return what ``partitioner=`` takes.

    Args:
        kind: one of ``PARTITIONERS``.
        num_keys: rows of the model.
    """
    return scattered(num_keys, 5) if kind == "custom" else kind


def axis_selections(size: int) -> Iterator[Any]:
    """Yield one of each form that ``rows=``, ``cols=`` and ``keys=`` take, for an axis of at least 5."""
    yield None
    yield size - 1
    yield np.int16(2)
    yield slice(1, size - 1, 2)
    yield slice(None, None, -1)
    yield slice(-3, None)
    yield slice(size - 1, 0, -3)
    yield slice(3, 1)
    yield [4, 1, 4, 0]
    yield np.array([1, 3, 1], dtype=np.uint8)
    yield np.array([size - 1, 0, 0], dtype=np.int32)[::-1]
    yield range(0, size, 3)
    yield range(size - 1, -1, -2)
    yield np.arange(size) % 3 == 1
    yield np.zeros(size, dtype=bool)
    yield []


def matrix_selections() -> Iterator[tuple[Any, Any]]:
    """Yield (rows, cols): rows alone, columns alone, and single elements of a (NUM_ROWS, NUM_COLS) matrix."""
    for rows in axis_selections(NUM_ROWS):
        yield rows, None
    for cols in axis_selections(NUM_COLS):
        yield None, cols
    yield [1, 22, 1, 1], [0, 4, 0, 2]
    yield np.array([3, 2, 3], dtype=np.uint16), range(3)
    yield slice(2, 7), slice(None, None, -1)
    yield np.arange(NUM_ROWS) < 2, [4, 4]
    yield 5, 3
    yield [], []


def read(values: NDArray[Any], rows: Any, cols: Any) -> NDArray[Any]:
    """Return what a pull of ``rows`` and ``cols`` gives of an array.

    Args:
        values: (rows, columns), or (size,) of a vector.
        rows: as ``pull`` takes them.
        cols: as ``pull`` takes them; None for a vector.
    """
    found: NDArray[Any] = np.asarray(values[_index(values, rows, cols)])
    return found


def add(values: NDArray[Any], rows: Any, cols: Any, updates: Any) -> None:
    """Add to an array as a push does.

    Args:
        values: as of ``read``; changed.
        rows: as ``push`` takes them.
        cols: as ``push`` takes them; None for a vector.
        updates: numbers that broadcast against ``read`` of the same.
    """
    np.add.at(values, _index(values, rows, cols), updates)


def numbers(dtype: np.dtype[Any], shape: tuple[int, ...], generator: np.random.Generator) -> NDArray[Any]:
    """Return values whose sums are exact in every dtype, in any order: small integers, halves in floats.

    Args:
        dtype: of the model.
        shape: of the values.
        generator: draws them.
    """
    drawn = generator.integers(0, 2 if dtype.kind == "b" else 8, size=shape)
    return (drawn / 2 if dtype.kind == "f" else drawn).astype(dtype)


def same(found: Any, expected: NDArray[Any], model: BigModel, rows: Any, cols: Any) -> None:
    """Compare values, dtype and shape.

    Args:
        found: of the model.
        expected: of numpy.
        model: for the message.
        rows: for the message.
        cols: for the message.

    Raises:
        AssertionError: something differs.
    """
    where = f"{model!r} rows={rows!r} cols={cols!r}"
    assert found.dtype == model.dtype, where
    assert found.shape == expected.shape, where
    np.testing.assert_array_equal(found, expected, err_msg=where)


def num_requests(client: Client) -> int:
    """Return how many pulls and pushes all servers have had, each counted once however many its parts.

    Args:
        client: of the cluster.
    """
    held = [server["holds"] for server in client.status(timeout_s=30)["servers"]]
    return sum(holds["requests"] for holds in held if holds is not None)


def _index(values: NDArray[Any], rows: Any, cols: Any) -> Any:
    """Return numpy's index; numbers only, since slices would name a block where a pull names pairs."""
    row_index = slice(None) if rows is None else np.arange(values.shape[0])[_plain(rows)]
    if cols is None:
        return row_index
    return (row_index, np.arange(values.shape[1])[_plain(cols)])


def _plain(keys: Any) -> Any:
    return np.array(keys, dtype=np.int64) if isinstance(keys, range | list) else keys
