"""Calls of functions that can't be right are told here and now; and small parts of functions by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from glintpy import BigMatrix, BigVector, Client, LocalCluster
from glintpy.errors import ConfigError, DTypeError, KeyRangeError, ModelNotFound, ShapeError
from glintpy.functions import Changing, Reading
from glintpy.functions.nearest import best_of
from tests.models.raw_peer import Served


@pytest.fixture
def client(served: Served) -> Client:
    return served.client


# --- what is wrong is told in the call ------------------------------------------------------------------------


@pytest.fixture
def matrix(client: Client) -> Iterator[BigMatrix]:
    with client.matrix(10, 3, dtype="int16") as matrix:
        yield matrix


@pytest.fixture
def vector(client: Client) -> Iterator[BigVector]:
    with client.vector(10, dtype="float32", finite=True) as vector:
        yield vector


def test_wrong_calls_are_told_with_their_numbers_and_nothing_is_sent(
    client: Client, matrix: BigMatrix, vector: BigVector, monkeypatch: pytest.MonkeyPatch
) -> None:
    runtime = matrix._tie.runtime()
    monkeypatch.setattr(runtime, "submit", lambda *_: pytest.fail("something was sent"))
    any_matrix: Any = matrix
    wrong: list[tuple[Any, type[Exception], str]] = [
        (lambda: matrix.call("summ"), ConfigError, "no function 'summ'; there is 'adjust', 'argmax'"),
        (lambda: matrix.call("my.own.Thing"), ConfigError, "may not be imported here"),
        (lambda: matrix.call("sum", axes=1), ConfigError, "no number 'axes'; it has .*axis"),
        (lambda: matrix.sum(2), ConfigError, "axis is None, 0 or 1, not 2"),
        (lambda: vector.sum(1), ShapeError, "a vector has no axis 1"),
        (lambda: matrix.call("sum", [1]), ShapeError, "'sum' takes no arrays; 1 came"),
        (lambda: matrix.call("top_k"), ShapeError, "'top_k' takes the arrays query; 0 came"),
        (lambda: matrix.top_k([1, 2]), ShapeError, r"query has shape \(2,\); a row has 3 cells"),
        (lambda: matrix.top_k([1, 2, 3], 0), ConfigError, "k is an int from 1 to 65536, not 0"),
        (lambda: matrix.top_k(["a", "b", "c"]), DTypeError, "query has dtype <U1"),
        (lambda: any_matrix.top_k([1, 2, 3], metric="l2"), ConfigError, "not 'l2'"),
        (lambda: matrix.sum(rows=[3, 10]), KeyRangeError, r"10 .*\[0, 10\)"),
        (lambda: matrix.dot([1], [1, 2]), ShapeError, r"rows_b has shape \(2,\) for 1 rows"),
        (lambda: matrix.dot([1, 2], [1, 10]), KeyRangeError, r"rows_b 10 at position 1 is outside \[0, 10\)"),
        (lambda: matrix.dot([1], [0.5]), DTypeError, "rows_b has dtype float64"),
        (lambda: matrix.dot([1], [1], vector), ShapeError, "rows of 3 cells and rows of 1 cells"),
        (lambda: any_matrix.dot([1], [1], 5), ConfigError, "other is a model, not a int"),
        (lambda: matrix.scale(0.5), DTypeError, "by is the float 0.5, and the model holds int16"),
        (lambda: matrix.scale(2**15), DTypeError, "by is 32768; int16 holds -32768 to 32767"),
        (lambda: any_matrix.scale("2"), ConfigError, "by is a number, not '2'"),
        (lambda: vector.fill(np.nan), DTypeError, "value is nan, and the model was made with finite=True"),
        (lambda: vector.fill(1e39), DTypeError, r"value is 1e\+39; float32 holds up to"),
        (lambda: matrix.clip(3, 2), ConfigError, "nothing lies between 3 and 2"),
        (lambda: matrix.clip(0.5), DTypeError, "low is the float 0.5"),
        (lambda: matrix.histogram(0, low=0, high=1), ConfigError, "bins is an int from 1 to 65536, not 0"),
        (lambda: matrix.histogram(low=2, high=2), ConfigError, "bins from 2 to 2 are none"),
        (lambda: matrix.sample(-1), ConfigError, "n is an int from 0 to 1048576, not -1"),
        (lambda: any_matrix.sample(1, seed=0.5), ConfigError, "seed is an int"),
        (lambda: any_matrix.call(Reading), ConfigError, "a function is a name or an instance"),
    ]
    for call, error, message in wrong:
        with pytest.raises(error, match=message):
            call()
    with client.vector(3, dtype="bool") as flags:
        monkeypatch.undo()
        with pytest.raises(DTypeError, match="'scale' is not for values of bool"):
            flags.scale(True)


def test_a_destroyed_model_has_no_functions(client: Client) -> None:
    gone, there = client.vector(5), client.vector(5)
    gone.destroy()
    with pytest.raises(ModelNotFound):
        gone.sum()
    with pytest.raises(ModelNotFound):
        there.dot([1], [1], gone)
    there.destroy()


def test_models_of_two_clusters_have_no_products(client: Client) -> None:
    with (
        LocalCluster(1, scheme="local") as cluster,
        cluster.client() as stranger,
        client.vector(5) as here,
        stranger.vector(5) as there,
        pytest.raises(ConfigError, match="lies on another cluster"),
    ):
        here.dot([1], [1], there)


# --- the parts of functions -----------------------------------------------------------------------------------


def test_the_best_scores_are_those_of_a_stable_sort(seed: int) -> None:
    random = np.random.default_rng(seed)
    for _ in range(200):
        scores = random.integers(0, 6, random.integers(1, 40)).astype(float)
        scores[random.random(len(scores)) < 0.2] = np.nan
        k = int(random.integers(1, 45))
        np.testing.assert_array_equal(best_of(scores, k), np.argsort(-scores, kind="stable")[:k])


def test_functions_of_one_s_own_must_have_their_parts() -> None:
    with pytest.raises(TypeError, match="read"):
        Reading()  # type: ignore[abstract]
    with pytest.raises(TypeError, match="change"):
        Changing()  # type: ignore[abstract]
