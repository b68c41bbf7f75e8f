"""Clients made of one plain socket each, which keep no rule but the wire's; knows no test.

Thousands of them fit into one process without a thread, and each can be told to do what the library's never would.
"""

from __future__ import annotations

import itertools
import os
import socket
import struct

import numpy as np
from numpy.typing import NDArray

from glintpy.protocol import wire
from glintpy.protocol.messages import VERSION, Bye, Hello, Message, Probe, Pull, Push, Welcome
from tests.cluster.raw_sockets import greeted, message

ROUTING = 1


class RawClient:
    """A session over a socket.

    Attributes:
        connection: the socket.
        session: empty until ``hello``.
    """

    def __init__(self, address: str) -> None:
        self.connection: socket.socket = greeted(address)
        self.session = b""
        self.client_id = os.urandom(16)
        self.window_bytes = 0
        self._received = bytearray()
        self._request_ids = itertools.count(1)
        self._sequences = itertools.count(1)

    def send(self, request: Message) -> None:
        self.connection.sendall(message(wire.encode(request)))

    def receive(self) -> Message:
        """Return the next answer; those that came together with others, or over many frames, one by one."""
        frames = [self._frame()]
        while frames[-1][0]:
            frames.append(self._frame())
        found = list(wire.decode_all([content for _, content in frames]))
        assert len(found) == 1
        return found[0]

    def ask(self, request: Message) -> Message:
        self.send(request)
        return self.receive()

    def hello(self, session: bytes = b"") -> Message:
        """Open a session, or go on with one; its answer."""
        answer = self.ask(Hello(self._next(), VERSION, VERSION, "", self.client_id, session, 1))
        if isinstance(answer, Welcome):
            self.session, self.window_bytes = answer.session, answer.window_bytes
            self._sequences = itertools.count(answer.applied + 1)
        return answer

    def pull(self, model_id: int, num_rows: int) -> Pull:
        """Return a pull of a model's first rows on a server."""
        rows = np.array([[0, num_rows, 1]], np.int64)
        return Pull(
            self._next(),
            self.session,
            1,
            0,
            model_id,
            ROUTING,
            0,
            0,
            0,
            0,
            paired=False,
            rows=rows,
            cols=None,
        )

    def push(self, model_id: int, rows: NDArray[np.int64], values: NDArray[np.int64]) -> Push:
        """Return the next push."""
        sequence = next(self._sequences)
        return Push(
            self._next(),
            self.session,
            sequence,
            sequence,
            model_id,
            ROUTING,
            0,
            wants_values=False,
            assign=False,
            array=0,
            round=0,
            rank=0,
            paired=False,
            rows=rows,
            cols=None,
            values=values,
        )

    def probe(self) -> Probe:
        return Probe(self._next(), self.session, 1, 0)

    def bye(self) -> None:
        self.send(Bye(self._next(), self.session))

    def close(self) -> None:
        self.connection.close()

    def _next(self) -> int:
        return next(self._request_ids)

    def _frame(self) -> tuple[bool, bytes]:
        flags = self._take(1)[0]
        length = struct.unpack(">Q", self._take(8))[0] if flags & 2 else self._take(1)[0]
        return bool(flags & 1), self._take(length)

    def _take(self, num_bytes: int) -> bytes:
        while len(self._received) < num_bytes:
            more = self.connection.recv(1 << 20)
            assert more, "the other side has ended the connection"
            self._received += more
        taken = bytes(self._received[:num_bytes])
        del self._received[:num_bytes]
        return taken
