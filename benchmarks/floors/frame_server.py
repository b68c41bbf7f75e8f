"""Bare pyzmq's server process: a ROUTER that answers each message with as many bytes as it wants."""

from __future__ import annotations

import os
import sys
import threading

import zmq

from benchmarks.floors.frames import ANSWER_HEADER_BYTES, COPY_BYTES, WANTED


def serve(router: zmq.Socket[bytes]) -> None:
    """Answer for ever.

    Args:
        router: from which messages come.
    """
    header = b"\1" * ANSWER_HEADER_BYTES
    outgoing = memoryview(b"\1")
    while True:
        frames = router.recv_multipart(copy=False)
        (wanted,) = WANTED.unpack_from(frames[1].buffer)
        if wanted > outgoing.nbytes:
            outgoing = memoryview(b"\1" * wanted)
        answer: list[bytes | memoryview] = [frames[0].bytes, header]
        if wanted:
            answer.append(outgoing[:wanted])
        router.send_multipart(answer, copy=wanted < COPY_BYTES)


def main() -> None:
    """Listen, say where, and serve until standard input ends."""
    threading.Thread(target=_end_with_input, daemon=True).start()
    router = zmq.Context().socket(zmq.ROUTER)
    router.set_hwm(0)
    router.bind(sys.argv[1])
    print(router.getsockopt_string(zmq.LAST_ENDPOINT), flush=True)
    serve(router)


def _end_with_input() -> None:
    sys.stdin.read()
    os._exit(0)  # the other thread waits for messages that may never come


if __name__ == "__main__":
    main()
