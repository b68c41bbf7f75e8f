"""A cluster goes on without its master, and a master that comes back knows what it had said, and no less than that."""

from __future__ import annotations

import random
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Self

import pytest

import glintpy
from glintpy.nodes import Node, start_master, start_server
from glintpy.storage.registry import FILE_NAME
from tests.cluster.drilled import DrilledCluster, drilled_cluster
from tests.cluster.helpers import PATIENCE_S, holdings, until

BACK_S = 10.0
"""Within which everybody is back after a master's restart; tests allow twice as much."""


class Traffic:
    """Threads that push ones to a whole vector and read it, as hastily as can be, until they are stopped."""

    def __init__(self, vector: glintpy.BigVector) -> None:
        self._vector = vector.with_options(on_server_lost="raise")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic")
        self.num_pushes = 0
        self.errors: list[BaseException] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._stop.is_set():
            try:
                for push in [self._vector.push(None, 1) for _ in range(5)]:
                    push.result()
                    self.num_pushes += 1
                self._vector.pull([0]).result()
            except glintpy.GlintError as error:
                self.errors.append(error)
                return

    def goes_on(self) -> None:
        """Return when 50 pushes more are in."""
        count = self.num_pushes + 50
        until(lambda: self.errors or self.num_pushes >= count, "traffic goes on")
        assert self.errors == []

    def check(self) -> None:
        """No error, and every push is in, once."""
        assert self.errors == []
        assert set(self._vector.pull().result().tolist()) == {self.num_pushes}


def wait_back(client: glintpy.Client, num_servers: int, num_clients: int) -> float:
    """Return how long servers and clients take to be the master's again."""
    begun = time.monotonic()
    client.wait_for_servers(num_servers, timeout_s=PATIENCE_S)
    until(lambda: len(client.clients()) == num_clients, "the clients are back")
    return time.monotonic() - begun


def assert_master_and_servers_agree(client: glintpy.Client) -> None:
    """Every server holds its part of each model that the master knows, and nothing else."""
    known = set(client.models())

    def held() -> list[set[str]]:
        return [{model["name"] for model in holds["models"]} for holds in holdings(client).values()]

    until(lambda: all(names == known for names in held()), f"all hold {known}, and not {held()}")


# --- going on ---------------------------------------------------------------------------------------------


@pytest.mark.soak
def test_without_a_master_traffic_goes_on_and_the_rest_says_so_in_time(tmp_path: Path) -> None:
    with (
        drilled_cluster(tmp_path) as cluster,
        glintpy.Client(cluster.master.address, timeout_s=PATIENCE_S) as patient,
        glintpy.Client(cluster.master.address, timeout_s=1.0) as client,
    ):
        vector = patient.vector(1000, dtype="int64", name="kept")
        saved = str(tmp_path / "saved")
        needs_master: dict[str, Callable[[], object]] = {
            "create": lambda: client.vector(10),
            "open": lambda: client.open("kept"),
            "destroy": lambda: client.destroy("kept"),
            "list": client.models,
            "load": lambda: client.load(saved, name="again"),
            "join": lambda: glintpy.Client(cluster.master.address, timeout_s=1.0),
        }
        with Traffic(vector) as traffic:
            traffic.goes_on()
            cluster.master.kill()
            vector.save(saved)  # between a client and the servers
            for what, ask in needs_master.items():
                begun = time.monotonic()
                with pytest.raises(glintpy.MasterUnreachable):
                    ask()
                assert time.monotonic() - begun < 2 * 1.0 + 1.0, what
            traffic.goes_on()
            cluster.master.start()
            assert wait_back(patient, 2, 2) < 2 * BACK_S
            traffic.goes_on()
            assert patient.models() == ["kept"]
            assert_master_and_servers_agree(patient)
        traffic.check()


# --- commit points ----------------------------------------------------------------------------------------

POINTS = [
    (operation, place, number)
    for operation, num_commits in (("create", 2), ("load", 3), ("destroy", 1))
    for number in range(num_commits)
    for place in ("master.before_commit", "master.after_commit")
]


