"""The log: what it takes it gives back, in order; a torn tail is cut off, and damage is said."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from glintpy import failpoints
from glintpy.errors import ConfigError, NotEnoughMemory
from glintpy.storage.files import Files, empty_folder, is_being_emptied
from glintpy.storage.log import NOTE, RESERVE_BYTES, Log
from glintpy.storage.log_format import HEADER_BYTES, LogDamaged, LogFailed
from tests.unit.power_loss import LossyFiles, failing, power_cut_at

FOLDER = Path("/server/log")
FILE_BYTES = RESERVE_BYTES + 8192
BOOT = 7


def created(disk: Files, folder: Path = FOLDER, *, file_bytes: int = FILE_BYTES) -> Log:
    return Log.create(disk, folder, file_bytes=file_bytes, boot=BOOT)


def opened(disk: Files, folder: Path = FOLDER, *, boot: int = BOOT, file_bytes: int = FILE_BYTES) -> Log:
    log = Log.open(disk, folder, file_bytes=file_bytes, boot=boot)
    assert log is not None
    return log


def content(log: Log, first: int = 0) -> list[tuple[int, int, bytes]]:
    return [(entry.number, entry.kind, bytes(entry.body)) for entry in log.records(first)]


def test_what_was_appended_comes_back_in_order_after_a_reopening_on_a_real_disk(tmp_path: Path) -> None:
    log = created(Files(), tmp_path / "log")
    bodies = [bytes([kind]) * (kind * 37) for kind in range(1, 100)]
    for kind, body in enumerate(bodies, 1):
        log.append(kind, [body[:5], body[5:]])
    assert log.needs_sync
    log.sync()
    assert not log.needs_sync
    log.close()
    log = opened(Files(), tmp_path / "log")
    found = content(log)
    log.close()
    assert [body for _, _, body in found] == bodies
    assert [kind for _, kind, _ in found] == list(range(1, 100))


def test_a_log_of_several_files_is_read_across_them_and_from_any_number_on() -> None:
    disk = LossyFiles()
    log = created(disk)
    numbers = [log.append(3, [index.to_bytes(4, "little"), bytes(500)]) for index in range(100)]
    assert len(log.files) > 5
    log.sync()
    log.close()
    log = opened(disk)
    assert [entry[0] for entry in content(log)] == numbers
    assert [entry[0] for entry in content(log, numbers[41])] == numbers[41:]
    last = log.last_entry()
    assert last is not None
    assert last.number == numbers[-1]


def test_there_is_no_log_where_none_was_begun() -> None:
    assert Log.open(LossyFiles(), FOLDER, file_bytes=FILE_BYTES, boot=BOOT) is None


def test_what_was_written_and_not_synced_outlives_the_process_and_is_synced_by_the_next() -> None:
    disk = LossyFiles()
    log = created(disk)
    log.append(1, [b"synced"])
    log.sync()
    log.append(1, [b"not synced"])
    disk.kill()
    log = opened(disk)
    assert log.is_same_boot
    assert not log.needs_sync
    disk.cut_power(random.Random(1))
    assert [body for _, _, body in content(opened(disk))] == [b"synced", b"not synced"]


def test_another_boot_is_told_apart() -> None:
    disk = LossyFiles()
    created(disk).close()
    assert not opened(disk, boot=8).is_same_boot
    assert opened(disk, boot=8).is_same_boot
    assert not opened(disk, boot=0).is_same_boot


@pytest.mark.parametrize("length", [0, 1, 8, 61])
def test_a_record_cut_at_any_byte_is_cut_off_and_the_log_goes_on_behind_the_one_before(length: int) -> None:
    disk = LossyFiles()
    log = created(disk)
    log.append(1, [b"first"])
    log.sync()
    begin = log.num_bytes
    log.append(2, [b"\xab" * length])
    end = log.num_bytes
    log.close()
    path = FOLDER / log.files[0].name
    whole = bytes(disk.content(path))
    note = bytes(disk.content(FOLDER / NOTE))
    # The padding behind a body is no part of the record.
    for cut in range(begin, begin + 32 + length):
        disk.content(path)[:] = whole[:cut] + bytes(len(whole) - cut)
        disk.content(FOLDER / NOTE)[:] = note
        if disk.content(path) == whole:
            continue  # it ends with zeros, so nothing is missing
        log = opened(disk)
        assert content(log) == [(1, 1, b"first")], f"cut at byte {cut} of {end}"
        assert log.append(3, [b"next"]) == 2
        log.close()
        assert content(opened(disk)) == [(1, 1, b"first"), (2, 3, b"next")]


def test_any_flipped_byte_of_the_last_unsynced_record_cuts_it_off() -> None:
    disk = LossyFiles()
    log = created(disk)
    log.append(1, [b"first"])
    log.sync()
    begin = log.num_bytes
    log.append(2, [b"second"])
    log.close()
    path = FOLDER / log.files[0].name
    whole, note = bytes(disk.content(path)), bytes(disk.content(FOLDER / NOTE))
    for offset in range(begin, begin + 32 + 6):
        disk.content(path)[:] = whole
        disk.content(FOLDER / NOTE)[:] = note
        disk.damage(path, offset)
        assert content(opened(disk)) == [(1, 1, b"first")], offset


def test_a_record_that_was_synced_by_the_word_of_a_later_one_is_never_cut_off() -> None:
    disk = LossyFiles()
    log = created(disk)
    for body in (b"first", b"second", b"third"):
        log.append(1, [body])
        log.sync()
    log.close()
    path = FOLDER / log.files[0].name
    disk.content(FOLDER / NOTE)[:] = b""
    disk.damage(path, HEADER_BYTES + 40 + 33)
    before = bytes(disk.content(path))
    with pytest.raises(LogDamaged, match=r"record 2 .* was synced once"):
        opened(disk)
    assert bytes(disk.content(path)) == before


def test_the_last_record_is_never_cut_off_if_the_note_says_that_it_was_synced() -> None:
    disk = LossyFiles()
    log = created(disk)
    log.append(1, [b"first"])
    log.append(1, [b"second"])
    log.sync()
    log.close()
    disk.damage(FOLDER / log.files[0].name, HEADER_BYTES + 40 + 33)
    with pytest.raises(LogDamaged, match="record 2"):
        opened(disk)


def test_a_synced_record_that_the_disk_lost_to_zeros_is_missed() -> None:
    disk = LossyFiles()
    log = created(disk)
    log.append(1, [b"first"])
    log.sync()
    log.close()
    data = disk.content(FOLDER / log.files[0].name)
    data[HEADER_BYTES:] = bytes(len(data) - HEADER_BYTES)
    with pytest.raises(LogDamaged, match="record 1"):
        opened(disk)


def test_damage_in_a_file_that_has_a_successor_is_said_by_whoever_reads_it() -> None:
    disk = LossyFiles()
    log = created(disk)
    while len(log.files) < 3:
        log.append(1, [bytes(500)])
    log.sync()
    log.close()
    disk.damage(FOLDER / log.files[0].name, HEADER_BYTES + 600)
    log = opened(disk)
    with pytest.raises(LogDamaged, match="record 2"):
        content(log)


def test_a_missing_or_foreign_file_is_said() -> None:
    disk = LossyFiles()
    log = created(disk)
    while len(log.files) < 3:
        log.append(1, [bytes(500)])
    log.sync()
    log.close()
    middle = FOLDER / log.files[1].name
    kept = bytes(disk.content(middle))
    disk.unlink(middle)
    with pytest.raises(LogDamaged, match="one is missing"):
        opened(disk)
    other = LossyFiles()
    log = created(other)
    while len(log.files) < 3:
        log.append(1, [bytes(500)])
    disk.open(middle, new=True)
    disk.content(middle)[:] = other.content(middle)
    with pytest.raises(LogDamaged, match="another log"):
        opened(disk)
    disk.content(middle)[:] = kept[:20]
    with pytest.raises(LogDamaged, match="less than its header"):
        opened(disk)


def test_a_layout_of_a_later_version_is_refused_and_left_alone() -> None:
    disk = LossyFiles()
    log = created(disk)
    log.close()
    disk.content(FOLDER / log.files[0].name)[8] = 9
    with pytest.raises(ConfigError, match="layout 9"):
        opened(disk)


def test_what_looks_like_a_record_in_a_clients_values_is_none() -> None:
    disk = LossyFiles()
    other = created(LossyFiles())
    other.append(1, [b"x"])
    other.sync()
    other.append(1, [b"y"])
    forged = bytes(other._files.content(FOLDER / other.files[0].name)[HEADER_BYTES:200])  # type: ignore[attr-defined]
    log = created(disk)
    log.append(1, [b"first"])
    log.sync()
    begin = log.num_bytes
    log.append(1, [forged])
    log.close()
    disk.damage(FOLDER / log.files[0].name, begin + 9)
    assert content(opened(disk)) == [(1, 1, b"first")]


def test_a_lost_tail_never_comes_back_behind_a_new_record_of_its_length() -> None:
    disk = LossyFiles()
    log = created(disk)
    for body in (b"one", b"two", b"old"):
        log.append(1, [body])
    log.close()
    path = FOLDER / log.files[0].name
    disk.damage(path, HEADER_BYTES + 40 + 33)  # "two" is torn, and "old" behind it whole
    log = opened(disk)
    assert content(log) == [(1, 1, b"one")]
    log.append(1, [b"new"])
    log.sync()
    log.close()
    assert [body for _, _, body in content(opened(disk))] == [b"one", b"new"]


def test_a_failed_sync_is_never_asked_for_again_and_the_next_process_knows_of_it() -> None:
    disk = LossyFiles()
    log = created(disk)
    log.append(1, [b"first"])

    with failing(disk, "sync"), pytest.raises(LogFailed, match="Input/output error"):
        log.sync()
    disk.kill()
    log = opened(disk)
    assert log.had_failed
    disk.kill()
    log = opened(disk)
    assert log.had_failed, "it is known until somebody has seen to it"
    log.serve(3)
    disk.kill()
    log = opened(disk)
    assert not log.had_failed
    assert log.served == 3


def test_a_write_that_fails_is_said() -> None:
    disk = LossyFiles()
    log = created(disk)

    with failing(disk, "write"), pytest.raises(LogFailed, match="written"):
        log.append(1, [b"first"])


def test_a_full_disk_is_met_when_a_file_is_begun_and_leaves_room_for_small_records() -> None:
    disk = LossyFiles(num_free=FILE_BYTES)
    log = created(disk)
    while log.num_bytes + 1100 < FILE_BYTES - RESERVE_BYTES:
        log.append(1, [bytes(1000)])
    with pytest.raises(NotEnoughMemory, match="can be read and not changed"):
        log.append(1, [bytes(1000)])
    numbers = []
    while log.num_bytes + 100 < FILE_BYTES:
        numbers.append(log.append(2, [bytes(24)], small=True))
    assert len(numbers) >= RESERVE_BYTES // 64
    with pytest.raises(NotEnoughMemory):
        log.append(2, [bytes(60)], small=True)
    log.sync()
    disk.num_free = 10 * FILE_BYTES
    number = log.append(1, [bytes(1000)])
    assert number > numbers[-1]
    assert len(log.files) == 2
    log.sync()
    log.close()
    assert content(opened(disk))[-1][0] == number


def test_a_record_larger_than_a_file_has_a_file_of_its_own() -> None:
    disk = LossyFiles()
    log = created(disk)
    body = random.Random(1).randbytes(3 * FILE_BYTES)
    log.append(1, [body])
    log.append(1, [b"next"])
    log.sync()
    log.close()
    assert [found for _, _, found in content(opened(disk))] == [body, b"next"]


def test_files_below_a_number_are_removed_and_no_others() -> None:
    disk = LossyFiles()
    log = created(disk)
    numbers = [log.append(1, [bytes(500)]) for _ in range(80)]
    log.sync()
    second = log.files[1]
    log.drop_below(second.first + 1)
    assert log.files[0] == second
    assert content(log)[0][0] == second.first
    with pytest.raises(LogDamaged, match="begins at"):
        content(log, 1)
    log.drop_below(numbers[-1] + 1)
    assert len(log.files) == 1, "the last one is written to"
    disk.cut_power(random.Random(1))
    assert content(opened(disk))[-1][0] == numbers[-1]


@pytest.mark.parametrize("step", range(40))
def test_a_power_cut_at_any_step_of_going_on_in_a_new_file_loses_nothing_that_was_synced(step: int) -> None:
    disk = LossyFiles()
    log = created(disk)
    while log._size - log.files[-1].num_bytes - RESERVE_BYTES > 1000:
        log.append(1, [bytes(500)])
    log.sync()
    synced = [number for number, _, _ in content(log)]
    with power_cut_at(disk, step):
        for _ in range(30):
            number = log.append(1, [bytes(500)])
            log.sync()
            synced.append(number)
    disk.cut_power(random.Random(step))
    found = [number for number, _, _ in content(opened(disk))]
    assert found[: len(synced)] == synced
    assert len(found) <= len(synced) + 1


def test_a_log_that_is_removed_is_removed_whatever_happens_meanwhile() -> None:
    for step in range(8):
        disk = LossyFiles()
        log = created(disk)
        log.append(1, [b"x"])
        log.close()
        disk.close(disk.open(FOLDER / "snapshot-1-00000000000000000001", new=True))
        disk.sync_folder(FOLDER)
        with power_cut_at(disk, step):
            empty_folder(disk, FOLDER)
        disk.cut_power(random.Random(step))
        if is_being_emptied(disk, FOLDER):
            empty_folder(disk, FOLDER)
        names = disk.names(FOLDER)
        assert not names or len(names) >= 3, f"half of it is left after step {step}: {names}"


def test_a_drill_may_tear_a_write(tmp_path: Path) -> None:
    log = created(Files(), tmp_path / "log")
    log.append(1, [b"first"])
    log.sync()

    def stop() -> None:
        raise failpoints.FailpointError

    with failpoints.armed("log.torn_write", stop), pytest.raises(failpoints.FailpointError):
        log.append(1, [b"torn" * 25])
    log.close()
    log = opened(Files(), tmp_path / "log")
    assert [body for _, _, body in content(log)] == [b"first"]
    log.close()
