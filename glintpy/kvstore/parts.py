"""A request of a worker as the requests to tables that it is made of; knows no app."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy import BigTable, Future, gather
from glintpy.kvstore.casting import cast
from glintpy.kvstore.pairs import Array, Keys, Places


@dataclass(slots=True, eq=False)
class Part:
    """A request to one table.

    Attributes:
        table: it goes to.
        keys: (m,) of it.
        values: (m, width) to be pushed; None: it is a pull.
        cells: (m, width) where a row's values stand among those of all keys; None: it is the whole request.
        is_there: (m, width) which cells a key has; None: all.
    """

    table: BigTable
    keys: Keys
    values: Array | None
    cells: Places | None
    is_there: NDArray[np.bool_] | None = None

    def send(self, *, reads: bool, out: Array | None) -> Future[Any]:
        """Have it leave.

        Args:
            reads: whether values come back.
            out: where to.
        """
        if self.values is None:
            return self.table.pull(self.keys, out=out)
        if reads:
            return self.table.push_pull(self.keys, self.values, out=out)
        return self.table.push(self.keys, self.values)

    def keep(self) -> None:
        """Copy what may be the caller's."""
        self.keys = self.keys.copy()
        if self.values is not None:
            self.values = self.values.copy()


class Exchange:
    """A push, a pull, or both in one.

    Args:
        parts: it is made of.
        reads: whether values come back.
        dtype: of the values.
        size: of the values of all keys together.
        vals: where to write them; None: into a new array.
        lens: where to write lengths; None: nowhere.
        lengths: of the keys.
    """

    def __init__(
        self,
        parts: list[Part],
        *,
        reads: bool,
        dtype: np.dtype[Any],
        size: int,
        vals: Array | None = None,
        lens: Array | None = None,
        lengths: Any = None,
    ) -> None:
        self._parts = parts
        self._reads = reads
        self._dtype = dtype
        self._size = size
        self._vals = vals
        self._lens = lens
        self._lengths = lengths

    @property
    def num_bytes(self) -> int:
        """About what travels."""
        return self._size * self._dtype.itemsize

    def send(self) -> Future[Any]:
        """Have all leave."""
        if len(self._parts) == 1:
            return self._parts[0].send(reads=self._reads, out=self._direct(self._parts[0]))
        return gather(*(part.send(reads=self._reads, out=self._direct(part)) for part in self._parts))

    def _direct(self, part: Part) -> Array | None:
        """Return what is written to without a copy; None: it can't be."""
        vals = self._vals
        if (
            vals is None
            or part.cells is not None
            or vals.dtype != self._dtype
            or not vals.flags.c_contiguous
            or type(vals) is not np.ndarray
        ):
            return None
        return vals.reshape(len(part.keys), part.table.num_cols)

    def keep(self) -> None:
        """Copy what may be the caller's."""
        for part in self._parts:
            part.keep()

    def finish(self, answer: Any) -> Array | None:
        """Return the values, written to where they are to be; None: it was a push.

        Args:
            answer: what ``send`` became.

        Raises:
            DTypeError: the array is narrower and can't hold a value.
        """
        if self._lens is not None:
            self._lens[...] = np.reshape(np.broadcast_to(self._lengths, self._lens.size), self._lens.shape)
        if not self._reads:
            return None
        answers = [answer] if len(self._parts) == 1 else answer
        if len(self._parts) == 1 and self._parts[0].cells is None:
            found: Array = answer.reshape(-1)
            if self._vals is not None and self._direct(self._parts[0]) is not None:
                return self._vals
        else:
            found = np.zeros(self._size, self._dtype)
            for part, rows in zip(self._parts, answers, strict=True):
                assert part.cells is not None, "it is one of several"
                if part.is_there is None:
                    found[part.cells] = rows
                else:
                    found[part.cells[part.is_there]] = rows[part.is_there]
        if self._vals is None:
            return found
        self._vals[...] = cast(found, self._vals.dtype, "what vals gets").reshape(self._vals.shape)
        return self._vals
