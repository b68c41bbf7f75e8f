"""Which arrays make up a model on a server: its values, and what its updater keeps beside them; knows no file."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from glintpy.errors import ConfigError
from glintpy.protocol.texts import item_dtype
from glintpy.updaters import arithmetic_dtype
from glintpy.updaters.base import STEPS

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from glintpy.protocol.dtypes import DTypeAny
    from glintpy.protocol.spec import ModelSpec
    from glintpy.updaters import Updater

VALUES = "values"
"""The name of the first array of every model."""

GATHERED = ("pushers", "tags", "sums")
"""The last arrays of a model that follows a group, see ``storage.gathering``."""

TEXTS, KEYS, USED = "texts", "keys", "used"
"""The last arrays of a table, see ``storage.table``; ``texts`` only where keys are texts."""

TOUCHES, TOUCHED = "touches", "touched"
"""Of a table that tracks its rows: the last arrays that are kept, see ``storage.use``."""

LINK_BYTES = 9
"""What a table's index takes for a row, at most."""

ARRAYS_MAX = 64
"""Arrays of one model."""


class ArraySpec(NamedTuple):
    """One array of a model: a row for each of its rows.

    Attributes:
        name: ``values``, or a slot's.
        dtype: little-endian.
        row_shape: of one row: (num_cols,), or () for a vector or a number for each row.
    """

    name: str
    dtype: DTypeAny
    row_shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        """Bytes of one row."""
        return math.prod(self.row_shape) * self.dtype.itemsize


def arrays_of(spec: ModelSpec, updater: Updater) -> tuple[ArraySpec, ...]:
    """Return the arrays of a model: what it keeps, then those in which it gathers an open round, or a table's keys.

    Requests name arrays by their index here, files by their name.

    Raises:
        ConfigError: more than a model can have.
    """
    kept = kept_arrays(spec, updater)
    if spec.keys:
        texts = (ArraySpec(TEXTS, item_dtype(spec.keys), ()),) if spec.has_texts else ()
        return (*kept, *texts, ArraySpec(KEYS, np.dtype("<i8"), ()), ArraySpec(USED, np.dtype("u1"), ()))
    if not spec.group:
        return kept
    *marks, sums = GATHERED
    return (
        *kept,
        *(ArraySpec(mark, np.dtype("<u8"), ()) for mark in marks),
        ArraySpec(sums, spec.numpy_dtype, spec.row_shape),
    )


def kept_arrays(spec: ModelSpec, updater: Updater) -> tuple[ArraySpec, ...]:
    """Return what is saved of a model: its values, the updater's slots in their order, the steps if it counts.

    Of a table that tracks its rows also how often and when they were pushed to.

    Raises:
        ConfigError: more than a model can have.
    """
    arrays = [ArraySpec(VALUES, spec.numpy_dtype, spec.row_shape)]
    kept_in = arithmetic_dtype(spec.numpy_dtype)
    arrays += [ArraySpec(slot.name, kept_in, spec.row_shape) for slot in updater.slots]
    if updater.counts_steps:
        arrays.append(ArraySpec(STEPS, np.dtype("<u4"), ()))
    if spec.track:
        arrays += [ArraySpec(TOUCHES, np.dtype("<u4"), ()), ArraySpec(TOUCHED, np.dtype("<f8"), ())]
    if len(arrays) > ARRAYS_MAX:
        raise ConfigError(
            f"updater {updater.name!r} keeps {len(arrays) - 1} slots; {ARRAYS_MAX - 1} are the most"
        )
    return tuple(arrays)


def extents_of(arrays: Sequence[ArraySpec], num_rows: int) -> dict[str, int]:
    """Return the bytes of each array, by its name."""
    return {array.name: num_rows * array.row_bytes for array in arrays}


def fill_slots(slots: Sequence[NDArray[Any]], updater: Updater, first: int, stop: int) -> None:
    """Give rows of the slots what they begin with.

    Args:
        slots: of one shard, the steps among them; what it gathers behind them begins with zeros, as made.
        updater: whose they are.
        first: the first row.
        stop: the row behind the last one.
    """
    for slot, init in zip(slots, slot_inits(updater), strict=False):
        slot[first:stop] = init


def slot_inits(updater: Updater) -> list[float]:
    """Return what each slot begins with, the steps among them."""
    return [*(slot.init for slot in updater.slots), *([0] if updater.counts_steps else [])]
