"""Segments come back as they were closed, say when they were not, and refuse what doesn't fit."""

from __future__ import annotations

import errno
import gc
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from glintpy.errors import ConfigError, ModelLost, NotEnoughMemory, ShapeError
from glintpy.storage import mapped
from glintpy.storage.mapped import remove_unfinished
from glintpy.storage.segment import MemorySegment, Segment

if TYPE_CHECKING:
    from collections.abc import Iterator

    from numpy.typing import NDArray

    from glintpy.storage.segment import Store

FLOATS = np.dtype("<f4")
DESCRIPTION = {"model_id": 7, "spec": {"name": "größe"}, "routing": 1, "num_rows": 5}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "7.segment"


@pytest.fixture(params=["file", "memory"])
def store(request: pytest.FixtureRequest, path: Path) -> Iterator[Store]:
    made: Store = (
        Segment.make(path, DESCRIPTION, {"values": 60})
        if request.param == "file"
        else MemorySegment({"values": 60})
    )
    yield made
    made.close(clean=False)


def num_descriptors() -> int:
    gc.collect()  # what tests before this one have dropped, and the collector hasn't found yet
    return len(list(Path("/proc/self/fd").iterdir()))


def values_of(store: Store) -> NDArray[Any]:
    return store.extent("values", FLOATS, (5, 3))


def test_a_store_is_one_writable_array_of_zeros(store: Store) -> None:
    values = values_of(store)
    assert values.shape == (5, 3)
    assert values.dtype == FLOATS
    assert values.flags.c_contiguous
    assert values.flags.aligned
    assert not values.any()
    values[2] = 8
    assert values_of(store)[2].tolist() == [8, 8, 8]


@pytest.mark.parametrize("shape", [(5, 2), (6, 3), (0,)])
def test_a_shape_of_another_size_is_refused_with_both(store: Store, shape: tuple[int, ...]) -> None:
    with pytest.raises(ShapeError, match="the segment has 60"):
        store.extent("values", FLOATS, shape)


def test_an_array_outlives_the_store_that_it_came_from(store: Store) -> None:
    values = values_of(store)
    values[:] = 3
    store.close(clean=True)
    assert values.sum() == 45
    store.close(clean=True)


def test_a_store_may_be_empty(path: Path) -> None:
    for store in (Segment.make(path, DESCRIPTION, {"values": 0}), MemorySegment({"values": 0})):
        assert store.extent("values", FLOATS, (0, 3)).shape == (0, 3)
        store.close(clean=True)
    assert Segment.open(path).extent("values", FLOATS, (0, 3)).shape == (0, 3)


def test_a_segment_that_was_closed_in_order_comes_back_whole(path: Path) -> None:
    made = Segment.make(path, DESCRIPTION, {"values": 60})
    values_of(made)[:] = np.arange(15).reshape(5, 3)
    made.close(clean=True)
    found = Segment.open(path)
    assert found.was_clean
    assert found.description == {**DESCRIPTION, "extents": {"values": [0, 60]}}
    np.testing.assert_array_equal(values_of(found), np.arange(15).reshape(5, 3))
    found.close(clean=True)


def test_each_opening_is_an_incarnation(path: Path) -> None:
    made = Segment.make(path, DESCRIPTION, {"values": 60})
    assert made.incarnation == 1
    made.close(clean=True)
    for expected in (2, 3):
        found = Segment.open(path)
        found.mark_open()
        assert found.incarnation == expected
        found.close(clean=True)


def test_a_segment_that_was_marked_open_and_not_closed_in_order_says_so(path: Path) -> None:
    Segment.make(path, DESCRIPTION, {"values": 60}).close(clean=True)
    found = Segment.open(path)
    found.close(clean=False)
    found = Segment.open(path)
    assert found.was_clean  # nobody had marked it open
    found.mark_open()
    found.close(clean=False)
    found = Segment.open(path)
    assert not found.was_clean
    found.close(clean=False)


KILLED = """
import os, signal, sys
from pathlib import Path
import numpy as np
from glintpy.storage.segment import Segment
found = Segment.open(Path(sys.argv[1]))
found.mark_open()
found.extent("values", np.dtype("<f4"), (5, 3))[1] = 9
os.kill(os.getpid(), signal.SIGKILL)
"""


