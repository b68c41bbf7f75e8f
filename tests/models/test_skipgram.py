"""Steps of word2vec on several servers against plain numpy; and every wrong call, before anything is sent."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from glintpy import Client, LocalCluster
from glintpy.errors import ConfigError, DTypeError, GlintError, KeyRangeError, ModelError, ShapeError
from glintpy.partitioning import CyclicPartitioner
from tests.skipgram import Reference, Sliced, some_pairs, some_reference

SERVERS = 3
WORDS, DIM = 23, 12


@pytest.fixture(scope="module", params=["local", "tcp"])
def client(request: pytest.FixtureRequest) -> Iterator[Client]:
    with LocalCluster(SERVERS, scheme=request.param) as cluster, cluster.client() as client:
        yield client


@pytest.mark.parametrize("per_server", [1, 2])
@pytest.mark.parametrize(("dtype", "accuracy"), [("float32", 2e-4), ("float64", 1e-9)])
def test_training_on_servers_is_training_in_plain_numpy(
    client: Client, seed: int, per_server: int, dtype: str, accuracy: float
) -> None:
    random = np.random.default_rng(seed)
    reference = some_reference(random, num_words=WORDS, dim=DIM)
    sliced = Sliced.of(
        client, reference, parts=SERVERS * per_server, dtype=dtype, partitions_per_server=per_server
    )
    for step in range(5):
        inputs, outputs = some_pairs(random, 40, WORDS)
        numbers = {"seed": step, "negatives": 4}
        found = sliced.slices.call("dot_negative", inputs, outputs, other=sliced.table, **numbers).result()
        assert found.shape == (40, 5)
        assert found.dtype == dtype
        np.testing.assert_allclose(
            found, reference.products(inputs, outputs, **numbers), rtol=accuracy, atol=accuracy
        )
        gradients = random.normal(size=found.shape) * 0.05
        # Not waited for: what is asked next comes behind it.
        sliced.slices.call("adjust", inputs, outputs, gradients, other=sliced.table, **numbers)
        reference.adjust(inputs, outputs, gradients, **numbers)
    for values, expected in zip(sliced.values(), (reference.inputs, reference.outputs), strict=True):
        np.testing.assert_allclose(values, expected, rtol=accuracy, atol=accuracy)
    sliced.end()


def test_a_table_may_have_more_copies_than_there_are_slices(client: Client, seed: int) -> None:
    random = np.random.default_rng(seed)
    reference = some_reference(random, num_words=WORDS, dim=DIM)
    sliced = Sliced.of(client, reference, parts=SERVERS)
    inputs, outputs = some_pairs(random, 9, WORDS)
    with client.vector(
        WORDS * 2 * SERVERS, dtype="float64", partitioner="cyclic", partitions_per_server=2
    ) as table:
        table.push(None, np.repeat(reference.sums, 2 * SERVERS))
        found = sliced.slices.call("dot_negative", inputs, outputs, other=table, seed=3).result()
    np.testing.assert_allclose(found, reference.products(inputs, outputs, seed=3, negatives=5))
    sliced.end()


def test_no_pairs_are_no_messages(client: Client) -> None:
    sliced = Sliced.of(client, some_reference(np.random.default_rng(0), num_words=4, dim=3), parts=SERVERS)
    found = sliced.slices.call("dot_negative", [], [], other=sliced.table, seed=1, negatives=2).result()
    assert found.shape == (0, 3)
    assert (
        sliced.slices.call(
            "adjust", [], [], np.empty((0, 3)), other=sliced.table, seed=1, negatives=2
        ).result()
        is None
    )
    sliced.end()


def test_a_table_that_is_not_filled_is_told_by_the_future(client: Client) -> None:
    sliced = Sliced.of(client, some_reference(np.random.default_rng(0), num_words=4, dim=3), parts=SERVERS)
    sliced.table.fill(0)
    with pytest.raises(
        ModelError, match=r"add up to 0\.0, by which nothing can be drawn; is the table filled"
    ):
        sliced.slices.call("dot_negative", [1], [2], other=sliced.table, seed=1).result()
    with pytest.raises(GlintError, match=r"add up to 0\.0, by which nothing can be drawn"):
        sliced.slices.call("adjust", [1], [2], np.zeros((1, 6)), other=sliced.table, seed=1).result()
    sliced.end()


PAIR = ([1, 2], [2, 3])

WRONG: dict[str, tuple[tuple[Any, ...], dict[str, Any], type[GlintError], str]] = {
    "one array": (([1],), {}, ShapeError, "takes the arrays inputs, outputs"),
    "lengths": (([1, 2, 3], [1]), {}, ShapeError, "3 inputs and 1 outputs are no pairs"),
    "a word that there isn't": (
        ([1, 23], [1, 2]),
        {},
        KeyRangeError,
        "inputs 23 at position 1 is outside [0, 23)",
    ),
    "a negative word": ((PAIR[0], [0, -1]), {}, KeyRangeError, "outputs -1 at position 1 is outside [0, 23)"),
    "floats": (([1.0, 2.0], PAIR[1]), {}, DTypeError, "inputs has dtype float64; words are integers"),
    "one word": ((1, 2), {}, ShapeError, "inputs has shape (); they are (n,) words"),
    "two dimensions": (([[1, 2]], [[1, 2]]), {}, ShapeError, "inputs has shape (1, 2)"),
    "some rows": (
        PAIR,
        {"rows": [1, 2]},
        ShapeError,
        "of a whole matrix with partitioner='cyclic', without rows=",
    ),
    "no seed": (PAIR, {"seed": None}, ConfigError, "seed"),
    "too many negatives": (
        PAIR,
        {"negatives": 1025},
        ConfigError,
        "negatives is an int from 0 to 1024, not 1025",
    ),
    "too many pairs": (
        (np.zeros(80_000, int),) * 2,
        {},
        ShapeError,
        "80000 pairs with 5 negatives touch 17920000 bytes of a slice; at most 16777216 are taken: 74898 pairs",
    ),
}


@pytest.mark.parametrize("half", ["dot_negative", "adjust"])
@pytest.mark.parametrize(("arrays", "numbers", "error", "words"), WRONG.values(), ids=WRONG)
def test_a_wrong_call_is_refused_before_anything_is_sent(
    client: Client,
    half: str,
    arrays: tuple[Any, ...],
    numbers: dict[str, Any],
    error: type[GlintError],
    words: str,
) -> None:
    sliced = Sliced.of(
        client, some_reference(np.random.default_rng(0), num_words=WORDS, dim=DIM), parts=SERVERS
    )
    if half == "adjust":
        arrays = (*arrays, np.zeros((np.size(arrays[0]), 6)))
    given: dict[str, Any] = {"other": sliced.table, "seed": 1} | numbers
    with pytest.raises(error) as caught:
        sliced.slices.call(half, *arrays, **given)
    assert words in str(caught.value)
    sliced.end()


@pytest.mark.parametrize(
    ("gradients", "error", "words"),
    [
        (np.zeros((2, 5)), ShapeError, "gradients has shape (2, 5); 2 pairs with 5 negatives have (2, 6)"),
        ([0.0] * 6, ShapeError, "gradients has shape (6,)"),
        (np.full((2, 6), "x"), DTypeError, "gradients"),
        (np.full((2, 6), np.inf), DTypeError, "a gradient is not finite"),
    ],
)
def test_wrong_gradients_are_refused_before_anything_is_sent(
    client: Client, gradients: Any, error: type[GlintError], words: str
) -> None:
    reference = some_reference(np.random.default_rng(0), num_words=WORDS, dim=DIM)
    sliced = Sliced.of(client, reference, parts=SERVERS, finite=True)
    with pytest.raises(error) as caught:
        sliced.slices.call("adjust", *PAIR, gradients, other=sliced.table, seed=1)
    assert words in str(caught.value)
    sliced.end()


def test_models_of_another_form_are_refused_with_what_to_do(client: Client) -> None:
    def refused(model: Any, table: Any, error: type[GlintError], words: str) -> None:
        with pytest.raises(error) as caught:
            model.call("dot_negative", [1], [1], other=table, seed=1)
        assert words in str(caught.value)

    with (
        client.matrix(8 * SERVERS, 2, partitioner="cyclic") as good,
        client.vector(4 * SERVERS, partitioner="cyclic") as table,
        client.matrix(8 * SERVERS, 2) as in_ranges,
        client.matrix(8 * SERVERS, 2, partitioner="cyclic", dtype="int64") as whole,
        client.matrix(8 * SERVERS - 1, 2, partitioner="cyclic") as odd,
        client.vector(8 * SERVERS, partitioner="cyclic") as vector,
        client.vector(4 * SERVERS) as table_in_ranges,
        client.vector(4 * SERVERS, partitioner="cyclic", dtype="float32") as table_of_32,
        client.vector(5 * SERVERS, partitioner="cyclic") as long_table,
    ):
        refused(in_ranges, table, ShapeError, "a whole matrix with partitioner='cyclic'")
        refused(vector, table, ShapeError, "a whole matrix with partitioner='cyclic'")
        refused(whole, table, DTypeError, "not for values of int64")
        refused(
            odd,
            table,
            ShapeError,
            "23 rows on 3 partitions are no slices of two vectors a word; make the model",
        )
        for wrong in (None, table_in_ranges, table_of_32, in_ranges):
            refused(good, wrong, ShapeError, "other= is a float64 vector with partitioner='cyclic'")
        refused(good, long_table, ShapeError, "15 entries on 3 partitions; running sums of 4 words are 12")
        refused(good, 3, ConfigError, "other is a model, not a int")


def test_a_server_without_a_copy_of_the_table_is_told_of(client: Client) -> None:
    lone = CyclicPartitioner(4, 1)
    with (
        client.matrix(8 * SERVERS, 2, partitioner="cyclic") as vectors,
        client.vector(4, dtype="float64", init=1, partitioner=lone) as table,
    ):
        words = (
            r"no copy of the weights, which lie on 1 others; make the vector of weights on the same servers"
        )
        with pytest.raises(ConfigError, match=words):
            vectors.call("dot_negative", [1], [1], other=table, seed=1).result()
        with pytest.raises(ConfigError, match=words):
            vectors.call("adjust", [1], [1], np.zeros((1, 6)), other=table, seed=1)


def test_steps_of_a_model_in_rounds_are_made_at_the_tick(client: Client, seed: int) -> None:
    random = np.random.default_rng(seed)
    with client.join("words", num_workers=1) as group:
        vectors = client.matrix(
            *(2 * 4 * SERVERS, 2),
            partitioner="cyclic",
            init=("normal", 0.0, 1.0),
            consistency="bsp",
            group=group,
        )
        table = client.vector(4 * SERVERS, dtype="float64", partitioner="cyclic")
        table.push(None, np.repeat(np.arange(1.0, 5.0), SERVERS))
        before = vectors.pull().result()
        both = before.reshape(8, -1)
        reference = Reference(both[:4], both[4:], np.ones(4))
        # Both are made of what the vectors are before the round.
        started = reference.inputs.copy(), reference.outputs.copy()
        changes = [np.zeros((4, 2 * SERVERS)), np.zeros((4, 2 * SERVERS))]
        for step in range(2):
            gradients = random.normal(size=(3, 6))
            vectors.call("adjust", [0, 1, 1], [1, 2, 3], gradients, other=table, seed=step).result()
            reference.inputs, reference.outputs = (values.copy() for values in started)
            reference.adjust([0, 1, 1], [1, 2, 3], gradients, seed=step, negatives=5)
            changes[0] += reference.inputs - started[0]
            changes[1] += reference.outputs - started[1]
        np.testing.assert_array_equal(vectors.pull().result(), before)
        group.tick()
        found = vectors.pull().result().reshape(8, -1)
        np.testing.assert_allclose(found - both, np.concatenate(changes), rtol=1e-9, atol=1e-9)
        vectors.destroy()
        table.destroy()
