"""Where each key lies: decided by one worker, written down as a list of entries, and followed by all; pure.

Small arrays lie side by side in vectors, *pages*, so that a thousand of them are one request; a large one has a model
of its own: a matrix if it has many rows, since rows of it may be asked for, else a vector. Places are never used twice:
who has not heard of a key's end finds what the key was, or no model, and never another key's values.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from glintpy import ConfigError
from glintpy.kvstore.forms import DTYPES, Key, Spec
from glintpy.updaters import Updater

Entry = dict[str, Any]
Kind = Literal["page", "vector", "matrix"]

PACKED_MAX = 65_536
"""Cells of the largest array that lies in a page: beyond, one request for it alone is as cheap."""

PAGE_CELLS = 65_536
"""Cells of a page that is made for few keys, and has room for more."""

ROUND_CELLS = 64
"""Cells of a page's row in a store whose workers push in rounds: servers keep 16 bytes a row for these."""

ROUND_COLS = 1024
"""The same of a large array that is no matrix: about, so that its last row is full where that can be had."""

MATRIX_ROWS = 256
"""Rows from which on a large array is a matrix: with fewer they would not be split evenly over servers."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a key's values lie.

    Attributes:
        model: its number; models of a store are counted.
        offset: its first cell there.
        spec: what it holds.
        version: how often it was initialised.
    """

    model: int
    offset: int
    spec: Spec
    version: int


@dataclass(frozen=True, slots=True)
class Making:
    """A model that has to be made.

    Attributes:
        number: under which it is known.
        kind: what it is.
        size: cells, or of a matrix rows.
        cols: cells of a row; 0: a vector.
        dtype: of all its keys.
        is_full: whether its first keys fill it.
    """

    number: int
    kind: Kind
    size: int
    cols: int
    dtype: np.dtype[Any]
    is_full: bool = True


@dataclass(slots=True, eq=False)
class Held:
    """A model, as far as the directory knows it.

    Attributes:
        kind: what it is.
        size: cells of a page.
        used: of them those that keys have, or had.
        dtype: of its values.
        epoch: the store's when it was made: models of earlier ones have another updater.
        keys: that lie in it.
    """

    kind: Kind
    size: int
    used: int
    dtype: np.dtype[Any]
    epoch: int = 0
    keys: set[Key] = field(default_factory=set)