def test_a_killed_owner_leaves_its_stores_an_open_segment_and_no_lock(path: Path) -> None:
    Segment.make(path, DESCRIPTION, {"values": 60}).close(clean=True)
    killed = subprocess.run(
        [sys.executable, "-c", KILLED, str(path)], check=False, cwd=Path(__file__).parents[2]
    )
    assert killed.returncode == -signal.SIGKILL
    found = Segment.open(path)
    assert not found.was_clean
    assert found.incarnation == 2
    assert values_of(found)[1].tolist() == [9, 9, 9]
    found.close(clean=False)


OPENED = """
import sys
from pathlib import Path
from glintpy.errors import ConfigError
from glintpy.storage.segment import Segment
try:
    Segment.open(Path(sys.argv[1]))
except ConfigError as error:
    print(error)
"""


def test_another_process_is_told_that_a_segment_is_in_use(path: Path) -> None:
    made = Segment.make(path, DESCRIPTION, {"values": 60})
    command = [sys.executable, "-c", OPENED, str(path)]
    root = Path(__file__).parents[2]
    refused = subprocess.run(command, check=True, cwd=root, capture_output=True, text=True)
    assert f"{path} is in use by another process" in refused.stdout
    made.close(clean=True)
    allowed = subprocess.run(command, check=True, cwd=root, capture_output=True, text=True)
    assert allowed.stdout == ""


def test_the_lock_ends_with_the_owner_though_an_array_is_still_held(path: Path) -> None:
    made = Segment.make(path, DESCRIPTION, {"values": 60})
    values = values_of(made)
    with pytest.raises(ConfigError, match="in use"):
        Segment.open(path)
    made.close(clean=False)
    Segment.open(path).close(clean=False)
    assert values.sum() == 0


def test_what_cannot_fit_is_refused_with_the_numbers_and_leaves_nothing(path: Path) -> None:
    with pytest.raises(NotEnoughMemory, match=rf"{2**50 + 4096} bytes don't fit in .* are free"):
        Segment.create(path, DESCRIPTION, 2**50)
    assert list(path.parent.iterdir()) == []
    with pytest.raises(NotEnoughMemory, match=f"{2**60} bytes"):
        MemorySegment({"values": 2**60})


@pytest.mark.parametrize(("number", "error"), [(errno.ENOSPC, NotEnoughMemory), (errno.EIO, ConfigError)])
def test_a_file_system_that_fails_leaves_no_file_and_no_descriptor(
    path: Path, monkeypatch: pytest.MonkeyPatch, number: int, error: type[Exception]
) -> None:
    def fails(_descriptor: int, _offset: int, _length: int) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "posix_fallocate", fails)
    before = num_descriptors()
    with pytest.raises(error):
        Segment.make(path, DESCRIPTION, {"values": 60})
    assert list(path.parent.iterdir()) == []
    assert num_descriptors() == before


def test_closing_gives_its_descriptors_back(path: Path) -> None:
    before = num_descriptors()
    Segment.make(path, DESCRIPTION, {"values": 60}).close(clean=True)
    Segment.open(path).close(clean=True)
    assert num_descriptors() == before


def test_a_path_that_is_taken_or_cannot_be_written_is_refused(path: Path) -> None:
    Segment.make(path, DESCRIPTION, {"values": 60}).close(clean=True)
    with pytest.raises(ConfigError, match="exists already"):
        Segment.make(path, DESCRIPTION, {"values": 60})
    assert Segment.open(path).was_clean
    with pytest.raises(ConfigError, match="can't open"):
        Segment.create(path.parent / "no such directory" / "x", DESCRIPTION, 60)


def test_a_deleted_segment_is_gone_and_its_array_is_not(path: Path) -> None:
    made = Segment.make(path, DESCRIPTION, {"values": 60})
    values = values_of(made)
    made.delete()
    assert not path.exists()
    values[:] = 1
    made.delete()
    Segment.make(path, DESCRIPTION, {"values": 60}).close(clean=True)


def test_a_missing_segment_is_a_lost_model(path: Path) -> None:
    with pytest.raises(ModelLost, match="missing"):
        Segment.open(path)


