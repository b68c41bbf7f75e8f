"""Marks of saves that are under way at a URL, and which files there nobody needs any more; pure but for a directory.

Whoever saves leaves a mark as long as it may still write. Files that no manifest names may go unless their save has a
mark: so saves at the same time leave each other alone, and what a killed one has left goes with the next save.
"""

from __future__ import annotations

import contextlib
import json
import os
import platform
import re
from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Any

from glintpy.errors import CheckpointError, CheckpointNotFound
from glintpy.storage.checkpoint_format import OWN_FILE, file_save_id
from glintpy.storage.directory import Directory

MARK_BYTES_MAX = 4096

FORGOTTEN = timedelta(days=1)
"""A mark of another machine is believed for so long: nobody here can see whether its process lives."""

_MARK = re.compile(r"saving-([0-9a-f]{16})\.json")

under_way: set[str] = set()
"""The ids of this process's saves that are under way; whoever saves puts its own in and takes it out."""


def mark_name(save_id: str) -> str:
    """Return the name of a save's mark."""
    return f"saving-{save_id}.json"


def mark_content() -> bytes:
    """Return what stands in a mark of this process."""
    since = datetime.now(UTC).isoformat()
    return json.dumps({"host": platform.node(), "pid": os.getpid(), "since": since}).encode()


def is_over(save_id: str, content: Any, now: datetime, *, lives: Callable[[int], bool]) -> bool:
    """Tell whether the save of a mark can't be under way any more.

    Args:
        save_id: of the mark.
        content: of the mark.
        now: aware of its time zone.
        lives: whether this machine has a process of some number.
    """
    try:
        if content["host"] == platform.node():
            pid = int(content["pid"])
            return save_id not in under_way if pid == os.getpid() else not lives(pid)
        return now - datetime.fromisoformat(content["since"]) > FORGOTTEN
    except (TypeError, KeyError, ValueError):
        return True  # half of one: its writer died over it


def unneeded(directory: Directory, names: Iterable[str], named: set[str], own_id: str) -> list[str]:
    """Return which of some files at a URL may go.

    Args:
        directory: where they lie.
        names: what was listed there, before the manifest was seen to be the own one.
        named: by the manifest.
        own_id: of the save that asks, which has come to its end.
    """
    now = datetime.now(UTC)
    spared: set[str] = set()
    found: list[str] = []
    for name in names:
        match = _MARK.fullmatch(name)
        if match is None or match[1] == own_id:
            continue
        try:
            content = None
            with contextlib.suppress(ValueError, RecursionError):
                content = json.loads(directory.read(name, MARK_BYTES_MAX))
        except CheckpointNotFound:
            spared.add(match[1])  # until a moment ago: its files may be the checkpoint by now
            continue
        if is_over(match[1], content, now, lives=_lives):
            found.append(name)
        else:
            spared.add(match[1])
    found += [
        name
        for name in names
        if OWN_FILE.fullmatch(name) and name not in named and file_save_id(name) not in spared
    ]
    return found


def saved_last(directory: Directory, name: str, bytes_max: int) -> str | None:
    """Return the id of the save whose manifest is there; None: it can't be told."""
    try:
        content = json.loads(directory.read(name, bytes_max))
    except (CheckpointError, ValueError, RecursionError):
        return None
    return content.get("save_id") if isinstance(content, dict) else None


def _lives(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
