"""Pushes whose values came as codes, written out before anybody looks at them; pure."""

from __future__ import annotations

from glintpy.errors import DTypeError
from glintpy.protocol import levels
from glintpy.protocol.messages import Push, PushLevels
from glintpy.protocol.selection import Selection
from glintpy.storage.shard import Shard


def written_out(message: PushLevels, shard: Shard) -> Push:
    """Return the push that a message stands for.

    So checks, undo records, logs and rounds know values alone.

    Raises:
        DTypeError: levels of another dtype than the model's, or codes that name no level.
        ShapeError: other than as many codes as the selection has cells.
    """
    dtype = shard.spec.numpy_dtype
    if message.levels.dtype != dtype:
        raise DTypeError(f"levels of {message.levels.dtype.name} for a model of {dtype.name}")
    selection = Selection(message.rows, message.cols, message.paired)
    values = levels.unpack(message.codes, message.levels, selection.shape(shard.spec.num_cols))
    return Push(
        message.request_id,
        message.session,
        message.floor,
        message.sequence,
        message.model_id,
        message.routing,
        message.part,
        wants_values=False,
        assign=False,
        array=0,
        round=message.round,
        rank=message.rank,
        paired=message.paired,
        rows=message.rows,
        cols=message.cols,
        values=values,
    )