@pytest.mark.parametrize(
    ("offset", "raw", "error", "text"),
    [
        (0, b"elsewhat", ModelLost, "something else"),
        (0, bytes(8), ModelLost, "something else"),
        (8, b"\x01\x00\x00\x00", ConfigError, "layout 1; this version of glintpy reads layout 3"),
        (12, b"\x00\x00\x00\x00", ModelLost, "damaged header"),
        (24, b"\x00\x00\x00\x01", ModelLost, "its header says"),
        (32, b"\x00", ModelLost, "its header says"),
        (40, b"\xff\xff", ModelLost, "its header says"),
        (64, b"[", ModelLost, "damaged header"),
    ],
)
def test_a_damaged_header_is_named_and_the_file_is_let_go(
    path: Path, offset: int, raw: bytes, error: type[Exception], text: str
) -> None:
    Segment.make(path, DESCRIPTION, {"values": 60}).close(clean=True)
    whole = path.read_bytes()
    path.write_bytes(whole[:offset] + raw + whole[offset + len(raw) :])
    with pytest.raises(error, match=text) as kept:
        Segment.open(path)
    path.write_bytes(whole)
    Segment.open(path).close(clean=True)  # not locked by the one that failed
    assert kept.value.__traceback__ is not None


@pytest.mark.parametrize("length", [0, 10, 4095, 4096, 4155])
def test_a_file_cut_short_is_a_lost_model(path: Path, length: int) -> None:
    Segment.make(path, DESCRIPTION, {"values": 60}).close(clean=True)
    path.write_bytes(path.read_bytes()[:length])
    with pytest.raises(ModelLost, match=f"has {length} bytes"):
        Segment.open(path)


def test_a_long_description_takes_more_pages(path: Path) -> None:
    description = {"long": [[index, 1, index, 1] for index in range(5000)]}
    made = Segment.make(path, description, {"values": 60})
    values_of(made)[:] = 1
    made.close(clean=True)
    found = Segment.open(path)
    assert found.description["long"] == description["long"]
    assert values_of(found).sum() == 15
    found.close(clean=True)


def test_extents_lie_apart_each_on_a_cache_line_and_come_back(path: Path) -> None:
    made = Segment.make(path, DESCRIPTION, {"values": 60, "moments": 8, "nothing": 0, "counts": 16})
    made.extent("moments", FLOATS, (2,))[:] = 7
    made.extent("counts", FLOATS, (4,))[:] = 9
    values_of(made)[:] = 1
    made.close(clean=True)
    found = Segment.open(path)
    assert values_of(found).tolist() == [[1.0] * 3] * 5
    assert found.extent("moments", FLOATS, (2,)).tolist() == [7, 7]
    assert found.extent("nothing", FLOATS, (0,)).size == 0
    assert found.extent("counts", FLOATS, (4,)).ctypes.data % 64 == 0
    with pytest.raises(ModelLost, match="no extent 'other'"):
        found.extent("other", FLOATS, (1,))
    found.close(clean=True)


def test_what_a_killed_process_left_survives_in_the_same_boot_only(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    Segment.make(path, DESCRIPTION, {"values": 60}).close(clean=False)
    found = Segment.open(path)
    assert (found.was_clean, found.has_survived) == (False, True)
    found.close(clean=False)
    for boot in (1, 0):  # another one; one that the system doesn't tell
        monkeypatch.setattr(mapped, "boot_number", lambda boot=boot: boot)
        found = Segment.open(path)
        assert not found.has_survived
        found.close(clean=False)
    monkeypatch.undo()
    found = Segment.open(path)
    found.mark_open()
    found.close(clean=True)
    monkeypatch.setattr(mapped, "boot_number", lambda: 1)
    found = Segment.open(path)
    assert found.has_survived  # closed in order, it was written through
    found.close(clean=False)


def test_a_segment_says_whether_it_was_filled(path: Path) -> None:
    made = Segment.make(path, DESCRIPTION, {"values": 60})
    made.close(clean=False)
    found = Segment.open(path)
    assert not found.is_filled
    found.mark_filled()
    found.close(clean=False)
    found = Segment.open(path)
    assert found.is_filled
    found.close(clean=False)


def test_a_segment_that_was_closed_cannot_be_marked_open(path: Path) -> None:
    made = Segment.make(path, DESCRIPTION, {"values": 60})
    made.close(clean=True)
    with pytest.raises(ConfigError, match="was closed"):
        made.mark_open()


def test_what_a_killed_creation_left_is_overwritten_or_swept(path: Path) -> None:
    leftover = path.with_name(path.name + ".new")
    leftover.write_bytes(b"half a header")
    Segment.make(path, DESCRIPTION, {"values": 60}).close(clean=True)
    assert not leftover.exists()
    leftover.write_bytes(b"half a header")
    assert remove_unfinished(path.parent) == [leftover]
    assert list(path.parent.iterdir()) == [path]
