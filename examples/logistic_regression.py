"""Logistic regression on sparse rows; each batch pulls only the weights that it touches.

``python examples/logistic_regression.py FILE`` reads a LIBSVM file, plain, ``.gz`` or ``.bz2``, and trains with several
processes that share one vector of weights. AdaGrad runs in the workers: each keeps the squared gradients that it saw
itself; ``ftrl.py`` has the servers do it. The area under the ROC curve is of rows that no worker trained on.
"""

from __future__ import annotations

import argparse
import multiprocessing
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

# Found through the script's own folder, which type checkers that start above it don't see.
from sparse.rows import (  # type: ignore[import-not-found]
    SparseRows,
    area_under_curve,
    probabilities,
    read_libsvm,
)

import glintpy

if TYPE_CHECKING:
    from numpy.typing import NDArray

HELD_OUT_SHARE = 0.2
ADAGRAD_EPSILON = 1e-10


@dataclass(frozen=True)
class Job:
    """What a worker is given."""

    number: int
    rows: SparseRows
    weights: glintpy.BigVector
    num_epochs: int
    batch_rows: int
    learning_rate: float


@dataclass(frozen=True)
class Traffic:
    """Bytes of weights that travelled to a worker, and what whole vectors would have been."""

    pulled_bytes: int
    dense_bytes: int


def train(job: Job) -> Traffic:
    """Go over some rows for several epochs, in batches; the task of a worker.

    Args:
        job: rows, weights and settings.

    Returns:
        What travelled.
    """
    rng = np.random.default_rng(job.number)
    squares = np.zeros(job.weights.shape[0])
    pulled_bytes = num_batches = 0
    for _ in range(job.num_epochs):
        order = rng.permutation(len(job.rows.labels))
        for start in range(0, len(order), job.batch_rows):
            batch = job.rows.select(order[start : start + job.batch_rows])
            keys, position = np.unique(batch.features, return_inverse=True)
            weights = job.weights.pull(keys).result()
            local = SparseRows(batch.labels, batch.starts, position, batch.values)
            gradient = _gradient(local, weights)
            squares[keys] += gradient**2
            step = -job.learning_rate * gradient / np.sqrt(squares[keys] + ADAGRAD_EPSILON)
            # Not waited for: this worker's next pull sees it all the same, in the order issued.
            job.weights.push(keys, step)
            pulled_bytes += weights.nbytes
            num_batches += 1
    job.weights.flush()
    return Traffic(pulled_bytes, dense_bytes=num_batches * job.weights.num_bytes)


def _gradient(batch: SparseRows, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    errors = probabilities(batch.scores(weights)) - batch.labels
    spread = np.repeat(errors, np.diff(batch.starts)) * batch.values
    return np.bincount(batch.features, weights=spread, minlength=len(weights)) / len(batch.labels)


def run(client: glintpy.Client, rows: SparseRows, options: argparse.Namespace) -> None:
    """Train with several processes, and print what came out.

    Args:
        client: of the cluster that holds the weights.
        rows: all rows; a part of them is held out.
        options: the command line's.
    """
    order = np.random.default_rng(options.seed).permutation(len(rows.labels))
    num_held_out = int(HELD_OUT_SHARE * len(order))
    held_out, trained = rows.select(order[:num_held_out]), order[num_held_out:]
    num_features = rows.num_features
    with client.vector(num_features, dtype="float64") as weights:
        jobs = [
            Job(
                number=number,
                rows=rows.select(trained[number :: options.workers]),
                weights=weights,
                num_epochs=options.epochs,
                batch_rows=options.batch_rows,
                learning_rate=options.learning_rate,
            )
            for number in range(options.workers)
        ]
        # Spawned, not forked: this process has threads, and a fork copies their locks as they stand.
        with multiprocessing.get_context("spawn").Pool(options.workers) as pool:
            traffic = pool.map(train, jobs, chunksize=1)
        area = area_under_curve(held_out.labels, held_out.scores(weights.pull().result()))
    pulled_bytes = sum(part.pulled_bytes for part in traffic)
    dense_bytes = sum(part.dense_bytes for part in traffic)
    print(f"{len(trained):,} rows, {num_features:,} features, {options.workers} workers")
    print(f"area under the ROC curve on {num_held_out:,} held-out rows: {area:.4f}")
    print(
        f"pulled {pulled_bytes:,} bytes of weights; the whole vector for each batch would have been "
        f"{dense_bytes:,} ({pulled_bytes / dense_bytes:.1%})"
    )


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


def _rate(text: str) -> float:
    number = float(text)
    if not 0 < number < np.inf:
        raise ValueError(text)
    return number


def main() -> int:
    """Read the options and run.

    Returns:
        The exit status: 0, or 1 for an error that was printed.
    """
    parser = argparse.ArgumentParser(description="Logistic regression on a LIBSVM file.")
    # What argparse calls them in its errors.
    _positive.__name__, _natural.__name__, _rate.__name__ = (
        "positive integer",
        "integer of at least 0",
        "number above 0",
    )
    parser.add_argument("file", type=Path, help="a LIBSVM file, plain, .gz or .bz2")
    parser.add_argument("--workers", type=_positive, default=2, help="processes that train")
    parser.add_argument("--servers", type=_positive, default=2, help="server processes that hold the weights")
    parser.add_argument("--epochs", type=_positive, default=5)
    parser.add_argument("--batch-rows", type=_positive, default=64)
    parser.add_argument("--learning-rate", type=_rate, default=0.1)
    parser.add_argument("--seed", type=_natural, default=0, help="which rows are held out")
    options = parser.parse_args()
    try:
        rows = read_libsvm(options.file)
        with glintpy.local(servers=options.servers) as client:
            run(client, rows, options)
    except (OSError, ValueError, glintpy.GlintError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
