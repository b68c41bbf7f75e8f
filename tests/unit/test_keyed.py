"""Keys nobody declared: one partition each, written down, evenly spread, and every share in the caller's order."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glintpy.errors import ConfigError, ShapeError
from glintpy.partitioning.keyed import NUM_PARTITIONS, KeyedLayout, mixed, partition_of

SPECIFICATION = Path(__file__).parents[2] / "docs" / "protocol.md"
KEYS = st.integers(-(2**63), 2**63 - 1)


def examples() -> list[tuple[int, int, int]]:
    text = (
        SPECIFICATION.read_text(encoding="utf-8").split("\n### Tables and keys\n", 1)[1].split("\n### ", 1)[0]
    )
    rows = re.findall(r"^\| (-?\d+) \| `([0-9a-f]{16})` \| (\d+) \|$", text, re.MULTILINE)
    return [(int(key), int(mix, 16), int(partition)) for key, mix, partition in rows]


def test_the_mix_is_the_one_in_the_specification() -> None:
    assert len(examples()) >= 8
    for key, mix, partition in examples():
        keys = np.array([key], np.int64)
        assert (int(mixed(keys)[0]), int(partition_of(keys)[0])) == (mix, partition)


def test_mixing_leaves_the_keys_alone() -> None:
    keys = np.arange(5, dtype=np.int64)
    mixed(keys)
    assert keys.tolist() == [0, 1, 2, 3, 4]


@pytest.mark.parametrize("step", [1, 7, 1024, 2**32])
def test_keys_are_spread_evenly_whatever_they_are(step: int) -> None:
    num_keys = 100 * NUM_PARTITIONS
    counts = np.bincount(partition_of(np.arange(num_keys, dtype=np.int64) * step), minlength=NUM_PARTITIONS)
    # A fair hash leaves about 100 +- 10 in each.
    assert 40 <= counts.min() <= counts.max() <= 180


@given(st.lists(KEYS, max_size=50), st.integers(1, 300))
def test_each_key_is_in_the_share_of_its_server_in_order(keys: list[int], num_servers: int) -> None:
    layout = KeyedLayout(np.arange(NUM_PARTITIONS) % num_servers, num_servers)
    asked = np.array(keys, np.int64)
    shares = layout.locate(asked)
    assert [share.server for share in shares] == sorted({share.server for share in shares})
    found = np.zeros(len(asked), np.int64)
    for share in shares:
        found[share.positions] += 1
        assert np.array_equal(asked[share.positions], share.rows)
        assert set(layout.servers_of(asked[share.positions]).tolist()) == {share.server}
        positions = np.arange(len(asked))[share.positions]
        assert np.all(np.diff(positions) > 0)
        assert not np.shares_memory(share.rows, asked)
    assert found.tolist() == [1] * len(asked)


def test_owners_that_are_no_servers_are_refused() -> None:
    with pytest.raises(ShapeError, match="1024 partitions"):
        KeyedLayout(np.zeros(3, np.int64), 1)
    with pytest.raises(ConfigError, match="0 to 2 of 2"):
        KeyedLayout(np.arange(NUM_PARTITIONS) % 3, 2)
