"""Ray's side that holds arrays: a process that starts a cluster with actors; run in Ray's own environment."""

from __future__ import annotations

import json
import os
import signal
import sys
from types import FrameType
from typing import Any

import numpy as np
import ray

from benchmarks.processes import MARK, end_descendants

NAMESPACE = "glintpy-benchmarks"

STORE_BYTES = 1 << 30
"""Shared memory for arguments and results; the arrays themselves lie in the actors."""


class Table:
    """The rows of some models that one actor holds, as numpy arrays."""

    def __init__(self) -> None:
        self._arrays: dict[str, Any] = {}

    def make(self, name: str, shape: tuple[int, ...], dtype: str) -> None:
        """Make an array whose pages are there."""
        self._arrays[name] = np.full(shape, 0, dtype)

    def drop(self, name: str) -> None:
        """Let go of an array."""
        self._arrays.pop(name, None)

    def pid(self) -> int:
        """Return the actor's process."""
        return os.getpid()

    def pull(self, name: str, index: Any) -> Any:
        """Read rows, or a slice."""
        array = self._arrays[name]
        return array[slice(*index)] if isinstance(index, tuple) else np.take(array, index, axis=0)

    def push(self, name: str, index: Any, values: Any) -> None:
        """Add to distinct rows, or to a slice."""
        self._arrays[name][slice(*index) if isinstance(index, tuple) else index] += values

    def push_pull(self, name: str, index: Any, values: Any) -> Any:
        """Add, and read."""
        self.push(name, index, values)
        return self.pull(name, index)

    def pull_numbers(self, name: str, index: Any) -> Any:
        """Read single numbers."""
        return np.take(self._arrays[name].reshape(-1), index)

    def push_numbers(self, name: str, index: Any, values: Any) -> None:
        """Add to single numbers, repeats too."""
        np.add.at(self._arrays[name].reshape(-1), index, values)

    def pull_column(self, name: str, column: int) -> Any:
        """Read a column."""
        return self._arrays[name][:, column].copy()


def actor_name(server: int) -> str:
    """Return the name of a server's actor.

    Args:
        server: its number.
    """
    return f"table-{server}"


def main() -> None:
    """Start a cluster and its actors, say where it is, and wait for the end of standard input."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    signal.signal(signal.SIGTERM, _leave)
    # Logical CPUs: actors hold none, so that their number doesn't depend on the machine's.
    context = ray.init(
        num_cpus=1,
        include_dashboard=False,
        object_store_memory=STORE_BYTES,
        namespace=NAMESPACE,
        log_to_driver=False,
        _node_ip_address="127.0.0.1",
        _temp_dir=sys.argv[2],
    )
    kind = ray.remote(Table)
    actors = [
        kind.options(num_cpus=0, name=actor_name(server)).remote() for server in range(int(sys.argv[1]))
    ]
    pids = ray.get([actor.pid.remote() for actor in actors])
    content = {"address": context.address_info["gcs_address"], "pids": pids}
    answers.write(json.dumps({"content": content}) + "\n")
    answers.flush()
    try:
        sys.stdin.read()
    finally:
        # The end of the input and the signal come together, and what is being shut down is not to be left half way.
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        ray.shutdown()
        # Some of its agents notice only after a minute that they are alone.
        end_descendants(os.environ[MARK], os.getpid())


def _leave(number: int, frame: FrameType | None) -> None:
    del frame
    sys.exit(128 + number)


if __name__ == "__main__":
    main()
