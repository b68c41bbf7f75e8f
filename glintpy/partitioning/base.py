"""The seam for partitioners: a function from keys to partitions and local rows; knows no server."""

from __future__ import annotations

import hashlib
import operator
from abc import ABC, abstractmethod
from collections.abc import Hashable
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from glintpy.errors import ConfigError, KeyRangeError, ShapeError

NUM_KEYS_MAX = 2**62
"""Leaves room in 64 bits for a key plus a stride, so that no sum here can overflow."""

STEP_MAX = 2**31
"""The product of two remainders by a step must fit in 63 bits. A step has as many partitions, near enough:
every remainder of the keys needs one."""

_OWN_NAMES = frozenset({"range", "cyclic"})


_SAMPLE_MAX = 65_536
"""Keys by which two custom partitioners are told apart: all of them in most models, and a millisecond's work."""


class Partitioner(ABC):
    """A pure function from keys in [0, num_keys) to (partition, local row), and back.

    A partition's local rows are dense: 0 to ``size_of(partition) - 1``, each the place of one key. Every
    client of a model must compute the same, so nothing random, and no setting from outside, takes part.
    Instances don't change and can be pickled. Keys outside [0, num_keys) and rows outside a partition are
    never asked for: the callers have refused them before.

    A partitioner of your own has four methods, and ``identity`` if more than the two numbers decides.
    Dense local rows are what makes a hash awkward: its local rows must be counted, and so kept. Here is
    one that keeps them, for any assignment of keys to partitions, 24 bytes a key::

        class TablePartitioner(Partitioner):
            def __init__(self, assignment: ArrayLike, num_partitions: int) -> None:
                self._partitions = np.array(assignment, dtype=np.int64)
                super().__init__(len(self._partitions), num_partitions)
                self._sizes = np.bincount(self._partitions, minlength=num_partitions)
                self._starts = np.cumsum(self._sizes) - self._sizes
                self._keys = np.argsort(self._partitions, kind="stable")  # partition after partition
                self._local_rows = np.empty_like(self._keys)
                self._local_rows[self._keys] = np.arange(self.num_keys) - np.repeat(self._starts, self._sizes)

            def partition_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
                return self._partitions[keys]

            def local_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
                return self._local_rows[keys]

            def global_of(self, partition: int, local_rows: NDArray[np.int64]) -> NDArray[np.int64]:
                return self._keys[self._starts[partition] :][local_rows]

            def size_of(self, partition: int) -> int:
                return int(self._sizes[partition])

            def identity(self) -> Hashable:
                return (self.num_keys, self.num_partitions, self._partitions.tobytes())

    ``glintpy.testing.partitioners.PartitionerTests`` tests one; use it before you trust yours.

    Args:
        num_keys: keys of the model, 0 to 2**62.
        num_partitions: parts to spread them over, at least 1; a part may be empty.

    Raises:
        ShapeError: a number of keys that no model has.
        ConfigError: a number of partitions that is no positive integer.
    """

    name: ClassVar[str]
    """Its name; ``custom:<module>.<qualname>`` unless the class says otherwise."""

    @property
    def signature(self) -> str:
        """What a model's spec says of it: the name, and of a custom one a digest of where it puts keys.

        So that two tables of one size are told apart, and nobody reads the wrong rows without a word.
        """
        if self.name in {"range", "cyclic"}:
            return self.name
        spread = np.linspace(0, max(0, self.num_keys - 1), min(self.num_keys, _SAMPLE_MAX))
        sample = np.unique(np.minimum(spread.astype(np.int64), self.num_keys - 1))
        sizes = [self.size_of(partition) for partition in range(self.num_partitions)]
        digest = hashlib.sha256(repr(sizes).encode())
        for placed in (self.partition_of(sample), self.local_of(sample)):
            digest.update(np.asarray(placed, dtype="<i8").tobytes())
        return f"{self.name}@{digest.hexdigest()[:12]}"

    def __init_subclass__(cls, **kwargs: Any) -> None:
        """Give a class without a name of its own the one of its place.

        Raises:
            ConfigError: a name that another partitioner has: other clients would take that one instead.
        """
        super().__init_subclass__(**kwargs)
        if "name" not in cls.__dict__:
            cls.name = f"custom:{cls.__module__}.{cls.__qualname__}"
        elif cls.name in _OWN_NAMES and cls.__module__.rpartition(".")[0] != __name__.rpartition(".")[0]:
            raise ConfigError(
                f"{cls.__qualname__} can't be named {cls.name!r}: glintpy has a partitioner so named"
            )

    def __init__(self, num_keys: int, num_partitions: int) -> None:
        if not _is_integer(num_keys) or not 0 <= num_keys <= NUM_KEYS_MAX:
            raise ShapeError(f"num_keys is an integer from 0 to 2**62, not {num_keys!r}")
        if not _is_integer(num_partitions) or num_partitions < 1:
            raise ConfigError(f"num_partitions is an integer of at least 1, not {num_partitions!r}")
        self._num_keys = operator.index(num_keys)
        self._num_partitions = operator.index(num_partitions)

    @property
    def num_keys(self) -> int:
        """How many keys there are."""
        return self._num_keys

    @property
    def num_partitions(self) -> int:
        """How many partitions there are, empty ones included."""
        return self._num_partitions

    @abstractmethod
    def partition_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the partition of each key.

        Args:
            keys: (n,) int64 in [0, num_keys), in any order; repeats are allowed.

        Returns:
            (n,) int64 in [0, num_partitions).
        """

    @abstractmethod
    def local_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each key inside its partition.

        Args:
            keys: (n,) int64 in [0, num_keys), in any order; repeats are allowed.

        Returns:
            (n,) int64, each in [0, size of the key's partition).
        """

    @abstractmethod
    def global_of(self, partition: int, local_rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the keys at some rows of a partition: the inverse of the two above.

        Args:
            partition: in [0, num_partitions).
            local_rows: (n,) int64 in [0, size_of(partition)), in any order; repeats are allowed.

        Returns:
            (n,) int64 keys.
        """

    @abstractmethod
    def size_of(self, partition: int) -> int:
        """Return how many keys a partition has.

        Args:
            partition: in [0, num_partitions).
        """

    def split(self, keys: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return partition and local row of each key at once, for what can compute both for the price of one.

        Args:
            keys: (n,) int64 in [0, num_keys), in any order; repeats are allowed.

        Returns:
            ``partition_of(keys)`` and ``local_of(keys)``, each (n,) int64.
        """
        return self.partition_of(keys), self.local_of(keys)

    def affine(self, partition: int) -> tuple[int, int] | None:
        """Return how a partition's keys are spaced, if evenly: then slices of keys travel as slices of rows.

        Args:
            partition: in [0, num_partitions), empty ones included.

        Returns:
            The key of local row 0, and the step from one local row's key to the next, which is the same for
            all partitions; or None for all partitions.
        """
        del partition
        return None

    def identity(self) -> Hashable:
        """Return what tells this instance from others of its class; equality and hash are made of it."""
        return (self._num_keys, self._num_partitions)

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Partitioner):
            return NotImplemented
        return type(self) is type(other) and self.identity() == other.identity()

    def __hash__(self) -> int:
        return hash((type(self), self.identity()))

    def __repr__(self) -> str:
        return f"{type(self).__name__}(num_keys={self._num_keys}, num_partitions={self._num_partitions})"


