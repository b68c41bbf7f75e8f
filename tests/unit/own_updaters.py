"""Updaters that the package doesn't have."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from glintpy.updaters import Slot, Updater
from glintpy.updaters.base import Array


@dataclass(frozen=True)
class Halves(Updater):
    """Keeps a slot that doesn't begin with zeros."""

    slots: ClassVar[tuple[Slot, ...]] = (Slot("half", init=0.5),)

    def update(
        self,
        values: Array,
        deltas: Array,
        slots: tuple[Array, ...],
        rates: tuple[Any, ...],
        numbers: tuple[Any, ...],
    ) -> tuple[Array, ...]:
        """Add, and count."""
        del rates, numbers
        return values + deltas, slots[0] + deltas
