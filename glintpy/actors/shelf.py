"""The models of one server: which there are, where their values lie, which were lost; no thread or clock."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy.actors.preparing import prepare_soon
from glintpy.errors import ModelError, ModelLost, ModelNotFound, NotEnoughMemory, RemoteProtocolError
from glintpy.protocol.spec import ModelSpec
from glintpy.storage import initialise
from glintpy.storage.kernels import Kernels
from glintpy.storage.memory import available_bytes
from glintpy.storage.segment import MemorySegment, Segment, Store, remove_unfinished
from glintpy.storage.shard import Shard

logger = logging.getLogger("glintpy.actors")

SUFFIX = ".segment"


class Shelf:
    """Shards by model id.

    Args:
        folder: where segments lie; None: in memory only.
        memory_limit: bytes for all models; None: what is free when a model is made.
        free_bytes: tells what is free.
        prepare: called for each model whose loops want to be compiled; returns at once.
    """

    def __init__(
        self,
        folder: Path | None,
        *,
        memory_limit: int | None = None,
        free_bytes: Callable[[], int] = available_bytes,
        prepare: Callable[[Kernels], None] = prepare_soon,
    ) -> None:
        self._folder = folder
        self._memory_limit = memory_limit
        self._free_bytes = free_bytes
        self._prepare = prepare
        self._shards: dict[int, Shard] = {}
        self._stores: dict[int, Store] = {}
        self._reserved: dict[int, int] = {}
        self._filling: set[int] = set()  # made, and not initialised to the end
        self._lost: set[int] = set()
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            remove_unfinished(folder)
            self._open_all(folder)

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
                    f"the server came back without model {model_id}: it was not stopped in good order. "
                    "Destroy the model and load its last checkpoint"
                )
            raise ModelNotFound(f"there is no model {model_id} here: it was destroyed, or never made")
        if routing is not None and routing != shard.routing:
            raise ModelError(f"routing {routing} of model {model_id} is out of date; it is {shard.routing}")
        return shard

    @property
    def num_models(self) -> int:
        """How many models have a part here; read by the heart's thread too."""
        return len(self._shards)

    @property
    def num_bytes(self) -> int:
        """Bytes of all values and reservations."""
        return sum(shard.num_bytes for shard in self._shards.values()) + sum(self._reserved.values())

    def limit_bytes(self) -> int:
        """Return the bytes that models may take in all."""
        free = self.num_bytes + self._free_bytes()
        return free if self._memory_limit is None else min(free, self._memory_limit)

    def status(self) -> list[dict[str, Any]]:
        """Return what there is, as plain data."""
        held = [
            {"model_id": model_id, "name": shard.spec.name, "rows": shard.num_rows, "bytes": shard.num_bytes}
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
        """
        needed = num_rows * spec.row_bytes
        self._reserved.pop(model_id, None)
        used, limit = self.num_bytes, self.limit_bytes()
        if used + needed > limit:
            raise NotEnoughMemory(
                f"model {spec.name!r} needs {needed} bytes on this server, where models may take {limit} "
                f"and have {used}: {max(0, limit - used)} are free. Use more servers or a smaller dtype"
            )
        self._reserved[model_id] = needed

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
        if model_id in self._shards:
            return  # asked again, because the answer was lost
        dtype, shape = spec.numpy_dtype, (num_rows, *spec.row_shape)
        store: Store
        if self._folder is None:
            store = MemorySegment(num_rows * spec.row_bytes)
        else:
            description = {
                "model_id": model_id,
                "spec": spec.to_content(),
                "routing": routing,
                "num_rows": num_rows,
            }
            path = self._folder / f"{model_id}{SUFFIX}"
            path.unlink(missing_ok=True)  # of a creation that was cut off
            store = Segment.create(path, description, num_rows * spec.row_bytes)
        shard = Shard(model_id, spec, routing, store.values(dtype, shape))
        self._reserved.pop(model_id, None)
        self._lost.discard(model_id)
        self._put(shard, store)
        self._filling.add(model_id)
        if spec.init_depends_on_row:
            slice_cells //= 20  # random values cost about so much more than a constant
            if not extents.size:
                num_rows = 0  # whoever makes the model fills it, row by row, before it is published
        slice_rows = max(1, slice_cells // max(1, spec.num_cols or 1))
        for first in range(0, num_rows, slice_rows):
            if self._shards.get(model_id) is not shard:
                return  # destroyed meanwhile
            stop = min(num_rows, first + slice_rows)
            initialise.fill(shard.values, spec=spec, extents=extents, first=first, stop=stop)
            yield
        self._filling.discard(model_id)

    def _put(self, shard: Shard, store: Store) -> None:
        self._shards[shard.model_id], self._stores[shard.model_id] = shard, store
        if shard.kernels.wants_preparing:
            self._prepare(shard.kernels)

    def destroy(self, model_id: int) -> None:
        """End a model, or a reservation; one that isn't here is ended already."""
        self._reserved.pop(model_id, None)
        self._lost.discard(model_id)
        self._filling.discard(model_id)
        self._shards.pop(model_id, None)
        store = self._stores.pop(model_id, None)
        if store is not None:
            store.delete()

    def keep_only(self, model_ids: frozenset[int]) -> None:
        """Forget what the master doesn't know; note as lost what it expects here and is not."""
        for model_id in [known for known in self._shards if known not in model_ids]:
            logger.info("server: model %d was destroyed while this server was away", model_id)
            self.destroy(model_id)
        # The word that a creation was undone may have been lost with the connection.
        for model_id in [kept for kept in self._reserved if kept not in model_ids]:
            del self._reserved[model_id]
        self._lost = {model_id for model_id in model_ids if model_id not in self._shards}

    def close(self, *, clean: bool = True) -> None:
        """Close every segment; one that was not filled to the end is dropped.

        Args:
            clean: in good order; False: as if the process had been killed.
        """
        for model_id in list(self._filling):
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

    def _open(self, path: Path) -> None:
        segment = Segment.open(path)
        try:
            self._take(segment)
        except BaseException:
            segment.close(clean=False)
            raise

    def _take(self, segment: Segment) -> None:
        if not segment.was_clean:
            # Its process was killed: values may hold half of a push. Say so rather than serve them.
            raise ModelLost("it was not closed in good order")
        description = segment.description
        spec = ModelSpec.from_content(description["spec"])
        model_id, num_rows = int(description["model_id"]), int(description["num_rows"])
        values: np.ndarray[Any, Any] = segment.values(spec.numpy_dtype, (num_rows, *spec.row_shape))
        segment.mark_open()
        self._put(Shard(model_id, spec, int(description["routing"]), values), segment)
