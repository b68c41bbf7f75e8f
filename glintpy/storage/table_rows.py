"""What a table on a server works with: keys that were asked for, where they go, and which rows are free; pure."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray


class Asked(NamedTuple):
    """Keys of a request.

    Attributes:
        bits: (n,) their 64 bits, or those that stand for their texts.
        texts: (n,) as the heap keeps them, see ``protocol.texts``; None: they are integers.
    """

    bits: NDArray[np.int64]
    texts: NDArray[np.bytes_] | None

    @property
    def size(self) -> int:
        """How many there are."""
        return self.bits.size

    def at(self, places: NDArray[np.int64]) -> Asked:
        """Return those at some places."""
        return Asked(self.bits[places], None if self.texts is None else self.texts[places])


class Placed(NamedTuple):
    """Where the keys of a push go.

    Attributes:
        rows: (n,) of each key.
        new_keys: k of them, those that have no row yet, each once, in the order in which they come.
        new_rows: (k,) which they will have.
        all_new: no key had a row.
    """

    rows: NDArray[np.int64]
    new_keys: Asked
    new_rows: NDArray[np.int64]
    all_new: bool = False


class FreeRows:
    """Rows without a key: those that were freed, the last one first, then all from ``top`` on."""

    def __init__(self, freed: NDArray[np.int64], top: int) -> None:
        self._freed = freed.copy()
        self.num_freed = len(freed)
        self.top = top

    def peek(self, num_rows: int) -> NDArray[np.int64]:
        """Return the rows that would be taken next."""
        again = self._freed[max(0, self.num_freed - num_rows) : self.num_freed][::-1]
        return np.concatenate((again, np.arange(self.top, self.top + num_rows - again.size)))

    def take(self, num_rows: int) -> None:
        """Take them."""
        again = min(num_rows, self.num_freed)
        self.num_freed -= again
        self.top += num_rows - again

    def give(self, rows: NDArray[np.int64]) -> None:
        """Free some rows."""
        stop = self.num_freed + len(rows)
        if stop > len(self._freed):
            longer = np.empty(max(stop, 2 * len(self._freed)), np.int64)
            longer[: self.num_freed] = self._freed[: self.num_freed]
            self._freed = longer
        self._freed[self.num_freed : stop] = rows
        self.num_freed = stop


def firsts(keys: Asked) -> tuple[Asked, NDArray[np.int64]]:
    """Return each key once, in the order of first appearance, and where among these each key is."""
    ordered = np.sort(keys.bits)
    if bool((ordered[1:] != ordered[:-1]).all()):
        return keys, np.arange(keys.size)  # none repeats, as nearly always, and to find that out is cheaper
    compared = keys.bits if keys.texts is None else keys.texts
    _, first_places, origin = np.unique(compared, return_index=True, return_inverse=True)
    order = np.argsort(first_places)
    places = np.empty(len(order), np.int64)
    places[order] = np.arange(len(order))
    return keys.at(first_places[order]), places[origin]
