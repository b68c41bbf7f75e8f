"""Partitions of neighbouring keys; knows no server."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from glintpy.partitioning.base import Partitioner, check_index


class RangePartitioner(Partitioner):
    """Each partition has one run of neighbouring keys; sizes differ by at most one.

    The floor(K / P)-sized partitions come first, then the ones of one key more. Neighbours stay together,
    so a slice of keys touches few servers; frequency-sorted keys under a power law make one server hot,
    and ``CyclicPartitioner`` is for those.

    Args:
        num_keys: keys of the model, 0 to 2**62.
        num_partitions: parts to spread them over, at least 1; with fewer keys the first ones are empty.

    Raises:
        ShapeError, ConfigError: a number that can't be.
    """

    name = "range"

    def __init__(self, num_keys: int, num_partitions: int) -> None:
        super().__init__(num_keys, num_partitions)
        self._small_size, num_large = divmod(self.num_keys, self.num_partitions)
        self._num_small = self.num_partitions - num_large

    def partition_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the partition of each key.

        Args:
            keys: (n,) int64 in [0, num_keys).

        Returns:
            (n,) int64.
        """
        keys = np.asarray(keys, dtype=np.int64)
        size = self._small_size
        by_large: NDArray[np.int64] = (keys - self._num_small * size) // (size + 1) + self._num_small
        if size == 0:
            return by_large
        # Each of the two divisions is right on its own side of the border between small and large
        # partitions and too high on the other: the smaller one is right, without a mask.
        return np.minimum(keys // size, by_large)

    def local_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each key inside its partition.

        Args:
            keys: (n,) int64 in [0, num_keys).

        Returns:
            (n,) int64.
        """
        return self.split(keys)[1]

    def split(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return partition and local row of each key.

        Args:
            keys: (n,) int64 in [0, num_keys).

        Returns:
            Twice (n,) int64.
        """
        keys = np.asarray(keys, dtype=np.int64)
        partitions = self.partition_of(keys)
        starts = partitions * self._small_size + np.maximum(partitions - self._num_small, 0)
        return partitions, keys - starts

    def global_of(self, partition: int, local_rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the keys at some rows of a partition.

        Args:
            partition: in [0, num_partitions).
            local_rows: (n,) int64 in [0, size_of(partition)).

        Returns:
            (n,) int64.

        Raises:
            KeyRangeError: no such partition.
        """
        return np.asarray(local_rows, dtype=np.int64) + self._start_of(partition)

    def size_of(self, partition: int) -> int:
        """Return how many keys a partition has.

        Args:
            partition: in [0, num_partitions).

        Raises:
            KeyRangeError: no such partition.
        """
        partition = check_index("partition", partition, self.num_partitions)
        return self._small_size + (partition >= self._num_small)

    def affine(self, partition: int) -> tuple[int, int]:
        """Return the first key of a partition, and the step 1.

        Args:
            partition: in [0, num_partitions).

        Raises:
            KeyRangeError: no such partition.
        """
        return self._start_of(partition), 1

    def _start_of(self, partition: int) -> int:
        partition = check_index("partition", partition, self.num_partitions)
        return partition * self._small_size + max(0, partition - self._num_small)
