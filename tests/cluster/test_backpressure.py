"""Whoever is too slow waits, and nobody else: clients that don't read, and servers that can't keep up."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np
import pytest

import glintpy
from glintpy import config
from glintpy.errors import PushOutcomeUnknown, PushRefused
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
from tests.cluster.raw_clients import RawClient

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and the kernel's counters")

MIB = config.MIB
MEGABYTE_CELLS = MIB // 8

ASKS = """\
import sys
import glintpy

with glintpy.Client(sys.argv[1], timeout_s=None) as client:
    model = client.open("wanted")
    model.pull([0]).result()
    pulls = [model.pull() for _ in range(int(sys.argv[2]))]
    print("asked", flush=True)
    sys.stdin.readline()
    print(sum(bool((pull.result() == 3).all()) for pull in pulls))
"""


def is_still(client: glintpy.Client) -> bool:
    """Tell whether the servers handle no pulls but those of this client, which makes none."""
    first = [held["pulls"] for held in holdings(client).values()]
    return all(first == [held["pulls"] for held in holdings(client).values()] for _ in range(5))


@pytest.mark.parametrize("num_pulls", [100, pytest.param(1500, marks=pytest.mark.soak)])
def test_a_client_that_stands_still_costs_a_window_and_gets_all_it_asked_for_when_it_goes_on(
    cluster: glintpy.LocalCluster, client: glintpy.Client, tmp_path: Path, num_pulls: int
) -> None:
    wanted = client.vector(2 * MEGABYTE_CELLS, name="wanted")  # a megabyte on each server
    wanted.push(None, 3.0).result()
    for future in [wanted.pull() for _ in range(100)]:
        future.result()  # the allocator has its share from here on
    before = settled(client, [server.pid for server in cluster.servers])
    with program(tmp_path / "asks.py", ASKS, cluster.address, num_pulls) as process:
        assert process.stdin is not None
        assert line_of(process) == "asked"
        with paused(process.pid):
            until(lambda: is_still(client), "the servers have sent what there is room for")
            with client.vector(1000, dtype="int64") as other:
                for _ in range(100):
                    other.push(None, 1)
                assert np.array_equal(other.pull().result(), np.full(1000, 100))
            after = [resident_bytes(server.pid) for server in cluster.servers]
            grown = [size - start for size, start in zip(after, before, strict=True)]
            # A window of answers; the allocator keeps as many again that were sent before.
            assert max(grown) < 64 * MIB + config.KEPT_FREE_BYTES, [size // MIB for size in grown]
        output, errors = process.communicate("\n", timeout=PATIENCE_S)
        assert process.returncode == 0, errors
        assert output.split() == [str(num_pulls)]


def test_one_that_asks_for_more_than_its_window_and_never_reads_is_bounded_in_bytes(
    cluster: glintpy.LocalCluster, client: glintpy.Client
) -> None:
    wanted = client.vector(2 * MEGABYTE_CELLS)
    wanted.push(None, 3.0).result()
    server = cluster.servers[0]
    (before,) = settled(client, [server.pid])
    greedy = RawClient(server.address)
    try:
        greedy.hello()
        first = holdings(client)["server-0"]["pulls"]
        for _ in range(400):
            greedy.send(greedy.pull(wanted._info.model_id, MEGABYTE_CELLS))
        until(lambda: holdings(client)["server-0"]["pulls"] >= first + 400, "all are answered or dropped")
        assert holdings(client)["server-0"]["dropped"] > 0
        bound = config.ServerSettings().window_bytes_max + config.ServerSettings().answers_bytes_max
        assert resident_bytes(server.pid) < before + bound + config.KEPT_FREE_BYTES + 16 * MIB
        assert (wanted.pull().result() == 3).all()
    finally:
        greedy.close()
    until(lambda: not holdings(client)["server-0"]["backlog_bytes"], "what was kept for it is dropped")
    until(
        lambda: resident_bytes(server.pid) < before + config.KEPT_FREE_BYTES + 16 * MIB,
        "its memory is given back",
    )


# --- a server that can't keep up -----------------------------------------------------------------------------

PRODUCES = """\
import sys
import numpy as np
import glintpy

