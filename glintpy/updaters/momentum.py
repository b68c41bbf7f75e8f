"""Gradient descent with momentum, Polyak's and Nesterov's; knows no storage and no message."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

from glintpy.updaters.base import Array, Loop, Slot, check_number
from glintpy.updaters.gradient import GradientUpdater


def _momentum_loop(  # noqa: PLR0917 - a loop's arguments: see Updater
    values: Array,
    buffers: Array,
    starts: Array,
    width: int,
    deltas: Array,
    rates: Array,
    numbers: Array,
) -> None:
    weight_decay = numbers[0]
    momentum = numbers[1]
    shared = rates.shape[0] == 1
    for e in range(starts.size):
        r = 0 if shared else e
        rate = rates[r, 0]
        start, at = starts[e], e * width
        value, delta = values[start : start + width], deltas[at : at + width]
        buffer = buffers[start : start + width]
        for j in range(width):
            buffer[j] = momentum * buffer[j] + (delta[j] + weight_decay * value[j])
            value[j] = value[j] - rate * buffer[j]


def _nesterov_loop(  # noqa: PLR0917 - a loop's arguments: see Updater
    values: Array,
    buffers: Array,
    starts: Array,
    width: int,
    deltas: Array,
    rates: Array,
    numbers: Array,
) -> None:
    weight_decay = numbers[0]
    momentum = numbers[1]
    shared = rates.shape[0] == 1
    for e in range(starts.size):
        r = 0 if shared else e
        rate = rates[r, 0]
        start, at = starts[e], e * width
        value, delta = values[start : start + width], deltas[at : at + width]
        buffer = buffers[start : start + width]
        for j in range(width):
            gradient = delta[j] + weight_decay * value[j]
            buffer[j] = momentum * buffer[j] + gradient
            value[j] = value[j] - rate * (gradient + momentum * buffer[j])


@dataclass(frozen=True)
class Momentum(GradientUpdater):
    """Gradient descent with momentum (Polyak 1964), as PyTorch has it; float16 to float64.

    With ``gradient += weight_decay * value``::

        buffer = momentum * buffer + gradient
        value -= learning_rate * buffer

    MXNet keeps ``learning_rate * buffer`` instead; the two differ only where the rate changes: here it
    applies to the whole buffer at once. Sutskever et al. (2013) compare the ways.

    Attributes:
        momentum: how much of the buffer a push keeps, at least 0 and below 1.
    """

    name: ClassVar[str] = "momentum"
    slots: ClassVar[tuple[Slot, ...]] = (Slot("momentum_buffer"),)
    loop: ClassVar[Loop | None] = staticmethod(_momentum_loop)
    momentum: float = 0.9

    def __post_init__(self) -> None:
        """Check the numbers; see ``GradientUpdater``."""
        super().__post_init__()
        check_number("momentum", self.momentum, low=0, high=1)

    def numbers(self) -> tuple[float, ...]:
        """Return the weight decay and the momentum."""
        return self.weight_decay, self.momentum

    def update(
        self,
        values: Array,
        deltas: Array,
        slots: tuple[Array, ...],
        rates: tuple[Any, ...],
        numbers: tuple[Any, ...],
    ) -> tuple[Array, ...]:
        """Return the values after a step along the buffers, and these."""
        (rate,), (weight_decay, momentum) = rates, numbers
        buffer = momentum * slots[0] + (deltas + weight_decay * values)
        return values - rate * buffer, buffer


class Nesterov(Momentum):
    """Gradient descent with Nesterov's momentum (1983), as PyTorch has it (``nesterov=True``) and MXNet's ``NAG``.

    With ``gradient += weight_decay * value``::

        buffer = momentum * buffer + gradient
        value -= learning_rate * (gradient + momentum * buffer)

    For float16 to float64.

    Attributes:
        momentum: how much of the buffer a push keeps, at least 0 and below 1.
    """

    name: ClassVar[str] = "nesterov"
    loop: ClassVar[Loop | None] = staticmethod(_nesterov_loop)

    def update(
        self,
        values: Array,
        deltas: Array,
        slots: tuple[Array, ...],
        rates: tuple[Any, ...],
        numbers: tuple[Any, ...],
    ) -> tuple[Array, ...]:
        """Return the values after a step ahead of the buffers, and these."""
        (rate,), (weight_decay, momentum) = rates, numbers
        gradients = deltas + weight_decay * values
        buffer = momentum * slots[0] + gradients
        return values - rate * (gradients + momentum * buffer), buffer
