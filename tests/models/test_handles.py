"""Handles: what they say of their model, what they refuse, their views and their pickles."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import numpy as np
import pytest

from glintpy import Client, ConfigError, LocalCluster
from glintpy.testing.partitioners import scattered


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(3, scheme="local") as started:
        yield started


@pytest.fixture(scope="module")
def client(cluster: LocalCluster) -> Iterator[Client]:
    with cluster.client() as connected:
        yield connected


def test_handles_to_one_model_are_equal_and_hash_alike(cluster: LocalCluster, client: Client) -> None:
    with client.vector(3) as vector, client.vector(3) as stranger, cluster.client() as other:
        opened = other.open(vector.name)
        assert {vector, opened, vector.with_options(timeout_s=1)} == {vector}
        assert vector != stranger
        assert vector != vector.name


def test_a_model_says_what_it_is(client: Client) -> None:
    with client.matrix(5, 3, dtype="float16", partitioner="cyclic", name="said") as matrix:
        assert repr(matrix) == (
            "BigMatrix('said', shape=(5, 3), dtype=float16, partitioner=cyclic, servers=3)"
        )
        assert (len(matrix), matrix.num_rows, matrix.num_cols, matrix.num_bytes) == (5, 5, 3, 30)
    assert "destroyed" in repr(matrix)
    with client.vector(4, dtype="int8", name="said") as vector:
        assert repr(vector) == "BigVector('said', shape=(4,), dtype=int8, partitioner=range, servers=3)"
        assert (len(vector), vector.size, vector.num_bytes) == (4, 4, 4)


def test_what_would_pull_everything_or_not_be_atomic_says_what_to_do(client: Client) -> None:
    with client.vector(3) as vector, client.matrix(3, 2) as matrix:
        for model in (vector, matrix):
            with pytest.raises(TypeError, match=r"pull\(rows\)"):
                0.0 in model  # noqa: B015 - it raises
            with pytest.raises(TypeError, match="len"):
                bool(model)
            with pytest.raises(TypeError, match=r"push\(rows, delta\)"):
                model[0] = 1.0
            with pytest.raises(TypeError, match=r"push\(rows, delta\)"):
                model[0] += 1.0
            assert not np.asarray(model).any()


def test_a_view_with_options_is_the_same_model(client: Client) -> None:
    with client.vector(3) as vector:
        view = vector.with_options(timeout_s=None, on_server_lost="raise")
        view.push([1], 2.0)
        assert view.pull().result().tolist() == [0.0, 2.0, 0.0]
        for options in (
            {"timeout_s": 0},
            {"timeout_s": "1"},
            {"timeout_s": True},
            {"on_server_lost": "shrug"},
        ):
            with pytest.raises(ConfigError):
                vector.with_options(**options)


@pytest.mark.pickles
@pytest.mark.parametrize("protocol", range(2, pickle.HIGHEST_PROTOCOL + 1))
def test_a_handle_pickles(client: Client, protocol: int) -> None:
    with client.matrix(20, 2, dtype="int64", partitioner=scattered(20, 4)) as matrix:
        matrix.push([7], 3)
        copy = pickle.loads(pickle.dumps(matrix, protocol))  # noqa: S301 - our own bytes
        assert copy == matrix
        assert copy.partitioner == matrix.partitioner
        matrix.flush()
        copy.push([7], 4)
        assert copy[7].tolist() == [7, 7]


@pytest.mark.pickles
def test_a_client_pickles(client: Client) -> None:
    with client.vector(3, name="pickled") as vector:
        copy = pickle.loads(pickle.dumps(client))  # noqa: S301 - our own bytes
        assert copy.open("pickled") == vector
