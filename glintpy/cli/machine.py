"""What ``glintpy doctor`` finds out about this machine without a cluster; changes nothing.

Libraries are imported by name, one by one: what is wrong with one of them must be said, not raised.
"""

from __future__ import annotations

import importlib
import os
import platform
import re
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import Literal

from glintpy import config
from glintpy.cli.quantities import size_text

PYTHON_MIN = (3, 11)
LIBRARIES = {"numpy": "1.26", "pyzmq": "26", "pykka": "4", "msgpack": "1"}
"""Distributions and the oldest versions that do; the project's own floors."""

_MODULES = {"pyzmq": "zmq"}
LIBZMQ_MIN = "4.3.5"

OPEN_FILES_MIN = 4096
"""Enough for some hundred clients: each takes a few descriptors on every server."""

SHARED_MEMORY_MIN = 256 * config.MIB
MEMORY_MIN = 512 * config.MIB

State = Literal["ok", "warn", "fail"]


@dataclass(frozen=True, slots=True)
class Check:
    """A finding.

    Attributes:
        check: what was looked at.
        state: ``"warn"`` where glintpy works, but may not for long.
        found: what there is, with its numbers.
        advice: what to do; empty if nothing.
    """

    check: str
    state: State
    found: str
    advice: str = ""


def machine_checks() -> Iterator[Check]:
    """Yield the findings."""
    yield check_python(sys.version_info[:3])
    for name, least in LIBRARIES.items():
        yield check_library(name, least)
    yield check_libzmq()
    yield check_open_files()
    yield check_shared_memory(Path("/dev/shm"))  # noqa: S108 - looked at, not written to
    yield check_memory(available_memory(), cgroup_limit())


def check_python(version: tuple[int, ...]) -> Check:
    """Compare the interpreter's version with the oldest one that does."""
    found = f"{'.'.join(map(str, version))} ({platform.python_implementation()})"
    if version[:2] < PYTHON_MIN:
        return Check(
            "python", "fail", found, f"glintpy needs Python {'.'.join(map(str, PYTHON_MIN))} or later"
        )
    return Check("python", "ok", found)


def check_library(name: str, least: str) -> Check:
    """Look at an installed library: is it there, new enough, and can it be imported?

    Args:
        name: of the distribution.
        least: the oldest version that does.
    """
    try:
        version = metadata.version(name)
        importlib.import_module(_MODULES.get(name, name))
    except metadata.PackageNotFoundError:
        return Check(name, "fail", "is not installed", f"pip install '{name}>={least}'")
    except Exception as error:  # noqa: BLE001 - a broken library may raise anything when imported
        return Check(name, "fail", f"can't be imported: {error}", f"pip install --force-reinstall {name}")
    if version_key(version) < version_key(least):
        return Check(name, "fail", f"{version} is too old", f"pip install --upgrade '{name}>={least}'")
    return Check(name, "ok", version)


def check_libzmq() -> Check:
    """Look at the library under pyzmq."""
    try:
        from glintpy.transport.zeromq import LIBZMQ_VERSION  # noqa: PLC0415 - said, not raised
    except ImportError as error:
        return Check("libzmq", "fail", f"can't be loaded: {error}", "pip install --force-reinstall pyzmq")
    if version_key(LIBZMQ_VERSION) < version_key(LIBZMQ_MIN):
        advice = (
            f"glintpy needs {LIBZMQ_MIN}; pyzmq's own wheels have it: pip install --force-reinstall pyzmq"
        )
        return Check("libzmq", "fail", f"{LIBZMQ_VERSION} is too old", advice)
    return Check("libzmq", "ok", LIBZMQ_VERSION)


def version_key(version: str) -> tuple[int, ...]:
    """Return the numbers that a version begins with, for comparing."""
    return tuple(int(number) for number in re.match(r"[\d.]*", version)[0].split(".") if number)  # type: ignore[index] # it matches everything


def check_open_files() -> Check:
    """Look at how many files, and so connections, a process may have open."""
    name = "open files"
    try:
        import resource  # noqa: PLC0415 - there is none on Windows
    except ImportError:
        return Check(name, "ok", "this system has no such limit")
    soft, hard = (_limit_text(limit) for limit in resource.getrlimit(resource.RLIMIT_NOFILE))
    found = f"limit {soft}, which master and server raise to {hard}"
    highest = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    if highest != resource.RLIM_INFINITY and highest < OPEN_FILES_MIN:
        advice = (
            f"each connection takes some: allow {OPEN_FILES_MIN} or more (ulimit -Hn, LimitNOFILE=, --ulimit)"
        )
        return Check(name, "warn", found, advice)
    return Check(name, "ok", found)


def _limit_text(limit: int) -> str:
    return "unlimited" if limit < 0 or limit >= 2**62 else f"{limit:,}"


def check_shared_memory(folder: Path) -> Check:
    """Look at the memory file system in which a local cluster without a data directory keeps its values."""
    name = str(folder)
    try:
        system = os.statvfs(folder)
    except OSError:
        return Check(name, "ok", "is not there; local clusters keep their values in a temporary directory")
    free, size = system.f_bavail * system.f_frsize, system.f_blocks * system.f_frsize
    found = f"{size_text(free)} of {size_text(size)} free"
    if free < SHARED_MEMORY_MIN:
        advice = (
            "local clusters keep their values there: give it more (docker run --shm-size=4g), or give the "
            "cluster a --data-dir"
        )
        return Check(name, "warn", found, advice)
    return Check(name, "ok", found)


def check_memory(available: int | None, limit: int | None) -> Check:
    """Judge the memory that is left.

    Args:
        available: bytes that the machine has left; None: it doesn't say.
        limit: bytes that this process's group may use; None: as many as there are.
    """
    parts = ["the machine doesn't say" if available is None else f"{size_text(available)} available"]
    parts.append("no cgroup limit" if limit is None else f"cgroup limit {size_text(limit)}")
    least = min(number for number in (available, limit, 2**62) if number is not None)
    if least < MEMORY_MIN:
        return Check(
            "memory", "warn", ", ".join(parts), "models lie in memory: stop something, or allow more"
        )
    return Check("memory", "ok", ", ".join(parts))


def available_memory(meminfo: Path = Path("/proc/meminfo")) -> int | None:
    """Return the bytes that the machine calls available, or None."""
    try:
        found = re.search(r"^MemAvailable: *(\d+) kB", meminfo.read_text(), re.MULTILINE)
    except OSError:
        return None
    return int(found[1]) * 1024 if found else None


def cgroup_limit(root: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Return the bytes that this process's control group may use, or None."""
    for path in (root / "memory.max", root / "memory" / "memory.limit_in_bytes"):
        try:
            text = path.read_text().strip()
        except OSError:
            continue
        # The first version of cgroups says "no limit" with a number near 2**63.
        return int(text) if text.isdecimal() and int(text) < 2**62 else None
    return None
