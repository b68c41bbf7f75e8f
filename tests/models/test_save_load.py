"""Saved models come back as they were, on any number of servers and under any partitioner."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glintpy import (
    BigMatrix,
    BigVector,
    CheckpointCorrupt,
    CheckpointError,
    CheckpointNotFound,
    Client,
    ConfigError,
    LocalCluster,
    ModelExists,
    ModelNotFound,
    NotEnoughMemory,
    ShapeError,
)
from glintpy.config import PART_BYTES
from glintpy.protocol.dtypes import NAMES
from glintpy.testing.partitioners import scattered
from glintpy.testing.reference import numbers, partitioner_of

COUNTS = (1, 2, 3, 4, 5)
KINDS = ("range", "cyclic", "custom")


@pytest.fixture(scope="module")
def clients() -> Iterator[dict[int, Client]]:
    """A client of a cluster of each size."""
    with ExitStack() as stack:
        found = {}
        for count in COUNTS:
            cluster = stack.enter_context(LocalCluster(count, scheme="local"))
            found[count] = stack.enter_context(cluster.client())
        yield found


@pytest.fixture
def client(clients: dict[int, Client]) -> Client:
    return clients[3]


def total_bytes(client: Client) -> int:
    """Return the bytes that models take on all servers: what is left when a load failed."""
    return sum(server["holds"]["model_bytes"] for server in client.status()["servers"])


# --- any number of servers, any partitioner ---------------------------------------------------------------------------


@pytest.mark.parametrize("saved_on", [1, 3])
@pytest.mark.parametrize("saved_as", KINDS)
def test_a_matrix_is_loaded_on_any_number_of_servers(
    clients: dict[int, Client], tmp_path: Path, saved_on: int, saved_as: str
) -> None:
    url, values = str(tmp_path / "saved"), np.random.default_rng(saved_on).random((47, 3))
    partitioner = partitioner_of(saved_as, 47)
    with clients[saved_on].matrix(
        47, 3, partitioner=partitioner, partitions_per_server=2, name="m"
    ) as matrix:
        matrix.push(None, values)
        matrix.save(url)
    for count, kind, partitions_per_server in itertools.product((1, 2, 5), KINDS, (1, 8)):
        with clients[count].load(
            url, partitioner=partitioner_of(kind, 47), partitions_per_server=partitions_per_server
        ) as loaded:
            assert isinstance(loaded, BigMatrix)
            assert (loaded.name, loaded.dtype, loaded.spec.partitions_per_server) == (
                "m",
                np.dtype("float64"),
                partitions_per_server,
            )
            assert loaded.pull().result().tobytes() == values.tobytes()


def moves() -> Iterator[Any]:
    """Yield every pair of numbers of servers with every pair of orders: 100; the dtypes take turns."""
    orders = itertools.product(("range", "cyclic"), repeat=2)
    for number, (saved, loaded, (saved_on, loaded_on)) in enumerate(
        (saved, loaded, counts)
        for saved, loaded in orders
        for counts in itertools.product(range(1, 6), repeat=2)
    ):
        # A prime step: the few that always run have other numbers of servers, orders and dtypes.
        marks = [] if number % 17 == 1 else [pytest.mark.soak]
        dtype = NAMES[number % len(NAMES)]
        text = f"{saved} on {saved_on} to {loaded} on {loaded_on} {dtype}"
        yield pytest.param(saved_on, loaded_on, saved, loaded, dtype, id=text, marks=marks)


@pytest.mark.parametrize(("saved_on", "loaded_on", "saved_as", "loaded_as", "dtype"), list(moves()))
def test_a_model_moves_between_any_two_clusters(
    clients: dict[int, Client],
    tmp_path: Path,
    saved_on: int,
    loaded_on: int,
    saved_as: str,
    loaded_as: str,
    dtype: str,
) -> None:
    url = str(tmp_path / "saved")
    generator = np.random.default_rng([saved_on, loaded_on])
    for shape in ((211,), (53, 7)):
        values = numbers(np.dtype(dtype), shape, generator)
        make = clients[saved_on].matrix if len(shape) == 2 else clients[saved_on].vector
        with make(
            *shape, dtype=dtype, partitioner=saved_as, partitions_per_server=1 + loaded_on % 3, name="moved"
        ) as model:
            model.push(None, values)
            model.save(url, overwrite=True)
        with clients[loaded_on].load(
            url, partitioner=loaded_as, partitions_per_server=1 + saved_on % 4
        ) as loaded:
            assert (loaded.dtype, loaded.shape, loaded.partitioner.name) == (
                np.dtype(dtype),
                shape,
                loaded_as,
            )
            assert loaded.pull().result().tobytes() == values.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_vectors_of_every_dtype_are_loaded(clients: dict[int, Client], tmp_path: Path, name: str) -> None:
    url = str(tmp_path / "saved")
    values = numbers(np.dtype(name), (101,), np.random.default_rng(1))
    with clients[2].vector(101, dtype=name, partitioner="cyclic") as vector:
        vector.push(None, values)
        vector.save(url)
    for count in COUNTS:
        with clients[count].load(url) as loaded:
            assert isinstance(loaded, BigVector)
            assert (loaded.partitioner.name, loaded.dtype) == ("cyclic", np.dtype(name))
            assert loaded.pull().result().tobytes() == values.tobytes()


@pytest.mark.parametrize("shape", [(0, 3), (3, 0), (0, 0), (0,), (1,), (1, 1), (2, 3)])
def test_empty_and_tiny_models_are_loaded(
    clients: dict[int, Client], tmp_path: Path, shape: tuple[int, ...]
) -> None:
    for kind in KINDS:
        url = str(tmp_path / kind)
        make = clients[3].matrix if len(shape) == 2 else clients[3].vector
        with make(*shape, partitioner=partitioner_of(kind, shape[0]), init=2) as model:
            model.save(url)
        for count in COUNTS:
            with clients[count].load(url, partitioner="range") as loaded:
                assert type(loaded) is type(model)
                assert loaded.shape == shape
                assert loaded.pull().result().tolist() == np.full(shape, 2.0).tolist()


@pytest.mark.parametrize("init", [("uniform", -1.0, 2.0), ("normal", 0.0, 3.0)])
@pytest.mark.parametrize("dtype", ["float64", "float16"])
def test_random_initial_values_are_the_same_everywhere(
    clients: dict[int, Client], init: Any, dtype: str
) -> None:
    found = []
    for count, kind, partitions_per_server in itertools.product(COUNTS, KINDS, (1, 8)):
        with clients[count].matrix(
            50,
            4,
            dtype=dtype,
            init=init,
            seed=5,
            partitioner=partitioner_of(kind, 50),
            partitions_per_server=partitions_per_server,
        ) as matrix:
            found.append(matrix.pull().result())
    assert all(np.array_equal(values, found[0]) for values in found)
    assert np.all(np.isfinite(found[0]))
    with clients[1].matrix(50, 4, dtype=dtype, init=init, seed=6) as matrix:
        assert not np.array_equal(matrix.pull().result(), found[0])


def test_models_larger_than_a_part_and_rows_wider_than_one_are_loaded(
    clients: dict[int, Client], tmp_path: Path
) -> None:
    generator = np.random.default_rng(2)
    for shape in ((5 * PART_BYTES // 64, 8), (3, PART_BYTES // 8 + 9)):
        url, values = str(tmp_path / f"{shape[0]}"), generator.random(shape)
        with clients[3].matrix(*shape, partitioner="cyclic") as matrix:
            matrix.push(None, values)
            matrix.save(url)
        for partitioner in ("range", scattered(shape[0], 4)):
            with clients[2].load(url, partitioner=partitioner) as loaded:
                assert np.array_equal(loaded.pull().result(), values)


# --- what is saved --------------------------------------------------------------------------------------------------


def test_a_save_holds_the_pushes_before_it_and_none_after(client: Client, tmp_path: Path) -> None:
    with client.matrix(5000, 4, dtype="int64") as matrix:
        for count in range(1, 6):
            for _ in range(10):
                matrix.push(None, 1)  # nobody waits
            matrix.save(str(tmp_path / f"{count}"))
        for count in range(1, 6):
            with client.load(str(tmp_path / f"{count}"), name="copy") as copy:
                assert np.all(copy.pull().result() == 10 * count)


def test_bits_that_are_no_numbers_are_saved_too(client: Client, tmp_path: Path) -> None:
    values = np.array([np.nan, -np.inf, np.inf, -0.0, 5e-324])
    url = str(tmp_path / "saved")
    with client.vector(5) as vector:
        vector.push(None, values).result()
        expected = vector.pull().result()
        vector.save(url)
    with client.load(url) as loaded:
        assert loaded.pull().result().tobytes() == expected.tobytes()


def test_what_a_model_was_made_with_comes_along(client: Client, tmp_path: Path) -> None:
    url = str(tmp_path / "saved")
    with client.matrix(
        9, 2, dtype="float32", finite=True, seed=4, init=("uniform", 0, 1), partitioner="cyclic", name="whole"
    ) as matrix:
        matrix.save(url)
        expected, values = matrix.spec, matrix.pull().result()
    with client.load(url) as loaded:
        assert loaded.spec == expected
        assert np.array_equal(loaded.pull().result(), values)
        assert isinstance(loaded, BigMatrix)
        loaded.push([1], 1.0).result()  # it is a model like any other
        assert np.array_equal(loaded[1], values[1] + np.float32(1))


def test_a_saved_custom_partitioner_must_be_given(client: Client, tmp_path: Path) -> None:
    url, partitioner = str(tmp_path / "saved"), scattered(20, 4)
    with client.vector(20, dtype="int64", partitioner=partitioner, name="custom") as vector:
        vector.push(None, np.arange(20))
        vector.save(url)
    with pytest.raises((ConfigError, CheckpointError), match="custom"):
        client.load(url)
    with pytest.raises(ShapeError, match="20"):
        client.load(url, partitioner=scattered(19, 4))
    assert client.models() == []
    assert total_bytes(client) == 0
    with client.load(url, partitioner=partitioner) as loaded:
        assert loaded.pull().result().tolist() == list(range(20))


# --- what fails leaves nothing behind -------------------------------------------------------------------------------


def test_nothing_is_overwritten_unless_asked_for(client: Client, tmp_path: Path) -> None:
    url = str(tmp_path / "saved")
    with client.vector(3, name="over") as vector:
        vector.save(url)
        vector.push(None, 1.0)
        with pytest.raises(CheckpointError, match="overwrite"):
            vector.save(url)
        with client.load(url, name="copy") as copy:
            assert copy.pull().result().tolist() == [0.0] * 3
        vector.save(url, overwrite=True)
        with client.load(url, name="copy") as copy:
            assert copy.pull().result().tolist() == [1.0] * 3


def test_a_taken_name_is_refused_and_nothing_is_left(client: Client, tmp_path: Path) -> None:
    url = str(tmp_path / "saved")
    with client.vector(30, dtype="int64", name="taken") as vector:
        vector.push(None, 7)
        vector.save(url)
        before = total_bytes(client)
        with pytest.raises(
            ModelExists, match="'taken' already; destroy it first, or give this one another name"
        ):
            client.load(url)
        assert vector.pull().result().tolist() == [7] * 30
        assert (client.models(), total_bytes(client)) == (["taken"], before)
    with pytest.raises(ConfigError, match="name"):
        client.load(url, name="")


def test_there_may_be_no_saved_model(client: Client, tmp_path: Path) -> None:
    for url in (tmp_path / "nothing", tmp_path):
        with pytest.raises(CheckpointNotFound):
            client.load(str(url))
    assert client.models() == []


def test_a_damaged_one_is_refused_before_anything_is_made(client: Client, tmp_path: Path) -> None:
    url = tmp_path / "saved"
    with client.matrix(40, 4) as matrix:
        matrix.push(None, 1.0)
        matrix.save(str(url))
    parts = sorted(url.rglob("*.npy"))
    damaged = bytearray(parts[-1].read_bytes())
    damaged[-1] ^= 1
    parts[-1].write_bytes(damaged)
    with pytest.raises(CheckpointCorrupt, match=parts[-1].name):
        client.load(str(url))
    assert (client.models(), total_bytes(client)) == ([], 0)


def test_a_model_that_doesnt_fit_where_it_is_loaded_is_refused(client: Client, tmp_path: Path) -> None:
    url = str(tmp_path / "saved")
    with client.vector(1000) as vector:
        vector.save(url)
    with LocalCluster(1, scheme="local", memory_limit=4000) as cluster, cluster.client() as small:
        with pytest.raises(NotEnoughMemory, match="8000"):
            small.load(url)
        assert small.models() == []
        with small.vector(500) as vector:
            assert vector.num_bytes == 4000


def test_a_destroyed_model_cant_be_saved(client: Client, tmp_path: Path) -> None:
    vector = client.vector(3)
    stale = client.open(vector.name)
    vector.destroy()
    for handle in (vector, stale):
        with pytest.raises(ModelNotFound):
            handle.save(str(tmp_path / "saved"))
    with pytest.raises(CheckpointNotFound):
        client.load(str(tmp_path / "saved"))


def test_numpy_alone_reads_what_was_saved(client: Client, tmp_path: Path) -> None:
    values = np.arange(24, dtype=np.float32).reshape(12, 2)
    with client.matrix(12, 2, dtype="float32") as matrix:
        matrix.push(None, values)
        matrix.save(str(tmp_path / "saved"))
    parts = [np.load(path) for path in sorted((tmp_path / "saved").rglob("*.npy"))]
    assert np.array_equal(np.concatenate(parts), values)


@pytest.mark.parametrize("url", ["memory://glintpy-tests/model", "file://{folder}/model"])
def test_any_url_that_fsspec_knows_will_do(client: Client, tmp_path: Path, url: str) -> None:
    url = url.format(folder=tmp_path)
    with client.vector(9, dtype="int64") as vector:
        vector.push(None, np.arange(9))
        vector.save(url, overwrite=True)
    with client.load(url) as loaded:
        assert loaded.pull().result().tolist() == list(range(9))
