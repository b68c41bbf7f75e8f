"""Functions that change values without a look at others; pure numpy.

Their numbers are whole ones for models of integers. What an updater keeps beside the values stays as it is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np

from glintpy.errors import ConfigError, DTypeError, ShapeError
from glintpy.functions.base import Array, Changing, Selected


@dataclass(frozen=True)
class Scale(Changing):
    """Multiplies all cells by a number; integers wrap as numpy's do."""

    name: ClassVar[str] = "scale"
    kinds: ClassVar[str] = "iuf"
    by_cell: ClassVar[bool] = True
    by: float = 1.0

    def __post_init__(self) -> None:
        """Check the number.

        Raises:
            ConfigError: it is none.
        """
        super().__post_init__()
        _check_number("by", self.by)

    def check(self, selected: Selected, arrays: tuple[Array, ...]) -> None:
        """See ``Function``."""
        super().check(selected, arrays)
        as_cell("by", self.by, selected)

    def change(self, values: Array, arrays: tuple[Array, ...]) -> Array:
        """See ``Changing``."""
        del arrays
        values *= values.dtype.type(self.by)
        return values


@dataclass(frozen=True)
class Fill(Changing):
    """Stores one number in all cells."""

    name: ClassVar[str] = "fill"
    by_cell: ClassVar[bool] = True
    value: float = 0.0

    def __post_init__(self) -> None:
        """Check the number.

        Raises:
            ConfigError: it is none.
        """
        super().__post_init__()
        _check_number("value", self.value)

    def check(self, selected: Selected, arrays: tuple[Array, ...]) -> None:
        """See ``Function``."""
        super().check(selected, arrays)
        as_cell("value", self.value, selected)

    def change(self, values: Array, arrays: tuple[Array, ...]) -> Array:
        """See ``Changing``."""
        del arrays
        values[...] = values.dtype.type(self.value)
        return values


@dataclass(frozen=True)
class Put(Changing):
    """Stores a value of its own in each cell, whatever the updater; what that keeps beside the values stays."""

    name: ClassVar[str] = "put"
    takes: ClassVar[tuple[str, ...]] = ("values",)
    by_row: ClassVar[tuple[str, ...]] = ("values",)

    def prepare(self, selected: Selected, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """See ``Function``: the values travel as the model's dtype."""
        (values,) = arrays
        dtype = selected.dtype
        are_whole = values.dtype.kind in "iu" and dtype.kind in "iu"
        if not are_whole and not np.can_cast(values.dtype, dtype, "same_kind"):
            raise DTypeError(f"values are of {values.dtype.name}, and the model holds {dtype.name}")
        with np.errstate(over="ignore"):
            stored = values.astype(dtype, copy=False)
        lost = np.isinf(stored) & np.isfinite(values) if dtype.kind == "f" else stored != values
        if lost.any():
            raise DTypeError(f"values have {values[lost][0]}, which {dtype.name} can't hold")
        return super().prepare(selected, (stored,))

    def check(self, selected: Selected, arrays: tuple[Array, ...]) -> None:
        """See ``Function``."""
        super().check(selected, arrays)
        (values,) = arrays
        shape = (selected.num_rows,) if selected.num_cols is None else (selected.num_rows, selected.num_cols)
        if values.shape != shape:
            raise ShapeError(f"values have shape {values.shape}; {shape} are stored")
        if values.dtype != selected.dtype:
            raise DTypeError(f"values are of {values.dtype.name}, and the model holds {selected.dtype.name}")
        if selected.finite and selected.dtype.kind == "f" and not np.isfinite(values).all():
            raise DTypeError("values have NaN or infinities, and the model was made with finite=True")

    def change(self, values: Array, arrays: tuple[Array, ...]) -> Array:
        """See ``Changing``."""
        values[...] = arrays[0]
        return values


@dataclass(frozen=True)
class Clip(Changing):
    """Raises what is below ``low`` to it, and lowers what is above ``high``; NaN stays."""

    name: ClassVar[str] = "clip"
    kinds: ClassVar[str] = "iuf"
    by_cell: ClassVar[bool] = True
    low: float | None = None
    high: float | None = None

    def __post_init__(self) -> None:
        """Check the limits.

        Raises:
            ConfigError: one is no number, or they have nothing between them.
        """
        super().__post_init__()
        for name in ("low", "high"):
            if getattr(self, name) is not None:
                _check_number(name, getattr(self, name))
                if math.isnan(getattr(self, name)):
                    raise ConfigError(f"{name} is a number, not nan")
        if self.low is not None and self.high is not None and self.low > self.high:
            raise ConfigError(f"nothing lies between {self.low!r} and {self.high!r}")

    def check(self, selected: Selected, arrays: tuple[Array, ...]) -> None:
        """See ``Function``."""
        super().check(selected, arrays)
        for name in ("low", "high"):
            limit = getattr(self, name)
            if limit is None:
                continue
            if selected.dtype.kind == "f":
                as_cell(name, limit, selected)
            elif isinstance(limit, float):
                raise DTypeError(f"{name} is the float {limit!r}, and the model holds {selected.dtype.name}")

    def change(self, values: Array, arrays: tuple[Array, ...]) -> Array:
        """See ``Changing``."""
        del arrays
        dtype = values.dtype
        low, high = self.low, self.high
        if dtype.kind != "f":
            # Limits outside of what the dtype holds are as good as its own.
            bounds = np.iinfo(dtype)
            low = None if low is None else min(max(int(low), bounds.min), bounds.max)
            high = None if high is None else min(max(int(high), bounds.min), bounds.max)
        if low is not None:
            np.maximum(values, dtype.type(low), out=values)
        if high is not None:
            np.minimum(values, dtype.type(high), out=values)
        return values


def _check_number(name: str, value: Any) -> None:
    if not isinstance(value, bool | int | float):
        raise ConfigError(f"{name} is a number, not {value!r:.80}")


def as_cell(name: str, value: float, selected: Selected) -> None:
    """Refuse a number that a cell can't hold, or that turns into another one.

    Raises:
        DTypeError: with the number and the dtype.
    """
    dtype = selected.dtype
    if dtype.kind == "f":
        if not abs(value) < math.inf:
            if selected.finite:
                raise DTypeError(f"{name} is {value!r}, and the model was made with finite=True")
            return
        if abs(value) > float(np.finfo(dtype).max):
            raise DTypeError(
                f"{name} is {value!r}; {dtype.name} holds up to {float(np.finfo(dtype).max):.8g}"
            )
        return
    if isinstance(value, float):
        raise DTypeError(f"{name} is the float {value!r}, and the model holds {dtype.name}")
    low, high = (0, 1) if dtype.kind == "b" else (int(np.iinfo(dtype).min), int(np.iinfo(dtype).max))
    if not low <= value <= high:
        raise DTypeError(f"{name} is {value!r}; {dtype.name} holds {low} to {high}")
