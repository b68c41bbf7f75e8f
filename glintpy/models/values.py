"""Values as users type them into arrays of exactly a model's dtype; knows no key, partition or socket.

The rules are NumPy 2's (NEP 50), made strict where numpy would change a value silently: Python numbers and
lists of them are weak and go into whatever dtype can hold them; arrays convert within their kind; a number
that would wrap, be cut off or turn infinite is refused by name.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any, NamedTuple, NoReturn

import numpy as np
from numpy.typing import NDArray

from glintpy.errors import DTypeError, ShapeError
from glintpy.protocol.dtypes import DTypeAny
from glintpy.protocol.levels import LEVELS_MAX, codes_of

__all__ = ["as_array", "check_out", "coded_by", "parse_values"]

Position = tuple[int, ...] | None
"""Where a value stands in what the user gave; None: it is all that was given."""


def parse_values(
    values: Any, *, shape: tuple[int, ...], dtype: DTypeAny, finite: bool, what: str = "values"
) -> NDArray[Any]:
    """Check values and return them in a model's dtype and the shape of what they are for.

    Args:
        values: a number, nested lists of numbers, or an array of any layout, that broadcast to ``shape``.
        shape: what ``pull`` with the same arguments would return.
        dtype: the model's, from ``protocol.dtypes``.
        finite: whether NaN and infinities are refused.
        what: the argument's name in messages.

    Returns:
        ``shape`` of ``dtype``. It may be the caller's own array, or a read-only view that repeats a
        smaller one through strides of zero: whoever keeps it or sends it copies.

    Raises:
        DTypeError: a value that the dtype can't hold, with its position; a kind that doesn't convert.
        ShapeError: values that don't broadcast, with both shapes.
    """
    if type(values) is np.ndarray and values.dtype == dtype:
        core = values
    elif isinstance(values, bool | int | float) and not isinstance(values, np.generic):
        _check_number(values, dtype, what, None)
        core = (
            np.array(values, dtype=np.float64).astype(dtype) if dtype.kind == "f" else np.array(values, dtype)
        )
    elif isinstance(values, list | tuple):
        core = _from_list(values, dtype, what)
    else:
        core = as_array(values, what=what)
    if core.shape != shape:
        _check_broadcast(core.shape, shape, what)
    if not core.flags.c_contiguous:
        core = _collapsed(core)
    if core.dtype != dtype:
        core = _converted(core, dtype, what)
    elif not (core.flags.c_contiguous and core.flags.aligned):
        core = core.copy(order="C")
    if finite and dtype.kind == "f":
        _check_finite(core, what)
    return core if core.shape == shape else np.broadcast_to(core, shape)


class Coded(NamedTuple):
    """Values as their places among levels.

    Attributes:
        levels: (n,) rising, of the values' dtype.
        codes: of the values' shape.
    """

    levels: NDArray[Any]
    codes: NDArray[np.uint8]


def coded_by(levels: Any, values: NDArray[Any], *, finite: bool) -> Coded:
    """Return checked values as their places among levels.

    Args:
        levels: numbers as users type them, in any order.
        values: of ``parse_values``.
        finite: whether NaN and infinities are refused.

    Raises:
        DTypeError: levels that the dtype can't hold, NaN among them, or a value that is none of them.
        ShapeError: none, more than 256, or not one behind another.
    """
    given = as_array(levels, what="levels")
    if given.ndim != 1 or not 1 <= len(given) <= LEVELS_MAX:
        raise ShapeError(f"levels are 1 to {LEVELS_MAX} numbers, not an array of shape {given.shape}")
    parsed = parse_values(levels, shape=given.shape, dtype=values.dtype, finite=finite, what="levels")
    if parsed.dtype.kind == "f" and np.isnan(parsed).any():
        raise DTypeError(f"levels{_at(_first(np.isnan(parsed)))} is nan, which no value equals")
    rising = np.unique(parsed)
    return Coded(rising, codes_of(values, rising))


def check_out(out: Any, *, shape: tuple[int, ...], dtype: DTypeAny) -> None:
    """Refuse an array that results can't be written into as they arrive.

    Args:
        out: what the caller gave as ``out``.
        shape: of the results.
        dtype: the model's.

    Raises:
        DTypeError: not a plain numpy array, or of another dtype; both are named.
        ShapeError: of another shape (both are named), not C-contiguous, or read-only.
    """
    # Other subclasses keep facts beside the values (a mask) or never lose a dimension (np.matrix).
    if type(out) is not np.ndarray and not isinstance(out, np.memmap):
        raise DTypeError(
            f"out is a plain numpy array of {dtype.name}, shape {shape}, not a {_type_name(out)}"
        )
    if out.dtype != dtype:
        raise DTypeError(f"out has dtype {out.dtype.str} and the model {dtype.str}; they must be the same")
    if out.shape != shape:
        raise ShapeError(f"out has shape {out.shape} and the result {shape}; they must be the same")
    if not out.flags.c_contiguous:
        raise ShapeError(f"out has strides {out.strides}; an array of shape {shape} in C order is needed")
    if not (out.flags.writeable and out.flags.aligned):
        raise ShapeError(
            f"out of shape {shape} is read-only or not aligned; results can't be written into it"
        )


def as_array(value: Any, *, what: str) -> NDArray[Any]:
    """Read whatever numpy or DLPack can read as an array.

    Args:
        value: an array, a list, a tensor of another library, a number.
        what: the argument's name in messages.

    Returns:
        A plain array in the dtype that numpy finds; it may be the caller's own.

    Raises:
        DTypeError: a masked array, an object that refuses to be read, or what can be iterated over and is no sequence.
        ShapeError: lists of uneven lengths.
    """
    if isinstance(value, np.ma.MaskedArray):
        raise DTypeError(f"{what} is a masked array; fill it or drop what is masked first")
    try:
        if hasattr(value, "__dlpack__") and not hasattr(value, "__array__"):
            return np.from_dlpack(value)
        array = np.asarray(value)
    except ValueError as error:
        raise ShapeError(f"{what} can't be read as one array: {error}") from error
    except (TypeError, RuntimeError, BufferError, OverflowError) as error:
        # What tensors raise that lie on a device, want a gradient or have a dtype unknown to numpy.
        raise DTypeError(f"{what}, a {_type_name(value)}, can't be read as an array: {error}") from error
    if not array.ndim and array.dtype.kind == "O" and isinstance(value, Iterable):
        # A set, the keys of a dict, a generator: to numpy one object.
        raise DTypeError(
            f"{what}, a {_type_name(value)}, can't be read as an array; make a list of it: list(...)"
        )
    return array


def _from_list(values: list[Any] | tuple[Any, ...], dtype: DTypeAny, what: str) -> NDArray[Any]:
    natural = as_array(values, what=what)
    if natural.ndim > 1 and any(isinstance(row, np.ma.MaskedArray) for row in values):
        raise DTypeError(f"{what} has a masked array in it; fill it or drop what is masked first")
    kind = natural.dtype.kind
    if natural.size == 0 and kind == "f":  # numpy's guess for no number at all
        return natural.astype(dtype)
    if kind == "O" or (kind == "f" and dtype.kind != "f"):
        # Whole numbers too large for any integer, int64 and uint64 side by side (float64 to numpy), or a
        # mistake: each number is looked at by itself.
        objects = np.array(values, dtype=object)
        for place, value in enumerate(objects.ravel().tolist()):
            _check_number(value, dtype, what, _position(place, objects.shape))
        return objects.astype(np.float64) if dtype.kind == "f" else objects.astype(dtype)
    if kind in "iu" and dtype.kind == "b" and natural.size:
        _check_fits(natural, dtype, what)
        return natural.astype(dtype)
    return natural


def _check_number(value: Any, dtype: DTypeAny, what: str, position: Position) -> None:
    if isinstance(value, np.number | np.bool_):
        value = value.item()
    if not isinstance(value, bool | int | float):
        raise DTypeError(f"{what}{_at(position)} is a {_type_name(value)}; the model holds {dtype.name}")
    if dtype.kind == "f":
        if _turns_infinite(value, dtype):
            _refuse(value, dtype, what, position)
        return
    if isinstance(value, float):
        raise DTypeError(
            f"{what}{_at(position)} is the float {value!r}, and the model holds {dtype.name}: "
            f"convert first, as with round(...) or np.asarray(...).astype({dtype.name!r})"
        )
    low, high = _limits(dtype)
    if not low <= value <= high:
        _refuse(value, dtype, what, position)


def _turns_infinite(value: float, dtype: DTypeAny) -> bool:
    try:
        wide = float(value)
    except OverflowError:
        return True
    if abs(wide) <= float(np.finfo(dtype).max) or not math.isfinite(wide):
        return False
    # Just above the largest number some still round down to it.
    with np.errstate(over="ignore"):
        return bool(np.isinf(np.float64(wide).astype(dtype)))


def _converted(core: NDArray[Any], dtype: DTypeAny, what: str) -> NDArray[Any]:
    """Return an array in another dtype of its kind, every value checked that might not fit."""
    kind = core.dtype.kind
    signs_only = kind == "i" and dtype.kind == "u"
    if kind not in "biuf" or not (signs_only or np.can_cast(core.dtype, dtype, "same_kind")):
        given = core.dtype.name if kind in "biufc" else core.dtype
        hint = f": convert first, as with .astype({dtype.name!r})" if kind in "biufc" else ""
        raise DTypeError(f"{what} of dtype {given} can't go into a model of {dtype.name} unasked{hint}")
    if np.can_cast(core.dtype, dtype, "safe") or core.size == 0:
        return core.astype(dtype, order="C")
    if dtype.kind in "iu":
        _check_fits(core, dtype, what)
        return core.astype(dtype, order="C")
    with np.errstate(over="ignore", invalid="ignore"):
        converted = core.astype(dtype, order="C")
    if not np.isfinite(converted).all():
        bad = np.isinf(converted) & np.isfinite(core)
        if bad.any():
            position = _first(bad)
            _refuse(core[position].item(), dtype, what, position)
    return converted


def _check_fits(core: NDArray[Any], dtype: DTypeAny, what: str) -> None:
    low, high = _limits(dtype)
    # Compared only where something is outside: then the limit is a number of the array's own dtype.
    below, above = int(core.min()) < low, int(core.max()) > high
    if below or above:
        bad = np.zeros(core.shape, np.bool_)
        if below:
            bad |= core < low
        if above:
            bad |= core > high
        position = _first(bad)
        _refuse(int(core[position]), dtype, what, position)


def _check_finite(core: NDArray[Any], what: str) -> None:
    good = np.isfinite(core)
    if not good.all():
        position = _first(~good)
        raise DTypeError(
            f"{what}{_at(position)} is {core[position].item()!r}; the model was made with finite=True, "
            "which refuses NaN and infinities"
        )


def _check_broadcast(given: tuple[int, ...], shape: tuple[int, ...], what: str) -> None:
    aligned = zip(reversed(given), reversed(shape), strict=False)
    if len(given) > len(shape) or any(mine not in {1, theirs} for mine, theirs in aligned):
        raise ShapeError(f"{what} of shape {given} can't be broadcast to the {shape} that the keys ask for")


def _collapsed(core: NDArray[Any]) -> NDArray[Any]:
    """Return a caller's own broadcast as what it repeats, so that no copy writes the repeats out."""
    return core[tuple(slice(0, 1) if stride == 0 else slice(None) for stride in core.strides)]


def _limits(dtype: DTypeAny) -> tuple[int, int]:
    if dtype.kind == "b":
        return 0, 1
    info = np.iinfo(dtype)
    return int(info.min), int(info.max)


def _refuse(value: float, dtype: DTypeAny, what: str, position: Position) -> NoReturn:
    if dtype.kind == "f":
        limit = float(np.finfo(dtype).max)
        raise DTypeError(
            f"{what}{_at(position)} is {value!r}; {dtype.name} holds {-limit:.8g} to {limit:.8g}"
        )
    low, high = _limits(dtype)
    raise DTypeError(f"{what}{_at(position)} is {value!r}; {dtype.name} holds {low} to {high}")


def _first(bad: NDArray[np.bool_]) -> tuple[int, ...]:
    return _position(int(bad.argmax()), bad.shape)


def _position(place: int, shape: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(int(index) for index in np.unravel_index(place, shape))


def _at(position: Position) -> str:
    return f" at position {position[0] if len(position) == 1 else position}" if position else ""


def _type_name(value: Any) -> str:
    return type(value).__name__
