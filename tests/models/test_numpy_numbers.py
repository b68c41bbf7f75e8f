"""Every number that a program may say in a call may be one of NumPy's: sizes, seeds, limits, seconds and rates."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy import Client, LocalCluster, kvstore
from glintpy.updaters import Adam, schedules

Int: Any = np.int64
Real: Any = np.float32


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with (
        LocalCluster(Int(2), memory_limit=Int(2**30), port=Int(0), scheme="local") as cluster,
        cluster.client(queued_bytes_max=Int(2**20), timeout_s=Real(30)) as client,
    ):
        yield client


@pytest.mark.parametrize(
    "make",
    [
        lambda client: client.matrix(Int(5), Int(3), init=("uniform", Real(-1), Real(1)), seed=Int(3)),
        lambda client: client.matrix(
            5, 3, init=Real(0.5), partitions_per_server=Int(3), partitioner="cyclic"
        ),
        lambda client: client.vector(Int(5), dtype="int64", init=Int(3)),
        lambda client: client.vector(5, updater=Adam(learning_rate=Real(0.1))),
        lambda client: client.vector(5, updater=Adam(schedules.Stepwise(Real(0.1), Real(0.5), Int(3)))),
        lambda client: client.table(Int(4), max_bytes=Int(1 << 20), admit_after=Int(2), init=Real(1)),
    ],
)
def test_making(client: Client, make: Callable[[Client], Any]) -> None:
    model = make(client)
    assert client.open(model.name).spec.to_content() == model.spec.to_content()
    model.destroy()


def test_calls_of_a_model(client: Client) -> None:
    matrix = client.matrix(50, 3, updater=Adam()).with_options(timeout_s=Real(20))
    matrix.configure(learning_rate=Real(0.5))
    assert matrix.updater == Adam(learning_rate=0.5)
    matrix.fill(Real(2)).result()
    matrix.scale(Real(2)).result()
    matrix.clip(Real(0), Real(3)).result()
    assert (matrix.pull(Int(7)).result(Real(20)) == 3).all()
    counts, _ = matrix.histogram(Int(3), low=Real(0), high=Int(6)).result()
    assert counts.sum() == 150
    assert len(matrix.top_k(np.ones(3), Int(4)).result()[0]) == 4
    assert len(matrix.sample(Int(6), seed=Int(1)).result()) == 6
    assert [len(block) for block in glintpy.RowBlockIterator(matrix, block_rows=Int(25))] == [25, 25]
    glintpy.PushBuffer(matrix, max_bytes=Int(4000)).flush()
    client.flush(timeout_s=Real(20))


def test_what_is_to_be_evicted(client: Client) -> None:
    table = client.table(1, track=True)
    table.push([1, 2], 1).result()
    assert table.evict(fewer_than=Int(2)).result() is None
    assert table.evict(older_than=Real(3600)).result() is None
    assert table.evict(max_rows=Int(1)).result() is None


def test_groups(client: Client) -> None:
    with client.join("numbers", num_workers=Int(1)) as group:
        group.tick()
        group.wait(staleness=Int(1))
        group.barrier(timeout_s=Real(20))
        matrix = client.matrix(4, 2, consistency="bsp", group=group)
        matrix.push([1], 2.0, round=Int(1)).result(20)
        assert (matrix.pull([1], round=Int(1)).result(20) == 2).all()
        assert (matrix.push_pull([1], 3.0, round=Int(2)).result(20) == 5).all()
    with client.join("others") as one, client.join("others") as two:
        one.send("a", Int(1), head=Int(7)).result(20)
        assert two.receive(Real(20)).head == 7


def test_an_app(client: Client) -> None:
    kvstore.KVServer(Int(4), client, job="numbers", k=Int(2)).set_request_handle()
    with kvstore.KVWorker(Int(4), Int(1), client, job="numbers") as worker:
        timestamp = worker.push([1], [1, 2], cmd=Int(0), priority=Int(3))
        worker.wait(Int(timestamp), Real(20))
        assert worker.values(Int(worker.pull([1])), Real(20)).tolist() == [1, 2]
        assert worker.app_id == 4
        assert worker.customer_id == 1


def test_a_kvstore() -> None:
    with kvstore.create("device") as store:
        store.set_gradient_compression({"type": "2bit", "threshold": Real(0.5)})
        store.set_optimizer("sgd", learning_rate=Real(0.5), rescale_grad=Real(0.5))
        store.init(Int(3), np.zeros(2))
        store.push(Int(3), np.array([4.0, -4.0]))
        assert store.pull(3).tolist() == [-0.125, 0.125]
