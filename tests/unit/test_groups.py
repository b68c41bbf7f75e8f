"""Workers of a group wait for one another as long as they must and no longer, whoever comes, goes or is asked again."""

from __future__ import annotations

from typing import Any

import pytest

from glintpy.errors import ConfigError, Expelled, Overloaded, RemoteProtocolError
from tests.unit.group_world import SETTINGS, Told, a_world, joined, state, states

# --- joining ------------------------------------------------------------------------------------------------


def test_who_joins_has_the_lowest_free_rank_at_once() -> None:
    _, workers = a_world(3)
    answers = [worker.join(num_workers=3).answer for worker in workers]
    assert [answer["rank"] for answer in answers] == [0, 1, 2]
    assert [answer["size"] for answer in answers] == [3, 3, 3]
    workers[1].leave()
    assert workers[1].leave().answer == {}  # again


def test_joining_again_with_the_same_token_is_the_same_worker() -> None:
    _, (one, two) = a_world(2)
    first = one.join(num_workers=2).answer
    assert one.join(num_workers=2).answer == first
    assert two.join(num_workers=2).answer["rank"] == 1


def test_the_groups_of_a_cluster_do_not_know_each_other() -> None:
    world, (one, two) = a_world(2)
    one.join("a")
    two.join("b")
    assert (one.rank, two.rank) == (0, 0)
    one.tick()
    assert states(one.wait(), one.arrive(), two.arrive()) == ["done"] * 3
    assert [group["name"] for group in world.groups.to_content()] == ["a", "b"]


def test_a_full_group_gives_the_place_of_one_that_is_lost_meanwhile() -> None:
    world, workers = a_world(3)
    for worker in workers[:2]:
        worker.join(num_workers=2)
    waiting = workers[2].join(num_workers=2)
    assert waiting.is_open
    world.lose("c0")
    assert waiting.answer["rank"] == 0


def test_a_full_group_refuses_with_its_workers_when_nobody_goes() -> None:
    world, workers = a_world(3)
    for worker in workers[:2]:
        worker.join(num_workers=2)
    waiting = workers[2].join(num_workers=2)
    world.pass_time(SETTINGS.place_s)
    with pytest.raises(
        ConfigError, match=r"has its 2 workers already; by rank 0: name-c0 \(pid 100 on host\), 1:"
    ):
        waiting.answer  # noqa: B018 - raises
    with pytest.raises(ConfigError, match="already"):
        workers[2].join(num_workers=2, wait_s=0).answer  # noqa: B018 - raises


def test_who_waits_for_a_place_is_asked_for_once_however_often_it_asks() -> None:
    world, workers = a_world(2)
    workers[0].join(num_workers=1)
    waiting = [workers[1].join(num_workers=1) for _ in range(3)]
    world.lose("c0")
    assert [asked.is_open for asked in waiting] == [True, True, False]
    assert len(world.groups.to_content()[0]["workers"]) == 1


@pytest.mark.parametrize(
    ("changes", "match"),
    [
        ({"num_workers": 3}, "num_workers=2, and this worker joins it with num_workers=3"),
        ({"num_workers": 0}, "num_workers=2, and this worker joins it with num_workers=None"),
        (
            {"num_workers": 2, "tells_losses": True},
            "'shrink', and this worker joins it with on_worker_lost='raise'",
        ),
        ({"name": "g" * 129}, "printable characters"),
        (
            {"name": "other", "num_workers": SETTINGS.workers_max + 1},
            f"at most {SETTINGS.workers_max} workers",
        ),
    ],
    ids=str,
)
def test_who_means_another_group_is_refused(changes: dict[str, Any], match: str) -> None:
    world, (one, two) = a_world(2)
    one.join(num_workers=2)
    with pytest.raises(ConfigError, match=match):
        two.join(**changes).answer  # noqa: B018 - raises
    assert len(world.groups.to_content()) == 1


