"""The models of one server: which there are, where their values lie, which were lost; no thread or clock."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from glintpy import failpoints
from glintpy.actors.durable import Durable
from glintpy.actors.preparing import prepare_soon
from glintpy.actors.stores import SUFFIX, Stores, WasInMemoryError
from glintpy.config import Durability
from glintpy.errors import (
    ConfigError,
    GlintError,
    ModelError,
    ModelLost,
    ModelNotFound,
    NotEnoughMemory,
    RemoteProtocolError,
)
from glintpy.protocol.spec import ModelSpec, numbers_text
from glintpy.storage import initialise
from glintpy.storage.arrays import fill_slots
from glintpy.storage.journal import Journal
from glintpy.storage.kernels import Kernels
from glintpy.storage.mapped import remove_unfinished
from glintpy.storage.memory import available_bytes, room_in
from glintpy.storage.segment import Store
from glintpy.storage.shard import Shard
from glintpy.storage.table import TableShard
from glintpy.storage.table_segment import TableSegment

logger = logging.getLogger("glintpy.actors")


class Shelf:
    """Shards by model id.

    Args:
        folder: where segments lie; None: in memory only.
        journal: of this server, with the undo record of a push that its last process was killed in; None: of no use
            without a folder.
        durability: the level of models that name none.
        durable: keeps those of level ``disk``, and brings back what a power cut took; None: none can be made here.
        memory_limit: bytes for all models; None: what is free when a model is made.
        free_bytes: tells what is free.
        prepare: called for each model whose loops want to be compiled; returns at once.
        allow: import paths below which custom updaters may lie.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        journal: Journal | None = None,
        durability: Durability = "process",
        durable: Durable | None = None,
        memory_limit: int | None = None,
        free_bytes: Callable[[], int] = available_bytes,
        prepare: Callable[[Kernels], None] = prepare_soon,
        allow: Sequence[str] = (),
    ) -> None:
        self._folder = folder
        self._undo = None if journal is None else journal.undo
        self._durability: Durability = durability
        self.durable = durable
        self._on_disk: set[int] = set()  # those of level disk
        self.has_damaged = False
        """Whether a segment was found that can't be used, and is not one of level ``memory``."""
        self._memory_limit = memory_limit
        self._free_bytes = free_bytes
        self._prepare = prepare
        self._places = Stores(folder, allow)
        self._shards: dict[int, Shard] = {}
        self._stores: dict[int, Store] = {}
        self._reserved: dict[int, int] = {}
        self._filling: set[int] = set()  # made, and not initialised to the end
        self._lost: set[int] = set()
        try:
            if folder is not None:
                folder.mkdir(parents=True, exist_ok=True)
                remove_unfinished(folder)
                self._open_all(folder)
            if journal is not None:
                self._roll_back(journal)
        except BaseException:
            self.close(clean=False)
            raise

    # --- looking up -------------------------------------------------------------------------------------------

    def find(self, model_id: int) -> Shard | None:
        """Return a shard, or None."""
        return self._shards.get(model_id)

    def shard(self, model_id: int, *, routing: int | None = None) -> Shard:
        """Return a shard that may be used.

        Args:
            model_id: the model's.
            routing: the version under which the caller names rows; None: it names none.

        Raises:
            ModelNotFound: destroyed, or never made.
            ModelLost: this server came back without it.
            ModelError: another version of the routing.
        """
        shard = self._shards.get(model_id)
        if shard is None or model_id in self._filling:
            if model_id in self._lost:
                raise ModelLost(
                    f"the server came back without model {model_id}, whose values went with the process or the machine "
                    "that had them. Destroy the model and load its last checkpoint"
                )
            raise ModelNotFound(f"there is no model {model_id} here: it was destroyed, or never made")
        if routing is not None and routing != shard.routing:
            raise ModelError(f"routing {routing} of model {model_id} is out of date; it is {shard.routing}")
        return shard

    @property
    def highest_model(self) -> int:
        """The highest id of what lies here, lost models too; 0: nothing does. Read by the heart's thread too."""
        return max((*self._shards, *self._lost), default=0)

    @property
    def num_bytes(self) -> int:
        """Bytes of all values and reservations."""
        return sum(shard.num_bytes for shard in self._shards.values()) + sum(self._reserved.values())

    def limit_bytes(self) -> int:
        """Return the bytes that models may take in all."""
        free = self.num_bytes + self._free_bytes()
        return free if self._memory_limit is None else min(free, self._memory_limit)

    def _where(self, limit: int) -> str:
        """Return who set a limit, for the end of a sentence; nothing if it was the user."""
        return "" if limit == self._memory_limit else f" {room_in(self._folder).where}"

    def status(self) -> list[dict[str, Any]]:
        """Return what there is, as plain data."""
        held = [
            {"model_id": model_id, "name": shard.spec.name, "rows": _rows_of(shard), "bytes": shard.num_bytes}
            for model_id, shard in self._shards.items()
        ]
        lost = [
            {"model_id": model_id, "name": "", "rows": 0, "bytes": 0, "lost": True} for model_id in self._lost
        ]
        return held + lost

    # --- making and ending ------------------------------------------------------------------------------------

    def reserve(self, model_id: int, spec: ModelSpec, *, num_rows: int) -> None:
        """Keep room for a model, so that all servers can agree before one allocates.

        Raises:
            NotEnoughMemory: with the bytes needed, free and allowed.
            ConfigError: a level of durability that this server doesn't offer, or an updater that it doesn't have.
            DTypeError: the updater can't work with the model's dtype.
        """
        self._level_of(spec)
        needed = self._places.bytes_of(spec, num_rows)
        self._reserved.pop(model_id, None)
        used, limit = self.num_bytes, self.limit_bytes()
        if used + needed > limit:
            raise NotEnoughMemory(
                f"model {spec.name!r} needs {needed} bytes on this server, where models may take {limit} "
                f"and have {used}: {max(0, limit - used)} are free{self._where(limit)}. Use more servers or a "
                "smaller dtype"
            )
        self._reserved[model_id] = needed
        failpoints.hit("create.reserved")

    def create(
        self,
        model_id: int,
        spec: ModelSpec,
        *,
        routing: int,
        num_rows: int,
        extents: NDArray[Any],
        slice_cells: int,
    ) -> Iterator[None]:
        """Allocate a model and fill it with its initial values, a slice at each step.

        Args:
            model_id: the model's.
            spec: what it is.
            routing: the version under which requests will name its rows.
            num_rows: of this server.
            extents: (k, 4) int64, see ``storage.initialise``; empty: whoever makes the model fills it.
            slice_cells: about how many cells a step fills.

        Raises:
            NotEnoughMemory: by the first step, with nothing left allocated.
        """
        while model_id in self._filling:
            yield  # asked again, because the connection broke meanwhile
        if model_id in self._shards:
            return
        level = self._level_of(spec)
        store, shard = self._new_store(model_id, spec, routing=routing, num_rows=num_rows, level=level)
        self._reserved.pop(model_id, None)
        self._lost.discard(model_id)
        self._put(shard, store)
        self._filling.add(model_id)
        is_random = spec.init_depends_on_row
        # Where rows have no regular order, whoever makes the model fills it before it is published.
        fills_values = not is_random or bool(extents.size)
        if is_random and fills_values:
            slice_cells //= 20  # random values cost about so much more than a constant
        slice_rows = max(1, slice_cells // max(1, spec.num_cols or 1))
        for first in range(0, 0 if spec.keys else num_rows, slice_rows):
            stop = min(num_rows, first + slice_rows)
            if fills_values:
                initialise.fill(shard.values, spec=spec, extents=extents, first=first, stop=stop)
            fill_slots(shard.arrays[1:], shard.updater, first, stop)
            yield
            if self._shards.get(model_id) is not shard:
                return  # destroyed meanwhile
        if level == "disk":
            self._write_down(shard, extents)
        store.mark_filled()
        self._filling.discard(model_id)
        failpoints.hit("create.filled")

    def _write_down(self, shard: Shard, extents: NDArray[Any]) -> None:
        """Have the log know a model, before anybody can."""
        assert self.durable is not None, "the level is offered"
        try:
            self.durable.made(shard, extents)
        except Exception:
            self.destroy(shard.model_id)
            raise
        self._on_disk.add(shard.model_id)

    def _level_of(self, spec: ModelSpec) -> Durability:
        level = spec.durability or ("memory" if self._folder is None else self._durability)
        if level == "disk" and (self.durable is None or not self.durable.is_offered):
            raise ConfigError(
                f"model {spec.name!r} asks for durability 'disk', and this server has no folder of its user's choice "
                "to keep it in: start it with --data-dir"
            )
        if level != "memory" and self._folder is None:
            raise ConfigError(
                f"model {spec.name!r} asks for durability {level!r}, and this server keeps nothing: start it with "
                "--data-dir"
            )
        return level

    def _new_store(
        self, model_id: int, spec: ModelSpec, *, routing: int, num_rows: int, level: Durability
    ) -> tuple[Store, Shard]:
        description = {
            "model_id": model_id,
            "spec": spec.to_content(),
            "routing": routing,
            "num_rows": 0 if spec.keys else num_rows,
            "rows_max": num_rows,
            "durability": level,
        }
        store = self._places.new(description, level)
        failpoints.hit("create.allocated")
        return store, self._places.shard_over(
            store, description, undo=None if level == "memory" else self._undo
        )

    def _put(self, shard: Shard, store: Store) -> None:
        self._shards[shard.model_id], self._stores[shard.model_id] = shard, store
        self._prepare_for(shard)
        if isinstance(shard, TableShard):
            shard.has_grown = lambda: self._prepare_for(shard)
            if shard.model_id not in self._filling:
                shard.check_room = self._check_room

    def _prepare_for(self, shard: Shard) -> None:
        if shard.kernels.wants_preparing:
            self._prepare(shard.kernels)

    def _check_room(self, num_bytes: int) -> None:
        """Refuse to let a table grow, where there is no room.

        Raises:
            NotEnoughMemory: with the bytes needed, free and allowed.
        """
        used, limit = self.num_bytes, self.limit_bytes()
        if used + num_bytes > limit:
            raise NotEnoughMemory(
                f"{num_bytes} bytes are needed on this server, where models may take {limit} and have {used}: "
                f"{max(0, limit - used)} are free{self._where(limit)}"
            )

    def configure(self, model_id: int, version: int, numbers: dict[str, Any]) -> None:
        """Give a model's updater other numbers, for good; again, or older ones, does nothing.

        Args:
            model_id: the model's.
            version: of the numbers.
            numbers: all of them.

        Raises:
            ModelNotFound, ModelLost: it isn't here.
            ConfigError: numbers that its updater can't have.
            NotEnoughMemory: the disk is full.
        """
        shard = self.shard(model_id)
        if version <= shard.numbers_version:
            return
        # Checked before it is written down.
        text = numbers_text(numbers)
        shard.updater.check_slots(self._places.updater_of(shard.spec, text))
        if self.durable is not None:
            self.durable.configured(model_id, version, text)
        self.configured(model_id, version, text)

    def configured(self, model_id: int, version: int, numbers: str) -> None:
        """Give a model's updater numbers that were written down before; older ones than it has are no news."""
        shard = self._shards[model_id]
        if version > shard.numbers_version:
            updater = self._places.updater_of(shard.spec, numbers)
            self._places.configure(self._stores[model_id], shard, updater, version)

    def destroy(self, model_id: int) -> None:
        """End a model, or a reservation; one that isn't here is ended already."""
        if self.durable is not None:
            self.durable.destroyed(model_id)
        self._reserved.pop(model_id, None)
        self._lost.discard(model_id)
        self._filling.discard(model_id)
        self._on_disk.discard(model_id)
        self._shards.pop(model_id, None)
        store = self._stores.pop(model_id, None)
        if store is not None:
            store.delete()
        if self._folder is not None:
            # Of a model that was lost, or that left only its name here.
            self._places.remove(model_id)

    def keep_only(self, model_ids: frozenset[int]) -> None:
        """Forget what the master doesn't know; note as lost what it expects here and is not."""
        for model_id in [known for known in {*self._shards, *self._lost} if known not in model_ids]:
            logger.info("server: model %d was destroyed while this server was away", model_id)
            self.destroy(model_id)
        # The word that a creation was undone may have been lost with the connection.
        for model_id in [kept for kept in self._reserved if kept not in model_ids]:
            del self._reserved[model_id]
        self._lost = {model_id for model_id in model_ids if model_id not in self._shards}

    def close(self, *, clean: bool = True) -> None:
        """Close every segment; in good order, one that was not filled to the end is dropped.

        Args:
            clean: in good order; False: as if the process had been killed.
        """
        for model_id in list(self._filling) if clean else ():
            self.destroy(model_id)
        self._shards.clear()
        for store in self._stores.values():
            store.close(clean=clean)
        self._stores.clear()

    # --- coming back --------------------------------------------------------------------------------------------

    def _open_all(self, folder: Path) -> None:
        for path in sorted(folder.glob(f"*{SUFFIX}")):
            try:
                self._open(path)
            except (ModelLost, ModelError, RemoteProtocolError) as error:
                logger.warning("server: the model in %s is lost: %s", path.name, error)
                if path.stem.isdecimal():
                    self._lost.add(int(path.stem))
                self.has_damaged |= not isinstance(error, WasInMemoryError)

    def _open(self, path: Path) -> None:
        segment = TableSegment.open(path)
        try:
            if not segment.is_filled and segment.description.get("durability") != "memory":
                # Its server was killed while the model was made; so nobody has it yet, and it may be made anew.
                segment.delete()
                return
            shard = self._places.open(segment, undo=self._undo)
            self._put(shard, segment)
            if segment.description["durability"] == "disk":
                self._on_disk.add(shard.model_id)
        except BaseException:
            segment.close(clean=False)
            raise

    def recover(self, now: float) -> None:
        """Bring back what the log and the snapshots have and the segments don't; before anybody is served.

        Args:
            now: when each session that is brought back counts as heard.

        Raises:
            ConfigError: something that was synced is missing, or the disk fails.
            NotEnoughMemory: the models don't fit any more.
        """
        if self.durable is not None:
            self._lost |= self.durable.open(self, now).lost

    def kept(self) -> dict[int, Shard]:
        """Return the models of level ``disk`` that are here and whole."""
        return {model_id: self._shards[model_id] for model_id in self._on_disk - self._filling}

    def restore(self, description: dict[str, Any]) -> Shard:
        """Make a model of level ``disk`` anew, to be filled from a snapshot or the log; ``restored`` must follow.

        Raises:
            NotEnoughMemory: there is no room for it.
        """
        model_id = int(description["model_id"])
        self.destroy(model_id)
        store = self._places.new(description, "disk")
        shard = self._places.shard_over(store, description, undo=None)
        # Into the new segment, too, so that a kill doesn't bring back the numbers that the model was made with.
        self._places.configure(store, shard, shard.updater, shard.numbers_version)
        self._filling.add(model_id)  # and so a table may grow as it did, whatever is free now
        self._put(shard, store)
        self._on_disk.add(model_id)
        return shard

    def restored(self, model_id: int) -> None:
        """Take a model that was made anew into use."""
        self._stores[model_id].mark_filled()
        shard = self._shards[model_id]
        shard.undo = self._undo
        self._filling.discard(model_id)
        if isinstance(shard, TableShard):
            shard.check_room = self._check_room

    def roll_back(self) -> None:
        """Undo the push that is under way, after an exception in its middle."""
        undo = self._undo
        pending = None if undo is None else undo.pending()
        if undo is None or pending is None:
            return
        shard = self._shards.get(pending.model_id)
        if shard is not None:
            shard.put_back(pending)
        undo.clear()

    def _roll_back(self, journal: Journal) -> None:
        """Undo the push that the last process was killed in, unless it has its receipt."""
        undo = journal.undo
        pending = None if undo is None else undo.pending()
        if undo is None or pending is None:
            return
        if journal.has_receipt(pending.session_id, pending.sequence):
            undo.clear()
            return
        try:
            failpoints.hit("recover.before_undo")
            self.roll_back()
            failpoints.hit("recover.undone")
        except (GlintError, ValueError) as error:
            # Nothing that a kill leaves behind looks like this; then half of a push may be in that model.
            logger.error("server: model %d is lost: its undo record is damaged: %s", pending.model_id, error)  # noqa: TRY400 - a file's damage, not ours
            self._shards.pop(pending.model_id, None)
            self._stores.pop(pending.model_id).close(clean=False)
            self._lost.add(pending.model_id)
            undo.clear()


def _rows_of(shard: Shard) -> int:
    """Return the rows that have something in them."""
    return shard.num_keys if isinstance(shard, TableShard) else shard.num_rows
