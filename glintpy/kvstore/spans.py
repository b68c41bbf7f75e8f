"""Keys of one vector as few requests: runs of cells where they lie side by side, else single cells; pure."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RUNS_MAX = 16
"""Runs that are requests of their own; so many travel together in a message or two."""

RUN_CELLS = 4096
"""Cells that a run has on average for more runs to be requests of their own: an index for each cell is as long as two
values of float32."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Cells that are one request.

    Attributes:
        keys: a slice, or (n,) indices; None: all.
        members: (which, first cell in the batch, cells): whose cells these are, by position in what was asked for.
        size: cells.
    """

    keys: slice | NDArray[np.int64] | None
    members: tuple[tuple[int, int, int], ...]
    size: int


def batches_of(spans: Sequence[tuple[int, int]]) -> list[Batch]:
    """Return the requests for some spans of a vector.

    Args:
        spans: offset and number of cells of each; none overlaps another.
    """
    order = sorted(
        (number for number in range(len(spans)) if spans[number][1]), key=lambda number: spans[number]
    )
    runs: list[list[int]] = []
    end = -1
    for number in order:
        offset, size = spans[number]
        if offset == end:
            runs[-1].append(number)
        else:
            runs.append([number])
        end = offset + size
    num_cells = sum(size for _, size in spans)
    if len(runs) <= RUNS_MAX or num_cells >= RUN_CELLS * len(runs):
        return [_batch(run, spans) for run in runs]
    whole = _batch([number for run in runs for number in run], spans)
    indices = np.concatenate([np.arange(spans[n][0], spans[n][0] + spans[n][1]) for run in runs for n in run])
    return [Batch(indices, whole.members, whole.size)]


def _batch(numbers: list[int], spans: Sequence[tuple[int, int]]) -> Batch:
    members: list[tuple[int, int, int]] = []
    at = 0
    for number in numbers:
        members.append((number, at, spans[number][1]))
        at += spans[number][1]
    first = spans[numbers[0]][0]
    return Batch(slice(first, first + at), tuple(members), at)


def joined(batch: Batch, values: Sequence[NDArray[Any]], dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return what is pushed by a batch, (size,).

    Args:
        batch: of ``batches_of``.
        values: what was asked for, (cells,) each.
        dtype: of all.
    """
    if len(batch.members) == 1:
        return values[batch.members[0][0]]
    found = np.empty(batch.size, dtype)
    for which, at, size in batch.members:
        found[at : at + size] = values[which]
    return found
