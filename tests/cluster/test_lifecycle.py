"""A cluster starts, stops, crashes and is interrupted, and nothing of it stays: no process, file or port."""

from __future__ import annotations

import os
import signal
import socket
from pathlib import Path

import numpy as np
import pytest

import glintpy
from tests.cluster.helpers import PATIENCE_S, line_of, nodes_of, num_descriptors, program, until
from tests.leftovers import Leftovers

EIGHT_LINES = """\
import glintpy

with glintpy.local(servers=2) as client:
    m = client.matrix(10_000, 100, dtype="float32")
    m.push([3, 9, 3], 0.05).result()
    print(m.pull([3, 9]).result()[:, 0])
    print(m[3, :4])
"""

OWNER = """\
import os, sys
import glintpy

client = glintpy.local(servers=2)
vector = client.vector(1000, dtype="int64")
vector.push([1, 999], 1).result()
cluster = client._at_close[0].__self__
print(cluster._private, flush=True)
if sys.argv[1] == "exit":
    os._exit(3)
try:
    sys.stdin.read()
finally:
    if sys.argv[1] == "close":
        client.close()
"""


def use_once(cluster: glintpy.LocalCluster) -> None:
    with cluster.client() as client:
        vector = client.vector(1000, dtype="int64")
        vector.push([1, 999, 1], 1).result()
        assert vector.pull([0, 1, 999]).result().tolist() == [0, 2, 1]


def start_use_and_stop(scheme: str) -> None:
    cluster = glintpy.LocalCluster(2, scheme=scheme)  # type: ignore[arg-type]
    with cluster:
        folder = cluster._private
        addresses = [cluster.address, *(server.address for server in cluster.servers)]
        assert folder.is_dir()
        assert len(nodes_of(os.getpid())) == 3
        use_once(cluster)
    assert nodes_of(os.getpid()) == []
    assert not folder.exists()
    assert not [address for address in addresses if listens(address)]


def listens(address: str) -> bool:
    if address.startswith("ipc://"):
        return Path(address.removeprefix("ipc://")).exists()
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def start_and_stop_often(num_times: int) -> None:
    start_use_and_stop("ipc")
    before, descriptors = Leftovers.now(), num_descriptors()
    for number in range(num_times):
        start_use_and_stop("ipc" if number % 5 == 0 else "tcp")
    before.check(f"{num_times} clusters")
    assert num_descriptors() <= descriptors


def test_clusters_start_and_stop_again_and_again() -> None:
    start_and_stop_often(9)


@pytest.mark.soak
@pytest.mark.parametrize("batch", range(8))
def test_two_hundred_clusters_start_and_stop(batch: int) -> None:
    # In batches, because each test must keep within the time after which it counts as hanging.
    assert batch in range(8)
    start_and_stop_often(25)


def test_stopping_again_does_nothing_and_names_stay_readable() -> None:
    cluster = glintpy.LocalCluster(1, scheme="ipc")
    cluster.stop()
    cluster.stop()
    assert "stopped" in repr(cluster)
    assert [server.is_alive for server in cluster.servers] == [False]


def test_a_server_that_is_added_is_used_by_new_models() -> None:
    with glintpy.LocalCluster(1, scheme="ipc") as cluster, cluster.client() as client:
        cluster.add_server()
        client.wait_for_servers(2, timeout_s=PATIENCE_S)
        with client.vector(10, dtype="int64") as vector:
            assert "servers=2" in repr(vector)
            assert vector.push_pull(None, range(10)).result().tolist() == list(range(10))


@pytest.mark.parametrize("durable", [False, True])
def test_a_child_that_cannot_start_is_named_with_its_reason(tmp_path: Path, *, durable: bool) -> None:
    (tmp_path / "master").write_text("not a folder")
    if durable:
        with pytest.raises(glintpy.ClusterError, match=r"before it was ready: .*master"):
            glintpy.LocalCluster(1, data_dir=tmp_path)
        assert nodes_of(os.getpid()) == []
    else:
        with pytest.raises(glintpy.ConfigError, match="servers is at least 1, not 0"):
            glintpy.LocalCluster(0)


# --- as programs ------------------------------------------------------------------------------------------


def test_eight_lines_at_the_top_of_a_script_work(tmp_path: Path) -> None:
    with program(tmp_path / "eight.py", EIGHT_LINES) as process:
        output, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
        assert output.splitlines() == ["[0.1  0.05]", "[0.1 0.1 0.1 0.1]"]
        assert nodes_of(process.pid) == []


@pytest.mark.parametrize("ending", ["close", "forget"])
def test_a_script_that_ends_leaves_nothing(tmp_path: Path, ending: str) -> None:
    with program(tmp_path / "owner.py", OWNER, ending) as process:
        folder = Path(line_of(process))
        assert folder.is_dir()
        assert len(nodes_of(process.pid)) == 3
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
        assert nodes_of(process.pid) == []
        assert not folder.exists()


@pytest.mark.parametrize("ending", ["exit", "kill"])
def test_a_script_that_crashes_leaves_nothing(tmp_path: Path, ending: str) -> None:
    with program(tmp_path / "owner.py", OWNER, ending) as process:
        folder = Path(line_of(process))
        if ending == "kill":
            assert len(nodes_of(process.pid)) == 3
            process.kill()
        process.wait(PATIENCE_S)
        until(lambda: not nodes_of(process.pid), "the orphans have gone")
        assert not folder.exists()


def test_a_script_that_crashes_after_a_server_did_leaves_nothing(tmp_path: Path) -> None:
    with program(tmp_path / "owner.py", OWNER, "kill") as process:
        folder = Path(line_of(process))
        os.kill(nodes_of(process.pid)[-1], signal.SIGKILL)
        process.kill()
        process.wait(PATIENCE_S)
        until(lambda: not nodes_of(process.pid), "the orphans have gone")
        assert not folder.exists()


@pytest.mark.parametrize("ending", ["close", "forget"])
def test_a_script_that_is_interrupted_leaves_nothing(tmp_path: Path, ending: str) -> None:
    with program(tmp_path / "owner.py", OWNER, ending) as process:
        folder = Path(line_of(process))
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == -signal.SIGINT
        assert "KeyboardInterrupt" in errors
        until(lambda: not nodes_of(process.pid), "the nodes have gone")
        assert not folder.exists()


# --- coming back ------------------------------------------------------------------------------------------


def test_models_are_back_when_a_whole_cluster_starts_again_on_its_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(1000, 7))
    with glintpy.LocalCluster(2, data_dir=tmp_path) as cluster, cluster.client() as client:
        matrix = client.matrix(1000, 7, name="kept", partitioner="cyclic", partitions_per_server=3)
        matrix.push(None, values).result()
        client.vector(10, name="gone").destroy()
    with glintpy.LocalCluster(2, data_dir=tmp_path) as cluster, cluster.client() as client:
        assert client.models() == ["kept"]
        matrix = client.open("kept")  # type: ignore[assignment]
        assert np.array_equal(np.asarray(matrix), values)
        matrix.push([0], 1.0).result()
        assert np.array_equal(matrix[0], values[0] + 1.0)
        assert client.vector(10, name="gone").pull().result().tolist() == [0] * 10
