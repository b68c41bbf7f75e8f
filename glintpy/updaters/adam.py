"""Adam, and AdamW, whose decay is its own; knows no storage and no message."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from glintpy.updaters.base import POSITIVE_MIN, Array, Loop, Rate, Slot, at, check_number
from glintpy.updaters.gradient import GradientUpdater
from glintpy.updaters.schedules import Schedule


def _adam_loop(  # noqa: PLR0917 - a loop's arguments: see Updater
    values: Array,
    means: Array,
    variances: Array,
    starts: Array,
    width: int,
    deltas: Array,
    rates: Array,
    numbers: Array,
) -> None:
    weight_decay = numbers[0]
    beta1 = numbers[1]
    rest1 = numbers[2]
    beta2 = numbers[3]
    rest2 = numbers[4]
    epsilon = numbers[5]
    shared = rates.shape[0] == 1
    for e in range(starts.size):
        r = 0 if shared else e
        rate = rates[r, 0]
        root = rates[r, 1]
        start, at = starts[e], e * width
        value, delta = values[start : start + width], deltas[at : at + width]
        mean = means[start : start + width]
        variance = variances[start : start + width]
        for j in range(width):
            gradient = delta[j] + weight_decay * value[j]
            mean[j] = beta1 * mean[j] + rest1 * gradient
            variance[j] = beta2 * variance[j] + rest2 * gradient * gradient
            value[j] = value[j] - rate * mean[j] / (np.sqrt(variance[j]) / root + epsilon)


def _adamw_loop(  # noqa: PLR0917 - a loop's arguments: see Updater
    values: Array,
    means: Array,
    variances: Array,
    starts: Array,
    width: int,
    deltas: Array,
    rates: Array,
    numbers: Array,
) -> None:
    beta1 = numbers[0]
    rest1 = numbers[1]
    beta2 = numbers[2]
    rest2 = numbers[3]
    epsilon = numbers[4]
    shared = rates.shape[0] == 1
    for e in range(starts.size):
        r = 0 if shared else e
        rate = rates[r, 0]
        root = rates[r, 1]
        kept = rates[r, 2]
        start, at = starts[e], e * width
        value, delta = values[start : start + width], deltas[at : at + width]
        mean = means[start : start + width]
        variance = variances[start : start + width]
        for j in range(width):
            mean[j] = beta1 * mean[j] + rest1 * delta[j]
            variance[j] = beta2 * variance[j] + rest2 * delta[j] * delta[j]
            step = rate * mean[j] / (np.sqrt(variance[j]) / root + epsilon)
            value[j] = kept * value[j] - step


@dataclass(frozen=True)
class Adam(GradientUpdater):
    """Adam (Kingma and Ba 2015) with epsilon where PyTorch has it; float16 to float64.

    With ``gradient += weight_decay * value`` and ``t`` the pushes to this row so far, this one included::

        mean = beta1 * mean + (1 - beta1) * gradient
        variance = beta2 * variance + (1 - beta2) * gradient ** 2
        corrected = sqrt(variance) / sqrt(1 - beta2 ** t)
        value -= learning_rate / (1 - beta1 ** t) * mean / (corrected + epsilon)

    Each row is corrected by its own count, since its moments are as old as its own pushes. PyTorch's ``SparseAdam`` and
    MXNet's lazy Adam count for the whole array, and so take the first step of a rare row, with these betas, three times
    as far. The slots have MXNet's names; in PyTorch they are ``exp_avg`` and ``exp_avg_sq``.

    Attributes:
        beta1: how much of the mean a push keeps, at least 0 and below 1.
        beta2: how much of the variance a push keeps, at least 0 and below 1.
        epsilon: at least 1e-30.
    """

    name: ClassVar[str] = "adam"
    slots: ClassVar[tuple[Slot, ...]] = (Slot("mean"), Slot("variance"))
    loop: ClassVar[Loop | None] = staticmethod(_adam_loop)
    learning_rate: float | Schedule = 0.001
    beta1: float = 0.9
    beta2: float = 0.999
    epsilon: float = 1e-8

    def __post_init__(self) -> None:
        """Check the numbers; see ``GradientUpdater``."""
        super().__post_init__()
        check_number("beta1", self.beta1, low=0, high=1)
        check_number("beta2", self.beta2, low=0, high=1)
        check_number("epsilon", self.epsilon, low=POSITIVE_MIN)

    @property
    def counts_steps(self) -> bool:
        """Always: for the correction."""
        return True

    def rates(self, steps: NDArray[np.float64] | None) -> tuple[Rate, ...]:
        """Return the corrected learning rate and the root of the variance's correction; see ``Updater.rates``."""
        assert steps is not None, "steps are counted"
        rate = at(self.learning_rate, steps) / (1.0 - np.power(self.beta1, steps))
        return rate, np.sqrt(1.0 - np.power(self.beta2, steps))

    def numbers(self) -> tuple[float, ...]:
        """Return the weight decay, each beta and what is left to 1, and epsilon."""
        return self.weight_decay, self.beta1, 1.0 - self.beta1, self.beta2, 1.0 - self.beta2, self.epsilon

    def update(
        self,
        values: Array,
        deltas: Array,
        slots: tuple[Array, ...],
        rates: tuple[Any, ...],
        numbers: tuple[Any, ...],
    ) -> tuple[Array, ...]:
        """Return the values after a step along the means, the means and the variances."""
        (rate, root), (weight_decay, beta1, rest1, beta2, rest2, epsilon) = rates, numbers
        gradients = deltas + weight_decay * values
        mean = beta1 * slots[0] + rest1 * gradients
        variance = beta2 * slots[1] + rest2 * gradients * gradients
        return values - rate * mean / (np.sqrt(variance) / root + epsilon), mean, variance


@dataclass(frozen=True)
class AdamW(Adam):
    """AdamW (Loshchilov and Hutter 2019): Adam whose weight decay is no part of the gradient; float16 to float64.

    As ``Adam`` with ``weight_decay=0``, but the value is first multiplied by ``1 - learning_rate * weight_decay``, as
    in PyTorch. A row decays when it is pushed to, and only then.

    Attributes:
        weight_decay: PyTorch's default.
    """

    name: ClassVar[str] = "adamw"
    loop: ClassVar[Loop | None] = staticmethod(_adamw_loop)
    weight_decay: float = field(default=0.01, kw_only=True)

    def rates(self, steps: NDArray[np.float64] | None) -> tuple[Rate, ...]:
        """Return what ``Adam`` does, and what is left of a value."""
        return *super().rates(steps), 1.0 - at(self.learning_rate, steps) * self.weight_decay

    def numbers(self) -> tuple[float, ...]:
        """Return each beta and what is left to 1, and epsilon."""
        return super().numbers()[1:]

    def update(
        self,
        values: Array,
        deltas: Array,
        slots: tuple[Array, ...],
        rates: tuple[Any, ...],
        numbers: tuple[Any, ...],
    ) -> tuple[Array, ...]:
        """Return the values after decay and a step along the means, the means and the variances."""
        (rate, root, kept), (beta1, rest1, beta2, rest2, epsilon) = rates, numbers
        mean = beta1 * slots[0] + rest1 * deltas
        variance = beta2 * slots[1] + rest2 * deltas * deltas
        step = rate * mean / (np.sqrt(variance) / root + epsilon)
        return kept * values - step, mean, variance
