"""A model's life: how it is made, named and opened, and what is left when it is destroyed."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glintpy import (
    BigMatrix,
    BigVector,
    Client,
    ConfigError,
    Future,
    LocalCluster,
    ModelExists,
    ModelNotFound,
    NotEnoughMemory,
    PushBuffer,
    RemoteFailure,
    ShapeError,
)
from glintpy.partitioning import CyclicPartitioner, RangePartitioner
from glintpy.pushes import OpenPushes
from glintpy.storage.registry import Registry
from glintpy.testing.partitioners import TablePartitioner, scattered
from tests.cluster.helpers import until


class Blocks(RangePartitioner):
    """A custom partitioner that needs nothing but the two numbers."""


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(3, scheme="local") as started:
        yield started


@pytest.fixture(scope="module")
def client(cluster: LocalCluster) -> Iterator[Client]:
    with cluster.client() as connected:
        yield connected


# --- making -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [-1, 1.0, "3", None, True, np.float64(2), [3]])
def test_sizes_are_integers_of_at_least_zero(client: Client, size: Any) -> None:
    before = client.models()
    for make in (lambda: client.vector(size), lambda: client.matrix(size, 2), lambda: client.matrix(2, size)):
        with pytest.raises(ShapeError):
            make()
    assert client.models() == before


def test_sizes_may_be_numpy_integers(client: Client) -> None:
    with client.matrix(np.int8(3), np.uint64(2)) as matrix:
        assert matrix.shape == (3, 2)
        assert all(type(size) is int for size in matrix.shape)


@pytest.mark.parametrize(
    ("rows", "cols", "dtype"), [(2**40, 1, "int8"), (1, 2**40, "bool"), (2**20, 2**25, "uint8")]
)
def test_a_model_beyond_the_memory_is_refused_with_the_numbers(
    client: Client, rows: int, cols: int, dtype: str
) -> None:
    with pytest.raises(NotEnoughMemory, match=r"needs \d+ bytes .* \d+ are free"):
        client.matrix(rows, cols, dtype=dtype)
    assert sum(server["holds"]["model_bytes"] for server in client.status()["servers"]) == 0


def test_sizes_that_no_machine_can_address_are_shapes_that_dont_exist(client: Client) -> None:
    with pytest.raises(ShapeError, match="can't be addressed"):
        client.matrix(2**40, 2**40)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"partitioner": "hash"}, "hash"),
        ({"partitions_per_server": 0}, "partitions_per_server"),
        ({"updater": "adagard"}, "adagard"),
        ({"init": ("cauchy", 0, 1)}, "cauchy"),
        ({"seed": 0.5}, "seed"),
        ({"finite": 1}, "finite"),
        ({"name": ""}, "name"),
        ({"name": "a\nb"}, "name"),
        ({"name": "a" * 129}, "name"),
    ],
)
def test_settings_that_mean_nothing_are_refused(
    client: Client, options: dict[str, Any], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        client.matrix(3, 2, **options)


@pytest.mark.parametrize("name", ["a", "a" * 128, "with spaces/and: more", "größer 模型"])
def test_a_name_may_have_any_printable_characters(client: Client, name: str) -> None:
    with client.vector(2, name=name) as vector:
        vector.push([0], 1.0).result()
        assert client.open(name)[0] == 1.0
        assert client.models() == [name]


def test_models_without_a_name_get_different_ones(client: Client) -> None:
    with client.vector(1) as first, client.vector(1) as second, client.matrix(1, 1) as third:
        assert len({first.name, second.name, third.name}) == 3
        assert first != second
        assert sorted(client.models()) == sorted([first.name, second.name, third.name])


# --- one name, one model --------------------------------------------------------------------------------------------

SAME: dict[str, Any] = {"dtype": "int32", "partitions_per_server": 2, "init": 3, "seed": 1}

DIFFERENT: list[tuple[str, Callable[[Client], object]]] = [
    ("num_rows", lambda client: client.matrix(9, 2, name="one", exist_ok=True, **SAME)),
    ("num_cols", lambda client: client.matrix(8, 3, name="one", exist_ok=True, **SAME)),
    ("num_cols", lambda client: client.vector(8, name="one", exist_ok=True, **SAME)),
    *[
        (
            field,
            lambda client, field=field, value=value: client.matrix(
                8, 2, name="one", exist_ok=True, **{**SAME, field: value}
            ),
        )
        for field, value in [
            ("dtype", "int64"),
            ("partitioner", "cyclic"),
            ("partitions_per_server", 3),
            ("init", 4),
            ("seed", 2),
            ("finite", True),
        ]
    ],
]


@pytest.mark.parametrize(
    ("field", "make"), DIFFERENT, ids=[f"{index}-{row[0]}" for index, row in enumerate(DIFFERENT)]
)
def test_exist_ok_names_what_differs(client: Client, field: str, make: Callable[[Client], object]) -> None:
    with client.matrix(8, 2, name="one", **SAME) as matrix:
        with pytest.raises(ModelExists, match=field):
            make(client)
        assert np.all(matrix.pull().result() == 3)


def test_exist_ok_finds_the_model_with_its_values(cluster: LocalCluster, client: Client) -> None:
    with client.matrix(8, 2, name="one", exist_ok=True, **SAME) as matrix, cluster.client() as other:
        matrix.push([1], 5).result()
        again = other.matrix(8, 2, name="one", exist_ok=True, **SAME)
        assert again == matrix
        assert again[1].tolist() == [8, 8]
        with pytest.raises(ModelExists, match="one"):
            other.matrix(8, 2, name="one", **SAME)


def test_programs_that_start_alike_share_one_model(cluster: LocalCluster) -> None:
    clients = [cluster.client() for _ in range(4)]
    found: list[BigVector] = []

    def start(client: Client) -> None:
        vector = client.vector(7, name="shared", exist_ok=True, init=("uniform", 0, 1), seed=3)
        vector.push(None, 1.0).result()
        found.append(vector)

    threads = [threading.Thread(target=start, args=(client,)) for client in clients]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 4
    assert len(set(found)) == 1
    assert np.all(found[0].pull().result() >= 4.0)
    found[0].destroy()
    for client in clients:
        client.close()


# --- opening --------------------------------------------------------------------------------------------------------


def test_a_model_is_opened_as_what_it_is(cluster: LocalCluster, client: Client) -> None:
    with (
        client.matrix(5, 2, dtype="int16", partitioner="cyclic") as matrix,
        client.vector(5, finite=True) as vector,
        cluster.client() as other,
    ):
        opened, opened_vector = other.open(matrix.name), other.open(vector.name)
        assert type(opened) is BigMatrix
        assert (opened, opened.shape, opened.dtype) == (matrix, (5, 2), np.dtype("int16"))
        assert opened.partitioner == matrix.partitioner
        assert type(opened_vector) is BigVector
        assert (opened_vector.finite, opened_vector.num_cols, opened_vector.size) == (True, None, 5)


def test_a_model_that_is_not_there_is_not_found_at_once(client: Client) -> None:
    with pytest.raises(ModelNotFound, match="nobody"):
        client.open("nobody")


def test_open_waits_for_somebody_to_make_the_model(cluster: LocalCluster, client: Client) -> None:
    opened = []
    with cluster.client() as other:
        waiting = threading.Thread(target=lambda: opened.append(other.open("later", wait_s=60)))
        waiting.start()
        with client.vector(3, name="later") as made:
            waiting.join()
            assert opened == [made]


def test_a_custom_partitioner_is_given_again_by_who_opens_the_model(
    cluster: LocalCluster, client: Client
) -> None:
    partitioner = scattered(20, 4)
    with client.vector(20, dtype="int64", partitioner=partitioner) as vector:
        vector.push(None, np.arange(20)).result()
        with pytest.raises(ConfigError, match="custom"):
            client.open(vector.name)
        for other_one in (scattered(20, 5), CyclicPartitioner(20, 4)):
            with pytest.raises(ConfigError, match="partitioner"):
                client.open(vector.name, partitioner=other_one)
        assert client.open(vector.name, partitioner=partitioner)[:].tolist() == list(range(20))
    with pytest.raises(ShapeError, match="20 keys"):
        client.vector(21, partitioner=partitioner)
    with client.vector(20, dtype="int64", partitioner=Blocks(20, 4)) as vector:
        vector.push(None, np.arange(20)).result()
        with cluster.client(allow=[Blocks]) as other:
            assert other.open(vector.name)[:].tolist() == list(range(20))


def test_a_partitioner_may_leave_partitions_empty(client: Client) -> None:
    partitioner = TablePartitioner([3, 3, 0, 3], 5)
    with client.matrix(4, 2, dtype="int64", partitioner=partitioner) as matrix:
        matrix.push([0, 1, 2, 3, 0], np.arange(10).reshape(5, 2)).result()
        assert matrix.pull().result().tolist() == [[8, 10], [2, 3], [4, 5], [6, 7]]


# --- the end --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by_name", [False, True])
def test_destroying_waits_for_pushes_that_nobody_waited_for(by_name: bool) -> None:
    with LocalCluster(3, scheme="local") as cluster, cluster.client() as client:
        vector = client.vector(9)
        cluster.stop_server(1)
        push = vector.push(None, 1.0)  # a third of it can't arrive
        destroy = (lambda: client.destroy(vector.name)) if by_name else vector.destroy
        destroying = threading.Thread(target=destroy)
        destroying.start()
        cluster.restart_server(1)
        destroying.join()
        assert push.exception() is None
        with pytest.raises(ModelNotFound):
            client.open(vector.name)


@pytest.mark.pickles
def test_everything_on_a_destroyed_model_says_so_to_everyone(
    cluster: LocalCluster, client: Client, tmp_path: Path
) -> None:
    matrix = client.matrix(6, 2, updater="sgd")
    with cluster.client() as other:
        handles = [
            matrix,
            other.open(matrix.name),
            pickle.loads(pickle.dumps(matrix)),  # noqa: S301 - our own bytes
            client.open(matrix.name),
        ]
        for handle in handles:
            handle.pull().result()
        matrix.destroy()
        for handle in handles:
            for ask in _everything(handle, tmp_path / "gone"):
                with pytest.raises(ModelNotFound, match=matrix.name):
                    ask()
        for open_it in (client.open, other.open):
            with pytest.raises(ModelNotFound, match=matrix.name):
                open_it(matrix.name)
    assert not (tmp_path / "gone").exists()


def test_a_buffer_of_a_destroyed_model_says_so(client: Client) -> None:
    vector = client.vector(3)
    buffer = PushBuffer(vector)
    buffer.push([1], 1.0)
    vector.destroy()
    with pytest.raises(ModelNotFound):
        buffer.flush().result()


def test_a_push_refused_because_the_model_is_gone_is_reported_by_flush(cluster: LocalCluster) -> None:
    with cluster.client() as client:
        vector = client.vector(3)
        stale = client.open(vector.name)
        vector.destroy()
        stale.push([0], 1.0)
        with pytest.raises(ModelNotFound):
            client.flush()
        client.flush()


def test_a_push_is_open_to_flush_until_its_failure_is_noted_and_its_future_done(
    cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls: list[tuple[str, bool]] = []
    failed, done = OpenPushes.failed, OpenPushes.done

    def watched_failed(pushes: OpenPushes, model_id: int, model: str, future: Future[Any]) -> None:
        calls.append(("failed", future.done()))
        failed(pushes, model_id, model, future)

    def watched_done(pushes: OpenPushes, futures: Iterable[Future[Any]]) -> None:
        calls.extend(("done", future.done()) for future in futures)
        done(pushes, futures)

    monkeypatch.setattr(OpenPushes, "failed", watched_failed)
    monkeypatch.setattr(OpenPushes, "done", watched_done)
    with cluster.client() as client:
        vector = client.vector(3)
        stale = client.open(vector.name)
        vector.push([0], 1.0).result()
        vector.destroy()
        assert isinstance(stale.push([0], 1.0).exception(), ModelNotFound)
    assert calls == [("done", True), ("failed", False), ("done", True)]


def test_a_name_is_free_again_and_old_handles_dont_reach_the_new_model(client: Client) -> None:
    old = client.vector(3, name="reused")
    stale = client.open("reused")
    old.destroy()
    with client.vector(3, name="reused") as new:
        with pytest.raises(ModelNotFound):
            stale.push([0], 1.0).result()
        assert not new.pull().result().any()
        assert new != old


def test_leaving_with_destroys_also_by_an_exception(client: Client) -> None:
    with pytest.raises(ZeroDivisionError), client.vector(3, name="short") as vector:
        vector.push([0], 1 / 0)
    assert "short" not in client.models()
    with client.vector(3) as vector:
        vector.destroy()  # leaving does nothing more


def _everything(handle: BigMatrix, folder: Path) -> list[Callable[[], object]]:
    return [
        lambda: handle.pull().result(),
        lambda: handle.pull([1]).result(),
        lambda: handle.push([1], 1.0).result(),
        lambda: handle.push_pull([1], 1.0).result(),
        lambda: handle[3],
        lambda: np.asarray(handle),
        lambda: list(handle),
        lambda: handle.save(str(folder)),
        lambda: handle.with_options(timeout_s=5).pull().result(),
        lambda: handle.norms().result(),
        lambda: handle.scale(2).result(),
        lambda: handle.configure(learning_rate=0.5),
        handle.destroy,
    ]


def test_a_server_that_was_killed_comes_back_while_the_master_can_write_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A disk that is full is the master's and the server's, where they share a machine."""

    def full(*_: object, **__: object) -> None:
        raise RemoteFailure("the master can't write master.sqlite: database or disk is full")

    with LocalCluster(1, scheme="local", data_dir=tmp_path) as cluster, cluster.client() as client:
        vector = client.vector(10)
        vector.push(None, 1).result()
        with monkeypatch.context() as patch:
            patch.setattr(Registry, "save_server", full)
            cluster.kill_server(0)
            cluster.restart_server(0)
            vector.push(None, 1).result()
            assert vector.pull().result().tolist() == [2] * 10
        until(lambda: client.status()["servers"][0]["state"] == "alive", "the master has taken it")
        assert client.vector(3).pull().result().tolist() == [0] * 3
