"""Every flipped byte, every truncation, every swapped file and every lie in a manifest is a typed error."""

from __future__ import annotations

import json
import pickle
import zlib
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest

from glintpy.errors import CheckpointCorrupt, CheckpointError, CheckpointMismatch
from glintpy.protocol.spec import ModelSpec
from glintpy.storage.checkpoint import CheckpointWriter
from glintpy.storage.checkpoint_format import encode_manifest
from glintpy.storage.checkpoint_reader import CheckpointReader

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SPEC = ModelSpec(name="m", num_rows=5, num_cols=2, dtype="int16")


def save(path: Path, *, custom: bool = False, add: int = 0) -> None:
    """Two parts: rows 0 to 2 and 3 to 4, said by arithmetic or by files."""
    values = np.arange(10, dtype=np.int16).reshape(5, 2) + np.int16(add)
    with CheckpointWriter(path, spec=SPEC, num_partitions=2, overwrite=True) as writer:
        for partition, (start, stop) in enumerate([(0, 3), (3, 5)]):
            where: dict[str, Any] = {"first": start, "step": 1}
            if custom:
                where = {"global_rows": np.arange(start, stop)}
            with writer.part(partition, num_rows=stop - start, **where) as part:
                part.write(values[start:stop])
        writer.commit()


def load(path: Path) -> None:
    """Verify, as a load does before it changes anything; a silent success is what tests here look for."""
    CheckpointReader(path).verify()


def assert_noticed(path: Path, what: object) -> None:
    try:
        load(path)
    except (CheckpointCorrupt, CheckpointMismatch):
        return
    pytest.fail(f"not noticed: {what}")


@pytest.mark.parametrize("custom", [False, True])
def test_every_flipped_byte_of_every_file_is_noticed(tmp_path: Path, *, custom: bool) -> None:
    save(tmp_path, custom=custom)
    load(tmp_path)
    files = sorted(tmp_path.iterdir())
    assert len(files) == (5 if custom else 3)
    for file in files:
        data = file.read_bytes()
        for position in range(len(data)):
            mask = (0x01, 0x20, 0xFF)[position % 3]
            damaged = bytearray(data)
            damaged[position] ^= mask
            file.write_bytes(damaged)
            assert_noticed(tmp_path, (file.name, position, mask))
        file.write_bytes(data)
    load(tmp_path)


@pytest.mark.parametrize("custom", [False, True])
def test_every_truncation_and_every_addition_is_noticed(tmp_path: Path, *, custom: bool) -> None:
    save(tmp_path, custom=custom)
    for file in sorted(tmp_path.iterdir()):
        data = file.read_bytes()
        for length in range(len(data)):
            file.write_bytes(data[:length])
            assert_noticed(tmp_path, (file.name, length))
        for more in (b"\0", b"\n", b" " * 100, data):
            file.write_bytes(data + more)
            assert_noticed(tmp_path, (file.name, more))
        file.write_bytes(data)
    load(tmp_path)


def test_missing_files_are_named(tmp_path: Path) -> None:
    save(tmp_path, custom=True)
    for file in tmp_path.glob("*.npy"):
        data = file.read_bytes()
        file.unlink()
        with pytest.raises(CheckpointCorrupt, match=f"{file.name} at .* expected a file, found none"):
            load(tmp_path)
        file.write_bytes(data)


def test_swapped_files_are_noticed(tmp_path: Path) -> None:
    save(tmp_path, custom=True)
    files = sorted(tmp_path.iterdir())
    for one in files:
        for other in files:
            if one is not other:
                ours, theirs = one.read_bytes(), other.read_bytes()
                one.write_bytes(theirs)
                assert_noticed(tmp_path, (one.name, other.name))
                other.write_bytes(ours)
                assert_noticed(tmp_path, (one.name, other.name, "both"))
                one.write_bytes(ours)
                other.write_bytes(theirs)
    load(tmp_path)


