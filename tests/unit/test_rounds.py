"""Rounds end on every server once all workers have finished, whoever is away, refuses, or starts again meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from glintpy.actors.catalog import Model, Order
from glintpy.actors.rounds import Rounds
from glintpy.errors import ModelLost, NotEnoughMemory
from glintpy.protocol.spec import ModelSpec
from tests.unit.test_catalog import Master, a_request

SPEC = ModelSpec("m", 10, 3, "float64", group="job")


@pytest.fixture
def master() -> Master:
    """One with a model on two servers that follows the group "job"."""
    made = Master()
    made.made(a_request(spec=SPEC))
    return made


def rounds_of(master: Master) -> Rounds:
    return master.catalog.rounds


def saved(master: Master, model_id: int = 1) -> tuple[int, int]:
    model = Model.from_content(master.saved[model_id])
    return model.round_clock, model.round_version


def answer(master: Master, *orders: Order, error: Any = None) -> None:
    for order in orders:
        master.catalog.answered(order, error)


def test_a_round_is_over_when_all_servers_say_so(master: Master) -> None:
    rounds = rounds_of(master)
    assert rounds.groups == {"job"}
    rounds.follow("job", 0, 0)
    assert master.orders() == []
    rounds.follow("job", 1, 0)
    one, two = master.orders()
    assert [one, two] == [Order("s1", "round", 1, 1), Order("s2", "round", 1, 1)]
    assert (rounds.position("job"), rounds.pending("job")) == (0, ["s1", "s2"])
    answer(master, one)
    assert (rounds.position("job"), rounds.pending("job")) == (0, ["s2"])
    answer(master, one, two)
    assert (rounds.position("job"), rounds.pending("job")) == (1, [])
    assert saved(master) == (1, 1)
    rounds.follow("job", 1, 0)
    assert master.orders() == []


def test_groups_that_nobody_follows_have_no_position(master: Master) -> None:
    master.made(a_request("plain"))
    rounds = rounds_of(master)
    assert (rounds.position("other"), rounds.pending("other")) == (None, [])
    rounds.follow("other", 5, 0)
    assert master.orders() == []


def test_all_models_of_a_group_count(master: Master) -> None:
    master.made(a_request(spec=replace(SPEC, name="n")))
    rounds = rounds_of(master)
    rounds.follow("job", 3, 0)
    orders = master.orders()
    assert [order.model_id for order in orders] == [1, 1, 2, 2]
    answer(master, *orders[:3])
    assert rounds.position("job") == 0
    answer(master, orders[3])
    assert rounds.position("job") == 3


def test_a_model_that_is_made_later_begins_where_the_group_is(master: Master) -> None:
    master.made(a_request(spec=replace(SPEC, name="late"), round_clock=7))
    rounds = rounds_of(master)
    rounds.follow("job", 7, 0)
    assert {order.model_id for order in master.orders()} == {1}


def test_a_server_that_was_away_is_told_again(master: Master) -> None:
    rounds = rounds_of(master)
    rounds.follow("job", 1, 0)
    one, two = master.orders()
    answer(master, one)
    for server_id in ("s1", "s2", "s3"):
        master.catalog.server_joined(server_id)
    assert master.orders() == [two]
    answer(master, two)
    assert rounds.position("job") == 1
    master.catalog.server_joined("s2")
    assert master.orders() == []


def test_a_server_that_refuses_is_told_again_and_the_others_are_not(master: Master) -> None:
    rounds = rounds_of(master)
    rounds.follow("job", 1, 0)
    one, two = master.orders()
    answer(master, one)
    answer(master, two, error=NotEnoughMemory("the disk is full"))
    master.catalog.tick(1.0)
    assert master.orders() == [two]
    master.catalog.tick(2.0)
    assert master.orders() == []
    answer(master, two)
    assert rounds.position("job") == 1


def test_a_server_that_came_back_without_the_model_has_nothing_to_apply(master: Master) -> None:
    rounds = rounds_of(master)
    rounds.follow("job", 1, 0)
    one, two = master.orders()
    answer(master, one, error=ModelLost("it was in memory"))
    answer(master, two)
    assert rounds.position("job") == 1


def test_a_master_that_starts_again_goes_on_and_uses_no_version_twice(master: Master) -> None:
    rounds_of(master).follow("job", 1, 0)
    before = master.orders()
    again = Master()
    again.saved = master.saved
    again.catalog.restore(Model.from_content(again.saved[1]))
    rounds = rounds_of(again)
    rounds.follow("job", 1, 0)
    orders = again.orders()
    assert [order.version for order in orders] == [2, 2]
    answer(again, *before)  # what the earlier one asked for is not what this one waits for
    assert rounds.position("job") == 0
    answer(again, *orders)
    assert rounds.position("job") == 1


def test_what_can_not_be_written_down_is_not_begun_and_not_over(
    master: Master, caplog: pytest.LogCaptureFixture
) -> None:
    rounds = rounds_of(master)
    master.disk_is_full = True
    for _ in range(3):
        rounds.follow("job", 1, 0)
    assert master.orders() == []
    assert len(caplog.records) == 1
    master.disk_is_full = False
    rounds.follow("job", 1, 0)
    orders = master.orders()
    master.disk_is_full = True
    answer(master, *orders)
    assert rounds.position("job") == 0
    master.disk_is_full = False
    master.catalog.tick(1.0)
    assert rounds.position("job") == 1


def test_a_new_group_of_an_old_name_counts_from_zero(master: Master) -> None:
    rounds = rounds_of(master)
    rounds.follow("job", 9, 0)
    answer(master, *master.orders())
    rounds.follow("job", 10, 0)
    late = master.orders()
    rounds.began_anew("job")
    answer(master, *late)
    assert rounds.position("job") == 0
    rounds.follow("job", 1, 0)
    orders = master.orders()
    assert orders[0].version > late[0].version
    answer(master, *orders)
    assert saved(master)[0] == 1


def test_a_model_that_ends_holds_nobody_up(master: Master) -> None:
    rounds = rounds_of(master)
    rounds.follow("job", 1, 0)
    orders = master.orders()
    master.catalog.destroy(1, {"s1", "s2"}, 0.0, master.told.append)
    assert (rounds.position("job"), rounds.groups) == (None, set())
    answer(master, *orders)


# --- who is alive -------------------------------------------------------------------------------------------


def live_of(orders: list[Order]) -> list[tuple[str, str, int]]:
    return [(order.server_id, order.kind, order.version) for order in orders]


def test_servers_are_told_who_is_alive_when_that_changes(master: Master) -> None:
    rounds = rounds_of(master)
    rounds.follow("job", 0, 0b11)
    assert live_of(master.orders()) == [("s1", "live", 1), ("s2", "live", 1)]
    rounds.follow("job", 0, 0b11)
    assert master.orders() == []
    rounds.follow("job", 1, 0b01)
    assert live_of(master.orders()) == [
        ("s1", "live", 2),
        ("s2", "live", 2),
        ("s1", "round", 1),
        ("s2", "round", 1),
    ]
    model = Model.from_content(master.saved[1])
    assert (model.live, model.live_version) == (0b01, 2)


def test_a_server_that_joins_is_told_who_is_alive(master: Master) -> None:
    rounds = rounds_of(master)
    master.catalog.server_joined("s1")
    assert master.orders() == []
    rounds.follow("job", 0, 0b11)
    master.orders()
    for server_id in ("s1", "s3"):
        master.catalog.server_joined(server_id)
    assert live_of(master.orders()) == [("s1", "live", 1)]


def test_a_server_that_can_not_take_it_in_is_told_again(master: Master) -> None:
    rounds_of(master).follow("job", 0, 0b11)
    one, two = master.orders()
    answer(master, one)
    answer(master, two, error=NotEnoughMemory("the disk is full"))
    master.catalog.tick(1.0)
    assert master.orders() == [two]
    answer(master, two, error=ModelLost("it was in memory"))
    master.catalog.tick(2.0)
    assert master.orders() == []


def test_who_is_alive_is_written_down_before_it_is_told(master: Master) -> None:
    master.disk_is_full = True
    rounds_of(master).follow("job", 0, 0b11)
    assert master.orders() == []
    master.disk_is_full = False
    rounds_of(master).follow("job", 0, 0b11)
    assert live_of(master.orders()) == [("s1", "live", 2), ("s2", "live", 2)]
