"""The undo record of one server: what the push that is being applied is about to change; knows no model and no thread.

One actor applies one push at a time, so one record is enough for all models of a server. It lies in a mapped
file, so a process that is killed in the middle of a push leaves it behind, *armed*, and whoever opens it puts
the old values back. The flag is stored last on the way in and first on the way out, in one store each::

    0   u64  1 armed                             64  u64  bytes of the old values
    8   u64  the model                           72  u8   pairs of rows and columns
    16  16 bytes  the session                    73  u8   kind of the rows, of the columns (74); 0: all columns
    32  u64  the push's number                   75  u8   the first of the model's arrays, and how many (76)
    40  u64  bytes of the rows, of the columns (48)
    56  u64  0 all old values are there; else one more than how many of them, in order, are
                                                 128      rows, columns, the old values of each array, each
                                                          of them on a multiple of 64
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any

import numpy as np

from glintpy import config
from glintpy.errors import ConfigError, NotEnoughMemory
from glintpy.protocol.selection import Selection
from glintpy.records import record
from glintpy.storage.mapped import MappedFile

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from numpy.typing import NDArray

    from glintpy.protocol.dtypes import DTypeAny

_RECORD = struct.Struct("<Q16sQQQ8xQBBBBB")
_RECORD_OFFSET = 8
_COUNTER = struct.Struct("<Q")
_SAVED_OFFSET = 56  # which _RECORD fills with zeros
_BODY_OFFSET = 128
_ALIGNMENT = 64

Kind = tuple[tuple[int, ...], "DTypeAny"]
"""Shape and dtype of an array."""

_BYTES_MAX = 16 * config.FRAME_BYTES_MAX
"""A push's own frames, and old values and slots of what the largest one changes."""

_U32, _I64 = np.dtype("<u4"), np.dtype("<i8")
_KINDS: dict[tuple[str, int], int] = {("u", 1): 1, ("i", 1): 2, ("i", 2): 3}
"""Index arrays by kind of dtype and dimensions: uint32, int64, int64 slices; 0 is none."""


@record
class Pending:
    """A push that was under way when its process was killed.

    Attributes:
        first_array: which of the model's arrays it changes.
        num_arrays: how many, from that one on.
        old: bytes of each as they were, in the selection's order.
        is_begun: the push wrote down old values as it went: ``selection`` is what it had come to, the last first, and
            ``old`` begins with their values, the first first.
    """

    model_id: int
    session_id: bytes
    sequence: int
    selection: Selection
    first_array: int
    num_arrays: int
    old: memoryview
    is_begun: bool = False

    def values(self, kinds: Sequence[Kind]) -> list[NDArray[Any]]:
        """Return the old values of each array.

        Args:
            kinds: shape and dtype of each.

        Raises:
            ValueError: they are not of that size.
        """
        places, end = _places(kinds, 0)
        if self.is_begun and end <= len(self.old) and self.num_arrays == len(kinds) == 1:
            return [_laid_over(self.old, kinds[0], 0)[::-1]]
        if end != len(self.old) or len(kinds) != self.num_arrays:
            raise ValueError(
                f"a record of {len(self.old)} bytes for {self.num_arrays} arrays, not {end} bytes"
            )
        return [_laid_over(self.old, kind, place) for kind, place in zip(kinds, places, strict=True)]


class _UndoFile(MappedFile):
    MAGIC = b"glintund"


