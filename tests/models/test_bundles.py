"""Small requests that travel together can't be told from ones that are sent one by one."""

from __future__ import annotations

import asyncio
import concurrent.futures
import itertools
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy import config
from glintpy.errors import LocalProtocolError
from tests.holding import WAIT_S, still_client
from tests.models.bundling import COLS, HALF, ROWS, Pair, a_pair, two_servers


@pytest.fixture
def pair(monkeypatch: pytest.MonkeyPatch) -> Iterator[Pair]:
    with (
        two_servers() as (address, servers),
        still_client(monkeypatch, lambda: glintpy.Client(address, timeout_s=WAIT_S)) as client,
        a_pair(client, servers) as made,
    ):
        yield made


# --- when they are sent -----------------------------------------------------------------------------------


def test_with_nothing_under_way_each_push_is_a_request(pair: Pair) -> None:
    sizes = pair.count_pushes()
    for row in range(5):
        pair.matrix.push([row], 1).result()
    assert sizes == [1] * 5


def test_pushes_that_are_issued_meanwhile_travel_as_one_request(pair: Pair) -> None:
    sizes = pair.count_pushes()
    with pair.held() as gate:
        pushes = [pair.matrix.push([row % HALF], 1) for row in range(config.BUNDLE_REQUESTS - 1)]
        gate.open()
        pushes[3].result()
    assert [push.result() for push in pushes] == [None] * len(pushes)
    assert sizes == [len(pushes)]


