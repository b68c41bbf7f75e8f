"""Pulls under ``ssp(k)``: no worker reads further ahead of the slowest than that, and none waits for more."""

from __future__ import annotations

import pickle
from collections.abc import Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.errors import ConfigError, WorkersMissing
from tests.cluster.helpers import PATIENCE_S, until
from tests.cluster.working import Waiting, until_waiting
from tests.models.raw_peer import Served, a_cluster


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Only one scheme: nothing here depends on it."""
    with a_cluster("tcp") as cluster:
        yield cluster


@pytest.fixture
def clients(served: Served) -> Iterator[list[glintpy.Client]]:
    """Four clients, and no group left of the test before."""
    made = [
        glintpy.Client(served.master.address, timeout_s=PATIENCE_S, name=f"w{index}") for index in range(4)
    ]
    yield made
    for client in made:
        client.close()
    until(lambda: not served.client.status()["groups"], "the groups are gone with their clients")


def test_four_workers_of_which_one_is_slow(served: Served, clients: list[glintpy.Client]) -> None:
    groups = [client.join("job", num_workers=4) for client in clients]
    with served.client.matrix(4, 3, name="shared", dtype="int64"):
        models = [
            client.matrix(
                4, 3, name="shared", dtype="int64", exist_ok=True, consistency="ssp(2)", group=group
            )
            for client, group in zip(clients, groups, strict=True)
        ]
        slow, fast = 3, range(3)
        for rank in fast:
            for _ in range(2):
                models[rank].pull()  # not held at zero
                models[rank].push([rank], 1)
                groups[rank].tick()
            models[rank].pull().result()
            groups[rank].tick()
        for step in range(1, 5):
            # Three ticks ahead of the slow one: they wait, each in its pull.
            waiting = [Waiting(partial(np.asarray, models[rank])) for rank in fast]
            until_waiting(clients[slow], dict.fromkeys(fast, f"clock {step}"))
            models[slow].push([slow], 1)
            groups[slow].tick()
            assert [one.end() for one in waiting] == [None] * 3
            for rank in fast:
                # What the slow one pushed in that step is there, and no more is asked until the next tick.
                assert models[rank][slow].tolist() == [step] * 3
                groups[rank].tick()


def test_a_worker_that_is_gone_holds_nobody_up(served: Served, clients: list[glintpy.Client]) -> None:
    one, two = (client.join("job", num_workers=2) for client in clients[:2])
    with served.client.vector(5) as made:
        view = clients[0].open(made.name).with_options(consistency="ssp(0)", group=one)
        one.tick()
        waiting = Waiting(lambda: np.asarray(view))
        until_waiting(clients[2], {one.rank: "clock 1"})
        two._leave(is_orderly=False, timeout_s=PATIENCE_S)
        assert waiting.end() is None


def test_who_waits_too_long_is_told_for_whom(served: Served, clients: list[glintpy.Client]) -> None:
    one, two = (client.join("job", num_workers=2) for client in clients[:2])
    with served.client.vector(5) as made:
        view = clients[0].open(made.name).with_options(timeout_s=0.2, consistency="ssp(1)", group=one)
        assert isinstance(view, glintpy.BigVector)
        one.tick()
        view.pull()
        one.tick()
        with pytest.raises(WorkersMissing, match=f"rank {two.rank}"):
            view.pull()
        with pytest.raises(WorkersMissing, match=f"rank {two.rank}"):
            view.push_pull([1], 1)
        assert not np.asarray(made).any(), "a push that has to wait changes nothing"
        view.push([1], 1).result()  # pushes don't wait
        view.with_options(consistency="async").pull().result()


def test_all_that_reads_waits_and_nothing_else(served: Served, clients: list[glintpy.Client]) -> None:
    one, _ = (client.join("job", num_workers=2) for client in clients[:2])
    options: dict[str, Any] = {"timeout_s": 0.2, "consistency": "ssp(0)", "group": one}
    with (
        served.client.matrix(5, 2, updater="adagrad") as made,
        served.client.table(2, updater="adagrad") as table,
    ):
        view = clients[0].open(made.name, kind=glintpy.BigMatrix).with_options(**options)
        rows = clients[0].open(table.name, kind=glintpy.BigTable).with_options(**options)
        one.tick()
        for read in (
            view.pull,
            view.sum,
            view.norms,
            lambda: view.pull_slot("sum_of_squares"),
            lambda: view.dot([0], [1]),
            lambda: rows.pull([1]),
            lambda: rows.pull_slot("sum_of_squares", [1]),
            rows.sum,
        ):
            with pytest.raises(WorkersMissing):
                read()
        view.scale(2.0).result()
        view.put(1.0).result()
        rows.push([1], 1.0).result()
        rows.fill(3.0).result()


def test_mistakes_are_told_before_anything_is_made(served: Served, clients: list[glintpy.Client]) -> None:
    group = clients[0].join("job")
    for consistency in ("ssp", "ssp(-1)", "ssp(1.5)", "sync", None, 2):
        with pytest.raises(ConfigError, match=r'"async", "bsp", or "ssp\(k\)"'):
            clients[0].vector(5, name="never", consistency=consistency, group=group)  # type: ignore[arg-type]  # wrong on purpose
    with pytest.raises(ConfigError, match=r"group=client.join"):
        clients[0].vector(5, name="never", consistency="ssp(1)")
    assert "never" not in served.client.models()


@pytest.mark.pickles
def test_a_handle_that_counts_clocks_stays_with_its_worker(
    served: Served, clients: list[glintpy.Client]
) -> None:
    group = clients[0].join("job")
    with served.client.vector(5) as made:
        view = made.with_options(consistency="ssp(1)", group=group)
        with pytest.raises(TypeError, match="let each process join by itself"):
            pickle.dumps(view)
        assert pickle.loads(pickle.dumps(view.with_options(consistency="async"))) == made  # noqa: S301 - our own
