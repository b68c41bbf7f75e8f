"""Waiting for descriptors, with ``poll`` where the system has it; knows nothing else."""

from __future__ import annotations

import os
import select
import selectors
import time
from collections.abc import Callable, Iterable

SPIN_S = 500e-6
"""How long an eager waiter looks again and again before it sleeps: about what a request of half a megabyte takes to
a server on the same machine, and shorter than a person or a scheduler would notice."""

PROMPT_S = 2 * SPIN_S
"""A wait that was so short would have been shorter by looking: being woken up takes as long as a small request."""


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


class EagerWaiter(Waiter):
    """A waiter that looks for a while before it sleeps, where that paid the last time.

    To fall asleep and be woken up costs a caller some 60 us of a round trip of 100 us, and what it does then runs
    with cold caches. While it looks it leaves the interpreter and the processor to whoever wants them, and where
    answers take longer it stops: one wait in vain is enough.
    """

    def __init__(
        self,
        filenos: Iterable[int] = (),
        *,
        spin_s: float = SPIN_S,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        super().__init__(filenos)
        self._spin_s = spin_s if _num_processors() > 1 else 0.0
        self._clock = clock
        self._spins = True

    def wait(self, timeout_s: float) -> bool:
        """Return when one of them is readable, True, or the time is over, False."""
        began = self._clock()
        if self._spins and self._spin(began + min(timeout_s, self._spin_s)):
            return True
        self._spins = False
        is_readable = super().wait(timeout_s - (self._clock() - began))
        self._spins = is_readable and self._clock() - began < PROMPT_S
        return is_readable

    def _spin(self, end: float) -> bool:
        look: Callable[[float], object] = super().wait if self._poll is None else self._poll.poll
        clock = self._clock
        while not look(0):
            if clock() >= end:
                return False
            _yield()
        return True


def _num_processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


_yield: Callable[[], object] = getattr(os, "sched_yield", lambda: time.sleep(0))
