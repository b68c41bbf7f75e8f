"""Group: what a worker calls, what it is told, and what it must not do; one process, several clients."""

from __future__ import annotations

import multiprocessing
import pickle
from collections.abc import Iterator
from typing import Any

import pytest

import glintpy
from glintpy.nodes import start_master
from tests.cluster.helpers import PATIENCE_S, join, until
from tests.cluster.working import Waiting, told, until_waiting
from tests.models.raw_peer import Served, a_cluster


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Only one scheme: nothing here depends on it."""
    with a_cluster("tcp") as cluster:
        yield cluster


@pytest.fixture
def clients(served: Served) -> Iterator[list[glintpy.Client]]:
    """Three clients, and no group left of the test before."""
    made = [
        glintpy.Client(served.master.address, timeout_s=PATIENCE_S, name=f"w{index}") for index in range(3)
    ]
    yield made
    for client in made:
        client.close()
    until(lambda: not served.client.status()["groups"], "the groups are gone with their clients")


def joined(clients: list[glintpy.Client], name: str = "job", **options: Any) -> list[glintpy.Group]:
    return [client.join(name, **options) for client in clients]


def test_workers_have_ranks_and_meet_at_barriers(clients: list[glintpy.Client]) -> None:
    groups = joined(clients, num_workers=3)
    assert [(group.name, group.rank, group.size, group.clock) for group in groups] == [
        ("job", rank, 3, 0) for rank in range(3)
    ]
    for number in (1, 2, 3):
        waiting = [Waiting(group.barrier) for group in groups[1:]]
        until_waiting(clients[0], {1: f"barrier {number}", 2: f"barrier {number}"})
        groups[0].barrier()
        assert [one.end() for one in waiting] == [None, None]
    assert repr(groups[1]) == "Group('job', rank=1, size=3, clock=0)"


def test_a_step_is_seen_by_whoever_sees_the_clock(served: Served, clients: list[glintpy.Client]) -> None:
    one, two = joined(clients[:2], num_workers=2)
    with served.client.vector(4, dtype="int64") as made:
        ours, theirs = clients[0].open(made.name), clients[1].open(made.name)
        assert isinstance(ours, glintpy.BigVector)
        assert isinstance(theirs, glintpy.BigVector)
        two.tick()
        waiting = Waiting(two.wait)
        for _ in range(20):
            ours.push(None, 1)  # nobody waits for them
        one.tick()
        assert waiting.end() is None
        assert theirs.pull().result().tolist() == [20] * 4
        waiting = Waiting(two.barrier)
        for _ in range(20):
            ours.push(None, 1)
        one.barrier()
        assert waiting.end() is None
        assert theirs.pull().result().tolist() == [40] * 4
    assert (one.clock, two.clock) == (1, 1)


def test_a_step_whose_push_failed_is_none(served: Served, clients: list[glintpy.Client]) -> None:
    (group,) = joined(clients[:1])
    made = served.client.vector(4)
    model = clients[0].open(made.name)
    assert isinstance(model, glintpy.BigVector)
    made.destroy()
    model.push(None, 1)
    with pytest.raises(glintpy.ModelNotFound):
        group.tick()
    assert (group.clock, told(clients[0])[0]["clock"]) == (0, 0)
    group.tick()
    assert (group.clock, told(clients[0])[0]["clock"]) == (1, 1)


def test_who_waits_too_long_learns_for_whom_and_may_wait_on(clients: list[glintpy.Client]) -> None:
    one, two = joined(clients[:2], num_workers=3)
    one.tick()
    with pytest.raises(
        glintpy.WorkersMissing, match=r"clock 1 was not reached .* within 0.1 s; missing rank 1"
    ) as late:
        one.wait(timeout_s=0.1)
    assert late.value.ranks == (1,)
    assert isinstance(late.value, TimeoutError)
    for _ in range(2):
        with pytest.raises(
            glintpy.WorkersMissing, match=r"barrier 1 .* \(clock 0, w1, pid .* and 1 of 3 that have not"
        ):
            one.barrier(timeout_s=0.1)
    three = clients[2].join("job", 3)
    waiting = [Waiting(two.barrier), Waiting(three.barrier)]
    one.barrier()
    assert [one.end() for one in waiting] == [None, None]


def test_one_worker_needs_nobody(clients: list[glintpy.Client]) -> None:
    with clients[0].join("alone") as group:
        for step in range(3):
            group.barrier()
            group.tick()
            group.wait()
            assert group.clock == step + 1


def test_whoever_is_there_is_the_group(clients: list[glintpy.Client]) -> None:
    one, two = joined(clients[:2])
    assert (one.size, two.size) == (1, 2)
    one.tick()
    assert one.size == 2
    two.tick()
    two.tick()
    three = clients[2].join("job")
    assert (three.rank, three.clock) == (2, 1)
    two.wait(1)
    two.leave()
    three.wait()
    assert (three.size, clients[1].join("job").rank) == (2, 1)


def test_a_client_is_in_several_groups(clients: list[glintpy.Client]) -> None:
    evens, odds = joined(clients[:1], "evens")[0], joined(clients[:1], "odds")[0]
    evens.tick()
    assert (evens.clock, odds.clock) == (1, 0)
    assert [group["name"] for group in clients[0].status()["groups"]] == ["evens", "odds"]


@pytest.mark.parametrize(
    ("arguments", "match"),
    [
        ({"name": ""}, "a group's name has 1 to"),
        ({"name": 3}, "a group's name has 1 to"),
        ({"num_workers": 0}, "num_workers is an integer of at least 1, not 0"),
        ({"num_workers": 2.0}, "num_workers is an integer"),
        ({"num_workers": True}, "num_workers is an integer"),
        ({"num_workers": 2**70}, "num_workers is an integer"),
        ({"num_workers": 100_000}, "at most 4096 workers"),
        ({"on_worker_lost": "ignore"}, "on_worker_lost is"),
        ({"timeout_s": 0}, "timeout_s is a positive number"),
    ],
    ids=str,
)
def test_a_group_that_can_not_be_is_refused(
    clients: list[glintpy.Client], arguments: dict[str, Any], match: str
) -> None:
    with pytest.raises(glintpy.ConfigError, match=match):
        clients[0].join(**({"name": "job"} | arguments))


@pytest.mark.parametrize("staleness", [-1, 1.5, None, True, 2**63])
def test_a_staleness_that_can_not_be_is_refused(clients: list[glintpy.Client], staleness: Any) -> None:
    (group,) = joined(clients[:1])
    with pytest.raises(glintpy.ConfigError, match="staleness is an integer of at least 0"):
        group.wait(staleness)


def test_a_group_that_is_full_or_another_one_is_refused(clients: list[glintpy.Client]) -> None:
    joined(clients[:2], num_workers=2)
    with pytest.raises(glintpy.ConfigError, match="has its 2 workers already; by rank 0: w0"):
        clients[2].join("job", 2, timeout_s=0.2)
    with pytest.raises(
        glintpy.ConfigError, match="num_workers=2, and this worker joins it with num_workers=3"
    ):
        clients[2].join("job", 3)
    with pytest.raises(glintpy.ConfigError, match="on_worker_lost='shrink'"):
        clients[2].join("job", 2, on_worker_lost="raise")


# --- the end ------------------------------------------------------------------------------------------------


def test_who_has_left_is_waited_for_no_more_and_can_do_nothing(clients: list[glintpy.Client]) -> None:
    one, two = joined(clients[:2], num_workers=2, on_worker_lost="raise")
    waiting = Waiting(one.barrier)
    until_waiting(clients[0], {0: "barrier 1"})
    with two:
        pass
    assert waiting.end() is None
    two.leave()
    for call in (two.tick, two.wait, two.barrier):
        with pytest.raises(glintpy.GlintError, match="was left; join again"):
            call()
    again = clients[1].join("job", 2, on_worker_lost="raise")
    assert again.rank == 1


def test_leaving_by_an_exception_and_closing_without_a_word_are_losses(clients: list[glintpy.Client]) -> None:
    one, two, three = joined(clients, num_workers=3, on_worker_lost="raise")
    waiting = Waiting(one.barrier)
    until_waiting(clients[0], {0: "barrier 1"})
    with pytest.raises(ZeroDivisionError), two:
        raise ZeroDivisionError
    error = waiting.end()
    assert isinstance(error, glintpy.WorkerLost)
    assert (error.rank, error.ranks) == (1, (1,))
    assert "lost rank 1 (clock 0, w1, pid" in str(error)
    clients[2].close()
    with pytest.raises(glintpy.WorkerLost, match=r"lost rank 2 \(clock 0, w2"):
        one.wait()
    one.wait()  # each loss is told once
    one.barrier()
    with pytest.raises(glintpy.GlintError, match="closed"):
        three.tick()


def test_a_client_that_is_closed_takes_its_own_waiting_along(clients: list[glintpy.Client]) -> None:
    one, _ = joined(clients[:2], num_workers=2)
    waiting = Waiting(one.barrier)
    until_waiting(clients[1], {0: "barrier 1"})
    clients[0].close()
    assert "closed" in str(waiting.end())


def test_a_group_does_not_pickle(clients: list[glintpy.Client]) -> None:
    (group,) = joined(clients[:1])
    with pytest.raises(TypeError, match="let each process join by itself"):
        pickle.dumps(group)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_joins_by_itself(clients: list[glintpy.Client]) -> None:
    (group,) = joined(clients[:1])
    context = multiprocessing.get_context("fork")
    process = context.Process(target=use_parents_group, args=(clients[0], group))
    process.start()
    join([process])
    group.tick()
    assert told(clients[0])[0]["clock"] == 1


def use_parents_group(client: glintpy.Client, group: glintpy.Group) -> None:
    for call in (group.tick, group.wait, group.barrier):
        with pytest.raises(glintpy.GlintError, match="has to join by itself"):
            call()
    with group:
        pass  # leaves nothing
    with client.join("job") as own:
        assert own.rank == 1
        own.tick()


# --- the master's end -----------------------------------------------------------------------------------------


def test_a_master_that_starts_anew_without_its_state_hangs_nobody() -> None:
    master = start_master("tcp://127.0.0.1:0")
    try:
        with (
            glintpy.Client(master.address, timeout_s=PATIENCE_S) as one,
            glintpy.Client(master.address) as two,
        ):
            groups = joined([one, two], num_workers=2)
            waiting = Waiting(groups[0].barrier)
            until_waiting(one, {0: "barrier 1"})
            master.stop()
            master = start_master(master.address)
            error = waiting.end()
            assert isinstance(error, glintpy.Expelled)
            assert "worker 0 of group 'job'" in str(error)
            assert "without its --data-dir" in str(error)
            groups[0].leave()
            assert one.join("job", 2).rank == 0
    finally:
        master.stop()


def test_a_master_that_is_away_is_told_and_a_step_counts_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("glintpy.models.group.ANSWER_S", 0.1)
    master = start_master("tcp://127.0.0.1:0")
    with glintpy.Client(master.address, timeout_s=0.2) as client:
        group = client.join("job")
        group.tick()
        master.stop()
        for call in (group.tick, group.wait, group.barrier, group.leave):
            with pytest.raises(glintpy.MasterUnreachable):
                call()
        assert group.clock == 1
