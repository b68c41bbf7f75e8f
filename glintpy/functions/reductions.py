"""Functions that make one number of many: of all cells, of each column or of each row; pure numpy.

Sums are made in int64 (uint64 of unsigned integers) or float64, whatever the model's dtype, and wrap as numpy's do.
"""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

import numpy as np

from glintpy.errors import ConfigError, ShapeError
from glintpy.functions.base import Answer, Array, Ask, Asking, Piece, Reading, Selected


def sum_dtype(dtype: np.dtype[Any]) -> np.dtype[Any]:
    """Return the dtype that sums of these values are made in."""
    if dtype.kind == "f":
        return np.dtype("float64")
    return np.dtype("uint64") if dtype.kind == "u" else np.dtype("int64")


@dataclass(frozen=True)
class Reduction(Reading):
    """Makes one number of all cells, of each column (``axis=0``) or of each row (``axis=1``).

    Attributes:
        joined_by: makes one of the numbers of several pieces.
    """

    joined_by: ClassVar[np.ufunc] = np.add
    axis: int | None = None

    def __post_init__(self) -> None:
        """Check the axis.

        Raises:
            ConfigError: it is none.
        """
        super().__post_init__()
        if self.axis is not None and (type(self.axis) is not int or self.axis not in {0, 1}):
            raise ConfigError(f"axis is None, 0 or 1, not {self.axis!r:.80}")

    @abstractmethod
    def reduce(self, values: Array, axis: int | None) -> Any:
        """Return one number of all, or (m,) one of each column or row."""

    def dtype_of(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """Return the results' dtype."""
        return sum_dtype(dtype)

    @property
    def names_rows(self) -> Literal["", "each", "some"]:
        """See ``Reading``."""
        return "each" if self.axis == 1 else ""

    def prepare(self, selected: Selected, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """See ``Function``."""
        if selected.num_cols is None and self.axis == 1:
            raise ShapeError("a vector has no axis 1")
        return arrays

    def read(self, piece: Piece) -> Answer:
        """See ``Reading``."""
        axis = None if piece.values.ndim == 1 else self.axis
        return (np.atleast_1d(self.reduce(piece.values, axis)),)

    def combine(self, asking: Asking, answers: list[tuple[Ask, Answer]]) -> Any:
        """See ``Reading``."""
        selected = asking.selected
        dtype = self.dtype_of(selected.dtype)
        if self.axis == 1:
            by_row = np.empty(selected.num_rows, dtype)
            for ask, (numbers,) in answers:
                by_row[ask.positions] = numbers
            return by_row
        width = selected.width if self.axis == 0 and selected.num_cols is not None else 1
        with np.errstate(all="ignore"):
            joined = (
                self.joined_by.reduce(np.stack([answer[0] for _, answer in answers]), axis=0, dtype=dtype)
                if answers
                else np.zeros(width, dtype)
            )
        return joined[0] if self.axis is None or selected.num_cols is None else joined


class Sum(Reduction):
    """The sum."""

    name: ClassVar[str] = "sum"

    def reduce(self, values: Array, axis: int | None) -> Any:
        """See ``Reduction``."""
        return np.sum(values, axis=axis, dtype=sum_dtype(values.dtype))


class Mean(Reduction):
    """The mean, in float64; of nothing it is NaN."""

    name: ClassVar[str] = "mean"

    def dtype_of(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """See ``Reduction``."""
        del dtype
        return np.dtype("float64")

    def reduce(self, values: Array, axis: int | None) -> Any:
        """See ``Reduction``: the sum, which the client divides."""
        return np.sum(values, axis=axis, dtype=np.float64)

    def combine(self, asking: Asking, answers: list[tuple[Ask, Answer]]) -> Any:
        """See ``Reading``."""
        selected = asking.selected
        counts = {None: selected.num_rows * selected.width, 0: selected.num_rows, 1: selected.width}
        with np.errstate(all="ignore"):
            return super().combine(asking, answers) / np.float64(counts[self.axis])


class CountNonzero(Reduction):
    """How many cells are not 0, in int64; NaN is not 0."""

    name: ClassVar[str] = "count_nonzero"

    def dtype_of(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        """See ``Reduction``."""
        del dtype
        return np.dtype("int64")

    def reduce(self, values: Array, axis: int | None) -> Any:
        """See ``Reduction``."""
        return np.asarray(np.count_nonzero(values, axis=axis), np.int64)


class _Extreme(Reduction):
    def dtype_of(self, dtype: np.dtype[Any]) -> np.dtype[Any]:
        return dtype

    def prepare(self, selected: Selected, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        needed = {None: selected.num_rows * selected.width, 0: selected.num_rows, 1: selected.width}
        if not needed[self.axis]:
            raise ShapeError(
                f"nothing has no {self.name}: {selected.num_rows} rows of {selected.width} cells"
            )
        return super().prepare(selected, arrays)


class Min(_Extreme):
    """The least cell; NaN if there is one."""

    name: ClassVar[str] = "min"
    joined_by: ClassVar[np.ufunc] = np.minimum

    def reduce(self, values: Array, axis: int | None) -> Any:
        """See ``Reduction``."""
        return np.min(values, axis=axis)


class Max(_Extreme):
    """The largest cell; NaN if there is one."""

    name: ClassVar[str] = "max"
    joined_by: ClassVar[np.ufunc] = np.maximum

    def reduce(self, values: Array, axis: int | None) -> Any:
        """See ``Reduction``."""
        return np.max(values, axis=axis)


class Norms(Reading):
    """The Euclidean norm of each row, in float64; of a vector the absolute value of each entry."""

    name: ClassVar[str] = "norms"

    @property
    def names_rows(self) -> Literal["", "each", "some"]:
        """See ``Reading``."""
        return "each"

    def read(self, piece: Piece) -> Answer:
        """See ``Reading``."""
        return (row_norms(piece.matrix),)

    def combine(self, asking: Asking, answers: list[tuple[Ask, Answer]]) -> Any:
        """See ``Reading``."""
        norms = np.empty(asking.selected.num_rows, np.float64)
        for ask, (found,) in answers:
            norms[ask.positions] = found
        return norms


class Argmax(Reading):
    """Where the largest cell stands, counted through the selection row by row, as numpy does; of equal ones the first.

    If there are NaNs, it is the first of these.
    """

    name: ClassVar[str] = "argmax"
    in_order: ClassVar[bool] = True
    by_place: ClassVar[bool] = True

    def prepare(self, selected: Selected, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """See ``Function``."""
        if not selected.num_rows * selected.width:
            raise ShapeError(f"nothing has no argmax: {selected.num_rows} rows of {selected.width} cells")
        return arrays

    def read(self, piece: Piece) -> Answer:
        """See ``Reading``."""
        place = int(np.argmax(piece.values))
        return piece.values.reshape(-1)[place : place + 1], np.array([place], np.int64)

    def combine(self, asking: Asking, answers: list[tuple[Ask, Answer]]) -> Any:
        """See ``Reading``."""
        width = asking.selected.width
        values = np.concatenate([answer[0] for _, answer in answers])
        places = [
            _position(ask, int(place[0]) // width) * width + int(place[0]) % width
            for ask, (_, place) in answers
        ]
        is_best = values == values.max() if values.dtype.kind != "f" else _is_largest(values)
        return np.int64(min(place for place, best in zip(places, is_best, strict=True) if best))


@dataclass(frozen=True)
class Histogram(Reading):
    """How many cells lie in each of some bins of equal width, as numpy's: (counts, edges); others don't count."""

    name: ClassVar[str] = "histogram"
    bins: int = 10
    low: float = 0.0
    high: float = 1.0

    def __post_init__(self) -> None:
        """Check the bins.

        Raises:
            ConfigError: their number or limits can't be.
        """
        super().__post_init__()
        if type(self.bins) is not int or not 1 <= self.bins <= 2**16:
            raise ConfigError(f"bins is an int from 1 to {2**16}, not {self.bins!r:.80}")
        for name in ("low", "high"):
            value = getattr(self, name)
            # Half of the largest, so that their difference is a number, too.
            if not isinstance(value, int | float) or isinstance(value, bool) or not abs(value) <= 2.0**1023:
                raise ConfigError(f"{name} is a finite number, not {value!r:.80}")
        if not self.low < self.high:
            raise ConfigError(f"bins from {self.low:g} to {self.high:g} are none")

    def read(self, piece: Piece) -> Answer:
        """See ``Reading``."""
        cells = piece.values.reshape(-1).astype(np.float64)
        return (np.histogram(cells, self.bins, (self.low, self.high))[0].astype(np.int64),)

    def combine(self, asking: Asking, answers: list[tuple[Ask, Answer]]) -> Any:
        """See ``Reading``."""
        del asking
        counts = np.zeros(self.bins, np.int64)
        for _, (found,) in answers:
            counts += found
        return counts, np.histogram_bin_edges(np.empty(0), self.bins, (self.low, self.high))


def row_norms(rows: Array) -> Array:
    """Return the Euclidean norm of each of (n, m) rows, (n,) float64."""
    cells = rows.astype(np.float64)
    norms: Array = np.sqrt(np.einsum("ij,ij->i", cells, cells))
    return norms


def _position(ask: Ask, row: int) -> int:
    if isinstance(ask.positions, slice):
        return int(ask.positions.start) + row * int(ask.positions.step or 1)
    return int(ask.positions[row])


def _is_largest(values: Array) -> Array:
    missing: Array = np.isnan(values)
    return missing if missing.any() else np.asarray(values == values.max())
