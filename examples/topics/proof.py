"""The proof that no move was lost or doubled; arithmetic on counts, knows nothing of how they travelled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

__all__ = ["Proof", "check_counts"]


@dataclass(frozen=True)
class Proof:
    """What was compared, and everything that differs.

    Attributes:
        shape: words and topics.
        num_tokens: tokens counted by the workers.
        num_wrong_cells: cells of ``n_wk`` that differ from the workers' assignments.
        num_wrong_totals: topics of which ``n_k`` differs from the column's sum in ``n_wk``.
        first: the first difference in words; empty where there is none.
    """

    shape: tuple[int, int]
    num_tokens: int
    num_wrong_cells: int
    num_wrong_totals: int
    first: str

    @property
    def holds(self) -> bool:
        """Whether nothing differs."""
        return not self.num_wrong_cells and not self.num_wrong_totals

    def __str__(self) -> str:
        words, topics = self.shape
        if self.holds:
            return f"{words:,} x {topics} cells, {self.num_tokens:,} tokens"
        return (
            f"{self.num_wrong_cells:,} of {words:,} x {topics} cells of n_wk differ from the workers' "
            f"assignments, {self.num_wrong_totals:,} of {topics} totals of n_k from n_wk; first: {self.first}"
        )


def check_counts(
    n_wk: NDArray[np.int64], n_k: NDArray[np.int64], histograms: Sequence[NDArray[np.int64]]
) -> Proof:
    """Compare what the servers hold with what the workers' own assignments say, cell by cell.

    Args:
        n_wk: (words, topics) int64 counts pulled from the servers.
        n_k: (topics,) int64 totals pulled from the servers.
        histograms: (words, topics) int64 counts of each worker's own assignments.

    Returns:
        The proof, which holds or says what differs.
    """
    assigned = np.sum(histograms, axis=0)
    summed = n_wk.sum(axis=0)
    wrong_cells = np.argwhere(n_wk != assigned)
    wrong_totals = np.flatnonzero(n_k != summed)
    first = ""
    if len(wrong_cells):
        word, topic = wrong_cells[0]
        first = (
            f"n_wk[{word}, {topic}] is {n_wk[word, topic]:,}, "
            f"the assignments make it {assigned[word, topic]:,}"
        )
    elif len(wrong_totals):
        topic = wrong_totals[0]
        first = f"n_k[{topic}] is {n_k[topic]:,}, its column in n_wk sums to {summed[topic]:,}"
    return Proof(
        shape=(n_wk.shape[0], n_wk.shape[1]),
        num_tokens=int(assigned.sum()),
        num_wrong_cells=len(wrong_cells),
        num_wrong_totals=len(wrong_totals),
        first=first,
    )
