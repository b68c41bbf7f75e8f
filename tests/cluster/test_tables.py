"""Tables on real servers that are killed and stopped: every push is in once, and so is every key."""

from __future__ import annotations

import struct
import threading
from pathlib import Path
from typing import Self

import numpy as np
import pytest

import glintpy
from glintpy.config import ServerSettings
from glintpy.process.orders import ServerOptions
from tests.cluster.helpers import PATIENCE_S, until

KEYS = 3000


class Traffic:
    """Threads that push ones to random keys, most of them new, and remove some; what they did is counted."""

    def __init__(self, table: glintpy.BigTable, seed: int) -> None:
        self.counts = np.zeros(KEYS, np.int64)
        self.errors: list[BaseException] = []
        self.num_pushes = 0
        self._table = table
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._threads = [
            threading.Thread(target=self._run, args=(seed + number, number)) for number in range(2)
        ]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def _run(self, seed: int, number: int) -> None:
        source = np.random.default_rng(seed)
        try:
            while not self._stop.is_set():
                # Each thread has keys of its own, so that what is removed can be told from what is not.
                keys = 2 * source.integers(0, KEYS // 2, 50) + number
                if source.random() < 0.1:
                    self._table.remove(keys).result()
                    self.counts[keys] = 0
                else:
                    self._table.push(keys, 1).result()
                    np.add.at(self.counts, keys, 1)
                with self._lock:
                    self.num_pushes += 1
        except glintpy.GlintError as error:
            self.errors.append(error)

    def goes_on(self, num_pushes: int = 40) -> None:
        """Return when so many pushes more have been answered."""
        count = self.num_pushes + num_pushes
        until(lambda: self.errors or self.num_pushes >= count, "traffic goes on")

    def check(self) -> None:
        """Every push is in, once."""
        assert self.errors == []
        check(self._table, self.counts)


def check(table: glintpy.BigTable, counts: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
    assert np.array_equal(table.pull(np.arange(KEYS)).result()[:, 0], counts)
    assert np.array_equal(table.contains(np.arange(KEYS)).result(), counts > 0)
    assert len(table) == np.count_nonzero(counts)
    assert sorted(table) == np.flatnonzero(counts).tolist()


def test_servers_killed_in_a_stream_lose_and_double_nothing(seed: int) -> None:
    with glintpy.LocalCluster(2, scheme="tcp") as cluster, cluster.client(timeout_s=PATIENCE_S) as client:
        table = client.table(2, dtype="int64", name="t")
        with Traffic(table, seed) as traffic:
            for index in (0, 1, 0, 1):
                traffic.goes_on()
                cluster.kill_server(index)
                cluster.restart_server(index)
            traffic.goes_on()
        traffic.check()
        cluster.restart_server(0)  # in good order
        traffic.check()


@pytest.mark.parametrize("place", ["table.begun", "push.half_applied", "push.recorded"])
def test_a_server_that_dies_again_and_again_inside_of_pushes_loses_nothing(place: str, seed: int) -> None:
    options = ServerOptions(failpoints=f"{place}=kill:0.01")
    with (
        glintpy.LocalCluster(1, scheme="tcp", supervise=True, server_options=options) as cluster,
        cluster.client(timeout_s=PATIENCE_S) as client,
    ):
        table = client.table(2, dtype="int64")
        pids = {cluster.servers[0].pid}

        def has_died_twice() -> bool:
            pids.add(cluster.servers[0].pid)
            return len(pids) > 2 or bool(traffic.errors)

        with Traffic(table, seed) as traffic:
            until(has_died_twice, f"a server that dies at {place}")
        traffic.check()


def test_a_change_of_all_rows_goes_on_when_its_server_was_killed() -> None:
    with glintpy.LocalCluster(1, scheme="tcp") as cluster, cluster.client(timeout_s=PATIENCE_S) as client:
        table = client.table(100)
        keys = np.arange(60_000) * 3
        table.push(keys, np.arange(60_000)[:, None] % 7).result()
        table.remove(keys[::3]).result()
        first, second = table.scale(2), table.scale(3)
        cluster.kill_server(0)
        cluster.restart_server(0)
        first.result()
        second.result()
        left = np.flatnonzero(np.arange(60_000) % 3)
        assert np.array_equal(table.pull(keys[left]).result(), np.repeat(left[:, None] % 7 * 6, 100, axis=1))
        assert table.sum().result() == int((left % 7).sum()) * 600


def test_a_table_outlives_an_orderly_stop_of_the_whole_cluster(tmp_path: Path) -> None:
    keys = np.arange(5000) * 1_000_003
    with glintpy.LocalCluster(2, data_dir=tmp_path) as cluster, cluster.client() as client:
        table = client.table(3, updater="adam", name="kept", init=("normal", 0, 1))
        table.push(keys, 1.0).result()
        expected = table.pull(keys).result()
        client.table(3, name="gone").destroy()
    with glintpy.LocalCluster(2, data_dir=tmp_path) as cluster, cluster.client() as client:
        assert client.models() == ["kept"]
        table = client.open("kept", kind=glintpy.BigTable)
        assert np.array_equal(table.pull(keys).result(), expected)
        assert set(table.pull_slot("steps", keys).result().tolist()) == {1}
        assert len(table) == len(keys)
        table.destroy()
    assert list(tmp_path.rglob("*.heap")) == []


def spoil(folder: Path) -> None:
    """Have a server's mapped files look as after a power cut: of another boot, and nothing in them right."""
    for pattern in ("*.segment", "server.journal", "server.undo"):
        for path in folder.rglob(pattern):
            with path.open("r+b") as file:
                file.seek(12)
                file.write(struct.pack("<I", 2))
                file.seek(56)
                file.write(struct.pack("<Q", 999))
    for path in folder.rglob("*.heap"):
        path.write_bytes(b"\xee" * path.stat().st_size)


@pytest.mark.parametrize("log_bytes_max", [64_000, 64_000_000])
def test_a_table_of_level_disk_is_back_after_the_machine_stopped(
    tmp_path: Path, seed: int, log_bytes_max: int
) -> None:
    # With little log there are snapshots, too, of a table that grows meanwhile.
    options = ServerOptions(settings=ServerSettings(log_bytes_max=log_bytes_max))
    with (
        glintpy.LocalCluster(1, data_dir=tmp_path, durability="disk", server_options=options) as cluster,
        cluster.client(timeout_s=PATIENCE_S) as client,
    ):
        table = client.table(2, dtype="int64", name="t")
        other = client.table(3, updater="adam", init=("normal", 0, 1), key_dtype="uint64")
        other.push(np.arange(5000), 1).result()
        other.remove(np.arange(0, 5000, 2)).result()
        other.scale(3).result()
        expected = other.pull(np.arange(5000)).result()
        words = client.table(1, key_dtype="str", dtype="int64")
        words.push([f"w\0{number}" for number in range(3000)], 1).result()
        words.remove([f"w\0{number}" for number in range(1000)]).result()
        tracking = client.table(1, track=True, admit_after=2, dtype="int64")
        for number in range(1, 5):
            tracking.push(np.arange(100 * number), 1).result()
        tracking.evict(fewer_than=2).result()
        uses = [tracking.pull_slot(slot, np.arange(400)).result() for slot in tracking.slots]
        assert len(tracking) == 200  # of 300 that came in, a third was used once
        with Traffic(table, seed) as traffic:
            for _ in range(2):
                traffic.goes_on()
                cluster.kill_server(0)
                spoil(tmp_path)
                cluster.restart_server(0)
            traffic.goes_on()
        traffic.check()
        cluster.kill_server(0)  # in the same boot: its files are as they were
        cluster.restart_server(0)
        traffic.check()
        assert sorted(words) == sorted(f"w\0{number}" for number in range(1000, 3000))
        assert words.pull(list(words)).result().tolist() == [[1]] * 2000
        found = [tracking.pull_slot(slot, np.arange(400)).result() for slot in tracking.slots]
        assert all(np.array_equal(one, same) for one, same in zip(found, uses, strict=True))
        assert sorted(tracking) == list(range(200))
        assert tracking.pull([0, 150, 250]).result()[:, 0].tolist() == [3, 2, 0]
        assert len(other) == 2500
        assert np.array_equal(other.pull(np.arange(5000)).result(), expected)
        assert set(other.pull_slot("steps", np.arange(1, 5000, 2)).result().tolist()) == {1}
        table.destroy()
        cluster.kill_server(0)
        spoil(tmp_path)
        cluster.restart_server(0)
        assert np.array_equal(other.pull(np.arange(5000)).result(), expected)


def test_a_table_of_level_memory_is_lost_with_its_server_and_says_so() -> None:
    with glintpy.LocalCluster(1, scheme="tcp") as cluster, cluster.client() as client:
        table = client.table(2, durability="memory")
        table.push(np.arange(5000), 1).result()
        cluster.kill_server(0)
        cluster.restart_server(0)
        for ask in (
            lambda: table.pull([1]).result(),
            lambda: table.push([1], 1).result(),
            lambda: len(table),
        ):
            with pytest.raises(glintpy.ModelLost, match=f"{table.name}.* went with the process"):
                ask()


def test_a_push_for_which_a_server_has_no_room_is_refused_whole() -> None:
    with glintpy.LocalCluster(1, memory_limit=2**20) as cluster, cluster.client() as client:
        table = client.table(64)
        table.push(np.arange(500), 1).result()
        with pytest.raises(glintpy.PushRefused, match="no room for") as caught:
            table.push(np.arange(400, 5000), 1).result()
        assert isinstance(caught.value.__cause__, glintpy.NotEnoughMemory)
        assert len(table) == 500
        assert table.push_pull([499], 1).result()[0, 0] == 2
        table.remove(np.arange(100)).result()
        table.push(-np.arange(1, 101), 1).result()
        assert len(table) == 500
