"""The reader of a saved model; knows no network, no thread and no client.

Nothing is believed: the manifest's fields, each file's size, checksum and header, and that the parts' rows
are each of the model's rows once. No pickle is ever read.
"""

from __future__ import annotations

import math
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from glintpy import config
from glintpy.errors import CheckpointCorrupt, CheckpointMismatch, CheckpointNotFound, ShapeError
from glintpy.storage.arrays import VALUES
from glintpy.storage.checkpoint_format import (
    MANIFEST,
    MANIFEST_BYTES_MAX,
    KeyCover,
    PartEntry,
    RowCover,
    decode_manifest,
    npy_header,
    rows_dtype,
)
from glintpy.storage.directory import Directory

if TYPE_CHECKING:
    import os
    from collections.abc import Callable, Iterable, Iterator

    from numpy.typing import NDArray

    from glintpy.protocol.dtypes import DTypeAny
    from glintpy.storage.directory import ReadFile

    Rows = NDArray[np.int64] | range

_BLOCK_BYTES = 1 * config.MIB


@dataclass(frozen=True, slots=True)
class _Stored:
    """One ``.npy`` file: what the manifest says of it, and what it therefore is."""

    name: str
    num_bytes: int
    crc32: int
    dtype: DTypeAny
    shape: tuple[int, ...]

    @property
    def row_bytes(self) -> int:
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def header_bytes(self) -> int:
        return self.num_bytes - self.shape[0] * self.row_bytes


