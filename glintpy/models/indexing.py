"""Keys as users type them into one normal form, ``Asked``; knows no value, partition or socket.

Two ways lead in. ``parse_pull`` reads the arguments of pull and push, where a negative number is an error
and rows with columns are pairs; ``parse_item`` reads ``m[...]``, where everything means what it means to
numpy. Slices and whole axes stay ranges, and travel as such but for short ones that join others.
"""

from __future__ import annotations

import operator
from dataclasses import dataclass
from types import EllipsisType
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from glintpy.errors import DTypeError, KeyRangeError, ShapeError
from glintpy.models.values import as_array

__all__ = ["Asked", "Keys", "parse_item", "parse_pull", "size_of"]

Keys = range | NDArray[np.int64]
"""Keys inside their axis: a range that runs forward, or an (n,) array in the user's order. Never the
caller's own array: it can't change after the check, nor while the request travels."""


@dataclass(slots=True, eq=False)
class Asked:
    """What a caller asked for; not changed once it is made (frozen, it would take three times as long to make).

    Attributes:
        rows: the rows of a matrix, or the keys of a vector.
        cols: columns; None: all of them, and always None for a vector.
        paired: element i is (rows[i], cols[i]), and both are arrays.
        shape: of what the caller sees or gives.
        wire_shape: of what the keys select: (len(rows), number of columns), or (len(rows),) for pairs and
            vectors.
        flip_rows: the caller named the rows backward.
        flip_cols: the caller named the columns backward.
    """

    rows: Keys
    cols: Keys | None
    paired: bool
    shape: tuple[int, ...]
    wire_shape: tuple[int, ...]
    flip_rows: bool = False
    flip_cols: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing is selected: then nothing is sent."""
        return 0 in self.wire_shape

    def finish(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return what the keys selected as the caller asked for it.

        Args:
            array: ``wire_shape`` values.

        Returns:
            ``shape`` values: ``array`` or a view of it.
        """
        return self._flip(array).reshape(self.shape)

    def to_wire(self, array: NDArray[Any]) -> NDArray[Any]:
        """Return the caller's values (or ``out``) in the order and shape of the keys: ``finish`` undone.

        Args:
            array: ``shape`` values.

        Returns:
            ``wire_shape`` values, always a view: writing into it writes into ``array``.
        """
        return self._flip(array.reshape(self.wire_shape))  # only axes of length 1 come in: no copy

    def _flip(self, array: NDArray[Any]) -> NDArray[Any]:
        if self.flip_rows:
            array = array[::-1]
        if self.flip_cols:
            array = array[:, ::-1]
        return array


class _Axis(NamedTuple):
    """One axis as it was typed.

    Attributes:
        single: an integer: the axis is dropped from the result.
        listed: named one by one or by a mask: two such axes are paired by numpy.
        flip: ``keys`` stand in the reverse of the order asked for.
    """

    keys: Keys
    single: bool = False
    listed: bool = False
    flip: bool = False

    def indices(self) -> NDArray[np.int64]:
        """Return (n,) keys in the order asked for."""
        if not isinstance(self.keys, range):
            return self.keys
        written = np.arange(self.keys.start, self.keys.stop, self.keys.step, dtype=np.int64)
        return written[::-1].copy() if self.flip else written


class _Target(NamedTuple):
    """The axis that keys are for: its size, its argument's name, and whether -1 is its last key."""

    size: int
    what: str
    wrap: bool = False


