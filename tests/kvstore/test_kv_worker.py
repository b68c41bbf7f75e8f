"""Values under keys as ps-lite's workers push and pull them; and what ps-lite's users fall into, named after it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.kvstore import KVServer, KVWorker, Postoffice, kv_worker
from tests.kvstore.conftest import PATIENCE_S, pulled

LAST = 2**64 - 1


# --- equally many values a key ------------------------------------------------------------------------------------


def test_what_is_pushed_is_added_and_pulled_by_timestamps(worker: KVWorker) -> None:
    assert [worker.push([9, 3], [1, 2, 3, 4]), worker.push([3], [[10, 20]])] == [0, 1]
    assert pulled(worker, [3, 7, 9]) == [13, 24, 0, 0, 1, 2]
    worker.wait(0)
    worker.wait(0)  # again
    worker.wait(1)


def test_values_are_written_into_what_is_given(worker: KVWorker) -> None:
    worker.push([1, 2], [1, 2, 3, 4])
    for vals in (
        np.empty((2, 2), np.float32),
        np.empty(4, np.float64),
        np.empty((4, 2), np.float32)[::2],
    ):
        lens = np.empty(2, np.int32)
        timestamp = worker.pull([2, 1], vals, lens)
        worker.wait(timestamp)
        assert vals.ravel().tolist() == [3, 4, 1, 2]
        assert lens.tolist() == [2, 2]
        with pytest.raises(glintpy.ConfigError, match="given an array"):
            worker.values(timestamp)


def test_pushpull_is_both_in_one(worker: KVWorker) -> None:
    worker.push([4], [1.0])
    assert worker.values(worker.pushpull([4, 5], [1, 2])).tolist() == [2, 2]
    outs = np.zeros(1, np.float32)
    worker.wait(worker.pushpull([4], [1], outs))
    assert outs.tolist() == [3]


def test_the_caller_may_change_what_it_pushed_though_the_push_has_not_left(
    worker: KVWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glintpy.kvstore.pacing.UNDER_WAY_MAX", 1)
    keys, vals = np.array([1, 2], np.uint64), np.ones(2, np.float32)
    for _ in range(20):
        worker.push(keys, vals)
    keys[:], vals[:] = 77, 1000
    assert pulled(worker, [1, 2, 77]) == [20, 20, 0]


def test_values_are_taken_once_and_a_push_has_none(worker: KVWorker) -> None:
    timestamp = worker.push([1], [1])
    with pytest.raises(glintpy.ConfigError, match="request 0 has no values"):
        worker.values(timestamp)
    timestamp = worker.pull([1])
    worker.wait(timestamp)
    assert worker.values(timestamp).tolist() == [1]
    with pytest.raises(glintpy.ConfigError, match="taken before"):
        worker.values(timestamp)
    for wrong in (2, -1, "0"):
        with pytest.raises(glintpy.ConfigError, match="has made 2 requests, and none has the timestamp"):
            worker.wait(wrong)  # type: ignore[arg-type]


def test_no_keys_are_done_at_once(worker: KVWorker) -> None:
    ran: list[str] = []
    worker.wait(worker.push([], [], callback=lambda: ran.append("push")))
    assert worker.values(worker.pull([], callback=lambda: ran.append("pull"))).tolist() == []
    assert ran == ["push", "pull"]


def test_before_anybody_has_pushed_only_who_says_how_many_gets_zeros(worker: KVWorker) -> None:
    vals, lens = np.ones(6, np.float32), np.ones(3, np.int64)
    worker.wait(worker.pull([1, 2, 3], vals, lens))
    assert vals.tolist() == [0] * 6
    assert lens.tolist() == [2] * 3
    with pytest.raises(glintpy.ConfigError, match=r"KVServer\(0, k="):
        worker.pull([1])
    worker.push([1], [1, 2, 3])  # nothing was begun by that
    assert pulled(worker, [1]) == [1, 2, 3]


@pytest.mark.parametrize(
    ("keys", "vals", "lens", "error", "message"),
    [
        ([4, 1, 4], [1, 2, 3], None, glintpy.ShapeError, "key 4 stands twice, at positions 0 and 2"),
        ([-1], [1], None, glintpy.KeyRangeError, "key -1 at position 0"),
        ([1, 2**64], [1, 2], None, glintpy.KeyRangeError, "key 18446744073709551616 at position 1"),
        ([1.5], [1], None, glintpy.DTypeError, "keys are integers, not float64"),
        ([[1]], [1], None, glintpy.ShapeError, r"not of shape \(1, 1\)"),
        ([1, 2], [1, 2, 3], None, glintpy.ShapeError, "3 values for 2 keys"),
        ([1], [], None, glintpy.ShapeError, "0 values for 1 keys"),
        ([], [1], None, glintpy.ShapeError, "1 values for no keys"),
        ([1], ["x"], None, glintpy.DTypeError, "vals are numbers"),
        ([1], [1j], None, glintpy.DTypeError, "vals are numbers"),
        ([1, 2], [1, 2, 3], [1, 1], glintpy.ShapeError, "3 values, and lens that sum up to 2"),
        ([1, 2], [1, 2], [1], glintpy.ShapeError, r"lens of shape \(1,\) for 2 keys"),
        ([1, 2], [1, 2], [0, 2], glintpy.ShapeError, r"lens\[0\] is 0"),
        ([1, 2], [1, 2], [0.5, 1.5], glintpy.DTypeError, "lens are integers"),
        ([1, 2], [1, 2, 3], [1, 2], glintpy.ShapeError, "key 2 at position 1 has 2 values here"),
    ],
)
def test_what_can_t_be_pushed_is_refused_with_numbers_before_anything_is_sent(
    worker: KVWorker, keys: Any, vals: Any, lens: Any, error: type[Exception], message: str
) -> None:
    worker.push([1], [1.0])
    for call in (worker.push, worker.pushpull):
        with pytest.raises(error, match=message):
            call(keys, vals, lens=lens)
    assert pulled(worker, [1, 2, 4]) == [1, 0, 0]


REFUSED: list[tuple[dict[str, Any], type[Exception], str]] = [
    ({"callback": "none"}, glintpy.ConfigError, "a callback is a function"),
    ({"priority": "high"}, glintpy.ConfigError, "a priority is an integer, not 'high'"),
    ({"priority": True}, glintpy.ConfigError, "a priority is an integer, not True"),
    ({"cmd": 1}, glintpy.ConfigError, "cmd is 0, not 1"),
    ({"outs": np.zeros(3, np.float32)}, glintpy.ShapeError, "outs has room for 3, and gets 2"),
    ({"outs": "x"}, glintpy.DTypeError, "outs is a NumPy array"),
    ({"vals": [1e300, 2.0]}, glintpy.DTypeError, "float32 holds"),
    (
        {"vals": np.zeros(600_000)},
        glintpy.ShapeError,
        "key 7 has 600000 values of float32|has 1 to 2097152 bytes",
    ),
]


@pytest.mark.parametrize("varying", [False, True])
@pytest.mark.parametrize(("options", "error", "message"), REFUSED)
def test_a_refused_push_begins_no_app_and_fixes_no_length(
    client: glintpy.Client,
    job: str,
    varying: bool,
    options: dict[str, Any],
    error: type[Exception],
    message: str,
) -> None:
    before = client.models()
    worker = KVWorker(client=client, job=job, varying=varying)
    push = worker.pushpull if "outs" in options else worker.push
    with pytest.raises(error, match=message):
        push([7], **{"vals": [1, 2], **options})
    assert client.models() == before
    worker.push([8], [1.0])
    if not varying:
        assert pulled(worker, [8]) == [1]
        return
    with pytest.raises(error, match=message):
        push([7], **{"vals": [1, 2], **options})
    worker.push([7], [1, 2, 3])
    assert pulled(worker, [7, 8]) == [1, 2, 3, 1]


def test_a_push_that_the_new_app_can_t_take_begins_none(client: glintpy.Client, job: str) -> None:
    before = client.models()
    with pytest.raises(glintpy.DTypeError, match="float64, and what it is for holds int32"):
        KVWorker(client=client, job=job, dtype="int32").push([1], [1.5])
    with pytest.raises(
        glintpy.ShapeError, match="key 2 at position 1 has 2 values here, and keys of app 0 have 1"
    ):
        KVWorker(0, 1, client, job=job).push([1, 2], [1, 2, 3], [1, 2])
    assert client.models() == before


def test_a_push_without_room_begins_nothing(
    client: glintpy.Client, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = client.models()
    monkeypatch.setattr(kv_worker, "OPEN_MAX", 0)
    with pytest.raises(glintpy.Overloaded, match="wait for some"):
        KVWorker(client=client, job=job).push([1], [1.0])
    assert client.models() == before


def test_what_can_t_be_written_to_is_refused(worker: KVWorker) -> None:
    worker.push([1, 2], [1, 2])
    frozen = np.zeros(2, np.float32)
    frozen.flags.writeable = False
    for vals, error in (
        (np.zeros(3, np.float32), glintpy.ShapeError),
        (np.zeros(2, np.int64), glintpy.DTypeError),
        (frozen, glintpy.DTypeError),
        ([0, 0], glintpy.DTypeError),
    ):
        with pytest.raises(error):
            worker.pull([1, 2], vals)  # type: ignore[arg-type]
    with pytest.raises(glintpy.ShapeError, match="lens has room for 1, and gets 2"):
        worker.pull([1, 2], None, np.zeros(1, np.int64))
    for options in ({"callback": 3}, {"priority": 0.5}, {"cmd": 1}):
        with pytest.raises(glintpy.ConfigError):
            worker.pull([1, 2], **options)


# --- traps of ps-lite ---------------------------------------------------------------------------------------------


def test_pushes_of_one_worker_are_overtaken_by_its_pull(worker: KVWorker) -> None:
    """Here they are seen by it (5.1)."""
    for _ in range(20):
        worker.push([5], [1.0])
    assert pulled(worker, [5]) == [20]


def test_keys_that_are_not_sorted_lose_values(worker: KVWorker) -> None:
    """Here any order will do (5.2)."""
    keys = np.random.default_rng(1).permutation(1000).astype(np.uint64) * np.uint64(2**54)
    worker.push(keys, np.arange(1000))
    assert pulled(worker, keys[::-1]) == list(range(999, -1, -1))


def test_two_values_for_a_key_that_has_one_abort_the_server(client: glintpy.Client, job: str) -> None:
    """Here the call says so (5.3)."""
    KVServer(client=client, job=job).set_request_handle("KVServerDefaultHandle")
    worker = KVWorker(client=client, job=job)
    with pytest.raises(glintpy.ShapeError, match=r"has 2 values here, and keys of app 0 have 1.*k=2"):
        worker.push([7], [1, 2])
    worker.push([7], [1])
    assert pulled(worker, [7]) == [1]


def test_small_keys_all_lie_on_one_server(
    cluster: glintpy.LocalCluster, client: glintpy.Client, job: str
) -> None:
    """Here each has its share (5.4)."""
    worker = KVWorker(client=client, job=job)
    worker.wait(worker.push(range(1000), np.ones(1000)))
    table = client.open(f"ps/{job}/app-0", kind=glintpy.BigTable)
    shares = [table._count(server).result() for server in range(len(cluster.servers))]
    assert sum(shares) == 1000
    assert min(shares) > 400


def test_the_last_keys_can_t_be_stored(worker: KVWorker) -> None:
    """Here they can (5.4b)."""
    worker.push([LAST, 0, LAST - 1], [1, 2, 3])
    assert pulled(worker, [0, LAST - 1, LAST]) == [2, 3, 1]


def test_waiting_in_a_callback_hangs(worker: KVWorker) -> None:
    """Here it works, also for requests with callbacks of their own; only for itself it can't wait (5.5)."""
    seen: list[Any] = []

    def outer() -> None:
        second = worker.push([1], [2.0], callback=lambda: seen.append("inner"))
        worker.wait(second, PATIENCE_S)
        seen.append(pulled(worker, [1]))
        with pytest.raises(glintpy.GlintError, match=r"which so can't wait for it"):
            worker.wait(first, PATIENCE_S)

    first = worker.push([1], [1.0])
    worker.wait(first)
    is_made = threading.Event()

    def when_made() -> None:
        assert is_made.wait(PATIENCE_S)
        outer()

    first = worker.push([1], [1.0], callback=when_made)
    is_made.set()  # the callback knows by now for what it can't wait
    worker.wait(first, PATIENCE_S)
    assert seen == ["inner", [4.0]]


