"""What the doctor says of a machine: well, warned of, or not fit, and always what to do."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Self

import numpy as np
import pytest

from glintpy.cli import doctor, machine
from glintpy.cli.machine import Check, State
from glintpy.cli.output import Failed


def test_this_machine_is_looked_at_from_all_sides() -> None:
    names = [check.check for check in machine.machine_checks()]
    assert names == [
        "python",
        "numpy",
        "pyzmq",
        "pykka",
        "msgpack",
        "libzmq",
        "open files",
        "/dev/shm",  # noqa: S108 - its name
        "memory",
    ]


def test_an_old_python_fails() -> None:
    assert machine.check_python((3, 10, 4)).state == "fail"
    assert machine.check_python((3, 11, 0)).state == "ok"
    assert machine.check_python((4, 0, 0)).state == "ok"


def test_libraries_are_missing_old_or_broken(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.check_library("numpy", "1.26").state == "ok"
    missing = machine.check_library("no-such-distribution", "1")
    assert (missing.state, missing.advice) == ("fail", "pip install 'no-such-distribution>=1'")
    old = machine.check_library("numpy", "999")
    assert old.state == "fail"
    assert "too old" in old.found
    monkeypatch.setitem(sys.modules, "zmq", None)
    broken = machine.check_library("pyzmq", "26")
    assert broken.state == "fail"
    assert "can't be imported" in broken.found


def test_an_old_libzmq_fails(monkeypatch: pytest.MonkeyPatch) -> None:
    from glintpy.transport import zeromq

    monkeypatch.setattr(zeromq, "LIBZMQ_VERSION", "4.3.4")
    assert machine.check_libzmq().state == "fail"
    monkeypatch.setattr(zeromq, "LIBZMQ_VERSION", "4.3.10")
    assert machine.check_libzmq().state == "ok"


@pytest.mark.parametrize(("limit", "state"), [(1024, "warn"), (4096, "ok"), (-1, "ok")])
def test_few_open_files_are_warned_of(monkeypatch: pytest.MonkeyPatch, limit: int, state: State) -> None:
    limits = SimpleNamespace(RLIMIT_NOFILE=7, RLIM_INFINITY=-1, getrlimit=lambda _: (limit, limit))
    monkeypatch.setitem(sys.modules, "resource", limits)
    check = machine.check_open_files()
    assert check.state == state
    assert bool(check.advice) == (state == "warn")


@pytest.mark.parametrize(("free_bytes", "state"), [(64 * 2**20, "warn"), (2**33, "ok")])
def test_little_shared_memory_is_warned_of(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, free_bytes: int, state: State
) -> None:
    system = SimpleNamespace(f_bavail=free_bytes // 4096, f_frsize=4096, f_blocks=2**33 // 4096)
    monkeypatch.setattr(machine.os, "statvfs", lambda _: system)  # type: ignore[attr-defined] # its own os
    check = machine.check_shared_memory(tmp_path)
    assert check.state == state
    assert ("--shm-size" in check.advice) == (state == "warn")


def test_no_shared_memory_is_fine(tmp_path: Path) -> None:
    assert machine.check_shared_memory(tmp_path / "none").state == "ok"


@pytest.mark.parametrize(
    ("available", "limit", "state"),
    [
        (2**34, None, "ok"),
        (2**34, 2**30, "ok"),
        (2**34, 2**28, "warn"),
        (2**28, None, "warn"),
        (None, None, "ok"),
    ],
)
def test_little_memory_is_warned_of(available: int | None, limit: int | None, state: State) -> None:
    assert machine.check_memory(available, limit).state == state


def test_memory_is_read_from_where_the_system_says_it(tmp_path: Path) -> None:
    meminfo = tmp_path / "meminfo"
    assert machine.available_memory(meminfo) is None
    meminfo.write_text("MemTotal:  100 kB\nMemAvailable:    42 kB\n")
    assert machine.available_memory(meminfo) == 42 * 1024
    assert machine.cgroup_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("max\n")
    assert machine.cgroup_limit(tmp_path) is None
    (tmp_path / "memory.max").write_text("1048576\n")
    assert machine.cgroup_limit(tmp_path) == 2**20


def test_versions_are_compared_by_their_numbers() -> None:
    assert machine.version_key("26.10.1rc2") > machine.version_key("26.9")
    assert machine.version_key("4") < machine.version_key("4.0.1")


def test_nobody_at_the_master_s_port_is_fine(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor, "listens", lambda _: False)
    assert doctor.check_master("tcp://127.0.0.1:5").state == "ok"


def test_a_machine_that_can_t_be_reached_is_warned_of(monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(_: str) -> bool:
        raise Failed("can't reach a master")

    monkeypatch.setattr(doctor, "listens", fail)
    assert doctor.check_master("tcp://example.invalid:5") == Check(
        "master's port",
        "warn",
        "can't reach a master",
        "see that the master runs, and that a firewall lets you pass",
    )


def test_a_cluster_that_computes_wrongly_fails_at_that_step(monkeypatch: pytest.MonkeyPatch) -> None:
    import glintpy.cluster

    class Broken:
        def __init__(self, *_: Any, **__: Any) -> None:
            """Start nothing."""

        def __enter__(self) -> Self:
            return self

        def __exit__(self, *_: object) -> None:
            """Stop nothing."""

        def client(self, **_: Any) -> Broken:
            return self

    def fail(_: object) -> str:
        raise Failed("3 of 5 values are wrong")

    monkeypatch.setattr(glintpy.cluster, "LocalCluster", Broken)
    monkeypatch.setattr(doctor, "STEPS", {"push and pull": lambda _: "all exact", "save and load": fail})
    checks = list(doctor.self_test(5.0))
    assert [(check.check, check.state) for check in checks] == [
        ("start a cluster", "ok"),
        ("push and pull", "ok"),
        ("save and load", "fail"),
    ]
    assert "3 of 5 values are wrong" in checks[-1].found
    assert checks[-1].advice


def test_wrong_values_are_counted() -> None:
    doctor._require_equal(np.array([1, 2]), np.array([1, 2]))
    with pytest.raises(Failed, match="1 of 2 values are wrong"):
        doctor._require_equal(np.array([1, 2]), np.array([1, 3]))


@pytest.mark.parametrize(
    ("states", "verdict"),
    [
        (["ok", "ok"], "glintpy works here"),
        (["ok", "warn"], "glintpy works here; mind 1"),
        (["fail", "warn"], "glintpy does not work here: 0"),
    ],
)
def test_the_verdict_names_what_matters(states: list[State], verdict: str) -> None:
    checks = [Check(str(number), state, "") for number, state in enumerate(states)]
    assert doctor._verdict(checks) == verdict
