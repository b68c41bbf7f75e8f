"""Functions on tables: what numpy makes of all rows, whichever keys there are, and nothing of rows that have none."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
import pytest
from numpy.typing import NDArray

import glintpy
from glintpy.functions import Answer, Asking, Piece, Reading
from glintpy.functions.base import Ask
from glintpy.functions.changes import Fill, Put
from glintpy.models import table_functions
from glintpy.updaters import Adagrad

COLS = 3


@pytest.fixture(scope="module")
def cluster() -> Iterator[glintpy.LocalCluster]:
    with glintpy.LocalCluster(3, scheme="local") as cluster:
        yield cluster


@pytest.fixture
def client(cluster: glintpy.LocalCluster) -> Iterator[glintpy.Client]:
    with cluster.client() as client:
        yield client
        for name in client.models():
            client.destroy(name)


def filled(
    client: glintpy.Client, seed: int, key_dtype: str = "int64", **options: Any
) -> tuple[glintpy.BigTable, list[Any], NDArray[Any]]:
    """Return a table of which a third was removed, its keys, and their rows."""
    table = client.table(COLS, key_dtype=key_dtype, init=1, **options)
    keys = [str(key) if key_dtype == "str" else key * 7 - 100 for key in range(900)]
    table.push(keys, np.random.default_rng(seed).normal(size=(900, COLS)).astype(np.float32)).result()
    table.remove(keys[200:500]).result()
    left = keys[:200] + keys[500:]
    return table, left, table.pull(left).result()


@pytest.fixture(params=[False, True], ids=["in one piece", "in many"])
def in_pieces(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Have pieces of a few rows, so that a table has many, and some without a key."""
    if request.param:
        monkeypatch.setattr(table_functions.TableCutting, "rows_max", 37)


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize("key_dtype", ["int64", "str"])
def test_it_is_what_numpy_makes_of_all_rows(client: glintpy.Client, key_dtype: str, seed: int) -> None:
    table, keys, rows = filled(client, seed, key_dtype)
    wide = rows.astype(np.float64)
    assert table.sum().result() == pytest.approx(wide.sum())
    assert table.mean(0).result() == pytest.approx(wide.mean(0))
    assert table.min().result() == rows.min()
    assert table.max(axis=0).result().tolist() == rows.max(axis=0).tolist()
    assert table.count_nonzero().result() == rows.size
    counts, _ = table.call("histogram", bins=4, low=-2, high=4).result()
    assert counts.tolist() == np.histogram(wide, 4, (-2, 4))[0].tolist()
    by_row: list[tuple[Callable[[], glintpy.Future[Any]], NDArray[Any]]] = [
        (table.norms, np.linalg.norm(wide, axis=1)),
        (lambda: table.sum(axis=1), wide.sum(1)),
        (lambda: table.max(axis=1), wide.max(1)),
    ]
    for ask, expected in by_row:
        found_keys, numbers = ask().result()
        found = dict(zip(found_keys.tolist(), numbers.tolist(), strict=True))
        assert [found[key] for key in keys] == pytest.approx(expected)
        assert len(found) == len(keys)
    query = np.array([1.0, -2.0, 0.5])
    best, scores = table.top_k(query, 5).result()
    order = np.argsort(-(wide @ query))[:5]
    assert best.tolist() == [keys[place] for place in order]
    assert scores == pytest.approx((wide @ query)[order])
    assert len(table.top_k(query, 5000, metric="cosine").result()[0]) == len(keys)


@pytest.mark.usefixtures("in_pieces")
@pytest.mark.parametrize("key_dtype", ["uint64", "str"])
def test_changes_reach_all_rows_once_and_none_that_is_not_there(
    client: glintpy.Client, key_dtype: str
) -> None:
    table = client.table(COLS, key_dtype=key_dtype, init=1, updater=Adagrad(), track=True)
    keys = [str(key) if key_dtype == "str" else key for key in range(500)]
    table.push(keys, 1).result()
    table.remove(keys[::2]).result()
    before, sums = table.pull(keys[1::2]).result(), table.pull_slot("sum_of_squares", keys).result()
    changed = table.scale(3)
    assert np.array_equal(table.pull(keys[1::2]).result(), before * 3)  # which came behind it
    changed.result()
    table.clip(low=0.5, high=2).result()
    assert np.array_equal(table.pull(keys[1::2]).result(), np.clip(before * 3, 0.5, 2))
    table.fill(9).result()
    assert table.sum().result() == 250 * COLS * 9
    assert table.pull(keys[::2]).result().tolist() == [[1.0] * COLS] * 250
    assert len(table) == 250
    # Neither what the updater keeps, nor what was counted.
    assert np.array_equal(table.pull_slot("sum_of_squares", keys).result(), sums)
    assert table.pull_slot("touches", keys[1]).result() == 1
    table.push(keys[:1], 0).result()
    assert table.pull(keys[0]).result().tolist() == [1.0] * COLS


