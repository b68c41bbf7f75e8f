"""Runs a command that ends when whoever started it has gone; needs nothing but the standard library.

``python -m glintpy.leash COMMAND...`` is started with a pipe as its standard input, which nobody writes into: when the
other end is closed, by an orderly end, by ``kill -9`` or because a connection broke, the command and all processes of
its group are ended. SIGINT, SIGTERM and SIGHUP are passed on, and what hasn't ended ``GRACE_S`` later is killed. What
the command leaves behind in its group goes with it. The exit code is the command's, as a shell would tell it.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Sequence
from functools import partial
from types import FrameType

GRACE_S = 5.0
"""How long a command may take to end when it is asked to."""

NOT_FOUND = 127
NOT_RUNNABLE = 126

_DIE_WITH_PARENT = 1
"""Linux's ``PR_SET_PDEATHSIG``."""


def leashed(command: Sequence[str], *, python: str = sys.executable) -> list[str]:
    """Return the command line that runs a command on a leash.

    Args:
        command: it, and its arguments.
        python: the interpreter, which must find this package.
    """
    # -P: whatever modules lie in the current folder, this one runs with the standard library's.
    return [python, "-P", "-m", "glintpy.leash", *command]


def main(command: Sequence[str]) -> int:
    """Run a command, and return its exit code: 128 and the signal's number if a signal ended it."""
    if not command:
        sys.stderr.write("glintpy.leash: no command\n")
        return NOT_FOUND
    # A signal may come before there is anything to pass it on to: by default it would end this process alone.
    process: subprocess.Popen[bytes] | None = None
    early: list[signal.Signals] = []

    def pass_on(number: int, _: FrameType | None) -> None:
        if process is None:
            early.append(signal.Signals(number))
        else:
            _end(process.pid, signal.Signals(number))

    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, pass_on)
    try:
        process = subprocess.Popen(  # noqa: S603 - what it is asked to run, without a shell
            list(command),
            stdin=subprocess.DEVNULL,
            process_group=0,
            preexec_fn=partial(_die_with, os.getpid()),  # noqa: PLW1509 - there is no other thread yet
        )
    except FileNotFoundError:
        sys.stderr.write(f"can't run {command[0]!r}: there is no such program\n")
        return NOT_FOUND
    except OSError as error:
        sys.stderr.write(f"can't run {command[0]!r}: {error.strerror}\n")
        return NOT_RUNNABLE
    for asked in early:
        _end(process.pid, asked)
    threading.Thread(target=_watch, args=(process.pid,), daemon=True).start()
    code = process.wait()
    _signal(process.pid, signal.SIGKILL)
    return code if code >= 0 else 128 - code


def _watch(group: int) -> None:
    """Wait for the end of the standard input, and end the command."""
    while os.read(0, 4096):
        pass
    _end(group, signal.SIGTERM)


def _end(group: int, number: signal.Signals) -> None:
    _signal(group, number)
    killer = threading.Timer(GRACE_S, _signal, (group, signal.SIGKILL))
    killer.daemon = True
    killer.start()


def _signal(group: int, number: signal.Signals) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):  # it has ended meanwhile
        os.killpg(group, number)


def _die_with(parent: int) -> None:
    """Have the system kill this process, the command's, when the leash is killed itself, where the system can."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_DIE_WITH_PARENT, signal.SIGKILL)
    if os.getppid() != parent:  # it was killed before the system was told
        os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    # Not by sys.exit: a thread that waits for the standard input would be waited for.
    _code = main(sys.argv[1:])
    sys.stderr.flush()
    os._exit(_code)
