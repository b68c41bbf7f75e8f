"""A selection's way to the servers and back: shares to parts, parts to calls, answers into an array.

At most one request goes to each server: all parts for one server share a request id. Knows no future and no
user's type; who dispatches is told once, when all parts have their outcome.
"""

from __future__ import annotations

import copy
import threading
from abc import ABC, abstractmethod
from collections.abc import Callable, Collection
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy import config
from glintpy.errors import GlintError, LocalProtocolError
from glintpy.models.indexing import Asked, Keys
from glintpy.partitioning import Layout, Share
from glintpy.protocol.calls import Call, Failed, Result, Stamp
from glintpy.protocol.levels import bits_of, pack
from glintpy.protocol.messages import Message, Pull, Push, PushLevels, Values
from glintpy.protocol.outcomes import Kind, Tally
from glintpy.protocol.parts import Part, cut
from glintpy.protocol.rounds import STEP, Turn
from glintpy.protocol.selection import Selection, slices_of
from glintpy.protocol.spec import ModelInfo
from glintpy.runtime import Runtime
from glintpy.storage.arrays import kept_arrays
from glintpy.updaters import Updater


class AnyTarget(ABC):
    """A model of any kind as requests see it.

    Attributes:
        info: its spec and routing.
        timeout_s: the deadline of a request.
        is_hasty: whether requests to a lost server fail at once.
        updater: how pushes are applied.
        arrays: what a server keeps of it, the values first.
        dtype: of the array.
        row_shape: of one row of the array.
        num_cols: None for a vector, or for one number a row.
        row_bytes: of one row of the array.
        joins_cells: whether its updater takes several pushes to single cells as one, as it does those to rows.
        keeps_rows: whether a push's cells of one row have to reach the updater as one, and so in one part.
        array: which of the model's arrays requests are about; 0 its values.
        turn: the round to which requests belong.
        key_bytes: what a row's key takes in a message, where it takes more than a number does.
    """

    def __init__(
        self,
        info: ModelInfo,
        timeout_s: float | None,
        *,
        updater: Updater,
        is_hasty: bool = False,
        array: int = 0,
    ) -> None:
        self.info = info
        self.timeout_s = timeout_s
        self.is_hasty = is_hasty
        self.updater = updater
        self.array = array
        self.arrays = kept_arrays(info.spec, updater)
        kind = self.arrays[array]
        # Asked for with every request.
        self.dtype = kind.dtype
        self.row_shape = kind.row_shape
        self.num_cols = kind.row_shape[0] if kind.row_shape else None
        self.row_bytes = kind.row_bytes
        self.joins_cells = updater.joins_cells
        # What is gathered for a round reaches it as one anyway.
        self.keeps_rows = not self.joins_cells and not info.spec.group and self.row_bytes <= config.PART_BYTES
        self.turn = STEP
        self.key_bytes = 0

    @abstractmethod
    def locate(self, rows: Keys) -> list[Share]:
        """Return what each server has of some rows, or keys, at least one."""

    @abstractmethod
    def pull_of(self, request_id: int, number: int, selection: Selection, stamp: Stamp) -> Message:
        """Return the message that reads one part.

        Args:
            request_id: of the request.
            number: of the part.
            selection: what it reads.
            stamp: the session's.
        """

    @abstractmethod
    def push_of(
        self,
        request_id: int,
        number: int,
        selection: Selection,
        stamp: Stamp,
        values: NDArray[Any],
        *,
        assign: bool,
        wants_values: bool,
    ) -> Message:
        """Return the message that changes one part.

        Args:
            request_id: of the request.
            number: of the part.
            selection: what it changes.
            stamp: the session's.
            values: of the selection's shape.
            assign: store them as they are.
            wants_values: have what is there afterwards sent back.
        """


