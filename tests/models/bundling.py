"""Two servers and a client whose small requests travel together; knows no test."""

from __future__ import annotations

import itertools
import os
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import glintpy
from glintpy.nodes import Node, start_master, start_server
from tests.holding import Gate, gated, shard_of

ROWS, COLS = 60, 4
HALF = ROWS // 2

_names = itertools.count()


@dataclass(eq=False)
class Pair:
    """Two servers in this process, and a client whose small requests stay together until a caller does something.

    Attributes:
        gate: a vector of one key at the first server, by which that is held.
        matrix: its first half lies at the first server.
    """

    servers: list[Node]
    address: str
    client: glintpy.Client
    gate: glintpy.BigVector
    matrix: glintpy.BigMatrix
    vector: glintpy.BigVector

    @contextmanager
    def held(self) -> Iterator[Gate]:
        """Hold the first server: something is under way, until the block is left."""
        with gated(self.servers[0], self.gate) as gate:
            yield gate

    def count_pushes(self) -> list[int]:
        """Return a list that grows by the rows of each push that a server handles."""
        sizes: list[int] = []
        for server in self.servers:
            shard = shard_of(server, self.matrix)
            shard.push = self._counting(shard.push, sizes)
        return sizes

    def _counting(self, push: Callable[..., None], sizes: list[int]) -> Callable[..., None]:
        def counting(selection: Any, deltas: Any, **named: Any) -> None:
            sizes.append(len(deltas))
            push(selection, deltas, **named)

        return counting


@contextmanager
def two_servers() -> Iterator[tuple[str, list[Node]]]:
    """Start a master and two servers in this process."""

    def address() -> str:
        return f"local://bundles-{os.getpid()}-{next(_names)}"

    master = start_master(address())
    servers: list[Node] = []
    try:
        servers += [start_server(master.address, address=address()) for _ in range(2)]
        yield master.address, servers
    finally:
        for server in servers:
            server.stop()
        master.stop()


@contextmanager
def a_pair(client: glintpy.Client, servers: list[Node]) -> Iterator[Pair]:
    """Make models whose halves lie at two servers."""
    gate = client.vector(1, dtype="int64")
    by_address = {server.address: server for server in servers}
    in_order = [by_address[address] for _, address in gate._info.servers]
    matrix = client.matrix(ROWS, COLS, dtype="float32")
    vector = client.vector(ROWS, dtype="int64")
    yield Pair(in_order, client._tie.address, client, gate, matrix, vector)
