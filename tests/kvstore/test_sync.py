"""dist_sync: one update for what all workers push, whoever is slow, repeats itself or dies."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.kvstore import KVStore, RowSparse, create
from glintpy.kvstore.creating import SYNC
from tests.kvstore.conftest import RunWorkers

KEYS = ["small", "row", "big", "table"]
SHAPES = [(3,), (70,), (70_000,), (300, 300)]


def arrays(value: float) -> list[Any]:
    return [np.full(shape, value) for shape in SHAPES]


def test_without_an_optimizer_the_sum_of_all_is_stored(run_workers: RunWorkers) -> None:
    def work(kv: KVStore) -> Any:
        kv.init(KEYS, arrays(9.0))
        found = []
        for step in range(3):
            kv.push(KEYS, arrays(step + kv.rank + 1.0))
            found.append([set(np.unique(array)) for array in kv.pull(KEYS)])
        return found

    sums = [[{float(3 * step + 6)}] * 4 for step in range(3)]
    assert run_workers(work, 3, "dist_sync") == [sums] * 3


def test_the_optimizer_makes_one_step_of_what_all_push(run_workers: RunWorkers) -> None:
    def work(kv: KVStore) -> Any:
        kv.set_optimizer("sgd", learning_rate=0.5, momentum=0.5)
        kv.init(KEYS, arrays(0.0))
        for _ in range(3):
            kv.push(KEYS, arrays(1.0))
            kv.pull(KEYS)
        return [array.ravel()[-1] for array in kv.pull(KEYS)]

    alone = create("local")
    alone.set_optimizer("sgd", learning_rate=0.5, momentum=0.5)
    alone.init("w", np.zeros(1))
    for _ in range(3):
        alone.push("w", np.full(1, 2.0))
    assert run_workers(work, 2, "dist_sync") == [[alone.pull("w")[0]] * 4] * 2


def test_workers_may_push_in_other_lists_and_orders(run_workers: RunWorkers) -> None:
    def work(kv: KVStore) -> Any:
        kv.init(KEYS, arrays(0.0))
        kv.set_optimizer("add")
        for _ in range(3):
            if kv.rank:
                for key, array in zip(KEYS[::-1], arrays(1.0)[::-1], strict=True):
                    kv.push(key, array)
            else:
                kv.push(KEYS, arrays(1.0))
            kv.pull(KEYS if kv.rank else KEYS[::-1])
        return [array.ravel()[0] for array in kv.pull(KEYS)]

    assert run_workers(work, 2, "dist_sync") == [[6] * 4] * 2


def test_each_push_is_a_round_also_without_a_pull_between(run_workers: RunWorkers) -> None:
    def work(kv: KVStore) -> Any:
        kv.init("w", np.zeros(2))
        kv.set_optimizer("add")
        for _ in range(5):
            kv.push("w", np.ones(2))
        return kv.pull("w").tolist()

    assert run_workers(work, 2, "dist_sync") == [[10, 10]] * 2


def test_pushpull_and_rows_are_of_the_round(run_workers: RunWorkers) -> None:
    def work(kv: KVStore) -> Any:
        kv.init("e", np.zeros((5, 3)))
        value = np.full((5, 3), kv.rank + 1.0)
        kv.pushpull("e", value)
        assert (value == 3).all()
        kv.push("e", RowSparse([kv.rank, 4], np.ones((2, 3))))
        return kv.row_sparse_pull("e", row_ids=[4, 0, 1, 2])[:, 0].tolist()

    assert run_workers(work, 2, "dist_sync") == [[2, 1, 1, 0]] * 2


def test_one_worker_that_pushes_twice_ends_the_round_for_another(run_workers: RunWorkers) -> None:
    """MXNet counts requests. Here workers count: the second push waits, and who is missing is said."""

    def work(kv: KVStore) -> Any:
        kv.init("w", np.zeros(2))
        kv.barrier()
        if kv.rank == 0:
            kv.push("w", np.ones(2))
            model = kv._models.handle(kv._directory.places["w"].model)  # type: ignore[attr-defined]
            kv._models.handles[kv._directory.places["w"].model] = model.with_options(timeout_s=0.5)  # type: ignore[attr-defined]
            with pytest.raises(
                glintpy.WorkersMissing, match=r"not all of 2 workers have pushed 'w' \(push 1\)"
            ):
                kv.push("w", np.ones(2))
            kv._models.handles.clear()  # type: ignore[attr-defined]
        kv.barrier()
        if kv.rank == 1:
            assert kv.pull("w").tolist() == [0, 0]
            kv.push("w", np.full(2, 5.0))
        return kv.pull("w").tolist()

    assert run_workers(work, 2, "dist_sync") == [[6, 6]] * 2


def test_a_worker_that_is_lost_in_a_round_hangs_the_others(cluster: glintpy.LocalCluster, job: str) -> None:
    """MXNet's workers wait for ever. Here the round ends without it, and they go on."""
    with cluster.client() as client, create("dist_sync", client, job=job) as kv:
        other = cluster.client()
        lost = create("dist_sync", other, job=job)
        kv.init("w", np.zeros(2))
        lost.init("w", np.zeros(2))
        kv.push("w", np.ones(2))
        lost.push("w", np.ones(2))
        assert kv.pull("w").tolist() == [2, 2]
        kv.push("w", np.full(2, 3.0))
        other.close()  # without a word
        assert kv.pull("w").tolist() == [3, 3]
        kv.push("w", np.full(2, 4.0))
        assert kv.pull("w").tolist() == [4, 4]


