"""A job's workers as processes of this machine: started, listened to, and ended together; knows no cluster.

Each runs on a leash (``glintpy.leash``), so that none outlives this process, however that ends. A worker may as well
be a command that reaches another machine, ``ssh`` for example.
"""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import IO, Literal

from glintpy.cluster.fates import Fates
from glintpy.cluster.members import with_glintpy
from glintpy.leash import GRACE_S, leashed

logger = logging.getLogger("glintpy.cluster")

LINE_BYTES = 64 * 1024
"""A line that is longer is shown in pieces: a worker that never ends one must not fill the memory."""

DRAIN_S = 2.0
"""How long the last lines of a worker that has ended are waited for: a process that it left may hold the pipe."""

Stream = Literal["out", "err"]
Show = Callable[[str, Stream, str], None]
"""Shows a line: of whom, from where, and the line without its end."""


@dataclass(frozen=True, slots=True)
class Task:
    """What a worker is to do.

    Attributes:
        label: who it is, for people.
        command: it, and its arguments.
        environment: variables that it has besides this process's own.
        holds_input: it ends by itself when its standard input is closed, as ssh does, and needs no leash.
    """

    label: str
    command: Sequence[str]
    environment: Mapping[str, str] = field(default_factory=dict)
    holds_input: bool = False


class Crew:
    """The workers of a job.

    Args:
        tasks: one for each.
        fates: what the end of one means.
        show: called with each line that a worker writes, by several threads.
        wake: called when a worker has ended, by another thread; then ``settle`` has something to do.

    Attributes:
        is_over: whether the job has come to its end; some workers may run on until ``stop``.

    Threads:
        Belongs to one thread.
    """

    def __init__(self, tasks: Sequence[Task], fates: Fates, *, show: Show, wake: Callable[[], None]) -> None:
        self._tasks = tasks
        self._fates = fates
        self._show = show
        self._wake = wake
        self._ended: queue.SimpleQueue[tuple[int, int]] = queue.SimpleQueue()
        self._running: dict[int, _Running] = {}
        self.is_over = False

    def start(self) -> None:
        """Start all workers."""
        for number in range(len(self._tasks)):
            self._start(number)

    def settle(self) -> None:
        """See who has ended, and start again who may be."""
        while not self.is_over:
            try:
                number, code = self._ended.get_nowait()
            except queue.Empty:
                return
            del self._running[number]
            verdict = self._fates.ended(number, code)
            self._tell(number, code, verdict)
            if verdict == "again":
                self._start(number)
            self.is_over = verdict == "over"

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End all that still run: ask them by a signal, and kill who doesn't end.

        Args:
            number: what they are asked by.
        """
        running = list(self._running.values())
        for worker in running:
            worker.ask(number)
        end = time.monotonic() + GRACE_S + DRAIN_S
        for worker in running:
            worker.end(max(0.0, end - time.monotonic()))
        self._running.clear()

    def _start(self, number: int) -> None:
        self._running[number] = _Running(
            self._tasks[number], self._show, lambda code: self._note(number, code)
        )

    def _note(self, number: int, code: int) -> None:
        self._ended.put((number, code))
        self._wake()

    def _tell(self, number: int, code: int, verdict: str) -> None:
        label = self._tasks[number].label
        if not code:
            logger.info("%s has ended", label)
            return
        fails = verdict == "over" and bool(self._fates.exit_code)
        over = "the job ends" if fails else "it was the last"
        done = {"again": "it is started again", "on": "the others go on", "over": over}[verdict]
        logger.log(
            logging.ERROR if fails else logging.WARNING,
            "%s %s; %s",
            label,
            how_it_ended(code),
            done,
        )


class _Running:
    """A worker's process, with a thread for each of its streams and one that waits for its end."""

    def __init__(self, task: Task, show: Show, on_end: Callable[[int], None]) -> None:
        self._label = task.label
        self._show = show
        self._on_end = on_end
        environment = with_glintpy({**os.environ, **task.environment})
        # What a program prints into a pipe is held back by the block otherwise.
        environment.setdefault("PYTHONUNBUFFERED", "1")
        self._process = subprocess.Popen(  # noqa: S603 - what the user asked for, without a shell
            list(task.command) if task.holds_input else leashed(task.command),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            # Ctrl-C reaches the whole terminal group; whoever holds the crew decides what it means.
            start_new_session=True,
            env=environment,
        )
        assert self._process.stdout is not None
        assert self._process.stderr is not None
        self._readers = [
            threading.Thread(
                target=self._read, args=(stream, name), name="glintpy-worker-output", daemon=True
            )
            for stream, name in ((self._process.stdout, "out"), (self._process.stderr, "err"))
        ]
        self._waiter = threading.Thread(target=self._wait, name="glintpy-worker", daemon=True)
        for thread in (*self._readers, self._waiter):
            thread.start()

    def ask(self, number: signal.Signals) -> None:
        """Send a signal, which the leash passes on."""
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(number)

    def end(self, within_s: float) -> None:
        """Wait for its end, and kill it after a time; the system kills what was on the leash."""
        try:
            self._process.wait(within_s)
        except subprocess.TimeoutExpired:
            self._process.kill()
        self._waiter.join(DRAIN_S)

    def _read(self, stream: IO[bytes], name: Stream) -> None:
        with stream:
            while line := stream.readline(LINE_BYTES):
                self._show(self._label, name, line.decode(errors="replace").rstrip("\r\n"))

    def _wait(self) -> None:
        code = self._process.wait()
        for reader in self._readers:
            reader.join(DRAIN_S)
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._on_end(code if code >= 0 else 128 - code)


def how_it_ended(code: int) -> str:
    """Return an exit code in words."""
    try:
        return (
            f"was ended by {signal.Signals(code - 128).name}"
            if code > 128
            else f"ended with exit code {code}"
        )
    except ValueError:
        return f"ended with exit code {code}"
