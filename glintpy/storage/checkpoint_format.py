"""The format of a saved model: its manifest, its file names and its rows; knows no file system.

``manifest.json`` names one ``.npy`` file for each partition of each of the model's arrays, with size and CRC32; each
part says its rows as ``first`` and ``step``, or in a ``.npy`` file of their own, which has a table's keys. Which slots
there are it says itself: a checkpoint can be read without its model's updater.
"""

from __future__ import annotations

import io
import itertools
import json
import re
import zlib
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np

from glintpy import config
from glintpy.errors import CheckpointCorrupt, CheckpointMismatch, GlintError, ShapeError
from glintpy.protocol import dtypes
from glintpy.protocol.spec import ModelSpec
from glintpy.protocol.texts import item_dtype
from glintpy.storage.arrays import ARRAYS_MAX, VALUES, ArraySpec

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from glintpy.protocol.dtypes import DTypeAny

FORMAT = "glintpy-checkpoint"
FORMAT_VERSION = 1
MANIFEST = "manifest.json"
MANIFEST_BYTES_MAX = 64 * config.MIB
"""Three times what a model with the most partitions needs; a longer file is not a manifest."""

ROWS = "rows"
INT64 = np.dtype("<i8")
OWN_FILE = re.compile(r"[a-z][a-z0-9_]*-[0-9]{5,}-[0-9a-f]{16}\.npy|manifest-[0-9a-f]{16}\.tmp")
"""What a save leaves in its directory beside the manifest."""

_SAVE_ID = re.compile(r"[0-9a-f]{16}")
_SLOT = re.compile(r"[a-z][a-z0-9_]{0,63}")


@dataclass(frozen=True, slots=True)
class PartEntry:
    """One partition's part of one array, as the manifest names it.

    Attributes:
        slot: ``"values"``, or the name of what the updater keeps beside them.
        partition: in [0, num_partitions).
        file: the name in the checkpoint's directory.
        num_rows: local rows in it.
        bytes: the file's size.
        crc32: of the whole file.
        first: the global row of local row 0; None where ``rows_file`` says it.
        step: from one local row's global row to the next's; None where ``rows_file`` says it.
        rows_file: a file with each local row's global row, (num_rows,) int64, or of a table its key, of the key dtype;
            None where ``first`` and ``step`` say it.
        rows_bytes: that file's size.
        rows_crc32: of that whole file.
    """

    slot: str
    partition: int
    file: str
    num_rows: int
    bytes: int
    crc32: int
    first: int | None
    step: int | None
    rows_file: str | None
    rows_bytes: int | None
    rows_crc32: int | None


@dataclass(frozen=True, slots=True)
class Manifest:
    """A manifest whose every field was checked.

    Attributes:
        save_id: 16 hex digits, in the names of all its files.
        spec: the model's.
        arrays: the values, and the slots.
        num_partitions: parts of each array.
        created: when, ISO 8601, UTC.
        files: one entry for each array and partition.
    """

    save_id: str
    spec: ModelSpec
    arrays: tuple[ArraySpec, ...]
    num_partitions: int
    created: str
    files: tuple[PartEntry, ...]


def file_name(slot: str, partition: int, save_id: str) -> str:
    """Return the one name that a part file can have."""
    return f"{slot}-{partition:05d}-{save_id}.npy"


def file_save_id(name: str) -> str:
    """Return the id of the save that left a file, whose name is an ``OWN_FILE``."""
    return name.rpartition(".")[0].rpartition("-")[2]


