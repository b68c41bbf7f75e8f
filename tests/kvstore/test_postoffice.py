"""Roles, ranks, numbers and barriers of nodes, several of them in this process; named by what went wrong in ps-lite."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import pytest

import glintpy
from glintpy.kvstore import SCHEDULER, SERVERS, WORKERS, Postoffice, create
from glintpy.kvstore.roles import node_id, node_name, node_of
from tests.kvstore.conftest import PATIENCE_S

Make = Callable[..., Postoffice]


def leave(node: Postoffice) -> None:
    with suppress(glintpy.GlintError):  # its client is closed
        node.finalize(do_barrier=False)


@pytest.fixture
def make(cluster: glintpy.LocalCluster, job: str) -> Iterator[Make]:
    """Return what makes a node with a client of its own; all go at the end without meeting."""
    with ExitStack() as stack:

        def make(role: Any = "worker", **options: Any) -> Postoffice:
            client = stack.enter_context(cluster.client(timeout_s=PATIENCE_S))
            node = Postoffice(role, client, job=job, **options)
            stack.callback(leave, node)
            return node

        yield make


def test_nodes_are_numbered_as_in_ps_lite(make: Make) -> None:
    counts = {"num_workers": 2, "num_servers": 2, "with_scheduler": True}
    nodes = [make(role, **counts) for role in ("worker", "server", "scheduler", "worker", "server")]
    assert [node.node_id for node in nodes] == [9, 8, 1, 11, 10]
    assert [node.my_rank for node in nodes] == [0, 0, 0, 1, 1]
    assert [(node.num_workers, node.num_servers) for node in nodes] == [(2, 2)] * 5
    first = nodes[0]
    assert (first.is_worker, first.is_server, first.is_scheduler, first.role) == (
        True,
        False,
        False,
        "worker",
    )
    assert nodes[1].live_nodes() == [1, 8, 9, 10, 11]
    assert nodes[1].live_nodes(SCHEDULER + WORKERS) == [1, 9, 11]
    assert nodes[1].dead_nodes() == []
    assert repr(nodes[3]) == "Postoffice('worker', my_rank=1, node_id=11)"


@pytest.mark.parametrize(
    ("role", "rank", "number"), [("scheduler", 0, 1), ("server", 3, 14), ("worker", 3, 15)]
)
def test_numbers_of_nodes_say_role_and_rank(role: Any, rank: int, number: int) -> None:
    assert node_id(role, rank) == number
    assert node_of(number) == (role, rank)
    assert str(number) in node_name(number)
    assert [node_of(none) for none in (0, 2, 7, -1)] == [None] * 4


def test_a_rank_that_is_asked_for_does_not_depend_on_who_comes_first(make: Make) -> None:
    assert [make(rank=rank, num_workers=3).my_rank for rank in (2, 0, 1)] == [2, 0, 1]


def test_a_barrier_counts_distinct_nodes_and_not_messages(make: Make) -> None:
    """In ps-lite a node that arrives twice opens it for one that has not come."""
    one, two = make(num_workers=2), make(num_workers=2)
    for _ in range(3):
        with pytest.raises(glintpy.WorkersMissing, match=r"barrier 1 was not reached by all within 0\.05 s"):
            one.barrier(WORKERS, timeout_s=0.05)
    with ThreadPoolExecutor(3) as pool:
        # Several customers of one process are still one node, and all of them are released.
        arrived = [pool.submit(one.barrier, WORKERS) for _ in range(2)]
        two.barrier(WORKERS)
        assert [each.result(PATIENCE_S) for each in arrived] == [None, None]


def test_barriers_of_groups_do_not_mix(make: Make) -> None:
    counts = {"num_workers": 2, "num_servers": 1, "with_scheduler": True}
    scheduler, server, one, two = (
        make(role, **counts) for role in ("scheduler", "server", "worker", "worker")
    )
    with ThreadPoolExecutor(4) as pool:
        everybody = pool.submit(server.barrier)
        both = pool.submit(one.barrier, WORKERS)
        two.barrier(WORKERS)
        both.result(PATIENCE_S)
        assert not everybody.done()
        rest = [pool.submit(node.barrier, 7) for node in (scheduler, one)]
        two.barrier()
        assert [each.result(PATIENCE_S) for each in (everybody, *rest)] == [None] * 3
    server.barrier(SERVERS)  # of one: at once
    scheduler.barrier(SCHEDULER)


def test_a_barrier_of_others_is_refused_at_once(make: Make) -> None:
    one = make(num_workers=1)
    with pytest.raises(glintpy.ConfigError, match="this node is a worker, and not in group 3"):
        one.barrier(SCHEDULER + SERVERS)
    for wrong in (0, 8, "workers", True):
        with pytest.raises(glintpy.ConfigError, match="or a sum of these, not"):
            one.barrier(wrong)  # type: ignore[arg-type]  # - what the test is about


def test_a_node_that_goes_before_the_end_hangs_nobody_in_finalize(make: Make) -> None:
    """In ps-lite the others finish their work and hang in Finalize (5.14)."""
    one, two = make(num_workers=2), make(num_workers=2)
    two.client.close()  # without a word
    one.finalize()
    one.finalize()
    with pytest.raises(glintpy.GlintError, match="was left"):
        one.barrier()


def test_who_comes_in_a_dead_node_s_place_takes_its_rank_before_it_is_missed_and_after(make: Make) -> None:
    """In ps-lite a restart before the time-out is ignored for ever (5.12), and one at a barrier counts twice (5.13)."""
    one, two = make(num_workers=2), make(num_workers=2)
    assert not two.is_recovery
    for _ in range(2):
        with ThreadPoolExecutor(2) as pool:
            heir = pool.submit(make, num_workers=2)  # while both are there
            two.client.close()
            two = heir.result(PATIENCE_S)
        assert (two.my_rank, two.node_id, two.is_recovery) == (1, 11, True)
        assert one.dead_nodes() == []
        with ThreadPoolExecutor(1) as pool:
            meeting = pool.submit(one.barrier)
            two.barrier()
            meeting.result(PATIENCE_S)


@pytest.mark.parametrize("num_servers", [0, 1])
def test_a_node_that_is_started_again_before_all_have_come_is_counted_once(
    make: Make, num_servers: int
) -> None:
    counts = {"num_workers": 3, "num_servers": num_servers}
    servers = [make("server", **counts) for _ in range(num_servers)]
    one, lost = (make(rank=rank, **counts) for rank in range(2))
    lost.client.close()
    heir = make(rank=1, **counts)
    assert [node.is_recovery for node in (one, lost, heir)] == [False, False, True]
    with ThreadPoolExecutor(3) as pool:
        waiting = [pool.submit(node.barrier) for node in (heir, *servers)]
        for group in (WORKERS, WORKERS + SERVERS):
            with pytest.raises(
                glintpy.WorkersMissing, match=f"1 of {3 + num_servers * (group > 4)} that have not"
            ):
                one.barrier(group, timeout_s=0.1)
        last = make(rank=2, **counts)
        assert not last.is_recovery
        waiting.append(pool.submit(one.barrier))
        last.barrier()
        assert [each.result(PATIENCE_S) for each in waiting] == [None] * (2 + num_servers)


def test_a_node_that_is_lost_early_and_never_started_again_is_not_waited_for(make: Make) -> None:
    counts = {"num_workers": 3, "num_servers": 1}
    server, one, lost = (make(role, **counts) for role in ("server", "worker", "worker"))
    lost.client.close()
    last = make(**counts)
    assert (last.my_rank, last.is_recovery) == (2, False)  # no rank was said: it is taken for the third
    with ThreadPoolExecutor(2) as pool:
        meeting = [pool.submit(node.barrier) for node in (server, one)]
        last.barrier()
        assert [each.result(PATIENCE_S) for each in meeting] == [None, None]


@pytest.mark.parametrize("role", ["scheduler", "server", "worker"])
@pytest.mark.parametrize("asks", [False, True])
def test_who_comes_in_the_place_of_the_only_node_of_a_role_knows_it(
    make: Make, role: Any, asks: bool
) -> None:
    counts = {"num_workers": 1, "num_servers": 1, "with_scheduler": True}
    nodes = {each: make(each, **counts) for each in ("scheduler", "server", "worker")}
    assert not any(node.is_recovery for node in nodes.values())
    before = nodes[role]
    before.client.close()
    heir = nodes[role] = make(role, rank=0 if asks else None, **counts)
    assert (heir.is_recovery, heir.node_id) == (True, before.node_id)
    with ThreadPoolExecutor(2) as pool:
        meeting = [pool.submit(node.barrier) for node in nodes.values() if node is not heir]
        heir.barrier()
        assert [each.result(PATIENCE_S) for each in meeting] == [None, None]


def test_dead_nodes_are_those_that_were_lost_and_not_those_that_left(make: Make) -> None:
    one, two, three = (make(num_workers=3) for _ in range(3))
    two.finalize(do_barrier=False)
    three.client.close()
    assert one.dead_nodes() == [13]
    assert one.dead_nodes(SERVERS) == []
    assert one.live_nodes() == [9]


def test_nodes_may_come_and_go_where_nobody_says_how_many(make: Make) -> None:
    nodes = [make(role) for role in ("worker", "worker", "server")]
    assert [node.num_workers for node in nodes] == [2, 2, 2]
    assert nodes[0].num_servers == 1
    nodes[1].finalize(do_barrier=False)
    assert nodes[0].num_workers == 1
    assert make().node_id == 11


@pytest.mark.parametrize(
    ("role", "options", "match"),
    [
        ("boss", {}, "role is scheduler, server or worker, not 'boss'"),
        (
            "server",
            {"num_workers": 1},
            "this node is a server, and the job has none: give num_servers to all nodes",
        ),
        ("scheduler", {"num_workers": 1}, "all nodes of the job have to say with_scheduler=True"),
        ("worker", {"num_workers": 1, "rank": 1}, "of 1 workers has the ranks 0 to 0, and not 1"),
    ],
)
def test_what_can_t_be_is_refused(make: Make, role: Any, options: dict[str, Any], match: str) -> None:
    with pytest.raises(glintpy.ConfigError, match=match):
        make(role, **options)


def test_the_environment_says_role_rank_and_counts(
    cluster: glintpy.LocalCluster, job: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = {"GLINTPY_MASTER": cluster.address, "GLINTPY_JOB": job, "DMLC_ROLE": "server", "GLINTPY_RANK": "1"}
    told |= {"GLINTPY_NUM_ROLE_SERVERS": "2", "DMLC_NUM_WORKER": "3", "DMLC_NUM_SERVER": "7"}
    for name, text in told.items():
        monkeypatch.setenv(name, text)
    node = Postoffice()
    assert (node.node_id, node.num_workers, node.num_servers) == (10, 3, 2)
    assert Postoffice.of_process() is node
    with pytest.raises(
        glintpy.ConfigError, match=r"DMLC_ROLE is 'server', and a store belongs to a wor.*Postoffice"
    ):
        create("dist_async")
    other = Postoffice("worker")  # the rank that is told is a server's
    assert other.node_id == 9
    with pytest.raises(glintpy.ConfigError, match="this process is 2 nodes: say which one"):
        Postoffice.of_process()
    for each in (node, other):
        each.finalize(do_barrier=False)
    with pytest.raises(glintpy.ConfigError, match="this process is 0 nodes: make a Postoffice first"):
        Postoffice.of_process()


def test_an_error_in_a_node_is_told_to_those_that_asked_for_it(make: Make) -> None:
    one, two = (make(num_workers=2, on_worker_lost="raise") for _ in range(2))
    with pytest.raises(ValueError, match="its own"), two:
        raise ValueError("its own")
    with pytest.raises(glintpy.WorkerLost, match="lost rank 1"):
        one.barrier()
