"""Keeps the largest or the smallest of all that is pushed; knows no storage and no message."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from glintpy.updaters.base import Array, Combined, Loop, Updater, reduce_repeats

# Not np.maximum: of +0 and -0 it returns one or the other, depending on the machine's instructions and on where in the
# array they stand. Here the stored one stays, in loops as in arrays.


def _max_loop(
    values: Array, starts: Array, width: int, deltas: Array, _rates: Array, _numbers: Array
) -> None:
    for e in range(starts.size):
        start, at = starts[e], e * width
        value, delta = values[start : start + width], deltas[at : at + width]
        for j in range(width):
            if delta[j] > value[j] or np.isnan(delta[j]):
                value[j] = delta[j]


def _min_loop(
    values: Array, starts: Array, width: int, deltas: Array, _rates: Array, _numbers: Array
) -> None:
    for e in range(starts.size):
        start, at = starts[e], e * width
        value, delta = values[start : start + width], deltas[at : at + width]
        for j in range(width):
            if delta[j] < value[j] or np.isnan(delta[j]):
                value[j] = delta[j]


class Max(Updater):
    """``max(value, delta)``, for every dtype; True beats False.

    NaN beats all numbers and stays, as in ``np.maximum``.
    """

    name: ClassVar[str] = "max"
    kinds: ClassVar[str] = "biuf"
    is_associative: ClassVar[bool] = True
    loop: ClassVar[Loop | None] = staticmethod(_max_loop)

    def combine(self, keys: Array, values: Array) -> Combined:
        """Keep the largest update of each key; see ``Updater.combine``."""
        return reduce_repeats(np.maximum, keys, values)

    def update(
        self,
        values: Array,
        deltas: Array,
        slots: tuple[Array, ...],
        rates: tuple[Any, ...],
        numbers: tuple[Any, ...],
    ) -> tuple[Array, ...]:
        """Return the larger of each two."""
        del slots, rates, numbers
        return (np.where((deltas > values) | np.isnan(deltas), deltas, values),)


class Min(Updater):
    """``min(value, delta)``, for every dtype; False beats True.

    NaN beats all numbers and stays, as in ``np.minimum``.
    """

    name: ClassVar[str] = "min"
    kinds: ClassVar[str] = "biuf"
    is_associative: ClassVar[bool] = True
    loop: ClassVar[Loop | None] = staticmethod(_min_loop)

    def combine(self, keys: Array, values: Array) -> Combined:
        """Keep the smallest update of each key; see ``Updater.combine``."""
        return reduce_repeats(np.minimum, keys, values)

    def update(
        self,
        values: Array,
        deltas: Array,
        slots: tuple[Array, ...],
        rates: tuple[Any, ...],
        numbers: tuple[Any, ...],
    ) -> tuple[Array, ...]:
        """Return the smaller of each two."""
        del slots, rates, numbers
        return (np.where((deltas < values) | np.isnan(deltas), deltas, values),)
