"""What every cluster must do with models, as tests to inherit; knows of a cluster only what a client shows.

numpy is the reference: each test does the same to a model and to an array, and compares.
"""

from __future__ import annotations

import itertools
import pickle
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

from glintpy.client import Client
from glintpy.config import PART_BYTES
from glintpy.errors import (
    CheckpointNotFound,
    DTypeError,
    KeyRangeError,
    ModelExists,
    ModelNotFound,
    NotEnoughMemory,
    ShapeError,
)
from glintpy.futures import gather
from glintpy.models.matrix import BigMatrix
from glintpy.models.vector import BigVector
from glintpy.protocol.dtypes import NAMES
from glintpy.testing.reference import (
    ITEMS,
    NUM_COLS,
    NUM_ROWS,
    PARTITIONERS,
    add,
    axis_selections,
    matrix_selections,
    num_requests,
    numbers,
    partitioner_of,
    read,
    same,
)


class ModelTests:
    """Inherit it in a test module, give a ``client`` fixture, and pytest runs the rest against your cluster.

    ::

        class TestMyCluster(ModelTests):
            @pytest.fixture(scope="class")
            @classmethod
            def client(cls):
                with glintpy.Client("tcp://10.0.0.1:13370") as client:
                    yield client

    Models get random names and are destroyed. Nobody else should use the cluster meanwhile: requests are
    counted. With fewer ``dtypes`` and ``partitioners`` it takes less time.

    Attributes:
        dtypes: of the models.
        partitioners: of "range", "cyclic" and "custom".
    """

    dtypes: ClassVar[tuple[str, ...]] = NAMES
    partitioners: ClassVar[tuple[str, ...]] = PARTITIONERS

    # --- reading and pushing ----------------------------------------------------------------------------------------

    def test_every_way_to_pull_a_matrix_gives_what_numpy_gives(self, client: Client) -> None:
        """With and without ``out``."""
        for matrix, values in self.matrices(client):
            for rows, cols in matrix_selections():
                expected = read(values, rows, cols)
                same(matrix.pull(rows, cols).result(), expected, matrix, rows, cols)
                out = np.empty(expected.shape, dtype=expected.dtype)
                assert matrix.pull(rows, cols, out=out).result() is out
                same(out, expected, matrix, rows, cols)

    def test_every_way_to_push_to_a_matrix_adds_what_numpy_adds(self, client: Client) -> None:
        """Repeats all count, and what is not named stays as it was."""
        generator = np.random.default_rng(1)
        for matrix, values in self.matrices(client):
            for rows, cols in matrix_selections():
                updates = numbers(matrix.dtype, read(values, rows, cols).shape, generator)
                matrix.push(rows, np.array(updates, order="F"), cols=cols)
                add(values, rows, cols, updates)
                same(matrix.pull().result(), values, matrix, rows, cols)

    def test_push_pull_returns_the_values_after_the_push(self, client: Client) -> None:
        """In the caller's order, repeats included."""
        generator = np.random.default_rng(2)
        for matrix, values in self.matrices(client):
            for rows, cols in matrix_selections():
                updates = numbers(matrix.dtype, read(values, rows, cols).shape, generator)
                found = matrix.push_pull(rows, updates, cols=cols).result()
                add(values, rows, cols, updates)
                same(found, read(values, rows, cols), matrix, rows, cols)

    def test_vectors_do_all_of_it_too(self, client: Client) -> None:
        """Pull, push and push_pull by keys."""
        generator = np.random.default_rng(3)
        for vector, values in self.vectors(client):
            for keys in axis_selections(NUM_ROWS):
                updates = numbers(vector.dtype, read(values, keys, None).shape, generator)
                vector.push(keys, updates)
                add(values, keys, None, updates)
                same(vector.pull(keys).result(), read(values, keys, None), vector, keys, None)
                found = vector.push_pull(keys, updates).result()
                add(values, keys, None, updates)
                same(found, read(values, keys, None), vector, keys, None)
                same(vector.pull().result(), values, vector, keys, None)

    def test_brackets_read_as_numpy(self, client: Client) -> None:
        """So do ``np.asarray``, ``len`` and iteration."""
        for matrix, values in self.matrices(client):
            for key in ITEMS:
                same(matrix[key], values[key], matrix, key, None)
            same(np.asarray(matrix), values, matrix, None, None)
            same(np.array(list(matrix)), values, matrix, None, None)
            assert (len(matrix), matrix.shape) == (NUM_ROWS, values.shape)

    def test_values_are_broadcast(self, client: Client) -> None:
        """Against what a pull with the same arguments returns."""
        for matrix, values in self.matrices(client):
            row = numbers(matrix.dtype, (NUM_COLS,), np.random.default_rng(4))
            matrix.push([4, 1, 4], row)
            add(values, [4, 1, 4], None, row)
            matrix.push(slice(3, 9), row[:1])
            add(values, slice(3, 9), None, row[:1])
            matrix.push([2, 2], row[:2, np.newaxis])
            add(values, [2, 2], None, row[:2, np.newaxis])
            matrix.push(None, row[0])
            add(values, None, None, row[0])
            matrix.push([6, 7], row[1], cols=[3, 0])
            add(values, [6, 7], [3, 0], row[1])
            same(matrix.pull().result(), values, matrix, None, None)

    def test_integers_wrap(self, client: Client) -> None:
        """Across their ends, as numpy's do."""
        for dtype in (name for name in self.dtypes if np.dtype(name).kind in "iu"):
            most = np.iinfo(dtype).max
            with client.vector(3, dtype=dtype, init=most) as vector:
                vector.push([0, 0, 1], np.array([most, 2, 1], dtype=dtype)).result()
                expected = np.full(3, most, dtype=dtype)
                np.add.at(expected, [0, 0, 1], np.array([most, 2, 1], dtype=dtype))
                same(vector.pull().result(), expected, vector, None, None)

    def test_values_are_copied_before_push_returns(self, client: Client) -> None:
        """The caller's arrays are the caller's again."""
        with client.vector(40_000, dtype="int64") as vector:
            keys, values = np.arange(40_000), np.ones(40_000, dtype=np.int64)
            futures = []
            for _ in range(5):
                futures.append(vector.push(keys, values))
                keys[:], values[:] = 0, -77
                keys, values = np.arange(40_000), np.ones(40_000, dtype=np.int64)
            gather(*futures).result()
            assert np.all(vector.pull().result() == 5)

    def test_a_pull_sees_pushes_that_nobody_waited_for(self, client: Client) -> None:
        """All of its own client's, in their order."""
        with client.vector(NUM_ROWS, dtype="int64") as vector:
            for count in range(1, 51):
                vector.push(None, 1)
                if count % 10 == 0:
                    assert np.all(vector.pull().result() == count)

    def test_pushes_of_several_threads_all_count(self, client: Client) -> None:
        """Each exactly once."""
        with client.matrix(NUM_ROWS, NUM_COLS, dtype="int64") as matrix:

            def work() -> None:
                for row in range(NUM_ROWS):
                    matrix.push([row, 0], 1)

            threads = [threading.Thread(target=work) for _ in range(4)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            matrix.flush()
            expected = np.full((NUM_ROWS, NUM_COLS), 4)
            expected[0] += 4 * NUM_ROWS
            same(matrix.pull().result(), expected, matrix, None, None)

    def test_at_most_one_request_goes_to_each_server(self, client: Client) -> None:
        """However many rows, partitions and parts; and none where nothing is asked for."""
        num_rows = 3 * PART_BYTES // (8 * NUM_COLS)
        with client.matrix(num_rows, NUM_COLS, partitioner="cyclic", partitions_per_server=8) as matrix:
            most = len(client.servers())
            asks = (
                lambda: matrix.pull(np.arange(num_rows)[::-1]),
                matrix.pull,
                lambda: matrix.pull(slice(None, None, 7)),
                lambda: matrix.pull(cols=[3, 1]),
                lambda: matrix.pull(range(0, num_rows, 2), [1] * (num_rows // 2 + num_rows % 2)),
                lambda: matrix.push(None, 1.0),
                lambda: matrix.push(np.arange(num_rows), 1.0),
                lambda: matrix.push_pull([5, 5, num_rows - 1], 1.0),
            )
            for ask in asks:
                before = num_requests(client)
                ask().result()
                assert 1 <= num_requests(client) - before <= most
            before = num_requests(client)
            assert matrix.pull([]).result().shape == (0, NUM_COLS)
            assert matrix.push([], np.empty((0, NUM_COLS))).result() is None
            assert num_requests(client) == before

    # --- sizes ------------------------------------------------------------------------------------------------------

    def test_rows_that_are_wider_than_a_part_travel(self, client: Client) -> None:
        """And come back as they were."""
        values = np.random.default_rng(5).random((3, 300_000))
        assert values[0].nbytes > PART_BYTES
        with client.matrix(3, 300_000) as matrix:
            matrix.push(None, values).result()
            same(matrix.pull([2, 0, 2]).result(), values[[2, 0, 2]], matrix, None, None)
            same(matrix[:, ::-9], values[:, ::-9], matrix, None, None)
            matrix.push([1, 1], values[:2]).result()
            np.add.at(values, [1, 1], values[:2].copy())
            same(matrix.pull().result(), values, matrix, None, None)

    def test_pushes_of_many_parts_travel(self, client: Client) -> None:
        """Several megabytes, in any order of the rows."""
        generator = np.random.default_rng(6)
        num_rows = 6 * PART_BYTES // (8 * 16)
        values = generator.integers(-99, 99, size=(num_rows, 16)).astype(np.float64)
        order = generator.permutation(num_rows)
        for kind in self.partitioners:
            with client.matrix(num_rows, 16, partitioner=partitioner_of(kind, num_rows)) as matrix:
                matrix.push(None, values)
                matrix.push(order, values[order])
                same(matrix.pull(order).result(), 2 * values[order], matrix, None, None)

    def test_models_without_rows_or_columns_are_models(self, client: Client) -> None:
        """Zero is a size, as in numpy; nothing needs to be sent for it."""
        for shape in ((0, 3), (3, 0), (0, 0)):
            with client.matrix(*shape) as matrix:
                assert (matrix.shape, matrix.num_bytes) == (shape, 0)
                assert matrix.pull().result().shape == shape
                assert matrix.push(None, 1.0).result() is None
                assert [row.shape for row in matrix] == [shape[1:]] * shape[0]
        with client.vector(0) as vector:
            assert vector.pull().result().shape == (0,)
            with pytest.raises(KeyRangeError):
                vector.pull([0])

    def test_a_model_may_have_fewer_rows_than_there_are_servers(self, client: Client) -> None:
        """One row is enough."""
        for kind in self.partitioners:
            with client.matrix(1, 2, partitioner=partitioner_of(kind, 1), partitions_per_server=8) as matrix:
                matrix.push([0, 0], [[1.0, 2.0], [3.0, 4.0]]).result()
                assert matrix.pull().result().tolist() == [[4.0, 6.0]]

    def test_what_does_not_fit_is_refused_before_anything_is_made(self, client: Client) -> None:
        """With the numbers."""
        before = client.models()
        with pytest.raises(NotEnoughMemory, match=r"\d"):
            client.matrix(2**40, 2**16, dtype="int8")
        with pytest.raises(NotEnoughMemory, match=r"\d"):
            client.vector(2**58, partitioner="cyclic", dtype="bool")
        assert client.models() == before

    # --- mistakes ---------------------------------------------------------------------------------------------------

    def test_mistakes_are_raised_by_the_call_and_change_nothing(self, client: Client) -> None:
        """Keys outside, shapes that don't fit, and values that the dtype can't hold."""
        with client.matrix(NUM_ROWS, NUM_COLS, dtype="int32") as matrix:
            before = num_requests(client)
            for rows, cols in ((NUM_ROWS, None), ([0, -1], None), ([0], [NUM_COLS]), (None, [-1])):
                with pytest.raises(KeyRangeError):
                    matrix.pull(rows, cols)
                with pytest.raises(KeyRangeError):
                    matrix.push(rows, 1, cols=cols)
            for values in (np.ones((2, NUM_COLS + 1), np.int32), np.ones((4, 1), np.int32)):
                with pytest.raises(ShapeError):
                    matrix.push([0, 1], values)
            for unfit in (1.5, 2**31, np.ones(NUM_COLS), "1"):
                with pytest.raises(DTypeError):
                    matrix.push([0], unfit)
            assert num_requests(client) == before
            assert not matrix.pull().result().any()

    def test_infinities_and_nan_are_values_unless_only_finite_ones_are_wanted(self, client: Client) -> None:
        """``finite=True`` refuses them in the call."""
        with client.vector(3) as vector:
            vector.push(None, [np.nan, np.inf, -np.inf]).result()
            assert np.isnan(vector[0])
            assert vector[1:].tolist() == [np.inf, -np.inf]
        with client.vector(3, finite=True) as vector:
            for value in (np.nan, np.inf, -np.inf):
                with pytest.raises(DTypeError):
                    vector.push([0, 1], [1.0, value])
            assert vector.pull().result().tolist() == [0.0, 0.0, 0.0]

    # --- a model's life ---------------------------------------------------------------------------------------------

    def test_a_destroyed_model_is_gone_for_every_handle(self, client: Client) -> None:
        """Also for one that is opened, unpickled or asked later, and its name is free."""
        matrix = client.matrix(NUM_ROWS, NUM_COLS)
        others = [client.open(matrix.name), pickle.loads(pickle.dumps(matrix))]  # noqa: S301 - our own bytes
        assert all(other == matrix and hash(other) == hash(matrix) for other in others)
        matrix.push(None, 1.0)
        matrix.destroy()
        for handle in (matrix, *others):
            for ask in (handle.pull, lambda: handle.push(None, 1.0)):  # noqa: B023 - called at once
                with pytest.raises(ModelNotFound):
                    ask().result()
            with pytest.raises(ModelNotFound):
                handle.destroy()
        assert matrix.name not in client.models()
        with pytest.raises(ModelNotFound):
            client.open(matrix.name)
        with client.vector(2, name=matrix.name) as again:
            assert again.pull().result().tolist() == [0.0, 0.0]

    def test_one_name_is_one_model(self, client: Client) -> None:
        """A second of that name is refused, or is the first if it is equal."""
        with client.matrix(NUM_ROWS, NUM_COLS) as matrix:
            with pytest.raises(ModelExists):
                client.matrix(NUM_ROWS, NUM_COLS, name=matrix.name)
            assert client.matrix(NUM_ROWS, NUM_COLS, name=matrix.name, exist_ok=True) == matrix
            with pytest.raises(ModelExists, match="num_cols"):
                client.matrix(NUM_ROWS, NUM_COLS + 1, name=matrix.name, exist_ok=True)

    def test_a_saved_model_is_loaded_as_it_was(self, client: Client, tmp_path: Path) -> None:
        """Pushes that nobody waited for included, under another partitioner, too."""
        filled: Iterator[tuple[BigMatrix | BigVector, NDArray[Any]]]
        filled = itertools.chain(self.matrices(client), self.vectors(client))
        for index, (model, values) in enumerate(filled):
            url = str(tmp_path / str(index))
            with pytest.raises(CheckpointNotFound):
                client.load(url, name=f"{model.name}-none")
            updates = numbers(model.dtype, values.shape, np.random.default_rng(7))
            model.push(None, updates)
            add(values, None, None, updates)
            model.save(url)
            other = {"range": "cyclic"}.get(model.partitioner.name, "range")
            with client.load(url, name=f"{model.name}-copy", partitioner=other) as copy:
                assert (copy.partitioner.name, copy.dtype, type(copy)) == (other, model.dtype, type(model))
                same(copy.pull().result(), values, copy, None, None)

    def test_random_initial_values_depend_on_the_seed_alone(self, client: Client) -> None:
        """Not on the partitioner."""
        for init in (("uniform", -2.0, 3.0), ("normal", 1.0, 0.5)):
            found = []
            for kind in self.partitioners:
                with client.matrix(
                    NUM_ROWS, NUM_COLS, init=init, seed=9, partitioner=partitioner_of(kind, NUM_ROWS)
                ) as matrix:
                    found.append(matrix.pull().result())
            assert all(np.array_equal(values, found[0]) for values in found)
            assert len(np.unique(found[0])) == NUM_ROWS * NUM_COLS

    # --- what the tests use -----------------------------------------------------------------------------------------

    def matrices(self, client: Client) -> Iterator[tuple[BigMatrix, NDArray[Any]]]:
        """Yield a filled matrix and an equal array for each dtype and partitioner.

        Args:
            client: of the cluster.
        """
        generator = np.random.default_rng(8)
        for dtype in self.dtypes:
            for kind in self.partitioners:
                partitioner = partitioner_of(kind, NUM_ROWS)
                with client.matrix(NUM_ROWS, NUM_COLS, dtype=dtype, partitioner=partitioner) as matrix:
                    values = numbers(matrix.dtype, matrix.shape, generator)
                    matrix.push(None, values)
                    yield matrix, values

    def vectors(self, client: Client) -> Iterator[tuple[BigVector, NDArray[Any]]]:
        """Yield a filled vector and an equal array for each dtype and partitioner.

        Args:
            client: of the cluster.
        """
        generator = np.random.default_rng(9)
        for dtype in self.dtypes:
            for kind in self.partitioners:
                partitioner = partitioner_of(kind, NUM_ROWS)
                with client.vector(NUM_ROWS, dtype=dtype, partitioner=partitioner) as vector:
                    values = numbers(vector.dtype, vector.shape, generator)
                    vector.push(None, values)
                    yield vector, values