def test_of_nothing(client: glintpy.Client) -> None:
    table = client.table(COLS)
    table.push([1, 2], 1)
    table.remove([1, 2])
    assert table.sum().result() == 0
    assert table.sum(axis=0).result().tolist() == [0] * COLS
    assert np.isnan(table.mean().result())
    assert [array.shape for array in table.norms().result()] == [(0,), (0,)]
    assert [array.shape for array in table.top_k([1, 2, 3]).result()] == [(0,), (0,)]
    table.scale(2).result()
    with pytest.raises(glintpy.ShapeError, match="nothing has no max"):
        table.max().result()


@pytest.mark.parametrize("function", ["argmax", "sample", "dot", "put", "dot_negative", "adjust"])
def test_what_names_rows_by_number_is_refused_here(client: glintpy.Client, function: str) -> None:
    numbers = {"seed": 1} if function in {"dot_negative", "adjust"} else {}
    with pytest.raises(glintpy.ConfigError, match=f"function '{function}' names rows by number"):
        client.table(COLS).call(function, **numbers)


def test_bad_arguments_are_told_before_anything_is_sent(client: glintpy.Client) -> None:
    table = client.table(COLS)
    with pytest.raises(glintpy.ShapeError, match="a row has 3 cells"):
        table.top_k([1, 2])
    with pytest.raises(glintpy.ConfigError, match="axis"):
        table.sum(axis=2)
    with pytest.raises(glintpy.ConfigError, match="no function"):
        table.call("no such one")
    with pytest.raises(glintpy.ConfigError, match="by is a number"):
        table.scale("a")  # type: ignore[arg-type]  # that is the point
    matrix = client.matrix(4, COLS)
    with pytest.raises(glintpy.ConfigError, match="other is a model"):
        matrix.dot([1], [1], other=table)  # type: ignore[arg-type]  # that is the point
    table.destroy()
    with pytest.raises(glintpy.ModelNotFound):
        table.sum()


@dataclass(frozen=True)
class Squares(Reading):
    """Adds up what an updater keeps, as a function of one's own may."""

    name: ClassVar[str] = "squares"

    def read(self, piece: Piece) -> Answer:
        return (np.atleast_1d(piece.slot("sum_of_squares").sum(dtype=np.float64)),)

    def combine(self, asking: Asking, answers: list[tuple[Ask, Answer]]) -> Any:
        del asking
        return sum(float(found[0]) for _, (found,) in answers)


def test_a_function_of_ones_own_sees_slots() -> None:
    from glintpy.protocol.selection import Selection, slices_of
    from glintpy.storage import calling
    from tests.unit.tables import a_table, keys_of, ones

    table = a_table(updater="adagrad")
    table.push_keys(keys_of(1, 2, 3), 2 * ones(3))
    found, counts = calling.read_table(Squares(), table, Selection(slices_of((0, 2, 1))), ())
    assert (found.tolist(), counts.tolist()) == ([2 * COLS * 4.0], [2, 3])
    (counts,) = calling.read_table(Squares(), table, Selection(slices_of((3, 900, 1))), ())
    assert counts.tolist() == [0, 3]
    # What no client sends.
    for rows in (np.array([0, 1]), slices_of((0, 2, 2)), slices_of((0, 1, 1), (1, 2, 1))):
        with pytest.raises(glintpy.ShapeError, match="one slice of step 1"):
            calling.read_table(Squares(), table, Selection(rows), ())
    with pytest.raises(glintpy.ShapeError, match="one slice of step 1"):
        calling.changed_table(Fill(), table, Selection(slices_of((0, 2, 1)), slices_of((0, 1, 1))), ())
    with pytest.raises(glintpy.ConfigError, match="names rows by number"):
        calling.changed_table(Put(), table, Selection(slices_of((0, 2, 1))), (ones(2),))
    table.heap.close()