def npy_header(dtype: DTypeAny, shape: tuple[int, ...]) -> bytes:
    """Return what stands before the data in a ``.npy`` file."""
    header = io.BytesIO()
    description = {"descr": dtype.str, "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(header, description)
    return header.getvalue()


def encode_manifest(content: dict[str, Any]) -> bytes:
    """Return the file's bytes: the content, and the CRC32 of its canonical form beside it.

    The file is indented, since people read it; the checksum is of the compact form with sorted keys, which
    any JSON library can make from what it read. A ``crc32`` in the content is replaced.
    """
    content = {key: value for key, value in content.items() if key != "crc32"}
    canonical = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    return json.dumps({**content, "crc32": zlib.crc32(canonical)}, sort_keys=True, indent=1).encode() + b"\n"


def manifest_content(
    save_id: str, spec: ModelSpec, arrays: Sequence[ArraySpec], entries: list[PartEntry]
) -> dict[str, Any]:
    """Return what the manifest of a save of today says.

    Args:
        save_id: 16 hex digits.
        spec: the model's.
        arrays: the values, and the slots.
        entries: one for each array and partition.
    """
    return {
        "format": FORMAT,
        "format_version": FORMAT_VERSION,
        "glintpy": _version(),
        "save_id": save_id,
        "created": datetime.now(UTC).isoformat(timespec="seconds"),
        "spec": spec.to_content(),
        "slots": [
            {"name": array.name, "dtype": array.dtype.name, "per_cell": array.row_shape == spec.row_shape}
            for array in arrays[1:]
        ],
        "num_partitions": len(entries) // len(arrays),
        "files": [asdict(entry) for entry in entries],
    }


def check_affine_rows(entries: list[PartEntry], num_rows: int) -> None:
    """See that parts with ``first`` and ``step`` hold every global row once, by arithmetic alone.

    Only one step for all is accepted: range has 1, cyclic the number of partitions. Then parts meet only in
    the same residue, and neighbours there are all that must be compared.

    Raises:
        ShapeError: naming the partition that reaches outside or meets another, or the sum that is wrong.
    """
    spans = []
    steps = {entry.step for entry in entries if entry.num_rows > 1}
    if len(steps) > 1:
        raise ShapeError(f"parts have different steps: {sorted(steps, key=str)[:10]}")
    step = steps.pop() if steps else 1
    for entry in entries:
        if entry.first is None or entry.step is None or step is None:
            raise ShapeError(f"partition {entry.partition} says its rows by a file and others don't")
        if entry.num_rows:
            last = entry.first + (entry.num_rows - 1) * step
            if entry.first < 0 or entry.step < 1 or last >= num_rows:
                raise ShapeError(
                    f"partition {entry.partition} has rows {entry.first} to {last} by {entry.step}; "
                    f"the model has {num_rows}"
                )
            spans.append((entry.first % step, entry.first, last, entry.partition))
    spans.sort()
    for (residue, _, last, one), (next_residue, first, _, other) in itertools.pairwise(spans):
        if residue == next_residue and first <= last:
            raise ShapeError(f"partitions {one} and {other} both have row {first}")
    check_row_count(entries, num_rows)


def check_row_count(entries: list[PartEntry], num_rows: int) -> None:
    """See that the parts have as many rows as the model.

    Raises:
        ShapeError: with both numbers.
    """
    found = sum(entry.num_rows for entry in entries)
    if found != num_rows:
        raise ShapeError(f"the parts have {found} rows; the model has {num_rows}")


class RowCover:
    """Which global rows were seen, for partitioners whose rows are no arithmetic progression."""

    def __init__(self, num_rows: int) -> None:
        self._seen = np.zeros(num_rows, dtype=np.bool_)

    def add(self, rows: NDArray[np.int64]) -> None:
        """Note that a part has these rows.

        Args:
            rows: (n,) int64 global rows.

        Raises:
            ShapeError: a row outside the model, or one that was seen before.
        """
        if rows.size == 0:
            return
        if int(rows.min()) < 0 or int(rows.max()) >= self._seen.size:
            raise ShapeError(f"global rows {rows.min()} to {rows.max()} of {self._seen.size}")
        repeated = self._seen[rows]
        self._seen[rows] = True
        if repeated.any() or np.unique(rows).size != rows.size:
            raise ShapeError("a global row is in two places")


class KeyCover:
    """Which keys of a table were seen."""

    def __init__(self) -> None:
        self._seen: list[NDArray[Any]] = []

    def add(self, keys: NDArray[Any]) -> None:
        """Note that a part has these keys."""
        self._seen.append(keys)

    def check(self) -> None:
        """See that no key was seen twice.

        Raises:
            ShapeError: one was.
        """
        if not self._seen:
            return
        seen = np.sort(np.concatenate(self._seen))
        repeated = np.flatnonzero(seen[1:] == seen[:-1])
        if repeated.size:
            raise ShapeError(f"key {seen[repeated[0]]} is in two places")


def rows_dtype(spec: ModelSpec) -> DTypeAny:
    """Return the dtype of the files that say which rows, or keys, a part has."""
    if spec.has_texts:
        return item_dtype(spec.keys)
    return dtypes.BY_NAME[spec.keys] if spec.keys else INT64


def decode_manifest(data: bytes) -> Manifest:
    """Return what a manifest says, every field checked.

    The bytes must be exactly those that ``encode_manifest`` makes of their content: so a changed blank is
    noticed as well, and no second reading of the same bytes exists.

    Raises:
        CheckpointMismatch: another format, a newer version, or a model that this version can't have.
        CheckpointCorrupt: anything changed since it was written.
    """
    try:
        content = json.loads(data.decode("ascii"))
    except (ValueError, RecursionError) as error:
        raise CheckpointCorrupt(f"{MANIFEST} is not JSON: {error}") from error
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise CheckpointMismatch(f"{MANIFEST} is not a glintpy checkpoint's: its format is not {FORMAT!r}")
    version = content.get("format_version")
    if type(version) is not int or version != FORMAT_VERSION:
        raise CheckpointMismatch(
            f"{MANIFEST} has format_version {version!r:.50}, by glintpy {content.get('glintpy')!r:.50}; "
            f"this glintpy reads {FORMAT_VERSION}: use a newer one"
        )
    expected = encode_manifest(content)
    if data != expected:
        found = content.get("crc32")
        wanted = json.loads(expected)["crc32"]
        raise CheckpointCorrupt(
            f"{MANIFEST}: expected crc32 {wanted} and {len(expected)} bytes for its content, "
            f"found {found!r:.50} and {len(data)}"
        )
    if set(content) != _MANIFEST_FIELDS:
        raise CheckpointMismatch(
            f"{MANIFEST} has other fields than version {FORMAT_VERSION}'s: {list(content)}"
        )
    return _checked(content)


def _checked(content: dict[str, Any]) -> Manifest:
    for name in ("glintpy", "created"):
        if type(content[name]) is not str:
            raise CheckpointCorrupt(f"{MANIFEST}: {name} is a text, not {content[name]!r:.50}")
    save_id = content["save_id"]
    if type(save_id) is not str or not _SAVE_ID.fullmatch(save_id):
        raise CheckpointCorrupt(f"{MANIFEST}: save_id is 16 hex digits, not {save_id!r:.50}")
    try:
        spec = ModelSpec.from_content(content["spec"])
    except GlintError as error:
        raise CheckpointMismatch(f"{MANIFEST} is of a model that this glintpy can't have: {error}") from error
    num_partitions = _natural(content["num_partitions"], "num_partitions")
    if not 1 <= num_partitions <= config.PARTITIONS_MAX or type(content["files"]) is not list:
        raise CheckpointCorrupt(
            f"{MANIFEST} lists the files of 1 to {config.PARTITIONS_MAX} partitions, not {num_partitions}"
        )
    arrays = (ArraySpec(VALUES, spec.numpy_dtype, spec.row_shape), *_checked_slots(content["slots"], spec))
    by_name = {array.name: array for array in arrays}
    files = [_checked_entry(entry, save_id=save_id, arrays=by_name) for entry in content["files"]]
    for name in by_name:
        parts = [entry for entry in files if entry.slot == name]
        if sorted(entry.partition for entry in parts) != list(range(num_partitions)):
            raise CheckpointCorrupt(
                f"{MANIFEST}: {len(parts)} files of {name} are not one for each of {num_partitions} partitions"
            )
        try:
            check_rows(parts, spec)
        except ShapeError as error:
            raise CheckpointCorrupt(f"{MANIFEST}: {error}") from error
    if len({(entry.partition, entry.num_rows, *_rows_of(entry)) for entry in files}) > num_partitions:
        raise CheckpointCorrupt(f"{MANIFEST}: a partition has other rows in one file than in another")
    return Manifest(save_id, spec, arrays, num_partitions, content["created"], tuple(files))


def _rows_of(entry: PartEntry) -> tuple[Any, ...]:
    """Return all that an entry says of which rows it has."""
    return entry.first, entry.step, entry.rows_file, entry.rows_bytes, entry.rows_crc32


def check_rows(entries: list[PartEntry], spec: ModelSpec) -> None:
    """See that the parts of one array can be the model's rows.

    Raises:
        ShapeError: with what is wrong.
    """
    have_files = all(entry.rows_file is not None for entry in entries)
    if spec.keys:
        if not have_files:
            raise ShapeError("a part of a table has no file of its keys")
    elif have_files:
        check_row_count(entries, spec.num_rows)
    else:
        check_affine_rows(entries, spec.num_rows)


def _checked_slots(content: Any, spec: ModelSpec) -> list[ArraySpec]:
    if type(content) is not list or len(content) >= ARRAYS_MAX:
        raise CheckpointCorrupt(
            f"{MANIFEST}: slots are a list of fewer than {ARRAYS_MAX}, not {content!r:.80}"
        )
    slots = []
    for entry in content:
        if not isinstance(entry, dict) or set(entry) != {"name", "dtype", "per_cell"}:
            raise CheckpointCorrupt(f"{MANIFEST}: a slot has name, dtype and per_cell, not {entry!r:.80}")
        name = entry["name"]
        if type(name) is not str or not _SLOT.fullmatch(name) or name in {ROWS, VALUES}:
            raise CheckpointCorrupt(f"{MANIFEST}: {name!r:.80} can't be a slot's name")
        if entry["dtype"] not in dtypes.NAMES or type(entry["per_cell"]) is not bool:
            raise CheckpointCorrupt(f"{MANIFEST}: {entry!r:.80} is no slot")
        slots.append(
            ArraySpec(name, dtypes.BY_NAME[entry["dtype"]], spec.row_shape if entry["per_cell"] else ())
        )
    if len({slot.name for slot in slots}) < len(slots):
        raise CheckpointCorrupt(f"{MANIFEST}: two slots have one name")
    return slots


def _checked_entry(content: Any, *, save_id: str, arrays: dict[str, ArraySpec]) -> PartEntry:
    if not isinstance(content, dict) or set(content) != _ENTRY_FIELDS:
        raise CheckpointCorrupt(
            f"{MANIFEST}: a file has the fields {sorted(_ENTRY_FIELDS)}, not {content!r:.200}"
        )
    slot = content["slot"]
    if type(slot) is not str or slot not in arrays:
        raise CheckpointCorrupt(
            f"{MANIFEST}: there is a file of {slot!r:.80}, which is none of {list(arrays)}"
        )
    partition = _natural(content["partition"], "partition")
    # The name follows from the rest, so no manifest can point outside its directory.
    _check_name(content["file"], file_name(slot, partition, save_id))
    num_rows = _natural(content["num_rows"], "num_rows")
    _natural(content["bytes"], "bytes", at_least=num_rows * arrays[slot].row_bytes)
    _natural(content["crc32"], "crc32")
    if content["rows_file"] is not None:
        _check_name(content["rows_file"], file_name(ROWS, partition, save_id))
        _natural(content["rows_bytes"], "rows_bytes", at_least=num_rows * INT64.itemsize)  # no key is shorter
        _natural(content["rows_crc32"], "rows_crc32")
        absent = ("first", "step")
    else:
        _natural(content["first"], "first")
        _natural(content["step"], "step", at_least=1)
        absent = ("rows_bytes", "rows_crc32")
    if any(content[name] is not None for name in absent):
        raise CheckpointCorrupt(f"{MANIFEST}: partition {partition} says its rows both ways")
    return PartEntry(**content)


def _check_name(found: Any, expected: str) -> None:
    if found != expected:
        raise CheckpointCorrupt(f"{MANIFEST}: expected the file {expected}, found {found!r:.200}")


def _natural(value: Any, what: str, *, at_least: int = 0) -> int:
    if type(value) is not int or not at_least <= value < 2**63:
        raise CheckpointCorrupt(
            f"{MANIFEST}: {what} is an integer from {at_least} to 2**63, not {value!r:.50}"
        )
    return value


def _version() -> str:
    from importlib import metadata  # noqa: PLC0415 - its import would cost every program that never saves

    try:
        return metadata.version("glintpy")
    except metadata.PackageNotFoundError:
        return "unknown"


_MANIFEST_FIELDS = frozenset(
    {
        "crc32",
        "created",
        "files",
        "format",
        "format_version",
        "glintpy",
        "num_partitions",
        "save_id",
        "slots",
        "spec",
    }
)
_ENTRY_FIELDS = frozenset(entry.name for entry in fields(PartEntry))