with glintpy.Client(sys.argv[1], timeout_s=None) as client:
    model = client.open("filled")
    ones = np.ones(len(model), np.int64)
    model.push(None, ones).result()
    print("ready", flush=True)
    sys.stdin.readline()
    for _ in range(int(sys.argv[2])):
        model.push(None, ones)
    client.flush()
    print("flushed", flush=True)
"""

CLIENT_GROWTH_BYTES_MAX = (
    config.ClientSettings().queued_bytes_max
    + config.ServerSettings().window_bytes_max
    + 3 * config.KEPT_FREE_BYTES
)
"""What is accepted for the server that stands still, what libzmq has a copy of, and what the allocator keeps: in the
heaps of the thread that pushes, of the one that sends for it, and of libzmq's own."""

SERVER_GROWTH_BYTES_MAX = 96 * MIB


@pytest.mark.parametrize("num_pushes", [150, pytest.param(5000, marks=pytest.mark.soak)])
def test_a_producer_waits_for_a_server_that_can_t_keep_up_and_nothing_is_lost(
    client: glintpy.Client, cluster: glintpy.LocalCluster, tmp_path: Path, num_pushes: int
) -> None:
    filled = client.vector(2 * MEGABYTE_CELLS, name="filled", dtype="int64")
    servers = [server.pid for server in cluster.servers]
    with program(tmp_path / "produces.py", PRODUCES, cluster.address, num_pushes) as process:
        assert process.stdin is not None
        assert line_of(process) == "ready"
        before = dict(zip(servers, settled(client, servers), strict=True))
        before[process.pid] = resident_bytes(process.pid)
        largest = dict(before)

        def note() -> None:
            for pid, size in largest.items():
                largest[pid] = max(size, resident_bytes(pid))

        with paused(servers[0]):  # for a while one is not only slow
            process.stdin.write("\n")
            process.stdin.flush()
            ticks: list[int] = []

            def is_blocked() -> bool:
                note()
                ticks.append(processor_ticks(process.pid))
                # Ten looks, and no more processor time between them than its own clockwork takes.
                return len(ticks) > 10 and ticks[-1] - ticks[-10] <= 3

            until(is_blocked, "the producer waits")
        while filled.pull([0]).result()[0] < num_pushes + 1:
            note()
        assert line_of(process) == "flushed"
        growth = {pid: (largest[pid] - before[pid]) // MIB for pid in largest}
        assert growth[process.pid] < CLIENT_GROWTH_BYTES_MAX // MIB, growth
        assert max(growth[pid] for pid in servers) < SERVER_GROWTH_BYTES_MAX // MIB, growth
    assert (filled.pull().result() == num_pushes + 1).all()


def processor_ticks(pid: int) -> int:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return int(fields[11]) + int(fields[12])


def test_a_push_waits_for_room_no_longer_than_its_time_and_its_failure_tells_the_truth(
    cluster: glintpy.LocalCluster, client: glintpy.Client
) -> None:
    client.vector(2 * MEGABYTE_CELLS, name="filled", dtype="int64").push(None, 0).result()
    with cluster.client(timeout_s=1.0) as hasty:
        filled = hasty.open("filled")
        ones = np.ones(len(filled), np.int64)
        filled.push(None, ones).result()
        futures = []
        with paused(cluster.servers[0].pid):
            longest_s = 0.0
            while longest_s < 0.3:  # until one has waited for room
                began = time.monotonic()
                futures.append(filled.push(None, ones))
                longest_s = time.monotonic() - began
                assert len(futures) < 500
            outcomes = [future.exception(PATIENCE_S) for future in futures]
        assert all(isinstance(error, PushOutcomeUnknown | PushRefused) for error in outcomes if error)
        assert any(isinstance(error, PushOutcomeUnknown) for error in outcomes)
    num_unknown = sum(isinstance(error, PushOutcomeUnknown) for error in outcomes)
    num_applied = sum(error is None for error in outcomes)
    filled = client.open("filled")
    filled.push(None, ones).result()
    found = filled.pull().result()
    assert found.min() >= 2 + num_applied
    assert found.max() <= 2 + num_applied + num_unknown
