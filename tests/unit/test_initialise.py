"""Initial values: pinned, within bounds, distributed as asked, a function of seed and cell alone."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glintpy.errors import ConfigError, KeyRangeError, ShapeError
from glintpy.protocol.spec import Init, ModelSpec
from glintpy.storage.initialise import fill, random_rows

_MASK = 2**64 - 1

PINNED_UNIFORM = [
    [-0.31341615580265314, 0.9114934522634872],
    [-0.027300927436662903, -0.8652842135933281],
    [-0.7833990531449426, 0.9176902769629605],
]
PINNED_NORMAL = [-0.9549285094559233, 0.26204736109064397, -0.6777093874851514]


def a_spec(
    init: Init, *, rows: int = 1000, cols: int | None = 8, dtype: str = "float64", seed: int = 7
) -> ModelSpec:
    return ModelSpec("m", rows, cols, dtype, init=init, seed=seed)


def mix(bits: int) -> int:
    """SplitMix64's mix, written down a second time from the paper, in Python's integers."""
    bits = ((bits ^ (bits >> 30)) * 0xBF58476D1CE4E5B9) & _MASK
    bits = ((bits ^ (bits >> 27)) * 0x94D049BB133111EB) & _MASK
    return bits ^ (bits >> 31)


def unit(seed: int, cell: int, stream: int) -> float:
    gamma = 0x9E3779B97F4A7C15
    key = mix((seed + (stream + 1) * gamma) & _MASK)
    return (mix((key + (cell + 1) * gamma) & _MASK) >> 11) * 2.0**-53


def test_the_mix_is_splitmix64s() -> None:
    # The first numbers of the reference implementation for seed 1234567.
    state, found = 1234567, []
    for _ in range(3):
        state = (state + 0x9E3779B97F4A7C15) & _MASK
        found.append(mix(state))
    assert found == [6457827717110365317, 3203168211198807973, 9817491932198370423]


@given(st.integers(-(2**63), 2**63 - 1), st.integers(0, 2**50 - 1))
def test_values_follow_the_formula_for_any_seed_and_row(seed: int, row: int) -> None:
    rows = np.array([row])
    uniform = random_rows(a_spec(("uniform", 0, 1), rows=2**50, cols=3, seed=seed), rows)
    assert uniform.tolist() == [[unit(seed, row * 3 + col, 0) for col in range(3)]]
    normal = random_rows(a_spec(("normal", 2, 3), rows=2**50, cols=None, seed=seed), rows)
    radius = math.sqrt(-2 * math.log(1 - unit(seed, row, 0)))
    expected = 2 + 3 * radius * math.cos(2 * math.pi * unit(seed, row, 1))
    assert normal.tolist() == pytest.approx([expected], rel=1e-12, abs=1e-12)


def test_known_values_stay_what_they_are() -> None:
    rows = np.array([0, 1, 999])
    uniform = random_rows(a_spec(("uniform", -1, 1), cols=2, seed=42), rows)
    normal = random_rows(a_spec(("normal", 0, 1), cols=None, seed=-1), rows)
    assert uniform.tolist() == PINNED_UNIFORM
    assert normal.tolist() == pytest.approx(PINNED_NORMAL, rel=1e-12)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_uniform_and_normal_have_the_moments_they_were_asked_for(dtype: str) -> None:
    rows = np.arange(1000)
    uniform = random_rows(a_spec(("uniform", -3, 5), cols=100, dtype=dtype), rows).astype(float)
    normal = random_rows(a_spec(("normal", 4, 2), cols=100, dtype=dtype), rows).astype(float)
    assert random_rows(a_spec(("normal", 4, 2), cols=100, dtype=dtype), rows).dtype == np.dtype(dtype)
    # 100,000 values: five standard errors of each moment, seeds fixed.
    assert uniform.mean() == pytest.approx(1, abs=5 * 8 / math.sqrt(12 * 1e5))
    assert uniform.var() == pytest.approx(64 / 12, rel=0.02)
    assert normal.mean() == pytest.approx(4, abs=5 * 2 / math.sqrt(1e5))
    assert normal.var() == pytest.approx(4, rel=0.03)
    standard = (normal - 4) / 2
    assert (standard**3).mean() == pytest.approx(0, abs=0.05)
    assert (standard**4).mean() == pytest.approx(3, abs=0.15)


def test_neighbours_streams_and_seeds_are_uncorrelated() -> None:
    rows = np.arange(1000)
    one, other = (random_rows(a_spec(("normal", 0, 1), cols=100, seed=seed), rows) for seed in (1, 2))
    for pair in ((one[:, 1:], one[:, :-1]), (one[1:], one[:-1]), (one, other)):
        assert abs(np.corrcoef(pair[0].ravel(), pair[1].ravel())[0, 1]) < 5 / math.sqrt(1e5)


@pytest.mark.parametrize(
    ("low", "high", "dtype"),
    [
        (0.0, 1.0, "float16"),
        (0.0, 1.0, "float32"),
        (0.1, 0.10001, "float32"),
        (2048.0, 2051.0, "float16"),
        (-1e-3, 1e-3, "float16"),
        (65000.0, 65504.0, "float16"),
    ],
)
def test_uniform_stays_below_high_and_not_below_low_after_rounding(
    low: float, high: float, dtype: str
) -> None:
    found = random_rows(a_spec(("uniform", low, high), cols=100, dtype=dtype), np.arange(1000))
    assert found.astype(float).min() >= low
    assert found.astype(float).max() < high


def test_equal_ends_give_that_number() -> None:
    assert (random_rows(a_spec(("uniform", 0.5, 0.5)), np.arange(5)) == 0.5).all()


def test_bounds_between_which_the_dtype_has_no_number_are_refused() -> None:
    with pytest.raises(ConfigError, match="no float16 between"):
        random_rows(a_spec(("uniform", 1.0001, 1.0002), dtype="float16"), np.arange(5))


def test_a_normal_that_the_dtype_cannot_hold_is_refused() -> None:
    with pytest.raises(ConfigError, match="float16 does not"):
        random_rows(a_spec(("normal", 0, 20000), dtype="float16"), np.arange(5))
    assert np.isfinite(random_rows(a_spec(("normal", 0, 7600), dtype="float16"), np.arange(1000))).all()


@given(st.permutations(range(30)), st.sampled_from(["uniform", "normal"]), st.sampled_from([None, 1, 7]))
def test_order_and_company_of_rows_change_nothing(order: list[int], kind: str, cols: int | None) -> None:
    spec = a_spec((kind, -1, 2), rows=30, cols=cols, dtype="float32")
    whole = random_rows(spec, np.arange(30))
    np.testing.assert_array_equal(random_rows(spec, np.array(order)), whole[order])
    np.testing.assert_array_equal(random_rows(spec, np.array(order[:1])), whole[order[:1]])


def filled(spec: ModelSpec, extents: list[list[int]], *, num_rows: int, slice_rows: int) -> NDArray[Any]:
    values: NDArray[Any] = np.full((num_rows, *spec.row_shape), 99, spec.numpy_dtype)
    found = np.array(extents, np.int64).reshape(-1, 4)
    for first in range(0, num_rows, slice_rows):
        fill(values, spec=spec, extents=found, first=first, stop=min(num_rows, first + slice_rows))
    return values


@pytest.mark.parametrize("slice_rows", [1, 4, 100])
@pytest.mark.parametrize("cols", [None, 3])
def test_servers_partitioners_and_slices_leave_the_same_model(slice_rows: int, cols: int | None) -> None:
    spec = a_spec(("normal", 0, 1), rows=20, cols=cols)
    expected = random_rows(spec, np.arange(20))
    ranges = [
        filled(spec, [[0, 7, 0, 1]], num_rows=7, slice_rows=slice_rows),
        filled(spec, [[0, 13, 7, 1]], num_rows=13, slice_rows=slice_rows),
    ]
    np.testing.assert_array_equal(np.concatenate(ranges), expected)
    # Four cyclic partitions on two servers, and the extents in no order.
    first = filled(spec, [[5, 5, 2, 4], [0, 5, 0, 4]], num_rows=10, slice_rows=slice_rows)
    second = filled(spec, [[0, 5, 1, 4], [5, 5, 3, 4]], num_rows=10, slice_rows=slice_rows)
    np.testing.assert_array_equal(first[:5], expected[0::4])
    np.testing.assert_array_equal(second[:5], expected[1::4])
    np.testing.assert_array_equal(first[5:], expected[2::4])
    np.testing.assert_array_equal(second[5:], expected[3::4])


def test_only_the_rows_asked_for_are_filled() -> None:
    spec = a_spec(3, cols=None, dtype="int16")
    values = np.zeros(6, np.int16)
    fill(values, spec=spec, extents=np.empty((0, 4), np.int64), first=2, stop=4)
    assert values.tolist() == [0, 0, 3, 3, 0, 0]


@pytest.mark.parametrize(
    ("init", "dtype", "expected"),
    [
        (2**64 - 1, "uint64", 2**64 - 1),
        (True, "bool", True),
        (2.0, "int8", 2),
        (math.inf, "float16", math.inf),
    ],
)
def test_constants_arrive_exactly(init: float, dtype: str, expected: float) -> None:
    spec = a_spec(init, rows=2, cols=None, dtype=dtype)
    assert filled(spec, [], num_rows=2, slice_rows=2).tolist() == [expected, expected]


@pytest.mark.parametrize(
    "extents",
    [[], [[0, 3, 0, 1]], [[1, 4, 0, 1]], [[0, 3, 0, 1], [2, 3, 3, 1]], [[0, 2, 0, 1], [3, 2, 2, 1]]],
)
def test_extents_that_leave_a_row_out_or_name_one_twice_are_refused(extents: list[list[int]]) -> None:
    spec = a_spec(("uniform", 0, 1), rows=5, cols=None)
    values = np.zeros(5)
    with pytest.raises(ShapeError, match=r"each server row of \[0, 5\) once"):
        fill(values, spec=spec, extents=np.array(extents, np.int64).reshape(-1, 4), first=0, stop=5)
    assert not values.any()


def test_extents_of_another_shape_or_outside_the_model_are_refused() -> None:
    spec = a_spec(("uniform", 0, 1), rows=5, cols=None)
    with pytest.raises(ShapeError, match=r"\(k, 4\)"):
        fill(np.zeros(5), spec=spec, extents=np.empty(0, np.int64), first=0, stop=5)
    with pytest.raises(KeyRangeError, match="row 5 at position 4"):
        fill(np.zeros(5), spec=spec, extents=np.array([[0, 5, 1, 1]]), first=0, stop=5)


def test_a_constant_model_has_no_random_rows() -> None:
    with pytest.raises(ConfigError, match="constant"):
        random_rows(a_spec(0), np.arange(3))


def test_empty_models_have_empty_initial_values() -> None:
    assert random_rows(a_spec(("normal", 0, 1), rows=0, cols=4), np.empty(0, np.int64)).shape == (0, 4)
    assert random_rows(a_spec(("normal", 0, 1), rows=3, cols=0), np.arange(3)).shape == (3, 0)
