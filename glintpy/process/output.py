"""What a process prints, and how it fails: one line for a person; knows no node and no command."""

from __future__ import annotations

import logging
import sys


class Failed(Exception):
    """A process can't do what it was asked to; the message is the one line that says so.

    Attributes:
        exit_code: 1; 2 where what was asked was itself wrong, as is the custom.
    """

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)  # noqa: T201 - a process's own output


def complain(text: str) -> None:
    """Print a line where errors go."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - a process's own output


def log_to_stderr(level: str) -> None:
    """Let glintpy's own log lines through from a level on, and other libraries' warnings."""
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("glintpy").setLevel(level.upper())
