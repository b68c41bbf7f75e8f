"""What the user sees: progress while it runs, topics at the end; knows no servers and no processes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, Self

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

if TYPE_CHECKING:
    from collections.abc import Sequence
    from types import TracebackType

    from numpy.typing import NDArray
    from rich.console import Console

__all__ = ["Bar", "Lines", "Progressing", "SweepSummary", "describe_topics", "progress_for"]

SWEEPS_PER_LINE = 10
"""Without a terminal a log is read later, and ten sweeps tell what one does."""


@dataclass(frozen=True)
class SweepSummary:
    """One sweep in numbers.

    Attributes:
        sweep: sweeps done, those before a resume included.
        last: the sweep after which the run ends.
        tokens_per_s: tokens sampled in a second, the barrier and the proof included.
        log_likelihood: log probability of a token given all others, on average.
    """

    sweep: int
    last: int
    tokens_per_s: float
    log_likelihood: float


class Progressing(Protocol):
    """Something that shows sweeps as they end; a context manager."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, summary: SweepSummary) -> None:
        """Show a sweep that has ended.

        Args:
            summary: the sweep in numbers.
        """


class Bar:
    """A progress bar, for a terminal that somebody watches.

    Args:
        console: the terminal.
        first: sweeps done before this run.
        last: the sweep after which it ends.
    """

    def __init__(self, console: Console, *, first: int, last: int) -> None:
        self._progress = Progress(
            TextColumn("sweep"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("{task.fields[numbers]}"),
            console=console,
        )
        self._task = self._progress.add_task("sweep", total=last, completed=first, numbers="")

    def __enter__(self) -> Self:
        self._progress.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._progress.stop()

    def show(self, summary: SweepSummary) -> None:
        """Move the bar.

        Args:
            summary: the sweep in numbers.
        """
        self._progress.update(self._task, completed=summary.sweep, numbers=_numbers(summary))


class Lines:
    """A plain line every few sweeps, for logs and pipes.

    Args:
        console: where lines go.
    """

    def __init__(self, console: Console) -> None:
        self._console = console

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Nothing is left to tidy up."""

    def show(self, summary: SweepSummary) -> None:
        """Print a line, if it is this sweep's turn.

        Args:
            summary: the sweep in numbers.
        """
        if summary.sweep % SWEEPS_PER_LINE == 0 or summary.sweep == summary.last:
            self._console.print(
                f"sweep {summary.sweep}/{summary.last}: {_numbers(summary)}", highlight=False, soft_wrap=True
            )


def progress_for(console: Console, *, first: int, last: int) -> Progressing:
    """Choose between a bar and lines.

    Args:
        console: where it is shown.
        first: sweeps done before this run.
        last: the sweep after which it ends.

    Returns:
        A bar where a terminal is watching, else lines.
    """
    return Bar(console, first=first, last=last) if console.is_terminal else Lines(console)


def describe_topics(n_wk: NDArray[np.int64], vocabulary: Sequence[str], *, num_words: int = 10) -> list[str]:
    """Name each topic by its most frequent words.

    Args:
        n_wk: (words, topics) int64 counts.
        vocabulary: the words.
        num_words: how many words a topic is named by.

    Returns:
        A line a topic, the topic with the most tokens first, with its share of all tokens.
    """
    totals = n_wk.sum(axis=0)
    lines = []
    for topic in np.argsort(-totals, kind="stable"):
        # Words that the topic doesn't have say nothing about it, also where it has fewer than ten.
        top = [word for word in np.argsort(-n_wk[:, topic], kind="stable")[:num_words] if n_wk[word, topic]]
        share = totals[topic] / max(int(totals.sum()), 1)
        lines.append(f"{share:5.1%}  {' '.join(vocabulary[word] for word in top)}")
    return lines


def _numbers(summary: SweepSummary) -> str:
    return f"{summary.tokens_per_s:,.0f} tokens/s, log-likelihood {summary.log_likelihood:.4f} a token"
