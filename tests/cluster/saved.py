"""Models whose every saved state says of which moment it is, and what happens at a save's own instants."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

import glintpy
from glintpy.storage.checkpoint_reader import CheckpointReader
from tests.cluster.helpers import until

NUM_KEYS = 1_200_000
"""Three slices a server, two of them in each of its first partition's and its second partition's file."""

EVERY = 16
"""A push touches one key of so many: all slices of a server, in one part, which is applied at one moment."""


class Pusher:
    """A program's thread that adds one to the same keys again and again, until it is stopped."""

    def __init__(self, cluster: glintpy.LocalCluster, name: str) -> None:
        self._cluster = cluster
        self._name = name
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="pusher")
        self.pushes: list[glintpy.Future[None]] = []

    def __enter__(self) -> Self:
        self._thread.start()
        self.goes_on()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        with self._cluster.client() as client:
            vector = client.open(self._name)
            assert isinstance(vector, glintpy.BigVector)
            while not self._stop.is_set():
                self.pushes.append(vector.push(slice(None, None, EVERY), 1))
                if len(self.pushes) % 8 == 0:
                    self.pushes[-1].exception()

    def goes_on(self) -> None:
        """Return when some more pushes were issued."""
        count = len(self.pushes) + 5
        until(lambda: len(self.pushes) > count or not self._thread.is_alive(), "pushes go on")

    def num_answered(self) -> int:
        """Return how many pushes are known to be in: the next save must hold them."""
        return sum(1 for _ in itertools.takewhile(lambda push: push.done(), list(self.pushes)))

    def check(self, vector: glintpy.BigVector) -> None:
        """Every push is in, once."""
        assert [push.exception() for push in self.pushes] == [None] * len(self.pushes)
        assert versions_in(vector.pull().result()) == [len(self.pushes)] * 2


def versions_in(values: NDArray[Any]) -> list[int]:
    """Return how many pushes each server's part holds; fail where one is not of one moment."""
    found = []
    quarters = values.reshape(4, -1)  # one a partition; the servers take turns
    for half in (quarters[0::2], quarters[1::2]):
        touched = half[:, ::EVERY]
        assert touched.min() == touched.max(), "one server's part is of several moments"
        assert half.sum() == touched.sum(), "cells have changed that nobody pushed to"
        found.append(int(touched[0, 0]))
    return found


def saved_versions(url: Path) -> list[int]:
    """Return how many pushes each server's part of a checkpoint holds; fail if it is damaged or mixed."""
    values = np.zeros(NUM_KEYS, np.int64)
    reader = CheckpointReader(str(url))
    reader.verify()
    for rows, block in reader.blocks(1 << 20):
        values[np.asarray(rows)] = block
    return versions_in(values)


def vector_of(client: glintpy.Client, name: str) -> glintpy.BigVector:
    return client.vector(NUM_KEYS, dtype="int64", partitioner="range", partitions_per_server=2, name=name)


def at_hit(number: int, action: Callable[[], None]) -> Callable[[], None]:
    """Return what does something at the hit of this number, from 1, and never again."""
    hits = itertools.count(1)

    def maybe() -> None:
        if next(hits) == number:
            action()

    return maybe


def kill_and_restart(cluster: glintpy.LocalCluster, index: int) -> None:
    cluster.kill_server(index)
    cluster.restart_server(index)
