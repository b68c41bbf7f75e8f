"""Starts again what dies of a local cluster; knows no process and no master."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable

from glintpy.errors import GlintError

logger = logging.getLogger("glintpy.cluster")

LOOK_S = 0.05
"""Between two looks."""

WAIT_FIRST_S = 0.2
WAIT_FACTOR = 2.0
WAIT_MAX_S = 5.0
"""What can't be started, or dies of its start, is started again later each time."""

SETTLED_S = 1.0
"""Who has lived for so long after it was ready has not died of its start."""


class Supervisor:
    """A thread that looks at members.

    Args:
        find_dead: returns the names of members that should run and don't.
        restart: starts one again, and returns when it is ready.

    Threads:
        ``stop`` is safe from any thread; both callables are called by the supervisor's.
    """

    def __init__(self, find_dead: Callable[[], Iterable[str]], restart: Callable[[str], None]) -> None:
        self._find_dead = find_dead
        self._restart = restart
        self._stopping = threading.Event()
        self._tried_at: dict[str, float] = {}
        self._wait_s: dict[str, float] = {}
        self.num_restarts = 0
        self._thread = threading.Thread(target=self._run, name="glintpy-supervisor", daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """Start nothing any more; returns when what is being started is ready or has failed."""
        self._stopping.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._stopping.wait(LOOK_S):
            for name in self._find_dead():
                if self._stopping.is_set():
                    return
                self._start_again(name)

    def _start_again(self, name: str) -> None:
        now = time.monotonic()
        since_s = now - self._tried_at.get(name, 0.0)
        if since_s < self._wait_s.get(name, 0.0):
            return  # not yet; there will be another look
        if since_s > self._wait_s.get(name, 0.0) + SETTLED_S:
            self._wait_s.pop(name, None)
        self._wait_s[name] = min(self._wait_s.get(name, WAIT_FIRST_S / WAIT_FACTOR) * WAIT_FACTOR, WAIT_MAX_S)
        logger.warning("%s has died; it is started again", name)
        try:
            self._restart(name)
        except GlintError as error:
            logger.error("%s could not be started again: %s", name, error)  # noqa: TRY400 - its own words are the cause
        except Exception:
            # A system that has no process or descriptor left now may have one at the next look.
            logger.exception("%s could not be started again", name)
        else:
            self.num_restarts += 1
            logger.info("%s is back after %.2f s", name, time.monotonic() - now)
        self._tried_at[name] = time.monotonic()
