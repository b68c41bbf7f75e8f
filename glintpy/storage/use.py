"""How the rows of a table are used, and which of them go when they are too many or too old; pure, time is an argument.

A table that asks for it has two more numbers a row, kept and saved with its values: ``touches``, in how many pushes the
row's key was, and ``touched``, when it was in the last one, in seconds since 1970 by the server's clock.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple, Self

import numpy as np

from glintpy.errors import ShapeError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]

AGE, USE = range(2)
"""By what the rows are chosen that are too many: those that were touched longest ago, or least often."""

_MAX = np.uint32(2**32 - 1)


class Criteria(NamedTuple):
    """Which rows a server is to remove.

    Attributes:
        rows_max: those beyond so many, of those that the others leave; -1: as many as there are.
        older_us: those that were not touched for so many microseconds; -1: however long.
        touches_min: those that were touched less often; 0: none.
        by: which of too many go, ``AGE`` or ``USE``.
    """

    rows_max: int
    older_us: int
    touches_min: int
    by: int

    def bits(self) -> NDArray[np.int64]:
        """Return them as they travel, in place of keys."""
        return np.array(self, np.int64)

    @classmethod
    def of(cls, keys: NDArray[np.int64]) -> Self:
        """Return what has travelled.

        Raises:
            ShapeError: no criteria.
        """
        if keys.shape != (4,) or keys.dtype != np.int64:
            raise ShapeError(f"an eviction has four numbers of int64, not {keys.shape} of {keys.dtype}")
        found = cls(*keys.tolist())
        if found.rows_max < -1 or found.older_us < -1 or found.touches_min < 0 or found.by not in {AGE, USE}:
            raise ShapeError(f"{found} can't be an eviction's")
        return found


def touch(
    rows: NDArray[np.uint32], touches: NDArray[np.uint32], touched: NDArray[np.float64], now: float
) -> None:
    """Note that the keys of some rows are in a push: once, however often it names them.

    Args:
        rows: (k,) in any order; repeats are one.
        touches: by row; changed in place.
        touched: by row; changed in place.
        now: the time of the push.
    """
    counts = touches[rows]
    touches[rows] = counts + (counts < _MAX)
    touched[rows] = now


def chosen(
    criteria: Criteria,
    rows: Rows,
    *,
    touches: NDArray[np.uint32],
    touched: NDArray[np.float64],
    ties: tuple[NDArray[np.int64], NDArray[np.bytes_] | None],
    now: float,
) -> Rows:
    """Return which rows are to go.

    Rows that are alike go by their key, so that it never matters in which rows they lie.

    Args:
        criteria: what was asked for.
        rows: (n,) all that have a key.
        touches: by row.
        touched: by row.
        ties: by row, the bits of keys, and their texts.
        now: the time of the request.
    """
    goes = touches[rows] < criteria.touches_min
    if criteria.older_us >= 0:
        goes |= touched[rows] < now - criteria.older_us / 1e6
    left = rows[~goes]
    too_many = len(left) - criteria.rows_max
    if criteria.rows_max < 0 or too_many <= 0:
        return rows[goes]
    bits, texts = ties
    found = [rows[goes]]
    for ranks in (touches, touched, bits) if criteria.by == USE else (touched, touches, bits):
        # Nothing is put in order: by each of the three some go, some stay, and some are like the best one that goes.
        here = ranks[left]
        limit = np.partition(here, too_many - 1)[too_many - 1]
        found.append(left[here < limit])
        left = left[here == limit]
        too_many -= len(found[-1])
    if texts is not None:
        left = left[np.argsort(texts[left], kind="stable")]
    return np.concatenate((*found, left[:too_many]))
