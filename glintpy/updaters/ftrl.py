"""FTRL-Proximal; knows no storage and no message."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from glintpy.updaters.base import POSITIVE_MIN, Array, Loop, Slot, Updater, check_number
from glintpy.updaters.gradient import check_clip, clipped


def _loop(  # noqa: PLR0917 - a loop's arguments: see Updater
    values: Array,
    z: Array,
    n: Array,
    starts: Array,
    width: int,
    deltas: Array,
    _rates: Array,
    numbers: Array,
) -> None:
    alpha = numbers[0]
    beta = numbers[1]
    l1 = numbers[2]
    l2 = numbers[3]
    for e in range(starts.size):
        start, at = starts[e], e * width
        value, delta = values[start : start + width], deltas[at : at + width]
        z_ = z[start : start + width]
        n_ = n[start : start + width]
        for j in range(width):
            gradient = delta[j]
            root = np.sqrt(n_[j])
            n_[j] = n_[j] + gradient * gradient
            grown = np.sqrt(n_[j])
            z_[j] = z_[j] + (gradient - (grown - root) / alpha * value[j])
            if abs(z_[j]) <= l1:
                value[j] = 0
            elif z_[j] > l1:
                value[j] = (l1 - z_[j]) / ((beta + grown) / alpha + l2)
            else:
                value[j] = (-l1 - z_[j]) / ((beta + grown) / alpha + l2)


@dataclass(frozen=True)
class Ftrl(Updater):
    """FTRL-Proximal with L1 and L2 (McMahan et al. 2013, "Ad click prediction", algorithm 1); float16 to float64.

    For each cell::

        sigma = (sqrt(n + gradient ** 2) - sqrt(n)) / learning_rate
        z += gradient - sigma * value
        n += gradient ** 2
        value = 0 if abs(z) <= l1, else -(z - sign(z) * l1) / ((beta + sqrt(n)) / learning_rate + l2)

    L1 leaves exact zeros. The value follows from ``z`` and ``n``, so a model begins with zeros; what it begins with
    otherwise is gone from a cell after the first push to it, or nearly. Gradients may have been computed from older
    values than those that they meet.

    Attributes:
        learning_rate: the paper's alpha, at least 1e-30; no schedule, since each cell's own rate falls with its ``n``.
            A live model that gets another has its old gradients weighed by it, too, from a cell's next push on.
        beta: at least 1e-30. The paper found 1 good enough.
        l1: at least 0.
        l2: at least 0; what ``weight_decay`` is elsewhere.
        clip_gradient: see ``GradientUpdater``.
    """

    name: ClassVar[str] = "ftrl"
    slots: ClassVar[tuple[Slot, ...]] = (Slot("z"), Slot("n"))
    loop: ClassVar[Loop | None] = staticmethod(_loop)
    learning_rate: float = 0.1
    beta: float = 1.0
    l1: float = 0.0
    l2: float = 0.0
    clip_gradient: float | None = field(default=None, kw_only=True)

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: one is out of its range; with the number and the range.
        """
        super().__post_init__()
        check_number("learning_rate", self.learning_rate, low=POSITIVE_MIN)
        check_number("beta", self.beta, low=POSITIVE_MIN)
        check_number("l1", self.l1, low=0)
        check_number("l2", self.l2, low=0)
        check_clip(self.clip_gradient)

    def prepare(self, deltas: Array) -> Array:
        """Clip the gradients; see ``Updater.prepare``."""
        return clipped(deltas, self.clip_gradient)

    def numbers(self) -> tuple[float, ...]:
        """Return alpha, beta, l1 and l2."""
        return self.learning_rate, self.beta, self.l1, self.l2

    def update(
        self,
        values: Array,
        deltas: Array,
        slots: tuple[Array, ...],
        rates: tuple[Any, ...],
        numbers: tuple[Any, ...],
    ) -> tuple[Array, ...]:
        """Return the values, z and n."""
        del rates
        alpha, beta, l1, l2 = numbers
        n = slots[1] + deltas * deltas
        root = np.sqrt(n)
        z = slots[0] + (deltas - (root - np.sqrt(slots[1])) / alpha * values)
        shrunk = np.where(z > l1, l1 - z, -l1 - z)
        return np.where(np.abs(z) <= l1, values.dtype.type(0), shrunk / ((beta + root) / alpha + l2)), z, n
