"""The look at what tests leave behind sees all three kinds, and waits for what is ending."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import leftovers
from tests.leftovers import Leftovers


@pytest.fixture(autouse=True)
def _no_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "SETTLE_S", 0.0)


@contextmanager
def fails_with(words: str) -> Iterator[None]:
    before = Leftovers.now()
    yield
    with pytest.raises(pytest.fail.Exception, match=f"the test left behind: .*{words}"):
        before.check("the test")


def test_nothing_left() -> None:
    before = Leftovers.now()
    os.close(os.open(os.devnull, os.O_RDONLY))
    before.check("the test")


def test_a_thread_that_runs_on() -> None:
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name="forgotten", daemon=True)
    try:
        with fails_with("thread forgotten"):
            thread.start()
    finally:
        done.set()
        thread.join()


def test_a_thread_that_lasts_by_design() -> None:
    before = Leftovers.now()
    done = threading.Event()
    thread = threading.Thread(target=done.wait, name=leftovers.LASTING_THREADS[0], daemon=True)
    thread.start()
    before.check("the test")
    done.set()
    thread.join()


def test_a_descriptor_that_stays_open() -> None:
    reading = writing = -1
    try:
        with fails_with("descriptor [0-9]+ .pipe:"):
            reading, writing = os.pipe()
    finally:
        os.close(reading)
        os.close(writing)


def test_a_descriptor_that_took_the_number_of_another() -> None:
    closed = os.open(os.devnull, os.O_RDONLY)
    pair = (-1, -1)
    try:
        with fails_with(f"descriptor {closed} .pipe:"):
            os.close(closed)
            pair = os.pipe()  # the system gives the lowest free number
            assert closed in pair
    finally:
        for descriptor in pair:
            os.close(descriptor)


def test_a_process_that_runs_on() -> None:
    program = [sys.executable, "-c", "input()"]
    child = subprocess.Popen(program, stdin=subprocess.PIPE)
    child.communicate(b"\n")  # it ends and is waited for: no news
    before = Leftovers.now()
    child = subprocess.Popen(program, stdin=subprocess.PIPE)
    try:
        with pytest.raises(pytest.fail.Exception, match=rf"process {child.pid} \(.*input"):
            before.check("the test")
    finally:
        child.communicate(b"\n")
    before.check("the test")


def test_what_is_ending_is_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leftovers, "SETTLE_S", 60.0)
    before = Leftovers.now()
    go = threading.Event()
    thread = threading.Thread(target=go.wait)
    thread.start()
    waiter = threading.Thread(target=before.check, args=("the test",), name=leftovers.LASTING_THREADS[0])
    waiter.start()
    go.set()
    waiter.join()
    assert not thread.is_alive()


def test_what_multiprocessing_keeps_is_nobody_s() -> None:
    program = (
        "import multiprocessing as mp\n"
        "from tests.leftovers import Leftovers\n"
        "if __name__ == '__main__':\n"
        "    before = Leftovers.now()\n"
        "    for method in ('spawn', 'forkserver'):\n"
        "        process = mp.get_context(method).Process(target=print)\n"
        "        process.start()\n"
        "        process.join()\n"
        "        process.close()\n"
        "    before.check('the test')\n"
    )
    root = Path(__file__).parents[1]
    result = subprocess.run(
        [sys.executable, "-c", program], cwd=root, capture_output=True, text=True, timeout=120, check=False
    )
    assert result.returncode == 0, result.stderr
