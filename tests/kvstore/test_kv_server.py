"""What an app is: keys with different numbers of values, what pushes do to them, and its end."""

from __future__ import annotations

import threading
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.kvstore import KVServer, KVWorker, apps, pairs
from glintpy.updaters import SGD, Adagrad
from tests.kvstore.conftest import PATIENCE_S, pulled

# --- different numbers of values ----------------------------------------------------------------------------------


def test_keys_may_have_different_numbers_of_values(varying: KVWorker) -> None:
    lens = np.array([1, 300, 12, 9, 9, 2])
    keys, vals = [50, 4, 2**64 - 1, 8, 3, 77], np.arange(lens.sum(), dtype=np.float32)
    varying.push(keys, vals, lens)
    varying.push(keys, vals, lens)
    found = np.zeros(7, np.int64)
    assert pulled(varying, [*keys, 1000], lens=found) == (2 * vals).tolist()
    assert found.tolist() == [*lens, 0]  # nobody has pushed the last one
    order = np.argsort(keys)
    starts = np.cumsum(lens) - lens
    expected = np.concatenate([2 * vals[starts[place] : starts[place] + lens[place]] for place in order])
    assert pulled(varying, np.array(keys, np.uint64)[order]) == expected.tolist()
    assert varying.values(varying.pushpull(keys, vals, lens=lens)).tolist() == (3 * vals).tolist()


def test_a_length_is_for_life_and_all_workers_know_it(
    varying: KVWorker, client: glintpy.Client, job: str
) -> None:
    varying.wait(varying.push([1, 2], [1, 2, 3], [1, 2]))
    other = KVWorker(0, 1, client, job=job)
    for worker in (varying, other):
        with pytest.raises(glintpy.ShapeError, match="key 1 at position 1 has 2 values here, and 1 since"):
            worker.push([3, 1], [1, 2, 3, 4])
        assert pulled(worker, [1, 2, 3]) == [1, 2, 3]  # not a part of it was pushed


def test_two_workers_that_begin_a_key_at_once_with_different_lengths_are_not_mixed_up(
    client: glintpy.Client, job: str
) -> None:
    """Both have seen that nobody had it. One of them, or both, hear of it, and so does everybody later."""
    KVServer(client=client, job=job, varying=True).set_request_handle()
    one, two = (KVWorker(0, customer, client, job=job) for customer in (0, 1))
    for worker in (one, two):
        worker.pull([5])
    found = one._app()
    assert isinstance(found, apps.VaryingApp)
    found.known = lambda keys: np.zeros(len(keys), np.int64)  # type: ignore[method-assign]
    two.push([5], [1, 2])
    with pytest.raises(glintpy.ShapeError, match="key 5 first, one with 2 values and one with 3"):
        one.push([5], [1, 2, 3])
    with pytest.raises(glintpy.ShapeError, match="key 5 first, one with 2 values and one with 3"):
        KVWorker(0, 2, client, job=job).pull([5])


def test_workers_that_begin_an_app_and_its_keys_at_once_agree(
    cluster: glintpy.LocalCluster, job: str
) -> None:
    lens = 1 + np.arange(64) % 20
    gate = threading.Barrier(4)

    def work(number: int) -> None:
        with cluster.client(timeout_s=PATIENCE_S) as client:
            for varies in (True, False):
                with KVWorker(int(varies), number, client, job=job, varying=varies) as worker:
                    gate.wait(PATIENCE_S)
                    worker.push(
                        np.arange(64), np.ones(lens.sum() if varies else 64), lens if varies else None
                    )

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    with cluster.client() as client:
        assert pulled(KVWorker(1, client=client, job=job), np.arange(64)) == [4] * int(lens.sum())
        assert pulled(KVWorker(0, client=client, job=job), np.arange(64)) == [4] * 64


