"""Workers that ask for products, make gradients of them and send these back; none waits for another."""

from __future__ import annotations

import math
import multiprocessing
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import glintpy

from .text import Pairs, Text, pairs_of
from .vectors import SlicedVectors, gradients_of, loss_of

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from numpy.typing import NDArray

__all__ = ["REPORTS", "Report", "Settings", "train"]

REPORTS = 10
"""Times that the loss is told."""

_LOOK_S = 0.1

_LOSS, _PAIRS, _DONE = range(3)
"""Columns of the matrix of what workers report."""


@dataclass(frozen=True)
class Settings:
    """How to train.

    Attributes:
        window: words on either side, at most.
        subsample: see ``pairs_of``.
        negatives: of each pair.
        num_epochs: how often each worker goes over its words.
        batch_pairs: pairs of one step.
        num_workers: processes.
        seed: of all that is random.
    """

    window: int = 5
    subsample: float = 1e-4
    negatives: int = 5
    num_epochs: int = 1
    batch_pairs: int = 1000
    num_workers: int = 2
    seed: int = 0


@dataclass(frozen=True)
class Report:
    """What a part of the training came to.

    Attributes:
        share: of the training that is over.
        loss: the mean of its pairs' losses.
        num_pairs: of this part.
    """

    share: float
    loss: float
    num_pairs: int


@dataclass(frozen=True)
class _Job:
    number: int
    words: NDArray[np.int32]
    counts: NDArray[np.int64]
    vectors: SlicedVectors
    reports: glintpy.BigMatrix
    settings: Settings


@dataclass(frozen=True)
class _Step:
    """Pairs whose products are on their way, and the share of all training that lies before them."""

    pairs: Pairs
    seed: int
    products: glintpy.Future[NDArray[np.float32]]
    share: float


def train(
    client: glintpy.Client,
    text: Text,
    vectors: SlicedVectors,
    settings: Settings,
    *,
    tell: Callable[[Report], None],
) -> float:
    """Train vectors with several processes.

    Args:
        client: of the cluster.
        text: what they read.
        vectors: what they change.
        settings: how.
        tell: called with each report, by this thread.

    Returns:
        Seconds, from the start of the processes to the end of the last.
    """
    with client.matrix(REPORTS, 3) as reports:
        jobs = [
            _Job(number, words, text.counts, vectors, reports, settings)
            for number, words in enumerate(np.array_split(text.words, settings.num_workers))
        ]
        began_s = time.monotonic()
        # Spawned, not forked: this process has threads, and a fork copies their locks as they stand.
        with multiprocessing.get_context("spawn").Pool(settings.num_workers) as pool:
            done = pool.map_async(_work, jobs, chunksize=1)
            num_told = 0
            while not done.ready():
                done.wait(_LOOK_S)
                num_told = _tell(reports.pull().result(), num_told, settings.num_workers, tell)
            done.get()  # raises what a worker raised
        duration_s = time.monotonic() - began_s
        _tell(reports.pull().result(), num_told, settings.num_workers, tell)
    return duration_s


def _tell(
    reports: NDArray[np.float64], num_told: int, num_workers: int, tell: Callable[[Report], None]
) -> int:
    """Tell what all workers are through with, and was not told before."""
    while num_told < REPORTS and reports[num_told, _DONE] == num_workers:
        loss, num_pairs, _ = reports[num_told]
        num_told += 1
        tell(Report(num_told / REPORTS, float(loss / max(1, num_pairs)), int(num_pairs)))
    return num_told


def _work(job: _Job) -> None:
    """Go over one worker's words; the task of a process."""
    report = np.zeros(3)
    number = 0
    negatives = job.settings.negatives
    for step in _one_ahead(_steps(job)):
        while step.share >= (number + 1) / REPORTS:
            number, report = _send(job.reports, number, report)
        products = step.products.result()
        loss = loss_of(products)
        if not math.isfinite(loss):
            raise ValueError(
                "the vectors have no bounds any more; try a smaller --rate, or fewer --batch-pairs"
            )
        report += (loss, len(step.pairs), 0)
        # Waited for by nobody: it counts exactly once, and what is asked next of these servers comes behind it.
        job.vectors.adjust(step.pairs, gradients_of(products), seed=step.seed, negatives=negatives)
    job.vectors.slices.flush()  # raises what failed
    while number < REPORTS:
        number, report = _send(job.reports, number, report)
    job.reports.flush()


def _send(
    reports: glintpy.BigMatrix, number: int, report: NDArray[np.float64]
) -> tuple[int, NDArray[np.float64]]:
    report[_DONE] = 1
    reports.push(number, report)
    return number + 1, np.zeros(3)


def _steps(job: _Job) -> Iterator[_Step]:
    settings = job.settings
    seeds = np.random.default_rng([settings.seed, job.number, 1])
    for epoch in range(settings.num_epochs):
        for pairs in pairs_of(
            job.counts,
            job.words,
            window=settings.window,
            subsample=settings.subsample,
            batch_pairs=settings.batch_pairs,
            seed=[settings.seed, job.number, 0, epoch],
        ):
            seed = int(seeds.integers(2**62))
            products = job.vectors.products(pairs, seed=seed, negatives=settings.negatives)
            yield _Step(pairs, seed, products, (epoch + pairs.share) / settings.num_epochs)


def _one_ahead(steps: Iterator[_Step]) -> Iterator[_Step]:
    """Ask for the next products before the last are used, so that they travel meanwhile.

    They lack this worker's own last step, as they lack what others have under way.
    """
    ready = next(steps, None)
    while ready is not None:
        following = next(steps, None)
        yield ready
        ready = following