def test_two_customers_of_a_process_are_taken_for_one(cluster: glintpy.LocalCluster, job: str) -> None:
    """Here each has requests of its own, of one client or of two (5.8)."""

    def work(customer: int) -> None:
        with (
            cluster.client(timeout_s=PATIENCE_S) as own,
            KVWorker(0, customer, own, job=job) as one,
            KVWorker(0, customer + 10, own, job=job) as two,
        ):
            assert [one.push([1, 2], [1, 1]), two.push([1, 2], [1, 1])] == [0, 0]

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(work, range(4)))
    with cluster.client() as client, KVWorker(client=client, job=job) as worker:
        assert pulled(worker, [1, 2]) == [8, 8]


def test_the_values_of_a_killed_server_are_lost_and_a_pull_hangs(job: str) -> None:
    """Here both go on when it is back, and each push has counted once (5.9 to 5.11)."""
    with (
        glintpy.LocalCluster(2, scheme="local") as cluster,
        cluster.client(timeout_s=PATIENCE_S) as client,
        KVWorker(client=client, job=job) as worker,
    ):
        keys = np.arange(100)
        KVServer(1, client, job=job, varying=True).set_request_handle()
        with KVWorker(1, client=client, job=job) as varying:
            lens = 1 + keys % 12
            for _ in range(5):
                worker.push(keys, np.ones(300))
                varying.push(keys, np.ones(lens.sum()), lens)
            worker.flush()
            cluster.kill_server(0)
            for _ in range(5):
                worker.push(keys, np.ones(300))
                varying.push(keys, np.ones(lens.sum()), lens)
            timestamp = worker.pull(keys)
            cluster.restart_server(0)
            assert worker.values(timestamp).tolist() == [10] * 300
            found = np.zeros(100, np.int64)
            assert pulled(varying, keys, lens=found) == [10] * int(lens.sum())
            assert found.tolist() == lens.tolist()


