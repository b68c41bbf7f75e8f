"""A model is made on all its servers or none, found by name when it is ready, and ended everywhere."""

from __future__ import annotations

import itertools
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from glintpy.actors.catalog import CREATION_S, RETURN_S, Catalog, Model, Order, Request
from glintpy.errors import (
    GlintError,
    ModelExists,
    ModelNotFound,
    NotEnoughMemory,
    NotEnoughServers,
    RemoteFailure,
    ServerLost,
    ShapeError,
)
from glintpy.protocol.spec import ModelSpec

SERVERS = [("s1", "tcp://one:1"), ("s2", "tcp://two:2"), ("s3", "tcp://three:3")]
ALIVE = {"s1", "s2", "s3"}

_tokens = itertools.count()


def a_request(name: str = "m", *, rows: int = 10, parts: tuple[int, ...] = (5, 5), **changes: Any) -> Request:
    request = Request(
        ModelSpec(name, rows, 3, "float64"),
        np.array(parts, np.int64),
        np.empty((0, 2), np.int64),
        token=f"token-{next(_tokens)}",
        exist_ok=False,
        publish=True,
    )
    return replace(request, **changes)


class Master:
    """A catalog, what it wrote down, and what those who asked were told."""

    def __init__(self) -> None:
        ids = itertools.count(1)
        self.saved: dict[int, dict[str, Any]] = {}
        self.told: list[dict[str, Any] | GlintError] = []
        self.disk_is_full = False
        self.catalog = Catalog(
            save=self._save,
            drop=self._drop,
            new_model_id=lambda: next(ids),
        )

    def _save(self, model: Model) -> None:
        if self.disk_is_full:
            raise RemoteFailure("can't write: the disk is full")
        self.saved[model.info.model_id] = model.to_content()

    def _drop(self, model_id: int) -> None:
        if self.disk_is_full:
            raise RemoteFailure("can't write: the disk is full")
        self.saved.pop(model_id, None)

    def create(
        self, request: Request, servers: list[tuple[str, str]] | None = None, *, now: float = 0.0
    ) -> None:
        self.catalog.create(request, SERVERS if servers is None else servers, now, self.told.append)

    def orders(self) -> list[Order]:
        taken = list(self.catalog.orders)
        self.catalog.orders.clear()
        return taken

    def answer_all(self) -> list[Order]:
        """Let every server do what it is asked, until nothing is."""
        done: list[Order] = []
        while orders := self.orders():
            for order in orders:
                self.catalog.answered(order, None)
            done += orders
        return done

    def made(self, request: Request | None = None) -> dict[str, Any]:
        self.create(request or a_request())
        self.answer_all()
        content = self.told.pop()
        assert isinstance(content, dict)
        return content

    def error(self) -> GlintError:
        (error,) = self.told
        assert isinstance(error, GlintError)
        return error


@pytest.fixture
def master() -> Master:
    return Master()


def test_all_reserve_before_one_allocates(master: Master) -> None:
    master.create(a_request())
    reserve = master.orders()
    assert reserve == [Order("s1", "reserve", 1), Order("s2", "reserve", 1)]
    master.catalog.answered(reserve[0], None)
    assert master.orders() == []
    master.catalog.answered(reserve[1], None)
    create = master.orders()
    assert create == [Order("s1", "create", 1), Order("s2", "create", 1)]
    master.catalog.answered(create[0], None)
    assert master.told == []
    assert master.saved == {}
    with pytest.raises(ModelNotFound):
        master.catalog.find(name="m")
    master.catalog.answered(create[1], None)
    (content,) = master.told
    assert isinstance(content, dict)
    assert content["owners"] == [0, 1]
    assert content["servers"] == [["s1", "tcp://one:1"], ["s2", "tcp://two:2"]]
    assert list(master.saved) == [1]
    assert master.catalog.find(name="m") is master.catalog.find(model_id=1)


def test_partitions_are_dealt_out_over_the_servers(master: Master) -> None:
    content = master.made(a_request(rows=17, parts=(3, 3, 3, 4, 4)))
    assert content["owners"] == [0, 1, 2, 0, 1]
    model = master.catalog.find(name="m")
    assert [model.rows_on(server) for server in ("s1", "s2", "s3")] == [7, 7, 3]


