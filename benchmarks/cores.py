"""How small and dense traffic grow with servers and clients, on a machine with cores for all of them.

``python -m benchmarks.cores`` prints a line for each number of servers and clients. Every process wants a core of its
own, so on two cores it says nothing.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time

import numpy as np

import glintpy

SMALL = ((1, 1), (1, 2), (1, 4), (2, 4), (4, 4), (4, 8))
DENSE = ((1, 1), (1, 4), (2, 4), (4, 4), (8, 8))
NUM_ROWS, SMALL_COLS, DENSE_COLS = 100_000, 128, 100
BLOCK_ROWS = 25_000


def push_small(model: glintpy.BigMatrix, seed: int, seconds: float) -> int:
    """Push single rows, many under way, for so long; return how many."""
    keys = np.random.default_rng(seed).integers(0, NUM_ROWS, (512, 1))
    values = np.ones((1, SMALL_COLS), np.float32)
    end, num = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        for key in keys:
            model.push(key, values)
        num += len(keys)
    model.flush()
    return num


def push_and_pull_dense(model: glintpy.BigMatrix, seed: int, seconds: float) -> int:
    """Push and pull 10 MB, one after the other, for so long; return how often."""
    first = seed * BLOCK_ROWS % NUM_ROWS
    rows, values = slice(first, first + BLOCK_ROWS), np.ones((BLOCK_ROWS, DENSE_COLS), np.float32)
    end, num = time.perf_counter() + seconds, 0
    while time.perf_counter() < end:
        model.push(rows, values)
        model.pull(rows).result()
        num += 1
    model.flush()
    return num


def work(address: str, name: str, seed: int, seconds: float) -> None:
    """Be one client: say that it is ready, wait for a line, and print how often a second."""
    with glintpy.Client(address) as client:
        model = client.open(name)
        assert isinstance(model, glintpy.BigMatrix)
        print("ready", flush=True)
        sys.stdin.readline()
        start = time.perf_counter()
        num = (push_small if name == "small" else push_and_pull_dense)(model, seed, seconds)
        print(json.dumps(num / (time.perf_counter() - start)), flush=True)


def measure(name: str, num_servers: int, num_clients: int, seconds: float) -> float:
    """Return how often a second all clients together do it."""
    with glintpy.LocalCluster(num_servers) as cluster, cluster.client() as client:
        cols = SMALL_COLS if name == "small" else DENSE_COLS
        updater = "sgd" if name == "small" else "add"
        client.matrix(NUM_ROWS, cols, dtype="float32", name=name, updater=updater, partitioner="cyclic")
        order = [sys.executable, "-m", "benchmarks.cores", "--seconds", str(seconds)]
        workers = [
            subprocess.Popen(  # noqa: S603 - this file
                [*order, "--work", cluster.address, name, str(seed)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                text=True,
            )
            for seed in range(num_clients)
        ]
        try:
            pipes = [(worker.stdin, worker.stdout) for worker in workers]
            for _, said in pipes:
                assert said is not None
                said.readline()
            for told, _ in pipes:
                assert told is not None
                told.write("go\n")
                told.flush()
            rates = [float(json.loads(said.readline())) for _, said in pipes if said is not None]
        finally:
            for worker in workers:
                worker.communicate()
    return sum(rates)


def main() -> None:
    """Measure, or be a client of a measurement."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=2.5, help="of each measurement")
    parser.add_argument("--work", nargs=3, metavar=("ADDRESS", "MODEL", "SEED"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.work:
        address, name, seed = options.work
        work(address, name, int(seed), options.seconds)
        return
    for servers, clients in SMALL:
        rate = measure("small", servers, clients, options.seconds)
        print(
            f"one row of {SMALL_COLS}, sgd: {servers} servers, {clients} clients: {rate:,.0f} pushes/s",
            flush=True,
        )
    for servers, clients in DENSE:
        rate = measure("dense", servers, clients, options.seconds) * 2 * BLOCK_ROWS * DENSE_COLS * 4 / 1e9
        print(f"10 MB pushed and pulled: {servers} servers, {clients} clients: {rate:.2f} GB/s", flush=True)


if __name__ == "__main__":
    main()
