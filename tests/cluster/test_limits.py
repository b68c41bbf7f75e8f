"""Limits hold and harm nobody else: memory that isn't there, and a client that doesn't read."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import glintpy
from glintpy import config
from tests.cluster.helpers import (
    PATIENCE_S,
    holdings,
    line_of,
    paused,
    program,
    resident_bytes,
    settled,
    until,
)

MIB = 1024 * 1024
LIMIT = 1 * MIB


@pytest.fixture(scope="module")
def small() -> Iterator[glintpy.LocalCluster]:
    """Two servers that may hold a mebibyte each."""
    with glintpy.LocalCluster(2, scheme="ipc", memory_limit=LIMIT) as cluster:
        yield cluster


def held_bytes(client: glintpy.Client) -> list[int]:
    return [held["model_bytes"] for _, held in sorted(holdings(client).items())]


def test_a_model_that_does_not_fit_is_refused_with_the_numbers_and_leaves_nothing(
    small: glintpy.LocalCluster,
) -> None:
    with small.client() as client:
        files = sum(1 for _ in small._private.rglob("*"))
        needed = 1000 * 300 * 8 // 2
        with pytest.raises(glintpy.NotEnoughMemory) as caught:
            client.matrix(1000, 300, name="big")
        assert isinstance(caught.value, MemoryError)
        for number in ("'big'", str(needed), str(LIMIT)):
            assert number in str(caught.value)
        until(lambda: held_bytes(client) == [0, 0], "nothing of it is reserved")
        assert sum(1 for _ in small._private.rglob("*")) == files
        assert client.models() == []
        with client.matrix(1000, 100, name="big") as smaller:  # the name is free
            assert smaller.push_pull([999], 1.0).result().sum() == 100
            assert held_bytes(client) == [400_000, 400_000]


@pytest.mark.parametrize(("share", "fits"), [(0.9, True), (1.0, True), (1.1, False), (20, False)])
def test_a_limit_is_met_to_the_byte(small: glintpy.LocalCluster, share: float, fits: bool) -> None:
    cells = 2 * (int(share * LIMIT) // 8)  # half of them on each server
    with small.client() as client:
        if fits:
            with client.vector(cells) as model:
                assert model.push_pull([cells - 1], 2.0).result()[0] == 2
                assert held_bytes(client) == [cells * 4, cells * 4]
        else:
            with pytest.raises(glintpy.NotEnoughMemory, match=f"needs {cells * 4} bytes"):
                client.vector(cells)
        until(lambda: held_bytes(client) == [0, 0], "nothing of it is reserved")


def test_a_model_that_fits_on_one_server_only_is_made_on_none(small: glintpy.LocalCluster) -> None:
    with small.client() as client, client.matrix(1, 100_000) as on_one:
        assert sorted(held_bytes(client)) == [0, 800_000]
        with pytest.raises(glintpy.NotEnoughMemory, match="have 800000"):
            client.matrix(2, 50_000, name="uneven")  # 400,000 bytes on each
        # The refusal comes back at once, the word to the other server is on its way.
        until(lambda: sorted(held_bytes(client)) == [0, 800_000], "nothing of it is reserved")
        with client.matrix(2, 30_000, name="uneven") as fits:
            assert fits.push_pull(None, 1.0).result().sum() == 60_000
        assert on_one.push_pull(None, 2.0).result().sum() == 200_000
    with small.client() as client:
        assert held_bytes(client) == [0, 0]


def test_what_is_destroyed_makes_room(small: glintpy.LocalCluster) -> None:
    with small.client() as client:
        for _ in range(5):
            with client.vector(200_000) as vector:  # 800,000 bytes on each
                vector.push(None, 1.0)
                with pytest.raises(glintpy.NotEnoughMemory):
                    client.vector(200_000)


def test_a_model_beyond_all_memory_is_refused_at_once(
    cluster: glintpy.LocalCluster, client: glintpy.Client
) -> None:
    with pytest.raises(glintpy.NotEnoughMemory, match="needs 4000000000000000 bytes"):
        client.vector(10**15, name="planet")
    with client.vector(10, name="planet", dtype="int64") as vector:
        assert vector.push_pull(None, 1).result().sum() == 10
    assert len(cluster.servers) == 2


# --- a client that doesn't read -----------------------------------------------------------------------------

GREEDY = """\
import sys
import threading
import glintpy

client = glintpy.Client(sys.argv[1], timeout_s=None, name="greedy")
model = client.open("wanted")
model.pull([0]).result()

def ask():
    while True:
        futures = [model.pull() for _ in range(50)]
        for future in futures:
            future.result()

threading.Thread(target=ask, daemon=True).start()
print("asking", flush=True)
sys.stdin.read()
"""

SERVER_GROWTH_BYTES_MAX = config.ServerSettings().window_bytes_max + 2 * config.KEPT_FREE_BYTES
"""A window of answers, and what the allocator keeps of those that were sent before: in the heap of the thread that
makes them, and in that of the one that sends them. Measured are 65 to 95 MiB."""


def test_a_client_that_asks_and_does_not_read_harms_nobody(
    cluster: glintpy.LocalCluster, client: glintpy.Client, tmp_path: Path
) -> None:
    wanted = client.vector(4_000_000, name="wanted")  # 16 MB on each server
    wanted.push(None, 1.0).result()
    wanted.pull().result()
    before = settled(client, [server.pid for server in cluster.servers])
    with program(tmp_path / "greedy.py", GREEDY, cluster.address) as process:
        assert line_of(process) == "asking"
        first = [held["pulls"] for held in holdings(client).values()]
        until(
            lambda: all(
                held["pulls"] > count + 100
                for held, count in zip(holdings(client).values(), first, strict=True)
            ),
            "it asks",
        )
        with paused(process.pid):
            until(lambda: is_still(client), "the servers have sent what there is room for")
            with client.vector(1000, dtype="int64") as other:
                for _ in range(200):
                    other.push(None, 1)
                    other.pull([0, 999]).result()
                assert np.array_equal(other.pull().result(), np.full(1000, 200))
            for _ in range(5):
                assert wanted.pull().result()[-1] == 1.0
            # It has manners: all that it may have under way lies in the network's own queue.
            assert not any(held["backlog_bytes"] for held in holdings(client).values())
            after = [resident_bytes(server.pid) for server in cluster.servers]
            grown = [size - start for size, start in zip(after, before, strict=True)]
            assert max(grown) < SERVER_GROWTH_BYTES_MAX, grown
            process.kill()
        process.wait(PATIENCE_S)
        until(lambda: len(client.clients()) == 1, "the greedy one is forgotten")
        until(lambda: not any(held["backlog_bytes"] for held in holdings(client).values()), "its answers are")


def is_still(client: glintpy.Client) -> bool:
    """Tell whether the servers handle no pulls but those of this client, which makes none."""
    first = [held["pulls"] for held in holdings(client).values()]
    return all(first == [held["pulls"] for held in holdings(client).values()] for _ in range(5))
