"""Compiles loops for big models in the background; knows no model and no message.

One daemon thread a process, which lives only while there is something to compile. Requests are served meanwhile,
by numpy: what holds them up is the interpreter's lock, which a thread that computes keeps for 5 ms at a time
unless told otherwise, so it is told otherwise.
"""

from __future__ import annotations

import atexit
import gc
import logging
import os
import sys
import threading
from collections import deque
from collections.abc import Callable
from contextlib import closing

from glintpy.storage.kernels import Kernels
from glintpy.transport.allocator import give_back_memory

logger = logging.getLogger("glintpy.actors")

THREAD_NAME = "glintpy-preparing"

_SWITCH_S = 0.0002
"""While loops are compiled the thread offers the interpreter's lock this often: of requests that took a turn every
0.5 ms, 31 of 300 were held up for over 2 ms by the usual 5 ms, and 4 by this."""

_TURN_S = 0.05
"""How long it waits between two looks at whether another process has done with the cache on disk."""

_EXIT_S = 10.0
"""How long an exit waits for the step that is being taken, most of which take 0.1 s."""


class Preparing:
    """A queue of kernels, and the thread that prepares them.

    Threads:
        Safe from any thread.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._queue: deque[Kernels] = deque()
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self.then: Callable[[], None] = lambda: None
        """Called by the thread when all is prepared."""

    def ask(self, kernels: Kernels) -> None:
        """Prepare kernels soon; the call itself takes no time."""
        with self._lock:
            if not kernels.wants_preparing or kernels in self._queue or self._stopping.is_set():
                return
            self._queue.append(kernels)
            if self._thread is None:
                self._thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
                self._thread.start()

    def wait(self, timeout_s: float) -> bool:
        """Wait until all that was asked for is prepared; tell whether it is."""
        with self._lock:  # once it has been started
            thread = self._thread
        if thread is not None:
            thread.join(timeout_s)
        return self._thread is None

    def stop(self) -> None:
        """Prepare nothing more, and wait for the step that is being taken.

        At an exit of the process: a daemon thread that is inside LLVM while its destructors run would crash.
        """
        self._stopping.set()
        if not self.wait(_EXIT_S):
            logger.warning("server: still compiling after %.0f s, at the exit of the process", _EXIT_S)

    @property
    def is_busy(self) -> bool:
        """Whether there is a thread."""
        return self._thread is not None

    def _run(self) -> None:
        usual = sys.getswitchinterval()
        shorter = min(usual, _SWITCH_S)
        sys.setswitchinterval(shorter)
        # Python rounds what it is told; somebody else's number, set meanwhile, is left alone.
        shorter = sys.getswitchinterval()
        try:
            while True:
                with self._lock:
                    if not self._queue or self._stopping.is_set():
                        self._thread = None
                        return
                    kernels = self._queue[0]
                self._prepare(kernels)
                with self._lock:
                    self._queue.popleft()
                    is_last = not self._queue
                if is_last:
                    self.then()
        finally:
            if sys.getswitchinterval() == shorter:
                sys.setswitchinterval(usual)
            with self._lock:
                if self._thread is threading.current_thread():
                    self._thread = None  # an error that nobody thought of: the next model may try again
                    self._queue.clear()

    def _prepare(self, kernels: Kernels) -> None:
        # Closed, so that a lock on the cache is let go of also where not all steps are taken.
        with closing(kernels.prepare()) as steps:
            for moved in steps:
                if self._stopping.is_set():
                    return
                if not moved:
                    self._stopping.wait(_TURN_S)


_preparing = Preparing()


def prepare_soon(kernels: Kernels) -> None:
    """Prepare kernels in the background, with the process's own thread."""
    _preparing.ask(kernels)


def is_preparing() -> bool:
    """Tell whether the process's own thread has something to do."""
    return _preparing.is_busy


def own_process() -> None:
    """Say that this process is a server's alone: what compiling has left behind is then tidied up, for good.

    numba brings some 100,000 objects that stay. Each full garbage collection would look through them, for 25 to 37 ms;
    frozen, they are passed over. In a user's own process that would also keep what that user has left to be collected.
    """
    _preparing.then = _settle_down


def _settle_down() -> None:
    gc.collect()
    gc.freeze()
    give_back_memory()


def _after_fork() -> None:
    global _preparing  # noqa: PLW0603 - a fork gives the child a state of its own
    was_busy = _preparing.is_busy
    _preparing = Preparing()
    if was_busy:
        # The thread is not here, and locks of numba's and of imports that it held are, for ever: stay with numpy.
        _preparing.stop()


def _at_exit() -> None:
    _preparing.stop()


atexit.register(_at_exit)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
