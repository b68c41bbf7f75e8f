"""Connections below the library: ZMTP by hand over plain sockets, well or badly spoken; knows no test."""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from tests.cluster.helpers import PATIENCE_S

GREETING = b"\xff" + bytes(8) + b"\x7f" + b"\x03\x00" + b"NULL".ljust(20, b"\0") + bytes(32)
"""What a peer says first: ZMTP 3.0 without encryption, as it is specified at rfc.zeromq.org/spec/23."""

TLS_HELLO = bytes.fromhex("16030100a5010000a10303") + bytes(range(150))
"""How a TLS client begins."""

_MORE, _LONG, _COMMAND = 1, 2, 4


def host_and_port(address: str) -> tuple[str, int]:
    """Return where a tcp:// address leads."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return host, int(port)


def connected(address: str) -> socket.socket:
    """Return a plain connection."""
    return socket.create_connection(host_and_port(address), timeout=PATIENCE_S)


def frame(content: bytes, *, more: bool = False, command: bool = False) -> bytes:
    """Return a frame as it travels."""
    flags = (_MORE if more else 0) | (_COMMAND if command else 0)
    if len(content) > 255:
        return bytes([flags | _LONG]) + struct.pack(">Q", len(content)) + content
    return bytes([flags, len(content)]) + content


def message(frames: Sequence[bytes | bytearray | memoryview]) -> bytes:
    """Return a whole message as it travels."""
    last = len(frames) - 1
    return b"".join(frame(bytes(content), more=number < last) for number, content in enumerate(frames))


def ready(kind: bytes = b"DEALER") -> bytes:
    """Return the command that ends a handshake."""
    properties = ((b"Socket-Type", kind), (b"Identity", b""))
    body = b"\x05READY" + b"".join(
        bytes([len(name)]) + name + struct.pack(">I", len(value)) + value for name, value in properties
    )
    return frame(body, command=True)


def greeted(address: str) -> socket.socket:
    """Return a connection that has shaken hands and may send messages."""
    connection = connected(address)
    connection.sendall(GREETING + ready())
    received = b""
    while len(received) < len(GREETING) + 2 or len(received) < len(GREETING) + 2 + received[65]:
        received += connection.recv(4096)
    return connection


def is_cut(connection: socket.socket) -> bool:
    """Tell whether the other side has ended a connection; what it sent is read and dropped."""
    connection.setblocking(False)
    try:
        while True:
            if not connection.recv(65536):
                return True
    except BlockingIOError:
        return False
    except OSError:
        return True


@contextmanager
def many(connections: Iterator[socket.socket]) -> Iterator[list[socket.socket]]:
    """Open connections one after the other, and close all that were opened."""
    opened: list[socket.socket] = []
    try:
        opened.extend(connections)
        yield opened
    finally:
        for connection in opened:
            connection.close()
