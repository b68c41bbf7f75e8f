"""One dataclass a message, not changed once it is made, and the fields that it has; knows no bytes.

A message's class says everything the wire needs: its number (``KIND``), its fields in order, and for each
field what values are allowed. Fields of arrays come last; they travel as frames of their own behind the
header. ``docs/protocol.md`` is this file in prose.
"""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import Any, ClassVar, TypeVar, dataclass_transform

import numpy as np
from numpy.typing import NDArray

from glintpy.protocol.fields import (
    ARRAY,
    PART,
    SESSION,
    SESSION_OR_NONE,
    WAIT_MS,
    Bool,
    Frame,
    Int,
    Rule,
    Text,
    rule,
)

VERSION = 1
"""The version of the protocol that this package speaks."""

FEATURES: tuple[str, ...] = ()
"""Names of additions to version 1 that this package knows; there are none yet."""

Array = NDArray[Any]
Document = NDArray[np.uint8]
"""A JSON text as an array of bytes: for what has no fixed size (specs, lists, status)."""

M = TypeVar("M")


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(field, rule))
def _message(kind: type[M]) -> type[M]:
    """Make a class a message: frozen to the type checker only, since frozen ones take three times as long to make."""
    return dataclass(slots=True, eq=False)(kind)


@_message
class Message:
    """What every message has.

    Attributes:
        request_id: chosen by who asks, the same in all parts and in all answers.
    """

    KIND: ClassVar[int] = 0
    request_id: int = rule(Int())


# --- sessions: client and server ----------------------------------------------------------------------


@_message
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


@_message
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


@_message
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
    paired: bool = rule(Bool())
    rows: Array = rule(Frame(index=True))
    cols: Array | None = rule(Frame(index=True, optional=True))


@_message
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
    paired: bool = rule(Bool())
    rows: Array = rule(Frame(index=True))
    cols: Array | None = rule(Frame(index=True, optional=True))
    values: Array = rule(Frame())


@_message
class Values(Message):
    """Server: the values of one part; for a push_pull also its receipt."""

    KIND: ClassVar[int] = 5
    part: int = rule(PART)
    window_bytes: int = rule(Int())
    values: Array = rule(Frame())


@_message
class Applied(Message):
    """Server: the receipt of one part of a push."""

    KIND: ClassVar[int] = 6
    part: int = rule(PART)
    window_bytes: int = rule(Int())


@_message
class Gap(Message):
    """Server: something issued before this has not arrived; nothing was changed."""

    KIND: ClassVar[int] = 7
    part: int = rule(PART)
    expected: int = rule(Int(1))
    """The next number the server will apply."""
    window_bytes: int = rule(Int())


@_message
class Failure(Message):
    """Anybody: the request, or one part of it, failed; for a push the refusal is recorded."""

    KIND: ClassVar[int] = 8
    part: int = rule(PART)
    code: int = rule(Int(1, 255))
    """From the table in ``protocol/failures.py``."""
    window_bytes: int = rule(Int())
    text: str = rule(Text(3000))


@_message
class Probe(Message):
    """Client: it has been silent; what has arrived?"""

    KIND: ClassVar[int] = 9
    session: bytes = rule(SESSION)
    floor: int = rule(Int())
    highest: int = rule(Int())
    """The highest number sent."""


@_message
class Report(Message):
    """Server: the session as it stands."""

    KIND: ClassVar[int] = 10
    window_bytes: int = rule(Int())
    applied: int = rule(Int())
    first: int = rule(Int())
    """The number that the first outcome belongs to."""
    outcomes: Array = rule(Frame(document=True))
    """(n,) uint8: 0 applied, 255 passed over, else the code of a failure."""


@_message
class Bye(Message):
    """Client: has all its outcomes and ends its session."""

    KIND: ClassVar[int] = 11
    session: bytes = rule(SESSION)


# --- whole models: client or master to a server ---------------------------------------------------------


@_message
class Done(Message):
    """Anybody: it is done, and this is what there is to know."""

    KIND: ClassVar[int] = 20
    document: Document = rule(Frame(document=True))


@_message
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


@_message
class DestroyShard(Message):
    """Master: forget this server's part of a model."""

    KIND: ClassVar[int] = 22
    model_id: int = rule(Int())


@_message
class BeginCut(Message):
    """Client: hold one moment of a model, to be read in slices."""

    KIND: ClassVar[int] = 23
    session: bytes = rule(SESSION)
    floor: int = rule(Int())
    after: int = rule(Int())
    model_id: int = rule(Int())


@_message
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


@_message
class EndCut(Message):
    """Client: is done with a cut."""

    KIND: ClassVar[int] = 25
    session: bytes = rule(SESSION)
    cut_id: int = rule(Int())


@_message
class ServerStatus(Message):
    """Anybody: what does this server hold?"""

    KIND: ClassVar[int] = 26


# --- the cluster: anybody to the master -------------------------------------------------------------------


