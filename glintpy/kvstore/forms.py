"""What may be given as keys, values and outputs, brought into one form; pure.

A call takes one key or a list of them. With one key, a list of values is one from each device, and they are summed;
with a list of keys there is a value, or a list of values, for each. A key that stands several times in a list has its
values summed, too. What is given is never changed.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, TypeVar

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glintpy import DTypeError, KeyRangeError, ShapeError, updaters
from glintpy.kvstore.casting import cast

Key = int | str
Array = NDArray[Any]
T = TypeVar("T")


_ADD = updaters.named("add")

DTYPES: dict[str, np.dtype[Any]] = {
    kind().dtype.name: kind().dtype
    for kind in (
        np.bool_,
        *(np.int8, np.int16, np.int32, np.int64),
        *(np.uint8, np.uint16, np.uint32, np.uint64),
        *(np.float16, np.float32, np.float64),
    )
}
"""What keys can hold, by name: names that were written down by others are looked up, not given to NumPy."""


@dataclass(frozen=True)
class Spec:
    """What the values of a key are.

    Attributes:
        shape: of its array.
        dtype: of its array.
    """

    shape: tuple[int, ...]
    dtype: np.dtype[Any]

    @cached_property
    def size(self) -> int:
        """Cells."""
        return math.prod(self.shape)

    @property
    def num_rows(self) -> int:
        """Rows: what the first dimension counts."""
        return self.shape[0] if self.shape else 1

    @cached_property
    def width(self) -> int:
        """Cells of a row."""
        return math.prod(self.shape[1:])

    def __str__(self) -> str:
        return f"{self.dtype.name} of shape {self.shape}"


class RowSparse:
    """Some rows of an array, all others being zeros: a gradient that touches few of them, or where rows are pulled to.

    Args:
        indices: (n,) integers: which rows, in any order; repeats are allowed, and sum up.
        values: (n, ...) the rows.
        shape: of the whole array; None: said by the key.

    Attributes:
        indices: as given.
        values: as given.
        shape: as given.

    Raises:
        ShapeError, DTypeError: they don't fit each other.
    """

    def __init__(self, indices: ArrayLike, values: ArrayLike, shape: Sequence[int] | None = None) -> None:
        self.indices = _as_ids(indices)
        self.values: Array = np.asarray(values)
        self.shape = None if shape is None else tuple(map(operator.index, shape))
        if self.values.shape[:1] != self.indices.shape:
            raise ShapeError(f"{len(self.indices)} indices, and values of shape {self.values.shape}")
        if self.shape is not None and self.shape[1:] != self.values.shape[1:]:
            raise ShapeError(
                f"values of shape {self.values.shape} for rows of an array of shape {self.shape}"
            )

    def todense(self) -> Array:
        """Return the whole array, (shape), with zeros where no row is; repeats are summed.

        Raises:
            ShapeError: the shape is not known.
        """
        if self.shape is None:
            raise ShapeError("nobody said the shape: RowSparse(indices, values, shape)")
        found = np.zeros(self.shape, self.values.dtype)
        np.add.at(found, self.indices, self.values)
        return found

    def __repr__(self) -> str:
        return f"RowSparse({len(self.indices)} rows, values={self.values.shape}, shape={self.shape})"


Given = Array | RowSparse
"""What is pushed under a key, after devices are summed."""


def check_key(key: Any) -> Key:
    """Return a key: an int of any size or a text; a NumPy integer is an int.

    Raises:
        TypeError: it is neither.
    """
    if isinstance(key, str):
        return key
    if not isinstance(key, bool | np.bool_):
        try:
            return operator.index(key)
        except TypeError:
            pass
    raise TypeError(f"a key is an int or a str, not {key!r:.80}")


def keys_of(key: Any) -> tuple[list[Key], bool]:
    """Return the keys, and whether a list was given."""
    if isinstance(key, list | tuple):
        return [check_key(entry) for entry in key], True
    return [check_key(key)], False


def paired(key: Any, value: Any, *, what: str = "values") -> list[tuple[Key, Any]]:
    """Return each key with what was given for it.

    Args:
        key: one or a list.
        value: what belongs to it, or a list.
        what: the second is, for messages.

    Raises:
        TypeError: what can't be a key.
        ShapeError: there isn't one for each key.
    """
    keys, is_list = keys_of(key)
    if not is_list:
        return [(keys[0], value)]
    if not isinstance(value, list | tuple):
        raise ShapeError(f"a list of {len(keys)} keys takes a list of {what}, not {type(value).__name__}")
    if len(value) != len(keys):
        raise ShapeError(f"{len(keys)} keys and {len(value)} {what}")
    return list(zip(keys, value, strict=True))


def initial(key: Any, value: Any) -> dict[Key, Array]:
    """Return an initial value for each key, C-contiguous, of this machine's byte order and nobody else's.

    Raises:
        ShapeError: a key stands twice, or what ``paired`` refuses.
        DTypeError: what is no array of numbers, or of numbers that no key can hold.
    """
    found: dict[Key, Array] = {}
    for one, given in paired(key, value):
        if one in found:
            raise ShapeError(f"key {one!r} stands twice in the list")
        dense = given.todense() if isinstance(given, RowSparse) else given
        array = _numbers(np.asarray(dense), one)
        dtype = DTYPES.get(array.dtype.name)
        if dtype is None:
            raise DTypeError(
                f"the value of key {one!r} is of {array.dtype}; a key holds one of {', '.join(DTYPES)}"
            )
        found[one] = np.array(array, dtype, order="C")
    return found


def pushed(key: Any, value: Any, specs: Mapping[Key, Spec]) -> dict[Key, Given]:
    """Return what is pushed under each key: of the key's dtype, with devices and repeats summed.

    The arrays may be the caller's own, and are only read.

    Args:
        key: one or a list.
        value: an array, or a list of them; for a list of keys a list of these.
        specs: what each key holds.

    Raises:
        ShapeError, DTypeError, KeyRangeError: what doesn't fit the key.
    """
    parts: dict[Key, list[Any]] = {}
    for one, given in paired(key, value):
        devices = list(given) if isinstance(given, list | tuple) else [given]
        if not devices:
            raise ShapeError(f"an empty list of values for key {one!r}")
        parts.setdefault(one, []).extend(devices)
    return {one: _summed(one, devices, specs[one]) for one, devices in parts.items()}


def _summed(key: Key, devices: list[Any], spec: Spec) -> Given:
    sparse = [entry for entry in devices if isinstance(entry, RowSparse)]
    if not sparse:
        total = fitted(key, devices[0], spec)
        if len(devices) > 1:
            total = total.copy()
        with np.errstate(over="ignore"):
            for entry in devices[1:]:
                total += fitted(key, entry, spec)
        return total
    if len(sparse) < len(devices):
        raise ShapeError(f"key {key!r} was given dense and row-sparse values together")
    for entry in sparse:
        if (
            entry.shape not in {None, spec.shape}
            or entry.values.shape[1:] != spec.shape[1:]
            or not spec.shape
        ):
            raise ShapeError(f"{entry!r} for key {key!r}, which holds {spec}")
        check_rows(key, entry.indices, spec)
    values = np.concatenate([_numbers(entry.values, key) for entry in sparse])
    indices = np.concatenate([entry.indices for entry in sparse])
    # Whatever the optimiser would make of repeats: a device's rows are parts of one array.
    rows, sums = _ADD.combine(indices, _cast(key, values, spec))
    return RowSparse(rows, sums, spec.shape)


def fitted(key: Key, value: Any, spec: Spec) -> Array:
    """Return an array of a key's shape and dtype; it may be what was given.

    Raises:
        ShapeError, DTypeError: it doesn't fit.
    """
    array = _numbers(np.asarray(value), key)
    if array.shape != spec.shape:
        raise ShapeError(f"a value of shape {array.shape} for key {key!r}, which holds {spec}")
    return _cast(key, array, spec)


def _cast(key: Key, array: Array, spec: Spec) -> Array:
    return array if array.dtype == spec.dtype else cast(array, spec.dtype, f"a value for key {key!r}")


def _numbers(array: Array, key: Key) -> Array:
    if array.dtype.kind not in "biuf":
        raise DTypeError(f"the value of key {key!r} is of {array.dtype}; it is an array of numbers")
    return array


def check_rows(key: Key, rows: NDArray[np.int64], spec: Spec) -> None:
    """Refuse rows that a key doesn't have.

    Raises:
        KeyRangeError: with the first of them.
    """
    wrong = rows[(rows < 0) | (rows >= spec.num_rows)]
    if wrong.size:
        raise KeyRangeError(f"row {int(wrong[0])} of key {key!r}, which has {spec.num_rows} rows")


def _as_ids(ids: ArrayLike) -> NDArray[np.int64]:
    array = np.asarray(ids)
    if array.size == 0:
        return np.zeros(0, np.int64)
    if array.dtype.kind not in "iu" and not (
        array.dtype.kind == "f" and bool((array == np.floor(array)).all())
    ):
        raise DTypeError(f"row ids are integers, not {array.dtype}")
    beyond = (
        array[(array >= 2**63) | (array < -(2**63))] if array.dtype.kind == "f" else array[array > 2**63 - 1]
    )
    if beyond.size:
        raise KeyRangeError(f"row {beyond[0]!s} is beyond the rows of any key")
    return array.reshape(-1).astype(np.int64)


# --- outputs ----------------------------------------------------------------------------------------------


def outputs_of(key: Any, out: Any) -> list[list[Any]]:
    """Return for each key the arrays that its value is to be written to, one a device; none where out is None.

    Raises:
        ShapeError: there isn't one, or a list, for each key.
    """
    keys, is_list = keys_of(key)
    if out is None:
        return [[] for _ in keys]
    pairs = paired(key, out, what="outputs") if is_list else [(keys[0], out)]
    return [list(entry) if isinstance(entry, list | tuple) else [entry] for _, entry in pairs]


def check_output(key: Key, out: Any, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
    """Refuse what a value can't be written to, before anything is sent.

    Args:
        key: whose value it is to get.
        out: an array.
        shape: of the value.
        dtype: of the value.

    Raises:
        ShapeError, DTypeError: with what it is and what it should be.
    """
    if not all(hasattr(out, name) for name in ("shape", "dtype", "__setitem__")):
        raise DTypeError(
            f"out is an array to write into, not {type(out).__name__}, for key {key!r}; pushpull writes into the value "
            "where it is given none: pass out="
        )
    if tuple(out.shape) != shape:
        raise ShapeError(f"out has shape {tuple(out.shape)} for key {key!r}, whose value has {shape}")
    if isinstance(out, np.ndarray):
        if not out.flags.writeable:
            raise DTypeError(f"out for key {key!r} can't be written to")
        if not np.can_cast(dtype, out.dtype, "same_kind"):
            raise DTypeError(f"out is of {out.dtype} for key {key!r}, which holds {dtype.name}")


def can_land(out: Any, dtype: np.dtype[Any]) -> bool:
    """Tell whether a value can be received into an array that was checked, rather than copied there."""
    return type(out) is np.ndarray and out.dtype == dtype and out.flags.c_contiguous and out.flags.aligned


def write(outs: Iterable[Any], value: Array) -> None:
    """Write a value into arrays that were checked.

    Raises:
        DTypeError: one is narrower and can't hold a number of it; it is as it was.
    """
    for out in outs:
        out[...] = cast(value, out.dtype, "what out gets") if isinstance(out, np.ndarray) else value


def row_ids_of(keys: Sequence[Key], is_list: bool, row_ids: Any) -> list[NDArray[np.int64]]:
    """Return the row ids for each key.

    Args:
        keys: the keys.
        is_list: whether a list of keys was given; then there are ids for each key, or one array for all.
        row_ids: (n,) integers in any order, or a list of such, which for one key are one device's only.

    Raises:
        ShapeError, DTypeError: none, or not one array for each key.
    """
    if row_ids is None:
        raise ShapeError("row_ids says which rows: row_sparse_pull(key, row_ids=[3, 9])")
    if not is_list:
        devices = of_devices(row_ids)
        if len(devices) > 1:
            raise ShapeError(f"{len(devices)} arrays of row ids for one key: give as many outputs, out=[...]")
        return [_as_ids(devices[0])]
    if isinstance(row_ids, np.ndarray):
        return [_as_ids(row_ids)] * len(keys)
    if len(row_ids) != len(keys):
        raise ShapeError(f"{len(keys)} keys and {len(row_ids)} arrays of row ids")
    return [_as_ids(ids) for ids in row_ids]


def of_devices(row_ids: Any) -> list[Any]:
    """Return the row ids of one key for each device: of a list of arrays each, else what was given is one."""
    is_list = isinstance(row_ids, list | tuple) and len(row_ids) > 0
    return list(row_ids) if is_list and all(np.ndim(ids) for ids in row_ids) else [row_ids]


def unlisted(found: list[T], *, is_list: bool) -> T | list[T]:
    """Return a list where one was given, else what is in it."""
    return found if is_list else found[0]
