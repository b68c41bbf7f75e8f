"""Run a program that the kernel ends when its parent is gone: ``python -S hold.py PARENT_PID PROGRAM ...``.

It knows nothing of the program. A hook between fork and exec would do the same, but runs Python in a forked copy
of a process that has threads.
"""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    # Elsewhere than on Linux a child that reads its standard input still ends when that does.
    if sys.platform == "linux":
        # Not SIGKILL: Ray's host has processes of its own to end.
        ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
    # It may have gone between the fork and the line above.
    if os.getppid() != parent:
        sys.exit(1)
    os.execvp(command[0], command)  # noqa: S606 - that is what it is for
