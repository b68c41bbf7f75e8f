"""One dataclass a message between clients and servers, and what all messages have; knows no bytes.

Not changed once they are made. What is said to the master stands in ``messages_master``.

A message's class says everything the wire needs: its number (``KIND``), its fields in order, and for each
field what values are allowed. Fields of arrays come last; they travel as frames of their own behind the
header. ``docs/protocol.md`` is this file in prose.
"""

from __future__ import annotations

from dataclasses import field, fields
from typing import Any, ClassVar, TypeVar, dataclass_transform

import numpy as np
from numpy.typing import NDArray

from glintpy.protocol.fields import (
    ARRAY,
    PART,
    RANK,
    SESSION,
    SESSION_OR_NONE,
    Bool,
    Frame,
    Int,
    Rule,
    Text,
    rule,
)
from glintpy.records import record

VERSION = 1
"""The version of the protocol that this package speaks."""

FEATURES: tuple[str, ...] = ()
"""Names of additions to version 1 that this package knows; there are none yet."""

Array = NDArray[Any]
Document = NDArray[np.uint8]
"""A JSON text as an array of bytes: for what has no fixed size (specs, lists, status)."""

M = TypeVar("M")


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(field, rule))
def message(kind: type[M]) -> type[M]:
    """Make a class a message: a record whose fields have rules."""
    return record(kind)


@message
class Message:
    """What every message has.

    Attributes:
        request_id: chosen by who asks, the same in all parts and in all answers.
    """

    KIND: ClassVar[int] = 0
    request_id: int = rule(Int())


# --- sessions: client and server ----------------------------------------------------------------------


@message
class Hello(Message):
    """Client: opens a session, or goes on with one after a reconnect."""

    KIND: ClassVar[int] = 1
    version_min: int = rule(Int(1, 255))
    version_max: int = rule(Int(1, 255))
    features: str = rule(Text(512))
    """Names separated by commas."""
    client_id: bytes = rule(SESSION)
    session: bytes = rule(SESSION_OR_NONE)
    """Empty for a new session."""
    floor: int = rule(Int())


@message
class Welcome(Message):
    """Server: the session, new or as it stands."""

    KIND: ClassVar[int] = 2
    version: int = rule(Int(1, 255))
    features: str = rule(Text(512))
    server_id: str = rule(Text(64))
    incarnation: int = rule(Int())
    session: bytes = rule(SESSION)
    window_bytes: int = rule(Int())
    applied: int = rule(Int())
    """The highest sequence number that has an outcome."""


@message
class Pull(Message):
    """Client: read one part of a selection."""

    KIND: ClassVar[int] = 3
    session: bytes = rule(SESSION)
    floor: int = rule(Int())
    after: int = rule(Int())
    """The last number that this client used for the model: a pull sees its own client's pushes."""
    model_id: int = rule(Int())
    routing: int = rule(Int())
    part: int = rule(PART)
    array: int = rule(ARRAY)
    round: int = rule(Int())
    """Not before the rows are out of this round of the worker's, as in ``Push``; 0: at once."""
    rank: int = rule(RANK)
    paired: bool = rule(Bool())
    rows: Array = rule(Frame(index=True))
    cols: Array | None = rule(Frame(index=True, optional=True))


@message
class Push(Message):
    """Client: apply one part, exactly once and in sequence order."""

    KIND: ClassVar[int] = 4
    session: bytes = rule(SESSION)
    floor: int = rule(Int())
    """The oldest number whose outcome the client doesn't know; all below are done with."""
    sequence: int = rule(Int(1))
    model_id: int = rule(Int())
    routing: int = rule(Int())
    part: int = rule(PART)
    wants_values: bool = rule(Bool())
    """push_pull: answer with the values after the push."""
    assign: bool = rule(Bool())
    """Store the values as they are, whatever the updater: how a saved model is loaded."""
    array: int = rule(ARRAY)
    """Other than 0 only with ``assign``."""
    round: int = rule(Int())
    """Of a model that follows a group: one more than the round's tag; 0: applied as the model says."""
    rank: int = rule(RANK)
    """Of the worker, in a round."""
    paired: bool = rule(Bool())
    rows: Array = rule(Frame(index=True))
    cols: Array | None = rule(Frame(index=True, optional=True))
    values: Array = rule(Frame())


