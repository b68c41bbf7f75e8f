"""The record of a push to a table; see ``log_records``. Knows no file and no model.

It names keys, not rows: whoever applies it to what a snapshot has finds each key's row as the server did, or takes
another free one, which nobody can tell from outside.
"""

from __future__ import annotations

import math
import struct
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from glintpy.protocol import dtypes
from glintpy.records import record

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glintpy.protocol.messages_tables import PushKeys
    from glintpy.storage.files import Buffer

_HEAD = struct.Struct("<16sQQQQ5BxHd")
"""A multiple of 8, as keys are: so the values lie where compiled loops need them."""


@record
class KeysRecord:
    """A push to keys is about to be applied; an ``OutcomeRecord`` of it right behind says that it was not.

    Attributes:
        session: its session's id.
        sequence: its number there.
        model_id: the table's.
        action: what it does, see ``messages_tables``.
        array: to which of the arrays.
        keys: (n,) of the table's key dtype; (n, w) bytes of texts, w a multiple of 8.
        values: for them, or None.
        now: when it was applied, by the server's clock, in seconds since 1970.
    """

    KIND: ClassVar[int] = 13
    session: bytes
    sequence: int
    model_id: int
    action: int
    array: int
    keys: NDArray[Any]
    values: NDArray[Any] | None
    now: float = 0.0

    @classmethod
    def of_message(cls, message: PushKeys, now: float) -> KeysRecord:
        """Return the record of a message."""
        return cls(
            message.session,
            message.sequence,
            message.model_id,
            message.action,
            message.array,
            message.keys,
            message.values,
            now,
        )

    def body(self) -> list[Buffer]:
        """Return the bytes, arrays by reference."""
        values = self.values
        shape = (0, 0) if values is None else (*values.shape, 0)[:2]
        head = _HEAD.pack(
            self.session,
            self.sequence,
            self.model_id,
            len(self.keys),
            shape[1],
            self.action,
            self.array,
            dtypes.CODE_OF[self.keys.dtype],
            0 if values is None else dtypes.CODE_OF[values.dtype],
            0 if values is None else values.ndim,
            0 if self.keys.ndim == 1 else self.keys.shape[1],
            self.now,
        )
        arrays = [self.keys] if values is None else [self.keys, values]
        return [head, *(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data for array in arrays)]

    @classmethod
    def of(cls, body: memoryview) -> KeysRecord:
        """Return what these bytes say; its arrays lie over them."""
        session, sequence, model_id, length, width, *rest = _HEAD.unpack_from(body)
        action, array, key_code, code, ndim, text_bytes, now = rest
        keys = _array(body, _HEAD.size, key_code, (length, text_bytes) if text_bytes else (length,))
        values = None
        if code:
            shape = (length, width) if ndim == 2 else (length,)
            values = _array(body, _HEAD.size + keys.nbytes, code, shape)
        return cls(session, sequence, model_id, action, array, keys, values, now)


def _array(body: memoryview, offset: int, code: int, shape: tuple[int, ...]) -> NDArray[Any]:
    dtype, count = dtypes.BY_CODE[code], math.prod(shape)
    return np.frombuffer(body, dtype, count, offset).reshape(shape) if count else np.empty(shape, dtype)
