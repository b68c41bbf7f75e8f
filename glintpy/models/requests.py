"""Pulls and pushes on their way: shares to parts, parts to calls, answers into arrays; knows no user's types.

At most one request goes to each server: all parts for one server share a request id.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy.errors import LocalProtocolError
from glintpy.futures import Future
from glintpy.models.indexing import Asked, Keys
from glintpy.partitioning import Layout, Share
from glintpy.protocol.calls import Call, Failed, Result, Stamp
from glintpy.protocol.messages import Pull, Push, Values
from glintpy.protocol.outcomes import Kind, Tally
from glintpy.protocol.parts import Part, cut
from glintpy.protocol.selection import slices_of
from glintpy.protocol.spec import ModelInfo
from glintpy.runtime import Runtime


@dataclass(frozen=True, slots=True)
class Target:
    """A model as requests see it.

    Attributes:
        info: its spec and routing.
        layout: where its rows lie.
        timeout_s: the deadline of a request.
        is_hasty: whether requests to a lost server fail at once.
    """

    info: ModelInfo
    layout: Layout
    timeout_s: float | None
    is_hasty: bool


class Requester:
    """Issues the parts of one pull or push; what is asked for must not be empty.

    Threads:
        Parts are settled by whichever thread receives, while the caller still issues others; a lock of its
        own keeps the count.
    """

    def __init__(self, runtime: Runtime, target: Target, asked: Asked, *, kind: Kind) -> None:
        self._runtime = runtime
        self._target = target
        self._asked = asked
        self._kind = kind
        self._deadline = runtime.deadline(target.timeout_s)
        self._tally = Tally(kind, target.info.spec.name, timeout_s=target.timeout_s)
        self._lock = threading.Lock()
        self._num_open = 1  # one for the caller, until all parts are issued
        self._result: Callable[[], Any] = lambda: None
        self._into: NDArray[Any] | None = None
        self.future: Future[Any] = Future()
        self.future.waits_by = getattr(runtime, "wait_for", None)

    def pull(self, into: NDArray[Any], result: Callable[[], Any]) -> Future[Any]:
        """Read what is asked for.

        Args:
            into: of the asked wire shape; written part by part.
            result: makes the future's value when all is there.
        """
        self._into, self._result = into, result
        for server_id, address, request_id, number, part in self._parts():
            self._issue(server_id, address, self._pull_call(request_id, number, part), part)
        self._one_settled()
        return self.future

    def push(
        self,
        values: NDArray[Any],
        *,
        assign: bool = False,
        into: NDArray[Any] | None = None,
        result: Callable[[], Any] = lambda: None,
    ) -> Future[Any]:
        """Send values; the call returns when they are copied.

        Args:
            values: of the asked wire shape.
            assign: store them as they are.
            into: push_pull: where the values after the push go; of the wire shape.
            result: makes the future's value when all is there.
        """
        self._into, self._result = into, result
        info, pushes = self._target.info, self._runtime.pushes
        pushes.add(info.model_id, info.spec.name, self.future)
        try:
            for server_id, address, request_id, number, part in self._parts():
                call = self._push_call(request_id, number, part, part.of(values), assign=assign)
                self._issue(server_id, address, call, part)
        except BaseException:
            pushes.done(self.future)  # the caller gets no future; nobody waits for it
            raise
        self._one_settled()
        return self.future

    # --- parts --------------------------------------------------------------------------------------------------

    def _parts(self) -> Iterator[tuple[str, str, int, int, Part]]:
        """Yield (server id, its address, request id, number, part), all of one server under one request id."""
        info = self._target.info
        spec, asked = info.spec, self._asked
        cols = None if asked.cols is None else _axis(asked.cols)
        num_cols = None if asked.paired or spec.num_cols is None else asked.wire_shape[1]
        if num_cols == spec.num_cols and isinstance(asked.cols, range) and asked.cols == range(num_cols or 0):
            cols = None
        for share in self._shares():
            server_id, address = info.servers[share.server]
            self._runtime.link(server_id, address)
            request_id = self._runtime.new_request_id()
            parts = cut(
                share.rows,
                share.positions,
                cols=cols,
                paired=asked.paired,
                num_cols=num_cols,
                item_bytes=spec.numpy_dtype.itemsize,
            )
            for number, part in enumerate(parts):
                yield server_id, address, request_id, number, part

    def _shares(self) -> list[Share]:
        rows = self._asked.rows
        if isinstance(rows, range):
            return self._target.layout.locate_slice(rows[0], rows[-1] + 1, rows.step)
        return self._target.layout.locate(rows)

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

    def _pull_builder(self, request_id: int, number: int, part: Part) -> Callable[[Stamp], Pull]:
        info, selection = self._target.info, part.selection

        def build(stamp: Stamp) -> Pull:
            return Pull(
                request_id,
                stamp.session,
                stamp.floor,
                stamp.after,
                info.model_id,
                info.routing,
                number,
                selection.paired,
                selection.rows,
                selection.cols,
            )

        return build

    def _push_call(
        self, request_id: int, number: int, part: Part, values: NDArray[Any], *, assign: bool
    ) -> Call:
        info, selection = self._target.info, part.selection
        wants_values = self._into is not None

        def build(stamp: Stamp) -> Push:
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
                selection.paired,
                selection.rows,
                selection.cols,
                values,
            )

        return Call(
            request_id,
            build,
            settle=_unset,
            part=number,
            deadline=self._deadline,
            cost_bytes=part.num_bytes * (2 if wants_values else 1),
            model_id=info.model_id,
            numbered=True,
            is_hasty=self._target.is_hasty,
            build_read=self._pull_builder(request_id, number, part) if wants_values else None,
        )

    # --- outcomes -----------------------------------------------------------------------------------------------

    def _issue(self, server_id: str, address: str, call: Call, part: Part) -> None:
        with self._lock:
            self._num_open += 1

        def settle(result: Result) -> None:
            self._settle(address, call, part, result)

        call.settle = settle
        self._runtime.submit(server_id, call, waits_for_room=self._kind == "push")

    def _settle(self, address: str, call: Call, part: Part, result: Result) -> None:
        with self._lock:
            if isinstance(result, Failed):
                self._tally.failed(address, result, attempts=call.attempts)
            elif self._into is None:
                self._tally.succeeded(address)
            else:
                problem = self._take_values(part, result)
                if problem is None:
                    self._tally.succeeded(address)
                else:
                    self._tally.failed(address, Failed(problem, "unknown"), attempts=call.attempts)
        self._one_settled()

    def _take_values(self, part: Part, result: Any) -> LocalProtocolError | None:
        spec = self._target.info.spec
        expected = part.selection.shape(spec.num_cols)
        if (
            not isinstance(result, Values)
            or result.values.shape != expected
            or result.values.dtype != spec.numpy_dtype
        ):
            return LocalProtocolError(
                f"the server answered {result!r:.200} where values of {expected} were asked"
            )
        assert self._into is not None
        part.into(self._into, result.values)
        return None

    def _one_settled(self) -> None:
        with self._lock:
            self._num_open -= 1
            if self._num_open:
                return
        error = self._tally.error()
        info, pushes = self._target.info, self._runtime.pushes
        # A flush that runs meanwhile must find the failure, or a push that is still open, whose future it waits for.
        if self._kind == "push" and error is not None:
            pushes.failed(info.model_id, info.spec.name, self.future)
        if error is None:
            self.future.set_result(self._result())
        else:
            self.future.set_exception(error)
        if self._kind == "push":
            pushes.done(self.future)


def _unset(result: Result) -> None:
    raise AssertionError(f"settled before it was issued: {result!r}")


def _axis(keys: Keys) -> NDArray[np.int64]:
    if isinstance(keys, range):
        return slices_of((keys[0], keys[-1] + 1, keys.step))
    return keys
