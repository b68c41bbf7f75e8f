"""The raw sockets' server process: receives what is announced and sends as many bytes as are wanted back."""

from __future__ import annotations

import os
import socket
import sys
import threading

from benchmarks.floors.sockets import HEADER, receive


def serve(connection: socket.socket) -> None:
    """Serve one client until it goes.

    Args:
        connection: to it.
    """
    header = memoryview(bytearray(HEADER.size))
    incoming = memoryview(bytearray(1))
    outgoing = memoryview(bytes(1))
    while True:
        try:
            receive(connection, header)
            num, wanted = HEADER.unpack(header)
            if num > incoming.nbytes:
                incoming = memoryview(bytearray(num))
            if wanted > outgoing.nbytes:
                # Of ones: memory that was never written to is one page of zeros again and again.
                outgoing = memoryview(b"\1" * wanted)
            receive(connection, incoming[:num])
            connection.sendall(outgoing[:wanted])
        except ConnectionError:
            return


def main() -> None:
    """Listen, say where, and serve each client in a thread until standard input ends."""
    path = sys.argv[1]
    if path:
        listener = socket.socket(socket.AF_UNIX)
        listener.bind(path)
        listener.listen()
    else:
        listener = socket.create_server(("127.0.0.1", 0))
    print(listener.getsockname() if path else listener.getsockname()[1], flush=True)
    threading.Thread(target=_accept, args=(listener,), daemon=True).start()
    sys.stdin.read()
    os._exit(0)  # the threads wait for clients that may never come


def _accept(listener: socket.socket) -> None:
    while True:
        connection, _ = listener.accept()
        if connection.family == socket.AF_INET:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        threading.Thread(target=serve, args=(connection,), daemon=True).start()


if __name__ == "__main__":
    main()
