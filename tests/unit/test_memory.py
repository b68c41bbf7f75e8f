"""What a machine, its control groups and file systems leave free is read from the system; silence refuses nothing."""

from __future__ import annotations

import os
import resource
from pathlib import Path

import pytest

from glintpy.storage import memory
from glintpy.storage.memory import SHARE_OF_AVAILABLE, available_bytes, free_in, room_in

GIB = 2**30


def share(num_bytes: int) -> int:
    """Return what models may take of so much free memory."""
    return int(num_bytes * SHARE_OF_AVAILABLE)


class Machine:
    """A machine of files in a folder, which says nothing yet."""

    def __init__(self, folder: Path) -> None:
        self.groups = folder / "cgroups"
        self._proc = folder / "proc"
        (self._proc / "self").mkdir(parents=True)

    def has(self, available_kib: int) -> None:
        text = f"MemTotal: 99999999 kB\nMemFree: 5 kB\nMemAvailable:   {available_kib} kB\nBuffers: 1 kB\n"
        (self._proc / "meminfo").write_text(text)

    def mounts(self, *, version: int, root: str = "/") -> None:
        """Have the groups of a version mounted, as a container sees them if ``root`` is its own group."""
        kind, options = ("cgroup2", "rw") if version == 2 else ("cgroup", "rw,memory")
        (self._proc / "self" / "mountinfo").write_text(
            "22 1 0:20 / /proc rw,relatime - proc proc rw\n"
            "30 23 0:31 / /cpu rw,relatime - cgroup cgroup rw,cpu\n"
            f"31 23 0:32 {root} {self.groups} rw,relatime shared:9 - {kind} {kind} {options}\n"
        )

    def is_in(self, path: str, *, version: int) -> None:
        """Put this process into a group."""
        line = f"0::{path}\n" if version == 2 else f"7:name=systemd:/\n4:cpu,memory:{path}\n"
        (self._proc / "self" / "cgroup").write_text(line)

    def group(self, path: str, limit: object, used: object, *, version: int, cache: int = 0) -> None:
        """Make a group, with its limit and what it uses."""
        folder = self.groups / path
        folder.mkdir(parents=True, exist_ok=True)
        limit_name, used_name, cache_name = (
            ("memory.max", "memory.current", "inactive_file")
            if version == 2
            else ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        )
        (folder / limit_name).write_text(f"{limit}\n")
        (folder / used_name).write_text(f"{used}\n")
        (folder / "memory.stat").write_text(f"anon 1\n{cache_name} {cache}\nslab 2\n")


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    monkeypatch.setattr(memory, "_PROC", tmp_path / "proc")
    return Machine(tmp_path)


def test_a_share_is_left_for_what_is_no_model(machine: Machine) -> None:
    machine.has(10 * 2**20)
    assert available_bytes() == free_in(None) == share(10 * GIB)
    assert "this machine's memory" in room_in(None).where


@pytest.mark.parametrize("version", [1, 2])
def test_a_cgroup_limits_to_a_share_of_what_it_has_left(machine: Machine, version: int) -> None:
    machine.has(10 * 2**20)
    machine.mounts(version=version)
    machine.is_in("/ours", version=version)
    machine.group("ours", 3 * GIB, GIB, version=version)
    assert available_bytes() == share(2 * GIB)
    assert "cgroup" in room_in(None).where
    machine.group("ours", 3 * GIB, 4 * GIB, version=version)
    assert available_bytes() == 0


