"""Codes side by side in bytes, and back; foreign ones are one precise error."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glintpy.errors import DTypeError, GlintError, ShapeError
from glintpy.protocol import dtypes
from glintpy.protocol.levels import LEVELS_MAX, bits_of, codes_of, num_cells_max, pack, unpack


@st.composite
def pushes(draw: st.DrawFn) -> tuple[NDArray[Any], NDArray[Any]]:
    """Levels of any dtype, rising, and values of one to three dimensions that are among them."""
    dtype = draw(st.sampled_from(list(dtypes.BY_CODE.values())))
    random = np.random.default_rng(draw(st.integers(0, 2**32)))
    wanted = draw(st.sampled_from([1, 2, 3, 4, 5, 16, 17, 255, 256]))
    levels = np.unique(random.integers(-128, 128, wanted).astype(np.int64).astype(dtype))
    shape = tuple(draw(st.lists(st.integers(0, 9), min_size=1, max_size=3)))
    return levels, random.choice(levels, size=shape)


@given(pushes())
def test_what_is_packed_is_what_comes_out(push: tuple[NDArray[Any], NDArray[Any]]) -> None:
    levels, values = push
    bits = bits_of(len(levels))
    packed = pack(codes_of(values, levels), bits)
    assert packed.nbytes == -(-values.size * bits // 8)
    found = unpack(packed, levels, values.shape)
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


def test_codes_fill_each_byte_from_below() -> None:
    codes = np.array([1, 0, 1, 1, 0, 0, 0, 0, 1], np.uint8)
    assert pack(codes, 1).tolist() == [0b00001101, 1]
    assert pack(np.array([2, 1, 0, 3, 1], np.uint8), 2).tolist() == [0b11000110, 1]
    assert pack(np.array([15, 2, 7], np.uint8), 4).tolist() == [0x2F, 7]
    assert pack(np.array([200, 3], np.uint8), 8).tolist() == [200, 3]


@pytest.mark.parametrize("num_levels", [3, 200])
def test_a_value_that_is_no_level_is_named(num_levels: int) -> None:
    levels = np.arange(num_levels, dtype=np.float32)
    with pytest.raises(
        DTypeError, match=r"values at position \(1, 2\) is 1\.5, which is none of the levels 0\.0"
    ):
        codes_of(np.array([[0, 1, 2], [1, 2, 1.5]], np.float32), levels)
    with pytest.raises(DTypeError, match="position 1 is nan"):
        codes_of(np.array([0, np.nan], np.float32), levels)
    with pytest.raises(DTypeError, match=r"position 0 is 1000\.0"):
        codes_of(np.array([1000], np.float32), levels)


THREE = np.array([-1, 0, 1], np.float32)

FOREIGN: dict[str, tuple[NDArray[Any], NDArray[Any], tuple[int, ...], type[GlintError], str]] = {
    "no level": (np.zeros(1, np.uint8), THREE[:0], (4,), ShapeError, "from 1 to 256"),
    "too many levels": (np.zeros(1, np.uint8), np.zeros(257), (1,), ShapeError, "from 1 to 256"),
    "levels of two dimensions": (np.zeros(1, np.uint8), THREE[None], (4,), ShapeError, "(1, 3)"),
    "too few codes": (np.zeros(1, np.uint8), THREE, (5,), ShapeError, "2 bits for (5,) values"),
    "too many codes": (np.zeros(3, np.uint8), THREE, (5,), ShapeError, "2 bits for (5,) values"),
    "codes of two dimensions": (np.zeros((1, 1), np.uint8), THREE, (4,), ShapeError, "(1, 1)"),
    "codes of another dtype": (np.zeros(1, np.int8), THREE, (4,), DTypeError, "int8"),
    "a code beyond the levels": (np.array([0b11], np.uint8), THREE, (4,), DTypeError, "none of 3 levels"),
    "more than a message": (
        np.zeros(1, np.uint8),
        THREE,
        (2**40, 2**40),
        ShapeError,
        str(num_cells_max(np.dtype("<f4"))),
    ),
}


@pytest.mark.parametrize(("codes", "levels", "shape", "error", "said"), FOREIGN.values(), ids=FOREIGN)
def test_foreign_codes_are_refused(
    codes: NDArray[Any], levels: NDArray[Any], shape: tuple[int, ...], error: type[GlintError], said: str
) -> None:
    with pytest.raises(error) as raised:
        unpack(codes, levels, shape)
    assert said in str(raised.value)


def test_any_codes_of_all_levels_are_values() -> None:
    levels = np.arange(LEVELS_MAX, dtype=np.int16)
    assert unpack(np.array([3, 255], np.uint8), levels, (2, 1)).tolist() == [[3], [255]]
