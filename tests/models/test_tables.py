"""Tables as their users see them: keys that nobody declared, against a dict, on both transports."""

from __future__ import annotations

import pickle
import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.config import PART_BYTES
from glintpy.updaters import Adagrad, Adam

COLS = 4


@pytest.fixture(scope="module", params=["local", "tcp"])
def cluster(request: pytest.FixtureRequest) -> Iterator[glintpy.LocalCluster]:
    with glintpy.LocalCluster(3, scheme=request.param) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: glintpy.LocalCluster) -> Iterator[glintpy.Client]:
    with cluster.client() as client:
        yield client
        for name in client.models():
            client.destroy(name)


@pytest.fixture
def table(client: glintpy.Client) -> glintpy.BigTable:
    return client.table(COLS)


def contents(table: glintpy.BigTable) -> dict[int, list[float]]:
    found: dict[int, list[float]] = {}
    for keys, block in table.blocks(7):
        assert 0 < len(keys) <= 7
        assert block.shape == (len(keys), COLS)
        assert not set(keys.tolist()) & set(found)
        found.update(zip(keys.tolist(), block.tolist(), strict=True))
    return found


# --- reading and changing --------------------------------------------------------------------------------------


def test_a_table_does_what_a_dict_of_rows_does(table: glintpy.BigTable, seed: int) -> None:
    source = np.random.default_rng(seed)
    pool = source.integers(-(2**63), 2**63 - 1, 60, endpoint=True)
    rows: dict[int, np.ndarray[Any, Any]] = {}
    for _ in range(40):
        keys = source.choice(pool, source.integers(1, 25))
        values = source.integers(-5, 5, (len(keys), COLS)).astype(np.float32)
        match source.integers(0, 4):
            case 0 | 1:
                table.push(keys, values)
                for key, value in zip(keys.tolist(), values, strict=True):
                    rows[key] = rows.get(key, 0) + value
            case 2:
                table.remove(keys)
                for key in keys.tolist():
                    rows.pop(key, None)
            case _:
                table.pull(keys, create=True)
                for key in keys.tolist():
                    rows.setdefault(key, np.zeros(COLS, np.float32))
    asked = source.permutation(pool)
    expected = [rows.get(key, np.zeros(COLS)) for key in asked.tolist()]
    assert np.array_equal(table.pull(asked).result(), expected)
    assert table.contains(asked).result().tolist() == [key in rows for key in asked.tolist()]
    assert len(table) == table.num_keys().result() == len(rows)
    assert set(table) == set(rows)
    assert contents(table) == {key: row.tolist() for key, row in rows.items()}


def test_one_key_gives_one_row(table: glintpy.BigTable) -> None:
    table.push(7, 2.5).result()
    table.push(np.int32(7), [0, 1, 2, 3])
    assert table.pull(7).result().tolist() == [2.5, 3.5, 4.5, 5.5]
    assert table.push_pull(8, 1).result().tolist() == [1] * COLS
    assert table.contains(7).result().shape == ()
    assert 7 in table
    assert 9 not in table


def test_unknown_keys_read_as_they_would_begin_and_stay_unknown(client: glintpy.Client) -> None:
    table = client.table(COLS, init=("uniform", 1, 2), seed=5)
    first = table.pull([3, -3, 3]).result()
    assert np.array_equal(first[0], first[2])
    assert np.all((first >= 1) & (first < 2))
    assert len(table) == 0
    assert np.array_equal(table.pull([3, -3, 3], create=True).result(), first)
    assert len(table) == 2
    table.push([3], 1).result()
    table.remove([3]).result()
    assert np.array_equal(table.pull(3).result(), first[0])
    # The same on any number of servers, and whoever comes first.
    with glintpy.LocalCluster(1, scheme="local") as other, other.client() as alone:
        assert np.array_equal(
            alone.table(COLS, init=("uniform", 1, 2), seed=5).pull([3, -3, 3]).result(), first
        )


