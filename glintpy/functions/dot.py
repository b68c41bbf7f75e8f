"""Products of pairs of rows, wherever the two lie; pure numpy.

Pairs that lie together are multiplied there. For the others one side's rows go through the client to the other side's
servers, or both sides' come and the client multiplies: whatever moves the fewest rows.
"""

from __future__ import annotations

from typing import Any, ClassVar, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glintpy.errors import DTypeError, KeyRangeError, ShapeError
from glintpy.functions.base import Answer, Array, Ask, Asking, Piece, Reading, Selected, Steps
from glintpy.functions.reductions import sum_dtype


class Take(Reading):
    """The rows themselves."""

    name: ClassVar[str] = "take"

    def read(self, piece: Piece) -> Answer:
        """See ``Reading``."""
        return (piece.values,)

    def combine(self, asking: Asking, answers: list[tuple[Ask, Answer]]) -> Any:
        """See ``Reading``."""
        selected = asking.selected
        shape = (selected.num_rows, *(() if selected.num_cols is None else (selected.num_cols,)))
        rows = np.empty(shape, selected.dtype)
        for ask, (found,) in answers:
            rows[ask.positions] = found
        return rows


TAKE = Take()


class Dot(Reading):
    """The product of each selected row with another one, of the same model or a second one, (n,).

    In float64, of integers in int64 (uint64 if both are unsigned), where it wraps.
    """

    name: ClassVar[str] = "dot"
    takes: ClassVar[tuple[str, ...]] = ("rows_b",)

    def prepare(self, selected: Selected, arrays: tuple[Array, ...]) -> tuple[Array, ...]:
        """See ``Function``."""
        (rows_b,) = arrays
        other = selected.other
        assert other is not None, "a client says which model the other rows are of"
        if rows_b.size and rows_b.dtype.kind not in "iu":
            raise DTypeError(f"rows_b has dtype {rows_b.dtype}; rows are integers")
        if rows_b.shape != (selected.num_rows,):
            raise ShapeError(f"rows_b has shape {rows_b.shape} for {selected.num_rows} rows")
        if other.width != selected.width or (other.num_cols is None) != (selected.num_cols is None):
            raise ShapeError(
                f"rows of {selected.width} cells and rows of {other.width} cells have no product"
            )
        if rows_b.size and (int(rows_b.min()) < 0 or int(rows_b.max()) >= other.num_rows):
            position = int(np.flatnonzero((rows_b < 0) | (rows_b >= other.num_rows))[0])
            raise KeyRangeError(
                f"rows_b {int(rows_b[position])} at position {position} is outside [0, {other.num_rows})"
            )
        return (rows_b.astype(np.int64),)

    def check(self, selected: Selected, arrays: tuple[Array, ...]) -> None:
        """See ``Function``: with vectors that came along, and which of them goes with each row; or with none."""
        if not arrays:
            return
        if len(arrays) != 2:
            raise ShapeError(f"products need vectors and an index, or neither; {len(arrays)} arrays came")
        vectors, index = arrays
        if vectors.shape[1:] != (() if selected.num_cols is None else (selected.num_cols,)):
            raise ShapeError(f"vectors of shape {vectors.shape} for rows of {selected.width} cells")
        if index.shape != (selected.num_rows,) or index.dtype != np.int64:
            raise ShapeError(f"an index of {index.dtype.name} {index.shape} for {selected.num_rows} rows")
        if index.size and not 0 <= int(index.min()) <= int(index.max()) < len(vectors):
            raise KeyRangeError(f"an index outside [0, {len(vectors)})")

    def read(self, piece: Piece) -> Answer:
        """See ``Reading``."""
        if piece.others is not None:
            return (products(piece.values, piece.others),)
        if not piece.arrays:
            raise ShapeError("products need other rows, or vectors")
        vectors, index = piece.arrays
        return (products(piece.values, vectors[index]),)

    def steps(self, asking: Asking) -> Steps:
        """See ``Reading``."""
        other = asking.selected.other
        assert other is not None, "a client says which model the other rows are of"
        found = np.empty(asking.selected.num_rows, _dtype(asking.selected.dtype, other.dtype))
        sides = _Sides(
            _Side(asking.keys(), *asking.places(asking.keys())),
            _Side(asking.arrays[0], *asking.places(asking.arrays[0], of_other=True), of_other=True),
            asking.rows_max,
        )
        together = sides.a.servers == sides.b.servers
        asks = sides.together(np.flatnonzero(together))
        apart = np.flatnonzero(~together)
        moved, stays = sides.moves(apart)
        tables = [_Table(side, apart, asking.rows_max) for side in moved]
        answers = yield [*asks, *(ask for table in tables for ask in table.asks)]
        for ask, (numbers,) in zip(asks, answers[: len(asks)], strict=True):
            found[ask.positions] = numbers
        answers = answers[len(asks) :]
        for table in tables:
            table.fill(answers[: len(table.asks)])
            answers = answers[len(table.asks) :]
        if stays is not None:
            asks = list(sides.meetings(apart, tables[0], stays))
            answers = yield asks
            for ask, (numbers,) in zip(asks, answers, strict=True):
                found[ask.positions] = numbers
        elif len(apart):
            first, second = tables
            step = sides.rows_max
            for begin in range(0, len(apart), step):
                at = slice(begin, begin + step)
                found[apart[at]] = products(first.rows[first.index[at]], second.rows[second.index[at]])
        return found


