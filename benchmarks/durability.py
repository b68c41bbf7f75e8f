"""What levels of durability cost, and how soon a killed server is back: ``python benchmarks/durability.py``.

Pushes at each level, interleaved in the same run against the same server, with 64 under way; and a server with a
large model, killed and started again, until its first push is served. Asserts nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import glintpy
from glintpy import config

SIZES = {"96 B": 12, "10 KB": 1280, "1 MB": 131_072}
"""Pushed float64 values by their bytes in words."""

IN_FLIGHT = 64
REPEATS = 7
LEVELS: tuple[config.Durability, ...] = ("memory", "process", "disk")


def pushes_per_s(
    vector: glintpy.BigVector, keys: list[np.ndarray], values: np.ndarray, seconds: float
) -> float:
    """Return how many pushes were acknowledged a second, with so many under way."""
    window: list[glintpy.Future[None]] = []
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        window.append(vector.push(keys[count % len(keys)], values))
        count += 1
        if len(window) >= IN_FLIGHT:
            window.pop(0).result()
    for future in window:
        future.result()
    return count / (time.perf_counter() - start)


def levels(folder: Path, num_cells: int, seconds: float) -> None:
    """Print pushes a second by size and level, each a median with its range, and the share of ``memory``'s."""
    source = np.random.default_rng(1)
    print(f"pushes/s, {IN_FLIGHT} under way, random keys of {num_cells:,} float64, one server, one client")
    with glintpy.LocalCluster(1, data_dir=folder) as cluster, cluster.client() as client:
        vectors = {level: client.vector(num_cells, durability=level) for level in LEVELS}
        for words, size in SIZES.items():
            keys = [source.integers(0, num_cells, size) for _ in range(32)]
            values = np.ones(size)
            found: dict[config.Durability, list[float]] = {level: [] for level in LEVELS}
            for repeat in range(REPEATS + 1):
                for level in LEVELS:
                    rate = pushes_per_s(vectors[level], keys, values, seconds)
                    if repeat:  # the first one warms up
                        found[level].append(rate)
            shares = {
                level: [rate / base for rate, base in zip(rates, found["memory"], strict=True)]
                for level, rates in found.items()
            }
            for level, rates in found.items():
                share = shares[level]
                print(
                    f"  {words:>6}  {level:8} {statistics.median(rates):10,.0f}"
                    f"  ({min(rates):,.0f} to {max(rates):,.0f})"
                    f"  {statistics.median(share):5.0%} of memory ({min(share):.0%} to {max(share):.0%})"
                )


def restart(num_bytes: int, repeats: int) -> None:
    """Print how long a killed server with a large model takes from its start to its first push."""
    num_cells = num_bytes // 8
    print(f"killed and started again, {num_bytes / 1e9:.1f} GB of model at level process")
    with glintpy.LocalCluster(1) as cluster, cluster.client() as client:
        vector = client.vector(num_cells)
        vector.push(None, 1).result()
        found = []
        for _ in range(repeats):
            cluster.kill_server(0)
            start = time.perf_counter()
            push = vector.push([0, num_cells - 1], 1)
            cluster.restart_server(0)
            ready_s = time.perf_counter() - start
            push.result()
            found.append(time.perf_counter() - start)
            print(f"  ready after {ready_s:.2f} s, first push served after {found[-1]:.2f} s")
        print(f"  median {statistics.median(found):.2f} s")


def main() -> None:
    """Run both."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=0.5, help="of each measurement (default 0.5)")
    parser.add_argument("--cells", type=int, default=1_000_000, help="of the vector that is pushed to")
    parser.add_argument("--gb", type=float, default=1.0, help="of the model of the server that is killed")
    parser.add_argument("--repeats", type=int, default=5, help="kills")
    asked = parser.parse_args()
    # Where files lie on a disk, a sync costs what it costs there.
    with tempfile.TemporaryDirectory(prefix="glintpy-durability-") as folder:
        levels(Path(folder), asked.cells, asked.seconds)
    restart(int(asked.gb * 1e9), asked.repeats)


if __name__ == "__main__":
    main()
