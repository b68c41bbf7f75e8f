"""A saved model comes back equal, is read by numpy alone, and nothing damaged or hostile is ever believed."""

from __future__ import annotations

import json
import os
import platform
import shutil
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import fsspec
import numpy as np
import pytest

from glintpy.errors import (
    CheckpointCorrupt,
    CheckpointError,
    CheckpointMismatch,
    CheckpointNotFound,
    GlintError,
)
from glintpy.protocol import dtypes
from glintpy.protocol.spec import ModelSpec
from glintpy.storage.checkpoint import CheckpointWriter
from glintpy.storage.checkpoint_format import encode_manifest
from glintpy.storage.checkpoint_reader import CheckpointReader

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from numpy.typing import NDArray

ROWS_OF: dict[str, Callable[[int, int, int], NDArray[np.int64]]] = {
    "range": lambda part, parts, n: np.arange(n * part // parts, n * (part + 1) // parts),
    "cyclic": lambda part, parts, n: np.arange(part, n, parts),
    "shuffled": lambda part, parts, n: np.random.default_rng(7).permutation(n)[part::parts],
}


def values_of(spec: ModelSpec, seed: int = 0) -> NDArray[Any]:
    """Values that use every byte of their dtype; for floats no NaN, so that equality means equality."""
    shape = (spec.num_rows, *spec.row_shape)
    random = np.random.default_rng(seed)
    if spec.numpy_dtype.kind == "f":
        return random.normal(size=shape).astype(spec.numpy_dtype)
    if spec.numpy_dtype.kind == "b":
        return random.integers(0, 2, shape).astype(np.bool_)
    return random.integers(0, 256, (*shape, spec.numpy_dtype.itemsize), np.uint8).view(spec.numpy_dtype)[
        ..., 0
    ]


def save(
    url: str, spec: ModelSpec, values: NDArray[Any], *, num_partitions: int = 3, overwrite: bool = False
) -> CheckpointWriter:
    with CheckpointWriter(url, spec=spec, num_partitions=num_partitions, overwrite=overwrite) as writer:
        for partition in range(num_partitions):
            rows = ROWS_OF[spec.partitioner](partition, num_partitions, spec.num_rows)
            where: dict[str, Any] = {"global_rows": rows}
            if spec.partitioner != "shuffled":
                step = num_partitions if spec.partitioner == "cyclic" else 1
                where = {"first": int(rows[0]) if len(rows) else 0, "step": step}
            with writer.part(partition, num_rows=len(rows), **where) as part:
                for start in range(0, len(rows), 4):
                    part.write(values[rows[start : start + 4]])
        writer.commit()
    return writer


def load(url: str, block_bytes: int = 64) -> NDArray[Any]:
    reader = CheckpointReader(url)
    reader.verify()
    spec = reader.spec
    values = np.zeros((spec.num_rows, *spec.row_shape), spec.numpy_dtype)
    seen = np.zeros(spec.num_rows, np.int64)
    for rows, block in reader.blocks(block_bytes):
        assert len(rows) == len(block) > 0
        assert block.nbytes <= max(block_bytes, spec.row_bytes)
        assert block.dtype == spec.numpy_dtype
        values[np.asarray(rows)] = block
        seen[np.asarray(rows)] += 1
    assert spec.num_bytes == 0 or (seen == 1).all()
    return values


def matrix(**changes: Any) -> ModelSpec:
    return ModelSpec(**{"name": "m", "num_rows": 17, "num_cols": 3, "dtype": "float64", **changes})


@pytest.fixture(params=["local", "memory"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    if request.param == "local":
        yield str(tmp_path / "made" / "here")
        return
    yield "memory://checkpoints/one"
    files = fsspec.filesystem("memory")
    if files.exists("/checkpoints"):
        files.rm("/checkpoints", recursive=True)


@pytest.mark.parametrize("dtype", dtypes.NAMES)
@pytest.mark.parametrize("partitioner", sorted(ROWS_OF))
@pytest.mark.parametrize("num_cols", [3, None])
def test_what_was_saved_comes_back(
    tmp_path: Path, dtype: str, partitioner: str, num_cols: int | None
) -> None:
    spec = matrix(dtype=dtype, partitioner=partitioner, num_cols=num_cols)
    values = values_of(spec)
    save(str(tmp_path), spec, values)
    assert CheckpointReader(tmp_path).spec == spec
    np.testing.assert_array_equal(load(str(tmp_path)), values, strict=True)


@pytest.mark.parametrize("partitioner", sorted(ROWS_OF))
@pytest.mark.parametrize(
    ("num_rows", "num_cols"), [(0, 3), (0, None), (5, 0), (0, 0), (1, 1), (2, None), (3, 4)]
)
def test_empty_and_tiny_models_come_back(
    url: str, partitioner: str, num_rows: int, num_cols: int | None
) -> None:
    spec = matrix(num_rows=num_rows, num_cols=num_cols, partitioner=partitioner)
    save(url, spec, values_of(spec), num_partitions=3)
    np.testing.assert_array_equal(load(url), values_of(spec), strict=True)
    if spec.num_bytes == 0:
        assert list(CheckpointReader(url).blocks(1000)) == []


def test_random_initial_values_and_names_in_other_alphabets_are_kept(url: str) -> None:
    spec = matrix(name="Größe 模型", init=("normal", 0.1, 2.5), seed=-3, finite=True)
    save(url, spec, values_of(spec))
    assert CheckpointReader(url).spec == spec


@pytest.mark.parametrize("partitioner", sorted(ROWS_OF))
def test_numpy_alone_reads_it(tmp_path: Path, partitioner: str) -> None:
    spec = matrix(partitioner=partitioner)
    save(str(tmp_path), spec, values_of(spec))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    assert (manifest["format"], manifest["format_version"]) == ("glintpy-checkpoint", 1)
    found = np.zeros((17, 3))
    for entry in manifest["files"]:
        part = np.load(tmp_path / entry["file"], allow_pickle=False)
        assert (tmp_path / entry["file"]).stat().st_size == entry["bytes"]
        if entry["rows_file"] is None:
            found[entry["first"] :: entry["step"]][: entry["num_rows"]] = part
        else:
            found[np.load(tmp_path / entry["rows_file"], allow_pickle=False)] = part
    np.testing.assert_array_equal(found, values_of(spec))


def test_arithmetic_rows_travel_as_ranges(tmp_path: Path) -> None:
    spec = matrix(num_rows=10, num_cols=1, partitioner="cyclic")
    save(str(tmp_path), spec, values_of(spec))
    assert [rows for rows, _ in CheckpointReader(tmp_path).blocks(24)] == [
        range(0, 9, 3),
        range(9, 12, 3),
        range(1, 10, 3),
        range(2, 11, 3),
    ]


def test_verify_tells_its_progress(tmp_path: Path) -> None:
    spec = matrix(num_rows=300_000, num_cols=1, partitioner="shuffled")
    save(str(tmp_path), spec, values_of(spec), num_partitions=1)
    reader, calls = CheckpointReader(tmp_path), []
    reader.verify(lambda done, total: calls.append((done, total)))
    assert len(calls) >= 6
    assert sorted(calls) == calls
    assert calls[-1] == (reader.num_bytes, reader.num_bytes)
    assert reader.num_bytes == sum(path.stat().st_size for path in tmp_path.glob("*.npy"))


def test_a_second_save_needs_permission_and_leaves_only_its_own_files(url: str) -> None:
    spec = matrix(partitioner="shuffled")
    first = save(url, spec, values_of(spec, 1))
    with pytest.raises(CheckpointError, match="overwrite=True"):
        CheckpointWriter(url, spec=spec, num_partitions=3, overwrite=False)
    np.testing.assert_array_equal(load(url), values_of(spec, 1))
    second = save(url, spec, values_of(spec, 2), num_partitions=2, overwrite=True)
    np.testing.assert_array_equal(load(url), values_of(spec, 2))
    names = set(second.directory.sizes())
    assert len(names) == 5
    assert not any(first.save_id in name for name in names)


def test_a_checkpoint_that_appears_during_a_save_is_not_overwritten(url: str) -> None:
    spec = matrix(num_rows=2)
    with CheckpointWriter(url, spec=spec, num_partitions=1, overwrite=False) as writer:
        with writer.part(0, num_rows=2, first=0, step=1) as part:
            part.write(values_of(spec, 1))
        save(url, spec, values_of(spec, 2))
        with pytest.raises(CheckpointError, match=r"another save|overwrite=True"):
            writer.commit()
    np.testing.assert_array_equal(load(url), values_of(spec, 2))


def test_two_saves_at_once_never_name_files_that_are_gone(url: str) -> None:
    spec = matrix(num_rows=2)
    with CheckpointWriter(url, spec=spec, num_partitions=1, overwrite=True) as writer:
        with writer.part(0, num_rows=2, first=0, step=1) as part:
            part.write(values_of(spec, 1))
        save(url, spec, values_of(spec, 2), overwrite=True)
        np.testing.assert_array_equal(load(url), values_of(spec, 2))
        writer.commit()
    np.testing.assert_array_equal(load(url), values_of(spec, 1))


@pytest.mark.parametrize(
    ("point", "last"),
    [
        ("checkpoint.before_manifest", 1),
        ("checkpoint.manifest_staged", 1),
        ("checkpoint.after_manifest", 2),
    ],
)
def test_a_save_within_the_commit_of_another_leaves_a_whole_checkpoint(
    url: str, monkeypatch: pytest.MonkeyPatch, point: str, last: int
) -> None:
    spec = matrix(num_rows=2)
    save(url, spec, values_of(spec, 3))
    waiting = [point]

    def hit(name: str) -> None:
        if name in waiting:
            waiting.remove(name)
            save(url, spec, values_of(spec, 2), num_partitions=1, overwrite=True)

    with CheckpointWriter(url, spec=spec, num_partitions=1, overwrite=True) as writer:
        with writer.part(0, num_rows=2, first=0, step=1) as part:
            part.write(values_of(spec, 1))
        monkeypatch.setattr("glintpy.failpoints.hit", hit)
        writer.commit()
    assert not waiting
    np.testing.assert_array_equal(load(url), values_of(spec, last))
    system, path = fsspec.url_to_fs(url)
    assert len(system.ls(path)) == 2, "a manifest and a part: neither leaves anything"


@pytest.mark.parametrize(
    ("mark", "stays"),
    [
        (
            {"host": platform.node(), "pid": os.getpid()},
            False,
        ),  # of this process, and it has no such save
        ({"host": platform.node(), "pid": 2**22 + 1}, False),
        ({"host": platform.node(), "pid": 1}, True),
        ({"host": "elsewhere", "pid": 1, "since": datetime.now(UTC).isoformat()}, True),
        ({"host": "elsewhere", "pid": 1, "since": "2020-01-01T00:00:00+00:00"}, False),
        ({"host": "elsewhere", "pid": 1, "since": "2020-01-01T00:00:00"}, False),
        (["half"], False),
    ],
)
def test_files_of_saves_that_may_be_under_way_stay(tmp_path: Path, mark: Any, stays: bool) -> None:
    others = {f"values-00000-{'a' * 16}.npy", f"saving-{'a' * 16}.json"}
    for name in others:
        (tmp_path / name).write_text(json.dumps(mark))
    spec = matrix()
    save(str(tmp_path), spec, values_of(spec))
    left = {path.name for path in tmp_path.iterdir()} & others
    assert left == (others if stays else set())
    np.testing.assert_array_equal(load(str(tmp_path)), values_of(spec))


def test_files_of_killed_saves_go_and_strangers_stay(tmp_path: Path) -> None:
    orphans = [
        f"values-00099-{'a' * 16}.npy",
        f"rows-00001-{'b' * 16}.npy",
        f"manifest-{'c' * 16}.tmp",
        f"momentum-123456-{'d' * 16}.npy",
    ]
    strangers = ["notes.txt", "values.npy", "values-00001.npy", f"values-00001-{'A' * 16}.npy"]
    for name in orphans + strangers:
        (tmp_path / name).write_bytes(b"x")
    spec = matrix()
    save(str(tmp_path), spec, values_of(spec))
    names = {path.name for path in tmp_path.iterdir()}
    assert not names & set(orphans)
    assert names >= set(strangers)
    np.testing.assert_array_equal(load(str(tmp_path)), values_of(spec))


def test_a_manifest_of_something_else_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_text('{"name": "a web page"}')
    with pytest.raises(CheckpointMismatch, match="another directory"):
        CheckpointWriter(tmp_path, spec=matrix(), num_partitions=1, overwrite=True)
    with pytest.raises(CheckpointMismatch, match="not a glintpy checkpoint"):
        CheckpointReader(tmp_path)
    assert (tmp_path / "manifest.json").read_text() == '{"name": "a web page"}'


def test_a_damaged_manifest_can_be_replaced(tmp_path: Path) -> None:
    (tmp_path / "manifest.json").write_bytes(b'{"format": "glintpy-ch')
    spec = matrix()
    save(str(tmp_path), spec, values_of(spec), overwrite=True)
    np.testing.assert_array_equal(load(str(tmp_path)), values_of(spec))


def test_abort_deletes_what_the_save_wrote_and_nothing_else(url: str) -> None:
    spec = matrix(partitioner="shuffled")
    writer = CheckpointWriter(url, spec=spec, num_partitions=1, overwrite=False)
    writer.part(0, num_rows=17, global_rows=np.arange(17)).write(values_of(spec)[:5])
    assert writer.directory.sizes()
    writer.abort()
    writer.abort()
    assert writer.directory.sizes() == {}
    with pytest.raises(CheckpointNotFound):
        CheckpointReader(url)
    before = set(save(url, spec, values_of(spec)).directory.sizes())
    with CheckpointWriter(url, spec=spec, num_partitions=1, overwrite=True) as writer:
        writer.part(0, num_rows=17, first=0, step=1).write(values_of(spec)[:5])
    assert set(writer.directory.sizes()) == before
    np.testing.assert_array_equal(load(url), values_of(spec))


def test_abort_after_commit_changes_nothing(url: str) -> None:
    spec = matrix()
    writer = save(url, spec, values_of(spec))
    writer.abort()
    with pytest.raises(CheckpointError, match="ended already"):
        writer.commit()
    with pytest.raises(CheckpointError, match="has ended"):
        writer.part(0, num_rows=1, first=0, step=1)
    np.testing.assert_array_equal(load(url), values_of(spec))


def test_a_missing_checkpoint_says_so(url: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointNotFound, match="no checkpoint at"):
        CheckpointReader(url)
    (tmp_path / "file").write_text("x")
    with pytest.raises(CheckpointNotFound):
        CheckpointReader(tmp_path / "file")


@pytest.mark.parametrize("bad", ["nosuchscheme://host/path", ""])
def test_urls_that_mean_nothing_are_our_error(bad: str) -> None:
    with pytest.raises(CheckpointError):
        CheckpointReader(bad)
    with pytest.raises(CheckpointError):
        CheckpointWriter(bad, spec=matrix(), num_partitions=1, overwrite=False)


def test_a_file_in_the_directorys_place_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "file", tmp_path / "file" / "below"):
        with pytest.raises(CheckpointError, match="file"):
            CheckpointWriter(path, spec=matrix(), num_partitions=1, overwrite=False)


def test_relative_paths_and_file_urls_are_the_same_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    spec = matrix()
    save("saved", spec, values_of(spec))
    np.testing.assert_array_equal(load(f"file://{tmp_path}/saved/"), values_of(spec))


def test_credentials_stay_out_of_messages() -> None:
    with pytest.raises(GlintError) as caught:
        CheckpointReader("nosuchscheme://user:secret@host/path")
    assert "secret" not in str(caught.value)
    assert "//***@host/path" in str(caught.value)


def test_two_readers_of_one_memory_file_do_not_disturb_each_other() -> None:
    spec = matrix(num_rows=40)
    save("memory://checkpoints/shared", spec, values_of(spec), num_partitions=1)
    reader = CheckpointReader("memory://checkpoints/shared")
    for (_, one), (_, other) in zip(reader.blocks(48), reader.blocks(48), strict=True):
        np.testing.assert_array_equal(one, other)
    fsspec.filesystem("memory").rm("/checkpoints", recursive=True)


def test_a_file_that_changes_after_verify_is_noticed_before_its_last_block(tmp_path: Path) -> None:
    spec = matrix()
    save(str(tmp_path), spec, values_of(spec), num_partitions=1)
    reader = CheckpointReader(tmp_path)
    reader.verify()
    (path,) = tmp_path.glob("*.npy")
    data = bytearray(path.read_bytes())
    data[-9] ^= 1
    path.write_bytes(data)
    rows_read: list[Any] = []
    with pytest.raises(CheckpointCorrupt, match="what was verified"):
        rows_read.extend(rows for rows, _ in reader.blocks(24))
    assert len(rows_read) == 16
    path.write_bytes(data[:-24])
    with pytest.raises(CheckpointCorrupt, match="what was verified"):
        list(reader.blocks(24))


def test_a_file_of_a_slot_that_the_manifest_does_not_name_is_damage(tmp_path: Path) -> None:
    spec = matrix()
    save(str(tmp_path), spec, values_of(spec))
    path = tmp_path / "manifest.json"
    content = json.loads(path.read_text())
    content["files"].append({**content["files"][0], "slot": "momentum"})
    path.write_bytes(encode_manifest(content))
    with pytest.raises(CheckpointCorrupt, match=r"a file of 'momentum', which is none of \['values'\]"):
        CheckpointReader(tmp_path)


def test_a_damaged_copy_beside_a_good_one_changes_nothing_for_it(tmp_path: Path) -> None:
    spec = matrix()
    save(str(tmp_path / "good"), spec, values_of(spec))
    shutil.copytree(tmp_path / "good", tmp_path / "bad")
    next((tmp_path / "bad").glob("values-00001-*")).unlink()
    with pytest.raises(CheckpointCorrupt, match="values-00001"):
        load(str(tmp_path / "bad"))
    np.testing.assert_array_equal(load(str(tmp_path / "good")), values_of(spec))
