"""The initial values of a model's rows, a function of the seed and the cell alone; knows no server.

A random value is the hash of its cell's number, never the next one of a stream. So it is the same on any
number of servers, under any partitioner, in any order and at any time (a row that was never stored can be
made when somebody asks for it)::

    i    = row * num_cols + col                                the cell's number, row and col global
    k_s  = mix(seed + (s + 1) * G)                             the key of stream s
    z_s  = mix(k_s + (i + 1) * G)                              64 random bits
    u_s  = (z_s >> 11) * 2**-53                                the top 53 of them, in [0, 1)

    uniform(low, high) = low * (1 - u_0) + high * u_0
    normal(mean, std)  = mean + std * sqrt(-2 ln(1 - u_0)) * cos(2 pi u_1)

all modulo 2**64 with G = 0x9E3779B97F4A7C15. ``mix`` and G are SplitMix64's: Steele, Lea and Flood, "Fast
splittable pseudorandom number generators", OOPSLA 2014, figure 12 with the constants of Stafford's variant
13. The normal is by Box and Muller, "A note on the generation of random normal deviates", Annals of
Mathematical Statistics 29, 1958. Everything is computed in float64 and then converted.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np

from glintpy.errors import ConfigError, ShapeError
from glintpy.partitioning.keyed import mixed
from glintpy.protocol.selection import check_axis

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glintpy.protocol.dtypes import DTypeAny
    from glintpy.protocol.spec import ModelSpec

_MASK = 2**64 - 1
_GAMMA = 0x9E3779B97F4A7C15
_MIX_1 = 0xBF58476D1CE4E5B9
_MIX_2 = 0x94D049BB133111EB

_DEVIATIONS_MAX = math.sqrt(-2 * math.log(2.0**-53))
"""About 8.57: no normal value here lies farther from the mean, since 1 - u is at least 2**-53."""


def fill(values: NDArray[Any], *, spec: ModelSpec, extents: NDArray[np.int64], first: int, stop: int) -> None:
    """Give the server rows [first, stop) their initial values.

    For the caller to run in slices: every call allocates a few arrays of 8 bytes a cell.

    Args:
        values: (num_rows, num_cols) or (num_rows,), this server's rows; changed in place.
        spec: the model's.
        extents: (k, 4) int64: first server row, number of rows, global row of the first, step between
            global rows; may be empty where the initial values don't depend on the row.
        first: the first row to fill.
        stop: the row after the last one.

    Raises:
        ShapeError: the extents leave a row of [first, stop) out, or name one twice.
        KeyRangeError: an extent reaches outside the model.
        ConfigError: random initial values that the model's dtype can't hold.
    """
    if isinstance(spec.init, tuple):
        values[first:stop] = random_rows(spec, _global_rows(extents, first=first, stop=stop))
    else:
        values[first:stop] = spec.numpy_dtype.type(spec.init)


def random_rows(spec: ModelSpec, global_rows: NDArray[np.int64]) -> NDArray[Any]:
    """Return the initial values of rows of a model whose ``init`` is random.

    Args:
        spec: the model's.
        global_rows: (n,) int64 in [0, num_rows), in any order; repeats are allowed.

    Returns:
        (n, num_cols) or (n,) values of the model's dtype, new.

    Raises:
        KeyRangeError: a row outside the model.
        ConfigError: parameters for which no value can be stored, or a model that is not random.
    """
    if not isinstance(spec.init, tuple):
        raise ConfigError(f"model {spec.name!r} has the constant initial value {spec.init!r}, no random ones")
    check_axis(global_rows, spec.num_rows, what="row")
    return _random(spec, _cells(global_rows, spec.num_cols))


def check_init(spec: ModelSpec) -> None:
    """Refuse a table whose rows could not be made.

    Raises:
        ConfigError: random initial values that its dtype can't hold.
    """
    if isinstance(spec.init, tuple):
        random_rows_by_key(spec, np.zeros(1, np.int64))


def random_rows_by_key(spec: ModelSpec, keys: NDArray[np.int64]) -> NDArray[Any]:
    """Return the initial values of rows of a table whose ``init`` is random.

    They follow from seed and key alone, not from when or where the key came. The number of a cell is the key's mix,
    plus the column.

    Args:
        spec: the table's.
        keys: (n,) int64, or uint64 seen as such; repeats are allowed.

    Returns:
        (n, num_cols) values of the table's dtype, new.

    Raises:
        ConfigError: parameters for which no value can be stored.
    """
    assert isinstance(spec.init, tuple), "the initial values are random"
    columns = np.arange(spec.num_cols or 0, dtype=np.uint64)
    return _random(spec, np.add.outer(mixed(keys), columns))


def _random(spec: ModelSpec, cells: NDArray[np.uint64]) -> NDArray[Any]:
    assert isinstance(spec.init, tuple), "the initial values are random"
    kind, first, second = spec.init
    if kind == "uniform":
        return _uniform(cells, seed=spec.seed, low=float(first), high=float(second), dtype=spec.numpy_dtype)
    return _normal(cells, seed=spec.seed, mean=float(first), std=float(second), dtype=spec.numpy_dtype)


def _cells(global_rows: NDArray[np.int64], num_cols: int | None) -> NDArray[np.uint64]:
    """Return the number of each cell: (n,) of a vector, (n, num_cols) of a matrix."""
    rows: NDArray[np.uint64] = global_rows.astype(np.uint64)
    if num_cols is None:
        return rows
    cols: NDArray[np.uint64] = np.arange(num_cols, dtype=np.uint64)
    cells: NDArray[np.uint64] = np.add.outer(rows * np.uint64(num_cols), cols)
    return cells


def _uniform(
    cells: NDArray[np.uint64], *, seed: int, low: float, high: float, dtype: DTypeAny
) -> NDArray[Any]:
    lowest, highest = _uniform_ends(low=low, high=high, dtype=dtype)
    unit = _unit(cells, seed=seed, stream=0)
    # Not low + (high - low) * u, which rounds the difference before it is used.
    drawn = (low * (1.0 - unit) + high * unit).astype(dtype)
    # Rounding may reach high, or fall below a low that the dtype can't hold exactly.
    found: NDArray[Any] = np.clip(drawn, lowest, highest)
    return found


def _uniform_ends(*, low: float, high: float, dtype: DTypeAny) -> tuple[Any, Any]:
    """Return the smallest and the largest value of this dtype in [low, high)."""
    kind = dtype.type
    lowest, highest = kind(low), kind(high)
    if high == low:
        return lowest, lowest
    if float(lowest) < low:
        lowest = np.nextafter(lowest, kind(math.inf))
    if float(highest) >= high:
        highest = np.nextafter(highest, kind(-math.inf))
    if lowest > highest:
        raise ConfigError(f'init ("uniform", {low}, {high}): there is no {dtype.name} between the two')
    return lowest, highest


def _normal(
    cells: NDArray[np.uint64], *, seed: int, mean: float, std: float, dtype: DTypeAny
) -> NDArray[Any]:
    reach = abs(mean) + _DEVIATIONS_MAX * std
    if reach > float(np.finfo(dtype).max):
        raise ConfigError(f'init ("normal", {mean}, {std}) reaches {reach:.3g}; {dtype.name} does not')
    radius = np.sqrt(-2.0 * np.log(1.0 - _unit(cells, seed=seed, stream=0)))
    drawn = mean + std * radius * np.cos(2.0 * math.pi * _unit(cells, seed=seed, stream=1))
    found: NDArray[Any] = drawn.astype(dtype)
    return found


def _unit(cells: NDArray[np.uint64], *, seed: int, stream: int) -> NDArray[np.float64]:
    """Return a number in [0, 1) for each cell; the streams of one seed are independent."""
    key = _mix_int((seed + (stream + 1) * _GAMMA) & _MASK)
    bits = _mix(cells * np.uint64(_GAMMA) + np.uint64((key + _GAMMA) & _MASK))
    unit: NDArray[np.float64] = (bits >> np.uint64(11)).astype(np.float64) * 2.0**-53
    return unit


def _mix(bits: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64's mix of each; ``bits`` is used up."""
    bits ^= bits >> np.uint64(30)
    bits *= np.uint64(_MIX_1)
    bits ^= bits >> np.uint64(27)
    bits *= np.uint64(_MIX_2)
    bits ^= bits >> np.uint64(31)
    return bits


