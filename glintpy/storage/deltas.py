"""What is pushed, before it is applied: refused where it must be finite and isn't, or cut in two for a drill."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from glintpy.errors import DTypeError
from glintpy.protocol.selection import Selection, axis_indices

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray


def check_finite(deltas: NDArray[Any], name: str) -> None:
    """Refuse NaN and infinities.

    Args:
        deltas: what is pushed.
        name: of the model.

    Raises:
        DTypeError: with the first one and its position.
    """
    finite = np.isfinite(deltas)
    if finite.all():
        return
    position = tuple(int(axis[0]) for axis in np.nonzero(~finite))
    raise DTypeError(
        f"value {deltas[position]} at position {position} is not finite, and model {name!r} was made with "
        "finite=True"
    )


def halves_of(selection: Selection, deltas: NDArray[Any]) -> Iterator[tuple[Selection, NDArray[Any]]]:
    """Yield a push's two halves by rows, for a drill that strikes between them."""
    rows = axis_indices(selection.rows)
    cols = None if selection.cols is None else axis_indices(selection.cols)
    middle = len(rows) // 2
    for part in (slice(None, middle), slice(middle, None)):
        part_cols = cols[part] if selection.paired and cols is not None else cols
        yield Selection(rows[part], part_cols, selection.paired), deltas[part]
