"""Keys with their values, as a ``KVWorker`` is given them, checked and brought into one form; pure.

Everything is refused here, with numbers, before anything is sent.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glintpy import DTypeError, KeyRangeError, ShapeError
from glintpy.kvstore import casting
from glintpy.kvstore.forms import DTYPES

Array = NDArray[Any]
Keys = NDArray[np.uint64]
Lengths = NDArray[np.int64]
Places = NDArray[np.int64]
Slicer = Callable[[Keys], Sequence[ArrayLike]]

INT64 = DTYPES["int64"]

KEY_MAX = 2**64 - 1

LENGTH_MAX = 1 << 20
"""Values that a key may have: those of a row of a table, of one byte each, are at most twice as many."""


def keys_of(keys: ArrayLike) -> Keys:
    """Return keys as (n,) uint64, in the order given; it may be the caller's array.

    Args:
        keys: (n,) integers, each once.

    Raises:
        DTypeError: they are no integers.
        ShapeError: they aren't (n,), or one stands twice.
        KeyRangeError: one is below 0 or above 2**64 - 1.
    """
    array = np.asarray(keys)
    if array.ndim != 1:
        raise ShapeError(f"keys are (n,) integers, not of shape {array.shape}")
    if not array.size:
        return np.zeros(0, np.uint64)
    if array.dtype.kind not in "iu":
        array = _listed(keys, array)
    if array.dtype.kind != "u":
        wrong = np.flatnonzero((array < 0) | (array > KEY_MAX if array.dtype.kind == "O" else False))
        if wrong.size:
            raise KeyRangeError(
                f"key {int(array[wrong[0]])} at position {wrong[0]} is outside of 0 to {KEY_MAX}"
            )
    found = array.astype(np.uint64, copy=False)
    _check_once(found)
    return found


def _listed(keys: Any, array: Array) -> Array:
    """Return integers that numpy guesses wrong at: some below 2**63 beside some above."""
    if isinstance(keys, list | tuple) and all(
        isinstance(key, int | np.integer) and not isinstance(key, bool) for key in keys
    ):
        return np.array(keys, dtype=object)
    raise DTypeError(f"keys are integers, not {array.dtype}")


def _check_once(keys: Keys) -> None:
    if bool((keys[1:] > keys[:-1]).all()):
        return  # sorted, as ps-lite wants them
    order = np.argsort(keys, kind="stable")
    same = np.flatnonzero(keys[order[1:]] == keys[order[:-1]])
    if same.size:
        first, second = int(order[same[0]]), int(order[same[0] + 1])
        raise ShapeError(
            f"key {int(keys[first])} stands twice, at positions {first} and {second}: sum its values up first"
        )


def lengths_of(lens: ArrayLike | None, num_keys: int, num_values: int) -> Lengths | int:
    """Return how many values each key has: (n,) of them, or one number if none were given.

    Args:
        lens: (n,) integers; None: all the same.
        num_keys: how many there are, at least 1.
        num_values: of all keys together.

    Raises:
        DTypeError, ShapeError: they are no lengths, or don't fit keys and values.
    """
    if lens is None:
        if not num_values or num_values % num_keys:
            raise ShapeError(
                f"{num_values} values for {num_keys} keys: without lens each key has as many, at least 1"
            )
        return num_values // num_keys
    array = np.asarray(lens)
    if array.dtype.kind not in "iu":
        raise DTypeError(f"lens are integers, not {array.dtype}")
    if array.shape != (num_keys,):
        raise ShapeError(f"lens of shape {array.shape} for {num_keys} keys")
    wrong = np.flatnonzero((array < 1) | (array > LENGTH_MAX))
    if wrong.size:
        raise ShapeError(f"lens[{wrong[0]}] is {int(array[wrong[0]])}; a key has 1 to {LENGTH_MAX} values")
    found = array.astype(np.int64)
    if int(found.sum()) != num_values:
        raise ShapeError(f"{num_values} values, and lens that sum up to {int(found.sum())}")
    return found


def as_values(vals: ArrayLike) -> Array:
    """Return values as an array of any shape; it may be the caller's.

    Raises:
        DTypeError: they are no numbers.
    """
    array = np.asarray(vals)
    if array.dtype.kind not in "biuf":
        raise DTypeError(f"vals are numbers, not {array.dtype}")
    return array


def cast(values: Array, dtype: np.dtype[Any]) -> Array:
    """Return values in an app's dtype, flat.

    Raises:
        DTypeError: it can't hold them.
    """
    return casting.cast(values, dtype, "vals").reshape(-1)


def check_output(out: Any, what: str, size: int | None, dtype: np.dtype[Any]) -> Array:
    """Return an array that values are to be written to.

    Args:
        out: what was given.
        what: it is, for messages.
        size: values to be written; None: not known yet.
        dtype: of them.

    Raises:
        DTypeError, ShapeError: it is none, or doesn't fit.
    """
    if not isinstance(out, np.ndarray) or not out.flags.writeable:
        raise DTypeError(f"{what} is a NumPy array to write into, not {type(out).__name__} that can't be")
    if not np.can_cast(dtype, out.dtype, "same_kind"):
        raise DTypeError(f"{what} is of {out.dtype}, and gets {dtype}")
    if size is not None and out.size != size:
        raise ShapeError(f"{what} has room for {out.size}, and gets {size}")
    return out


def slices_of(slicer: Slicer | None, keys: Keys) -> list[Places] | None:
    """Return the parts that a request is cut into, as places of keys; None: it isn't.

    Args:
        slicer: a worker's; None: there is none.
        keys: the request's.

    Raises:
        DTypeError: no places.
        ShapeError: a key is in no part, or in two.
    """
    if slicer is None:
        return None
    cut = slicer(keys)
    if not isinstance(cut, Iterable):
        raise DTypeError(f"a slicer returns a list of arrays of places of keys, not {cut!r:.80}")
    parts = [np.asarray(part) for part in cut]
    for part in parts:
        if part.ndim != 1 or (part.size and part.dtype.kind not in "iu"):
            raise DTypeError(
                f"a slicer returns arrays of places of keys, (m,) integers, not {part.dtype} of shape {part.shape}"
            )
    found = [part.astype(np.int64) for part in parts if part.size]
    counts = np.zeros(len(keys), np.int64)
    for part in found:
        if part.min() < 0 or part.max() >= len(keys):
            raise ShapeError(f"the slicer names places {part.min()} to {part.max()} of {len(keys)} keys")
        np.add.at(counts, part, 1)
    wrong = np.flatnonzero(counts != 1)
    if wrong.size:
        raise ShapeError(
            f"the slicer puts key {int(keys[wrong[0]])} at position {wrong[0]} into {counts[wrong[0]]} parts"
        )
    return found


def starts_of(lengths: Lengths) -> Lengths:
    """Return where each key's values begin."""
    return np.cumsum(lengths) - lengths


_OTHER_NAMES = {
    "float": "float64",
    "int": "int64",
    **{dtype.str.lstrip("<>|="): name for name, dtype in DTYPES.items()},
}
"""Python's classes, and NumPy's short names: f8."""


def dtype_of(dtype: Any) -> np.dtype[Any]:
    """Return a dtype that values can have.

    Args:
        dtype: its name, a type, or itself.

    Raises:
        DTypeError: it is none.
    """
    # A class by its name; a text or a dtype as it says itself.
    name = getattr(dtype, "__name__", str(dtype))
    found = DTYPES.get(_OTHER_NAMES.get(name, name))
    if found is None:
        raise DTypeError(f"{dtype!r:.80} is not a dtype of values; they have one of {', '.join(DTYPES)}")
    return found
