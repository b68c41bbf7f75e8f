"""Adds what is pushed to what is stored; knows no storage and no message."""

from __future__ import annotations

from typing import Any, ClassVar

from glintpy.updaters.base import Array, Updater


class Add(Updater):
    """``value + delta``: integers wrap and booleans are or-ed, as numpy's own addition does.

    Servers have loops of their own for it, see ``storage/loops.py``: it is what most models are made with.
    """

    name: ClassVar[str] = "add"
    kinds: ClassVar[str] = "biuf"
    is_associative: ClassVar[bool] = True

    def update(
        self,
        values: Array,
        deltas: Array,
        slots: tuple[Array, ...],
        rates: tuple[Any, ...],
        numbers: tuple[Any, ...],
    ) -> tuple[Array, ...]:
        """Return the sums."""
        del slots, rates, numbers
        return (values + deltas,)
