"""A shelf makes room before models, brings them back after an orderly stop, and never serves what is lost."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glintpy import failpoints
from glintpy.actors.shelf import Shelf
from glintpy.errors import ConfigError, ModelError, ModelLost, ModelNotFound, NotEnoughMemory
from glintpy.protocol.selection import Selection, slices_of
from glintpy.protocol.spec import ModelSpec
from glintpy.storage import kernels, mapped
from glintpy.storage.journal import Journal
from glintpy.storage.kernels import COMPILED_BYTES_MIN, Kernels

NO_EXTENTS = np.empty((0, 4), np.int64)
EVERYTHING = Selection(slices_of((0, 10, 1)))


def a_spec(name: str = "m", **changes: Any) -> ModelSpec:
    return ModelSpec(
        **{"name": name, "num_rows": 10, "num_cols": 4, "dtype": "float64", "init": 3, **changes}
    )


def make(shelf: Shelf, model_id: int, spec: ModelSpec | None = None, *, num_rows: int = 10) -> None:
    steps = shelf.create(
        model_id, spec or a_spec(), routing=1, num_rows=num_rows, extents=NO_EXTENTS, slice_cells=8
    )
    for _ in steps:
        with pytest.raises(ModelNotFound):
            shelf.shard(model_id)  # not before it is filled


@pytest.fixture(params=["memory", "files"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path | None:
    return None if request.param == "memory" else tmp_path / "models"


def test_a_model_is_filled_in_slices_and_then_served(folder: Path | None) -> None:
    shelf = Shelf(folder)
    make(shelf, 1)
    shard = shelf.shard(1, routing=1)
    np.testing.assert_array_equal(shard.pull(EVERYTHING), np.full((10, 4), 3))
    assert shelf.find(1) is shard
    assert shelf.highest_model == 1
    assert shelf.num_bytes == 320
    assert shelf.status() == [{"model_id": 1, "name": "m", "rows": 10, "bytes": 320}]
    make(shelf, 1)  # asked again, because the answer was lost
    assert shelf.shard(1) is shard
    shelf.close()


def test_big_models_are_prepared_when_they_are_made_and_when_they_come_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        kernels, "_SHARED", {}
    )  # a test before this may have had them prepared, once a process
    asked: list[Kernels] = []
    big = a_spec("big", num_rows=COMPILED_BYTES_MIN // 32)
    for _ in range(2):
        shelf = Shelf(tmp_path, prepare=asked.append)
        make(shelf, 1)
        if shelf.find(2) is None:
            for _ in shelf.create(
                2, big, routing=1, num_rows=big.num_rows, extents=NO_EXTENTS, slice_cells=10**6
            ):
                pass
        assert asked == [shelf.shard(2).kernels]
        asked.clear()
        shelf.close()


def test_another_routing_is_refused_with_both_numbers(folder: Path | None) -> None:
    shelf = Shelf(folder)
    make(shelf, 1)
    with pytest.raises(ModelError, match=r"routing 2 of model 1.*it is 1"):
        shelf.shard(1, routing=2)
    shelf.close()


def test_what_does_not_fit_is_refused_with_the_numbers() -> None:
    shelf = Shelf(None, memory_limit=1000, free_bytes=lambda: 10**9)
    shelf.reserve(1, a_spec(), num_rows=10)
    shelf.reserve(2, a_spec(), num_rows=20)
    assert shelf.num_bytes == 960
    with pytest.raises(NotEnoughMemory, match=r"needs 64 bytes.* take 1000 and have 960: 40 are free"):
        shelf.reserve(3, a_spec(), num_rows=2)
    shelf.reserve(3, a_spec(), num_rows=1)  # fits
    shelf.reserve(2, a_spec(), num_rows=20)  # asked again: not counted twice
    assert shelf.num_bytes == 992
    make(shelf, 1)  # what is made is no reservation any more
    assert shelf.num_bytes == 992
    for model_id in (1, 2, 3, 9):
        shelf.destroy(model_id)
    assert shelf.num_bytes == 0
    shelf.reserve(4, a_spec(), num_rows=31)
    shelf.close()


def test_what_the_machine_has_left_is_the_limit_too() -> None:
    free = [500]
    shelf = Shelf(None, memory_limit=10**9, free_bytes=lambda: free[0])
    assert shelf.limit_bytes() == 500
    shelf.reserve(1, a_spec(), num_rows=15)
    free[0] = 100
    with pytest.raises(NotEnoughMemory):
        shelf.reserve(2, a_spec(), num_rows=4)
    assert Shelf(None, memory_limit=50, free_bytes=lambda: 500).limit_bytes() == 50
    assert Shelf(None, free_bytes=lambda: 500).limit_bytes() == 500


def test_a_destroyed_model_is_not_found_and_its_file_is_gone(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    make(shelf, 1)
    assert [path.name for path in tmp_path.iterdir()] == ["1.segment"]
    shelf.destroy(1)
    shelf.destroy(1)  # again does nothing
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ModelNotFound, match="model 1 here"):
        shelf.shard(1)
    assert shelf.find(1) is None


@pytest.mark.parametrize("num_slices", [1, 5])
def test_a_model_destroyed_while_it_is_filled_stays_away(folder: Path | None, num_slices: int) -> None:
    shelf = Shelf(folder)
    steps = shelf.create(1, a_spec(), routing=1, num_rows=10, extents=NO_EXTENTS, slice_cells=8)
    for _ in range(num_slices):
        next(steps)
    shelf.destroy(1)
    assert list(steps) == []
    assert shelf.highest_model == 0
    shelf.close()


def test_models_come_back_after_an_orderly_stop(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    make(shelf, 1)
    make(shelf, 2, a_spec("v", num_cols=None, dtype="int8"))
    shelf.shard(1).push(EVERYTHING, np.arange(40.0).reshape(10, 4))
    shelf.close()
    shelf = Shelf(tmp_path)
    shelf.keep_only(frozenset({1, 2}))
    np.testing.assert_array_equal(
        shelf.shard(1, routing=1).pull(EVERYTHING), np.arange(40.0).reshape(10, 4) + 3
    )
    assert shelf.shard(2).spec == a_spec("v", num_cols=None, dtype="int8")
    # They can be pushed to and stopped again, as often as one likes.
    shelf.shard(1).push(EVERYTHING, np.ones((10, 4)))
    shelf.close()
    shelf = Shelf(tmp_path)
    assert shelf.shard(1).pull(EVERYTHING)[0, 0] == 4
    shelf.close()


KILLED = """
import sys
from pathlib import Path
import numpy as np
from glintpy import failpoints
from glintpy.actors.shelf import Shelf
from glintpy.protocol.selection import Selection
from glintpy.storage.journal import Journal

