"""A table as requests see it, and keys as users type them; knows no future and no server's inside."""

from __future__ import annotations

import copy
import operator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy.errors import DTypeError, KeyRangeError, ShapeError
from glintpy.models.dispatch import AnyTarget
from glintpy.models.indexing import Asked, Keys
from glintpy.models.values import as_array
from glintpy.partitioning import Share
from glintpy.partitioning.keyed import KeyedLayout, hashed
from glintpy.protocol import dtypes
from glintpy.protocol.calls import Stamp
from glintpy.protocol.messages import Message
from glintpy.protocol.messages_tables import ASSIGN, CREATE, EVICT, REMOVE, UPDATE, PullKeys, PushKeys
from glintpy.protocol.selection import Selection
from glintpy.protocol.spec import ModelInfo
from glintpy.protocol.texts import Texts, encoded, lengths_of, to_frame
from glintpy.updaters import Updater


class TableTarget(AnyTarget):
    """A table as requests see it: what a selection calls rows are keys, 64 bits each as int64.

    Where keys are texts they are places among those of one request, for which alone such a target is.

    Attributes:
        layout: where keys lie.
        texts: of a request, each once, see ``protocol.texts``; None: keys are integers, or not known yet.
        bits: (n,) what each of these is routed by.
        action: what its pushes do; None: update or assign, as the push says.
        contains: its pulls ask whether keys are there.
    """

    def __init__(
        self,
        info: ModelInfo,
        layout: KeyedLayout,
        timeout_s: float | None,
        *,
        updater: Updater,
        is_hasty: bool = False,
        array: int = 0,
        action: int | None = None,
        contains: bool = False,
    ) -> None:
        super().__init__(info, timeout_s, updater=updater, is_hasty=is_hasty, array=array)
        self.layout = layout
        self.action = action
        self.contains = contains
        self.texts: Texts | None = None
        self.bits: NDArray[np.int64] | None = None
        if contains or action in {REMOVE, EVICT}:
            # One byte a key, to be cut into parts by; of a removal none of them is sent.
            self.dtype = np.dtype("?")
            self.row_shape, self.num_cols, self.row_bytes = (), None, 1

    def to_create(self) -> TableTarget:
        """Return the same for a request that gives keys their rows."""
        target = copy.copy(self)
        target.action = CREATE
        return target

    def of(self, *, array: int = 0, action: int | None = None, contains: bool = False) -> TableTarget:
        """Return the same table for requests of another kind."""
        return TableTarget(
            self.info,
            self.layout,
            self.timeout_s,
            updater=self.updater,
            is_hasty=self.is_hasty,
            array=array,
            action=action,
            contains=contains,
        )

    def with_texts(self, texts: Texts) -> TableTarget:
        """Return the same table for one request, whose keys are these texts.

        Args:
            texts: each once, as ``protocol.texts`` keeps them.
        """
        target = copy.copy(self)
        target.texts, target.bits = texts, hashed(texts)
        target.key_bytes = int(lengths_of(texts).max(initial=0))
        return target

    def locate(self, rows: Keys) -> list[Share]:
        """Return what each server has of some keys, at least one."""
        assert not isinstance(rows, range), "keys are listed"
        return self.layout.locate(rows, None if self.bits is None else self.bits[rows])

    def keys_of(self, selection: Selection) -> NDArray[Any]:
        """Return keys as they travel."""
        if self.texts is not None:
            return to_frame(self.texts[selection.rows])
        return selection.rows.view(dtypes.BY_NAME[self.info.spec.keys])

    def pull_of(self, request_id: int, number: int, selection: Selection, stamp: Stamp) -> Message:
        """Return the message that reads one part."""
        return PullKeys(
            request_id,
            stamp.session,
            stamp.floor,
            stamp.after,
            self.info.model_id,
            self.info.routing,
            number,
            self.array,
            self.contains,
            self.keys_of(selection),
        )

    def push_of(
        self,
        request_id: int,
        number: int,
        selection: Selection,
        stamp: Stamp,
        values: NDArray[Any],
        *,
        assign: bool,
        wants_values: bool,
    ) -> Message:
        """Return the message that changes one part."""
        action = (ASSIGN if assign else UPDATE) if self.action is None else self.action
        return PushKeys(
            request_id,
            stamp.session,
            stamp.floor,
            stamp.sequence,
            self.info.model_id,
            self.info.routing,
            number,
            wants_values,
            action,
            self.array,
            self.keys_of(selection),
            None if action in {CREATE, REMOVE, EVICT} else values,
        )


