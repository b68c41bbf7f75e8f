"""A master that starts again remembers groups, and waits for their workers as long as it must."""

from __future__ import annotations

import pytest

from glintpy.errors import Expelled, RemoteFailure
from tests.unit.group_world import SETTINGS, a_world, joined, state, states


def test_a_barrier_goes_on_after_a_restart() -> None:
    world, (one, two, three) = joined(3)
    assert states(one.arrive(), two.arrive()) == ["open"] * 2
    one.tick()
    world.restart()
    waiting = two.arrive()  # asked again; the first one's is still to come
    for client_id in ("c0", "c1", "c2"):
        world.come(client_id)
    world.pass_time(SETTINGS.restart_s * 2)
    assert state(waiting) == "open"
    assert states(three.arrive(), waiting, one.arrive()) == ["done"] * 3
    assert [worker["clock"] for worker in world.groups.to_content()[0]["workers"]] == [1, 0, 0]


def test_who_does_not_come_back_after_a_restart_is_lost() -> None:
    world, (one, two) = joined(2)
    world.restart()
    waiting = one.arrive()
    world.come(one.client_id)
    world.pass_time(SETTINGS.restart_s)
    assert state(waiting) == "done"
    with pytest.raises(Expelled, match="did not come back"):
        two.tick().answer  # noqa: B018 - raises


def test_the_heir_of_one_who_does_not_come_back_after_a_restart_waits_for_its_place() -> None:
    world, (one, two, heir) = a_world(3)
    for worker in (one, two):
        worker.join(num_workers=2)
    world.restart()
    world.come(two.client_id)
    waiting = heir.join(num_workers=2)
    world.pass_time(SETTINGS.place_s + 1)
    assert waiting.is_open
    world.pass_time(SETTINGS.restart_s - SETTINGS.place_s)
    assert waiting.answer["rank"] == 0


def test_who_joins_before_its_client_is_back_has_time_for_that() -> None:
    world, (one,) = a_world(1)
    world.restart()
    one.join()
    assert world.groups.client_ids == {one.client_id}
    world.come(one.client_id)
    world.pass_time(SETTINGS.restart_s * 2)
    (worker,) = world.groups.to_content()[0]["workers"]
    assert (worker["name"], worker["is_away"]) == ("name-c0", False)


def test_who_joins_and_whose_client_does_not_come_is_lost() -> None:
    world, (one,) = a_world(1)
    world.restart()
    one.join()
    world.pass_time(SETTINGS.restart_s)
    assert world.groups.to_content() == []


def test_nobody_hears_what_could_not_be_written_down() -> None:
    world, (one, two) = joined(2)
    waiting = one.arrive()
    world.is_full = True
    last = two.arrive()
    for asked in (last, waiting, one.tick()):
        with pytest.raises(RemoteFailure, match="no space left"):
            asked.answer  # noqa: B018 - raises
    world.is_full = False
    world.pass_time(0.25)
    world.restart()
    (group,) = world.groups.to_content()
    assert (group["barrier"], [worker["clock"] for worker in group["workers"]]) == (1, [1, 0])
