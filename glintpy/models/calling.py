"""Calls of functions: rounds of messages, answers, one future; knows no user's type and no function by name."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from glintpy.errors import GlintError, LocalProtocolError
from glintpy.functions import Changing, Reading
from glintpy.functions.base import Answer, Array, Ask, Function, Steps
from glintpy.functions.names import name_of
from glintpy.futures import Future
from glintpy.models.asking import AnyCutting
from glintpy.models.dispatch import AnyTarget
from glintpy.protocol import wire
from glintpy.protocol.calls import Call, Failed, Result, Stamp
from glintpy.protocol.messages import Applied, Change, Compute, Computed, arrays_in, as_fields
from glintpy.protocol.outcomes import Kind, Tally
from glintpy.protocol.selection import Selection
from glintpy.runtime import Runtime


class _Parts:
    """Messages of one round, until each has its outcome.

    Args:
        runtime: this process's.
        target: the model.
        servers: (id, address), which the messages' numbers count in.
        kind: whether they change anything.
        doing: what they are, for people.
        finished: called once, by the thread that settles the last one: it must be short and never wait.
    """

    def __init__(
        self,
        runtime: Runtime,
        target: AnyTarget,
        servers: Sequence[tuple[str, str]],
        *,
        kind: Kind,
        doing: str,
        finished: Callable[[], None],
    ) -> None:
        self._runtime = runtime
        self._servers = servers
        self._finished = finished
        self._lock = threading.Lock()
        self._num_open = 0
        self._tally = Tally(kind, target.info.spec.name, timeout_s=target.timeout_s, doing=doing)
        self.results: list[Result] = []

    def issue(self, calls: Sequence[tuple[int, Call]]) -> None:
        """Send (server, call) in order; at least one. All of one server get one request id, and their numbers."""
        self.results = [None] * len(calls)  # type: ignore[list-item]  # each is there before anybody looks
        self._num_open = len(calls)
        for place, (server, call) in enumerate(calls):
            call.settle = partial(self._settle, place, server, call)
            self._runtime.submit(self._servers[server][0], call)

    def error(self) -> GlintError | None:
        """Return what the round fails with, or None."""
        return self._tally.error()

    def _settle(self, place: int, server: int, call: Call, result: Result) -> None:
        expected = Applied if call.numbered else Computed
        if not isinstance(result, expected | Failed):
            problem = LocalProtocolError(f"the server answered {result!r:.200} to a function")
            result = Failed(problem, "unknown")
        with self._lock:
            self.results[place] = result
            address = self._servers[server][1]
            if isinstance(result, Failed):
                self._tally.failed(address, result, attempts=call.attempts)
            else:
                self._tally.succeeded(address)
            self._num_open -= 1
            if self._num_open:
                return
        finished, self._finished = self._finished, _nobody
        finished()


class _Numbering:
    """Request ids by server, and the number of each part."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._ids: dict[int, int] = {}
        self._parts: dict[int, int] = {}

    def next(self, server: int) -> tuple[int, int]:
        """Return the request id and the part's number of the next message to a server."""
        if server not in self._ids:
            self._ids[server] = self._runtime.new_request_id()
        part = self._parts[server] = self._parts.get(server, -1) + 1
        return self._ids[server], part


class ReadingCall:
    """One call of a function that reads: as many rounds as it likes.

    Args:
        runtime: this process's.
        target: the model.
        other: the second model, or the first.
        function: which.
        cutting: the selection and the arguments.
        steps: the client's part; None: the function's own.

    Threads:
        A round ends where answers arrive, and what follows is put off: the function's own part runs without any lock,
        by whoever waits or by the network's thread.
    """

    def __init__(
        self,
        runtime: Runtime,
        target: AnyTarget,
        other: AnyTarget | None,
        function: Reading,
        cutting: AnyCutting,
        *,
        steps: Steps | None = None,
    ) -> None:
        self._runtime = runtime
        self._target = target
        self._other = other or target
        self._function = function
        self._cutting = cutting
        self._deadline = runtime.deadline(target.timeout_s)
        self._steps = function.steps(cutting) if steps is None else steps
        self.future: Future[Any] = Future()
        self.future.bringer = runtime

    def start(self) -> Future[Any]:
        """Send the first round."""
        self._runtime.outbox.issue()  # what was asked for before comes before
        for server_id, address in self._cutting.servers:
            self._runtime.link(server_id, address)
        self._go_on(None)
        return self.future

    def _go_on(self, answers: list[Answer] | None) -> None:
        try:
            asks: Sequence[Ask] = []
            while not asks:
                asks = next(self._steps) if answers is None else self._steps.send(answers)
                answers = []
            numbering = _Numbering(self._runtime)
            calls = [(ask.server, self._call(ask, *numbering.next(ask.server))) for ask in asks]
            parts = _Parts(
                self._runtime,
                self._target,
                self._cutting.servers,
                kind="pull",
                doing=_doing(self._function, self._target, self._other),
                finished=lambda: self._runtime.put_off(lambda: self._take(parts)),
            )
            parts.issue(calls)
        except StopIteration as end:
            self.future.set_result(end.value)
        except Exception as error:  # noqa: BLE001 - a function may raise anything, and its caller is told
            self.future.set_exception(error)
        except BaseException as error:
            self.future.set_exception(error)
            if not isinstance(error, SystemExit):
                raise  # Ctrl-C is its thread's too

    def _take(self, parts: _Parts) -> None:
        if self.future.done():
            return  # Ctrl-C came while it was issued
        error = parts.error()
        if error is not None:
            self.future.set_exception(error)
            return
        self._go_on([arrays_in(result) for result in parts.results if isinstance(result, Computed)])

    def _call(self, ask: Ask, request_id: int, part: int) -> Call:
        target = self._other if ask.of_other else self._target
        function = ask.function or self._function
        name, numbers = name_of(function), wire.document(function.to_content())
        arrays = as_fields(ask.arrays)
        other = self._other
        others = ask.others

        def build(stamp: Stamp) -> Compute:
            return Compute(
                request_id,
                stamp.session,
                stamp.floor,
                stamp.after,
                target.info.model_id,
                target.info.routing,
                other.info.model_id if others is not None else 0,
                other.info.routing if others is not None else 0,
                part,
                name,
                numbers,
                ask.rows,
                others,
                *arrays,
            )

        # What it touches, and not what it brings along: so a server never has more of it before it than a window.
        if ask.touches is not None:
            touched = max(1, ask.touches * target.row_bytes)
        else:
            num_rows = Selection(ask.rows).num_rows()
            touched = max(1, num_rows * target.row_bytes * (2 if others is not None else 1))
        return Call(
            request_id,
            build,
            settle=_unset,
            part=part,
            deadline=self._deadline,
            cost_bytes=touched + sum(array.nbytes for array in ask.arrays),
            model_id=target.info.model_id,
            other_model_id=other.info.model_id if others is not None else None,
            is_hasty=target.is_hasty,
        )


