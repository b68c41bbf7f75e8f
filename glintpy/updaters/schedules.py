"""Numbers that change with a row's own count of pushes; pure functions of it, so that any server gives the same.

A row that is pushed to rarely is still at its beginning when others are at their end: what counts is how much it has
learnt, as in MXNet, whose schedulers count the updates of each key.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from glintpy.errors import ConfigError
from glintpy.scalars import make_plain

Steps = NDArray[np.float64]

NUMBER_MAX = 1e30
"""What no number of an updater or a schedule is above: well inside float32, in which most models compute."""


@dataclass(frozen=True)
class Schedule(ABC):
    """A number by the step; frozen dataclasses derive from it."""

    name: ClassVar[str]

    def __post_init__(self) -> None:
        """Check every field: a number from 0 to 1e30; factors are at most 1, as MXNet's are.

        Raises:
            ConfigError: with the number that is wrong.
        """
        make_plain(self)
        for entry in fields(self):
            value = getattr(self, entry.name)
            low = 1 if entry.name.startswith("num_") else 0
            # A factor above 1 would be infinite sooner or later.
            high = 1 if entry.name == "factor" else NUMBER_MAX
            is_number = isinstance(value, int | float) and not isinstance(value, bool)
            if not is_number or not low <= value <= high:
                raise ConfigError(
                    f"{entry.name} of schedule {self.name!r} is a number from {low} to {high:g}, not {value!r:.80}"
                )

    @abstractmethod
    def __call__(self, steps: Steps) -> Steps:
        """Return the number at each step.

        Args:
            steps: (k,) from 1 on.
        """

    def to_content(self) -> dict[str, Any]:
        """Return plain data."""
        return {"schedule": self.name, **asdict(self)}

    @staticmethod
    def from_content(content: Mapping[str, Any]) -> Schedule:
        """Return the schedule in a foreign document.

        Raises:
            ConfigError: none, or with other or wrong numbers.
        """
        name = content.get("schedule")
        kind = _BY_NAME.get(name) if isinstance(name, str) else None
        if kind is None:
            raise ConfigError(f"there is no schedule {name!r:.80}; there is {', '.join(sorted(_BY_NAME))}")
        numbers = {key: value for key, value in content.items() if key != "schedule"}
        known = {entry.name for entry in fields(kind)}
        if set(numbers) != known:
            raise ConfigError(
                f"schedule {name!r} has the numbers {sorted(known)}, not {sorted(numbers)!r:.200}"
            )
        return kind(**numbers)


@dataclass(frozen=True)
class Constant(Schedule):
    """One number; so that a live model may later get another schedule, which needs the steps counted from its start.

    Attributes:
        value: at every step.
    """

    name: ClassVar[str] = "constant"
    value: float

    def __call__(self, steps: Steps) -> Steps:
        """Return ``value`` for each."""
        return np.full(len(steps), float(self.value))


@dataclass(frozen=True)
class InverseTime(Schedule):
    """``initial / (1 + decay * (step - 1))``: Robbins and Monro's.

    Attributes:
        initial: at step 1.
        decay: by how much the divisor grows each step.
    """

    name: ClassVar[str] = "inverse_time"
    initial: float
    decay: float

    def __call__(self, steps: Steps) -> Steps:
        """Return it for each."""
        return self.initial / (1.0 + self.decay * (steps - 1.0))


@dataclass(frozen=True)
class Exponential(Schedule):
    """``initial * factor ** ((step - 1) / num_steps)``.

    Attributes:
        initial: at step 1.
        factor: by which it is multiplied every ``num_steps``.
        num_steps: at least 1.
    """

    name: ClassVar[str] = "exponential"
    initial: float
    factor: float
    num_steps: float = 1

    def __call__(self, steps: Steps) -> Steps:
        """Return it for each."""
        return np.asarray(self.initial * np.power(float(self.factor), (steps - 1.0) / self.num_steps))


@dataclass(frozen=True)
class Stepwise(Schedule):
    """``initial * factor ** floor((step - 1) / num_steps)``, not below ``minimum``: MXNet's ``FactorScheduler``.

    Attributes:
        initial: up to step ``num_steps``.
        factor: by which it is multiplied then, and again every ``num_steps``.
        num_steps: at least 1.
        minimum: the least.
    """

    name: ClassVar[str] = "stepwise"
    initial: float
    factor: float
    num_steps: float
    minimum: float = 0.0

    def __call__(self, steps: Steps) -> Steps:
        """Return it for each."""
        powers = np.power(float(self.factor), np.floor((steps - 1.0) / self.num_steps))
        return np.maximum(self.initial * powers, self.minimum)


@dataclass(frozen=True)
class Cosine(Schedule):
    """Half a cosine from ``initial`` to ``final`` over ``num_steps``, then ``final`` (Loshchilov and Hutter 2017).

    Attributes:
        initial: at step 1.
        final: from step ``num_steps`` + 1 on.
        num_steps: at least 1.
        warmup: steps before, over which the number rises to ``initial`` in a line; 0: none.
    """

    name: ClassVar[str] = "cosine"
    initial: float
    num_steps: float
    final: float = 0.0
    warmup: float = 0.0

    def __call__(self, steps: Steps) -> Steps:
        """Return it for each."""
        passed = np.clip((steps - 1.0 - self.warmup) / self.num_steps, 0.0, 1.0)
        cooled = self.final + (self.initial - self.final) * (1.0 + np.cos(np.pi * passed)) / 2.0
        if not self.warmup:
            return np.asarray(cooled)
        return np.where(steps <= self.warmup, self.initial * steps / self.warmup, cooled)


_BY_NAME: dict[str, type[Schedule]] = {
    kind.name: kind for kind in (Constant, InverseTime, Exponential, Stepwise, Cosine)
}
