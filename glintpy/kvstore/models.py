"""The models of a store on servers: made, read and pushed to by keys; knows no worker but its own.

Keys that lie in one model are few requests, see ``spans``. Futures are the library's own.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glintpy import BigMatrix, BigVector, Client, Future, Group, ModelExists, ModelNotFound, gather
from glintpy.kvstore.directory import Directory, Entry, Making, Place, model_entry
from glintpy.kvstore.forms import Array, Given, Key, RowSparse
from glintpy.kvstore.spans import Batch, batches_of, joined
from glintpy.updaters import Updater

_ANCHORS = {"f": "float32", "i": "int64", "u": "uint64", "b": "bool"}

CHUNK_CELLS = 2048
"""Cells of a page that lie together on one server, about: so that few small keys already use all servers."""


class Models:
    """Handles to the models of a store.

    Args:
        client: to the cluster.
        prefix: with which their names begin.
        directory: says where keys lie; it is followed by others.
        group: whose rounds the models follow; None: pushes are applied as they come.

    Attributes:
        handles: those that were used, by the models' numbers.
    """

    def __init__(self, client: Client, prefix: str, directory: Directory, group: Group | None = None) -> None:
        self._client = client
        self._prefix = prefix
        self._directory = directory
        self._rounds: dict[str, Any] = {} if group is None else {"consistency": "bsp", "group": group}
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
            handle = self._client.open(self.name_of(model))
            handle = handle.with_options(**self._rounds) if self._rounds else handle
            self.handles[model] = handle
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
        num_servers = max(1, len(self._client.servers()))
        for making in makings:
            options: dict[str, Any] = {
                "dtype": making.dtype,
                "updater": updater,
                "name": self.name_of(making.number),
                **self._rounds,
            }
            if making.kind == "page" and not making.is_full:
                # One that fills by and by lies in many small ranges, so that few keys use all servers already.
                options["partitions_per_server"] = max(1, making.size // (num_servers * CHUNK_CELLS))
            try:
                self.handles[making.number] = self._made(making, options)
            except ModelExists:
                # Nobody has heard of it: who made it failed, or died, before it was written down.
                self._client.destroy(options["name"])
                self.handles[making.number] = self._made(making, options)
        return [model_entry(making) for making in makings]

    def _made(self, making: Making, options: dict[str, Any]) -> BigVector | BigMatrix:
        rows = making.size if making.kind == "matrix" else making.size // (making.cols or 1)
        if making.cols:
            return self._client.matrix(rows, making.cols, **options)
        return self._client.vector(rows, **options)

    def load(self, url: str, number: int, updater: Updater) -> None:
        """Make a model of one that was saved.

        Raises:
            CheckpointError: it can't be read.
        """
        name = self.name_of(number)
        if name in self._client.models():
            self._client.destroy(name)  # as in ``make``
        self.handles[number] = self._client.load(
            url, name=name, updater=updater, progress=False, **self._rounds
        )

    def put(self, places: dict[Key, Place], values: dict[Key, Array]) -> None:
        """Store values at places, whatever the updater, and wait for it."""
        by_model: dict[int, list[Key]] = {}
        for key in values:
            by_model.setdefault(places[key].model, []).append(key)
        futures: list[Future[Any]] = []
        for model, keys in by_model.items():
            handle = self.handle(model)
            flat = [values[key].reshape(-1) for key in keys]
            futures += [
                handle.put(joined(batch, flat, handle.dtype, width=handle.num_cols or 0), rows=batch.keys)
                for batch in _batches(handle, [places[key] for key in keys])
            ]
        gather(*futures).result()

    def push(
        self,
        values: dict[Key, Given],
        tags: Mapping[Key, int] | None = None,
        levels: tuple[float, ...] | None = None,
    ) -> Iterator[tuple[Sequence[Key], Future[Any]]]:
        """Push values to keys that exist; yields each request when it is issued, with its keys.

        Args:
            values: by key.
            tags: by key, of the round that the push belongs to; None: it belongs to none.
            levels: what all values of whole arrays are among, so that few bits a value travel.
        """
        dense: list[Key] = []
        for key, value in values.items():
            if isinstance(value, RowSparse):
                yield (key,), self._push_rows(self._directory.places[key], value)
            else:
                dense.append(key)
        for members, batch, handle, tag in self._requests(dense, tags):
            flat = [_flat(values[key]) for key in members]
            yield _keys_in(batch, members), _push_batch(handle, batch, flat, tag, levels)

    def push_pull(
        self,
        values: Mapping[Key, Array],
        tags: Mapping[Key, int] | None = None,
        into: Mapping[Key, Array] | None = None,
    ) -> Iterator[Asked]:
        """Push whole arrays to keys that exist, and ask for what is there behind that, or behind the round.

        Yields each request when it is issued; ``received`` has the values.

        Args:
            values: by key.
            tags: as of ``push``.
            into: as of ``pull``.
        """
        for members, batch, handle, tag in self._requests(list(values), tags):
            out = _landing(handle, batch, members, into)
            pushed = joined(
                batch, [_flat(values[key]) for key in members], handle.dtype, width=handle.num_cols or 0
            )
            future = handle.push_pull(batch.keys, pushed, out=out, round=tag)
            yield Asked(members, batch, future, None if out is None else into)

    def anchor(self, epoch: int, updater: Updater) -> None:
        """Make what holds an optimiser's numbers for all workers, whatever keys there are: a model of one cell.

        Args:
            epoch: the directory's, once it has the optimiser.
            updater: with the numbers.
        """
        self.drop_anchor(epoch)  # of who failed, or died, before it was written down
        kind = "f" if "f" in updater.kinds else updater.kinds[0]
        self._client.vector(1, dtype=_ANCHORS[kind], updater=updater, name=self._anchor_name(epoch))

    def drop_anchor(self, epoch: int) -> None:
        """End what ``anchor`` made, if it is there."""
        with contextlib.suppress(ModelNotFound):
            self._client.destroy(self._anchor_name(epoch))

    def live_updater(self) -> Updater:
        """Return the store's updater with the numbers that it has now, whoever changed them."""
        return self._client.open(self._anchor_name(self._directory.epoch)).updater

    def configure(self, numbers: Mapping[str, Any]) -> None:
        """Change the updater's numbers, in all models and for those to come."""
        self._client.open(self._anchor_name(self._directory.epoch)).configure(**numbers)
        for model in list(self._directory.models):
            self.handle(model).configure(**numbers)

    def _anchor_name(self, epoch: int) -> str:
        return f"{self._prefix}numbers-{epoch}"

    def _push_rows(self, place: Place, value: RowSparse) -> Future[Any]:
        handle = self.handle(place.model)
        if self._has_rows(place):
            return handle.push(value.indices, value.values.reshape(len(value.indices), place.spec.width))
        return handle.push(_cells(place, value.indices), value.values.reshape(-1))

    def pull(
        self,
        keys: Sequence[Key],
        tags: Mapping[Key, int] | None = None,
        into: Mapping[Key, Array] | None = None,
    ) -> dict[Key, Array]:
        """Return the values of keys, none of which repeats.

        Args:
            keys: which.
            tags: of some keys, of the round whose end is waited for.
            into: of some keys, where values may be received, and are then returned: of the key's shape and dtype,
                C-contiguous.

        Raises:
            ModelNotFound: one was deleted.
        """
        asked: list[Asked] = []
        for members, batch, handle, tag in self._requests(keys, tags):
            out = _landing(handle, batch, members, into)
            future = handle.pull(batch.keys, out=out, round=tag)
            asked.append(Asked(members, batch, future, None if out is None else into))
        return self.received(keys, asked)

    def _requests(
        self, keys: Sequence[Key], tags: Mapping[Key, int] | None
    ) -> Iterator[tuple[list[Key], Batch, BigVector | BigMatrix, int | None]]:
        """Yield the requests that some keys come to: keys of a model, what it is about, the handle, the tag."""
        grouped: dict[tuple[int, int | None], list[Key]] = {}
        for key in keys:
            grouped.setdefault((self._place(key).model, (tags or {}).get(key)), []).append(key)
        for (model, tag), members in grouped.items():
            handle = self.handle(model)
            for batch in _batches(handle, [self._directory.places[key] for key in members]):
                yield members, batch, handle, tag

    def received(self, keys: Iterable[Key], asked: Sequence[Asked]) -> dict[Key, Array]:
        """Return the values of keys, now that they were asked for.

        Raises:
            PullFailed, PushFailed, ModelNotFound: of a request, once all have their outcome.
        """
        for one in asked:
            one.future.exception()  # all of them, before one is raised: none is to write when the call has ended
        found: dict[Key, Array] = {}
        for one in asked:
            found |= self._values_of(one)
        for key in keys:
            spec = self._directory.places[key].spec
            if not spec.size:
                found[key] = np.empty(spec.shape, spec.dtype)
        return found

    def _values_of(self, pulled: Asked) -> dict[Key, Array]:
        values = pulled.future.result().reshape(-1)
        batch, members = pulled.batch, pulled.members
        if pulled.into is not None:
            key = members[batch.members[0][0]]
            return {key: pulled.into[key]}
        unit = values.size // batch.size
        found: dict[Key, Array] = {}
        for which, at, _ in batch.members:
            spec = self._directory.places[members[which]].spec
            found[members[which]] = values[at * unit : at * unit + spec.size].reshape(spec.shape)
        return found

    def pull_rows(self, wanted: list[tuple[Key, NDArray[np.int64]]]) -> list[Array]:
        """Return rows of keys, (n, ...) for each.

        Raises:
            ModelNotFound: one was deleted.
        """
        futures: list[Future[Any]] = []
        for key, rows in wanted:
            place = self._place(key)
            handle = self.handle(place.model)
            if self._has_rows(place):
                futures.append(handle.pull(rows))
                continue
            cells = _cells(place, rows)
            futures.append(
                handle.pull(cells // handle.num_cols, cells % handle.num_cols)
                if isinstance(handle, BigMatrix)
                else handle.pull(cells)
            )
        return [
            future.result().reshape(len(rows), *self._directory.places[key].spec.shape[1:])
            for (key, rows), future in zip(wanted, futures, strict=True)
        ]

    def _has_rows(self, place: Place) -> bool:
        """Whether the rows of a key are the rows of its model."""
        return self._directory.models[place.model].kind == "matrix"

    def _place(self, key: Key) -> Place:
        place = self._directory.places.get(key)
        if place is None:
            raise ModelNotFound(f"key {key!r} was deleted")
        return place


class Asked(NamedTuple):
    """A request that reads values.

    Attributes:
        members: keys of its model, to which the batch's members refer.
        batch: what it reads.
        future: of the values.
        into: by key, the array into which they are received; None: one of their own.
    """

    members: list[Key]
    batch: Batch
    future: Future[Array]
    into: Mapping[Key, Array] | None

    @property
    def keys(self) -> list[Key]:
        """What it is about."""
        return _keys_in(self.batch, self.members)


def _keys_in(batch: Batch, members: Sequence[Key]) -> list[Key]:
    return [members[which] for which, _, _ in batch.members]


def _push_batch(
    handle: BigVector | BigMatrix,
    batch: Batch,
    flat: Sequence[Array],
    tag: int | None,
    levels: tuple[float, ...] | None,
) -> Future[Any]:
    """Push the values of one request.

    Args:
        handle: of the model.
        batch: the request.
        flat: the values of the keys of the model, (cells,) each.
        tag: of the round.
        levels: what the values are among; None: any.
    """
    values = joined(batch, flat, handle.dtype, width=handle.num_cols or 0)
    if levels is not None and sum(flat[which].size for which, _, _ in batch.members) < values.size:
        levels = (*levels, 0.0)  # where the last row of an array isn't full
    return handle.push(batch.keys, values, round=tag, levels=levels)


def _landing(
    handle: BigVector | BigMatrix, batch: Batch, keys: Sequence[Key], into: Mapping[Key, Array] | None
) -> Array | None:
    """Return the array that a request for a lone key is received into; None: there is none that has its shape."""
    array = into.get(keys[batch.members[0][0]]) if into and len(batch.members) == 1 else None
    width = handle.num_cols or 0
    if array is None or array.size != batch.size * (width or 1):
        return None
    found: Array = array.reshape(batch.size, width) if width else array.reshape(-1)
    return found


def _flat(value: Any) -> Array:
    found: Array = value.reshape(-1)
    return found


def _batches(handle: BigVector | BigMatrix, places: Sequence[Place]) -> list[Batch]:
    """Return the requests for keys of one model."""
    unit = handle.num_cols or 1
    spans = [(place.offset // unit, -(-place.spec.size // unit)) for place in places]
    return _lone_batch(spans[0]) if len(spans) == 1 else batches_of(spans)


@lru_cache(maxsize=1024)  # asked for with each push and pull of one key
def _lone_batch(span: tuple[int, int]) -> list[Batch]:
    return batches_of([span])


def _cells(place: Place, rows: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the cells of rows of a key whose rows are not its model's, (n * width,)."""
    width = place.spec.width
    starts = place.offset + rows * width
    return (starts[:, np.newaxis] + np.arange(width)).reshape(-1)
