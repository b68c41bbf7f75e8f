"""Stores of each kind, and several workers of one job in threads of this process."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest

import glintpy
from glintpy.kvstore import KVServer, KVWorker, create
from glintpy.kvstore.store import KVStore

PATIENCE_S = 60.0

_jobs = itertools.count()

Work = Callable[[KVStore], Any]
RunWorkers = Callable[..., list[Any]]


@pytest.fixture(scope="module")
def cluster() -> Iterator[glintpy.LocalCluster]:
    """A master and two servers in this process, shared by the tests of a module; none may break them."""
    with glintpy.LocalCluster(2, scheme="local") as cluster:
        yield cluster


@pytest.fixture
def job() -> str:
    """A job's name that no other test has."""
    return f"job-{next(_jobs)}"


@pytest.fixture(params=["local", "device", "dist_async", "dist_sync"])
def kv(request: pytest.FixtureRequest, cluster: glintpy.LocalCluster, job: str) -> Iterator[KVStore]:
    """A store of one worker."""
    if not request.param.startswith("dist"):
        yield create(request.param)
        return
    with cluster.client() as client, create(request.param, client, job=job, num_workers=1) as made:
        yield made


@pytest.fixture
def dist(cluster: glintpy.LocalCluster, job: str) -> Iterator[KVStore]:
    """A distributed store of one worker."""
    with cluster.client() as client, create("dist_async", client, job=job, num_workers=1) as made:
        yield made


@pytest.fixture
def run_workers(cluster: glintpy.LocalCluster, job: str) -> RunWorkers:
    """Return what runs a function as each of several workers, and returns what each returned, by rank."""

    def run(work: Work, num_workers: int = 2, kind: str = "dist_async", **options: Any) -> list[Any]:
        found: dict[int, Any] = {}
        errors: list[BaseException] = []

        def be_worker() -> None:
            try:
                with (
                    cluster.client() as client,
                    create(
                        kind, client, job=job, num_workers=num_workers, timeout_s=PATIENCE_S, **options
                    ) as store,
                ):
                    found[store.rank] = work(store)
                    store.barrier()
            except BaseException as error:
                errors.append(error)
                raise

        workers = [threading.Thread(target=be_worker, daemon=True) for _ in range(num_workers)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(2 * PATIENCE_S)
        assert not errors, errors
        return [found[rank] for rank in range(num_workers)]

    return run


@pytest.fixture
def client(cluster: glintpy.LocalCluster) -> Iterator[glintpy.Client]:
    """A client of the module's cluster."""
    with cluster.client(timeout_s=PATIENCE_S) as client:
        yield client


@pytest.fixture
def worker(client: glintpy.Client, job: str) -> Iterator[KVWorker]:
    """A worker of an app that is its alone."""
    with KVWorker(client=client, job=job) as worker:
        yield worker


@pytest.fixture
def varying(client: glintpy.Client, job: str) -> Iterator[KVWorker]:
    """A worker of an app whose keys have different numbers of values."""
    KVServer(client=client, job=job, varying=True).set_request_handle()
    with KVWorker(client=client, job=job) as worker:
        yield worker


def pulled(worker: KVWorker, keys: Any, **options: Any) -> list[float]:
    """Return the values of some keys."""
    found: list[float] = worker.values(worker.pull(keys, **options)).tolist()
    return found
