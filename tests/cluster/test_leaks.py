"""Clients, models and requests come and go; what they took is given back, here and on the servers."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import glintpy
from tests.cluster.helpers import holdings, num_descriptors, until
from tests.leftovers import Leftovers


def server_descriptors(cluster: glintpy.LocalCluster) -> list[int]:
    return [num_descriptors(pid) for pid in (cluster.master_pid, *(server.pid for server in cluster.servers))]


def files_of(cluster: glintpy.LocalCluster) -> set[Path]:
    return {path for path in cluster._private.rglob("*") if path.is_file()}


def test_clients_that_come_and_go_leave_nothing_on_the_servers(
    cluster: glintpy.LocalCluster, client: glintpy.Client
) -> None:
    vector = client.vector(100, dtype="int64", name="visited")
    vector.push(None, 1).result()
    before, here = server_descriptors(cluster), Leftovers.now()
    for _ in range(30):
        with cluster.client() as visitor:
            visitor.open("visited").push(None, 1)
    assert vector.pull().result().tolist() == [31] * 100
    until(lambda: len(client.clients()) == 1, "the visitors are forgotten")
    # A session takes a row of receipts until its client says good-bye.
    until(lambda: [h["sessions"] for h in holdings(client).values()] == [1, 1], "the sessions have ended")
    until(lambda: server_descriptors(cluster) == before, "the servers have closed the connections")
    here.check("thirty clients")


def test_models_that_come_and_go_leave_no_file_and_no_descriptor(
    cluster: glintpy.LocalCluster, client: glintpy.Client
) -> None:
    with client.vector(100) as vector:
        vector.push(None, 1.0).result()
    files, descriptors = files_of(cluster), server_descriptors(cluster)
    for number in range(30):
        with client.matrix(100, 5, name=f"model {number}") as matrix:
            matrix.push(None, 1.0)
            assert len(files_of(cluster)) == len(files) + 2
    assert files_of(cluster) == files
    assert server_descriptors(cluster) == descriptors
    assert client.models() == []
    assert [(held["models"], held["model_bytes"]) for held in holdings(client).values()] == [([], 0)] * 2


def test_requests_that_are_done_are_forgotten(client: glintpy.Client) -> None:
    matrix = client.matrix(1000, 4, dtype="int64")
    futures = [matrix.push([row], 1) for row in range(1000)]
    futures += [matrix.push_pull([row], 1) for row in range(1000)]  # type: ignore[misc] # both kinds in one list
    client.flush()
    runtime = client._tie.runtime()
    assert [session.num_waiting for session in runtime.sessions().values()] == [0, 0]
    assert runtime.pushes._open == {}
    assert runtime.pushes._failed == []
    watched = [weakref.ref(future) for future in futures]
    glintpy.gather(*futures).result()
    del futures
    gc.collect()
    assert [reference for reference in watched if reference() is not None] == []


def test_arrays_are_freed_at_once_and_not_by_the_collector(client: glintpy.Client) -> None:
    # Reference cycles would keep every pulled array until the collector comes by: hundreds of megabytes.
    vector = client.vector(1_000_000, partitions_per_server=2)
    gc.collect()
    gc.disable()
    try:
        watched: list[weakref.ref[object]] = []
        for _ in range(3):
            push = vector.push(None, 1.0)
            pull = vector.push_pull(None, 1.0)
            watched += [weakref.ref(push), weakref.ref(pull), weakref.ref(pull.result())]
        watched += [weakref.ref(vector.pull().result())]
        client.flush()
        del push, pull
        until(lambda: not [reference for reference in watched if reference() is not None], "all are freed")
    finally:
        gc.enable()


def test_a_client_that_is_dropped_without_a_word_is_closed_at_the_latest_with_its_cluster() -> None:
    with glintpy.LocalCluster(1, scheme="ipc") as cluster:
        vector = cluster.client().vector(10, dtype="int64")
        vector.push(None, 1).result()
        del vector
