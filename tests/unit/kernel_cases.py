"""Arrays, selections of them and deltas, for the tests of what gathers and scatters."""

from __future__ import annotations

from functools import cache
from typing import Any

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from glintpy.protocol import dtypes
from glintpy.protocol.selection import Selection
from glintpy.storage import kernels
from glintpy.storage.kernels import Kernels
from glintpy.updaters import Add
from tests.cluster.helpers import until

Array = NDArray[Any]

DTYPES = [dtype for dtype in dtypes.BY_CODE.values() if dtype != np.float16]
"""All that can be compiled."""


def axes(size: int) -> st.SearchStrategy[Array]:
    """Indices of both dtypes with repeats, and slices that may overlap, of an axis of this size."""
    index = st.lists(st.integers(0, size - 1), max_size=12) if size else st.just([])
    indices = st.builds(np.array, index, st.sampled_from(["<i8", "<u4"]))
    ends = st.tuples(st.integers(0, size), st.integers(0, size), st.integers(1, 4))
    triples = st.lists(ends.map(lambda e: (min(e[:2]), max(e[:2]), e[2])), max_size=4)
    return indices | triples.map(np.array).map(lambda found: found.astype(np.int64).reshape(-1, 3))


@st.composite
def cases(
    draw: st.DrawFn, dtype: np.dtype[Any] | None = None, *, exact: bool = True
) -> tuple[Array, Selection, Array]:
    """Values, a selection of them, and an array of the selection's shape; wide and narrow.

    Args:
        draw: hypothesis's.
        dtype: None: any that a model has.
        exact: floats are small whole numbers, so that no sum depends on its order; False: they are any bits.
    """
    if dtype is None:
        dtype = draw(st.sampled_from(list(dtypes.BY_CODE.values())))
    num_rows = draw(st.integers(0, 9))
    num_cols = draw(st.sampled_from([None, 0, 1, 3, 20]))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    rows = draw(axes(num_rows))
    if num_cols is None:
        selection = Selection(rows)
    elif rows.ndim == 1 and draw(st.booleans()):
        if num_cols == 0:
            rows = rows[:0]
        cols: Array = random.integers(0, max(1, num_cols), size=rows.shape)
        selection = Selection(rows, cols, paired=True)
    else:
        selection = Selection(rows, draw(st.none() | axes(num_cols)))
    selection.check(num_rows, num_cols)
    row_shape = () if num_cols is None else (num_cols,)
    make = numbers if exact else any_bits
    values = make(random, (num_rows, *row_shape), dtype)
    return values, selection, make(random, selection.shape(num_cols), dtype)


def numbers(random: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    if dtype.kind == "f":
        return random.integers(-8, 8, shape).astype(dtype)
    return any_bits(random, shape, dtype)


def any_bits(random: np.random.Generator, shape: tuple[int, ...], dtype: np.dtype[Any]) -> Array:
    """Return any bits that the dtype has: among floats, infinities, NaN, the smallest and both zeros."""
    if dtype.kind == "f":
        special = np.array(
            [0.0, -0.0, np.inf, -np.inf, np.nan, np.finfo(dtype).tiny / 4, np.finfo(dtype).max], dtype
        )
        found = random.normal(size=shape).astype(dtype) * dtype.type(10) ** random.integers(
            -4, 4, shape
        ).astype(dtype)
        return np.where(random.random(shape) < 0.2, random.choice(special, shape), found).astype(dtype)
    return (
        np.frombuffer(random.bytes(int(np.prod(shape)) * dtype.itemsize), f"u{dtype.itemsize}")
        .reshape(shape)
        .astype(dtype)
    )


def prepared(found: Kernels) -> Kernels:
    """Take all steps; another process of the tests may be compiling into the folder."""
    steps = found.prepare()
    while found.wants_preparing:
        until(lambda: next(steps, True), "the other's turn ends")
    return found


@cache
def ready(dtype: np.dtype[Any], ndim: int) -> Kernels:
    found = prepared(Kernels(dtype, ndim, Add(), compilable=True))
    assert is_compiled(found)
    return found


def is_compiled(found: Kernels) -> bool:
    return found.gather is not kernels.gather and found.scatter is not kernels.scatter_add


def bits(array: Array) -> tuple[tuple[int, ...], bytes]:
    """Return shape and bytes; a NaN is a NaN, since no processor promises which of two survives a sum."""
    if array.dtype.kind == "f":
        array = np.where(np.isnan(array), np.array(np.nan, array.dtype), array)
    return array.shape, array.tobytes()
