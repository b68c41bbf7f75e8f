"""Which key of the model a feature, or a pair of features, has; plain arithmetic, the same in every worker."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .rows import SparseRows

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Numbering"]

KEYS_MAX = 2**26
"""More than these are hashed, or refused: 2**26 weights and their slots are 800 MB."""

# The finisher of splitmix64 (Steele, Lea and Flood 2014), which spreads neighbouring numbers over 64 bits.
_FIRST = np.uint64(0xBF58476D1CE4E5B9)
_SECOND = np.uint64(0x94D049BB133111EB)


@dataclass(frozen=True)
class Numbering:
    """Keys of features and, if wanted, of all pairs of features.

    Features come first, then pairs: (1, 0), (2, 0), (2, 1), (3, 0) and so on, so that no table is needed. With
    ``buckets`` these numbers are hashed to so many keys; those that meet in one share a weight.

    Attributes:
        num_features: how many there are.
        pairs: whether a row has its pairs, too.
        buckets: how many keys; None: one for each number.
    """

    num_features: int
    pairs: bool = False
    buckets: int | None = None

    def __post_init__(self) -> None:
        """Check the size.

        Raises:
            ValueError: too many keys for a table, or fewer than one.
        """
        if not 1 <= self.num_keys <= KEYS_MAX:
            raise ValueError(
                f"{self.num_keys:,} keys; a model here has from 1 to {KEYS_MAX:,}. Hash them to fewer: --buckets N"
            )

    @property
    def num_keys(self) -> int:
        """How many weights the model has."""
        if self.buckets is not None:
            return self.buckets
        return self.num_features + (self.num_features * (self.num_features - 1) // 2 if self.pairs else 0)

    def expand(self, rows: SparseRows) -> SparseRows:
        """Return the rows with keys instead of features, and with their pairs.

        A batch is expanded when it is needed: nobody holds the pairs of all rows.

        Args:
            rows: with features below ``num_features``.

        Returns:
            As many rows. The value of a pair is the product of its two.
        """
        if not self.pairs:
            return SparseRows(rows.labels, rows.starts, self._hashed(rows.features), rows.values)
        entries = np.arange(len(rows.features))
        lengths = np.diff(rows.starts)
        num_pairs = lengths * (lengths - 1) // 2
        starts = np.concatenate(([0], np.cumsum(lengths + num_pairs)))
        # Each entry is paired with those before it in its row, of which there are as many as it is deep in it.
        depths = entries - np.repeat(rows.starts[:-1], lengths)
        upper = np.repeat(entries, depths)
        first = np.cumsum(depths) - depths  # where each entry's pairs start among all pairs
        lower = np.arange(len(upper)) - np.repeat(first, depths) + np.repeat(entries - depths, depths)
        high, low = rows.features[upper], rows.features[lower]
        # A row's features, then its pairs.
        before = np.cumsum(num_pairs) - num_pairs
        of_single = entries + np.repeat(starts[:-1] - rows.starts[:-1], lengths)
        of_pair = np.arange(len(upper)) + np.repeat(starts[:-1] + lengths - before, num_pairs)
        keys, values = np.empty(starts[-1], np.int64), np.empty(starts[-1])
        keys[of_single], keys[of_pair] = rows.features, self.num_features + high * (high - 1) // 2 + low
        values[of_single], values[of_pair] = rows.values, rows.values[upper] * rows.values[lower]
        return SparseRows(rows.labels, starts, self._hashed(keys), values)

    def _hashed(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        if self.buckets is None:
            return numbers
        mixed = numbers.astype(np.uint64)
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _FIRST  # wraps, as it should
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _SECOND
        mixed ^= mixed >> np.uint64(31)
        return (mixed % np.uint64(self.buckets)).astype(np.int64)
