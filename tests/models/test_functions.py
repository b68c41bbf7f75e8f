"""Functions on servers against numpy, on several servers, in many pieces, and under every partitioner."""

from __future__ import annotations

import asyncio
import itertools
import queue
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from glintpy import Client, LocalCluster, config
from glintpy.errors import (
    DTypeError,
    ModelError,
    ShapeError,
)
from glintpy.protocol.dtypes import NAMES
from glintpy.testing.reference import PARTITIONERS, partitioner_of

NUM_ROWS, NUM_COLS = 157, 6


@pytest.fixture(scope="module", params=["local", "tcp"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    with LocalCluster(3, scheme=request.param) as cluster, cluster.client() as client:
        yield client


@pytest.fixture(autouse=True)
def many_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Cut small models into many pieces."""
    monkeypatch.setattr(config, "PART_BYTES", 1024)


def some_values(random: np.random.Generator, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
    """Numbers whose sums and products are exact in any order, with ties and zeros."""
    if dtype == "bool":
        return random.random(shape) < 0.4
    low = 0 if dtype.startswith("u") else -9
    whole = random.integers(low, 10, shape)
    return (whole / 4 if dtype.startswith("float") else whole).astype(dtype)


def both(
    client: Client, random: np.random.Generator, dtype: str, partitioner: str
) -> list[tuple[Any, NDArray[Any]]]:
    """Return a matrix and a vector, each with what it holds; two partitions a server."""
    chosen = partitioner_of(partitioner, NUM_ROWS)
    more: dict[str, Any] = {"partitioner": chosen, "dtype": dtype}
    if partitioner != "custom":
        more["partitions_per_server"] = 2
    matrix = client.matrix(NUM_ROWS, NUM_COLS, **more)
    vector = client.vector(NUM_ROWS, **more)
    found: list[tuple[Any, NDArray[Any]]] = []
    for model in (matrix, vector):
        values = some_values(random, model.shape, dtype)
        model.push(None, values)
        found.append((model, values))
    return found


def wide(values: NDArray[Any]) -> NDArray[Any]:
    """Values in the dtype that sums are made in."""
    return values.astype({"f": "float64", "u": "uint64"}.get(values.dtype.kind, "int64"))


def same(found: Any, expected: Any) -> None:
    np.testing.assert_array_equal(found, expected, strict=True)


def end(models: list[tuple[Any, NDArray[Any]]]) -> None:
    for model, _ in models:
        model.destroy()


CASES = [
    *zip(NAMES, itertools.cycle(PARTITIONERS)),
    *(("float32", partitioner) for partitioner in PARTITIONERS),
]
"""Each dtype under one partitioner, and one under all."""

by_dtype = pytest.mark.parametrize(
    ("client", "dtype", "partitioner"),
    [
        *(("local", *case) for case in sorted(set(CASES))),
        ("tcp", "float32", "custom"),
        ("tcp", "uint16", "cyclic"),
    ],
    indirect=["client"],
    scope="module",
)
by_partitioner = pytest.mark.parametrize("partitioner", PARTITIONERS)


# --- reading --------------------------------------------------------------------------------------------------


@by_dtype
def test_reductions_are_numpy_s(client: Client, dtype: str, partitioner: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    models = both(client, random, dtype, partitioner)
    for model, held in models:
        for rows in (None, slice(None, None, -2), [5, 1, 5, 156]):
            values = held[slice(None) if rows is None else rows]
            for axis in (None, 0, 1)[: 1 + values.ndim]:
                same(model.sum(axis, rows=rows).result(), wide(values).sum(axis))
                same(model.mean(axis, rows=rows).result(), values.astype("float64").mean(axis))
                same(model.min(axis, rows=rows).result(), values.min(axis))
                same(model.max(axis, rows=rows).result(), values.max(axis))
                counts = np.asarray(np.count_nonzero(values, axis), "int64")[()]
                same(model.count_nonzero(axis, rows=rows).result(), counts)
            assert model.argmax(rows=rows).result() == values.argmax()
            two = values.astype("float64").reshape(len(values), -1)
            same(model.norms(rows=rows).result(), np.sqrt((two * two).sum(1)))
            same(model.call("take", rows=rows).result(), values)
            counts, edges = model.histogram(7, low=-2, high=2.5, rows=rows).result()
            expected = np.histogram(values.astype("float64"), 7, (-2, 2.5))
            same(counts, expected[0].astype("int64"))
            same(edges, expected[1])
    end(models)


@by_dtype
def test_the_nearest_rows_are_the_best_by_score_and_then_by_place(
    client: Client, dtype: str, partitioner: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    models = both(client, random, dtype, partitioner)
    for model, held in models:
        two = held.astype("float64").reshape(NUM_ROWS, -1)
        query = random.integers(-3, 4, two.shape[1])
        for rows in (None, slice(140, 2, -3), [9, 4, 4, 100]):
            places = np.arange(NUM_ROWS) if rows is None else np.arange(NUM_ROWS)[rows]
            scores = two[places] @ query
            for k in (1, 4, 60, 400):
                order = np.lexsort((np.arange(len(places)), -scores))[:k]
                keys, found = model.top_k(query, k, rows=rows).result()
                same(keys, places[order])
                same(found, scores[order])
            norms = np.sqrt((two[places] ** 2).sum(1)) * np.sqrt((query**2).sum())
            with np.errstate(invalid="ignore"):
                cosines = np.where(norms == 0, 0, scores / norms)
            keys, found = model.top_k(query, 5, metric="cosine", rows=rows).result()
            np.testing.assert_allclose(found, np.sort(cosines)[::-1][:5], rtol=1e-12, atol=1e-12)
            np.testing.assert_allclose(
                dict(zip(places.tolist(), cosines, strict=True))[keys[0]], found[0], rtol=1e-12, atol=1e-12
            )
    end(models)


@pytest.mark.parametrize(
    ("dtype", "other_dtype", "partitioner"),
    [
        ("float64", "float32", "range"),
        ("float16", "int16", "cyclic"),
        ("uint16", "uint8", "custom"),
        ("uint64", "int8", "cyclic"),
        ("bool", "int32", "range"),
        ("int64", "int64", "custom"),
    ],
)
def test_products_of_pairs_are_the_same_wherever_the_rows_lie(
    client: Client, dtype: str, other_dtype: str, partitioner: str, seed: int
) -> None:
    random = np.random.default_rng(seed)
    models, others = both(client, random, dtype, partitioner), both(client, random, other_dtype, "range")
    for (model, held), (other, other_held) in zip(models, others, strict=True):
        ways = {
            "many with many": (random.integers(0, NUM_ROWS, 90), random.integers(0, NUM_ROWS, 90)),
            "one with many": (np.full(150, 7), random.integers(0, NUM_ROWS, 150)),
            "many with one": (random.integers(0, NUM_ROWS, 150), np.full(150, 31)),
            "few": ([3], [150]),
            "with themselves": (np.arange(20), np.arange(20)),
            "none": ([], []),
        }
        for rows_a, rows_b in ways.values():
            a, b = np.asarray(rows_a, int), np.asarray(rows_b, int)
            first = wide(held).reshape(NUM_ROWS, -1)
            same(model.dot(rows_a, rows_b).result(), (first[a] * first[b]).sum(1, dtype=first.dtype))
            second = wide(other_held).reshape(NUM_ROWS, -1)
            kinds = {first.dtype.kind, second.dtype.kind}
            joint = first.dtype if len(kinds) == 1 else np.dtype("float64" if "f" in kinds else "int64")
            expected = (first[a].astype(joint) * second[b].astype(joint)).sum(1)
            same(model.dot(rows_a, rows_b, other).result(), expected)
    end([*models, *others])


@by_partitioner
def test_samples_have_the_shares_that_weights_say_and_repeat_by_their_seed(
    client: Client, partitioner: str
) -> None:
    vector = client.vector(NUM_ROWS, dtype="int32", partitioner=partitioner_of(partitioner, NUM_ROWS))
    weights = np.arange(NUM_ROWS) % 5
    vector.push(None, weights)
    n = 40_000
    for power in (1.0, 0.5, 0.0):
        drawn = vector.sample(n, seed=7, power=power).result()
        shares = np.where(weights > 0, weights**power, 0.0)
        expected = n * shares / shares.sum()
        counts = np.bincount(drawn, minlength=NUM_ROWS)
        assert drawn.dtype == np.int64
        assert not counts[weights == 0].any()
        # Of so many draws each count is within six of its standard deviations.
        assert (np.abs(counts - expected) <= 6 * np.sqrt(expected) + 1).all()
        same(vector.sample(n, seed=7, power=power).result(), drawn)
    assert not np.array_equal(vector.sample(50, seed=1).result(), vector.sample(50, seed=2).result())
    assert not np.array_equal(vector.sample(50).result(), vector.sample(50).result())
    some = vector.sample(200, seed=3, rows=[4, 9, 3]).result()
    assert set(some.tolist()) == {4, 9, 3}
    assert vector.sample(0).result().tolist() == []
    with client.matrix(4, 2) as matrix:
        matrix.push([1, 3], np.array([[3, 4], [0, 0.001]]))
        counts = np.bincount(matrix.sample(1000, seed=5).result(), minlength=4)
        assert counts[1] > 900
        assert counts[0] == counts[2] == 0
    vector.destroy()


def test_what_can_not_be_weights_is_named(client: Client) -> None:
    with client.vector(NUM_ROWS, partitioner="cyclic") as vector:
        with pytest.raises(ModelError, match=r"add up to 0\.0"):
            vector.sample(3).result()
        vector.push(101, np.nan)
        with pytest.raises(ModelError, match="row 101 has a weight that is negative, NaN or infinite"):
            vector.sample(3).result()
        vector.fill(1, rows=101)
        vector.push(55, -2)
        with pytest.raises(ModelError, match="row 55 "):
            vector.sample(3).result()


def test_nan_is_the_least_extreme_and_the_worst_neighbour(client: Client) -> None:
    with client.matrix(NUM_ROWS, 2, partitioner="cyclic", dtype="float32") as matrix:
        values = np.ones((NUM_ROWS, 2), "float32")
        values[[90, 40]] = [[1, np.nan], [np.nan, 2]]
        values[8], values[120] = np.inf, -np.inf
        matrix.push(None, values)
        assert np.isnan(matrix.sum().result())
        assert np.isnan(matrix.min().result())
        assert np.isnan(matrix.max().result())
        same(matrix.max(1).result(), values.max(1))
        assert matrix.argmax().result() == 80 == values.argmax()
        keys, scores = matrix.top_k([1, 1], NUM_ROWS).result()
        assert keys[0] == 8
        assert keys[-3] == 120
        assert keys[-2:].tolist() == [40, 90]
        assert np.isnan(scores[-2:]).all()
        assert matrix.count_nonzero().result() == 2 * NUM_ROWS
        counts, _ = matrix.histogram(1, low=0, high=5).result()
        assert counts.tolist() == [2 * NUM_ROWS - 6]


def test_integers_wrap_where_numpy_s_do(client: Client) -> None:
    with client.vector(NUM_ROWS, dtype="int64") as vector:
        vector.fill(2**62)
        assert vector.sum().result() == np.full(NUM_ROWS, 2**62).sum()
        vector.scale(3).result()
        same(vector.pull().result(), np.full(NUM_ROWS, 2**62) * np.int64(3))


@pytest.mark.parametrize(("rows", "cols"), [(0, 3), (3, 0), (0, 0)])
def test_empty_models_have_sums_of_nothing(client: Client, rows: int, cols: int) -> None:
    with client.matrix(rows, cols, dtype="float32") as matrix:
        nothing = np.empty((rows, cols), "float32")
        for axis in (None, 0, 1):
            same(matrix.sum(axis).result(), nothing.sum(axis, dtype="float64"))
            same(
                matrix.count_nonzero(axis).result(), np.asarray(np.count_nonzero(nothing, axis), "int64")[()]
            )
            with np.errstate(all="ignore"):
                assert np.isnan(matrix.mean(axis).result()).all()
        same(matrix.norms().result(), np.zeros(rows))
        with pytest.raises(ShapeError, match=f"nothing has no argmax: {rows} rows of {cols} cells"):
            matrix.argmax()
        with pytest.raises(ShapeError, match="nothing has no min"):
            matrix.min()
        keys, scores = matrix.top_k(np.ones(cols), 2).result()
        same(keys, np.arange(min(rows, 2)))
        same(scores, np.zeros(min(rows, 2)))
        same(matrix.dot([], []).result(), np.empty(0))
        for change in (matrix.scale(2), matrix.fill(1), matrix.clip(0, 1)):
            assert change.result() is None


def test_an_empty_selection_asks_for_nothing(client: Client) -> None:
    with client.matrix(5, 3, init=1) as matrix:
        assert matrix.sum(rows=[]).result() == 0
        assert matrix.norms(rows=slice(2, 2)).result().tolist() == []
        with pytest.raises(ShapeError, match="can't be drawn from none"):
            matrix.sample(1, rows=[])
        matrix.fill(7, rows=[]).result()
        assert matrix.sum().result() == 15


def test_functions_see_what_their_client_pushed_before(client: Client) -> None:
    with client.vector(NUM_ROWS, dtype="int64") as first, client.vector(NUM_ROWS, dtype="int64") as second:
        keys = np.arange(NUM_ROWS)
        for count in range(1, 30):
            first.push(keys, 1)
            total = first.sum()
            second.push(keys, 2)
            products = first.dot(keys, keys, second)
            first.scale(1)
            assert total.result() == count * NUM_ROWS
            assert products.result().tolist() == [2 * count * count] * NUM_ROWS
        first.scale(10)
        assert first.pull(3).result() == 290


def test_rounds_go_on_whoever_waits_for_them(client: Client) -> None:
    """In asyncio, in a callback, which keeps the thread of callbacks, and where somebody else receives."""
    with client.matrix(NUM_ROWS, 2, init=1) as matrix:

        async def both() -> list[Any]:
            return [await matrix.sample(3), await matrix.dot([0] * 90, np.arange(90))]

        drawn, products = asyncio.run(both())
        assert len(drawn) == 3
        assert products.tolist() == [2] * 90
        found: queue.SimpleQueue[Any] = queue.SimpleQueue()
        matrix.sum().add_done_callback(lambda _: found.put(matrix.sample(5).result(30)))
        assert len(found.get(timeout=60)) == 5
        with ThreadPoolExecutor(4) as pool:
            results = list(pool.map(lambda _: matrix.dot([0] * 90, np.arange(90)).result(30), range(40)))
        assert all(result.tolist() == [2] * 90 for result in results)
        futures = [matrix.sample(2) for _ in range(20)]
        assert {len(future.result()) for future in futures} == {2}


def test_what_a_piece_touches_counts_against_the_window(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    # So pieces are neither merged into one message nor many at a time before a server, which looks into its mailbox
    # after each of them.
    with client.matrix(NUM_ROWS, NUM_COLS, init=1) as matrix:
        runtime = matrix._tie.runtime()
        submit, costs = runtime.submit, list[tuple[int, int]]()

        def noted(server_id: str, call: Any, **more: Any) -> None:
            costs.append((call.cost_bytes, call.request_id))
            submit(server_id, call, **more)

        monkeypatch.setattr(runtime, "submit", noted)
        for function in (matrix.sum, matrix.norms, lambda: matrix.scale(1)):
            costs.clear()
            function().result()
            assert sum(cost for cost, _ in costs) == matrix.num_bytes
            assert max(cost for cost, _ in costs) <= config.PART_BYTES
            assert len(costs) > 6
            assert len({request_id for _, request_id in costs}) == 3


# --- changing -------------------------------------------------------------------------------------------------


@by_dtype
def test_changes_are_numpy_s(client: Client, dtype: str, partitioner: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    models = both(client, random, dtype, partitioner)
    for model, held in models:
        if dtype != "bool":
            model.scale(3)
            np.multiply(held, held.dtype.type(3), out=held)
            same(model.pull().result(), held)
            model.clip(low=2, rows=slice(10, 90, 3))
            held[10:90:3] = held[10:90:3].clip(2)
            model.clip(high=5)
            held[:] = held.clip(None, 5)
            same(model.pull().result(), held)
            model.clip(-(2**70) if dtype[0] != "f" else -3, 4).result()
            held[:] = held.clip(held.dtype.type(-3 if dtype[0] != "u" else 0) if dtype[0] == "f" else None, 4)
            same(model.pull().result(), held)
        model.fill(1, rows=[3, 100, 3]).result()
        held[[3, 100]] = 1
        same(model.pull().result(), held)
        model.fill(0).result()
        assert not model.pull().result().any()
    end(models)


def test_what_is_put_is_taken_as_what_is_pushed_is(client: Client) -> None:
    with (
        client.vector(3, dtype="int8") as small,
        client.vector(3, dtype="float32") as single,
        client.vector(3, dtype="uint64") as unsigned,
        client.vector(3, dtype="bool") as flags,
        client.matrix(3, 2, dtype="float32", finite=True) as finite,
    ):
        for call, text in (
            (lambda: small.put([300, 1, 1]), "300; int8 holds -128 to 127"),
            (lambda: small.call("put", np.array([1, 300, 1])), "300, which int8 can't hold"),
            (lambda: single.put([1e300, 0, 0]), "1e.300"),
            (lambda: single.call("put", np.array([1e300, 0, 0])), "1e.300, which float32 can't hold"),
            (lambda: unsigned.put([1, -2, 3]), "-2"),
            (lambda: unsigned.call("put", np.array([1, -2, 3])), "-2, which uint64 can't hold"),
            (lambda: finite.put(np.inf), "finite"),
        ):
            with pytest.raises(DTypeError, match=text):
                call()
        with pytest.raises(ShapeError):
            finite.put(np.ones((2, 2)))
        for model, values in ((small, [3, -4, 5]), (unsigned, [1, 2, 2**63]), (flags, [True, False, True])):
            model.put(values).result()
            assert model.pull().result().tolist() == values
        unsigned.call("put", np.array([7, 8, 9])).result()
        single.put([np.inf, np.nan, 2]).result()
        finite.put([1, 2], rows=[2, 0]).result()
        finite.put(5, rows=1).result()
        assert unsigned.pull().result().tolist() == [7, 8, 9]
        np.testing.assert_array_equal(single.pull().result(), [np.inf, np.nan, 2])
        assert finite.pull().result().tolist() == [[1, 2], [5, 5], [1, 2]]


def test_wide_rows_are_changed_in_pieces_and_read_whole(client: Client, seed: int) -> None:
    with client.matrix(7, 1001, dtype="float32") as matrix:
        values = some_values(np.random.default_rng(seed), (7, 1001), "float32")
        matrix.push(None, values)
        matrix.scale(0.5).result()
        same(matrix.pull().result(), values / 2)
        same(matrix.norms().result(), np.sqrt((values.astype("float64") ** 2 / 4).sum(1)))
        same(matrix.sum(0).result(), (values.astype("float64") / 2).sum(0))


def test_slots_stay_as_they_are(client: Client) -> None:
    with client.matrix(20, 2, updater="adagrad", dtype="float32") as matrix:
        matrix.push([1, 19], 2.0).result()
        before = matrix.pull_slot(matrix.slots[0]).result()
        matrix.fill(9).result()
        same(matrix.pull_slot(matrix.slots[0]).result(), before)
        assert matrix.sum().result() == 360


def test_a_change_counts_as_a_push_to_flush(client: Client) -> None:
    with client.vector(NUM_ROWS) as vector:
        change = vector.fill(2)
        vector.flush()
        assert change.done()
        assert vector.sum().result() == 2 * NUM_ROWS
