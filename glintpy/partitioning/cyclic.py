"""Partitions of every P-th key; knows no server."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from glintpy.partitioning.base import Partitioner, check_index


class CyclicPartitioner(Partitioner):
    """Key k lies in partition k mod P at row k // P; sizes differ by at most one.

    Neighbouring keys lie in different partitions, so where keys are sorted by frequency (words, users,
    items) the busy ones are spread over all servers.

    Args:
        num_keys: keys of the model, 0 to 2**62.
        num_partitions: parts to spread them over, at least 1; with fewer keys the last ones are empty.

    Raises:
        ShapeError, ConfigError: a number that can't be.
    """

    name = "cyclic"

    def partition_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the partition of each key.

        Args:
            keys: (n,) int64 in [0, num_keys).

        Returns:
            (n,) int64.
        """
        return self.split(keys)[0]

    def local_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each key inside its partition.

        Args:
            keys: (n,) int64 in [0, num_keys).

        Returns:
            (n,) int64.
        """
        local_rows: NDArray[np.int64] = np.asarray(keys, dtype=np.int64) // self.num_partitions
        return local_rows

    def split(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return partition and local row of each key.

        Args:
            keys: (n,) int64 in [0, num_keys).

        Returns:
            Twice (n,) int64.
        """
        # numpy divides by one number with a multiplication; its divmod and remainder really divide.
        local_rows = self.local_of(keys)
        return keys - local_rows * self.num_partitions, local_rows

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
        partition = check_index("partition", partition, self.num_partitions)
        return np.asarray(local_rows, dtype=np.int64) * self.num_partitions + partition

    def size_of(self, partition: int) -> int:
        """Return how many keys a partition has.

        Args:
            partition: in [0, num_partitions).

        Raises:
            KeyRangeError: no such partition.
        """
        partition = check_index("partition", partition, self.num_partitions)
        return (self.num_keys - partition + self.num_partitions - 1) // self.num_partitions

    def affine(self, partition: int) -> tuple[int, int]:
        """Return the first key of a partition, which is its number, and the step P.

        Args:
            partition: in [0, num_partitions).

        Raises:
            KeyRangeError: no such partition.
        """
        return check_index("partition", partition, self.num_partitions), self.num_partitions
