"""Dice are thrown by several processes, one of which falls; written as a program for ps-lite.

``python examples/ps_lite_style.py`` is the scheduler. It starts servers, which hold values, and workers, which it asks
for rounds, and which push how often each face came up: a die with 20 faces has 20 values under its key, one with 4 has
4. In the second round a worker is killed. The scheduler is told, and starts another, which has its rank and plays what
is missing. In the end each count is that of one process that throws all dice alone.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Sequence
from typing import Literal

import numpy as np
from numpy.typing import NDArray

import glintpy
from glintpy.kvstore import SCHEDULER, WORKERS, KVServer, KVWorker, Postoffice, SimpleApp, SimpleData

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


def counts_of(thrown: Sequence[NDArray[np.int64]]) -> NDArray[np.int64]:
    """Return how often each face came up, die behind die."""
    return np.concatenate(
        [np.bincount(die.ravel(), minlength=faces) for die, faces in zip(thrown, FACES, strict=True)]
    )


class Player:
    """A worker: throws dice whenever the scheduler asks for a round.

    Args:
        node: this process's place in the job.
        throws: of each die in a push.
    """

    def __init__(self, node: Postoffice, throws: int) -> None:
        self.node = node
        self.throws = throws
        self.counts = KVWorker(COUNTS)
        self.best = KVWorker(BEST)
        self.is_over = threading.Event()

    def handle(self, request: SimpleData, app: SimpleApp) -> None:
        """Play a round, and answer.

        Args:
            request: its head is the round's number, and its body what to do.
            app: what the request came to.
        """
        if request.body == "end":
            self.is_over.set()
        if request.body == "fall" and self.node.my_rank == 0:
            os.kill(os.getpid(), signal.SIGKILL)
        applied = self.play(request.head) if request.body != "end" else 0
        app.response(request, f"{applied} pushes were applied")

    def play(self, round_number: int) -> int:
        """Throw all dice, and return how many pushes were applied."""
        applied: list[int] = []
        for thrown in zip(*throw(self.node.my_rank, round_number, self.throws), strict=True):
            self.counts.push(KEYS, counts_of(thrown), lens=FACES, callback=lambda: applied.append(1))
            self.best.push(KEYS, [die.sum() for die in thrown])
        self.counts.flush()  # all callbacks have run
        self.best.flush()
        return len(applied)


def place_of(role: Literal["scheduler", "worker"], address: str, workers: int) -> Postoffice:
    """Return this process's place in the job, of which all its nodes say the same.

    Args:
        role: of this process.
        address: the master's.
        workers: how many there are.
    """
    return Postoffice(
        role, address, job="dice", num_workers=workers, with_scheduler=True, timeout_s=PATIENCE_S
    )


def work(address: str, workers: int, throws: int) -> None:
    """Be a worker.

    Args:
        address: the master's.
        workers: how many there are.
        throws: of each die in a push.
    """
    with place_of("worker", address, workers) as node:
        player = Player(node, throws)
        with SimpleApp(request_handle=player.handle), player.counts, player.best:
            if not node.is_recovery:  # the others have met already
                node.barrier(SCHEDULER + WORKERS)
            player.is_over.wait()


def schedule(address: str, workers: int, throws: int) -> bool:
    """Be the scheduler: ask workers for rounds, and return whether all was counted right.

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
        with place_of("scheduler", address, workers) as node, SimpleApp() as app:
            KVServer(COUNTS, dtype="int64", varying=True).set_request_handle()
            KVServer(BEST, dtype="int64").set_request_handle("max")
            for process in first:
                process.start()
            node.barrier(SCHEDULER + WORKERS)
            show(0, app.wait(app.request(0, "throw", WORKERS)))
            try:
                app.wait(app.request(1, "fall", WORKERS))
            except glintpy.WorkerLost as error:
                print(f"round 1: {error}")
            (dead,) = node.dead_nodes(WORKERS)
            heir.start()
            while dead not in node.live_nodes(WORKERS):
                time.sleep(0.05)
            show(1, app.wait(app.request(1, "throw", dead)))
            app.wait(app.request(ROUNDS, "end", WORKERS))
            is_right = prove(workers, throws)
        for process in team:
            process.join(PATIENCE_S)
        return is_right
    finally:
        for process in team:
            if process.pid is not None:
                process.kill()


def show(round_number: int, answers: dict[int, str]) -> None:
    """Print what workers say.

    Args:
        round_number: of which.
        answers: by the numbers of nodes.
    """
    for number, answer in sorted(answers.items()):
        print(f"round {round_number}: node {number}: {answer}")


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
        description="Dice, thrown by processes of which one falls, with the names of ps-lite.",
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
