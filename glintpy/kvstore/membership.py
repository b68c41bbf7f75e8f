"""This process's place among the workers of a job, shared by all its stores; knows no key.

A job's first moment is a barrier of all its workers, before which rank 0 ends what an earlier job of the same name has
left. The group's clock tells a beginning from a worker that comes later, or in the place of a lost one: it is 0 until
all have met.
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
from collections.abc import Callable
from typing import ClassVar

from glintpy import Client, ConfigError, GlintError, ModelNotFound
from glintpy.kvstore.environment import Job

POLL_S = 0.05
"""Between two looks at who has joined."""


class Membership:
    """A worker of a job.

    Attributes:
        client: to the cluster.
        group: the place among the workers.
        timeout_s: how long others are waited for.
    """

    _lock: ClassVar[threading.RLock] = threading.RLock()
    _known: ClassVar[dict[tuple[int, object, str], Membership]] = {}
    _making: ClassVar[dict[tuple[int, object, str], threading.Lock]] = {}

    def __init__(self, client: Client, job: Job, *, owned: bool, timeout_s: float) -> None:
        self.client = client
        self.timeout_s = timeout_s
        self._owned = owned
        self._num_users = 0
        self._num_stores = 0
        self._pid = os.getpid()
        self._num_workers = job.num_workers
        self._gate = threading.Lock()
        # A launcher of MPI or Slurm may number more processes than there are workers.
        has_rank = job.rank is not None and job.num_workers is not None and job.rank < job.num_workers
        self.group = client.join(
            job.name,
            job.num_workers,
            rank=job.rank if has_rank else None,
            on_worker_lost=job.on_worker_lost,
            timeout_s=timeout_s,
        )
        self.prefix = f"kv/{job.name}/"
        self.is_new = self.group.clock == 0
        if self.is_new:
            if self.group.rank == 0:
                self._wipe()
            self.group.barrier(timeout_s)
            self.group.tick()
        atexit.register(self._at_exit)

    @classmethod
    def shared(cls, client: Client | str | None, job: Job, *, timeout_s: float) -> Membership:
        """Return this process's membership in a job; ``release`` it.

        Args:
            client: of the cluster, or its address.
            job: which.
            timeout_s: how long others are waited for.

        Raises:
            ConfigError: this process is in it with another number of workers.
        """
        where = id(client) if isinstance(client, Client) else client or job.address
        key = (os.getpid(), where, job.name)
        with cls._lock:
            making = cls._making.setdefault(key, threading.Lock())
        # Not under the one lock: other workers may be threads of this process, and this waits for them.
        with making:
            found = cls._known.get(key)
            if found is None:
                owned = not isinstance(client, Client)
                made = client if isinstance(client, Client) else Client(str(where), timeout_s=timeout_s)
                try:
                    found = cls._known[key] = cls(made, job, owned=owned, timeout_s=timeout_s)
                except BaseException:
                    if owned:
                        made.close()
                    raise
                found._gate = making
            if job.num_workers not in {None, found._num_workers}:
                has = "no given number of" if found._num_workers is None else found._num_workers
                raise ConfigError(
                    f"num_workers is {job.num_workers}, and this process is in job {job.name!r} already, which was "
                    f"made with {has} workers: give the same number to each store of a job"
                )
            found._num_users += 1
            return found

    def next_name(self) -> str:
        """Return a name for a store: its number in this process, since all workers make theirs in the same order."""
        with self._lock:
            self._num_stores += 1
            return str(self._num_stores - 1)

    def leads(self) -> bool:
        """Whether this worker decides for all: rank 0, or the lowest one where rank 0 was lost."""
        if self.group.rank == 0:
            return True
        ranks = self._ranks(self.group.name)
        return bool(ranks) and self.group.rank == min(ranks)

    def release(self) -> None:
        """Let go: with the last user the worker leaves its job, and with the last worker go the job's models."""
        with self._gate:
            self._num_users -= 1
            if self._num_users or os.getpid() != self._pid:
                return
            for key in [key for key, known in self._known.items() if known is self]:
                del self._known[key]
            atexit.unregister(self._at_exit)
            self._leave()

    def _leave(self) -> None:
        try:
            self.group.leave()
            if not self._ranks(self.group.name):
                self._wipe()
        finally:
            if self._owned:
                self.client.close()

    def _at_exit(self) -> None:
        if os.getpid() != self._pid:
            return
        # An exception ends the interpreter by the same way as success, but leaves a note. Who fails is lost.
        if getattr(sys, "last_value", None) is None:
            with contextlib.suppress(GlintError):
                self._leave()

    def _wipe(self) -> None:
        for name in self.client.models():
            if name.startswith(self.prefix):
                with contextlib.suppress(ModelNotFound):
                    self.client.destroy(name)

    def _ranks(self, name: str) -> list[int]:
        for group in self.client.status(timeout_s=0)["groups"]:
            if group["name"] == name:
                return [worker["rank"] for worker in group["workers"]]
        return []


def wait_until(is_so: Callable[[], bool], timeout_s: float) -> bool:
    """Return whether something came to be so in time; asks more and more rarely.

    Args:
        is_so: asked again and again.
        timeout_s: seconds.
    """
    end = time.monotonic() + timeout_s
    pause_s = 0.001
    while not is_so():
        if time.monotonic() >= end:
            return False
        time.sleep(pause_s)
        pause_s = min(pause_s * 1.5, POLL_S)
    return True


def job_of(client: Client | str | None, environment: dict[str, str], **given: object) -> Job:
    """Return the job that a store belongs to.

    Args:
        client: what was given to ``create``.
        environment: this process's.
        given: fields of ``Job`` that were given to ``create``; None where one wasn't.

    Raises:
        ConfigError: neither names a cluster, or the environment has what can't be.
    """
    found = Job.from_environment(environment)
    if found is None and client is None:
        raise ConfigError(
            "there is no cluster: give create a client or an address, start the program with glintpy launch, or set "
            "GLINTPY_MASTER"
        )
    address = client if isinstance(client, str) else "" if client is None else client.address
    # What the environment says is about its own cluster.
    about = found if found is not None and (client is None or found.address == address) else Job(address)
    fields = {name: getattr(about, name) for name in Job.__dataclass_fields__}
    return Job(**{**fields, **{name: value for name, value in given.items() if value is not None}})
