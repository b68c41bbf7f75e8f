"""A server that is stopped for seconds, as by a debugger or a swapping machine, costs time and nothing else."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import numpy as np
import pytest

import glintpy
from tests.cluster.helpers import PATIENCE_S, holders_of, holdings, paused, sessions_of, state_of, until

PAUSE_S = 6.0
"""Longer than the master waits for heartbeats, so that the server is lost and found again."""


@pytest.fixture
def pausable() -> Iterator[glintpy.LocalCluster]:
    with glintpy.LocalCluster(2, scheme="tcp") as cluster:
        yield cluster


def test_a_pause_in_a_stream_of_pushes_sends_no_payload_twice(pausable: glintpy.LocalCluster) -> None:
    with pausable.client(timeout_s=PATIENCE_S) as client:
        vector = client.vector(10_000, dtype="int64")
        first, _ = holders_of(vector, pausable)
        pushes = [vector.push(None, 1) for _ in range(50)]
        pace = threading.Event()  # never set: some pushes, then a breath
        with paused(pausable.servers[first].pid):
            end = time.monotonic() + PAUSE_S
            while time.monotonic() < end:
                pushes += [vector.push(None, 1) for _ in range(5)]
                assert vector.pull([9_999]).result()[0] > 0  # the other server answers all the while
                pace.wait(0.02)
            assert state_of(client, first) == "lost"
            pull = vector.pull([0])
        pushes += [vector.push(None, 1) for _ in range(50)]
        assert [push.exception() for push in pushes] == [None] * len(pushes)
        assert pull.result()[0] == len(pushes) - 50
        assert np.array_equal(vector.pull().result(), np.full(10_000, len(pushes)))
        until(lambda: state_of(client, first) == "alive", "the server is found again")
        sessions = sessions_of(client)
        assert len(sessions) == 2
        assert sum(session.num_payload_resends for session in sessions) == 0
        # With waits that grow from 0.1 s by 1.6 each, 6 s take about eight; a busy machine adds some. Not one a push.
        assert sum(session.num_probes for session in sessions) < len(pushes) / 2
        with client.vector(100, dtype="int64") as fresh:
            assert fresh.push_pull(None, 1).result().sum() == 100


def test_a_pause_of_the_master_is_not_noticed_by_pushes_and_pulls(pausable: glintpy.LocalCluster) -> None:
    with pausable.client() as client:
        vector = client.vector(1000, dtype="int64")
        with paused(pausable.master_pid):
            making = threading.Thread(target=client.vector, args=(10,), kwargs={"name": "later"})
            making.start()
            for _ in range(100):
                vector.push(None, 1)
            assert vector.pull().result().tolist() == [100] * 1000
        making.join(PATIENCE_S)
        assert client.open("later").pull().result().tolist() == [0.0] * 10


def test_a_pause_of_a_client_loses_none_of_its_pushes(pausable: glintpy.LocalCluster) -> None:
    # A cluster that stands still while this process works is, for the two, the same as the reverse.
    with pausable.client() as client:
        vector = client.vector(1000, dtype="int64")
        pids = [pausable.master_pid, *(server.pid for server in pausable.servers)]
        with paused(pids[0]), paused(pids[1]), paused(pids[2]):
            pushes = [vector.push(None, 1) for _ in range(100)]
            with pytest.raises(TimeoutError, match="100 pushes have no outcome after"):
                client.flush(timeout_s=0.5)
        client.flush()
        assert all(push.done() for push in pushes)
        assert vector.pull().result().tolist() == [100] * 1000


@pytest.mark.soak
def test_a_model_that_a_server_is_too_slow_to_make_is_made_nowhere(pausable: glintpy.LocalCluster) -> None:
    with pausable.client() as client:
        with paused(pausable.servers[1].pid), pytest.raises(glintpy.ServerLost, match="while model 'slow'"):
            client.vector(1000, name="slow")
        assert client.models() == []
        until(lambda: state_of(client, 1) == "alive", "the server is found again")
        with client.vector(1000, name="slow", dtype="int64") as vector:
            assert vector.push_pull(None, 1).result().sum() == 1000
        held = holdings(client)
        assert [held[name]["models"] for name in sorted(held)] == [[], []]
