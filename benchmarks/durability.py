"""What levels of durability cost, and how soon a killed server is back: ``python benchmarks/durability.py``.

Pushes at each level, interleaved in the same run against the same server, with 64 under way; and a server with a
large model, killed and started again, until its first push is served. Asserts nothing.
"""

from __future__ import annotations

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path

import numpy as np

import glintpy
from glintpy import config

SIZES = {"96 B": 12, "10 KB": 1280, "1 MB": 131_072}
"""Pushed float64 values by their bytes in words: single ones at random places, and rows of 128."""

NUM_COLS = 128

IN_FLIGHT = 64
REPEATS = 7


Models = Mapping[config.Durability, glintpy.BigVector] | Mapping[config.Durability, glintpy.BigMatrix]


def pushes_per_s(
    model: glintpy.BigVector | glintpy.BigMatrix, keys: list[np.ndarray], values: np.ndarray, seconds: float
) -> float:
    """Return how many pushes were acknowledged a second, with so many under way."""
    window: list[glintpy.Future[None]] = []
    count, start = 0, time.perf_counter()
    while time.perf_counter() - start < seconds:
        window.append(model.push(keys[count % len(keys)], values=values))
        count += 1
        if len(window) >= IN_FLIGHT:
            window.pop(0).result()
    for future in window:
        future.result()
    return count / (time.perf_counter() - start)


def levels(names: tuple[config.Durability, ...], folder: Path | None, num_cells: int, seconds: float) -> None:
    """Print pushes a second by size and level, each a median with its range, and the share of ``memory``'s."""
    source = np.random.default_rng(1)
    where = "in memory" if folder is None else "on a disk"
    print(
        f"pushes/s, {IN_FLIGHT} under way, random keys of {num_cells:,} float64, one server with its files {where}"
    )
    with glintpy.LocalCluster(1, data_dir=folder) as cluster, cluster.client() as client:
        vectors = {level: client.vector(num_cells, durability=level) for level in names}
        num_rows = num_cells // NUM_COLS
        matrices = {level: client.matrix(num_rows, NUM_COLS, durability=level) for level in names}
        for words, size in SIZES.items():
            keys = [source.integers(0, num_cells, size) for _ in range(32)]
            compare(f"{words}, cells", vectors, keys, np.ones(size), seconds)
            if size >= NUM_COLS:
                rows = [source.integers(0, num_rows, size // NUM_COLS) for _ in range(32)]
                compare(f"{words}, rows", matrices, rows, np.ones((size // NUM_COLS, NUM_COLS)), seconds)


def compare(what: str, models: Models, keys: list[np.ndarray], values: np.ndarray, seconds: float) -> None:
    """Print what one kind of push reaches at each level, measured in turns."""
    found: dict[config.Durability, list[float]] = {level: [] for level in models}
    for repeat in range(REPEATS + 1):
        for level, model in models.items():
            rate = pushes_per_s(model, keys, values, seconds)
            if repeat:  # the first one warms up
                found[level].append(rate)
    for level, rates in found.items():
        share = [rate / base for rate, base in zip(rates, found["memory"], strict=True)]
        print(
            f"  {what:>12}  {level:8} {statistics.median(rates):10,.0f}"
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
        levels(("memory", "process"), None, asked.cells, asked.seconds)
        levels(("memory", "process", "disk"), Path(folder), asked.cells, asked.seconds)
    restart(int(asked.gb * 1e9), asked.repeats)


if __name__ == "__main__":
    main()
