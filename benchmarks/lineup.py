"""Who takes part: glintpy, the floors, and the peers that were asked for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

from benchmarks.floors.frames import Frames
from benchmarks.floors.memory import Copying, Numpy
from benchmarks.floors.sockets import Sockets
from benchmarks.ours import Glintpy
from benchmarks.peers.mxnet import Mxnet
from benchmarks.peers.ray import Ray
from benchmarks.peers.redis import Redis, RedisAdd
from benchmarks.system import System

Scheme = Literal["tcp", "ipc"]

SCHEMES: tuple[Scheme, ...] = ("tcp", "ipc")

PEERS = ("redis", "ray", "mxnet")

ORDER = ("glintpy", "socket", "zmq", "memcpy", "numpy", "redis", "redis add", "ray", "mxnet")
"""Of the columns in tables."""


def systems(schemes: Sequence[Scheme], peers: Sequence[str]) -> list[System]:
    """Return everybody, none of them started.

    Args:
        schemes: over what, for those who have a choice.
        peers: which of them.
    """
    found: list[System] = []
    for scheme in schemes:
        found += [Glintpy(scheme), Sockets(scheme), Frames(scheme)]
        if "redis" in peers:
            found.append(Redis(scheme))
    found += [Copying(), Numpy()]
    if "redis" in peers:
        found.append(RedisAdd("tcp"))
    if "ray" in peers:
        found.append(Ray())
    if "mxnet" in peers:
        found.append(Mxnet())
    return found
