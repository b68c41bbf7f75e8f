"""Large pulls and pushes, again and again: neither the client's nor a server's memory grows."""

from __future__ import annotations

import time

import numpy as np
import pytest

import glintpy
from glintpy import config
from tests.cluster.helpers import resident_bytes, settled

MIB = 1024 * 1024
NUM_CELLS = 6_400_000
"""51.2 MB of float64."""

GROWTH_BYTES_MAX = config.KEPT_FREE_BYTES + 64 * MIB
"""What a process may keep of freed memory, and little more than one array: a single one kept a round would be many
times that."""

WARM_UP = 5


def one_round(vector: glintpy.BigVector, values: np.ndarray[tuple[int], np.dtype[np.float64]]) -> None:
    vector.push(None, values)
    vector.pull().result()


def sizes(cluster: glintpy.LocalCluster, client: glintpy.Client) -> dict[str, int]:
    pids = {"master": cluster.master_pid, **{f"server {s.index}": s.pid for s in cluster.servers}}
    found = settled(client, list(pids.values()))
    return {"client": resident_bytes(), **dict(zip(pids, found, strict=True))}


def growth(before: dict[str, int], after: dict[str, int]) -> dict[str, int]:
    return {name: after[name] - size for name, size in before.items()}


def test_fifteen_rounds_of_51_megabytes(cluster: glintpy.LocalCluster, client: glintpy.Client) -> None:
    vector = client.vector(NUM_CELLS)
    values = np.ones(NUM_CELLS)
    for _ in range(WARM_UP):
        one_round(vector, values)
    before = sizes(cluster, client)
    for _ in range(15):
        one_round(vector, values)
    grown = growth(before, sizes(cluster, client))
    assert max(grown.values()) < GROWTH_BYTES_MAX, grown
    assert np.array_equal(vector.pull().result(), np.full(NUM_CELLS, 20.0))


@pytest.mark.soak
def test_a_minute_of_51_megabytes(cluster: glintpy.LocalCluster, client: glintpy.Client) -> None:
    vector = client.vector(NUM_CELLS)
    values = np.ones(NUM_CELLS)
    for _ in range(WARM_UP):
        one_round(vector, values)
    before, end, num_rounds = sizes(cluster, client), time.monotonic() + 60, WARM_UP
    while time.monotonic() < end:
        one_round(vector, values)
        num_rounds += 1
    grown = growth(before, sizes(cluster, client))
    assert max(grown.values()) < GROWTH_BYTES_MAX, grown
    assert np.array_equal(vector.pull().result(), np.full(NUM_CELLS, float(num_rounds)))


def test_pushes_that_nobody_waits_for_are_bounded(
    cluster: glintpy.LocalCluster, client: glintpy.Client
) -> None:
    # Two gigabytes are pushed; what waits in this process is bounded by queued_bytes_max a server, twice 64 MiB.
    vector = client.vector(NUM_CELLS)
    values = np.ones(NUM_CELLS)
    one_round(vector, values)
    before = sizes(cluster, client)
    for _ in range(40):
        vector.push(None, values)
    grown = growth(before, sizes(cluster, client))
    assert grown["client"] < 256 * MIB, grown
    client.flush()
    assert vector[0] == 41.0
