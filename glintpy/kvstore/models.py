"""The models of a store on servers: made, read and pushed to by keys; knows no worker but its own.

Keys that lie in one model are few requests, see ``spans``. Futures are the library's own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy import BigMatrix, BigVector, Client, Future, ModelNotFound, gather
from glintpy.kvstore.directory import Directory, Entry, Making, Place, model_entry
from glintpy.kvstore.forms import Array, Given, Key, RowSparse
from glintpy.kvstore.spans import Batch, batches_of, joined
from glintpy.updaters import Updater

CHUNK_CELLS = 2048
"""Cells of a page that lie together on one server, about: so that few small keys already use all servers."""


class Models:
    """Handles to the models of a store.

    Args:
        client: to the cluster.
        prefix: with which their names begin.
        directory: says where keys lie; it is followed by others.

    Attributes:
        handles: those that were used, by the models' numbers.
    """

    def __init__(self, client: Client, prefix: str, directory: Directory) -> None:
        self._client = client
        self._prefix = prefix
        self._directory = directory
        self.handles: dict[int, BigVector | BigMatrix] = {}

    def name_of(self, model: int) -> str:
        """Return the name of a model."""
        return f"{self._prefix}model-{model}"

    def handle(self, model: int) -> BigVector | BigMatrix:
        """Return the handle of a model.

        Raises:
            ModelNotFound: it was ended.
        """
        handle = self.handles.get(model)
        if handle is None:
            handle = self.handles[model] = self._client.open(self.name_of(model))
        return handle

    def end(self, model: int) -> None:
        """End a model."""
        self.handles.pop(model, None)
        self._client.destroy(self.name_of(model))

    def make(self, makings: Sequence[Making], updater: Updater) -> list[Entry]:
        """Make models and return their entries.

        Raises:
            NotEnoughMemory, NotEnoughServers: they don't fit.
        """
        for making in makings:
            options: dict[str, Any] = {
                "dtype": making.dtype,
                "updater": updater,
                "name": self.name_of(making.number),
            }
            if making.kind == "matrix":
                self.handles[making.number] = self._client.matrix(making.size, making.cols, **options)
                continue
            num_servers = max(1, len(self._client.servers()))
            # A page that fills by and by lies in many small ranges, so that few keys use all servers already.
            parts = 1 if making.is_full else max(1, making.size // (num_servers * CHUNK_CELLS))
            self.handles[making.number] = self._client.vector(
                making.size, partitions_per_server=parts, **options
            )
        return [model_entry(making) for making in makings]

    def put(self, places: dict[Key, Place], values: dict[Key, Array]) -> None:
        """Store values at places, whatever the updater, and wait for it."""
        by_model: dict[int, list[Key]] = {}
        for key in values:
            by_model.setdefault(places[key].model, []).append(key)
        futures: list[Future[Any]] = []
        for model, keys in by_model.items():
            handle = self.handle(model)
            if isinstance(handle, BigMatrix):
                futures.append(handle.put(values[keys[0]].reshape(handle.shape)))
                continue
            flat = [values[key].reshape(-1) for key in keys]
            futures += [
                handle.put(joined(batch, flat, handle.dtype), rows=batch.keys)
                for batch in batches_of([(places[key].offset, values[key].size) for key in keys])
            ]
        gather(*futures).result()

    def push(self, values: dict[Key, Given]) -> list[Future[Any]]:
        """Push values to keys that exist."""
        futures: list[Future[Any]] = []
        dense: dict[int, list[Key]] = {}
        for key, value in values.items():
            place = self._directory.places[key]
            if isinstance(value, RowSparse):
                futures.append(self._push_rows(place, value))
            else:
                dense.setdefault(place.model, []).append(key)
        for model, keys in dense.items():
            futures += self._push_dense(model, keys, values)
        return futures

    def live_updater(self) -> Updater | None:
        """Return the updater that models have now, with its numbers; None: there are none of this epoch."""
        for number, held in self._directory.models.items():
            if held.epoch == self._directory.epoch:
                return self._client.open(self.name_of(number)).updater
        return None

    def _push_dense(self, model: int, keys: list[Key], values: dict[Key, Any]) -> list[Future[Any]]:
        handle = self.handle(model)
        if isinstance(handle, BigMatrix):
            return [handle.push(None, values[keys[0]].reshape(handle.shape))]
        flat = [values[key].reshape(-1) for key in keys]
        spans = [
            (self._directory.places[key].offset, array.size) for key, array in zip(keys, flat, strict=True)
        ]
        return [handle.push(batch.keys, joined(batch, flat, handle.dtype)) for batch in batches_of(spans)]

    def _push_rows(self, place: Place, value: RowSparse) -> Future[Any]:
        handle = self.handle(place.model)
        if isinstance(handle, BigMatrix):
            return handle.push(value.indices, value.values.reshape(len(value.indices), -1))
        return handle.push(_cells(place, value.indices), value.values.reshape(-1))

    def pull(self, keys: list[Key]) -> dict[Key, Array]:
        """Return the values of keys, none of which repeats.

        Raises:
            ModelNotFound: one was deleted.
        """
        by_model: dict[int, list[Key]] = {}
        for key in keys:
            by_model.setdefault(self._place(key).model, []).append(key)
        asked = [
            (members, batch, self.handle(model).pull(batch.keys))
            for model, members in by_model.items()
            for batch in self._batches(model, members)
        ]
        found: dict[Key, Array] = {}
        for members, batch, future in asked:
            values = future.result().reshape(-1)
            for which, at, size in batch.members:
                key = members[which]
                found[key] = values[at : at + size].reshape(self._directory.places[key].spec.shape)
        for key in keys:
            spec = self._directory.places[key].spec
            if not spec.size:
                found[key] = np.empty(spec.shape, spec.dtype)
        return found

    def _batches(self, model: int, keys: list[Key]) -> list[Batch]:
        places = [self._directory.places[key] for key in keys]
        if isinstance(self.handle(model), BigMatrix):
            return [Batch(None, ((0, 0, places[0].spec.size),), places[0].spec.size)]
        return batches_of([(place.offset, place.spec.size) for place in places])

    def pull_rows(self, wanted: list[tuple[Key, NDArray[np.int64]]]) -> list[Array]:
        """Return rows of keys, (n, ...) for each.

        Raises:
            ModelNotFound: one was deleted.
        """
        futures: list[Future[Any]] = []
        for key, rows in wanted:
            place = self._place(key)
            handle = self.handle(place.model)
            keys = rows if isinstance(handle, BigMatrix) else _cells(place, rows)
            futures.append(handle.pull(keys))
        return [
            future.result().reshape(len(rows), *self._directory.places[key].spec.shape[1:])
            for (key, rows), future in zip(wanted, futures, strict=True)
        ]

    def _place(self, key: Key) -> Place:
        place = self._directory.places.get(key)
        if place is None:
            raise ModelNotFound(f"key {key!r} was deleted")
        return place


def _cells(place: Place, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the cells of rows of a key that lies in a vector, (n * width,)."""
    width = place.spec.width
    starts = place.offset + rows * width
    return (starts[:, np.newaxis] + np.arange(width)).reshape(-1)