def test_an_error_of_a_server_is_not_heard_of(client: glintpy.Client, job: str) -> None:
    """Here waiting raises it; who never waits finds it in the log."""
    worker = KVWorker(client=client, job=job)
    worker.wait(worker.push([1], [1.0]))
    KVServer(client=client, job=job).destroy()
    timestamp = worker.push([1], [1.0])
    with pytest.raises(glintpy.ModelNotFound):
        worker.wait(timestamp)
    worker.wait(timestamp)  # it was told
    worker.push([1], [1.0])
    worker.pull([1])
    with pytest.raises(glintpy.ModelNotFound) as caught:
        worker.close()
    assert len(caught.value.__notes__) == 1
    with pytest.raises(glintpy.GlintError, match="was closed"):
        worker.push([1], [1.0])


# --- callbacks and priorities -------------------------------------------------------------------------------------


def test_a_callback_runs_once_and_finds_the_values(worker: KVWorker) -> None:
    worker.push(range(50), np.arange(50))
    vals, seen = np.zeros(50, np.float32), []
    timestamps = [worker.pull(range(50), vals, callback=lambda: seen.append(vals.sum())) for _ in range(50)]
    for timestamp in timestamps:
        worker.wait(timestamp)
    assert seen == [1225] * 50


def test_an_error_of_a_callback_is_raised_where_one_waits_and_logged(
    worker: KVWorker, caplog: pytest.LogCaptureFixture
) -> None:
    timestamp = worker.push([1], [1.0], callback=lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        worker.wait(timestamp)
    assert "request 0, or its callback, failed" in caplog.text
    assert pulled(worker, [1]) == [1]  # the push was applied


def test_a_callback_runs_though_nobody_waits(worker: KVWorker) -> None:
    ran = threading.Event()
    worker.push([1], [1.0], callback=ran.set)
    assert ran.wait(PATIENCE_S)


def test_too_many_open_requests_are_refused_and_done_ones_are_forgotten(
    worker: KVWorker, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(kv_worker, "OPEN_MAX", 10)
    for _ in range(200):
        timestamp = worker.push([1], [1.0])
        worker._open[timestamp].future.result()  # type: ignore[union-attr]
    assert len(worker._open) <= 10
    go_on = threading.Event()
    worker.flush()
    for _ in range(10):
        worker.push([1], [1.0], callback=lambda: go_on.wait(PATIENCE_S))
    with pytest.raises(glintpy.Overloaded, match="wait for some"):
        worker.push([1], [1.0])
    go_on.set()
    worker.flush()
    assert pulled(worker, [1]) == [210]


# --- slicers ------------------------------------------------------------------------------------------------------


def halves(keys: Any) -> list[Any]:
    return np.array_split(np.arange(len(keys))[::-1], 2)


@pytest.mark.parametrize("kind", ["worker", "varying"])
def test_a_slicer_cuts_requests_and_changes_nothing_else(request: pytest.FixtureRequest, kind: str) -> None:
    worker: KVWorker = request.getfixturevalue(kind)
    worker.set_slicer(halves)
    keys, vals = [9, 2, 5, 8, 1], np.arange(10)
    worker.wait(worker.push(keys, vals))
    assert pulled(worker, keys) == vals.tolist()
    outs = np.zeros((5, 2))
    worker.wait(worker.pushpull(keys, vals, outs))
    assert outs.ravel().tolist() == (2 * vals).tolist()
    worker.set_slicer(None)
    assert pulled(worker, keys) == (2 * vals).tolist()


@pytest.mark.parametrize(
    ("slicer", "error", "message"),
    [
        (lambda _: [[0, 1], [1]], glintpy.ShapeError, "puts key 6 at position 1 into 2 parts"),
        (lambda _: [[1]], glintpy.ShapeError, "puts key 5 at position 0 into 0 parts"),
        (lambda _: [[0, 1, 2]], glintpy.ShapeError, "places 0 to 2 of 2 keys"),
        (lambda keys: [keys / 2], glintpy.DTypeError, "places of keys"),
        (lambda _: None, glintpy.DTypeError, "a slicer returns a list of arrays .*, not None"),
        (lambda _: 1 / 0, ZeroDivisionError, "division by zero"),
    ],
)
def test_a_slicer_that_loses_or_repeats_keys_is_an_error_of_the_call(
    worker: KVWorker, slicer: Callable[[Any], Any], error: type[Exception], message: str
) -> None:
    worker.push([5, 6], [1, 2])
    worker.set_slicer(slicer)
    with pytest.raises(error, match=message):
        worker.push([5, 6], [1, 2])
    worker.set_slicer(None)
    assert pulled(worker, [5, 6]) == [1, 2]
    with pytest.raises(glintpy.ConfigError, match="slicer is a function"):
        worker.set_slicer(3)  # type: ignore[arg-type]


def test_values_that_the_app_or_the_array_can_t_hold_are_refused(client: glintpy.Client, job: str) -> None:
    with KVWorker(client=client, job=job, dtype="int16") as worker:
        worker.wait(worker.push([1], np.array([300])))  # int64 that fits
        with pytest.raises(glintpy.DTypeError, match="vals has 40000; int16 holds -32768 to 32767"):
            worker.push([1], np.array([40_000]))
        narrow = np.zeros(1, "int8")
        with pytest.raises(glintpy.DTypeError, match="what vals gets has 300; int8 holds -128 to 127"):
            worker.wait(worker.pull([1], narrow))
        assert (narrow.tolist(), pulled(worker, [1])) == ([0], [300])


# --- whose worker it is ------------------------------------------------------------------------------------------


def test_a_worker_finds_its_cluster_and_job_by_the_node_that_the_process_is(
    cluster: glintpy.LocalCluster, job: str
) -> None:
    with (
        cluster.client(timeout_s=PATIENCE_S) as client,
        Postoffice("worker", client, job=job, num_workers=1, timeout_s=PATIENCE_S),
        KVWorker() as worker,
    ):
        worker.wait(worker.push([1], [1.0]))
        assert f"ps/{job}/app-0" in client.models()
    with cluster.client() as client, KVWorker(client=client) as worker:  # it is none any more
        assert worker._home.name == "ps/job/app-0"


def test_without_a_cluster_a_worker_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("GLINTPY_MASTER", "DMLC_PS_ROOT_URI"):
        monkeypatch.delenv(name, raising=False)
    with pytest.raises(glintpy.ConfigError, match="there is no cluster"):
        KVWorker()
    with pytest.raises(glintpy.DTypeError, match="'float31' is not a dtype of values"):
        KVWorker(dtype="float31")
