"""Several workers of one job: they agree about keys, optimisers and values, whoever calls first."""

from __future__ import annotations

from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy import ModelNotFound
from glintpy.kvstore import KVStore, create
from tests.cluster.helpers import until
from tests.kvstore.conftest import PATIENCE_S, RunWorkers


def test_the_value_of_rank_0_counts(run_workers: RunWorkers) -> None:
    def work(kv: KVStore) -> Any:
        kv.init("w", np.full(3, float(kv.rank)))
        return kv.pull("w").tolist()

    assert run_workers(work, 3) == [[0, 0, 0]] * 3


def test_workers_may_group_their_keys_as_they_like(run_workers: RunWorkers) -> None:
    def work(kv: KVStore) -> Any:
        keys = list(range(20))
        if kv.rank == 0:
            for key in keys:
                kv.init(key, np.full(2, float(key)))
        else:
            kv.init(keys[::-1], [np.zeros(2)] * 20)
        return [array[0] for array in kv.pull(keys)]

    assert run_workers(work) == [list(range(20))] * 2


def test_pushes_of_all_workers_count(run_workers: RunWorkers) -> None:
    def work(kv: KVStore) -> Any:
        kv.set_optimizer("add")
        kv.init(["a", "big"], [np.zeros(5), np.zeros(100_000)])
        for _ in range(10):
            kv.push(["a", "big"], [np.ones(5), np.ones(100_000)])
        kv.barrier()
        return [array.sum() for array in kv.pull(["a", "big"])]

    assert run_workers(work, 3) == [[150, 3_000_000]] * 3


@pytest.mark.parametrize("first", ["init", "optimizer"])
def test_an_optimizer_may_be_set_before_or_after_the_keys(run_workers: RunWorkers, first: str) -> None:
    def work(kv: KVStore) -> Any:
        for step in ("init", "optimizer") if first == "init" else ("optimizer", "init"):
            if step == "init":
                kv.init("w", np.ones(4))
            else:
                kv.set_optimizer("sgd", learning_rate=0.5)
        kv.barrier()
        kv.push("w", np.ones(4))
        kv.barrier()
        values = kv.pull("w").tolist()
        kv.set_optimizer("sgd", learning_rate=0.25, momentum=0.5)  # another one: values stay
        assert kv.pull("w").tolist() == values
        kv.barrier()
        kv.push("w", np.ones(4))
        kv.barrier()
        return kv.pull("w").tolist()

    assert run_workers(work) == [[-0.625] * 4] * 2


def test_keys_are_deleted_and_made_anew_by_all(run_workers: RunWorkers) -> None:
    def work(kv: KVStore) -> Any:
        found = []
        for size in (2, 3, 100_000):
            kv.init("w", np.full(size, float(size)))
            found.append(kv.pull("w").sum())
            kv.barrier()
            kv.delete("w")
        kv.barrier()
        assert kv.keys() == []
        return found

    assert run_workers(work) == [[4, 9, 10**10]] * 2


def test_a_worker_that_deletes_last_finds_it_done(run_workers: RunWorkers) -> None:
    def work(kv: KVStore) -> Any:
        for size in (2, 3):
            kv.init("w", np.full(size, float(size)))
            kv.barrier()
            if kv.rank == 0:
                kv.delete("w")
            kv.barrier()  # the other one hears of it here
            if kv.rank == 1:
                kv.delete("w")
        with pytest.raises(ModelNotFound):
            kv.delete("never")
        return kv.keys()

    assert run_workers(work) == [[], []]


def test_states_are_loaded_by_all(run_workers: RunWorkers, tmp_path: Any) -> None:
    def work(kv: KVStore) -> Any:
        kv.init("w", np.zeros(2))
        kv.set_optimizer("sgd", learning_rate=1.0, momentum=0.5)
        kv.barrier()
        if kv.rank == 0:
            kv.push("w", np.ones(2)).result()
            kv.save_optimizer_states(tmp_path / "states")
            kv.push("w", np.full(2, 50.0)).result()
        kv.barrier()
        kv.init("w", np.zeros(2))
        kv.load_optimizer_states(tmp_path / "states")
        kv.barrier()
        if kv.rank == 1:
            kv.push("w", np.ones(2)).result()
        kv.barrier()
        return kv.pull("w").tolist()

    assert run_workers(work) == [[-1.5, -1.5]] * 2


