"""Little memory is an error with numbers, never a dead server: limits of processes, control groups, file systems."""

from __future__ import annotations

import os
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import glintpy
from glintpy import config
from tests.cluster.helpers import holdings, resident_bytes, settled, until
from tests.cluster.own_nodes import own_node

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="limits as Linux has them")

MIB = config.MIB
CELLS = MIB // 8

GROUPS = Path("/sys/fs/cgroup/memory")


@contextmanager
def little_memory(pid: int, room_bytes: int) -> Iterator[None]:
    """Let a process take only so many bytes more."""
    limits = resource.prlimit(pid, resource.RLIMIT_AS)
    taken = int(Path(f"/proc/{pid}/statm").read_text().split()[0]) * resource.getpagesize()
    resource.prlimit(pid, resource.RLIMIT_AS, (taken + room_bytes, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_AS, limits)


def held_bytes(client: glintpy.Client) -> list[int]:
    return [held["model_bytes"] for _, held in sorted(holdings(client).items())]


def works_exactly(model: glintpy.BigVector, num_rounds: int) -> None:
    """Keep a server as busy as a client may, and see that every push was applied once."""
    before = model.pull().result()
    ones = np.ones(len(model), np.int64)
    for _ in range(num_rounds):
        futures = [model.push(None, ones) for _ in range(20)]
        pulls = [model.pull() for _ in range(20)]
        for push, pull in zip(futures, pulls, strict=True):
            push.result()
            pull.result()
    assert np.array_equal(model.pull().result(), before + 20 * num_rounds)


def test_a_server_that_may_take_little_refuses_models_and_goes_on_with_what_it_has(
    cluster: glintpy.LocalCluster, client: glintpy.Client
) -> None:
    model = client.vector(8 * CELLS, dtype="int64")  # 4 MiB on each server
    works_exactly(model, 1)
    settled(client, [])  # a compiler that is being loaded would take what is left
    pid = cluster.servers[0].pid
    with little_memory(pid, 16 * MIB):
        with pytest.raises(glintpy.NotEnoughMemory, match="free in this process's address space"):
            client.vector(40 * CELLS)
        works_exactly(model, 3)
    works_exactly(model, 1)
    assert cluster.servers[0].is_alive


@pytest.mark.parametrize("which", [0, 1])
def test_where_one_of_two_servers_refuses_nothing_is_kept_on_the_other(
    cluster: glintpy.LocalCluster, client: glintpy.Client, which: int
) -> None:
    before = held_bytes(client)
    settled(client, [])
    with little_memory(cluster.servers[which].pid, 16 * MIB):
        for _ in range(3):
            with pytest.raises(glintpy.NotEnoughMemory):
                client.vector(80 * CELLS, name="wide")
        until(lambda: held_bytes(client) == before, "the other has let go of its reservation")
    assert client.models() == []
    with client.vector(80 * CELLS, name="wide") as wide:
        assert wide.push_pull([0], 1.0).result()[0] == 1


# --- as root ----------------------------------------------------------------------------------------------

needs_root = pytest.mark.skipif(
    os.name != "posix" or os.geteuid() != 0, reason="mounts and makes groups: for root"
)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 24 MiB in memory, as a container's /dev/shm is one of 64."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", str(folder)], check=False, capture_output=True
    )
    if mounted.returncode:
        pytest.skip(f"can't mount: {mounted.stderr.decode()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.root
@needs_root
def test_a_full_file_system_refuses_a_model_and_kills_nobody(tiny_disk: Path) -> None:
    with (
        own_node("master") as master,
        own_node("server", "--master", master.address, "--data-dir", tiny_disk / "server") as server,
        glintpy.Client(master.address) as client,
    ):
        with pytest.raises(glintpy.NotEnoughMemory) as caught:
            client.vector(32 * CELLS, name="big")
        for words in ("'big'", str(32 * MIB), str(tiny_disk), "--data-dir"):
            assert words in str(caught.value)
        with client.vector(2 * CELLS, name="big", dtype="int64") as model:  # the name is free
            works_exactly(model, 1)
            free = os.statvfs(tiny_disk)
            with (tiny_disk / "somebody's").open("wb") as file:
                file.write(bytes(free.f_bavail * free.f_frsize))
            with pytest.raises(glintpy.NotEnoughMemory, match="0 are free"):
                client.vector(CELLS)
            works_exactly(model, 2)  # its pages are its own
            assert server.is_alive
            (tiny_disk / "somebody's").unlink()
            with client.vector(CELLS) as other:
                assert other.push_pull([5], 1.0).result()[0] == 1


@contextmanager
def group_of(pid: int, limit_bytes: int) -> Iterator[None]:
    """Put a process into a control group with a limit; its memory counts from here on."""
    group = GROUPS / f"glintpy-test-{os.getpid()}"
    home = GROUPS / Path("/proc/self/cgroup").read_text().partition("memory:/")[2].partition("\n")[0]
    try:
        group.mkdir()
        (group / "memory.limit_in_bytes").write_text(str(limit_bytes))
        (group / "cgroup.procs").write_text(str(pid))
    except OSError as error:
        pytest.skip(f"no control group of version 1 can be made here: {error}")
    try:
        yield
    finally:
        (home / "cgroup.procs").write_text(str(pid))
        until(lambda: not (group / "cgroup.procs").read_text(), "the group is empty")
        group.rmdir()


@pytest.mark.root
@needs_root
def test_a_control_group_s_limit_is_seen_before_it_is_met(
    cluster: glintpy.LocalCluster, client: glintpy.Client
) -> None:
    model = client.vector(4 * CELLS, dtype="int64")
    works_exactly(model, 1)
    server = cluster.servers[0]
    with group_of(server.pid, 150 * MIB):
        with pytest.raises(glintpy.NotEnoughMemory, match="cgroup"):
            client.vector(400 * CELLS)
        works_exactly(model, 3)
        assert resident_bytes(server.pid) > 0
    assert server.is_alive