def test_push_pull_and_out_with_repeats(client: glintpy.Client) -> None:
    for updater in ("add", Adagrad(learning_rate=1.0)):
        table, matrix = (
            client.table(COLS, updater=updater),
            client.matrix(9, COLS, dtype="float32", updater=updater),
        )
        keys, rows = np.array([10**12, -5, 10**12, 3]), [1, 2, 1, 3]
        values = np.arange(16).reshape(4, 4)
        out = np.empty((4, COLS), np.float32)
        found = table.push_pull(keys, values, out=out)
        assert found.result() is out
        assert np.array_equal(out, matrix.push_pull(rows, values).result())
        into = np.empty((4, COLS), np.float32)
        assert table.pull(keys, out=into).result() is into
        assert np.array_equal(into, out)
        table.pull([77, *keys[:3]], create=True, out=into).result()
        assert np.array_equal(into[1:], out[:3])


def test_slots_and_steps_are_asked_for_by_key(client: glintpy.Client) -> None:
    table = client.table(COLS, updater=Adam(learning_rate=0.1))
    table.push([5, 6, 5], 1.0).result()
    table.push([5], 1.0).result()
    assert table.slots == ("mean", "variance", "steps")
    assert table.pull_slot("steps", [5, 6, 7]).result().tolist() == [2, 1, 0]
    assert table.pull_slot("mean", [7]).result().tolist() == [[0.0] * COLS]
    assert table.pull_slot("mean", 6).result().shape == (COLS,)
    table.configure(learning_rate=0.5)
    assert table.updater == Adam(learning_rate=0.5)
    with pytest.raises(glintpy.ConfigError, match="no slot 'sum'"):
        table.pull_slot("sum", [5])


def test_unsigned_keys(client: glintpy.Client) -> None:
    table = client.table(COLS, key_dtype="uint64")
    keys = [2**64 - 1, 0, 2**63]
    table.push(keys, 1).result()
    table.push(np.array(keys, np.uint64), 1).result()
    assert sorted(table) == sorted(keys)
    assert table.key_dtype == np.uint64
    assert table.pull(keys).result().tolist() == [[2.0] * COLS] * 3


