"""Ends a process whose actor stands still, and says where every thread stood; knows no message.

The master tells of a server that hangs, since its heart beats on while its progress stands still; but a process that
hangs is no use to anybody, and whoever started it starts it again. The heart can't end it: it may be waiting for the
interpreter's lock, which whatever hangs may hold. So the watch is a timer of ``faulthandler``, a thread in C that
needs no lock. The actor's ticks wind it up again, and where they stay out it writes all tracebacks to stderr and ends
the process with exit code 1, as hard as ``kill -9``.

Every silence counts, whoever is to blame: a process that was stopped (SIGSTOP, a debugger, a machine that swaps) for
longer than the limit may end when it goes on, if its timer wakes up before its actor does. There is one such timer a
process, and pytest uses it too: so only a process of its own is watched.
"""

from __future__ import annotations

import faulthandler
import logging
import sys
import time
from collections.abc import Callable

from glintpy.actors.base import RequestActor
from glintpy.errors import ConfigError

logger = logging.getLogger("glintpy.actors")

LIMIT_S_MIN = 2.0
"""Below, a busy machine would be taken for one that hangs: a tick may be a second late behind one long operation."""

WINDING_S = 1.0
"""Between two windings at least: each ends a thread and starts another."""


class Watchdog:
    """A timer that ends the process unless it is wound up.

    Args:
        limit_s: seconds without a winding after which the process ends.
        clock: tells monotonic seconds.
        wind: starts the timer anew.
        stop: ends it.

    Raises:
        ConfigError: the limit is too short to mean anything, or there is no stderr to write to.

    Threads:
        Belongs to the actor's thread.
    """

    def __init__(
        self,
        limit_s: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        wind: Callable[[float], None] | None = None,
        stop: Callable[[], None] = faulthandler.cancel_dump_traceback_later,
    ) -> None:
        if not limit_s >= LIMIT_S_MIN:
            raise ConfigError(f"a watchdog waits at least {LIMIT_S_MIN:g} s, not {limit_s!r}")
        if wind is None and sys.__stderr__ is None:
            raise ConfigError("a watchdog needs a stderr to say on where the process stood")
        self._limit_s = limit_s
        self._clock = clock
        self._wind = wind or _wind
        self._stop = stop
        self._wound_at = float("-inf")
        self._is_over = False

    def alive(self) -> None:
        """Say that there is progress."""
        now = self._clock()
        if not self._is_over and now - self._wound_at >= WINDING_S:
            self._wound_at = now
            self._wind(self._limit_s)

    def stop(self) -> None:
        """Watch no more."""
        self._is_over = True
        self._stop()


def watch(actor: RequestActor, limit_s: float) -> Watchdog:
    """End this process when an actor handles nothing, not even its ticks, for too long.

    A stop in good order is not watched: it may have large files to close.

    Args:
        actor: running or not yet.
        limit_s: seconds; longer than its longest single operation, a part of a push, by far.

    Raises:
        ConfigError: see ``Watchdog``.
    """
    dog = Watchdog(limit_s)
    dog.alive()  # also an actor that never comes to its first tick stands still
    tick, stop = actor.on_tick, actor.on_stop

    def watched_tick(now: float) -> None:
        dog.alive()
        tick(now)

    def watched_stop() -> None:
        dog.stop()
        stop()

    # On the object, not the class: in-process nodes have the same class and must not be watched.
    actor.on_tick = watched_tick  # type: ignore[method-assign] # see above
    actor.on_stop = watched_stop  # type: ignore[method-assign] # see above
    logger.info("%s: ends this process if it stands still for %.0f s", actor.role, limit_s)
    return dog


def _wind(limit_s: float) -> None:
    # The stream that the process was born with: whatever stands in for it may have no descriptor.
    assert sys.__stderr__ is not None
    faulthandler.dump_traceback_later(limit_s, file=sys.__stderr__, exit=True)
