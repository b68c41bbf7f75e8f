"""What waits to be sent by whoever comes by; knows no model, no message and no socket."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Protocol


class Bundle(Protocol):
    """Requests that travel as one."""

    def issue(self) -> None:
        """Send it, once, however often this is called; never waits."""
        ...


class Outbox:
    """At most one open bundle, and what answers led to.

    While requests are under way, small ones are put off until somebody waits for an answer, the network's thread
    comes by, the bundle is full, or anything else is to be sent: what was asked for first is sent first.

    Attributes:
        lock: held while the bundle is looked at, joined or issued.
        open: the bundle that may be joined; None: there is none.
        is_closed: nothing may be opened any more.

    Threads:
        Safe from any thread.
    """

    def __init__(self) -> None:
        self.lock = threading.Lock()
        self.open: Bundle | None = None
        self.is_closed = False
        self._later: deque[Callable[[], None]] = deque()

    def issue(self) -> None:
        """Issue what is open, and do what was put off."""
        if self.open is not None:
            with self.lock:
                self.issue_locked()
        while self._later:
            try:
                work = self._later.popleft()
            except IndexError:  # another thread came by, too
                return
            work()

    def put_off(self, work: Callable[[], None]) -> None:
        """Have something done soon without any lock: for who settles an answer, and may send nothing there.

        Args:
            work: never raises an ``Exception``, and never waits.
        """
        self._later.append(work)

    def issue_locked(self) -> None:
        """Issue what is open; the caller has the lock."""
        bundle = self.open
        if bundle is not None:
            bundle.issue()
            # Not before: who looks without the lock goes on to send what must come behind this.
            self.open = None

    def close(self) -> None:
        """Issue what is open, for the last time."""
        with self.lock:
            self.issue_locked()
            self.is_closed = True
