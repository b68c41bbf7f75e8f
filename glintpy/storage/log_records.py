"""What a log says, record by record, as objects and as bytes; knows no file and no model.

Numbers and raw arrays, little-endian; what has no fixed form (what a model is) is a JSON text. A record's length and
checksum are the log's business: bytes that get here are whole.
"""

from __future__ import annotations

import json
import math
import struct
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from glintpy.errors import RemoteProtocolError
from glintpy.protocol import dtypes
from glintpy.protocol.rounds import STEP, Turn
from glintpy.protocol.selection import Selection
from glintpy.records import record
from glintpy.storage.log_keys import KeysRecord

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glintpy.protocol.messages import Push
    from glintpy.storage.files import Buffer

_PUSH = struct.Struct("<16sQQ7Bx2Q2QQ")
_OUTCOME = struct.Struct("<16sQB7x")
_OPENED = struct.Struct("<16s16s")
_ENDED = struct.Struct("<16s")
_ADVANCED = struct.Struct("<16sQ")
_NUMBER = struct.Struct("<Q")
_ROUND = struct.Struct("<QQQQ")
_LIVE = struct.Struct("<QQ")

_ALIGNMENT = 8
"""Arrays begin at multiples of it, counted from the record's own begin, which is one: compiled loops need that."""

_ASSIGN, _PAIRED, _HAS_COLS, _ROW_SLICES, _COL_SLICES = 1, 2, 4, 8, 16


@record
class PushRecord:
    """A push is about to be applied; an ``OutcomeRecord`` of it right behind says that it was not.

    Attributes:
        session: its session's id.
        sequence: its number there.
        model_id: the model's.
        selection: server rows.
        values: of the selection's shape and the array's dtype.
        assign: whether the values are stored as they are.
        array: which of the model's.
        turn: to which round it belongs, of a model that follows a group.
    """

    KIND: ClassVar[int] = 1
    session: bytes
    sequence: int
    model_id: int
    selection: Selection
    values: NDArray[Any]
    assign: bool = False
    array: int = 0
    turn: Turn = STEP

    @classmethod
    def of_message(cls, message: Push) -> PushRecord:
        """Return the record of a message."""
        return cls(
            message.session,
            message.sequence,
            message.model_id,
            Selection(message.rows, message.cols, message.paired),
            message.values,
            message.assign,
            message.array,
            Turn(message.round, message.rank),
        )

    def body(self) -> list[Buffer]:
        """Return the bytes, arrays by reference."""
        rows, cols, values = self.selection.rows, self.selection.cols, self.values
        flags = (
            (_ASSIGN if self.assign else 0)
            | (_PAIRED if self.selection.paired else 0)
            | (_HAS_COLS if cols is not None else 0)
            | (_ROW_SLICES if rows.ndim == 2 else 0)
            | (_COL_SLICES if cols is not None and cols.ndim == 2 else 0)
        )
        num_cols = 0 if cols is None else len(cols)
        shape = (*values.shape, 0, 0)[:2]
        head = _PUSH.pack(
            self.session,
            self.sequence,
            self.model_id,
            flags,
            dtypes.CODE_OF[rows.dtype],
            0 if cols is None else dtypes.CODE_OF[cols.dtype],
            dtypes.CODE_OF[values.dtype],
            values.ndim,
            self.array,
            self.turn.rank,
            len(rows),
            num_cols,
            *shape,
            self.turn.tag,
        )
        body: list[Buffer] = [head]
        for array in (rows, cols, values):
            if array is not None:
                raw = _raw(array)
                body += [raw, bytes(-len(raw) % _ALIGNMENT)]
        return body

    @classmethod
    def of(cls, body: memoryview) -> PushRecord:
        """Return what these bytes say; its arrays lie over them."""
        (
            session,
            sequence,
            model_id,
            flags,
            *codes,
            ndim,
            array,
            rank,
            num_rows,
            num_cols,
            first,
            second,
            tag,
        ) = _PUSH.unpack_from(body)
        rows_shape = (num_rows, 3) if flags & _ROW_SLICES else (num_rows,)
        cols_shape = (num_cols, 3) if flags & _COL_SLICES else (num_cols,)
        rows, offset = _array(body, _PUSH.size, codes[0], rows_shape)
        cols = None
        if flags & _HAS_COLS:
            cols, offset = _array(body, offset, codes[1], cols_shape)
        values, _ = _array(body, offset, codes[2], (first, second)[:ndim])
        selection = Selection(rows, cols, bool(flags & _PAIRED))
        turn = Turn(tag, rank)
        return cls(session, sequence, model_id, selection, values, bool(flags & _ASSIGN), array, turn)


