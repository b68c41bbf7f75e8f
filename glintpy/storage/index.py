"""From keys to rows: an index by linear hashing over the keys of a heap; knows no file, no message and no value.

It lies in memory, and can be made anew from the keys at any time. ``heads`` has the first row of each bucket, ``nexts``
the row behind each row of its bucket, -1 where there is none. A bucket is the low bits of a key's mix: of
``2**level + split`` buckets, the first ``split`` and the last ``split`` use one bit more than those between. With each
key that comes, one bucket is split in two, the next one in turn; when all are, the level rises. So a bucket has one key
on average, and nobody ever waits for all keys to be dealt out anew.

Where keys are texts, what is hashed are 64 bits that stand for them, and the texts themselves are compared as well: two
that share their bits share a bucket, and no row.

Everything is done to many keys at once: their chains are followed side by side, a link in each round.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from glintpy.partitioning.keyed import mixed

if TYPE_CHECKING:
    from numpy.typing import NDArray

    Rows = NDArray[np.int64]
    Keys = NDArray[np.int64]
    Links = NDArray[np.int32]
    Texts = NDArray[np.bytes_]

_LEVEL = 6
"""Of an empty index: 64 buckets."""

_NONE = np.int32(-1)


class Index:
    """Which row each key has.

    Args:
        keys: (capacity,) int64 by row: the heap's own, which the index reads and never changes.
        rows: (n,) rows that have a key, no key twice.
        texts: (capacity,) by row, of keys that are texts; None: there are none.
    """

    def __init__(self, keys: Keys, rows: Rows, texts: Texts | None = None) -> None:
        self._keys = keys
        self._texts = texts
        self._nexts: Links = np.full(len(keys), _NONE)
        self._level = max(_LEVEL, int(rows.size - 1).bit_length() - 1 if rows.size else 0)
        self._split = 0
        self._heads: Links = np.full(self.num_buckets, _NONE)
        self.num_keys = 0
        self.add(rows)

    @property
    def num_buckets(self) -> int:
        """How many buckets there are."""
        return (1 << self._level) + self._split

    @property
    def num_bytes(self) -> int:
        """Bytes of memory."""
        return self._heads.nbytes + self._nexts.nbytes

    def moved(self, keys: Keys, texts: Texts | None = None) -> None:
        """Take another view of the keys, of more rows than there were."""
        self._keys = keys
        self._texts = texts
        self._nexts = _lengthened(self._nexts, len(keys))

    def find(self, keys: Keys, texts: Texts | None = None) -> Rows:
        """Return the row of each key.

        Args:
            keys: (n,) int64.
            texts: (n,) of keys that are texts.

        Returns:
            (n,) int64, -1 for keys that have none.
        """
        found: Rows = self._heads.take(self._buckets_of(keys)).astype(np.int64)
        if not len(self._keys):
            return found
        # Those whose row, so far, is another key's: they go on to the next one of their chain. (-1 is the last row.)
        looking = np.flatnonzero(self._differs(found, keys, texts) & (found >= 0))
        rows, asked = found.take(looking), keys.take(looking)
        while looking.size:
            rows = self._nexts.take(rows).astype(np.int64)
            found[looking] = rows
            differs = self._differs(rows, asked, None if texts is None else texts.take(looking))
            goes_on = np.flatnonzero(differs & (rows >= 0))
            looking, rows, asked = looking.take(goes_on), rows.take(goes_on), asked.take(goes_on)
        return found

    def add(self, rows: Rows) -> None:
        """Take in rows whose keys the heap has by now.

        Args:
            rows: (k,) whose keys are not in the index, no key twice.
        """
        self.num_keys += len(rows)
        self._split_up_to(self.num_keys)
        self._link(rows, self._buckets_of(self._keys[rows]))

    def remove(self, rows: Rows) -> None:
        """Leave out rows whose keys the heap still has.

        Args:
            rows: (k,) that are in the index, none twice.
        """
        self.num_keys -= len(rows)
        buckets = np.unique(self._buckets_of(self._keys[rows]))
        others = self._taken_out(buckets)
        others = others[~np.isin(others, rows)]
        self._link(others, self._buckets_of(self._keys[others]))

    # --- inside -------------------------------------------------------------------------------------------------

    def _differs(self, rows: Rows, keys: Keys, texts: Texts | None) -> NDArray[np.bool_]:
        """Return which rows have another key than each of these; of -1 anything."""
        found: NDArray[np.bool_] = self._keys.take(rows, mode="wrap") != keys
        if texts is not None:
            assert self._texts is not None, "its keys are texts"
            found |= self._texts.take(rows, mode="wrap") != texts
        return found

    def _buckets_of(self, keys: Keys) -> NDArray[np.int64]:
        bits = mixed(keys).view(np.int64)
        buckets = bits & ((2 << self._level) - 1)
        # What is not there yet is still in the bucket that it will be split from.
        return np.where(buckets < self.num_buckets, buckets, bits & ((1 << self._level) - 1))

    def _split_up_to(self, num_buckets: int) -> None:
        """Split buckets, in turn, until there are so many."""
        while self.num_buckets < num_buckets:
            first, size = self._split, 1 << self._level
            stop = min(size, first + num_buckets - self.num_buckets)
            if size + stop > len(self._heads):
                self._heads = _lengthened(self._heads, max(size + stop, len(self._heads) * 5 // 4))
            rows = self._taken_out(np.arange(first, stop))
            self._split = stop
            if stop == size:
                self._level, self._split = self._level + 1, 0
            self._link(rows, self._buckets_of(self._keys[rows]))

    def _taken_out(self, buckets: NDArray[np.int64]) -> Rows:
        """Return all rows of some buckets, and leave these empty."""
        pieces = []
        rows = self._heads[buckets]
        self._heads[buckets] = _NONE
        while True:
            rows = rows[rows >= 0]
            if not rows.size:
                break
            pieces.append(rows)
            rows = self._nexts[rows]
        return np.concatenate(pieces).astype(np.int64) if pieces else np.empty(0, np.int64)

    def _link(self, rows: Rows, buckets: NDArray[np.int64]) -> None:
        """Put rows at the head of their buckets."""
        links = rows.astype(np.int32)
        while links.size:
            # Of several for one bucket one stays at its head, whichever; the others come behind it, in another round.
            self._nexts[links] = self._heads[buckets]
            self._heads[buckets] = links
            lost = self._heads[buckets] != links
            links, buckets = links[lost], buckets[lost]


def _lengthened(links: Links, length: int) -> Links:
    longer: NDArray[Any] = np.full(length, _NONE)
    longer[: len(links)] = links
    return longer
