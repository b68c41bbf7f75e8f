"""kill -9 of servers, clients and the master, and orderly restarts, in the middle of traffic."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Self

import numpy as np
import pytest

import glintpy
from glintpy.config import PART_BYTES
from tests.cluster.helpers import (
    PATIENCE_S,
    holders_of,
    line_of,
    num_sockets,
    paused,
    program,
    settled,
    state_of,
    until,
)


@pytest.fixture
def breakable() -> Iterator[glintpy.LocalCluster]:
    """A cluster of its own for each test that breaks it."""
    with glintpy.LocalCluster(2, scheme="tcp") as cluster:
        yield cluster


class Traffic:
    """A thread that pushes ones to a whole vector and reads it, until it is stopped."""

    def __init__(self, vector: glintpy.BigVector) -> None:
        self._vector = vector
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic")
        self.pushes: list[glintpy.Future[None]] = []
        self.errors: list[BaseException] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                for _ in range(10):
                    self.pushes.append(self._vector.push(None, 1))
                self._vector.pull([0, len(self._vector) - 1]).result()
            except glintpy.GlintError as error:
                self.errors.append(error)
                return

    def goes_on(self) -> None:
        """Return when 100 pushes more have been issued, and answered or not."""
        count = len(self.pushes) + 100
        until(lambda: self.errors or len(self.pushes) >= count, "traffic goes on")

    def check(self) -> None:
        """Every push is in, once."""
        assert self.errors == []
        assert [push.exception() for push in self.pushes] == [None] * len(self.pushes)
        assert np.array_equal(self._vector.pull().result(), np.full(len(self._vector), len(self.pushes)))


# --- servers ----------------------------------------------------------------------------------------------


def test_a_killed_server_is_noticed_and_requests_fail_as_asked(breakable: glintpy.LocalCluster) -> None:
    with breakable.client() as client:
        vector = client.vector(1000, dtype="int64")
        first, last = holders_of(vector, breakable)
        vector.push(None, 7).result()
        hasty = vector.with_options(on_server_lost="raise")
        with paused(breakable.servers[last].pid):
            under_way = hasty.pull([999])
            breakable.kill_server(last)
        until(lambda: state_of(client, last) == "lost", "the master has noticed")
        with pytest.raises(glintpy.ServerLost, match="lost; restart it"):
            under_way.result()
        with pytest.raises(glintpy.ServerLost):
            hasty.pull([999]).result()
        with pytest.raises(glintpy.ServerLost) as caught:
            hasty.push([999], 1).result()
        assert caught.value.outcome == "none"
        begun = time.monotonic()
        with pytest.raises(glintpy.PullFailed, match=r"within 0\.8 s"):
            vector.with_options(timeout_s=0.8).pull([999]).result()
        assert time.monotonic() - begun >= 0.8
        with pytest.raises(glintpy.PushRefused, match="nothing was sent"):
            vector.with_options(timeout_s=0.2).push([999], 1).result()
        # The other server is as it was.
        assert state_of(client, first) == "alive"
        assert hasty.push_pull([0, 499], 1).result().tolist() == [8, 8]


def test_a_killed_server_comes_back_with_everything_it_acknowledged(breakable: glintpy.LocalCluster) -> None:
    with breakable.client() as client:
        vector = client.vector(1000, dtype="int64", name="kept")
        for index in (0, 1, 0):
            vector.push(None, 7).result()
            breakable.kill_server(index)
            waiting = vector.pull()  # waits for the server's return
            breakable.restart_server(index)
            assert len(set(waiting.result().tolist())) == 1
        assert vector.pull().result().tolist() == [21] * 1000
        vector.destroy()
        assert client.vector(1000, dtype="int64", name="kept").pull([999]).result().tolist() == [0]


@pytest.mark.parametrize("num_kills", [6, pytest.param(100, marks=pytest.mark.soak)])
def test_a_server_that_is_killed_among_single_cells_undoes_them(seed: int, num_kills: int) -> None:
    """Large pushes of cells at random places write down what they change as they go, in compiled loops."""
    random = np.random.default_rng(seed)
    num_cells, num_keys = 200_000, 50_000
    sent = np.zeros(num_cells, np.int64)
    with glintpy.LocalCluster(1) as cluster, cluster.client() as client:
        vector = client.vector(num_cells, dtype="int64")
        matrix = client.matrix(num_cells // 100, 100, dtype="int64")
        for model in (vector, matrix):
            model.push([0], np.zeros((1, *model.shape[1:]), np.int64)).result()
        settled(client, [])
        for _ in range(num_kills):
            pushes = []
            for _ in range(12):
                keys = random.integers(0, num_cells, num_keys)
                np.add.at(sent, keys, 1)
                pushes += [vector.push(keys, 1), matrix.push(keys // 100, 1, cols=keys % 100)]
            pushes[int(random.integers(len(pushes)))].result()
            cluster.kill_server(0)
            cluster.restart_server(0)
            assert [push.exception() for push in pushes] == [None] * len(pushes)
            assert np.array_equal(vector.pull().result(), sent)
            assert np.array_equal(matrix.pull().result().ravel(), sent)


def test_a_model_of_level_memory_is_lost_with_its_server_and_says_so(
    breakable: glintpy.LocalCluster, tmp_path: Path
) -> None:
    with breakable.client() as client:
        vector = client.vector(1000, dtype="int64", name="half", durability="memory")
        on_one = client.vector(1, dtype="int64")  # its one partition lies on one server
        first, last = holders_of(vector, breakable)
        assert holders_of(on_one, breakable) == [first]
        vector.push(None, 7).result()
        on_one.push(None, 5).result()
        breakable.kill_server(last)
        waiting = vector.pull([999])  # waits for the server's return, and then hears the truth
        breakable.restart_server(last)
        with pytest.raises(
            glintpy.ModelLost, match=r"pull from 'half': .* whose values went with the process"
        ):
            waiting.result()
        with pytest.raises(glintpy.ModelLost, match="pull from 'half'"):
            vector.pull().result()
        with pytest.raises(glintpy.ModelLost, match="push to 'half'"):
            vector.push([999], 1).result()
        vector.push([999], 1)
        with pytest.raises(glintpy.ModelLost, match="push to 'half'"):
            client.flush()
        with pytest.raises(glintpy.ModelLost, match="saving 'half'"):
            vector.save(str(tmp_path / "half"))
        with pytest.raises(glintpy.ModelLost, match="function 'dot' with 'half' of 'whole'"):
            client.vector(1000, dtype="int64", name="whole").dot([999], [999], vector).result()
        assert vector.pull([0, 499]).result().tolist() == [7, 7]
        assert on_one.pull().result().tolist() == [5]
        with client.vector(1000, dtype="int64") as fresh:
            assert fresh.push_pull([0, 999], [1, 2]).result().tolist() == [1, 2]
        vector.destroy()
        assert client.vector(1000, dtype="int64", name="half").pull([999]).result().tolist() == [0]


def test_a_push_under_way_to_a_killed_server_goes_on_when_it_is_back(breakable: glintpy.LocalCluster) -> None:
    with breakable.client() as client:
        vector = client.vector(1000, dtype="int64")
        _, last = holders_of(vector, breakable)
        vector.push(None, 1).result()
        with paused(breakable.servers[last].pid):
            push = vector.push([0, 999], 1)
            until(lambda: vector.pull([0]).result()[0] == 2, "the first server has its part")
            breakable.kill_server(last)
        assert not push.done()
        breakable.restart_server(last)
        push.result()
        assert vector.pull([0, 1, 998, 999]).result().tolist() == [2, 1, 1, 2]


def test_servers_killed_in_a_stream_lose_and_double_nothing(breakable: glintpy.LocalCluster) -> None:
    with breakable.client() as client:
        vector = client.vector(40_000, dtype="int64")
        with Traffic(vector) as traffic:
            for index in (0, 1, 0, 1):
                traffic.goes_on()
                breakable.kill_server(index)
                breakable.restart_server(index)
            traffic.goes_on()
        traffic.check()


def test_a_cluster_under_supervision_starts_again_what_dies() -> None:
    with glintpy.LocalCluster(2, scheme="tcp", supervise=True) as cluster, cluster.client() as client:
        vector = client.vector(1000, dtype="int64")
        vector.push(None, 1).result()
        pids = [cluster.master_pid, *(view.pid for view in cluster.servers)]
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        vector.push(None, 1).result()
        assert vector.pull().result().tolist() == [2] * 1000
        until(lambda: cluster.master_is_alive, "the master is back")
        client.vector(10, dtype="int64").push(None, 1).result()
        assert not {cluster.master_pid, *(view.pid for view in cluster.servers)} & set(pids)
        cluster.stop_server(0)  # as asked: it stays away
        until(lambda: state_of(client, 0) == "stopped", "it has left")
        assert not cluster.servers[0].is_alive


def test_nothing_is_lost_or_doubled_when_a_server_is_restarted_in_a_stream(
    breakable: glintpy.LocalCluster,
) -> None:
    with breakable.client() as client:
        vector = client.vector(40_000, dtype="int64")
        with Traffic(vector) as traffic:
            traffic.goes_on()
            for index in (0, 1):
                breakable.restart_server(index)
                traffic.goes_on()
        traffic.check()


# --- clients ----------------------------------------------------------------------------------------------

PUSHER = """\
import sys
import glintpy