def test_short_slices_travel_with_others_and_long_ones_by_themselves(
    pair: Pair, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(config, "SMALL_SLICE_ROWS", 4)
    sizes = pair.count_pushes()
    with pair.held() as gate:
        pushes = [
            pair.matrix.push(slice(0, 3), 1),
            pair.matrix.push([1, 0, 1], 1),
            pair.matrix.push(slice(4, 1, -2), 1),
            pair.matrix.push(slice(0, 5), 0),
        ]
        gate.open()
        assert [push.result() for push in pushes] == [None] * 4
    assert sizes == [8, 5]
    assert pair.matrix.pull(slice(0, 5)).result()[:, 0].tolist() == [2, 3, 2, 0, 1]


def test_a_full_bundle_is_sent_though_nobody_waits(pair: Pair) -> None:
    done = threading.Event()
    with pair.held():
        pushes = [pair.matrix.push([HALF], 1) for _ in range(config.BUNDLE_REQUESTS)]
        pushes[-1].add_done_callback(lambda _: done.set())
        assert done.wait(WAIT_S)  # the second server isn't held


SENDERS: dict[str, Callable[[Pair, Path], object]] = {
    "result": lambda pair, _: pair.matrix.pull([HALF]).result(),
    "exception": lambda pair, _: pair.matrix.pull([HALF]).exception(),
    "other model": lambda pair, _: pair.vector.push([0], 1),
    "other kind": lambda pair, _: pair.matrix.pull([HALF]),
    "other form": lambda pair, _: pair.matrix.push([HALF], 1, cols=[2]),
    "view": lambda pair, _: pair.matrix.with_options(timeout_s=WAIT_S).push([HALF], 0),
    "slice": lambda pair, _: pair.matrix[HALF : HALF + 2],
    "whole": lambda pair, _: pair.matrix.pull(),
    "large": lambda pair, _: pair.matrix.push(np.repeat(HALF, 5000), 0),
    "push_pull": lambda pair, _: pair.matrix.push_pull([HALF], 0),
    "flush": lambda pair, _: pair.matrix.flush(),
    "flush of all": lambda pair, _: pair.client.flush(),
    "save": lambda pair, folder: pair.matrix.save(str(folder / "saved")),
}


@pytest.mark.parametrize("how", SENDERS)
def test_what_is_open_is_sent_before_anything_else_is(pair: Pair, tmp_path: Path, how: str) -> None:
    sent = threading.Event()
    with pair.held() as gate:
        pushes = [pair.matrix.push([HALF + 1], 1) for _ in range(3)]
        pushes[-1].add_done_callback(lambda _: sent.set())
        gate.open()
        SENDERS[how](pair, tmp_path)
        assert sent.wait(WAIT_S), "it still lies in the outbox"
    assert pair.matrix.pull(HALF + 1).result().tolist() == [3] * COLS
    if how == "save":
        with pair.client.load(str(tmp_path / "saved"), name="again") as again:
            assert again[HALF + 1].tolist() == [3] * COLS


def test_destroying_a_model_settles_what_is_open(pair: Pair) -> None:
    with pair.held() as gate:
        pushes = [pair.matrix.push([HALF + 1], 1) for _ in range(3)]
        gate.open()
        pair.matrix.destroy()
    assert [push.exception(0) for push in pushes] == [None] * 3


def test_the_network_s_thread_sends_it_soon_though_nobody_does_anything() -> None:
    with (
        two_servers() as (address, servers),
        glintpy.Client(address) as client,
        a_pair(client, servers) as pair,
    ):
        for _ in range(20):
            done = threading.Event()
            with pair.held():
                pair.matrix.push([HALF], 1)
                pair.matrix.push([HALF], 1).add_done_callback(partial(_set, done))
                assert done.wait(WAIT_S)


def _set(done: threading.Event, _: object) -> None:
    done.set()


# --- whose what is ----------------------------------------------------------------------------------------


def test_what_is_given_is_copied_before_the_call_returns(pair: Pair) -> None:
    rows, cols, values = np.array([HALF, 2]), np.array([1, 3]), np.ones((2, COLS), np.float32)
    elements, keys, numbers = np.array([5, 6], np.float32), np.array([HALF, 1]), np.array([7, 8])
    expected = np.zeros((ROWS, COLS), np.float32)
    expected[rows] += values
    expected[rows, cols] += elements
    with pair.held() as gate:
        for _ in range(2):
            pair.matrix.push(rows, values)
            rows[:], values[:] = 0, 100
            rows[:], values[:] = [HALF, 2], 1
        pair.matrix.push(rows, -values)
        values[:] = 100
        pair.matrix.push(rows, elements, cols=cols)
        rows[:], cols[:], elements[:] = 0, 0, 100
        pair.vector.push(keys, numbers)
        keys[:], numbers[:] = 0, 100
        gate.open()
    assert np.array_equal(pair.matrix.pull().result(), expected)
    assert pair.vector.pull([HALF, 1, 0]).result().tolist() == [7, 8, 0]


@pytest.mark.parametrize("order", ["C", "F"])
def test_values_may_lie_in_memory_as_they_like(pair: Pair, order: Any) -> None:
    given_values = np.arange(12, dtype=np.float32).reshape(3, COLS)
    values = np.array(given_values, order=order)
    spread = np.zeros((6, 2 * COLS), np.float32)
    spread[::2, ::2] = given_values
    expected = np.zeros((ROWS, COLS), np.float32)
    with pair.held() as gate:
        for rows, array in (
            ([1, HALF, 2], values),
            ([HALF, 3, 4], spread[::2, ::2]),
            ([1, 5, HALF], values[::-1]),
        ):
            pair.matrix.push(rows, array)
            np.add.at(expected, rows, array)
        pair.matrix.push([7, 8], 2)
        pair.matrix.push([7], np.arange(COLS))
        expected[[7, 8]] += 2
        expected[7] += np.arange(COLS, dtype=np.float32)
        gate.open()
    assert np.array_equal(pair.matrix.pull().result(), expected)


def test_a_result_that_is_kept_keeps_only_itself_and_may_be_changed(pair: Pair) -> None:
    with pair.held() as gate:
        pulls = [pair.matrix.pull([HALF, HALF + 1]) for _ in range(5)]
        gate.open()
        results = [pull.result() for pull in pulls]
    for result in results:
        owner = result
        while owner.base is not None:
            owner = owner.base
        assert owner.nbytes == result.nbytes
        result[...] = 9
    for one, other in itertools.combinations(results, 2):
        assert not np.shares_memory(one, other)
    assert pair.matrix.pull([HALF]).result().tolist() == [[0] * COLS]


def test_results_go_into_the_arrays_that_were_given(pair: Pair) -> None:
    pair.matrix.push(None, np.arange(ROWS)[:, None]).result()
    pair.vector.push(None, np.arange(ROWS)).result()
    out, row, elements = np.zeros((2, COLS), np.float32), np.zeros(COLS, np.float32), np.zeros(2, np.float32)
    keys, single = np.zeros(3, np.int64), np.zeros((), np.int64)
    with pair.held() as gate:
        asked = [
            (pair.matrix.pull([HALF, 3], out=out), out, [[HALF] * COLS, [3] * COLS]),
            (pair.matrix.pull([4, 5]), None, [[4] * COLS, [5] * COLS]),
            (pair.matrix.pull(7, out=row), row, [7] * COLS),
            (pair.matrix.pull([9, HALF], [0, 1], out=elements), elements, [9, HALF]),
            (pair.vector.pull([1, HALF, 2], out=keys), keys, [1, HALF, 2]),
            (pair.vector.pull(HALF + 2, out=single), single, HALF + 2),
            (pair.vector.pull(6), None, 6),
        ]
        gate.open()
        for pull, given_out, expected in asked:
            found = pull.result()
            assert given_out is None or found is given_out
            assert found.tolist() == expected


def test_nothing_asked_for_is_done_at_once_and_sends_nothing(pair: Pair) -> None:
    sizes = pair.count_pushes()
    with pair.held():
        assert pair.matrix.push([], np.empty((0, COLS))).done()
        assert pair.matrix.pull([]).result(0).shape == (0, COLS)
        assert pair.vector.pull(np.zeros(ROWS, bool)).result(0).shape == (0,)
    assert sizes == []


def test_mistakes_are_raised_by_the_call_and_leave_the_others_alone(pair: Pair) -> None:
    with pair.held() as gate:
        good = [pair.matrix.push([1], 1), pair.matrix.push([HALF], 1)]
        with pytest.raises(glintpy.KeyRangeError):
            pair.matrix.push([ROWS], 1)
        with pytest.raises(glintpy.ShapeError):
            pair.matrix.push([1], np.ones(COLS + 1))
        with pytest.raises(glintpy.DTypeError):
            pair.matrix.push([1], ["x"])
        good.append(pair.matrix.push([1], 1))
        gate.open()
        assert [push.result() for push in good] == [None] * 3
    assert pair.matrix.pull([1, HALF]).result()[:, 0].tolist() == [2, 1]


# --- what becomes of them ---------------------------------------------------------------------------------


def test_a_server_that_does_not_answer_is_told_to_those_alone_that_touch_it(pair: Pair) -> None:
    hasty = pair.matrix.with_options(timeout_s=1.0)
    first, second = (address for _, address in pair.matrix._info.servers)
    with pair.held():
        good, bad, both = hasty.push([HALF], 1), hasty.push([0], 1), hasty.push([1, HALF], 1)
        assert good.result() is None
        unknown = bad.exception()
        assert isinstance(unknown, glintpy.PushOutcomeUnknown)
        assert unknown.outcome == "unknown"
        assert unknown.parts == {first: {"applied": 0, "refused": 0, "unknown": 1}}
        mixed = both.exception()
        assert isinstance(mixed, glintpy.PushOutcomeUnknown)
        assert mixed is not unknown
        assert mixed.parts == {
            first: {"applied": 0, "refused": 0, "unknown": 1},
            second: {"applied": 1, "refused": 0, "unknown": 0},
        }
        read, unread, half_read = hasty.pull([HALF]), hasty.pull([0]), hasty.pull([1, HALF])
        out = np.zeros((1, COLS), np.float32)
        into = hasty.pull([HALF], out=out)
        assert read.result().tolist() == [[2] * COLS]
        assert into.result() is out
        assert out.tolist() == [[2] * COLS]
        for failed in (unread, half_read):
            with pytest.raises(glintpy.PullFailed, match="within 1 s"):
                failed.result()
    # Each was seen; flush has nothing to tell, and what was given up may be in or not, once.
    pair.client.flush()
    assert pair.matrix.pull([0, 1]).result()[:, 0].tolist() in ([0, 0], [1, 1])


def test_flush_tells_of_each_failed_push_that_nobody_saw(pair: Pair) -> None:
    hasty = pair.matrix.with_options(timeout_s=0.2)
    with pair.held():
        failing = [hasty.push([row], 1) for row in range(3)]
        with pytest.raises(glintpy.PushOutcomeUnknown) as caught:
            pair.client.flush()
    assert caught.value is failing[0].exception(0)
    assert len(caught.value.__notes__) == 2


def test_a_model_that_is_gone_is_told_to_each_of_them(pair: Pair) -> None:
    with glintpy.Client(pair.address) as other, pair.held() as gate:
        pushes = [pair.matrix.push([row], 1) for row in (0, HALF, 1)]
        destroying = threading.Thread(target=other.open(pair.matrix.name).destroy)
        gate.open()
        destroying.start()
        destroying.join(WAIT_S)
        errors = [push.exception() for push in pushes]
    assert all(isinstance(error, glintpy.ModelNotFound) for error in errors)
    assert len({id(error) for error in errors}) == 3
    with pytest.raises(glintpy.ModelNotFound):
        pair.matrix.pull([0]).result()


def test_pulls_that_are_open_when_the_client_is_closed_fail(pair: Pair) -> None:
    with pair.held():
        pulls = [pair.matrix.pull([row]) for row in range(3)]
        pair.client.close()
        for pull in pulls:
            with pytest.raises(glintpy.GlintError, match="the client was closed before"):
                pull.result()
        with pytest.raises(glintpy.GlintError, match="the client is closed"):
            pair.matrix.pull([0])


def test_pushes_that_are_open_when_the_client_is_closed_are_flushed(pair: Pair) -> None:
    with pair.held() as gate:
        pushes = [pair.matrix.push([row], 1) for row in (0, HALF, 1)]
        gate.open()
        pair.client.close()
    assert [push.exception(0) for push in pushes] == [None] * 3
    with glintpy.Client(pair.address) as other:
        assert other.open(pair.matrix.name).pull([0, HALF, 1]).result()[:, 0].tolist() == [1, 1, 1]


# --- who waits how ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "wait", ["wait", "as_completed", "gather", "callbacks", "await", "gather of asyncio"]
)
def test_many_are_waited_for_in_every_way(wait: str) -> None:
    with (
        two_servers() as (address, servers),
        glintpy.Client(address) as client,
        a_pair(client, servers) as pair,
    ):
        pushes = [pair.matrix.push([number % ROWS], 1) for number in range(200)]
        pulls = [pair.matrix.pull([number % ROWS]) for number in range(200)]
        assert _waited(wait, [*pushes, *pulls]) == 400
        assert [pull.result(0)[0, 0] for pull in pulls] == [
            4 if number % ROWS < 20 else 3 for number in range(200)
        ]