def test_a_file_of_another_save_of_the_same_model_is_noticed(tmp_path: Path) -> None:
    save(tmp_path / "one")
    save(tmp_path / "other", add=1)
    for ours, theirs in zip(
        sorted((tmp_path / "one").glob("*.npy")), sorted((tmp_path / "other").glob("*.npy")), strict=True
    ):
        data = ours.read_bytes()
        ours.write_bytes(theirs.read_bytes())
        with pytest.raises(CheckpointCorrupt, match=r"expected crc32 \d+, found \d+"):
            load(tmp_path / "one")
        ours.write_bytes(data)


def test_files_that_the_manifest_does_not_name_are_ignored(tmp_path: Path) -> None:
    save(tmp_path)
    (tmp_path / f"values-00002-{'a' * 16}.npy").write_bytes(b"x")
    load(tmp_path)


def edit_manifest(path: Path, edit: Callable[[dict[str, Any]], None]) -> None:
    """Change a manifest as somebody would who knows how its checksum is made."""
    file = path / "manifest.json"
    content = json.loads(file.read_bytes())
    edit(content)
    file.write_bytes(encode_manifest(content))


def each(**lies: list[Any]) -> list[dict[str, Any]]:
    """Write the lies about each field out, one at a time."""
    return [{field: value} for field, values in lies.items() for value in values]


HOSTILE_NAMES = [
    "/etc/passwd",
    "../secret.npy",
    "values-00000-{id}.npy/../../x",
    "values-00001-{id}.npy",
    "values-0-{id}.npy",
    "VALUES-00000-{id}.npy",
    "values-00000-{id}.npy\n",
    "values-00000-{id}.npy\0",
    "s3://bucket/values-00000-{id}.npy",
    "",
    None,
    7,
    ["values-00000-{id}.npy"],
]


@pytest.mark.parametrize("name", HOSTILE_NAMES)
@pytest.mark.parametrize("field", ["file", "rows_file"])
def test_hostile_file_names_are_refused(tmp_path: Path, name: Any, field: str) -> None:
    save(tmp_path, custom=True)

    def edit(content: dict[str, Any]) -> None:
        text = name.replace("{id}", content["save_id"]) if isinstance(name, str) else name
        content["files"][0][field] = text

    edit_manifest(tmp_path, edit)
    with pytest.raises(CheckpointCorrupt):
        CheckpointReader(tmp_path)


@pytest.mark.parametrize("save_id", ["../../../../etc", "A" * 16, "a" * 15, "a" * 16 + "\n", 3, None])
def test_a_hostile_save_id_is_refused(tmp_path: Path, save_id: Any) -> None:
    save(tmp_path)

    def edit(content: dict[str, Any]) -> None:
        for entry in content["files"]:
            entry["file"] = entry["file"].replace(content["save_id"], str(save_id))
        content["save_id"] = save_id

    edit_manifest(tmp_path, edit)
    with pytest.raises(CheckpointCorrupt, match="save_id"):
        CheckpointReader(tmp_path)


ENTRY_LIES = each(
    partition=[1, -1, True, 0.0],
    num_rows=[2, 4611686018427387904, -3, None],
    bytes=[3, 1180591620717411303424, "140"],
    crc32=[-1, None],
    first=[None, 1, -1],
    step=[0, 2, 4611686018427387904],
    rows_bytes=[4],
    rows_crc32=[4],
    slot=["../values", "rows", None],
    another=[1],
)


@pytest.mark.parametrize("lie", ENTRY_LIES, ids=str)
def test_lies_about_a_part_are_refused(tmp_path: Path, lie: dict[str, Any]) -> None:
    save(tmp_path)
    edit_manifest(tmp_path, lambda content: content["files"][0].update(lie))
    with pytest.raises(CheckpointCorrupt):
        CheckpointReader(tmp_path)


