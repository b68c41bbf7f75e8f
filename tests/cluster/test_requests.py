"""What a call costs and what it sees: at most one request a server, and all pushes issued before."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest

import glintpy
from tests.cluster.helpers import requests_of

Call = Callable[[Any], "glintpy.Future[Any]"]

MASK = np.arange(1000) % 3 == 0

MATRIX_CALLS: dict[str, Call] = {
    "rows": lambda m: m.pull(np.arange(1000)[::-1]),
    "repeated rows": lambda m: m.pull([999, 0, 999, 0]),
    "a mask": lambda m: m.pull(MASK),
    "a slice": lambda m: m.pull(slice(1, 999, 7)),
    "columns": lambda m: m.pull(cols=[5, 0]),
    "a slice of columns": lambda m: m.pull(cols=slice(1, 4)),
    "elements": lambda m: m.pull(np.arange(1000), np.arange(1000) % 8),
    "whole": lambda m: m.pull(),
    "push of rows": lambda m: m.push(np.arange(1000), 1.0),
    "push of a mask": lambda m: m.push(MASK, 1.0),
    "push of a slice": lambda m: m.push(slice(1, 999, 7), 1.0),
    "push of columns": lambda m: m.push(None, 1.0, cols=[5, 0]),
    "push of elements": lambda m: m.push(np.arange(1000), 1.0, cols=np.arange(1000) % 8),
    "push of the whole": lambda m: m.push(None, 1.0),
    "push_pull": lambda m: m.push_pull(np.arange(0, 1000, 5), 1.0),
    "push_pull of the whole": lambda m: m.push_pull(None, 1.0),
}


@contextmanager
def at_most_one_request_a_server(client: glintpy.Client) -> Iterator[None]:
    before = requests_of(client)
    yield
    counted = [after - start for after, start in zip(requests_of(client), before, strict=True)]
    assert len(counted) == 2
    assert max(counted) == 1, counted
    assert sum(counted) >= 1


@pytest.mark.parametrize("partitioner", ["range", "cyclic"])
@pytest.mark.parametrize("partitions_per_server", [1, 8])
def test_every_call_is_at_most_one_request_a_server(
    client: glintpy.Client, partitioner: str, partitions_per_server: int
) -> None:
    matrix = client.matrix(1000, 8, partitioner=partitioner, partitions_per_server=partitions_per_server)
    for call in MATRIX_CALLS.values():
        with at_most_one_request_a_server(client):
            call(matrix).result()
    with at_most_one_request_a_server(client):
        assert np.asarray(matrix).shape == (1000, 8)
    for key in (3, slice(None), slice(1, 900, 13), [1, 999], MASK, (slice(None), 0), (3, 4), -1):
        with at_most_one_request_a_server(client):
            matrix[key]


@pytest.mark.parametrize("partitions_per_server", [1, 8])
def test_a_call_that_travels_in_parts_is_one_request_a_server(
    client: glintpy.Client, partitions_per_server: int
) -> None:
    vector = client.vector(1_500_000, dtype="int64", partitions_per_server=partitions_per_server)
    for call in (
        lambda: vector.push(None, 1),
        lambda: vector.push_pull(np.arange(1_500_000), 1),
        lambda: vector.pull(slice(None, None, 2)),
        vector.pull,
    ):
        with at_most_one_request_a_server(client):
            call().result()
    assert vector.pull().result().tolist() == [2] * 1_500_000


def test_a_call_that_asks_for_nothing_sends_nothing(client: glintpy.Client) -> None:
    matrix = client.matrix(1000, 8)
    matrix.push([1], 1.0).result()
    before = requests_of(client)
    assert matrix.pull([]).result().shape == (0, 8)
    assert matrix.push([], np.empty((0, 8))).result() is None
    assert matrix.push_pull(slice(5, 5), 1.0).result().shape == (0, 8)
    assert requests_of(client) == before


def test_a_thousand_dense_rows_are_dealt_out_evenly(client: glintpy.Client) -> None:
    for partitioner in ("range", "cyclic"):
        with client.matrix(1000, 3, partitioner=partitioner) as matrix:
            held = [server["holds"]["models"] for server in client.status()["servers"]]
            assert [[model["rows"] for model in models] for models in held] == [[500], [500]]
            shares = matrix._layout.locate(np.arange(1000))
            assert sorted(len(share.rows) for share in shares) == [500, 500]


def test_a_pull_sees_every_push_issued_before_it(client: glintpy.Client) -> None:
    vector = client.vector(100_000, dtype="int64")
    for number in range(1, 11):
        for _ in range(20):
            vector.push(None, 1)
        assert vector.pull().result().tolist() == [20 * number] * 100_000


def test_single_keys_and_large_pushes_keep_their_order(client: glintpy.Client) -> None:
    vector = client.vector(600_000, dtype="int64")
    pulls = []
    for number in range(20):
        vector.push(None, 1)
        vector.push([0, 599_999], 100)
        pulls.append((101 * (number + 1), vector.pull([0, 599_999])))
    for expected, pull in pulls:
        assert pull.result().tolist() == [expected, expected]


def test_results_are_numpys_over_real_sockets(client: glintpy.Client, seed: int) -> None:
    rng = np.random.default_rng(seed)
    matrix = client.matrix(317, 11, dtype="float32", partitioner="cyclic", partitions_per_server=3)
    local = np.zeros((317, 11), np.float32)
    for _ in range(50):
        rows = rng.integers(0, 317, rng.integers(1, 40))
        values = rng.integers(-9, 9, (len(rows), 11)).astype(np.float32)
        matrix.push(rows, values)
        np.add.at(local, rows, values)
        cols = rng.integers(0, 11, len(rows))
        matrix.push(rows, values[:, 0], cols=cols)
        np.add.at(local, (rows, cols), values[:, 0])
        assert np.array_equal(matrix.pull(rows).result(), local[rows])
    assert np.array_equal(np.asarray(matrix), local)