class Target(AnyTarget):
    """A matrix or vector as requests see it.

    Attributes:
        layout: where its rows lie.
        levels: (n,) rising: what is pushed are places among these; None: values.
    """

    def __init__(
        self,
        info: ModelInfo,
        layout: Layout,
        timeout_s: float | None,
        *,
        updater: Updater,
        is_hasty: bool = False,
        array: int = 0,
    ) -> None:
        super().__init__(info, timeout_s, updater=updater, is_hasty=is_hasty, array=array)
        self.layout = layout
        self.levels: NDArray[Any] | None = None

    def in_round(self, turn: Turn) -> Target:
        """Return the same model for requests that belong to a round."""
        target = copy.copy(self)
        target.turn = turn
        return target

    def with_levels(self, levels: NDArray[Any]) -> Target:
        """Return the same model for pushes of places among levels."""
        target = copy.copy(self)
        target.levels = levels
        return target

    def of_array(self, array: int) -> Target:
        """Return the same model for requests about another of its arrays."""
        return Target(
            self.info, self.layout, self.timeout_s, updater=self.updater, is_hasty=self.is_hasty, array=array
        )

    def locate(self, rows: Keys) -> list[Share]:
        """Return what each server has of some rows, at least one."""
        if isinstance(rows, range):
            return self.layout.locate_slice(rows[0], rows[-1] + 1, rows.step)
        return self.layout.locate(rows)

    def pull_of(self, request_id: int, number: int, selection: Selection, stamp: Stamp) -> Message:
        """Return the message that reads one part."""
        info = self.info
        return Pull(
            request_id,
            stamp.session,
            stamp.floor,
            stamp.after,
            info.model_id,
            info.routing,
            number,
            self.array,
            self.turn.tag,
            self.turn.rank,
            selection.paired,
            selection.rows,
            selection.cols,
        )

    def push_of(
        self,
        request_id: int,
        number: int,
        selection: Selection,
        stamp: Stamp,
        values: NDArray[Any],
        *,
        assign: bool,
        wants_values: bool,
    ) -> Message:
        """Return the message that changes one part."""
        info, turn = self.info, STEP if assign else self.turn
        if self.levels is not None:
            assert not assign, "places among levels are pushed, and no more"
            assert not wants_values, "places among levels are pushed, and no more"
            return PushLevels(
                request_id,
                stamp.session,
                stamp.floor,
                stamp.sequence,
                info.model_id,
                info.routing,
                number,
                turn.tag,
                turn.rank,
                selection.paired,
                selection.rows,
                selection.cols,
                self.levels,
                pack(values, bits_of(len(self.levels))),
            )
        return Push(
            request_id,
            stamp.session,
            stamp.floor,
            stamp.sequence,
            info.model_id,
            info.routing,
            number,
            wants_values,
            assign,
            self.array,
            turn.tag,
            turn.rank,
            selection.paired,
            selection.rows,
            selection.cols,
            values,
        )


