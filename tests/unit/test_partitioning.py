"""Partitioners against Glint's tables and against numbers near the end of 64 bits."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest

from glintpy.errors import ConfigError, KeyRangeError, ShapeError
from glintpy.partitioning import CyclicPartitioner, Partitioner, RangePartitioner, named
from glintpy.testing.partitioners import TablePartitioner

# (num_partitions, num_keys) and the sizes that Glint's own tests expect.
RANGE_SIZES = [
    (5, 109, [21, 22, 22, 22, 22]),
    (20, 50, [2] * 10 + [3] * 10),
    (13, 13, [1] * 13),
    (33, 12, [0] * 21 + [1] * 12),
    (15, 97, [6] * 8 + [7] * 7),
    (12, 105, [8] * 3 + [9] * 9),
    (2, 49, [24, 25]),
    (6, 49, [8] * 5 + [9]),
]
CYCLIC_SIZES = [
    (5, 37, [8, 8, 7, 7, 7]),
    (17, 137, [9] + [8] * 16),
    (20, 50, [3] * 10 + [2] * 10),
    (33, 12, [1] * 12 + [0] * 21),
]
BOTH = [RangePartitioner, CyclicPartitioner]


def sizes(partitioner: Partitioner) -> list[int]:
    return [partitioner.size_of(index) for index in range(partitioner.num_partitions)]


@pytest.mark.parametrize(("num_partitions", "num_keys", "expected"), RANGE_SIZES)
def test_range_has_glints_sizes(num_partitions: int, num_keys: int, expected: list[int]) -> None:
    partitioner = RangePartitioner(num_keys, num_partitions)
    assert sizes(partitioner) == expected
    partitions = partitioner.partition_of(np.arange(num_keys))
    assert partitions.tolist() == np.repeat(np.arange(num_partitions), expected).tolist()


@pytest.mark.parametrize(("num_partitions", "num_keys", "expected"), CYCLIC_SIZES)
def test_cyclic_has_glints_sizes(num_partitions: int, num_keys: int, expected: list[int]) -> None:
    partitioner = CyclicPartitioner(num_keys, num_partitions)
    assert sizes(partitioner) == expected
    partitions = partitioner.partition_of(np.arange(num_keys))
    assert np.bincount(partitions, minlength=num_partitions).tolist() == expected


def test_cyclic_places_keys_by_remainder_and_quotient() -> None:
    keys = np.array([0, 4, 5, 36])
    partitions, local_rows = CyclicPartitioner(37, 5).split(keys)
    assert partitions.tolist() == [0, 4, 0, 1]
    assert local_rows.tolist() == [0, 0, 1, 7]


def test_range_places_keys_on_both_sides_of_the_border_between_small_and_large() -> None:
    partitioner = RangePartitioner(109, 5)
    partitions, local_rows = partitioner.split(np.array([0, 20, 21, 42, 43, 108]))
    assert partitions.tolist() == [0, 0, 1, 1, 2, 4]
    assert local_rows.tolist() == [0, 20, 0, 21, 0, 21]
    assert [partitioner.affine(index) for index in range(5)] == [(0, 1), (21, 1), (43, 1), (65, 1), (87, 1)]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("num_keys", [2**62, 2**62 - 1, 2**53 + 1, 2**32 + 7])
@pytest.mark.parametrize("num_partitions", [1, 2, 7, 1000, 65_536])
def test_huge_keys_are_exact(kind: type[Partitioner], num_keys: int, num_partitions: int) -> None:
    partitioner = kind(num_keys, num_partitions)
    interesting = {0, 1, num_keys // 2, num_keys - 1, num_keys - 2, num_keys - num_partitions}
    for index in (0, num_partitions // 2, num_partitions - 1):
        place = partitioner.affine(index)
        assert place is not None
        first, step = place
        last = first + (partitioner.size_of(index) - 1) * step
        interesting |= {first, last}
        edges = partitioner.global_of(index, np.array([0, partitioner.size_of(index) - 1]))
        assert edges.tolist() == [first, last]
    keys = np.array(sorted(interesting), dtype=np.int64)
    partitions, local_rows = partitioner.split(keys)
    for key, partition, local_row in zip(
        keys.tolist(), partitions.tolist(), local_rows.tolist(), strict=True
    ):
        assert (partition, local_row) == by_hand(partitioner, key)
        assert partitioner.global_of(partition, np.array([local_row])).tolist() == [key]


def by_hand(partitioner: Partitioner, key: int) -> tuple[int, int]:
    """Glint's formulas, in Python's unbounded integers."""
    if isinstance(partitioner, CyclicPartitioner):
        partition = key % partitioner.num_partitions
        return partition, (key - partition) // partitioner.num_partitions
    size, large = divmod(partitioner.num_keys, partitioner.num_partitions)
    small = partitioner.num_partitions - large
    border = small * size
    if key < border:
        return key // size, key % size
    return small + (key - border) // (size + 1), (key - border) % (size + 1)


@pytest.mark.parametrize("kind", BOTH)
def test_local_rows_of_32_bits_do_not_overflow(kind: type[Partitioner]) -> None:
    partitioner = kind(2**62, 3)
    rows = np.array([0, 2**32 - 1], dtype=np.uint32)
    first, step = partitioner.affine(2) or (0, 0)
    expected = [first, first + (2**32 - 1) * step]
    assert partitioner.global_of(2, rows.view()).tolist() == expected  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("num_partitions", [1, 5])
def test_no_keys_are_empty_partitions(kind: type[Partitioner], num_partitions: int) -> None:
    partitioner = kind(0, num_partitions)
    assert sizes(partitioner) == [0] * num_partitions
    assert partitioner.partition_of(np.empty(0, dtype=np.int64)).tolist() == []
    assert partitioner.global_of(0, np.empty(0, dtype=np.int64)).tolist() == []


@pytest.mark.parametrize("kind", BOTH)
def test_sizes_differ_by_at_most_one(kind: type[Partitioner]) -> None:
    for num_keys, num_partitions in pairwise(range(1, 120)):
        found = sizes(kind(num_keys, num_partitions % 17 + 1))
        assert max(found) - min(found) <= 1


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("num_keys", [-1, 2**62 + 1, 1.0, True, "3", None, math.nan])
def test_a_number_of_keys_that_can_not_be_is_a_shape_error(kind: type[Partitioner], num_keys: object) -> None:
    with pytest.raises(ShapeError, match="num_keys"):
        kind(num_keys, 1)  # type: ignore[arg-type]


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("num_partitions", [0, -3, 2.0, True, "1", None])
def test_a_number_of_partitions_that_can_not_be_is_a_config_error(
    kind: type[Partitioner], num_partitions: object
) -> None:
    with pytest.raises(ConfigError, match="num_partitions"):
        kind(3, num_partitions)  # type: ignore[arg-type]


def test_numpy_integers_and_keywords_are_taken() -> None:
    partitioner = RangePartitioner(num_keys=np.int32(9), num_partitions=np.uint8(2))  # type: ignore[arg-type]
    assert partitioner == RangePartitioner(9, 2)
    assert type(partitioner.num_keys) is type(partitioner.num_partitions) is int
    assert repr(partitioner) == "RangePartitioner(num_keys=9, num_partitions=2)"


@pytest.mark.parametrize("kind", BOTH)
@pytest.mark.parametrize("partition", [-1, 4])
def test_a_partition_that_is_not_there_is_refused(kind: type[Partitioner], partition: int) -> None:
    partitioner = kind(10, 4)
    rows = np.array([0])
    for ask in (partitioner.size_of, partitioner.affine, lambda index: partitioner.global_of(index, rows)):
        with pytest.raises(KeyRangeError, match=rf"partition {partition} is outside \[0, 4\)"):
            ask(partition)


def test_class_and_numbers_make_the_identity() -> None:
    assert RangePartitioner(9, 2) != CyclicPartitioner(9, 2)
    assert RangePartitioner(9, 2) != RangePartitioner(9, 3)
    assert RangePartitioner(9, 2) != RangePartitioner(8, 2)
    assert len({RangePartitioner(9, 2), RangePartitioner(9, 2), CyclicPartitioner(9, 2)}) == 2


def test_tables_of_equal_size_differ_by_what_stands_in_them() -> None:
    assert TablePartitioner([0, 1, 1], 2) == TablePartitioner([0, 1, 1], 2)
    assert TablePartitioner([0, 1, 1], 2) != TablePartitioner([0, 0, 1], 2)


def test_names() -> None:
    assert RangePartitioner.name == "range"
    assert CyclicPartitioner(3, 2).name == "cyclic"
    assert TablePartitioner([0], 1).name == "custom:glintpy.testing.partitioners.TablePartitioner"


def test_a_subclass_has_a_name_of_its_own() -> None:
    class Nearly(RangePartitioner):
        pass

    class Named(RangePartitioner):
        name = "mine"

    assert Nearly.name == f"custom:{__name__}.{Nearly.__qualname__}"
    assert Named.name == "mine"


def test_a_name_that_is_taken_is_refused() -> None:
    with pytest.raises(ConfigError, match="'cyclic'"):

        class _Usurper(RangePartitioner):
            name = "cyclic"


def test_named_makes_what_every_client_has() -> None:
    assert named("range", 10, 3) == RangePartitioner(10, 3)
    assert named("cyclic", num_keys=10, num_partitions=3) == CyclicPartitioner(10, 3)


def test_an_unknown_name_is_refused_with_what_there_is() -> None:
    with pytest.raises(ConfigError, match=r"'hash'; there are 'range', 'cyclic'\. .* passed as an instance"):
        named("hash", 10, 3)
