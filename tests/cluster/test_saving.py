"""Saving from and loading into real servers: any number of them, either partitioner, under traffic."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np
import pytest

import glintpy
from tests.cluster.helpers import holdings, paused, until


@pytest.fixture(scope="module")
def larger() -> Iterator[glintpy.LocalCluster]:
    """A second cluster, with three servers, that shares nothing with the first but the disk."""
    with glintpy.LocalCluster(3, scheme="ipc") as cluster:
        yield cluster


@pytest.mark.parametrize("saved_as", ["range", "cyclic"])
@pytest.mark.parametrize("loaded_as", ["range", "cyclic"])
@pytest.mark.parametrize("partitions_per_server", [1, 4])
def test_a_model_moves_to_another_number_of_servers(
    client: glintpy.Client,
    larger: glintpy.LocalCluster,
    tmp_path: Path,
    saved_as: str,
    loaded_as: str,
    partitions_per_server: int,
) -> None:
    rng = np.random.default_rng(3)
    values = rng.normal(size=(5000, 30))
    matrix = client.matrix(
        5000, 30, partitioner=saved_as, partitions_per_server=partitions_per_server, name="moved"
    )
    matrix.push(None, values)  # nobody waits: a save holds every push that its client issued before
    matrix.save(str(tmp_path / "moved"))
    with larger.client() as other, other.load(str(tmp_path / "moved"), partitioner=loaded_as) as loaded:
        assert isinstance(loaded, glintpy.BigMatrix)
        assert loaded.name == "moved"
        assert loaded.partitioner.name == loaded_as
        assert "servers=3" in repr(loaded)
        assert np.array_equal(np.asarray(loaded), values)
        loaded.push([4999], 1.0)
        assert np.array_equal(loaded[4999], values[4999] + 1.0)
    again = client.load(str(tmp_path / "moved"), name="back")
    assert again.partitioner.name == saved_as
    assert np.array_equal(np.asarray(again), values)


def test_every_partition_of_a_save_under_traffic_is_a_prefix_of_the_pushes(
    client: glintpy.Client, cluster: glintpy.LocalCluster, tmp_path: Path
) -> None:
    # 100,000 cells a server in one part: each push adds one everywhere, so a server's cells are all equal at
    # every moment between two pushes.
    vector = client.vector(200_000, dtype="int64", name="busy")
    stop = threading.Event()
    issued: list[glintpy.Future[None]] = []

    def push() -> None:
        with cluster.client() as other:
            target = other.open("busy")
            while not stop.is_set():
                issued.append(target.push(None, 1))

    pusher = threading.Thread(target=push)
    pusher.start()
    try:
        for number in range(4):
            until(partial(has_more_than, issued, len(issued)), "pushes go on")
            low = vector.pull([0, 199_999]).result()
            vector.save(str(tmp_path / str(number)))
            high = vector.pull([0, 199_999]).result()
            with client.load(str(tmp_path / str(number)), name="copy") as copy:
                halves = np.asarray(copy).reshape(2, 100_000)
            assert np.array_equal(halves.min(axis=1), halves.max(axis=1))
            assert np.all(low <= halves[:, 0])
            assert np.all(halves[:, 0] <= high)
    finally:
        stop.set()
        pusher.join()
    client.flush()
    assert vector.pull().result().tolist() == [len(issued)] * 200_000
    assert [held["cuts"] for held in holdings(client).values()] == [0, 0]


def has_more_than(futures: list[glintpy.Future[None]], count: int) -> bool:
    return len(futures) > count


def test_a_save_reads_with_numpy_alone_and_is_replaced_only_on_request(
    client: glintpy.Client, tmp_path: Path
) -> None:
    vector = client.vector(1000, dtype="float32", partitioner="range", name="plain")
    vector.push(None, np.arange(1000)).result()
    url = str(tmp_path / "plain")
    vector.save(url)
    arrays = [np.load(path) for path in (tmp_path / "plain").rglob("*.npy")]
    assert sorted(len(array) for array in arrays) == [500, 500]
    assert np.array_equal(np.sort(np.concatenate(arrays)), np.arange(1000, dtype=np.float32))
    with pytest.raises(glintpy.CheckpointError):
        vector.save(url)
    vector.push(None, 1)
    vector.save(url, overwrite=True)
    with client.load(url, name="replaced") as replaced:
        assert replaced[0] == 1.0
    with pytest.raises(glintpy.ModelExists):
        client.load(url)


def test_a_save_that_a_server_does_not_answer_fails_and_leaves_nothing(
    client: glintpy.Client, cluster: glintpy.LocalCluster, tmp_path: Path
) -> None:
    vector = client.vector(1000, dtype="int64", name="unsaved")
    vector.push(None, 1).result()
    with paused(cluster.servers[1].pid), pytest.raises(glintpy.ServerLost, match="did not answer"):
        vector.with_options(timeout_s=0.3).save(str(tmp_path / "unsaved"))
    with pytest.raises(glintpy.CheckpointNotFound):
        client.load(str(tmp_path / "unsaved"), name="nothing")
    vector.save(str(tmp_path / "unsaved"))
    assert client.load(str(tmp_path / "unsaved"), name="something").pull().result().sum() == 1000


def test_random_initial_values_are_the_same_on_any_servers(
    client: glintpy.Client, larger: glintpy.LocalCluster
) -> None:
    here = client.matrix(1000, 5, init=("normal", 0, 1), seed=4)
    with (
        larger.client() as other,
        other.matrix(
            1000, 5, init=("normal", 0, 1), seed=4, partitioner="cyclic", partitions_per_server=3
        ) as there,
    ):
        assert np.array_equal(np.asarray(here), np.asarray(there))
