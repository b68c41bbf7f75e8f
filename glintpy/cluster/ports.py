"""A port of this machine that is kept for somebody who listens at it later; knows no cluster."""

from __future__ import annotations

import socket
import sys


def keep_port(port: int = 0) -> socket.socket | None:
    """Return a socket that keeps a port of loopback until it is closed; None: it can't be kept.

    It is bound and never listens: the system gives the port to nobody else, while a master or server, which asks for an
    address that may be shared, can listen there, again and again. Linux allows that, BSD's systems don't.

    Args:
        port: the port, which somebody may have; 0: any free one.
    """
    if sys.platform != "linux":
        return None
    end = socket.socket()
    try:
        end.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        end.bind(("127.0.0.1", port))
    except OSError:
        end.close()
        return None
    return end


def port_of(end: socket.socket) -> int:
    """Return the port that a socket is bound to."""
    port: int = end.getsockname()[1]
    return port
