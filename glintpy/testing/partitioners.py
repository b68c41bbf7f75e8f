"""What every partitioner must satisfy, as tests to inherit; knows none but its own example."""

from __future__ import annotations

import pickle
from abc import ABC, abstractmethod
from collections.abc import Hashable

import numpy as np
import pytest
from numpy.typing import ArrayLike, NDArray

from glintpy.partitioning import Layout, Partitioner

SIZES = [(0, 1), (0, 4), (1, 1), (3, 8), (12, 33), (13, 13), (37, 5), (97, 15), (100, 1), (1000, 7)]
"""(num_keys, num_partitions): nothing at all, empty partitions, equal and unequal ones."""


class TablePartitioner(Partitioner):
    """Any assignment of keys to partitions, kept as tables; the example of ``Partitioner``'s documentation.

    Args:
        assignment: (num_keys,) integers: each key's partition.
        num_partitions: partitions, empty ones included.
    """

    def __init__(self, assignment: ArrayLike, num_partitions: int) -> None:
        self._partitions = np.array(assignment, dtype=np.int64)
        super().__init__(len(self._partitions), num_partitions)
        self._sizes = np.bincount(self._partitions, minlength=num_partitions)
        self._starts = np.cumsum(self._sizes) - self._sizes
        self._keys = np.argsort(self._partitions, kind="stable")  # partition after partition
        self._local_rows = np.empty_like(self._keys)
        self._local_rows[self._keys] = np.arange(self.num_keys) - np.repeat(self._starts, self._sizes)

    def partition_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the partition of each key.

        Args:
            keys: (n,) int64 in [0, num_keys).
        """
        return self._partitions[keys]

    def local_of(self, keys: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the row of each key inside its partition.

        Args:
            keys: (n,) int64 in [0, num_keys).
        """
        return self._local_rows[keys]

    def global_of(self, partition: int, local_rows: NDArray[np.int64]) -> NDArray[np.int64]:
        """Return the keys at some rows of a partition.

        Args:
            partition: in [0, num_partitions).
            local_rows: (n,) int64 in [0, size_of(partition)).
        """
        return self._keys[self._starts[partition] :][local_rows]

    def size_of(self, partition: int) -> int:
        """Return how many keys a partition has.

        Args:
            partition: in [0, num_partitions).
        """
        return int(self._sizes[partition])

    def identity(self) -> Hashable:
        """Return numbers and table: two tables of one size are two partitioners."""
        return (self.num_keys, self.num_partitions, self._partitions.tobytes())


def scattered(num_keys: int, num_partitions: int) -> TablePartitioner:
    """Make a partitioner without any regularity that a formula could use; the same for the same numbers.

    Args:
        num_keys: keys of the model.
        num_partitions: partitions; some may be empty.
    """
    generator = np.random.default_rng([num_keys, num_partitions])
    return TablePartitioner(generator.integers(num_partitions, size=num_keys), num_partitions)


