"""Fire and forget: what nobody waited for is flushed, and what nobody looked at is told, once."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from concurrent.futures import as_completed
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glintpy
from tests.cluster.helpers import PATIENCE_S, paused, program, until


def doomed_model(client: glintpy.Client, cluster: glintpy.LocalCluster) -> glintpy.BigVector:
    """Return a handle that doesn't know that its model is gone: every push to it is refused by a server."""
    vector = client.vector(100, dtype="int64")
    with cluster.client() as other:
        other.open(vector.name).destroy()
    return vector


def test_flush_returns_when_every_push_is_in(cluster: glintpy.LocalCluster, client: glintpy.Client) -> None:
    vector = client.vector(10_000, dtype="int64")
    futures = [vector.push(None, 1) for _ in range(200)]
    client.flush()
    assert all(future.done() for future in futures)
    with cluster.client() as other:
        assert other.open(vector.name).pull().result().tolist() == [200] * 10_000


def test_flush_raises_the_first_failure_that_nobody_saw_with_the_others_as_notes(
    cluster: glintpy.LocalCluster, client: glintpy.Client
) -> None:
    vector = doomed_model(client, cluster)
    first, second, third = (vector.push(None, 1) for _ in range(3))
    with pytest.raises(glintpy.ModelNotFound):
        second.result()  # seen here, and so no longer flush's to tell
    with pytest.raises(glintpy.ModelNotFound) as caught:
        client.flush()
    assert caught.value is first.exception()
    assert len(caught.value.__notes__) == 1
    assert "also failed: ModelNotFound" in caught.value.__notes__[0]
    assert third.exception() is not None
    client.flush()  # told once


def test_flush_of_one_model_leaves_the_others_failures_alone(
    cluster: glintpy.LocalCluster, client: glintpy.Client
) -> None:
    doomed, healthy = doomed_model(client, cluster), client.vector(10, dtype="int64")
    doomed.push(None, 1)
    healthy.push(None, 1)
    healthy.flush()
    with pytest.raises(glintpy.ModelNotFound):
        doomed.flush()
    client.flush()


def test_close_flushes_and_raises_what_nobody_saw(cluster: glintpy.LocalCluster) -> None:
    client = cluster.client()
    vector = client.vector(10_000, dtype="int64", name="closed")
    futures = [vector.push(None, 1) for _ in range(100)]
    client.close()
    client.close()
    assert all(future.done() for future in futures)
    with pytest.raises(glintpy.GlintError, match="closed"):
        vector.pull()
    with cluster.client() as other:
        with other.open("closed") as opened:
            assert opened.pull().result().tolist() == [100] * 10_000
        failing = cluster.client()
        doomed_model(failing, cluster).push(None, 1)
        with pytest.raises(glintpy.ModelNotFound):
            failing.close()
        until(lambda: len(other.clients()) == 1, "the closed clients have left")


