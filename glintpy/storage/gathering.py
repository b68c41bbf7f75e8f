"""What workers push until a round ends: sums beside the values, and who pushed; knows no file, thread or updater.

Of a model that follows a group's rounds, pushes are summed up in an array of their own, and applied when the round has
ended, each row once. A row is the unit: a cell of it that nobody pushed to counts as a push of 0.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from glintpy.protocol.selection import axis_indices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from glintpy.protocol.selection import Selection
    from glintpy.storage.kernels import Kernels

SOMEBODY = np.uint64(1)
"""Says that a row was pushed to in the open round."""

SCANNED = 1_000_000
"""Rows that are looked at together when a round ends."""


class Gathering:
    """The open round of one shard.

    Args:
        sums: of the values' shape and dtype: what was pushed.
        pushers: (num_rows,) uint64: 0 where nobody has pushed.
    """

    def __init__(self, sums: NDArray[Any], pushers: NDArray[Any]) -> None:
        self._sums = sums
        self._pushers = pushers

    def add(self, selection: Selection, deltas: NDArray[Any], kernels: Kernels) -> None:
        """Sum up a push.

        Args:
            selection: checked.
            deltas: of its shape and the values' dtype.
            kernels: of the values.
        """
        rows = axis_indices(selection.rows)
        kernels.scatter(self._sums, selection, deltas)
        self._pushers[rows] |= SOMEBODY

    def touched(self, first: int, stop: int) -> NDArray[np.int64]:
        """Return the rows of a range that were pushed to, rising."""
        return np.flatnonzero(self._pushers[first:stop]) + first

    def pieces(self, num_rows: int) -> Iterator[tuple[int, int]]:
        """Yield ranges that hold all rows that were pushed to, about so many of them each.

        Rows that are pushed to meanwhile may be in or not.
        """
        for begin in range(0, len(self._pushers), SCANNED):
            rows = self.touched(begin, begin + SCANNED)
            for position in range(0, len(rows), num_rows):
                piece = rows[position : position + num_rows]
                yield int(piece[0]), int(piece[-1]) + 1

    def sums_of(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return a copy of what was pushed to some rows."""
        return self._sums[rows]

    def clear(self, rows: NDArray[np.int64]) -> None:
        """Begin the next round of some rows."""
        self._sums[rows] = 0
        self._pushers[rows] = 0