class _Side(NamedTuple):
    """One side of all pairs: (n,) keys, servers and server rows."""

    keys: NDArray[np.int64]
    servers: NDArray[np.int64]
    rows: NDArray[np.int64]
    of_other: bool = False


class _Table:
    """The distinct rows of one side of some pairs, to be brought here.

    Attributes:
        index: (k,) which of them goes with each of the pairs.
        asks: what brings them.
        rows: once they are here.
    """

    def __init__(self, side: _Side, pairs: NDArray[np.int64], rows_max: int) -> None:
        keys, first, self.index = np.unique(side.keys[pairs], return_index=True, return_inverse=True)
        self.index = self.index.reshape(-1)  # numpy 2.0 gave it another shape
        self._num = len(keys)
        servers, rows = side.servers[pairs][first], side.rows[pairs][first]
        self.asks = [
            Ask(server, rows[at], at, function=TAKE, of_other=side.of_other)
            for server, at in _chunks(servers, np.arange(self._num), rows_max)
        ]
        self.rows: Array = np.empty(0)

    def fill(self, answers: list[Answer]) -> None:
        for ask, (found,) in zip(self.asks, answers, strict=True):
            if not self.rows.size:
                self.rows = np.empty((self._num, *found.shape[1:]), found.dtype)
            self.rows[ask.positions] = found


class _Sides(NamedTuple):
    a: _Side
    b: _Side
    rows_max: int

    def together(self, pairs: NDArray[np.int64]) -> list[Ask]:
        """Return the asks for pairs whose rows lie on one server."""
        return [
            Ask(server, self.a.rows[at], at, others=self.b.rows[at])
            for server, at in _chunks(self.a.servers[pairs], pairs, self.rows_max)
        ]

    def moves(self, pairs: NDArray[np.int64]) -> tuple[list[_Side], _Side | None]:
        """Return which sides' rows come here, and the side to whose servers they go on; None: they stay here."""
        if not len(pairs):
            return [], None
        ways = ((self.a, self.b), (self.b, self.a))
        nums = [len(np.unique(moved.keys[pairs])) for moved, _ in ways]
        # Each row once to the client, and once to each server that it is needed on.
        through = [
            num + np.unique(np.stack([moved.keys[pairs], stays.servers[pairs]]), axis=1).shape[1]
            for num, (moved, stays) in zip(nums, ways, strict=True)
        ]
        if sum(nums) <= min(through):
            return [self.a, self.b], None
        moved, stays = ways[int(through[1] < through[0])]
        return [moved], stays

    def meetings(self, pairs: NDArray[np.int64], table: _Table, stays: _Side) -> list[Ask]:
        """Return the asks for pairs of which one side's rows travel to the other's servers."""
        asks = []
        places = np.arange(len(pairs))
        for server, at in _chunks(stays.servers[pairs], places, self.rows_max):
            needed, index = np.unique(table.index[at], return_inverse=True)
            arrays = (table.rows[needed], index.reshape(-1).astype(np.int64))
            asks.append(Ask(server, stays.rows[pairs[at]], pairs[at], arrays, of_other=stays.of_other))
        return asks


def _chunks(
    servers: NDArray[np.int64], positions: NDArray[np.int64], rows_max: int
) -> list[tuple[int, NDArray[np.int64]]]:
    """Return (server, its positions) with at most ``rows_max`` of them each, by rising server."""
    chunks = []
    for server in np.unique(servers).tolist():
        own = positions[servers == server]
        chunks += [(server, own[first : first + rows_max]) for first in range(0, len(own), rows_max)]
    return chunks


def _dtype(first: np.dtype[Any], second: np.dtype[Any]) -> np.dtype[Any]:
    dtypes = {sum_dtype(first), sum_dtype(second)}
    if len(dtypes) == 1:
        return dtypes.pop()
    return np.dtype("float64") if np.dtype("float64") in dtypes else np.dtype("int64")


def products(first: Array, second: Array) -> Array:
    """Return the product of each row with the other's, (n,)."""
    dtype = _dtype(first.dtype, second.dtype)
    # Not a matrix product: a pair has the same bits wherever it is multiplied.
    a, b = (rows.reshape(len(rows), -1).astype(dtype) for rows in (first, second))
    found: Array = np.einsum("ij,ij->i", a, b)
    return found
