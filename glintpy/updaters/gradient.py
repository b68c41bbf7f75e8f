"""What updaters of gradients share: a rate, a limit and a decay; knows no formula.

Whoever pushes, pushes gradients, not steps. Only the rows of a push are touched: decay and moments of others stand
still, as in MXNet's lazy updates, so that a push costs what it carries and not what the model holds.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass

import numpy as np
from numpy.typing import NDArray

from glintpy.updaters.base import POSITIVE_MIN, Array, Rate, Updater, at, check_number, check_rate
from glintpy.updaters.schedules import Schedule


@dataclass(frozen=True)
class GradientUpdater(Updater):
    """An updater that takes gradients.

    Attributes:
        learning_rate: a number of at least 0, or a schedule of a row's own count of pushes.
        weight_decay: this many times the value is added to its gradient (L2 regularisation), after ``clip_gradient``,
            as in MXNet.
        clip_gradient: gradients are brought into [-this, this], cell by cell, after repeats in a push were summed;
            None: they are taken as they come.
    """

    learning_rate: float | Schedule = 0.01
    _: KW_ONLY
    weight_decay: float = 0.0
    clip_gradient: float | None = None

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: one is out of its range; with the number and the range.
        """
        super().__post_init__()
        check_rate("learning_rate", self.learning_rate)
        check_number("weight_decay", self.weight_decay, low=0)
        check_clip(self.clip_gradient)

    def prepare(self, deltas: Array) -> Array:
        """Clip the gradients; see ``Updater.prepare``."""
        return clipped(deltas, self.clip_gradient)

    def rates(self, steps: NDArray[np.float64] | None) -> tuple[Rate, ...]:
        """Return the learning rate; see ``Updater.rates``."""
        return (at(self.learning_rate, steps),)

    def numbers(self) -> tuple[float, ...]:
        """Return the weight decay."""
        return (self.weight_decay,)


def check_clip(clip_gradient: float | None) -> None:
    """Refuse what is neither None nor a number of at least 1e-30.

    Raises:
        ConfigError: with the number.
    """
    if clip_gradient is not None:
        check_number("clip_gradient", clip_gradient, low=POSITIVE_MIN)


def clipped(deltas: Array, bound: float | None) -> Array:
    """Return gradients in [-bound, bound], of the same dtype; NaN stays. With None: the same array."""
    if bound is None:
        return deltas
    limit = deltas.dtype.type(bound)
    return np.clip(deltas, -limit, limit)
