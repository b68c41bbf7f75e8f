"""A store inside one process: arrays, and updaters' formulas on them; knows no server."""

from __future__ import annotations

import json
import os
import threading
import zipfile
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy import (
    CheckpointCorrupt,
    CheckpointMismatch,
    CheckpointNotFound,
    ConfigError,
    Future,
    ShapeError,
    updaters,
)
from glintpy.kvstore.forms import Array, Given, Key, RowSparse, Spec
from glintpy.kvstore.optimizers import Optimizer
from glintpy.kvstore.store import Fn, KVStore
from glintpy.updaters import Updater, arithmetic_dtype

FORMAT = "glintpy optimizer states 1"


@dataclass(slots=True, eq=False)
class Held:
    """A key's array and what the optimiser keeps beside it.

    Attributes:
        value: of the key's shape.
        slots: (num_rows, width) each, by their names.
        steps: (num_rows,) how often each row was pushed to; None: nobody counts.
    """

    value: Array
    slots: dict[str, Array] = field(default_factory=dict)
    steps: NDArray[np.uint32] | None = None

    def __post_init__(self) -> None:
        self.spec = Spec(self.value.shape, self.value.dtype)

    spec: Spec = field(init=False)

    def begin(self, updater: Updater | None) -> None:
        """Let an updater begin, or none."""
        self.slots, self.steps = {}, None
        if updater is None:
            return
        shape = (self.spec.num_rows, self.spec.width)
        dtype = arithmetic_dtype(self.value.dtype)
        self.slots = {slot.name: np.full(shape, slot.init, dtype) for slot in updater.slots}
        if updater.counts_steps:
            self.steps = np.zeros(self.spec.num_rows, np.uint32)

    def apply(self, updater: Updater, pushed: Given) -> None:
        """Make a step by what was pushed."""
        if isinstance(pushed, RowSparse):
            entries = pushed.values.reshape(len(pushed.indices), self.spec.width)
            rows, deltas = updater.combine(pushed.indices, entries)
            chosen: slice | Array = rows
        else:
            chosen, deltas = slice(None), pushed.reshape(self.spec.num_rows, self.spec.width)
        if not deltas.size:
            return
        dtype = arithmetic_dtype(self.value.dtype)
        matrix = self.value.reshape(self.spec.num_rows, self.spec.width)
        if self.steps is not None:
            self.steps[chosen] += np.uint32(1)
        counts = None if self.steps is None else self.steps[chosen].astype(np.float64)
        with np.errstate(all="ignore"):
            changed = updater.update(
                matrix[chosen].astype(dtype, copy=False),
                updater.prepare(deltas.astype(dtype, copy=False)),
                tuple(slot[chosen] for slot in self.slots.values()),
                tuple(np.reshape(np.asarray(rate, dtype), (-1, 1)) for rate in updater.rates(counts)),
                tuple(dtype.type(number) for number in updater.numbers()),
            )
        for array, new in zip((matrix, *self.slots.values()), changed, strict=True):
            array[chosen] = new


