"""Every limit and timeout with its unit, default and reason; knows nothing of who reads them.

Two kinds live here. Constants of the protocol are the same for all peers of one version. Settings are
frozen dataclasses, made once when a client, server or master starts; tests make their own with smaller
numbers. Nothing reads an environment variable.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal, get_args

KIB = 1024
MIB = 1024 * KIB

MASTER_PORT = 13370
"""The default port of a master; Glint's own, so that its users feel at home."""

DEFAULT_ADDRESS = f"tcp://127.0.0.1:{MASTER_PORT}"

Durability = Literal["memory", "process", "disk"]
"""What an acknowledged push survives: nothing; the end of its server's process; a power cut."""

DURABILITIES: tuple[Durability, ...] = get_args(Durability)

# --- the wire -------------------------------------------------------------------------------------------

HEADER_BYTES_MAX = 4 * KIB
"""A header frame. 1 MB of nested empty maps decodes to 76 MB; 4 KiB of them to less than 300 KB."""

PART_BYTES = 2 * MIB
"""What one part carries. Each costs 250 us beside its bytes, so smaller ones are slower; larger ones keep others
waiting, and blocks of many MB are faulted in anew at each use, which costs 2 to 3 times the transfer."""

FRAME_BYTES_MAX = 16 * MIB
"""The longest frame taken from the network (``MAXMSGSIZE``): a part with its index list, and documents."""

ARRAYS_MAX = 4
"""Raw frames behind one header."""

MAPPED_BYTES_MIN = 4 * MIB
"""Smaller blocks, as all parts are, come from memory that the process has; see ``transport.allocator``."""

KEPT_FREE_BYTES = 64 * MIB
"""What a process may keep of freed memory at the end of a heap: the parts of a window or two."""

MERGED_MESSAGES_MAX = 64
"""Messages in one ZeroMQ message: enough to hide the cost of a send, few enough to bound a decoder."""

MERGED_BYTES_MAX = 64 * KIB
"""Only small messages travel together; for larger ones a send of their own costs nothing by comparison."""

SMALL_BYTES = 32 * KIB
"""A request of up to so many bytes of keys and values may travel together with others of its kind; of a larger one
the rows cost more than the request."""

SMALL_SLICE_ROWS = 512
"""A slice of up to so many rows may travel together with others, its rows written out; of a longer one these cost more
than its own message."""

BUNDLE_BYTES = 256 * KIB
"""Requests that travel together, in bytes: a quarter of a part, so that a server is not long away for them."""

BUNDLE_REQUESTS = 32
"""The same in requests: their common cost is spread thinly by then, and the server may begin."""

SLICES_MAX = 4 * KIB
"""Slices in one selection: one for each partition on a server, with room to spare."""

PARTITIONS_MAX = 64 * KIB
"""Partitions of one model: its routing stays a small document."""

TABLE_PARTITIONS = 1024
"""Partitions of a table: many times as many as servers, so that each has about as many keys, and so few that the
routing stays a small document."""

MODEL_NAME_MAX = 128
"""Characters of a model's name; it may stand in file names and in every log line."""

MESSAGE_BYTES_MAX = 1 * MIB
"""The body of a message between workers of a group: words, not values, which belong into models."""

RECEIPTS = 1024
"""Outcomes remembered for each session, and so pushes in flight for each client and server."""


@dataclass(frozen=True, slots=True)
class ClientSettings:
    """How a client waits, retries and bounds itself."""

    timeout_s: float | None = 30.0
    """Deadline of a request from its call on; None waits for ever."""
    on_server_lost: Literal["wait", "raise"] = "wait"
    """Whether requests to a lost server wait for its return until their deadline, or fail at once."""
    queued_bytes_max: int = 64 * MIB
    """Bytes accepted and not yet answered for each server; a push beyond waits in the call."""
    probe_first_s: float = 0.1
    """Silence before the first probe. Below it a loaded server is asked for nothing; above it a loss hurts."""
    probe_factor: float = 1.6
    """Each silent probe waits so much longer than the one before (Glint's factor, and here it is a float)."""
    probe_max_s: float = 5.0
    """The longest wait between two probes."""
    probe_jitter: float = 0.2
    """Share of each wait that is random, so that many clients don't probe in step."""
    keep_alive_s: float = 600.0
    """An idle session says so often that it lives: well within the hour after which a server forgets it."""
    close_timeout_s: float = 2.0
    """How long leaving ``with`` by an exception may flush."""


