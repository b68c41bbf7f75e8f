"""A local cluster refuses at once what it can't do, and says what could be done."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.cluster.members import ProcessMember
from tests.cluster.helpers import nodes_of

AT_ONCE_S = 2.0
"""How long a refusal may take on a busy machine: less than any wait for a master."""


def test_a_stopped_cluster_says_so_at_once() -> None:
    cluster = glintpy.LocalCluster(1, scheme="ipc")
    cluster.stop()
    before = time.monotonic()
    for ask in (
        cluster.client,
        cluster.add_server,
        lambda: cluster.kill_server(0),
        lambda: cluster.stop_server(0),
        lambda: cluster.restart_server(0),
        cluster.kill_master,
        cluster.restart_master,
    ):
        with pytest.raises(glintpy.ClusterError, match="the cluster is stopped"):
            ask()
    assert time.monotonic() - before < AT_ONCE_S
    assert nodes_of(os.getpid()) == []


def test_a_server_is_added_only_while_there_is_a_master_to_join() -> None:
    with glintpy.LocalCluster(1, scheme="ipc") as cluster:
        cluster.kill_master()
        before = time.monotonic()
        with pytest.raises(glintpy.ClusterError, match=r"master is not running; restart_master\(\) first"):
            cluster.add_server()
        assert time.monotonic() - before < AT_ONCE_S
        cluster.restart_master()
        assert cluster.add_server().index == 1


def test_a_data_directory_has_a_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        glintpy.ConfigError, match=r"data_dir is a directory or None.*the present one is '\.'"
    ):
        glintpy.LocalCluster(1, scheme="local", data_dir="")
    assert list(tmp_path.iterdir()) == []
    glintpy.LocalCluster(1, scheme="local", data_dir=".").stop()
    assert (tmp_path / "server-0").is_dir()


@pytest.mark.parametrize("index", [2, -1, 0.0, "0", None])
def test_servers_are_named_by_their_numbers(index: Any) -> None:
    with glintpy.LocalCluster(2, scheme="local") as cluster:
        for ask in (cluster.kill_server, cluster.stop_server, cluster.restart_server):
            with pytest.raises(glintpy.ConfigError, match="0 to 1, not "):
                ask(index)
        assert all(server.is_alive for server in cluster.servers)
        cluster.kill_server(np.int64(1))  # type: ignore[arg-type]  # an array's entry is a number, too
        assert [server.is_alive for server in cluster.servers] == [True, False]


def test_a_cluster_whose_processes_stand_still_stops_in_good_order() -> None:
    cluster = glintpy.LocalCluster(2)
    processes = [cluster.servers[0].pid, cluster.servers[1].pid, cluster.master_pid]
    for pid in processes:
        assert pid is not None
        os.kill(pid, signal.SIGSTOP)
    members = list(cluster._servers)
    cluster.stop()
    assert [member.process.returncode for member in members if isinstance(member, ProcessMember)] == [0, 0]
