"""What it takes to begin: imports, a cluster that answers, and the memory of servers; beside the peers' own."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

import glintpy
from benchmarks.arena import Run
from benchmarks.fleet import Fleet
from benchmarks.ours import NAME
from benchmarks.processes import Child, ChildError, resident_bytes
from benchmarks.results import Entry, Figure
from benchmarks.system import Setup, System, Unavailable
from benchmarks.workloads import COLS

WORKLOAD = "start"

LIBRARIES = "numpy and zmq"

PROGRAM = """
import json, sys, time
began = time.perf_counter()
{code}
print(json.dumps({{"content": {{"seconds": time.perf_counter() - began, "numba": "numba" in sys.modules, **more}}}}))
"""

IMPORT = "import glintpy; more = {}"

IMPORT_ALL = "import glintpy; more = {'names': [getattr(glintpy, name) for name in glintpy.__all__] and 0}"

IMPORT_LIBRARIES = "import numpy, zmq; more = {}"

FIRST_ANSWER = """
import glintpy
began = time.perf_counter()
client = glintpy.local(servers=2)
ready = time.perf_counter() - began
client.matrix(1_000, 100).pull([3]).result()
more = {"ready": ready, "answered": time.perf_counter() - began}
client.close()
"""


def measure(run: Run, peers: Sequence[Callable[[], System]]) -> None:
    """Measure all of it.

    Args:
        run: what measurements share.
        peers: makes each of the others whose servers are started, too.
    """
    run.say("start: imports")
    _imports(run)
    run.say("start: first answers")
    _first_answers(run, peers)
    run.say("start: memory")
    _memory(run, peers)


def _imports(run: Run) -> None:
    names = {"import glintpy": IMPORT, "import all its names": IMPORT_ALL, LIBRARIES: IMPORT_LIBRARIES}
    samples: dict[str, list[float]] = {name: [] for name in names}
    numba = 0.0
    for _ in range(run.sizes.repeats):
        for name, code in names.items():
            told = _program(code)
            samples[name].append(told["seconds"])
            numba = max(numba, float(told["numba"] and name != LIBRARIES))
    for name in (IMPORT, IMPORT_ALL):
        label = next(label for label, code in names.items() if code is name)
        entries = [Entry(NAME, "", samples[label]), Entry(f"import {LIBRARIES}", "", samples[LIBRARIES])]
        _add(run, label, "time", "s", entries)
    _add(run, "import all its names", "numba imported", "", [Entry(NAME, "", [numba])])


def _first_answers(run: Run, peers: Sequence[Callable[[], System]]) -> None:
    ready: dict[str, list[float]] = {NAME: []}
    answered: list[float] = []
    for _ in range(run.sizes.repeats):
        told = _program(FIRST_ANSWER)
        ready[NAME].append(told["ready"])
        answered.append(told["answered"])
        for make in peers:
            system = make()
            if system.waits_for_clients:
                run.results.leave_out(
                    system.title, f"{WORKLOAD}/2 servers ready", "its servers wait for their clients"
                )
                continue
            began = time.perf_counter()
            try:
                system.start(Setup(2, 1))
                ready.setdefault(system.name, []).append(time.perf_counter() - began)
            except (Unavailable, ChildError) as error:
                run.results.leave_out(system.title, WORKLOAD, str(error))
            finally:
                system.stop()
    entries = [Entry(name, "", some) for name, some in ready.items() if len(some) == run.sizes.repeats]
    _add(run, "2 servers ready", "time", "s", entries)
    _add(run, "local(servers=2), first pull", "time", "s", [Entry(NAME, "", answered)])


def _memory(run: Run, peers: Sequence[Callable[[], System]]) -> None:
    idle: list[float] = []
    above: list[float] = []
    per_byte: list[float] = []
    numba: list[float] = []
    for _ in range(run.sizes.repeats):
        with glintpy.LocalCluster(1) as cluster, cluster.client() as client:
            pid = cluster.servers[0].pid
            idle.append(resident_bytes(pid) / 1e6)
            numba.append(float("numba" in Path(f"/proc/{pid}/maps").read_text(encoding="utf-8")))
            model = client.matrix(run.sizes.bulk_rows, COLS, dtype="float32")
            model.push(None, np.float32(1)).result()
            model.pull().result()
            resident = resident_bytes(pid)
            above.append((resident - model.num_bytes) / 1e6)
            per_byte.append((resident - idle[-1] * 1e6) / model.num_bytes)
    entries = [Entry(NAME, "", idle)]
    for make in peers:
        system = make()
        try:
            # With a client, since some servers begin only then.
            with Fleet(system, Setup(1, 1)):
                of_peer = resident_bytes(system.server_pids()[0]) / 1e6
        except (Unavailable, ChildError) as error:
            run.results.leave_out(system.title, WORKLOAD, str(error))
        else:
            entries.append(Entry(system.name, "", [of_peer] * run.sizes.repeats))
    _add(run, "idle server", "resident", "MB", entries)
    _add(run, "idle server", "numba imported", "", [Entry(NAME, "", numba)])
    _add(run, "server with a model", "resident above its bytes", "MB", [Entry(NAME, "", above)])
    _add(run, "server with a model", "bytes per byte", "", [Entry(NAME, "", per_byte)])


def _program(code: str) -> dict[str, float]:
    child = Child([sys.executable, "-c", PROGRAM.format(code=code)])
    try:
        told: dict[str, float] = child.hear()
    finally:
        child.stop()
    return told


def _add(run: Run, step: str, quantity: str, unit: str, entries: list[Entry]) -> None:
    run.results.figures.append(Figure(WORKLOAD, "", step, quantity, unit, "low", entries))