class Undo:
    """The record.

    Attributes:
        is_armed: whether a push is under way, or was when its process was killed.
    """

    def __init__(self, file: MappedFile, path: Path) -> None:
        """Bind a file; use ``open``."""
        self._path = path
        self._push: tuple[bytes, int] = (bytes(16), 0)
        self._bind(file)

    @classmethod
    def open(cls, path: Path) -> Undo:
        """Open the record, or make an empty one.

        Only for who holds the lock on the server's journal: a record may be replaced by a larger one.

        Raises:
            ConfigError: damaged, or in use.
            NotEnoughMemory: no room for a new one.
        """
        if not path.exists():
            return cls(_UndoFile.create(path, {}, _size_for(config.PART_BYTES)), path)
        file = _UndoFile.open(path)
        if len(file.body) < _BODY_OFFSET:
            file.close(clean=False)
            raise ConfigError(f"{path} has {len(file.body)} bytes, less than one record's head")
        if not file.has_survived:
            # Of another boot, as the values beside it: they count as lost, and nothing is to be put back.
            file.body[:8] = bytes(8)
        file.mark_open()
        return cls(file, path)

    def begin(self, session_id: bytes, sequence: int) -> None:
        """Note whose push the next record is for."""
        self._push = (session_id, sequence)

    def room(
        self, model_id: int, selection: Selection, kinds: Sequence[Kind], *, first_array: int = 0
    ) -> list[NDArray[Any]]:
        """Write down what a push is about to change, and return the places for the old values.

        Args:
            model_id: the model's.
            selection: checked.
            kinds: of what it selects of each array that it changes: shape and dtype.
            first_array: which of the model's arrays the first one is.

        Returns:
            An array of each kind, to be filled before ``arm``, or after ``saved`` as the push goes.

        Raises:
            NotEnoughMemory: the record has to be larger, and there is no room for it.
        """
        rows, cols = selection.rows, selection.cols
        cols_bytes = 0 if cols is None else cols.nbytes
        cols_at = _aligned(_BODY_OFFSET + rows.nbytes)
        values_at = _aligned(cols_at + cols_bytes)
        places, end = _places(kinds, values_at)
        num_bytes = end - values_at
        if end > self._num_bytes:
            self._grow(end)
        body = self._body
        body[_BODY_OFFSET : _BODY_OFFSET + rows.nbytes] = rows.reshape(-1).view(np.uint8).data
        if cols is not None:
            body[cols_at : cols_at + cols_bytes] = cols.reshape(-1).view(np.uint8).data
        axes = (
            _KINDS[rows.dtype.kind, rows.ndim],
            0 if cols is None else _KINDS[cols.dtype.kind, cols.ndim],
        )
        session_id, sequence = self._push
        sizes = (rows.nbytes, cols_bytes, num_bytes)
        which = (first_array, len(kinds))
        _RECORD.pack_into(
            body, _RECORD_OFFSET, model_id, session_id, sequence, *sizes, selection.paired, *axes, *which
        )
        return [_laid_over(body, kind, place) for kind, place in zip(kinds, places, strict=True)]

    def saved(self) -> NDArray[np.uint64]:
        """Begin to count old values: for a push of single cells to one array that writes them down as it goes.

        Returns:
            (1,) for ``loops.add_keys_saving``. ``arm`` comes next.
        """
        counter = np.frombuffer(self._body, np.uint64, 1, _SAVED_OFFSET)
        counter[0] = 1
        return counter

    def arm(self) -> None:
        """From here on whoever opens the record puts the old values back."""
        self._flag[0] = 1
        self.is_armed = True

    def clear(self) -> None:
        """Nothing is under way any more."""
        self._flag[0] = 0
        self.is_armed = False

    def pending(self) -> Pending | None:
        """Return what is under way, or None.

        Raises:
            ConfigError: a record that can't be read.
        """
        if not self._flag[0]:
            return None
        fixed = _RECORD.unpack_from(self._body, _RECORD_OFFSET)
        model_id, session_id, sequence, rows_bytes, cols_bytes, num_bytes, paired, *kinds_and_arrays = fixed
        rows_kind, cols_kind, first_array, num_arrays = kinds_and_arrays
        cols_at = _aligned(_BODY_OFFSET + rows_bytes)
        values_at = _aligned(cols_at + cols_bytes)
        if values_at + num_bytes > self._num_bytes or rows_kind not in {1, 2, 3} or cols_kind > 3:
            raise ConfigError(f"{self._path} holds a record that it has no room for")
        rows = _indices(self._body[_BODY_OFFSET : _BODY_OFFSET + rows_bytes], rows_kind)
        cols = _indices(self._body[cols_at : cols_at + cols_bytes], cols_kind) if cols_kind else None
        old = self._body[values_at : values_at + num_bytes]
        (counter,) = _COUNTER.unpack_from(self._body, _SAVED_OFFSET)
        if counter:
            if rows.ndim > 1 or counter - 1 > len(rows):
                raise ConfigError(f"{self._path} holds {counter - 1} old values of {rows.shape} rows")
            rows = rows[: counter - 1][::-1]
            cols = None if cols is None else cols[: counter - 1][::-1]
        selection = Selection(rows, cols, bool(paired))
        return Pending(
            model_id, session_id, sequence, selection, first_array, num_arrays, old, is_begun=bool(counter)
        )

    def close(self, *, clean: bool) -> None:
        """Let go of the file; again does nothing.

        Raises:
            ConfigError: the file system fails.
        """
        self._flag.release()
        self._body = memoryview(b"")
        self._file.close(clean=clean)

    def _bind(self, file: MappedFile) -> None:
        self._file = file
        self._body = file.body
        self._num_bytes = len(file.body)
        self._flag: memoryview[int] = self._body[:8].cast("Q")
        self.is_armed = bool(self._flag[0])

    def _grow(self, num_bytes: int) -> None:
        """Replace the file by a larger one; no push is under way yet, so there is nothing to carry over."""
        if num_bytes > _BYTES_MAX:
            raise NotEnoughMemory(f"a push that changes {num_bytes} bytes at once; push in smaller parts")
        # The larger one first: where there is no room for it, the next push still has the one that there is.
        old, larger = self._file, _UndoFile.create(self._path, {}, _size_for(num_bytes), replaces=True)
        self._flag.release()
        self._bind(larger)
        old.close(clean=False)


def _aligned(offset: int) -> int:
    return -(-offset // _ALIGNMENT) * _ALIGNMENT


def _places(kinds: Sequence[Kind], start: int) -> tuple[list[int], int]:
    """Return where arrays of some kinds lie, one behind the other from a multiple of 64 on, and where the last ends."""
    places, end = [], start
    for shape, dtype in kinds:
        place = _aligned(end)
        places.append(place)
        end = place + math.prod(shape) * dtype.itemsize
    return places, end


def _laid_over(memory: memoryview, kind: Kind, place: int) -> NDArray[Any]:
    shape, dtype = kind
    return np.frombuffer(memory, dtype, math.prod(shape), place).reshape(shape)


def _size_for(num_bytes: int) -> int:
    """Return the bytes of a record for so many of values, with room for its index lists."""
    return _BODY_OFFSET + 2 * num_bytes


def _indices(memory: memoryview, kind: int) -> NDArray[Any]:
    if kind == 1:
        return np.frombuffer(memory, _U32)
    flat = np.frombuffer(memory, _I64)
    return flat if kind == 2 else flat.reshape(-1, 3)
