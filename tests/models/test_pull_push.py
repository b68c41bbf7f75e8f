"""Pulling and pushing whatever keys hypothesis draws, compared with numpy, and what keys may not be."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from typing import Any, TypeVar

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glintpy import BigMatrix, BigVector, Client, DTypeError, KeyRangeError, LocalCluster, ShapeError, gather
from glintpy.config import PART_BYTES
from glintpy.testing.reference import add, num_requests, numbers, partitioner_of, read, same
from glintpy.testing.stateful import selections

SHAPE = (37, 6)

Model = TypeVar("Model", BigMatrix, BigVector)


@pytest.fixture(scope="module", params=[1, 4], ids=["one-server", "four-servers"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    with LocalCluster(request.param, scheme="local") as cluster, cluster.client() as connected:
        yield connected


@pytest.fixture(scope="module")
def matrices(client: Client) -> Iterator[list[BigMatrix]]:
    made = [
        client.matrix(
            *shape,
            dtype="int32",
            partitioner=partitioner_of(kind, shape[0]),
            partitions_per_server=partitions_per_server,
        )
        for kind in ("range", "cyclic", "custom")
        for partitions_per_server in (1, 8)
        for shape in (SHAPE, (1, 1), (2, 3), (3, 0), (0, 3))
    ]
    yield _filled(made)
    for matrix in made:
        matrix.destroy()


@pytest.fixture(scope="module")
def vectors(client: Client) -> Iterator[list[BigVector]]:
    made = [
        client.vector(
            size,
            dtype="uint16",
            partitioner=partitioner_of(kind, size),
            partitions_per_server=partitions_per_server,
        )
        for kind in ("range", "cyclic", "custom")
        for partitions_per_server in (1, 8)
        for size in (41, 2, 0)
    ]
    yield _filled(made)
    for vector in made:
        vector.destroy()


def _filled(made: list[Model]) -> list[Model]:
    for model in made:
        values = np.arange(np.prod(model.shape)).reshape(model.shape)  # all different
        model.push(None, values).result()
        np.testing.assert_array_equal(model.pull().result(), values)
    return made


# --- what hypothesis draws ------------------------------------------------------------------------------------------


@settings(max_examples=60)
@given(data=st.data())
def test_matrices_pull_and_push_as_numpy(matrices: list[Any], data: st.DataObject) -> None:
    matrix = data.draw(st.sampled_from(matrices), label="model")
    axis = data.draw(st.integers(0, 1), label="axis")
    keys = data.draw(selections(matrix.shape[axis]), label="keys")
    rows, cols = (keys, None) if axis == 0 else (None, keys)
    order: Any = data.draw(st.sampled_from("CF"), label="order of the values in memory")
    returns = data.draw(st.booleans(), label="push_pull")
    seed = data.draw(st.integers(0, 99), label="seed of the values")

    values = matrix.pull().result()  # whatever earlier examples left
    expected = read(values, rows, cols)
    same(matrix.pull(rows, cols).result(), expected, matrix, rows, cols)
    updates = np.array(numbers(matrix.dtype, expected.shape, np.random.default_rng(seed)), order=order)
    add(values, rows, cols, updates)
    if returns:
        out = np.empty(expected.shape, dtype=matrix.dtype)
        assert matrix.push_pull(rows, updates, cols=cols, out=out).result() is out
        same(out, read(values, rows, cols), matrix, rows, cols)
    else:
        matrix.push(rows, updates, cols=cols)
    same(matrix.pull().result(), values, matrix, rows, cols)


@settings(max_examples=60)
@given(data=st.data())
def test_vectors_pull_and_push_as_numpy(vectors: list[Any], data: st.DataObject) -> None:
    vector = data.draw(st.sampled_from(vectors), label="model")
    keys = data.draw(selections(len(vector)), label="keys")
    seed = data.draw(st.integers(0, 99), label="seed of the values")

    values = vector.pull().result()
    expected = read(values, keys, None)
    same(vector.pull(keys).result(), expected, vector, keys, None)
    updates = numbers(vector.dtype, expected.shape, np.random.default_rng(seed))
    add(values, keys, None, updates)
    same(vector.push_pull(keys, updates).result(), read(values, keys, None), vector, keys, None)
    same(vector.pull().result(), values, vector, keys, None)


def items(size: int) -> st.SearchStrategy[Any]:
    """Draw what may stand in brackets for one axis, negative keys included."""
    forms: list[st.SearchStrategy[Any]] = [
        st.slices(size),
        st.lists(st.booleans(), min_size=size, max_size=size).map(lambda mask: np.array(mask, dtype=bool)),
    ]
    if size:
        key = st.integers(-size, size - 1)
        forms += [key, st.lists(key, min_size=1, max_size=20), key.map(np.int16)]
    return st.one_of(forms)


@settings(max_examples=60)
@given(data=st.data())
def test_brackets_read_what_numpy_reads_or_refuse_it_by_name(
    matrices: list[Any], data: st.DataObject
) -> None:
    matrix = data.draw(st.sampled_from(matrices), label="model")
    rows, cols = (data.draw(items(size)) for size in matrix.shape)
    key = data.draw(st.sampled_from([rows, (rows, cols), (..., cols), (rows, ...), (rows, slice(None))]))
    try:
        expected = matrix.pull().result()[key]
    except IndexError:
        with pytest.raises(IndexError, match="pull"):
            matrix[key]
        return
    found = matrix[key]
    assert type(found) is type(expected)
    same(found, expected, matrix, key, None)


@settings(max_examples=60)
@given(data=st.data())
def test_brackets_of_vectors_too(vectors: list[Any], data: st.DataObject) -> None:
    vector = data.draw(st.sampled_from(vectors), label="model")
    key = data.draw(items(len(vector)))
    same(vector[key], vector.pull().result()[key], vector, key, None)


# --- reading as numpy -----------------------------------------------------------------------------------------------


def test_numpy_takes_a_model_as_an_array(matrices: list[Any], vectors: list[Any]) -> None:
    for model in [*matrices, *vectors]:
        values = model.pull().result()
        same(np.asarray(model), values, model, None, None)
        assert np.asarray(model, dtype="float32").dtype == np.float32
        assert np.array_equal(np.add(model, 1), values + 1)
        with pytest.raises(ValueError, match="copy"):
            model.__array__(copy=False)


def test_iterating_gives_rows_in_order(matrices: list[Any], vectors: list[Any]) -> None:
    for model in [*matrices, *vectors]:
        rows = list(model)
        assert len(rows) == len(model)
        for row, expected in zip(rows, model.pull().result(), strict=True):
            np.testing.assert_array_equal(row, expected)


# --- what keys may not be -------------------------------------------------------------------------------------------

BAD_KEYS = [
    (37, KeyRangeError),
    (-1, KeyRangeError),
    ([0, 37], KeyRangeError),
    ([0, -37], KeyRangeError),
    (np.array([2**63], dtype=np.uint64), KeyRangeError),
    ([2**70], KeyRangeError),
    (range(30, 40), KeyRangeError),
    (np.ones(36, dtype=bool), ShapeError),
    ([[0, 1], [2, 3]], ShapeError),
    (1.0, TypeError),
    ([1.0, 2.0], TypeError),
    ("1", TypeError),
    (["1"], TypeError),
    (slice(0, 1.5), TypeError),
    (slice(0, 9, 0), ShapeError),
]


@pytest.mark.parametrize(("keys", "error"), BAD_KEYS, ids=[repr(row[0])[:25] for row in BAD_KEYS])
def test_bad_keys_are_refused_by_the_call(client: Client, keys: Any, error: type[Exception]) -> None:
    with client.matrix(*SHAPE) as matrix, client.vector(37) as vector, client.matrix(2, 37) as wide:
        before = num_requests(client)
        calls: list[Callable[[], object]] = [
            lambda: matrix.pull(keys),
            lambda: matrix.push(keys, 1.0),
            lambda: matrix.push_pull(keys, 1.0),
            lambda: vector.pull(keys),
            lambda: vector.push(keys, 1.0),
            lambda: wide.pull(cols=keys),
            lambda: wide.push(None, 1.0, cols=keys),
        ]
        for call in calls:
            with pytest.raises(error):
                call()
        assert num_requests(client) == before


@pytest.mark.parametrize(
    "key", [(0, 0, 0), None, (None, 0), "a", 0.5, ([0, 1], [0, 1, 2]), [[0]], (..., ...), 37, -38]
)
def test_brackets_refuse_what_they_cant_with_an_index_error(client: Client, key: Any) -> None:
    with client.matrix(*SHAPE) as matrix, pytest.raises(IndexError):
        matrix[key]


@pytest.mark.parametrize(
    ("rows", "cols"),
    [([0, 1], [0]), (None, [6]), ([0], [-1]), (0, [0, 1]), ([0, 1], 0), (slice(0, 3), [1, 2])],
)
def test_elements_need_a_column_for_each_row(client: Client, rows: Any, cols: Any) -> None:
    with client.matrix(*SHAPE) as matrix, pytest.raises((ShapeError, KeyRangeError)):
        matrix.pull(rows, cols)


@pytest.mark.parametrize("shape", [(3,), (2, 7), (3, 6), (2, 1, 6), (0, 6)])
def test_values_that_dont_fit_are_refused_with_both_shapes(client: Client, shape: tuple[int, ...]) -> None:
    with client.matrix(*SHAPE) as matrix:
        with pytest.raises(ShapeError, match=r"\(2, 6\)"):
            matrix.push([0, 1], np.ones(shape))
        assert not matrix.pull().result().any()


@pytest.mark.parametrize(
    ("out", "error"),
    [
        (np.empty((2, 6), dtype=np.float32), DTypeError),
        (np.empty((3, 6)), ShapeError),
        (np.empty((6, 2)).T, ShapeError),
        (np.empty((2, 12))[:, ::2], ShapeError),
        ([[0.0] * 6] * 2, DTypeError),
        (np.broadcast_to(np.empty(6), (2, 6)), ShapeError),
    ],
)
def test_out_is_an_array_of_exactly_the_result(client: Client, out: Any, error: type[Exception]) -> None:
    with client.matrix(*SHAPE) as matrix:
        before = num_requests(client)
        with pytest.raises(error):
            matrix.pull([0, 1], out=out)
        with pytest.raises(error):
            matrix.push_pull([0, 1], 1.0, out=out)
        assert num_requests(client) == before
        assert not matrix.pull().result().any()


# --- many, large, at the same time ------------------------------------------------------------------------------------


def test_results_are_the_callers_to_change(client: Client) -> None:
    with client.matrix(*SHAPE) as matrix:
        for found in (matrix.pull().result(), matrix[2:5], matrix.pull([1, 1]).result(), np.asarray(matrix)):
            found[:] = 7.0
        assert not matrix.pull().result().any()


def test_keys_may_be_changed_as_soon_as_the_call_returns(client: Client) -> None:
    with client.vector(50_000, dtype="int64") as vector:
        vector.push(None, np.arange(50_000)).result()
        keys = np.arange(50_000)[::-1].copy()
        pull = vector.pull(keys)
        keys[:] = 0
        assert np.array_equal(pull.result(), np.arange(50_000)[::-1])


def test_a_row_pushed_many_times_in_one_push_counts_each_time(client: Client) -> None:
    num_times = 3 * PART_BYTES // (8 * 6)
    with client.matrix(*SHAPE, dtype="int64") as matrix:
        matrix.push([5] * num_times, np.arange(6)).result()
        matrix.push([5, 6] * num_times, 1, cols=[3, 0] * num_times).result()
        expected = np.zeros(SHAPE, dtype=np.int64)
        expected[5] = num_times * np.arange(6)
        expected[5, 3] += num_times
        expected[6, 0] += num_times
        same(matrix.pull().result(), expected, matrix, None, None)


def test_many_requests_may_be_under_way(client: Client) -> None:
    with client.vector(100, dtype="int64") as vector:
        pulls = []
        for index in range(1500):
            vector.push([index % 100], 1)
            pulls.append(vector.pull([index % 100]))
        assert [int(found[0]) for found in gather(*pulls).result()] == [
            index // 100 + 1 for index in range(1500)
        ]
        vector.flush()


def test_wide_rows_travel_in_pieces(client: Client) -> None:
    generator = np.random.default_rng(2)
    num_cols = 200_001
    values = generator.random((3, num_cols))
    cols = generator.permutation(num_cols)
    with client.matrix(3, num_cols, partitioner="cyclic") as matrix:
        matrix.push([2, 0, 1], values[[2, 0, 1]])
        assert np.array_equal(matrix.pull(1).result(), values[1])
        assert np.array_equal(matrix.pull(cols=cols).result(), values[:, cols])
        assert np.array_equal(matrix.pull([2] * 1000, cols[:1000]).result(), values[2, cols[:1000]])
        found = matrix.push_pull(None, values[:, cols], cols=cols).result()
        assert np.array_equal(found, 2 * values[:, cols])
        assert np.array_equal(matrix[1:, 5::7], 2 * values[1:, 5::7])


# --- the examples of Glint's guide ------------------------------------------------------------------------------------


def test_the_matrix_of_glints_guide(client: Client) -> None:
    with client.matrix(10_000, 2000, dtype="float64") as matrix:
        rows, cols = [0, 1, 2], [100, 200, 300]
        assert matrix.pull(rows, cols).result().tolist() == [0.0, 0.0, 0.0]
        matrix.push(rows, [0.1, 3.1415, 9.999], cols=cols).result()
        assert matrix.pull(rows, cols).result().tolist() == [0.1, 3.1415, 9.999]
        matrix.push([0], [0.1], cols=[100]).result()
        assert matrix.pull([0], [100]).result().tolist() == [0.2]
        assert np.count_nonzero(matrix.pull(rows).result()) == 3


def test_the_vector_of_glints_guide_filled_by_three_programs(client: Client) -> None:
    records = [0.0, 2.0, -9.0, 5.5, 3.14, 55.5, 0.01, 10.0, 100.0, 1000.0]
    with client.vector(10, dtype="float64") as vector:

        def work(share: int) -> None:
            for key in range(share, 10, 3):
                vector.push([key], [records[key]])

        threads = [threading.Thread(target=work, args=(share,)) for share in range(3)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        client.flush()
        assert vector.pull(range(10)).result().tolist() == records
