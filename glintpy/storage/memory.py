"""How many bytes models may take: the word of the machine, its control groups and file systems; knows no model.

Everything is asked anew each time: others take memory, move processes between groups and fill disks. Where the
system says nothing, nothing is refused.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from glintpy.records import record

SHARE_OF_AVAILABLE = 0.8
"""Of the memory that is free; the rest is for everything that is not a model. Of a file system that is no memory all
may be taken: what is too much there is refused by itself, and nobody is killed for it."""

_PROC = Path("/proc")
_UNKNOWN_BYTES = 2**62


@record
class Room:
    """What is free, and who says so.

    Attributes:
        num_bytes: that may be taken now.
        where: the narrowest place, for the end of a sentence such as "100 bytes are free" about it.
    """

    num_bytes: int
    where: str


def available_bytes() -> int:
    """Return how many bytes of memory models may still take: the smallest of all limits on this process."""
    return room_in(None).num_bytes


def free_in(folder: Path | None) -> int:
    """Return how many bytes models may still take in files of a folder, or in memory.

    Args:
        folder: where the files lie, or will; None: in memory alone.

    Returns:
        The smallest of what the folder's file system has left and ``available_bytes()``. Files on a disk count as
        memory too: a mapped page takes a page of it while it is in use, and a parameter server uses all of them.
    """
    return room_in(folder).num_bytes


def room_in(folder: Path | None) -> Room:
    """Return the same as ``free_in``, with the place that has least: what a refusal should name."""
    memory = [
        Room(int(room.num_bytes * SHARE_OF_AVAILABLE), room.where)
        for room in (_machine(), *_cgroups(), *_address_space())
    ]
    rooms = memory if folder is None else [*memory, _file_system(folder)]
    return min(rooms, key=lambda room: room.num_bytes)


# --- who says what ------------------------------------------------------------------------------------------


def _machine() -> Room:
    found = _field(_PROC / "meminfo", "MemAvailable:")
    return Room(_UNKNOWN_BYTES if found is None else found * 1024, "in this machine's memory")


def _address_space() -> Iterator[Room]:
    """What ``ulimit -v`` leaves this process; without it a limit that is met is a MemoryError in mid-air."""
    try:
        import resource  # noqa: PLC0415 - not on Windows
    except ImportError:
        return
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    used = _number(_PROC / "self" / "statm")
    if limit != resource.RLIM_INFINITY and used is not None:
        left = limit - used * os.sysconf("SC_PAGE_SIZE")
        yield Room(max(0, left), "in this process's address space (ulimit -v)")


def _file_system(folder: Path) -> Room:
    while not folder.exists() and folder != folder.parent:
        folder = folder.parent  # it will be made there
    where = f"in the file system of {folder} (choose another with --data-dir)"
    try:
        system = os.statvfs(folder)
    except (OSError, AttributeError):  # Windows has no such call
        return Room(_UNKNOWN_BYTES, where)
    return Room(system.f_bavail * system.f_frsize, where)


def _cgroups() -> Iterator[Room]:
    """What the control groups of this process leave it: its own one and every one above, of both versions."""
    for group in _cgroup_folders():
        for limit_name, used_name, cache_name in (
            ("memory.max", "memory.current", "inactive_file"),
            ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"),
        ):
            limit, used = _number(group / limit_name), _number(group / used_name)
            if limit is not None and used is not None and limit < _UNKNOWN_BYTES:
                # Pages of files that were read once count as used and are given up first. Without them a container
                # that has copied large files looks full for ever.
                cache = _field(group / "memory.stat", cache_name) or 0
                left = limit - used + min(cache, used)
                yield Room(max(0, left), "within the memory limit of this process's cgroup")


def _cgroup_folders() -> Iterator[Path]:
    paths = _cgroup_paths()
    for line in _lines(_PROC / "self" / "mountinfo"):
        # 35 31 0:32 /root /mount/point options ... - cgroup cgroup rw,memory
        before, _, after = line.partition(" - ")
        kind, *_, options = after.split(" ")
        version = {"cgroup2": "", "cgroup": "memory"}.get(kind)
        if version is None or (version and version not in options.split(",")):
            continue
        root, mount = before.split(" ")[3:5]
        top = Path(mount)
        # A container may see its group as the mount's root, whatever the path says that was written outside of it.
        below = _below(paths.get(version, "/"), root)
        group = top / below
        yield group
        while group != top:
            group = group.parent
            yield group


def _cgroup_paths() -> dict[str, str]:
    """Return this process's group by what names its hierarchy: "memory" in version 1, nothing in version 2."""
    found = {}
    for line in _lines(_PROC / "self" / "cgroup"):
        _, controllers, path = line.split(":", 2)  # 4:memory:/a/b or 0::/a/b
        for controller in controllers.split(","):
            found[controller] = path
    return found


def _below(path: str, root: str) -> str:
    if root != "/" and (path == root or path.startswith(root + "/")):
        path = path[len(root) :]
    # A group outside of a namespace's root is shown as /../..: nothing below the mount is its.
    return "" if ".." in path.split("/") else path.strip("/")


# --- files of the system --------------------------------------------------------------------------------------


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text().splitlines()
    except OSError:
        return []


def _number(path: Path) -> int | None:
    """Return the number that a file begins with; None if it isn't there or says something else, "max" say."""
    words = " ".join(_lines(path)).split()
    return int(words[0]) if words and words[0].isdecimal() else None


def _field(path: Path, name: str) -> int | None:
    for line in _lines(path):
        words = line.split()
        if len(words) >= 2 and words[0] == name and words[1].isdecimal():
            return int(words[1])
    return None