def test_more_than_one_part_and_a_block_size_of_ones_own(client: glintpy.Client) -> None:
    table = client.table(COLS, dtype="float64")
    num_keys = 3 * 3 * PART_BYTES // (8 * COLS + 8)
    keys = np.arange(num_keys, dtype=np.int64) * 3 - 50
    assert table.push_pull(keys, np.arange(num_keys)[:, None]).result()[:, 0].tolist() == list(
        range(num_keys)
    )
    sizes, seen = [], np.zeros(num_keys, np.int64)
    for found, block in table.blocks(50_000):
        sizes.append(len(found))
        places = (found + 50) // 3
        assert np.array_equal(block[:, 0], places)
        seen[places] += 1
    assert sizes == [50_000] * (num_keys // 50_000) + [num_keys % 50_000]
    assert seen.tolist() == [1] * num_keys
    table.remove(keys[::2]).result()
    assert len(table) == num_keys // 2


def test_nothing_asked_for_gives_nothing(table: glintpy.BigTable) -> None:
    assert table.pull([]).result().shape == (0, COLS)
    assert table.pull([], create=True).result().shape == (0, COLS)
    assert table.push_pull([], np.empty((0, COLS))).result().shape == (0, COLS)
    assert table.contains([]).result().shape == (0,)
    table.push([], np.empty((0, COLS))).result()
    table.remove([]).result()
    assert (len(table), list(table), list(table.blocks(3))) == (0, [], [])


def test_threads_that_push_the_same_new_keys_lose_nothing(table: glintpy.BigTable) -> None:
    def push() -> None:
        for first in range(0, 500, 10):
            table.push(np.arange(first, first + 10), 1)

    threads = [threading.Thread(target=push) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    table.flush()
    assert len(table) == 500
    assert np.array_equal(table.pull(np.arange(500)).result(), np.full((500, COLS), 4))


def test_keys_that_are_there_all_the_while_come_once_while_others_come_and_go(
    table: glintpy.BigTable,
) -> None:
    table.push(np.arange(40_000), 1).result()
    seen: list[int] = []
    for number, (keys, _) in enumerate(table.blocks(1000)):
        seen += keys[(keys >= 0) & (keys < 20_000)].tolist()
        table.remove(np.arange(20_000 + 500 * number, 20_500 + 500 * number))
        table.push(-np.arange(1, 1000) - 1000 * number, 1)
    assert sorted(seen) == list(range(20_000))


# --- handles ---------------------------------------------------------------------------------------------------


def test_handles_are_found_again_equal_and_picklable(client: glintpy.Client) -> None:
    table = client.table(COLS, name="users")
    table.push([3], 1).result()
    again = client.open("users", kind=glintpy.BigTable)
    assert isinstance(again, glintpy.BigTable)
    assert again == table
    assert hash(again) == hash(table)
    assert repr(table) == "BigTable('users', cols=4, dtype=float32, keys=int64, servers=3)"
    assert client.open("users") == table
    with pytest.raises(glintpy.ConfigError, match="model 'users' is a BigTable, not a BigMatrix"):
        client.open("users", kind=glintpy.BigMatrix)
    assert client.table(COLS, name="users", exist_ok=True) == table
    with pytest.raises(glintpy.ModelExists, match=r"keys 'uint64' != 'int64'"):
        client.table(COLS, name="users", key_dtype="uint64", exist_ok=True)
    with pytest.raises(glintpy.ModelExists, match="differs"):
        client.matrix(3, COLS, dtype="float32", name="users", exist_ok=True)
    with table:
        pass
    with pytest.raises(glintpy.ModelNotFound):
        table.pull([3])
    with pytest.raises(glintpy.ModelNotFound):
        again.pull([3]).result()
    with pytest.raises(glintpy.ModelNotFound):
        len(again)
    with pytest.raises(glintpy.ModelNotFound):
        list(again)


@pytest.mark.pickles
def test_a_handle_pickles(table: glintpy.BigTable) -> None:
    table.push([3], 1).result()
    copy: glintpy.BigTable = pickle.loads(pickle.dumps(table))  # noqa: S301 - our own bytes
    assert copy == table
    assert copy.pull(3).result().tolist() == [1] * COLS


def test_a_view_with_other_options_is_the_same_table(table: glintpy.BigTable) -> None:
    view = table.with_options(timeout_s=5, on_server_lost="raise")
    view.push([1], 1).result()
    assert view == table
    assert 1 in view


def test_servers_say_how_many_keys_they_have(client: glintpy.Client) -> None:
    table = client.table(COLS, name="counted")
    table.push(np.arange(3000), 1).result()
    servers = client.status()["servers"]
    held = [held for server in servers for held in server["holds"]["models"] if held["name"] == "counted"]
    assert sum(model["rows"] for model in held) == 3000
    assert all(800 < model["rows"] < 1200 for model in held)
    assert all(model["bytes"] >= 16 * model["rows"] for model in held)


# --- bad input -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "error", "text"),
    [
        (1.5, glintpy.DTypeError, "keys are integers"),
        ([1.0, 2.0], glintpy.DTypeError, "keys are integers, not float64"),
        (["a"], glintpy.DTypeError, "keys are integers"),
        ([True, False], glintpy.DTypeError, "no masks"),
        (None, glintpy.ShapeError, r"not of shape \(\)"),
        (slice(3), glintpy.ShapeError, r"not of shape \(\)"),
        ([[1, 2]], glintpy.ShapeError, r"not of shape \(1, 2\)"),
        ([0, 2**63], glintpy.KeyRangeError, "key 9223372036854775808 at position 1 is outside of int64"),
        ([0, -(2**63) - 1], glintpy.KeyRangeError, "at position 1 is outside"),
        (np.array([5, 2**63], np.uint64), glintpy.KeyRangeError, "at position 1 is outside"),
        ([2**70, -1], glintpy.KeyRangeError, "at position 0 is outside"),
    ],
)
def test_keys_that_no_table_has_are_refused_before_anything_is_sent(
    table: glintpy.BigTable, keys: Any, error: type[Exception], text: str
) -> None:
    for call in (table.pull, table.contains, table.remove, lambda keys: table.push(keys, 1)):
        with pytest.raises(error, match=text):
            call(keys)
    assert len(table) == 0


def test_values_and_outs_that_do_not_fit_are_refused_before_anything_is_sent(table: glintpy.BigTable) -> None:
    with pytest.raises(glintpy.ShapeError):
        table.push([1, 2], np.ones((3, COLS)))
    with pytest.raises(glintpy.DTypeError):
        table.push([1], "x")
    with pytest.raises(glintpy.ShapeError):
        table.pull([1], out=np.empty((2, COLS), np.float32))
    with pytest.raises(glintpy.ConfigError, match="n is 0"):
        table.blocks(0)
    with pytest.raises(TypeError, match="truth value"):
        bool(table)
    assert len(table) == 0


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"cols": 0}, glintpy.ShapeError, "a row of a table has 1 to"),
        ({"cols": -1}, glintpy.ShapeError, "cols is -1"),
        ({"cols": 2**20}, glintpy.ShapeError, "a row of a table has 1 to"),
        ({"max_bytes": 1000}, glintpy.ConfigError, "may have 29 keys; .* max_bytes=34816 or more"),
        ({"max_bytes": 0}, glintpy.ConfigError, "34 for each key, not 0"),
        ({"max_bytes": "1GB"}, glintpy.ConfigError, "max_bytes is a number"),
        ({"key_dtype": "int32"}, glintpy.ConfigError, "key_dtype is one of 'int64', 'uint64'"),
        ({"key_dtype": ""}, glintpy.ConfigError, "key_dtype is the name"),
        ({"key_dtype": None}, glintpy.ConfigError, "key_dtype is the name"),
        ({"dtype": "complex64"}, glintpy.DTypeError, "complex64"),
        ({"init": "x"}, glintpy.ConfigError, "init is"),
        ({"init": ("normal", 0, 1e38)}, glintpy.ConfigError, "reaches"),
        ({"updater": "nothing"}, glintpy.ConfigError, "nothing"),
        ({"durability": "disk"}, glintpy.ConfigError, "start it with --data-dir"),
        ({"consistency": "ssp"}, glintpy.ConfigError, "consistency"),
    ],
)
def test_tables_that_can_not_be_are_refused_and_nothing_is_left(
    client: glintpy.Client, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        client.table(**{"cols": COLS, **options})
    assert client.models() == []


def test_a_table_may_take_so_many_bytes_and_no_more(client: glintpy.Client) -> None:
    table = client.table(COLS, max_bytes=34 * 3000, name="bounded")
    table.push(np.arange(2500), 1).result()
    with pytest.raises((glintpy.PushRefused, glintpy.PushOutcomeUnknown), match=r"it may have \d+ there"):
        table.push(np.arange(2500, 4000), 1).result()
    table.push(np.arange(2500), 1).result()
    assert np.array_equal(table.pull(np.arange(2500)).result(), np.full((2500, COLS), 2))
    assert len(table) <= 3000
    assert client.table(COLS, max_bytes=34 * 3000, name="bounded", exist_ok=True) == table
    with pytest.raises(glintpy.ModelExists, match="num_rows"):
        client.table(COLS, name="bounded", exist_ok=True)


def test_a_table_follows_no_rounds(client: glintpy.Client) -> None:
    with client.join("workers", num_workers=1) as group:
        with pytest.raises(glintpy.ConfigError, match="can't follow a group's rounds"):
            client.table(COLS, consistency="bsp", group=group)
        table = client.table(COLS, consistency="ssp(1)", group=group)
        table.push([1], 1).result()
        assert table.pull([1]).result().tolist() == [[1.0] * COLS]


def test_what_names_rows_by_number_is_not_for_tables(client: glintpy.Client) -> None:
    table = client.table(COLS, name="t")
    assert not hasattr(table, "argmax")
    assert not hasattr(table, "shape")
    with pytest.raises(TypeError):
        table[3]  # type: ignore[index]  # refused
