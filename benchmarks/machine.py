"""What a run was made on and with: machine, date and versions."""

from __future__ import annotations

import datetime as dt
import importlib.metadata
import os
import platform
import shutil
import subprocess
from pathlib import Path
from typing import Any

from benchmarks.sizes import Sizes

LIBRARIES = ("numpy", "pyzmq", "pykka", "msgpack", "redis")


def about(sizes: Sizes) -> dict[str, Any]:
    """Return what a run is made on and with.

    Args:
        sizes: of the run.
    """
    return {
        "date": dt.datetime.now(tz=dt.UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "cpu": _cpu(),
        "cores": os.cpu_count(),
        "system": platform.platform(),
        "load": round(os.getloadavg()[0], 2),
        "python": platform.python_version(),
        "glintpy": importlib.metadata.version("glintpy"),
        "libraries": {name: _version(name) for name in LIBRARIES},
        "redis_server": _redis_server(),
        "repeats": sizes.repeats,
        "seconds": sizes.seconds,
    }


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    if info.exists():
        for line in info.read_text(encoding="utf-8").splitlines():
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _redis_server() -> str | None:
    program = shutil.which("redis-server")
    if program is None:
        return None
    told = subprocess.run([program, "--version"], capture_output=True, text=True, check=False)  # noqa: S603 - as found
    return told.stdout.strip()
