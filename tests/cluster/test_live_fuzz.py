"""Frames that were right once, sent to a running server and master: both live, count exactly and serve others."""

from __future__ import annotations

import random
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress

import msgpack
import numpy as np
import pytest

import glintpy
from glintpy import config
from glintpy.protocol import wire
from glintpy.protocol.kinds import message_types
from glintpy.protocol.messages import VERSION, Hello, Message
from tests.cluster.helpers import resident_bytes, until
from tests.cluster.raw_clients import RawClient
from tests.cluster.raw_sockets import message
from tests.models.raw_peer import any_message

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MIB = config.MIB

Frames = list[bytes]

HARMFUL = {"Join", "DestroyModel", "DestroyShard", "PublishModel", "Leave"}
"""Messages that mean what they say whoever sends them, as long as there are no keys: only ever sent out of shape."""


# --- what is right, and how it goes wrong -------------------------------------------------------------------


def right_frames(client: RawClient, model_id: int) -> list[Frames]:
    """Return one message of each kind, with a session that is known and a model that isn't watched."""
    pushes: list[Message] = [
        client.push(model_id, np.array([1, 2]), np.array([3, 4])),
        client.pull(model_id, 5),
        client.probe(),
        Hello(9, VERSION, VERSION, "", client.client_id, client.session, 1),
    ]
    others = [
        any_message(kind, request_id=7, model_id=2**40 + 12345)
        for kind in message_types().values()
        if kind.__name__ not in HARMFUL
    ]
    return [[bytes(part) for part in wire.encode(one)] for one in (*pushes, *others)]


def flip(draw: random.Random, frames: Frames, _: list[Frames]) -> Frames:
    at = draw.randrange(len(frames))
    changed = bytearray(frames[at] or b"\0")
    for _bit in range(draw.choice((1, 1, 2, 8))):
        changed[draw.randrange(len(changed))] ^= 1 << draw.randrange(8)
    return [*frames[:at], bytes(changed), *frames[at + 1 :]]


def cut_short(draw: random.Random, frames: Frames, _: list[Frames]) -> Frames:
    at = draw.randrange(len(frames))
    return [*frames[:at], frames[at][: draw.randrange(len(frames[at]) + 1)], *frames[at + 1 :]]


def make_longer(draw: random.Random, frames: Frames, _: list[Frames]) -> Frames:
    at = draw.randrange(len(frames))
    return [*frames[:at], frames[at] + draw.randbytes(draw.choice((1, 8, 5000))), *frames[at + 1 :]]


def lose_one(draw: random.Random, frames: Frames, _: list[Frames]) -> Frames:
    at = draw.randrange(len(frames))
    return [*frames[:at], *frames[at + 1 :]] or [b""]


def say_twice(draw: random.Random, frames: Frames, _: list[Frames]) -> Frames:
    at = draw.randrange(len(frames))
    return [*frames[: at + 1], *frames[at:]] * draw.choice((1, 1, 20))


def mix(draw: random.Random, frames: Frames, known: list[Frames]) -> Frames:
    return [*frames[: draw.randrange(len(frames) + 1)], *draw.choice(known)]


def say_something_else(draw: random.Random, frames: Frames, _: list[Frames]) -> Frames:
    fields: list[object] = [
        draw.choice((0, -1, 2**63, 2**64 - 1, 1.5, None, True, b"", b"x" * 16, "x" * 700, [[]] * 9, {}))
        for _field in range(draw.randrange(12))
    ]
    kind = draw.choice((*message_types(), 0, 255, 2**40))
    if kind in message_types() and message_types()[kind].__name__ in HARMFUL:
        kind = 0
    descriptors = [
        [draw.randrange(12), *(draw.choice((0, 1, -1, 2**62)) for _ in range(3))]
    ] * draw.randrange(6)
    packed: bytes = msgpack.packb([VERSION, kind, fields, descriptors], use_bin_type=True)
    return [packed, *frames[1:]]


MUTATIONS: tuple[Callable[[random.Random, Frames, list[Frames]], Frames], ...] = (
    flip,
    flip,
    flip,
    cut_short,
    make_longer,
    lose_one,
    say_twice,
    mix,
    say_something_else,
)


# --- against what runs -----------------------------------------------------------------------------------------


class Stranger:
    """Sends frames to an address, and comes back when it was sent away."""

    def __init__(self, address: str, model_id: int) -> None:
        self._address = address
        self._model_id = model_id
        self._client = self._new()
        try:
            self.known = right_frames(self._client, model_id)
        except BaseException:
            self.close()
            raise

    def _new(self) -> RawClient:
        client = RawClient(self._address)
        client.hello()
        client.session = client.session or bytes(16)  # a master gives none
        return client

    def send(self, frames: Sequence[bytes], *, torn: bool) -> None:
        """Send frames, or only half of their bytes and go."""
        said = message(frames)
        try:
            self._client.connection.sendall(said[: len(said) // 2] if torn else said)
            self._drain()
        except OSError:
            torn = True
        if torn:
            self._client.close()
            self._client = self._new()

    def _drain(self) -> None:
        connection = self._client.connection
        connection.setblocking(False)
        with suppress(BlockingIOError):
            while connection.recv(1 << 16):
                pass
        connection.settimeout(60)

    def close(self) -> None:
        self._client.close()


@pytest.mark.parametrize("number", [500, pytest.param(20_000, marks=pytest.mark.soak)])
def test_a_server_and_a_master_take_whatever_comes_and_serve_on_exactly(
    cluster: glintpy.LocalCluster, client: glintpy.Client, number: int, seed: int
) -> None:
    draw = random.Random(seed)
    watched = client.matrix(50, 4, dtype="float32")
    scratch = client.vector(100, dtype="int64")
    watched.push(None, 1.0).result()
    doors = [
        Stranger(cluster.servers[0].address, scratch._info.model_id),
        Stranger(cluster.address, scratch._info.model_id),
    ]
    pids = [cluster.servers[0].pid, cluster.master_pid]
    before = [resident_bytes(pid) for pid in pids]
    num_pushes = 1
    try:
        for sent in range(number):
            stranger = doors[sent % 2]
            frames = draw.choice(stranger.known)
            for _ in range(draw.choice((0, 1, 1, 1, 2, 3))):
                frames = draw.choice(MUTATIONS)(draw, frames, stranger.known)
            stranger.send(frames, torn=draw.random() < 0.02)
            if sent % 50 == 0:
                watched.push(None, 1.0).result()
                num_pushes += 1
    finally:
        for stranger in doors:
            stranger.close()
    assert cluster.master_is_alive
    assert all(server.is_alive for server in cluster.servers)
    assert (watched.pull().result() == num_pushes).all()
    assert scratch.pull().result().shape == (100,)
    grown = [resident_bytes(pid) - size for pid, size in zip(pids, before, strict=True)]
    assert max(grown) < 96 * MIB, [size // MIB for size in grown]
    with cluster.client() as late, late.vector(10, dtype="int64") as fresh:
        fresh.push(None, 1).result()
        assert fresh.pull().result().sum() == 10
    until(lambda: len(client.servers()) == 2, "nobody else is taken for a server")
