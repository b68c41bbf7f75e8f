"""Keys of one model as few requests: runs of rows where they lie side by side, else single rows; pure.

A row of a vector is a cell.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

RUNS_MAX = 16
"""Runs that are requests of their own; so many travel together in a message or two."""

RUN_ROWS = 4096
"""Rows that a run has on average for more runs to be requests of their own: an index for each is as long as two values
of float32."""


@dataclass(frozen=True, slots=True)
class Batch:
    """Rows that are one request.

    Attributes:
        keys: a slice, or (n,) indices.
        members: (which, first row in the batch, rows): whose rows these are, by position in what was asked for.
        size: rows.
    """

    keys: slice | NDArray[np.int64]
    members: tuple[tuple[int, int, int], ...]
    size: int


def batches_of(spans: Sequence[tuple[int, int]]) -> list[Batch]:
    """Return the requests for some spans of a model.

    Args:
        spans: the first row and the number of rows of each; none overlaps another.
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
    num_rows = sum(size for _, size in spans)
    if len(runs) <= RUNS_MAX or num_rows >= RUN_ROWS * len(runs):
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


def joined(
    batch: Batch, values: Sequence[NDArray[Any]], dtype: np.dtype[Any], *, width: int = 0
) -> NDArray[Any]:
    """Return what is pushed by a batch: (size,), or (size, width).

    Args:
        batch: of ``batches_of``.
        values: what was asked for, (cells,) each; the last row of each may not be full.
        dtype: of all.
        width: cells of a row; 0: a vector's.
    """
    unit = width or 1
    if len(batch.members) == 1 and values[batch.members[0][0]].size == batch.size * unit:
        found = values[batch.members[0][0]]
    else:
        found = np.zeros(batch.size * unit, dtype)
        for which, at, _ in batch.members:
            array = values[which]
            found[at * unit : at * unit + array.size] = array
    return found.reshape(batch.size, width) if width else found
