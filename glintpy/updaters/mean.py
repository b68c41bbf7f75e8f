"""Keeps the mean of all that is pushed; knows no storage and no message."""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

from glintpy.updaters.base import Array, Loop, Slot, Updater


def _loop(  # noqa: PLR0917 - a loop's arguments: see Updater
    values: Array,
    counts: Array,
    starts: Array,
    width: int,
    deltas: Array,
    _rates: Array,
    numbers: Array,
) -> None:
    one = numbers[0]
    for e in range(starts.size):
        start, at = starts[e], e * width
        value, delta = values[start : start + width], deltas[at : at + width]
        count = counts[start : start + width]
        for j in range(width):
            count[j] = count[j] + one
            if count[j] > one:
                value[j] = value[j] + (delta[j] - value[j]) / count[j]
            else:
                value[j] = delta[j]


class Mean(Updater):
    """The mean of all values that were pushed to a cell, repeats in one push included.

    ``count += 1; value += (delta - value) / count``, after Welford (1962), which doesn't lose digits to a large sum;
    float16 to float64. The first push takes the place of what the model began with, which is no part of the mean. A
    count has the model's dtype (float32 for float16), so one of float32 stays at 2**24 pushes: from there on the mean
    is one that forgets.
    """

    name: ClassVar[str] = "mean"
    slots: ClassVar[tuple[Slot, ...]] = (Slot("count"),)
    combines: ClassVar[bool] = False
    loop: ClassVar[Loop | None] = staticmethod(_loop)

    def numbers(self) -> tuple[float, ...]:
        """Return 1."""
        return (1.0,)

    def update(
        self,
        values: Array,
        deltas: Array,
        slots: tuple[Array, ...],
        rates: tuple[Any, ...],
        numbers: tuple[Any, ...],
    ) -> tuple[Array, ...]:
        """Return the means and counts."""
        del rates
        (one,) = numbers
        count = slots[0] + one
        return np.where(count > one, values + (deltas - values) / count, deltas), count
