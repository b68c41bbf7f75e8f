"""Cells of one row are brought together where their steps are counted; how repeats are summed, models show."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar

import numpy as np
import pytest

from glintpy.errors import ShapeError
from glintpy.models import combining
from glintpy.models.combining import without_repeats
from glintpy.models.indexing import parse_pull
from glintpy.updaters import SGD, Add


@dataclass(frozen=True)
class Each(SGD):
    """Counts repeats of a cell each by itself."""

    combines: ClassVar[bool] = False


ROWS, COLS = [2, 0, 2, 1, 0], [1, 1, 1, 0, 0]


def test_cells_of_a_row_come_together_in_their_order() -> None:
    values = np.arange(5.0)
    asked = parse_pull(ROWS, COLS, num_rows=3, num_cols=2)
    found = without_repeats(asked, values, Each(), num_cols=2, joins_cells=False)
    assert found is not None
    assert isinstance(found.asked.rows, np.ndarray)
    assert isinstance(found.asked.cols, np.ndarray)
    assert found.asked.rows.tolist() == [0, 0, 1, 2, 2]
    assert found.asked.cols.tolist() == [1, 0, 0, 1, 1]
    assert found.values.tolist() == [1, 4, 3, 0, 2]
    np.testing.assert_array_equal(found.spread(found.values), values)


def test_what_stands_together_or_may_stand_apart_is_left_alone() -> None:
    asked = parse_pull(ROWS, COLS, num_rows=3, num_cols=2)
    assert without_repeats(asked, np.arange(5.0), Add(), num_cols=2, joins_cells=True) is None
    asked = parse_pull(sorted(ROWS), COLS, num_rows=3, num_cols=2)
    assert without_repeats(asked, np.arange(5.0), Each(), num_cols=2, joins_cells=False) is None


def test_more_cells_of_a_row_than_a_message_takes_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    for rows in ([2, 0, 2, 1, 2], [0, 1, 2, 2, 2]):
        asked = parse_pull(rows, COLS, num_rows=3, num_cols=2)
        monkeypatch.setattr(combining, "PAIRS_MAX", 3)
        without_repeats(asked, np.arange(5.0), Each(), num_cols=2, joins_cells=False)
        monkeypatch.setattr(combining, "PAIRS_MAX", 2)
        with pytest.raises(ShapeError, match=r"^3 pushes to cells of one row in one call.* takes 2$"):
            without_repeats(asked, np.arange(5.0), Each(), num_cols=2, joins_cells=False)
