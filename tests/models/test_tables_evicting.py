"""Evicting and admitting as users see them, on several servers; what is counted is what was pushed."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.updaters import Adam

COLS = 2


@pytest.fixture(scope="module")
def cluster() -> Iterator[glintpy.LocalCluster]:
    with glintpy.LocalCluster(3, scheme="local") as cluster:
        yield cluster


@pytest.fixture
def client(cluster: glintpy.LocalCluster) -> Iterator[glintpy.Client]:
    with cluster.client() as client:
        yield client
        for name in client.models():
            client.destroy(name)


@pytest.mark.parametrize("key_dtype", ["int64", "str"])
def test_uses_are_counted_and_the_least_used_go(client: glintpy.Client, key_dtype: str) -> None:
    table = client.table(COLS, track=True, updater=Adam(), key_dtype=key_dtype)
    keys: list[Any] = [str(key) for key in range(300)] if key_dtype == "str" else list(range(300))
    assert table.slots == ("mean", "variance", "steps", "touches", "touched")
    table.push(keys + keys[:3], 1)
    table.push(keys[:200], 1)
    table.push(keys[:100], 1)
    table.pull(keys[:1], create=True)
    table.pull(keys)  # of which nothing is noted
    assert table.pull_slot("touches", [keys[0], keys[1], keys[150], keys[250]]).result().tolist() == [
        4,
        3,
        2,
        1,
    ]
    times = table.pull_slot("touched", keys).result()
    assert times.dtype == np.float64
    assert times.min() > 1.6e9
    table.evict(fewer_than=2).result()
    assert sorted(table) == sorted(keys[:200])
    table.evict(max_rows=120, by="use").result()
    # Each server has its share of the 120, and what it keeps are the most used ones.
    assert 90 <= len(table) <= 120
    assert table.contains(keys[100:200]).result().sum() <= 30
    assert table.contains(keys[0]).result()
    table.evict(older_than=10_000).result()
    assert len(table) >= 90
    table.evict(max_rows=0).result()
    assert (len(table), list(table)) == (0, [])
    table.push(keys[:1], 1)
    assert table.pull_slot("touches", keys[0]).result() == 1


def test_many_small_pushes_under_way_at_once_are_as_many(client: glintpy.Client) -> None:
    tracking = client.table(COLS, track=True)
    admitting = client.table(COLS, admit_after=150, init=7)
    for table in (tracking, admitting):
        futures = [table.push([1, 2 + number], 1) for number in range(200)]
        glintpy.gather(*futures).result()
    assert tracking.pull_slot("touches", [1, 2]).result().tolist() == [200, 1]
    assert list(admitting) == [1]
    assert admitting.pull(1).result().tolist() == [7 + 51] * COLS


def test_keys_are_admitted_when_they_come_again(client: glintpy.Client, tmp_path: Path) -> None:
    table = client.table(COLS, admit_after=3, init=5, name="t")
    assert table.push_pull([1, 2, 1], 1).result()[:, 0].tolist() == [5, 5, 5]
    table.push([1], 1).result()
    assert len(table) == 0
    assert table.push_pull([1, 2], 1).result()[:, 0].tolist() == [6, 5]
    assert list(table) == [1]
    table.pull(9, create=True).result()  # who asks for a row gets one
    assert table.push_pull([9], 1).result()[:, 0].tolist() == [6]
    table.save(str(tmp_path))
    again = client.load(str(tmp_path), name="again", kind=glintpy.BigTable)
    assert (sorted(again), again.spec.admit_after) == ([1, 9], 3)
    assert again.push_pull([1, 7], 1).result()[:, 0].tolist() == [7, 5]


def test_uses_are_saved_with_their_rows(client: glintpy.Client, tmp_path: Path) -> None:
    table = client.table(COLS, track=True, name="t", updater="adagrad")
    keys = np.arange(1000)
    table.push(keys, 1)
    table.push(keys[::2], 1).result()
    table.save(str(tmp_path))
    with glintpy.LocalCluster(2, scheme="local") as other, other.client() as there:
        again = there.load(str(tmp_path), kind=glintpy.BigTable)
        for slot in table.slots:
            assert np.array_equal(again.pull_slot(slot, keys).result(), table.pull_slot(slot, keys).result())
        again.evict(fewer_than=2).result()
        assert sorted(again) == keys[::2].tolist()


@pytest.mark.parametrize(
    ("options", "match"),
    [
        ({}, "say what is to go"),
        ({"max_rows": -1}, "max_rows is an integer of at least 0, not -1"),
        ({"max_rows": True}, "not True"),
        ({"fewer_than": 1.5}, "fewer_than is an integer"),
        ({"older_than": -1.0}, "older_than is 0 to"),
        ({"older_than": float("nan")}, "not nan"),
        ({"older_than": "1"}, "older_than"),
        ({"max_rows": 1, "by": "size"}, 'by is "age" or "use"'),
    ],
)
def test_what_can_not_be_evicted(client: glintpy.Client, options: dict[str, Any], match: str) -> None:
    with pytest.raises(glintpy.ConfigError, match=match):
        client.table(COLS, track=True).evict(**options)
    with pytest.raises(glintpy.ConfigError, match="track=True"):
        client.table(COLS).evict(max_rows=3)