class LocalKVStore(KVStore):
    """A store inside one process, of the kinds ``local`` and ``device``."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self._lock = threading.RLock()
        self._held: dict[Key, Held] = {}
        self._optimizer: Optimizer | None = None
        self._function: Fn | None = None

    @property
    def optimizer(self) -> Optimizer | None:
        """See ``KVStore``."""
        return self._optimizer

    @property
    def rescale_grad(self) -> float:
        """See ``KVStore``."""
        return 1.0 if self._optimizer is None else self._optimizer.rescale_grad

    @property
    def rank(self) -> int:
        """0: there is one worker."""
        return 0

    @property
    def num_workers(self) -> int:
        """1."""
        return 1

    def keys(self) -> list[Key]:
        """Return all keys, in the order in which they were initialised."""
        return list(self._held)

    def set_updater(self, updater: Fn) -> None:
        """See ``KVStore``."""
        if not callable(updater):
            raise ConfigError(f"an updater is a function of key, pushed and stored, not {updater!r:.80}")
        with self._lock:
            self._function, self._optimizer = updater, None

    def save_optimizer_states(self, fname: str | Path, dump_optimizer: bool = False) -> None:
        """Save what the optimiser keeps for each key, in one file that NumPy reads.

        Args:
            fname: a path.
            dump_optimizer: with the optimiser's numbers, which ``load_optimizer_states`` then sets.

        Raises:
            ConfigError: there is no optimiser.
        """
        with self._lock:
            optimizer = self._needed()
            about = {
                "format": FORMAT,
                "updater": optimizer.updater.name,
                "numbers": optimizer.updater.to_content() if dump_optimizer else None,
                "rescale_grad": optimizer.rescale_grad if dump_optimizer else None,
                "keys": list(self._held),
                "slots": list(optimizer.updater.slot_names),
            }
            arrays = {
                f"{number}.{name}": array
                for number, held in enumerate(self._held.values())
                for name, array in _kept(held).items()
            }
        text = np.frombuffer(json.dumps(about).encode(), np.uint8)
        path = Path(fname)
        # Beside it, and then in its place at one instant: a full disk leaves what was there.
        unfinished = path.with_name(f".{path.name}.{os.getpid()}.new")
        try:
            with unfinished.open("wb") as file:
                np.savez(file, about=text, **arrays)  # type: ignore[arg-type]  # numpy's types know one of its forms
            unfinished.replace(path)
        finally:
            unfinished.unlink(missing_ok=True)

    def load_optimizer_states(self, fname: str | Path) -> None:
        """Take up what ``save_optimizer_states`` wrote, for the keys that are in both.

        Args:
            fname: a path.

        Raises:
            ConfigError: there is no optimiser.
            CheckpointNotFound, CheckpointCorrupt: no such file, or another one.
            CheckpointMismatch: of another optimiser, or a key of another shape; nothing has changed.
        """
        with self._lock:
            optimizer = self._needed()
            about, arrays = _read(Path(fname))
            if (about["updater"], about["slots"]) != (
                optimizer.updater.name,
                list(optimizer.updater.slot_names),
            ):
                raise CheckpointMismatch(
                    f"{fname} has what {about['updater']} keeps ({', '.join(about['slots']) or 'nothing'}); the "
                    f"store's optimiser is {optimizer.updater!r}"
                )
            found = self._matched(about, arrays, fname)
            changed = None
            if about["numbers"] is not None:
                updater = type(optimizer.updater).from_content(about["numbers"])
                changed = Optimizer(updater, float(about.get("rescale_grad", optimizer.rescale_grad)))
            for held, kept in found:
                for name, array in _kept(held).items():
                    array[...] = kept[name]
            if changed is not None:
                self._optimizer = changed

    def _matched(
        self, about: dict[str, Any], arrays: dict[str, Array], fname: str | Path
    ) -> list[tuple[Held, dict[str, Array]]]:
        """Return the keys that are in the store and in a file, with what it has for each.

        Raises:
            CheckpointCorrupt: it lacks something.
            CheckpointMismatch: a key of another shape.
        """
        found: list[tuple[Held, dict[str, Array]]] = []
        for number, key in enumerate(about["keys"]):
            held = self._held.get(key)
            if held is None:
                continue
            try:
                kept = {name: arrays[f"{number}.{name}"] for name in about["slots"]}
            except KeyError as error:
                raise CheckpointCorrupt(f"{fname} lacks what is kept for key {key!r}: {error}") from None
            for name, array in _kept(held).items():
                if kept[name].shape != array.shape:
                    raise CheckpointMismatch(
                        f"{fname} has {name} of shape {kept[name].shape} for key {key!r}, which holds {held.spec}"
                    )
            found.append((held, kept))
        return found

    # --- inside -------------------------------------------------------------------------------------------------

    def _init(self, values: dict[Key, Array]) -> None:
        with self._lock:
            updater = None if self._optimizer is None else self._optimizer.updater
            for key, value in values.items():
                held = self._held.get(key)
                if held is not None:
                    _check_same(key, held.spec, value)
                elif updater is not None:
                    updater.check_dtype(value.dtype)
            for key, value in values.items():
                held = self._held.get(key)
                if held is not None:
                    held.value[...] = value
                else:
                    self._held[key] = held = Held(value)
                    held.begin(updater)

    def _push(self, values: dict[Key, Given]) -> Future[None]:
        with self._lock:
            prepared = self._prepared(values)
            if self._function is not None:
                self._push_by(self._function, prepared.values)
            else:
                updater = _ASSIGN if self._optimizer is None else self._optimizer.updater
                for key, pushed in prepared.values.items():
                    self._held[key].apply(updater, pushed)
            prepared.keep()
        done: Future[None] = Future()
        done.set_result(None)
        return done

    def _push_by(self, function: Fn, values: dict[Key, Given]) -> None:
        stored: dict[Key, Array] = {}
        for key, pushed in values.items():
            # Theirs to change, as ``stored`` is.
            whole = pushed.todense() if isinstance(pushed, RowSparse) else pushed.copy()
            stored[key] = self._held[key].value.copy()
            function(key, whole, stored[key])
        for key, value in stored.items():
            self._held[key].value[...] = value

    def _pull(self, keys: Sequence[Key], into: Mapping[Key, Array]) -> dict[Key, Array]:
        del into  # a copy is a copy, wherever
        with self._lock:
            return {key: self._held[key].value.copy() for key in keys}

    def _pull_rows(self, wanted: list[tuple[Key, NDArray[np.int64]]]) -> list[Array]:
        with self._lock:
            return [np.atleast_1d(self._held[key].value)[rows] for key, rows in wanted]

    def _delete(self, keys: list[Key]) -> None:
        with self._lock:
            self._specs(keys)
            for key in keys:
                self._held.pop(key, None)

    def _set_optimizer(self, optimizer: Optimizer) -> None:
        with self._lock:
            for held in self._held.values():
                optimizer.updater.check_dtype(held.value.dtype)
            known = None if self._optimizer is None else self._optimizer.updater
            if known is None or not continues(known, optimizer.updater):
                for held in self._held.values():
                    held.begin(optimizer.updater)
            self._optimizer, self._function = optimizer, None

    def _configure(self, updater: Updater, numbers: dict[str, Any]) -> None:
        del numbers
        with self._lock:
            self._optimizer = Optimizer(updater, self._needed().rescale_grad)

    def _spec(self, key: Key) -> Spec | None:
        held = self._held.get(key)
        return None if held is None else held.spec

    def _needed(self) -> Optimizer:
        if self._optimizer is None:
            raise ConfigError("there is no optimiser yet: set_optimizer('sgd', learning_rate=0.1)")
        return self._optimizer


_ASSIGN = updaters.named("assign")
"""What a store without an optimiser does with what is pushed."""


def continues(known: Updater, updater: Updater) -> bool:
    """Whether an updater can go on with what another has kept: of the same class, with the same slots."""
    return type(known) is type(updater) and known.slot_names == updater.slot_names


def _check_same(key: Key, spec: Spec, value: Array) -> None:
    if (value.shape, value.dtype) != (spec.shape, spec.dtype):
        raise ShapeError(
            f"key {key!r} holds {spec}; the new value is {Spec(value.shape, value.dtype)}: delete the key first"
        )


def _kept(held: Held) -> dict[str, Array]:
    return {**held.slots, **({} if held.steps is None else {"steps": held.steps})}


def _read(path: Path) -> tuple[dict[str, Any], dict[str, Array]]:
    try:
        with path.open("rb") as file:
            found = np.load(file, allow_pickle=False)
            if isinstance(found, np.ndarray):
                raise CheckpointCorrupt(f"{path} holds one array, and no optimiser's states")
            with found:
                about = json.loads(found["about"].tobytes())
                arrays = {name: found[name] for name in found.files if name != "about"}
    except FileNotFoundError as error:
        raise CheckpointNotFound(f"there is no file {path}") from error
    except (ValueError, KeyError, OSError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise CheckpointCorrupt(f"{path} holds no optimiser's states: {error}") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise CheckpointCorrupt(f"{path} holds no optimiser's states of this version")
    kinds = {"updater": str, "keys": list, "slots": list, "numbers": dict | None}
    if wrong := [name for name, kind in kinds.items() if not isinstance(about.get(name), kind)]:
        raise CheckpointCorrupt(f"{path} says nothing of {', '.join(wrong)}")
    return about, arrays