def parse_pull(
    rows: Any, cols: Any = None, *, num_rows: int, num_cols: int | None, what: str | None = None
) -> Asked:
    """Read the keys of pull, push and push_pull.

    Args:
        rows: an int, a slice, (n,) integers of any kind, a (num_rows,) mask, or None for all.
        cols: the same for columns. With ``rows`` both name single elements, in pairs.
        num_rows: rows of the matrix, or the size of the vector.
        num_cols: None for a vector.
        what: the first argument's name in messages; ``rows``, or ``keys`` of a vector.

    Returns:
        The keys in normal form, checked against the model's shape.

    Raises:
        KeyRangeError: a key outside the model, with its position; a negative one outside a slice.
        ShapeError: a mask, pairs or an array of the wrong shape, with both lengths.
        DTypeError: keys that aren't integers.
    """
    if cols is None and (few := _run_inside(rows, num_rows) or _few_inside(rows, num_rows)) is not None:
        shape = (len(few),) if num_cols is None else (len(few), num_cols)
        return Asked(few, None, False, shape, shape)
    target = _Target(num_rows, what or ("keys" if num_cols is None else "rows"))
    asked_rows = _Axis(range(num_rows)) if rows is None else _axis(rows, target)
    if num_cols is None:
        if cols is not None:
            raise ShapeError("a vector has no columns: name its elements by keys alone")
        return _of_vector(asked_rows)
    if cols is None:
        return _outer(asked_rows, _Axis(range(num_cols)), num_cols)
    asked_cols = _axis(cols, _Target(num_cols, "cols"))
    if rows is None:
        return _outer(asked_rows, asked_cols, num_cols)
    lengths = len(asked_rows.keys), len(asked_cols.keys)
    if asked_rows.single != asked_cols.single or lengths[0] != lengths[1]:
        told = [
            f"{name} {'is a single integer, length 1' if axis.single else f'has length {length}'}"
            for name, axis, length in zip(
                (target.what, "cols"), (asked_rows, asked_cols), lengths, strict=True
            )
        ]
        raise ShapeError(
            f"{' and '.join(told)}: together they name elements one by one, and must match; "
            "for a block use m[rows, cols] with a slice, or pull the rows and select from them"
        )
    return _elements(asked_rows.indices(), asked_cols.indices(), single=asked_rows.single)


def parse_item(key: Any, *, num_rows: int, num_cols: int | None) -> Asked:
    """Read what stands in ``m[...]`` as numpy would.

    Args:
        key: integers, slices, (n,) integer arrays, masks and ``...``, alone or in a tuple.
        num_rows: rows of the matrix, or the size of the vector.
        num_cols: None for a vector.

    Returns:
        The keys in normal form; ``finish`` gives what ``np.asarray(m)[key]`` would, a scalar as a 0-d array.

    Raises:
        KeyRangeError: a key outside the model, or what isn't supported; it is an IndexError, as numpy's.
    """
    if num_cols is None:
        (keys,) = _expanded(key, 1)
        return _of_vector(_item_axis(keys, _Target(num_rows, "keys", wrap=True)))
    row_key, col_key = _expanded(key, 2)
    rows = _item_axis(row_key, _Target(num_rows, "rows", wrap=True))
    cols = _item_axis(col_key, _Target(num_cols, "cols", wrap=True))
    if rows.single and cols.single:
        return _elements(rows.indices(), cols.indices(), single=True)
    if not (rows.listed and cols.listed):
        return _outer(rows, cols, num_cols)
    num_elements = len(cols.keys) if len(rows.keys) == 1 else len(rows.keys)
    if len(cols.keys) not in {1, num_elements}:
        _refuse_item(
            f"rows has length {len(rows.keys)} and cols {len(cols.keys)}: they name elements in pairs", 2
        )
    pairs = [np.resize(axis.indices(), num_elements) for axis in (rows, cols)]  # (num_elements,) each
    return _elements(*pairs, single=False)


def _of_vector(keys: _Axis) -> Asked:
    length = len(keys.keys)
    shape = () if keys.single else (length,)
    return Asked(keys.keys, None, paired=False, shape=shape, wire_shape=(length,), flip_rows=keys.flip)


def _outer(rows: _Axis, cols: _Axis, num_cols: int) -> Asked:
    lengths = len(rows.keys), len(cols.keys)
    shape = tuple(length for length, axis in zip(lengths, (rows, cols), strict=True) if not axis.single)
    whole = isinstance(cols.keys, range) and cols.keys == range(num_cols)
    return Asked(
        rows=rows.keys,
        cols=None if whole else cols.keys,
        paired=False,
        shape=shape,
        wire_shape=lengths,
        flip_rows=rows.flip,
        flip_cols=cols.flip,
    )


def _elements(rows: NDArray[np.int64], cols: NDArray[np.int64], *, single: bool) -> Asked:
    return Asked(rows, cols, paired=True, shape=() if single else rows.shape, wire_shape=rows.shape)


