"""Processes as the cluster tests see them: what runs, what it holds, how it is stopped; knows no test."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np

import glintpy
from glintpy.models.vector import BigVector
from glintpy.process.orders import order_of
from glintpy.protocol.session import Session

REPOSITORY = Path(__file__).resolve().parents[2]

PATIENCE_S = 60.0
"""How long anything that must happen may take on a busy machine; nothing waits longer than it takes."""


def until(is_so: Callable[[], object], what: str, *, within_s: float = PATIENCE_S) -> None:
    """Return when something is so; fail with its description when it takes too long."""
    end = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < end, f"not so after {within_s:.0f} s: {what}"
        time.sleep(0.02)


# --- programs ---------------------------------------------------------------------------------------------


def environment() -> dict[str, str]:
    """Return an environment in which programs find this package, and ResourceWarnings are errors."""
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "PYTHONWARNINGS": "error::ResourceWarning"}


@contextmanager
def program(path: Path, text: str, *arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run a script as its users do, in a process group of its own; whatever is left of it is killed."""
    path.write_text(text)
    process = subprocess.Popen(
        [sys.executable, str(path), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def line_of(process: subprocess.Popen[str]) -> str:
    """Return the next line that a program prints; fail with what it said instead."""
    assert process.stdout is not None
    line = process.stdout.readline()
    if not line:
        _, errors = process.communicate(timeout=PATIENCE_S)
        raise AssertionError(f"the program ended with {process.returncode}:\n{errors}")
    return line.strip()


# --- processes --------------------------------------------------------------------------------------------


def nodes_of(parent: int) -> list[int]:
    """Return the masters and servers that a process started and that still run, whoever their parent is now."""
    found = []
    for folder in Path("/proc").iterdir():
        if folder.name.isdecimal():
            try:
                _, *module, role, order, _ = (folder / "cmdline").read_text().split("\0")
            except (OSError, ValueError):
                continue  # it ended meanwhile, or is none
            if module == ["-m", "glintpy.process"] and order_of(role, order).parent == parent:
                found.append(int(folder.name))
    return found


def resident_bytes(pid: int | str = "self") -> int:
    """Return the memory that a process has in use."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def num_descriptors(pid: int | str = "self") -> int:
    """Return how many descriptors a process has open."""
    return len(list(Path(f"/proc/{pid}/fd").iterdir()))


def num_sockets(pid: int | str = "self") -> int:
    """Return how many sockets a process has open: one a connection, and those that it listens at."""
    targets = []
    for entry in Path(f"/proc/{pid}/fd").iterdir():
        with suppress(FileNotFoundError):  # closed meanwhile
            targets.append(str(entry.readlink()))
    return sum(target.startswith("socket:") for target in targets)


def thread_states(pid: int) -> set[str]:
    """Return the states of a process's threads, as in ``ps``."""
    stats = [(task / "stat").read_text() for task in Path(f"/proc/{pid}/task").iterdir()]
    return {stat.rpartition(")")[2].split()[0] for stat in stats}


@contextmanager
def paused(pid: int) -> Iterator[None]:
    """Stop a process as Ctrl-Z does, for a while."""
    os.kill(pid, signal.SIGSTOP)
    try:
        # One thread takes the signal and stops the others; until it is scheduled they run on.
        until(lambda: thread_states(pid) == {"T"}, "all threads stand still")
        yield
    finally:
        with suppress(ProcessLookupError):  # it may be killed while it stands still
            os.kill(pid, signal.SIGCONT)


# --- what a cluster says ----------------------------------------------------------------------------------


def state_of(client: glintpy.Client, index: int) -> str:
    """Return the state of the server that was started as number ``index``."""
    names = {server["name"]: server["state"] for server in client.servers()}
    return str(names.get(f"server-{index}", "forgotten"))


def holders_of(model: glintpy.BigMatrix | glintpy.BigVector, cluster: glintpy.LocalCluster) -> list[int]:
    """Return the indices of a model's servers, the holder of its first keys first."""
    indices = {server.address: server.index for server in cluster.servers}
    return [indices[address] for _, address in model._info.servers]


def holdings(client: glintpy.Client) -> dict[str, dict[str, Any]]:
    """Return by server name what each holds and has done."""
    return {server["name"]: server["holds"] for server in client.status(timeout_s=PATIENCE_S)["servers"]}


def settled(client: glintpy.Client, pids: Sequence[int]) -> list[int]:
    """Return what memory servers have in use, once none has a compiler yet to load, which takes 100 MiB for good."""
    until(
        lambda: not any(held["compiling"] for held in holdings(client).values()), "their loops are compiled"
    )
    return [resident_bytes(pid) for pid in pids]


def requests_of(client: glintpy.Client) -> list[int]:
    """Return how many requests each server has counted."""
    return [held["requests"] for _, held in sorted(holdings(client).items())]


def sessions_of(client: glintpy.Client) -> list[Session]:
    """Return the client's sessions with servers, for their counters."""
    return list(client._tie.runtime().sessions().values())


# --- what other processes do ------------------------------------------------------------------------------


def push_ones(vector: BigVector, seed: int, num_pushes: int, keys_a_push: int) -> None:
    """Push ones at random keys and return without waiting for a single one of them."""
    rng = np.random.default_rng(seed)
    for _ in range(num_pushes):
        vector.push(rng.integers(0, len(vector), keys_a_push), 1)


def join(processes: Sequence[Any]) -> None:
    """Wait for multiprocessing's processes; all must have ended well."""
    for process in processes:
        process.join(PATIENCE_S * 2)
    codes = [process.exitcode for process in processes]
    for process in processes:
        if process.is_alive():
            process.kill()
            process.join()
        process.close()
    assert codes == [0] * len(codes), f"exit codes {codes}; None is one that did not end"
