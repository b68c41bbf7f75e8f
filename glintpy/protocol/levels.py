"""Values of few levels in 1, 2, 4 or 8 bits each; pure, and knows no message.

What a gradient becomes that is quantised to a few numbers need not travel as numbers: the *levels* go along once, in
rising order, and each value as a *code*, its place among them. Codes lie in bytes from the lowest bits up.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy import config
from glintpy.errors import DTypeError, ShapeError
from glintpy.protocol.dtypes import DTypeAny

LEVELS_MAX = 256

_FEW = 4
"""Up to here comparing with each level is faster than a search."""


def bits_of(num_levels: int) -> int:
    """Return how many bits a code has, 1, 2, 4 or 8, with at most 256 levels."""
    return next(bits for bits in (1, 2, 4, 8) if num_levels <= 1 << bits)


def codes_of(values: NDArray[Any], levels: NDArray[Any]) -> NDArray[np.uint8]:
    """Return the place of each value among the levels, in the values' shape; the sign of a zero is lost.

    Args:
        values: of any shape.
        levels: (n,) of the same dtype, rising, at most 256.

    Raises:
        DTypeError: a value that is none of them, with its position.
    """
    if len(levels) <= _FEW:
        known = values == levels[0]
        codes = np.zeros(values.shape, np.uint8)
        for code in range(1, len(levels)):
            same = values == levels[code]
            known |= same
            codes += same.view(np.uint8) * np.uint8(code)
    else:
        codes = np.minimum(np.searchsorted(levels, values), len(levels) - 1).astype(np.uint8)
        known = levels[codes] == values
    if not known.all():
        place = np.unravel_index(int(np.argmin(known)), values.shape)
        position = tuple(map(int, place)) if len(place) > 1 else int(place[0])
        shown = ", ".join(repr(level) for level in levels[:8].tolist()) + (", ..." if len(levels) > 8 else "")
        raise DTypeError(
            f"values at position {position} is {values[place].item()!r}, which is none of the levels {shown}"
        )
    return codes


def pack(codes: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """Return codes side by side in bytes.

    Args:
        codes: of any shape, below 2**bits, C-contiguous.
        bits: 1, 2, 4 or 8.
    """
    flat = codes.reshape(-1)
    if bits == 8:
        return flat
    if bits == 1:
        return np.packbits(flat, bitorder="little")
    per_byte = 8 // bits
    if flat.size % per_byte:
        flat = np.concatenate([flat, np.zeros(-flat.size % per_byte, np.uint8)])
    if bits == 4:
        words: NDArray[Any] = flat.view("<u2")
        words = words | words >> 4
    else:
        words = flat.view("<u4")
        words = words | words >> 6 | words >> 12 | words >> 18
    return words.astype(np.uint8)  # the lowest byte of each


def num_cells_max(dtype: DTypeAny) -> int:
    """Return how many values one message may stand for: no more than could travel as they are."""
    return config.FRAME_BYTES_MAX // dtype.itemsize


def unpack(codes: NDArray[Any], levels: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Return the values that foreign codes stand for, in a new array of the levels' dtype.

    Args:
        codes: as they came.
        levels: as they came.
        shape: that the values must have.

    Raises:
        ShapeError: other than as many codes as the shape has cells, too many of them, or levels of no such number.
        DTypeError: codes that aren't bytes, or name no level.
    """
    if levels.ndim != 1 or not 1 <= len(levels) <= LEVELS_MAX:
        raise ShapeError(f"levels are (n,) with n from 1 to {LEVELS_MAX}, not of shape {levels.shape}")
    num_cells = 1
    for length in shape:
        num_cells *= length
    if num_cells > num_cells_max(levels.dtype):
        raise ShapeError(
            f"codes for {num_cells} values of {levels.dtype.name}; a message may stand for "
            f"{num_cells_max(levels.dtype)}"
        )
    bits = bits_of(len(levels))
    if codes.dtype != np.uint8:
        raise DTypeError(f"codes are uint8, not {codes.dtype.name}")
    if codes.shape != (-(-num_cells * bits // 8),):
        raise ShapeError(f"codes of {bits} bits for {shape} values have shape {codes.shape}")
    places = (np.arange(256)[:, np.newaxis] >> bits * np.arange(8 // bits)) & ((1 << bits) - 1)
    is_unknown = (places >= len(levels)).any(axis=1)
    if is_unknown.any() and is_unknown.take(codes).any():
        raise DTypeError(f"a code of {bits} bits that names none of {len(levels)} levels")
    # Of each byte all its values at once.
    table = levels.take(np.minimum(places, len(levels) - 1))
    values: NDArray[Any] = table.take(codes, axis=0).reshape(-1)[:num_cells].reshape(shape)
    return values
