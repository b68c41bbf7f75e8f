"""Negative controls with real sockets: defects that others shipped are put in, and what looks for them must see them.

Those of numbers, receipts, windows and undo are planted in the simulation; those of the disk beside the log.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import glintpy
from glintpy import config, failpoints
from glintpy.heart import Heart
from glintpy.nodes import start_master, start_server
from glintpy.protocol.parts import Part, _pick
from tests.cluster.helpers import paused, until

NUM_CELLS = 4_000_000


def sums_after_the_array_was_used_again(cluster: glintpy.LocalCluster) -> NDArray[np.int64]:
    """Push a large array, use it for something else at once, and return what arrived."""
    with cluster.client() as client:
        vector = client.vector(NUM_CELLS, dtype="int64")
        values = np.ones(NUM_CELLS, np.int64)
        with paused(cluster.servers[0].pid):  # so that nothing has arrived when the call returns
            push = vector.push(None, values)
            values[:] = 1_000_000
        push.result()
        return np.unique(vector.pull().result())


def uncopied(self: Part, array: NDArray[Any], *, is_ours: bool = False) -> NDArray[Any]:
    del is_ours
    picked = _pick(array, self.rows_at)
    return picked if self.cols_at is None else picked[:, self.cols_at]


def test_sending_the_callers_own_memory_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with glintpy.LocalCluster(1, scheme="tcp") as cluster:
        assert sums_after_the_array_was_used_again(cluster).tolist() == [1]
        monkeypatch.setattr(Part, "of", uncopied)
        assert sums_after_the_array_was_used_again(cluster).tolist() != [1]


@contextmanager
def a_server_that_does_not_work() -> Iterator[Any]:
    """Yield a function that tells how a master sees a server whose actor stands still."""
    settings = config.MembershipSettings(beat_s=0.02, silent_s=0.4, hung_s=1.0, tick_s=0.02)
    may_go_on, blocked = threading.Event(), threading.Event()
    master = start_master("local://planted-master", settings=settings)
    server = start_server(master.address, address="local://planted-server", membership=settings)

    def stand_still() -> None:
        if threading.current_thread().name.startswith("ServerActor"):
            blocked.set()
            may_go_on.wait()

    try:
        with failpoints.armed("actor.before_message", stand_still):
            assert blocked.wait(30), "the actor has met the place"
            yield lambda: master._actor.members.servers()[0].state  # type: ignore[attr-defined]  # it is a MasterActor
            may_go_on.set()
    finally:
        may_go_on.set()
        server.stop()
        master.stop()


def test_heartbeats_that_wait_behind_data_are_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    with a_server_that_does_not_work() as state:
        until(lambda: state() != "alive", "the master has noticed")
        assert state() == "hung"
    beat = Heart._beat
    handled: dict[Heart, int] = {}

    def beat_behind_data(self: Heart) -> None:
        # A beat on the data socket leaves when the actor comes to it.
        progress = self._progress()
        if handled.get(self) != progress or not self._is_joined:
            beat(self)
        handled[self] = progress

    monkeypatch.setattr(Heart, "_beat", beat_behind_data)
    with a_server_that_does_not_work() as state:
        until(lambda: state() != "alive", "the master has noticed")
        assert state() == "lost"
