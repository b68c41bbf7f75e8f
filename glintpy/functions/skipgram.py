"""One step of word2vec (skip-gram with negative sampling) where the vectors lie; pure numpy.

Each server holds a *slice* of the columns of every word's vectors. So it finds its part of each product, and makes its
part of each change, and no vector travels: only the numbers of words do, and one number for each pair and negative.

A model of V words on P partitions, cyclic, has 2 * V * P rows: row w * P + p is slice p of word w's *input* vector, and
row (V + w) * P + p that of its *output* vector. All servers draw the same negatives, by one seed and a table that each
has a copy of: a cyclic vector of V * Q float64 on Q partitions, where entry w * Q + q is the sum of the weights of the
words 0 to w.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from glintpy import config
from glintpy.errors import ConfigError, DTypeError, KeyRangeError, ModelError, ShapeError
from glintpy.functions.base import (
    Answer,
    Array,
    Ask,
    Asking,
    Changing,
    Choosing,
    Piece,
    Reading,
    Selected,
    Steps,
    check_int,
)

NEGATIVES_MAX = 1024
"""Negatives of one pair."""


@dataclass(frozen=True)
class Pairs(Choosing):
    """Pairs of an input and an output word, and the negatives that go with them: what both halves of a step share.

    Attributes:
        seed: of the negatives; the same one in both halves, another in each step.
        negatives: words drawn for each pair.
    """

    kinds: ClassVar[str] = "f"
    takes: ClassVar[tuple[str, ...]] = ("inputs", "outputs")
    seed: int
    negatives: int = 5

    def __post_init__(self) -> None:
        """Check the numbers.

        Raises:
            ConfigError: one is out of its range.
        """
        super().__post_init__()
        check_int("seed", self.seed, low=0)
        check_int("negatives", self.negatives, low=0, high=NEGATIVES_MAX)

    def prepare(self, selected: Selected, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """See ``Function``."""
        num_words = self._num_words(selected)
        found = list(arrays)
        for place, ids in enumerate(arrays[:2]):
            if not ids.size and ids.ndim == 1:
                found[place] = np.empty(0, np.uint8)  # a list of nothing has no dtype of its own
        self._check_batch(selected, num_words, tuple(found))
        return (*(ids.astype(np.min_scalar_type(max(0, num_words - 1))) for ids in found[:2]), *found[2:])

    def check(self, selected: Selected, arrays: tuple[Array, ...]) -> None:
        """See ``Function``: on a server, with the rows of one slice."""
        self.check_takes(selected, arrays)
        if selected.num_rows % 2:
            raise ShapeError(f"{selected.num_rows} rows are no two for each word")
        self._check_batch(selected, selected.num_rows // 2, arrays)

    def _num_words(self, selected: Selected) -> int:
        """Return V, or refuse a model or a table of another form."""
        table, parts = selected.other, selected.interleaved
        assert table is not None, "a client says which model the weights are in"
        if not parts or selected.num_cols is None:
            raise ShapeError(
                f"function {self.name!r} is of a whole matrix with partitioner='cyclic', without rows="
            )
        if selected.num_rows % (2 * parts):
            raise ShapeError(
                f"{selected.num_rows} rows on {parts} partitions are no slices of two vectors a word; "
                f"make the model with 2 * num_words * {parts} rows"
            )
        num_words = selected.num_rows // (2 * parts)
        if table.num_cols is not None or not table.interleaved or table.dtype != np.float64:
            raise ShapeError(
                "other= is a float64 vector with partitioner='cyclic': the running sums of the words' weights, "
                "each repeated for every partition"
            )
        if table.num_rows != num_words * table.interleaved:
            raise ShapeError(
                f"other= has {table.num_rows} entries on {table.interleaved} partitions; running sums of {num_words} "
                f"words are {num_words * table.interleaved}"
            )
        return num_words

    def _check_batch(self, selected: Selected, num_words: int, arrays: tuple[Array, ...]) -> None:
        for name, ids in zip(("inputs", "outputs"), arrays[:2], strict=True):
            if ids.ndim != 1:
                raise ShapeError(f"{name} has shape {ids.shape}; they are (n,) words")
            if ids.dtype.kind not in "iu":
                raise DTypeError(f"{name} has dtype {ids.dtype}; words are integers")
            if ids.size and not 0 <= int(ids.min()) <= int(ids.max()) < num_words:
                place = int(np.flatnonzero((ids < 0) | (ids >= num_words))[0])
                raise KeyRangeError(
                    f"{name} {int(ids[place])} at position {place} is outside [0, {num_words})"
                )
        inputs, outputs = arrays[:2]
        if len(inputs) != len(outputs):
            raise ShapeError(f"{len(inputs)} inputs and {len(outputs)} outputs are no pairs")
        # What a server gathers for each pair, in the dtype that it computes in.
        pair_bytes = (2 + self.negatives) * max(selected.width, 1) * _computed_in(selected.dtype).itemsize
        if len(inputs) * pair_bytes > config.FRAME_BYTES_MAX:
            raise ShapeError(
                f"{len(inputs)} pairs with {self.negatives} negatives touch {len(inputs) * pair_bytes} bytes of a "
                f"slice; at most {config.FRAME_BYTES_MAX} are taken: {config.FRAME_BYTES_MAX // pair_bytes} pairs"
            )

    def asked(self, asking: Asking) -> list[Ask]:
        """Return the asks: one for each partition.

        Args:
            asking: the call.

        Raises:
            ConfigError: a server has a slice, and no table.
        """
        selected, table = asking.selected, asking.selected.other
        assert table is not None, "a client says which model the weights are in"
        if not len(asking.arrays[0]):
            return []
        parts, num_words = selected.interleaved, selected.num_rows // (2 * selected.interleaved)
        tables = dict(
            zip(*(found.tolist() for found in _first_rows(asking, table, of_other=True)), strict=True)
        )
        servers, rows = _first_rows(asking, selected)
        asks = []
        for part, (server, row) in enumerate(zip(servers.tolist(), rows.tolist(), strict=True)):
            if server not in tables:
                raise ConfigError(
                    f"a server holds a slice of the vectors and no copy of the weights, which lie on {len(tables)} "
                    "others; make the vector of weights on the same servers as the model"
                )
            asks.append(
                Ask(
                    server,
                    _slice(row, 2 * num_words),
                    slice(part, selected.num_rows, parts),
                    asking.arrays,
                    others=_slice(tables[server], num_words),
                    touches=len(asking.arrays[0]) * (2 + self.negatives),
                )
            )
        return asks

    def _targets(
        self, num_rows: int, arrays: tuple[Array, ...], others: Array | None
    ) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.bool_]]:
        """Return each pair's input, (n,), its output and negatives, (n, 1 + negatives), and which of these are none."""
        num_words = num_rows // 2
        if others is None or others.shape != (num_words,) or others.dtype != np.float64:
            raise ShapeError(f"the running sums of {num_words} words' weights are needed, in float64")
        inputs, outputs = (ids.astype(np.int64) for ids in arrays[:2])
        targets = np.empty((len(inputs), 1 + self.negatives), np.int64)
        targets[:, 0] = outputs
        if targets[:, 1:].size:
            targets[:, 1:] = drawn(others, targets[:, 1:].size, self.seed).reshape(len(inputs), -1)
        void = targets == outputs[:, np.newaxis]
        void[:, 0] = False
        return inputs, targets, void


