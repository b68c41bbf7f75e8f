"""Waiting for what a transport brings, by its descriptors and with a deadline; knows no message."""

from __future__ import annotations

import select
import time
from collections.abc import Callable, Sequence

from glintpy.transport import Connection, Delivery, Listener
from glintpy.transport.base import Buffer

WAIT_S = 30.0
"""How long anything may take: a machine that is busy is not a failure, a hang is."""

STEP_S = 0.05
"""Between two looks at what no descriptor tells, such as room for another message."""


def poll(ends: Sequence[Listener | Connection], timeout_s: float) -> bool:
    """Wait for one of the descriptors of some ends.

    Args:
        ends: whose descriptors.
        timeout_s: for how long.

    Returns:
        Whether one has fired.
    """
    poller = select.poll()
    for end in ends:
        for fileno in end.filenos():
            poller.register(fileno, select.POLLIN)
    return bool(poller.poll(timeout_s * 1000))


def until(ready: Callable[[], bool], *ends: Listener | Connection, what: str) -> None:
    """Return when something is so, looking again whenever a descriptor fires.

    Args:
        ready: whether it is so.
        ends: whose descriptors tell.
        what: is waited for, for the message.

    Raises:
        AssertionError: it was not so in time.
    """
    deadline = time.monotonic() + WAIT_S
    while not ready():
        assert time.monotonic() < deadline, f"no {what} within {WAIT_S:.0f} s"
        poll(ends, STEP_S)


def receive(end: Connection) -> list[bytes]:
    """Return the next message of a connection, as bytes.

    Args:
        end: its descriptors alone tell of the message: a step that misses a wake-up fails.
    """
    deadline = time.monotonic() + WAIT_S
    while (frames := end.receive()) is None:
        assert poll([end], deadline - time.monotonic()), "no descriptor fired, and no message came"
    return [bytes(frame) for frame in frames]


def receive_from(end: Listener) -> tuple[bytes, list[bytes]]:
    """Return the next message of a listener, as (peer, bytes).

    Args:
        end: as of ``receive``.
    """
    deadline = time.monotonic() + WAIT_S
    while (found := end.receive()) is None:
        assert poll([end], deadline - time.monotonic()), "no descriptor fired, and no message came"
    return found[0], [bytes(frame) for frame in found[1]]


def deliver(end: Connection, frames: Sequence[Buffer]) -> None:
    """Send over a connection that has just come up.

    Args:
        end: BUSY for a moment, maybe: news of the beginning may come before there is room for a message.
        frames: of the message.
    """
    until(lambda: end.send(frames) is Delivery.SENT, end, what="room for the first message")
