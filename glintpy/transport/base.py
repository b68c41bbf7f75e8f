"""What a transport must do: two small interfaces; knows no implementation and no message.

Both ends are used by one thread at a time and never block: whoever waits polls ``filenos()`` and then
calls until nothing comes. A descriptor may fire once for several arrivals, and a send may swallow its
firing, so: receive until None *before* each poll.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from typing import Protocol

Buffer = bytes | bytearray | memoryview


class Delivery(enum.Enum):
    """What became of a send."""

    SENT = "sent"
    """Accepted; it arrives unless the connection breaks."""
    BUSY = "busy"
    """Not accepted: the peer reads too slowly; try again later."""
    GONE = "gone"
    """Not accepted: there is no such peer any more."""


class Listener(Protocol):
    """The end that others connect to; a mailbox for many peers."""

    address: str
    """Where it is reached; with the port that was really taken."""
    look_s: float
    """The longest pause between two calls of ``receive``, which also looks after the connections; may be infinite."""

    def filenos(self) -> list[int]:
        """Return the descriptors to poll for reading."""
        ...

    def receive(self) -> tuple[bytes, list[Buffer]] | None:
        """Return the next message as (peer, frames), or None if there is none now."""
        ...

    def send(self, peer: bytes, frames: Sequence[Buffer]) -> Delivery:
        """Send to a peer that has sent something before.

        That a peer is gone is learnt while receiving: the end of a connection stands behind its last message.

        Frames larger than a few KiB may be sent without a copy: the caller doesn't change them any more.
        """
        ...

    def num_disconnects(self) -> int:
        """Return how many connections have ended so far; growth is the news that somebody went."""
        ...

    def close(self) -> None:
        """Release the address at once; what was not sent is dropped."""
        ...


class Connection(Protocol):
    """The end that connects."""

    def filenos(self) -> list[int]:
        """Return the descriptors to poll for reading."""
        ...

    def changes(self) -> list[bool]:
        """Return the connection's ups (True) and downs (False) since the last call, in order.

        What was sent before a down and not answered may be lost. An address without a listener gives a
        down, or nothing, until somebody listens.
        """
        ...

    def receive(self) -> list[Buffer] | None:
        """Return the next message's frames, or None if there is none now."""
        ...

    def send(self, frames: Sequence[Buffer]) -> Delivery:
        """Send to the listener. The rule on large frames is the listener's."""
        ...

    def close(self) -> None:
        """End the connection; what was handed to the network before may still arrive."""
        ...
