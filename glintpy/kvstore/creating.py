"""``create``: a store by MXNet's name of its kind; knows no key."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Any, Literal

from glintpy import ConfigError
from glintpy.kvstore.base import KVStoreBase
from glintpy.kvstore.dist import DistKVStore
from glintpy.kvstore.local import LocalKVStore
from glintpy.kvstore.membership import Membership, job_of

if TYPE_CHECKING:
    from glintpy import Client

LOCAL = (
    "local",
    "local_update_cpu",
    "local_allreduce_cpu",
    "device",
    "local_allreduce_device",
    "nccl",
)
ASYNC = ("dist_async", "dist_async_device", "dist_device_async")
SYNC = ("dist_sync", "dist", "dist_sync_device", "dist_device_sync")

SYNC_WORKERS_MAX = 63
"""Workers of a store in rounds: servers note who has pushed in one bit each."""

TIMEOUT_S = 30.0


def create(
    name: str = "local",
    client: Client | str | None = None,
    *,
    store: str | None = None,
    job: str | None = None,
    num_workers: int | None = None,
    on_worker_lost: Literal["shrink", "raise"] | None = None,
    timeout_s: float = TIMEOUT_S,
) -> Any:
    """Make a store.

    A distributed one belongs to a *job*, whose workers all call this, as often as each other. The first call returns
    when all workers are there. What isn't given is taken from the environment that ``glintpy launch``, or a tracker of
    dmlc, has made.

    Args:
        name: ``local`` or ``device`` (one process), ``dist_async``, ``dist_sync``, or another of MXNet's names; or that
            of a class that was registered.
        client: for a distributed store a client, or the master's address; None: the environment says it.
        store: its name, the same for all workers; None: its number among those that this process makes.
        job: the job's name.
        num_workers: how many there are to be; None and nothing in the environment: whoever is there.
        on_worker_lost: see ``Client.join``.
        timeout_s: how long other workers are waited for; and the deadline of requests, where the store makes its
            client.

    Returns:
        A ``KVStore``, or an instance of what was registered.

    Raises:
        ConfigError: there is no such kind, or no cluster; or this process is no worker, or one of a job with another
            number of workers; or there are too many for this kind.
        MasterUnreachable: nobody answers at the address.
        WorkersMissing: others did not come in time.
    """
    if not isinstance(name, str):
        raise ConfigError(f"a kind of store is a name, not {name!r:.80}")
    kind = name.lower()
    registered = KVStoreBase.registry.get(kind)
    if registered is not None:
        return registered()
    if kind in LOCAL:
        return LocalKVStore(kind)
    if kind not in {*ASYNC, *SYNC}:
        known = ", ".join([*LOCAL, *ASYNC, *SYNC, *sorted(KVStoreBase.registry)])
        raise ConfigError(f"there is no kind of store {name!r:.80}; there is {known}")
    found = job_of(client, dict(os.environ), name=job, num_workers=num_workers, on_worker_lost=on_worker_lost)
    if found.role != "worker":
        raise ConfigError(
            f"DMLC_ROLE is {found.role!r}, and a store belongs to a worker. A process with another role answers "
            "requests: kvstore.Postoffice() and kvstore.SimpleApp(). Servers that hold values, and masters, are "
            "commands of their own: start them with glintpy server and glintpy master, or with glintpy launch"
        )
    if kind in SYNC and (found.num_workers or 0) > SYNC_WORKERS_MAX:
        raise ConfigError(
            f"{kind} is for at most {SYNC_WORKERS_MAX} workers, and job {found.name!r} has {found.num_workers}: take "
            "dist_async, or fewer"
        )
    membership = Membership.shared(client, found, timeout_s=timeout_s)
    try:
        return DistKVStore(kind, membership, store, in_rounds=kind in SYNC)
    except BaseException:
        membership.release()
        raise
