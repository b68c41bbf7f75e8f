"""What a drill's client does under an updater that remembers: gradients, beside the plain way; knows no fault.

Each client has rows of its own in one matrix, so that it knows all that happens to them. Values, both moments and the
counts of steps must have, bit for bit, what the same pushes leave in this process: one that was lost, or counted
twice, or applied to the values and not to a slot, shows.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from glintpy.client import Client
from glintpy.errors import GlintError
from glintpy.futures import Future
from glintpy.models.matrix import BigMatrix
from glintpy.testing.updated import Updated
from glintpy.updaters import Adam, schedules

ROWS = 24
"""Of each client."""

COLS = 16
PUSH_ROWS = 6
"""Entries of a push, at most; some of them repeat a row."""


def make_model(client: Client, name: str, num_workers: int) -> BigMatrix:
    """Make the matrix that all clients push gradients to: their rows lie side by side on all servers."""
    updater = Adam(learning_rate=schedules.InverseTime(0.1, 0.01))
    return client.matrix(
        ROWS * num_workers, COLS, dtype="float32", partitioner="cyclic", name=name, updater=updater
    )


class Updates:
    """One client's pushes, and what they should leave.

    Attributes:
        num_pushes: that were issued.
        num_compared: how often everything was compared.
    """

    def __init__(self, model: BigMatrix, worker: int, num_workers: int, seed: int) -> None:
        """Take a client's rows.

        Args:
            model: from ``make_model``.
            worker: the client's number.
            num_workers: how many there are.
            seed: of what is pushed.
        """
        self._model = model
        self._rows = np.arange(worker, model.num_rows, num_workers)
        self._random = np.random.default_rng([seed, worker])
        self._expected = Updated(np.zeros((len(self._rows), model.num_cols), np.float32), model.updater)
        self._open: list[Future[None]] = []
        self.num_pushes = self.num_compared = 0

    def push(self) -> None:
        """Push gradients to some rows, or to some cells.

        Raises:
            GlintError: an earlier one failed, though it had time.
        """
        places = self._random.integers(0, len(self._rows), self._random.integers(1, PUSH_ROWS + 1))
        cols = self._random.integers(0, COLS, len(places)) if self.num_pushes % 4 == 0 else None
        shape = (len(places),) if cols is not None else (len(places), COLS)
        deltas = (self._random.integers(-16, 17, shape) / 8).astype(np.float32)
        self._open.append(self._model.push(self._rows[places], deltas, cols=cols))
        self._expected.push(places, deltas, cols)
        self.num_pushes += 1
        self._open = [push for push in self._open if not push.done() or push.result() is not None]

    def compare(self) -> str:
        """Return what is wrong in values and slots, empty if nothing is; waits for what is under way.

        Raises:
            GlintError: they can't be read.
        """
        found: dict[str, Any] = {"values": self._model.pull(self._rows)}
        found |= {name: self._model.pull_slot(name, self._rows) for name in self._model.slots}
        expected = {"values": self._expected.values, **self._expected.slots}
        self.num_compared += 1
        wrong = [
            f"{int((future.result() != expected[name]).sum())} of {expected[name].size} {name}"
            for name, future in found.items()
            if not np.array_equal(future.result(), expected[name])
        ]
        return f"under Adam, after {self.num_pushes} pushes: {', '.join(wrong)} are wrong" if wrong else ""

    def finish(self) -> str:
        """Wait for all pushes, and return what is wrong in the end."""
        for push in self._open:
            error = push.exception()
            if isinstance(error, GlintError):
                return f"under Adam, a push failed: {type(error).__name__}: {error}"
        return self.compare()
