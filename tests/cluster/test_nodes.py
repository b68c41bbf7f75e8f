"""Nodes with roles in processes of their own: whoever is killed, the others are answered or told, and go on."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

import glintpy
from glintpy.kvstore import SERVERS, Postoffice, SimpleApp, SimpleData
from glintpy.nodes import start_master
from tests.cluster.drilled import DrilledCluster
from tests.cluster.helpers import PATIENCE_S, line_of, program, until

SERVER = """\
import sys
from glintpy.kvstore import Postoffice, SimpleApp

def answer(request, app):
    if request.body == "stay":
        print("asked", flush=True)
    else:
        app.response(request, f"{request.head} {app.node.node_id}")

with Postoffice("server", sys.argv[1], job="job", num_workers=1, num_servers=2, timeout_s=60) as node:
    with SimpleApp(request_handle=answer):
        print(node.my_rank, flush=True)
        if node.is_recovery:
            sys.stdin.readline()
        node.barrier()
        print("met", flush=True)
        sys.stdin.readline()
"""


@pytest.fixture
def master_address() -> Iterator[str]:
    """A master in this process, which knows nothing of other tests."""
    master = start_master("tcp://127.0.0.1:0")
    yield master.address
    master.stop()


def a_worker(address: str) -> Postoffice:
    return Postoffice("worker", address, job="job", num_workers=1, num_servers=2, timeout_s=PATIENCE_S)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGSTOP])
def test_a_server_that_is_killed_or_stopped_in_mid_request_is_told_and_its_heir_is_asked(
    master_address: str, tmp_path: Path, how: signal.Signals
) -> None:
    """In ps-lite all hang (5.9), and who comes in its place is ignored if it comes too soon (5.12)."""
    with (
        program(tmp_path / "one.py", SERVER, master_address) as one,
        program(tmp_path / "two.py", SERVER, master_address) as two,
    ):
        ranks = {int(line_of(one)): one, int(line_of(two)): two}
        node = a_worker(master_address)
        app = SimpleApp(node=node)
        node.barrier()
        assert [line_of(process) for process in (one, two)] == ["met", "met"]
        assert app.wait(app.request(1, "", SERVERS)) == {8: "1 8", 10: "1 10"}
        timestamp = app.request(2, "stay", 10)
        assert line_of(ranks[1]) == "asked"
        ranks[1].send_signal(how)
        with program(tmp_path / "heir.py", SERVER, master_address) as heir:  # at once: it is not missed yet
            with pytest.raises(glintpy.WorkerLost, match=r"node 10 \(server 1\) has left, or was lost"):
                app.wait(timestamp)
            assert int(line_of(heir)) == 1
            assert app.wait(app.request(3, "", SERVERS)) == {8: "3 8", 10: "3 10"}
            assert node.dead_nodes() == []
        node.finalize(do_barrier=False)


def test_a_server_that_is_killed_at_a_barrier_is_not_counted_with_its_heir(
    master_address: str, tmp_path: Path
) -> None:
    """In ps-lite it counts twice, and the others leave while a worker still works (5.13)."""
    with program(tmp_path / "one.py", SERVER, master_address) as one:
        assert line_of(one) == "0"
        node = a_worker(master_address)
        with program(tmp_path / "two.py", SERVER, master_address) as two:
            assert line_of(two) == "1"
            until(lambda: waiting(node) == {0, 1}, "both wait at the barrier")
            two.send_signal(signal.SIGKILL)
            until(lambda: node.dead_nodes() == [10], "it is missed")
        with program(tmp_path / "heir.py", SERVER, master_address) as heir:
            assert line_of(heir) == "1"
            until(lambda: waiting(node) == {0}, "the first one still waits")
            node.barrier()
            assert line_of(one) == "met"
        node.finalize(do_barrier=False)


def waiting(node: Postoffice) -> set[int]:
    """Return the ranks of servers that wait at a barrier of all."""
    found = {group["name"]: group["workers"] for group in node.client.status(timeout_s=0)["groups"]}
    pids = {one["pid"] for one in found["job/group-6"] if one["waits_for"] == "barrier 1"}
    return {one["rank"] for one in found["job/group-2"] if one["pid"] in pids}


def test_requests_are_answered_though_the_master_is_killed_meanwhile(tmp_path: Path) -> None:
    """In ps-lite every barrier and every end hangs then, and nobody is told (5.16)."""
    cluster = DrilledCluster(tmp_path, 0)
    try:
        cluster.start()
        address = cluster.master.address
        with (
            glintpy.Client(address, timeout_s=PATIENCE_S) as one,
            glintpy.Client(address, timeout_s=PATIENCE_S) as two,
        ):
            worker = Postoffice("worker", one, num_workers=1, num_servers=1, timeout_s=PATIENCE_S)
            server = Postoffice("server", two, num_workers=1, num_servers=1, timeout_s=PATIENCE_S)
            kept = threading.Event()
            asked: list[SimpleData] = []

            def keep(request: SimpleData, _: SimpleApp) -> None:
                asked.append(request)
                kept.set()

            heard = SimpleApp(node=server, request_handle=keep)
            app = SimpleApp(node=worker)
            first = app.request(1, "", 8)
            assert kept.wait(PATIENCE_S)
            cluster.master.kill()
            second = app.request(2, "", 8)
            heard.response(asked[0], "a")
            cluster.master.start()
            assert app.wait(first) == {8: "a"}
            until(lambda: len(asked) == 2, "the second one has come")
            heard.response(asked[1], "b")
            assert app.wait(second) == {8: "b"}
            meeting = threading.Thread(target=server.finalize)
            meeting.start()
            worker.finalize()
            meeting.join(PATIENCE_S)
            assert not meeting.is_alive()
    finally:
        cluster.close()
