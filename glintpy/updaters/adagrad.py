"""Adagrad; knows no storage and no message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from glintpy.updaters.base import POSITIVE_MIN, Array, Loop, Slot, check_number
from glintpy.updaters.gradient import GradientUpdater


def _loop(  # noqa: PLR0917 - a loop's arguments: see Updater
    values: Array,
    sums: Array,
    starts: Array,
    width: int,
    deltas: Array,
    rates: Array,
    numbers: Array,
) -> None:
    weight_decay = numbers[0]
    epsilon = numbers[1]
    shared = rates.shape[0] == 1
    for e in range(starts.size):
        r = 0 if shared else e
        rate = rates[r, 0]
        start, at = starts[e], e * width
        value, delta = values[start : start + width], deltas[at : at + width]
        sum_ = sums[start : start + width]
        for j in range(width):
            gradient = delta[j] + weight_decay * value[j]
            sum_[j] = sum_[j] + gradient * gradient
            value[j] = value[j] - rate * gradient / (np.sqrt(sum_[j]) + epsilon)


@dataclass(frozen=True)
class Adagrad(GradientUpdater):
    """Adagrad (Duchi, Hazan and Singer 2011), diagonal, as PyTorch has it; float16 to float64.

    With ``gradient += weight_decay * value``::

        sum_of_squares += gradient ** 2
        value -= learning_rate * gradient / (sqrt(sum_of_squares) + epsilon)

    Cells that are pushed to rarely keep a high rate, which is what sparse features want.

    Attributes:
        epsilon: at least 1e-30.
    """

    name: ClassVar[str] = "adagrad"
    slots: ClassVar[tuple[Slot, ...]] = (Slot("sum_of_squares"),)
    loop: ClassVar[Loop | None] = staticmethod(_loop)
    epsilon: float = 1e-10

    def __post_init__(self) -> None:
        """Check the numbers; see ``GradientUpdater``."""
        super().__post_init__()
        check_number("epsilon", self.epsilon, low=POSITIVE_MIN)

    def numbers(self) -> tuple[float, ...]:
        """Return the weight decay and epsilon."""
        return self.weight_decay, self.epsilon

    def update(
        self,
        values: Array,
        deltas: Array,
        slots: tuple[Array, ...],
        rates: tuple[Any, ...],
        numbers: tuple[Any, ...],
    ) -> tuple[Array, ...]:
        """Return the values after a step down, and the sums."""
        (rate,), (weight_decay, epsilon) = rates, numbers
        gradients = deltas + weight_decay * values
        sums = slots[0] + gradients * gradients
        return values - rate * gradients / (np.sqrt(sums) + epsilon), sums