@message
class PushLevels(Message):
    """Client: apply one part as a ``Push`` with values of few levels, each of which travels as its place among them."""

    KIND: ClassVar[int] = 15
    session: bytes = rule(SESSION)
    floor: int = rule(Int())
    sequence: int = rule(Int(1))
    model_id: int = rule(Int())
    routing: int = rule(Int())
    part: int = rule(PART)
    round: int = rule(Int())
    """As in ``Push``."""
    rank: int = rule(RANK)
    paired: bool = rule(Bool())
    rows: Array = rule(Frame(index=True))
    cols: Array | None = rule(Frame(index=True, optional=True))
    levels: Array = rule(Frame())
    codes: Array = rule(Frame())


@message
class Values(Message):
    """Server: the values of one part; for a push_pull also its receipt."""

    KIND: ClassVar[int] = 5
    part: int = rule(PART)
    window_bytes: int = rule(Int())
    values: Array = rule(Frame())


@message
class Applied(Message):
    """Server: the receipt of one part of a push."""

    KIND: ClassVar[int] = 6
    part: int = rule(PART)
    window_bytes: int = rule(Int())


@message
class Gap(Message):
    """Server: something issued before this has not arrived; nothing was changed."""

    KIND: ClassVar[int] = 7
    part: int = rule(PART)
    expected: int = rule(Int(1))
    """The next number the server will apply."""
    window_bytes: int = rule(Int())


@message
class Failure(Message):
    """Anybody: the request, or one part of it, failed; for a push the refusal is recorded."""

    KIND: ClassVar[int] = 8
    part: int = rule(PART)
    code: int = rule(Int(1, 255))
    """From the table in ``protocol/failures.py``."""
    window_bytes: int = rule(Int())
    text: str = rule(Text(3000))


@message
class Probe(Message):
    """Client: it has been silent; what has arrived?"""

    KIND: ClassVar[int] = 9
    session: bytes = rule(SESSION)
    floor: int = rule(Int())
    highest: int = rule(Int())
    """The highest number sent."""


@message
class Report(Message):
    """Server: the session as it stands."""

    KIND: ClassVar[int] = 10
    window_bytes: int = rule(Int())
    applied: int = rule(Int())
    first: int = rule(Int())
    """The number that the first outcome belongs to."""
    outcomes: Array = rule(Frame(document=True))
    """(n,) uint8: 0 applied, 255 passed over, else the code of a failure."""


@message
class Bye(Message):
    """Client: has all its outcomes and ends its session."""

    KIND: ClassVar[int] = 11
    session: bytes = rule(SESSION)


# --- functions: client and server -----------------------------------------------------------------------


@message
class Compute(Message):
    """Client: run a function that reads on one part of a selection."""

    KIND: ClassVar[int] = 12
    session: bytes = rule(SESSION)
    floor: int = rule(Int())
    after: int = rule(Int())
    """As in ``Pull``, of both models."""
    model_id: int = rule(Int())
    routing: int = rule(Int())
    other_id: int = rule(Int())
    """The model that ``others`` are of."""
    other_routing: int = rule(Int())
    part: int = rule(PART)
    function: str = rule(Text(256))
    numbers: Document = rule(Frame(document=True))
    rows: Array = rule(Frame(index=True))
    others: Array | None = rule(Frame(index=True, optional=True))
    first: Array | None = rule(Frame(optional=True))
    second: Array | None = rule(Frame(optional=True))
    third: Array | None = rule(Frame(optional=True))


@message
class Computed(Message):
    """Server: what a function made of one part."""

    KIND: ClassVar[int] = 13
    part: int = rule(PART)
    window_bytes: int = rule(Int())
    first: Array | None = rule(Frame(optional=True))
    second: Array | None = rule(Frame(optional=True))
    third: Array | None = rule(Frame(optional=True))


@message
class Change(Message):
    """Client: run a function that changes values on one part of a selection; numbered as a push is."""

    KIND: ClassVar[int] = 14
    session: bytes = rule(SESSION)
    floor: int = rule(Int())
    sequence: int = rule(Int(1))
    model_id: int = rule(Int())
    routing: int = rule(Int())
    other_id: int = rule(Int())
    """A model that the function looks into and leaves as it is: that ``others`` are of."""
    other_routing: int = rule(Int())
    part: int = rule(PART)
    function: str = rule(Text(256))
    numbers: Document = rule(Frame(document=True))
    rows: Array = rule(Frame(index=True))
    cols: Array | None = rule(Frame(index=True, optional=True))
    others: Array | None = rule(Frame(index=True, optional=True))
    first: Array | None = rule(Frame(optional=True))
    second: Array | None = rule(Frame(optional=True))
    third: Array | None = rule(Frame(optional=True))


