"""What tables cost: ``python -m benchmarks.tables``. Asserts nothing.

A table and a matrix of as many rows of 16 float32, each on a server of its own, taken in turns: keys that were never
seen are pushed, then all of them are pushed to and pulled in another order, of the matrix the same rows. Then what the
table's server has taken in memory, over the bytes of its keys and rows. Ten million keys need about 2 GB and a minute;
``--keys`` runs fewer, of which what any server needs is a larger share.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

import glintpy
from benchmarks.processes import resident_bytes

NUM_COLS = 16
KEY_DTYPES = ("int64", "str")

TIMES_MAX = 3.0
"""What a table may take over a matrix, as far as this project is concerned."""

MEMORY_TIMES_MAX = 1.6

Batch = NDArray[Any]


def keys_of(num_keys: int, key_dtype: str) -> Batch:
    """Return keys in no order, none twice."""
    numbers = np.random.default_rng(1).permutation(num_keys).astype(np.int64) * 1_000_003
    return (
        numbers
        if key_dtype == "int64"
        else np.array([f"user {number}" for number in numbers.tolist()], object)
    )


def in_turns(
    ways: dict[str, Callable[[Batch, Batch], Any]], pairs: list[tuple[Batch, Batch]]
) -> dict[str, float]:
    """Return the seconds that each way takes with all batches, each batch by one after the other.

    Args:
        ways: by name: a call with the batch's keys and rows, which waits until it is done.
        pairs: of each batch the keys of the table, and the rows of the matrix.
    """
    seconds = dict.fromkeys(ways, 0.0)
    for keys, rows in pairs:
        for name, way in ways.items():
            began = time.perf_counter()
            way(keys, rows)
            seconds[name] += time.perf_counter() - began
    return seconds


def measure(num_keys: int, batch: int, key_dtype: str) -> dict[str, float]:
    """Return times over a matrix's of pushing new keys, pushing to them again and pulling them, and bytes over bytes.

    Args:
        num_keys: of the table; rows of the matrix.
        batch: keys of a request.
        key_dtype: of the table.
    """
    keys = keys_of(num_keys, key_dtype)
    rows = np.random.default_rng(2).permutation(num_keys)
    pairs = [
        (keys[first : first + batch], rows[first : first + batch]) for first in range(0, num_keys, batch)
    ]
    others = [(keys[places], rows[places]) for places in _places(num_keys, batch)]
    ones = np.ones((batch, NUM_COLS), np.float32)
    found: dict[str, float] = {}
    with (
        glintpy.LocalCluster(1) as cluster,
        glintpy.LocalCluster(1) as beside,
        cluster.client(timeout_s=600) as client,
        beside.client(timeout_s=600) as dense,
    ):
        # Two of each first: what is compiled or loaded once is no part of it.
        for name in ("warm", "m"):
            table = client.table(NUM_COLS, key_dtype=key_dtype, name=name)
            matrix = dense.matrix(num_keys, NUM_COLS, dtype="float32", name=name)
            if name == "warm":
                table.push(keys[:batch], ones[: len(keys[:batch])]).result()
                matrix.push(rows[:batch], ones[: len(rows[:batch])]).result()
                table.pull(keys[:batch]).result()
                matrix.pull(rows[:batch]).result()
                table.destroy()
                matrix.destroy()
        before = resident_bytes(cluster.servers[0].pid)
        pushes: dict[str, Callable[[Batch, Batch], Any]] = {
            "table": lambda some, _: table.push(some, ones[: len(some)]).result(),
            "matrix": lambda _, some: matrix.push(some, ones[: len(some)]).result(),
        }
        pulls: dict[str, Callable[[Batch, Batch], Any]] = {
            "table": lambda some, _: table.pull(some).result(),
            "matrix": lambda _, some: matrix.pull(some).result(),
        }
        for what, ways, batches in (
            ("new keys", pushes, pairs),
            ("pushes", pushes, others),
            ("pulls", pulls, others),
        ):
            seconds = in_turns(ways, batches)
            found[what] = seconds["table"] / seconds["matrix"]
        taken = resident_bytes(cluster.servers[0].pid) - before
        key_bytes = 8 if key_dtype == "int64" else statistics.mean(len(key) for key in keys[:1000])
        found["memory"] = taken / (num_keys * (4 * NUM_COLS + key_bytes))
    return found


def _places(num_keys: int, batch: int) -> list[Batch]:
    order = np.random.default_rng(3).permutation(num_keys)
    return [order[first : first + batch] for first in range(0, num_keys, batch)]


def main() -> None:
    """Measure what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--keys", type=int, default=10_000_000, help="of the table")
    parser.add_argument("--batch", type=int, default=50_000, help="keys of a request")
    parser.add_argument("--key-dtype", choices=KEY_DTYPES, default=KEY_DTYPES[0])
    arguments = parser.parse_args()
    found = measure(arguments.keys, arguments.batch, arguments.key_dtype)
    print(
        f"{arguments.keys:,} keys of {arguments.key_dtype} x {NUM_COLS} float32, {arguments.batch:,} a request:"
    )
    for what, times in found.items():
        if what == "memory":
            print(
                f"  {what:10} {times:5.2f} x the bytes of keys and rows (wanted: at most {MEMORY_TIMES_MAX})"
            )
        else:
            print(f"  {what:10} {times:5.2f} x a matrix's time (wanted: at most {TIMES_MAX})")


if __name__ == "__main__":
    main()
