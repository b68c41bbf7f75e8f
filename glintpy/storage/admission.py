"""Which keys have been pushed often enough to get a row: a count-min sketch in memory; knows no file and no row.

Of keys that have no row nothing is kept but counts, in four lines of 2**20 bytes each: a key has one byte in each line,
by four hashes, and its count is the least of the four (Cormode and Muthukrishnan, "An improved data stream summary: the
count-min sketch and its applications", Journal of Algorithms 55, 2005; raised no further than need be, by Estan and
Varghese's conservative update). So a count is never too low, and too high only where a key shares all four bytes. When
eight pushes a byte have been counted all counts are halved, as TinyLFU does (Einziger, Friedman and Manes, 2017): else
sooner or later every key would be let in.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from glintpy.partitioning.keyed import mixed

LINES = 4
LINE_BYTES = 2**20
COUNT_MAX = 255

_HALVED_AFTER = 8 * LINE_BYTES
_GAMMA = 0x9E3779B97F4A7C15
_MASK = 2**64 - 1


class Admission:
    """Counts pushes to keys that have no row.

    Args:
        admit_after: in how many pushes a key has to be, 1 to ``COUNT_MAX``.
    """

    def __init__(self, admit_after: int) -> None:
        self._least = admit_after
        self._counts = np.zeros((LINES, LINE_BYTES), np.uint8)
        self._num_counted = 0

    @property
    def num_bytes(self) -> int:
        """Bytes of memory."""
        return self._counts.nbytes

    def count(self, bits: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Count a push to each of some keys, and return which have been in enough of them.

        Args:
            bits: (n,) of keys, or what stands for their texts, each once.
        """
        places = [
            (mixed(bits.view(np.uint64) + np.uint64((line + 1) * _GAMMA & _MASK)) >> np.uint64(44)).astype(
                np.int64
            )
            for line in range(LINES)
        ]
        known = np.minimum.reduce([counts[at] for counts, at in zip(self._counts, places, strict=True)])
        raised = np.minimum(known.astype(np.uint16) + 1, COUNT_MAX).astype(np.uint8)
        for counts, at in zip(self._counts, places, strict=True):
            np.maximum.at(counts, at, raised)
        self._num_counted += len(bits)
        if self._num_counted >= _HALVED_AFTER:
            self._counts >>= 1
            self._num_counted //= 2
        admitted: NDArray[np.bool_] = raised >= self._least
        return admitted
