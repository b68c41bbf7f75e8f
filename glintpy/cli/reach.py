"""Who listens at an address, asked with a bare TCP connection; knows no message.

A refused connection is certain at once, where a client, which waits for masters that are about to start,
would take its time to give up.
"""

from __future__ import annotations

import socket

from glintpy.cli.output import Failed

PROBE_S = 3.0
"""How long a machine may take to accept a connection."""


def split_address(address: str) -> tuple[str, int]:
    """Return host and port of a ``tcp://`` address that was checked before."""
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return host.strip("[]"), int(port)


def listens(address: str) -> bool:
    """Return whether somebody accepts connections at a ``tcp://`` address.

    Raises:
        Failed: that can't be found out: no such host, or no way to it.
    """
    try:
        with socket.create_connection(split_address(address), timeout=PROBE_S):
            return True
    except ConnectionRefusedError:
        return False
    except OSError as error:
        reason = "no answer" if isinstance(error, TimeoutError) else error.strerror or error
        raise Failed(f"can't reach a master at {address}: {reason}") from None


def can_listen(host: str, port: int) -> bool:
    """Return whether a port of this machine is free."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
            probe.listen(1)
        except OSError:
            return False
        return True
