"""Repeats of one push made one, by the updater's rule, before anything is sent; knows no server and no socket.

A server applies entries one after the other. Two gradients of one row in one push are one step, along their sum, and
not two; so whoever pushes sums them up first. Updaters that come to the same either way are left alone.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glintpy.models.indexing import Asked, Keys
from glintpy.updaters import Updater


class Combined(NamedTuple):
    """A push without repeats.

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
    asked: Asked, values: NDArray[Any], updater: Updater, *, num_cols: int | None
) -> Combined | None:
    """Return a push without repeats, or None: there are none, or this updater takes them as they come.

    Args:
        asked: the selection.
        values: ``asked.shape``.
        updater: the model's.
        num_cols: of the model; None for a vector.
    """
    if not updater.combines or updater.is_associative:
        return None
    if asked.paired:
        assert num_cols is not None, "vectors have no pairs"
        keys = _written(asked.rows) * num_cols + _written(asked.cols)
        # Where steps are counted, cells of one row stand side by side: together they are one step of it.
        must_rise = updater.counts_steps
        found = (
            _combined(updater, keys, asked.to_wire(values), must_rise=must_rise)
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
