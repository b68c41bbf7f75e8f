"""Repeats of one push made one, by the updater's rule, before anything is sent; knows no server and no socket.

A server applies entries one after the other. Two gradients of one row in one push are one step, along their sum, and
not two; so whoever pushes sums them up first. Updaters that come to the same either way are left alone. Where steps
are counted, cells of one row in one push are one step of it, and are brought together: only what stands side by side
is kept in one message.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glintpy import config
from glintpy.errors import ShapeError
from glintpy.models.indexing import Asked, Keys
from glintpy.updaters import Updater

PAIRS_MAX = config.FRAME_BYTES_MAX // 16
"""Cells of one row in one push, where they have to travel together and repeats stay: their rows, columns and values
fit into frames. Repeats summed, a row of fractions that is at most ``config.PART_BYTES`` long has no more."""


class Combined(NamedTuple):
    """A push without repeats, or with those that its updater counts, brought together.

    Attributes:
        asked: what it changes; ``shape`` and ``wire_shape`` are one.
        values: of that shape, and nobody else's.
        axis: of the wire shape, along which there were repeats.
        origin: (n,) for each place along that axis of what was asked, where it is in this.
    """

    asked: Asked
    values: NDArray[Any]
    axis: int
    origin: NDArray[np.int64]

    def spread(self, values: NDArray[Any]) -> NDArray[Any]:
        """Return values of this push's shape for what was asked, repeats written out."""
        return values.take(self.origin, axis=self.axis)


def without_repeats(
    asked: Asked,
    values: NDArray[Any],
    updater: Updater,
    *,
    num_cols: int | None,
    joins_cells: bool = True,
) -> Combined | None:
    """Return a push without repeats, or None: there are none, or this updater takes them as they come.

    Args:
        asked: the selection.
        values: ``asked.shape``.
        updater: the model's.
        num_cols: of the model; None for a vector.
        joins_cells: the updater's; if not, pairs of one row come to stand side by side.

    Raises:
        ShapeError: more pairs of one row than a message takes.
    """
    if not updater.combines or updater.is_associative:
        return None if joins_cells or not asked.paired else _by_row(asked, values)
    if asked.paired:
        assert num_cols is not None, "vectors have no pairs"
        keys = _written(asked.rows) * num_cols + _written(asked.cols)
        found = (
            _combined(updater, keys, asked.to_wire(values), must_rise=not joins_cells)
            if _may_repeat(keys)
            else None
        )
        if found is None:
            return None
        unique, sums, origin = found
        rows, cols = np.divmod(unique, num_cols)
        return Combined(
            Asked(rows, cols, paired=True, shape=sums.shape, wire_shape=sums.shape), sums, 0, origin
        )
    for axis, keys_of_axis in enumerate((asked.rows, asked.cols)):
        if keys_of_axis is None or isinstance(keys_of_axis, range) or not _may_repeat(keys_of_axis):
            continue  # a range has no repeats, and only one of the two is ever a list
        found = _combined(updater, keys_of_axis, np.moveaxis(asked.to_wire(values), axis, 0))
        if found is None:
            continue
        unique, sums, origin = found
        sums = np.ascontiguousarray(np.moveaxis(sums, 0, axis))
        once = Asked(
            unique if axis == 0 else asked.rows,
            unique if axis == 1 else asked.cols,
            paired=False,
            shape=sums.shape,
            wire_shape=sums.shape,
        )
        return Combined(once, sums, axis, origin)
    return None


def _by_row(asked: Asked, values: NDArray[Any]) -> Combined | None:
    """Return pairs with those of one row side by side, in their order, or None: they stand so already."""
    rows = _written(asked.rows)
    is_sorted = bool((rows[1:] >= rows[:-1]).all())
    order = None if is_sorted else np.argsort(rows, kind="stable")
    if order is not None:
        rows = rows[order]
    if len(rows) > PAIRS_MAX:
        ends = np.append(np.flatnonzero(rows[1:] != rows[:-1]) + 1, len(rows))
        most = int(np.diff(ends, prepend=0).max())
        if most > PAIRS_MAX:
            raise ShapeError(
                f"{most} pushes to cells of one row in one call, which are one step of it and so one message; it takes "
                f"{PAIRS_MAX}"
            )
    if order is None:
        return None
    origin = np.empty_like(order)
    origin[order] = np.arange(len(order))
    sent = asked.to_wire(values)[order]
    once = Asked(rows, _written(asked.cols)[order], paired=True, shape=sent.shape, wire_shape=sent.shape)
    return Combined(once, sent, 0, origin)


def _combined(
    updater: Updater, keys: NDArray[np.int64], values: NDArray[Any], *, must_rise: bool = False
) -> tuple[NDArray[np.int64], NDArray[Any], NDArray[np.int64]] | None:
    """Return the keys, rising, an update for each, and where each key went; None: there are no repeats.

    Args:
        updater: whose rule it is.
        keys: (n,).
        values: (n, ...).
        must_rise: an answer is wanted where there are no repeats, too.
    """
    unique, sums = updater.combine(keys, values)
    if len(unique) == len(keys) and not must_rise:
        return None
    return unique, sums, np.searchsorted(unique, keys)


def _may_repeat(keys: NDArray[np.int64]) -> bool:
    """Whether keys don't rise; of one there is nothing to ask."""
    return len(keys) > 1 and not bool((keys[1:] > keys[:-1]).all())


def _written(keys: Keys | None) -> NDArray[np.int64]:
    if isinstance(keys, range):
        return np.arange(keys.start, keys.stop, keys.step, dtype=np.int64)
    assert keys is not None, "pairs have columns"
    return keys
