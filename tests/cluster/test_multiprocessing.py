"""Handles in other processes, forked, spawned and from the fork server, and many processes at once."""

from __future__ import annotations

import multiprocessing
import pickle
from multiprocessing.connection import Connection
from multiprocessing.context import BaseContext
from typing import Any

import numpy as np
import pytest

import glintpy
from tests.cluster.helpers import PATIENCE_S, join, paused, push_ones

NUM_WORKERS = 4
METHODS = (
    "fork",
    # These two send what a child needs as a pickle.
    pytest.param("spawn", marks=pytest.mark.pickles),
    pytest.param("forkserver", marks=pytest.mark.pickles),
)

# From 3.12 on Python warns of every fork in a process with threads, which each client has; that handles
# bear it all the same is what these tests are about.
pytestmark = pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")


def start(context: BaseContext, target: Any, *arguments: Any) -> Any:
    process = context.Process(target=target, args=arguments)  # type: ignore[attr-defined] # each context has one
    process.start()
    return process


@pytest.mark.parametrize("method", METHODS)
def test_a_million_ones_by_four_workers_that_wait_for_nothing(client: glintpy.Client, method: str) -> None:
    context = multiprocessing.get_context(method)
    vector = client.vector(10_000, dtype="int64")
    vector.push([0], 0).result()  # the parent has a connection that a forked child must not touch
    join([start(context, push_ones, vector, seed, 250, 1000) for seed in range(NUM_WORKERS)])
    expected = np.zeros(10_000, np.int64)
    for seed in range(NUM_WORKERS):
        rng = np.random.default_rng(seed)
        for _ in range(250):
            np.add.at(expected, rng.integers(0, 10_000, 1000), 1)
    assert vector.pull().result().sum() == 1_000_000
    assert np.array_equal(vector.pull().result(), expected)


@pytest.mark.parametrize("num_pushes", [2000, pytest.param(250_000, marks=pytest.mark.soak)])
def test_single_ones_by_four_workers(client: glintpy.Client, num_pushes: int) -> None:
    context = multiprocessing.get_context("fork")
    vector = client.vector(10_000, dtype="int64", partitioner="cyclic")
    join([start(context, push_ones, vector, seed, num_pushes, 1) for seed in range(NUM_WORKERS)])
    assert vector.pull().result().sum() == NUM_WORKERS * num_pushes


def test_large_pushes_from_a_parent_and_its_child(client: glintpy.Client) -> None:
    # Large frames leave without a copy, over machinery of pyzmq's that has a thread and must bear a fork too.
    context = multiprocessing.get_context("fork")
    vector = client.vector(500_000, dtype="int64")
    futures = [vector.push(None, 1) for _ in range(5)]
    process = start(context, push_everywhere, vector, 5)
    futures += [vector.push(None, 1) for _ in range(5)]
    join([process])
    glintpy.gather(*futures).result()
    assert vector.pull().result().tolist() == [15] * 500_000


def push_everywhere(vector: glintpy.BigVector, num_pushes: int) -> None:
    for _ in range(num_pushes):
        vector.push(None, 1)


def test_a_child_of_a_child(client: glintpy.Client) -> None:
    vector = client.vector(100, dtype="int64")
    vector.push(None, 1)
    join([start(multiprocessing.get_context("fork"), push_and_fork, vector, 3)])
    assert vector.pull().result().tolist() == [4] * 100


def push_and_fork(vector: glintpy.BigVector, depth: int) -> None:
    vector.push(None, 1)
    if depth > 1:
        join([start(multiprocessing.get_context("fork"), push_and_fork, vector, depth - 1)])


def test_a_future_under_way_at_the_fork_raises_in_the_child_and_is_done_in_the_parent(
    cluster: glintpy.LocalCluster, client: glintpy.Client
) -> None:
    context = multiprocessing.get_context("fork")
    vector = client.vector(100, dtype="int64")
    done = vector.push(None, 1)
    done.result()
    ours, theirs = context.Pipe(duplex=False)
    with paused(cluster.servers[0].pid):
        push, pull = vector.push(None, 1), vector.pull()
        process = start(context, tell_outcomes, theirs, done, push, pull)
        assert ours.poll(PATIENCE_S)
        told = ours.recv()
    join([process])
    ours.close()
    theirs.close()
    assert told[0] == "None"
    assert all("before it forked" in outcome and "RequestError" in outcome for outcome in told[1:])
    assert push.result() is None
    assert pull.result().tolist() == [2] * 100


def tell_outcomes(connection: Connection, *futures: glintpy.Future[Any]) -> None:
    connection.send([repr(future.exception()) for future in futures])
    connection.close()


def test_a_child_may_use_the_clients_of_its_parent(client: glintpy.Client) -> None:
    vector = client.vector(10, dtype="int64", name="theirs")
    join([start(multiprocessing.get_context("fork"), use_client, client)])
    assert vector.pull().result().tolist() == [1] * 10
    assert sorted(client.models()) == ["made by the child", "theirs"]


def use_client(client: glintpy.Client) -> None:
    with client:
        client.vector(5, name="made by the child")
        client.open("theirs").push(None, 1)


# --- pickled handles --------------------------------------------------------------------------------------


@pytest.mark.pickles
def test_a_handle_unpickled_here_shares_the_client_s_connection(client: glintpy.Client) -> None:
    vector = client.vector(100, dtype="int64")
    vector.push(None, 1)
    copies = [pickle.loads(pickle.dumps(vector)) for _ in range(5)]  # noqa: S301 - our own bytes
    assert len({vector, *copies}) == 1
    for copy in copies:
        copy.push([3], 1)
    # They share a session: a pull through one sees the pushes of all.
    assert vector.pull([3]).result()[0] == 6
    assert copies[0].pull([3]).result()[0] == 6
    assert len(client.clients()) == 1


def test_handles_of_one_model_are_equal_whoever_opened_it(cluster: glintpy.LocalCluster) -> None:
    with cluster.client() as first, cluster.client() as second:
        made = first.matrix(10, 3, name="shared")
        opened = second.open("shared")
        assert made == opened == made.with_options(timeout_s=1)
        assert hash(made) == hash(opened)
        made.push([4], 1.5).result()
        assert opened.pull([4]).result().tolist() == [[1.5] * 3]
        with first.matrix(10, 3) as other:
            assert made != other
        opened.destroy()
        with pytest.raises(glintpy.ModelNotFound):
            made.pull([4]).result()


# --- many at once -----------------------------------------------------------------------------------------


def test_many_processes_that_make_the_same_model_get_one(
    cluster: glintpy.LocalCluster, client: glintpy.Client
) -> None:
    context = multiprocessing.get_context("fork")
    join([start(context, make_and_push, cluster.address) for _ in range(6)])
    assert client.models() == ["the one"]
    assert client.open("the one").pull().result().tolist() == [[6] * 4] * 50


def make_and_push(address: str) -> None:
    with glintpy.Client(address) as client:
        matrix = client.matrix(50, 4, dtype="int64", name="the one", exist_ok=True)
        matrix.push(None, 1)


def test_a_model_that_differs_is_refused_with_the_difference(client: glintpy.Client) -> None:
    client.matrix(50, 4, dtype="int64", name="the one")
    with pytest.raises(glintpy.ModelExists, match="cols"):
        client.matrix(50, 5, dtype="int64", name="the one", exist_ok=True)
    with pytest.raises(glintpy.ModelExists, match="already"):
        client.matrix(50, 4, dtype="int64", name="the one")
