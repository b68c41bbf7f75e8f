"""What workers push until a round ends: sums beside the values, and who pushed; knows no file, thread or updater.

Of a model that follows a group, pushes are summed up in an array of their own, and applied when their round ends, each
row once. A row is the unit: a cell of it that nobody pushed to counts as a push of 0. Rounds are of two kinds, and a
row is in one of them at a time. A *step* ends for all rows when the master says so. A round with a *tag* ends for each
row by itself, with the push of the last worker of those that the master says are alive.

The sums of a row to which nobody has pushed are anything: so a round's first push is stored rather than added, its last
one is added to the sums without being stored there, and nothing is cleared behind it. Of two workers that push whole
arrays, the one costs a copy and the other a sum.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from glintpy.errors import ConfigError, ShapeError
from glintpy.protocol.rounds import STEP, Turn
from glintpy.protocol.selection import Selection, axis_indices, is_slices, slices_of

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from glintpy.storage.kernels import Kernels

SOMEBODY = 1 << 63
"""The mark of a push that belongs to a step; the other bits are ranks."""

SCANNED = 1_000_000
"""Rows that are looked at together when a round ends."""


class Ending(NamedTuple):
    """Which rounds are to end: with ``live`` 0 the step, else rounds with tags to which all these ranks have pushed."""

    live: int = 0


class Gathering:
    """The open rounds of one shard.

    Args:
        pushers: (num_rows,) uint64: a bit for each rank that has pushed; 0: nobody has.
        tags: (num_rows,) uint64: of the open round; 0: a step, or none.
        sums: of the values' shape and dtype: what was pushed; where nobody has, anything.
    """

    def __init__(self, pushers: NDArray[Any], tags: NDArray[Any], sums: NDArray[Any]) -> None:
        self._pushers = pushers
        self._tags = tags
        self._sums = sums

    def check(self, selection: Selection, turn: Turn) -> None:
        """Refuse a push that doesn't belong to the rounds that are open.

        Args:
            selection: checked.
            turn: whose push it is, and to which round.

        Raises:
            ShapeError: some columns of rows, to a round with a tag.
            ConfigError: a row is in another round, or its worker has pushed to it in this one.
        """
        if turn.tag and selection.cols is not None:
            raise ShapeError(
                "a push to a round with a tag is of whole rows, since the round ends for whole rows"
            )
        rows = _places(selection)
        pushers, tags = self._pushers[rows], self._tags[rows]
        is_other = (pushers != 0) & (tags != turn.tag)
        if is_other.any():
            index = int(np.flatnonzero(is_other)[0])
            raise ConfigError(
                f"a push of {_named(turn.tag)} to a row that is in {_named(int(tags[index]))}, to which "
                f"{_ranks(int(pushers[index]))} pushed: that one has to end first"
            )
        if turn.tag and (pushers & np.uint64(1 << turn.rank)).any():
            raise ConfigError(
                f"rank {turn.rank} has pushed to a row in {_named(turn.tag)} already, and others have not: it "
                "pushes once, and then waits for the round's end by pulling with the same tag"
            )

    def closing(self, selection: Selection, turn: Turn, live: int) -> NDArray[np.int64]:
        """Return the rows whose round ends with a push, rising.

        Args:
            selection: checked.
            turn: whose push it is.
            live: the ranks that are alive; 0: nobody knows.
        """
        if not turn.tag or not live:
            return np.empty(0, np.int64)
        rows = _places(selection)
        needed = np.uint64(live & ~(1 << turn.rank))
        is_last = (self._pushers[rows] & needed) == needed
        found = _chosen(rows, is_last)
        return found if (found[1:] > found[:-1]).all() else np.unique(found)

    def is_fresh(self, selection: Selection) -> bool:
        """Whether a push is of whole rows, side by side, to which nobody has pushed."""
        rows = _places(selection)
        return isinstance(rows, slice) and selection.cols is None and not self._pushers[rows].any()

    def total(
        self, selection: Selection, deltas: NDArray[Any], closing: NDArray[np.int64]
    ) -> NDArray[Any] | None:
        """Return what a round adds up to with its last push, for which nothing has to be stored but what follows.

        Args:
            selection: checked.
            deltas: what is pushed, of its shape and the values' dtype.
            closing: the rows whose round ends.

        Returns:
            Of the selection's shape; None: not all of its rows end their round, or they don't lie side by side.
        """
        rows = _places(selection)
        if not isinstance(rows, slice) or len(closing) < rows.stop - rows.start:
            return None
        pushers = self._pushers[rows]
        if pushers.all():
            with np.errstate(all="ignore"):  # what overflows does so as in any other push
                found: NDArray[Any] = self._sums[rows] + deltas
            return found
        return None if pushers.any() else deltas

    def store(self, selection: Selection, deltas: NDArray[Any], turn: Turn) -> None:
        """Take a push to fresh rows for their sums.

        Args:
            selection: fresh.
            deltas: of its shape and the values' dtype.
            turn: whose push it is.
        """
        self._sums[_places(selection)] = deltas
        self._mark(selection, turn)

    def add(self, selection: Selection, deltas: NDArray[Any], kernels: Kernels, turn: Turn = STEP) -> None:
        """Sum up a push.

        Args:
            selection: checked.
            deltas: of its shape and the values' dtype.
            kernels: of the values.
            turn: whose push it is.
        """
        rows = _places(selection)
        self._sums[_chosen(rows, self._pushers[rows] == 0)] = 0
        kernels.scatter(self._sums, selection, deltas)
        self._mark(selection, turn)

    def _mark(self, selection: Selection, turn: Turn) -> None:
        rows = _places(selection)
        self._pushers[rows] |= np.uint64(1 << turn.rank if turn.tag else SOMEBODY)
        self._tags[rows] = turn.tag

    def is_open(self, selection: Selection, turn: Turn) -> bool:
        """Whether some of these rows wait for others in a round to which this worker has pushed."""
        rows = _places(selection)
        mine = (self._pushers[rows] & np.uint64(1 << turn.rank)) != 0
        return bool((mine & (self._tags[rows] == turn.tag)).any())

    def ending(self, first: int, stop: int, ending: Ending) -> NDArray[np.int64]:
        """Return the rows of a range whose round is to end, rising."""
        pushers, tags = self._pushers[first:stop], self._tags[first:stop]
        if ending.live:
            live = np.uint64(ending.live)
            return np.flatnonzero((tags != 0) & ((pushers & live) == live)) + first
        return np.flatnonzero((pushers != 0) & (tags == 0)) + first

    def pieces(self, num_rows: int, ending: Ending) -> Iterator[tuple[int, int]]:
        """Yield ranges that hold all rows whose round is to end, about so many of them each.

        Rows that are pushed to meanwhile may be in or not.
        """
        for begin in range(0, len(self._pushers), SCANNED):
            rows = self.ending(begin, begin + SCANNED, ending)
            for position in range(0, len(rows), num_rows):
                piece = rows[position : position + num_rows]
                yield int(piece[0]), int(piece[-1]) + 1

    def sums_of(self, selection: Selection) -> NDArray[Any]:
        """Return what was pushed to some rows, until they are cleared."""
        return self._sums[_places(selection)]

    def clear(self, selection: Selection) -> None:
        """Begin the next round of some rows."""
        rows = _places(selection)
        self._pushers[rows] = 0
        self._tags[rows] = 0


def together(rows: NDArray[np.int64]) -> Selection:
    """Return the selection of some rows, as a slice if none between them is missing.

    Args:
        rows: rising, at least one.
    """
    first, stop = int(rows[0]), int(rows[-1]) + 1
    return Selection(slices_of((first, stop, 1)) if stop - first == len(rows) else rows)


def _places(selection: Selection) -> slice | NDArray[Any]:
    """Return where rows lie: a slice, which is several times faster, if they lie side by side."""
    rows = selection.rows
    if is_slices(rows) and len(rows) == 1 and rows[0, 2] == 1:
        return slice(int(rows[0, 0]), int(rows[0, 1]))
    return axis_indices(rows)


def _chosen(rows: slice | NDArray[Any], mask: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return those of some rows, (n,) of ``_places``, for which an (n,) mask is set."""
    first = rows.start if isinstance(rows, slice) else 0
    places = np.flatnonzero(mask) if isinstance(rows, slice) else rows[mask]
    found: NDArray[np.int64] = places.astype(np.int64, copy=False) + first
    return found


def _named(tag: int) -> str:
    return f"round {tag - 1}" if tag else "a step"


def _ranks(pushers: int) -> str:
    if pushers & SOMEBODY:
        return "workers"
    return "ranks " + ", ".join(str(rank) for rank in range(63) if pushers >> rank & 1)