def test_extents_follow_their_partitions(master: Master) -> None:
    extents = np.array([[0, 1], [3, 1], [6, 1], [9, 2]], np.int64)
    spec = ModelSpec("m", 13, 3, "float64", init=("uniform", 0, 1))
    master.made(a_request(spec=spec, sizes=np.array([3, 3, 3, 4]), extents=extents))
    model = master.catalog.find(name="m")
    assert model.extents_on("s1").tolist() == [[0, 3, 0, 1], [3, 4, 9, 2]]
    assert model.extents_on("s2").tolist() == [[0, 3, 3, 1]]


def test_a_refusal_undoes_everything_at_once(master: Master) -> None:
    for stage in ("reserve", "create"):
        master.create(a_request())
        orders = master.orders()
        if stage == "create":
            for order in orders:
                master.catalog.answered(order, None)
            orders = master.orders()
        master.catalog.answered(orders[0], None)
        master.catalog.answered(orders[1], NotEnoughMemory("5 bytes are free"))
        assert [order.kind for order in master.orders()] == ["destroy", "destroy"]
        assert isinstance(master.error(), NotEnoughMemory)
        master.told.clear()
        # A late answer changes nothing, and the name is free.
        master.catalog.answered(orders[0], None)
        assert master.catalog.models() == []
        assert master.catalog.ids_on("s1") == []
    assert master.made()["model_id"] == 3
    assert list(master.saved) == [3]


def test_a_server_that_is_lost_in_the_middle_and_stays_away_undoes_it(master: Master) -> None:
    for lost, has_answered in (("s2", False), ("s1", True)):
        master.create(a_request())
        orders = master.orders()
        master.catalog.answered(orders[0], None)
        if has_answered:
            master.catalog.answered(orders[1], None)
            orders = master.orders()
            master.catalog.answered(orders[0], None)  # what it has done went with it
        master.catalog.server_lost("s3", 0.0)  # holds no part
        for second in (10.0, 10.25, 12.0):  # said as long as it is away
            master.catalog.server_lost(lost, second)
        master.catalog.tick(10.0 + RETURN_S - 0.1)
        assert master.told == []
        master.catalog.tick(10.0 + RETURN_S)
        error = master.error()
        assert isinstance(error, ServerLost)
        assert "'m'" in str(error)
        assert [(order.server_id, order.kind) for order in master.orders()] == [
            ("s1", "destroy"),
            ("s2", "destroy"),
        ]
        assert master.saved == {}
        master.told.clear()


@pytest.mark.parametrize("stage", ["reserve", "create"])
@pytest.mark.parametrize("is_noticed", [True, False])
@pytest.mark.parametrize("has_answered", [True, False])
def test_a_server_that_comes_back_in_the_middle_is_told_again(
    master: Master, stage: str, is_noticed: bool, has_answered: bool
) -> None:
    master.create(a_request())
    orders = master.orders()
    if stage == "create":
        for order in orders:
            master.catalog.answered(order, None)
        orders = master.orders()
    if has_answered:
        master.catalog.answered(orders[1], None)
    if is_noticed:
        master.catalog.server_lost("s2", 1.0)
    master.catalog.answered(orders[0], None)
    if not (has_answered and not is_noticed):
        assert master.orders() == []  # it waits for the other
        master.catalog.server_joined("s2")
        again = master.orders()
        assert again == [Order("s2", stage, 1)]  # type: ignore[arg-type]
        master.catalog.answered(again[0], None)
        if stage == "reserve":
            master.answer_all()
    else:
        master.answer_all()
    master.catalog.tick(1.0 + RETURN_S)
    (content,) = master.told
    assert isinstance(content, dict)
    assert list(master.saved) == [1]


def test_what_ends_on_a_server_that_joins_again_is_ended(master: Master) -> None:
    master.made()
    master.catalog.destroy(1, ALIVE, 0.0, master.told.append)
    orders = master.orders()
    master.catalog.answered(orders[0], None)
    assert master.told == []
    master.catalog.server_joined("s2")  # its answer doesn't list the model
    assert master.told == [{}]
    assert master.orders() == []


