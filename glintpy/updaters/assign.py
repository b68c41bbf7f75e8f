"""Stores what is pushed; knows no storage and no message."""

from __future__ import annotations

from typing import Any, ClassVar

from glintpy.updaters.base import Array, Combined, Loop, Updater, last_of_repeats


def _loop(values: Array, starts: Array, width: int, deltas: Array, _rates: Array, _numbers: Array) -> None:
    for e in range(starts.size):
        start, at = starts[e], e * width
        value, delta = values[start : start + width], deltas[at : at + width]
        for j in range(width):
            value[j] = delta[j]


class Assign(Updater):
    """``value = delta``, for every dtype. Of repeats in one push the last counts."""

    name: ClassVar[str] = "assign"
    kinds: ClassVar[str] = "biuf"
    is_associative: ClassVar[bool] = True
    loop: ClassVar[Loop | None] = staticmethod(_loop)

    def combine(self, keys: Array, values: Array) -> Combined:
        """Keep the last update of each key; see ``Updater.combine``."""
        return last_of_repeats(keys, values)

    def update(
        self,
        values: Array,
        deltas: Array,
        slots: tuple[Array, ...],
        rates: tuple[Any, ...],
        numbers: tuple[Any, ...],
    ) -> tuple[Array, ...]:
        """Return what is pushed."""
        del values, slots, rates, numbers
        return (deltas,)


class Total(Updater):
    """``value = delta``, for every dtype, with repeats in one push summed, and in rounds what all workers push."""

    name: ClassVar[str] = "total"
    kinds: ClassVar[str] = "biuf"
    loop: ClassVar[Loop | None] = staticmethod(_loop)

    def update(
        self,
        values: Array,
        deltas: Array,
        slots: tuple[Array, ...],
        rates: tuple[Any, ...],
        numbers: tuple[Any, ...],
    ) -> tuple[Array, ...]:
        """Return what is pushed."""
        del values, slots, rates, numbers
        return (deltas,)
