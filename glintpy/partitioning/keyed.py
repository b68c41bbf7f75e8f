"""Where the keys of a table lie, keys that nobody declared; knows no message and no socket.

A key's 64 bits are mixed, and the top 10 of the result are its partition. So every client finds a key's server by
itself, and keys are spread evenly over the servers, whatever they are.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glintpy import config
from glintpy.errors import ConfigError, ShapeError
from glintpy.partitioning.layout import Share

NUM_PARTITIONS = config.TABLE_PARTITIONS

_SHIFT = np.uint64(64 - 10)
_GAMMA = np.uint64(0x9E3779B97F4A7C15)


def mixed(keys: NDArray[np.int64] | NDArray[np.uint64]) -> NDArray[np.uint64]:
    """Return SplitMix64's mix of each key's bits, a one-to-one map of 64-bit numbers (Steele, Lea and Flood 2014).

    Args:
        keys: (n,) int64, or uint64 seen as such.
    """
    bits = keys.astype(np.uint64)  # a copy, which is used up
    bits ^= bits >> np.uint64(30)
    bits *= np.uint64(0xBF58476D1CE4E5B9)
    bits ^= bits >> np.uint64(27)
    bits *= np.uint64(0x94D049BB133111EB)
    bits ^= bits >> np.uint64(31)
    return bits


def hashed(items: NDArray[np.bytes_]) -> NDArray[np.int64]:
    """Return the 64 bits that stand for each text where keys are spread; two texts may have the same.

    Args:
        items: (n,) as ``protocol.texts`` keeps them: of a multiple of 8 bytes, which zeros fill up.
    """
    words = np.ascontiguousarray(items).view("<u8").reshape(len(items), items.itemsize // 8)
    bits = np.zeros(len(items), np.uint64)
    # A word counts up to the last one that has something.
    rest = np.arange(len(items))
    last = words.shape[1] - 1 - (words[:, ::-1] != 0).argmax(axis=1)
    for column in range(words.shape[1]):
        rest = rest[last[rest] >= column]
        if not rest.size:
            break
        bits[rest] = mixed((bits[rest] + _GAMMA) ^ words[rest, column])
    return bits.view(np.int64)


def partition_of(keys: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return each key's partition.

    Args:
        keys: (n,) int64, or uint64 seen as such.

    Returns:
        (n,) int64 in [0, NUM_PARTITIONS).
    """
    return (mixed(keys) >> _SHIFT).astype(np.int64)


class KeyedLayout:
    """Keys to servers, for one routing; doesn't change.

    Args:
        owners: (NUM_PARTITIONS,) integers: each partition's server.
        num_servers: servers in the routing.

    Raises:
        ShapeError: not one owner for each partition.
        ConfigError: an owner that is no server.
    """

    def __init__(self, owners: ArrayLike, num_servers: int) -> None:
        given = np.asarray(owners)
        if given.shape != (NUM_PARTITIONS,) or given.dtype.kind not in "iu":
            raise ShapeError(f"a table has {NUM_PARTITIONS} partitions, not owners of shape {given.shape}")
        if not 0 <= int(given.min()) <= int(given.max()) < num_servers:
            raise ConfigError(
                f"partitions belong to servers {int(given.min())} to {int(given.max())} of {num_servers}"
            )
        self.num_servers = num_servers
        self._owners = given.astype(np.min_scalar_type(num_servers))

    def servers_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return each key's server, (n,) int64."""
        return self._owners[partition_of(keys)].astype(np.int64)

    def locate(self, keys: NDArray[np.int64], bits: NDArray[np.int64] | None = None) -> list[Share]:
        """Return what each server has of some keys.

        Args:
            keys: (n,) int64, in any order; repeats are allowed.
            bits: (n,) what each is routed by; None: the keys themselves.

        Returns:
            One share for each server that has something, by rising server; its ``rows`` are keys, in the caller's
            order. The arrays are new.
        """
        if keys.size == 0:
            return []
        if self.num_servers == 1:
            return [Share(0, keys.copy(), slice(0, keys.size, 1))]
        servers = self._owners[partition_of(keys if bits is None else bits)]
        # Stable, so that each server's keys keep the caller's order; numpy sorts 8 and 16 bits by radix.
        order = np.argsort(servers, kind="stable")
        stops = np.cumsum(np.bincount(servers, minlength=self.num_servers)).tolist()
        shares, first = [], 0
        for server, stop in enumerate(stops):
            if stop > first:
                positions = order[
                    first:stop
                ].copy()  # not a view: one share must not keep all positions alive
                shares.append(Share(server, keys[positions], positions))
            first = stop
        return shares
