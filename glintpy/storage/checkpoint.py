"""How a saved model lies on disk, and the writer of one; knows no network, no thread and no client.

A checkpoint is a directory at any fsspec URL: ``manifest.json`` and one plain ``.npy`` file for each
partition of each array, which numpy alone can read. The names of part files carry the save's id, so a save never
touches a file of the checkpoint that it replaces. The manifest, replaced atomically, is the one commit:
whatever happens before leaves the old checkpoint loadable, and files go only after it.
"""

from __future__ import annotations

import contextlib
import json
import logging
import secrets
import zlib
from typing import TYPE_CHECKING, Any, Self

from glintpy import config, failpoints
from glintpy.errors import (
    CheckpointCorrupt,
    CheckpointError,
    CheckpointMismatch,
    ShapeError,
)
from glintpy.storage.arrays import VALUES, ArraySpec
from glintpy.storage.checkpoint_format import (
    FORMAT,
    MANIFEST,
    MANIFEST_BYTES_MAX,
    ROWS,
    PartEntry,
    RowCover,
    check_rows,
    encode_manifest,
    file_name,
    manifest_content,
    npy_header,
    rows_dtype,
)
from glintpy.storage.checkpoint_marks import mark_content, mark_name, saved_last, under_way, unneeded
from glintpy.storage.checkpoint_part import PartWriter
from glintpy.storage.directory import Directory

if TYPE_CHECKING:
    import os
    from collections.abc import Sequence
    from types import TracebackType

    from numpy.typing import NDArray

    from glintpy.protocol.spec import ModelSpec

_logger = logging.getLogger("glintpy.storage")