def test_leaving_by_an_exception_flushes_for_a_moment_and_hides_nothing(
    cluster: glintpy.LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    pending: list[glintpy.Future[Any]] = []
    begun = 0.0

    def leave() -> None:
        nonlocal begun
        with cluster.client() as client:
            vector = client.vector(1000, dtype="int64", name="left")
            vector.push(None, 1).result()
            stopping.enter_context(paused(cluster.servers[0].pid))
            pending.append(vector.push(None, 1))
            begun = time.monotonic()
            raise ZeroDivisionError("what the program died of")

    with ExitStack() as stopping, caplog.at_level(logging.ERROR):
        with pytest.raises(ZeroDivisionError, match="what the program died of"):
            leave()
        # Two seconds for the flush; the request's own deadline would have been thirty.
        assert 1.5 < time.monotonic() - begun < 15
        with pytest.raises(glintpy.PushOutcomeUnknown, match="closed"):
            pending[0].result()
    assert "1 pushes have no outcome after 2 s" in caplog.text
    with cluster.client() as client:
        client.open("left").destroy()


FORGETFUL = """\
import sys
import glintpy

client = glintpy.Client(sys.argv[1])
vector = client.open("forgotten")
for _ in range(200):
    vector.push(None, 1)
if sys.argv[2] == "raise":
    raise SystemExit(4)
"""


@pytest.mark.parametrize("ending", ["end", "raise"])
def test_a_program_that_just_ends_has_pushed_everything(
    cluster: glintpy.LocalCluster, client: glintpy.Client, tmp_path: Path, ending: str
) -> None:
    vector = client.vector(10_000, dtype="int64", name="forgotten")
    with program(tmp_path / "forgetful.py", FORGETFUL, cluster.address, ending) as process:
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == (4 if ending == "raise" else 0), errors
    assert vector.pull().result().tolist() == [200] * 10_000


def test_failures_that_nobody_saw_are_all_logged_when_an_exception_is_under_way(
    cluster: glintpy.LocalCluster, caplog: pytest.LogCaptureFixture
) -> None:
    def die() -> None:
        with cluster.client() as client:
            vector = doomed_model(client, cluster)
            for _ in range(7):
                vector.push(None, 1)
            raise ZeroDivisionError

    with caplog.at_level(logging.ERROR, "glintpy"), pytest.raises(ZeroDivisionError):
        die()
    assert len(caplog.records) == 1, caplog.text
    assert caplog.text.count("there is no model") == 7


# --- asyncio, callbacks, threads ---------------------------------------------------------------------------


def test_futures_are_awaited_and_gathered(client: glintpy.Client) -> None:
    matrix = client.matrix(1000, 4, dtype="int64")

    async def main() -> None:
        await matrix.push([3, 9, 3], 1)
        values = await matrix.pull([3, 9])
        assert values.tolist() == [[2] * 4, [1] * 4]
        await asyncio.gather(*(push_one(row) for row in range(500)))
        await glintpy.gather(*[matrix.push([row], 1) for row in range(500, 1000)])
        async with asyncio.timeout(PATIENCE_S):
            assert (await matrix.pull()).sum() == 4 * 1003

    async def push_one(row: int) -> None:
        await matrix.push([row], 1)

    asyncio.run(main())


def test_an_asyncio_timeout_stops_the_waiting_and_not_the_push(
    cluster: glintpy.LocalCluster, client: glintpy.Client
) -> None:
    vector = client.vector(100, dtype="int64")

    async def main() -> None:
        with paused(cluster.servers[0].pid):
            push = vector.push(None, 1)
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(wait(push), 0.2)
            assert not push.done()
            assert not push.cancel()
        await push

    async def wait(future: glintpy.Future[Any]) -> None:
        await future

    asyncio.run(main())
    assert vector.pull().result().tolist() == [1] * 100


def test_callbacks_may_push_pull_and_wait(client: glintpy.Client) -> None:
    vector = client.vector(10, dtype="int64")
    found: list[Any] = []
    done = threading.Event()

    def go_on(_: object) -> None:
        vector.push(None, 10).result()
        found.append(vector.pull([0]).result()[0])
        vector.push(None, 100).add_done_callback(finish)

    def finish(_: object) -> None:
        found.append(int(np.asarray(vector).sum()))
        done.set()

    vector.push(None, 1).add_done_callback(go_on)
    assert done.wait(PATIENCE_S)
    assert found == [11, 1110]


def test_many_threads_share_one_client(client: glintpy.Client) -> None:
    matrix = client.matrix(1000, 4, dtype="int64")

    def work(number: int) -> None:
        for row in range(number, 1000, 8):
            matrix.push([row, row], 1)
            assert matrix.pull([row]).result().tolist() == [[2] * 4]

    threads = [threading.Thread(target=work, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(client.clients()) == 1
    assert np.array_equal(np.asarray(matrix), np.full((1000, 4), 2))


def test_futures_work_with_the_standard_library(client: glintpy.Client) -> None:
    vector = client.vector(100, dtype="int64")
    futures = [vector.push_pull([number], number) for number in range(100)]
    assert sorted(int(future.result()[0]) for future in as_completed(futures)) == list(range(100))
