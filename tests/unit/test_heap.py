"""A heap grows in place, in files and in memory: old views stay good, and where there is no room nothing changes."""

from __future__ import annotations

import errno
import os
from collections.abc import Iterator
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from glintpy.errors import ConfigError, ModelLost, NotEnoughMemory
from glintpy.storage.arrays import ArraySpec
from glintpy.storage.heap import Heap, first_rows, next_rows, path_of
from glintpy.storage.table_segment import TableSegment

KINDS = (ArraySpec("values", np.dtype("<f4"), (3,)), ArraySpec("keys", np.dtype("<i8"), ()))


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "7.segment"


@pytest.fixture(params=["file", "memory"])
def heap(request: pytest.FixtureRequest, path: Path) -> Iterator[Heap]:
    made = Heap.make(KINDS, path if request.param == "file" else None, 4)
    yield made
    made.delete()


def test_it_is_zeros_and_every_call_returns_the_same_memory(heap: Heap) -> None:
    values, keys = heap.arrays()
    assert (values.shape, values.dtype, keys.shape, keys.dtype) == (
        (4, 3),
        np.dtype("<f4"),
        (4,),
        np.dtype("<i8"),
    )
    assert not values.any()
    assert not keys.any()
    keys[2] = 5
    assert heap.arrays()[1].tolist() == [0, 0, 5, 0]
    assert (heap.num_rows, heap.num_bytes) == (4, 4 * 20)


def test_what_was_there_stays_and_who_reads_the_shorter_arrays_sees_the_same(heap: Heap) -> None:
    _, before = heap.arrays()
    before[:] = [1, 2, 3, 4]
    heap.grow(100_000)
    values, keys = heap.arrays()
    assert values.shape == (100_000, 3)
    assert keys[:5].tolist() == [1, 2, 3, 4, 0]
    keys[0] = 9
    before[1] = 8
    assert (before[0], keys[1]) == (9, 8)


def test_without_room_it_stays_as_it_is(heap: Heap, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(*_: int) -> NoReturn:
        raise OSError(errno.ENOSPC, "no space")

    with monkeypatch.context() as patched:
        patched.setattr(os, "posix_fallocate", full)
        with pytest.raises(NotEnoughMemory, match="bytes more don't fit in"):
            heap.grow(1000)
    assert heap.num_rows == 4
    assert heap.arrays()[0].shape == (4, 3)
    heap.grow(1000)
    assert heap.arrays()[0].shape == (1000, 3)


def test_a_disk_that_fails_is_told_apart_from_one_that_is_full(
    heap: Heap, monkeypatch: pytest.MonkeyPatch
) -> None:
    def broken(*_: int) -> NoReturn:
        raise OSError(errno.EIO, "broken")

    monkeypatch.setattr(os, "posix_fallocate", broken)
    with pytest.raises(ConfigError, match="broken"):
        heap.grow(1000)


def test_files_come_back_as_they_were(path: Path) -> None:
    heap = Heap.make(KINDS, path, 4)
    heap.grow(10)
    heap.arrays()[1][:] = range(10)
    heap.flush()
    heap.close()
    heap.close()
    again = Heap.open(KINDS, path)
    assert (again.num_rows, again.arrays()[1].tolist()) == (10, list(range(10)))
    again.delete()
    assert list(path.parent.iterdir()) == []


def test_one_that_was_killed_while_it_grew_has_the_rows_that_all_arrays_have(path: Path) -> None:
    heap = Heap.make(KINDS, path, 4)
    heap.close()
    os.truncate(path_of(path, 0), 100 * 12 + 5)
    again = Heap.open(KINDS, path)
    assert again.num_rows == 4
    again.grow(200)
    assert again.arrays()[0].shape == (200, 3)
    again.delete()


def test_a_file_that_is_missing_or_empty_loses_the_table(path: Path) -> None:
    Heap.make(KINDS, path, 4).close()
    os.truncate(path_of(path, 1), 0)
    with pytest.raises(ModelLost, match="no row"):
        Heap.open(KINDS, path)
    path_of(path, 1).unlink()
    with pytest.raises(ModelLost, match="is missing"):
        Heap.open(KINDS, path)
    # What is left of it doesn't stand in the way of another.
    heap = Heap.make(KINDS, path, 4)
    assert not heap.arrays()[1].any()
    heap.delete()


def test_it_begins_small_and_grows_by_an_eighth() -> None:
    assert first_rows(20) == 1024
    assert first_rows(2**21) == 1
    assert next_rows(1024, 1025, 20) == 2048
    assert next_rows(800_000, 800_001, 20) == 900_000
    assert next_rows(1024, 10_000, 20) == 10_000
    assert next_rows(1, 2, 2**21) == 2


@pytest.mark.parametrize("clean", [True, False])
def test_a_table_whose_files_were_cut_short_is_lost(path: Path, clean: bool) -> None:
    segment = TableSegment.make_table(path, {"model_id": 7}, {}, KINDS, 4)
    segment.heap.grow(10)
    segment.mark_filled()
    segment.close(clean=clean)
    for number, row_bytes in enumerate((12, 8)):
        size = path_of(path, number).stat().st_size
        os.truncate(path_of(path, number), 9 * row_bytes)
        again = TableSegment.open(path)
        with pytest.raises(ModelLost, match="have 9 rows, and had 10: one was cut short"):
            again.open_heap(KINDS)
        again.close(clean=False)
        os.truncate(path_of(path, number), size)
    again = TableSegment.open(path)
    again.open_heap(KINDS)
    assert again.heap.num_rows == 10
    again.heap.grow(20)  # and that is written down from here on
    again.close(clean=False)
    os.truncate(path_of(path, 1), 19 * 8)
    last = TableSegment.open(path)
    with pytest.raises(ModelLost, match="have 19 rows, and had 20"):
        last.open_heap(KINDS)
    last.delete()


def test_a_table_of_a_version_that_wrote_no_rows_down_opens(path: Path) -> None:
    TableSegment.make(path, {"model_id": 7}, {}).close(clean=True)
    Heap.make(KINDS, path, 4).close()
    segment = TableSegment.open(path)
    segment.open_heap(KINDS)
    segment.heap.grow(8)
    assert segment.heap.num_rows == 8
    segment.delete()
