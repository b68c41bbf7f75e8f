"""A network that is cut, loses packets or is slow costs time: no push is lost or doubled, nobody is buried alive.

Real hosts are namespaces of the kernel: see ``namespaces``. The times are those that the guide states; as the machine
may be busy, a test allows twice as much.
"""

from __future__ import annotations

import shutil
import signal
import time
from pathlib import Path

import pytest

from tests.cluster.drilled import DrilledNode, report
from tests.cluster.helpers import paused, until
from tests.cluster.namespaces import RemoteClient, needs_namespaces, networked_cluster, remote_client

SILENT_S = 5.0
"""Within which the master misses a server that is cut off."""

DEAD_LINK_S = 12.0
"""Within which a client lets go of a connection that nobody acknowledges, while it sends."""

BACK_S = 10.0
"""Within which a server that was cut off for a few seconds is the master's again. TCP itself waits as long as the cut
lasted until it tries again."""

SMALL, LARGE = 1000, 1_000_000


def check(client: RemoteClient) -> None:
    """End the pushing; every push is in, once."""
    found = client.ask("end")
    assert found["errors"] == []
    assert (found["low"], found["high"]) == (found["pushes"], found["pushes"])
    assert found["pushes"] > 0


def goes_on(client: RemoteClient, count: int = 8) -> None:
    """Return when so many pushes more are in."""
    goal = client.ask("pushes") + count
    until(lambda: client.ask("pushes") >= goal, "pushes go on")


def seconds_until_said(node: DrilledNode, text: str, count: int = 1) -> float:
    """Return how long it takes until a node has written a text so often."""
    begun = time.monotonic()
    until(lambda: node.said.count(text) >= count, f"{text!r} is said")
    return time.monotonic() - begun


def all_alive(client: RemoteClient) -> bool:
    return set(client.ask("state")["states"]) == {"alive"}


@needs_namespaces
def test_a_server_that_is_cut_off_is_missed_and_nothing_is_lost_when_it_is_back(tmp_path: Path) -> None:
    with (
        networked_cluster(tmp_path) as (network, cluster),
        remote_client(network.hosts["client"], cluster.master.address, SMALL) as client,
    ):
        client.ask("begin")
        goes_on(client)
        network.cut("server-1")
        noticed_s = seconds_until_said(cluster.master, "server server-1 is lost: no heartbeat")
        network.heal("server-1")
        begun = time.monotonic()
        until(lambda: all_alive(client), "the server is found again")
        back_s = time.monotonic() - begun
        report("a server that is cut off is missed after", noticed_s)
        report("it is back after its cable by", back_s)
        assert noticed_s < 2 * SILENT_S
        assert back_s < 2 * BACK_S
        goes_on(client)
        check(client)


@pytest.mark.soak
@needs_namespaces
@pytest.mark.parametrize("after_bytes", [None, 700_000])
def test_a_cut_in_the_middle_of_large_pushes_frees_the_connection_in_time(
    tmp_path: Path, after_bytes: int | None
) -> None:
    with (
        networked_cluster(tmp_path) as (network, cluster),
        remote_client(network.hosts["client"], cluster.master.address, LARGE) as client,
    ):
        client.ask("begin")
        goes_on(client)
        # The server itself is well: only between it and the client nothing passes. One push of a million numbers is
        # 2 MB for this server, so the second way ends in the middle of a frame.
        network.cut("server-1", off="client", after_bytes=after_bytes)
        begun = time.monotonic()
        until(lambda: client.ask("down") == 1, "the client lets go of the connection")
        freed_s = time.monotonic() - begun
        report("a busy connection that leads nowhere is given up after", freed_s)
        assert freed_s < 2 * DEAD_LINK_S
        assert all_alive(client)
        network.heal("server-1")
        goes_on(client)
        check(client)


@pytest.mark.soak
@needs_namespaces
def test_a_server_that_is_cut_off_in_the_middle_of_large_pushes_is_missed_in_time(tmp_path: Path) -> None:
    with (
        networked_cluster(tmp_path) as (network, cluster),
        remote_client(network.hosts["client"], cluster.master.address, LARGE) as client,
    ):
        client.ask("begin")
        goes_on(client)
        network.cut("server-1")
        noticed_s = seconds_until_said(cluster.master, "server server-1 is lost: no heartbeat")
        report("a busy server that is cut off is missed after", noticed_s)
        assert noticed_s < 2 * SILENT_S
        network.heal("server-1")
        until(lambda: all_alive(client), "the server is found again")
        goes_on(client)
        check(client)


