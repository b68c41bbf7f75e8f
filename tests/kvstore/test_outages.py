"""dist_sync where a server is away for longer than a call waits: what is known is said, and there is a way on."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
import pytest

import glintpy
from glintpy.kvstore import KVStore, create

SIZE = 70_000
"""Cells of an array that has a model of its own, on all servers."""


@pytest.fixture
def outage(request: pytest.FixtureRequest, job: str) -> Iterator[tuple[glintpy.LocalCluster, list[KVStore]]]:
    """A cluster of as many servers as asked for, and two workers that wait for half a second."""
    with ExitStack() as stack:
        cluster = stack.enter_context(glintpy.LocalCluster(request.param, scheme="local"))
        clients = [stack.enter_context(cluster.client(timeout_s=0.5)) for _ in range(2)]
        with ThreadPoolExecutor(2) as pool:  # each waits for the other
            stores = list(
                pool.map(lambda client: create("dist_sync", client, job=job, num_workers=2), clients)
            )
        stores.sort(key=lambda kv: kv.rank)  # rank 0 initialises
        for kv in stores:
            kv.init(["a", "b"], [np.zeros(SIZE), np.zeros(3)])
        yield cluster, stores


def both(stores: list[KVStore], key: str, value: float, size: int = SIZE) -> list[float]:
    """Have both workers push and pull a key at once; what each saw in all cells."""

    def work(kv: KVStore) -> float:
        [found] = np.unique(kv.pushpull(key, np.full(size, value)))
        return float(found)

    with ThreadPoolExecutor(2) as pool:
        return list(pool.map(work, stores))


@pytest.mark.parametrize("outage", [1], indirect=True)
def test_what_was_not_sent_is_no_part_of_a_round(outage: tuple[glintpy.LocalCluster, list[KVStore]]) -> None:
    cluster, stores = outage
    first = stores[0]
    assert both(stores, "a", 1.0) == [2, 2]
    cluster.kill_server(0)
    with pytest.raises(glintpy.PullFailed):
        first.pull("b")  # by its end the connection is known to be gone
    with pytest.raises(glintpy.PushRefused, match="nothing was sent"):
        first.pushpull("a", np.full(SIZE, 9.0))
    future = first.push("a", np.full(SIZE, 9.0))
    with pytest.raises(glintpy.PushRefused, match="nothing was sent"):
        future.result()
    with pytest.raises(glintpy.PullFailed):
        first.pull("a")
    cluster.restart_server(0)
    assert both(stores, "a", 2.0) == [4, 4]


@pytest.mark.parametrize("outage", [2], indirect=True)
def test_what_is_in_on_one_server_only_is_told_and_its_key_can_be_ended(
    outage: tuple[glintpy.LocalCluster, list[KVStore]],
) -> None:
    cluster, stores = outage
    first, second = stores
    cluster.kill_server(1)
    with pytest.raises(glintpy.PullFailed):
        second.pull("a")
    with pytest.raises(glintpy.PullFailed):
        first.pull("a")  # by its end the connection is known to be gone
    with pytest.raises(glintpy.PushOutcomeUnknown, match="1 refused"):
        first.pushpull("a", np.ones(SIZE))
    cluster.restart_server(1)
    for call in (lambda: first.push("a", np.ones(SIZE)), lambda: first.pull("a")):
        with pytest.raises(
            glintpy.PushOutcomeUnknown, match=r"push 1 of key 'a' is in on some servers.*delete the key"
        ):
            call()
    with pytest.raises(glintpy.WorkersMissing):
        second.pushpull("a", np.ones(SIZE))
    for kv in stores:
        kv.delete("a")
    for kv in stores:
        kv.init("a", np.zeros(SIZE))
    assert both(stores, "a", 3.0) == [6, 6]


@pytest.mark.parametrize("outage", [1], indirect=True)
def test_what_is_refused_here_is_no_part_of_a_round(
    outage: tuple[glintpy.LocalCluster, list[KVStore]],
) -> None:
    _, stores = outage
    for kv in stores:
        kv.init("h", np.zeros(3, np.float16))
    stores[0].set_gradient_compression({"type": "2bit", "threshold": 1e5})  # more than float16 holds
    with np.errstate(over="ignore"), pytest.raises(glintpy.DTypeError):
        stores[0].push("h", np.ones(3, np.float16))
    stores[0].set_gradient_compression({"type": "none"})
    assert both(stores, "h", 1.0, 3) == [2, 2]
    assert both(stores, "b", 1.0, 3) == [2, 2]
