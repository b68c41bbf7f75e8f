"""One dataclass a message about tables, whose rows are named by keys; knows no bytes."""

from __future__ import annotations

from typing import ClassVar

from glintpy.protocol.fields import ARRAY, PART, SESSION, Bool, Frame, Int, rule
from glintpy.protocol.messages import Array, Message, message

UPDATE, ASSIGN, CREATE, REMOVE, EVICT = range(5)
"""What a ``PushKeys`` does: apply values by the updater, store them as they are, give keys their rows, remove keys, or
remove those that are little used: then its ``keys`` are what ``storage.use.Criteria`` has."""


@message
class PullKeys(Message):
    """Client: read the rows of some keys, or whether they have one."""

    KIND: ClassVar[int] = 30
    session: bytes = rule(SESSION)
    floor: int = rule(Int())
    after: int = rule(Int())
    """As in ``Pull``."""
    model_id: int = rule(Int())
    routing: int = rule(Int())
    part: int = rule(PART)
    array: int = rule(ARRAY)
    contains: bool = rule(Bool())
    """Answer with (n,) bool, whether each key has a row, instead of the rows."""
    keys: Array = rule(Frame())


@message
class PushKeys(Message):
    """Client: do something to the rows of some keys, exactly once and in sequence order."""

    KIND: ClassVar[int] = 31
    session: bytes = rule(SESSION)
    floor: int = rule(Int())
    sequence: int = rule(Int(1))
    model_id: int = rule(Int())
    routing: int = rule(Int())
    part: int = rule(PART)
    wants_values: bool = rule(Bool())
    """Answer with the rows as they are then."""
    action: int = rule(Int(UPDATE, EVICT))
    array: int = rule(ARRAY)
    """Other than 0 only to assign."""
    keys: Array = rule(Frame())
    values: Array | None = rule(Frame(optional=True))
    """To update and assign only."""


@message
class ScanKeys(Message):
    """Client: read some rows that have keys, in the order in which they lie."""

    KIND: ClassVar[int] = 32
    session: bytes = rule(SESSION)
    floor: int = rule(Int())
    after: int = rule(Int())
    """As in ``Pull``."""
    model_id: int = rule(Int())
    routing: int = rule(Int())
    first_row: int = rule(Int())
    """0 to begin with, then what the last answer said."""


@message
class Scanned(Message):
    """Server: some rows, and where to go on."""

    KIND: ClassVar[int] = 33
    part: int = rule(PART)
    window_bytes: int = rule(Int())
    next_row: int = rule(Int())
    """0: there are no more."""
    keys: Array = rule(Frame())
    values: Array = rule(Frame())


@message
class CountKeys(Message):
    """Client: how many keys have a row here? Answered with ``Done``."""

    KIND: ClassVar[int] = 34
    session: bytes = rule(SESSION)
    floor: int = rule(Int())
    after: int = rule(Int())
    """As in ``Pull``."""
    model_id: int = rule(Int())
