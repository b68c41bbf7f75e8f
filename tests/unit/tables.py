"""Tables to test: in memory, and on a shelf that is killed; knows no test."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy import failpoints
from glintpy.actors.shelf import Shelf
from glintpy.protocol.messages_tables import UPDATE
from glintpy.protocol.spec import ModelSpec
from glintpy.storage.arrays import arrays_of
from glintpy.storage.journal import Journal
from glintpy.storage.table import TableShard
from glintpy.storage.table_segment import MemoryTable
from glintpy.updaters import named

COLS = 3
SESSION, CLIENT = bytes(range(16)), bytes(16)


def a_spec(**changes: Any) -> ModelSpec:
    return ModelSpec(
        **{"name": "t", "num_rows": 0, "num_cols": COLS, "dtype": "float32", "keys": "int64", **changes}
    )


def a_table(**changes: Any) -> TableShard:
    spec = a_spec(**changes)
    updater = named(spec.updater, spec.numbers)
    return TableShard(5, spec, 1, MemoryTable(arrays_of(spec, updater)).heap, updater=updater)


def keys_of(*keys: int) -> NDArray[np.int64]:
    return np.array(keys, np.int64)


def ones(num_rows: int) -> NDArray[np.float32]:
    return np.ones((num_rows, COLS), np.float32)


def contents(table: TableShard) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    row = 0
    while True:
        scanned = table.scan(row, bytes_max=100)
        found.update(zip(scanned.keys.tolist(), scanned.values.tolist(), strict=True))
        row = scanned.next_row
        if not row:
            return found


def state_of(table: TableShard) -> dict[int, list[Any]]:
    """Return all that a table has, by key."""
    rows = np.flatnonzero(table.arrays[-1])
    keys = table.arrays[-2][rows]
    return {
        int(key): [array[row].tolist() for array in table.arrays[:-2]]
        for key, row in zip(keys, rows, strict=True)
    }


class Killed(BaseException):
    """What a process does that is killed: nothing more."""


def die() -> None:
    raise Killed


class Server:
    """A shelf and a journal in a folder, which are killed and started again."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.journal = Journal.create(folder / "j", "s", 4)
        self.session = self.journal.open_session(SESSION, CLIENT, 0.0)
        self.shelf = Shelf(folder / "segments", journal=self.journal)

    def make(self, **changes: Any) -> None:
        for _ in self.shelf.create(
            5, a_spec(**changes), routing=1, num_rows=0, extents=np.empty((0, 4), np.int64), slice_cells=10
        ):
            pass

    @property
    def table(self) -> TableShard:
        found = self.shelf.shard(5)
        assert isinstance(found, TableShard)
        return found

    def push(
        self, keys: NDArray[Any], values: NDArray[Any] | None, action: int = UPDATE, now: float = 0.0
    ) -> None:
        """Do what the actor does."""
        assert self.table.undo is not None
        self.table.undo.begin(SESSION, self.session.applied + 1)
        self.table.push_keys(keys, values, action=action, now=now)
        self.session.record(self.session.applied + 1, 0)
        failpoints.hit("push.recorded")
        self.journal.settle()
        failpoints.hit("push.flag_cleared")

    def restart(self, *, clean: bool = False) -> None:
        self.shelf.close(clean=clean)
        self.journal.close(clean=clean)
        self.journal = Journal.open(self.folder / "j")
        self.shelf = Shelf(self.folder / "segments", journal=self.journal)
        found = self.journal.find(SESSION)
        assert found is not None
        self.session = found
