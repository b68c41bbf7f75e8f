"""RMSprop; knows no storage and no message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from glintpy.updaters.base import POSITIVE_MIN, Array, Loop, Slot, check_number
from glintpy.updaters.gradient import GradientUpdater


def _loop(  # noqa: PLR0917 - a loop's arguments: see Updater
    values: Array,
    squares: Array,
    starts: Array,
    width: int,
    deltas: Array,
    rates: Array,
    numbers: Array,
) -> None:
    weight_decay = numbers[0]
    decay = numbers[1]
    rest = numbers[2]
    epsilon = numbers[3]
    shared = rates.shape[0] == 1
    for e in range(starts.size):
        r = 0 if shared else e
        rate = rates[r, 0]
        start, at = starts[e], e * width
        value, delta = values[start : start + width], deltas[at : at + width]
        square = squares[start : start + width]
        for j in range(width):
            gradient = delta[j] + weight_decay * value[j]
            square[j] = decay * square[j] + rest * gradient * gradient
            value[j] = value[j] - rate * gradient / (np.sqrt(square[j]) + epsilon)


@dataclass(frozen=True)
class RMSprop(GradientUpdater):
    """RMSprop (Tieleman and Hinton 2012), as PyTorch has it: neither centred nor with momentum; float16 to float64.

    With ``gradient += weight_decay * value``::

        mean_of_squares = decay * mean_of_squares + (1 - decay) * gradient ** 2
        value -= learning_rate * gradient / (sqrt(mean_of_squares) + epsilon)

    Attributes:
        decay: how much of the mean a push keeps, at least 0 and below 1; PyTorch's ``alpha``, MXNet's ``rho``.
        epsilon: at least 1e-30.
    """

    name: ClassVar[str] = "rmsprop"
    slots: ClassVar[tuple[Slot, ...]] = (Slot("mean_of_squares"),)
    loop: ClassVar[Loop | None] = staticmethod(_loop)
    decay: float = 0.99
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        """Check the numbers; see ``GradientUpdater``."""
        super().__post_init__()
        check_number("decay", self.decay, low=0, high=1)
        check_number("epsilon", self.epsilon, low=POSITIVE_MIN)

    def numbers(self) -> tuple[float, ...]:
        """Return the weight decay, the decay of the mean and what is left to 1, and epsilon."""
        return self.weight_decay, self.decay, 1.0 - self.decay, self.epsilon

    def update(
        self,
        values: Array,
        deltas: Array,
        slots: tuple[Array, ...],
        rates: tuple[Any, ...],
        numbers: tuple[Any, ...],
    ) -> tuple[Array, ...]:
        """Return the values after a step down, and the means."""
        (rate,), (weight_decay, decay, rest, epsilon) = rates, numbers
        gradients = deltas + weight_decay * values
        squares = decay * slots[0] + rest * gradients * gradients
        return values - rate * gradients / (np.sqrt(squares) + epsilon), squares
