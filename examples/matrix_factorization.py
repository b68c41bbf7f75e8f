"""Ratings explained by a few numbers for each user and each item, learnt by several processes at once.

``python examples/matrix_factorization.py [FILE]`` reads ratings, one ``user item rating`` a line with blanks, tabs,
commas, semicolons or ``::`` between, or makes some of a matrix that it knows. A rating is thought to be a mean, plus a
bias of the user, plus one of the item, plus the product of their factors. Users and items are rows of two matrices on
servers, which take gradients and make steps of them by Adagrad (or SGD). Workers wait for nobody. What they reach is
compared with the same algorithm in one process, without any server, and with the mean. ``factors/ratings.py`` has the
files and what is made up.
"""

from __future__ import annotations

import argparse
import math
import multiprocessing
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

# Found through the script's own folder, which type checkers that start above it don't see.
from factors.ratings import (  # type: ignore[import-not-found]
    SYNTHETIC_NOISE,
    Ratings,
    batches_of,
    make_ratings,
    read_ratings,
)

import glintpy
from glintpy.updaters import SGD, Adagrad

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

HELD_OUT_SHARE = 0.1
INITIAL_STD = 0.1

LEARNING_RATES = {"adagrad": 0.1, "sgd": 0.01}
"""SGD's is low: the gradients of an item that many rate add up, and each is as old as what others have under way."""


@dataclass(frozen=True)
class Job:
    """What a worker is given."""

    number: int
    ratings: Ratings
    users: glintpy.BigMatrix
    items: glintpy.BigMatrix
    mean: float
    num_epochs: int
    batch_ratings: int
    seed: int


class Gradients(NamedTuple):
    """Gradients of a batch: the rows that it touches, and as many gradients of each matrix."""

    users: NDArray[np.int64]
    of_users: NDArray[np.float32]
    items: NDArray[np.int64]
    of_items: NDArray[np.float32]


def predict(mean: float, users: NDArray[np.float32], items: NDArray[np.float32]) -> NDArray[np.float32]:
    """Predict ratings.

    Args:
        mean: of all ratings.
        users: (n, rank + 1) each rating's user: factors, and a bias in the last column.
        items: (n, rank + 1) each rating's item.

    Returns:
        (n,) float32.
    """
    products = np.einsum("nk,nk->n", users[:, :-1], items[:, :-1])
    return np.asarray(np.float32(mean) + users[:, -1] + items[:, -1] + products)


def gradients_of(
    batch: Ratings, mean: float, users: NDArray[np.float32], items: NDArray[np.float32]
) -> Gradients:
    """Return the gradients of half the squared errors of a batch.

    Args:
        batch: ratings.
        mean: of all ratings.
        users: (n, rank + 1) each rating's user, as pulled.
        items: (n, rank + 1) each rating's item.

    Returns:
        One gradient for each rating: rows repeat, and who pushes them lets the sums travel.
    """
    errors = (predict(mean, users, items) - batch.values)[:, np.newaxis]  # (n, 1)
    of_users, of_items = errors * items, errors * users
    of_users[:, -1] = of_items[:, -1] = errors[:, 0]  # a bias has the error itself
    return Gradients(batch.users, of_users, batch.items, of_items)


def train(job: Job) -> None:
    """Pull rows, push gradients; the task of a worker.

    Args:
        job: ratings, matrices and settings.
    """
    batches = batches_of(
        job.ratings,
        num_epochs=job.num_epochs,
        batch_ratings=job.batch_ratings,
        seed=[job.seed, job.number],
    )
    # The rows of the next batch travel while this one's gradients are computed.
    following = [
        (batch, job.users.pull(batch.users), job.items.pull(batch.items)) for batch in _first(batches)
    ]
    while following:
        batch, users, items = following.pop()
        following = [(b, job.users.pull(b.users), job.items.pull(b.items)) for b in _first(batches)]
        found = gradients_of(batch, job.mean, users.result(), items.result())
        # Not waited for. A row that repeats in a push gets one step, by the sum of its gradients.
        job.users.push(found.users, found.of_users)
        job.items.push(found.items, found.of_items)
    job.users.flush()
    job.items.flush()


