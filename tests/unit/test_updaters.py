"""The sum of repeated keys against ``np.add.at``."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from glintpy.protocol import dtypes
from glintpy.updaters import Add


@given(
    st.lists(st.integers(0, 6), max_size=20),
    st.sampled_from([None, 0, 3]),
    st.sampled_from(list(dtypes.NAMES)),
    st.integers(0, 2**32),
)
def test_combined_updates_change_what_the_single_ones_would(
    keys: list[int], num_cols: int | None, dtype: str, seed: int
) -> None:
    row_shape = () if num_cols is None else (num_cols,)
    values = np.random.default_rng(seed).integers(0, 127, (len(keys), *row_shape)).astype(dtype)
    expected = np.zeros((7, *row_shape), dtype)
    np.add.at(expected, np.array(keys, np.int64), values)
    unique, sums = Add().combine(np.array(keys, np.int64), values)
    assert unique.tolist() == sorted(set(keys))
    assert sums.dtype == np.dtype(dtype)
    found = np.zeros((7, *row_shape), dtype)
    found[unique] += sums
    np.testing.assert_array_equal(found, expected, strict=True)


def test_combining_leaves_its_arguments_alone_and_returns_new_arrays() -> None:
    for keys in (np.array([2, 1]), np.array([], np.int64)):
        values = np.ones(keys.shape[0], np.float32)
        unique, sums = Add().combine(keys, values)
        assert not np.shares_memory(unique, keys)
        assert not np.shares_memory(sums, values)
        assert values.tolist() == [1.0] * keys.shape[0]


def test_small_integers_wrap_and_keep_their_dtype() -> None:
    _, sums = Add().combine(np.array([4, 4, 4]), np.array([100, 100, 100], np.int8))
    assert sums.dtype == np.int8
    assert sums.tolist() == [300 - 256]
