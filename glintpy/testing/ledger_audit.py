"""What a ledger should hold by its workers' records, and what it does hold; arithmetic, knows no cluster.

What a push does follows from the ledger's seed and the push's number alone, so that records need to say no more than
what became of each: also the pushes of a worker that was killed, and left no record, are known.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

VALUE_MAX = 1000
"""The largest value of one push: 2**53 of them would have to be made for the sums to overflow."""

_STEP = np.uint64(0x9E3779B97F4A7C15)
_MIX = (np.uint64(0xBF58476D1CE4E5B9), np.uint64(0x94D049BB133111EB))


class Outcome(IntEnum):
    """What a worker knows of one of its pushes."""

    NOT_ISSUED = 0
    APPLIED = 1
    REFUSED = 2
    UNKNOWN = 3
    UNTOLD = 4
    """Its worker left no record: it may have been issued or not, applied or not."""


@dataclass(frozen=True, slots=True, eq=False)
class Record:
    """What became of one worker's pushes.

    Attributes:
        worker: its number.
        outcomes: (num_pushes,) uint8, an ``Outcome`` for each push.
    """

    worker: int
    outcomes: NDArray[np.uint8]

    def save(self, path: str | Path) -> None:
        """Write it to a file."""
        with Path(path).open("wb") as file:  # given a name, numpy would add an ending of its own
            np.savez(file, worker=self.worker, outcomes=self.outcomes)

    @classmethod
    def load(cls, path: str | Path) -> Record:
        """Read what ``save`` wrote."""
        with np.load(path, allow_pickle=False) as saved:
            return cls(int(saved["worker"]), saved["outcomes"].astype(np.uint8))


@dataclass(frozen=True, slots=True, eq=False)
class Rules:
    """What each push of a ledger does.

    Attributes:
        seed: of the ledger.
        server_of_row: (rows,) int64, which rows lie together: what changes there in one push changes together.
        width: value cells of a row.
    """

    seed: int
    server_of_row: NDArray[np.int64]
    width: int

    def values(self, numbers: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return what each push adds to the value cells: (n,) int64 from 1."""
        return (self._chance(numbers, 1) % np.uint64(VALUE_MAX)).astype(np.int64) + 1

    def touches(self, numbers: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return which rows each push touches: (rows, n) bool; one row, all of one server, or all."""
        rows = np.arange(len(self.server_of_row))[:, np.newaxis]
        lone = (self._chance(numbers, 2) % np.uint64(len(rows))).astype(np.int64)
        kind = self._chance(numbers, 3) % np.uint64(4)
        together = self.server_of_row[:, np.newaxis] == self.server_of_row[lone]
        touched: NDArray[np.bool_] = (rows == lone) | ((kind == 2) & together) | (kind == 3)
        return touched

    def _chance(self, numbers: NDArray[np.int64], stream: int) -> NDArray[np.uint64]:
        """Return a random number for each push, by splitmix64; the same on every machine."""
        start = np.array([self.seed * 4 + stream], dtype=np.uint64)
        mixed = (numbers.astype(np.uint64) + start * _STEP) * _STEP
        mixed = (mixed ^ (mixed >> np.uint64(30))) * _MIX[0]
        mixed = (mixed ^ (mixed >> np.uint64(27))) * _MIX[1]
        return mixed ^ (mixed >> np.uint64(31))


@dataclass(slots=True)
class Audit:
    """What was found in a ledger; grows block by block.

    Attributes:
        name: of the ledger.
        seed: of the ledger.
        num_issued: pushes that were issued for certain.
        num_applied: acknowledged ones.
        num_refused: those of which their future said that no cell changed.
        num_unknown: those of which it said that it can't be known, or whose worker left no record.
        num_unknown_in: those of them that are in, wholly or on some servers.
        num_lost: acknowledged, and not in everywhere.
        num_doubled: in more than once somewhere.
        num_strays: in, though refused or never issued.
        num_torn: unknown, and in on a part of what one server changes together.
        num_wrong_cells: cells that hold what no order of these pushes explains, value cells included.
        first: the first thing that is wrong, in words; empty if nothing is.
    """

    name: str
    seed: int
    num_issued: int = 0
    num_applied: int = 0
    num_refused: int = 0
    num_unknown: int = 0
    num_unknown_in: int = 0
    num_lost: int = 0
    num_doubled: int = 0
    num_strays: int = 0
    num_torn: int = 0
    num_wrong_cells: int = 0
    first: str = ""
    _sums: dict[int, NDArray[np.int64]] = field(default_factory=dict, repr=False)

    @property
    def holds(self) -> bool:
        """Whether every push is in as it should be, and nothing else."""
        return not self.num_wrong_cells

    def as_dict(self) -> dict[str, Any]:
        """Return the numbers, for a report."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__ if not name.startswith("_")}

    def __str__(self) -> str:
        counts = (
            f"{self.num_issued:,} pushes: {self.num_applied:,} acknowledged, {self.num_refused:,} refused, "
            f"{self.num_unknown:,} of unknown outcome ({self.num_unknown_in:,} of them are in)"
        )
        if self.holds:
            return f"{counts}; each is in exactly as often as it should be"
        return (
            f"{counts}; {self.num_lost:,} lost, {self.num_doubled:,} doubled, {self.num_strays:,} in that should not "
            f"be, {self.num_torn:,} torn, {self.num_wrong_cells:,} wrong cells; first: {self.first} "
            f"(ledger {self.name!r}, seed {self.seed})"
        )

    # --- the work -------------------------------------------------------------------------------------------

    def add_block(
        self,
        rules: Rules,
        *,
        worker: int,
        outcomes: NDArray[np.uint8],
        first: int,
        cells: NDArray[np.int64],
    ) -> None:
        """Look at a run of one worker's pushes.

        Args:
            rules: of the ledger.
            worker: whose.
            outcomes: (n,) uint8 what became of them.
            first: the number of the first one among all of the ledger.
            cells: (rows, n) int64 their cells.
        """
        numbers = np.arange(first, first + len(outcomes), dtype=np.int64)
        touched = rules.touches(numbers)
        is_applied, is_refused = outcomes == Outcome.APPLIED, outcomes == Outcome.REFUSED
        is_open = (outcomes == Outcome.UNKNOWN) | (outcomes == Outcome.UNTOLD)
        lost = touched & is_applied & (cells == 0)
        doubled = touched & (cells > 1)
        stray = (cells != 0) & (~touched | is_refused | (outcomes == Outcome.NOT_ISSUED))
        stray |= cells < 0
        torn = self._torn(rules, touched & is_open, cells)
        self.num_issued += int(np.sum((outcomes != Outcome.NOT_ISSUED) & (outcomes != Outcome.UNTOLD)))
        self.num_applied += int(is_applied.sum())
        self.num_refused += int(is_refused.sum())
        self.num_unknown += int(is_open.sum())
        self.num_unknown_in += int((is_open & (cells != 0).any(axis=0)).sum())
        found = {"lost": lost, "doubled": doubled & ~stray, "strays": stray, "torn": torn}
        for name, wrong in found.items():
            setattr(self, f"num_{name}", getattr(self, f"num_{name}") + int(wrong.any(axis=0).sum()))
        wrong = lost | doubled | stray | torn
        self.num_wrong_cells += int(wrong.sum())
        if wrong.any() and not self.first:
            position = int(np.flatnonzero(wrong.any(axis=0))[0])
            row = int(np.flatnonzero(wrong[:, position])[0])
            outcome = Outcome(int(outcomes[position])).name.lower().replace("_", " ")
            times = f"{cells[row, position]} times in row {row}"
            self.first = f"push {first + position} (worker {worker}, {outcome}) is in {times}"
        values = rules.values(numbers)
        for row in range(len(cells)):
            self._sums[row] = self._sums.get(row, np.zeros(1, np.int64)) + (cells[row] * values).sum()

    def add_values(self, values: NDArray[np.int64]) -> None:
        """Compare the value cells with what the ledger's cells say that they sum up to, after all blocks.

        Args:
            values: (rows, width) int64.
        """
        expected = np.array([[int(self._sums.get(row, np.zeros(1))[0])] for row in range(len(values))])
        wrong = values != expected
        self.num_wrong_cells += int(wrong.sum())
        if wrong.any() and not self.first:
            row, cell = (int(index) for index in np.argwhere(wrong)[0])
            self.first = (
                f"value cell {cell} of row {row} is {values[row, cell]:,}, the pushes that are in make it "
                f"{expected[row, 0]:,}"
            )

    @staticmethod
    def _torn(rules: Rules, touched: NDArray[np.bool_], cells: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Return the cells of pushes that are in on some rows of a server, and not on others that they touch."""
        torn = np.zeros_like(touched)
        for server in np.unique(rules.server_of_row):
            rows = rules.server_of_row == server
            some = (touched[rows] & (cells[rows] > 0)).any(axis=0)
            torn[rows] = touched[rows] & (cells[rows] == 0) & some
        return torn
