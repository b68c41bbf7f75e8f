"""KVStore: the calls that local and distributed stores share, in MXNet's forms; knows neither servers nor processes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from glintpy import ConfigError, DTypeError, Future, ModelNotFound, ShapeError
from glintpy.kvstore import forms
from glintpy.kvstore.base import KVStoreBase
from glintpy.kvstore.compression import Compressor, compressor_of
from glintpy.kvstore.forms import Array, Given, Key, RowSparse, Spec
from glintpy.kvstore.landing import overlap
from glintpy.kvstore.optimizers import Optimizer, optimizer_of, renamed

Fn = Callable[[Key, Array, Array], object]
"""An updater of one's own: it is given the key, what was pushed, and the stored array, which it changes."""

NAMED_MAX = 8
"""Keys that an error names."""


class KVStore(KVStoreBase):
    """Arrays under keys: what MXNet's users know by that name; made by ``create``.

    Values are NumPy arrays, or whatever NumPy makes one of. What is given is never changed, except outputs. As a
    context manager a store is closed at the end.

    Threads:
        Safe from any thread; calls of several threads are taken one after the other.
    """

    def __init__(self, kind: str) -> None:
        self._kind = kind
        self._compressor: Compressor | None = None

    @property
    def type(self) -> str:
        """The kind that it was created as."""
        return self._kind

    @property
    @abstractmethod
    def optimizer(self) -> Optimizer | None:
        """What makes updates; None: what is pushed replaces what is stored."""

    @property
    @abstractmethod
    def rescale_grad(self) -> float:
        """What gradients are multiplied by before they are pushed."""

    @abstractmethod
    def keys(self) -> list[Key]:
        """Return all keys, in the order in which they were initialised."""

    # --- values -----------------------------------------------------------------------------------------------

    def init(self, key: Any, value: Any) -> None:
        """Give keys their first values, shapes and dtypes; with several workers, the value of rank 0.

        All workers call it, in any order and with any lists; it returns when rank 0 has done it. A key that is there
        gets the new value, of the same shape and dtype; what the optimiser keeps for it stays. ``delete`` it first to
        change these. A worker that comes in the place of a lost one finds the keys as they are.

        Args:
            key: one or a list.
            value: an array for each key.

        Raises:
            ShapeError, DTypeError: values that can't be stored, or differ from what rank 0 gave.
            TypeError: a key that is neither int nor str.
            WorkersMissing: rank 0 did not do it in time.
        """
        values = forms.initial(key, value)
        self._init(values)
        self._forget(values)

    def push(self, key: Any, value: Any, priority: int = 0) -> Future[None]:
        """Push values, which meet those that are stored by the optimiser's rule; without one they replace them.

        Args:
            key: one or a list; values of a key that repeats are summed.
            value: an array or ``RowSparse`` for each key, or a list of them, one a device, which are summed.
            priority: taken and not used: what is asked for first is sent first.

        Returns:
            A future that is done when the values are stored. Nobody has to look at it: what fails is raised by the
            next call to this store.

        Raises:
            ModelNotFound: a key that was never initialised.
            ShapeError, DTypeError, KeyRangeError: values that don't fit; nothing was sent.
        """
        del priority
        keys, _ = forms.keys_of(key)
        return self._push(forms.pushed(key, value, self._specs(keys)))

    def pull(self, key: Any, out: Any = None, priority: int = 0, ignore_sparse: bool = True) -> Any:
        """Read values; what this worker pushed before is in them.

        Args:
            key: one or a list.
            out: for each key an array, or a list of them, to be written to.
            priority: as of ``push``.
            ignore_sparse: taken and not used: every key can be read as a whole.

        Returns:
            An array, or a list of them for a list of keys: the first ``out`` where it is of the key's dtype, else a new
            one, the caller's to change.

        Raises:
            ModelNotFound: a key that was never initialised.
            ShapeError, DTypeError: an ``out`` that doesn't fit; nothing was sent. Or one that is narrower than the key
                and can't hold what came.
        """
        del priority, ignore_sparse
        keys, is_list = forms.keys_of(key)
        specs = self._specs(keys)
        return self._pulled_into(keys, self._outputs(key, out, keys, specs), specs, is_list=is_list)

    def pushpull(self, key: Any, value: Any, out: Any = None, priority: int = 0) -> Any:
        """Push values and read what is stored afterwards.

        Args:
            key: one or a list.
            value: as of ``push``.
            out: as of ``pull``; None: what comes is written into ``value``, as in MXNet.
            priority: as of ``push``.

        Returns:
            What ``pull`` does.

        Raises:
            ModelNotFound, ShapeError, DTypeError, KeyRangeError: of ``push`` and ``pull``.
        """
        del priority
        keys, is_list = forms.keys_of(key)
        specs = self._specs(keys)
        outs = self._outputs(key, value if out is None else out, keys, specs)
        pushed = forms.pushed(key, value, specs)
        return self._pulled_into(keys, outs, specs, is_list=is_list, pushed=pushed)

    def broadcast(self, key: Any, value: Any, out: Any, priority: int = 0) -> Any:
        """Initialise keys and read what all workers now have: the value of rank 0.

        Args:
            key: one or a list.
            value: as of ``init``.
            out: as of ``pull``.
            priority: as of ``push``.

        Returns:
            What ``pull`` does.
        """
        self.init(key, value)
        return self.pull(key, out, priority)

    def row_sparse_pull(self, key: Any, out: Any = None, priority: int = 0, row_ids: Any = None) -> Any:
        """Read some rows.

        Args:
            key: one or a list.
            out: for each key where the rows are written: an array of (n, ...), or a ``RowSparse``, which gets each row
                once, by rising ids, as in MXNet; or a list of these, one a device.
            priority: as of ``push``.
            row_ids: (n,) integers in any order, repeats are allowed; for a list of keys a list, or one array for all;
                for one key and a list of outputs it may be a list, too: what each device gets.

        Returns:
            (n, ...) rows, entry i belongs to ``row_ids[i]``; a list for a list of keys, or of devices.

        Raises:
            ModelNotFound: a key that was never initialised.
            KeyRangeError: a row that the key doesn't have; nothing was sent.
            ShapeError, DTypeError: ids or an ``out`` that don't fit.
        """
        del priority
        keys, is_list = forms.keys_of(key)
        if not is_list and isinstance(out, list | tuple) and len(devices := forms.of_devices(row_ids)) > 1:
            if len(devices) != len(out):
                raise ShapeError(f"{len(out)} outputs and {len(devices)} arrays of row ids for key {key!r}")
            return self.row_sparse_pull([key] * len(out), list(out), row_ids=devices)
        specs = self._specs(keys)
        ids = forms.row_ids_of(keys, is_list, row_ids)
        outs = forms.outputs_of(key, out)
        for one, rows, into in zip(keys, ids, outs, strict=True):
            spec = specs[one]
            forms.check_rows(one, rows, spec)
            for entry in into:
                if not isinstance(entry, RowSparse):
                    forms.check_output(one, entry, (len(rows), *spec.shape[1:]), spec.dtype)
        found = self._pull_rows(list(zip(keys, ids, strict=True)))
        for one, rows, into, values in zip(keys, ids, outs, found, strict=True):
            forms.write((entry for entry in into if not isinstance(entry, RowSparse)), values)
            unique, places = np.unique(rows, return_index=True)
            for entry in into:
                if isinstance(entry, RowSparse):
                    entry.indices, entry.values, entry.shape = unique, values[places].copy(), specs[one].shape
        return forms.unlisted(found, is_list=is_list)

    def delete(self, key: Any) -> None:
        """End keys; they can be initialised anew, with other shapes.

        All workers call it, as ``init``; rank 0's call does it. A worker that doesn't hears of it at its next
        ``barrier``, ``init`` or ``delete``.

        Args:
            key: one or a list; one that repeats is ended once.

        Raises:
            ModelNotFound: there is no such key.
        """
        keys = list(dict.fromkeys(forms.keys_of(key)[0]))
        self._delete(keys)
        self._forget(keys)

    # --- updates ----------------------------------------------------------------------------------------------

    def is_capable(self, capability: str) -> bool:
        """Whether the store can do something: ``"optimizer"``."""
        return capability.lower() == KVStoreBase.OPTIMIZER

    def set_optimizer(self, optimizer: Any, **numbers: Any) -> None:
        """Have pushes make steps by an optimiser.

        All workers call it, with the same. Called again with other numbers of the same optimiser it changes these and
        keeps what the optimiser has learnt, its momentum for example; another optimiser begins anew, with the values
        as they are.

        Args:
            optimizer: MXNet's name of one, or one of ``glintpy.updaters``.
            numbers: that belong to a name: ``learning_rate``, ``momentum``, ``wd``, ``rescale_grad`` and so on.

        Raises:
            ConfigError: there is no such optimiser or number.
            DTypeError: a key is there that it can't work with.
            WorkersMissing: others did not call it in time.
        """
        self._set_optimizer(optimizer_of(optimizer, dict(numbers)))

    def configure(self, **numbers: Any) -> None:
        """Change numbers of the optimiser; what it has learnt stays. All workers may call it, one is enough.

        Args:
            numbers: ``learning_rate=0.01``.

        Raises:
            ConfigError: there is no optimiser, no such number, or one out of its range.
        """
        optimizer = self.optimizer
        if optimizer is None:
            raise ConfigError("there is no optimiser yet: set_optimizer('sgd', learning_rate=0.1)")
        given = renamed(numbers)
        if "rescale_grad" in given:
            raise ConfigError("rescale_grad is changed by set_optimizer, which all workers call")
        self._configure(optimizer.updater.configured(**given), given)

    def set_learning_rate(self, learning_rate: float) -> None:
        """Change the optimiser's rate where the steps are made; see ``configure``."""
        self.configure(learning_rate=learning_rate)

    def set_updater(self, updater: Fn) -> None:
        """Have pushes applied by a function of one's own, in this process.

        Args:
            updater: ``updater(key, pushed, stored)`` changes ``stored`` in place. If it raises, nothing has changed.

        Raises:
            ConfigError: the store is on servers: they run named updaters, never a function that was sent to them.
        """
        del updater
        raise ConfigError(
            f"a store of type {self.type!r} makes updates on servers, where no function travels to: derive a class "
            "from glintpy.updaters.Updater, start servers with --allow, and give it to set_optimizer"
        )

    def set_gradient_compression(self, compression_params: Mapping[str, Any]) -> None:
        """Push one or two bits a value; what rounding left out is added to the key's next push (error feedback).

        Args:
            compression_params: ``{"type": "2bit", "threshold": 0.5}``: a value becomes -0.5, 0 or 0.5; or ``"1bit"``:
                above the threshold it becomes 1, else -1. ``{"type": "none"}`` ends it.

        Raises:
            ConfigError: there is no such type or threshold, or the store is ``local``.
        """
        if self.type.startswith("local"):
            raise ConfigError("a local store sends nothing: compression is for device and dist stores")
        self._compressor = compressor_of(compression_params)

    # --- workers ----------------------------------------------------------------------------------------------

    def barrier(self) -> None:
        """Return when all workers have come here, and what they pushed before is stored."""

    def num_dead_node(self, node_id: int, timeout: float = 60) -> int:
        """Return how many nodes are lost.

        Args:
            node_id: of whom: 1 the scheduler, 2 servers, 4 workers, or a sum of these.
            timeout: taken and not used: the cluster's own limits say when a node counts as lost.
        """
        del node_id, timeout
        return 0

    def send_command_to_servers(self, head: int | str, body: str = "") -> dict[Key, Any]:
        """Have servers run a function on the values; see stores of type ``dist_async``.

        Raises:
            ConfigError: there are no servers.
        """
        raise ConfigError(
            f"a store of type {self.type!r} has no servers that could take {head!r}, {body!r:.80}"
        )

    def close(self) -> None:
        """Let go of the store; again does nothing."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    # --- for subclasses ---------------------------------------------------------------------------------------

    @abstractmethod
    def _init(self, values: dict[Key, Array]) -> None: ...

    @abstractmethod
    def _push(self, values: dict[Key, Given]) -> Future[None]: ...

    @abstractmethod
    def _pull(self, keys: Sequence[Key], into: Mapping[Key, Array]) -> dict[Key, Array]:
        """Return the values of keys, which may repeat.

        Args:
            keys: which.
            into: by key, of its shape and dtype, C-contiguous: where values may be written, and are then returned.
        """

    def _push_pull(
        self, values: dict[Key, Given], keys: Sequence[Key], into: Mapping[Key, Array]
    ) -> dict[Key, Array]:
        """Push, and return the values of the same keys behind it; ``into`` as of ``_pull``."""
        self._push(values)
        return self._pull(keys, into)

    @abstractmethod
    def _pull_rows(self, wanted: list[tuple[Key, NDArray[np.int64]]]) -> list[Array]: ...

    @abstractmethod
    def _delete(self, keys: list[Key]) -> None: ...

    @abstractmethod
    def _set_optimizer(self, optimizer: Optimizer) -> None: ...

    @abstractmethod
    def _configure(self, updater: Any, numbers: dict[str, Any]) -> None: ...

    @abstractmethod
    def _spec(self, key: Key) -> Spec | None:
        """Return what a key holds; None: it was never initialised."""

    def _specs(self, keys: Sequence[Key]) -> dict[Key, Spec]:
        found: dict[Key, Spec] = {}
        for key in keys:
            spec = self._spec(key)
            if spec is None:
                raise ModelNotFound(f"key {key!r} was never initialised; {_told(self.keys())}")
            found[key] = spec
        return found

    @staticmethod
    def _outputs(key: Any, out: Any, keys: list[Key], specs: Mapping[Key, Spec]) -> list[list[Any]]:
        outs = forms.outputs_of(key, out)
        for one, into in zip(keys, outs, strict=True):
            for entry in into:
                forms.check_output(one, entry, specs[one].shape, specs[one].dtype)
        return outs

    def _pulled_into(
        self,
        keys: list[Key],
        outs: list[list[Any]],
        specs: Mapping[Key, Spec],
        *,
        is_list: bool,
        pushed: dict[Key, Given] | None = None,
    ) -> Any:
        """Read values, write them where they are wanted, and return them.

        Args:
            keys: which.
            outs: for each key, where its values are wanted.
            specs: what the keys hold.
            is_list: keys were given as a list.
            pushed: is pushed first; None: nothing is.
        """
        into = {
            key: entries[0]
            for key, entries in zip(reversed(keys), reversed(outs), strict=True)
            if entries and forms.can_land(entries[0], specs[key].dtype)
        }
        if len(into) > 1 and overlap(into, pushed or {}):
            into = {}  # what comes is written when all is there: the later key's value where two have the same cells
        found = self._pull(keys, into) if pushed is None else self._push_pull(pushed, keys, into)
        arrays: list[Array] = []
        told: set[Key] = set()
        for key, entries in zip(keys, outs, strict=True):
            value = found[key]
            forms.write((entry for entry in entries if entry is not value), value)
            if entries and forms.can_land(entries[0], value.dtype):
                arrays.append(entries[0])
            else:
                arrays.append(value.copy() if key in told or key in into else value)
                told.add(key)
        return forms.unlisted(arrays, is_list=is_list)

    def _prepared(self, values: dict[Key, Given]) -> Prepared:
        """Compress and scale what is pushed; the arrays that are given stay as they are. By who holds the lock.

        Raises:
            ConfigError, DTypeError: it can't be. Nothing has changed.
        """
        factor = self.rescale_grad
        compressor = self._compressor
        if compressor is None:
            if factor != 1.0:
                values = {key: _scaled(key, value, factor) for key, value in values.items()}
            return Prepared(values, None, _nothing)
        arrays = {key: value for key, value in values.items() if not isinstance(value, RowSparse)}
        for key in values:
            if key not in arrays:
                raise ConfigError(f"rows of key {key!r} can't be compressed; push the whole array")
        sent, left = compressor.compress(arrays, factor)
        return Prepared(dict(sent), compressor.levels(factor), partial(compressor.keep, left))

    def _forget(self, keys: Iterable[Key]) -> None:
        """Drop what compression has left out of keys that begin anew."""
        if self._compressor is not None:
            self._compressor.forget(keys)


class Prepared(NamedTuple):
    """What goes to the servers.

    Attributes:
        values: by key.
        levels: what all values are among; None: they may be any.
        keep: to be called once it has been sent: what was left out comes with the next push.
    """

    values: dict[Key, Given]
    levels: tuple[float, ...] | None
    keep: Callable[[], None]


def _nothing() -> None:
    pass


def _scaled(key: Key, value: Given, factor: float) -> Given:
    array = value.values if isinstance(value, RowSparse) else value
    if array.dtype.kind != "f":
        raise DTypeError(f"rescale_grad is for floats; key {key!r} holds {array.dtype.name}")
    with np.errstate(over="ignore"):
        scaled = np.asarray(array * array.dtype.type(factor))
    return RowSparse(value.indices, scaled, value.shape) if isinstance(value, RowSparse) else scaled


def _told(keys: Sequence[Key]) -> str:
    if not keys:
        return "the store has no keys: init(key, value) makes one"
    named = ", ".join(repr(key) for key in keys[:NAMED_MAX])
    return f"the store has {named}" + (f" and {len(keys) - NAMED_MAX} more" if len(keys) > NAMED_MAX else "")
