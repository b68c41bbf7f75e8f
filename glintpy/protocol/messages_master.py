"""One dataclass a message to the master: members, models, and groups of workers; knows no bytes."""

from __future__ import annotations

from typing import ClassVar

from glintpy.protocol.fields import SESSION, WAIT_MS, Bool, Frame, Int, Text, rule
from glintpy.protocol.messages import Array, Document, Message, message

# --- the cluster: anybody to the master -------------------------------------------------------------------


@message
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


@message
class Beat(Message):
    """Server or client: is alive. Answered with ``BeatSeen``."""

    KIND: ClassVar[int] = 41
    member_id: str = rule(Text(64))
    incarnation: int = rule(Int())
    progress: int = rule(Int())
    """Messages that the data actor has handled, ticks included: stands still when it hangs."""


@message
class BeatSeen(Message):
    """Master: the answer to a beat."""

    KIND: ClassVar[int] = 42
    known: bool = rule(Bool())
    """False: join again."""
    changes: int = rule(Int())
    """Counts joins and losses of servers; a change says that addresses may have changed."""


@message
class Leave(Message):
    """Server or client: goes in good order."""

    KIND: ClassVar[int] = 43
    member_id: str = rule(Text(64))


@message
class CreateModel(Message):
    """Client: make a model on all servers or none."""

    KIND: ClassVar[int] = 44
    token: bytes = rule(SESSION)
    """Random, the same when the request is repeated: a repetition finds what the first one made."""
    exist_ok: bool = rule(Bool())
    publish: bool = rule(Bool())
    """False: under no name yet; ``PublishModel`` gives it one when it is filled."""
    owner: str = rule(Text(64))
    """The client's member id: under no name yet, the model goes with it."""
    spec: Document = rule(Frame(document=True))
    sizes: Array = rule(Frame())
    """(P,) int64: rows by partition."""
    extents: Array = rule(Frame())
    """(P, 2) int64: global row of the first, step between rows; empty if a partition's rows have no step."""


@message
class OpenModel(Message):
    """Client: look a model up by name, or by id where the name is empty."""

    KIND: ClassVar[int] = 45
    model_id: int = rule(Int())
    name: str = rule(Text(128))


@message
class PublishModel(Message):
    """Client: give a model that was made without publishing its name."""

    KIND: ClassVar[int] = 46
    model_id: int = rule(Int())


@message
class DestroyModel(Message):
    """Client: end a model."""

    KIND: ClassVar[int] = 47
    model_id: int = rule(Int())


@message
class ConfigureModel(Message):
    """Client: give a model's updater other numbers."""

    KIND: ClassVar[int] = 54
    model_id: int = rule(Int())
    wait_ms: int = rule(WAIT_MS)
    """How long servers that are away may be waited for; then they get the numbers when they are back."""
    numbers: Document = rule(Frame(document=True))
    """A JSON object: all of them, by their names."""


@message
class ClusterState(Message):
    """Anybody: members, groups and models."""

    KIND: ClassVar[int] = 48


# --- groups of workers: client to the master --------------------------------------------------------------


@message
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
    rank: int = rule(Int())
    """One more than the rank that it wants; 0: the lowest free one."""
    tells_losses: bool = rule(Bool())
    """Whoever waits is told when another worker is lost; else the others just go on."""
    wait_ms: int = rule(WAIT_MS)
    """For a place in a group that is full, or for a rank that is taken."""


@message
class Arrive(Message):
    """Client: its worker has arrived at a barrier."""

    KIND: ClassVar[int] = 50
    token: bytes = rule(SESSION)
    barrier: int = rule(Int(1))
    """Its number: barriers of a group are counted."""
    losses: int = rule(Int())
    """How many losses of others the worker has heard of."""
    wait_ms: int = rule(WAIT_MS)


@message
class Advance(Message):
    """Client: its worker has finished so many steps."""

    KIND: ClassVar[int] = 51
    token: bytes = rule(SESSION)
    clock: int = rule(Int(1))


@message
class AwaitClocks(Message):
    """Client: its worker waits until nobody is further behind it than this."""

    KIND: ClassVar[int] = 52
    token: bytes = rule(SESSION)
    clock: int = rule(Int())
    staleness: int = rule(Int())
    is_applied: bool = rule(Bool())
    """Wait, too, until the servers have applied what was gathered in steps up to then."""
    losses: int = rule(Int())
    """As in ``Arrive``."""
    wait_ms: int = rule(WAIT_MS)


@message
class LeaveGroup(Message):
    """Client: its worker is no longer one."""

    KIND: ClassVar[int] = 53
    token: bytes = rule(SESSION)
    is_orderly: bool = rule(Bool())
    """False: it failed, and counts as lost."""


@message
class SendMessage(Message):
    """Client: its worker says something to others of its group. Answered when it is written down."""

    KIND: ClassVar[int] = 55
    token: bytes = rule(SESSION)
    number: int = rule(Int(1))
    """Of the worker's messages; the same when the request is repeated, and sent when the one before has its answer."""
    head: int = rule(Int())
    """What the workers agree on."""
    ranks: Array | None = rule(Frame(index=True, optional=True))
    """(n,) to whom; absent: to all others."""
    body: Document = rule(Frame(document=True))
    """Any bytes."""


@message
class ReceiveMessages(Message):
    """Client: its worker wants what others have said to it, and lets go of what it has."""

    KIND: ClassVar[int] = 56
    token: bytes = rule(SESSION)
    received: int = rule(Int())
    """The number of the last message that it has; 0: none."""
    departures: int = rule(Int())
    """Of how many workers' going it has heard."""
    wait_ms: int = rule(WAIT_MS)
