"""An updater's loop, as Python and compiled, gives the bits of its formula."""

from __future__ import annotations

from typing import Any

import numba
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glintpy.protocol import dtypes
from glintpy.updaters.names import BUILT_IN
from tests.unit.updater_cases import UPDATERS, Case, assert_same_bits

COLUMNS = [1, 3, 20]
FLOATS = ["float32", "float64"]


def test_every_updater_with_a_loop_is_tried_here() -> None:
    assert set(UPDATERS) == {name for name, kind in BUILT_IN.items() if kind.loop is not None}
    assert set(BUILT_IN) - set(UPDATERS) == {"add"}


@pytest.mark.parametrize("name", UPDATERS)
@settings(max_examples=40)
@given(st.data(), st.sampled_from(FLOATS), st.sampled_from(COLUMNS), st.integers(0, 2**32))
def test_a_loop_gives_the_bits_of_the_formula(
    name: str, data: st.DataObject, dtype: str, num_cols: int, seed: int
) -> None:
    updater = data.draw(UPDATERS[name])
    case = Case(updater, np.dtype(dtype), np.random.default_rng(seed), num_cols)
    assert_same_bits(case.by_loop(updater.loop), case.by_formula())


@pytest.mark.parametrize(
    "name", [name for name, kind in BUILT_IN.items() if kind.kinds == "biuf" and kind.loop]
)
@given(st.sampled_from(list(dtypes.NAMES)), st.sampled_from(COLUMNS), st.integers(0, 2**32))
def test_a_loop_gives_the_bits_of_the_formula_for_integers_and_booleans_too(
    name: str, dtype: str, num_cols: int, seed: int
) -> None:
    updater = BUILT_IN[name]()
    case = Case(updater, np.dtype(dtype), np.random.default_rng(seed), num_cols)
    assert_same_bits(case.by_loop(updater.loop), case.by_formula())


def compiled(kind: Any, dtype: str) -> Any:
    """Compile a loop as servers do: for one signature, without fastmath; numpy divides by zero, too."""

    def array(item: Any, ndim: int, *, written: bool = False) -> Any:
        return numba.types.Array(item, ndim, "C", readonly=not written, aligned=False)

    item = numba.from_dtype(np.dtype(dtype))
    dispatcher = numba.njit(nogil=True, error_model="numpy")(kind.loop)
    dispatcher.compile(
        numba.void(
            *[array(item, 1, written=True)] * (1 + len(kind.slots)),
            array(numba.int64, 1),
            numba.int64,
            array(item, 1),
            array(item, 2),
            array(item, 1),
        )
    )
    dispatcher.disable_compile()
    return dispatcher


MOST = [(name, "float32") for name in UPDATERS] + [("adam", "float64"), ("ftrl", "float64"), ("max", "bool")]
ALL = [(name, dtype) for name in UPDATERS for dtype in FLOATS] + [
    (name, dtype) for name in ("max", "min") for dtype in ("bool", "int8", "uint64")
]


@pytest.mark.parametrize(
    ("name", "dtype"),
    [pytest.param(*case, marks=() if case in MOST else pytest.mark.soak) for case in ALL],
)
def test_a_compiled_loop_gives_the_bits_of_the_formula(name: str, dtype: str) -> None:
    loop = compiled(BUILT_IN[name], dtype)

    @settings(max_examples=40)
    @given(UPDATERS[name], st.sampled_from(COLUMNS), st.integers(0, 2**32))
    def check(updater: Any, num_cols: int, seed: int) -> None:
        case = Case(updater, np.dtype(dtype), np.random.default_rng(seed), num_cols)
        assert_same_bits(case.by_loop(loop), case.by_formula())

    check()