def _first(batches: Iterator[Ratings]) -> list[Ratings]:
    batch = next(batches, None)
    return [] if batch is None else [batch]


class OneProcess:
    """The same algorithm without servers: two arrays, and Adagrad or SGD on their rows."""

    def __init__(
        self, arrays: tuple[NDArray[np.float32], NDArray[np.float32]], updater: Adagrad | SGD
    ) -> None:
        """Begin with given values.

        Args:
            arrays: (num_users, rank + 1) and (num_items, rank + 1).
            updater: whose numbers count.
        """
        self.users, self.items = (array.copy() for array in arrays)
        self._squares = np.zeros_like(self.users), np.zeros_like(self.items)
        self._updater = updater

    def train(self, ratings: Ratings, mean: float, options: argparse.Namespace) -> None:
        """Go over all ratings, as the workers do.

        Args:
            ratings: all of the workers'.
            mean: their mean.
            options: the command line's.
        """
        for batch in batches_of(
            ratings, num_epochs=options.epochs, batch_ratings=options.batch_ratings, seed=[options.seed]
        ):
            found = gradients_of(batch, mean, self.users[batch.users], self.items[batch.items])
            self._step(self.users, self._squares[0], found.users, found.of_users)
            self._step(self.items, self._squares[1], found.items, found.of_items)

    def _step(
        self,
        values: NDArray[np.float32],
        squares: NDArray[np.float32],
        rows: NDArray[np.int64],
        gradients: NDArray[np.float32],
    ) -> None:
        touched, places = np.unique(rows, return_inverse=True)
        sums = np.zeros((len(touched), values.shape[1]), np.float32)
        np.add.at(sums, places, gradients)
        sums += self._updater.weight_decay * values[touched]
        rate = self._updater.learning_rate
        assert isinstance(rate, float), "no schedule here"
        if isinstance(self._updater, Adagrad):
            squares[touched] += sums**2
            sums /= np.sqrt(squares[touched]) + self._updater.epsilon
        values[touched] -= rate * sums


def root_mean_square(
    ratings: Ratings, mean: float, users: NDArray[np.float32], items: NDArray[np.float32]
) -> float:
    """Return the root of the mean squared error.

    Args:
        ratings: that nobody trained on.
        mean: of those that were trained on.
        users: (num_users, rank + 1).
        items: (num_items, rank + 1).

    Returns:
        In units of ratings.
    """
    errors = predict(mean, users[ratings.users], items[ratings.items]) - ratings.values
    return float(np.sqrt(np.mean(errors.astype(np.float64) ** 2)))