def test_another_optimizer_and_states_are_for_rounds_too(run_workers: RunWorkers, tmp_path: Any) -> None:
    def work(kv: KVStore) -> Any:
        kv.init(["w", "big"], [np.zeros(2), np.zeros(70_000)])
        kv.push(["w", "big"], [np.ones(2), np.ones(70_000)])
        kv.set_optimizer("sgd", learning_rate=1.0, momentum=0.5)
        assert kv.pull("w").tolist() == [2, 2]
        kv.push(["w", "big"], [np.ones(2), np.ones(70_000)])
        kv.pull(["w", "big"])
        if kv.rank == 0:
            kv.save_optimizer_states(tmp_path / "states")
        kv.barrier()
        kv.push(["w", "big"], [np.full(2, 50.0), np.full(70_000, 50.0)])
        kv.init(["w", "big"], [np.zeros(2), np.zeros(70_000)])
        kv.load_optimizer_states(tmp_path / "states")
        kv.init(["w", "big"], [np.zeros(2), np.zeros(70_000)])
        kv.barrier()
        kv.push(["w", "big"], [np.ones(2), np.ones(70_000)])
        return [array[-1] for array in kv.pull(["w", "big"])]

    assert run_workers(work, 2, "dist_sync") == [[-3, -3]] * 2


def test_commands_are_about_the_cells_of_a_key(cluster: glintpy.LocalCluster, job: str) -> None:
    with cluster.client() as client, create("dist_sync", client, job=job) as kv:
        kv.set_optimizer("add")
        values = [np.ones(3), np.full(3, 5.0), np.full(128, 2.0), np.ones((300, 300))]
        kv.init(["a", "b", "full", "table"], values)
        send = kv.send_command_to_servers
        assert send("sum") == {"a": 3, "b": 15, "full": 256, "table": 90_000}
        assert send("sum", '{"keys": ["a", "full"], "axis": 0}') == {"a": 3, "full": 256}
        assert send("scale", '{"keys": ["b", "b"], "by": 2}') == {"b": None}
        send("fill", '{"keys": ["full"], "value": 9}')
        assert send("max", '{"keys": ["full"]}') == {"full": 9}
        assert send("norms", '{"keys": ["table"]}')["table"].shape == (300,)
        kv.init("later", np.zeros(3))
        found = kv.pull(["a", "b", "full", "later"])
        assert [np.unique(array).tolist() for array in found] == [[1], [10], [9], [0]]
        for head, body, said in [
            ("fill", '{"value": 9}', "3 cells of key 'a' lie in rows of 64, with 61 zeros behind them"),
            ("norms", '{"keys": ["full"]}', "128 cells of key 'full' lie in rows of 64: .* not 'norms'"),
            ("scale", '{"keys": ["a"], "by": Infinity}', "there run count_nonzero, scale, sum"),
            ("sum", '{"keys": ["a"], "axis": 1}', "Pull the key and compute it here"),
        ]:
            with pytest.raises(glintpy.ConfigError, match=said):
                send(head, body)
        assert kv.pull("table").max() == 1


@pytest.mark.parametrize("kind", SYNC)
def test_mxnet_s_names_of_it_are_known(kind: str, cluster: glintpy.LocalCluster, job: str) -> None:
    with cluster.client() as client, create(kind, client, job=job) as kv:
        assert kv.type == kind
        kv.init("w", np.zeros(2))
        kv.push("w", np.ones(2))
        assert kv.pull("w").tolist() == [1, 1]
