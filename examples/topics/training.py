"""A fit from its start or a checkpoint to its end: shared counts, workers, barriers and the proof.

It knows the servers as a client's two models and the workers as a team; how topics are sampled is
``sampler.py``'s business.
"""

from __future__ import annotations

import time
from contextlib import ExitStack, nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

import glintpy

from . import checkpoint
from .display import SweepSummary, progress_for
from .proof import Proof, check_counts
from .sampler import Priors, plan_blocks
from .team import Team
from .worker import Count, Share, Sweep, deal_documents

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from numpy.typing import NDArray
    from rich.console import Console

    from .corpus import Corpus

__all__ = ["Fit", "ProofError", "Settings", "fit"]

NUM_BLOCKS = 24
"""Runs of words that a sweep is made of: many enough for counts to be fresh, few enough for few requests."""


class ProofError(Exception):
    """The servers' counts aren't the sum of the workers' assignments: a move was lost or doubled."""


@dataclass(frozen=True)
class Settings:
    """What a fit is to be.

    Attributes:
        num_topics: the number of topics.
        num_sweeps: sweeps to do in this run.
        num_workers: worker processes.
        seed: where chance starts.
        priors: the two priors.
        checkpoint: where to save, a folder or URL; None saves nothing.
        sweeps_per_save: a checkpoint is written after so many sweeps, and at the end.
        resume: go on from the checkpoint.
    """

    num_topics: int
    num_sweeps: int
    num_workers: int
    seed: int
    priors: Priors
    checkpoint: str | None
    sweeps_per_save: int
    resume: bool


@dataclass(frozen=True)
class Fit:
    """What came out.

    Attributes:
        n_wk: (words, topics) int64 counts.
        proof: the last of the proofs, all of which held.
        num_proofs: how often it was made: before the first sweep and after each.
        sweep: sweeps done, those before a resume included.
    """

    n_wk: NDArray[np.int64]
    proof: Proof
    num_proofs: int
    sweep: int


@dataclass(frozen=True)
class _Start:
    sweep: int
    topics: NDArray[np.int32]
    n_wk: glintpy.BigMatrix
    n_k: glintpy.BigVector


def fit(
    client: glintpy.Client,
    corpus: Corpus,
    settings: Settings,
    console: Console,
    *,
    trouble: AbstractContextManager[object] | None = None,
) -> Fit:
    """Fit topics with worker processes that share their counts through the servers.

    Args:
        client: of the cluster that holds the counts.
        corpus: the documents.
        settings: what the fit is to be.
        console: where progress is shown.
        trouble: entered while it trains; see ``chaos.py``.

    Returns:
        The counts and their proof.

    Raises:
        ProofError: after some sweep the servers' counts weren't the sum of the assignments.
        ResumeError: the checkpoint to go on from is missing, damaged or another corpus's.
        WorkerError: a worker ended or failed.
    """
    with ExitStack() as stack:
        start = (
            _from_checkpoint(client, corpus, settings)
            if settings.resume
            else _fresh(client, corpus, settings)
        )
        stack.enter_context(start.n_wk)  # destroyed at the end, on a cluster that others use as well
        stack.enter_context(start.n_k)
        team = stack.enter_context(Team(_shares(corpus, settings, start)))
        n_wk, proof = _prove(start, [report.histogram for report in team.report(Count())], sweep=start.sweep)
        stack.enter_context(trouble or nullcontext())
        last = start.sweep + settings.num_sweeps
        progress = stack.enter_context(progress_for(console, first=start.sweep, last=last))
        for sweep in range(start.sweep + 1, last + 1):
            began_s = time.monotonic()
            reports = team.report(Sweep())
            n_wk, proof = _prove(start, [report.histogram for report in reports], sweep=sweep)
            progress.show(
                SweepSummary(
                    sweep=sweep,
                    last=last,
                    tokens_per_s=corpus.num_tokens / (time.monotonic() - began_s),
                    log_likelihood=sum(report.log_likelihood for report in reports) / corpus.num_tokens,
                )
            )
            if settings.checkpoint and (sweep == last or sweep % settings.sweeps_per_save == 0):
                _save(settings.checkpoint, corpus, settings, start, team, sweep=sweep)
        return Fit(n_wk=n_wk, proof=proof, num_proofs=settings.num_sweeps + 1, sweep=last)


