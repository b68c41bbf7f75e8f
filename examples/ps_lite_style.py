"""Dice are thrown by several processes, one of which is killed; written as a program for ps-lite.

``python examples/ps_lite_style.py`` is the scheduler. It starts servers, which hold values, and workers, which push how
often each face came up: a die with 20 faces has 20 values under its key, one with 4 has 4. Behind the first round one
worker is killed. The scheduler misses it, and starts another, which has its rank and goes on where it was. In the end
each count is that of one process that throws all dice alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

import glintpy
from glintpy.kvstore import SCHEDULER, WORKERS, KVServer, KVWorker, Postoffice

FACES = np.array([4, 6, 8, 12, 20])
KEYS = 2**63 + FACES.astype(np.uint64)  # any 64-bit numbers

COUNTS = 0
"""The app of the faces' counts, which are added up."""

BEST = 1
"""The app of each die's best sum of one push, of which servers keep the greatest."""

ROUNDS = 2
PUSHES = 10
"""Of a worker in a round."""

PATIENCE_S = 60.0


def throw(rank: int, round_number: int, throws: int) -> list[NDArray[np.int64]]:
    """Return what comes up in a round of a worker, (PUSHES, throws) from 0 for each die; the same whenever asked."""
    rng = np.random.default_rng([rank, round_number])
    return [rng.integers(faces, size=(PUSHES, throws)) for faces in FACES]


def counts_of(thrown: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return how often each face came up, die behind die."""
    return np.concatenate(
        [np.bincount(die.ravel(), minlength=faces) for die, faces in zip(thrown, FACES, strict=True)]
    )


def be_node(role: str, address: str, workers: int) -> Postoffice:
    """Return this process's place in the job: all its nodes say the same of it."""
    return Postoffice(
        "scheduler" if role == "scheduler" else "worker",
        address,
        job="dice",
        num_workers=workers,
        with_scheduler=True,
        timeout_s=PATIENCE_S,
    )


def work(address: str, workers: int, throws: int) -> None:
    """Be a worker.

    Args:
        address: the master's.
        workers: how many there are.
        throws: of each die in a push.
    """
    with be_node("worker", address, workers) as node, KVWorker(COUNTS) as counts, KVWorker(BEST) as best:
        for round_number in range(1 if node.is_recovery else 0, ROUNDS):
            applied: list[int] = []
            for thrown in zip(*throw(node.my_rank, round_number, throws), strict=True):
                counts.push(KEYS, counts_of(list(thrown)), lens=FACES, callback=lambda: applied.append(1))
                best.push(KEYS, [die.sum() for die in thrown])
            counts.flush()
            print(
                f"worker {node.my_rank}, round {round_number}: {len(applied)} pushes were applied", flush=True
            )
            node.barrier(SCHEDULER + WORKERS)  # it flushes, too
            if node.my_rank == workers - 1 and not node.is_recovery:
                os.kill(os.getpid(), signal.SIGKILL)


def until(is_so: Callable[[], object], what: str) -> None:
    """Return when something is so."""
    end = time.monotonic() + PATIENCE_S
    while not is_so():
        if time.monotonic() > end:
            raise TimeoutError(f"not so after {PATIENCE_S:.0f} s: {what}")
        time.sleep(0.05)


def schedule(address: str, workers: int, throws: int) -> bool:
    """Be the scheduler: see to it that there are workers, and return whether they counted right.

    Args:
        address: the master's.
        workers: how many there are.
        throws: of each die in a push.
    """
    # Spawned, not forked: this process has threads, and a fork copies their locks as they stand.
    context = multiprocessing.get_context("spawn")
    team = [context.Process(target=work, args=(address, workers, throws)) for _ in range(workers + 1)]
    *first, heir = team
    try:
        with be_node("scheduler", address, workers) as node:
            KVServer(COUNTS, dtype="int64", varying=True).set_request_handle()
            KVServer(BEST, dtype="int64").set_request_handle("max")
            for process in first:
                process.start()
            node.barrier(SCHEDULER + WORKERS)
            until(lambda: node.dead_nodes(WORKERS), "a worker is missed")
            print(f"scheduler: node {node.dead_nodes(WORKERS)[0]} is dead; another comes in its place")
            heir.start()
            until(lambda: len(node.live_nodes(WORKERS)) == workers, "another has come")
            node.barrier(SCHEDULER + WORKERS)
            return prove(workers, throws)
    finally:
        for process in team:
            if process.pid is not None:
                process.join(PATIENCE_S)
                process.kill()


def prove(workers: int, throws: int) -> bool:
    """Compare what was counted with what one process counts that throws all dice.

    Args:
        workers: how many there were.
        throws: of each die in a push.
    """
    rounds = [throw(rank, number, throws) for rank in range(workers) for number in range(ROUNDS)]
    with KVWorker(COUNTS) as counts, KVWorker(BEST) as best:
        lens = np.zeros(len(KEYS), int)
        counted = counts.values(counts.pull(KEYS, lens=lens))
        sums = best.values(best.pull(KEYS))
    alone = sum(counts_of(thrown) for thrown in rounds)
    alone_sums = [max(thrown[die].sum(1).max() for thrown in rounds) for die in range(len(KEYS))]
    for faces, shares in zip(lens, np.split(counted, np.cumsum(lens)[:-1]), strict=True):
        print(
            f"{faces:3} faces, {shares.sum():,} throws; each came up {shares.min():,} to {shares.max():,} times"
        )
    if counted.tolist() != np.asarray(alone).tolist() or sums.tolist() != alone_sums:
        print("these are not the counts of one process")
        return False
    print(
        f"all {len(counted)} counts, and the {len(sums)} best sums, are those of one process that throws alone"
    )
    return True


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def main() -> int:
    """Read the options and run.

    Returns:
        The exit status.
    """
    parser = argparse.ArgumentParser(
        description="Dice, thrown by processes of which one is killed, with the names of ps-lite.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    _positive.__name__ = "positive integer"  # what argparse calls it in its errors
    parser.add_argument("--workers", type=_positive, default=3, help="processes that throw dice")
    parser.add_argument("--servers", type=_positive, default=2, help="processes that hold what was counted")
    parser.add_argument("--throws", type=_positive, default=1000, help="of each die in a push")
    options = parser.parse_args()
    try:
        with glintpy.LocalCluster(options.servers) as cluster:
            return 0 if schedule(cluster.address, options.workers, options.throws) else 1
    except (glintpy.GlintError, TimeoutError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
