"""The threads, descriptors and child processes that somebody left behind; knows no fixture."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from pathlib import Path

import pytest
import zmq

LASTING_THREADS = ("glintpy-callbacks", "glintpy-preparing")
"""Threads that outlive a test by design: daemons, one a process; the second compiles loops as long as it takes."""

LASTING_FILES = ("glintpy-loops.lock",)
"""What these have open meanwhile."""

LASTING_PROCESSES = ("multiprocessing.resource_tracker", "multiprocessing.forkserver")
"""Children that multiprocessing keeps for the life of the process."""

SETTLE_S = 5.0
"""How long a thread, descriptor or child that is ending may take; nothing waits when nothing is left."""


class Leftovers:
    """The threads, descriptors and children of this process at one moment."""

    def __init__(self) -> None:
        self.threads = set(threading.enumerate())
        self.descriptors = _descriptors()
        self.children = _children()

    @classmethod
    def now(cls) -> Leftovers:
        """Return what there is, once per process that lasts included."""
        _open_what_lasts()
        gc.collect()
        return cls()

    def check(self, who: str) -> None:
        """Fail if there is more now than there was, after what is ending has had time to end."""
        deadline = time.monotonic() + SETTLE_S
        for thread in self._new_threads():
            # One that another thread is starting at this moment can't be joined yet; it is waited for below.
            with suppress(RuntimeError):
                thread.join(max(0.0, deadline - time.monotonic()))
        gc.collect()
        left = self._left()
        # zmq closes its descriptors on a thread of its own, and a killed child is a zombie until it is waited
        # for: both have no event to wait on.
        while left and time.monotonic() < deadline:
            threading.Event().wait(0.02)
            gc.collect()  # what a thread that ended meanwhile had in its hands is garbage by now
            left = self._left()
        if left:
            pytest.fail(f"{who} left behind: {'; '.join(left)}", pytrace=False)

    def _left(self) -> list[str]:
        threads = [f"thread {thread.name}" for thread in self._new_threads()]
        # By number and target: the number of a closed one is given to the next that is opened.
        opened = dict(_descriptors().items() - self.descriptors.items())
        descriptors = [f"descriptor {number} ({target})" for number, target in sorted(opened.items())]
        children = [
            f"process {pid} ({name})" for pid, name in _children().items() if pid not in self.children
        ]
        return [*threads, *descriptors, *children]

    def _new_threads(self) -> list[threading.Thread]:
        found = [thread for thread in threading.enumerate() if thread not in self.threads]
        return [thread for thread in found if not thread.name.startswith(LASTING_THREADS)]


def _open_what_lasts() -> None:
    """Make the parts that live as long as the process, so that no test is blamed for them."""
    try:
        from glintpy.transport import connect
    except ImportError:
        return
    # zmq's context has threads and descriptors, and is made with the first connection.
    connect("tcp://127.0.0.1:9").close()
    _send_without_copying(os.getpid())


@cache
def _send_without_copying(_pid: int) -> None:
    """Make the thread and context that pyzmq keeps from the first send of a large frame on."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as sender, context.socket(zmq.PAIR) as receiver:
        sender.bind("inproc://large")
        receiver.connect("inproc://large")
        sender.send(bytes(zmq.COPY_THRESHOLD + 1), copy=False)
        receiver.recv()


def _descriptors() -> dict[int, str]:
    found = _readable(Path("/proc/self/fd"), lambda entry: (int(entry.name), str(entry.readlink())))
    # The other ends of the pipes to LASTING_PROCESSES; multiprocessing has no public name for them.
    lasting = {
        getattr(getattr(sys.modules.get(module), owner, None), attribute, None)
        for module, owner, attribute in (
            ("multiprocessing.resource_tracker", "_resource_tracker", "_fd"),
            ("multiprocessing.forkserver", "_forkserver", "_forkserver_alive_fd"),
        )
    }
    return {
        number: target
        for number, target in found
        if number not in lasting and not target.endswith(LASTING_FILES)
    }


def _children() -> dict[int, str]:
    found = _readable(Path("/proc"), _child)
    return {pid: name for pid, name in found if not any(lasting in name for lasting in LASTING_PROCESSES)}


def _child(folder: Path) -> tuple[int, str]:
    """Return a child's number and command line; LookupError for any other process."""
    if not folder.name.isdecimal():
        raise LookupError(folder)
    # The second field is the command in parentheses and may have spaces; the parent is the fourth.
    parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
    if parent != os.getpid():
        raise LookupError(folder)
    return int(folder.name), (folder / "cmdline").read_text().replace(
        "\0", " "
    ).strip() or "ended, not waited for"


def _readable(folder: Path, read: Callable[[Path], tuple[int, str]]) -> list[tuple[int, str]]:
    """Return what can be read of each entry; entries come and go while one looks. Empty without /proc."""
    found = []
    for entry in list(folder.iterdir()) if folder.is_dir() else ():
        try:
            found.append(read(entry))
        except (OSError, LookupError):
            continue
    return found
