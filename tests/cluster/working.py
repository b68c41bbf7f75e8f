"""Workers of groups as tests need them: programs that do what they are told, and calls that wait in threads."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import glintpy
from tests.cluster.helpers import PATIENCE_S, line_of, program, until

_PROGRAM = """\
import sys
import glintpy

address, name, size, policy = sys.argv[1:]
with glintpy.Client(address, timeout_s=60, name=name) as client:
    group = client.join(name="job", num_workers=int(size) or None, on_worker_lost=policy)
    print(group.rank, group.clock, flush=True)
    for line in sys.stdin:
        call, *numbers = line.split()
        try:
            getattr(group, call)(*map(int, numbers))
        except glintpy.GlintError as error:
            print(type(error).__name__, error, flush=True)
        else:
            print("ok", flush=True)
"""


class Worker:
    """A worker in a process of its own."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self.process = process
        self.rank, self.clock = map(int, line_of(process).split())

    def begin(self, call: str) -> None:
        """Have it call something, without waiting for the end of that."""
        assert self.process.stdin is not None
        self.process.stdin.write(call + "\n")
        self.process.stdin.flush()

    def end(self) -> str:
        """Return what became of the call: "ok", or the error."""
        return line_of(self.process)

    def do(self, call: str) -> str:
        """Have it call something."""
        self.begin(call)
        return self.end()


@contextmanager
def worker(
    folder: Path, address: str, name: str, num_workers: int, policy: str = "shrink"
) -> Iterator[Worker]:
    """Run a worker of the group "job"; whatever is left of it is killed."""
    with program(folder / f"{name}.py", _PROGRAM, address, name, num_workers, policy) as process:
        yield Worker(process)


class Waiting:
    """A call that waits, in a thread of its own."""

    def __init__(self, call: Callable[[], object]) -> None:
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(call,), name="waiting")
        self._thread.start()

    def _run(self, call: Callable[[], object]) -> None:
        try:
            call()
        except glintpy.GlintError as error:
            self.error = error

    @property
    def is_over(self) -> bool:
        """Whether it has returned or raised."""
        return not self._thread.is_alive()

    def end(self) -> BaseException | None:
        """Return the error that it ended with, or None."""
        self._thread.join(PATIENCE_S)
        assert self.is_over, "it still waits"
        return self.error


def told(client: glintpy.Client, name: str = "job") -> dict[int, dict[str, Any]]:
    """Return what the master says of a group's workers, by rank."""
    groups = {group["name"]: group["workers"] for group in client._state()["groups"]}
    return {worker["rank"]: worker for worker in groups.get(name, ())}


def until_waiting(client: glintpy.Client, ranks: dict[int, str], name: str = "job") -> None:
    """Return when the workers of these ranks wait for these things."""

    def found() -> dict[int, Any]:
        return {rank: worker["waits_for"] for rank, worker in told(client, name).items()}

    until(lambda: ranks.items() <= found().items(), f"{ranks} are waited for, and not {found()}")
