"""Rows drawn by weight; pure numpy."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, ClassVar

import numpy as np

from glintpy.errors import ConfigError, ModelError, ShapeError
from glintpy.functions.base import (
    Answer,
    Array,
    Ask,
    Asking,
    Piece,
    Reading,
    Selected,
    Steps,
    check_float,
    check_int,
)
from glintpy.functions.reductions import row_norms

DRAWS_MAX = 2**20
"""Draws of one call."""


@dataclass(frozen=True)
class Sample(Reading):
    """Rows drawn with repeats, (n,) keys: each as likely as its weight to the power says.

    The weight of a vector's entry is its value, that of a matrix's row its Euclidean norm. The same seed draws the same
    keys from the same values on the same layout.

    Attributes:
        power: 0: all rows whose weight isn't 0 are equally likely; 0.75 is word2vec's.
        piece: used on the way, and not to be given: which piece draws; -1: it tells its total weight.
    """

    name: ClassVar[str] = "sample"
    n: int = 1
    seed: int = 0
    power: float = 1.0
    piece: int = -1

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: one is out of its range.
        """
        super().__post_init__()
        check_int("n", self.n, low=0, high=DRAWS_MAX)
        check_int("seed", self.seed, low=0)
        check_float("power", self.power, low=0)
        check_int("piece", self.piece, low=-1)

    def prepare(self, selected: Selected, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """See ``Function``."""
        if self.piece != -1:
            raise ConfigError(
                f"function 'sample' sets piece itself, for each piece: leave out piece={self.piece}"
            )
        if self.n and not selected.num_rows:
            raise ShapeError(f"{self.n} rows can't be drawn from none")
        return arrays

    def read(self, piece: Piece) -> Answer:
        """See ``Reading``: the total and the first row whose weight is none, or draws."""
        weights = row_norms(piece.values) if piece.values.ndim == 2 else piece.values.astype(np.float64)
        bad = np.flatnonzero(~((weights >= 0) & (weights < np.inf)))
        if not len(bad):
            weights = np.where(weights > 0, weights**self.power, 0.0)
        if self.piece < 0:
            total = np.nan if len(bad) else weights.sum()
            return np.array([total], np.float64), np.array([bad[0] if len(bad) else -1], np.int64)
        ends = np.cumsum(weights)
        if len(bad) or not 0 < ends[-1] < np.inf:
            raise ModelError("the weights were changed between two rounds of a sample, and are none any more")
        source = np.random.default_rng([self.seed, 1, self.piece])
        places = np.searchsorted(ends, source.random(self.n) * ends[-1], side="right")
        # A product may be rounded up to the end, behind which there is no row.
        last = np.flatnonzero(weights)[-1]
        return (np.minimum(places, last).astype(np.int64),)

    def steps(self, asking: Asking) -> Steps:
        """See ``Reading``."""
        if not self.n:
            return np.empty(0, np.int64)
        asks = asking.asks(in_order=True)
        for ask in asks:
            ask.function = replace(self, n=0)
        answers = yield asks
        totals = np.array([answer[0][0] for answer in answers])
        for ask, (_, bad) in zip(asks, answers, strict=True):
            if bad[0] >= 0:
                key = int(_keys_at(asking, ask, bad)[0])
                raise ModelError(f"row {key} has a weight that is negative, NaN or infinite")
        total = float(totals.sum())
        if not 0 < total < np.inf:
            raise ModelError(f"the weights add up to {total}, by which nothing can be drawn")
        chosen = np.random.default_rng([self.seed, 0]).choice(len(asks), self.n, p=totals / total)
        keys = np.empty(self.n, np.int64)
        places = [(number, np.flatnonzero(chosen == number)) for number in np.unique(chosen).tolist()]
        for number, at in places:
            asks[number].function = replace(self, n=len(at), piece=number)
        answers = yield [asks[number] for number, _ in places]
        for (number, at), (rows,) in zip(places, answers, strict=True):
            keys[at] = _keys_at(asking, asks[number], rows)
        return keys


def _keys_at(asking: Asking, ask: Ask, rows: Array) -> Any:
    """Return the keys of some rows of a piece, counted from its first one."""
    at = ask.positions
    return asking.keys(at.start + rows * (at.step or 1) if isinstance(at, slice) else at[rows])
