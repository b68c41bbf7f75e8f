"""How long pushes take while their model is saved, against pushes in quiet; knows nothing of other systems.

    python -m benchmarks.saving --mib 1000

One client pushes 10 KB at a time and waits for each; a program of its own saves the model, again and again, between
rests. Quiet and busy turns follow one another, so that what else the machine does falls on both.
"""

from __future__ import annotations

import argparse
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Self

import numpy as np

import glintpy

PUSH_BYTES = 10_000

NUM_COLS = 125
"""Of the matrix: a row is 1,000 bytes, so a push has ten."""

SEED = 5

SAVER = """
import shutil, sys
import glintpy

address, name, url = sys.argv[1:]
with glintpy.Client(address) as client:
    model = client.open(name)
    print("ready", flush=True)
    for _ in sys.stdin:
        model.save(url, overwrite=True)
        shutil.rmtree(url)
        print("saved", flush=True)
"""


def push_of_keys(client: glintpy.Client, num_bytes: int) -> Callable[[], glintpy.Future[None]]:
    """Make a vector and return what pushes to random keys of it: 1,250 cells, each in another place."""
    count = PUSH_BYTES // 8
    vector = client.vector(num_bytes // 8, dtype="float64", name="saved")
    generator = np.random.default_rng(SEED)
    deltas = np.ones(count)
    return lambda: vector.push(generator.integers(0, len(vector), count), deltas)


def push_of_rows(client: glintpy.Client, num_bytes: int) -> Callable[[], glintpy.Future[None]]:
    """Make a matrix and return what pushes to ten random rows of it."""
    count = PUSH_BYTES // (8 * NUM_COLS)
    matrix = client.matrix(num_bytes // (8 * NUM_COLS), NUM_COLS, dtype="float64", name="saved")
    generator = np.random.default_rng(SEED)
    deltas = np.ones((count, NUM_COLS))
    return lambda: matrix.push(generator.integers(0, matrix.shape[0], count), deltas)


KINDS = {"keys": push_of_keys, "rows": push_of_rows}


def timed(push: Callable[[], glintpy.Future[None]]) -> float:
    """Return the seconds that a push takes until it is known to be in."""
    begin = time.perf_counter()
    push().result()
    return time.perf_counter() - begin


def measure(
    kind: str, *, num_bytes: int, servers: int, rounds: int, folder: Path
) -> tuple[list[float], list[float]]:
    """Return the seconds of each push in quiet, and of each during a save.

    Args:
        kind: a key of ``KINDS``.
        num_bytes: of the model.
        servers: how many hold it.
        rounds: saves, and as many times of quiet, each as long as the save before it.
        folder: where the saves go.
    """
    quiet: list[float] = []
    busy: list[float] = []
    with glintpy.LocalCluster(servers) as cluster, cluster.client() as client:
        push = KINDS[kind](client, num_bytes)
        command = [sys.executable, "-c", SAVER, cluster.address, "saved", str(folder / "saved")]
        saver = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)  # noqa: S603 - ours
        assert saver.stdin is not None
        assert saver.stdout is not None
        try:
            saver.stdout.readline()
            # Once for nothing: memory is touched and loops are compiled for the first time.
            for number in range(rounds + 1):
                during: list[float] = []
                begin = time.perf_counter()
                saver.stdin.write("\n")
                saver.stdin.flush()
                with Line(saver) as line:
                    while not line.has_come:
                        during.append(timed(push))
                took_s = time.perf_counter() - begin
                rest: list[float] = []
                while sum(rest) < took_s:
                    rest.append(timed(push))
                if number:
                    busy += during
                    quiet += rest
                    print(
                        f"  save {number}: {took_s:.2f} s, {len(during)} pushes; {len(rest)} in quiet",
                        flush=True,
                    )
        finally:
            saver.stdin.close()
            saver.stdout.close()
            saver.wait()
    return quiet, busy


class Line:
    """Whether a program has printed a line, without waiting for it."""

    def __init__(self, process: subprocess.Popen[str]) -> None:

        self._thread = threading.Thread(target=self._read, args=(process,))
        self.has_come = False

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        process.stdout.readline()
        self.has_come = True

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.join()


def main(arguments: Sequence[str] | None = None) -> None:
    """Run it and print the figures."""
    parser = argparse.ArgumentParser(description="How long pushes of 10 KB take while their model is saved.")
    parser.add_argument("--mib", type=int, default=1000, help="the model's size")
    parser.add_argument("--servers", type=int, default=1, help="how many hold it")
    parser.add_argument("--rounds", type=int, default=3, help="saves that count")
    parser.add_argument("--folder", type=Path, help="where the saves go; a temporary folder if not given")
    parser.add_argument(
        "--kind", choices=sorted(KINDS), action="append", help="cells or rows; both if not given"
    )
    given = parser.parse_args(arguments)
    folder = Path(tempfile.mkdtemp(prefix="glintpy-saving-", dir=given.folder))
    try:
        for kind in given.kind or sorted(KINDS):
            print(f"{kind}: {given.mib} MiB on {given.servers} servers")
            quiet, busy = measure(
                kind, num_bytes=given.mib << 20, servers=given.servers, rounds=given.rounds, folder=folder
            )
            found = {}
            for name, seconds in (("in quiet", quiet), ("during a save", busy)):
                found[name] = float(np.percentile(seconds, 99))
                print(
                    f"  push of {PUSH_BYTES // 1000} KB {name}: p50 {np.median(seconds) * 1e3:.2f} ms, "
                    f"p99 {found[name] * 1e3:.2f} ms, longest {max(seconds) * 1e3:.1f} ms"
                )
            print(
                f"  p99 during a save / in quiet: {found['during a save'] / found['in quiet']:.1f} (wanted: < 20)"
            )
    finally:
        shutil.rmtree(folder, ignore_errors=True)


if __name__ == "__main__":
    main()
