"""What a model should hold after pushes under any updater: the plain way, row by row; knows no server.

Beside a model, it is told of the same pushes in the same order, and must have the same bits in values and slots. Where
several clients push at once it can still follow, if what they push to is apart.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy.updaters import Updater, arithmetic_dtype
from glintpy.updaters.base import STEPS

Array = NDArray[Any]


class Updated:
    """A matrix or a vector in this process, under an updater.

    Attributes:
        values: of the model's shape and dtype.
        slots: by name, what the updater keeps.
    """

    def __init__(self, values: Array, updater: Updater) -> None:
        """Begin with what the model begins with.

        Args:
            values: (num_rows, num_cols) or (size,); copied.
            updater: the model's; another one may be set, as by ``configure``.
        """
        self.values = values.copy()
        self.updater = updater
        self._dtype = arithmetic_dtype(values.dtype)
        self.slots: dict[str, Array] = {
            slot.name: np.full(values.shape, slot.init, self._dtype) for slot in updater.slots
        }
        if updater.counts_steps:
            self.slots[STEPS] = np.zeros(values.shape[0], np.uint32)

    def push(self, rows: Any, deltas: Any, cols: Any = None) -> None:
        """Apply a push, as a model's ``push`` does.

        Args:
            rows: (n,) integers; repeats count as the updater says.
            deltas: broadcast against what they select.
            cols: (n,) integers paired with the rows; None: whole rows, or a vector's keys.
        """
        rows = np.asarray(rows, np.int64).reshape(-1)
        if cols is None:
            chosen = np.broadcast_to(
                np.asarray(deltas, self.values.dtype), (len(rows), *self.values.shape[1:])
            )
            whole: list[tuple[int, ...]] = [(int(row),) for row in rows]
            for place, delta in self._combined(whole, chosen):
                self._apply([place], delta.reshape(1, -1))
            return
        cols = np.asarray(cols, np.int64).reshape(-1)
        chosen = np.broadcast_to(np.asarray(deltas, self.values.dtype), rows.shape)
        cells: list[tuple[int, ...]] = list(zip(rows.tolist(), cols.tolist(), strict=True))
        pushed = self._combined(cells, chosen)
        for row in sorted({cell[0] for cell, _ in pushed}):
            # Cells of one row are one step of the row.
            of_row = [(cell, delta) for cell, delta in pushed if cell[0] == row]
            self._apply([cell for cell, _ in of_row], np.array([[delta] for _, delta in of_row]))

    def _combined(self, cells: list[tuple[int, ...]], deltas: Array) -> list[tuple[tuple[int, ...], Any]]:
        """Return an update for each cell, or all as they come where repeats stay apart."""
        if not self.updater.combines or self.updater.is_associative:
            return list(zip(cells, deltas, strict=True))
        sums: dict[tuple[int, ...], Any] = {}
        for cell, delta in zip(cells, deltas, strict=True):
            sums[cell] = sums[cell] + delta if cell in sums else delta.copy()
        return sorted(sums.items())

    def _apply(self, places: list[tuple[int, ...]], deltas: Array) -> None:
        """Apply updates to places of one row: the whole of it, or several cells; (k, width)."""
        updater, dtype = self.updater, self._dtype
        row = places[0][0]
        steps = None
        if updater.counts_steps:
            self.slots[STEPS][row] += 1
            steps = np.array([float(self.slots[STEPS][row])])
        names = [slot.name for slot in updater.slots]
        for place, delta in zip(places, deltas, strict=True):
            with np.errstate(all="ignore"):
                values, *slots = updater.update(
                    np.atleast_1d(self.values[place]).reshape(1, -1).astype(dtype),
                    updater.prepare(delta.reshape(1, -1).astype(dtype)),
                    tuple(np.atleast_1d(self.slots[name][place]).reshape(1, -1) for name in names),
                    tuple(
                        np.broadcast_to(rate, 1).astype(dtype).reshape(1, 1) for rate in updater.rates(steps)
                    ),
                    tuple(np.array(updater.numbers(), dtype)),
                )
                self.values[place] = values.reshape(self.values[place].shape)
            for name, new in zip(names, slots, strict=True):
                self.slots[name][place] = new.reshape(self.slots[name][place].shape)
