"""All twelve dtypes: what they hold, how they wrap and round, and what they refuse."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hypothesis_numpy
from numpy.typing import NDArray

from glintpy import Client, DTypeError, LocalCluster
from glintpy.protocol.dtypes import NAMES

INTEGERS = [name for name in NAMES if np.dtype(name).kind in "iu"]
FLOATS = [name for name in NAMES if np.dtype(name).kind == "f"]


@pytest.fixture(scope="module")
def client() -> Iterator[Client]:
    with LocalCluster(2, scheme="local") as cluster, cluster.client() as connected:
        yield connected


def ends(dtype: np.dtype[Any]) -> NDArray[Any]:
    """Return the numbers at which a dtype could be mistaken."""
    if dtype.kind == "b":
        return np.array([False, True, True, False])
    if dtype.kind == "f":
        info = np.finfo(dtype)
        special = [info.max, info.min, info.tiny, info.smallest_subnormal, info.eps, np.nan, np.inf, -np.inf]
        return np.array(special, dtype=dtype)
    limits = np.iinfo(dtype)
    return np.array([limits.max, limits.min, limits.max - 1, limits.min + 1, 1, 0], dtype=dtype)


def test_there_are_twelve() -> None:
    assert sorted(NAMES) == sorted([*INTEGERS, *FLOATS, "bool"])
    assert (len(INTEGERS), len(FLOATS)) == (8, 3)


@pytest.mark.parametrize("name", NAMES)
def test_every_bit_comes_back(client: Client, name: str) -> None:
    values = ends(np.dtype(name))
    with client.vector(len(values), dtype=name) as vector:
        assert (vector.dtype, vector.num_bytes) == (np.dtype(name), values.nbytes)
        vector.push(None, values).result()
        found = vector.pull().result()
        assert found.dtype == values.dtype
        assert found.tobytes() == values.tobytes()


@pytest.mark.parametrize("name", NAMES)
def test_models_begin_with_zeros_or_what_is_wanted(client: Client, name: str) -> None:
    with client.matrix(5, 2, dtype=name) as matrix:
        assert not matrix.pull().result().any()
    with client.matrix(5, 2, dtype=name, init=1, partitioner="cyclic") as matrix:
        assert matrix.pull().result().tolist() == np.ones((5, 2), dtype=name).tolist()


@pytest.mark.parametrize(
    ("name", "init"), [("int8", 128), ("uint8", -1), ("int32", 0.5), ("bool", 2), ("int64", 2**63)]
)
def test_initial_values_that_the_dtype_cant_hold_are_refused(client: Client, name: str, init: Any) -> None:
    with pytest.raises(DTypeError):
        client.vector(3, dtype=name, init=init)


@pytest.mark.parametrize("name", INTEGERS)
def test_integers_wrap_as_numpys_do(client: Client, name: str) -> None:
    limits = np.iinfo(name)
    pushed = np.array([limits.max, 1, limits.min, limits.max, 2], dtype=name)
    keys = [0, 0, 1, 1, 2]
    expected = np.array([5, limits.min, limits.max], dtype=name)
    with client.vector(3, dtype=name) as vector:
        vector.push(None, expected)
        np.add.at(expected, keys, pushed)
        vector.push(keys, pushed)
        assert vector.pull().result().tolist() == expected.tolist()


@pytest.mark.parametrize("name", ["int64", "uint64"])
def test_integers_beyond_two_to_the_53_dont_pass_through_floats(client: Client, name: str) -> None:
    big = 2**53 + 1
    with client.vector(3, dtype=name) as vector:
        vector.push([0], big)
        vector.push([1, 2], [big, 2**62 + 1])
        vector.push([0], 2)
        assert vector.pull().result().tolist() == [big + 2, big, 2**62 + 1]


def test_the_largest_unsigned_integer_is_a_python_int_like_others(client: Client) -> None:
    with client.vector(2, dtype="uint64") as vector:
        vector.push([0], 2**64 - 1).result()
        assert int(vector[0]) == 2**64 - 1


def test_booleans_are_ored(client: Client) -> None:
    with client.vector(4, dtype="bool") as vector:
        vector.push([0, 1, 0], [True, False, False])
        vector.push([1, 1, 2], [False, True, False])
        assert vector.pull().result().tolist() == [True, True, False, False]


@pytest.mark.parametrize("name", FLOATS)
def test_floats_overflow_to_infinity_and_round_as_numpys_do(client: Client, name: str) -> None:
    info = np.finfo(name)
    with client.vector(3, dtype=name) as vector:
        vector.push([0, 0], np.array([info.max, info.max]))
        vector.push([1], np.array([1.0], dtype=name))
        vector.push([1], np.array([info.eps / 4], dtype=name))
        vector.push([2, 2], np.array([np.inf, -np.inf], dtype=name))
        found = vector.pull().result()
        assert found[:2].tolist() == [np.inf, 1.0]
        assert np.isnan(found[2])


@pytest.mark.parametrize("name", FLOATS)
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_only_finite_values_where_that_is_wanted(client: Client, name: str, bad: float) -> None:
    with client.matrix(3, 2, dtype=name, finite=True) as matrix:
        assert matrix.finite
        for values in (bad, [[1.0, bad]], np.array([[bad, 1.0]], dtype=name)):
            with pytest.raises(DTypeError, match=r"nan|inf"):
                matrix.push([1], values)
            with pytest.raises(DTypeError):
                matrix.push_pull([1], values)
        matrix.push([1], [[1.0, 2.0]]).result()
        assert matrix.pull().result().tolist() == [[0.0, 0.0], [1.0, 2.0], [0.0, 0.0]]


@pytest.mark.parametrize(
    "dtype", ["complex64", "object", "U3", "S3", "datetime64[s]", "longdouble", "i4,i4", "x", 7]
)
def test_other_dtypes_are_refused(client: Client, dtype: Any) -> None:
    before = client.models()
    with pytest.raises(DTypeError):
        client.vector(3, dtype=dtype)
    assert client.models() == before


@pytest.mark.parametrize("dtype", [np.float32, float, int, bool, ">i4", np.dtype("<u2"), "f2", "long"])
def test_a_dtype_may_be_written_in_numpys_ways(client: Client, dtype: Any) -> None:
    with client.vector(3, dtype=dtype) as vector:
        assert vector.dtype == np.dtype(dtype).newbyteorder("=")
        vector.push(None, np.ones(3, dtype=dtype)).result()
        assert vector.pull().result().tolist() == np.ones(3, dtype=dtype).tolist()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("int8", 128),
        ("int8", [1, -129]),
        ("uint8", -1),
        ("uint64", 2**64),
        ("int64", 1.0),
        ("int64", [1, 2.5]),
        ("bool", 1.0),
        ("float16", 1e6),
        ("int32", np.ones(2)),
        ("uint8", np.array([1, -1], dtype=np.int8)),
        ("bool", np.array([1, 0])),
        ("float64", "1.0"),
        ("float64", np.array([1j, 2])),
        ("float64", [None, 1.0]),
    ],
)
def test_values_that_the_dtype_cant_hold_are_refused(client: Client, name: str, values: Any) -> None:
    with client.vector(2, dtype=name) as vector:
        for call in (vector.push, vector.push_pull):
            with pytest.raises(DTypeError):
                call(None, values)
        assert not vector.pull().result().any()


@pytest.mark.parametrize(
    ("name", "values"),
    [
        ("int64", np.array([3, 4], dtype=np.int8)),
        ("uint8", np.array([3, 4], dtype=np.int64)),
        ("float16", np.array([3, 4], dtype=np.float64)),
        ("float32", np.array([3, 4], dtype=np.int16)),
        ("float64", [3, 4]),
        ("int32", np.array([3, 4], dtype=">i4")),
        ("float64", np.array([3, 0, 4, 0], dtype=">f8")[::2]),
        ("int8", np.array([0, 0, 3, 4], dtype=np.int8)[2:]),
        ("float32", (3, 4.0)),
        ("int16", [True + 2, 4]),
    ],
)
def test_values_that_the_dtype_can_hold_are_converted(client: Client, name: str, values: Any) -> None:
    with client.vector(2, dtype=name) as vector:
        assert vector.push_pull(None, values).result().tolist() == [3, 4]


@pytest.fixture(scope="module")
def vectors(client: Client) -> Iterator[dict[str, Any]]:
    made = {name: client.vector(64, dtype=name, partitioner="cyclic") for name in NAMES}
    yield made
    for vector in made.values():
        vector.destroy()


@given(name=st.sampled_from(NAMES), data=st.data())
def test_what_is_pushed_is_what_numpy_adds(vectors: dict[str, Any], name: str, data: st.DataObject) -> None:
    vector, dtype = vectors[name], np.dtype(name)
    keys = data.draw(st.lists(st.integers(0, 63), max_size=20, unique=dtype.kind == "f"))
    # Any bit pattern: what was there before is what earlier examples left.
    values = data.draw(hypothesis_numpy.arrays(dtype, len(keys)))
    expected = vector.pull().result()
    with np.errstate(all="ignore"):
        np.add.at(expected, keys, values)
    found = vector.push_pull(keys, values).result()
    np.testing.assert_array_equal(found, expected[keys])
    np.testing.assert_array_equal(vector.pull().result(), expected)
