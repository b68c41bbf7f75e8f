"""What was made to be filled goes with the client that was to fill it, and with nobody else."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from glintpy import Client, LocalCluster, ModelNotFound, NotEnoughMemory
from glintpy.actors import orphans
from glintpy.actors.catalog import Model
from glintpy.actors.orphans import Orphans
from glintpy.protocol import wire
from glintpy.protocol.messages_master import CreateModel
from glintpy.protocol.spec import ModelInfo, ModelSpec
from tests.cluster.helpers import holdings, until

NUM_ROWS = 100_000


@pytest.fixture
def cluster(tmp_path: Path) -> Iterator[LocalCluster]:
    with LocalCluster(1, scheme="local", data_dir=tmp_path, memory_limit=12 * NUM_ROWS) as cluster:
        yield cluster


def begin_to_load(client: Client) -> None:
    """Make what ``load`` makes first, and go no further."""
    runtime = client._tie.runtime()
    runtime.ask_master(
        lambda request_id: CreateModel(
            request_id,
            os.urandom(16),
            exist_ok=False,
            publish=False,
            owner=runtime.member_id,
            spec=wire.document(ModelSpec("copy", NUM_ROWS, None, "float64").to_content()),
            sizes=np.array([NUM_ROWS]),
            extents=np.empty((0, 2), np.int64),
        ),
        timeout_s=30,
        doing="making a model",
    )


def model_of(owner: str, model_id: int) -> Model:
    info = ModelInfo(model_id, ModelSpec("m", 1, None, "float32"), 1, (("s", "local://s"),), (0,))
    return Model(info, np.array([1]), np.empty((0, 2), np.int64), "", is_published=False, owner=owner)


def test_a_client_that_is_back_in_time_keeps_its_model() -> None:
    models = [model_of("here", 1), model_of("away", 2), model_of("", 3)]
    here = {"here"}
    found = Orphans()
    assert found.due(models, here.__contains__, 100.0) == []
    assert found.due(models, here.__contains__, 100.0 + orphans.GRACE_S) == []
    here.add("away")
    assert found.due(models, here.__contains__, 101.0 + orphans.GRACE_S) == []
    here.discard("away")
    assert found.due(models, here.__contains__, 200.0) == []
    assert found.due(models, here.__contains__, 200.5 + orphans.GRACE_S) == [2]
    assert found.due(models[:1], here.__contains__, 300.0) == []


@pytest.mark.parametrize("is_restarted", [False, True])
def test_a_load_whose_client_ends_in_its_middle_leaves_room_for_the_next(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch, is_restarted: bool
) -> None:
    monkeypatch.setattr(orphans, "GRACE_S", 0.0)
    with cluster.client() as client:
        with cluster.client() as loader:
            begin_to_load(loader)
            with pytest.raises(ModelNotFound):
                client.open("copy")
            with pytest.raises(NotEnoughMemory):
                client.vector(NUM_ROWS, dtype="float64")
            if is_restarted:
                cluster.kill_master()
        if is_restarted:
            cluster.restart_master()
        until(lambda: not any(held["models"] for held in holdings(client).values()), "it has gone")
        client.vector(NUM_ROWS, dtype="float64").push([0], 1).result()
