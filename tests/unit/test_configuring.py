"""New numbers of an updater reach every server of a model once they are written down, whoever is away meanwhile."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from glintpy.actors.catalog import Model, Order
from glintpy.actors.configuring import ANSWER_S
from glintpy.errors import (
    ConfigError,
    GlintError,
    ModelExists,
    ModelLost,
    ModelNotFound,
    RemoteFailure,
    ServerLost,
)
from glintpy.protocol.spec import ModelSpec
from tests.unit.test_catalog import ALIVE, SERVERS, Master, a_request

SPEC = ModelSpec(
    "m", 10, 3, "float64", updater="sgd", updater_numbers='{"learning_rate":1.0,"weight_decay":0}'
)


@pytest.fixture
def master() -> Master:
    """One with a ready model on two servers."""
    made = Master()
    made.made(a_request(spec=SPEC))
    return made


def change(master: Master, now: float = 0.0, **numbers: Any) -> None:
    master.catalog.configure(1, numbers, now + ANSWER_S, master.told.append)


def numbers_of(told: dict[str, Any] | GlintError) -> str:
    assert isinstance(told, dict)
    text: str = told["spec"]["updater_numbers"]
    return text


def test_who_asks_hears_when_all_servers_have_them(master: Master) -> None:
    change(master, learning_rate=0.5)
    asked = master.orders()
    assert [(order.server_id, order.kind, order.version) for order in asked] == [
        ("s1", "configure", 1),
        ("s2", "configure", 1),
    ]
    saved = Model.from_content(master.saved[1])
    assert saved.info.spec.numbers == {"learning_rate": 0.5, "weight_decay": 0}
    assert saved.numbers_version == 1
    master.catalog.answered(asked[0], None)
    assert master.told == []
    master.catalog.answered(asked[1], None)
    assert numbers_of(master.told[0]) == '{"learning_rate":0.5,"weight_decay":0}'


def test_a_later_change_answers_for_the_earlier_one(master: Master) -> None:
    change(master, learning_rate=0.5)
    first = master.orders()
    change(master, weight_decay=0.25)
    second = master.orders()
    for order in first:
        master.catalog.answered(order, None)
    assert master.told == []
    for order in second:
        master.catalog.answered(order, None)
    assert [numbers_of(told) for told in master.told] == ['{"learning_rate":0.5,"weight_decay":0.25}'] * 2


def test_a_server_that_joins_is_told_what_was_ever_changed(master: Master) -> None:
    master.catalog.server_joined("s1")
    assert master.orders() == []
    change(master, learning_rate=0.5)
    master.orders()
    for server_id in ("s1", "s2", "s3"):
        master.catalog.server_joined(server_id)
    told = master.orders()
    assert [order.server_id for order in told] == ["s1", "s2"]
    for order in told:
        master.catalog.answered(order, None)
    assert len(master.told) == 1
    # A master that starts again still knows.
    again = Master()
    again.catalog.restore(Model.from_content(master.saved[1]))
    again.catalog.server_joined("s2")
    assert again.orders() == [Order("s2", "configure", 1, 1)]


def test_nobody_is_kept_waiting_for_a_server_that_is_away(master: Master) -> None:
    change(master, now=5.0, learning_rate=0.5)
    master.catalog.answered(master.orders()[0], None)
    master.catalog.tick(5.0 + ANSWER_S - 0.1)
    assert master.told == []
    master.catalog.tick(5.0 + ANSWER_S)
    (error,) = master.told
    assert isinstance(error, ServerLost)
    assert "1 servers have not answered in time (s2)" in str(error)
    master.catalog.server_joined("s2")
    assert master.orders() == [Order("s2", "configure", 1, 1)]


def test_numbers_that_a_server_refuses_are_taken_back_everywhere(master: Master) -> None:
    change(master, learning_rate=0.5)
    first, second = master.orders()
    master.catalog.answered(first, None)
    master.catalog.answered(second, ModelLost("gone"))
    assert isinstance(master.told[0], ModelLost)
    back = master.orders()
    assert [(order.server_id, order.version) for order in back] == [("s1", 2), ("s2", 2)]
    assert master.catalog.find(model_id=1).info.spec.updater_numbers == SPEC.updater_numbers
    for order in back:
        master.catalog.answered(order, None)
    assert len(master.told) == 1


def test_unknown_numbers_and_a_full_disk_change_nothing(master: Master) -> None:
    with pytest.raises(ConfigError, match=r"no number 'rate'; it has learning_rate, weight_decay"):
        change(master, rate=1)
    master.disk_is_full = True
    with pytest.raises(RemoteFailure, match="disk is full"):
        change(master, learning_rate=0.5)
    model = master.catalog.find(model_id=1)
    assert (model.info.spec.updater_numbers, model.numbers_version) == (SPEC.updater_numbers, 0)
    assert master.orders() == []
    with pytest.raises(ModelNotFound):
        master.catalog.configure(9, {}, 0.0, master.told.append)


def test_who_waits_for_an_earlier_change_still_hears_when_a_later_one_cannot_be_written(
    master: Master,
) -> None:
    change(master, learning_rate=0.5)
    asked = master.orders()
    master.disk_is_full = True
    with pytest.raises(RemoteFailure, match="disk is full"):
        change(master, weight_decay=0.25)
    for order in asked:
        master.catalog.answered(order, None)
    assert [numbers_of(told) for told in master.told] == ['{"learning_rate":0.5,"weight_decay":0}']


def test_a_model_that_ends_meanwhile_is_not_found(master: Master) -> None:
    change(master, learning_rate=0.5)
    late = master.orders()
    master.catalog.destroy(1, ALIVE, 0.0, lambda _: None)
    assert isinstance(master.told[0], ModelNotFound)
    for order in [*late, *master.orders()]:
        master.catalog.answered(order, None)
    assert len(master.told) == 1


def test_programs_that_start_alike_find_the_model_by_its_first_or_its_present_numbers(master: Master) -> None:
    change(master, learning_rate=0.5)
    for text in (SPEC.updater_numbers, '{"learning_rate":0.5,"weight_decay":0}'):
        spec = replace(SPEC, updater_numbers=text)
        found: list[Any] = []
        master.catalog.create(a_request(spec=spec, exist_ok=True), SERVERS, 0.0, found.append)
        assert found
    other = replace(SPEC, updater_numbers='{"learning_rate":0.25,"weight_decay":0}')
    with pytest.raises(ModelExists, match="updater_numbers"):
        master.catalog.create(a_request(spec=other, exist_ok=True), SERVERS, 0.0, master.told.append)
