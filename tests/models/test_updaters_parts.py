"""A push that travels in several parts is one step of each of its rows, as a small one is."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glintpy import Client, LocalCluster, PushBuffer, config
from glintpy.errors import ShapeError
from glintpy.testing.reference import partitioner_of
from glintpy.testing.updated import Updated
from glintpy.updaters import SGD, Adam, Updater, schedules
from tests.models.test_updaters import check_equal, eighths

NUM_ROWS, NUM_COLS = 23, 6
DTYPE = "float32"

COUNTING: dict[str, Updater] = {
    "adam": Adam(learning_rate=0.1),
    "sgd by a schedule": SGD(learning_rate=schedules.InverseTime(0.5, 0.5)),
}


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with LocalCluster(2, scheme="local") as cluster, cluster.client() as client:
        yield client


@pytest.fixture(autouse=True)
def small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A part has room for 8 single cells, or for one whole row."""
    monkeypatch.setattr(config, "PART_BYTES", 100)


@pytest.mark.parametrize("partitioner", ["range", "cyclic", "custom"])
@pytest.mark.parametrize("name", COUNTING)
def test_cells_are_one_step_of_their_row_wherever_they_stand(
    client: Client, name: str, partitioner: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    rule = COUNTING[name]
    placed = partitioner_of(partitioner, NUM_ROWS)
    with client.matrix(NUM_ROWS, NUM_COLS, dtype=DTYPE, partitioner=placed, updater=rule) as m:
        reference = Updated(np.zeros(m.shape, DTYPE), rule)
        for num_cells in (3, 40, 70, 300):
            cells = random.integers(0, NUM_ROWS * NUM_COLS, num_cells)
            for chosen in (cells, np.unique(cells), random.permutation(np.unique(cells))):
                rows, cols = np.divmod(chosen, NUM_COLS)
                deltas = eighths(random, len(chosen), DTYPE)
                reference.push(rows, deltas, cols)
                found = m.push_pull(rows, deltas, cols=cols).result()
                np.testing.assert_array_equal(found, reference.values[rows, cols])
        check_equal(m, reference)


def test_cells_that_a_buffer_gathered_are_one_step(client: Client, seed: int) -> None:
    random = np.random.default_rng(seed)
    with client.matrix(NUM_ROWS, NUM_COLS, dtype=DTYPE, updater="adam") as m:
        with PushBuffer(m) as buffer:
            for cell in random.permutation(NUM_ROWS * NUM_COLS):
                buffer.push([cell // NUM_COLS], 1.0, cols=[cell % NUM_COLS])
        assert m.pull_slot("steps").result().tolist() == [1] * NUM_ROWS
        assert len(np.unique(m.pull().result())) == 1


def test_a_row_that_no_message_holds_is_refused_where_steps_are_counted(
    client: Client, tmp_path: Path
) -> None:
    cols = config.PART_BYTES // 4 + 1
    for updater in COUNTING.values():
        with pytest.raises(ShapeError, match=r"'wide' has 104 bytes, and may have 100"):
            client.matrix(3, cols, dtype=DTYPE, updater=updater, name="wide")
        client.matrix(3, cols - 1, dtype=DTYPE, updater=updater).destroy()
        client.vector(cols, dtype=DTYPE, updater=updater).destroy()
    with client.matrix(3, cols, dtype=DTYPE, updater=SGD(0.5), name="wide") as m:
        m.push(1, 1.0).result()
        assert (m.pull(1).result() == -0.5).all()
        m.save(str(tmp_path))
    with pytest.raises(ShapeError, match="104 bytes"):
        client.load(str(tmp_path), updater="adam")
    assert client.models() == []


def test_longer_rows_are_one_step_where_servers_gather_pushes(client: Client) -> None:
    group = client.join("job", 1)
    more: dict[str, Any] = {"consistency": "bsp", "group": group}
    with client.matrix(3, 60, dtype=DTYPE, updater=COUNTING["adam"], **more) as m:
        m.push([0, 2], 1.0)
        rows, cols = np.divmod(np.random.default_rng(1).permutation(180), 60)
        m.push(rows, 1.0, cols=cols)
        group.tick()
        assert m.pull_slot("steps").result().tolist() == [1, 1, 1]
        np.testing.assert_allclose(m.pull().result(), -0.1, rtol=1e-6)
    group.leave()