def test_what_can_not_be_written_down_has_not_happened(master: Master) -> None:
    master.disk_is_full = True
    master.create(a_request())
    for _ in range(2):
        for order in master.orders():
            master.catalog.answered(order, None)
    assert isinstance(master.error(), RemoteFailure)
    assert [order.kind for order in master.orders()] == ["destroy", "destroy"]
    assert master.catalog.ids_on("s1") == []
    master.disk_is_full = False
    master.told.clear()
    hidden = master.made(a_request("hidden", publish=False))["model_id"]
    kept = master.made(a_request("kept"))["model_id"]
    master.disk_is_full = True
    with pytest.raises(RemoteFailure):
        master.catalog.publish(hidden)
    with pytest.raises(RemoteFailure):
        master.catalog.destroy(kept, ALIVE, 0.0, master.told.append)
    assert [model.info.model_id for model in master.catalog.models()] == [kept]
    assert master.orders() == []
    master.disk_is_full = False
    assert master.catalog.publish(hidden).is_published
    assert master.saved[hidden]["is_published"]


def test_a_server_that_takes_too_long_undoes_it(master: Master) -> None:
    master.create(a_request(), now=5.0)
    master.catalog.tick(5.0 + CREATION_S - 0.1)
    assert master.told == []
    master.catalog.tick(5.0 + CREATION_S)
    assert isinstance(master.error(), ServerLost)
    assert [order.kind for order in master.orders()] == ["reserve", "reserve", "destroy", "destroy"]


def test_a_ready_model_is_never_too_late(master: Master) -> None:
    master.made()
    master.catalog.tick(1e9)
    master.catalog.server_lost("s1", 1e9)
    master.catalog.tick(2e9)
    assert len(master.catalog.models()) == 1


def test_a_name_is_taken_from_the_first_wish_on(master: Master) -> None:
    master.create(a_request())
    with pytest.raises(ModelExists, match="'m'"):
        master.create(a_request())
    master.answer_all()
    with pytest.raises(ModelExists, match="'m'"):
        master.create(a_request())
    assert len(master.told) == 1


def test_exist_ok_gives_all_who_wish_the_same(master: Master) -> None:
    for _ in range(3):
        master.create(a_request(exist_ok=True))
    assert len(master.orders()) == 2
    for order in (Order("s1", "reserve", 1), Order("s2", "reserve", 1)):
        master.catalog.answered(order, None)
    master.answer_all()
    master.create(a_request(exist_ok=True))  # when it is ready, at once
    assert len(master.told) == 4
    assert all(content == master.told[0] for content in master.told)
    assert len(master.saved) == 1


def test_all_who_wait_hear_of_a_failure(master: Master) -> None:
    for _ in range(3):
        master.create(a_request(exist_ok=True))
    master.catalog.server_lost("s1", 0.0)
    master.catalog.tick(RETURN_S)
    assert len(master.told) == 3
    assert all(isinstance(error, ServerLost) for error in master.told)


@pytest.mark.parametrize(
    ("spec", "difference"),
    [
        (ModelSpec("m", 10, 4, "float64"), "num_cols 4 != 3"),
        (ModelSpec("m", 10, 3, "float32"), "dtype"),
        (ModelSpec("m", 10, 3, "float64", partitioner="cyclic"), "partitioner"),
        (ModelSpec("m", 10, 3, "float64", init=1), "init 1 != 0"),
        (ModelSpec("m", 10, 3, "float64", finite=True), "finite"),
        (ModelSpec("m", 10, None, "float64"), "num_cols None != 3"),
    ],
)
def test_exist_ok_names_what_differs(master: Master, spec: ModelSpec, difference: str) -> None:
    master.made()
    with pytest.raises(ModelExists, match=difference):
        master.create(a_request(spec=spec, exist_ok=True))


def test_a_repeated_wish_finds_what_the_first_one_made(master: Master) -> None:
    request = a_request()
    master.create(request)
    master.create(request)
    master.answer_all()
    master.create(request)
    assert len(master.told) == 3
    assert len(master.saved) == 1
    assert {str(content) for content in master.told} == {str(master.told[0])}


