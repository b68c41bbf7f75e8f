"""The home of MXNet's users: its KVStore on glintpy's public names alone, and what ``glintpy launch`` tells a worker.

::

    from glintpy import kvstore

    kv = kvstore.create("dist_async")
    kv.init("w", np.zeros((10, 3)))
    kv.set_optimizer("sgd", learning_rate=0.1)
    kv.push("w", gradient)
    w = kv.pull("w")

and what ps-lite has: values under keys, ``KVWorker`` and ``KVServer``, and roles, barriers and short requests between
nodes, ``Postoffice`` and ``SimpleApp``.

Nothing here imports what a program could not import as well.
"""

from __future__ import annotations

from glintpy.kvstore.base import KVStoreBase
from glintpy.kvstore.creating import create
from glintpy.kvstore.forms import RowSparse
from glintpy.kvstore.kv_server import KVServer
from glintpy.kvstore.kv_worker import KVWorker
from glintpy.kvstore.optimizers import Optimizer, create_optimizer
from glintpy.kvstore.postoffice import Postoffice
from glintpy.kvstore.roles import SCHEDULER, SERVERS, WORKERS
from glintpy.kvstore.simple_app import SimpleApp, SimpleData
from glintpy.kvstore.store import KVStore

__all__ = [
    "SCHEDULER",
    "SERVERS",
    "WORKERS",
    "KVServer",
    "KVStore",
    "KVStoreBase",
    "KVWorker",
    "Optimizer",
    "Postoffice",
    "RowSparse",
    "SimpleApp",
    "SimpleData",
    "create",
    "create_optimizer",
]