def _expanded(key: Any, num_axes: int) -> list[Any]:
    """Return one entry an axis, with what ``...`` or silence stand for written out."""
    entries = list(key) if isinstance(key, tuple) else [key]
    if any(entry is None for entry in entries):
        _refuse_item("None (np.newaxis) adds an axis", num_axes)
    dots = [place for place, entry in enumerate(entries) if isinstance(entry, EllipsisType)]
    missing = num_axes - (len(entries) - len(dots))
    if missing < 0:
        _refuse_item(f"{len(entries) - len(dots)} indices for {num_axes} axes", num_axes)
    if len(dots) > 1:
        _refuse_item("more than one '...'", num_axes)
    place = dots[0] if dots else len(entries)
    entries[place : place + 1] = [slice(None)] * missing
    return entries


def _item_axis(entry: Any, target: _Target) -> _Axis:
    try:
        return _axis(entry, target)
    except (DTypeError, ShapeError) as error:
        _refuse_item(str(error), 1 if target.what == "keys" else 2, error)


def _refuse_item(reason: str, num_axes: int, cause: Exception | None = None) -> NoReturn:
    instead = "pull(keys)" if num_axes == 1 else "pull(rows, cols)"
    raise KeyRangeError(
        f"{reason}: [...] takes integers, slices, 1-D integer arrays, masks and '...'; else use {instead}"
    ) from cause


def _axis(entry: Any, target: _Target) -> _Axis:
    """Read one axis, whatever it is written as."""
    if isinstance(entry, slice):
        return _slice_axis(entry, target)
    if isinstance(entry, range):
        return _range_axis(entry, target)
    if isinstance(entry, int) and not isinstance(entry, bool):
        return _single_axis(int(entry), target)
    if isinstance(entry, list | tuple) and len(entry) == 0:  # float64 to numpy
        return _Axis(np.empty(0, np.int64), listed=True)
    array = as_array(entry, what=target.what)
    if array.ndim > 1:
        raise ShapeError(f"{target.what} has {array.ndim} dimensions, shape {array.shape}; it has one")
    kind = array.dtype.kind
    if kind == "b" and array.ndim == 1:
        if len(array) != target.size:
            raise ShapeError(
                f"{target.what} is a mask of length {len(array)} for an axis of length {target.size}"
            )
        return _Axis(np.flatnonzero(array).astype(np.int64, copy=False), listed=True)
    if kind not in "iu":
        array = _whole_numbers(entry, array, target)
    if array.ndim == 0:
        return _single_axis(int(array), target)
    return _Axis(_inside(array, target), listed=True)


def _slice_axis(entry: slice, target: _Target) -> _Axis:
    try:
        keys, flip = _forward(range(*entry.indices(target.size)))
    except TypeError as error:
        raise DTypeError(f"{target.what} is {entry}: a slice runs between integers") from error
    except ValueError as error:
        raise ShapeError(f"{target.what} is {entry}: a slice's step isn't 0") from error
    return _Axis(keys, flip=flip)


def _range_axis(entry: range, target: _Target) -> _Axis:
    lowest = -target.size if target.wrap else 0
    keys, flip = _forward(entry)
    if keys and not lowest <= keys.start <= keys[-1] < target.size:
        position = 0
        if lowest <= entry[0] < target.size:
            room = target.size - 1 - entry[0] if entry.step > 0 else entry[0] - lowest
            position = room // abs(entry.step) + 1
        _refuse_key(entry[position], position, target)
    if keys and keys.start < 0:  # only where negatives wrap
        return _Axis(_wrapped(_Axis(keys, flip=flip).indices(), target), listed=True)
    return _Axis(keys, listed=True, flip=flip)


def _single_axis(key: int, target: _Target) -> _Axis:
    if not (-target.size if target.wrap else 0) <= key < target.size:
        _refuse_key(key, None, target)
    key += target.size if key < 0 else 0
    return _Axis(range(key, key + 1), single=True)


_FEW = 16
"""Of so few numbers Python's own least and largest cost less than numpy's."""


