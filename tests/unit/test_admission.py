"""Keys get a row when they have been pushed often enough: never later, and hardly ever sooner."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glintpy.errors import ConfigError
from glintpy.storage import admission
from glintpy.storage.admission import COUNT_MAX, Admission
from tests.unit.tables import a_spec, a_table, keys_of, ones


@given(st.lists(st.lists(st.integers(0, 20), max_size=8, unique=True), max_size=20), st.integers(1, 4))
def test_a_key_is_in_when_it_was_counted_so_often(pushes: list[list[int]], least: int) -> None:
    counting = Admission(least)
    counts: dict[int, int] = {}
    for keys in pushes:
        found = counting.count(np.array(keys, np.int64))
        for key in keys:
            counts[key] = counts.get(key, 0) + 1
        assert found.tolist() == [counts[key] >= least for key in keys]


def test_few_come_in_too_soon_and_none_too_late() -> None:
    counting = Admission(2)
    keys = np.arange(300_000) * 7_919 - 5
    too_soon = int(counting.count(keys).sum())
    assert too_soon < 3_000
    assert counting.count(keys).all()


def test_counts_reach_their_most_and_stay() -> None:
    counting = Admission(COUNT_MAX)
    found = [bool(counting.count(keys_of(3))[0]) for _ in range(COUNT_MAX + 3)]
    assert found == [False] * (COUNT_MAX - 1) + [True] * 4


def test_counts_are_halved_after_so_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admission, "_HALVED_AFTER", 10)
    counting = Admission(4)
    for _ in range(3):
        assert not counting.count(keys_of(1))[0]
    counting.count(np.arange(100, 107))  # the tenth: 3 become 1
    assert [bool(counting.count(keys_of(1))[0]) for _ in range(3)] == [False, False, True]


def test_a_table_lets_keys_in_that_it_has_or_that_come_again() -> None:
    table = a_table(admit_after=2)
    assert table.admission is not None
    assert table.num_bytes > a_table().num_bytes + table.admission.num_bytes - 1
    table.push_keys(keys_of(1), ones(1))
    # However often a push names a key, it is one.
    assert table.admit(keys_of(1, 2, 2, 3, 1)).tolist() == [True, False, False, False, True]
    assert table.admit(keys_of(3, 4, 3)).tolist() == [True, False, True]
    assert table.num_keys == 1


@pytest.mark.parametrize("admit_after", [0, 1])
def test_one_push_is_enough_unless_more_are_asked_for(admit_after: int) -> None:
    assert a_table(admit_after=admit_after).admission is None


@pytest.mark.parametrize("admit_after", [-1, 256, 1.5, True, "2", None])
def test_other_numbers_of_pushes_are_refused(admit_after: object) -> None:
    with pytest.raises(ConfigError, match="admit_after is 0 to 255 pushes"):
        a_spec(admit_after=admit_after)
