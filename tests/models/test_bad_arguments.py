"""Arguments that can't be used are refused with the numbers when something is made, opened or set."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glintpy import BigVector, Client, ColumnIterator, LocalCluster, PushBuffer, RowBlockIterator, RowIterator
from glintpy.cluster import ServerOptions
from glintpy.config import ServerSettings
from glintpy.errors import (
    CheckpointNotFound,
    ConfigError,
    DTypeError,
    GlintError,
    ModelExists,
    ModelNotFound,
    NotEnoughMemory,
    NotEnoughServers,
    PushRefused,
    ShapeError,
)
from glintpy.functions.sampling import Sample
from glintpy.nodes import start_master, start_server
from glintpy.partitioning import named
from glintpy.testing.partitioners import scattered

LIMIT = 10_000_000


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    with LocalCluster(2, scheme="local", memory_limit=LIMIT) as made:
        yield made


@pytest.fixture(scope="module")
def client(cluster: LocalCluster) -> Iterator[Client]:
    with cluster.client() as made:
        made.matrix(8, 4, name="taken")
        yield made


def check_as_it_was(client: Client) -> None:
    assert client.models() == ["taken"]
    for server in client.status()["servers"]:
        assert server["holds"]["model_bytes"] == 4 * 4 * 8


Make = Callable[[Client], object]

MAKING: dict[str, tuple[Make, type[GlintError], str]] = {
    "negative rows": (lambda c: c.matrix(-1, 5), ShapeError, "rows is -1"),
    "negative cols": (lambda c: c.matrix(5, -1), ShapeError, "cols is -1"),
    "negative size": (lambda c: c.vector(-1), ShapeError, "-1"),
    "rows as float": (lambda c: c.matrix(5.0, 5), ShapeError, "5.0"),  # type: ignore[arg-type]
    "rows as text": (lambda c: c.matrix("5", 5), ShapeError, "'5'"),  # type: ignore[arg-type]
    "rows as bool": (lambda c: c.matrix(True, 5), ShapeError, "True"),
    "rows as None": (lambda c: c.matrix(None, 5), ShapeError, "None"),  # type: ignore[arg-type]
    "size as an array": (lambda c: c.vector(np.array([5])), ShapeError, "array"),
    "2**63 rows": (lambda c: c.matrix(2**63, 5), ShapeError, str(2**63)),
    "10**30 rows": (lambda c: c.vector(10**30), ShapeError, str(10**30)),
    "more cells than can be addressed": (lambda c: c.matrix(2**40, 2**40), ShapeError, str(2**40)),
    "more bytes than there are": (lambda c: c.matrix(2**40, 5), NotEnoughMemory, "free"),
    "more bytes than are allowed": (lambda c: c.vector(LIMIT // 4 + 1_000), NotEnoughMemory, str(LIMIT)),
    "object dtype": (lambda c: c.vector(5, dtype=object), DTypeError, "object"),
    "complex dtype": (lambda c: c.vector(5, dtype="complex128"), DTypeError, "complex128"),
    "text dtype": (lambda c: c.vector(5, dtype="U5"), DTypeError, "one of"),
    "date dtype": (lambda c: c.vector(5, dtype="M8[s]"), DTypeError, "one of"),
    "structured dtype": (lambda c: c.vector(5, dtype=[("a", "f4")]), DTypeError, "one of"),
    "no dtype": (lambda c: c.vector(5, dtype="float31"), DTypeError, "float31"),
    "long double": (lambda c: c.vector(5, dtype=np.longdouble), DTypeError, "one of"),
    "unknown partitioner": (lambda c: c.vector(5, partitioner="magic"), ConfigError, "magic"),
    "a partitioner's class": (lambda c: c.vector(5, partitioner=int), ConfigError, "partitioner"),  # type: ignore[arg-type]
    "a partitioner of another size": (
        lambda c: c.vector(5, partitioner=named("range", 6, 2)),
        ShapeError,
        "6 keys; the model has 5",
    ),
    "no partitions": (lambda c: c.vector(5, partitions_per_server=0), ConfigError, "0"),
    "too many partitions": (lambda c: c.vector(5, partitions_per_server=5000), ConfigError, "5000"),
    "partitions as float": (lambda c: c.vector(5, partitions_per_server=1.0), ConfigError, "1.0"),  # type: ignore[arg-type]
    "empty name": (lambda c: c.vector(5, name=""), ConfigError, "name"),
    "long name": (lambda c: c.vector(5, name="x" * 129), ConfigError, "128"),
    "name with a line break": (lambda c: c.vector(5, name="a\nb"), ConfigError, "printable"),
    "name as number": (lambda c: c.vector(5, name=5), ConfigError, "5"),  # type: ignore[arg-type]
    "name as bytes": (lambda c: c.vector(5, name=b"x"), ConfigError, "b'x'"),  # type: ignore[arg-type]
    "unknown updater": (lambda c: c.vector(5, updater="magic"), ConfigError, "magic"),
    "unknown init": (lambda c: c.vector(5, init=("magic", 0, 1)), ConfigError, "magic"),
    "init as text": (lambda c: c.vector(5, init="uniform"), ConfigError, "uniform"),  # type: ignore[arg-type]
    "init backward": (lambda c: c.vector(5, init=("uniform", 1, 0)), ConfigError, "low"),
    "negative deviation": (lambda c: c.vector(5, init=("normal", 0, -1)), ConfigError, "deviation"),
    "random ints": (lambda c: c.vector(5, dtype="int8", init=("uniform", 0, 1)), DTypeError, "int8"),
    "init that int8 can't hold": (lambda c: c.vector(5, dtype="int8", init=128), DTypeError, "-128 to 127"),
    "init of half an int": (lambda c: c.vector(5, dtype="int8", init=0.5), DTypeError, "0.5"),
    "init that float16 can't hold": (lambda c: c.vector(5, dtype="float16", init=1e6), DTypeError, "float16"),
    "seed as float": (lambda c: c.vector(5, seed=0.5), ConfigError, "0.5"),  # type: ignore[arg-type]
    "seed of 65 bits": (lambda c: c.vector(5, seed=2**64), ConfigError, str(2**64)),
    "finite as number": (lambda c: c.vector(5, finite=1), ConfigError, "finite"),  # type: ignore[arg-type]
    "a taken name": (lambda c: c.matrix(8, 4, name="taken"), ModelExists, "'taken'"),
    "another shape": (lambda c: c.matrix(8, 5, name="taken", exist_ok=True), ModelExists, "num_cols 5 != 4"),
    "more rows": (lambda c: c.matrix(9, 4, name="taken", exist_ok=True), ModelExists, "9"),
    "another kind": (lambda c: c.vector(8, name="taken", exist_ok=True), ModelExists, "num_cols"),
    "another dtype": (
        lambda c: c.matrix(8, 4, name="taken", dtype="f4", exist_ok=True),
        ModelExists,
        "float32",
    ),
    "another init": (
        lambda c: c.matrix(8, 4, name="taken", init=1, exist_ok=True),
        ModelExists,
        "init 1 != 0",
    ),
    "open nothing": (lambda c: c.open("nothing"), ModelNotFound, "'nothing'"),
    "open the empty name": (lambda c: c.open(""), ConfigError, "1 to 128"),
    "open a long name": (lambda c: c.open("x" * 129), ConfigError, "1 to 128"),
    "open half a surrogate pair": (lambda c: c.open("\ud800"), ConfigError, "ud800"),
    "open a number": (lambda c: c.open(5), ConfigError, "not 5"),  # type: ignore[call-overload]
    "open under another partitioner": (
        lambda c: c.open("taken", partitioner=scattered(8, 2)),
        ConfigError,
        "partitioner",
    ),
    "open under another size": (
        lambda c: c.open("taken", partitioner=named("range", 9, 2)),
        ConfigError,
        "9",
    ),
    "load nothing": (lambda c: c.load("memory://bad-arguments/nothing"), CheckpointNotFound, "nothing"),
}


@pytest.mark.parametrize(("make", "error", "word"), MAKING.values(), ids=MAKING)
def test_what_cannot_be_made_is_refused_and_nothing_is_left(
    client: Client, make: Make, error: type[GlintError], word: str
) -> None:
    with pytest.raises(error) as raised:
        make(client)
    assert word in str(raised.value)
    check_as_it_was(client)


@pytest.mark.parametrize("group", ["g", 3])
@pytest.mark.parametrize("consistency", ["async", "bsp", "ssp(1)"])
def test_a_group_is_no_name_of_one(client: Client, consistency: str, group: Any) -> None:
    options = {"consistency": consistency, "group": group}
    for call in (
        lambda: client.vector(5, **options),
        lambda: client.matrix(5, 5, **options),
        lambda: client.table(5, **options),
        lambda: client.load("memory://bad-arguments/nothing", **options),
        lambda: client.open("taken").with_options(**options),
        lambda: client.open("taken").with_options(group=group),
    ):
        with pytest.raises(ConfigError, match=rf"group=client.join\(...\), or None; not {group!r}"):
            call()
    check_as_it_was(client)


@pytest.mark.parametrize("function", ["sample", Sample(n=3, piece=1)])
def test_a_sample_s_piece_is_not_the_caller_s(client: Client, function: Any) -> None:
    numbers: dict[str, Any] = {"n": 3, "piece": 1} if isinstance(function, str) else {}
    with pytest.raises(ConfigError, match="leave out piece=1"):
        client.open("taken").call(function, **numbers)


def test_sizes_may_be_whatever_is_an_integer_and_zero(client: Client) -> None:
    with client.matrix(np.int16(3), np.uint8(0)) as made:
        assert made.shape == (3, 0)
        assert made.pull().result().shape == (3, 0)
    with client.vector(np.array(0)) as empty:
        assert empty.pull().result().shape == (0,)
    check_as_it_was(client)


def test_a_saved_model_is_not_loaded_under_bad_arguments(client: Client, tmp_path: Path) -> None:
    url = str(tmp_path / "saved")
    client.open("taken").save(url)
    for options, error in (
        ({}, ModelExists),
        ({"name": "a\nb"}, ConfigError),
        ({"name": ""}, ConfigError),
        ({"name": "new", "partitioner": "magic"}, ConfigError),
        ({"name": "new", "partitions_per_server": -1}, ConfigError),
        ({"name": "new", "partitions_per_server": 0}, ConfigError),
        ({"name": "new", "partitioner": named("range", 9, 2)}, ShapeError),
    ):
        with pytest.raises(error):
            client.load(url, **options)
    check_as_it_was(client)


BAD_TIMES: list[Any] = [10**400, 0, -1, float("nan"), float("inf"), "5", True, [5]]


@pytest.mark.parametrize("timeout_s", BAD_TIMES)
def test_times_are_positive_numbers(cluster: LocalCluster, client: Client, timeout_s: Any) -> None:
    model = client.open("taken")
    for call in (
        lambda: Client(cluster.address, timeout_s=timeout_s),
        lambda: model.with_options(timeout_s=timeout_s),
        lambda: client.wait_for_servers(1, timeout_s=timeout_s),
    ):
        with pytest.raises(ConfigError, match="timeout_s is a positive number"):
            call()


@pytest.mark.parametrize("choice", ["never", "", None, True, 5, ["wait"]])
def test_what_to_do_when_a_server_is_lost_is_one_of_two(
    cluster: LocalCluster, client: Client, choice: Any
) -> None:
    with pytest.raises(ConfigError, match="on_server_lost"):
        Client(cluster.address, on_server_lost=choice)
    with pytest.raises(ConfigError, match="on_server_lost"):
        client.open("taken").with_options(on_server_lost=choice)


@pytest.mark.parametrize("name", ["", "x" * 129, "a\nb", "\ud800", 5, b"x"])
def test_members_need_names_that_can_be_read(cluster: LocalCluster, name: Any) -> None:
    with pytest.raises(ConfigError, match="a client's name has 1 to 128 printable"):
        Client(cluster.address, name=name)
    with pytest.raises(ConfigError, match="a server's name has 1 to 128 printable"):
        start_server(cluster.address, address="local://bad-arguments-named", name=name)


@pytest.mark.parametrize("number", [0, -5, 1.0, "5", None, True])
def test_limits_in_bytes_are_positive_integers(cluster: LocalCluster, client: Client, number: Any) -> None:
    with pytest.raises(ConfigError, match="queued_bytes_max"):
        Client(cluster.address, queued_bytes_max=number)
    with pytest.raises(ConfigError, match="max_bytes"):
        PushBuffer(client.open("taken"), max_bytes=number)


@pytest.mark.parametrize(
    "address",
    [
        "",
        "localhost",
        "127.0.0.1:13370",
        "tcp://127.0.0.1",
        "http://x:1",
        "ipc://",
        None,
        5,
        b"tcp://127.0.0.1:5",
    ],
)
def test_a_client_needs_an_address(address: Any) -> None:
    with pytest.raises(ConfigError, match="one looks like"):
        Client(address)


@pytest.mark.parametrize(
    ("options", "word"),
    [
        ({"servers": 0}, "servers is at least 1, not 0"),
        ({"servers": 1.5}, "1.5"),
        ({"servers": True}, "True"),
        ({"scheme": "udp"}, "udp"),
        ({"scheme": None}, "None"),
        ({"durability": "disk"}, "disk"),
        ({"memory_limit": 0}, "memory_limit"),
        ({"memory_limit": 1e9}, "memory_limit"),
        (
            {"server_options": ServerOptions(settings=ServerSettings(memory_limit=9))},
            r"memory_limit is for LocalCluster\(memory_limit=",
        ),
        ({"server_options": ServerOptions(watchdog_s=10.0)}, "share this process"),
        ({"server_options": lambda index: ServerOptions(plant=f"defect-{index}")}, "share this process"),
    ],
)
def test_a_cluster_is_not_begun_with_bad_arguments(options: dict[str, Any], word: str) -> None:
    with pytest.raises(ConfigError, match=word):
        LocalCluster(**{"scheme": "local", **options})


@pytest.mark.parametrize("number", [0, -1, 1.5, "4", None])
def test_iterators_refuse_counts_that_are_none(client: Client, number: Any) -> None:
    model = client.open("taken")
    makers: list[Callable[[], object]] = [
        lambda: RowIterator(model, depth=number),  # type: ignore[arg-type]
        lambda: RowBlockIterator(model, number),  # type: ignore[arg-type]
        lambda: RowBlockIterator(model, 2, depth=number),  # type: ignore[arg-type]
        lambda: ColumnIterator(model, depth=number),  # type: ignore[arg-type]
    ]
    if number is not None:
        makers.append(lambda: RowIterator(model, block_rows=number))  # type: ignore[arg-type]
    for make in makers:
        with pytest.raises(ConfigError, match=r"integer of at least 1|it is at least 1"):
            make()


@pytest.mark.parametrize(("start", "stop"), [(-1, 3), (5, 4), (0, 9), (9, None), (0.5, None), ("0", None)])
def test_iterators_refuse_rows_that_are_not_there(client: Client, start: Any, stop: Any) -> None:
    with pytest.raises(ShapeError, match=r"start is|row number"):
        RowIterator(client.open("taken"), start=start, stop=stop)  # type: ignore[arg-type]


def test_a_cluster_without_servers_makes_no_model() -> None:
    master = start_master("local://bad-arguments-alone")
    try:
        with Client(master.address) as client:
            for make in (lambda: client.vector(5), lambda: client.vector(0), lambda: client.matrix(5, 5)):
                with pytest.raises(NotEnoughServers, match="glintpy server"):
                    make()
            assert client.models() == []
    finally:
        master.stop()


def test_a_model_that_is_gone_is_not_found_anywhere(cluster: LocalCluster, client: Client) -> None:
    made = client.vector(5, name="gone")
    with cluster.client() as other:
        handle = other.open("gone")
        assert isinstance(handle, BigVector)
        made.destroy()
        remade = client.vector(5, name="gone", init=7)  # another model under the old name
        with pytest.raises(ModelNotFound):
            handle.pull([1]).result()
        with pytest.raises(ModelNotFound) as raised:
            handle.push([1], 1).result()
        assert not isinstance(raised.value, PushRefused)
        for call in (made.pull, made.destroy, lambda: made.push([1], 1), lambda: made.save("/nowhere")):
            with pytest.raises(ModelNotFound, match="'gone'"):
                call()
        with pytest.raises(ModelNotFound):
            handle.destroy()
        np.testing.assert_array_equal(remade[:], np.full(5, 7))
        remade.destroy()
    check_as_it_was(client)
