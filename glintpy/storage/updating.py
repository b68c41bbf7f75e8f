"""Applies pushes by an updater's formula, or by its compiled loop; knows no model's name, no file and no compiler.

The entries of a push are applied one after the other. Where the formula is computed with numpy, entries that repeat a
cell are taken in rounds, each cell once in a round, which leaves the same bits.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

import numpy as np

from glintpy.errors import RemoteFailure
from glintpy.protocol.selection import axis_indices, is_slices
from glintpy.updaters import arithmetic_dtype

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from glintpy.protocol.selection import Selection
    from glintpy.updaters import Updater
    from glintpy.updaters.base import Array, Loop

_ONE = np.uint32(1)

_TABLE = 4096
"""Steps whose rates are made in advance: powers of 1,000 of them take as long as a third of Adam's own work."""


class HasLoop(Protocol):
    """Who may come to have an updater's compiled loop."""

    @property
    def update_loop(self) -> Loop | None:
        """The loop, see ``Updater.loop``; None: not yet, or never."""


class Updating:
    """An updater over the arrays of one shard.

    Args:
        updater: the rule, with its numbers.
        arrays: the values, the slots, and the steps if it counts them: C-contiguous; changed in place.
        kernels: has the compiled loop, once there is one.
    """

    def __init__(self, updater: Updater, arrays: Sequence[Array], kernels: HasLoop) -> None:
        values = arrays[0]
        self._kernels = kernels
        self._num_cols = 1 if values.ndim == 1 else int(values.shape[1])
        self._steps: Array | None = arrays[-1] if updater.counts_steps else None
        num_slots = len(updater.slots)
        # Views: the loops and the formula see cells, not rows.
        self._cells = [array.reshape(-1) for array in arrays[: 1 + num_slots]]
        self._dtype = arithmetic_dtype(values.dtype) if updater.kinds == "f" else values.dtype
        self.updater = updater

    @property
    def updater(self) -> Updater:
        """The rule; another one may be set that has the same slots."""
        return self._updater

    @updater.setter
    def updater(self, updater: Updater) -> None:
        self._updater = updater
        self._numbers = np.array(updater.numbers(), self._dtype)
        # Rates that follow no step are the same for each push; of those that do, the first ones are made in advance.
        self._fixed_rates = None if updater.counts_steps else self._rates_of(updater, None)
        self._table = self._rates_of(updater, np.arange(1.0, _TABLE)) if updater.counts_steps else None

    def apply(self, selection: Selection, deltas: Array) -> None:
        """Apply a push.

        Args:
            selection: checked.
            deltas: of its shape and the values' dtype.

        Raises:
            RemoteFailure: an updater that somebody brought returned something else, or tried to end the server.
            Exception: what such an updater raises.
        """
        try:
            self._apply(selection, deltas)
        except SystemExit as error:
            # A server is not an updater's to end; and the push would come again, and end it again.
            raise RemoteFailure(f"updater {self._updater.name!r} ended by {error!r}") from error

    def _apply(self, selection: Selection, deltas: Array) -> None:
        rates = self._fixed_rates
        starts, width = entries_of(selection, self._num_cols, joined=rates is not None)
        if not starts.size or not width:
            return
        if rates is None:
            rates = self._rates_at(selection, len(starts))
        deltas = np.ascontiguousarray(deltas).reshape(-1)
        loop = self._kernels.update_loop
        if loop is not None:
            loop(*self._cells, starts, width, self._updater.prepare(deltas), rates, self._numbers)
            return
        entries = deltas.reshape(len(starts), width)
        for chosen in rounds_of(starts):
            self._by_formula(
                starts[chosen], width, entries[chosen], rates if len(rates) == 1 else rates[chosen]
            )

    def _by_formula(self, starts: Array, width: int, deltas: Array, rates: Array) -> None:
        places: Any
        if len(starts) == 1:  # a slice is far faster than as many indices as there are cells
            places = (np.newaxis, slice(int(starts[0]), int(starts[0]) + width))
            taken = [cells[places].copy() for cells in self._cells]  # a formula of somebody's may change them
        else:
            places = starts[:, np.newaxis] + np.arange(width)
            taken = [cells[places] for cells in self._cells]
        dtype = self._dtype
        with np.errstate(all="ignore"):
            changed = self._updater.update(
                taken[0].astype(dtype, copy=False),
                self._updater.prepare(deltas.astype(dtype, copy=False)),
                tuple(taken[1:]),
                tuple(rates[:, index, np.newaxis] for index in range(rates.shape[1])),
                tuple(self._numbers),
            )
            for cells, new in zip(self._cells, self._checked(changed, deltas.shape), strict=True):
                cells[places] = new

    def _checked(self, changed: Any, shape: tuple[int, ...]) -> Sequence[Array]:
        """Refuse what can't be the new values and slots: numpy would spread it over others' cells.

        Raises:
            RemoteFailure: it is something else, of an updater that somebody brought.
        """
        are_arrays = isinstance(changed, tuple | list) and all(isinstance(new, np.ndarray) for new in changed)
        if (
            are_arrays
            and len(changed) == len(self._cells)
            and all(
                new.shape == shape
                and (new.dtype == cells.dtype or np.can_cast(new.dtype, cells.dtype, "same_kind"))
                for new, cells in zip(changed, self._cells, strict=True)
            )
        ):
            return changed  # type: ignore[no-any-return]  # it is a sequence of arrays by now
        found = ", ".join(f"{new.dtype.name} {new.shape}" for new in changed) if are_arrays else None
        slots = "".join(f", {slot.name}" for slot in self._updater.slots)
        raise RemoteFailure(
            f"updater {self._updater.name!r} returned {found or type(changed).__name__}; update returns a tuple "
            f"(values{slots}) of {len(self._cells)} arrays of shape {shape} and of kinds that {self._dtype.name} holds"
        )

    def _rates_at(self, selection: Selection, num_entries: int) -> Array:
        """Count a step of each row, and return what follows from the counts for each run of cells."""
        steps, table = self._steps, self._table
        assert steps is not None, "who has no fixed rates counts steps"
        assert table is not None, "who has no fixed rates counts steps"
        counts = count_steps(steps, axis_indices(selection.rows), is_paired=selection.paired)
        if len(counts) < num_entries:
            counts = counts.repeat(num_entries // len(counts))  # some columns of each row
        if int(counts.max()) <= len(table):
            return table.take(counts - _ONE, 0)
        return self._rates_of(self._updater, counts.astype(np.float64))

    def _rates_of(self, updater: Updater, steps: NDArray[np.float64] | None) -> Array:
        rates = updater.rates(steps)
        num_entries = 1 if steps is None else len(steps)
        found = np.empty((num_entries, len(rates)), self._dtype)
        for index, rate in enumerate(rates):
            found[:, index] = rate
        return found


def entries_of(selection: Selection, num_cols: int, *, joined: bool = False) -> tuple[NDArray[np.int64], int]:
    """Return a push as runs of cells: where each begins in the flat values, and how many cells they have.

    Args:
        selection: checked.
        num_cols: of the model; 1 for a vector.
        joined: make one run of whole rows that lie side by side; else each row has its own.
    """
    if joined and selection.cols is None and is_slices(selection.rows) and len(selection.rows) == 1:
        start, stop, step = selection.rows[0].tolist()
        if step == 1:
            return np.array([start * num_cols], np.int64), (stop - start) * num_cols
    rows = axis_indices(selection.rows).astype(np.int64, copy=False)
    cols = selection.cols
    if cols is None:
        return rows * num_cols if num_cols != 1 else rows, num_cols
    if not selection.paired and is_slices(cols) and len(cols) == 1 and cols[0, 2] == 1:
        start, stop, _ = cols[0].tolist()
        return rows * num_cols + start, max(0, stop - start)
    columns = axis_indices(cols).astype(np.int64, copy=False)
    if selection.paired:
        return rows * num_cols + columns, 1
    return (rows[:, np.newaxis] * num_cols + columns).reshape(-1), 1


def count_steps(steps: Array, rows: NDArray[Any], *, is_paired: bool = False) -> NDArray[np.uint32]:
    """Count a step for each entry and return its row's count there.

    Args:
        steps: (num_rows,) uint32, changed in place.
        rows: (k,) the row of each entry, k at least 1.
        is_paired: entries are single cells: those of one row that stand side by side are one step.
    """
    if is_paired:
        is_first = np.concatenate(([True], rows[1:] != rows[:-1]))
        found: NDArray[np.uint32] = count_steps(steps, rows[is_first])[np.cumsum(is_first) - 1]
        return found
    ranks = ranks_of(rows)
    counts: NDArray[np.uint32] = steps[rows] + _ONE
    if ranks is None:
        steps[rows] = counts
    else:
        counts += ranks
        np.add.at(steps, rows, _ONE)
    return counts


def ranks_of(keys: NDArray[Any]) -> NDArray[np.uint32] | None:
    """Return how often each key stands before itself, (k,); None: no key repeats."""
    if bool((keys[1:] > keys[:-1]).all()):
        return None
    order = np.argsort(keys, kind="stable")
    ordered = keys[order]
    begins = np.concatenate(([True], ordered[1:] != ordered[:-1]))
    if bool(begins.all()):
        return None
    starts = np.flatnonzero(begins)
    ranks = np.empty(len(keys), np.uint32)
    ranks[order] = np.arange(len(keys)) - np.repeat(starts, np.diff(np.append(starts, len(keys))))
    return ranks


def rounds_of(starts: NDArray[np.int64]) -> list[slice | NDArray[np.int64]]:
    """Return indices that take all entries in order, none twice, and each cell at most once in a round."""
    ranks = ranks_of(starts)
    if ranks is None:
        return [slice(None)]
    return [np.flatnonzero(ranks == number) for number in range(int(ranks.max()) + 1)]
