"""A server that stands still ends itself and says where it stood; one that is merely busy does not."""

from __future__ import annotations

import signal
from pathlib import Path

import numpy as np
import pytest

import glintpy
from tests.cluster.drilled import drilled_cluster
from tests.cluster.helpers import PATIENCE_S, until

LIMIT_S = 2.0


@pytest.mark.parametrize("way", ["hang_with_the_lock", pytest.param("hang", marks=pytest.mark.soak)])
def test_a_server_whose_actor_hangs_ends_and_goes_on_when_it_is_started_again(
    tmp_path: Path, way: str
) -> None:
    with drilled_cluster(tmp_path, 1, server_arguments=["--watchdog", str(LIMIT_S)]) as cluster:
        (server,) = cluster.servers
        with glintpy.Client(cluster.master.address, timeout_s=PATIENCE_S) as client:
            vector = client.vector(1000, dtype="int64")
            vector.push(None, 1).result()
            server.arm("actor.before_message", way)
            until((server.folder / "hangs").exists, "it hangs")
            push = vector.push(None, 1)
            assert server.wait_end() == 1
            assert "Timeout (0:00:02)!" in server.said
            assert "on_receive" in server.said  # where the actor stood
            assert server.said.count("Thread 0x") >= 2  # and where the others did
            server.start()
            push.result()
            assert vector.pull().result().tolist() == [2] * 1000


@pytest.mark.soak
def test_a_watched_server_that_is_busy_and_stopped_in_good_order_ends_well(tmp_path: Path) -> None:
    with drilled_cluster(tmp_path, 1, server_arguments=["--watchdog", str(LIMIT_S)]) as cluster:
        (server,) = cluster.servers
        with glintpy.Client(cluster.master.address, timeout_s=PATIENCE_S) as client:
            # Random values for 30 million cells are made in slices, and ticks come between them.
            matrix = client.matrix(
                30_000, 1000, dtype="float64", init=("normal", 0, 1), partitions_per_server=1
            )
            for _ in range(3):
                matrix.push(None, np.ones((30_000, 1000))).result()
            assert server.is_alive
            matrix.destroy()
        server.signal(signal.SIGTERM)
        assert server.wait_end() == 0
        assert "Timeout" not in server.said


@pytest.mark.soak
def test_a_server_whose_actors_thread_leaves_ends_and_says_so(tmp_path: Path) -> None:
    with drilled_cluster(tmp_path, 1) as cluster:
        (server,) = cluster.servers
        with glintpy.Client(cluster.master.address, timeout_s=PATIENCE_S) as client:
            vector = client.vector(1000, dtype="int64")
            vector.push(None, 1).result()
            server.arm("actor.before_message", "leave")
            assert server.wait_end() == 1
            assert "the server stopped by itself" in server.said
            server.start()
            assert vector.push_pull(None, 1).result().tolist() == [2] * 1000