def test_shapes_that_differ_are_said_to_who_differs(run_workers: RunWorkers) -> None:
    def work(kv: KVStore) -> Any:
        if kv.rank == 0:
            kv.init("w", np.zeros(2))
            return ""
        with pytest.raises(glintpy.ShapeError) as caught:
            kv.init("w", np.zeros(3))
        return str(caught.value)

    assert (
        "key 'w' holds float64 of shape (2,), and the value here is float64 of shape (3,)"
        in run_workers(work)[1]
    )


def test_who_waits_for_rank_0_in_vain_is_told_so(run_workers: RunWorkers) -> None:
    def work(kv: KVStore) -> Any:
        if kv.rank == 1:
            kv._leading.timeout_s = 0.1  # type: ignore[attr-defined]
            with pytest.raises(
                glintpy.WorkersMissing, match=r"key 'w' was not initialised by rank 0 within 0\.1 s"
            ):
                kv.init("w", np.zeros(2))
        kv.barrier()
        return None

    run_workers(work)


def test_a_job_begins_with_an_empty_store_whatever_an_earlier_one_left(
    cluster: glintpy.LocalCluster, job: str
) -> None:
    with cluster.client() as client:
        create("dist_async", client, job=job, num_workers=1).init("w", np.ones(2))
        # It ends without a word.
    with cluster.client() as client:
        while any(group["name"] == job for group in client.status(timeout_s=0)["groups"]):
            assert client.servers()
        with create("dist_async", client, job=job, num_workers=1) as kv:
            assert kv.keys() == []
            kv.init("w", np.zeros(3))
            assert kv.pull("w").tolist() == [0, 0, 0]


def test_the_last_worker_takes_the_models_along(cluster: glintpy.LocalCluster, job: str) -> None:
    with cluster.client() as client, cluster.client() as other:
        one, two = (create("dist_async", it, job=job) for it in (client, other))
        one.init("w", np.ones(100_000))
        one.close()
        assert two.pull("w").sum() == 100_000
        two.close()
        two.close()
        assert not any(name.startswith(f"kv/{job}/") for name in client.models())
        with pytest.raises(glintpy.ConfigError, match="the store was closed"):
            two.pull("w")


def test_a_worker_that_comes_later_finds_all_that_is_there(cluster: glintpy.LocalCluster, job: str) -> None:
    with cluster.client() as client, create("dist_async", client, job=job) as kv:
        kv.set_optimizer("sgd", learning_rate=0.5)
        kv.init("w", np.ones(2))
        kv.push("w", np.ones(2)).result()
        with cluster.client() as other, create("dist_async", other, job=job) as late:
            assert late.rank == 1
            assert late.pull("w").tolist() == [0.5, 0.5]
            late.push("w", np.ones(2)).result()
        assert kv.pull("w").tolist() == [0, 0]


@pytest.mark.parametrize("kind", ["dist_async", "dist_sync"])
def test_a_worker_that_comes_later_deletes_and_makes_anew_with_the_others(
    kind: str, cluster: glintpy.LocalCluster, job: str
) -> None:
    with cluster.client() as client, create(kind, client, job=job) as kv:
        kv.set_optimizer("add")
        kv.init(["b", "gone"], [np.zeros(3), np.zeros(3)])
        kv.init("b", np.zeros(3))
        kv.pushpull(["b", "gone"], [np.ones(3), np.ones(3)])
        kv.delete("gone")
        with cluster.client() as other, create(kind, other, job=job) as late, ThreadPoolExecutor(1) as pool:
            for store in (kv, late):
                store.delete("b")
            waiting = pool.submit(late.init, ["b", "gone"], [np.zeros(3), np.zeros(3)])
            with pytest.raises(TimeoutError):
                waiting.result(0.2)
            kv.init(["b", "gone"], [np.full(3, 5.0), np.full(3, 6.0)])
            waiting.result(PATIENCE_S)
            for store in (kv, late):
                store.push(["b", "gone"], [np.ones(3), np.ones(3)]).result()
            for store in (late, kv):
                assert [array[0] for array in store.pull(["b", "gone"])] == [7, 8]


def test_who_deletes_early_is_not_waited_for(run_workers: RunWorkers) -> None:
    def work(kv: KVStore) -> Any:
        if kv.rank == 0:
            kv.init("b", np.ones(2))
            kv.delete("b")
        kv.barrier()
        if kv.rank == 1:
            kv.init("b", np.ones(2))
            kv.delete("b")
        kv.init("b", np.full(3, 2.0))
        return kv.pull("b").tolist()

    assert run_workers(work) == [[2, 2, 2]] * 2


