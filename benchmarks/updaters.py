"""What updaters cost: ``python -m benchmarks.updaters``. Asserts nothing.

In a server: pushes of 1,000 rows of 128 to one shard, by each updater, interleaved with a plain add, under an undo
record as at level ``process`` and without. Through a cluster: the same pushes, and small ones of one row, with 64
under way: pushes a second, and what each costs the server's process in CPU time, all included.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import glintpy
from glintpy import updaters
from glintpy.actors.home import shared_memory
from glintpy.protocol.selection import Selection
from glintpy.protocol.spec import ModelSpec, numbers_text
from glintpy.storage.arrays import arrays_of
from glintpy.storage.shard import Shard
from glintpy.storage.undo import Undo
from glintpy.updaters import Updater

NUM_ROWS, NUM_COLS, PUSHED = 50_000, 128, 1000
IN_FLIGHT = 64
NAMES = ("add", "sgd", "momentum", "adagrad", "rmsprop", "adam", "adamw", "ftrl", "dcasgd", "max", "mean")


def shard_of(updater: Updater, undo: Undo | None) -> Shard:
    """Return a shard whose loops are compiled."""
    spec = ModelSpec(
        "m",
        NUM_ROWS,
        NUM_COLS,
        "float32",
        updater=updaters.name_of(updater),
        updater_numbers=numbers_text(updater.to_content()),
    )
    values, *slots = (np.zeros((NUM_ROWS, *kind.row_shape), kind.dtype) for kind in arrays_of(spec, updater))
    shard = Shard(1, spec, 1, values, slots=slots, updater=updater, undo=undo)
    for _ in shard.kernels.prepare():
        pass
    return shard


def in_a_server(rounds: int, undo: Undo | None) -> None:
    """Print the time of a push by each updater, over a plain add's in the same round."""
    random = np.random.default_rng(1)
    selections = [
        Selection(np.sort(random.choice(NUM_ROWS, PUSHED, replace=False)).astype("<u4")) for _ in range(16)
    ]
    deltas = random.normal(size=(PUSHED, NUM_COLS)).astype(np.float32)
    shards = {name: shard_of(updaters.named(name), undo) for name in NAMES}
    times: dict[str, list[float]] = {name: [] for name in NAMES}
    for turn in range(rounds):
        for name, shard in shards.items():
            start = time.perf_counter()
            shard.push(selections[turn % len(selections)], deltas)
            times[name].append(time.perf_counter() - start)
            if undo is not None:
                undo.clear()
    base = statistics.median(times["add"])
    print(
        f"a push of {PUSHED} rows of {NUM_COLS} float32 in a server, {'with' if undo else 'without'} an undo record:"
    )
    for name, found in times.items():
        middle = statistics.median(found)
        print(f"  {name:10} {middle * 1e6:8.0f} us  {middle / base:5.2f} x add")


def pushes_per_s(model: Any, keys: list[NDArray[Any]], values: NDArray[Any], seconds: float) -> float:
    """Return how many pushes were acknowledged a second, with so many under way."""
    window: list[glintpy.Future[None]] = []
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        window.append(model.push(keys[count % len(keys)], values))
        count += 1
        if len(window) >= IN_FLIGHT:
            window.pop(0).result()
    for future in window:
        future.result()
    return count / (time.perf_counter() - start)


def cpu_s(pid: int) -> float:
    """Return the CPU time that a process has used, user and system."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def through_a_cluster(seconds: float) -> None:
    """Print pushes a second by updater and size, what each costs the server, and both beside a plain add's."""
    random = np.random.default_rng(2)
    with glintpy.LocalCluster(1) as cluster, cluster.client() as client:
        (server,) = cluster.servers
        for words, num_rows in (("one row", 1), ("1,000 rows", PUSHED)):
            keys = [np.sort(random.choice(NUM_ROWS, num_rows, replace=False)) for _ in range(64)]
            values = random.normal(size=(num_rows, NUM_COLS)).astype(np.float32)
            base: tuple[float, float] | None = None
            print(
                f"pushes/s of {words} of {NUM_COLS} float32, {IN_FLIGHT} under way, one server, one client:"
            )
            for name in ("add", "sgd", "adagrad", "adam"):
                with client.matrix(NUM_ROWS, NUM_COLS, dtype="float32", updater=name) as model:
                    pushes_per_s(model, keys, values, max(2.0, seconds))  # the loops are compiled meanwhile
                    rates, costs = [], []
                    for _ in range(3):
                        began, used = time.perf_counter(), cpu_s(server.pid)
                        rates.append(pushes_per_s(model, keys, values, seconds))
                        lasted = time.perf_counter() - began
                        costs.append((cpu_s(server.pid) - used) / (rates[-1] * lasted))
                rate, cost = statistics.median(rates), statistics.median(costs)
                base = base or (rate, cost)
                print(
                    f"  {name:10} {rate:8.0f}  {rate / base[0]:5.2f} x add   {cost * 1e6:6.0f} us of the server's  "
                    f"{cost / base[1]:5.2f} x add"
                )


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=300, help="pushes by each updater in a server")
    parser.add_argument("--seconds", type=float, default=2.0, help="of each measurement through a cluster")
    arguments = parser.parse_args()
    in_a_server(arguments.rounds, None)
    with tempfile.TemporaryDirectory(dir=shared_memory()) as folder:
        undo = Undo.open(Path(folder) / "server.undo")
        in_a_server(arguments.rounds, undo)
        undo.close(clean=False)
    through_a_cluster(arguments.seconds)


if __name__ == "__main__":
    main()