def test_who_is_lost_while_it_waits_for_a_place_gets_none() -> None:
    world, workers = a_world(2)
    workers[0].join(num_workers=1)
    waiting = workers[1].join(num_workers=1)
    world.lose("c1")
    world.lose("c0")
    assert waiting.is_open
    assert world.groups.to_content() == []


def test_groups_and_workers_have_limits() -> None:
    _, workers = a_world(3, groups_max=1, workers_max=2)
    workers[0].join("a")
    with pytest.raises(Overloaded, match="1 groups"):
        workers[1].join("b").answer  # noqa: B018 - raises
    workers[1].join("a")
    with pytest.raises(Overloaded, match="has 2 workers"):
        workers[2].join("a").answer  # noqa: B018 - raises
    assert workers[1].join("a").answer["rank"] == 1  # the one that is there


def test_the_last_one_to_go_ends_the_group() -> None:
    world, (one, two) = joined(2)
    one.tick()
    world.lose("c0")
    two.leave()
    assert world.groups.to_content() == []
    assert world.disk == {"groups": {}, "workers": {}, "messages": {}}
    fresh = Told(world, "c1", b"x" * 16)
    answer = fresh.join(num_workers=5).answer
    assert (answer["rank"], answer["clock"], answer["size"]) == (0, 0, 5)


# --- clocks -------------------------------------------------------------------------------------------------


def test_nobody_gets_further_ahead_than_the_staleness() -> None:
    _, (fast, slow) = joined(2)
    fast.tick()
    fast.tick()
    assert state(fast.wait(2)) == "done"
    fast.tick()
    waiting = fast.wait(2)
    assert state(waiting) == "open"
    slow.tick()
    assert state(waiting) == "done"


def test_a_group_that_is_not_complete_stands_at_clock_0() -> None:
    _, (one, two) = a_world(2)
    one.join(num_workers=2)
    one.tick()
    waiting = one.wait(0)
    assert state(waiting) == "open"
    two.join(num_workers=2)
    assert two.clock == 0
    two.tick()
    assert state(waiting) == "done"


def test_a_newcomer_starts_with_the_slowest_and_holds_nobody_back() -> None:
    _, (fast, slow, new) = a_world(3)
    fast.join()
    slow.join()
    for worker in (fast, fast, fast, slow, slow):
        worker.tick()
    assert new.join().answer["clock"] == 2
    assert state(fast.wait(1)) == "done"
    assert state(fast.wait(0)) == "open"


def test_the_step_that_is_told_twice_counts_once() -> None:
    world, (one, two) = joined(2)
    one.tick()
    one.clock = 0
    one.tick()
    assert [worker["clock"] for worker in world.groups.to_content()[0]["workers"]] == [1, 0]
    one.clock = -1
    two.clock = 4
    two.tick()
    two.clock = 1
    two.tick()  # a clock never goes back
    assert [worker["clock"] for worker in world.groups.to_content()[0]["workers"]] == [1, 5]


def test_who_waits_too_long_hears_who_is_behind() -> None:
    world, workers = a_world(3)
    for worker in workers[:2]:
        worker.join(num_workers=3)
    workers[0].tick()
    waiting, asking = workers[0].wait(wait_s=2.0), workers[0].wait(wait_s=0.0)
    assert states(waiting, asking) == ["open", "late"]
    world.pass_time(2.0)
    assert waiting.answer["state"] == "late"
    assert waiting.answer["num_unjoined"] == 1
    (missing,) = waiting.answer["missing"]
    assert missing == {"rank": 1, "clock": 0, "name": "name-c1", "host": "host", "pid": 100}


def test_no_answer_is_put_off_for_ever() -> None:
    world, workers = joined(2)
    waiting = workers[0].arrive(wait_s=4_000_000.0)
    for _ in range(3):
        world.pass_time(SETTINGS.wait_s)
    assert state(waiting) == "late"  # said once


# --- barriers -----------------------------------------------------------------------------------------------


