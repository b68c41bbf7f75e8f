"""Every error that glintpy raises; knows nothing of the rest of the package.

::

    GlintError
    ├── ConfigError (ValueError)
    ├── ModelError
    │   ├── ModelNotFound (LookupError)
    │   ├── ModelExists
    │   ├── ShapeError (ValueError)
    │   ├── DTypeError (TypeError)
    │   └── KeyRangeError (IndexError)
    ├── RequestError
    │   ├── PullFailed (TimeoutError)
    │   ├── PushFailed
    │   │   ├── PushRefused
    │   │   └── PushOutcomeUnknown
    │   ├── ServerLost (ConnectionError)
    │   ├── ModelLost
    │   ├── Overloaded
    │   └── RemoteFailure
    ├── ClusterError
    │   ├── MasterUnreachable (ConnectionError)
    │   ├── NotEnoughServers
    │   ├── NotEnoughMemory (MemoryError)
    │   ├── Expelled
    │   ├── WorkerLost
    │   └── WorkersMissing (TimeoutError)
    ├── ProtocolError
    │   ├── LocalProtocolError
    │   └── RemoteProtocolError
    ├── ProtocolMismatch
    ├── AccessDenied (PermissionError)
    └── CheckpointError
        ├── CheckpointNotFound (FileNotFoundError)
        ├── CheckpointCorrupt (ValueError)
        └── CheckpointMismatch

A mistake that can be seen without the network is raised by the call, before anything is sent; all
else is raised by the future. Facts are attributes; the message has the numbers and says what to do.
"""

from __future__ import annotations

from typing import Literal

__all__ = [
    "AccessDenied",
    "CheckpointCorrupt",
    "CheckpointError",
    "CheckpointMismatch",
    "CheckpointNotFound",
    "ClusterError",
    "ConfigError",
    "DTypeError",
    "Expelled",
    "GlintError",
    "KeyRangeError",
    "LocalProtocolError",
    "MasterUnreachable",
    "ModelError",
    "ModelExists",
    "ModelLost",
    "ModelNotFound",
    "NotEnoughMemory",
    "NotEnoughServers",
    "Overloaded",
    "ProtocolError",
    "ProtocolMismatch",
    "PullFailed",
    "PushFailed",
    "PushOutcomeUnknown",
    "PushRefused",
    "RemoteFailure",
    "RemoteProtocolError",
    "RequestError",
    "ServerLost",
    "ShapeError",
    "WorkerLost",
    "WorkersMissing",
]

Outcome = Literal["none", "partial", "unknown"]


class GlintError(Exception):
    """The root: ``except glintpy.GlintError`` catches whatever glintpy raises."""


class ConfigError(GlintError, ValueError):
    """A setting that can't be used: an unknown name, a number out of its range, a bad address."""


class ModelError(GlintError):
    """The caller's mistake about a model."""


class ModelNotFound(ModelError, LookupError):
    """The model was destroyed, or never made."""


class ModelExists(ModelError):
    """The name is taken, or taken by a model that differs; the message names the difference."""


class ShapeError(ModelError, ValueError):
    """Rows, columns and values don't fit each other or the model."""


class DTypeError(ModelError, TypeError):
    """Values that the model's dtype can't hold, or indices that aren't integers."""


class KeyRangeError(ModelError, IndexError):
    """A key outside the model."""


class RequestError(GlintError):
    """A request that did not succeed.

    Attributes:
        model: the model's name, where there is one.
        address: the server's address, where one server is to blame.
        attempts: how often the request was sent.
        retriable: whether the same call may succeed later without a change.
        outcome: for a push: ``"none"``: no cell changed; ``"partial"``: some parts are in and others
            are not; ``"unknown"``: some parts may be in. ``"none"`` for everything else.
        parts: for a push: by server address, the numbers of parts ``applied``, ``refused`` and ``unknown``.
    """

    retriable = False

    def __init__(
        self,
        message: str = "",
        *,
        model: str | None = None,
        address: str | None = None,
        attempts: int = 0,
        outcome: Outcome = "none",
        parts: dict[str, dict[str, int]] | None = None,
    ) -> None:
        super().__init__(message)
        self.model = model
        self.address = address
        self.attempts = attempts
        self.outcome: Outcome = outcome
        self.parts = parts or {}


class PullFailed(RequestError, TimeoutError):
    """The deadline of a pull passed."""

    retriable = True


class PushFailed(RequestError):
    """A push that was not applied everywhere; promises nothing more, its children do."""


class PushRefused(PushFailed):
    """No cell changed on any server: a recorded refusal, or nothing left the client."""


class PushOutcomeUnknown(PushFailed):
    """Some parts may be in: ``parts`` says what is known of each server."""


class ServerLost(RequestError, ConnectionError):
    """A server is gone; ``on_server_lost="wait"`` waits for its return instead."""

    retriable = True


class ModelLost(RequestError):
    """The model's server came back without it."""


class Overloaded(RequestError):
    """A limit on what may wait was reached; come again later."""

    retriable = True


class RemoteFailure(RequestError):
    """The server or master failed in handling the request: the message says of what, of a defect by its traceback."""


class ClusterError(GlintError):
    """Something about the cluster as a whole."""


class MasterUnreachable(ClusterError, ConnectionError):
    """Nobody answers at the master's address."""


class NotEnoughServers(ClusterError):
    """Fewer servers than needed are alive."""


class NotEnoughMemory(ClusterError, MemoryError):
    """The model doesn't fit; nothing was allocated on any server."""


class Expelled(ClusterError):
    """The server or master no longer knows this member, session or worker."""


class WorkerLost(ClusterError):
    """Another worker of the group is gone, which was joined with ``on_worker_lost="raise"``.

    Attributes:
        rank: of the worker; of several the first one that was lost.
        ranks: of all that were lost since this worker heard of losses last, in order.
    """

    def __init__(self, message: str = "", *, ranks: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.rank = ranks[0] if ranks else -1
        self.ranks = ranks


class WorkersMissing(ClusterError, TimeoutError):
    """Others of the group had not come in time; the message says who, and the call may be repeated.

    Attributes:
        ranks: of the workers that are waited for; who has not joined yet has none.
    """

    def __init__(self, message: str = "", *, ranks: tuple[int, ...] = ()) -> None:
        super().__init__(message)
        self.ranks = ranks


class ProtocolError(GlintError):
    """Bytes against the protocol."""


class LocalProtocolError(ProtocolError):
    """We were about to send something that the protocol forbids."""


class RemoteProtocolError(ProtocolError):
    """The peer sent something that the protocol forbids."""


class ProtocolMismatch(GlintError):
    """The peer speaks other versions of the protocol; the message names both sides'."""


class AccessDenied(GlintError, PermissionError):
    """A wrong, missing or revoked key, or an address that must not be served without one."""


class CheckpointError(GlintError):
    """Something about a saved model."""


class CheckpointNotFound(CheckpointError, FileNotFoundError):
    """There is no saved model at this URL."""


class CheckpointCorrupt(CheckpointError, ValueError):
    """A file of a saved model is missing, cut short or changed."""


class CheckpointMismatch(CheckpointError):
    """A saved model that this version or this call can't use."""
