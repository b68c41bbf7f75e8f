"""The arrays of one model on one server, in a file that outlives its process or in memory; knows no thread or clock.

A segment is a list of *extents*, named arrays that lie one behind the other: the values, and what an updater keeps
beside them.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any, Protocol, Self

import numpy as np

from glintpy.errors import ModelLost, NotEnoughMemory, ShapeError
from glintpy.storage.mapped import MappedFile

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from glintpy.protocol.dtypes import DTypeAny

_ALIGNMENT = 64
"""Extents start at multiples of it: a cache line, and more than any dtype asks for."""


class Store(Protocol):
    """Where a shard's arrays lie."""

    def extent(self, name: str, dtype: DTypeAny, shape: Sequence[int]) -> NDArray[Any]:
        """Return one of them; every call returns the same memory."""

    def mark_filled(self) -> None:
        """Note that the values are what the model begins with."""

    def close(self, *, clean: bool) -> None:
        """Let go of the store; a clean one is whole when it is opened again."""

    def delete(self) -> None:
        """End the store and what it holds."""


class Segment(MappedFile):
    """The arrays of one model on one server, in one file.

    If it has not survived, or was never filled, its values can't be trusted and the model counts as lost. What
    its server was killed in the middle of is in the undo record.
    """

    MAGIC = b"glintseg"
    DAMAGED = ModelLost

    @classmethod
    def make(cls, path: Path, description: dict[str, Any], extents: Mapping[str, int]) -> Self:
        """Make a segment.

        Args:
            path: must not exist.
            description: anything that JSON can hold.
            extents: bytes of each, by its name.

        Raises:
            NotEnoughMemory, ConfigError: see ``create``.
        """
        places, end = {}, 0
        for name, num_bytes in extents.items():
            start = -(-end // _ALIGNMENT) * _ALIGNMENT
            end = start + num_bytes
            places[name] = [start, num_bytes]
        return cls.create(path, {**description, "extents": places}, end)

    def extent(self, name: str, dtype: DTypeAny, shape: Sequence[int]) -> NDArray[Any]:
        """Return one extent as an array over the file.

        Raises:
            ShapeError: not the size that the segment was made for.
            ModelLost: the file has no such extent.
        """
        try:
            start, num_bytes = map(int, self.description["extents"][name])
        except (KeyError, TypeError, ValueError) as error:
            raise ModelLost(f"{self.path} has no extent {name!r}") from error
        return _as_array(self.body[start : start + num_bytes], dtype, shape)


class MemorySegment:
    """The same without a file: gone with its process."""

    def __init__(self, extents: Mapping[str, int]) -> None:
        """Reserve memory.

        Args:
            extents: bytes of each array, by its name.

        Raises:
            NotEnoughMemory: the system refuses.
        """
        try:
            self._extents = {name: np.zeros(num_bytes, np.uint8) for name, num_bytes in extents.items()}
        except MemoryError as error:
            needed = sum(extents.values())
            raise NotEnoughMemory(f"the system has no {needed} bytes for a model") from error

    def extent(self, name: str, dtype: DTypeAny, shape: Sequence[int]) -> NDArray[Any]:
        """Return one array.

        Raises:
            ShapeError: not the size that it was made for.
        """
        return _as_array(self._extents[name].data, dtype, shape)

    def mark_filled(self) -> None:
        """There is nobody to tell."""

    def close(self, *, clean: bool) -> None:  # noqa: ARG002 -- there is nothing to come back to
        """Let go of the memory."""
        self.delete()

    def delete(self) -> None:
        """Let go of the memory; it goes with the last array over it."""
        self._extents = {}


def _as_array(body: memoryview, dtype: DTypeAny, shape: Sequence[int]) -> NDArray[Any]:
    needed: int = math.prod(shape) * dtype.itemsize
    if needed != body.nbytes:
        raise ShapeError(
            f"{tuple(shape)} of {dtype.name} takes {needed} bytes; the segment has {body.nbytes}"
        )
    if needed == 0:
        return np.zeros(tuple(shape), dtype)  # numpy makes no array over an empty buffer
    return np.frombuffer(body, dtype=dtype).reshape(tuple(shape))