@pytest.mark.parametrize("lie", [{"first": 0}, {"step": 1}, {"rows_bytes": 8}, {"rows_bytes": None}], ids=str)
def test_lies_about_a_part_with_a_rows_file_are_refused(tmp_path: Path, lie: dict[str, Any]) -> None:
    save(tmp_path, custom=True)
    edit_manifest(tmp_path, lambda content: content["files"][0].update(lie))
    with pytest.raises(CheckpointCorrupt):
        CheckpointReader(tmp_path)


MANIFEST_LIES = each(
    format=["zarr"],
    format_version=[2, 0, True, "1", None],
    num_partitions=[3, 0, 1099511627776],
    files=[[], {}, None, [1, 2]],
    spec=[None, {}],
    created=[3],
    glintpy=[None],
    another=[1],
)


@pytest.mark.parametrize("lie", MANIFEST_LIES, ids=str)
def test_lies_in_a_manifest_are_refused(tmp_path: Path, lie: dict[str, Any]) -> None:
    save(tmp_path)
    edit_manifest(tmp_path, lambda content: content.update(lie))
    with pytest.raises((CheckpointCorrupt, CheckpointMismatch)):
        CheckpointReader(tmp_path)


SPEC_LIES = each(
    dtype=["object", "O", "float32"],
    num_rows=[6, -1, 5.0],
    num_cols=[3, None, 2305843009213693952],
    name=["\x00"],
    updater=["eval()", ""],
    updater_numbers=["{", "[]"],
    init=[["uniform"], {}],
    another=[1],
)


@pytest.mark.parametrize("lie", SPEC_LIES, ids=str)
def test_lies_about_the_model_are_refused(tmp_path: Path, lie: dict[str, Any]) -> None:
    save(tmp_path)
    edit_manifest(tmp_path, lambda content: content["spec"].update(lie))
    assert_noticed(tmp_path, lie)


def test_a_newer_version_says_who_wrote_it(tmp_path: Path) -> None:
    save(tmp_path)
    edit_manifest(tmp_path, lambda content: content.update(format_version=7, glintpy="9.9", extra=[]))
    with pytest.raises(CheckpointMismatch, match=r"format_version 7, by glintpy '9.9'; this glintpy reads 1"):
        CheckpointReader(tmp_path)


@pytest.mark.parametrize(
    "data",
    [b"", b"null", b"[]", b"1", b"{", b"\xff\xfe{}", b"[" * 200_000, b'{"a":' * 200_000, b"9" * 10_000],
    ids=lambda data: repr(data[:8]),
)
def test_a_manifest_that_is_no_manifest_is_a_typed_error(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "manifest.json").write_bytes(data)
    assert_noticed(tmp_path, data[:20])


def test_a_manifest_said_twice_over_is_refused(tmp_path: Path) -> None:
    save(tmp_path)
    file = tmp_path / "manifest.json"
    file.write_bytes(file.read_bytes().replace(b'"created"', b'"num_partitions": 9,\n "created"', 1))
    with pytest.raises(CheckpointCorrupt, match="crc32"):
        CheckpointReader(tmp_path)


def test_a_manifest_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    with (tmp_path / "manifest.json").open("wb") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointCorrupt, match="more than 67108864 bytes"):
        CheckpointReader(tmp_path)


def test_a_part_without_end_is_not_read_to_its_end(tmp_path: Path) -> None:
    save(tmp_path)
    with next(tmp_path.glob("values-00000-*")).open("r+b") as file:
        file.truncate(1 << 40)
    with pytest.raises(CheckpointCorrupt, match="found more"):
        load(tmp_path)


def replace_part(path: Path, data: bytes) -> None:
    """Replace part 0, with the size and checksum that the manifest then should say."""
    next(path.glob("values-00000-*")).write_bytes(data)
    lie = {"bytes": len(data), "crc32": zlib.crc32(data)}
    edit_manifest(path, lambda content: content["files"][0].update(lie))


