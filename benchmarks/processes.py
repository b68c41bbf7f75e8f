"""Processes that the benchmark starts, asks and ends; knows nothing of what they do.

Every child is run by ``hold.py``, so the kernel ends it when this process is gone, however that happened. What a
child itself started is found by a mark in its environment, and by its session.
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]

ANSWER_S = 120.0
"""How long an answer may take: filling a peer's table is the longest."""

STOP_S = 10.0
"""How long a child may take to end before it is killed."""

MARK = "GLINTPY_BENCHMARK_CHILD"


class ChildError(Exception):
    """A child ended, was silent for too long, or reported a failure."""


class Child:
    """A process that is ended with this one, and all that it starts.

    Args:
        command: the program and its arguments.
        environment: beside this process's own.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str] | None = None) -> None:
        self._name = " ".join(Path(part).name for part in command[:4])
        self._mark = uuid.uuid4().hex
        self._log = tempfile.TemporaryFile("w+", encoding="utf-8", errors="replace")  # noqa: SIM115 - closed by stop
        hold = [sys.executable, "-S", str(Path(__file__).with_name("hold.py")), str(os.getpid())]
        self.process = subprocess.Popen(  # noqa: S603 - the benchmark's own programs and peers, no shell
            [*hold, *command],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            # Ctrl-C reaches the terminal's whole group; the parent ends its children itself, in order.
            start_new_session=True,
            cwd=ROOT,
            env={**os.environ, "PYTHONPATH": str(ROOT), MARK: self._mark, **(environment or {})},
        )
        self._buffer = b""

    @property
    def pid(self) -> int:
        """Its number."""
        return self.process.pid

    def tell(self, **message: Any) -> None:
        """Send a message as one line of JSON.

        Args:
            message: what to say.

        Raises:
            ChildError: it has ended.
        """
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps(message).encode() + b"\n")
            self.process.stdin.flush()
        except OSError as error:
            raise ChildError(f"{self._name} has ended: {self.said()}") from error

    def hear(self, timeout_s: float = ANSWER_S) -> Any:
        """Wait for the answer to a message, and return its content.

        Args:
            timeout_s: seconds to wait.

        Raises:
            ChildError: it ended, was silent, or reported a failure.
        """
        answer = json.loads(self.read_line(timeout_s))
        if "error" in answer:
            raise ChildError(f"{self._name}: {answer['error'].strip()}")
        return answer["content"]

    def read_line(self, timeout_s: float = ANSWER_S) -> str:
        """Wait for a line on its standard output.

        Args:
            timeout_s: seconds to wait.

        Raises:
            ChildError: it ended or was silent.
        """
        assert self.process.stdout is not None
        end = time.monotonic() + timeout_s
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            while b"\n" not in self._buffer:
                if not selector.select(max(0.0, end - time.monotonic())):
                    raise ChildError(f"{self._name} said nothing for {timeout_s:.0f} s: {self.said()}")
                data = os.read(self.process.stdout.fileno(), 1 << 16)
                if not data:
                    raise ChildError(f"{self._name} has ended: {self.said()}")
                self._buffer += data
        line, _, self._buffer = self._buffer.partition(b"\n")
        return line.decode()

    def said(self) -> str:
        """Return the last lines that it wrote to its standard error."""
        if self._log.closed:
            return "it is stopped"
        self._log.flush()
        self._log.seek(0)
        lines = self._log.read().strip().splitlines()
        return "\n".join(lines[-8:]) or "it wrote nothing"

    def stop(self) -> None:
        """End it and all that it started; again does nothing."""
        if self._log.closed:
            return
        with suppress(OSError):  # it has ended, and that is what is wanted
            if self.process.stdin is not None:
                self.process.stdin.close()
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        end_descendants(self._mark, self.process.pid)
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()


def end_descendants(mark: str, session: int) -> None:
    """End what a child started, and what that started.

    Args:
        mark: of the child, in its environment.
        session: the child's own number; it is not ended.
    """
    # A process that is being killed may have just started another: look until there is none.
    end = time.monotonic() + STOP_S
    while (found := _descendants(mark, session)) and time.monotonic() < end:
        for pid in found:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(0.02)


def _descendants(mark: str, session: int) -> list[int]:
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdecimal() or int(entry.name) in (os.getpid(), session):
            continue
        with suppress(OSError):
            state = (entry / "stat").read_text().rpartition(")")[2].split()
            is_marked = f"{MARK}={mark}".encode() in (entry / "environ").read_bytes()
            if state[0] != "Z" and (int(state[3]) == session or is_marked):
                found.append(int(entry.name))
    return found


def resident_bytes(pid: int) -> int:
    """Return the memory of a process that lies in RAM, shared pages too.

    Args:
        pid: of a process on this machine.
    """
    for line in Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) * 1024
    raise ChildError(f"process {pid} has no memory: it has ended")
