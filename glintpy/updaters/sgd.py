"""Stochastic gradient descent; knows no storage and no message."""

from __future__ import annotations

from typing import Any, ClassVar

from glintpy.updaters.base import Array, Loop
from glintpy.updaters.gradient import GradientUpdater


def _loop(  # noqa: PLR0917 - a loop's arguments: see Updater
    values: Array,
    starts: Array,
    width: int,
    deltas: Array,
    rates: Array,
    numbers: Array,
) -> None:
    weight_decay = numbers[0]
    shared = rates.shape[0] == 1
    for e in range(starts.size):
        r = 0 if shared else e
        rate = rates[r, 0]
        start, at = starts[e], e * width
        value, delta = values[start : start + width], deltas[at : at + width]
        for j in range(width):
            value[j] = value[j] - rate * (delta[j] + weight_decay * value[j])


class SGD(GradientUpdater):
    """``value -= learning_rate * (gradient + weight_decay * value)``: Robbins and Monro (1951); float16 to float64."""

    name: ClassVar[str] = "sgd"
    loop: ClassVar[Loop | None] = staticmethod(_loop)

    def update(
        self,
        values: Array,
        deltas: Array,
        slots: tuple[Array, ...],
        rates: tuple[Any, ...],
        numbers: tuple[Any, ...],
    ) -> tuple[Array, ...]:
        """Return the values after a step down."""
        del slots
        (rate,), (weight_decay,) = rates, numbers
        return (values - rate * (deltas + weight_decay * values),)
