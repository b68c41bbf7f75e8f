"""Delay-compensated gradient descent; knows no storage and no message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from glintpy.updaters.base import Array, Loop, Slot, check_number
from glintpy.updaters.gradient import GradientUpdater


def _loop(  # noqa: PLR0917 - a loop's arguments: see Updater
    values: Array,
    changes: Array,
    starts: Array,
    width: int,
    deltas: Array,
    rates: Array,
    numbers: Array,
) -> None:
    weight_decay = numbers[0]
    compensation = numbers[1]
    shared = rates.shape[0] == 1
    for e in range(starts.size):
        r = 0 if shared else e
        rate = rates[r, 0]
        start, at = starts[e], e * width
        value, delta = values[start : start + width], deltas[at : at + width]
        change = changes[start : start + width]
        for j in range(width):
            gradient = delta[j] + weight_decay * value[j] + compensation * delta[j] * delta[j] * change[j]
            changed = value[j] - rate * gradient
            change[j] = changed - value[j]
            value[j] = changed


@dataclass(frozen=True)
class DCASGD(GradientUpdater):
    """Delay-compensated asynchronous gradient descent (Zheng et al. 2017), as MXNet has it; float16 to float64.

    A gradient that was computed before others changed the value is corrected by a cheap estimate of how it would have
    changed with it, ``gradient ** 2`` for the second derivative::

        value -= learning_rate * (gradient + weight_decay * value + compensation * gradient ** 2 * last_change)

    The paper keeps for each worker the values that it has pulled. MXNet, and this, keep one for all, the value before
    the last push, as if each gradient were one push late. What is stored is the difference, ``last_change``: it begins
    with 0 whatever the values begin with, and is what MXNet subtracts.

    Attributes:
        compensation: the paper's lambda, at least 0; 0.04 is MXNet's default.
    """

    name: ClassVar[str] = "dcasgd"
    slots: ClassVar[tuple[Slot, ...]] = (Slot("last_change"),)
    loop: ClassVar[Loop | None] = staticmethod(_loop)
    compensation: float = 0.04

    def __post_init__(self) -> None:
        """Check the numbers; see ``GradientUpdater``."""
        super().__post_init__()
        check_number("compensation", self.compensation, low=0)

    def numbers(self) -> tuple[float, ...]:
        """Return the weight decay and the compensation."""
        return self.weight_decay, self.compensation

    def update(
        self,
        values: Array,
        deltas: Array,
        slots: tuple[Array, ...],
        rates: tuple[Any, ...],
        numbers: tuple[Any, ...],
    ) -> tuple[Array, ...]:
        """Return the values after a compensated step, and by how much they changed."""
        (rate,), (weight_decay, compensation) = rates, numbers
        gradients = deltas + weight_decay * values + compensation * deltas * deltas * slots[0]
        changed = values - rate * gradients
        return changed, changed - values