def test_a_worker_forgets_lengths_that_are_too_many(
    varying: KVWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(apps, "KNOWN_MAX", 8)
    keys = np.arange(30)
    for key in keys:
        varying.push([key], np.ones(1 + key % 3))
    assert len(varying._app()._keys) <= 8  # type: ignore[union-attr]
    assert pulled(varying, keys) == [1] * int((1 + keys % 3).sum())


def test_widths_are_few_and_none_is_a_quarter_too_wide() -> None:
    lengths = np.arange(1, pairs.LENGTH_MAX + 1)
    widths = apps.width_of(lengths)
    assert bool((widths >= lengths).all())
    assert bool((widths <= np.maximum(8, lengths * 1.25)).all())
    assert len(np.unique(widths)) < 85
    assert apps.width_of(np.array([0, 3, 8, 9, 17])).tolist() == [0, 3, 8, 10, 20]


# --- KVServer -----------------------------------------------------------------------------------------------------


def test_a_handle_is_an_updater_by_its_name(client: glintpy.Client, job: str) -> None:
    KVServer(0, client, job=job, dtype="float64").set_request_handle("assign")
    KVServer(1, client, job=job, k=2).set_request_handle(SGD(learning_rate=0.5))
    KVServer(2, client, job=job, varying=True).set_request_handle(Adagrad(learning_rate=1.0))
    zero, one, two = (KVWorker(app, client=client, job=job) for app in range(3))
    for _ in range(2):
        zero.push([1], [3.0])
        one.push([1], [1, 2])
        two.push([1, 2], [2, 3, 4], [1, 2])
    assert zero.values(zero.pull([1])).dtype == np.float64
    assert pulled(zero, [1]) == [3]
    assert pulled(one, [1, 2]) == [-1, -2, 0, 0]
    step = -1 - 0.5**0.5
    assert np.allclose(pulled(two, [1, 2]), [step] * 3)
    with pytest.raises(glintpy.ConfigError, match=r"has int32, and the app's values are of float64"):
        KVWorker(0, 1, client, job=job, dtype="int32").push([1], [1])
    with pytest.raises(glintpy.DTypeError, match="vals are numbers"):
        zero.push([1], np.ones(1, complex))


def test_saying_the_same_again_changes_nothing_and_something_else_is_an_error(
    client: glintpy.Client, job: str
) -> None:
    worker = KVWorker(client=client, job=job)
    worker.push([1], [1.0])
    worker.flush()
    for _ in range(2):
        KVServer(client=client, job=job).set_request_handle()
    for server, handle in (
        (KVServer(client=client, job=job), "assign"),
        (KVServer(client=client, job=job, k=2), "add"),
        (KVServer(client=client, job=job, dtype="float64"), "add"),
        (KVServer(client=client, job=job, varying=True), "add"),
    ):
        with pytest.raises(glintpy.ConfigError, match="app 0 was begun otherwise"):
            server.set_request_handle(handle)
    assert pulled(worker, [1]) == [1]


def test_what_values_can_t_be_is_refused_before_a_handle_is_set(client: glintpy.Client, job: str) -> None:
    for k in (2.5, "2", True, 0, pairs.LENGTH_MAX + 1, None):
        with pytest.raises(
            glintpy.ConfigError, match=rf"k is how many values a key has, 1 to \d+, not {k!r}"
        ):
            KVServer(client=client, job=job, k=k)  # type: ignore[arg-type]  # - what the test is about
    wrong: list[Any] = ["x", None, "f8,(", "complex64", object]
    for dtype in wrong:
        with pytest.raises(glintpy.DTypeError, match="is not a dtype of values"):
            KVServer(client=client, job=job, dtype=dtype)
    same: list[Any] = ["float64", "f8", np.float64, np.dtype("float64"), float]
    for dtype in same:
        assert KVServer(client=client, job=job, dtype=dtype).dtype == "float64"


def test_what_is_no_handle_is_refused(client: glintpy.Client, job: str) -> None:
    server = KVServer(client=client, job=job)
    with pytest.raises(glintpy.ConfigError, match="code doesn't travel"):
        server.set_request_handle(lambda *_: None)  # type: ignore[arg-type]
    with pytest.raises(glintpy.ConfigError, match="adagrad"):
        server.set_request_handle("my_handle")
    for options in ({"k": 0}, {"app_id": -1}):
        with pytest.raises(glintpy.ConfigError):
            KVServer(client=client, job=job, **options)  # type: ignore[arg-type]


def test_an_app_ends_with_all_its_tables_and_no_other_s(client: glintpy.Client, job: str) -> None:
    for app in (1, 11):
        KVServer(app, client, job=job, varying=True).set_request_handle()
        with KVWorker(app, client=client, job=job) as worker:
            worker.push([1, 2], [1, 2, 3], [1, 2])
    server = KVServer(1, client, job=job)
    server.destroy()
    server.destroy()
    left = [name for name in client.models() if name.startswith(f"ps/{job}/")]
    assert sorted(left) == [f"ps/{job}/app-11", f"ps/{job}/app-11/1", f"ps/{job}/app-11/2"]