def perform(client: glintpy.Client, operation: str, name: str, saved: str) -> None:
    """Create, load or destroy a model; loading makes it without a name first, and publishes it when it is filled."""
    if operation == "destroy":
        client.destroy(name)
    elif operation == "load":
        client.load(saved, name=name)
    else:
        client.vector(1000, dtype="int64", name=name)


def drill_commits(folder: Path, points: list[tuple[str, str, int]]) -> None:
    """Kill a master at commit points of what a client asks of it; the client just waits for its return."""
    with (
        drilled_cluster(folder) as cluster,
        glintpy.Client(cluster.master.address, timeout_s=PATIENCE_S) as client,
    ):
        vector = client.vector(1000, dtype="int64", name="traffic")
        saved = str(folder / "saved")
        vector.save(saved)
        with Traffic(vector) as traffic:
            for point, (operation, place, number) in enumerate(points):
                name = f"{operation}-{point}"
                if operation == "destroy":
                    perform(client, "create", name, "")
                cluster.master.arm(place, "die", passing=number)
                asking = threading.Thread(target=perform, args=(client, operation, name, saved))
                asking.start()
                try:
                    cluster.master.wait_end()
                finally:
                    cluster.master.disarm()
                    cluster.master.start()
                    asking.join(PATIENCE_S)
                assert not asking.is_alive()
                wait_back(client, 2, 1)
                assert (name in client.models()) == (operation != "destroy"), (operation, place, number)
                assert_master_and_servers_agree(client)
                if operation != "destroy":
                    assert client.open(name).push_pull(None, 1).result().tolist() == [1] * 1000
            traffic.goes_on()
        traffic.check()


def test_a_master_that_dies_between_two_commits_leaves_all_or_nothing(tmp_path: Path) -> None:
    drill_commits(tmp_path, [("create", "master.before_commit", 1), ("destroy", "master.after_commit", 0)])


@pytest.mark.soak
@pytest.mark.parametrize("operation", ["create", "load", "destroy"])
def test_a_master_that_dies_at_any_commit_leaves_all_or_nothing(tmp_path: Path, operation: str) -> None:
    drill_commits(tmp_path, [point for point in POINTS if point[0] == operation])


@pytest.mark.soak
@pytest.mark.parametrize("batch", range(5))
def test_a_master_that_is_killed_at_random_leaves_all_or_nothing(
    tmp_path: Path, seed: int, batch: int
) -> None:
    source = random.Random(f"{seed} {batch}")
    with (
        drilled_cluster(tmp_path) as cluster,
        glintpy.Client(cluster.master.address, timeout_s=PATIENCE_S) as client,
    ):
        vector = client.vector(1000, dtype="int64", name="traffic")
        stop = threading.Event()
        errors: list[BaseException] = []
        expected: dict[str, int] = {}

        def make_and_end(number: int) -> None:
            choose = random.Random(f"{seed} {batch} {number}")
            mine: list[str] = []
            try:
                for turn in range(10_000):
                    if stop.is_set():
                        return
                    if len(mine) > 3 or (mine and choose.random() < 0.4):
                        name = mine.pop(choose.randrange(len(mine)))
                        del expected[name]
                        client.destroy(name)
                    else:
                        name = f"m-{number}-{turn}"
                        model = client.vector(100, dtype="int64", name=name)
                        model.push(None, turn + 1).result()
                        mine.append(name)
                        expected[name] = turn + 1
            except BaseException as error:
                errors.append(error)
                raise

        workers = [threading.Thread(target=make_and_end, args=(number,)) for number in range(3)]
        with Traffic(vector) as traffic:
            for worker in workers:
                worker.start()
            try:
                for _ in range(10):
                    stop.wait(source.uniform(0.0, 0.5))  # the instant is what is drawn
                    cluster.master.kill()
                    cluster.master.start()
                    wait_back(client, 2, 1)
            finally:
                stop.set()
                for worker in workers:
                    worker.join(PATIENCE_S * 2)
            assert errors == []
            traffic.goes_on()
        traffic.check()
        assert set(client.models()) == {"traffic", *expected}
        for name, value in expected.items():
            assert client.open(name).pull().result().tolist() == [value] * 100
        assert_master_and_servers_agree(client)


