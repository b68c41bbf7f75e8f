"""Hypothesis strategies for sizes, keys, slices and layouts; knows no model and no network."""

from __future__ import annotations

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from glintpy.partitioning import Layout, Partitioner, named
from glintpy.testing.partitioners import TablePartitioner

ForwardSlice = tuple[int, int, int]
"""(start, stop, step) with 0 <= start <= stop <= size and step >= 1."""


def sizes(*, largest: int = 200) -> st.SearchStrategy[int]:
    """Draw a number of keys, rows or columns; zero and one are among them.

    Args:
        largest: the largest drawn.
    """
    return st.integers(0, largest)


def keys(num_keys: int, *, longest: int = 60) -> st.SearchStrategy[NDArray[np.int64]]:
    """Draw (n,) int64 keys in any order, with repeats.

    Args:
        num_keys: keys are in [0, num_keys); none are drawn if it is 0.
        longest: the most keys drawn.
    """
    if num_keys == 0:
        return st.builds(lambda: np.empty(0, dtype=np.int64))
    numbers = st.lists(st.integers(0, num_keys - 1), max_size=longest)
    return numbers.map(lambda drawn: np.array(drawn, dtype=np.int64))


@st.composite
def forward_slices(draw: st.DrawFn, num_keys: int) -> ForwardSlice:
    """Draw a slice that runs forward inside [0, num_keys], empty and whole ones among them.

    Args:
        draw: hypothesis's own.
        num_keys: where the slice ends at the latest.
    """
    start = draw(st.integers(0, num_keys))
    stop = draw(st.integers(start, num_keys))
    # Small steps meet partitions most often; a large one must do no harm.
    step = draw(st.integers(1, 12) | st.integers(1, num_keys + 2) | st.just(2**70))
    return draw(st.sampled_from([(start, stop, step), (0, num_keys, 1), (0, num_keys, step)]))


@st.composite
def partitioners(draw: st.DrawFn, *, num_keys: int | None = None, most_partitions: int = 12) -> Partitioner:
    """Draw a range, cyclic or table partitioner, with empty partitions at times.

    Args:
        draw: hypothesis's own.
        num_keys: keys; None: some number of them.
        most_partitions: the largest number of partitions.
    """
    count = draw(sizes()) if num_keys is None else num_keys
    num_partitions = draw(st.integers(1, most_partitions))
    kind = draw(st.sampled_from(["range", "cyclic", "table"]))
    if kind == "table":
        seed = draw(st.integers(0, 2**32 - 1))
        assignment = np.random.default_rng(seed).integers(num_partitions, size=count)
        return TablePartitioner(assignment, num_partitions)
    return named(kind, count, num_partitions)


@st.composite
def layouts(draw: st.DrawFn, *, most_servers: int = 12) -> Layout:
    """Draw a layout: partitions dealt out in turn, as a new model's are, or anyhow, as after moves.

    Args:
        draw: hypothesis's own.
        most_servers: the largest number of servers.
    """
    partitioner = draw(partitioners())
    num_servers = draw(st.integers(1, most_servers))
    in_turn = np.arange(partitioner.num_partitions, dtype=np.int64) % num_servers
    anyhow = st.lists(
        st.integers(0, num_servers - 1),
        min_size=partitioner.num_partitions,
        max_size=partitioner.num_partitions,
    )
    owners = draw(st.just(in_turn) | anyhow.map(lambda drawn: np.array(drawn, dtype=np.int64)))
    return Layout(partitioner, owners, num_servers)
