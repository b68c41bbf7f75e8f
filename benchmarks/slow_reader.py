"""What a client that doesn't read costs the others: ``python -m benchmarks.slow_reader``.

A healthy client measures its round trips, first alone, then beside a client that asks and reads, then beside one that
has asked for much and stands still. It prints the medians and 99th percentiles and what the server has grown by, and
judges nothing: the machine is shared, and so are its two ends.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import glintpy
from benchmarks.processes import ROOT, resident_bytes

MIB = 1024 * 1024

ASKS = """
import sys
import glintpy

client = glintpy.Client(sys.argv[1], timeout_s=None)
model = client.open("wanted")
model.pull([0]).result()
print("asking", flush=True)
for _ in range(int(sys.argv[2])):
    for pull in [model.pull() for _ in range(100)]:
        pull.result()
"""

FOREVER = 1_000_000


def round_trips(client: glintpy.Client, number: int) -> dict[str, float]:
    """Measure pulls and pushes of 100 rows.

    Args:
        client: the healthy one.
        number: of each.

    Returns:
        Microseconds.
    """
    with client.matrix(10_000, 16, dtype="float32") as model:
        rows = np.arange(0, 10_000, 100)
        values = np.ones((rows.size, 16), np.float32)
        kinds: dict[str, Callable[[], object]] = {
            "pull": lambda: model.pull(rows).result(),
            "push": lambda: model.push(rows, values).result(),
        }
        found = {}
        for name, request in kinds.items():
            for _ in range(number // 10):
                request()
            times = np.empty(number)
            for at in range(number):
                began = time.perf_counter()
                request()
                times[at] = time.perf_counter() - began
            found[f"{name} p50"] = float(np.percentile(times, 50) * 1e6)
            found[f"{name} p99"] = float(np.percentile(times, 99) * 1e6)
    return found


def measure(number: int) -> dict[str, dict[str, float]]:
    """Measure beside nobody, a reader and one that stands still.

    Args:
        number: of round trips of each kind.

    Returns:
        By who is beside: microseconds, and the MiB by which the server has grown since the beginning.
    """
    found: dict[str, dict[str, float]] = {}
    with glintpy.LocalCluster(1) as cluster, cluster.client() as client:
        wanted = client.vector(MIB // 8, name="wanted")  # one megabyte
        for pull in [wanted.pull() for _ in range(100)]:
            pull.result()
        pid = cluster.servers[0].pid
        before = resident_bytes(pid)

        def note(beside: str) -> None:
            found[beside] = round_trips(client, number)
            found[beside]["server +MiB"] = (resident_bytes(pid) - before) / MIB

        note("alone")
        command = [sys.executable, "-c", ASKS, cluster.address, str(FOREVER)]
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment) as process:  # noqa: S603 - our own program
            try:
                assert process.stdout is not None
                process.stdout.readline()
                note("beside a reader")
                os.kill(process.pid, signal.SIGSTOP)
                time.sleep(1.0)  # the server sends what there is room for
                note("beside one that stands still")
            finally:
                process.kill()
    return found


def main() -> None:
    """Run it from the command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--number", type=int, default=5000, help="round trips of each kind")
    parser.add_argument("--json", type=Path, help="write the figures to this file too")
    arguments = parser.parse_args()
    found = measure(arguments.number)
    for beside, figures in found.items():
        print(f"{beside:30s}" + "".join(f"  {name} {figure:8.1f}" for name, figure in figures.items()))
    alone, still = found["alone"], found["beside one that stands still"]
    for kind in ("pull", "push"):
        print(
            f"{kind}: p99 beside one that stands still / alone = {still[f'{kind} p99'] / alone[f'{kind} p99']:.2f}"
        )
    if arguments.json is not None:
        arguments.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
