"""What the fields of a message may hold: one rule a field, which the wire checks; knows no message and no bytes."""

from __future__ import annotations

from dataclasses import field
from typing import Any

from glintpy.records import record

U63 = 2**63 - 1


@record
class Int:
    """A field that holds an integer in [low, high]."""

    low: int = 0
    high: int = U63


@record
class Bytes:
    """A field that holds bytes of one of these lengths."""

    lengths: tuple[int, ...]


@record
class Text:
    """A field that holds text of at most this many characters."""

    characters_max: int


@record
class Bool:
    """A field that holds True or False."""


@record
class Frame:
    """A field that holds an array, in a frame of its own; ``optional`` ones may be None.

    Attributes:
        index: int64 or uint32 only, as (n,) indices or (k, 3) slices.
        document: uint8 only, (n,).
    """

    index: bool = False
    document: bool = False
    optional: bool = False


Rule = Int | Bytes | Text | Bool | Frame


def rule(value: Rule) -> Any:
    """Attach the rule of a field to it."""
    return field(metadata={"rule": value})


SESSION = Bytes((16,))
SESSION_OR_NONE = Bytes((0, 16))
PART = Int(0, 2**32 - 1)
WAIT_MS = Int(0, 2**32 - 1)
"""How long the answer may be put off, in milliseconds; the master may give less."""
RANK = Int(0, 62)
"""A worker whose pushes rounds with tags mark by a bit."""
ARRAY = Int(0, 255)
"""Which of a model's arrays: 0 its values, then what its updater keeps beside them."""