@record
class OutcomeRecord:
    """What became of a push that isn't in the log, or, right behind its record, that it was not applied.

    Attributes:
        session: its session's id.
        sequence: its number there.
        code: 0 applied (to a model that keeps no log), else of the failure.
    """

    KIND: ClassVar[int] = 2
    session: bytes
    sequence: int
    code: int

    def body(self) -> list[Buffer]:
        """Return the bytes."""
        return [_OUTCOME.pack(self.session, self.sequence, self.code)]

    @classmethod
    def of(cls, body: memoryview) -> OutcomeRecord:
        """Return what these bytes say."""
        return cls(*_OUTCOME.unpack_from(body))


@record
class OpenedRecord:
    """A session begins."""

    KIND: ClassVar[int] = 3
    session: bytes
    client: bytes

    def body(self) -> list[Buffer]:
        """Return the bytes."""
        return [_OPENED.pack(self.session, self.client)]

    @classmethod
    def of(cls, body: memoryview) -> OpenedRecord:
        """Return what these bytes say."""
        return cls(*_OPENED.unpack_from(body))


@record
class EndedRecord:
    """A session is forgotten."""

    KIND: ClassVar[int] = 4
    session: bytes

    def body(self) -> list[Buffer]:
        """Return the bytes."""
        return [_ENDED.pack(self.session)]

    @classmethod
    def of(cls, body: memoryview) -> EndedRecord:
        """Return what these bytes say."""
        return cls(*_ENDED.unpack_from(body))


@record
class AdvancedRecord:
    """The numbers below a floor that had no outcome are passed over."""

    KIND: ClassVar[int] = 5
    session: bytes
    floor: int

    def body(self) -> list[Buffer]:
        """Return the bytes."""
        return [_ADVANCED.pack(self.session, self.floor)]

    @classmethod
    def of(cls, body: memoryview) -> AdvancedRecord:
        """Return what these bytes say."""
        return cls(*_ADVANCED.unpack_from(body))


@record
class MadeRecord:
    """A model is made and has its initial values.

    Attributes:
        description: of its segment, and the extents from which it was filled.
    """

    KIND: ClassVar[int] = 6
    description: dict[str, Any]

    def body(self) -> list[Buffer]:
        """Return the bytes."""
        return [_text(self.description)]

    @classmethod
    def of(cls, body: memoryview) -> MadeRecord:
        """Return what these bytes say."""
        return cls(_document(body))


@record
class DestroyedRecord:
    """A model has ended."""

    KIND: ClassVar[int] = 7
    model_id: int

    def body(self) -> list[Buffer]:
        """Return the bytes."""
        return [_NUMBER.pack(self.model_id)]

    @classmethod
    def of(cls, body: memoryview) -> DestroyedRecord:
        """Return what these bytes say."""
        return cls(*_NUMBER.unpack_from(body))


@record
class VoidRecord:
    """The record right before never came to be: its process was killed on the way."""

    KIND: ClassVar[int] = 8
    number: int

    def body(self) -> list[Buffer]:
        """Return the bytes."""
        return [_NUMBER.pack(self.number)]

    @classmethod
    def of(cls, body: memoryview) -> VoidRecord:
        """Return what these bytes say."""
        return cls(*_NUMBER.unpack_from(body))


@record
class StartedRecord:
    """A process begins to serve.

    Attributes:
        identity: what must outlive the other files: the server's id and incarnation.
    """

    KIND: ClassVar[int] = 9
    identity: dict[str, Any]

    def body(self) -> list[Buffer]:
        """Return the bytes."""
        return [_text(self.identity)]

    @classmethod
    def of(cls, body: memoryview) -> StartedRecord:
        """Return what these bytes say."""
        return cls(_document(body))


