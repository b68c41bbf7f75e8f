"""The command line of the topic model: options in, a run, topics out; the work is in its neighbours."""

from __future__ import annotations

import argparse
import time
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

import glintpy

from .chaos import Chaos
from .checkpoint import ResumeError
from .corpus import Corpus, CorpusError, read_folder, read_standard_library
from .display import describe_topics
from .quality import completion_perplexity, scikit_learn_topics, smoothed, split_held_out
from .sampler import Priors
from .team import WorkerError
from .training import Fit, ProofError, Settings, fit

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = ["main"]

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
"""What shells use for a program that Ctrl-C ended."""

HELD_OUT_SHARE = 0.1
SCIKIT_LEARN_ITERATIONS = 50


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the example.

    Args:
        arguments: the command line without the program's name; None for this process's own.

    Returns:
        The exit status: 0, 1 for an error that was printed, 130 after Ctrl-C.
    """
    options = _parse(arguments)
    console = Console()
    try:
        _run(options, console)
    except KeyboardInterrupt:
        console.print(f"\ninterrupted; --resume goes on from what was last saved in {options.checkpoint}")
        return EXIT_INTERRUPTED
    except (CorpusError, ProofError, ResumeError, WorkerError, glintpy.GlintError) as error:
        # As it stands: its square brackets are no markup, and a traceback would hide the sentence.
        console.print(f"error: {error}", markup=False, highlight=False, soft_wrap=True)
        return EXIT_FAILED
    return 0


def _run(options: argparse.Namespace, console: Console) -> None:
    began_s = time.monotonic()
    corpus = _read(options)
    console.print(
        f"{corpus.num_documents:,} documents, {corpus.num_tokens:,} tokens, "
        f"{len(corpus.vocabulary):,} words, {options.topics} topics, {options.workers} workers",
        highlight=False,
    )
    if options.compare:
        _compare(options, corpus, console)
    else:
        settings = _settings(options, checkpoint=options.checkpoint)
        fitted = _fit(options, corpus, settings, console)
        _print_topics(fitted, corpus, console)
        console.print(f"checkpoint: {options.checkpoint} (--resume goes on from it)", soft_wrap=True)
    console.print(f"{time.monotonic() - began_s:.0f} s in all", highlight=False)


def _compare(options: argparse.Namespace, corpus: Corpus, console: Console) -> None:
    trained, held_out = split_held_out(corpus, share=HELD_OUT_SHARE, seed=options.seed)
    settings = _settings(options, checkpoint=None)
    fitted = _fit(options, trained, settings, console)
    theirs = scikit_learn_topics(
        trained,
        num_topics=options.topics,
        priors=settings.priors,
        iterations=SCIKIT_LEARN_ITERATIONS,
        seed=options.seed,
    )
    ours = smoothed(fitted.n_wk, prior=settings.priors.topic_word)
    console.print(
        f"perplexity of the second halves of {held_out.num_documents} documents held out (less is better):"
    )
    for name, topics in (("these workers", ours), ("scikit-learn", theirs)):
        perplexity = completion_perplexity(
            topics, held_out, document_topic=settings.priors.document_topic, seed=options.seed
        )
        console.print(f"  {name:14s} {perplexity:8.1f}", highlight=False)


def _fit(options: argparse.Namespace, corpus: Corpus, settings: Settings, console: Console) -> Fit:
    if options.chaos:
        # The master would warn of each server that is lost; here that is what was asked for.
        with glintpy.LocalCluster(options.servers, log_level="error") as cluster, cluster.client() as client:
            chaos = Chaos(cluster, console, seed=options.seed)
            fitted = fit(client, corpus, settings, console, trouble=chaos)
        console.print(f"chaos: servers were killed and restarted {chaos.num_kills} times", highlight=False)
    else:
        whose = glintpy.Client(options.master) if options.master else glintpy.local(servers=options.servers)
        with whose as client:
            fitted = fit(client, corpus, settings, console)
    console.print(
        f"proof: n_wk equals the workers' assignments cell by cell, and n_k its sums, at the start and after "
        f"each of {settings.num_sweeps} sweeps: {fitted.proof}",
        highlight=False,
        soft_wrap=True,
    )
    return fitted


def _print_topics(fitted: Fit, corpus: Corpus, console: Console) -> None:
    console.print(f"topics after {fitted.sweep} sweeps, the largest first:", highlight=False)
    for line in describe_topics(fitted.n_wk, corpus.vocabulary):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _read(options: argparse.Namespace) -> Corpus:
    if options.corpus is None:
        return read_standard_library(limit=options.limit_documents)
    return read_folder(options.corpus, limit=options.limit_documents)


def _settings(options: argparse.Namespace, *, checkpoint: str | None) -> Settings:
    return Settings(
        num_topics=options.topics,
        num_sweeps=options.sweeps,
        num_workers=options.workers,
        seed=options.seed,
        priors=Priors(),
        checkpoint=checkpoint,
        sweeps_per_save=options.sweeps_per_save,
        resume=options.resume,
    )


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="topic_model.py",
        description="Find the topics of the Python standard library, or of any folder of texts.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--corpus", type=Path, help="a folder of text files, each a document; else the standard library")
    add("--limit-documents", type=_positive, help="take only so many documents")
    add("--topics", type=_positive, default=30, help="the number of topics")
    add("--sweeps", type=_positive, default=150, help="sweeps over all tokens in this run")
    add("--workers", type=_positive, default=2, help="worker processes")
    add("--servers", type=_positive, default=2, help="server processes of the embedded cluster")
    add("--master", help="the master's address of a running cluster, in place of the embedded one")
    add("--seed", type=_natural, default=0, help="where chance starts")
    add("--checkpoint", default="topic-model", help="where to save: a folder, or any fsspec URL")
    add("--sweeps-per-save", type=_positive, default=50, help="save after so many sweeps, and at the end")
    add("--resume", action="store_true", help="go on from the checkpoint")
    add(
        "--chaos",
        action="store_true",
        help="kill servers of the embedded cluster and restart them, again and again, while it trains",
    )
    add(
        "--compare",
        action="store_true",
        help="hold a tenth of the documents out, print how well these topics and scikit-learn's predict "
        "them, and save nothing",
    )
    options = parser.parse_args(arguments)
    if options.compare and options.resume:
        parser.error("--compare trains on other documents than a checkpoint has; leave --resume out")
    if options.chaos and options.master:
        parser.error("--chaos kills servers, and only those of the embedded cluster; leave --master out")
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _natural(text: str) -> int:
    number = int(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{number} is less than 0")
    return number
