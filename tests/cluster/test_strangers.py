"""Strangers at the sockets: garbage, silence, messages without end, no descriptor left; and clients are served."""

from __future__ import annotations

import os
import random
import resource
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

import glintpy
from glintpy import config
from tests.cluster.helpers import num_descriptors, resident_bytes, until
from tests.cluster.raw_sockets import (
    GREETING,
    TLS_HELLO,
    connected,
    frame,
    greeted,
    is_cut,
    many,
    ready,
)

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc, and the kernel's counters")

MIB = config.MIB

ENDLESS_BYTES = 300 * MIB
"""What a hostile peer tries to send: several times what may stay."""

GROWTH_BYTES_MAX = 2 * config.FRAME_BYTES_MAX + 96 * MIB
"""One message that has not ended, and as much again as a fast sender is ahead by between two looks."""


LEFT_BYTES_MAX = 2 * config.KEPT_FREE_BYTES
"""In the heap of the thread that reads messages, and in that of the one that receives them."""


@contextmanager
def served_throughout(client: glintpy.Client) -> Iterator[glintpy.BigVector]:
    """See that a client with manners is served before, within and behind, exactly."""
    with client.vector(1000, dtype="int64") as vector:
        vector.push(None, 1).result()
        yield vector
        vector.push(None, 1).result()
        total = int(vector.pull().result().sum())
        assert total % 1000 == 0
        assert total >= 2000


@pytest.fixture(params=["master", "server"])
def door(request: pytest.FixtureRequest, cluster: glintpy.LocalCluster) -> tuple[int, str]:
    """The process of a node, and the address that strangers come to."""
    if request.param == "master":
        return cluster.master_pid, cluster.address
    return cluster.servers[0].pid, cluster.servers[0].address


@pytest.mark.parametrize(
    "frame_bytes",
    [MIB, pytest.param(100, marks=pytest.mark.soak), pytest.param(10_000, marks=pytest.mark.soak)],
)
def test_a_message_without_end_is_cut_and_leaves_no_memory_behind(
    door: tuple[int, str], client: glintpy.Client, frame_bytes: int
) -> None:
    piece = frame(bytes(frame_bytes), more=True) * max(1, 2**18 // frame_bytes)
    pid, address = door
    before = resident_bytes(pid)
    with served_throughout(client) as vector, greeted(address) as stranger:
        num_sent = 0
        largest = 0
        try:
            while num_sent < ENDLESS_BYTES:
                stranger.sendall(piece)
                num_sent += len(piece)
                largest = max(largest, resident_bytes(pid))
        except (BrokenPipeError, ConnectionResetError):
            pass  # what it is for: at once, rather than that nobody reads any more
        assert num_sent < ENDLESS_BYTES
        # zmq_msg_t has 64 bytes, whatever is in it.
        assert largest - before < GROWTH_BYTES_MAX * (frame_bytes + 64) // frame_bytes
        vector.push(None, 1).result()
    until(
        lambda: resident_bytes(pid) < before + LEFT_BYTES_MAX,
        "its memory is given back",
    )


@pytest.mark.soak
def test_a_message_of_empty_frames_is_cut_too(door: tuple[int, str], client: glintpy.Client) -> None:
    pid, address = door
    before = resident_bytes(pid)
    with served_throughout(client), greeted(address) as stranger:
        piece = frame(b"", more=True) * 100_000
        with pytest.raises(OSError, match=r"Broken pipe|reset"):
            stranger.sendall(piece * (ENDLESS_BYTES // len(piece)))
    until(
        lambda: resident_bytes(pid) < before + LEFT_BYTES_MAX,
        "its memory is given back",
    )


@pytest.mark.parametrize("num_strangers", [400, pytest.param(4000, marks=pytest.mark.soak)])
def test_garbage_harms_nobody_and_leaves_nothing(
    door: tuple[int, str], client: glintpy.Client, num_strangers: int, seed: int
) -> None:
    draw = random.Random(seed)
    pid, address = door
    with served_throughout(client) as vector:
        num_open, before = num_descriptors(pid), resident_bytes(pid)
        for number in range(num_strangers):
            said = (
                draw.randbytes(draw.randrange(1, 200)),
                b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n",
                TLS_HELLO,
                GREETING[: draw.randrange(1, len(GREETING))],
                GREETING + ready(b"REQ"),
                GREETING + ready() + frame(draw.randbytes(50)),
            )[number % 6]
            with connected(address) as stranger:
                stranger.sendall(said)
            if number % 50 == 0:
                vector.push(None, 1).result()
        until(lambda: num_descriptors(pid) <= num_open, "all are closed")
        assert resident_bytes(pid) < before + 48 * MIB


@pytest.mark.soak
def test_silent_strangers_are_sent_away(door: tuple[int, str], client: glintpy.Client) -> None:
    pid, address = door
    with served_throughout(client) as vector:
        num_open = num_descriptors(pid)  # with this client's own
        with many(connected(address) for _ in range(200)) as strangers:
            until(lambda: num_descriptors(pid) >= num_open + 200, "all are in")
            vector.push(None, 1).result()
            until(lambda: all(map(is_cut, strangers)), "all are out")
        until(lambda: num_descriptors(pid) <= num_open, "nothing is left of them")


@contextmanager
def limited_descriptors(pid: int, num_free: int) -> Iterator[None]:
    """Leave a process so many descriptors."""
    limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
    highest = max(int(name) for name in os.listdir(f"/proc/{pid}/fd"))  # noqa: PTH208 - names, not paths
    resource.prlimit(pid, resource.RLIMIT_NOFILE, (highest + 1 + num_free, limits[1]))
    try:
        yield
    finally:
        resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)


def test_with_all_descriptors_taken_those_inside_are_served_and_others_when_there_is_room_again(
    door: tuple[int, str], cluster: glintpy.LocalCluster, client: glintpy.Client
) -> None:
    pid, address = door
    with served_throughout(client) as vector, limited_descriptors(pid, 8):
        with many(connected(address) for _ in range(30)):
            until(lambda: is_full(pid), "no descriptor is left")
            for _ in range(20):
                vector.push(None, 1).result()
        with cluster.client() as late, late.vector(10, dtype="int64") as other:
            other.push(None, 1).result()
            assert other.pull().result().sum() == 10


def is_full(pid: int) -> bool:
    limit = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    return max(int(name) for name in os.listdir(f"/proc/{pid}/fd")) >= limit - 1  # noqa: PTH208 - names, not paths
