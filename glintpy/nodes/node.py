"""A running actor with its heart, as who started it holds it, and where one may listen; knows no role."""

from __future__ import annotations

import ipaddress
import logging
import threading
from typing import TYPE_CHECKING

from glintpy.actors.base import RequestActor, Stop
from glintpy.actors.watchdog import watch
from glintpy.errors import AccessDenied
from glintpy.transport import scheme_of

if TYPE_CHECKING:
    from glintpy.heart import Heart

logger = logging.getLogger("glintpy.nodes")

STOP_S = 10.0
"""How long a node may take to stop before its process goes without it."""


class Node:
    """A running actor.

    Attributes:
        address: where it is reached.
        stopped: set when it has closed everything.
    """

    def __init__(self, actor: RequestActor, address: str, *, heart: Heart | None = None) -> None:
        self._actor = actor
        self._heart = heart
        self.address = address
        self.stopped = threading.Event()
        actor.at_stop.append(self._actor_stopped)

    def _actor_stopped(self) -> None:
        if self._heart is not None and self._actor.is_killed:
            # An actor that ended as if killed, because a disk failed, has not left in good order; nor does it live.
            self._heart.stop(say_goodbye=False)
        self.stopped.set()

    def stop(self) -> None:
        """Leave the cluster and close everything in good order; again does nothing."""
        if self._heart is not None:
            self._heart.stop()
        self._actor.tell(Stop())
        if not self.stopped.wait(STOP_S):
            logger.error("%s did not stop within %.0f s", self._actor.role, STOP_S)

    def watch(self, limit_s: float) -> None:
        """End this process, which must be the node's own, when its actor stands still for ``limit_s`` seconds.

        Raises:
            ConfigError: too short to mean anything.
        """
        watch(self._actor, limit_s)

    def crash(self) -> None:
        """Drop mailbox and memory without an answer, as ``kill -9`` does; for ``local://`` clusters."""
        if self._heart is not None:
            self._heart.stop(say_goodbye=False)
        self._actor.leave_files_as_killed()
        self._actor.tell(Stop())
        self.stopped.wait(STOP_S)


def check_reach(address: str, *, insecure: bool) -> None:
    """Refuse an address that others than this machine's programs can reach.

    Raises:
        AccessDenied: it is beyond loopback, and ``insecure`` is False.
        ConfigError: not an address.
    """
    if insecure or scheme_of(address) != "tcp":
        return
    host = address.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if host == "localhost":
        return
    try:
        is_loopback = ipaddress.ip_address(host).is_loopback
    except ValueError:
        is_loopback = False
    if not is_loopback:
        raise AccessDenied(
            f"refused to listen at {address}: there is no encryption and no access control yet, so whoever reaches "
            "this port can read and change every model. Listen at 127.0.0.1, or say --insecure (insecure=True) on "
            "a network that you trust"
        )
