"""A snapshot is there whole or not at all, and no changed byte of one goes unnoticed."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from glintpy.errors import NotEnoughMemory
from glintpy.storage import snapshot
from glintpy.storage.files import Files
from glintpy.storage.snapshot import (
    RECEIPTS,
    SnapshotDamaged,
    SnapshotFile,
    SnapshotReader,
    SnapshotWriter,
    remove_unfinished,
    snapshots_in,
)
from tests.unit.power_loss import LossyFiles, power_cut_at

FOLDER = Path("/server/log")
FILE = SnapshotFile("12", 345)
BLOCKS = [b"one", b"two and more", bytes(1000)]
DOCUMENT = {"description": {"model_id": 12}}


def write(disk: Files, folder: Path = FOLDER, file: SnapshotFile = FILE) -> None:
    writer = SnapshotWriter(
        disk, folder, file, DOCUMENT, num_bytes=sum(map(len, BLOCKS)), num_blocks=len(BLOCKS)
    )
    for block in BLOCKS:
        writer.write(block)
    writer.finish()


def read(disk: Files, folder: Path = FOLDER, file: SnapshotFile = FILE) -> tuple[object, list[bytes]]:
    with SnapshotReader(disk, folder, file) as reader:
        return reader.document, [bytes(block) for block in reader.blocks()]


def test_what_was_written_comes_back_on_a_real_disk(tmp_path: Path) -> None:
    write(Files(), tmp_path)
    assert snapshots_in(Files(), tmp_path) == [FILE]
    assert read(Files(), tmp_path) == (DOCUMENT, BLOCKS)


def test_the_newest_of_each_kind_comes_first() -> None:
    disk = LossyFiles()
    for key, position in (("3", 10), (RECEIPTS, 7), ("3", 200), ("12", 1)):
        write(disk, file=SnapshotFile(key, position))
    found = [(file.key, file.position) for file in snapshots_in(disk, FOLDER)]
    assert found == [("12", 1), ("3", 200), ("3", 10), (RECEIPTS, 7)]


def test_any_flipped_byte_any_cut_and_any_end_of_zeros_is_noticed() -> None:
    disk = LossyFiles()
    write(disk)
    path = FOLDER / FILE.name
    whole = bytes(disk.content(path))
    for offset in range(len(whole)):
        disk.damage(path, offset)
        with pytest.raises(SnapshotDamaged):
            read(disk)
        disk.damage(path, offset)
    assert read(disk) == (DOCUMENT, BLOCKS)
    for length in range(0, len(whole), 4):
        disk.content(path)[:] = whole[:length]
        with pytest.raises(SnapshotDamaged):
            read(disk)
        if any(whole[length:]):
            disk.content(path)[:] = whole[:length] + bytes(len(whole) - length)
            with pytest.raises(SnapshotDamaged):
                read(disk)


def test_one_that_was_given_up_leaves_nothing() -> None:
    disk = LossyFiles()
    writer = SnapshotWriter(disk, FOLDER, FILE, DOCUMENT, num_bytes=100, num_blocks=2)
    writer.write(bytes(50))
    writer.abandon()
    assert disk.names(FOLDER) == []
    assert not disk.num_open


def test_one_that_was_cut_off_is_none_and_is_swept_away() -> None:
    disk = LossyFiles()
    SnapshotWriter(disk, FOLDER, FILE, DOCUMENT, num_bytes=100, num_blocks=2).write(bytes(50))
    assert snapshots_in(disk, FOLDER) == []
    remove_unfinished(disk, FOLDER)
    assert disk.names(FOLDER) == []


def test_a_full_disk_is_met_before_the_first_block_and_leaves_nothing() -> None:
    disk = LossyFiles(num_free=100)
    with pytest.raises(NotEnoughMemory, match="100 are free"):
        SnapshotWriter(disk, FOLDER, FILE, DOCUMENT, num_bytes=200, num_blocks=1)
    assert disk.names(FOLDER) == []


def test_a_large_one_is_synced_now_and_then(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(snapshot, "SYNC_BYTES", 1000)
    disk, calls = LossyFiles(), []
    disk.before = lambda what, _: calls.append(what)
    writer = SnapshotWriter(disk, FOLDER, FILE, DOCUMENT, num_bytes=10_000, num_blocks=100)
    for _ in range(100):
        writer.write(bytes(100))
    assert calls.count("sync") > 5
    writer.finish()


def cut_at(step: int, source: random.Random, disk: LossyFiles) -> list[SnapshotFile]:
    """Write a snapshot with a power cut at one call, and return what is there when the power is back."""
    with power_cut_at(disk, step):
        write(disk)
    disk.cut_power(source)
    return snapshots_in(disk, FOLDER)


def test_under_its_name_it_is_whole_wherever_the_power_is_cut(seed: int) -> None:
    source = random.Random(seed)
    finished = 0
    for step in range(12):
        for _ in range(10):
            disk = LossyFiles()
            if cut_at(step, source, disk):
                finished += 1
                assert read(disk) == (DOCUMENT, BLOCKS)
    assert 10 <= finished < 120


def test_that_would_not_hold_without_the_sync_before_the_rename(seed: int) -> None:
    class Hasty(LossyFiles):
        def sync(self, descriptor: int) -> None:
            del descriptor

    source = random.Random(seed)
    bad = 0
    for _ in range(50):
        disk = Hasty()
        if cut_at(100, source, disk):
            try:
                bad += read(disk) != (DOCUMENT, BLOCKS)
            except SnapshotDamaged:
                bad += 1
    assert bad