@pytest.mark.soak
@needs_namespaces
@pytest.mark.parametrize("percent", [1, 5, 20])
def test_lost_packets_cost_time_and_nothing_else(tmp_path: Path, percent: int) -> None:
    with (
        networked_cluster(tmp_path) as (network, cluster),
        remote_client(network.hosts["client"], cluster.master.address, 50_000) as client,
    ):
        client.ask("begin")
        goes_on(client)
        before = client.ask("state")["changes"]
        for host in ("server-0", "server-1"):
            network.lose(host, percent)
        end = time.monotonic() + 20.0  # long enough for 20 beats of each server
        until(lambda: time.monotonic() > end, "some time has passed")
        goes_on(client, 4)
        for host in ("server-0", "server-1"):
            network.heal(host)
        if percent <= 5:
            assert client.ask("state")["changes"] == before, cluster.master.said
        until(lambda: all_alive(client), "everybody lives")
        check(client)


@pytest.mark.soak
@needs_namespaces
def test_a_slow_network_is_no_dead_one(tmp_path: Path) -> None:
    with (
        networked_cluster(tmp_path) as (network, cluster),
        remote_client(network.hosts["client"], cluster.master.address, LARGE) as client,
    ):
        before = client.ask("state")["changes"]
        for host in ("client", "server-0", "server-1"):
            network.slow(host, "20mbit")
        client.ask("begin")
        goes_on(client, 12)  # 100 MB, at 2.5 MB a second
        assert client.ask("state")["changes"] == before, cluster.master.said
        check(client)


@pytest.mark.soak
@needs_namespaces
def test_a_master_that_is_cut_off_is_not_needed_meanwhile_and_found_again(tmp_path: Path) -> None:
    with (
        networked_cluster(tmp_path) as (network, cluster),
        remote_client(network.hosts["client"], cluster.master.address, SMALL) as client,
    ):
        client.ask("begin")
        goes_on(client)
        network.cut("master")
        seconds_until_said(cluster.master, "is lost: no heartbeat", 2)
        goes_on(client, 200)
        network.heal("master")
        begun = time.monotonic()
        until(lambda: all_alive(client), "everybody is the master's again")
        assert time.monotonic() - begun < 2 * BACK_S
        check(client)


@pytest.mark.soak
@needs_namespaces
def test_an_owner_that_returns_after_its_models_were_moved_is_turned_away(tmp_path: Path) -> None:
    with (
        networked_cluster(tmp_path, 1) as (network, cluster),
        remote_client(network.hosts["client"], cluster.master.address, SMALL) as client,
    ):
        (old,) = cluster.servers
        client.ask("begin")
        goes_on(client)
        network.cut("server-0")
        seconds_until_said(cluster.master, "server server-0 is lost")
        # Nobody can reach it: what it holds now is all there is. So its files are taken elsewhere, and it lives on.
        with paused(old.pid):
            moved = Path(shutil.copytree(old.folder / "data", tmp_path / "moved" / "data"))
        new = DrilledNode(
            "server",
            moved.parent,
            [*cluster._common_arguments("server-0"), *network.hosts["spare"].arguments],
            prefix=network.hosts["spare"].prefix,
        )
        cluster.servers.append(new)
        new.start()
        goes_on(client)
        network.heal("server-0")
        assert old.wait_end() == 1
        assert "was replaced by incarnation" in old.said
        assert all_alive(client)
        goes_on(client)
        check(client)


@pytest.mark.soak
@needs_namespaces
def test_a_second_process_on_the_folder_waits_until_the_owner_is_gone(tmp_path: Path) -> None:
    with (
        networked_cluster(tmp_path, 1) as (network, cluster),
        remote_client(network.hosts["client"], cluster.master.address, SMALL) as client,
    ):
        client.ask("begin")
        goes_on(client)
        (old,) = cluster.servers
        network.cut("server-0")
        seconds_until_said(cluster.master, "server server-0 is lost")
        heir = cluster.heir_of(0)
        network.heal("server-0")  # the owner is back before anybody took its place
        until(lambda: all_alive(client), "the owner is found again")
        goes_on(client)
        assert heir.is_alive
        old.signal(signal.SIGKILL)
        heir.wait_ready()
        goes_on(client)
        check(client)