with glintpy.Client(sys.argv[1], name="the victim") as client:
    model = client.open("target")
    print("pushing", flush=True)
    while True:
        model.push(None, 1)
"""


@pytest.mark.parametrize("parts_a_server", [1, 4])
def test_pushes_of_a_killed_client_are_in_whole_or_not_at_all_by_part(
    breakable: glintpy.LocalCluster, tmp_path: Path, parts_a_server: int
) -> None:
    part_rows = PART_BYTES // 8
    half = part_rows * parts_a_server
    with breakable.client() as client:
        vector = client.vector(2 * half, dtype="int64", name="target")
        bystander = client.vector(10, dtype="int64")
        assert not np.any(vector.pull().result())
        num_before = [num_sockets(server.pid) for server in breakable.servers]
        with program(tmp_path / "pusher.py", PUSHER, breakable.address) as process:
            assert line_of(process) == "pushing"
            until(lambda: vector.pull([half - 1]).result()[0] > 3, "pushes arrive")
            assert "the victim" in [member["name"] for member in client.clients()]
            process.kill()
        until(lambda: "the victim" not in [m["name"] for m in client.clients()], "the client is forgotten")
        # What it had sent is still arriving until the servers have read the end of its connections.
        until(
            lambda: [num_sockets(server.pid) for server in breakable.servers] == num_before,
            "the servers have read all that it sent",
        )
        parts = vector.pull().result().reshape(2 * parts_a_server, part_rows)
        assert np.array_equal(parts.min(axis=1), parts.max(axis=1))
        for counts in (parts[:parts_a_server, 0], parts[parts_a_server:, 0]):
            # One client's parts arrive in order: the first of a server is at most one push ahead of its last.
            assert counts[0] - counts[-1] in {0, 1}
            assert np.all(np.diff(counts) <= 0)
        assert bystander.push_pull(None, 1).result().tolist() == [1] * 10
        before = vector.pull([0]).result()[0]
        assert vector.push_pull([0], 1).result()[0] == before + 1


# --- the master -------------------------------------------------------------------------------------------


def test_traffic_does_not_notice_that_the_master_is_killed(breakable: glintpy.LocalCluster) -> None:
    with breakable.client() as client, breakable.client(timeout_s=0.5) as impatient:
        vector = client.vector(1000, dtype="int64", name="kept")
        with Traffic(vector) as traffic:
            traffic.goes_on()
            breakable.kill_master()
            traffic.goes_on()
            with pytest.raises(glintpy.MasterUnreachable, match="pulls and pushes go on"):
                impatient.models()
            breakable.restart_master()
            traffic.goes_on()
            until(lambda: [s["state"] for s in client.servers()] == ["alive"] * 2, "the servers are back")
            until(lambda: len(client.clients()) == 2, "the clients are back")
            assert client.models() == ["kept"]
            assert client.open("kept") == vector
            with client.vector(10) as fresh:
                assert fresh.push_pull(None, 1).result().tolist() == [1] * 10
            traffic.goes_on()
        traffic.check()


def test_a_call_to_the_master_waits_for_its_return(breakable: glintpy.LocalCluster) -> None:
    with breakable.client() as client:
        client.vector(10, name="kept")
        breakable.kill_master()
        found: list[list[str]] = []
        asking = threading.Thread(target=lambda: found.append(client.models()))
        asking.start()
        breakable.restart_master()
        asking.join(PATIENCE_S)
        assert found == [["kept"]]


def test_a_master_that_stops_in_good_order_comes_back_with_all_it_knew(
    breakable: glintpy.LocalCluster,
) -> None:
    with breakable.client() as client:
        vector = client.vector(10, dtype="int64", name="kept")
        breakable.restart_master()
        client.wait_for_servers(2, timeout_s=PATIENCE_S)
        assert client.open("kept").push_pull(None, 2).result().tolist() == [2] * 10
        vector.destroy()
        assert client.models() == []


def test_a_model_that_is_destroyed_while_its_server_is_away_does_not_come_back(
    breakable: glintpy.LocalCluster,
) -> None:
    with breakable.client() as client:
        vector = client.vector(10, dtype="int64", name="short-lived")
        breakable.stop_server(1)
        until(lambda: state_of(client, 1) == "stopped", "the server has left")
        vector.destroy()
        breakable.restart_server(1)
        until(lambda: state_of(client, 1) == "alive", "the server is back")
        held = client.status(timeout_s=PATIENCE_S)["servers"]
        assert [server["holds"]["models"] for server in held] == [[], []]
        with pytest.raises(glintpy.ModelNotFound):
            client.open("short-lived")
