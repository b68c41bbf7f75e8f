"""A worker process: samples its own documents, and shares counts with the others through the servers.

It knows the shared counts only as handles; who else works on them, and whether the proof holds, is its
parent's business.
"""

from __future__ import annotations

import traceback
from collections import deque
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import glintpy

from .checkpoint import save_assignments
from .sampler import Priors, Sampler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from multiprocessing.connection import Connection

    from numpy.typing import NDArray

__all__ = ["Count", "Failed", "Report", "Save", "Saved", "Share", "Stop", "Sweep", "deal_documents", "work"]

BLOCKS_AHEAD = 2
"""Word blocks on their way while one is sampled: one hides the round trip, one more its jitter."""

BUFFER_BYTES = 256 * 1024
"""Moves gathered before they are sent. Larger saves messages, smaller keeps the others' counts fresher."""


@dataclass(frozen=True)
class Share:
    """What one worker is given.

    Attributes:
        number: the worker's number, from 0.
        positions: (tokens,) int64 where its tokens stand in the corpus.
        words: (tokens,) int32 their words.
        documents: (tokens,) int32 their documents, counted from 0 within the share.
        topics: (tokens,) int32 their topics at the start.
        blocks: (blocks + 1,) int64 the word blocks, the same for all workers.
        first_block: where its sweeps begin; apart from the others', so that they seldom meet.
        num_topics: the number of topics.
        priors: the two priors.
        seed: integers of which its chance is made.
        n_wk: the shared counts of words and topics.
        n_k: the shared counts of topics.
        counted: whether the shared counts have its tokens already, as after loading a checkpoint.
    """

    number: int
    positions: NDArray[np.int64]
    words: NDArray[np.int32]
    documents: NDArray[np.int32]
    topics: NDArray[np.int32]
    blocks: NDArray[np.int64]
    first_block: int
    num_topics: int
    priors: Priors
    seed: tuple[int, ...]
    n_wk: glintpy.BigMatrix
    n_k: glintpy.BigVector
    counted: bool


@dataclass(frozen=True)
class Count:
    """Asks for a report on the assignments as they are."""


@dataclass(frozen=True)
class Sweep:
    """Asks for a sweep over all tokens, and a report."""


@dataclass(frozen=True)
class Save:
    """Asks the worker to write its assignments into a folder."""

    folder: str


@dataclass(frozen=True)
class Stop:
    """Asks the worker to end."""


@dataclass(frozen=True)
class Report:
    """A worker at the barrier: all its pushes are in, and these are its own assignments.

    Attributes:
        histogram: (words, topics) int64 counts of its assignments, counted afresh.
        log_likelihood: sum over its tokens of the log probability given all others; 0 without a sweep.
    """

    histogram: NDArray[np.int64]
    log_likelihood: float


@dataclass(frozen=True)
class Saved:
    """A worker's assignments are written."""


@dataclass(frozen=True)
class Failed:
    """A worker met an error and ends; its traceback."""

    reason: str


Command = Count | Sweep | Save | Stop
Reply = Report | Saved | Failed


@dataclass(frozen=True)
class _Ahead:
    block: int
    n_wk: glintpy.Future[NDArray[np.int64]]
    n_k: glintpy.Future[NDArray[np.int64]]
    own_changes: NDArray[np.int64]


def deal_documents(lengths: NDArray[np.int64], *, num_workers: int) -> list[NDArray[np.int64]]:
    """Deal documents to workers so that all have about equally many tokens.

    Args:
        lengths: (documents,) int64 tokens of each document.
        num_workers: how many workers there are.

    Returns:
        For each worker (n,) int64 document numbers, ascending.
    """
    # The longest first, each to the worker with the least so far: off by one short document at most.
    loads = [0] * num_workers
    hands: list[list[int]] = [[] for _ in range(num_workers)]
    for document in np.argsort(-lengths, kind="stable"):
        worker = loads.index(min(loads))
        loads[worker] += int(lengths[document])
        hands[worker].append(int(document))
    return [np.array(sorted(hand), dtype=np.int64) for hand in hands]