class CheckpointWriter:
    """Writes one save of one model; a context manager that gives up what was not committed.

    Of several saves to a URL at the same time the one that commits last is there at the end. One thread at a time;
    several parts may be open at once.

    Attributes:
        spec: the model's.
        arrays: the values, and the slots.
        save_id: new and random; it stands in the names of all part files.
        directory: where the files go.
    """

    def __init__(
        self,
        url: str | os.PathLike[str],
        *,
        spec: ModelSpec,
        num_partitions: int,
        overwrite: bool,
        slots: Sequence[ArraySpec] = (),
    ) -> None:
        """Look whether a checkpoint may be written here, before anything is fetched; make the directory.

        Args:
            url: a directory, at any fsspec URL.
            spec: the model's.
            num_partitions: parts that will be written of each array.
            slots: the arrays beside the values.
            overwrite: whether a checkpoint that is there is replaced.

        Raises:
            CheckpointMismatch: the manifest.json there belongs to something else.
            CheckpointError: a checkpoint is there and ``overwrite`` is False, or no file can be written.
        """
        if not 1 <= num_partitions <= config.PARTITIONS_MAX:
            raise ShapeError(f"a model has 1 to {config.PARTITIONS_MAX} partitions, not {num_partitions}")
        self.spec = spec
        self.arrays = (ArraySpec(VALUES, spec.numpy_dtype, spec.row_shape), *slots)
        self.save_id = secrets.token_hex(8)
        self.directory = Directory(url)
        self._num_partitions = num_partitions
        self._overwrite = overwrite
        self._temporary = f"manifest-{self.save_id}.tmp"
        self._parts: dict[tuple[int, int], PartWriter] = {}  # by array and partition
        self._entries: dict[tuple[int, int], PartEntry] = {}
        self._written: list[str] = []
        self._cover: RowCover | None = None
        self._rows_files: dict[int, tuple[str, int, int]] = {}
        self._manifest_sent = False
        self._ended = False
        self._check_place()
        self._made_directory = self.directory.make()
        self._mark = mark_name(self.save_id)
        under_way.add(self.save_id)
        try:
            self.directory.write(self._mark, mark_content())
        except BaseException:
            self.abort()
            raise

    def part(
        self,
        partition: int,
        *,
        num_rows: int,
        array: int = 0,
        first: int | None = None,
        step: int | None = None,
        global_rows: NDArray[Any] | None = None,
    ) -> PartWriter:
        """Begin a partition's file of one array.

        Args:
            partition: in [0, num_partitions), each once.
            num_rows: rows that will be written.
            array: which; 0 the values.
            first: the global row of local row 0, for range and cyclic.
            step: from one local row's global row to the next's, for range and cyclic.
            global_rows: (num_rows,) int64, each local row's global row, in place of ``first`` and ``step``; of a table
                its keys, of their dtype.

        Raises:
            ShapeError: rows that can't be this model's.
            CheckpointError: the file can't be created, or the partition was begun before.
        """
        key = (array, partition)
        if self._ended or key in self._parts or not 0 <= partition < self._num_partitions:
            raise CheckpointError(
                f"partition {partition} of {self._num_partitions} can't be begun: "
                + ("the save has ended" if self._ended else "it is outside, or was begun before")
            )
        if (global_rows is None) != (first is not None and step is not None):
            raise ShapeError(f"partition {partition} needs first and step, or global_rows")
        rows: tuple[str, int, int] | tuple[None, None, None] = (None, None, None)
        if global_rows is not None:
            first = step = None
            rows = self._write_rows(partition, num_rows, global_rows)
        kind = self.arrays[array]
        name = file_name(kind.name, partition, self.save_id)
        self._written.append(name)
        entry = PartEntry(kind.name, partition, name, num_rows, 0, 0, first, step, *rows)
        part = self._parts[key] = PartWriter(self, entry, kind)
        return part

    def enter(self, entry: PartEntry) -> None:
        """Take a finished part into the manifest; called by its ``PartWriter``."""
        names = [array.name for array in self.arrays]
        self._entries[names.index(entry.slot), entry.partition] = entry

    def withdraw(self, partition: int) -> None:
        """Take a part back, begun or finished: what is in its files is not to be saved. It may be begun anew.

        Args:
            partition: in [0, num_partitions); one that was not begun is no error.
        """
        for array in range(len(self.arrays)):
            part = self._parts.pop((array, partition), None)
            if part is not None:
                part.discard()
            self._entries.pop((array, partition), None)
        if self.spec.keys:
            self._rows_files.pop(partition, None)  # a table may have other keys by then

    def commit(self) -> None:
        """Replace the manifest, then delete the files that it doesn't name.

        Raises:
            ShapeError: parts are missing or don't make up the model.
            CheckpointError: the manifest can't be written. The checkpoint that was there is still the one
                that loads, or, where only the last sync failed, the new one is.
        """
        if self._ended or self._manifest_sent:
            raise CheckpointError(f"this save to {self.directory.url} has ended already")
        entries = [self._entries[key] for key in sorted(self._entries)]
        self._check_whole(entries)
        self._check_place()
        self._written.append(self._temporary)
        data = encode_manifest(manifest_content(self.save_id, self.spec, self.arrays, entries))
        failpoints.hit("checkpoint.before_manifest")
        self.directory.stage(self._temporary, data)
        self._manifest_sent = True
        failpoints.hit("checkpoint.manifest_staged")
        self.directory.publish(self._temporary, MANIFEST, data)
        self._ended = True
        failpoints.hit("checkpoint.after_manifest")
        self._tidy_up(entries)
        under_way.discard(self.save_id)

    def abort(self) -> None:
        """Delete what this save wrote; after a commit nothing, so it may always be called."""
        under_way.discard(self.save_id)
        if self._ended:
            return
        self._ended = True
        for part in self._parts.values():
            part.discard()
        if self._manifest_sent and self._may_be_committed():
            _logger.warning(
                "it is unknown whether the save to %s took place: its files stay", self.directory.url
            )
            self._delete([self._mark])
            return
        self._delete([*self._written, self._mark])
        if self._made_directory:
            self.directory.remove_itself()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.abort()

    def _check_place(self) -> None:
        if not self.directory.exists(MANIFEST):
            return
        if not self._overwrite:
            raise CheckpointError(
                f"there is a checkpoint at {self.directory.url} already; pass overwrite=True to replace it"
            )
        # overwrite=True is about checkpoints: many things have a manifest.json, and they are not ours to
        # replace. One that can't be read at all may be a damaged checkpoint, which a save does repair.
        with contextlib.suppress(ValueError, RecursionError):
            content = json.loads(self.directory.read(MANIFEST, MANIFEST_BYTES_MAX))
            if not isinstance(content, dict) or content.get("format") != FORMAT:
                raise CheckpointMismatch(
                    f"the {MANIFEST} at {self.directory.url} is not a glintpy checkpoint's: "
                    "save to another directory, or delete it first"
                )

    def _write_rows(self, partition: int, num_rows: int, global_rows: NDArray[Any]) -> tuple[str, int, int]:
        dtype = rows_dtype(self.spec)
        if global_rows.shape != (num_rows,) or global_rows.dtype.newbyteorder("<") != dtype:
            raise ShapeError(
                f"global_rows is ({num_rows},) {dtype.name}, not {global_rows.shape} {global_rows.dtype.name}"
            )
        name = file_name(ROWS, partition, self.save_id)
        data = npy_header(dtype, (num_rows,)) + global_rows.astype(dtype, copy=False).tobytes()
        found = (name, len(data), zlib.crc32(data))
        if partition in self._rows_files:
            # Of another array, or begun anew after it was withdrawn: which rows it has is as it was.
            if found != self._rows_files[partition]:
                raise ShapeError(f"partition {partition} had other global_rows when it was begun before")
            return found
        if not self.spec.keys:
            if self._cover is None:
                self._cover = RowCover(self.spec.num_rows)
            self._cover.add(global_rows)
        self._written.append(name)
        self.directory.write(name, data)
        self._rows_files[partition] = found
        return found

    def _check_whole(self, entries: list[PartEntry]) -> None:
        expected = {
            (array, part) for array in range(len(self.arrays)) for part in range(self._num_partitions)
        }
        missing = sorted(expected - set(self._entries))
        if missing:
            named = [f"{self.arrays[array].name} {partition}" for array, partition in missing[:10]]
            raise ShapeError(f"{len(missing)} of {len(expected)} parts were not finished: {', '.join(named)}")
        if self._cover is not None and any(entry.rows_file is None for entry in entries):
            raise ShapeError("some parts have global_rows and some have none")
        for array in self.arrays:
            check_rows([entry for entry in entries if entry.slot == array.name], self.spec)
        self._check_present(entries)

    def _check_present(self, entries: list[PartEntry]) -> None:
        sizes = self.directory.sizes()
        expected = {entry.file: entry.bytes for entry in entries}
        expected.update({entry.rows_file: entry.rows_bytes or 0 for entry in entries if entry.rows_file})
        for name, size in expected.items():
            # Some stores don't tell sizes.
            if name not in sizes or sizes[name] not in {size, None}:
                found = f"{sizes[name]} bytes" if name in sizes else "nothing"
                raise CheckpointCorrupt(
                    f"{name} at {self.directory.url} was written with {size} bytes and has {found}: "
                    "did another save run at the same URL?"
                )

    def _may_be_committed(self) -> bool:
        if not self.directory.is_local:
            # A put that failed for us may still arrive; deleting its files would then lose both checkpoints.
            return True
        if not self.directory.exists(MANIFEST):
            return False
        return saved_last(self.directory, MANIFEST, MANIFEST_BYTES_MAX) in {self.save_id, None}

    def _tidy_up(self, entries: list[PartEntry]) -> None:
        """Delete what nobody needs any more, of older saves or, if a newer one has replaced this, of this one."""
        named = {entry.file for entry in entries} | {entry.rows_file or "" for entry in entries}
        try:
            # Listed first: a save that commits behind this moment has its mark among the names, or no file.
            names = list(self.directory.sizes())
            last = saved_last(self.directory, MANIFEST, MANIFEST_BYTES_MAX)
            if last == self.save_id:
                unwanted = unneeded(self.directory, names, named, self.save_id)
            else:
                # Where it can't be told whose is there, nothing goes: the next save sees to it.
                unwanted = [] if last is None else self._written
            self._delete([*unwanted, self._mark])
        except CheckpointError as error:
            _logger.warning("the save is complete; files of older ones stay: %s", error)

    def _delete(self, names: list[str]) -> None:
        for name in names:
            try:
                self.directory.remove(name)
            except CheckpointError as error:
                # They harm nobody, and the next save to this URL deletes them.
                _logger.warning("%s stays: %s", name, error)