@pytest.mark.parametrize("version", [1, 2])
def test_every_group_above_limits_too(machine: Machine, version: int) -> None:
    machine.has(10 * 2**20)
    machine.mounts(version=version)
    machine.is_in("/a/b/c", version=version)
    machine.group("a/b/c", 9 * GIB, 0, version=version)
    machine.group("a/b", 4 * GIB, 2 * GIB, version=version)
    machine.group("a", 5 * GIB, 2 * GIB, version=version)
    assert available_bytes() == share(2 * GIB)
    machine.group("a", 5 * GIB, 4 * GIB, version=version)
    assert available_bytes() == share(GIB)
    machine.group("other", GIB, GIB, version=version)
    assert available_bytes() == share(GIB)


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize(
    ("root", "path"),
    [("/box/1", "/box/1/ours"), ("/", "/ours"), ("/box/1", "/ours"), ("/", "/../../ours"), ("/", "/gone")],
)
def test_a_container_s_own_limit_is_found_however_it_sees_its_group(
    machine: Machine, version: int, root: str, path: str
) -> None:
    machine.has(10 * 2**20)
    machine.mounts(version=version, root=root)
    machine.is_in(path, version=version)
    machine.group("", 2 * GIB, GIB, version=version)
    assert available_bytes() == share(GIB)
    if path.endswith("/ours") and ".." not in path:
        machine.group("ours", GIB, GIB // 2, version=version)
        assert available_bytes() == share(GIB // 2)


@pytest.mark.parametrize("version", [1, 2])
def test_pages_of_files_that_nobody_needs_any_more_are_free(machine: Machine, version: int) -> None:
    machine.has(10 * 2**20)
    machine.mounts(version=version)
    machine.is_in("/", version=version)
    machine.group("", 2 * GIB, 2 * GIB, version=version, cache=GIB)
    assert available_bytes() == share(GIB)
    machine.group("", 2 * GIB, GIB, version=version, cache=5 * GIB)  # read a moment later than the rest
    assert available_bytes() == share(2 * GIB)


def test_a_cgroup_without_a_limit_and_a_wide_one_change_nothing(machine: Machine) -> None:
    machine.has(2**20)
    for version, limit in [(2, "max"), (1, 2**63 - 4096), (1, 20 * GIB)]:
        machine.mounts(version=version)
        machine.is_in("/", version=version)
        machine.group("", limit, 5, version=version)
        assert available_bytes() == share(GIB)


def test_a_limit_on_the_address_space_counts(machine: Machine, monkeypatch: pytest.MonkeyPatch) -> None:
    machine.has(2**20)
    limits = (100_000 * os.sysconf("SC_PAGE_SIZE"), resource.RLIM_INFINITY)
    monkeypatch.setattr(resource, "getrlimit", lambda _: limits)
    assert available_bytes() == share(GIB)  # nothing says how much is in use
    (memory._PROC / "self" / "statm").write_text("60000 5 5 5 0 5 0\n")
    assert available_bytes() == share(40_000 * os.sysconf("SC_PAGE_SIZE"))
    assert "ulimit -v" in room_in(None).where
    (memory._PROC / "self" / "statm").write_text("100001 5 5 5 0 5 0\n")
    assert available_bytes() == 0


def test_a_file_system_limits_to_all_that_it_has_left(
    machine: Machine, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    asked: list[Path] = []

    def system(path: Path) -> os.statvfs_result:
        asked.append(path)
        return os.statvfs_result((4096, 1024, 10**9, 10**9, 64 * 1024, 0, 0, 0, 0, 255))

    monkeypatch.setattr(os, "statvfs", system)
    machine.has(10 * 2**20)
    assert free_in(tmp_path / "not" / "yet" / "there") == 64 * 2**20
    assert asked == [tmp_path]
    where = room_in(tmp_path).where
    assert str(tmp_path) in where
    assert "--data-dir" in where
    machine.has(32 * 2**10)
    assert free_in(tmp_path) == share(32 * 2**20)
    assert free_in(None) == share(32 * 2**20)


def test_where_the_system_says_nothing_nothing_is_refused(
    machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    assert available_bytes() >= 2**61
    machine.has(5)
    (memory._PROC / "meminfo").write_text("MemTotal: 5 kB\nMemAvailable: unknown\n")
    assert available_bytes() >= 2**61

    def fail(path: Path) -> os.statvfs_result:
        raise OSError(5, "Input/output error", str(path))

    monkeypatch.setattr(os, "statvfs", fail)
    assert free_in(Path("/")) >= 2**61


def test_this_machine_has_some(tmp_path: Path) -> None:
    assert 0 < free_in(tmp_path) < 2**63
