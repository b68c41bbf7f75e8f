"""Loops are compiled in the background: one after the other, on a thread that ends and holds no exit up."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from glintpy.actors.preparing import _SWITCH_S, THREAD_NAME, Preparing
from glintpy.storage.kernels import Kernels, Steps
from glintpy.updaters import Add

ROOT = Path(__file__).parents[2]

WAIT_S = 30.0
"""How long a test waits for what must happen; reached only by a failing one."""


class Scripted(Kernels):
    """Takes steps as it is told, and notes what happens."""

    def __init__(self, *moved: bool, fails: bool = False) -> None:
        super().__init__(np.dtype(np.float32), 1, Add())
        self.wants_preparing = True
        self.begun, self.go_on = threading.Event(), threading.Event()
        self.go_on.set()
        self.seen: list[str] = []
        self._moved = moved
        self._fails = fails

    def prepare(self) -> Steps:
        try:
            self.seen.append(threading.current_thread().name)
            self.begun.set()
            assert self.go_on.wait(WAIT_S)
            if self._fails:
                raise ZeroDivisionError("nobody thought of it")
            for moved in self._moved:
                self.seen.append("step")
                yield moved
            self.wants_preparing = False
        finally:
            self.seen.append("closed")


@pytest.fixture
def preparing() -> Iterator[Preparing]:
    found = Preparing()
    yield found
    found.stop()
    assert not found.is_busy


def test_kernels_are_prepared_one_after_the_other_and_then_the_thread_ends(preparing: Preparing) -> None:
    first, second = Scripted(True, False, True), Scripted(True)
    first.go_on.clear()
    preparing.ask(first)
    assert first.begun.wait(WAIT_S)
    preparing.ask(second)
    preparing.ask(second)
    preparing.ask(first)
    assert preparing.is_busy
    assert second.seen == []
    first.go_on.set()
    assert preparing.wait(WAIT_S)
    assert first.seen == [THREAD_NAME, "step", "step", "step", "closed"]
    assert second.seen == [THREAD_NAME, "step", "closed"]
    assert THREAD_NAME not in {thread.name for thread in threading.enumerate()}


def test_another_thread_is_started_when_there_is_more(preparing: Preparing) -> None:
    for _ in range(2):
        again = Scripted(True)
        preparing.ask(again)
        assert preparing.wait(WAIT_S)
        assert not again.wants_preparing
        preparing.ask(again)  # is prepared
        assert not preparing.is_busy


def test_a_stop_takes_no_further_step_and_closes(preparing: Preparing) -> None:
    running, waiting = Scripted(True, True, True), Scripted(True)
    running.go_on.clear()
    preparing.ask(running)
    preparing.ask(waiting)
    assert running.begun.wait(WAIT_S)
    stopper = threading.Thread(target=preparing.stop)
    stopper.start()
    while not preparing._stopping.is_set():
        preparing._stopping.wait(0.001)
    running.go_on.set()
    stopper.join(WAIT_S)
    assert running.seen == [THREAD_NAME, "step", "closed"]
    assert waiting.seen == []
    preparing.ask(waiting)
    assert not preparing.is_busy


def test_waiting_tells_when_it_is_not_done(preparing: Preparing) -> None:
    running = Scripted(True)
    running.go_on.clear()
    preparing.ask(running)
    assert not preparing.wait(0)
    running.go_on.set()
    assert preparing.wait(WAIT_S)


def test_requests_get_the_interpreter_more_often_meanwhile(preparing: Preparing) -> None:
    usual = sys.getswitchinterval()
    running = Scripted(True)
    running.go_on.clear()
    preparing.ask(running)
    assert running.begun.wait(WAIT_S)
    assert sys.getswitchinterval() == pytest.approx(min(usual, _SWITCH_S), rel=0.01)
    running.go_on.set()
    assert preparing.wait(WAIT_S)
    assert sys.getswitchinterval() == usual


def test_an_interval_that_somebody_set_meanwhile_is_kept(preparing: Preparing) -> None:
    usual = sys.getswitchinterval()
    running = Scripted(True)
    running.go_on.clear()
    preparing.ask(running)
    assert running.begun.wait(WAIT_S)
    try:
        sys.setswitchinterval(0.003)
        running.go_on.set()
        assert preparing.wait(WAIT_S)
        assert sys.getswitchinterval() == pytest.approx(0.003)
    finally:
        sys.setswitchinterval(usual)


def test_an_error_that_nobody_thought_of_is_shown_and_the_next_model_is_prepared(
    preparing: Preparing, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown: list[threading.ExceptHookArgs] = []
    monkeypatch.setattr(threading, "excepthook", shown.append)
    preparing.ask(Scripted(True, fails=True))
    assert preparing.wait(WAIT_S)
    assert [entry.exc_type for entry in shown] == [ZeroDivisionError]
    after = Scripted(True)
    preparing.ask(after)
    assert preparing.wait(WAIT_S)
    assert not after.wants_preparing


SETUP = """
import os, sys, threading
import numpy as np
from glintpy.actors import preparing
from glintpy.actors.shelf import Shelf
from glintpy.protocol.selection import Selection
from glintpy.protocol.spec import ModelSpec
from glintpy.storage import kernels