def check_index(what: str, index: int, size: int) -> int:
    """Return an index as a Python int, or refuse it; numpy would take -1 for the last one.

    Raises:
        KeyRangeError: outside [0, size).
    """
    index = operator.index(index)
    if not 0 <= index < size:
        raise KeyRangeError(f"{what} {index} is outside [0, {size})")
    return index


def checked_sizes(partitioner: Partitioner) -> NDArray[np.int64]:
    """Return the size of each partition as (P,) int64, or refuse sizes that contradict themselves.

    Raises:
        ConfigError: sizes that don't sum up to the number of keys.
    """
    sizes = [operator.index(partitioner.size_of(index)) for index in range(partitioner.num_partitions)]
    if min(sizes) < 0 or sum(sizes) != partitioner.num_keys:
        raise ConfigError(
            f"the partitions of {partitioner!r} have {sum(sizes)} keys together, the smallest {min(sizes)}"
        )
    return np.array(sizes, dtype=np.int64)


def checked_extents(partitioner: Partitioner, sizes: NDArray[np.int64]) -> NDArray[np.int64] | None:
    """Return what ``affine`` says of each partition, or refuse what can't be so.

    Args:
        partitioner: the one to ask.
        sizes: (P,) int64: rows of each partition.

    Returns:
        (P, 2) int64: first key and step of each partition; None if keys are not evenly spaced.

    Raises:
        ConfigError: only some partitions have a step, steps differ, or keys would lie outside.
    """
    pairs = [partitioner.affine(index) for index in range(partitioner.num_partitions)]
    known = [pair for pair in pairs if pair is not None]
    if not known:
        return None
    if len(known) < len(pairs):
        raise ConfigError(
            f"{partitioner!r} knows the spacing of {len(known)} of {len(pairs)} partitions; all or none"
        )
    steps = {step for _, step in known}
    if len(steps) != 1 or not 1 <= min(steps) <= STEP_MAX:
        raise ConfigError(
            f"{partitioner!r} has steps {sorted(steps)[:5]}; they are one number from 1 to 2**31"
        )
    for index, ((first, step), size) in enumerate(zip(known, sizes.tolist(), strict=True)):
        if not 0 <= first <= NUM_KEYS_MAX or (size and first + (size - 1) * step >= partitioner.num_keys):
            raise ConfigError(
                f"{partitioner!r} says that partition {index} has {size} keys from {first} in steps of {step}"
            )
    return np.array(known, dtype=np.int64)


def _is_integer(number: object) -> bool:
    return isinstance(number, (int, np.integer)) and not isinstance(number, bool)
