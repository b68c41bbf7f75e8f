"""Functions that servers run where the values lie; knows no message, no storage and no socket.

A function is a name, numbers, a server's part and a client's part (``base``), a file for each or for a few that are
alike. ``names`` finds them.
"""

from __future__ import annotations

from glintpy.functions.base import (
    Answer,
    Ask,
    Asking,
    Changing,
    Choosing,
    Function,
    Piece,
    Reading,
    Selected,
    Steps,
)
from glintpy.functions.names import bring, name_of, named

__all__ = [
    "Answer",
    "Ask",
    "Asking",
    "Changing",
    "Choosing",
    "Function",
    "Piece",
    "Reading",
    "Selected",
    "Steps",
    "bring",
    "name_of",
    "named",
]
