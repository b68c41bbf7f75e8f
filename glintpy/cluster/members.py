"""A master or server as a local cluster holds it: in a process of its own, or in a thread of this one.

Real processes are started with ``subprocess`` as ``python -m glintpy.process ...``, never by multiprocessing: the
script that starts a cluster at its top level must not start itself again. Each child watches its parent and
goes when the parent has gone, however that happened.
"""

from __future__ import annotations

import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from glintpy.errors import ClusterError
from glintpy.process.foreground import READY
from glintpy.process.orders import MasterOrder, ServerOrder, text_of

START_S = 30.0
"""How long a process may take to be ready: it imports numpy, on a machine that may be busy."""

STOP_S = 15.0
"""How long one may take to stop before it is killed."""


@dataclass(frozen=True, slots=True)
class ServerView:
    """A server of a local cluster.

    Attributes:
        index: its number, for ``kill_server`` and ``restart_server``.
        address: where it is reached, or was.
        pid: of its process; this one's under ``local``.
        is_alive: whether it runs.
    """

    index: int
    address: str
    pid: int
    is_alive: bool


class Member(Protocol):
    """A master or server, as the cluster holds it."""

    address: str

    def stop(self) -> None:
        """Stop it in good order."""
        ...

    def kill(self) -> None:
        """Stop it as ``kill -9`` does."""
        ...

    def is_alive(self) -> bool:
        """Whether it runs."""
        ...

    def reap(self) -> None:
        """Let go of what is left of one that has ended."""
        ...


class ProcessMember:
    """A node in a process of its own.

    Args:
        order: what it is told. Where it names this process as its parent it goes when this process has gone without a
            word, and takes the private folder along.

    Attributes:
        process: the process.
        address: where the node is reached; where it was told port 0, from its being ready on.
    """

    def __init__(self, order: MasterOrder | ServerOrder) -> None:
        role = "master" if isinstance(order, MasterOrder) else "server"
        command = [sys.executable, "-m", "glintpy.process", role, text_of(order)]
        self.process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Ctrl-C reaches the whole terminal group; the parent decides when its servers stop.
            start_new_session=True,
            env=_environment(),
        )
        self._errors: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read_errors, name="glintpy-child-log", daemon=True),
            threading.Thread(target=self._read_output, name="glintpy-child-output", daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.address = order.address
        self._is_ready = False
        self._is_asked = False

    def wait_ready(self) -> None:
        """Wait for the line that says where the node is; again does nothing.

        Raises:
            ClusterError: it ended, or took too long; with what it wrote.
        """
        end = time.monotonic() + START_S
        while not self._is_ready:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                self.kill()
                raise ClusterError(
                    f"a process was not ready within {START_S:.0f} s: {self._said()}"
                ) from None
            if line is None:
                self.kill()
                raise ClusterError(f"a process ended before it was ready: {self._said()}")
            if READY in line:
                self.address = line.rpartition(READY)[2].strip()
                self._is_ready = True

    def ask_to_stop(self) -> None:
        """Ask it to stop, once: a second signal would end it where it stands.

        One that stands still at a SIGSTOP goes on, since it would hear of nothing before.
        """
        if self._is_asked:
            return
        self._is_asked = True
        self.process.send_signal(signal.SIGTERM)
        if sys.platform != "win32":
            self.process.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """Ask it to stop, and kill it if it doesn't."""
        if self.process.poll() is None:
            self.ask_to_stop()
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self.reap()

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self.reap()

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def reap(self) -> None:
        """Wait for the process's end and close what it wrote into; again does nothing."""
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._errors.append(line)
            del self._errors[:-50]
            sys.stderr.write(line)

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _said(self) -> str:
        return " ".join(line.strip() for line in self._errors[-5:]) or "it wrote nothing"


class ThreadMember:
    """A node in a thread of this process.

    Args:
        order: what it is told; options of processes mean nothing to it.

    Attributes:
        address: where the node is reached.
    """

    def __init__(self, order: MasterOrder | ServerOrder) -> None:
        from glintpy.nodes import start_master, start_server  # noqa: PLC0415 - a cluster in processes needs none here

        if isinstance(order, MasterOrder):
            self._node = start_master(order.address, data_dir=order.data_dir, settings=order.membership)
        else:
            self._node = start_server(
                order.master,
                address=order.address,
                name=order.name,
                data_dir=order.data_dir,
                settings=order.options.settings,
                membership=order.options.membership,
            )
        self.address = self._node.address

    def stop(self) -> None:
        """Stop it in good order."""
        self._node.stop()

    def kill(self) -> None:
        """Drop its mailbox and memory without an answer."""
        self._node.crash()

    def is_alive(self) -> bool:
        """Whether it runs."""
        return not self._node.stopped.is_set()

    def reap(self) -> None:
        """Nothing is left of it."""


def with_glintpy(environment: Mapping[str, str]) -> dict[str, str]:
    """Return an environment in which Python finds the same glintpy as this process, also when it is not installed."""
    here = str(Path(__file__).resolve().parents[2])
    known = environment.get("PYTHONPATH", "")
    if here in known.split(os.pathsep):
        return dict(environment)
    return {**environment, "PYTHONPATH": f"{here}{os.pathsep}{known}" if known else here}


def _environment() -> dict[str, str]:
    environment = with_glintpy(os.environ)
    # A server's numpy does element-wise work only: threads of a linear algebra library would just idle.
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    return environment
