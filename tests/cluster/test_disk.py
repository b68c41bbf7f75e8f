"""Level ``disk`` with real processes: killed at each step of the log and its snapshots, and after power cuts."""

from __future__ import annotations

import errno
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest

import glintpy
from glintpy.cluster import ServerOptions
from glintpy.config import ServerSettings
from glintpy.storage.files import Files
from tests.cluster.helpers import until

PLACES = [
    "log.before_write",
    "log.torn_write",
    "log.before_sync",
    "log.after_sync",
    "snapshot.before_file",
    "snapshot.before_rename",
    "snapshot.after_rename",
]


@contextmanager
def one_server(
    folder: Path, options: ServerOptions | None = None, *, supervise: bool = False
) -> Iterator[glintpy.LocalCluster]:
    with glintpy.LocalCluster(
        1, data_dir=folder, durability="disk", supervise=supervise, server_options=options
    ) as cluster:
        yield cluster


def spoil(folder: Path) -> int:
    """Have a server's mapped files look as after a power cut: of another boot, and nothing in them right."""
    found = 0
    for path in [
        *folder.glob("**/*.segment"),
        *folder.glob("**/server.journal"),
        *folder.glob("**/server.undo"),
    ]:
        with path.open("r+b") as file:
            file.seek(12)
            file.write(struct.pack("<I", 2))
            file.seek(56)
            file.write(struct.pack("<Q", 999))
            if path.suffix == ".segment":
                file.seek(4096)
                file.write(b"\xee" * 64)
                found += 1
    return found


def test_it_survives_a_kill_and_then_a_power_cut(tmp_path: Path) -> None:
    with one_server(tmp_path) as cluster, cluster.client() as client:
        vector = client.vector(1000, dtype="int64")
        matrix = client.matrix(50, 20, dtype="float32", init=("normal", 0, 1), seed=3)
        expected = matrix[:, :]
        vector.push([1, 999, 1], [1, 2, 3]).result()
        cluster.kill_server(0)
        cluster.restart_server(0)
        vector.push([1], 10).result()
        cluster.kill_server(0)
        assert spoil(tmp_path) == 2
        cluster.restart_server(0)
        assert vector.pull([0, 1, 999]).result().tolist() == [0, 14, 2]
        np.testing.assert_array_equal(matrix[:, :], expected)
        vector.push([1], 100).result()
        assert vector.pull([1]).result().tolist() == [114]


def test_a_model_whose_file_has_gone_is_made_anew_from_the_log(tmp_path: Path) -> None:
    with one_server(tmp_path / "kept") as cluster, cluster.client() as client:
        model = client.vector(1000, dtype="int64", name="m")
        for _ in range(20):
            model.push(None, 1).result()
        cluster.kill_server(0)
        [segment] = (tmp_path / "kept").glob("**/*.segment")
        segment.unlink()
        cluster.restart_server(0)
        assert (model.pull().result() == 20).all()
        model.push(None, 1).result()
        model.destroy()
        cluster.kill_server(0)
        cluster.restart_server(0)
        with client.vector(10, name="m") as again:
            assert not again.pull().result().any()


def test_what_is_there_outlives_orderly_stops_and_what_was_destroyed_stays_so(tmp_path: Path) -> None:
    with one_server(tmp_path) as cluster, cluster.client() as client:
        client.vector(1000, dtype="int64", name="gone")
        client.vector(1000, dtype="int64", name="kept").push([1], 1).result()
        client.destroy("gone")
    with one_server(tmp_path) as cluster, cluster.client() as client:
        kept = client.open("kept")
        assert isinstance(kept, glintpy.BigVector)
        assert kept.pull([1]).result().tolist() == [1]
        cluster.kill_server(0)
        spoil(tmp_path)
        cluster.restart_server(0)
        assert kept.pull([1]).result().tolist() == [1]
        assert client.models() == ["kept"]


@pytest.mark.soak
@pytest.mark.parametrize("place", PLACES)
def test_a_server_that_dies_again_and_again_at_one_place_loses_nothing(tmp_path: Path, place: str) -> None:
    chance = 0.03 if place.startswith("log") else 0.3
    options = ServerOptions(
        failpoints=f"{place}=kill:{chance}", settings=ServerSettings(log_bytes_max=64_000)
    )
    with one_server(tmp_path, options, supervise=True) as cluster, cluster.client(timeout_s=60) as client:
        vector = client.vector(2000, dtype="int64")
        pid = cluster.servers[0].pid
        num_pushes = 0

        def push() -> bool:
            nonlocal num_pushes
            for _ in range(20):
                vector.push(np.arange(2000), 1).result()
                num_pushes += 1
            return cluster.servers[0].pid != pid

        until(push, f"a server that dies at {place}")
        assert set(vector.pull(np.arange(2000)).result().tolist()) == {num_pushes}


def test_a_cluster_whose_folder_goes_with_it_takes_no_model_that_should_outlast_it() -> None:
    with glintpy.LocalCluster(1, scheme="local") as cluster, cluster.client() as client:
        with pytest.raises(glintpy.ConfigError, match="start it with --data-dir"):
            client.vector(10, durability="disk")
        client.vector(10, durability="process").push(None, 1).result()


def test_a_server_whose_disk_fails_is_lost_and_not_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(self: Files, descriptor: int) -> None:
        del self, descriptor
        raise OSError(errno.EIO, "as asked")

    with glintpy.LocalCluster(1, data_dir=tmp_path, scheme="local") as cluster, cluster.client() as client:
        vector = client.vector(10, dtype="int64", durability="disk")
        vector.push(None, 1).result()
        with monkeypatch.context() as patch:
            patch.setattr(Files, "sync", fail)
            push = vector.push(None, 1)
            until(lambda: not cluster.servers[0].is_alive, "the server has ended")
        until(lambda: client.servers()[0]["state"] == "lost", "the master has noticed")
        cluster.restart_server(0)
        push.result()  # it was not answered, and went on
        assert set(vector.pull().result().tolist()) == {2}