def test_an_unpublished_model_has_no_name_until_it_is_published(master: Master) -> None:
    content = master.made(a_request(publish=False))
    assert master.catalog.models() == []
    with pytest.raises(ModelNotFound, match="'m'"):
        master.catalog.find(name="m")
    assert master.catalog.find(model_id=content["model_id"]).info.spec.name == "m"
    master.catalog.publish(content["model_id"])
    master.catalog.publish(content["model_id"])  # said again
    assert master.catalog.find(name="m").is_published
    assert master.saved[content["model_id"]]["is_published"]


def test_a_name_that_was_taken_meanwhile_is_not_taken_again(master: Master) -> None:
    waiting = master.made(a_request(publish=False))
    first = master.made(a_request())
    with pytest.raises(ModelExists, match="meanwhile"):
        master.catalog.publish(waiting["model_id"])
    assert master.catalog.find(name="m").info.model_id == first["model_id"]


def test_a_destroyed_model_is_gone_at_once_and_ended_everywhere(master: Master) -> None:
    master.made()
    master.catalog.destroy(1, ALIVE, 0.0, master.told.append)
    assert master.saved == {}
    with pytest.raises(ModelNotFound):
        master.catalog.find(name="m")
    with pytest.raises(ModelNotFound):
        master.catalog.find(model_id=1)
    assert master.catalog.ids_on("s1") == []
    assert master.told == []
    assert master.answer_all() == [Order("s1", "destroy", 1), Order("s2", "destroy", 1)]
    assert master.told == [{}]
    assert master.made()["model_id"] == 2  # the name is free


def test_a_name_is_free_while_its_last_model_still_ends(master: Master) -> None:
    master.made()
    master.catalog.destroy(1, ALIVE, 0.0, master.told.append)
    master.create(a_request())
    master.answer_all()
    assert len(master.told) == 2
    assert master.catalog.find(name="m").info.model_id == 2


def test_destroying_does_not_wait_for_the_lost(master: Master) -> None:
    master.made()
    master.catalog.destroy(1, {"s2"}, 0.0, master.told.append)
    assert master.orders() == [Order("s2", "destroy", 1)]
    assert master.told == []
    master.catalog.server_lost("s2", 0.0)
    assert master.told == [{}]
    master.made()
    master.catalog.destroy(2, set(), 0.0, master.told.append)
    assert master.told == [{}, {}]
    master.made()
    master.catalog.destroy(3, ALIVE, 0.0, master.told.append)
    master.catalog.tick(CREATION_S)  # nor for ever for the silent
    assert master.told == [{}, {}, {}]


def test_what_was_never_made_cannot_be_ended(master: Master) -> None:
    with pytest.raises(ModelNotFound, match="9"):
        master.catalog.destroy(9, ALIVE, 0.0, master.told.append)
    master.create(a_request())
    with pytest.raises(ModelNotFound):  # in the making
        master.catalog.destroy(1, ALIVE, 0.0, master.told.append)


def test_without_servers_nothing_is_begun(master: Master) -> None:
    with pytest.raises(NotEnoughServers, match="glintpy server"):
        master.create(a_request(), [])
    assert master.orders() == []
    assert master.made()["model_id"] == 1


def test_sizes_that_are_not_the_models_are_refused(master: Master) -> None:
    for parts in ((5, 4), (11, -1), (2**62, 2**62, 2**62, 2**62, 10)):
        with pytest.raises(ShapeError, match="10 rows"):
            master.create(a_request(parts=parts))
    assert master.orders() == []


def test_a_model_comes_back_from_what_was_written_down(master: Master) -> None:
    master.made(a_request(rows=17, parts=(3, 3, 3, 4, 4)))
    later = Master()
    for content in master.saved.values():
        later.catalog.restore(Model.from_content(content))
    before, after = master.catalog.find(name="m"), later.catalog.find(name="m")
    assert after.info == before.info
    assert after.rows_on("s2") == before.rows_on("s2")
    assert later.catalog.ids_on("s3") == [1]