folder, place = Path(sys.argv[1]), sys.argv[2]
journal = Journal.open(folder / "server.journal")
shelf = Shelf(folder / "models", journal=journal)
failpoints.arm(f"{place}=kill")
session = journal.find(bytes(16))
for sequence in (2, 3):
    journal.undo.begin(bytes(16), sequence)
    rows = np.array([1, 1, 7], np.uint32)
    shelf.shard(1).push(Selection(rows), np.full((3, 4), 5.0))
    session.record(sequence, 0)
    failpoints.hit("push.recorded")
    journal.settle()
    failpoints.hit("push.flag_cleared")
"""
"""A server's process that dies in a push, at a named place."""

PLACES = [name for name in sorted(failpoints.NAMES) if name.startswith("push.") and name != "push.before_ack"]


@pytest.mark.parametrize("place", PLACES)
def test_a_push_that_its_process_was_killed_in_is_in_whole_or_not_at_all(tmp_path: Path, place: str) -> None:
    journal = Journal.create(tmp_path / "server.journal", "s", 4)
    shelf = Shelf(tmp_path / "models", journal=journal)
    make(shelf, 1)
    journal.open_session(bytes(16), bytes(16), 0.0).record(1, 0)
    shelf.close(clean=False)
    journal.close(clean=False)

    killed = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), place], check=False, timeout=60)

    assert killed.returncode == -signal.SIGKILL
    journal = Journal.open(tmp_path / "server.journal")
    assert journal.undo is not None
    was_armed = journal.undo.is_armed
    shelf = Shelf(tmp_path / "models", journal=journal)
    session = journal.find(bytes(16))
    assert session is not None
    has_receipt = place in {"push.recorded", "push.flag_cleared"}
    assert session.applied == (2 if has_receipt else 1)
    expected = np.full((10, 4), 3.0)
    if has_receipt:
        expected[1], expected[7] = 13, 8
    np.testing.assert_array_equal(shelf.shard(1).pull(EVERYTHING), expected)
    assert was_armed == (place not in {"push.before_undo", "push.undo_written", "push.flag_cleared"})
    assert not journal.undo.is_armed
    shelf.close()
    journal.close(clean=True)


def test_an_exception_in_the_middle_of_a_push_is_undone(tmp_path: Path) -> None:
    journal = Journal.create(tmp_path / "server.journal", "s", 4)
    assert journal.undo is not None
    shelf = Shelf(tmp_path / "models", journal=journal)
    make(shelf, 1)
    shard = shelf.shard(1)
    journal.undo.begin(bytes(16), 1)
    with failpoints.armed("push.half_applied", give_up), pytest.raises(failpoints.FailpointError):
        shard.push(Selection(slices_of((0, 10, 2))), np.ones((5, 4)))
    assert shard.pull(EVERYTHING).sum() > 120, "the place was not in the middle"
    shelf.roll_back()
    np.testing.assert_array_equal(shard.pull(EVERYTHING), np.full((10, 4), 3))
    assert not journal.undo.is_armed
    shelf.close()
    journal.close(clean=True)


def give_up() -> None:
    raise failpoints.FailpointError("as asked")