def _run_inside(keys: Any, size: int) -> range | None:
    """Return a slice of keys that follow one another, by the shortest way; None: another way must tell."""
    if type(keys) is not slice or keys.step is not None:
        return None
    start, stop = keys.start, keys.stop
    return range(start, stop) if type(start) is type(stop) is int and 0 <= start < stop <= size else None


def _few_inside(keys: Any, size: int) -> NDArray[np.int64] | None:
    """Return a copy of keys that are what small requests name, by the shortest way; None: another way must tell."""
    if type(keys) is not np.ndarray or keys.ndim != 1 or keys.dtype != np.int64 or not 0 < keys.size <= _FEW:
        return None
    own: NDArray[np.int64] = keys.copy()
    few = own.tolist()
    return own if min(few) >= 0 and max(few) < size else None


def _inside(array: NDArray[Any], target: _Target) -> NDArray[np.int64]:
    """Return (n,) integers of any width as a checked copy."""
    # Copied first and checked then: another thread may write into the caller's array meanwhile. uint64 is
    # checked as such, since what is beyond int64 would come out negative.
    own = array.astype(
        np.uint64 if array.dtype.kind == "u" and array.dtype.itemsize == 8 else np.int64, order="C"
    )
    keys: NDArray[np.int64] = own.view(np.int64)
    if own.size == 0:
        return keys
    if target.wrap and own.dtype == np.int64:
        if int(keys.min()) < -target.size or int(keys.max()) >= target.size:
            position = int(((keys < -target.size) | (keys >= target.size)).argmax())
            _refuse_key(int(keys[position]), position, target)
        return _wrapped(keys, target)
    # Seen as unsigned a negative number is huge: one pass finds both ends.
    if int(own.view(np.uint64).max()) >= target.size:
        position = int((own.view(np.uint64) >= np.uint64(target.size)).argmax())
        _refuse_key(int(own[position]), position, target)
    return keys


def _wrapped(keys: NDArray[np.int64], target: _Target) -> NDArray[np.int64]:
    keys[keys < 0] += target.size
    return keys


def _forward(keys: range) -> tuple[range, bool]:
    """Return a range's keys in ascending order, no bound beyond the last, and whether that reversed them."""
    if not keys:
        return range(0), False
    low, high = min(keys[0], keys[-1]), max(keys[0], keys[-1])
    # A single key may come with a step of any size, which would not travel.
    return range(low, high + 1, abs(keys.step) if low < high else 1), keys.step < 0 and low < high


def _refuse_key(key: int, position: int | None, target: _Target) -> NoReturn:
    where = "" if position is None else f" at position {position}"
    if target.wrap:
        raise KeyRangeError(f"{target.what}: {key}{where} is outside [{-target.size}, {target.size})")
    hint = "; negative numbers count from the end only in m[...] and in slices" if key < 0 else ""
    raise KeyRangeError(f"{target.what}: {key}{where} is outside [0, {target.size}){hint}")


def _whole_numbers(entry: Any, array: NDArray[Any], target: _Target) -> NDArray[np.int64]:
    """Return a list whose integers numpy reads as something else, or refuse it.

    Beyond 64 bits they are objects to numpy, and int64 beside uint64 is float64.
    """
    given = isinstance(entry, list | tuple) and array.dtype.kind in "Of"
    if given and all(isinstance(key, int | np.integer) for key in entry):
        for position, key in enumerate(entry):
            if not (-target.size if target.wrap else 0) <= key < target.size:
                _refuse_key(int(key), position, target)
        return np.array([int(key) for key in entry], dtype=np.int64)
    found = f"the {array.dtype} {entry!r:.80}" if array.ndim == 0 else f"an array of {array.dtype}"
    raise DTypeError(f"{target.what} is {found}; keys are integers, slices of them, or a boolean mask")


def size_of(what: str, size: Any) -> int:
    """Return the length of an axis as typed.

    Args:
        what: its name in messages.
        size: any integer.

    Raises:
        ShapeError: not an integer.
    """
    if isinstance(size, bool):
        raise ShapeError(f"{what} is an integer, not {size!r}")
    try:
        # Not by asking for __index__: arrays have one, and refuse when it is called.
        return operator.index(size)
    except TypeError as error:
        raise ShapeError(f"{what} is an integer, not {size!r}") from error
