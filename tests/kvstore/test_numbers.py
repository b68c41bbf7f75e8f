"""An optimiser's numbers: under MXNet's names, changed by any worker, and saved with what it has learnt."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.kvstore import create, create_optimizer
from glintpy.kvstore.store import KVStore
from glintpy.updaters import SGD, Adam, AdamW, Ftrl, Momentum, Nesterov, RMSprop
from tests.kvstore.conftest import RunWorkers

# --- by name ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "numbers", "expected"),
    [
        ("nag", {}, SGD(0.01)),
        ("nag", {"momentum": 0.9}, Nesterov(0.01, momentum=0.9)),
        ("adamw", {}, AdamW(0.001, weight_decay=0.0, epsilon=1e-6)),
        ("rmsprop", {"rho": 0.8, "gamma2": 0.9, "momentum": 0.9}, RMSprop(0.001, decay=0.8)),
        ("ftrl", {"wd": 0.5}, Ftrl(l1=0.01, l2=0.5)),
        ("sgd", {"clip_gradient": -1}, SGD(0.01)),
    ],
)
def test_names_and_defaults_are_mxnet_s(name: str, numbers: dict[str, Any], expected: Any) -> None:
    assert create_optimizer(name, **numbers).updater == expected


@pytest.mark.parametrize(
    ("name", "numbers", "said"),
    [
        ("ftrl", {"wd": 0.1, "l2": 0.2}, "ftrl's wd is its l2: give one of them"),
        ("rmsprop", {"gamma2": 0.5}, "rmsprop has gamma2=0.9 here"),
        ("sgd", {"wd": 0.1, "weight_decay": 0.1}, "given twice, under both of its names: wd, weight_decay"),
    ],
)
def test_what_says_two_things_is_refused(name: str, numbers: dict[str, Any], said: str) -> None:
    with pytest.raises(glintpy.ConfigError, match=said):
        create_optimizer(name, **numbers)


@pytest.mark.parametrize("factor", [np.nan, np.inf, "1", [1], True])
def test_a_factor_that_is_no_number_is_refused_however_it_comes(factor: Any) -> None:
    kv = create("local")
    for optimizer in ("sgd", SGD(0.1)):
        with pytest.raises(glintpy.ConfigError, match="rescale_grad is a number"):
            kv.set_optimizer(optimizer, rescale_grad=factor)


def test_numbers_are_changed_under_mxnet_s_names(kv: KVStore) -> None:
    with pytest.raises(glintpy.ConfigError, match="no optimiser yet"):
        kv.configure(wd=0.1)
    kv.set_optimizer("sgd", clip_gradient=1.0)
    kv.configure(wd=0.25, clip_gradient=-1)
    assert kv.optimizer is not None
    assert kv.optimizer.updater == SGD(0.01, weight_decay=0.25)
    with pytest.raises(glintpy.ConfigError, match="rescale_grad is changed by set_optimizer"):
        kv.configure(rescale_grad=0.5)


@pytest.mark.parametrize("updater", ["max", "min", "mean", "assign"])
def test_rounds_refuse_an_updater_that_doesn_t_count_sums_at_once(
    updater: str, cluster: glintpy.LocalCluster, job: str
) -> None:
    with cluster.client() as client, create("dist_sync", client, job=job, num_workers=1) as kv:
        with pytest.raises(
            glintpy.ConfigError, match=f"sums up what all workers push, and under '{updater}'"
        ):
            kv.set_optimizer(updater)
        kv.init("w", np.zeros(2))
        kv.push("w", np.ones(2))
        assert kv.pull("w").tolist() == [1, 1]


# --- by any worker ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["dist_async", "dist_sync"])
def test_what_any_worker_changes_holds_for_all_keys_to_come(run_workers: RunWorkers, kind: str) -> None:
    large = np.zeros((300, 300))

    def work(kv: KVStore) -> Any:
        kv.set_optimizer("sgd", learning_rate=1.0)
        if kv.rank == 1:
            kv.set_learning_rate(0.25)
        kv.barrier()
        assert kv.optimizer is not None
        rates = [kv.optimizer.updater.learning_rate]  # type: ignore[attr-defined]
        kv.init("first", large)
        kv.delete("first")
        if kv.rank == 1:
            kv.configure(learning_rate=0.5)
        kv.barrier()
        kv.init(["second", "small"], [large, np.zeros(2)])
        for key in ("second", "small"):
            kv.push(key, np.ones_like(kv.pull(key)))
        kv.barrier()
        return rates, float(kv.pull("second")[0, 0]), float(kv.pull("small")[0])

    assert run_workers(work, 2, kind) == [([0.25], -1.0, -1.0)] * 2


@pytest.mark.parametrize("kind", ["dist_async", "dist_sync"])
def test_states_have_the_numbers_that_any_worker_set(
    run_workers: RunWorkers, kind: str, tmp_path: Path
) -> None:
    def work(kv: KVStore) -> Any:
        kv.init("w", np.zeros(2))
        kv.set_optimizer("sgd", learning_rate=1.0, momentum=0.5, rescale_grad=0.5)
        if kv.rank == 1:
            kv.set_learning_rate(0.25)
        kv.barrier()
        if kv.rank == 0:
            kv.save_optimizer_states(tmp_path / "plain")
            kv.save_optimizer_states(tmp_path / "whole", dump_optimizer=True)
        kv.barrier()
        kv.load_optimizer_states(tmp_path / "plain")
        told = [kv.optimizer]
        kv.set_optimizer("sgd", learning_rate=1.0, momentum=0.5)
        told.append(kv.optimizer)
        kv.load_optimizer_states(tmp_path / "whole")
        told.append(kv.optimizer)
        return [(found.updater, found.rescale_grad) for found in told if found is not None]

    slow, fast = Momentum(0.25, momentum=0.5), Momentum(1.0, momentum=0.5)
    assert run_workers(work, 2, kind) == [[(slow, 0.5), (fast, 1.0), (slow, 0.5)]] * 2


def test_a_later_worker_meets_the_others_at_an_optimizer_and_passes_over_those_that_it_missed(
    cluster: glintpy.LocalCluster, job: str, run_workers: RunWorkers
) -> None:
    with cluster.client() as client, create("dist_async", client, job=job) as kv:
        kv.init("w", np.zeros(2))
        for rate in (1.0, 0.5):
            kv.set_optimizer("sgd", learning_rate=rate)
        with cluster.client() as other, create("dist_async", other, job=job) as late:
            for rate in (1.0, 0.5):  # its program's first lines, which are done
                late.set_optimizer("sgd", learning_rate=rate)

    def together(store: KVStore) -> Any:
        store.set_optimizer("sgd", learning_rate=0.125)
        return store.optimizer

    assert [found.updater for found in run_workers(together, 2)] == [SGD(0.125)] * 2


def test_a_later_worker_s_new_optimizer_is_everybody_s(cluster: glintpy.LocalCluster, job: str) -> None:
    import threading

    with cluster.client() as client, create("dist_async", client, job=job, timeout_s=60) as kv:
        kv.init("w", np.zeros(2))
        kv.set_optimizer("sgd", learning_rate=1.0)
        with cluster.client() as other, create("dist_async", other, job=job, timeout_s=60) as late:
            first = threading.Thread(target=kv.set_optimizer, args=("sgd",), kwargs={"learning_rate": 0.5})
            first.start()
            late.set_optimizer("sgd", learning_rate=0.5)
            first.join(60)
            assert not first.is_alive()
            for store in (kv, late):
                assert store.optimizer is not None
                assert store.optimizer.updater == SGD(0.5)


# --- a local store's file ---------------------------------------------------------------------------------


def saved(folder: Path, *, dump: bool = True) -> Path:
    kv = create("device")
    kv.init("w", np.zeros(3))
    kv.set_optimizer("adam", learning_rate=0.5, wd=0.25, rescale_grad=0.125)
    kv.push("w", np.ones(3))
    kv.save_optimizer_states(folder / "states", dump)
    return folder / "states"


def test_a_factor_of_zero_comes_back_as_it_was(tmp_path: Path) -> None:
    for factor in (0.0, 0.5):
        kv = create("local")
        kv.set_optimizer("sgd", rescale_grad=factor)
        if not factor:
            kv.save_optimizer_states(tmp_path / "states", dump_optimizer=True)
    kv.load_optimizer_states(tmp_path / "states")
    assert kv.optimizer is not None
    assert kv.optimizer.rescale_grad == 0.0


def test_a_local_store_saves_all_numbers(tmp_path: Path) -> None:
    path = saved(tmp_path)
    assert [entry.name for entry in tmp_path.iterdir()] == ["states"]
    kv = create("local")
    kv.init("w", np.zeros(3))
    kv.set_optimizer("adam")
    kv.load_optimizer_states(path)
    assert kv.optimizer is not None
    assert kv.optimizer.updater == Adam(0.5, weight_decay=0.25)
    assert kv.optimizer.rescale_grad == 0.125


def test_states_of_another_optimizer_with_the_same_slots_are_refused(tmp_path: Path) -> None:
    path = saved(tmp_path)
    kv = create("local")
    kv.init("w", np.zeros(3))
    kv.set_optimizer("adamw")
    with pytest.raises(glintpy.CheckpointMismatch, match="has what adam keeps"):
        kv.load_optimizer_states(path)
    assert kv.optimizer is not None
    assert kv.optimizer.updater == AdamW(weight_decay=0.0, epsilon=1e-6)


def test_a_file_that_is_damaged_or_another_says_so(tmp_path: Path) -> None:
    path = saved(tmp_path)
    whole = path.read_bytes()
    kv = create("local")
    kv.init("w", np.zeros(3))
    kv.set_optimizer("adam")
    np.save(tmp_path / "one.npy", np.zeros(3))
    np.savez(tmp_path / "others.npz", about=np.zeros(3, np.uint8))
    for content in (whole[:-30], whole[: len(whole) // 2], b"", whole.replace(b"0.variance", b"9.variance")):
        (tmp_path / "damaged").write_bytes(content)
        with pytest.raises(glintpy.CheckpointCorrupt):
            kv.load_optimizer_states(tmp_path / "damaged")
    for name in ("one.npy", "others.npz"):
        with pytest.raises(glintpy.CheckpointCorrupt):
            kv.load_optimizer_states(tmp_path / name)
    with pytest.raises(glintpy.CheckpointNotFound):
        kv.load_optimizer_states(tmp_path / "none")
