"""Values stored whatever the updater makes of pushes, and what can't be stored."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.updaters import Adam


@pytest.fixture(scope="module")
def client() -> Iterator[glintpy.Client]:
    with glintpy.LocalCluster(3, scheme="local") as cluster, cluster.client() as client:
        yield client


def test_values_are_stored_whatever_the_updater(client: glintpy.Client) -> None:
    with client.matrix(1000, 30, dtype="float32", updater=Adam(learning_rate=1.0)) as m:
        m.push(None, 1.0)
        values = np.random.default_rng(1).normal(size=(1000, 30)).astype("float32")
        m.put(values).result()
        assert (m[...] == values).all()
        assert (m.pull_slot("steps").result() == 1).all()
        m.put(values[:3] + 1, rows=[999, 0, 5]).result()
        assert (m.pull([999, 0, 5]).result() == values[:3] + 1).all()


@pytest.mark.parametrize("partitioner", ["range", "cyclic"])
def test_values_of_a_large_vector_are_stored(client: glintpy.Client, partitioner: str) -> None:
    with client.vector(700_000, dtype="int64", updater="max", partitioner=partitioner) as v:
        v.put(-np.arange(700_000)).result()
        assert (v[...] == -np.arange(700_000)).all()
        v.put([7, 8], rows=slice(10, 12)).result()
        assert v[9:13].tolist() == [-9, 7, 8, -12]
        v.put(np.empty(0, int), rows=[]).result()


@pytest.mark.parametrize(
    ("values", "options", "kind", "said"),
    [
        (np.ones(3), {}, glintpy.DTypeError, "float64 can't go into a model of int32"),
        (np.ones(2, int), {}, glintpy.ShapeError, r"shape \(2,\) can't be broadcast to the \(3,\)"),
        (np.ones((3, 1), int), {}, glintpy.ShapeError, r"shape \(3, 1\) can't be broadcast to the \(3,\)"),
        (np.ones(2, int), {"rows": [1, 1]}, glintpy.ShapeError, "named twice"),
        (np.ones(1, int), {"rows": [3]}, glintpy.KeyRangeError, "3"),
    ],
)
def test_what_doesn_t_fit_is_said(
    client: glintpy.Client, values: Any, options: dict[str, Any], kind: type, said: str
) -> None:
    with client.vector(3, dtype="int32") as v:
        with pytest.raises(kind, match=said):
            v.put(values, **options)
        assert not v[...].any()


def test_nan_is_refused_where_the_model_refuses_it(client: glintpy.Client) -> None:
    with client.vector(2, finite=True) as v, pytest.raises(glintpy.DTypeError, match="finite=True"):
        v.put([1.0, np.nan])
