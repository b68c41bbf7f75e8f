"""The index finds the row of each key, whatever came, went and came back, and is the same made anew."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glintpy.storage.index import Index

CAPACITY = 64
KEYS = st.integers(-3, 40) | st.sampled_from([2**63 - 1, -(2**63)])


class Model:
    """An index, and the dict that says what it should find."""

    def __init__(self, capacity: int = CAPACITY) -> None:
        self.keys = np.zeros(capacity, np.int64)
        self.index = Index(self.keys, np.empty(0, np.int64))
        self.rows: dict[int, int] = {}
        self.free = list(range(capacity))

    def add(self, keys: list[int]) -> None:
        new = [key for key in dict.fromkeys(keys) if key not in self.rows][: len(self.free)]
        rows = np.array([self.free.pop() for _ in new], np.int64)
        self.keys[rows] = new
        self.index.add(rows)
        self.rows.update(zip(new, rows.tolist(), strict=True))

    def remove(self, keys: list[int]) -> None:
        gone = [self.rows.pop(key) for key in dict.fromkeys(keys) if key in self.rows]
        self.index.remove(np.array(gone, np.int64))
        self.free += gone

    def check(self, asked: NDArray[np.int64], index: Index | None = None) -> None:
        index = index or self.index
        assert index.find(asked).tolist() == [self.rows.get(key, -1) for key in asked.tolist()]
        assert index.num_keys == len(self.rows)


@given(st.lists(st.tuples(st.booleans(), st.lists(KEYS, max_size=20)), max_size=12))
def test_it_finds_what_a_dict_finds(steps: list[tuple[bool, list[int]]]) -> None:
    model = Model()
    asked = np.array([*range(-4, 42), 2**63 - 1, -(2**63)], np.int64)
    for adds, keys in steps:
        (model.add if adds else model.remove)(keys)
        model.check(asked)
    model.check(asked, Index(model.keys, np.array(sorted(model.rows.values()), np.int64)))


def test_many_keys_come_and_go(seed: int) -> None:
    source = np.random.default_rng(seed)
    model = Model(20_000)
    for step in range(60):
        model.add(source.integers(0, 15_000, source.integers(0, 900)).tolist())
        if step % 3 == 2:
            model.remove(source.integers(0, 15_000, source.integers(0, 2000)).tolist())
        model.check(source.integers(-5, 15_005, 500))
    model.check(np.arange(-5, 15_005))


@pytest.mark.parametrize("num_keys", [0, 1, 63, 64, 65, 127, 128, 129, 1000])
def test_there_is_a_bucket_for_each_key_and_no_key_is_dealt_out_more_than_its_bucket(num_keys: int) -> None:
    keys = np.arange(num_keys, dtype=np.int64)
    index = Index(keys, keys)
    assert max(64, num_keys) == index.num_buckets
    assert np.array_equal(index.find(keys), keys)


def test_it_goes_on_with_a_longer_view_of_the_keys() -> None:
    keys = np.arange(10, dtype=np.int64)
    index = Index(keys[:4], np.arange(4))
    index.moved(keys)
    index.add(np.arange(4, 10))
    assert np.array_equal(index.find(keys), keys)
    assert index.find(np.array([10, -1])).tolist() == [-1, -1]
