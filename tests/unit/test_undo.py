"""The undo record holds any push exactly, tells when one is under way, and grows for large ones."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glintpy import config
from glintpy.errors import ConfigError, NotEnoughMemory
from glintpy.protocol.selection import Selection, slices_of
from glintpy.storage import mapped
from glintpy.storage.undo import Undo

SESSION = bytes(range(16))
FLOATS = np.dtype("<f4")


@pytest.fixture
def undo(tmp_path: Path) -> Iterator[Undo]:
    made = Undo.open(tmp_path / "server.undo")
    yield made
    made.close(clean=False)


def rows_of(*rows: int, dtype: str = "<u4") -> NDArray[np.uint32]:
    return np.array(rows, dtype)


def again(undo: Undo, tmp_path: Path) -> Undo:
    undo.close(clean=False)
    return Undo.open(tmp_path / "server.undo")


@pytest.mark.parametrize(
    ("selection", "shape"),
    [
        (Selection(rows_of(3, 1, 3)), (3, 5)),
        (Selection(rows_of(3, 1, dtype="<i8")), (2, 5)),
        (Selection(slices_of((0, 4, 1), (8, 20, 3))), (8, 5)),
        (Selection(rows_of(3, 1), rows_of(0, 2, dtype="<i8"), paired=True), (2,)),
        (Selection(rows_of(3, 1), slices_of((0, 5, 2))), (2, 3)),
        (Selection(slices_of((0, 2, 1)), rows_of(4)), (2, 1)),
        (Selection(rows_of()), (0, 5)),
    ],
)
def test_a_push_comes_back_as_it_was_written(
    undo: Undo, tmp_path: Path, selection: Selection, shape: tuple[int, ...]
) -> None:
    old = np.arange(np.prod(shape), dtype=FLOATS).reshape(shape)
    undo.begin(SESSION, 2**40)
    undo.room(9, selection, [(shape, FLOATS)])[0][...] = old
    assert undo.pending() is None
    undo.arm()
    found = again(undo, tmp_path)
    assert found.is_armed
    pending = found.pending()
    assert pending is not None
    assert (pending.model_id, pending.session_id, pending.sequence) == (9, SESSION, 2**40)
    assert pending.selection.paired == selection.paired
    assert pending.selection.rows.dtype == selection.rows.dtype
    assert pending.selection.rows.tolist() == selection.rows.tolist()
    assert (pending.selection.cols is None) == (selection.cols is None)
    if selection.cols is not None and pending.selection.cols is not None:
        assert pending.selection.cols.tolist() == selection.cols.tolist()
    np.testing.assert_array_equal(pending.values([(shape, FLOATS)])[0], old)
    del pending
    found.clear()
    assert found.pending() is None
    found.close(clean=False)


def test_a_larger_push_than_usual_gets_a_larger_record(undo: Undo, tmp_path: Path) -> None:
    num_rows = config.FRAME_BYTES_MAX // 8
    selection = Selection(np.arange(num_rows, dtype="<u4"))
    undo.begin(SESSION, 1)
    undo.room(1, selection, [((num_rows, 2), FLOATS)])[0][:] = 4
    undo.arm()
    found = again(undo, tmp_path)
    pending = found.pending()
    assert pending is not None
    assert pending.values([((num_rows, 2), FLOATS)])[0].sum() == 8 * num_rows
    assert pending.selection.rows[-1] == num_rows - 1
    del pending
    found.close(clean=False)


def test_without_room_for_a_larger_record_the_one_that_there_is_goes_on(
    undo: Undo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> NoReturn:
        raise NotEnoughMemory("no room")

    large = config.PART_BYTES
    with monkeypatch.context() as patched:
        patched.setattr(mapped, "_allocate", full)
        with pytest.raises(NotEnoughMemory, match="no room"):
            undo.room(1, Selection(slices_of((0, large, 1))), [((large,), FLOATS)])
    assert undo.pending() is None
    undo.begin(SESSION, 2)
    undo.room(1, Selection(rows_of(0)), [((1,), FLOATS)])[0][:] = 7
    undo.arm()
    found = again(undo, tmp_path)
    pending = found.pending()
    assert pending is not None
    assert pending.values([((1,), FLOATS)])[0].tolist() == [7]
    del pending
    found.close(clean=False)


def test_a_push_beyond_every_frame_is_refused(undo: Undo) -> None:
    too_large = (config.FRAME_BYTES_MAX * 17,)
    with pytest.raises(NotEnoughMemory, match="smaller parts"):
        undo.room(1, Selection(slices_of((0, too_large[0], 1))), [(too_large, np.dtype("u1"))])
    assert undo.pending() is None


def test_a_record_of_another_boot_undoes_nothing(
    undo: Undo, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    undo.room(1, Selection(rows_of(0)), [((1,), FLOATS)])[0][:] = 1
    undo.arm()
    monkeypatch.setattr(mapped, "boot_number", lambda: 1)
    found = again(undo, tmp_path)
    assert not found.is_armed
    assert found.pending() is None
    found.close(clean=False)


def test_a_record_that_has_no_room_for_what_it_says_is_an_error(undo: Undo, tmp_path: Path) -> None:
    undo.room(1, Selection(rows_of(0)), [((1,), FLOATS)])[0][:] = 1
    undo.arm()
    undo._body[40:48] = (2**50).to_bytes(8, "little")
    found = again(undo, tmp_path)
    with pytest.raises(ConfigError, match="no room for"):
        found.pending()
    found.close(clean=False)


@given(st.data())
def test_putting_old_values_back_leaves_what_was_there(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    folder = tmp_path_factory.mktemp("undo")
    undo = Undo.open(folder / "server.undo")
    try:
        values = np.arange(60, dtype=FLOATS).reshape(12, 5)
        rows = np.array(data.draw(st.lists(st.integers(0, 11), max_size=8)), "<i8")
        before = values.copy()
        selection = Selection(rows)
        undo.begin(SESSION, 1)
        undo.room(1, selection, [((len(rows), 5), FLOATS)])[0][...] = values[rows]
        undo.arm()
        np.add.at(values, rows, 1)
        pending = undo.pending()
        assert pending is not None
        values[pending.selection.rows] = pending.values([((len(rows), 5), FLOATS)])[0]
        np.testing.assert_array_equal(values, before)
        del pending
    finally:
        undo.close(clean=False)
