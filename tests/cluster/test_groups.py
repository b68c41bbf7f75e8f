"""Workers in processes of their own: the slowest sets the pace, and whoever dies, hangs or comes back hangs nobody."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import partial
from pathlib import Path

import pytest

import glintpy
from glintpy.nodes import start_master
from glintpy.testing.proxy import Proxy
from tests.cluster.drilled import DrilledCluster, DrilledNode
from tests.cluster.helpers import PATIENCE_S, line_of, program, until
from tests.cluster.working import Waiting, told, until_waiting, worker

LEAD = 2

STEPS = 8

FAST = """\
import sys
import glintpy

address, steps = sys.argv[1], int(sys.argv[2])
lead = 0
with glintpy.Client(address, timeout_s=60) as client:
    done = client.open("done")
    with client.join("ssp", 4) as group:
        print(group.rank, flush=True)
        for _ in range(steps):
            done.push([group.rank], 1)
            group.tick()
            group.wait(2)
            # What the others have finished is seen, and nobody is more than two steps behind.
            seen = done.pull().result()
            lead = max(lead, int(group.clock - seen.min()))
            assert seen[group.rank] == group.clock
print(lead, flush=True)
"""


@pytest.fixture
def master_address() -> Iterator[str]:
    """A master in this process, which knows nothing of other tests."""
    master = start_master("tcp://127.0.0.1:0")
    yield master.address
    master.stop()


def test_the_fast_get_two_steps_ahead_of_the_slow_one_and_no_more(
    client: glintpy.Client, cluster: glintpy.LocalCluster, tmp_path: Path
) -> None:
    client.vector(4, dtype="int64", name="done")
    with ExitStack() as stack:
        fast = [
            stack.enter_context(program(tmp_path / f"{index}.py", FAST, cluster.address, STEPS))
            for index in range(3)
        ]
        ranks = [int(line_of(process)) for process in fast]
        slow = client.join("ssp", 4)
        done = client.open("done")
        assert isinstance(done, glintpy.BigVector)
        for step in range(STEPS - LEAD):
            # They finish one step more than they may, and wait there.
            until_waiting(client, dict.fromkeys(ranks, f"clock {step + 1}"), "ssp")
            clocks = {rank: found["clock"] for rank, found in told(client, "ssp").items()}
            assert clocks == dict.fromkeys(ranks, step + 1 + LEAD) | {slow.rank: step}
            done.push([slow.rank], 1)
            slow.tick()
        assert [int(line_of(process)) for process in fast] == [LEAD] * 3
        slow.leave()


def test_a_killed_worker_is_missed_and_its_heir_takes_its_place(master_address: str, tmp_path: Path) -> None:
    with (
        glintpy.Client(master_address, timeout_s=PATIENCE_S) as one,
        glintpy.Client(master_address, timeout_s=PATIENCE_S) as two,
    ):
        groups = [one.join("job", 3), two.join("job", 3)]
        with worker(tmp_path, master_address, "victim", 3) as victim:
            for group in (*groups, *groups):
                group.tick()
            waiting = [Waiting(groups[0].barrier), Waiting(groups[1].wait)]
            until_waiting(one, {0: "barrier 1", 1: "clock 2"})
            victim.process.send_signal(signal.SIGKILL)
            assert waiting[1].end() is None
            assert not waiting[0].is_over
            groups[1].barrier()
            assert waiting[0].end() is None
        assert set(told(one)) == {0, 1}
        groups[0].tick()
        with worker(tmp_path, master_address, "heir", 3) as heir:
            assert (heir.rank, heir.clock) == (2, 2)
            heir.begin("barrier")
            until_waiting(one, {2: "barrier 2"})
            waiting = [Waiting(group.barrier) for group in groups]
            assert [heir.end(), *(each.end() for each in waiting)] == ["ok", None, None]
            assert heir.do("tick") == "ok"
            assert told(one)[2]["clock"] == 3


def test_a_killed_worker_is_named_where_losses_are_told(master_address: str, tmp_path: Path) -> None:
    with glintpy.Client(master_address, timeout_s=PATIENCE_S) as one, ExitStack() as stack:
        group = one.join("job", 3, on_worker_lost="raise")
        names = ("second", "victim")
        second, victim = [
            stack.enter_context(worker(tmp_path, master_address, name, 3, "raise")) for name in names
        ]
        waiting = Waiting(group.barrier)
        until_waiting(one, {0: "barrier 1"})
        victim.process.send_signal(signal.SIGKILL)
        error = waiting.end()
        assert isinstance(error, glintpy.WorkerLost)
        assert error.rank == victim.rank
        assert f"rank {victim.rank} (clock 0, victim, pid {victim.process.pid} on " in str(error)
        told_to_second = second.do("wait")
        assert told_to_second.startswith("WorkerLost")
        second.begin("barrier")
        group.barrier()
        assert second.end() == "ok"


def test_a_worker_that_stands_still_is_expelled_and_told_when_it_goes_on(
    master_address: str, tmp_path: Path
) -> None:
    with (
        glintpy.Client(master_address, timeout_s=PATIENCE_S) as one,
        worker(tmp_path, master_address, "sleeper", 2) as sleeper,
    ):
        group = one.join("job", 2)
        sleeper.begin("barrier")
        until_waiting(one, {sleeper.rank: "barrier 1"})
        group.barrier()
        assert sleeper.end() == "ok"
        os.kill(sleeper.process.pid, signal.SIGSTOP)
        group.tick()
        group.wait()
        group.barrier()
        assert set(told(one)) == {group.rank}
        os.kill(sleeper.process.pid, signal.SIGCONT)
        until(lambda: len(one.clients()) == 2, "it is a member again")
        assert "Expelled worker 0 of group 'job': its membership has ended (no heartbeat" in sleeper.do(
            "tick"
        )
        assert sleeper.do("barrier").startswith("Expelled")
        assert sleeper.do("leave") == "ok"
        assert group.size == 2


def test_a_master_that_is_killed_in_the_middle_of_a_barrier_ends_it_when_it_is_back(tmp_path: Path) -> None:
    with master_and_workers(tmp_path, 3) as (master, clients, groups):
        for _ in range(5):
            groups[2].tick()
        waiting = [Waiting(group.barrier) for group in groups[:2]]
        until_waiting(clients[2], {0: "barrier 1", 1: "barrier 1"})
        master.kill()
        master.start()
        until(lambda: len(clients[2].clients()) == 3, "all are back")
        assert {rank: found["clock"] for rank, found in told(clients[2]).items()} == {0: 0, 1: 0, 2: 5}
        assert not any(each.is_over for each in waiting)
        groups[2].barrier()
        assert [each.end() for each in waiting] == [None, None]
        with pytest.raises(glintpy.WorkersMissing, match="clock 5"):
            groups[2].wait(timeout_s=0.1)


@pytest.mark.soak
def test_a_step_counts_once_though_the_master_dies_of_it(tmp_path: Path) -> None:
    with master_and_workers(tmp_path, 2) as (master, clients, groups):
        for place in ("master.before_commit", "master.after_commit"):
            master.arm(place, "die")
            step = Waiting(groups[0].tick)
            master.wait_end()
            master.disarm()
            master.start()
            assert step.end() is None
            until(lambda: len(clients[1].clients()) == 2, "all are back")
        assert groups[0].clock == 2
        assert told(clients[1])[0]["clock"] == 2
        master.arm("master.after_commit", "die")
        joining = Waiting(lambda: clients[1].join("job", 2))
        assert isinstance(joining.end(), glintpy.ConfigError)  # nothing was written down: it is full
        master.disarm()


@contextmanager
def master_and_workers(
    folder: Path, num_workers: int
) -> Iterator[tuple[DrilledNode, list[glintpy.Client], list[glintpy.Group]]]:
    """Run a master in a process of its own, and workers of the group "job" in this one."""
    cluster = DrilledCluster(folder, 0)
    with ExitStack() as stack:
        stack.callback(cluster.close)
        cluster.start()
        clients = [
            stack.enter_context(glintpy.Client(cluster.master.address, timeout_s=PATIENCE_S))
            for _ in range(num_workers)
        ]
        yield cluster.master, clients, [client.join("job", num_workers) for client in clients]


def has_accepted(proxy: Proxy, number: int) -> bool:
    return proxy.num_accepted >= number


def test_a_connection_that_is_reset_costs_nobody_its_place(master_address: str) -> None:
    with Proxy(master_address) as proxy, ExitStack() as stack:
        one = stack.enter_context(glintpy.Client(proxy.address, timeout_s=PATIENCE_S))
        two = stack.enter_context(glintpy.Client(master_address, timeout_s=PATIENCE_S))
        groups = [one.join("job", 2), two.join("job", 2)]
        for number in (1, 2, 3):
            waiting = Waiting(groups[0].barrier)
            until_waiting(two, {0: f"barrier {number}"})
            wanted = proxy.num_accepted + 2
            proxy.reset_all()
            until(partial(has_accepted, proxy, wanted), "both connections are back")
            groups[1].barrier()
            assert waiting.end() is None
            until(lambda: not any(found["is_away"] for found in told(two).values()), "nobody is away")
            assert set(told(two)) == {0, 1}
