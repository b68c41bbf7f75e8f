"""Tie: what handles keep of a cluster, and what makes it again in another process; knows no model.

An address and settings, and on demand the process's ``Runtime``. A tie survives pickling and forking: in
another process it makes a new runtime, with sessions of its own. Pushes are flushed when a process ends.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import weakref
from collections.abc import Callable, Iterable
from multiprocessing import util as multiprocessing_util

from glintpy import config
from glintpy.errors import GlintError
from glintpy.runtime import Runtime
from glintpy.transport import scheme_of

logger = logging.getLogger("glintpy.client")


class Tie:
    """An address and settings, and the runtime that this process has for them.

    Threads:
        Safe from any thread.
    """

    def __init__(self, address: str, settings: config.ClientSettings) -> None:
        scheme_of(address)
        self.address = address
        self.settings = settings
        self._runtime: Runtime | None = None
        self._lock = threading.RLock()
        self._is_closed = False
        _ties.add(self)

    def runtime(self, name: str | None = None) -> Runtime:
        """Return this process's runtime, made when it is first needed.

        Args:
            name: of the client, for people to read.

        Raises:
            MasterUnreachable: nobody answered in time.
            GlintError: the client is closed.
        """
        runtime = self._runtime
        if runtime is not None and runtime.is_usable:
            return runtime
        with self._lock:
            if self._is_closed:
                raise GlintError("the client is closed; make a new one, or open the model with another")
            if self._runtime is None or not self._runtime.is_usable:
                self._runtime = Runtime(self.address, self.settings, name=name)
                _flush_at_end_of_child()
            return self._runtime

    def current(self) -> Runtime | None:
        """Return this process's runtime if there is one."""
        runtime = self._runtime
        return runtime if runtime is not None and runtime.is_usable else None

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait for this process's pushes; see ``OpenPushes.flush``."""
        runtime = self.current()
        if runtime is not None:
            runtime.pushes.flush(timeout_s)

    def close(self) -> None:
        """End this process's runtime for good."""
        with self._lock:
            self._is_closed = True
            runtime, self._runtime = self._runtime, None
            if _shared.get((self.address, self.settings)) is self:
                del _shared[self.address, self.settings]
        if runtime is not None and runtime.is_usable:
            runtime.close()

    def after_fork(self) -> None:
        """Forget the parent's runtime; its sockets and threads are not this process's."""
        self._lock = threading.RLock()
        if self._runtime is not None:
            _inherited.append(self._runtime)
            self._runtime = None

    def __reduce__(self) -> tuple[Callable[..., Tie], tuple[str, config.ClientSettings]]:
        return shared_tie, (self.address, self.settings)


_ties: weakref.WeakSet[Tie] = weakref.WeakSet()
_shared: dict[tuple[str, config.ClientSettings], Tie] = {}
_shared_lock = threading.Lock()
_inherited: list[Runtime] = []
"""Runtimes of parent processes, kept so that no destructor touches their sockets."""


def shared_tie(address: str, settings: config.ClientSettings) -> Tie:
    """Return the process's one tie to an address, with these settings."""
    with _shared_lock:
        tie = _shared.get((address, settings))
        if tie is None:
            tie = _shared[address, settings] = Tie(address, settings)
        return tie


def share(tie: Tie) -> None:
    """Let handles that are unpickled in this process use a client's own connection."""
    with _shared_lock:
        _shared.setdefault((tie.address, tie.settings), tie)


def close_ties(address: str) -> None:
    """Close the process's ties to a cluster that is about to stop."""
    for tie in _all_ties():
        if tie.address == address:
            tie.close()


def _all_ties() -> Iterable[Tie]:
    return list(_ties)


def _finish_all() -> None:
    """Flush and close everything: the process ends."""
    for tie in _all_ties():
        runtime = tie.current()
        if runtime is None:
            continue
        try:
            runtime.pushes.flush(tie.settings.timeout_s)
        except (GlintError, TimeoutError) as error:
            _say_at_the_end(error)  # raising here would only hide it behind another traceback
        tie.close()


def _say_at_the_end(error: Exception) -> None:
    """Say what became of pushes that nobody waited for: the last chance, also where nobody set logging up."""
    told = str(error).removesuffix("; they go on")  # not any more
    text = "; ".join([told, *getattr(error, "__notes__", [])])
    logger.error("at the end of the process: %s", text)
    if not logging.getLogger().hasHandlers() and sys.stderr is not None:
        sys.stderr.write(f"glintpy: at the end of the process: {text}\n")


_finalizer_pid = 0


def _flush_at_end_of_child() -> None:
    # In a multiprocessing child neither atexit nor weakref.finalize runs, only multiprocessing's own finalizers.
    global _finalizer_pid  # noqa: PLW0603 - once a process
    if _finalizer_pid != os.getpid():
        _finalizer_pid = os.getpid()
        multiprocessing_util.Finalize(None, _finish_all, exitpriority=100)


def _after_fork_in_child() -> None:
    global _shared_lock  # noqa: PLW0603 - another thread may have held it at the moment of the fork
    _shared_lock = threading.Lock()
    for tie in _all_ties():
        tie.after_fork()


atexit.register(_finish_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
