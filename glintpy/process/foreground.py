"""A node in the foreground of its process: signals, limits, and the program that started it; knows no option."""

from __future__ import annotations

import contextlib
import faulthandler
import logging
import os
import queue
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Protocol

from glintpy.errors import GlintError
from glintpy.process.output import Failed, say

logger = logging.getLogger("glintpy.process")

LOOK_S = 1.0
"""Between two looks at whether the node, and who started it, are still there."""

READY = "ready at "
"""What the line that a node prints when it is ready says before its address."""

ORPHANED = "the program that started it has gone"


class Runs(Protocol):
    """What runs in the foreground."""

    @property
    def address(self) -> str:
        """Where it is reached."""
        ...

    def stop(self) -> None:
        """Stop it in good order."""
        ...


class StoppedEarly(BaseException):
    """A signal arrived before there was anything to stop; not an Exception, so that nothing handles it as one."""


class Signals:
    """SIGINT and SIGTERM: the first asks to stop in good order, a second ends the process at once.

    Args:
        is_owned: started by a program that decides alone when it ends; it may ask more than once.
        interrupts: raise ``StoppedEarly`` while starting; else whoever starts looks at ``is_asked``.

    Attributes:
        is_asked: whether a signal has come.
        is_starting: whether there is nothing to stop yet.
        exit_code: what a shell calls a program that the first signal ended; 0 before there was one.

    Threads:
        Belongs to the main thread: only there may Python handle signals.
    """

    def __init__(self, *, is_owned: bool = False, interrupts: bool = False) -> None:
        self._is_owned = is_owned
        self._interrupts = interrupts
        # Not an Event: its set() would wait for ever for a lock that the interrupted wait() holds.
        self._wishes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self.is_asked = False
        self.is_starting = True
        self.exit_code = 0

    def install(self) -> None:
        """Begin to handle them, and SIGUSR1: where every thread stands, on stderr."""
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, self._handle)
        # The stream that the process was born with: whatever stands in for it may have no descriptor.
        if hasattr(signal, "SIGUSR1") and sys.__stderr__ is not None:
            faulthandler.register(signal.SIGUSR1, file=sys.__stderr__, all_threads=True)

    def ask_to_stop(self, reason: str) -> None:
        """Stop as if a signal had come; safe from any thread."""
        self._wishes.put(reason)

    def wait(self, look: Callable[[], str]) -> str:
        """Wait until something is a reason to stop, and return it.

        Args:
            look: asked now and then; returns a reason, or nothing.
        """
        while True:
            reason = look()
            if reason:
                return reason
            with contextlib.suppress(queue.Empty):
                return self._wishes.get(timeout=LOOK_S)

    def _handle(self, number: int, _: FrameType | None) -> None:
        if self.is_asked:
            if not self._is_owned:
                os._exit(128 + number)
            return
        self.is_asked = True
        self.exit_code = 128 + number
        self._wishes.put(signal.Signals(number).name)
        if self.is_starting and self._interrupts:
            raise StoppedEarly


def run(
    role: str,
    start: Callable[[Signals], Runs],
    *,
    look: Callable[[], str] = lambda: "",
    parent: int = 0,
    private: Path | None = None,
    interrupts: bool = False,
) -> None:
    """Run something until a signal, its own end, or the end of the program that started it.

    Args:
        role: what it is, for the lines that say so.
        start: starts it.
        look: returns a reason why it can't go on, or nothing.
        parent: the process that started it and with which it goes; 0: nobody.
        private: a folder to remove when the parent has gone.
        interrupts: whether a signal may interrupt ``start`` anywhere.

    Raises:
        Failed: it ended by itself.
        GlintError, OSError: it could not start.
    """
    raise_file_limit()
    signals = Signals(is_owned=parent != 0, interrupts=interrupts)
    signals.install()
    try:
        try:
            running = start(signals)
            signals.is_starting = False
        except StoppedEarly:
            return
        except GlintError:
            if signals.is_asked or is_orphan(parent):
                return
            raise
        _announce(role, running.address)
        reason = signals.wait(lambda: ORPHANED if is_orphan(parent) else look())
        logger.info("%s stops: %s", role, reason)
        running.stop()
        if reason != ORPHANED and reason not in signal.Signals.__members__:
            raise Failed(reason)
    finally:
        # Nobody else is left to do it. Each orphan does when it has closed its own files, so the last one to
        # go leaves nothing.
        if private is not None and is_orphan(parent):
            import shutil  # noqa: PLC0415 - loads compressors, for orphans only

            shutil.rmtree(private, ignore_errors=True)


def _announce(role: str, address: str) -> None:
    with contextlib.suppress(BrokenPipeError):  # whoever started it has gone meanwhile
        say(f"glintpy {role} {READY}{address}")


def is_orphan(parent: int) -> bool:
    """Return whether the process that started this one has gone."""
    return parent != 0 and os.getppid() != parent


def raise_file_limit() -> None:
    """Allow as many open files as the system lets us: each connection takes some, each model one."""
    try:
        import resource  # noqa: PLC0415 - there is none on Windows
    except ImportError:
        return
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    except (ValueError, OSError) as error:
        # macOS says "unlimited" and means less.
        logger.info("the limit of open files stays %d: %s", soft, error)
