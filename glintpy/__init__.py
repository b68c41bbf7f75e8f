"""glintpy: a parameter server for Python.

A matrix or a vector too big, too busy or too shared for one process lies in rows over server processes;
any number of programs *pull* parts of it and *push* updates to parts of it, asynchronously::

    import glintpy

    with glintpy.local(servers=2) as client:
        m = client.matrix(10_000, 100, dtype="float32")
        m.push([3, 9, 3], 0.05).result()
        print(m.pull([3, 9]).result()[:, 0])

Layers, imports downward only: cli; testing; cluster; process; client and nodes; models and actors; ties; runtime; rpc,
heart, pushes and storage; transport, protocol, partitioning, updaters and functions; config and futures; errors.
``ARCHITECTURE.md`` is the tour.
"""

from __future__ import annotations

import logging
from importlib import import_module
from typing import TYPE_CHECKING, Any

from glintpy.errors import (
    AccessDenied,
    CheckpointCorrupt,
    CheckpointError,
    CheckpointMismatch,
    CheckpointNotFound,
    ClusterError,
    ConfigError,
    DTypeError,
    Expelled,
    GlintError,
    KeyRangeError,
    LocalProtocolError,
    MasterUnreachable,
    ModelError,
    ModelExists,
    ModelLost,
    ModelNotFound,
    NotEnoughMemory,
    NotEnoughServers,
    Overloaded,
    ProtocolError,
    ProtocolMismatch,
    PullFailed,
    PushFailed,
    PushOutcomeUnknown,
    PushRefused,
    RemoteFailure,
    RemoteProtocolError,
    RequestError,
    ServerLost,
    ShapeError,
    WorkerLost,
    WorkersMissing,
)

if TYPE_CHECKING:
    from glintpy import functions, partitioning, updaters
    from glintpy.client import Client
    from glintpy.cluster import LocalCluster, local
    from glintpy.futures import Future, gather
    from glintpy.models.buffered import PushBuffer
    from glintpy.models.group import Group
    from glintpy.models.group_messages import Received
    from glintpy.models.iterators import ColumnIterator, RowBlockIterator, RowIterator
    from glintpy.models.matrix import BigMatrix
    from glintpy.models.table import BigTable
    from glintpy.models.vector import BigVector

__version__ = "0.1.0"

__all__ = [
    "AccessDenied",
    "BigMatrix",
    "BigTable",
    "BigVector",
    "CheckpointCorrupt",
    "CheckpointError",
    "CheckpointMismatch",
    "CheckpointNotFound",
    "Client",
    "ClusterError",
    "ColumnIterator",
    "ConfigError",
    "DTypeError",
    "Expelled",
    "Future",
    "GlintError",
    "Group",
    "KeyRangeError",
    "LocalCluster",
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
    "PushBuffer",
    "PushFailed",
    "PushOutcomeUnknown",
    "PushRefused",
    "Received",
    "RemoteFailure",
    "RemoteProtocolError",
    "RequestError",
    "RowBlockIterator",
    "RowIterator",
    "ServerLost",
    "ShapeError",
    "WorkerLost",
    "WorkersMissing",
    "__version__",
    "functions",
    "gather",
    "local",
    "partitioning",
    "updaters",
]

_HOMES = {
    "BigMatrix": "glintpy.models.matrix",
    "BigTable": "glintpy.models.table",
    "BigVector": "glintpy.models.vector",
    "Client": "glintpy.client",
    "ColumnIterator": "glintpy.models.iterators",
    "Future": "glintpy.futures",
    "Group": "glintpy.models.group",
    "LocalCluster": "glintpy.cluster.local_cluster",
    "PushBuffer": "glintpy.models.buffered",
    "Received": "glintpy.models.group_messages",
    "RowBlockIterator": "glintpy.models.iterators",
    "RowIterator": "glintpy.models.iterators",
    "gather": "glintpy.futures",
    "local": "glintpy.cluster.local_cluster",
}
"""Where the names live that are imported when first used: numpy and ZeroMQ take half a second, in which
``glintpy --help`` has long answered, and ``glintpy doctor`` can say what is wrong with them."""


def __getattr__(name: str) -> Any:
    if name in {"functions", "partitioning", "updaters"}:
        return import_module(f"glintpy.{name}")
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(_HOMES[name]), name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


logging.getLogger("glintpy").addHandler(logging.NullHandler())