@_message
class Join(Message):
    """Server or client: becomes a member, or is one again."""

    KIND: ClassVar[int] = 40
    version_min: int = rule(Int(1, 255))
    version_max: int = rule(Int(1, 255))
    is_server: bool = rule(Bool())
    member_id: str = rule(Text(64))
    name: str = rule(Text(128))
    address: str = rule(Text(512))
    """Where a server is reached; empty for a client."""
    incarnation: int = rule(Int())
    pid: int = rule(Int())
    host: str = rule(Text(256))
    cluster_id: str = rule(Text(64))
    """Of the cluster that a server's models belong to; empty if it has none."""
    era: str = rule(Text(64))
    """Of the master that took the server last; empty where ``cluster_id`` is."""
    highest_model: int = rule(Int())
    """The highest id among the server's models; 0 if it has none."""


@_message
class Beat(Message):
    """Server or client: is alive. Answered with ``BeatSeen``."""

    KIND: ClassVar[int] = 41
    member_id: str = rule(Text(64))
    incarnation: int = rule(Int())
    progress: int = rule(Int())
    """Messages that the data actor has handled, ticks included: stands still when it hangs."""


@_message
class BeatSeen(Message):
    """Master: the answer to a beat."""

    KIND: ClassVar[int] = 42
    known: bool = rule(Bool())
    """False: join again."""
    changes: int = rule(Int())
    """Counts joins and losses of servers; a change says that addresses may have changed."""


@_message
class Leave(Message):
    """Server or client: goes in good order."""

    KIND: ClassVar[int] = 43
    member_id: str = rule(Text(64))


@_message
class CreateModel(Message):
    """Client: make a model on all servers or none."""

    KIND: ClassVar[int] = 44
    token: bytes = rule(SESSION)
    """Random, the same when the request is repeated: a repetition finds what the first one made."""
    exist_ok: bool = rule(Bool())
    publish: bool = rule(Bool())
    """False: under no name yet; ``PublishModel`` gives it one when it is filled."""
    spec: Document = rule(Frame(document=True))
    sizes: Array = rule(Frame())
    """(P,) int64: rows by partition."""
    extents: Array = rule(Frame())
    """(P, 2) int64: global row of the first, step between rows; empty if a partition's rows have no step."""


@_message
class OpenModel(Message):
    """Client: look a model up by name, or by id where the name is empty."""

    KIND: ClassVar[int] = 45
    model_id: int = rule(Int())
    name: str = rule(Text(128))


@_message
class PublishModel(Message):
    """Client: give a model that was made without publishing its name."""

    KIND: ClassVar[int] = 46
    model_id: int = rule(Int())


@_message
class DestroyModel(Message):
    """Client: end a model."""

    KIND: ClassVar[int] = 47
    model_id: int = rule(Int())


@_message
class ClusterState(Message):
    """Anybody: members, groups and models."""

    KIND: ClassVar[int] = 48


# --- groups of workers: client to the master --------------------------------------------------------------


@_message
class JoinGroup(Message):
    """Client: becomes a worker of a group, or is one already."""

    KIND: ClassVar[int] = 49
    member_id: str = rule(Text(64))
    """As in ``Join``: whose loss is the worker's."""
    token: bytes = rule(SESSION)
    """Random; names the worker from here on, and the same when the request is repeated."""
    name: str = rule(Text(128))
    num_workers: int = rule(Int())
    """0: whoever is there."""
    tells_losses: bool = rule(Bool())
    """Whoever waits is told when another worker is lost; else the others just go on."""
    wait_ms: int = rule(WAIT_MS)
    """For a place in a group that is full."""


@_message
class Arrive(Message):
    """Client: its worker has arrived at a barrier."""

    KIND: ClassVar[int] = 50
    token: bytes = rule(SESSION)
    barrier: int = rule(Int(1))
    """Its number: barriers of a group are counted."""
    losses: int = rule(Int())
    """How many losses of others the worker has heard of."""
    wait_ms: int = rule(WAIT_MS)


@_message
class Advance(Message):
    """Client: its worker has finished so many steps."""

    KIND: ClassVar[int] = 51
    token: bytes = rule(SESSION)
    clock: int = rule(Int(1))


@_message
class AwaitClocks(Message):
    """Client: its worker waits until nobody is further behind it than this."""

    KIND: ClassVar[int] = 52
    token: bytes = rule(SESSION)
    clock: int = rule(Int())
    staleness: int = rule(Int())
    losses: int = rule(Int())
    """As in ``Arrive``."""
    wait_ms: int = rule(WAIT_MS)


@_message
class LeaveGroup(Message):
    """Client: its worker is no longer one."""

    KIND: ClassVar[int] = 53
    token: bytes = rule(SESSION)
    is_orderly: bool = rule(Bool())
    """False: it failed, and counts as lost."""


def message_types() -> dict[int, type[Message]]:
    """Return every kind of message by its number."""
    # Not Message.__subclasses__(): a dataclass with slots is a second class beside the one in the text.
    kinds = [kind for kind in globals().values() if isinstance(kind, type) and issubclass(kind, Message)]
    found = {kind.KIND: kind for kind in kinds if kind is not Message}
    assert len(found) == len(kinds) - 1, "two messages share a number"
    return found


def rules_of(kind: type[Message]) -> list[tuple[str, Rule]]:
    """Return the fields of a message in wire order, each with its rule."""
    return [(entry.name, entry.metadata["rule"]) for entry in fields(kind)]