def arrays_in(message: Compute | Computed | Change) -> tuple[Array, ...]:
    """Return the arrays that go along, up to the first one that is missing."""
    found: list[Array] = []
    for array in (message.first, message.second, message.third):
        if array is None:
            break
        found.append(array)
    return tuple(found)


def as_fields(arrays: tuple[Array, ...]) -> tuple[Array | None, Array | None, Array | None]:
    """Return at most three arrays as the fields in which they travel."""
    first, second, third = (*arrays, None, None, None)[:3]
    return first, second, third


# --- whole models: client or master to a server ---------------------------------------------------------


@message
class Done(Message):
    """Anybody: it is done, and this is what there is to know."""

    KIND: ClassVar[int] = 20
    document: Document = rule(Frame(document=True))


@message
class CreateShard(Message):
    """Master: reserve and initialise this server's part of a model."""

    KIND: ClassVar[int] = 21
    model_id: int = rule(Int())
    routing: int = rule(Int())
    num_rows: int = rule(Int())
    reserve_only: bool = rule(Bool())
    """True: only see whether it fits, and keep the room for it; nothing is allocated."""
    spec: Document = rule(Frame(document=True))
    extents: Array = rule(Frame())
    """(k, 4) int64: first server row, number of rows, global row of the first, step between global rows.
    Empty where the initial values don't depend on the row."""


@message
class DestroyShard(Message):
    """Master: forget this server's part of a model."""

    KIND: ClassVar[int] = 22
    model_id: int = rule(Int())


@message
class ConfigureShard(Message):
    """Master: the updater of this server's part of a model has other numbers from now on."""

    KIND: ClassVar[int] = 27
    model_id: int = rule(Int())
    version: int = rule(Int(1))
    """Grows with each change; what isn't newer than what the server has is done already."""
    numbers: Document = rule(Frame(document=True))


@message
class EndRound(Message):
    """Master: apply what was gathered of this server's part of a model since the last round."""

    KIND: ClassVar[int] = 28
    model_id: int = rule(Int())
    version: int = rule(Int(1))
    """Grows with each round; what isn't newer than what the server has ended is done already."""


@message
class SetLive(Message):
    """Master: for the pushes of these ranks rounds with tags wait from now on; end those that have all of them."""

    KIND: ClassVar[int] = 29
    model_id: int = rule(Int())
    version: int = rule(Int(1))
    """Grows with each change; what isn't newer than what the server has is done already."""
    live: int = rule(Int())
    """A bit for each rank; 0: none ends."""


@message
class BeginCut(Message):
    """Client: hold one moment of a model, to be read in slices."""

    KIND: ClassVar[int] = 23
    session: bytes = rule(SESSION)
    floor: int = rule(Int())
    after: int = rule(Int())
    model_id: int = rule(Int())


@message
class ReadCut(Message):
    """Client: read one slice of a cut. Answered with ``Values``, its part the slice's index."""

    KIND: ClassVar[int] = 24
    session: bytes = rule(SESSION)
    cut_id: int = rule(Int())
    index: int = rule(PART)
    done_below: int = rule(PART)
    """Slices below this one have arrived and are not read again."""
    first_cell: int = rule(Int())
    """Where to begin in a slice that is longer than a part: one row then, answered as (n,) cells from here
    on, at most a part of them. 0 for all others, which are answered whole."""


@message
class EndCut(Message):
    """Client: is done with a cut."""

    KIND: ClassVar[int] = 25
    session: bytes = rule(SESSION)
    cut_id: int = rule(Int())


@message
class ServerStatus(Message):
    """Anybody: what does this server hold?"""

    KIND: ClassVar[int] = 26


def rules_of(kind: type[Message]) -> list[tuple[str, Rule]]:
    """Return the fields of a message in wire order, each with its rule."""
    return [(entry.name, entry.metadata["rule"]) for entry in fields(kind)]
