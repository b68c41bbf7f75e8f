"""Adds what is pushed to what is stored; knows no storage and no message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from glintpy.updaters.base import Updater

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Add(Updater):
    """Sums: integers wrap and booleans are or-ed, as numpy's own addition does."""

    name: ClassVar[str] = "add"
    joins: ClassVar[bool] = True

    def combine(self, keys: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Sum the updates of each key.

        Args:
            keys: (n,) integers in any order; repeats are what this is for.
            values: (n, ...) the update of each key, of the model's dtype.

        Returns:
            (k,) keys, rising and without repeats, and the (k, ...) sum of each, of the same dtypes. Both
            are new and the caller's to change.
        """
        if keys.shape[0] == 0:
            return keys.copy(), values.copy()
        # Stable, so that floats are summed in the order in which they were pushed.
        order = np.argsort(keys, kind="stable")
        sorted_keys = keys[order]
        starts = np.flatnonzero(np.concatenate(([True], sorted_keys[1:] != sorted_keys[:-1])))
        with np.errstate(all="ignore"):
            # The dtype is named because numpy sums small integers and bools as int64 unless told.
            sums = np.add.reduceat(values[order], starts, axis=0, dtype=values.dtype)
        return sorted_keys[starts], sums
