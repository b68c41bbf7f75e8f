"""Functions on a server: from a message to a function that is allowed here, and to what it makes; no thread."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from glintpy import config, functions
from glintpy.actors.shelf import Shelf
from glintpy.errors import ConfigError, RemoteProtocolError, ShapeError
from glintpy.functions import Answer, Changing, Function, Reading
from glintpy.protocol import wire
from glintpy.protocol.messages import Change, Compute, Push, arrays_in
from glintpy.protocol.messages_tables import ASSIGN, UPDATE, PushKeys
from glintpy.protocol.selection import Selection
from glintpy.storage import calling
from glintpy.storage.shard import Shard
from glintpy.storage.table import TableShard


class Computing:
    """Runs what messages name.

    Args:
        shelf: the models.
        allow: import paths below which custom functions may lie.
    """

    def __init__(self, shelf: Shelf, allow: Sequence[str]) -> None:
        self._shelf = shelf
        self._allow = tuple(allow)

    def read(self, message: Compute) -> Answer:
        """Return what a reading function makes of one part.

        Raises:
            GlintError: no such function or model, or what doesn't fit.
        """
        shard = self._shelf.shard(message.model_id, routing=message.routing)
        function = self._function(message)
        if not isinstance(function, Reading):
            raise ConfigError(f"function {message.function!r} changes values: it is asked for by a Change")
        if isinstance(shard, TableShard):
            self._check_alone(message)
            return calling.read_table(function, shard, Selection(message.rows), arrays_in(message))
        return calling.read(
            function, shard, Selection(message.rows), arrays_in(message), self._other(message)
        )

    def push_of(self, message: Change) -> Push | PushKeys:
        """Return the push that a change comes to: mostly what the values become is assigned, and so it is logged.

        Raises:
            GlintError: no such function or model, or what doesn't fit.
        """
        shard = self._shelf.shard(message.model_id, routing=message.routing)
        function = self._function(message)
        if not isinstance(function, Changing):
            raise ConfigError(f"function {message.function!r} changes nothing: it is asked for by a Compute")
        if isinstance(shard, TableShard):
            return self._keys_push_of(message, function, shard)
        selection, values = calling.changed(
            function, shard, Selection(message.rows, message.cols), arrays_in(message), self._other(message)
        )
        return Push(
            message.request_id,
            message.session,
            message.floor,
            message.sequence,
            message.model_id,
            message.routing,
            message.part,
            wants_values=False,
            assign=not function.pushes,
            array=0,
            round=0,
            rank=0,
            paired=False,
            rows=selection.rows,
            cols=selection.cols,
            values=values,
        )

    @staticmethod
    def _check_alone(message: Compute | Change) -> None:
        if message.others is not None:
            raise ShapeError("a function on a table has no use for rows of another model")

    def _keys_push_of(self, message: Change, function: Changing, table: TableShard) -> PushKeys:
        self._check_alone(message)
        selection = Selection(message.rows, message.cols)
        keys, values = calling.changed_table(function, table, selection, arrays_in(message))
        return PushKeys(
            message.request_id,
            message.session,
            message.floor,
            message.sequence,
            message.model_id,
            message.routing,
            message.part,
            wants_values=False,
            action=UPDATE if function.pushes else ASSIGN,
            array=0,
            keys=keys,
            values=values,
        )

    def _other(self, message: Compute | Change) -> tuple[Shard, Selection] | None:
        if message.others is None:
            return None
        return self._shelf.shard(message.other_id, routing=message.other_routing), Selection(message.others)

    def _function(self, message: Compute | Change) -> Function:
        # A few numbers: a text of megabytes would hold up everybody while it is read.
        if message.numbers.nbytes > config.HEADER_BYTES_MAX:
            raise RemoteProtocolError(
                f"numbers of {message.numbers.nbytes} bytes; at most {config.HEADER_BYTES_MAX} are read"
            )
        numbers: Any = wire.content(message.numbers)
        if not isinstance(numbers, dict):
            raise RemoteProtocolError("the numbers of a function are a JSON object")
        return functions.named(message.function, numbers, allow=self._allow)
