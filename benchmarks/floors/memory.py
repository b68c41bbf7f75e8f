"""The floors without a server: copying as many bytes, and numpy doing the same to an array of its own."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from benchmarks.draws import Draw
from benchmarks.steps import Model, Step
from benchmarks.store import Store
from benchmarks.system import Opening, Setup, System

BLOCK_BYTES = 1 << 20

Request = Callable[[], Any]


class Copying(System):
    """memcpy of a request's values, from and to memory that was used before."""

    name = "memcpy"

    def start(self, setup: Setup) -> Opening:
        """Nothing is to be started."""
        del setup
        return Opening("benchmarks.floors.memory", {"kind": self.name})

    def stop(self) -> None:
        """Nothing was started."""


class Numpy(Copying):
    """The same selection in an array of the calling process."""

    name = "numpy"


class CopyingStore(Store):
    """Two arrays."""

    holds_values = False

    def attach(self, model: Model, *, rank: int) -> None:
        """Nothing is held."""

    def prepare(self, step: Step, draws: list[Draw]) -> list[Request]:
        """Return one copy: all have the same bytes."""
        del draws
        num_bytes = step.answer_bytes + step.request_bytes - step.selection_bytes
        source, target = np.ones(num_bytes, np.uint8), np.ones(num_bytes, np.uint8)
        return [partial(np.copyto, target, source)]

    def issue(self, request: Request) -> Any:
        """Do it at once."""
        return request()

    def finish(self, pending: Any) -> Any:
        """Return what it gave."""
        return pending

    def close(self) -> None:
        """There is no connection."""


class NumpyStore(CopyingStore):
    """Arrays of this process."""

    holds_values = True

    def __init__(self) -> None:
        self._arrays: dict[str, NDArray[Any]] = {}

    def attach(self, model: Model, *, rank: int) -> None:
        """Make an array whose pages are there."""
        del rank
        shape = (model.rows, model.cols) if model.cols else (model.rows,)
        self._arrays[model.name] = np.full(shape, 1, model.dtype)

    def prepare(self, step: Step, draws: list[Draw]) -> list[Request]:
        """Return the numpy calls that a program without a server would make."""
        array = self._arrays[step.model.name]
        return [_request(step, array, draw) for draw in draws]

    def drop(self, model: Model) -> None:
        """Let go of an array."""
        self._arrays.pop(model.name, None)


def make(opening: dict[str, Any]) -> Store:
    """Return the store of a client process.

    Args:
        opening: the details that the system gave.
    """
    return CopyingStore() if opening["kind"] == Copying.name else NumpyStore()


def _request(step: Step, array: NDArray[Any], draw: Draw) -> Request:
    if step.verb == "iterate":
        return partial(_copy_blocks if step.what == "blocks" else _copy_columns, array)
    if draw.rows is None:
        return partial(_on_slice, step.verb, array, slice(draw.start, draw.stop), draw.values)
    index, flat = draw.rows, array
    if draw.cols is not None:
        index, flat = draw.rows * array.shape[1] + draw.cols, array.reshape(-1)
    out = np.ones((len(index), *flat.shape[1:]), flat.dtype) if step.into else None
    # Rows are distinct, so a += b is right for them, and several times as fast as add.at.
    has_repeats = step.what != "rows"
    return partial(_on_indices, step.verb, flat, index, draw.values, out, has_repeats=has_repeats)


def _on_slice(verb: str, array: NDArray[Any], span: slice, values: NDArray[Any] | None) -> Any:
    if values is not None:
        array[span] += values
    return None if verb == "push" else array[span].copy()


def _on_indices(
    verb: str,
    array: NDArray[Any],
    index: NDArray[Any],
    values: NDArray[Any] | None,
    out: NDArray[Any] | None,
    *,
    has_repeats: bool,
) -> Any:
    if values is not None:
        if has_repeats:
            np.add.at(array, index, values)
        else:
            array[index] += values
    # "clip" skips the check that "raise" makes for each index; the indices are known to be good.
    return None if verb == "push" else np.take(array, index, axis=0, out=out, mode="clip")


def _copy_blocks(array: NDArray[Any]) -> None:
    num_rows = max(1, BLOCK_BYTES * len(array) // array.nbytes)
    for start in range(0, len(array), num_rows):
        array[start : start + num_rows].copy()


def _copy_columns(array: NDArray[Any]) -> None:
    for column in range(array.shape[1]):
        array[:, column].copy()
