"""Where the arrays of one server's models lie: a segment each, or memory; knows no request, thread or clock."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from glintpy.config import Durability
from glintpy.errors import ModelLost
from glintpy.protocol.spec import ModelSpec, numbers_text
from glintpy.storage import heap
from glintpy.storage.arrays import arrays_of, extents_of
from glintpy.storage.initialise import check_init
from glintpy.storage.numbers import NUMBERS, NUMBERS_BYTES, Numbers
from glintpy.storage.segment import MemorySegment, Segment, Store
from glintpy.storage.shard import Shard
from glintpy.storage.table import ROWS_MAX, TableShard
from glintpy.storage.table_segment import MemoryTable, TableSegment
from glintpy.storage.undo import Undo
from glintpy.updaters import Updater, named

SUFFIX = ".segment"


class WasInMemoryError(ModelLost):
    """A model whose level is ``memory``, of another process."""


class Stores:
    """Makes and opens the stores of models.

    Attributes:
        folder: where segments lie; None: in memory only.
    """

    def __init__(self, folder: Path | None, allow: Sequence[str]) -> None:
        """Do nothing yet.

        Args:
            folder: where segments lie; None: in memory only.
            allow: import paths below which custom updaters may lie.
        """
        self.folder = folder
        self._allow = tuple(allow)

    def path_of(self, model_id: int) -> Path:
        """Return where a model's segment lies; there is a folder."""
        assert self.folder is not None, "models in memory have no files"
        return self.folder / f"{model_id}{SUFFIX}"

    def remove(self, model_id: int) -> None:
        """Remove the files of a model, of which nothing else may be known.

        Raises:
            ConfigError: the folder can't be written to.
        """
        path = self.path_of(model_id)
        heap.remove(path)
        path.unlink(missing_ok=True)

    def updater_of(self, spec: ModelSpec, numbers: str | None = None) -> Updater:
        """Return a model's updater.

        Args:
            spec: the model's.
            numbers: other ones than the spec's, as a spec has them.

        Raises:
            ConfigError: there is none of that name, it is not allowed here, or has other numbers.
            DTypeError: it can't work with the model's dtype.
        """
        content = spec.numbers if numbers is None else json.loads(numbers)
        updater = named(spec.updater, content, allow=self._allow)
        updater.check_dtype(spec.numpy_dtype)
        return updater

    def bytes_of(self, spec: ModelSpec, num_rows: int) -> int:
        """Return the bytes that a server needs for a model to begin with.

        Args:
            spec: the model's.
            num_rows: of this server; of a table none.

        Raises:
            ConfigError, DTypeError: see ``updater_of``.
        """
        kinds = arrays_of(spec, self.updater_of(spec))
        row_bytes = sum(kind.row_bytes for kind in kinds)
        return row_bytes * (heap.first_rows(row_bytes) if spec.keys else num_rows)

    def new(self, description: dict[str, Any], level: Durability) -> Store:
        """Make room for a model's arrays, all zeros.

        Args:
            description: what the segment says of it: its id, spec, routing and rows.
            level: what it survives.

        Raises:
            NotEnoughMemory: there is none.
        """
        spec = ModelSpec.from_content(description["spec"])
        updater = self.updater_of(spec)
        kinds, num_rows = arrays_of(spec, updater), int(description["num_rows"])
        if spec.keys:
            check_init(spec)
            lengths = {}  # its arrays grow, in a heap beside
        else:
            lengths = extents_of(kinds, num_rows)
        if self.folder is None:
            return MemoryTable(kinds) if spec.keys else MemorySegment(lengths)
        path = self.path_of(int(description["model_id"]))
        self.remove(int(description["model_id"]))  # of a creation that was cut off
        if level != "memory":
            if updater.to_content():
                lengths[NUMBERS] = NUMBERS_BYTES
            if spec.keys:
                return TableSegment.make_table(path, description, lengths, kinds, num_rows)
            return Segment.make(path, description, lengths)
        store = MemoryTable(kinds) if spec.keys else MemorySegment(lengths)
        # An empty file tells the next process that there was such a model: it is lost, not unheard of.
        Segment.make(path, description, {}).close(clean=False)
        return store

    def shard_over(self, store: Store, description: dict[str, Any], *, undo: Undo | None) -> Shard:
        """Return a model over its store.

        Args:
            store: it has room for the model's arrays.
            description: what ``new`` was given, or what a segment says.
            undo: where pushes to it write old values; None: nowhere.

        Raises:
            ModelLost: the store has no such arrays.
        """
        spec, version = (
            ModelSpec.from_content(description["spec"]),
            int(description.get("numbers_version", 0)),
        )
        if isinstance(store, Segment) and NUMBERS in store.description["extents"]:
            kept_version, text = _numbers_in(store).read()
            if kept_version > version:
                version, spec = kept_version, replace(spec, updater_numbers=text)
        updater = self.updater_of(spec)
        model_id, routing = int(description["model_id"]), int(description["routing"])
        if spec.keys:
            assert isinstance(store, TableSegment | MemoryTable), "it is a table's"
            rows_max = int(description["rows_max"]) if spec.num_rows else ROWS_MAX
            shard: Shard = TableShard(
                model_id, spec, routing, store.heap, updater=updater, undo=undo, rows_max=rows_max
            )
        else:
            num_rows = int(description["num_rows"])
            values, *slots = (
                store.extent(array.name, array.dtype, (num_rows, *array.row_shape))
                for array in arrays_of(spec, updater)
            )
            shard = Shard(model_id, spec, routing, values, slots=slots, updater=updater, undo=undo)
        shard.numbers_version = version
        shard.live = int(description.get("live", 0))
        return shard

    def open(self, segment: TableSegment, *, undo: Undo | None) -> Shard:
        """Return the model in a segment that survived.

        Raises:
            ModelLost: it can't be trusted.
        """
        if segment.description["durability"] == "memory":
            raise WasInMemoryError("its level of durability is 'memory'")
        if not segment.has_survived:
            raise ModelLost("the machine stopped, and what lay in memory has not been written to its disk")
        spec = ModelSpec.from_content(segment.description["spec"])
        if spec.keys:
            segment.open_heap(arrays_of(spec, self.updater_of(spec)))
        shard = self.shard_over(segment, segment.description, undo=undo)
        segment.mark_open()
        return shard

    def configure(self, store: Store, shard: Shard, updater: Updater, version: int) -> None:
        """Give a model's updater other numbers, in its store first.

        Args:
            store: the model's.
            shard: the model.
            updater: with the new numbers, for the same slots.
            version: of the numbers.

        Raises:
            ConfigError: it has other slots.
        """
        shard.updater.check_slots(updater)
        if isinstance(store, Segment) and NUMBERS in store.description["extents"]:
            _numbers_in(store).write(version, numbers_text(updater.to_content()))
        shard.configure(updater, version)


def _numbers_in(segment: Segment) -> Numbers:
    return Numbers(segment.extent(NUMBERS, np.dtype("u1"), (NUMBERS_BYTES,)))