def run(client: glintpy.Client, ratings: Ratings, options: argparse.Namespace) -> None:
    """Train with several processes and with one, and print what came out.

    Args:
        client: of the cluster that holds the matrices.
        ratings: all; a part of them is held out.
        options: the command line's.
    """
    order = np.random.default_rng(options.seed).permutation(len(ratings.values))
    if len(order) < 2:
        raise ValueError(f"{len(order)} ratings: one is held out, and at least one is to train on")
    num_held_out = max(1, int(HELD_OUT_SHARE * len(order)))
    held_out, trained = ratings.select(order[:num_held_out]), ratings.select(order[num_held_out:])
    mean = float(trained.values.mean())
    num_users, num_items = int(ratings.users.max()) + 1, int(ratings.items.max()) + 1
    kind = Adagrad if options.updater == "adagrad" else SGD
    rate = LEARNING_RATES[options.updater] if options.learning_rate is None else options.learning_rate
    updater = kind(learning_rate=rate, weight_decay=options.weight_decay)
    print(
        f"{len(trained.values):,} ratings of {num_items:,} items by {num_users:,} users, {num_held_out:,} held out"
    )

    def matrix(num_rows: int, seed: int) -> glintpy.BigMatrix:
        return client.matrix(
            num_rows,
            options.rank + 1,
            dtype="float32",
            partitioner="cyclic",  # items are often numbered by how popular they are
            init=("normal", 0, INITIAL_STD),
            seed=seed,
            updater=updater,
        )

    with matrix(num_users, options.seed) as users, matrix(num_items, options.seed + 1) as items:
        alone = OneProcess((users.pull().result(), items.pull().result()), updater)
        jobs = [
            Job(
                number=number,
                # A worker has all ratings of its users, so that only items are shared.
                ratings=trained.select(np.flatnonzero(trained.users % options.workers == number)),
                users=users,
                items=items,
                mean=mean,
                num_epochs=options.epochs,
                batch_ratings=options.batch_ratings,
                seed=options.seed,
            )
            for number in range(options.workers)
        ]
        began_s = time.monotonic()
        # Spawned, not forked: this process has threads, and a fork copies their locks as they stand.
        with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
            pool.map(train, jobs, chunksize=1)
        duration_s = time.monotonic() - began_s
        together = root_mean_square(held_out, mean, users.pull().result(), items.pull().result())
    alone.train(trained, mean, options)
    if not math.isfinite(together):
        raise ValueError("the workers' values have no bounds any more; try a smaller --learning-rate")
    print("root mean squared error of held-out ratings:")
    print(f"  {root_mean_square(held_out, mean, alone.users, alone.items):.4f}  one process, without servers")
    print(
        f"  {together:.4f}  {options.workers} workers, {options.servers} servers, {options.updater}, asynchronous"
    )
    print(f"  {float(np.sqrt(np.mean((held_out.values - mean) ** 2))):.4f}  the mean for everything")
    if options.file is None:
        print(f"  {SYNTHETIC_NOISE:.4f}  the noise: nobody can do better")
    print(f"{options.epochs} epochs in {duration_s:.1f} s, processes' start included")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise ValueError(text)
    return number


def main() -> int:
    """Read the options and run.

    Returns:
        The exit status: 0, or 1 for an error that was printed.
    """
    parser = argparse.ArgumentParser(
        description="Biased matrix factorisation of ratings by several processes.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    # What argparse calls them in its errors.
    _positive.__name__, _natural.__name__ = "positive integer", "integer of at least 0"
    parser.add_argument("file", nargs="?", type=Path, help="USER ITEM RATING lines; else made-up ratings")
    parser.add_argument(
        "--synthetic", type=_positive, default=150_000, metavar="N", help="ratings to make up"
    )
    parser.add_argument("--users", type=_positive, default=1_500, help="of made-up ratings")
    parser.add_argument("--items", type=_positive, default=800, help="of made-up ratings")
    parser.add_argument("--rank", type=_positive, default=8, help="factors of each user and item")
    parser.add_argument("--updater", choices=["adagrad", "sgd"], default="adagrad")
    parser.add_argument("--learning-rate", type=float, help="else 0.1 for adagrad and 0.01 for sgd")
    parser.add_argument(
        "--weight-decay", type=float, default=0.02, help="of a row, each time it is pushed to"
    )
    parser.add_argument("--workers", type=_positive, default=2, help="processes that train")
    parser.add_argument("--servers", type=_positive, default=2, help="server processes that hold the rows")
    parser.add_argument("--epochs", type=_positive, default=12)
    parser.add_argument("--batch-ratings", type=_positive, default=1024)
    parser.add_argument("--seed", type=_natural, default=0, help="of all that is random")
    options = parser.parse_args()
    try:
        ratings = (
            read_ratings(options.file)
            if options.file is not None
            else make_ratings(options.users, options.items, options.synthetic, options.seed)
        )
        with glintpy.local(servers=options.servers) as client:
            run(client, ratings, options)
    except (OSError, ValueError, glintpy.GlintError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
