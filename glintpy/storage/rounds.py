"""Snapshots of all that a log is about, taken slice by slice, so that the log may be cut; no thread or clock.

A round goes from model to model, and last to the receipts. Each snapshot is of its own moment and names it; what lies
before the oldest of them nobody needs any more. Old and new snapshot of one thing lie side by side only until the new
one has its name.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import numpy as np

from glintpy import config
from glintpy.storage.files import Files
from glintpy.storage.journal import Journal
from glintpy.storage.log import Log
from glintpy.storage.recovery import receipts_block
from glintpy.storage.shard import Shard
from glintpy.storage.snapshot import RECEIPTS, SnapshotFile, SnapshotWriter, snapshots_in
from glintpy.storage.table import TableShard

logger = logging.getLogger("glintpy.storage")

SLICE_BYTES = config.MIB
"""Of a snapshot, between two looks into the mailbox."""

CUT = -1
"""The id of the cut that a snapshot reads; those of saves are positive."""

Steps = Generator[int, None, None]
"""Yields the bytes that were written since the last step."""


class Snapshots:
    """The snapshots in one folder.

    Attributes:
        shards: the models, by id.
        positions: of each model, the first record that no snapshot of it holds.
        receipts_position: the same of the receipts.
    """

    def __init__(self, files: Files, folder: Path, journal: Journal) -> None:
        """Begin with no model.

        Args:
            files: the disk.
            folder: where they go, beside the log.
            journal: the receipts.
        """
        self.shards: dict[int, Shard] = {}
        self.positions: dict[int, int] = {}
        self.receipts_position = 0
        self._files = files
        self._folder = folder
        self._journal = journal

    @property
    def num_bytes(self) -> int:
        """Bytes of all models."""
        return sum(shard.num_bytes for shard in self.shards.values())

    def identity(self) -> dict[str, Any]:
        """Return what must outlive all other files of the server."""
        return {"server_id": self._journal.server_id, "incarnation": self._journal.incarnation}

    def all(self, log: Log, sync: Callable[[], None]) -> Steps:
        """Take one of everything, and cut the log.

        Args:
            log: what they follow on.
            sync: brings the log to the disk.

        Raises:
            LogFailed: the log's disk refused.
            OSError, NotEnoughMemory, MemoryError: a snapshot's; what was there before is still there.
        """
        for model_id in list(self.shards):
            if model_id in self.shards:
                yield from self.model(model_id, log, sync)
        sync()
        yield self.receipts(log.next_number)
        log.drop_below(min([self.receipts_position, *self.positions.values()]))

    def model(self, model_id: int, log: Log, sync: Callable[[], None]) -> Steps:
        """Take one of a model; see ``all``."""
        shard = self.shards[model_id]
        # Else it might hold a push of which a power cut takes the receipt.
        sync()
        position, row_bytes = log.next_number, shard.row_bytes
        slice_rows = max(1, SLICE_BYTES // max(1, row_bytes))
        cut = shard.begin_cut(CUT, slice_rows=slice_rows)
        writer = None
        try:
            writer = SnapshotWriter(
                self._files,
                self._folder,
                SnapshotFile(str(model_id), position),
                {"description": description_of(shard)},
                num_bytes=sum(array.nbytes for array in shard.arrays),
                num_blocks=-(-slice_rows * row_bytes // SLICE_BYTES) * cut.num_slices,
            )
            for index in range(cut.num_slices):
                cells = cut.read(index, floor=index).reshape(-1).view(np.uint8).data
                for first in range(0, len(cells), SLICE_BYTES):
                    writer.write(cells[first : first + SLICE_BYTES])
                yield len(cells)
                if self.shards.get(model_id) is not shard:
                    return  # it has ended meanwhile
            writer.finish()
        finally:
            if CUT in shard.cuts:
                shard.end_cut(CUT)
            if writer is not None:
                writer.abandon()
        self.positions[model_id] = position
        self.remove(str(model_id), below=position)

    def receipts(self, position: int) -> int:
        """Take one of the receipts, at once, and return its bytes.

        Args:
            position: the number of the log's next record; all before are synced.

        Raises:
            OSError, NotEnoughMemory: it can't be written.
        """
        block = receipts_block(self._journal)
        writer = SnapshotWriter(
            self._files,
            self._folder,
            SnapshotFile(RECEIPTS, position),
            {"identity": self.identity()},
            num_bytes=len(block),
            num_blocks=1,
        )
        try:
            if block:
                writer.write(block)
            writer.finish()
        finally:
            writer.abandon()
        self.receipts_position = position
        self.remove(RECEIPTS, below=position)
        return len(block)

    def remove(self, key: str, *, below: int) -> None:
        """Remove the snapshots of one thing that are older than a position."""
        try:
            for file in snapshots_in(self._files, self._folder):
                if file.key == key and file.position < below:
                    self._files.unlink(self._folder / file.name)
        except OSError as error:
            logger.warning("an old snapshot can't be removed: %s", error)


def description_of(shard: Shard) -> dict[str, Any]:
    """Return a model's description, as its segment has it."""
    return {
        "model_id": shard.model_id,
        "spec": shard.spec.to_content(),
        "routing": shard.routing,
        "num_rows": shard.num_rows,
        "rows_max": shard.rows_max if isinstance(shard, TableShard) else shard.num_rows,
        "durability": "disk",
        "numbers_version": shard.numbers_version,
        "live": shard.live,
    }
