"""Waiting for descriptors, with ``poll`` where the system has it; knows nothing else."""

from __future__ import annotations

import select
import selectors
from collections.abc import Iterable


class Waiter:
    """A set of descriptors that are waited for together.

    ``poll`` costs a third of a selector's Python code a call, and a server waits before most messages; Windows
    has no ``poll``.

    Threads:
        ``wait`` belongs to one thread; descriptors may be added and removed by others meanwhile.
    """

    def __init__(self, filenos: Iterable[int] = ()) -> None:
        self._poll = select.poll() if hasattr(select, "poll") else None
        self._selector = selectors.DefaultSelector() if self._poll is None else None
        for fileno in filenos:
            self.add(fileno)

    def add(self, fileno: int) -> None:
        """Wait for this descriptor too."""
        if self._poll is not None:
            self._poll.register(fileno, select.POLLIN)
        elif self._selector is not None:
            self._selector.register(fileno, selectors.EVENT_READ)

    def remove(self, fileno: int) -> None:
        """Wait for it no more."""
        if self._poll is not None:
            self._poll.unregister(fileno)
        elif self._selector is not None:
            self._selector.unregister(fileno)

    def wait(self, timeout_s: float) -> bool:
        """Return when one of them is readable, True, or the time is over, False."""
        if self._poll is not None:
            return bool(self._poll.poll(max(0.0, timeout_s) * 1000))
        assert self._selector is not None
        return bool(self._selector.select(max(0.0, timeout_s)))