def _waited(wait: str, futures: list[glintpy.Future[Any]]) -> int:
    if wait == "wait":
        return len(concurrent.futures.wait(futures, WAIT_S).done)
    if wait == "as_completed":
        return sum(1 for _ in concurrent.futures.as_completed(futures, WAIT_S))
    if wait == "gather":
        return len(glintpy.gather(*futures).result(WAIT_S))
    if wait == "callbacks":
        called = threading.Semaphore(0)
        for future in futures:
            future.add_done_callback(lambda _: called.release())
        return sum(called.acquire(timeout=WAIT_S) for _ in futures)

    async def main() -> int:
        if wait == "await":
            return len([await future for future in futures])

        async def one(future: glintpy.Future[Any]) -> Any:
            return await future

        return len(await asyncio.gather(*map(one, futures)))

    return asyncio.run(asyncio.wait_for(main(), WAIT_S))


def test_callbacks_may_push_pull_and_wait_in_the_middle_of_a_bundle(pair: Pair) -> None:
    found: list[float] = []
    done = threading.Event()

    def go_on(_: object) -> None:
        pair.matrix.push([HALF], 10)
        found.append(float(pair.matrix.pull(HALF).result()[0]))
        done.set()

    with pair.held():
        pair.matrix.push([HALF], 1).add_done_callback(go_on)
        pair.matrix.push([HALF], 1)
        pair.client._tie.runtime().outbox.issue()
        assert done.wait(WAIT_S)
    assert found == [12]