@dataclass(slots=True, eq=False)
class Directory:
    """What the entries so far say.

    Attributes:
        in_rounds: whether models have rows of several cells throughout, since each takes part in rounds of its own.
        places: by key, in the order of their first initialisation.
        versions: how often each key was initialised, ended ones too.
        ended: of each key that was ever deleted, how often it had been initialised when it was last.
        models: by number.
        pages: of each dtype, the last one of this epoch.
        num_models: numbers that were given out.
        optimizer: the last entry of an optimiser; None: there was none.
        set_before: all optimisers that were set, in order.
        epoch: how often models had to be made anew for one.
        num_moves: how often keys were moved.
    """

    in_rounds: bool = False
    places: dict[Key, Place] = field(default_factory=dict)
    versions: dict[Key, int] = field(default_factory=dict)
    ended: dict[Key, int] = field(default_factory=dict)
    models: dict[int, Held] = field(default_factory=dict)
    pages: dict[np.dtype[Any], int] = field(default_factory=dict)
    num_models: int = 0
    optimizer: Entry | None = None
    set_before: list[Entry] = field(default_factory=list)
    epoch: int = 0
    num_moves: int = 0

    def apply(self, entry: Entry) -> None:
        """Follow one entry; what it says of keys that are gone is passed over.

        Whoever leads next may have known less than who led before: an entry that some can't follow would end the store.

        Raises:
            ConfigError: it is none of these, so it was written by another version.
        """
        follow = {
            "model": self._follow_model,
            "keys": self._follow_keys,
            "moved": self._follow_moved,
            "again": self._follow_again,
            "deleted": self._follow_deleted,
            "optimizer": self._follow_optimizer,
        }.get(entry.get("entry", ""))
        if follow is None:
            raise ConfigError(f"the store's directory has an entry of another version: {entry!r:.200}")
        follow(entry)

    def _follow_keys(self, entry: Entry) -> None:
        for key, model, offset, shape, dtype in entry["keys"]:
            self._put(key, model, offset, Spec(tuple(shape), DTYPES[dtype]))

    def _follow_moved(self, entry: Entry) -> None:
        self.num_moves += 1
        for key, model, offset in entry["keys"]:
            if key in self.places:
                self._move(key, model, offset)

    def _follow_again(self, entry: Entry) -> None:
        for key in self._there(entry):
            self.versions[key] += 1
            self.places[key] = replace(self.places[key], version=self.versions[key])

    def _follow_deleted(self, entry: Entry) -> None:
        for key in self._there(entry):
            self._leave(key, self.places.pop(key))
            self.ended[key] = self.versions[key]

    def _there(self, entry: Entry) -> list[Key]:
        return [key for key in dict.fromkeys(entry["keys"]) if key in self.places]

    def _follow_optimizer(self, entry: Entry) -> None:
        self.optimizer = entry
        if entry["counts"]:
            self.set_before.append(entry)
        self.epoch += entry["anew"]
        if entry["anew"]:
            self.pages.clear()

    @property
    def generation(self) -> int:
        """How often an optimiser was set."""
        return len(self.set_before)

    def _follow_model(self, entry: Entry) -> None:
        number = entry["number"]
        used = entry.get("used", 0)
        self.models[number] = Held(entry["kind"], entry["size"], used, DTYPES[entry["dtype"]], self.epoch)
        self.num_models = max(self.num_models, number + 1)
        if entry["kind"] == "page":
            self.pages[self.models[number].dtype] = number

    def _put(self, key: Key, model: int, offset: int, spec: Spec) -> None:
        self.versions[key] = self.versions.get(key, 0) + 1
        self.places[key] = Place(model, offset, spec, self.versions[key])
        self._enter(key, model, offset, spec)

    def _move(self, key: Key, model: int, offset: int) -> None:
        place = self.places[key]
        self._leave(key, place)
        self.places[key] = Place(model, offset, place.spec, place.version)
        self._enter(key, model, offset, place.spec)

    def _enter(self, key: Key, model: int, offset: int, spec: Spec) -> None:
        held = self.models[model]
        held.keys.add(key)
        held.used = max(held.used, offset + self._padded(spec))

    def _leave(self, key: Key, place: Place) -> None:
        self.models[place.model].keys.discard(key)

    # --- deciding -------------------------------------------------------------------------------------------------

    def empty_models(self) -> list[int]:
        """Forget models in which no key lies, but for pages that have room for new ones, and return them."""
        current = {self._current(held.dtype) for held in self.models.values()}
        found = [number for number, held in self.models.items() if not held.keys and number not in current]
        for number in found:
            del self.models[number]
        return found

    def _current(self, dtype: np.dtype[Any]) -> int | None:
        """Return the page in which the next small key of a dtype is put: the last one, or none when that is full.

        Never an earlier one: those that look at other times may have forgotten it already.
        """
        number = self.pages.get(dtype)
        held = None if number is None else self.models.get(number)
        return None if held is None or held.used == held.size else number

    def model_entry(self, number: int) -> Entry:
        """Return the entry of a model."""
        held = self.models[number]
        return {
            "entry": "model",
            "number": number,
            "kind": held.kind,
            "size": held.size,
            "dtype": held.dtype.name,
        }

    def placed(
        self, specs: Mapping[Key, Spec], *, anew: bool = False
    ) -> tuple[list[Making], list[tuple[Key, int, int]]]:
        """Decide where new keys lie.

        Args:
            specs: what each is to hold.
            anew: in new models only: the others have another updater.

        Returns:
            Models that have to be made first, and for each key its model and first cell there.
        """
        makings: list[Making] = []
        found: list[tuple[Key, int, int]] = []
        packed: dict[np.dtype[Any], list[tuple[Key, Spec]]] = {}
        number = self.num_models
        for key, spec in specs.items():
            if spec.size <= PACKED_MAX:
                packed.setdefault(spec.dtype, []).append((key, spec))
                continue
            if len(spec.shape) > 1 and spec.num_rows >= MATRIX_ROWS:
                makings.append(Making(number, "matrix", spec.num_rows, spec.width, spec.dtype))
            else:
                cols = _round_cols(spec.size) if self.in_rounds else 0
                size = -(-spec.size // cols) * cols if cols else spec.size
                makings.append(Making(number, "vector", size, cols, spec.dtype))
            found.append((key, number, 0))
            number += 1
        for dtype, entries in packed.items():
            page = None if anew else self._current(dtype)
            free = 0 if page is None else self.models[page].size - self.models[page].used
            needed = sum(self._padded(spec) for _, spec in entries)
            cols = ROUND_CELLS if self.in_rounds else 0
            if page is None or needed > free:
                size = max(PAGE_CELLS, needed)
                page, offset = number, 0
                makings.append(Making(number, "page", size, cols, dtype, is_full=size == needed))
                number += 1
            else:
                offset = self.models[page].used
            for key, spec in entries:
                found.append((key, page, offset))
                offset += self._padded(spec)
        return makings, found

    def _padded(self, spec: Spec) -> int:
        """Return the cells that a small key takes."""
        return -(-spec.size // ROUND_CELLS) * ROUND_CELLS if self.in_rounds else spec.size


def _round_cols(size: int) -> int:
    """Return the cells of a row of a large array: a divisor of its size if one is near, so that it is sent as it is."""
    near = range(ROUND_COLS // 2, 2 * ROUND_COLS)
    fitting = [cols for cols in near if size % cols == 0]
    return min(fitting, key=lambda cols: abs(cols - ROUND_COLS), default=ROUND_COLS)


def model_entry(making: Making) -> Entry:
    """Return the entry of a model that was made."""
    return {
        "entry": "model",
        "number": making.number,
        "kind": making.kind,
        "size": making.size,
        "dtype": making.dtype.name,
    }


def keys_entry(places: Iterable[tuple[Key, int, int]], specs: Mapping[Key, Spec]) -> Entry:
    """Return the entry of new keys."""
    return {
        "entry": "keys",
        "keys": [
            [key, model, offset, list(specs[key].shape), specs[key].dtype.name]
            for key, model, offset in places
        ],
    }


def moved_entry(places: Iterable[tuple[Key, int, int]]) -> Entry:
    """Return the entry of keys that lie in other models from now on."""
    return {"entry": "moved", "keys": [list(place) for place in places]}


def changed_entry(entry: Entry, updater: Updater, rescale_grad: float | None) -> Entry:
    """Return the entry of an optimiser whose numbers have changed; None: not ``rescale_grad``."""
    factor = entry["rescale_grad"] if rescale_grad is None else rescale_grad
    return {**entry, "numbers": updater.to_content(), "rescale_grad": factor, "counts": 0, "anew": 0}