class Bomb:
    """Does visible harm when unpickled."""

    def __reduce__(self) -> tuple[Any, ...]:
        return (pytest.fail, ("a pickle was read",))


def npy(array: np.ndarray[Any, Any], tmp_path: Path) -> bytes:
    file = tmp_path / "scratch.npy"
    np.save(file, array, allow_pickle=True)
    return file.read_bytes()


@pytest.mark.parametrize(
    "array",
    [
        np.zeros((3, 2), "<u2"),
        np.zeros((3, 2), ">i2"),
        np.zeros((2, 3), "<i2"),
        np.zeros(6, "<i2"),
        np.asfortranarray(np.zeros((3, 2), "<i2")),
        np.zeros((3, 2), "<i2,<i2"),
        np.zeros((4, 2), "<i2"),
        np.array([Bomb()] * 6, dtype=object),
    ],
    ids=lambda array: f"{array.dtype} {array.shape}",
)
def test_a_part_that_is_another_array_is_refused(tmp_path: Path, array: np.ndarray[Any, Any]) -> None:
    save(tmp_path)
    replace_part(tmp_path, npy(array, tmp_path))
    with pytest.raises(CheckpointCorrupt, match="expected the header"):
        load(tmp_path)


@pytest.mark.parametrize(
    "data",
    [
        pickle.dumps(Bomb()) + bytes(100),
        bytes(200),
        b"\x93NUMPY\x01\x00" + b"\xff\xff" + b"(" * 65535 + bytes(12),
        b"\x93NUMPY\x03\x00" + b"\x76\x00\x00\x00" + b" " * 0x76 + bytes(12),
        b"\x93NUMPY" + bytes(12),
    ],
    ids=["pickle", "zeros", "brackets", "version 3", "short"],
)
def test_a_part_that_is_no_array_is_refused(tmp_path: Path, data: bytes) -> None:
    save(tmp_path)
    replace_part(tmp_path, data)
    with pytest.raises(CheckpointCorrupt):
        load(tmp_path)


def test_a_header_with_other_padding_is_the_same_header(tmp_path: Path) -> None:
    # numpy changed its padding once and may again; what older or newer ones wrote is still read.
    save(tmp_path)
    data = next(tmp_path.glob("values-00000-*")).read_bytes()
    length = int.from_bytes(data[8:10], "little") + 64
    replace_part(
        tmp_path, data[:8] + length.to_bytes(2, "little") + data[10:-13] + b" " * 64 + b"\n" + data[-12:]
    )
    load(tmp_path)
    ((rows, values), *_) = CheckpointReader(tmp_path).blocks(1000)
    assert rows == range(3)
    np.testing.assert_array_equal(values, np.arange(6).reshape(3, 2))
    replace_part(tmp_path, data[:-12] + bytes(64) + data[-12:])
    with pytest.raises(CheckpointCorrupt, match="12 bytes of data"):
        load(tmp_path)


@pytest.mark.parametrize("rows", [[0, 1, 1], [0, 1, 4], [0, 1, 5], [-1, 0, 1], [2**62, 0, 1]])
def test_a_rows_file_that_is_not_a_partition_is_refused(tmp_path: Path, rows: list[int]) -> None:
    save(tmp_path, custom=True)
    data = npy(np.array(rows), tmp_path)
    next(tmp_path.glob("rows-00000-*")).write_bytes(data)
    lie = {"rows_bytes": len(data), "rows_crc32": zlib.crc32(data)}
    edit_manifest(tmp_path, lambda content: content["files"][0].update(lie))
    with pytest.raises(CheckpointCorrupt, match=r"rows-0000[01]"):
        load(tmp_path)


def test_a_directory_in_a_files_place_is_our_error(tmp_path: Path) -> None:
    save(tmp_path)
    part = next(tmp_path.glob("values-00000-*"))
    part.unlink()
    part.mkdir()
    with pytest.raises(CheckpointError, match="values-00000"):
        load(tmp_path)