def parse_request(keys: Any, target: TableTarget) -> tuple[Asked, TableTarget]:
    """Read keys as users type them, and return them with what a request for them goes to.

    Args:
        keys: of the table's kind: one, or (n,) of them.
        target: the table, whichever keys.

    Raises:
        DTypeError, ShapeError, KeyRangeError: see ``parse_keys``; what isn't text where keys are.
    """
    spec = target.info.spec
    if not spec.has_texts:
        return parse_keys(keys, key_dtype=spec.keys, row_shape=target.row_shape), target
    is_one = isinstance(keys, str)
    places, texts = _once([keys] if is_one else _texts_in(keys))
    shape = target.row_shape if is_one else (len(places), *target.row_shape)
    asked = Asked(places, None, False, shape, (len(places), *target.row_shape))
    return asked, target.with_texts(encoded(texts, spec.keys))


def _texts_in(keys: Any) -> list[str]:
    if not isinstance(keys, list | tuple):
        array = as_array(keys, what="keys")
        if array.dtype.kind not in "UOT" and array.size:
            raise DTypeError(f"keys of this table are texts, not {array.dtype}")
        if array.ndim != 1:
            raise ShapeError(f"keys are a text or (n,) texts, not of shape {array.shape}")
        keys = array.tolist()
    if not all(issubclass(kind, str) for kind in set(map(type, keys))):
        position = next(position for position, key in enumerate(keys) if not isinstance(key, str))
        raise DTypeError(f"keys of this table are texts, not {keys[position]!r:.80} at position {position}")
    return list(keys)


def _once(keys: list[str]) -> tuple[NDArray[np.int64], list[str]]:
    """Return each text once, in the order of first appearance, and where among these each key is."""
    once = list(dict.fromkeys(keys))
    if len(once) == len(keys):
        return np.arange(len(keys)), once
    places = dict(zip(once, range(len(once)), strict=True))
    return np.fromiter(map(places.__getitem__, keys), np.int64, len(keys)), once


def parse_keys(keys: Any, *, key_dtype: str, row_shape: tuple[int, ...]) -> Asked:
    """Read integer keys as users type them.

    Args:
        keys: an integer, or (n,) integers of any kind.
        key_dtype: ``"int64"`` or ``"uint64"``.
        row_shape: of what is asked for, for each key.

    Returns:
        The keys in normal form, their 64 bits as int64.

    Raises:
        DTypeError: keys that aren't integers.
        ShapeError: keys of more than one dimension.
        KeyRangeError: a key that the table can't have, with its position.
    """
    if isinstance(keys, int | np.integer) and not isinstance(keys, bool):
        bits = _bits(np.array([operator.index(keys)], dtype=object), key_dtype)
        return Asked(bits, None, False, row_shape, (1, *row_shape))
    array = as_array(keys, what="keys")
    if array.dtype.kind not in "iuO" and not array.ndim:
        raise DTypeError(f"keys are integers, not {keys!r:.80}")
    if array.ndim != 1:
        raise ShapeError(f"keys are an integer or (n,) integers, not of shape {array.shape}")
    if array.dtype.kind not in "iu":
        if array.size and not (isinstance(keys, list | tuple) and _are_integers(keys)):
            raise DTypeError(f"keys are integers, not {array.dtype}; a table has no masks and no slices")
        # None at all, or beyond int64, or on both sides of it: numpy guesses at these.
        array = np.array(keys, dtype=object) if array.size else array.astype(np.int64)
    bits = _bits(array, key_dtype)
    shape = (len(bits), *row_shape)
    return Asked(bits, None, False, shape, shape)


def _bits(array: NDArray[Any], key_dtype: str) -> NDArray[np.int64]:
    limits = np.iinfo(key_dtype)
    if array.size and not limits.min <= int(array.min()) <= int(array.max()) <= limits.max:
        outside = (
            (array < limits.min) | (array > limits.max)
            if array.dtype.kind == "O"
            else (array < 0 if limits.min == 0 else array > np.uint64(limits.max))
        )
        position = int(np.flatnonzero(outside)[0])
        raise KeyRangeError(
            f"key {int(array[position])} at position {position} is outside of {key_dtype}, "
            f"{limits.min} to {limits.max}, which the keys of this table are"
        )
    bits: NDArray[np.int64] = array.astype(key_dtype).view(
        np.int64
    )  # a copy: the caller's may change at once
    return bits


def _are_integers(keys: list[Any] | tuple[Any, ...]) -> bool:
    return all(isinstance(key, int | np.integer) and not isinstance(key, bool) for key in keys)