def _fresh(client: glintpy.Client, corpus: Corpus, settings: Settings) -> _Start:
    rng = np.random.default_rng(settings.seed)
    topics = rng.integers(settings.num_topics, size=corpus.num_tokens, dtype=np.int32)
    # Words stand in order of their frequency, so neighbours are equally busy: dealt in turn, no server
    # gets all the busy ones.
    n_wk = client.matrix(len(corpus.vocabulary), settings.num_topics, dtype="int64", partitioner="cyclic")
    n_k = client.vector(settings.num_topics, dtype="int64")
    return _Start(sweep=0, topics=topics, n_wk=n_wk, n_k=n_k)


def _from_checkpoint(client: glintpy.Client, corpus: Corpus, settings: Settings) -> _Start:
    url = settings.checkpoint
    if url is None:
        raise checkpoint.ResumeError("--resume needs a --checkpoint to go on from")
    saved = checkpoint.read(url)
    if saved.fingerprint != corpus.fingerprint():
        raise checkpoint.ResumeError(
            f"the checkpoint at {url} is of another corpus (fingerprint {saved.fingerprint[:12]}, this one's "
            f"{corpus.fingerprint()[:12]}); give the same --corpus, or run again without --resume"
        )
    if saved.num_topics != settings.num_topics:
        raise checkpoint.ResumeError(
            f"the checkpoint at {url} has {saved.num_topics} topics, not {settings.num_topics}; "
            f"go on with --topics {saved.num_topics}, or run again without --resume"
        )
    topics = checkpoint.load_assignments(url, saved, num_tokens=corpus.num_tokens)
    folder = f"{url}/{saved.folder}"
    n_wk = client.load(f"{folder}/n_wk", partitioner="cyclic")
    n_k = client.load(f"{folder}/n_k")
    if not isinstance(n_wk, glintpy.BigMatrix) or not isinstance(n_k, glintpy.BigVector):
        raise checkpoint.ResumeError(f"{folder} doesn't hold a matrix n_wk and a vector n_k")
    return _Start(sweep=saved.sweep, topics=topics, n_wk=n_wk, n_k=n_k)


def _shares(corpus: Corpus, settings: Settings, start: _Start) -> list[Share]:
    blocks = plan_blocks(corpus.words, num_words=len(corpus.vocabulary), num_blocks=NUM_BLOCKS)
    hands = deal_documents(np.diff(corpus.starts), num_workers=settings.num_workers)
    document_of = corpus.documents()
    shares = []
    for number, hand in enumerate(hands):
        positions = corpus.positions_of(hand)
        shares.append(
            Share(
                number=number,
                positions=positions,
                words=corpus.words[positions],
                documents=np.searchsorted(hand, document_of[positions]).astype(np.int32),
                topics=start.topics[positions],
                blocks=blocks,
                first_block=number * (len(blocks) - 1) // settings.num_workers,
                num_topics=settings.num_topics,
                priors=settings.priors,
                seed=(settings.seed, start.sweep, number),
                n_wk=start.n_wk,
                n_k=start.n_k,
                counted=settings.resume,
            )
        )
    return shares


def _prove(
    start: _Start, histograms: list[NDArray[np.int64]], *, sweep: int
) -> tuple[NDArray[np.int64], Proof]:
    pulled_n_wk, pulled_n_k = start.n_wk.pull(), start.n_k.pull()
    n_wk = pulled_n_wk.result()
    proof = check_counts(n_wk, pulled_n_k.result(), histograms)
    if not proof.holds:
        raise ProofError(f"the proof failed after sweep {sweep}: {proof}")
    return n_wk, proof


def _save(url: str, corpus: Corpus, settings: Settings, start: _Start, team: Team, *, sweep: int) -> None:
    # The workers stand at the barrier: counts and assignments are of the same moment.
    name = checkpoint.new_folder(url, sweep=sweep)
    start.n_wk.save(f"{url}/{name}/n_wk")
    start.n_k.save(f"{url}/{name}/n_k")
    team.save(f"{url}/{name}")
    checkpoint.commit(
        url,
        checkpoint.Description(
            folder=name,
            sweep=sweep,
            num_workers=settings.num_workers,
            num_topics=settings.num_topics,
            document_topic=settings.priors.document_topic,
            topic_word=settings.priors.topic_word,
            fingerprint=corpus.fingerprint(),
        ),
    )
