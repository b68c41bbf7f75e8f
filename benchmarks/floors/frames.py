"""Bare pyzmq's floor: DEALER and ROUTER with frames like glintpy's, nothing looked at; tcp or ipc.

A request is a header frame, then its selection and values in frames of their own; what is larger than a part
travels in several messages, each answered by itself, as ``docs/protocol.md`` has it.
"""

from __future__ import annotations

import struct
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import zmq

from benchmarks.draws import Draw
from benchmarks.processes import Child
from benchmarks.steps import Model, Step
from benchmarks.store import Store
from benchmarks.system import Opening, Setup, System

HEADER_BYTES = 48
"""Of a request: as long as glintpy's are, in which the first 8 bytes say how many are wanted back."""

ANSWER_HEADER_BYTES = 24

WANTED = struct.Struct("<Q")

PART_BYTES = 2 << 20

COPY_BYTES = 1 << 16
"""Below it copying a frame is cheaper than tracking when it was sent; pyzmq's own threshold."""


class Frames(System):
    """Server processes that answer each message with as many bytes as it wants."""

    name = "zmq"

    def __init__(self, scheme: str) -> None:
        super().__init__(scheme)
        self._servers: list[Child] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self, setup: Setup) -> Opening:
        """Start the servers."""
        addresses = []
        self._folder = tempfile.TemporaryDirectory(prefix="glintpy-benchmark-")
        for number in range(setup.servers):
            path = Path(self._folder.name) / f"{number}.sock"
            address = "tcp://127.0.0.1:*" if self.scheme == "tcp" else f"ipc://{path}"
            self._servers.append(Child([sys.executable, "-m", "benchmarks.floors.frame_server", address]))
            addresses.append(self._servers[-1].read_line())
        return Opening("benchmarks.floors.frames", {"addresses": addresses})

    def stop(self) -> None:
        """End the servers."""
        while self._servers:
            self._servers.pop().stop()
        if self._folder is not None:
            self._folder.cleanup()


@dataclass(frozen=True)
class Request:
    """What goes to each server.

    Attributes:
        messages: frames of each message.
        copy: whether they are small.
    """

    messages: list[list[bytes | memoryview]]
    copy: bool


class FrameStore(Store):
    """One DEALER a server, used by the calling thread itself.

    Args:
        addresses: of the servers.
    """

    holds_values = False

    def __init__(self, addresses: list[str]) -> None:
        self._context = zmq.Context()
        self._sockets = []
        for address in addresses:
            dealer = self._context.socket(zmq.DEALER)
            dealer.set_hwm(0)  # the window is the limit
            dealer.linger = 0
            dealer.connect(address)
            self._sockets.append(dealer)

    def attach(self, model: Model, *, rank: int) -> None:
        """Nothing is held."""

    def prepare(self, step: Step, draws: list[Draw]) -> list[Request]:
        """Return one request: all have the same bytes."""
        del draws
        return [_request(step, num_servers=len(self._sockets))]

    def issue(self, request: Request) -> Request:
        """Send each server its messages."""
        for frames in request.messages:
            for dealer in self._sockets:
                dealer.send_multipart(frames, copy=request.copy)
        return request

    def finish(self, pending: Request) -> None:
        """Receive as many answers."""
        for _ in pending.messages:
            for dealer in self._sockets:
                dealer.recv_multipart(0, pending.copy)

    def close(self) -> None:
        """Close the sockets."""
        self._context.destroy(linger=0)


def make(opening: dict[str, Any]) -> Store:
    """Return the store of a client process.

    Args:
        opening: the details that the system gave.
    """
    return FrameStore(opening["addresses"])


def _request(step: Step, *, num_servers: int) -> Request:
    answer_bytes = -(-step.answer_bytes // num_servers)
    selection_bytes = -(-step.selection_bytes // num_servers)
    value_bytes = -(-(step.request_bytes - step.selection_bytes) // num_servers)
    num_parts = max(1, -(-max(answer_bytes, value_bytes) // PART_BYTES))
    sizes = [-(-size // num_parts) for size in (selection_bytes, value_bytes)]
    copy = max(answer_bytes // num_parts, *sizes) < COPY_BYTES
    header = WANTED.pack(-(-answer_bytes // num_parts)).ljust(HEADER_BYTES, b"\1")
    messages: list[list[bytes | memoryview]] = []
    for _ in range(num_parts):
        frames = [np.ones(size, np.uint8) for size in sizes if size]
        messages.append([header, *(frame.tobytes() if copy else frame.data for frame in frames)])
    return Request(messages, copy)