# --- servers in the middle of a creation ------------------------------------------------------------------


def drill_creation(cluster: DrilledCluster, client: glintpy.Client, place: str) -> None:
    """Kill a server in the middle of a creation and start it again: the creation just takes longer."""
    made: list[glintpy.BigVector] = []
    server = cluster.servers[1]
    # On a busy machine a process may take longer to start than a creation waits: this one stands ready, and takes over
    # when the folder is free.
    heir = cluster.heir_of(1)
    server.arm(place, "die")
    asking = threading.Thread(target=lambda: made.append(client.vector(100_000, dtype="int64", name=place)))
    asking.start()
    try:
        server.wait_end()
    finally:
        server.disarm()
        heir.wait_ready()
        asking.join(PATIENCE_S)
    assert len(made) == 1, "making it has failed"
    assert made[0].push_pull(None, 1).result().sum() == 100_000
    assert client.models() == [place]
    assert_master_and_servers_agree(client)
    made[0].destroy()
    assert_master_and_servers_agree(client)


@pytest.mark.parametrize(
    "places",
    [["create.allocated"], pytest.param(["create.reserved", "create.filled"], marks=pytest.mark.soak)],
)
def test_a_server_that_dies_in_a_creation_and_comes_back_takes_part_in_it(
    tmp_path: Path, places: list[str]
) -> None:
    with (
        drilled_cluster(tmp_path) as cluster,
        glintpy.Client(cluster.master.address, timeout_s=PATIENCE_S) as client,
    ):
        for place in places:
            drill_creation(cluster, client, place)


@pytest.mark.soak
def test_a_server_that_dies_in_a_creation_and_stays_away_undoes_it(tmp_path: Path) -> None:
    with (
        drilled_cluster(tmp_path) as cluster,
        glintpy.Client(cluster.master.address, timeout_s=PATIENCE_S) as client,
    ):
        cluster.servers[1].arm("create.allocated", "die")
        begun = time.monotonic()
        with pytest.raises(glintpy.ServerLost, match="while model 'm' was made"):
            client.vector(1000, name="m")
        assert time.monotonic() - begun < 2 * 11.0
        assert client.models() == []
        cluster.servers[1].start()
        client.wait_for_servers(2)
        assert_master_and_servers_agree(client)


# --- the master's directory -------------------------------------------------------------------------------


@contextmanager
def node(start: Callable[[], Node]) -> Iterator[Node]:
    started = start()
    try:
        yield started
    finally:
        started.stop()


class Folders:
    """A cluster of one server in this process, which is stopped and started on its folders."""

    def __init__(self, folder: Path) -> None:
        self.master = folder / "master"
        self.server = folder / "server"
        self.address = f"ipc://{folder / 'sock'}"

    @contextmanager
    def running(self) -> Iterator[glintpy.Client]:
        """Run it, with a client."""
        with (
            node(lambda: start_master(self.address, data_dir=self.master)),
            node(lambda: start_server(self.address, address=f"{self.address}-s", data_dir=self.server)),
            glintpy.Client(self.address, timeout_s=PATIENCE_S) as client,
        ):
            yield client

    def refused(self, match: str) -> None:
        """A master on its folder starts, and the server says why it doesn't join."""
        with (
            node(lambda: start_master(self.address, data_dir=self.master)),
            pytest.raises(glintpy.ConfigError, match=match),
        ):
            start_server(self.address, address=f"{self.address}-s", data_dir=self.server)

    def keep(self, name: str) -> Path:
        """Copy the master's folder aside."""
        return Path(shutil.copytree(self.master, self.master.with_name(name)))

    def put_back(self, kept: Path) -> None:
        """Replace the master's folder."""
        shutil.rmtree(self.master)
        shutil.copytree(kept, self.master)


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    return Folders(tmp_path)