@dataclass(frozen=True, slots=True)
class ServerSettings:
    """What a server grants, keeps and refuses."""

    budget_bytes: int = 256 * MIB
    """Bytes that all sessions together may have under way to this server and back."""
    window_bytes_max: int = 32 * MIB
    """The largest window of one session; more gains nothing measurable on one link."""
    window_bytes_min: int = 64 * KIB
    """The smallest window, however many sessions share the budget."""
    answers_bytes_max: int = 32 * MIB
    """Answers kept for a client that doesn't read, beside as much in its connection; what exceeds it is dropped and
    asked for again."""
    sessions_max: int = 1024
    """Sessions remembered; beyond, the longest silent one is expelled."""
    session_idle_s: float = 60.0
    """Silence after which a session no longer counts among those that share the budget."""
    session_expiry_s: float = 3600.0
    """Silence after which its receipts are forgotten and it is expelled."""
    cut_idle_s: float = 60.0
    """A cut (the moment that a save reads) that nobody reads for so long is dropped."""
    slice_cells: int = 1_000_000
    """Cells touched between two looks into the mailbox: about 2 ms of work."""
    log_bytes_max: int = 64 * MIB
    """What the log of level ``disk`` may grow by until snapshots are taken and it is cut, or the bytes of its models
    where these are more: so a snapshot is never written more often than what it saves is worth."""
    memory_limit: int | None = None
    """Bytes for models; None: what the machine and its cgroup leave free."""
    durability: Durability = "process"
    """The level of models that name none."""
    allow: tuple[str, ...] = ()
    """Packages, modules or classes from which updaters that models name by their import path, and functions that
    calls name so, may be imported. None by itself: to import a module is to run it."""


@dataclass(frozen=True, slots=True)
class MembershipSettings:
    """How members are watched."""

    beat_s: float = 1.0
    """Between two heartbeats."""
    silent_s: float = 3.5
    """Silence after which a member is lost: three beats missed, and noticed within 5 s of the last one."""
    hung_s: float = 8.0
    """Beats without progress of the data actor after which a server counts as hung: noticed within 10 s."""
    client_gone_s: float = 10.0
    """Silence after which a client is forgotten; longer than a server's, since nothing depends on it. One with workers
    in groups is missed as early as a server: others wait for them."""
    lock_wait_s: float = 10.0
    """How long a server that starts waits for the one before it to let go of its folder."""
    join_timeout_s: float = 10.0
    """How long joining a master may take before the member gives up."""
    tick_s: float = 0.25
    """How often deadlines are looked at where nothing else happens."""


@dataclass(frozen=True, slots=True)
class GroupSettings:
    """What a master grants groups of workers."""

    back_s: float = 1.0
    """How long a worker whose connection ended may take to be back: after a reset that takes 0.3 s, and until then the
    others wait for one that may be dead."""
    restart_s: float = 10.0
    """The same after a restart of the master, when all come back at once."""
    place_s: float = 5.0
    """How long who joins a full group waits for a place: a worker that is dead is missed by then; or until those are
    missed that have not come back since the master's restart."""
    wait_s: float = 60.0
    """The longest that an answer is put off; who wants to wait longer asks again."""
    parked_max: int = 64
    """Requests of one worker that wait; of more, the oldest is told to ask again."""
    workers_max: int = 4096
    """Workers of one group: each is looked at when the slowest one moves."""
    groups_max: int = 1024
    """Groups of a cluster."""
    ended_max: int = 4096
    """Workers of whose end the master knows the reason; of earlier ones it knows only that they are none."""
    messages_max: int = 1024
    """Messages that wait for one worker; who sends more is refused, and hears for whom they wait."""
    messages_bytes_max: int = 16 * MIB
    """The same in bytes of bodies."""
    all_messages_bytes_max: int = 256 * MIB
    """Bytes of bodies that wait in all groups; one that goes to many counts once."""
