"""How frames travel: ``tcp://`` and ``ipc://`` over ZeroMQ, ``local://`` inside one process.

Nothing here knows a message. ``listen`` and ``connect`` choose the transport by the address.
"""

from __future__ import annotations

from glintpy.errors import ConfigError
from glintpy.transport.base import Connection, Delivery, Listener
from glintpy.transport.unread import UnreadLimits
from glintpy.transport.waiting import EagerWaiter, Waiter
from glintpy.transport.wakeup import Wakeup

__all__ = [
    "SCHEMES",
    "Connection",
    "Delivery",
    "EagerWaiter",
    "Listener",
    "UnreadLimits",
    "Waiter",
    "Wakeup",
    "connect",
    "listen",
    "scheme_of",
]

SCHEMES = ("tcp", "ipc", "local")


def scheme_of(address: object) -> str:
    """Return the scheme of an address.

    Raises:
        ConfigError: not one of the addresses that glintpy knows, or a port out of its range.
    """
    # Programs without type checks give None or a Path.
    scheme, separator, rest = address.partition("://") if isinstance(address, str) else ("", "", "")
    if not separator or scheme not in SCHEMES or not rest:
        raise ConfigError(
            f"{address!r} is not an address; one looks like tcp://127.0.0.1:13370, ipc:///path or local://name"
        )
    if scheme == "tcp":
        host, separator, port = rest.rpartition(":")
        if not separator or not host or not port.isdecimal() or int(port) > 65535:
            raise ConfigError(f"{address!r} has no host and port; one looks like tcp://127.0.0.1:13370")
    return scheme


def listen(address: str, *, limits: UnreadLimits | None = None) -> Listener:
    """Bind an address; port 0 of ``tcp://`` takes any free one.

    Args:
        address: where.
        limits: on what connections may have sent and nobody has read; None: those of the default settings.

    Raises:
        ConfigError: the address can't be bound: taken, not ours, or not an address.
    """
    if scheme_of(address) == "local":
        from glintpy.transport.local import LocalListener  # noqa: PLC0415 - only the transport in use is loaded

        return LocalListener(address)
    from glintpy.transport.zeromq import ZeroMQListener  # noqa: PLC0415 - only the transport in use is loaded

    return ZeroMQListener(address, limits)


def connect(address: str) -> Connection:
    """Begin a connection, which comes up by itself when somebody listens, and comes back when it breaks.

    Raises:
        ConfigError: not an address.
    """
    if scheme_of(address) == "local":
        from glintpy.transport.local import LocalConnection  # noqa: PLC0415 - only the transport in use is loaded

        return LocalConnection(address)
    from glintpy.transport.zeromq import ZeroMQConnection  # noqa: PLC0415 - only the transport in use is loaded

    return ZeroMQConnection(address)
