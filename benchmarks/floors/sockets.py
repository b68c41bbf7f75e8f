"""The raw stream sockets' floor: as many bytes each way as a request has, nothing looked at; TCP or Unix."""

from __future__ import annotations

import selectors
import socket
import struct
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.draws import Draw
from benchmarks.processes import Child
from benchmarks.steps import Model, Step
from benchmarks.store import Store
from benchmarks.system import Opening, Setup, System

HEADER = struct.Struct("<QQ")
"""Bytes that follow, and bytes wanted back."""

ACKNOWLEDGEMENT_BYTES = 8


class Sockets(System):
    """Server processes that receive and send as many bytes as they are told."""

    name = "socket"

    def __init__(self, scheme: str) -> None:
        super().__init__(scheme)
        self._servers: list[Child] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self, setup: Setup) -> Opening:
        """Start the servers."""
        addresses = []
        self._folder = tempfile.TemporaryDirectory(prefix="glintpy-benchmark-")
        for number in range(setup.servers):
            path = "" if self.scheme == "tcp" else str(Path(self._folder.name) / f"{number}.sock")
            self._servers.append(Child([sys.executable, "-m", "benchmarks.floors.socket_server", path]))
            addresses.append(path or int(self._servers[-1].read_line()))
            if path:
                self._servers[-1].read_line()
        return Opening("benchmarks.floors.sockets", {"addresses": addresses})

    def stop(self) -> None:
        """End the servers."""
        while self._servers:
            self._servers.pop().stop()
        if self._folder is not None:
            self._folder.cleanup()


class SocketStore(Store):
    """One connection a server.

    Args:
        addresses: ports, or paths of Unix sockets.
    """

    holds_values = False

    def __init__(self, addresses: list[int | str]) -> None:
        self._connections = [_connected(address) for address in addresses]

    def attach(self, model: Model, *, rank: int) -> None:
        """Nothing is held."""

    def prepare(self, step: Step, draws: list[Draw]) -> list[tuple[bytes, memoryview, memoryview]]:
        """Return one request: all have the same bytes."""
        del draws
        num = len(self._connections)
        # Touched, so that no page is fresh when the time runs.
        body = np.ones(-(-step.request_bytes // num), np.uint8)
        answer = np.ones(max(ACKNOWLEDGEMENT_BYTES, -(-step.answer_bytes // num)), np.uint8)
        header = HEADER.pack(body.nbytes, answer.nbytes)
        if body.nbytes <= 1 << 16:
            header, body = header + body.tobytes(), body[:0]
        return [(header, body.data, answer.data)]

    def issue(self, request: tuple[bytes, memoryview, memoryview]) -> memoryview:
        """Send to each server its share."""
        header, body, answer = request
        for connection in self._connections:
            connection.sendall(header)
            if body.nbytes:
                connection.sendall(body)
        return answer

    def finish(self, pending: memoryview) -> None:
        """Receive from each server its share, from whichever has something."""
        if len(self._connections) == 1:
            receive(self._connections[0], pending)
            return
        with selectors.DefaultSelector() as selector:
            left = [pending] * len(self._connections)
            for number, connection in enumerate(self._connections):
                selector.register(connection, selectors.EVENT_READ, number)
            while selector.get_map():
                for key, _ in selector.select():
                    number, connection = key.data, self._connections[key.data]
                    left[number] = left[number][connection.recv_into(left[number]) :]
                    if not left[number].nbytes:
                        selector.unregister(connection)

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.close()


def make(opening: dict[str, Any]) -> Store:
    """Return the store of a client process.

    Args:
        opening: the details that the system gave.
    """
    return SocketStore(opening["addresses"])


def receive(connection: socket.socket, into: memoryview) -> None:
    """Receive as many bytes as there is room for.

    Args:
        connection: from where.
        into: where to.

    Raises:
        ConnectionError: the other side has gone.
    """
    while into.nbytes:
        num = connection.recv_into(into)
        if not num:
            raise ConnectionError("the other side has gone")
        into = into[num:]


def _connected(address: int | str) -> socket.socket:
    if isinstance(address, str):
        connection = socket.socket(socket.AF_UNIX)
        connection.connect(address)
        return connection
    connection = socket.create_connection(("127.0.0.1", address))
    connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    return connection
