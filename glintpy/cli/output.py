"""What commands print, and how they fail: one line for a person, JSON for a program; knows no cluster."""

from __future__ import annotations

import json
import logging
import sys
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console

WIDTH_WITHOUT_TERMINAL = 160
"""Columns of tables in a pipe or file: nobody's window is narrower there."""


class Failed(Exception):
    """A command can't do what it was asked to; the message is the one line that says so.

    Attributes:
        exit_code: 1; 2 where the command itself was wrong, as is the custom.
    """

    def __init__(self, message: str, *, exit_code: int = 1) -> None:
        super().__init__(message)
        self.exit_code = exit_code


def say(text: str) -> None:
    """Print a line at once, also into a pipe."""
    print(text, flush=True)  # noqa: T201 - the command line's own output


def complain(text: str) -> None:
    """Print a line where errors go."""
    print(text, file=sys.stderr, flush=True)  # noqa: T201 - the command line's own output


def say_json(document: Any) -> None:
    """Print a document for a program."""
    say(json.dumps(document, indent=2))


def console() -> Console:
    """Return where tables are printed: as wide as the terminal, and never cut in a pipe."""
    from rich.console import Console  # noqa: PLC0415 - only where something is shown

    found = Console(highlight=False, markup=False, emoji=False, soft_wrap=False)
    if not found.is_terminal and found.width < WIDTH_WITHOUT_TERMINAL:
        found.width = WIDTH_WITHOUT_TERMINAL
    return found


def log_to_stderr(level: str) -> None:
    """Let glintpy's own log lines through from a level on, and other libraries' warnings."""
    logging.basicConfig(level="WARNING", format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    logging.getLogger("glintpy").setLevel(level.upper())