class ChangingCall:
    """One call of a function that changes values: a numbered message for each part.

    Args:
        runtime: this process's.
        target: the model.
        other: the second model, into which it only looks; or the first.
        function: which.
        cutting: the selection and the arguments.
    """

    def __init__(
        self,
        runtime: Runtime,
        target: AnyTarget,
        other: AnyTarget | None,
        function: Changing,
        cutting: AnyCutting,
    ) -> None:
        self._runtime = runtime
        self._target = target
        self._other = other or target
        self._function = function
        self._cutting = cutting
        self._deadline = runtime.deadline(target.timeout_s)
        self.future: Future[None] = Future()
        self.future.bringer = runtime

    def start(self) -> Future[None]:
        """Send all parts."""
        runtime, info = self._runtime, self._target.info
        runtime.outbox.issue()  # what was asked for before comes before
        calls = self._calls()
        if not calls:
            self.future.set_result(None)
            return self.future
        for server in {server for server, _ in calls}:
            runtime.link(*self._cutting.servers[server])
        parts = _Parts(
            runtime,
            self._target,
            self._cutting.servers,
            kind="push",
            doing=_doing(self._function, self._target, self._other),
            finished=lambda: self._finish(parts),
        )
        runtime.pushes.add(info.model_id, info.spec.name, (self.future,))
        try:
            parts.issue(calls)
        except BaseException:
            runtime.pushes.done((self.future,))  # the caller gets no future; nobody waits for it
            raise
        return self.future

    def _finish(self, parts: _Parts) -> None:
        error = parts.error()
        info, pushes = self._target.info, self._runtime.pushes
        if error is None:
            self.future.set_result(None)
        else:
            # A flush that runs meanwhile must find the failure, or a push that is still open.
            pushes.failed(info.model_id, info.spec.name, self.future)
            self.future.set_exception(error)
        pushes.done((self.future,))

    def _calls(self) -> list[tuple[int, Call]]:
        function, cutting = self._function, self._cutting
        numbering = _Numbering(self._runtime)
        if not function.by_cell:
            return [
                (ask.server, self._call(ask, *numbering.next(ask.server))) for ask in function.asks(cutting)
            ]
        return [
            (
                server,
                self._call(
                    Ask(server, part.selection.rows, part.rows_at, cutting.arrays_at(part.rows_at)),
                    *numbering.next(server),
                    cols=part.selection.cols,
                ),
            )
            for server, part in cutting.cells()
        ]

    def _call(self, ask: Ask, request_id: int, part: int, *, cols: Array | None = None) -> Call:
        info, function, other = self._target.info, self._function, self._other.info
        selection, others, arrays = Selection(ask.rows, cols), ask.others, ask.arrays
        name, numbers = name_of(function), wire.document(function.to_content())
        three = as_fields(arrays)
        shape = selection.shape(self._target.num_cols)

        def build(stamp: Stamp) -> Change:
            return Change(
                request_id,
                stamp.session,
                stamp.floor,
                stamp.sequence,
                info.model_id,
                info.routing,
                other.model_id if others is not None else 0,
                other.routing if others is not None else 0,
                part,
                name,
                numbers,
                selection.rows,
                cols,
                others,
                *three,
            )

        num_rows = shape[0] if ask.touches is None else ask.touches
        num_cells = num_rows * (shape[1] if len(shape) == 2 else 1)
        return Call(
            request_id,
            build,
            settle=_unset,
            part=part,
            deadline=self._deadline,
            cost_bytes=max(1, num_cells * self._target.dtype.itemsize)
            + sum(array.nbytes for array in arrays),
            model_id=info.model_id,
            numbered=True,
            is_hasty=self._target.is_hasty,
        )


def _doing(function: Function, target: AnyTarget, other: AnyTarget) -> str:
    """Return what a call does, for people: the model's name follows."""
    second = "" if other is target else f" with {other.info.spec.name!r}"
    return f"function {function.name!r}{second} of"


def _nobody() -> None:
    """Stand for who was told."""


def _unset(result: Result) -> None:
    raise AssertionError(f"settled before it was issued: {result!r}")