@record
class ConfiguredRecord:
    """A model's updater gets other numbers.

    Attributes:
        model_id: the model's.
        version: of the numbers.
        numbers: as a spec has them.
    """

    KIND: ClassVar[int] = 10
    model_id: int
    version: int
    numbers: str

    def body(self) -> list[Buffer]:
        """Return the bytes."""
        return [_text({"model_id": self.model_id, "version": self.version, "numbers": self.numbers})]

    @classmethod
    def of(cls, body: memoryview) -> ConfiguredRecord:
        """Return what these bytes say."""
        return cls(**_document(body))


@record
class RoundRecord:
    """What some rows of a model have gathered is about to be applied.

    Attributes:
        model_id: the model's.
        first: the first of the server's rows.
        stop: the row behind the last one.
        live: of which rounds, see ``gathering.Ending``.
    """

    KIND: ClassVar[int] = 11
    model_id: int
    first: int
    stop: int
    live: int

    def body(self) -> list[Buffer]:
        """Return the bytes."""
        return [_ROUND.pack(self.model_id, self.first, self.stop, self.live)]

    @classmethod
    def of(cls, body: memoryview) -> RoundRecord:
        """Return what these bytes say."""
        return cls(*_ROUND.unpack_from(body))


@record
class LiveRecord:
    """For the pushes of these ranks a model's rounds wait from here on, as long as this process lives.

    Attributes:
        model_id: the model's.
        live: a bit for each.
    """

    KIND: ClassVar[int] = 12
    model_id: int
    live: int

    def body(self) -> list[Buffer]:
        """Return the bytes."""
        return [_LIVE.pack(self.model_id, self.live)]

    @classmethod
    def of(cls, body: memoryview) -> LiveRecord:
        """Return what these bytes say."""
        return cls(*_LIVE.unpack_from(body))


Record = (
    PushRecord
    | KeysRecord
    | OutcomeRecord
    | OpenedRecord
    | EndedRecord
    | AdvancedRecord
    | MadeRecord
    | DestroyedRecord
    | VoidRecord
    | StartedRecord
    | ConfiguredRecord
    | RoundRecord
    | LiveRecord
)

_BY_KIND: dict[int, type[Record]] = {
    kind.KIND: kind
    for kind in (
        PushRecord,
        KeysRecord,
        OutcomeRecord,
        OpenedRecord,
        EndedRecord,
        AdvancedRecord,
        MadeRecord,
        DestroyedRecord,
        VoidRecord,
        StartedRecord,
        ConfiguredRecord,
        RoundRecord,
        LiveRecord,
    )
}


def decode(kind: int, body: memoryview) -> Record:
    """Return the record of a kind and its bytes.

    Raises:
        RemoteProtocolError: of a kind that this version doesn't know: a later one wrote it.
    """
    if kind not in _BY_KIND:
        raise RemoteProtocolError(
            f"a log has a record of kind {kind}, which this version of glintpy doesn't know"
        )
    return _BY_KIND[kind].of(body)


def is_undone_by(record: Record, following: Record | None, *, number: int) -> bool:
    """Tell whether a record counts for nothing because of the one right behind it.

    Args:
        record: any.
        following: the next one in the log; None: there is none.
        number: of ``record``.
    """
    if isinstance(following, VoidRecord):
        return following.number == number
    return (
        isinstance(record, PushRecord | KeysRecord | OutcomeRecord)
        and isinstance(following, OutcomeRecord)
        and (following.session, following.sequence) == (record.session, record.sequence)
    )


def _raw(array: NDArray[Any]) -> memoryview:
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def _array(body: memoryview, offset: int, code: int, shape: tuple[int, ...]) -> tuple[NDArray[Any], int]:
    dtype = dtypes.BY_CODE[code]
    count: int = math.prod(shape)
    array = np.frombuffer(body, dtype, count, offset).reshape(shape) if count else np.empty(shape, dtype)
    end = offset + count * dtype.itemsize
    return array, end + -end % _ALIGNMENT


def _text(document: dict[str, Any]) -> bytes:
    return json.dumps(document, separators=(",", ":")).encode()


def _document(body: memoryview) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(bytes(body))
    return found
