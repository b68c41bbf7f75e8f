"""Rows most of whose features are zero: read from LIBSVM files, selected, scored; plain numpy."""

from __future__ import annotations

import bz2
import gzip
import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path
    from typing import IO

    from numpy.typing import NDArray

__all__ = ["SparseRows", "area_under_curve", "log_loss", "probabilities", "read_libsvm"]

FEATURES_MAX = 2**31
"""Numbers of pairs of so many features still fit in 64 bits."""


@dataclass(frozen=True)
class SparseRows:
    """Rows of features, most of which are zero.

    Attributes:
        labels: (rows,) float64, 0 or 1.
        starts: (rows + 1,) int64, where each row starts in ``features``.
        features: (entries,) int64 feature numbers from 0, rising within a row.
        values: (entries,) float64 what the rows have there.
    """

    labels: NDArray[np.float64]
    starts: NDArray[np.int64]
    features: NDArray[np.int64]
    values: NDArray[np.float64]

    @property
    def num_features(self) -> int:
        """One more than the highest feature."""
        return int(self.features.max(initial=-1)) + 1

    def select(self, rows: NDArray[np.int64]) -> SparseRows:
        """Take some rows.

        Args:
            rows: (n,) int64 row numbers in any order.

        Returns:
            These rows in this order.
        """
        lengths = np.diff(self.starts)[rows]
        starts = np.concatenate(([0], np.cumsum(lengths)))
        # Each entry's place: where its old row starts, and how far into its new row it stands.
        places = np.repeat(self.starts[rows] - starts[:-1], lengths) + np.arange(starts[-1])
        return SparseRows(self.labels[rows], starts, self.features[places], self.values[places])

    def scores(self, weights: NDArray[np.floating]) -> NDArray[np.float64]:
        """Multiply by a dense vector.

        Args:
            weights: (features,) floats.

        Returns:
            (rows,) float64.
        """
        rows = np.repeat(np.arange(len(self.labels)), np.diff(self.starts))
        products = self.values * weights[self.features]
        return np.bincount(rows, weights=products, minlength=len(self.labels)).astype(np.float64)


def read_libsvm(path: Path) -> SparseRows:
    """Read a LIBSVM file: a label, then ``feature:value`` pairs with rising features from 1.

    Args:
        path: the file; ``.gz`` and ``.bz2`` are decompressed.

    Returns:
        The rows. Of the file's two labels the higher one is 1.

    Raises:
        OSError: the file can't be read.
        ValueError: a line isn't of this form, there is no row, or there aren't two labels.
    """
    labels: list[float] = []
    starts = [0]
    features: list[int] = []
    values: list[float] = []
    for number, line in _lines(path):
        words = line.partition("#")[0].split()
        if not words:
            continue
        try:
            labels.append(_finite(words[0]))
            previous = 0
            for word in words[1:]:
                feature, _, value = word.partition(":")
                previous = _next_feature(feature, previous)
                features.append(previous - 1)
                values.append(_finite(value))
        except ValueError as error:
            raise ValueError(
                f"{path}, line {number}: {error}; expected LABEL FEATURE:VALUE ..., features rising from 1"
            ) from error
        starts.append(len(features))
    kinds = sorted(set(labels))
    if len(kinds) != 2:
        found = ", ".join(f"{label:g}" for label in kinds[:5]) or "no row"
        raise ValueError(f"{path}: a file has rows of two labels; this one has {found}")
    return SparseRows(
        (np.array(labels) == kinds[1]).astype(np.float64),
        np.array(starts, dtype=np.int64),
        np.array(features, dtype=np.int64),
        np.array(values, dtype=np.float64),
    )


def _lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yield each line with its number, from 1."""
    opened: dict[str, Callable[..., IO[str]]] = {".gz": gzip.open, ".bz2": bz2.open}
    # What is no text is replaced by a mark, which is no number: so the error names its line.
    with opened.get(path.suffix, open)(path, "rt", encoding="utf-8", errors="replace") as file:
        try:
            yield from enumerate(file, start=1)
        except (EOFError, zlib.error) as error:
            raise ValueError(f"{path} is damaged or cut off: {error}") from error


def _finite(word: str) -> float:
    number = float(word)
    if not math.isfinite(number):
        raise ValueError(f"{word} is not finite")
    return number


def _next_feature(word: str, previous: int) -> int:
    feature = int(word)
    if not previous < feature <= FEATURES_MAX:
        raise ValueError(f"feature {feature} after {previous}")
    return feature


def probabilities(scores: NDArray[np.float64]) -> NDArray[np.float64]:
    """Apply the logistic function.

    Args:
        scores: (rows,) float64.

    Returns:
        (rows,) float64 between 0 and 1.
    """
    # Clipped: exp overflows beyond 700, where the probability has long been 0 or 1 to the last digit.
    return np.asarray(1 / (1 + np.exp(-np.clip(scores, -500, 500))))


def log_loss(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """Return the mean of minus the logarithm of the probability that each row's label was given.

    Args:
        labels: (rows,) float64, 0 or 1.
        scores: (rows,) float64.

    Returns:
        At least 0; the logarithm of 2 for scores of 0.
    """
    return float(np.mean(np.logaddexp(0, np.where(labels == 1, -scores, scores))))


def area_under_curve(labels: NDArray[np.float64], scores: NDArray[np.float64]) -> float:
    """Tell how probably a positive row scores above a negative one, ties counting half.

    Args:
        labels: (rows,) float64, 0 or 1.
        scores: (rows,) float64.

    Returns:
        The area under the ROC curve, by the rank-sum formula.

    Raises:
        ValueError: all rows have the same label.
    """
    num_positive = int(labels.sum())
    num_negative = len(labels) - num_positive
    if not num_positive or not num_negative:
        raise ValueError(f"{num_positive} positive and {num_negative} negative rows; a curve needs both")
    _, group, sizes = np.unique(scores, return_inverse=True, return_counts=True)
    ranks = (np.cumsum(sizes) - (sizes - 1) / 2)[group]  # equal scores share their average rank
    rank_sum = float(ranks[labels == 1].sum())
    return (rank_sum - num_positive * (num_positive + 1) / 2) / (num_positive * num_negative)
