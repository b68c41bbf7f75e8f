"""How many bytes models may take: the machine's and its cgroup's word on it; knows no model."""

from __future__ import annotations

from pathlib import Path

SHARE_OF_AVAILABLE = 0.8
"""Of what the machine calls available; the rest is for everything that is not a model."""

_MEMINFO = Path("/proc/meminfo")
_CGROUP_LIMITS = (
    (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory.current")),
    (
        Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"),
        Path("/sys/fs/cgroup/memory/memory.usage_in_bytes"),
    ),
)
_UNKNOWN_BYTES = 2**62
"""Where the system says nothing, nothing is refused."""


def available_bytes() -> int:
    """Return how many more bytes may be taken now: the smaller of the machine's and the cgroup's word."""
    return min(int(_machine_bytes() * SHARE_OF_AVAILABLE), _cgroup_bytes())


def _machine_bytes() -> int:
    try:
        lines = _MEMINFO.read_text().splitlines()
    except OSError:
        return _UNKNOWN_BYTES
    for line in lines:
        if line.startswith("MemAvailable:"):
            return int(line.split()[1]) * 1024
    return _UNKNOWN_BYTES


def _cgroup_bytes() -> int:
    for limit_file, used_file in _CGROUP_LIMITS:
        try:
            limit, used = limit_file.read_text().strip(), used_file.read_text().strip()
        except OSError:
            continue
        if limit.isdecimal() and used.isdecimal():
            return max(0, int(limit) - int(used))
    return _UNKNOWN_BYTES
