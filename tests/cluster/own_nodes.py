"""Masters and servers with settings of a test's own, each a process as its operators start it; knows no test."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

from tests.cluster.helpers import PATIENCE_S, environment, line_of

READY = "ready at "


@dataclass(frozen=True)
class OwnNode:
    """A master or server that runs.

    Attributes:
        process: its own, for its pid.
        address: where it is reached.
    """

    process: subprocess.Popen[str]
    address: str

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def is_alive(self) -> bool:
        return self.process.poll() is None


@contextmanager
def own_node(role: str, *options: object) -> Iterator[OwnNode]:
    """Run ``glintpy master`` or ``glintpy server``; it is killed if it doesn't stop when it is asked."""
    process = subprocess.Popen(
        [sys.executable, "-m", "glintpy", role, "--port", "0", "--log-level", "error", *map(str, options)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    try:
        line = line_of(process)
        assert READY in line, line
        yield OwnNode(process, line.rpartition(READY)[2].strip())
    finally:
        process.terminate()
        try:
            process.wait(PATIENCE_S)
        finally:
            process.kill()
            process.communicate()


@contextmanager
def own_cluster(*options: object, servers: int = 1) -> Iterator[tuple[OwnNode, list[OwnNode]]]:
    """Run a master and servers that all have the same options."""
    with ExitStack() as stack:
        master = stack.enter_context(own_node("master"))
        found = [
            stack.enter_context(own_node("server", "--master", master.address, *options))
            for _ in range(servers)
        ]
        yield master, found
