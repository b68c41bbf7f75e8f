"""Tables on a server: from messages about keys to what a table does, and back; no thread, socket or clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy import config, failpoints
from glintpy.actors.durable import Durable
from glintpy.actors.receipts import Receipts
from glintpy.actors.shelf import Shelf
from glintpy.errors import RemoteProtocolError, ShapeError
from glintpy.protocol import wire
from glintpy.protocol.messages import Done, Message
from glintpy.protocol.messages_tables import (
    EVICT,
    REMOVE,
    UPDATE,
    CountKeys,
    PullKeys,
    PushKeys,
    ScanKeys,
    Scanned,
)
from glintpy.storage.table import TableShard

OfTables = PullKeys | PushKeys | ScanKeys | CountKeys


class Tables:
    """Answers what is asked of tables.

    Args:
        shelf: the models.
        receipts: the sessions.
        durable: hears of each push.
        roll_back: undoes the push that is under way.
        wall_clock: seconds since 1970.
    """

    def __init__(
        self,
        shelf: Shelf,
        receipts: Receipts,
        durable: Durable,
        *,
        roll_back: Callable[[], None],
        wall_clock: Callable[[], float],
    ) -> None:
        self._shelf = shelf
        self._receipts = receipts
        self._durable = durable
        self._roll_back = roll_back
        self._wall_clock = wall_clock

    def handle(self, message: OfTables, now: float) -> Message:
        """Return the answer to a client.

        Raises:
            GlintError: see ``Receipts``.
        """
        match message:
            case PullKeys():
                return self._receipts.pull(message, now, read=self._read)
            case PushKeys():
                return self._receipts.push(message, now, apply=self.apply, read=self._read)
            case ScanKeys():
                return self._receipts.follows(message, now) or self._scan(message)
            case CountKeys():
                return self._receipts.follows(message, now) or self._count(message)

    def _table(self, model_id: int, routing: int | None = None) -> TableShard:
        shard = self._shelf.shard(model_id, routing=routing)
        if not isinstance(shard, TableShard):
            raise ShapeError(f"model {shard.spec.name!r} is no table: what it has is asked for by row")
        return shard

    def _read(self, message: PullKeys | PushKeys) -> NDArray[Any]:
        table = self._table(message.model_id, message.routing)
        failpoints.hit("pull.before_copy")
        if isinstance(message, PullKeys) and message.contains:
            values: NDArray[Any] = table.contains(message.keys)
        else:
            values = table.pull_keys(message.keys, array=message.array, bytes_max=config.FRAME_BYTES_MAX)
        failpoints.hit("pull.before_send")
        return values

    def apply(self, message: PushKeys) -> None:
        """Do what a push says, all of it or, by an exception, nothing.

        Raises:
            GlintError: it is refused.
        """
        table = self._table(message.model_id, message.routing)
        if message.wants_values:
            # Before anything is written: what could never be answered is refused, not half done.
            if message.action in {REMOVE, EVICT}:
                raise RemoteProtocolError("keys that are removed have no values to answer with")
            num_bytes = math.prod(message.keys.shape[:1]) * table.heap.kinds[0].row_bytes
            if num_bytes > config.FRAME_BYTES_MAX:
                raise RemoteProtocolError(f"a push wants {num_bytes} bytes back, more than a frame has")
        if self._durable.keeps(message.model_id) or table.admission is not None:
            # Before it is written down: a log is no place for what would be refused, but for want of room.
            table.check_keys(message.keys, message.values, action=message.action, array=message.array)
        if table.admission is not None and message.action == UPDATE:
            # And is no place for what is dropped: counts don't outlive the process, so the log says what they came to.
            admitted = np.flatnonzero(table.admit(message.keys))
            if len(admitted) < len(message.keys):
                assert message.values is not None, "it was checked"
                message = replace(message, keys=message.keys[admitted], values=message.values[admitted])
        now = self._wall_clock()
        self._durable.push(message, now)
        if table.undo is None:
            self._push(table, message, now)
            return
        table.undo.begin(message.session, message.sequence)
        try:
            self._push(table, message, now)
        except Exception:
            self._roll_back()
            raise

    @staticmethod
    def _push(table: TableShard, message: PushKeys, now: float) -> None:
        table.push_keys(message.keys, message.values, action=message.action, array=message.array, now=now)

    def _scan(self, message: ScanKeys) -> Message:
        found = self._table(message.model_id, message.routing).scan(
            message.first_row, bytes_max=config.PART_BYTES
        )
        window_bytes = self._receipts.window_bytes
        return Scanned(message.request_id, 0, window_bytes, found.next_row, found.keys, found.values)

    def _count(self, message: CountKeys) -> Message:
        table = self._table(message.model_id)
        found = {"num_keys": table.num_keys, "num_bytes": table.num_bytes}
        return Done(message.request_id, wire.document(found))