class Dispatch:
    """Issues the parts of one pull or push; what is asked for must not be empty.

    Args:
        runtime: this process's.
        target: the model.
        asked: the selection.
        kind: whether it changes anything.
        finished: called once, when every part has its outcome, by the thread that settles the last one: it must be
            short and never wait.

    Threads:
        Parts are settled by whichever thread receives, while the caller still issues others; a lock of its own
        keeps the count.
    """

    def __init__(
        self,
        runtime: Runtime,
        target: AnyTarget,
        asked: Asked,
        *,
        kind: Kind,
        finished: Callable[[Dispatch], None],
    ) -> None:
        self._runtime = runtime
        self._target = target
        self._asked = asked
        self._kind: Kind = kind
        self._finished = finished
        self._deadline = runtime.deadline(target.timeout_s)
        self._lock = threading.Lock()
        self._num_open = 0
        self._wants_values = kind == "pull"
        self._outcomes: list[tuple[int, Failed | None, int]] = []
        self._has_failed = False
        self.values: NDArray[Any] | None = None
        """What was read: of the asked wire shape, complete when all is there, and the caller's own."""

    def pull(self, into: NDArray[Any] | None = None) -> None:
        """Read what is asked for.

        Args:
            into: of the asked wire shape; written part by part. None: an array is made.
        """
        shares = self._target.locate(self._asked.rows)
        self._land(into, shares)
        for server, request_id, number, part in self._parts(shares):
            self._issue(server, self._pull_call(request_id, number, part), part)

    def push(
        self,
        values: NDArray[Any],
        *,
        is_ours: bool = False,
        waits_for_room: bool = True,
        assign: bool = False,
        wants_values: bool = False,
        into: NDArray[Any] | None = None,
    ) -> None:
        """Send values; the call returns when they are copied.

        Args:
            values: of the asked wire shape.
            is_ours: nobody else has this array, so it need not be copied.
            waits_for_room: wait here while too much is under way to a server; not for who receives.
            assign: store them as they are.
            wants_values: read the values after the push.
            into: where they go, of the wire shape; None: an array is made.
        """
        shares = self._target.locate(self._asked.rows)
        self._wants_values = wants_values
        if wants_values:
            self._land(into, shares)
        for server, request_id, number, part in self._parts(shares):
            own = part.of(values, is_ours=is_ours)
            call = self._push_call(request_id, number, part, own, assign=assign)
            self._issue(server, call, part, waits_for_room=waits_for_room)

    def error(self, servers: Collection[int] | None = None) -> GlintError | None:
        """Return what the request, or its share at some servers, fails with; None: it succeeded.

        Args:
            servers: indices in the routing; None: all.
        """
        if not self._has_failed:
            return None
        info = self._target.info
        tally = Tally(self._kind, info.spec.name, timeout_s=self._target.timeout_s)
        for server, failed, attempts in self._outcomes:
            if servers is not None and server not in servers:
                continue
            address = info.servers[server][1]
            if failed is None:
                tally.succeeded(address)
            else:
                tally.failed(address, failed, attempts=attempts)
        return tally.error()

    def abandon(self) -> None:
        """Tell nobody when the parts are settled."""
        self._finished = _nobody

    # --- parts --------------------------------------------------------------------------------------------------

    def _land(self, into: NDArray[Any] | None, shares: list[Share]) -> None:
        """Make the array that is written part by part, unless a lone part will bring it along."""
        self.values = into
        if into is None:
            dtype, shape = self._target.dtype, self._asked.wire_shape
            num_cells = shape[0] if len(shape) == 1 else shape[0] * shape[1]
            if len(shares) > 1 or num_cells * dtype.itemsize > config.PART_BYTES // 2:
                self.values = np.empty(shape, dtype=dtype)

    def _parts(self, shares: list[Share]) -> list[tuple[int, int, int, Part]]:
        """Return (server, request id, number, part), all of one server under one request id."""
        target, asked, runtime = self._target, self._asked, self._runtime
        cols = None if asked.cols is None else _axis(asked.cols)
        num_cols = None if asked.paired or target.num_cols is None else asked.wire_shape[1]
        found = []
        for share in shares:
            runtime.link(*target.info.servers[share.server])
            request_id = runtime.new_request_id()
            parts = cut(
                share.rows,
                share.positions,
                cols=cols,
                paired=asked.paired,
                num_cols=num_cols,
                item_bytes=target.dtype.itemsize,
                key_bytes=target.key_bytes,
                keeps_rows=target.keeps_rows and self._kind == "push",
            )
            found += [(share.server, request_id, number, part) for number, part in enumerate(parts)]
        self._num_open = len(found)  # all of them, before the first one can be settled
        return found

    def _pull_call(self, request_id: int, number: int, part: Part) -> Call:
        return Call(
            request_id,
            self._pull_builder(request_id, number, part),
            settle=_unset,
            part=number,
            deadline=self._deadline,
            cost_bytes=part.num_bytes,
            model_id=self._target.info.model_id,
            is_hasty=self._target.is_hasty,
        )

    def _pull_builder(self, request_id: int, number: int, part: Part) -> Callable[[Stamp], Message]:
        return partial(self._target.pull_of, request_id, number, part.selection)

    def _push_call(
        self, request_id: int, number: int, part: Part, values: NDArray[Any], *, assign: bool
    ) -> Call:
        target, selection, wants_values = self._target, part.selection, self._wants_values

        def build(stamp: Stamp) -> Message:
            return target.push_of(
                request_id, number, selection, stamp, values, assign=assign, wants_values=wants_values
            )

        return Call(
            request_id,
            build,
            settle=_unset,
            part=number,
            deadline=self._deadline,
            cost_bytes=part.num_bytes * (2 if wants_values else 1),
            model_id=target.info.model_id,
            numbered=True,
            is_hasty=self._target.is_hasty,
            build_read=self._pull_builder(request_id, number, part) if wants_values else None,
        )

    # --- outcomes -----------------------------------------------------------------------------------------------

    def _issue(self, server: int, call: Call, part: Part, *, waits_for_room: bool = False) -> None:
        call.settle = partial(self._settle, server, call, part)
        self._runtime.submit(self._target.info.servers[server][0], call, waits_for_room=waits_for_room)

    def _settle(self, server: int, call: Call, part: Part, result: Result) -> None:
        failed = result if type(result) is Failed else None
        if failed is None and self._wants_values:
            try:
                failed = self._take_values(part, result)
            except (ValueError, MemoryError) as error:
                # The caller's ``out`` is read-only by now, or there is no memory for a result: its own failure, not the
                # end of the thread that receives for everybody.
                failed = Failed(
                    LocalProtocolError(f"the values came and can't be kept: {error!r}"), "unknown"
                )
        with self._lock:
            self._outcomes.append((server, failed, call.attempts))
            self._has_failed = self._has_failed or failed is not None
            self._num_open -= 1
            if self._num_open:
                return
        # Who is told mostly knows this object: without this parting, its arrays would wait for the collector.
        finished, self._finished = self._finished, _nobody
        finished(self)

    def _take_values(self, part: Part, result: Any) -> Failed | None:
        expected = part.selection.shape(self._target.num_cols)
        if (
            type(result) is not Values
            or result.values.shape != expected
            or result.values.dtype != self._target.dtype
        ):
            problem = LocalProtocolError(
                f"the server answered {result!r:.200} where values of {expected} were asked"
            )
            return Failed(problem, "unknown")
        if self.values is None:
            if isinstance(part.rows_at, slice):
                self.values = _owned(result.values)
                return None
            self.values = np.empty(self._asked.wire_shape, dtype=self._target.dtype)
        part.into(self.values, result.values)
        return None


def _owned(values: NDArray[Any]) -> NDArray[Any]:
    """Return values that came in one part as an array of the caller's own."""
    if values.flags.aligned:
        try:
            # A frame's memory is nobody else's, and this saves a copy into pages that were never touched.
            values.flags.writeable = True
        except ValueError:  # of immutable bytes
            return values.copy()
        return values
    return values.copy()


def _nobody(dispatch: Dispatch) -> None:
    """Stand for who abandoned it."""


def _unset(result: Result) -> None:
    raise AssertionError(f"settled before it was issued: {result!r}")


def _axis(keys: Keys) -> NDArray[np.int64]:
    if isinstance(keys, range):
        return slices_of((keys[0], keys[-1] + 1, keys.step))
    return keys
