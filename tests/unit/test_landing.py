"""Outputs overlap where numpy says that they share memory, and pushed arrays only with others' outputs."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glintpy.kvstore.forms import RowSparse
from glintpy.kvstore.landing import overlap

BUFFER = np.zeros(40)


@st.composite
def runs(draw: st.DrawFn) -> NDArray[Any]:
    start = draw(st.integers(0, 39))
    return BUFFER[start : draw(st.integers(start, 40))]


@given(outs=st.lists(runs(), max_size=4), pushed=st.lists(runs(), max_size=4))
def test_runs_overlap_where_they_share_memory(outs: list[NDArray[Any]], pushed: list[NDArray[Any]]) -> None:
    given_outs: Any = dict(enumerate(outs))
    given_pushed: Any = dict(enumerate(pushed))
    own = {
        key
        for key, array in given_pushed.items()
        if key in given_outs
        and array.ctypes.data == given_outs[key].ctypes.data
        and array.size == given_outs[key].size
    }
    others = [array for key, array in given_pushed.items() if key not in own]
    pairs = [(one, two) for number, one in enumerate(outs) for two in (*outs[:number], *others)]
    assert overlap(given_outs, given_pushed) == any(np.shares_memory(one, two) for one, two in pairs)


def test_arrays_that_are_pushed_may_have_any_strides() -> None:
    square = np.zeros((6, 6))
    assert overlap({"a": square[2]}, {"b": square[::-2, 1]})
    assert not overlap({"a": square[5]}, {"b": square[4::-1, ::3]})
    assert not overlap({"a": np.zeros(3)}, {"b": square, "c": square, "d": square[:, 1]})
    assert overlap({"a": square[2]}, {"b": RowSparse([0, 3], square[1:3], (9, 6))})
