"""The writer of one partition's file of a save; knows nothing of the other files.

What was written is entered into the save when the file is whole and on the disk, not before.
"""

from __future__ import annotations

import contextlib
import zlib
from dataclasses import asdict
from typing import IO, TYPE_CHECKING, Any, Self

import numpy as np

from glintpy import failpoints
from glintpy.errors import CheckpointError, DTypeError, ShapeError
from glintpy.storage.checkpoint_format import PartEntry, npy_header

if TYPE_CHECKING:
    from types import TracebackType

    from numpy.typing import NDArray

    from glintpy.storage.arrays import ArraySpec
    from glintpy.storage.checkpoint import CheckpointWriter


class PartWriter:
    """Appends rows to one partition's file; made by ``CheckpointWriter.part``.

    Leaving ``with`` closes it. One thread at a time.
    """

    def __init__(self, writer: CheckpointWriter, entry: PartEntry, array: ArraySpec) -> None:
        """Create the file and write its header.

        Args:
            writer: whose part it is.
            entry: what the manifest will say, its bytes and crc32 not yet known.
            array: of which it is a part.
        """
        self._writer = writer
        self._entry = entry
        self._dtype = array.dtype
        self._row_shape = array.row_shape
        self._num_rows = 0
        self._num_bytes = 0
        self._crc32 = 0
        self._whole = False
        failpoints.hit("checkpoint.before_file")
        self._file: IO[bytes] | None = writer.directory.create(entry.file)
        try:
            self._append(npy_header(self._dtype, (entry.num_rows, *self._row_shape)))
        except BaseException:
            self.discard()
            raise

    def write(self, rows: NDArray[Any]) -> None:
        """Append rows.

        Args:
            rows: (n, ...) of the array's dtype, the next local rows in order; not kept.

        Raises:
            ShapeError, DTypeError: rows that don't fit the model, or more than the part has.
            CheckpointError: they can't be written; the save can only be given up.
        """
        if rows.dtype.newbyteorder("<") != self._dtype:
            raise DTypeError(f"{self._entry.file} has dtype {self._dtype.name}, not {rows.dtype.name}")
        if rows.ndim == 0 or rows.shape[1:] != self._row_shape:
            raise ShapeError(f"{self._entry.file} has rows of shape {self._row_shape}, not {rows.shape}[1:]")
        if self._num_rows + len(rows) > self._entry.num_rows:
            raise ShapeError(
                f"{self._entry.file} has {self._entry.num_rows} rows, not {self._num_rows} + {len(rows)}"
            )
        self._append(np.ascontiguousarray(rows, dtype=self._dtype).reshape(-1).view(np.uint8).data)
        self._num_rows += len(rows)
        failpoints.hit("checkpoint.in_file")

    def close(self) -> None:
        """Put the file on the disk and enter it into the save; again is harmless.

        Raises:
            ShapeError: rows are missing.
            CheckpointError: it can't be written; the save can only be given up.
        """
        if self._file is None:
            return
        if not self._whole:
            raise CheckpointError(f"a write to {self._entry.file} failed before: give this save up")
        if self._num_rows != self._entry.num_rows:
            raise ShapeError(
                f"{self._entry.file} has {self._entry.num_rows} rows; {self._num_rows} were written"
            )
        self._whole = False
        self._writer.directory.finish(self._file, self._entry.file)
        self._file = None
        content = {**asdict(self._entry), "bytes": self._num_bytes, "crc32": self._crc32}
        self._writer.enter(PartEntry(**content))
        failpoints.hit("checkpoint.after_file")

    def discard(self) -> None:
        """Close the file without entering it."""
        file, self._file = self._file, None
        if file is not None:
            # It is about to be deleted: that its last bytes can't be written either is no news. Left open,
            # a file on an object store would upload itself when it is collected, after the deletion.
            with contextlib.suppress(Exception):
                file.close()

    def _append(self, data: bytes | memoryview) -> None:
        if self._file is None:
            raise CheckpointError(f"{self._entry.file} is closed")
        self._whole = False
        self._writer.directory.append(self._file, self._entry.file, data)
        self._whole = True
        self._crc32 = zlib.crc32(data, self._crc32)
        self._num_bytes += len(data)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is None:
            self.close()
        else:
            self.discard()
