"""Answers what ``models.indexing`` asks for from an array, and checks it on the way."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy.models.indexing import Asked, Keys, parse_item, parse_pull


def written(keys: Keys, size: int) -> NDArray[np.int64]:
    """Return keys as indices, having checked that they are in normal form."""
    if isinstance(keys, range):
        assert keys.step >= 1
        assert 0 <= keys.start <= keys.stop <= size
        assert not keys or keys.stop == keys[-1] + 1
        return np.array(keys, dtype=np.int64)
    assert keys.dtype == np.int64
    assert keys.ndim == 1
    assert keys.flags.c_contiguous
    assert not keys.size or (keys.min() >= 0 and keys.max() < size)
    return keys


def evaluate(asked: Asked, model: NDArray[Any]) -> NDArray[Any]:
    """Answer a request from an array, as servers would, and check what ``asked`` says of it."""
    rows = written(asked.rows, model.shape[0])
    if asked.cols is None:
        assert not asked.paired
        wire = model[rows]
    else:
        cols = written(asked.cols, model.shape[1])
        wire = model[rows, cols] if asked.paired else model[np.ix_(rows, cols)]
        assert not asked.paired or not (isinstance(asked.rows, range) or isinstance(asked.cols, range))
    assert wire.shape == asked.wire_shape
    assert asked.empty == (wire.size == 0)
    seen = asked.finish(wire)
    assert seen.shape == asked.shape
    assert not seen.size or np.shares_memory(seen, wire)
    back = asked.to_wire(seen)
    assert np.array_equal(back, wire)
    assert not back.size or np.shares_memory(back, seen)
    return seen


def pulled(model: NDArray[Any], rows: Any = None, cols: Any = None) -> NDArray[Any]:
    num_cols = model.shape[1] if model.ndim == 2 else None
    return evaluate(parse_pull(rows, cols, num_rows=model.shape[0], num_cols=num_cols), model)


def item(model: NDArray[Any], key: Any) -> NDArray[Any]:
    num_cols = model.shape[1] if model.ndim == 2 else None
    return evaluate(parse_item(key, num_rows=model.shape[0], num_cols=num_cols), model)


def assert_same(found: NDArray[Any], expected: Any) -> None:
    assert found.shape == np.shape(expected)
    assert np.array_equal(found, expected)
