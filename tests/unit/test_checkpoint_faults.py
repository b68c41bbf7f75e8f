"""Whatever fails in a save, and whenever its process dies, a whole checkpoint stays loadable."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import pathlib
from collections import Counter
from typing import IO, TYPE_CHECKING, Any

import fsspec
import numpy as np
import pytest
from fsspec.implementations.local import LocalFileSystem
from fsspec.implementations.memory import MemoryFileSystem

from glintpy.errors import CheckpointError, CheckpointNotFound
from glintpy.protocol.spec import ModelSpec
from glintpy.storage.checkpoint import CheckpointWriter
from glintpy.storage.checkpoint_reader import CheckpointReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SPEC = ModelSpec(name="m", num_rows=8, num_cols=2, dtype="int64")
NEVER = 10**9


class Killed(BaseException):
    """Stands for SIGKILL: no handler for errors sees it, and nothing works after it."""


class Faults:
    """Counts the operations on files and lets one of them fail, or that one and all later ones."""

    def __init__(self) -> None:
        self.fail_at = NEVER
        self.kill = False
        self.error = errno.EIO
        self.count = 0
        self.kinds: Counter[str] = Counter()

    def arm(self, fail_at: int, *, kill: bool = False, error: int = errno.EIO) -> None:
        self.count, self.fail_at, self.kill, self.error = 0, fail_at, kill, error

    def disarm(self) -> None:
        self.arm(NEVER)

    def fails(self, kind: str) -> bool:
        self.count += 1
        self.kinds[kind] += 1
        return self.count - 1 == self.fail_at or (self.kill and self.count > self.fail_at)

    def happen(self) -> None:
        if self.kill:
            raise Killed
        raise OSError(self.error, os.strerror(self.error))

    def step(self, kind: str) -> None:
        if self.fails(kind):
            self.happen()


class FaultyFile:
    """A file for writing whose operations count; a write that fails leaves half of its data."""

    def __init__(self, faults: Faults, file: IO[bytes]) -> None:
        self._faults = faults
        self._file = file

    def write(self, data: bytes) -> int:
        if self._faults.fails("write"):
            self._file.write(data[: len(data) // 2])
            self._file.flush()
            self._faults.happen()
        return self._file.write(data)

    def flush(self) -> None:
        self._faults.step("flush")
        self._file.flush()

    def fileno(self) -> int:
        return self._file.fileno()

    def close(self) -> None:
        # The real one is closed in any case, as the system does with a dead process's files.
        self._file.close()
        self._faults.step("close")


class FaultyReader:
    """A file for reading whose operations count."""

    def __init__(self, faults: Faults, file: IO[bytes]) -> None:
        self._faults = faults
        self._file = file

    def seek(self, position: int) -> int:
        return self._file.seek(position)

    def read(self, num_bytes: int) -> bytes:
        self._faults.step("read")
        return self._file.read(num_bytes)

    def close(self) -> None:
        self._file.close()


@pytest.fixture
def faults(monkeypatch: pytest.MonkeyPatch) -> Faults:
    faults = Faults()

    def counted(owner: Any, name: str) -> None:
        original: Callable[..., Any] = getattr(owner, name)

        def step_first(*args: Any, **kwargs: Any) -> Any:
            faults.step(name)
            return original(*args, **kwargs)

        monkeypatch.setattr(owner, name, step_first)

    for system in (LocalFileSystem, MemoryFileSystem):
        opening: Callable[..., Any] = system.open

        def open_counted(
            self: Any, path: str, mode: str, *, _opening: Callable[..., Any] = opening, **kwargs: Any
        ) -> Any:
            faults.step(f"open {mode}")
            file = _opening(self, path, mode, **kwargs)
            return FaultyFile(faults, file) if mode == "wb" else FaultyReader(faults, file)

        monkeypatch.setattr(system, "open", open_counted)
        for name in ("ls", "info", "makedirs", "rm_file", "rmdir"):
            counted(system, name)
    counted(MemoryFileSystem, "pipe_file")
    counted(os, "fsync")
    counted(pathlib.Path, "replace")
    return faults


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: pathlib.Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "saved")
        return
    yield "memory://faults/saved"
    files = fsspec.filesystem("memory")
    if files.exists("/faults"):
        files.rm("/faults", recursive=True)


def save(url: str, seed: int, num_partitions: int = 2) -> None:
    values = np.random.default_rng(seed).integers(0, 1 << 60, (8, 2))
    with CheckpointWriter(url, spec=SPEC, num_partitions=num_partitions, overwrite=True) as writer:
        for partition in range(num_partitions):
            rows = np.arange(partition, 8, num_partitions)
            with writer.part(partition, num_rows=len(rows), global_rows=rows) as part:
                part.write(values[rows[:1]])
                part.write(values[rows[1:]])
        writer.commit()


def loaded_seed(url: str) -> int:
    """Return which save lies here: 1 or 2, whole; anything else fails."""
    values = np.zeros((8, 2), np.int64)
    for rows, block in CheckpointReader(url).blocks(32):
        values[np.asarray(rows)] = block
    for seed in (1, 2):
        if np.array_equal(values, np.random.default_rng(seed).integers(0, 1 << 60, (8, 2))):
            return seed
    return pytest.fail("neither the old checkpoint nor the new one")


def num_operations(faults: Faults, url: str) -> int:
    save(url, 1)
    faults.disarm()
    save(url, 2)
    return faults.count


def files_of(url: str) -> set[str]:
    files, path = fsspec.url_to_fs(url)
    return {name.rsplit("/", 1)[-1] for name in files.ls(path, detail=False)}


def test_the_faults_reach_every_kind_of_operation(faults: Faults, tmp_path: pathlib.Path) -> None:
    num_operations(faults, str(tmp_path))
    assert set(faults.kinds) >= {
        "open wb",
        "write",
        "flush",
        "fsync",
        "close",
        "replace",
        "ls",
        "info",
        "rm_file",
    }
    # The mark, the header and two writes for each part, one for each rows file, one for the manifest; twice.
    assert faults.kinds["write"] == 2 * (1 + 2 * 3 + 2 + 1)


def test_a_process_that_dies_at_any_operation_leaves_a_whole_checkpoint(faults: Faults, url: str) -> None:
    found = []
    for operation in range(num_operations(faults, url)):
        faults.disarm()
        save(url, 1)
        faults.arm(operation, kill=True)
        with pytest.raises(Killed):
            save(url, 2)
        faults.disarm()
        found.append(loaded_seed(url))
    # One instant decides: before it the old one, after it the new one.
    assert found == sorted(found)
    assert set(found) == {1, 2}
    save(url, 1, num_partitions=1)
    assert len(files_of(url)) == 3, "the next save deletes what dead ones left"


def test_a_first_save_that_dies_leaves_none_or_a_whole_one(faults: Faults, url: str) -> None:
    found = []
    for operation in range(num_operations(faults, url)):
        fresh = f"{url}/{operation}"
        faults.arm(operation, kill=True)
        with contextlib.suppress(Killed):
            save(fresh, 1)
        faults.disarm()
        try:
            found.append(loaded_seed(fresh))
        except CheckpointNotFound:
            found.append(0)
    assert found == sorted(found)
    assert set(found) == {0, 1}


@pytest.mark.parametrize("error", [errno.EIO, errno.ENOSPC, errno.EACCES, errno.ENOENT])
def test_an_error_at_any_operation_is_typed_and_leaves_a_whole_checkpoint(
    faults: Faults, url: str, error: int
) -> None:
    outcomes = set()
    for operation in range(num_operations(faults, url)):
        faults.disarm()
        save(url, 1)
        before = files_of(url)
        faults.arm(operation, error=error)
        raised: CheckpointError | None = None
        try:
            save(url, 2)
        except CheckpointError as caught:
            raised = caught
        faults.disarm()
        seed = loaded_seed(url)
        outcomes.add((raised is not None, seed))
        if raised is not None:
            assert "saved" in str(raised)
            # A store that says "not there" is believed, so that one has no cause in it.
            assert error == errno.ENOENT or isinstance(raised.__cause__, OSError)
            is_unknown = url.startswith("memory") and str(raised).startswith("replacing")
            if seed == 1 and not is_unknown:
                assert files_of(url) == before, "what a failed save wrote is deleted"
    assert (False, 1) not in outcomes
    assert (True, 1) in outcomes


@pytest.mark.parametrize("error", [errno.EIO, errno.EACCES, errno.ESTALE])
def test_an_error_at_any_operation_of_a_load_is_typed_and_names_the_place(
    faults: Faults, url: str, error: int
) -> None:
    save(url, 1)
    faults.disarm()
    assert loaded_seed(url) == 1
    for operation in range(faults.count):
        faults.arm(operation, error=error)
        with pytest.raises(CheckpointError, match=r"saved.* failed: .*\["):
            loaded_seed(url)
    assert faults.kinds["read"] > 10
    faults.disarm()
    assert loaded_seed(url) == 1


def test_an_error_of_the_deletion_is_logged_and_does_not_fail_the_save(
    faults: Faults, tmp_path: pathlib.Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    save(str(tmp_path), 1)

    def refuse(*_: Any) -> None:
        raise PermissionError(errno.EACCES, "no")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "glintpy.storage"):
        patch.setattr(LocalFileSystem, "rm_file", refuse)
        save(str(tmp_path), 2)
    assert loaded_seed(str(tmp_path)) == 2
    assert len([record for record in caplog.records if "stays" in record.getMessage()]) >= 4
    save(str(tmp_path), 2)
    assert len(files_of(str(tmp_path))) == 5
    assert faults.fail_at == NEVER


def test_a_put_of_unknown_outcome_keeps_both_checkpoints_files(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    url = "memory://faults/unknown"
    save(url, 1)
    put = MemoryFileSystem.pipe_file

    def put_and_time_out(self: MemoryFileSystem, path: str, value: bytes, **kwargs: Any) -> None:
        put(self, path, value, **kwargs)
        raise TimeoutError("no answer")

    with monkeypatch.context() as patch, caplog.at_level(logging.WARNING, "glintpy.storage"):
        patch.setattr(MemoryFileSystem, "pipe_file", put_and_time_out)
        with pytest.raises(CheckpointError, match="TimeoutError: no answer"):
            save(url, 2)
    assert loaded_seed(url) == 2
    assert "unknown whether the save" in caplog.text
    fsspec.filesystem("memory").rm("/faults", recursive=True)


def test_a_failed_sync_of_the_new_manifest_says_that_it_is_in_place(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    url = str(tmp_path)
    save(url, 1)
    fsync, replaced = os.fsync, []
    replace = pathlib.Path.replace

    def replace_and_note(self: pathlib.Path, target: str) -> pathlib.Path:
        replaced.append(target)
        return replace(self, target)

    def fail_after_replacing(descriptor: int) -> None:
        if replaced:
            raise OSError(errno.EIO, "lost")
        fsync(descriptor)

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "replace", replace_and_note)
        patch.setattr(os, "fsync", fail_after_replacing)
        with pytest.raises(CheckpointError, match="in place, but perhaps not after a power failure"):
            save(url, 2)
    assert loaded_seed(url) == 2


def test_file_systems_without_fsync_are_used_all_the_same(
    tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_fsync(_: int) -> None:
        raise OSError(errno.EINVAL, "not here")

    monkeypatch.setattr(os, "fsync", no_fsync)
    save(str(tmp_path), 1)
    assert loaded_seed(str(tmp_path)) == 1


def test_errors_of_other_packages_are_mapped(tmp_path: pathlib.Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class BotoError(Exception):
        pass

    def fail(*_: Any, **__: Any) -> None:
        raise BotoError("no credentials")

    save(str(tmp_path), 1)
    for name in ("open", "info"):
        with monkeypatch.context() as patch:
            patch.setattr(LocalFileSystem, name, fail)
            with pytest.raises(CheckpointError, match="BotoError: no credentials"):
                save(str(tmp_path), 2)
    with monkeypatch.context() as patch:
        patch.setattr(LocalFileSystem, "open", fail)
        with pytest.raises(CheckpointError, match="BotoError: no credentials"):
            CheckpointReader(tmp_path)
    assert loaded_seed(str(tmp_path)) == 1
