"""Saving from and loading into real servers: any number of them, either partitioner, under traffic."""

from __future__ import annotations

import itertools
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

import glintpy
from glintpy.storage.checkpoint_reader import CheckpointReader
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


# --- what each file holds is a prefix of the history ------------------------------------------------------------


@pytest.mark.parametrize("num_saves", [2, pytest.param(30, marks=pytest.mark.soak)])
def test_each_column_of_each_servers_part_is_a_prefix_of_its_programs_pushes(
    client: glintpy.Client, cluster: glintpy.LocalCluster, tmp_path: Path, seed: int, num_saves: int
) -> None:
    # Each program has a column and pushes to random rows of it, in order; all know what the others will push.
    shape = (60_000, 3)
    stop = threading.Event()

    def rows_of(column: int) -> Iterator[NDArray[np.int64]]:
        generator = np.random.default_rng([seed, column])
        while True:
            yield generator.integers(0, shape[0], 40)

    def push(column: int) -> int:
        with cluster.client() as other:
            matrix = other.open("history")
            assert isinstance(matrix, glintpy.BigMatrix)
            for number, rows in enumerate(rows_of(column)):
                last = matrix.push(rows, 1, cols=np.full(40, column))
                if number % 50 == 0:
                    last.exception()
                if stop.is_set():
                    last.exception()
                    return number + 1
        raise AssertionError

    with (
        client.matrix(*shape, dtype="int64", partitions_per_server=2, name="history") as matrix,
        ThreadPoolExecutor(3) as pool,
    ):
        pushers = [pool.submit(push, column) for column in range(3)]
        try:
            for number in range(num_saves):
                until(partial(has_grown, matrix, int(matrix[:].sum()) + 2000), "pushes go on")
                matrix.save(str(tmp_path / str(number)))
        finally:
            stop.set()
        num_pushes = [pusher.result() for pusher in pushers]
        servers = matrix._layout.partitions_of
        parts = [[int(part) for part in servers(server)] for server in range(2)]
    for number in range(num_saves):
        check_prefixes(tmp_path / str(number), parts, [rows_of(column) for column in range(3)], num_pushes)


def has_grown(matrix: glintpy.BigMatrix, size: int) -> bool:
    return bool(matrix[:].sum() > size)


def check_prefixes(
    url: Path, parts: list[list[int]], histories: list[Iterator[NDArray[np.int64]]], num_pushes: list[int]
) -> None:
    """See that each server's rows of each column are what some number of that column's pushes make of them."""
    reader = CheckpointReader(str(url))
    files = {entry.partition: entry for entry in reader._manifest.files}
    values = np.zeros((reader.spec.num_rows, 3), np.int64)
    for rows, block in reader.blocks(1 << 20):
        values[np.asarray(rows)] = block
    for column, history in enumerate(histories):
        pushes = list(itertools.islice(history, num_pushes[column]))
        for partitions in parts:
            mine = np.zeros(len(values), bool)
            for entry in map(files.__getitem__, partitions):
                assert entry.first is not None
                mine[entry.first :: entry.step][: entry.num_rows] = True
            found = np.where(mine, values[:, column], 0)
            held = np.cumsum([mine[rows].sum() for rows in pushes])
            known = pushes[: int(np.searchsorted(held, found.sum(), "right"))]
            made = np.bincount(np.concatenate([np.zeros(0, np.int64), *known]), minlength=len(values))
            assert np.array_equal(found, np.where(mine, made, 0)), (column, partitions)
