"""What a machine and its cgroup leave free is read from their own files, and nothing said refuses nothing."""

from __future__ import annotations

from pathlib import Path

import pytest

from glintpy.storage import memory
from glintpy.storage.memory import available_bytes

GIB = 2**30


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine that says nothing yet: its files lie in this folder."""
    monkeypatch.setattr(memory, "_MEMINFO", tmp_path / "meminfo")
    limits = tuple((tmp_path / f"{version}.max", tmp_path / f"{version}.used") for version in ("v2", "v1"))
    monkeypatch.setattr(memory, "_CGROUP_LIMITS", limits)
    return tmp_path


def has(machine: Path, *, available_kib: int) -> None:
    text = f"MemTotal: 99999999 kB\nMemFree: 5 kB\nMemAvailable:   {available_kib} kB\nBuffers: 1 kB\n"
    (machine / "meminfo").write_text(text)


def test_a_share_is_left_for_what_is_no_model(machine: Path) -> None:
    has(machine, available_kib=10 * 2**20)
    assert available_bytes() == int(10 * GIB * memory.SHARE_OF_AVAILABLE)


@pytest.mark.parametrize("version", ["v2", "v1"])
def test_a_cgroup_limits_to_what_it_has_left(machine: Path, version: str) -> None:
    has(machine, available_kib=10 * 2**20)
    (machine / f"{version}.max").write_text(f"{3 * GIB}\n")
    (machine / f"{version}.used").write_text(f"{GIB}\n")
    assert available_bytes() == 2 * GIB
    (machine / f"{version}.used").write_text(f"{4 * GIB}\n")
    assert available_bytes() == 0


def test_a_cgroup_without_a_limit_and_a_wide_one_change_nothing(machine: Path) -> None:
    has(machine, available_kib=2**20)
    (machine / "v2.max").write_text("max\n")
    (machine / "v2.used").write_text("5\n")
    assert available_bytes() == int(GIB * memory.SHARE_OF_AVAILABLE)
    (machine / "v1.max").write_text(f"{2**63 - 4096}\n")
    (machine / "v1.used").write_text("0\n")
    assert available_bytes() == int(GIB * memory.SHARE_OF_AVAILABLE)


def test_where_the_system_says_nothing_nothing_is_refused(machine: Path) -> None:
    assert available_bytes() >= 2**61
    (machine / "meminfo").write_text("MemTotal: 5 kB\n")
    assert available_bytes() >= 2**61


def test_this_machine_has_some() -> None:
    assert 0 < available_bytes() < 2**63
