"""Who has died is started again, whatever went wrong with that the first time."""

from __future__ import annotations

import threading

import pytest

from glintpy.cluster.supervisor import Supervisor
from glintpy.errors import ClusterError


@pytest.mark.parametrize("error", [ClusterError("it ended"), BlockingIOError(11, "no process is left")])
def test_a_start_that_fails_is_tried_again_whatever_it_failed_of(error: Exception) -> None:
    dead, is_back = {"server-0"}, threading.Event()
    errors = [error]

    def restart(name: str) -> None:
        if errors:
            raise errors.pop()
        dead.remove(name)
        is_back.set()

    supervisor = Supervisor(lambda: sorted(dead), restart)
    try:
        assert is_back.wait(30)
    finally:
        supervisor.stop()
    assert not errors
    assert supervisor.num_restarts == 1
