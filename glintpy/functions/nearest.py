"""The rows that are nearest to a vector; pure numpy."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from glintpy.errors import ConfigError, DTypeError, ShapeError
from glintpy.functions.base import Answer, Array, Ask, Asking, Piece, Reading, Selected, check_int
from glintpy.functions.reductions import row_norms

K_MAX = 2**16
"""Rows that each piece may answer with."""


@dataclass(frozen=True)
class TopK(Reading):
    """The ``k`` rows with the largest products with a vector: (keys, scores), the best first.

    Of equal scores the row that stands first in the selection is the better one; NaN is worse than any number.

    Attributes:
        metric: ``"dot"``; or ``"cosine"``, where rows of zeros have 0.
    """

    name: ClassVar[str] = "top_k"
    takes: ClassVar[tuple[str, ...]] = ("query",)
    in_order: ClassVar[bool] = True
    k: int = 10
    metric: Literal["dot", "cosine"] = "dot"

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: one is out of its range.
        """
        super().__post_init__()
        check_int("k", self.k, low=1, high=K_MAX)
        if self.metric not in {"dot", "cosine"}:
            raise ConfigError(f'metric is "dot" or "cosine", not {self.metric!r:.80}')

    @property
    def names_rows(self) -> Literal["", "each", "some"]:
        """See ``Reading``."""
        return "some"

    def prepare(self, selected: Selected, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """See ``Function``."""
        (query,) = arrays
        if query.dtype.kind not in "biuf":
            raise DTypeError(f"query has dtype {query.dtype}, and numbers are needed")
        if query.ndim == 0 and selected.num_cols is None:
            query = query.reshape(1)
        if query.shape != (selected.width,):
            raise ShapeError(f"query has shape {query.shape}; a row has {selected.width} cells")
        return (query.astype(np.float64),)

    def check(self, selected: Selected, arrays: tuple[Array, ...]) -> None:
        """See ``Function``."""
        super().check(selected, arrays)
        (query,) = arrays
        if query.shape != (selected.width,) or query.dtype != np.float64:
            raise ShapeError(f"query is ({selected.width},) float64, not {query.shape} {query.dtype.name}")

    def read(self, piece: Piece) -> Answer:
        """See ``Reading``."""
        (query,) = piece.arrays
        rows = piece.matrix.astype(np.float64)
        # Row by row, so that equal rows have equal scores wherever they stand.
        scores = np.einsum("ij,j->i", rows, query)
        if self.metric == "cosine":
            scale = row_norms(rows) * float(np.sqrt(np.dot(query, query)))
            scores = np.where(scale == 0, 0.0, scores / scale)
        best = best_of(scores, self.k)
        return best, scores[best]

    def combine(self, asking: Asking, answers: list[tuple[Ask, Answer]]) -> Any:
        """See ``Reading``."""
        positions, scores = [np.empty(0, np.int64)], [np.empty(0)]
        for ask, (rows, found) in answers:
            at = ask.positions
            start, step = (at.start, at.step or 1) if isinstance(at, slice) else (0, 1)
            positions.append(start + rows * step if isinstance(at, slice) else at[rows])
            scores.append(found)
        places, all_scores = np.concatenate(positions), np.concatenate(scores)
        order = np.lexsort((places, -all_scores))[: self.k]
        return asking.keys(places[order]), all_scores[order]


def best_of(scores: Array, k: int) -> Array:
    """Return the indices of the ``k`` largest scores, the best first; equal ones in their order, NaNs last."""
    worse = -scores
    if k < len(scores):
        limit = np.partition(worse, k - 1)[k - 1]
        candidates = np.arange(len(scores)) if np.isnan(limit) else np.flatnonzero(worse <= limit)
        best: Array = candidates[np.argsort(worse[candidates], kind="stable")[:k]]
        return best
    return np.argsort(worse, kind="stable")