def test_nobody_leaves_a_barrier_before_all_have_arrived() -> None:
    _, workers = joined(3)
    waiting = [worker.arrive() for worker in workers[:2]]
    again = workers[0].arrive()  # counts workers, not messages
    assert states(*waiting, again) == ["open"] * 3
    assert states(workers[2].arrive(), *waiting, again) == ["done"] * 4
    assert state(workers[2].arrive()) == "done"  # asked again after its answer was lost
    for worker in workers:
        worker.barrier = 1
    waiting = [worker.arrive() for worker in workers[:2]]
    workers[0].barrier = 0
    assert state(workers[0].arrive()) == "done"  # a late repetition takes nothing back
    assert states(workers[2].arrive(), *waiting) == ["done"] * 3


def test_a_barrier_waits_for_those_that_have_not_joined() -> None:
    _, workers = a_world(2)
    workers[0].join(num_workers=2)
    waiting = workers[0].arrive()
    workers[1].join(num_workers=2)
    assert state(waiting) == "open"
    assert states(workers[1].arrive(), waiting) == ["done"] * 2


def test_a_barrier_under_way_does_not_wait_for_a_newcomer() -> None:
    _, (one, two, new) = a_world(3)
    one.join()
    two.join()
    waiting = one.arrive()
    new.join()
    assert states(two.arrive(), waiting) == ["done"] * 2
    one.barrier = two.barrier = 1
    waiting = one.arrive()
    assert states(two.arrive(), waiting) == ["open"] * 2
    assert states(new.arrive(), waiting) == ["done"] * 2


def test_an_arrival_stands_when_its_time_is_over() -> None:
    world, (one, two) = joined(2)
    asked = one.arrive(wait_s=1.0)
    world.pass_time(1.0)
    assert [worker["rank"] for worker in asked.answer["missing"]] == [1]
    assert states(two.arrive(), one.arrive()) == ["done"] * 2


def test_an_arrival_stands_when_its_time_is_over_and_the_master_starts_again() -> None:
    world, (one, two) = joined(2)
    one.arrive(wait_s=0.0)
    world.restart()
    assert state(two.arrive()) == "done"


def test_a_barrier_that_can_not_be_is_refused() -> None:
    _, (one, _) = joined(2)
    one.barrier = 1
    with pytest.raises(RemoteProtocolError, match="barrier 2 after barrier 0"):
        one.arrive().answer  # noqa: B018 - raises


# --- losses -------------------------------------------------------------------------------------------------


def test_a_lost_worker_holds_nobody_up() -> None:
    world, (one, two, lost) = joined(3)
    for worker in (one, two, two):
        worker.tick()
    waiting = [one.wait(), one.arrive(), two.arrive()]
    assert states(*waiting) == ["open"] * 3
    world.lose(lost.client_id)
    assert states(*waiting) == ["done"] * 3
    assert state(two.wait()) == "open"  # of the other, who lives


def test_a_worker_that_is_lost_before_all_have_joined_was_one_of_them() -> None:
    world, workers = a_world(3)
    for worker in workers[:2]:
        worker.join(num_workers=3)
    world.lose("c0")
    waiting = workers[1].arrive()
    assert (
        workers[2].join(num_workers=3).answer["rank"] == 2
    )  # it is the third, and not the lost one's successor
    assert state(waiting) == "open"
    assert states(workers[2].arrive(), waiting) == ["done"] * 2


def test_who_comes_in_the_place_of_a_lost_one_starts_with_the_slowest() -> None:
    world, (one, two, lost) = joined(3)
    for worker in (one, one, two):
        worker.tick()
    world.lose(lost.client_id)
    world.come("c9")
    new = Told(world, "c9", b"n" * 16)
    expected = {
        "rank": 2,
        "size": 3,
        "clock": 1,
        "barrier": 0,
        "losses": 1,
        "member": 4,
        "is_successor": True,
    }
    assert new.join(num_workers=3).answer == expected


def test_who_was_lost_and_wakes_up_is_told() -> None:
    world, (one, lost) = joined(2)
    waiting = lost.arrive()
    world.lose(lost.client_id)
    world.come(lost.client_id)  # it beats again
    for asked in (waiting, lost.tick(), lost.wait(), lost.arrive(), lost.join(num_workers=2)):
        with pytest.raises(Expelled, match=r"has ended \(no heartbeat for 4.0 s\); join again"):
            asked.answer  # noqa: B018 - raises
    assert lost.leave().answer == {}
    assert state(one.arrive()) == "done"


