"""Under ``bsp`` a step of all workers is one push to each row, and nobody reads a step that isn't finished."""

from __future__ import annotations

import pickle
import re
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.errors import ConfigError, Expelled, GlintError, ModelExists, WorkerLost, WorkersMissing
from glintpy.models.buffered import PushBuffer
from glintpy.protocol.messages_master import LeaveGroup
from glintpy.testing.updated import Updated
from glintpy.updaters import SGD, Adam
from tests.cluster.helpers import PATIENCE_S, until
from tests.cluster.working import Waiting, until_waiting
from tests.models.raw_peer import Served, a_cluster

BSP: dict[str, Any] = {"name": "shared", "exist_ok": True, "consistency": "bsp"}


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Only one scheme: nothing here depends on it."""
    with a_cluster("tcp") as cluster:
        yield cluster


@pytest.fixture
def clients(served: Served) -> Iterator[list[glintpy.Client]]:
    """Three clients, and no group and model left of the test before."""
    made = [
        glintpy.Client(served.master.address, timeout_s=PATIENCE_S, name=f"w{index}") for index in range(3)
    ]
    yield made
    for client in made:
        client.close()
    until(lambda: not served.client.status()["groups"], "the groups are gone with their clients")
    for name in served.client.models():
        served.client.destroy(name)


def all_tick(groups: list[glintpy.Group]) -> None:
    """Finish a step with all workers, each of which waits for the others."""
    with ThreadPoolExecutor(len(groups)) as pool:
        list(pool.map(lambda group: group.tick(), groups))


def test_who_is_no_worker_any_more_pushes_no_more(clients: list[glintpy.Client]) -> None:
    one, two = (client.join("job", 2) for client in clients[:2])
    first = clients[0].matrix(4, 1, group=one, **BSP)
    second = clients[1].matrix(4, 1, group=two, **BSP)
    two.leave()
    heir = clients[2].join("job", 2)
    for change in (second.push, second.push_pull, partial(second.push, round=1)):
        with pytest.raises(GlintError, match="was left; join again"):
            change([0], 100.0)
    third = clients[2].matrix(4, 1, group=heir, **BSP)
    first.push([0], 1.0, round=1)
    assert third.push_pull([0], 2.0, round=1).result().tolist() == [[3]]
    # One that was expelled knows as soon as it has asked.
    clients[1]._tie.runtime().ask_master(
        lambda request_id: LeaveGroup(request_id, one._token, is_orderly=False), timeout_s=PATIENCE_S
    )
    with pytest.raises(Expelled):
        one.tick()
    with pytest.raises(Expelled):
        first.push([0], 1.0)


def test_a_step_has_what_all_handles_of_a_worker_pushed(clients: list[glintpy.Client]) -> None:
    one, two = (client.join("job", 2) for client in clients[:2])
    first = clients[0].vector(4, group=one, **BSP)
    # As one that came from another process: its client is not the group's.
    other = clients[2].open("shared", kind=glintpy.BigVector).with_options(consistency="bsp", group=one)
    clients[1].open("shared").with_options(consistency="bsp", group=two)
    for number in range(50):
        other.push([number % 4], 1.0)
    all_tick([one, two])
    assert first.pull().result().sum() == 50
    with a_cluster("local") as elsewhere:
        stranger = elsewhere.client.vector(4)
        with pytest.raises(ConfigError, match="is of the cluster at"):
            stranger.with_options(consistency="ssp(1)", group=one)


def test_all_that_workers_push_in_a_step_is_one_push_of_the_sum(clients: list[glintpy.Client]) -> None:
    rule = Adam(learning_rate=0.1)
    groups = [client.join("job", 3) for client in clients]
    models = [
        client.matrix(20, 4, updater=rule, group=group, **BSP)
        for client, group in zip(clients, groups, strict=True)
    ]
    expected = Updated(np.zeros((20, 4)), rule)
    for step in range(4):
        before = np.asarray(models[0])
        for rank, model in enumerate(models):
            model.push([rank, 7, 19], 0.5 + step)
            model.push([7], 1.0)
            np.testing.assert_array_equal(np.asarray(model), before)
        all_tick(groups)
        expected.push([0, 1, 2, 7, 19], np.array([[0.5 + step]] * 3 + [[4.5 + 3 * step], [1.5 + 3 * step]]))
        for model in models:
            np.testing.assert_array_equal(np.asarray(model), expected.values)
    assert models[0].slots == rule.slot_names
    assert models[0].pull_slot("steps").result()[:4].tolist() == [4, 4, 4, 0]


def test_a_worker_that_pushes_twice_is_still_one(clients: list[glintpy.Client]) -> None:
    groups = [client.join("job", 2) for client in clients[:2]]
    one, two = (client.vector(5, group=group, **BSP) for client, group in zip(clients, groups, strict=False))
    for _ in range(4):
        one.push([1], 1.0)
    one.flush()
    waiting = Waiting(groups[0].tick)
    until_waiting(clients[2], {groups[0].rank: "round 1"})
    assert np.asarray(two).tolist() == [0] * 5  # it ticked, and waits for the other
    two.push([1], 10.0)
    groups[1].tick()
    assert waiting.end() is None
    assert np.asarray(two).tolist() == [0, 14, 0, 0, 0]


def test_a_worker_that_is_lost_shrinks_the_round(clients: list[glintpy.Client]) -> None:
    groups = [client.join("job", 2) for client in clients[:2]]
    one, two = (client.vector(3, group=group, **BSP) for client, group in zip(clients, groups, strict=False))
    one.push([0], 1.0)
    two.push([0], 2.0).result()
    waiting = Waiting(groups[0].tick)
    until_waiting(clients[2], {groups[0].rank: "round 1"})
    groups[1]._leave(is_orderly=False, timeout_s=PATIENCE_S)
    assert waiting.end() is None
    # What it had pushed was acknowledged, and counts.
    assert np.asarray(one).tolist() == [3, 0, 0]


def test_a_worker_that_is_lost_is_told_where_the_group_says_so(clients: list[glintpy.Client]) -> None:
    groups = [client.join("job", 2, on_worker_lost="raise") for client in clients[:2]]
    one = clients[0].vector(3, group=groups[0], **BSP)
    one.push([0], 1.0)
    waiting = Waiting(groups[0].tick)
    until_waiting(clients[2], {groups[0].rank: "round 1"})
    groups[1]._leave(is_orderly=False, timeout_s=PATIENCE_S)
    error = waiting.end()
    assert isinstance(error, WorkerLost)
    assert error.ranks == (1,)
    groups[0].tick()  # goes on with the step that is finished
    assert groups[0].clock == 1
    assert np.asarray(one).tolist() == [1, 0, 0]


def test_who_waits_too_long_is_told_for_whom_and_waits_on(clients: list[glintpy.Client]) -> None:
    groups = [client.join("job", 2) for client in clients[:2]]
    one, two = (client.vector(3, group=group, **BSP) for client, group in zip(clients, groups, strict=False))
    one.push([0], 1.0)
    for _ in range(2):
        with pytest.raises(WorkersMissing, match=r"clock 1 was not reached .* missing rank 1") as raised:
            groups[0].tick(timeout_s=0.1)
        assert raised.value.ranks == (1,)
    assert groups[0].clock == 1
    waiting = Waiting(groups[0].tick)
    two.push([0], 2.0)
    groups[1].tick()
    assert waiting.end() is None
    assert (groups[0].clock, np.asarray(one).tolist()) == (1, [3, 0, 0])


def test_workers_come_and_go_between_steps(clients: list[glintpy.Client]) -> None:
    groups = [client.join("job") for client in clients[:2]]
    models = [
        client.vector(3, dtype="int64", group=group, **BSP)
        for client, group in zip(clients, groups, strict=False)
    ]
    for model in models:
        model.push([0], 1)
    all_tick(groups)
    groups.append(clients[2].join("job"))
    late = clients[2].open("shared").with_options(consistency="bsp", group=groups[2])
    assert isinstance(late, glintpy.BigVector)
    models.append(late)
    for model in models:
        model.push([1], 1)
    all_tick(groups)
    groups.pop(0).leave()
    for model in models[1:]:
        model.push([2], 1)
    all_tick(groups)
    assert np.asarray(models[1]).tolist() == [2, 3, 2]


def test_a_group_that_begins_again_finds_its_models(clients: list[glintpy.Client]) -> None:
    for _ in range(3):
        groups = [client.join("job", 2) for client in clients[:2]]
        models = [
            client.vector(3, dtype="int64", group=group, **BSP)
            for client, group in zip(clients, groups, strict=False)
        ]
        for _ in range(2):
            for model in models:
                model.push([0], 1)
            all_tick(groups)
        for group in groups:
            group.leave()
    assert np.asarray(models[0]).tolist() == [12, 0, 0]


def test_a_model_made_in_the_middle_begins_with_the_next_step(clients: list[glintpy.Client]) -> None:
    groups = [client.join("job", 2) for client in clients[:2]]
    groups[0].tick()  # nothing follows yet, so it waits for nobody
    one = clients[0].vector(3, group=groups[0], **BSP)
    one.push([0], 1.0).result()
    groups[1].tick()
    assert np.asarray(one).tolist() == [0, 0, 0]
    two = clients[1].vector(3, group=groups[1], **BSP)
    two.push([0], 2.0)
    all_tick(groups)
    assert np.asarray(one).tolist() == [3, 0, 0]


def test_models_with_and_without_rounds_side_by_side(clients: list[glintpy.Client]) -> None:
    group = clients[0].join("job", 1)
    follows = clients[0].vector(3, group=group, **BSP)
    plain = clients[0].vector(3)
    follows.push([0], 1.0)
    plain.push([0], 1.0)
    assert (follows[0], plain[0]) == (0, 1)
    assert follows.push_pull([1], 5.0).result().tolist() == [0]
    group.tick()
    assert follows[...].tolist() == [1, 5, 0]
    with PushBuffer(follows) as buffer:
        for _ in range(10):
            buffer.push([2], 1.0)
    group.tick()
    assert follows[...].tolist() == [1, 5, 10]


# --- who may, and who may not -------------------------------------------------------------------------------


def test_only_workers_of_its_group_push_to_it(clients: list[glintpy.Client]) -> None:
    group, other = clients[0].join("job"), clients[1].join("other")
    follows = clients[0].vector(3, group=group, **BSP)
    opened = clients[1].open("shared")
    assert (follows.group, opened.group) == (group, None)
    assert np.asarray(opened).tolist() == [0, 0, 0]
    for call in (
        lambda: opened.push([0], 1.0),
        lambda: opened.push_pull([0], 1.0),
        lambda: PushBuffer(opened),
    ):
        with pytest.raises(ConfigError, match=r"group 'job', whose workers alone push to it"):
            call()
    with pytest.raises(ConfigError, match="for group 'job', not with consistency='bsp' and group 'other'"):
        opened.with_options(consistency="bsp", group=other)
    for consistency in ("async", "ssp(1)"):
        with pytest.raises(ConfigError, match=f"not with consistency='{re.escape(consistency)}'"):
            follows.with_options(consistency=consistency, group=group)
    with pytest.raises(ModelExists, match="group 'other' != 'job'"):
        clients[1].vector(3, group=other, **BSP)
    plain = clients[0].vector(3)
    with pytest.raises(ConfigError, match="was made without rounds"):
        plain.with_options(consistency="bsp", group=group)
    with pytest.raises(ConfigError, match="counts the clocks of a group"):
        clients[0].vector(3, consistency="bsp")


@pytest.mark.parametrize("updater", ["assign", "max", "min", "mean"])
def test_updaters_that_do_not_take_sums_are_refused(clients: list[glintpy.Client], updater: str) -> None:
    group = clients[0].join("job")
    with pytest.raises(ConfigError, match=f"updater '{updater}' is not one of sums"):
        clients[0].vector(3, updater=updater, group=group, **BSP)
    assert clients[0].models() == []


def test_a_handle_travels_without_its_place(clients: list[glintpy.Client]) -> None:
    group = clients[0].join("job")
    follows = clients[0].vector(3, group=group, **BSP)
    with pytest.raises(TypeError, match="let each process join by itself"):
        pickle.dumps(follows)
    again = pickle.loads(pickle.dumps(clients[0].open("shared")))  # noqa: S301 - our own bytes
    assert again == follows
    group.leave()
    with pytest.raises(GlintError, match="was left"):
        clients[0].open("shared").with_options(consistency="bsp", group=group)


def test_a_save_holds_the_last_step_and_loads_with_or_without_rounds(
    clients: list[glintpy.Client], tmp_path: Path
) -> None:
    group = clients[0].join("job")
    follows = clients[0].matrix(4, 2, updater=SGD(learning_rate=1.0), group=group, **BSP)
    follows.push([1], -1.0)
    group.tick()
    follows.push([2], -1.0)  # of a step that is not finished
    follows.save(str(tmp_path / "saved"))
    plain = clients[1].load(str(tmp_path / "saved"), name="plain")
    assert (plain.spec.group, np.asarray(plain)[:, 0].tolist()) == ("", [0, 1, 0, 0])
    plain.push([3], -1.0)
    again = clients[0].load(str(tmp_path / "saved"), name="again", consistency="bsp", group=group)
    again.push([3], -1.0)
    assert np.asarray(again)[:, 0].tolist() == [0, 1, 0, 0]
    group.tick()
    assert np.asarray(again)[:, 0].tolist() == [0, 1, 0, 1]
    assert np.asarray(follows)[:, 0].tolist() == [0, 1, 1, 0]
    with pytest.raises(ConfigError, match="is not one of sums"):
        clients[0].load(str(tmp_path / "saved"), name="max", updater="max", consistency="bsp", group=group)
