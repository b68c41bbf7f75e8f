"""What commands print: lines and tables for a person, JSON for a program; knows no cluster."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from glintpy.process.output import Failed, complain, log_to_stderr, say

if TYPE_CHECKING:
    from rich.console import Console

__all__ = ["Failed", "complain", "console", "log_to_stderr", "say", "say_json"]

WIDTH_WITHOUT_TERMINAL = 160
"""Columns of tables in a pipe or file: nobody's window is narrower there."""


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