def test_a_master_that_knows_nothing_says_so() -> None:
    world, (one, _) = joined(2)
    world.disk = {"groups": {}, "workers": {}, "messages": {}}
    world.restart()
    with pytest.raises(Expelled, match="without its --data-dir"):
        one.tick().answer  # noqa: B018 - raises


def test_a_connection_that_comes_back_is_no_loss() -> None:
    world, (one, two) = joined(2)
    waiting = one.arrive()
    world.cut(two.client_id)
    world.pass_time(SETTINGS.back_s * 0.9)
    world.come(two.client_id)
    world.pass_time(SETTINGS.back_s * 5)
    assert state(waiting) == "open"
    assert states(two.arrive(), waiting) == ["done"] * 2


def test_a_connection_that_stays_away_is_a_loss() -> None:
    world, (one, two) = joined(2)
    waiting = one.arrive()
    world.cut(two.client_id)
    world.pass_time(SETTINGS.back_s)
    assert state(waiting) == "done"


def test_leaving_is_no_loss_unless_by_an_exception() -> None:
    _, (one, two, three) = joined(3, tells_losses=True)
    waiting = one.arrive()
    two.leave()
    assert state(waiting) == "open"
    three.leave(is_orderly=False)
    assert waiting.answer["state"] == "lost"


def test_where_losses_are_told_each_hears_of_each_once_wherever_it_waits() -> None:
    world, (one, two, three, lost) = joined(4, tells_losses=True)
    one.tick()
    waiting = [one.wait(), two.arrive()]
    world.lose(lost.client_id)
    late = three.arrive()  # it did not wait when it happened
    for worker, asked in zip((one, two, three), [*waiting, late], strict=True):
        assert asked.answer["state"] == "lost"
        assert [entry["rank"] for entry in asked.answer["lost"]] == [3]
        worker.losses, worker.barrier = asked.answer["losses"], asked.answer["barrier"]
    # The next barrier is the same one for all, wherever they heard of it.
    world.restart()
    first = [one.arrive(), three.arrive()]
    assert states(*first) == ["open"] * 2  # the second one's arrival went with the loss
    assert states(two.arrive(), *first) == ["done"] * 3


def test_who_has_not_heard_of_a_loss_can_not_arrive() -> None:
    world, (one, two, lost) = joined(3, tells_losses=True)
    world.lose(lost.client_id)
    assert states(one.arrive(), two.arrive()) == ["lost"] * 2
    one.losses = two.losses = 1
    waiting = one.arrive()
    assert state(waiting) == "open"
    assert states(two.arrive(), waiting) == ["done"] * 2


def test_an_answer_about_a_loss_that_was_lost_itself_comes_again() -> None:
    world, (one, lost) = joined(2, tells_losses=True)
    world.lose(lost.client_id)
    assert states(one.arrive(), one.arrive()) == ["lost"] * 2


# --- limits -------------------------------------------------------------------------------------------------


def test_requests_that_wait_are_bounded_and_none_is_dropped() -> None:
    world, (one, _) = joined(2)
    waiting = [one.arrive() for _ in range(SETTINGS.parked_max + 3)]
    assert states(*waiting) == ["late"] * 3 + ["open"] * SETTINGS.parked_max
    assert world.groups.to_content()[0]["workers"][0]["waits_for"] == "barrier 1"


def test_what_is_remembered_of_the_past_is_bounded() -> None:
    _, workers = a_world(5, ended_max=2)
    for worker in workers:
        worker.join()
    for worker in workers[:4]:
        worker.leave()
    with pytest.raises(Expelled, match="knows no such worker"):
        workers[1].tick().answer  # noqa: B018 - raises
    with pytest.raises(Expelled, match="it left"):
        workers[2].tick().answer  # noqa: B018 - raises
