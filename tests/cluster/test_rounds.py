"""Rounds end on real servers exactly once, whoever is killed in their middle."""

from __future__ import annotations

import threading
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.config import Durability
from glintpy.errors import ServerLost
from glintpy.testing.updated import Updated
from glintpy.updaters import Adam
from tests.cluster.helpers import PATIENCE_S, line_of, program, until
from tests.cluster.working import Waiting, until_waiting

NUM_WORKERS, STEPS, NUM_ROWS = 3, 8, 60

WORKER = """\
import sys
import glintpy

address, steps, rows = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
with glintpy.Client(address, timeout_s=60) as client, client.join("job", 2) as group:
    counts = client.open("counts").with_options(consistency="bsp", group=group)
    print(group.rank, flush=True)
    for step in range(steps):
        before = counts.pull([0]).result()[0]
        assert before == 2 * step, (before, step)
        for row in range(rows):
            counts.push([row], 1)
        if step == steps - 1 and group.rank == 1:
            sys.stdin.read()  # until it is killed
        group.tick()
print("done", flush=True)
"""


@pytest.mark.parametrize("durability", ["process", pytest.param("disk", marks=pytest.mark.soak)])
def test_steps_count_once_while_servers_and_the_master_are_killed(
    tmp_path: Path, durability: Durability
) -> None:
    rule = Adam(learning_rate=0.1)
    with (
        glintpy.LocalCluster(2, data_dir=tmp_path / "kept", durability=durability) as cluster,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(cluster.client(timeout_s=PATIENCE_S)) for _ in range(NUM_WORKERS)]
        groups = [client.join("job", NUM_WORKERS) for client in clients]
        models = [
            client.matrix(NUM_ROWS, 8, name="m", exist_ok=True, updater=rule, consistency="bsp", group=group)
            for client, group in zip(clients, groups, strict=True)
        ]
        expected = Updated(np.zeros((NUM_ROWS, 8)), rule)
        at_step = threading.Barrier(NUM_WORKERS + 1)

        def work(rank: int) -> None:
            for step in range(STEPS):
                at_step.wait(PATIENCE_S)
                for row in range(NUM_ROWS):
                    models[rank].push([row], float(rank + step))
                groups[rank].tick()

        with ThreadPoolExecutor(NUM_WORKERS) as pool:
            working = [pool.submit(work, rank) for rank in range(NUM_WORKERS)]
            for step in range(STEPS):
                at_step.wait(PATIENCE_S)
                if step % 4 == 3:
                    cluster.kill_master()
                    cluster.restart_master()
                else:
                    cluster.kill_server(step % 2)
                    cluster.restart_server(step % 2)
                expected.push(range(NUM_ROWS), float(sum(range(NUM_WORKERS)) + NUM_WORKERS * step))
            for one in working:
                one.result(PATIENCE_S)
        np.testing.assert_array_equal(np.asarray(models[0]), expected.values)
        assert models[0].pull_slot("steps").result().tolist() == [STEPS] * NUM_ROWS


@pytest.mark.parametrize("durability", ["process", pytest.param("disk", marks=pytest.mark.soak)])
def test_rounds_of_pushes_that_want_values_count_once_while_servers_and_the_master_are_killed(
    tmp_path: Path, durability: Durability
) -> None:
    num_rounds = 60
    with (
        glintpy.LocalCluster(2, data_dir=tmp_path / "kept", durability=durability) as cluster,
        ExitStack() as stack,
    ):
        clients = [stack.enter_context(cluster.client(timeout_s=PATIENCE_S)) for _ in range(NUM_WORKERS)]
        groups = [client.join("job", NUM_WORKERS) for client in clients]
        options: dict[str, Any] = {"dtype": "int64", "name": "v", "exist_ok": True, "consistency": "bsp"}
        models = [
            client.vector(NUM_ROWS, group=group, **options)
            for client, group in zip(clients, groups, strict=True)
        ]
        num_done = 0

        def work(rank: int) -> None:
            nonlocal num_done
            out = np.empty(NUM_ROWS, np.int64)
            for tag in range(num_rounds):
                found = models[rank].push_pull(None, rank + 1, out=out, round=tag).result()
                assert set(found.tolist()) == {6 * (tag + 1)}, (rank, tag, found)
                if rank == 0:
                    num_done = tag + 1

        def has_come(number: int, working: list[Future[None]]) -> bool:
            return num_done > number or any(one.done() for one in working)

        with ThreadPoolExecutor(NUM_WORKERS) as pool:
            working = [pool.submit(work, rank) for rank in range(NUM_WORKERS)]
            for kill in range(6):
                until(partial(has_come, 10 * kill, working), "rounds end")
                if kill % 3 == 2:
                    cluster.kill_master()
                    cluster.restart_master()
                else:
                    cluster.kill_server(kill % 2)
                    cluster.restart_server(kill % 2)
            for one in working:
                one.result(PATIENCE_S)
        assert np.asarray(models[0]).tolist() == [6 * num_rounds] * NUM_ROWS


def test_a_worker_that_is_killed_ends_no_step_and_hangs_none(
    client: glintpy.Client, cluster: glintpy.LocalCluster, tmp_path: Path
) -> None:
    group = client.join("job", 2)
    counts = client.vector(40, dtype="int64", name="counts", consistency="bsp", group=group)
    group.leave()
    with (
        program(tmp_path / "one.py", WORKER, cluster.address, 4, 40) as one,
        program(tmp_path / "two.py", WORKER, cluster.address, 4, 40) as two,
    ):
        by_rank = {int(line_of(process)): process for process in (one, two)}
        until_waiting(client, {0: "round 4"})
        by_rank[1].kill()
        assert line_of(by_rank[0]) == "done"
        # Of the last step the one that was killed had pushed some, all, or nothing yet.
        assert set(np.asarray(client.open("counts")).tolist()) <= {7, 8}
    assert counts.group is group


def test_a_server_that_is_away_is_named_and_its_step_is_not_lost(tmp_path: Path) -> None:
    with (
        glintpy.LocalCluster(2, data_dir=tmp_path / "kept") as cluster,
        cluster.client(timeout_s=PATIENCE_S) as client,
    ):
        group = client.join("job", 1)
        counts = client.vector(4, dtype="int64", consistency="bsp", group=group)
        counts.push(None, 1).result()
        cluster.kill_server(1)
        with pytest.raises(ServerLost, match="1 servers have not applied"):
            group.tick(timeout_s=0.5)
        assert group.clock == 1
        waiting = Waiting(group.tick)
        cluster.restart_server(1)
        assert waiting.end() is None
        assert group.clock == 1
        assert np.asarray(counts).tolist() == [1, 1, 1, 1]
