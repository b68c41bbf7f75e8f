"""The dtypes that cross the wire, one byte each; knows no message."""

from __future__ import annotations

from typing import Any

import numpy as np

from glintpy.errors import DTypeError

DTypeAny = np.dtype[Any]

BY_CODE: dict[int, DTypeAny] = {
    1: np.dtype("<i1"),
    2: np.dtype("<i2"),
    3: np.dtype("<i4"),
    4: np.dtype("<i8"),
    5: np.dtype("<u1"),
    6: np.dtype("<u2"),
    7: np.dtype("<u4"),
    8: np.dtype("<u8"),
    9: np.dtype("<f2"),
    10: np.dtype("<f4"),
    11: np.dtype("<f8"),
    12: np.dtype("?"),
}
"""Code to dtype, little-endian. A code is for life: new ones are added behind a feature."""

CODE_OF: dict[DTypeAny, int] = {dtype: code for code, dtype in BY_CODE.items()}

INDEX_CODES = frozenset({4, 7})
"""int64 and uint32: the only dtypes of index arrays."""

BY_NAME: dict[str, DTypeAny] = {dtype.name: dtype for dtype in BY_CODE.values()}

NAMES = tuple(dtype.name for dtype in BY_CODE.values())


def model_dtype(dtype: Any) -> DTypeAny:
    """Return the dtype of a model as numpy's own object, little-endian.

    Args:
        dtype: whatever ``np.dtype`` takes: a name, a type, a dtype.

    Raises:
        DTypeError: not a fixed-size number or bool; the message lists what is.
    """
    try:
        found: DTypeAny = np.dtype(dtype).newbyteorder("<")
    # SyntaxError and ValueError: numpy reads a text such as "f8,(" as a small language of its own.
    except (TypeError, ValueError, SyntaxError) as error:
        raise DTypeError(f"{dtype!r:.80} is not a dtype; a model has one of {', '.join(NAMES)}") from error
    if found not in CODE_OF:
        raise DTypeError(f"a model can't have dtype {found.name}; it has one of {', '.join(NAMES)}")
    return found