class PartitionerTests(ABC):
    """Inherit it in a test module, say how to make your partitioner, and pytest runs the rest.

    ::

        class TestMine(PartitionerTests):
            def make(self, num_keys, num_partitions):
                return MyPartitioner(num_keys, num_partitions)

    No test asks for a key or a row outside: nobody ever does.
    """

    @abstractmethod
    def make(self, num_keys: int, num_partitions: int) -> Partitioner:
        """Make a partitioner: for equal numbers an equal one."""

    @pytest.fixture(params=SIZES, ids=lambda size: f"{size[0]}-in-{size[1]}")
    def partitioner(self, request: pytest.FixtureRequest) -> Partitioner:
        """Make one of each size."""
        num_keys, num_partitions = request.param
        return self.make(num_keys, num_partitions)

    def test_it_has_the_numbers_it_was_made_with(self) -> None:
        """Numbers pass through a constructor of one's own."""
        for num_keys, num_partitions in SIZES:
            made = self.make(num_keys, num_partitions)
            assert (made.num_keys, made.num_partitions) == (num_keys, num_partitions)

    def test_it_has_a_name_that_fits_into_a_spec(self, partitioner: Partitioner) -> None:
        """A spec takes 1 to 200 characters."""
        assert 1 <= len(partitioner.name) <= 200, partitioner.name
        assert partitioner.name == type(partitioner).name, "a name belongs to the class"

    def test_sizes_sum_up_to_the_keys(self, partitioner: Partitioner) -> None:
        """No key is lost or double."""
        sizes = [partitioner.size_of(index) for index in range(partitioner.num_partitions)]
        assert all(size >= 0 for size in sizes), sizes
        assert sum(sizes) == partitioner.num_keys, sizes

    def test_every_key_has_one_place_and_local_rows_are_dense(self, partitioner: Partitioner) -> None:
        """In each partition the local rows of its keys are 0 to size - 1, each once."""
        keys = _all_keys(partitioner)
        partitions, local_rows = partitioner.partition_of(keys), partitioner.local_of(keys)
        for index in range(partitioner.num_partitions):
            found = np.sort(local_rows[partitions == index])
            np.testing.assert_array_equal(found, np.arange(partitioner.size_of(index)))

    def test_partitions_are_in_range(self, partitioner: Partitioner) -> None:
        """No key lies in a partition that isn't there."""
        partitions = partitioner.partition_of(_all_keys(partitioner))
        assert np.all((partitions >= 0) & (partitions < partitioner.num_partitions)), partitions

    def test_global_of_inverts(self, partitioner: Partitioner) -> None:
        """From keys to rows and back, and from rows to keys and back."""
        keys = _all_keys(partitioner)
        partitions, local_rows = partitioner.partition_of(keys), partitioner.local_of(keys)
        for index in range(partitioner.num_partitions):
            inside = partitions == index
            found = partitioner.global_of(index, local_rows[inside])
            np.testing.assert_array_equal(found, keys[inside])
            rows = np.arange(partitioner.size_of(index), dtype=np.int64)[::-1]
            back = partitioner.global_of(index, rows)
            np.testing.assert_array_equal(partitioner.local_of(back), rows)
            np.testing.assert_array_equal(partitioner.partition_of(back), np.full_like(rows, index))

    def test_many_keys_at_once_equal_one_at_a_time(self, partitioner: Partitioner) -> None:
        """In any order, repeats included."""
        keys = _shuffled_with_repeats(partitioner)
        ones = [keys[index : index + 1] for index in range(len(keys))]
        partitions = [int(partitioner.partition_of(one)[0]) for one in ones]
        local_rows = [int(partitioner.local_of(one)[0]) for one in ones]
        np.testing.assert_array_equal(partitioner.partition_of(keys), partitions)
        np.testing.assert_array_equal(partitioner.local_of(keys), local_rows)
        for partition, local_row, key in zip(partitions, local_rows, keys.tolist(), strict=True):
            assert partitioner.global_of(partition, np.array([local_row])).tolist() == [key]

    def test_split_is_both_at_once(self, partitioner: Partitioner) -> None:
        """The one call agrees with the two."""
        keys = _shuffled_with_repeats(partitioner)
        partitions, local_rows = partitioner.split(keys)
        np.testing.assert_array_equal(partitions, partitioner.partition_of(keys))
        np.testing.assert_array_equal(local_rows, partitioner.local_of(keys))

    def test_results_are_int64_and_the_keys_are_left_alone(self, partitioner: Partitioner) -> None:
        """The arrays that were passed are somebody's."""
        keys = _shuffled_with_repeats(partitioner)
        before = keys.copy()
        keys.flags.writeable = False
        results = [partitioner.partition_of(keys), partitioner.local_of(keys), *partitioner.split(keys)]
        results.append(partitioner.global_of(0, np.arange(partitioner.size_of(0), dtype=np.int64)))
        assert {result.dtype for result in results} == {np.dtype(np.int64)}
        assert all(result.ndim == 1 for result in results)
        np.testing.assert_array_equal(keys, before)

    def test_nothing_asked_for_is_nothing(self, partitioner: Partitioner) -> None:
        """An empty array in, an empty array out."""
        nothing = np.empty(0, dtype=np.int64)
        assert partitioner.partition_of(nothing).shape == (0,)
        assert partitioner.local_of(nothing).shape == (0,)
        for index in range(partitioner.num_partitions):
            assert partitioner.global_of(index, nothing).shape == (0,)

    def test_affine_says_where_the_keys_are(self, partitioner: Partitioner) -> None:
        """For all partitions, with one step, or for none."""
        places = [partitioner.affine(index) for index in range(partitioner.num_partitions)]
        known = [place for place in places if place is not None]
        assert len(known) in {0, len(places)}, "affine is for all partitions or for none"
        assert len({step for _, step in known}) <= 1, "all partitions have one step"
        for index, (first, step) in enumerate(known):
            rows = np.arange(partitioner.size_of(index), dtype=np.int64)
            np.testing.assert_array_equal(partitioner.global_of(index, rows), first + rows * step)

    def test_a_layout_takes_it(self, partitioner: Partitioner) -> None:
        """A layout checks sizes and spacing when it is made."""
        layout = Layout(partitioner, np.zeros(partitioner.num_partitions, dtype=np.int64), 1)
        assert layout.num_rows_of(0) == partitioner.num_keys

    def test_it_pickles(self, partitioner: Partitioner) -> None:
        """The copy equals it and computes the same."""
        keys = _all_keys(partitioner)
        copy: Partitioner = pickle.loads(pickle.dumps(partitioner))  # noqa: S301 - our own bytes
        assert copy == partitioner
        assert hash(copy) == hash(partitioner)
        np.testing.assert_array_equal(copy.partition_of(keys), partitioner.partition_of(keys))
        np.testing.assert_array_equal(copy.local_of(keys), partitioner.local_of(keys))

    def test_equal_numbers_make_equal_partitioners(self) -> None:
        """And other numbers make others."""
        made = [self.make(*size) for size in SIZES]
        again = [self.make(*size) for size in SIZES]
        assert made == again
        assert [hash(one) for one in made] == [hash(one) for one in again]
        assert len(set(made)) == len(SIZES)
        assert made[0] != "a partitioner"


def _all_keys(partitioner: Partitioner) -> NDArray[np.int64]:
    return np.arange(partitioner.num_keys, dtype=np.int64)


def _shuffled_with_repeats(partitioner: Partitioner) -> NDArray[np.int64]:
    keys = np.tile(_all_keys(partitioner), 2)
    return np.random.default_rng(0).permutation(keys)[:200]