def make(shelf, dtype):
    spec = ModelSpec("m", 100_000, 4, dtype)
    extents = np.empty((0, 4), np.int64)
    list(shelf.create(hash(dtype), spec, routing=1, num_rows=100_000, extents=extents, slice_cells=10**6))
    return shelf.shard(hash(dtype))

def is_compiled(shard):
    return shard.kernels.gather is not kernels.gather

shelf = Shelf(None)
"""

EXITS = """
make(shelf, "float32")
assert preparing._preparing.is_busy
"""

SWAPS = """
shard = make(shelf, "float32")
ones = np.ones((2, 4), np.float32)
repeated = Selection(np.array([7, 7]))
shard.push(repeated, ones)
assert preparing._preparing.wait(60)
assert is_compiled(shard)
shard.push(repeated, ones)
assert shard.pull(repeated).tolist() == [[4.0] * 4] * 2
"""

FORKS_MEANWHILE = """
shard = make(shelf, "float32")
assert preparing._preparing.is_busy
pid = os.fork()
if pid == 0:
    other = make(shelf, "int32")
    assert not preparing._preparing.is_busy, "a child of a fork in mid-compilation must not compile"
    other.push(Selection(np.array([1])), np.ones((1, 4), np.int32))
    shard.push(Selection(np.array([1])), np.ones((1, 4), np.float32))
    assert not is_compiled(other)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
assert preparing._preparing.wait(60)
assert is_compiled(shard)
"""

FORKS_AFTERWARDS = """
shard = make(shelf, "float32")
assert preparing._preparing.wait(60)
pid = os.fork()
if pid == 0:
    shard.push(Selection(np.array([1])), np.ones((1, 4), np.float32))
    assert is_compiled(shard)
    other = make(shelf, "int32")
    assert preparing._preparing.wait(60)
    assert is_compiled(other)
    os._exit(0)
assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
"""


@pytest.mark.parametrize(
    "program",
    [EXITS, SWAPS, FORKS_MEANWHILE, FORKS_AFTERWARDS],
    ids=["exits", "swaps", "forks meanwhile", "forks afterwards"],
)
def test_a_process_that_compiles_may_do_what_it_likes(program: str, tmp_path: Path) -> None:
    # A cache of its own, so that there is something to compile.
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    ended = subprocess.run(
        [sys.executable, "-c", SETUP + program],
        check=False,
        timeout=120,
        capture_output=True,
        text=True,
        cwd=ROOT,
        env=environment,
    )
    assert ended.returncode == 0, ended.stderr
    assert "Error" not in ended.stderr
