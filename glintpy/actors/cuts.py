"""The moments of models that clients read: who holds which, and how long; no thread, and time is an argument."""

from __future__ import annotations

import itertools
from dataclasses import dataclass

from glintpy import config
from glintpy.actors.receipts import Receipts
from glintpy.actors.shelf import Shelf
from glintpy.errors import ModelError, Overloaded
from glintpy.protocol import wire
from glintpy.protocol.messages import BeginCut, Done, EndCut, Message, ReadCut, Values
from glintpy.protocol.texts import matrix_of

CUTS_MAX = 64
"""Moments held at once: each may come to cost as much memory as its model."""


@dataclass(slots=True)
class _Cut:
    """A moment of a model that a client reads."""

    session: bytes
    request_id: int
    model_id: int
    last_read: float


class Cuts:
    """Moments by their ids.

    Args:
        shelf: the models.
        receipts: the sessions.
        incarnation: of the server.
    """

    def __init__(self, shelf: Shelf, receipts: Receipts, *, incarnation: int) -> None:
        self._shelf = shelf
        self._receipts = receipts
        self._cuts: dict[int, _Cut] = {}
        # Never a number of an earlier process: a save that goes on after a restart would read another save's cut.
        self._ids = itertools.count((incarnation << 32) + 1)

    @property
    def num(self) -> int:
        """Moments that are held."""
        return len(self._cuts)

    def handle(self, message: BeginCut | ReadCut | EndCut, now: float) -> Message:
        """Return the answer to a client."""
        match message:
            case BeginCut():
                return self._begin(message, now)
            case ReadCut():
                return self._read(message, now)
            case EndCut():
                return self._end(message, now)

    def drop_of(self, model_id: int) -> None:
        """Let go of the moments of a model that ends."""
        for cut_id in [cut_id for cut_id, known in self._cuts.items() if known.model_id == model_id]:
            self._drop(cut_id)

    def forget(self, now: float, *, idle_s: float) -> None:
        """Let go of what nobody has read for so long."""
        for cut_id, known in list(self._cuts.items()):
            if now - known.last_read > idle_s:
                self._drop(cut_id)

    def _begin(self, message: BeginCut, now: float) -> Message:
        gap = self._receipts.follows(message, now)
        if gap is not None:
            return gap
        shard = self._shelf.shard(message.model_id)
        slice_rows = max(1, config.PART_BYTES // max(1, shard.row_bytes))
        asked = (message.session, message.request_id)
        again = [cut_id for cut_id, cut in self._cuts.items() if (cut.session, cut.request_id) == asked]
        cut_id = again[0] if again else next(self._ids)
        if not again:
            if len(self._cuts) >= CUTS_MAX:
                raise Overloaded(
                    f"{CUTS_MAX} saves read from this server already; come again when one is done"
                )
            shard.begin_cut(cut_id, slice_rows=slice_rows)
            self._cuts[cut_id] = _Cut(message.session, message.request_id, message.model_id, now)
        found = {"cut_id": cut_id, "num_rows": shard.num_rows, "slice_rows": slice_rows}
        return Done(message.request_id, wire.document(found))

    def _read(self, message: ReadCut, now: float) -> Message:
        self._receipts.find(message.session, now)
        known = self._cuts.get(message.cut_id)
        if known is None or known.session != message.session:
            raise ModelError(f"there is no cut {message.cut_id} (any more): it was not read for too long")
        known.last_read = now
        cut = self._shelf.shard(known.model_id).cuts[message.cut_id]
        values = cut.read(message.index, floor=message.done_below)
        if values.dtype.kind == "S":
            values = matrix_of(values)  # the keys of a table, which are texts
        cells = config.PART_BYTES // values.itemsize
        if values.size > cells:
            values = values.reshape(-1)[message.first_cell : message.first_cell + cells]
        return Values(message.request_id, 0, self._receipts.window_bytes, values)

    def _end(self, message: EndCut, now: float) -> Message:
        self._receipts.find(message.session, now)
        known = self._cuts.get(message.cut_id)
        if known is not None and known.session == message.session:
            self._drop(message.cut_id)
        return Done(message.request_id, wire.document({}))

    def _drop(self, cut_id: int) -> None:
        known = self._cuts.pop(cut_id)
        shard = self._shelf.find(known.model_id)
        if shard is not None and cut_id in shard.cuts:
            shard.end_cut(cut_id)