def test_numbers_of_workers_that_can_t_be_are_said(cluster: glintpy.LocalCluster, job: str) -> None:
    with cluster.client() as client:
        with pytest.raises(glintpy.ConfigError, match=r"dist_sync is for at most 63 workers, and .* has 64"):
            create("dist_sync", client, job=job, num_workers=64)
        with create("dist_async", client, job=job, num_workers=1) as kv:
            with pytest.raises(
                glintpy.ConfigError, match=r"num_workers is 5, and .* was made with 1 workers"
            ):
                create("dist_async", client, job=job, num_workers=5)
            with create("dist_sync", client, job=job) as other:
                assert other.num_workers == kv.num_workers == 1
        assert client.models() == []


def test_the_environment_says_what_create_is_not_given(
    cluster: glintpy.LocalCluster, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(glintpy.ConfigError, match="there is no cluster: give create a client"):
        create("dist_async")
    monkeypatch.setenv("GLINTPY_MASTER", cluster.address)
    monkeypatch.setenv("GLINTPY_JOB", job)
    monkeypatch.setenv("DMLC_NUM_WORKER", "1")
    with create("dist_async") as kv, create("dist_async") as second:
        assert kv.num_workers == 1
        assert second.client is kv.client
        kv.init("w", np.zeros(1))
    monkeypatch.setenv("DMLC_ROLE", "server")
    with pytest.raises(glintpy.ConfigError, match="DMLC_ROLE is 'server'"):
        create("dist_async")


def test_ranks_are_those_that_the_launcher_gave(cluster: glintpy.LocalCluster, job: str) -> None:
    import threading

    from glintpy.kvstore.environment import Job
    from glintpy.kvstore.membership import Membership

    ranks: dict[int, int] = {}

    def join(rank: int) -> None:
        told = Job(cluster.address, job, rank=rank, num_workers=3)
        with cluster.client() as client:
            membership = Membership.shared(client, told, timeout_s=PATIENCE_S)
            ranks[rank] = membership.group.rank
            membership.group.barrier(PATIENCE_S)
            membership.release()

    threads = [threading.Thread(target=join, args=(rank,)) for rank in (2, 1, 0)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ranks == {0: 0, 1: 1, 2: 2}


def test_a_worker_that_is_started_again_before_all_have_come_counts_once(
    cluster: glintpy.LocalCluster, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLINTPY_MASTER", cluster.address)
    options: dict[str, Any] = {"job": job, "num_workers": 3, "timeout_s": PATIENCE_S}
    clients = [cluster.client() for _ in range(4)]

    def train(client: glintpy.Client) -> list[float]:
        with create("dist_sync", client, **options) as kv:
            kv.init("w", np.zeros(2))
            kv.pushpull("w", np.ones(2), out=(out := np.zeros(2)))
            kv.barrier()
            return list(out)

    def until_waiting(*ranks: int) -> None:
        def are_waiting() -> bool:
            found = {group["name"]: group["workers"] for group in clients[0].status()["groups"]}
            return [worker["rank"] for worker in found.get(job, ()) if worker["waits_for"]] == [*ranks]

        until(are_waiting, f"ranks {ranks} wait for the others")

    def begin(client: glintpy.Client, rank: int) -> Future[list[float]]:
        monkeypatch.setenv("GLINTPY_RANK", str(rank))
        return pool.submit(train, client)

    with ThreadPoolExecutor(4) as pool:
        one = begin(clients[0], 0)
        until_waiting(0)
        lost = begin(clients[1], 1)
        until_waiting(0, 1)
        clients[1].close()
        with pytest.raises(glintpy.GlintError):
            lost.result(PATIENCE_S)
        until_waiting(0)
        heir = begin(clients[2], 1)
        until_waiting(0, 1)
        last = begin(clients[3], 2)
        assert [each.result(PATIENCE_S) for each in (one, heir, last)] == [[3, 3]] * 3
    for client in clients:
        client.close()


def test_a_worker_has_the_rank_that_its_launcher_gave_it_whoever_comes_first(
    cluster: glintpy.LocalCluster, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("GLINTPY_MASTER", cluster.address)
    monkeypatch.setenv("GLINTPY_RANK", "1")
    options: dict[str, Any] = {"job": job, "num_workers": 2, "timeout_s": PATIENCE_S}
    with cluster.client() as one, cluster.client() as two, ThreadPoolExecutor(1) as pool:
        first = pool.submit(create, "dist_async", one, **options)
        until(
            lambda: [group["workers"][0]["rank"] for group in two.status()["groups"]] == [1], "it has joined"
        )
        monkeypatch.setenv("GLINTPY_RANK", "0")
        with create("dist_async", two, **options) as other, first.result(PATIENCE_S) as kv:
            assert (other.rank, kv.rank) == (0, 1)
