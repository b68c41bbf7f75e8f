"""Values of one dtype as those of another, where that holds them; pure, and knows no key."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy import DTypeError


def cast(values: NDArray[Any], dtype: np.dtype[Any], what: str) -> NDArray[Any]:
    """Return values in a dtype; they may be the ones that were given.

    Integers never wrap, and no finite number becomes infinite. Floats may lose digits.

    Args:
        values: numbers of any shape.
        dtype: wanted, of the same kind or a wider one.
        what: they are, for messages.

    Raises:
        DTypeError: another kind, or a value that the dtype can't hold, with what it holds.
    """
    if values.dtype == dtype:
        return values
    if not np.can_cast(values.dtype, dtype, "same_kind"):
        raise DTypeError(
            f"{what} is of {values.dtype.name}, and what it is for holds {dtype.name}: convert it first"
        )
    if dtype.kind in "iu" and values.size and not np.can_cast(values.dtype, dtype):
        low, high = int(np.iinfo(dtype).min), int(np.iinfo(dtype).max)
        least, most = int(values.min()), int(values.max())
        if least < low or most > high:
            raise DTypeError(
                f"{what} has {least if least < low else most}; {dtype.name} holds {low} to {high}"
            )
    with np.errstate(over="ignore"):
        found = values.astype(dtype)
    if dtype.kind == "f" and not np.can_cast(values.dtype, dtype):
        lost = np.isinf(found)
        lost &= np.isfinite(values)
        if lost.any():
            limit = float(np.finfo(dtype).max)
            raise DTypeError(
                f"{what} has {values[lost].flat[0]!s}; {dtype.name} holds {-limit:.8g} to {limit:.8g}"
            )
    return found