class CheckpointReader:
    """Reads one saved model.

    Attributes:
        spec: the model's, when it was saved.
        arrays: the values, and the slots that were saved with them.
        num_partitions: parts in which it was saved.
        num_bytes: of all part files together: what ``verify`` reads.
        created: when it was saved, ISO 8601, UTC.
    """

    def __init__(self, url: str | os.PathLike[str]) -> None:
        """Read and check the manifest.

        Args:
            url: the directory, at any fsspec URL.

        Raises:
            CheckpointNotFound: there is no manifest.
            CheckpointMismatch: of another format or a newer version.
            CheckpointCorrupt: the manifest is damaged.
            CheckpointError: it can't be read.
        """
        self._directory = Directory(url)
        self._url = self._directory.url
        try:
            data = self._directory.read(MANIFEST, MANIFEST_BYTES_MAX)
        except CheckpointNotFound as error:
            raise CheckpointNotFound(
                f"there is no checkpoint at {self._url}: it has no {MANIFEST}"
            ) from error
        try:
            self._manifest = decode_manifest(data)
        except (CheckpointCorrupt, CheckpointMismatch) as error:
            raise type(error)(f"{self._url}: {error}") from error
        self.spec = self._manifest.spec
        self.arrays = self._manifest.arrays
        self._by_name = {array.name: array for array in self.arrays}
        self.num_partitions = self._manifest.num_partitions
        self.created = self._manifest.created
        self.num_bytes = sum(stored.num_bytes for stored in self._stored_files())
        self._verified = False

    def verify(self, progress: Callable[[int, int], None] | None = None) -> None:
        """Read everything once and check it, so that a damaged checkpoint changes no model.

        Args:
            progress: called with the bytes read so far and ``num_bytes``, after each block.

        Raises:
            CheckpointCorrupt: naming the file, what was expected and what was found.
            CheckpointError: a file can't be read.
        """
        num_read = 0

        def count(num_bytes: int) -> None:
            nonlocal num_read
            num_read += num_bytes
            if progress is not None:
                progress(num_read, self.num_bytes)

        for stored in self._stored_files():
            self._verify_file(stored, count)
        self._verify_rows()
        self._verified = True

    def blocks(self, block_bytes: int, *, array: str = VALUES) -> Iterator[tuple[Rows, NDArray[np.generic]]]:
        """Read one array, part after part; verifies first where ``verify`` was not called.

        Args:
            block_bytes: of values in one block, at most; but one row at least.
            array: its name, one of ``arrays``.

        Returns:
            Pairs of global rows, a range or (n,) int64, or of a table its keys, and what the array has of them,
            (n, num_cols) or (n,), of the array's dtype; n is never 0, and a model without cells has no blocks. They
            can't be written to.

        Raises:
            CheckpointCorrupt: as ``verify``; also for a file that changed after it, at that part's end.
            CheckpointError: a file can't be read.
        """
        if not self._verified:
            self.verify()
        if self.spec.num_bytes == 0 and not self.spec.keys:
            return
        block_rows = max(1, block_bytes // self._by_name[array].row_bytes)
        for entry in self._manifest.files:
            if entry.num_rows and entry.slot == array:
                yield from self._part_blocks(entry, block_rows)

    def _part_blocks(self, entry: PartEntry, block_rows: int) -> Iterator[tuple[Rows, NDArray[np.generic]]]:
        values = self._stream(self._values_file(entry), block_rows)
        rows_file = self._rows_file(entry)
        all_rows: Iterable[Rows]
        if rows_file is not None:
            all_rows = self._stream(rows_file, block_rows)
        else:
            rows = range(0)
            if entry.first is not None and entry.step is not None:
                rows = range(entry.first, entry.first + entry.num_rows * entry.step, entry.step)
            all_rows = (rows[start : start + block_rows] for start in range(0, entry.num_rows, block_rows))
        yield from zip(all_rows, values, strict=True)

    def _stream(self, stored: _Stored, block_rows: int) -> Iterator[NDArray[Any]]:
        """Yield a verified file's rows; what changed since is noticed before the last block is given out."""
        num_rows, *row_shape = stored.shape
        with self._open(stored.name) as file:
            crc32 = zlib.crc32(file.read(stored.header_bytes))
            for start in range(0, num_rows, block_rows):
                count = min(block_rows, num_rows - start)
                data = file.read(count * stored.row_bytes)
                crc32 = zlib.crc32(data, crc32)
                is_last = start + count == num_rows
                if len(data) != count * stored.row_bytes or (is_last and crc32 != stored.crc32):
                    raise self._corrupt(
                        stored.name, "what was verified", "other bytes: did a save replace it meanwhile?"
                    )
                yield np.frombuffer(data, dtype=stored.dtype).reshape(count, *row_shape)

    def _verify_file(self, stored: _Stored, count: Callable[[int], None]) -> None:
        num_read, crc32, head = 0, 0, b""
        with self._open(stored.name) as file:
            # One byte more than there may be, so that a longer file is noticed and a huge one not read.
            while block := file.read(min(_BLOCK_BYTES, stored.num_bytes + 1 - num_read)):
                head = head or block
                crc32 = zlib.crc32(block, crc32)
                num_read += len(block)
                if num_read > stored.num_bytes:
                    raise self._corrupt(stored.name, f"{stored.num_bytes} bytes", "more")
                count(len(block))
        if num_read != stored.num_bytes:
            raise self._corrupt(stored.name, f"{stored.num_bytes} bytes", f"{num_read}")
        if crc32 != stored.crc32:
            raise self._corrupt(stored.name, f"crc32 {stored.crc32}", f"{crc32}")
        self._verify_header(stored, head)

    def _verify_header(self, stored: _Stored, head: bytes) -> None:
        """Compare the header with the one it must be, byte for byte but for the padding.

        numpy's own parser evaluates a literal that a stranger wrote; there is nothing here to find out.
        """
        expected = npy_header(stored.dtype, stored.shape)
        length = 10 + int.from_bytes(head[8:10], "little")
        header = head[:length]
        if header[:8] != expected[:8] or header[10:].rstrip() != expected[10:].rstrip():
            raise self._corrupt(stored.name, f"the header {expected!r}", f"{header[:200]!r}")
        if length != stored.header_bytes:
            data_bytes = stored.num_bytes - stored.header_bytes
            raise self._corrupt(stored.name, f"{data_bytes} bytes of data", f"{stored.num_bytes - length}")

    def _verify_rows(self) -> None:
        files = [
            stored
            for entry in self._manifest.files
            if entry.slot == VALUES and (stored := self._rows_file(entry)) is not None
        ]
        if not files:
            return  # The manifest's arithmetic has said it all.
        # As large as the files that were just read say it is, not as large as a manifest claims.
        cover = KeyCover() if self.spec.keys else RowCover(self.spec.num_rows)
        for stored in files:
            for rows in self._stream(stored, max(1, _BLOCK_BYTES // stored.row_bytes)):
                try:
                    cover.add(rows)
                except ShapeError as error:
                    raise self._corrupt(stored.name, "each row of the model once", str(error)) from error
        if isinstance(cover, KeyCover):
            try:
                cover.check()
            except ShapeError as error:
                raise self._corrupt(files[-1].name, "each key of the table once", str(error)) from error

    def _stored_files(self) -> Iterator[_Stored]:
        for entry in self._manifest.files:
            yield self._values_file(entry)
            # The rows of a partition lie in one file, which the parts of all arrays name.
            if entry.slot == VALUES and (rows_file := self._rows_file(entry)) is not None:
                yield rows_file

    def _values_file(self, entry: PartEntry) -> _Stored:
        array = self._by_name[entry.slot]
        return _Stored(entry.file, entry.bytes, entry.crc32, array.dtype, (entry.num_rows, *array.row_shape))

    def _rows_file(self, entry: PartEntry) -> _Stored | None:
        if entry.rows_file is None or entry.rows_bytes is None or entry.rows_crc32 is None:
            return None
        dtype = rows_dtype(self.spec)
        return _Stored(entry.rows_file, entry.rows_bytes, entry.rows_crc32, dtype, (entry.num_rows,))

    def _open(self, name: str) -> ReadFile:
        try:
            return self._directory.open(name)
        except CheckpointNotFound as error:
            raise self._corrupt(name, "a file", "none: was it deleted, or did a save replace it?") from error

    def _corrupt(self, name: str, expected: str, found: str) -> CheckpointCorrupt:
        return CheckpointCorrupt(f"{name} at {self._url}: expected {expected}, found {found}")
