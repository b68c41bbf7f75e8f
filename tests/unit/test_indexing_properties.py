"""Whatever is typed as a key gives what numpy gives, or fails where numpy fails."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from glintpy.errors import DTypeError, KeyRangeError, ShapeError
from tests.unit.asking import assert_same, item, pulled


def axis_keys(size: int) -> st.SearchStrategy[Any]:
    """Return keys of one axis, good ones and such that are outside by one."""
    near = st.integers(-size - 1, size)
    lists = st.lists(near if size == 0 else st.integers(-size, size - 1), max_size=4)
    return st.one_of(
        near,
        st.slices(size),
        lists,
        lists.map(lambda keys: np.array(keys, dtype=np.int16)),
        st.lists(near, max_size=3),
        hnp.arrays(np.bool_, size),
        st.just(...),
    )


@st.composite
def matrices_and_keys(draw: st.DrawFn) -> tuple[NDArray[Any], Any]:
    shape = draw(hnp.array_shapes(min_dims=2, max_dims=2, min_side=0, max_side=5))
    model = np.arange(shape[0] * shape[1]).reshape(shape)
    basic = hnp.basic_indices(shape, allow_newaxis=False, allow_ellipsis=True)
    both = st.tuples(axis_keys(shape[0]), axis_keys(shape[1]))
    return model, draw(st.one_of(basic, axis_keys(shape[0]), both))


@settings(max_examples=400, deadline=None)
@given(matrices_and_keys())
@example((np.empty((0, 3)), ([], slice(None, None, -1))))
@example((np.empty((0, 0)), ([0], np.empty(0, np.bool_))))
def test_any_key_gives_what_numpy_gives_or_fails_where_numpy_fails(case: tuple[NDArray[Any], Any]) -> None:
    model, key = case
    try:
        expected = model[key]
    # numpy 1 only warns of an index outside where the result is empty anyway.
    except (IndexError, DeprecationWarning):
        with pytest.raises(KeyRangeError):
            item(model, key)
        return
    try:
        found = item(model, key)
    except KeyRangeError as error:
        # Paired with nothing, a key outside goes unseen by numpy; here it is always a mistake.
        if expected.shape == (0,) and "is outside [" in str(error):
            return
        raise
    assert_same(found, expected)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 6).flatmap(lambda size: st.tuples(st.just(size), axis_keys(size))))
def test_any_key_of_a_vector_gives_what_numpy_gives(case: tuple[int, Any]) -> None:
    size, key = case
    model = np.arange(size) * 3
    try:
        expected = model[key]
    except IndexError:
        with pytest.raises(KeyRangeError):
            item(model, key)
        return
    assert_same(item(model, key), expected)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 12), st.integers(-20, 20), st.integers(-20, 20), st.integers(-5, 5).filter(bool))
def test_a_range_is_the_list_of_its_numbers(size: int, start: int, stop: int, step: int) -> None:
    model = np.arange(size) * 3
    keys = range(start, stop, step)
    if all(0 <= key < size for key in keys):
        assert_same(pulled(model, keys), pulled(model, list(keys)))
        return
    with pytest.raises(KeyRangeError) as of_list:
        pulled(model, list(keys))
    with pytest.raises(KeyRangeError) as of_range:
        pulled(model, keys)
    assert str(of_range.value) == str(of_list.value)


ANYTHING = st.recursive(
    st.one_of(
        st.none(), st.booleans(), st.integers(), st.floats(), st.complex_numbers(), st.text(max_size=3),
        st.binary(max_size=3), st.slices(5), st.just(...), hnp.from_dtype(np.dtype("m8[s]")),
        hnp.arrays(hnp.scalar_dtypes(), hnp.array_shapes(min_dims=0, max_dims=2, min_side=0, max_side=3)),
    ),
    lambda inner: (
        st.lists(inner, max_size=3) | st.lists(inner, max_size=3).map(tuple) | st.sets(st.integers())
    ),
    max_leaves=4,
)  # fmt: skip


@settings(max_examples=300, deadline=None)
@given(ANYTHING, ANYTHING, st.sampled_from([None, 4]))
def test_whatever_is_typed_is_read_or_refused_by_name(rows: Any, cols: Any, num_cols: int | None) -> None:
    model = np.zeros(5) if num_cols is None else np.zeros((5, num_cols))
    try:
        pulled(model, rows, cols)
    except (DTypeError, ShapeError, KeyRangeError) as error:
        assert str(error)  # noqa: PT017 - any of them will do; anything else fails the test
    try:
        item(model, rows)
    except KeyRangeError as error:
        assert "use pull(" in str(error) or "outside [" in str(error)  # noqa: PT017
