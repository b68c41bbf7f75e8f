"""What requests touch, drawn from a seed: the same for every system; knows none of them.

Python 3.8 and an old numpy read this module too.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.steps import Step

POOL_INDICES = 400_000
"""Indices drawn for one step in all: enough that no request's rows lie in a cache because of the one before."""

POOL_MIN, POOL_MAX = 4, 2_048

ZIPF_EXPONENT = 1.1
"""Of words in texts, about."""

SCATTER = 2_654_435_761
"""A prime that spreads the busy keys over the whole vector, as hashed ids lie."""


@dataclass(frozen=True)
class Draw:
    """What one request touches, and what it brings.

    Attributes:
        rows: (n,) int64 rows, keys or elements' rows; None where a slice says it.
        cols: (n,) int64 columns of elements, or None.
        start: of a slice, or of the whole.
        stop: behind its end.
        values: what a push brings, in the shape that a pull would return; None if it is no push.
    """

    rows: NDArray[Any] | None
    cols: NDArray[Any] | None
    start: int
    stop: int
    values: NDArray[Any] | None


def draw_all(step: Step, seed: int) -> list[Draw]:
    """Draw the requests of a step; a client goes round over them.

    Args:
        step: what is measured.
        seed: another one for each client.
    """
    rng = np.random.default_rng(seed)
    values = _values(step, rng) if step.verb in ("push", "push_pull") else None
    if step.what in ("slice", "all", "blocks", "columns"):
        start, stop = _span(step)
        return [Draw(None, None, start, stop, values)]
    num = step.pool or min(POOL_MAX, max(POOL_MIN, POOL_INDICES // step.num, step.num_models))
    return [Draw(_rows(step, rng), _cols(step, rng), 0, 0, values) for _ in range(num)]


def _span(step: Step) -> tuple[int, int]:
    if step.what != "slice":
        return 0, step.model.rows
    start = (step.model.rows - step.num) // 2
    return start, start + step.num


def _rows(step: Step, rng: np.random.Generator) -> NDArray[Any]:
    if step.what == "keys":
        return zipf_keys(step.num, size=step.model.rows, rng=rng)
    if step.what == "elements":
        return rng.integers(step.model.rows, size=step.num)
    # Distinct, in random order: some peers have no rule for a row that stands twice.
    rows: NDArray[Any] = rng.choice(step.model.rows, size=step.num, replace=False, shuffle=True)
    return rows


def _cols(step: Step, rng: np.random.Generator) -> NDArray[Any] | None:
    return rng.integers(step.model.cols, size=step.num) if step.what == "elements" else None


def _values(step: Step, rng: np.random.Generator) -> NDArray[Any]:
    dtype = np.dtype(step.model.dtype)
    shape = (step.num,) if step.what in ("keys", "elements") else (step.num, step.model.cols)
    if dtype.kind == "i":
        return rng.integers(1, 5, size=shape).astype(dtype)
    # Small, so that a table stays finite however often it is pushed to.
    return (rng.random(shape) * 1e-3).astype(dtype)


def zipf_keys(num: int, *, size: int, rng: np.random.Generator) -> NDArray[Any]:
    """Draw keys with repeats, few of them busy, spread over the whole vector.

    Args:
        num: how many.
        size: of the vector.
        rng: where they come from.

    Returns:
        (num,) int64 keys in [0, size).
    """
    drawn = np.empty(0, dtype=np.int64)
    while len(drawn) < num:
        ranks = rng.zipf(ZIPF_EXPONENT, size=2 * num)
        drawn = np.concatenate([drawn, ranks[(ranks > 0) & (ranks <= size)]])
    return drawn[:num] * SCATTER % size
