"""Tables of texts as their users see them: against a dict, with every text that there is, saved and loaded."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.updaters import Adam
from tests.unit.test_texts import ALIKE

ODD = ["", "\0", "a\0", "a", "a\x01", "é" * 31, "日本語", "\U0001f600", "x" * 63, *ALIKE]


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


def test_a_table_of_texts_does_what_a_dict_does(client: glintpy.Client, seed: int) -> None:
    source = np.random.default_rng(seed)
    table = client.table(2, key_dtype="str")
    pool = [*ODD, *(f"word {number}" for number in range(50))]
    rows: dict[str, float] = {}
    for _ in range(40):
        keys = [pool[place] for place in source.integers(0, len(pool), source.integers(1, 25))]
        match source.integers(0, 4):
            case 0 | 1:
                table.push(keys, 1)
                for key in keys:
                    rows[key] = rows.get(key, 0) + 1
            case 2:
                table.remove(keys)
                for key in keys:
                    rows.pop(key, None)
            case _:
                table.pull(keys, create=True)
                for key in keys:
                    rows.setdefault(key, 0)
    assert table.pull(pool).result().tolist() == [[rows.get(key, 0)] * 2 for key in pool]
    assert table.contains(pool).result().tolist() == [key in rows for key in pool]
    assert sorted(table) == sorted(rows)
    assert len(table) == len(rows)
    found = {key: row[0] for keys, block in table.blocks(7) for key, row in zip(keys, block, strict=True)}
    assert found == rows


def test_texts_in_any_form(client: glintpy.Client) -> None:
    table = client.table(2, key_dtype="str", name="words")
    assert (table.key_dtype, table.spec.keys) == (np.dtype(object), "str63")
    table.push("one", [1, 2]).result()
    assert table.pull("one").result().tolist() == [1, 2]
    assert table.pull(np.str_("one")).result().tolist() == [1, 2]
    for keys in (["one", "two", "one"], ("one", "two", "one"), np.array(["one", "two", "one"])):
        assert table.pull(keys).result()[:, 0].tolist() == [1, 0, 1]
    assert table.pull(np.array(["one", "two"], object)).result().shape == (2, 2)
    assert "one" in table
    assert "two" not in table
    assert table.push_pull(["two", "one", "two"], 1).result()[:, 0].tolist() == [2, 2, 2]
    nothing: Any
    for nothing in ([], (), np.array([], str)):
        assert table.pull(nothing).result().shape == (0, 2)
        table.push(nothing, 1).result()
    keys, _ = next(table.blocks(9))
    assert keys.dtype == object
    assert {type(key) for key in keys} == {str}
    assert client.open("words", kind=glintpy.BigTable) == table
    assert client.table(2, key_dtype="str", name="words", exist_ok=True) == table
    with pytest.raises(glintpy.ModelExists, match=r"keys 'str200' != 'str63'"):
        client.table(2, key_dtype="str200", name="words", exist_ok=True)


@pytest.mark.parametrize(
    ("keys", "error", "match"),
    [
        (["a", b"b"], glintpy.DTypeError, r"texts, not b'b' at position 1"),
        (["a", 5], glintpy.DTypeError, "not 5 at position 1"),
        ([None], glintpy.DTypeError, "not None at position 0"),
        (5, glintpy.DTypeError, "texts, not int64"),
        (np.arange(3), glintpy.DTypeError, "texts, not int64"),
        (np.array([["a", "b"]]), glintpy.ShapeError, r"\(1, 2\)"),
        (["a", "x" * 64], glintpy.KeyRangeError, "position 1 has 64 bytes in UTF-8"),
        (["é" * 32], glintpy.KeyRangeError, "64 bytes"),
        (["\ud800"], glintpy.KeyRangeError, "surrogate"),
    ],
)
def test_what_is_no_key_is_refused_before_anything_is_sent(
    client: glintpy.Client, keys: Any, error: type[Exception], match: str
) -> None:
    table = client.table(2, key_dtype="str")
    for ask in (
        lambda: table.push(keys, 1),
        lambda: table.pull(keys),
        lambda: table.contains(keys),
        lambda: table.remove(keys),
    ):
        with pytest.raises(error, match=match):
            ask()
    with pytest.raises(glintpy.DTypeError, match="keys are integers"):
        client.table(2).pull("a")


def test_long_texts_travel_in_parts(client: glintpy.Client) -> None:
    table = client.table(1, key_dtype="str1000", dtype="int64")
    words = [f"{number:04}" * 250 for number in range(7000)]
    table.push(words, np.arange(7000)[:, None]).result()
    assert table.pull(words[::-1]).result()[:, 0].tolist() == list(range(7000))[::-1]
    assert len(table) == 7000
    assert sum(int(block.sum()) for _, block in table.blocks(500)) == sum(range(7000))


def test_gradients_of_repeated_texts_are_summed_as_those_of_numbers(client: glintpy.Client) -> None:
    texts = client.table(2, key_dtype="str", updater=Adam(learning_rate=0.1))
    numbers = client.table(2, updater=Adam(learning_rate=0.1))
    for _ in range(3):
        found = texts.push_pull(["b", "a", "b", "c"], [[1], [2], [3], [4]]).result()
        assert np.array_equal(found, numbers.push_pull([2, 1, 2, 3], [[1], [2], [3], [4]]).result())
    assert texts.pull_slot("steps", ["a", "b", "x"]).result().tolist() == [3, 3, 0]


@pytest.mark.parametrize("num_servers", [1, 2])
def test_a_table_of_texts_is_the_same_on_any_number_of_servers(
    client: glintpy.Client, tmp_path: Path, num_servers: int
) -> None:
    table = client.table(3, key_dtype="str", updater=Adam(learning_rate=0.5), init=("normal", 0, 1), name="t")
    words = [*ODD, *(f"{number}" for number in range(3000))]
    table.push(words, 1).result()
    table.remove(words[1000:2000]).result()
    table.save(str(tmp_path))
    saved = [item for path in tmp_path.glob("rows-*.npy") for item in np.load(path).tolist()]
    assert sorted(item[:-1].decode() for item in saved) == sorted(table)
    with glintpy.LocalCluster(num_servers, scheme="local") as other, other.client() as there:
        again = there.load(str(tmp_path), kind=glintpy.BigTable)
        assert (again.spec, sorted(again)) == (table.spec, sorted(table))
        # Of those that were removed, too: they read as they would begin.
        assert np.array_equal(again.pull(words).result(), table.pull(words).result())
        for slot in table.slots:
            assert np.array_equal(
                again.pull_slot(slot, words).result(), table.pull_slot(slot, words).result()
            )
