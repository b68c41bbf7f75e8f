"""Workers of a group that models follow wait until servers have applied a step, if they ask for it."""

from __future__ import annotations

from tests.unit.group_world import a_world, joined, state, states


def test_a_step_that_is_to_be_applied_is_waited_for() -> None:
    world, (one, two) = joined(2)
    followed = world.followed_by
    assert followed.begun == ["g"]
    followed.clocks["g"] = 0
    one.tick()
    waiting = one.wait(is_applied=True)
    two.tick()
    # All have finished, which is enough for who only waits for clocks.
    assert states(waiting, two.wait()) == ["open", "done"]
    assert world.groups.clocks("g") == (1, 1)
    world.groups.applied("g", world.now)
    assert state(waiting) == "open"
    followed.clocks["g"] = 1
    world.groups.applied("g", world.now)
    assert state(waiting) == "done"
    assert state(two.wait(is_applied=True)) == "done"


def test_without_a_model_that_follows_nobody_waits_for_servers() -> None:
    _, (one, two) = joined(2)
    one.tick()
    two.tick()
    assert states(one.wait(is_applied=True), two.wait(is_applied=True)) == ["done", "done"]


def test_who_waits_too_long_for_servers_hears_which() -> None:
    world, (one,) = joined(1)
    world.followed_by.clocks["g"] = 0
    world.followed_by.names["g"] = ["s2"]
    one.tick()
    waiting = one.wait(is_applied=True, wait_s=1.0)
    world.pass_time(2.0)
    assert (state(waiting), waiting.answer["missing"], waiting.answer["unapplied"]) == ("late", [], ["s2"])
    late = one.wait(wait_s=0.0)
    assert state(late) == "done"


def test_a_group_that_is_made_anew_says_so() -> None:
    world, (one, two) = a_world(2)
    one.join()
    one.leave()
    two.join()
    assert world.followed_by.begun == ["g", "g"]
    assert world.groups.clocks("nobody") == (0, 0)
    world.groups.applied("nobody", world.now)


def test_rounds_wait_for_who_is_there_and_who_is_to_come() -> None:
    world, (one, two, three) = a_world(3)
    assert world.groups.live("g") == 0
    one.join(num_workers=3)
    assert world.groups.live("g") == 0b111
    two.join(num_workers=3)
    world.lose(one.client_id)
    assert world.groups.live("g") == 0b110  # who is to come is none of those that have pushed and are lost
    three.join(num_workers=3)
    assert world.groups.live("g") == 0b110
    three.leave()
    assert world.groups.live("g") == 0b010


def test_rounds_wait_for_who_is_to_come_though_another_one_is_started_again() -> None:
    world, (one, two, heir, three) = a_world(4)
    one.join(num_workers=3, rank=0)
    two.join(num_workers=3, rank=1)
    world.lose(two.client_id)
    assert world.groups.live("g") == 0b101
    heir.join(num_workers=3, rank=1)
    assert world.groups.live("g") == 0b111
    world.lose(heir.client_id)
    world.restart()
    world.come(one.client_id)
    assert world.groups.live("g") == 0b101
    three.join(num_workers=3, rank=2)
    assert world.groups.live("g") == 0b101


def test_without_a_size_rounds_wait_for_who_is_there() -> None:
    world, (one, two) = a_world(2)
    one.join()
    assert world.groups.live("g") == 0b01
    two.join()
    assert world.groups.live("g") == 0b11
    one.leave()
    assert world.groups.live("g") == 0b10


def test_too_many_workers_for_bits_end_no_round_with_a_tag() -> None:
    world, (one,) = a_world(1)
    one.join(num_workers=64)
    assert world.groups.live("g") == 0