def test_threads_see_their_own_pushes_through_one_client() -> None:
    num_threads, num_rounds = 6, 60
    with (
        two_servers() as (address, servers),
        glintpy.Client(address) as client,
        a_pair(client, servers) as pair,
    ):
        shared = client.vector(3, dtype="int64")

        def work(number: int) -> None:
            mine = [number, HALF + number]
            for round_number in range(1, num_rounds + 1):
                pair.matrix.push(mine, 1)
                shared.push([round_number % 3], 1)
                pair.vector.push(mine, [1, 2])
                seen, keys = pair.matrix.pull(mine), pair.vector.pull(mine)
                if round_number % 4 == 0:
                    pair.matrix.push(range(ROWS - 2, ROWS), 1)
                assert keys.result().tolist() == [round_number, 2 * round_number]
                assert seen.result().tolist() == [[round_number] * COLS] * 2

        with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
            for future in [pool.submit(work, number) for number in range(num_threads)]:
                future.result(WAIT_S)
        assert shared.pull().result().sum() == num_threads * num_rounds
        assert pair.matrix.pull(ROWS - 1).result()[0] == num_threads * num_rounds // 4


def test_an_out_that_is_read_only_by_then_is_its_own_pull_s_failure(pair: Pair) -> None:
    good, bad = (np.empty((1, COLS), pair.matrix.dtype) for _ in range(2))
    with pair.held() as gate:
        pulls = [pair.matrix.pull([row], out=out) for row, out in ((0, good), (1, bad))]
        bad.flags.writeable = False
        gate.open()
        assert pulls[0].result() is good
    assert isinstance(pulls[1].exception(), LocalProtocolError)
    pair.matrix.push([1], 2).result()
    assert pair.matrix.pull(1).result().tolist() == [2] * COLS