def fill(client: glintpy.Client, name: str, value: int) -> None:
    client.vector(10, dtype="int64", name=name).push(None, value).result()


def test_a_backup_of_the_master_that_is_older_than_a_model_is_refused(folders: Folders) -> None:
    with folders.running() as client:
        fill(client, "old", 1)
    backup = folders.keep("backup")
    with folders.running() as client:
        fill(client, "new", 2)
    newest = folders.keep("newest")
    folders.put_back(backup)
    for _ in range(2):
        folders.refused("older than the server's models.*newer than the servers' models")
    folders.put_back(newest)
    with folders.running() as client:
        assert sorted(client.models()) == ["new", "old"]
        assert client.open("new").pull().result().tolist() == [2] * 10


@pytest.mark.soak
def test_a_backup_that_was_taken_while_the_master_ran_is_refused_too(folders: Folders) -> None:
    with folders.running() as client:
        fill(client, "old", 1)
        backup = folders.keep("backup")
        fill(client, "new", 2)
    newest = folders.keep("newest")
    folders.put_back(backup)
    # Models that the old one makes with others meanwhile have the ids of those that it has forgotten.
    with (
        node(lambda: start_master(folders.address, data_dir=folders.master)),
        node(lambda: start_server(folders.address, address=f"{folders.address}-t")),
        glintpy.Client(folders.address, timeout_s=PATIENCE_S) as client,
    ):
        for number in range(3):
            fill(client, f"other {number}", 3)
    folders.refused("older than the server's models")
    folders.put_back(newest)
    with folders.running() as client:
        assert client.open("new").pull().result().tolist() == [2] * 10


def test_a_backup_from_before_nothing_was_made_is_as_good_as_the_latest(folders: Folders) -> None:
    with folders.running() as client:
        fill(client, "m", 1)
    with folders.running() as client:
        client.open("m").push(None, 1).result()
    backup = folders.keep("backup")
    folders.put_back(backup)
    with folders.running() as client:
        assert client.open("m").push_pull(None, 1).result().tolist() == [3] * 10


def test_a_lost_directory_is_refused_by_what_the_servers_hold(folders: Folders) -> None:
    with folders.running() as client:
        fill(client, "m", 1)
    kept = folders.keep("kept")
    shutil.rmtree(folders.master)
    folders.refused("holds models of cluster")
    folders.put_back(kept)
    with folders.running() as client:
        assert client.open("m").pull().result().tolist() == [1] * 10


def test_a_server_that_runs_on_is_refused_by_an_older_master_and_keeps_serving(folders: Folders) -> None:
    refusals: list[glintpy.GlintError] = []
    master = start_master(folders.address, data_dir=folders.master)
    server = start_server(
        folders.address, address=f"{folders.address}-s", data_dir=folders.server, on_refused=refusals.append
    )
    try:
        backup = folders.keep("backup")
        with glintpy.Client(folders.address, timeout_s=PATIENCE_S) as client:
            vector = client.vector(10, dtype="int64", name="m")
            master.crash()
            folders.put_back(backup)
            master = start_master(folders.address, data_dir=folders.master)
            until(lambda: refusals, "the server is refused")
            assert "older than the server's models" in str(refusals[0])
            assert client.models() == []
            assert vector.push_pull(None, 1).result().tolist() == [1] * 10
    finally:
        server.stop()
        master.stop()


def test_a_damaged_registry_is_named_in_one_line_at_the_start(tmp_path: Path) -> None:
    folder = tmp_path / "master" / "data"
    start_master(f"ipc://{tmp_path / 'sock'}", data_dir=folder).stop()
    database = sqlite3.connect(folder / FILE_NAME)
    with database:
        database.execute("UPDATE facts SET value = '77' WHERE name = 'next_model_id'")
    database.close()
    with pytest.raises(
        glintpy.ConfigError, match=rf"{FILE_NAME} is damaged in 'next_model_id'.*Put back a backup"
    ):
        start_master(f"ipc://{tmp_path / 'sock'}", data_dir=folder)
