"""Workers of an app in processes of their own: how these end, and what is left of it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

import numpy as np
import pytest

import glintpy
from glintpy.kvstore import KVServer, KVWorker
from tests.cluster.helpers import PATIENCE_S, line_of, program
from tests.leftovers import Leftovers

ENDING = """\
import multiprocessing
import sys
import threading
from glintpy.kvstore import KVWorker, pacing

def work():
    global worker
    pacing.UNDER_WAY_MAX = 1
    worker = KVWorker(client=sys.argv[1], job="ending")
    is_stuck = threading.Event()

    def hang():
        is_stuck.set()
        threading.Event().wait()

    worker.push([1], [1.0], callback=hang)
    assert is_stuck.wait(60)
    for _ in range(500):
        worker.push([2], [1.0])

if __name__ == "__main__":
    work()
    child = multiprocessing.get_context("spawn").Process(target=work)
    child.start()
    child.join()
    print(child.exitcode, flush=True)
"""


def test_processes_end_though_a_callback_hangs_and_their_pushes_have_all_left(
    cluster: glintpy.LocalCluster, client: glintpy.Client, tmp_path: Path
) -> None:
    """The program, and its multiprocessing child, which runs no atexit functions."""
    with program(tmp_path / "ending.py", ENDING, cluster.address) as process:
        assert line_of(process) == "0"
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert (process.returncode, errors) == (0, "")
    with KVWorker(client=client, job="ending") as worker:
        assert worker.values(worker.pull([1, 2])).tolist() == [2, 1000]


def test_a_forked_child_makes_a_worker_of_its_own_and_sends_nothing_of_its_parent_s(
    client: glintpy.Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("glintpy.kvstore.pacing.UNDER_WAY_MAX", 0)
    worker = KVWorker(client=client, job="forking")
    for _ in range(20):
        worker.push([1], [1.0])
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            for call in (lambda: worker.push([1], [1.0]), lambda: worker.wait(0), worker.flush):
                with pytest.raises(glintpy.GlintError, match="from which this was forked: make one here"):
                    call()
            worker.close()
            worker._pacing.send_all()
            with KVWorker(client=client, job="forking") as own:
                own.push([1], [100.0])
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert worker.values(worker.pull([1])).tolist() == [120]
    worker.close()


def test_workers_that_come_and_go_leave_no_thread_and_no_descriptor(
    cluster: glintpy.LocalCluster, client: glintpy.Client
) -> None:
    KVServer(client=client, job="coming", varying=True).set_request_handle()
    with KVWorker(client=client, job="coming") as worker:
        worker.push(range(50), np.ones(50), np.ones(50, int))  # so that the client has its connections
    before = Leftovers.now()
    ran: list[int] = []
    for number in range(10):
        with KVWorker(0, number, cluster.address, job="coming") as worker:
            worker.push([1, 2], [1, 2], [1, 1], callback=lambda: ran.append(1))
        assert not [thread for thread in threading.enumerate() if thread.name == "glintpy-kvworker"]
    forgotten = KVWorker(0, 10, client, job="coming")
    forgotten.wait(forgotten.push([1], [1.0], callback=lambda: ran.append(1)))
    del forgotten, worker
    before.check("eleven workers")
    assert len(ran) == 11