class DotNegative(Pairs, Reading):
    """The products of each pair's input vector with its output vector and with those of its negatives.

    (n, 1 + negatives), the output's first, in float32, of float64 models in float64. A negative that is the pair's own
    output word is none: its product is -inf, so that its sigmoid is 0.
    """

    name: ClassVar[str] = "dot_negative"

    def choose(
        self, num_rows: int, arrays: tuple[Array, ...], others: Array | None
    ) -> tuple[Array, tuple[Array, ...]]:
        """See ``Choosing``."""
        inputs, targets, void = self._targets(num_rows, arrays, others)
        return np.concatenate([inputs, num_rows // 2 + targets.reshape(-1)]), (void,)

    def read(self, piece: Piece) -> Answer:
        """See ``Reading``: one slice's part of the products."""
        (void,) = piece.arrays
        values = piece.values.astype(_computed_in(piece.values.dtype), copy=False)
        inputs, targets = values[: len(void)], values[len(void) :].reshape(*void.shape, values.shape[1])
        found = np.einsum("nd,nkd->nk", inputs, targets)
        found[void] = -np.inf
        return (found,)

    def steps(self, asking: Asking) -> Steps:
        """See ``Reading``."""
        shape = len(asking.arrays[0]), 1 + self.negatives
        found = np.zeros(shape, _computed_in(asking.selected.dtype))
        asks = self.asked(asking)
        if not asks:
            return found
        answers = yield asks
        with np.errstate(
            all="ignore"
        ):  # vectors may have lost all bounds, and whoever asks for products sees it
            for (part,) in answers:
                found += part
        return found


class Adjust(Pairs, Changing):
    """Pushes to vectors what one number for each pair and for each negative says: its gradient by the product.

    To a pair's input vector the output vectors of its words, times these numbers; to each of these output vectors the
    input vector, times its number. All from what the vectors are before, summed up for each, and applied by the model's
    updater: added, or taken for gradients. A negative that is the pair's own output word is none.
    """

    name: ClassVar[str] = "adjust"
    pushes: ClassVar[bool] = True
    takes: ClassVar[tuple[str, ...]] = ("inputs", "outputs", "gradients")

    def prepare(self, selected: Selected, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """See ``Function``."""
        *ids, gradients = arrays
        if gradients.dtype.kind in "fiu":
            with np.errstate(over="ignore"):  # what is too large is infinite, and refused where that is
                gradients = gradients.astype(_computed_in(selected.dtype), copy=False)
        return super().prepare(selected, (*ids, gradients))

    def asks(self, asking: Asking) -> list[Ask]:
        """See ``Changing``."""
        return self.asked(asking)

    def _check_batch(self, selected: Selected, num_words: int, arrays: tuple[Array, ...]) -> None:
        super()._check_batch(selected, num_words, arrays)
        gradients, shape = arrays[2], (len(arrays[0]), 1 + self.negatives)
        if gradients.shape != shape:
            raise ShapeError(
                f"gradients has shape {gradients.shape}; {shape[0]} pairs with {self.negatives} negatives have {shape}"
            )
        if gradients.dtype.kind not in "fiu":
            raise DTypeError(f"gradients has dtype {gradients.dtype}; floats are needed")
        if selected.finite and not np.isfinite(gradients).all():
            raise DTypeError("a gradient is not finite, and the model was made with finite=True")

    def choose(
        self, num_rows: int, arrays: tuple[Array, ...], others: Array | None
    ) -> tuple[Array, tuple[Array, ...]]:
        """See ``Choosing``."""
        inputs, targets, void = self._targets(num_rows, arrays, others)
        rows = np.concatenate([inputs, num_rows // 2 + targets.reshape(-1)])
        unique, places = np.unique(rows, return_inverse=True)
        return unique, (places, np.where(void, 0, arrays[2]))

    def change(self, values: Array, arrays: tuple[Array, ...]) -> Array:
        """See ``Changing``."""
        places, gradients = arrays
        num_pairs, num_cols = len(gradients), values.shape[1]
        old = values.astype(_computed_in(values.dtype), copy=False)
        of_inputs, of_targets = places[:num_pairs], places[num_pairs:]
        inputs, targets = old[of_inputs], old[of_targets].reshape(*gradients.shape, num_cols)
        sums = np.zeros_like(old)
        _add_rows(sums, of_inputs, np.einsum("nk,nkd->nd", gradients, targets))
        _add_rows(sums, of_targets, gradients[:, :, np.newaxis] * inputs[:, np.newaxis])
        return sums.astype(values.dtype, copy=False)


def drawn(sums: NDArray[Any], num: int, seed: int) -> NDArray[np.int64]:
    """Draw words by their weights, the same everywhere.

    Args:
        sums: (words,) float64, the running sums of the weights.
        num: how many to draw.
        seed: where chance starts.

    Returns:
        (num,) int64 words.

    Raises:
        ModelError: sums that don't end above 0, of weights that nothing can be drawn by.
    """
    end = float(sums[-1]) if len(sums) else 0.0
    if not 0 < end < np.inf:
        raise ModelError(
            f"the words' weights add up to {end}, by which nothing can be drawn; is the table filled?"
        )
    # The raw numbers of a generator stay as they are in every numpy, and servers may have different ones.
    raw = np.asarray(np.random.PCG64(seed).random_raw(num))
    points = (raw >> np.uint64(11)) * 2.0**-53 * end
    # A product may be rounded up to the end, behind which there is no word.
    last = int(np.searchsorted(sums, end))
    return np.minimum(np.searchsorted(sums, points, side="right"), last).astype(np.int64)


def _add_rows(values: Array, rows: NDArray[np.int64], changes: Array) -> None:
    # By cells: numpy's add.at on rows takes two to three times as long, and reduceat on sorted ones twice.
    num_cols = values.shape[1]
    cells = rows[:, np.newaxis] * num_cols + np.arange(num_cols)
    np.add.at(values.reshape(-1), cells.reshape(-1), changes.reshape(-1))


def _computed_in(dtype: np.dtype[Any]) -> np.dtype[Any]:
    return np.dtype("float64") if dtype.itemsize == 8 else np.dtype("float32")


def _first_rows(
    asking: Asking, selected: Selected, *, of_other: bool = False
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the server and the first server row of each partition."""
    return asking.places(np.arange(selected.interleaved, dtype=np.int64), of_other=of_other)


def _slice(start: int, num: int) -> NDArray[np.int64]:
    return np.array([[start, start + num, 1]], np.int64)