def test_after_the_machine_stopped_models_are_lost_and_never_zeros(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    shelf = Shelf(tmp_path)
    make(shelf, 1)
    shelf.close(clean=False)
    monkeypatch.setattr(mapped, "boot_number", lambda: 1)
    shelf = Shelf(tmp_path)
    assert "1.segment is lost" in caplog.text
    with pytest.raises(ModelLost, match="model 1, whose values went with"):
        shelf.shard(1)  # and not unheard of, before the master has said anything
    shelf.keep_only(frozenset({1, 5}))
    for model_id in (1, 5):
        with pytest.raises(ModelLost, match=f"model {model_id}, whose values went with"):
            shelf.shard(model_id)
    with pytest.raises(ModelNotFound):
        shelf.shard(2)
    assert [entry["model_id"] for entry in shelf.status() if entry.get("lost")] == [1, 5]
    # It can be destroyed, and made anew under its old number's file.
    shelf.destroy(1)
    with pytest.raises(ModelNotFound):
        shelf.shard(1)
    make(shelf, 5)
    np.testing.assert_array_equal(shelf.shard(5).pull(EVERYTHING), np.full((10, 4), 3))
    shelf.close()


def test_a_model_of_level_memory_is_lost_with_its_process_and_says_so(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    make(shelf, 1, a_spec(durability="memory"))
    make(shelf, 2, a_spec("kept"))
    assert shelf.shard(1).undo is None
    shelf.shard(1).push(EVERYTHING, np.ones((10, 4)))
    shelf.close()
    shelf = Shelf(tmp_path)
    with pytest.raises(ModelLost, match="went with the process"):
        shelf.shard(1)
    assert shelf.shard(2).num_rows == 10
    shelf.keep_only(frozenset({2}))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["2.segment"]
    shelf.close()


def test_levels_that_a_server_does_not_offer_are_refused_before_anything_is_made() -> None:
    shelf = Shelf(None)
    with pytest.raises(ConfigError, match=r"asks for durability 'process'.*--data-dir"):
        shelf.reserve(1, a_spec(durability="process"), num_rows=10)
    shelf.reserve(1, a_spec(durability="memory"), num_rows=10)


def test_a_model_that_was_being_made_is_not_there_and_can_be_made_anew(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    steps = shelf.create(1, a_spec(), routing=1, num_rows=10, extents=NO_EXTENTS, slice_cells=8)
    next(steps)
    shelf.close(clean=False)
    shelf = Shelf(tmp_path)
    with pytest.raises(ModelNotFound):
        shelf.shard(1)
    make(shelf, 1)
    np.testing.assert_array_equal(shelf.shard(1).pull(EVERYTHING), np.full((10, 4), 3))
    shelf.close()


def test_a_model_that_was_not_filled_to_the_end_does_not_come_back(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    next(shelf.create(1, a_spec(), routing=1, num_rows=10, extents=NO_EXTENTS, slice_cells=8))
    shelf.close()
    shelf = Shelf(tmp_path)
    assert shelf.highest_model == 0
    shelf.close()


def test_a_damaged_file_loses_its_model_and_no_other(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    make(shelf, 1)
    make(shelf, 2)
    shelf.close()
    (tmp_path / "1.segment").write_bytes(b"\x00" * 5000)
    (tmp_path / "3.segment").write_bytes(b"")
    shelf = Shelf(tmp_path)
    shelf.keep_only(frozenset({1, 2, 3}))
    for model_id in (1, 3):
        with pytest.raises(ModelLost):
            shelf.shard(model_id)
    assert shelf.shard(2).num_rows == 10
    shelf.close()


def test_only_what_the_master_knows_is_kept(folder: Path | None, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    shelf = Shelf(folder, memory_limit=10_000, free_bytes=lambda: 10**9)
    for model_id in (1, 2):
        make(shelf, model_id)
    shelf.reserve(3, a_spec(), num_rows=10)
    shelf.reserve(4, a_spec(), num_rows=10)
    shelf.keep_only(frozenset({2, 4}))
    assert shelf.find(1) is None
    assert "model 1 was destroyed while this server was away" in caplog.text
    assert shelf.shard(2).num_rows == 10
    assert shelf.num_bytes == 640  # the model, and the reservation that is still wanted
    if folder is not None:
        assert [path.name for path in folder.iterdir()] == ["2.segment"]
    shelf.keep_only(frozenset({2}))
    assert shelf.num_bytes == 320
    shelf.close()


def test_a_model_of_no_rows_is_a_model(folder: Path | None) -> None:
    shelf = Shelf(folder)
    make(shelf, 1, num_rows=0)
    assert shelf.shard(1).num_rows == 0
    shelf.close()


def test_no_file_takes_part_that_is_not_a_models(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    shelf = Shelf(tmp_path)
    make(shelf, 1)
    shelf.close()
    assert (tmp_path / "notes.txt").read_text() == "mine"
