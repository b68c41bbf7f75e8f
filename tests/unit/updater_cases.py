"""Updaters with random numbers, and what a server does with one: with its formula, and with its loop."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st

from glintpy.updaters import (
    DCASGD,
    SGD,
    Adagrad,
    Adam,
    AdamW,
    Assign,
    Ftrl,
    Max,
    Mean,
    Min,
    Momentum,
    Nesterov,
    RMSprop,
    Total,
    Updater,
    arithmetic_dtype,
    schedules,
)
from glintpy.updaters.base import Array
from tests.unit.kernel_cases import any_bits

_part = st.floats(0, 1)
_below_one = st.floats(0, 0.999)
_epsilon = st.sampled_from([1e-30, 1e-10, 1e-3])
SCHEDULES: st.SearchStrategy[schedules.Schedule] = st.one_of(
    st.builds(schedules.Constant, _part),
    st.builds(schedules.InverseTime, _part, _part),
    st.builds(schedules.Exponential, _part, _part, st.integers(1, 9)),
    st.builds(schedules.Stepwise, _part, _part, st.integers(1, 9), _part),
    st.builds(schedules.Cosine, _part, st.integers(1, 9), _part, st.integers(0, 9)),
)
_rate = st.one_of(_part, SCHEDULES)
_shared = {"weight_decay": _part, "clip_gradient": st.none() | st.floats(0.1, 2)}

UPDATERS: dict[str, st.SearchStrategy[Updater]] = {
    "assign": st.builds(Assign),
    "total": st.builds(Total),
    "max": st.builds(Max),
    "min": st.builds(Min),
    "mean": st.builds(Mean),
    "sgd": st.builds(SGD, _rate, **_shared),
    "momentum": st.builds(Momentum, _rate, _below_one, **_shared),
    "nesterov": st.builds(Nesterov, _rate, _below_one, **_shared),
    "adagrad": st.builds(Adagrad, _rate, _epsilon, **_shared),
    "rmsprop": st.builds(RMSprop, _rate, _below_one, _epsilon, **_shared),
    "adam": st.builds(Adam, _rate, _below_one, _below_one, _epsilon, **_shared),
    "adamw": st.builds(AdamW, _rate, _below_one, _below_one, _epsilon, **_shared),
    "ftrl": st.builds(
        Ftrl, st.floats(0.01, 1), st.floats(0.01, 1), _part, _part, clip_gradient=_shared["clip_gradient"]
    ),
    "dcasgd": st.builds(DCASGD, _rate, _part, **_shared),
}
"""Those with a loop; ``add``'s are the servers'."""

NOT_NEGATIVE = {"sum_of_squares", "mean_of_squares", "variance", "n", "count"}


def shared_arguments(
    updater: Updater, steps: Array | None, dtype: np.dtype[Any]
) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """Return the rates and the numbers as ``update`` wants them."""
    with np.errstate(all="ignore"):
        rates = tuple(
            np.asarray(rate, dtype)[:, None] if np.ndim(rate) else dtype.type(rate)
            for rate in updater.rates(steps)
        )
        return rates, tuple(dtype.type(number) for number in updater.numbers())


def pushed(
    updater: Updater, values: Array, deltas: Array, slots: tuple[Array, ...] = (), steps: Array | None = None
) -> tuple[Array, ...]:
    """Return what values and slots become by the formula; everything is (k, width)."""
    rates, numbers = shared_arguments(updater, steps, values.dtype)
    with np.errstate(all="ignore"):
        return updater.update(values, updater.prepare(deltas), slots, rates, numbers)


class Case:
    """A model's cells, and a push to some of them."""

    def __init__(
        self, updater: Updater, dtype: np.dtype[Any], random: np.random.Generator, num_cols: int
    ) -> None:
        """Make up values, slots, deltas and steps of any bits.

        Args:
            updater: whose push it is.
            dtype: that is computed in.
            random: where all of it comes from.
            num_cols: of the model. Of more than one, whole rows are pushed to, or their last cells alone.
        """
        self.updater = updater
        num_rows = int(random.integers(1, 7))
        k = int(random.integers(0, num_rows + 1))
        self.width = int(random.choice([num_cols, 1]))
        self.cells = tuple(
            self._cells(random, num_rows * num_cols, dtype, name)
            for name in ("values", *(slot.name for slot in updater.slots))
        )
        # Rows in any order, each once.
        self.starts = random.permutation(num_rows)[:k].astype(np.int64) * num_cols + (num_cols - self.width)
        self.deltas = any_bits(random, (k, self.width), dtype)
        self.steps = random.integers(1, 1000, k).astype(np.float64) if updater.counts_steps else None

    @staticmethod
    def _cells(random: np.random.Generator, size: int, dtype: np.dtype[Any], name: str) -> Array:
        found = any_bits(random, (size,), dtype)
        return np.abs(found) if name in NOT_NEGATIVE else found

    def by_formula(self) -> list[Array]:
        """Return what all cells are after the push."""
        at = self.starts[:, None] + np.arange(self.width)  # (k, width)
        first, *slots = [cells[at] for cells in self.cells]
        after = pushed(self.updater, first, self.deltas, tuple(slots), self.steps)
        found = [cells.copy() for cells in self.cells]
        for cells, changed in zip(found, after, strict=True):
            assert changed.dtype == cells.dtype
            cells[at] = changed
        return found

    def by_loop(self, loop: Any) -> list[Array]:
        """Return the same from a loop, compiled or not, which gets read-only arrays as from a message."""
        dtype = arithmetic_dtype(self.deltas.dtype)
        rates, numbers = shared_arguments(self.updater, self.steps, dtype)
        each = max((np.shape(rate)[0] for rate in rates if np.ndim(rate)), default=1)
        table = np.empty((each, len(rates)), dtype)
        for column, rate in zip(table.T, rates, strict=True):
            column[:] = np.ravel(rate)
        found = [cells.copy() for cells in self.cells]
        with np.errstate(all="ignore"):
            loop(
                *found,
                read_only(self.starts),
                self.width,
                read_only(self.updater.prepare(self.deltas).ravel()),
                read_only(table),
                read_only(np.array(numbers, dtype)),
            )
        return found


def read_only(array: Array) -> Array:
    """Return an array like those that arrive: nobody may write to it."""
    found = array.copy()
    found.flags.writeable = False
    return found


def assert_same_bits(found: list[Array], expected: list[Array]) -> None:
    """Compare to the last bit; one NaN is as good as another."""
    for one, other in zip(found, expected, strict=True):
        if one.dtype.kind == "f":
            np.testing.assert_array_equal(np.isnan(one), np.isnan(other))
            one, other = (  # noqa: PLW2901 - what is left to compare
                np.where(np.isnan(array), one.dtype.type(0), array).view(f"u{one.dtype.itemsize}")
                for array in (one, other)
            )
        np.testing.assert_array_equal(one, other, strict=True)
