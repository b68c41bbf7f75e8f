"""Workers that push gradients of their batches, and servers that make steps of them by FTRL-Proximal."""

from __future__ import annotations

import multiprocessing
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import glintpy
from glintpy.updaters import Ftrl

from .rows import SparseRows, area_under_curve, log_loss, probabilities

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from .numbering import Numbering

__all__ = ["Fitted", "Settings", "fit", "score"]

KEY_BYTES = 8


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        updater: what the servers do with gradients.
        num_workers: processes that train.
        num_epochs: how often each goes over its rows.
        batch_rows: rows whose gradients are summed and pushed at once.
        seed: of the order of rows.
    """

    updater: Ftrl
    num_workers: int = 2
    num_epochs: int = 4
    batch_rows: int = 64
    seed: int = 0


@dataclass(frozen=True)
class Fitted:
    """What came out.

    Attributes:
        weights: (num_keys,) float32.
        touched: (num_keys,) bool, which keys ever got a gradient other than 0.
        num_rows: how many rows were trained on, counted again in each epoch.
        num_batches: how many batches they were.
        num_keys_pulled: keys of all batches; as many were pushed.
        duration_s: from the start of the workers' first batch to the end of the last; that of the slowest.
    """

    weights: NDArray[np.float32]
    touched: NDArray[np.bool_]
    num_rows: int
    num_batches: int
    num_keys_pulled: int
    duration_s: float


@dataclass(frozen=True)
class _Job:
    number: int
    rows: SparseRows
    numbering: Numbering
    weights: glintpy.BigVector
    settings: Settings


@dataclass(frozen=True)
class _Done:
    num_batches: int
    num_keys: int
    duration_s: float


@dataclass(frozen=True)
class _Batch:
    """Rows by positions in ``keys``, and the weights of these, which are on their way."""

    rows: SparseRows
    keys: NDArray[np.int64]
    weights: glintpy.Future[NDArray[np.float32]]


def fit(client: glintpy.Client, rows: SparseRows, numbering: Numbering, settings: Settings) -> Fitted:
    """Train with several processes.

    Args:
        client: of the cluster that holds the weights.
        rows: to train on.
        numbering: the keys of their features.
        settings: how.

    Returns:
        Weights, and what they took.
    """
    # Cyclic: frequent features often have neighbouring numbers, and one server would get them all.
    with client.vector(
        numbering.num_keys, dtype="float32", updater=settings.updater, partitioner="cyclic"
    ) as weights:
        order = np.random.default_rng(settings.seed).permutation(len(rows.labels))
        jobs = [
            _Job(number, rows.select(order[number :: settings.num_workers]), numbering, weights, settings)
            for number in range(settings.num_workers)
        ]
        # Spawned, not forked: this process has threads, and a fork copies their locks as they stand.
        with multiprocessing.get_context("spawn").Pool(settings.num_workers) as pool:
            done = pool.map(_train, jobs, chunksize=1)
        return Fitted(
            weights.pull().result(),
            # A slot of the updater: the sum of a key's squared gradients.
            weights.pull_slot("n").result() > 0,
            num_rows=len(order) * settings.num_epochs,
            num_batches=sum(part.num_batches for part in done),
            num_keys_pulled=sum(part.num_keys for part in done),
            duration_s=max(part.duration_s for part in done),
        )


def score(rows: SparseRows, numbering: Numbering, weights: NDArray[np.floating]) -> tuple[float, float]:
    """Say how good weights are.

    Args:
        rows: that nobody trained on.
        numbering: the keys of their features.
        weights: (num_keys,) floats.

    Returns:
        The area under the ROC curve, and the mean log loss.
    """
    # In slices, since pairs of all rows at once may be many.
    slices = [np.arange(len(rows.labels))[start : start + 4096] for start in range(0, len(rows.labels), 4096)]
    scores = np.concatenate([numbering.expand(rows.select(part)).scores(weights) for part in slices])
    return area_under_curve(rows.labels, scores), log_loss(rows.labels, scores)


def _train(job: _Job) -> _Done:
    """Push the gradients of one worker's rows; the task of a process."""
    num_batches = num_keys = 0
    job.weights.pull([0]).result()  # connects, so that the time is that of training
    began_s = time.monotonic()
    for batch in _one_ahead(_batches(job)):
        job.weights.push(batch.keys, _gradient(batch.rows, batch.weights.result()))  # waited for by nobody
        num_batches += 1
        num_keys += len(batch.keys)
    job.weights.flush()  # raises what failed
    return _Done(num_batches, num_keys, time.monotonic() - began_s)


def _batches(job: _Job) -> Iterator[_Batch]:
    """Yield a worker's batches; the weights of each are asked for when it is made."""
    rng = np.random.default_rng([job.settings.seed, job.number])
    for _ in range(job.settings.num_epochs):
        order = rng.permutation(len(job.rows.labels))
        for start in range(0, len(order), job.settings.batch_rows):
            rows = job.numbering.expand(job.rows.select(order[start : start + job.settings.batch_rows]))
            keys, positions = np.unique(rows.features, return_inverse=True)
            yield _Batch(
                SparseRows(rows.labels, rows.starts, positions, rows.values), keys, job.weights.pull(keys)
            )


def _one_ahead(batches: Iterator[_Batch]) -> Iterator[_Batch]:
    """Make the next batch before the last is used, so that its weights travel meanwhile.

    They lack this worker's own last push, as they lack what others have under way: FTRL was made for that.
    """
    ready = next(batches, None)
    while ready is not None:
        following = next(batches, None)
        yield ready
        ready = following


def _gradient(batch: SparseRows, weights: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the gradient of the sum of the rows' losses: (keys,) float32.

    A sum, not a mean: L1 then weighs against rows, whatever the size of a batch.
    """
    errors = probabilities(batch.scores(weights)) - batch.labels
    spread = np.repeat(errors, np.diff(batch.starts)) * batch.values
    return np.bincount(batch.features, weights=spread, minlength=len(weights)).astype(np.float32)