def _mix_int(bits: int) -> int:
    # In Python's integers: numpy warns about a scalar that wraps, and only about a scalar.
    bits = (bits ^ (bits >> 30)) * _MIX_1 & _MASK
    bits = (bits ^ (bits >> 27)) * _MIX_2 & _MASK
    return bits ^ (bits >> 31)


def _global_rows(extents: NDArray[np.int64], *, first: int, stop: int) -> NDArray[np.int64]:
    """Return the global row of each server row in [first, stop)."""
    if extents.ndim != 2 or extents.shape[1] != 4:
        raise ShapeError(f"extents are (k, 4), not {extents.shape}; random initial values need them")
    starts = np.maximum(extents[:, 0], first)
    stops = np.minimum(extents[:, 0] + extents[:, 1], stop)
    kept = np.flatnonzero(starts < stops)
    kept = kept[np.argsort(starts[kept], kind="stable")]
    starts, stops = starts[kept], stops[kept]
    ends = np.concatenate(([first], stops))
    if not np.array_equal(ends, np.concatenate((starts, [stop]))):
        raise ShapeError(f"the extents of a model don't name each server row of [{first}, {stop}) once")
    own = np.repeat(kept, stops - starts)  # (stop - first,) the extent of each row
    found: NDArray[np.int64] = extents[own, 2] + extents[own, 3] * (np.arange(first, stop) - extents[own, 0])
    return found
