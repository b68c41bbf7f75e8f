"""The halves of a step of word2vec over one shard, and functions that choose their rows: without a server."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from glintpy import config, functions
from glintpy.errors import (
    ConfigError,
    DTypeError,
    GlintError,
    KeyRangeError,
    ModelError,
    RemoteFailure,
    RemoteProtocolError,
    ShapeError,
)
from glintpy.functions import Changing, Choosing, Reading
from glintpy.functions.skipgram import Adjust, DotNegative, drawn
from glintpy.protocol.selection import Selection, slices_of
from glintpy.protocol.spec import ModelSpec
from glintpy.storage import calling
from glintpy.storage.shard import Shard
from tests.skipgram import Reference, some_pairs, some_reference

WORDS, DIM = 11, 4

FIRST = 3
"""Server rows before those of the vectors: of another slice."""


def shard_of(values: NDArray[Any], *, finite: bool = False) -> Shard:
    num_cols = values.shape[1] if values.ndim == 2 else None
    return Shard(5, ModelSpec("m", 100, num_cols, values.dtype.name, finite=finite), 1, values)


def shards_of(reference: Reference, dtype: str = "float64", **more: Any) -> tuple[Shard, Shard]:
    """Return a shard of vectors behind some other rows, and one of two copies of the table."""
    both = np.concatenate([np.full((FIRST, DIM), 7.0), reference.inputs, reference.outputs])
    return shard_of(both.astype(dtype), **more), shard_of(np.tile(reference.sums, 2))


ROWS = Selection(slices_of((FIRST, FIRST + 2 * WORDS, 1)))
TABLE = Selection(slices_of((WORDS, 2 * WORDS, 1)))


def ids(words: list[int]) -> NDArray[np.uint8]:
    return np.array(words, np.uint8)


# --- drawing --------------------------------------------------------------------------------------------------


def test_words_are_drawn_by_their_weights_and_never_without_one() -> None:
    weights = np.array([0, 5, 0, 1, 4, 0], np.float64)
    found = np.bincount(drawn(np.cumsum(weights), 100_000, seed=4), minlength=6)
    np.testing.assert_allclose(found / 100_000, weights / 10, atol=0.01)
    assert found[[0, 2, 5]].tolist() == [0, 0, 0]


def test_the_same_seed_draws_the_same_words_in_every_numpy() -> None:
    # Clients and servers may have different ones, and other languages none: so these are written down.
    sums = np.arange(1, 1001, dtype=np.float64)
    assert drawn(sums, 6, seed=0).tolist() == [636, 269, 40, 16, 813, 912]
    assert drawn(sums, 3, seed=2**63 - 1).tolist() == drawn(sums, 9, seed=2**63 - 1)[:3].tolist()


def test_the_end_of_the_table_is_the_last_word_that_has_a_weight(monkeypatch: pytest.MonkeyPatch) -> None:
    class Highest:
        def __init__(self, seed: int) -> None:
            del seed

        def random_raw(self, num: int) -> NDArray[np.uint64]:
            return np.full(num, 2**64 - 1, np.uint64)

    monkeypatch.setattr(np.random, "PCG64", Highest)
    # The product with the least number is rounded up to the end.
    for sums in ([1.0, 5e-324, 5e-324], [0.0, 2.0, 2.0], [3.0]):
        found = drawn(np.maximum.accumulate(sums), 2, seed=0).tolist()
        assert found == [int(np.argmax(np.maximum.accumulate(sums)))] * 2


@pytest.mark.parametrize("end", [0.0, -1.0, np.nan, np.inf])
def test_nothing_is_drawn_by_sums_that_end_at_nothing(end: float) -> None:
    with pytest.raises(ModelError, match=f"add up to {end}, by which nothing can be drawn"):
        drawn(np.array([0.0, end]), 1, seed=0)


# --- against the reference --------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dtype", "accuracy"), [("float16", 5e-2), ("float32", 2e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("negatives", [0, 1, 5])
def test_products_and_changes_are_those_of_plain_numpy(
    seed: int, dtype: str, accuracy: float, negatives: int
) -> None:
    random = np.random.default_rng([seed, negatives])
    reference = some_reference(random, num_words=WORDS, dim=DIM)
    vectors, table = shards_of(reference, dtype)
    reference.inputs = vectors.values[FIRST : FIRST + WORDS].astype(np.float64)
    reference.outputs = vectors.values[FIRST + WORDS :].astype(np.float64)
    others = vectors.values[:FIRST].copy()
    num_void = 0
    for step in range(4):
        inputs, outputs = some_pairs(random, 30, WORDS)
        pairs = ids(inputs), ids(outputs)
        numbers = {"seed": 1000 + step, "negatives": negatives}
        (found,) = calling.read(DotNegative(**numbers), vectors, ROWS, pairs, (table, TABLE))
        expected = reference.products(inputs, outputs, **numbers)
        assert found.dtype == ("float64" if dtype == "float64" else "float32")
        np.testing.assert_allclose(found, expected, rtol=accuracy, atol=accuracy)
        num_void += int(np.isneginf(found).sum())
        assert not np.isneginf(found[:, 0]).any()
        gradients = (random.normal(size=found.shape) * 0.1).astype(found.dtype)
        selection, values = calling.changed(
            Adjust(**numbers), vectors, ROWS, (*pairs, gradients), (table, TABLE)
        )
        assert values.dtype == vectors.values.dtype
        vectors.push(selection, values)
        reference.adjust(inputs, outputs, gradients, **numbers)
        np.testing.assert_allclose(
            vectors.values[FIRST:],
            np.concatenate([reference.inputs, reference.outputs]),
            rtol=accuracy,
            atol=accuracy,
        )
    np.testing.assert_array_equal(vectors.values[:FIRST], others)
    assert (num_void > 0) == (negatives > 0)


def test_a_negative_that_is_none_changes_nothing_whatever_its_gradient(seed: int) -> None:
    random = np.random.default_rng(seed)
    # One word alone has a weight, so that every negative of a pair with it is none.
    reference = Reference(random.normal(size=(3, 2)), random.normal(size=(3, 2)), np.array([0.0, 1.0, 0.0]))
    both = np.concatenate([reference.inputs, reference.outputs])
    vectors, table = shard_of(both.copy()), shard_of(reference.sums)
    gradients = np.array([[0.0, np.nan, 5.0], [0.0, 1.0, 2.0]])
    selection, values = calling.changed(
        Adjust(seed=1, negatives=2),
        vectors,
        Selection(slices_of((0, 6, 1))),
        (ids([0, 0]), ids([1, 2]), gradients),
        (table, Selection(slices_of((0, 3, 1)))),
    )
    assert selection.rows.tolist() == [0, 4, 5]
    np.testing.assert_allclose(values, [3 * both[4], 3 * both[0], [0, 0]])


def test_no_pairs_have_no_products_and_change_nothing() -> None:
    reference = some_reference(np.random.default_rng(1), num_words=WORDS, dim=DIM)
    vectors, table = shards_of(reference)
    (found,) = calling.read(DotNegative(seed=1), vectors, ROWS, (ids([]), ids([])), (table, TABLE))
    assert found.shape == (0, 6)
    arrays = ids([]), ids([]), np.empty((0, 6))
    selection, values = calling.changed(Adjust(seed=1), vectors, ROWS, arrays, (table, TABLE))
    assert selection.rows.shape == (0,)
    assert values.shape == (0, DIM)


# --- what a server refuses --------------------------------------------------------------------------------------

GOOD = (ids([1, 2]), ids([2, 3]))

WRONG: dict[str, tuple[Any, type[GlintError], str]] = {
    "rows that are no pairs of vectors": (
        {"rows": slices_of((0, 2 * WORDS + 1, 1))},
        ShapeError,
        "23 rows are no two for each word",
    ),
    "a list of rows": ({"rows": np.arange(2 * WORDS)}, ShapeError, "one slice of step 1"),
    "two slices": ({"rows": slices_of((0, 4, 1), (4, 8, 1))}, ShapeError, "one slice of step 1"),
    "a step": ({"rows": slices_of((0, 2 * WORDS, 2))}, ShapeError, "one slice of step 1"),
    "rows outside": ({"rows": slices_of((FIRST, FIRST + 2 * WORDS + 2, 1))}, KeyRangeError, "[0, 25)"),
    "no table": ({"table": None}, ShapeError, "running sums of 11 words' weights are needed"),
    "a table of another length": ({"table": slices_of((0, 3, 1))}, ShapeError, "running sums of 11 words"),
    "a table by a list": ({"table": np.arange(WORDS)}, ShapeError, "one slice of step 1"),
    "one array": ({"arrays": GOOD[:1]}, ShapeError, "takes the arrays inputs, outputs"),
    "words outside": (
        {"arrays": (ids([1, 11]), GOOD[1])},
        KeyRangeError,
        "inputs 11 at position 1 is outside [0, 11)",
    ),
    "negative words": (
        {"arrays": (GOOD[0], np.array([0, -1]))},
        KeyRangeError,
        "outputs -1 at position 1 is outside [0, 11)",
    ),
    "words that are floats": ({"arrays": (np.ones(2), GOOD[1])}, DTypeError, "inputs has dtype float64"),
    "words of two dimensions": ({"arrays": (np.ones((2, 1), int), GOOD[1])}, ShapeError, "shape (2, 1)"),
    "more inputs than outputs": ({"arrays": (ids([1, 2, 3]), GOOD[1])}, ShapeError, "3 inputs and 2 outputs"),
    "too much at once": (
        {"arrays": (np.zeros(80_000, np.uint8),) * 2},
        ShapeError,
        f"touch {80_000 * 7 * DIM * 8} bytes of a slice; at most {config.FRAME_BYTES_MAX} are taken",
    ),
}


@pytest.mark.parametrize("half", [DotNegative, Adjust])
@pytest.mark.parametrize(("given", "error", "words"), WRONG.values(), ids=WRONG)
def test_a_server_refuses_what_does_not_fit(
    half: type[DotNegative | Adjust], given: dict[str, Any], error: type[GlintError], words: str
) -> None:
    vectors, table = shards_of(some_reference(np.random.default_rng(1), num_words=WORDS, dim=DIM))
    before = vectors.values.copy()
    rows = Selection(given.get("rows", ROWS.rows))
    sums = given.get("table", TABLE.rows)
    other = None if sums is None else (table, Selection(sums))
    arrays = given.get("arrays", GOOD)

    def call() -> None:
        if half is DotNegative:
            calling.read(DotNegative(seed=1), vectors, rows, arrays, other)
        else:
            gradients = np.zeros((len(arrays[0]), 6))
            calling.changed(Adjust(seed=1), vectors, rows, (*arrays, gradients), other)

    with pytest.raises(error) as caught:
        call()
    assert words in str(caught.value)
    np.testing.assert_array_equal(vectors.values, before)


@pytest.mark.parametrize(
    ("gradients", "error", "words"),
    [
        (np.zeros((2, 5)), ShapeError, "gradients has shape (2, 5); 2 pairs with 5 negatives have (2, 6)"),
        (np.zeros(12), ShapeError, "(12,)"),
        (np.zeros((2, 6), bool), DTypeError, "gradients has dtype bool"),
        (np.full((2, 6), np.nan), DTypeError, "not finite"),
    ],
)
def test_a_server_refuses_gradients_that_do_not_fit(
    gradients: NDArray[Any], error: type[GlintError], words: str
) -> None:
    reference = some_reference(np.random.default_rng(1), num_words=WORDS, dim=DIM)
    vectors, table = shards_of(reference, finite=True)
    with pytest.raises(error) as caught:
        calling.changed(Adjust(seed=1), vectors, ROWS, (*GOOD, gradients), (table, TABLE))
    assert words in str(caught.value)


@pytest.mark.parametrize(
    ("numbers", "words"),
    [
        ({}, "missing 1 required positional argument: 'seed'"),
        ({"seed": -1}, "seed is an int from 0"),
        ({"seed": 1.5}, "seed is an int from 0"),
        ({"seed": 1, "negatives": -1}, "negatives is an int from 0 to 1024, not -1"),
        ({"seed": 1, "negatives": 1025}, "not 1025"),
        ({"seed": 1, "negative": 5}, "no number 'negative'"),
    ],
)
def test_numbers_are_checked(numbers: dict[str, Any], words: str) -> None:
    for name in ("dot_negative", "adjust"):
        with pytest.raises(ConfigError) as caught:
            functions.named(name, numbers)
        assert words in str(caught.value)


# --- functions that choose --------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Chooser(Choosing):
    """Chooses what it is told to."""

    found: Any = None
    seen: Any = None

    def choose(self, num_rows: int, arrays: tuple[Any, ...], others: Any) -> Any:
        if self.seen is not None:
            self.seen.append((num_rows, arrays, others))
        return self.found


@dataclass(frozen=True)
class ChoosingReader(Chooser, Reading):
    def read(self, piece: functions.Piece) -> functions.Answer:
        assert piece.others is None
        return piece.values.copy(), piece.slot("speed") if piece.arrays else piece.values[:0]


@dataclass(frozen=True)
class ChoosingChanger(Chooser, Changing):
    def change(self, values: Any, arrays: tuple[Any, ...]) -> Any:
        return values + arrays[0]


def places(*found: int) -> NDArray[np.int64]:
    return np.array(found, np.int64)


def test_a_function_chooses_rows_of_a_run_and_sees_no_others() -> None:
    shard, other = shard_of(np.arange(20.0).reshape(10, 2)), shard_of(np.arange(6.0))
    run = Selection(slices_of((4, 9, 1)))
    seen: list[Any] = []
    reader = ChoosingReader((places(4, 0, 0), ()), seen)
    answer = calling.read(reader, shard, run, (), (other, Selection(slices_of((2, 5, 1)))))
    assert answer[0].tolist() == [[16, 17], [8, 9], [8, 9]]
    ((num_rows, arrays, others),) = seen
    assert (num_rows, arrays, others.tolist()) == (5, (), [2, 3, 4])
    assert not others.flags.writeable
    changer = ChoosingChanger((places(1, 3), (np.array(0.5),)))
    selection, values = calling.changed(changer, shard, run, ())
    assert selection.rows.tolist() == [5, 7]
    assert values.tolist() == [[10.5, 11.5], [14.5, 15.5]]
    assert shard.values[5].tolist() == [10, 11]
    with pytest.raises(ConfigError, match="keeps no slot 'speed'"):
        calling.read(ChoosingReader((places(1), (0,))), shard, run, ())


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (None, "chooses rows and arrays, not NoneType"),
        ((places(1),), "chooses rows and arrays, not tuple"),
        ((places(1), []), "chooses rows and arrays, not tuple"),
        (([1], ()), "chooses rows by (n,) int64, not by list"),
        ((np.array([1], np.int32), ()), "not by int32 (1,)"),
        ((np.array([[1]]), ()), "not by int64 (1, 1)"),
        ((places(0, 5), ()), "outside [0, 5)"),
        ((places(-1), ()), "outside [0, 5)"),
        ((places(1, 1), (0,)), "don't rise"),
        ((places(2, 1), (0,)), "don't rise"),
    ],
)
def test_a_choice_that_is_none_is_the_function_s_failure(found: Any, words: str) -> None:
    shard = shard_of(np.arange(20.0).reshape(10, 2))
    with pytest.raises(RemoteFailure) as caught:
        calling.changed(ChoosingChanger(found), shard, Selection(slices_of((4, 9, 1))), ())
    assert words in str(caught.value)


def test_a_choice_of_too_much_is_refused_and_a_function_that_has_no_choice_gets_no_others() -> None:
    shard = shard_of(np.zeros((4, 2)))
    run = Selection(slices_of((0, 4, 1)))
    many = np.zeros(config.FRAME_BYTES_MAX // 16 + 1, np.int64)
    with pytest.raises(RemoteProtocolError, match=str(config.FRAME_BYTES_MAX)):
        calling.read(ChoosingReader((many, ())), shard, run, ())
    scale = functions.named("scale")
    assert isinstance(scale, Changing)
    with pytest.raises(ShapeError, match="'scale' has no use for other rows"):
        calling.changed(scale, shard, run, (), (shard, run))
    with pytest.raises(ShapeError, match="whole rows, not columns"):
        calling.changed(ChoosingChanger(), shard, Selection(run.rows, slices_of((0, 1, 1))), ())