def work(connection: Connection[Reply, Command], share: Share) -> None:
    """Serve the parent until it says stop or goes; the target of the process.

    Args:
        connection: to the parent.
        share: what to work on.
    """
    try:
        _serve(connection, _Worker(share))
    except EOFError:
        return  # the parent has gone, and nobody is left to tell
    except Exception:  # noqa: BLE001 - whatever it was, the parent prints it and ends with an error
        connection.send(Failed(traceback.format_exc()))


def _serve(connection: Connection[Reply, Command], worker: _Worker) -> None:
    while True:
        command = connection.recv()
        match command:
            case Count():
                connection.send(worker.count())
            case Sweep():
                connection.send(worker.sweep())
            case Save(folder):
                worker.save(folder)
                connection.send(Saved())
            case Stop():
                return


class _Worker:
    def __init__(self, share: Share) -> None:
        self._share = share
        self._n_wk, self._n_k = share.n_wk, share.n_k
        self._own_changes = np.zeros(share.num_topics, dtype=np.int64)
        self._sampler = Sampler(
            words=share.words,
            documents=share.documents,
            topics=share.topics,
            blocks=share.blocks,
            num_topics=share.num_topics,
            priors=share.priors,
            rng=np.random.default_rng(share.seed),
        )
        if not share.counted:
            self._push_first_counts()

    def count(self) -> Report:
        return Report(self._sampler.histogram(), log_likelihood=0.0)

    def save(self, folder: str) -> None:
        save_assignments(
            folder,
            number=self._share.number,
            positions=self._share.positions,
            topics=self._sampler.topics,
        )

    def sweep(self) -> Report:
        log_likelihood = 0.0
        with glintpy.PushBuffer(self._n_wk, max_bytes=BUFFER_BYTES) as buffer:
            for ahead in self._blocks_ahead():
                # The totals were asked for some blocks ago; what this worker changed since is known to it.
                result = self._sampler.sample_block(
                    ahead.block,
                    n_wk=ahead.n_wk.result(),
                    n_k=ahead.n_k.result() + self._own_changes - ahead.own_changes,
                )
                log_likelihood += result.log_likelihood
                rows = np.concatenate((result.words, result.words))
                cols = np.concatenate((result.old_topics, result.new_topics))
                buffer.push(rows, np.repeat([-1, 1], len(result.words)), cols=cols)
                self._push_totals(result.old_topics, result.new_topics)
        self._arrive()
        return Report(self._sampler.histogram(), log_likelihood)

    def _blocks_ahead(self) -> Iterator[_Ahead]:
        # A block is asked for once a sweep, so it has all of this worker's moves of the sweep before.
        waiting: deque[_Ahead] = deque()
        num_blocks = self._sampler.num_blocks
        for step in range(num_blocks):
            waiting.append(self._ask((self._share.first_block + step) % num_blocks))
            if len(waiting) > BLOCKS_AHEAD:
                yield waiting.popleft()
        yield from waiting

    def _ask(self, block: int) -> _Ahead:
        rows = slice(int(self._share.blocks[block]), int(self._share.blocks[block + 1]))
        return _Ahead(block, self._n_wk.pull(rows), self._n_k.pull(), self._own_changes.copy())

    def _push_totals(self, old_topics: NDArray[np.int64], new_topics: NDArray[np.int64]) -> None:
        size = self._share.num_topics
        change = np.bincount(new_topics, minlength=size) - np.bincount(old_topics, minlength=size)
        # Nobody waits for it: pulls of this process see its earlier pushes, and the barrier sees all.
        self._n_k.push(None, change)
        self._own_changes += change

    def _push_first_counts(self) -> None:
        counts = self._sampler.histogram()
        rows, cols = np.nonzero(counts)
        with glintpy.PushBuffer(self._n_wk, max_bytes=BUFFER_BYTES) as buffer:
            buffer.push(rows, counts[rows, cols], cols=cols)
        self._n_k.push(None, counts.sum(axis=0))
        self._arrive()

    def _arrive(self) -> None:
        self._n_wk.flush()
        self._n_k.flush()
