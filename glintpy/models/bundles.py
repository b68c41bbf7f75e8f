"""Small pulls, or small pushes, of one model that travel as one request; knows no socket.

A request of a few rows costs a client, a server and the threads between them far more than its rows do. So while
others are under way a small one is put off, for as long as it takes until somebody waits, and those that are asked
for meanwhile join it: their keys are located, cut and encoded together, the server reads or adds them in one loop,
and its one answer is dealt out. Nobody waits for more to come: with nothing under way each is sent at once.

It can't be told from sending one by one: pushes are applied in the order issued, a pull comes after the pushes
before it, and each future has its own outcome, by what became of it at the servers that it touches.
"""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy import config
from glintpy.errors import GlintError, LocalProtocolError
from glintpy.futures import Future
from glintpy.models.dispatch import AnyTarget, Dispatch
from glintpy.models.indexing import Asked, Keys
from glintpy.models.requests import Finish, Requester
from glintpy.protocol.outcomes import Kind
from glintpy.runtime import Runtime


def pull(runtime: Runtime, target: AnyTarget, asked: Asked, out: NDArray[Any] | None) -> Future[Any]:
    """Read what is asked for, together with others if that is worth while.

    Args:
        runtime: this process's.
        target: the model.
        asked: not empty.
        out: ``asked.shape``, to be written into; None: the result is a new array.
    """
    if not target.turn.tag:
        future = _joined(runtime, target, asked, "pull", out)
        if future is not None:
            return future
    else:
        runtime.outbox.issue()  # what was asked for before comes before, and others don't wait for a round
    into = None if out is None else asked.to_wire(out)
    finish: Finish = asked.finish if out is None else lambda _: out
    return Requester(runtime, target, asked, kind="pull").pull(into, finish)


def push(runtime: Runtime, target: AnyTarget, asked: Asked, values: NDArray[Any]) -> Future[Any]:
    """Send values, together with others if that is worth while; they are copied when the call returns.

    Args:
        runtime: this process's.
        target: the model.
        asked: not empty.
        values: ``asked.shape``.
    """
    if not target.turn.tag:
        future = _joined(runtime, target, asked, "push", values)
        if future is not None:
            return future
    else:
        runtime.outbox.issue()
    return Requester(runtime, target, asked, kind="push").push(asked.to_wire(values))


class Bundle:
    """Requests of one kind to one model, until they are issued.

    Args:
        runtime: this process's.
        target: the model.
        kind: of all of them.
        paired: whether all of them name elements, rather than rows or keys.
    """

    def __init__(self, runtime: Runtime, target: AnyTarget, kind: Kind, *, paired: bool) -> None:
        self._runtime = runtime
        self._target = target
        self._kind: Kind = kind
        self._paired = paired
        self._members: list[_Member] = []
        self._values: NDArray[Any] | None = None
        self._is_issued = False
        self.num_bytes = 0
        """Of the keys and values of all of them."""

    def takes(self, target: AnyTarget, asked: Asked, kind: Kind) -> bool:
        """Whether a request is of the same kind to the same model, under the same settings."""
        return (
            self._target is target
            and self._kind == kind
            and self._paired == asked.paired
            and not self._is_issued
        )

    @property
    def is_full(self) -> bool:
        """Whether it should be issued now."""
        return len(self._members) >= config.BUNDLE_REQUESTS or self.num_bytes >= config.BUNDLE_BYTES

    def join(self, asked: Asked, num_bytes: int, array: NDArray[Any] | None) -> Future[Any]:
        """Add a request.

        Args:
            asked: the selection.
            num_bytes: of its keys and values.
            array: the values of a push; the ``out`` of a pull.
        """
        future: Future[Any] = Future()
        future.bringer = self._runtime
        rows = asked.rows if type(asked.rows) is np.ndarray else _listed(asked.rows)
        cols = _listed(asked.cols) if asked.cols is not None else None
        first = self._members[-1][-1] if self._members else 0
        stop = first + len(rows)
        if self._kind == "push":
            assert array is not None, "a push has values"
            if self._values is None:
                self._values = self._new_buffer()
            self._values[first:stop] = asked.to_wire(array)
            array = None
        # In one step: Ctrl-C between two would leave rows without their values, and shift all that follow.
        self._members.append((asked, rows, cols, array, future, stop))
        self.num_bytes += num_bytes
        return future

    def _new_buffer(self) -> NDArray[Any]:
        """Return room for the values of all pushes that may join: one array, so that each is copied once."""
        target = self._target
        value_bytes = target.dtype.itemsize if self._paired else target.row_bytes
        rows_max = (config.BUNDLE_BYTES + config.SMALL_BYTES) // (value_bytes + 8) + 1
        return np.empty((rows_max, *(() if self._paired else target.row_shape)), target.dtype)

    def issue(self) -> None:
        """Send it, once; whatever goes wrong here is the outcome of its members."""
        if self._is_issued or not self._members:
            return
        self._is_issued = True
        dispatch: Dispatch | None = None
        try:
            info, pushes = self._target.info, self._runtime.pushes
            rows = _joint([member[1] for member in self._members])
            cols = _joint([member[2] for member in self._members if member[2] is not None])
            shape = (len(rows),) if self._paired else (len(rows), *self._target.row_shape)
            asked = Asked(rows, cols if self._paired else None, self._paired, shape, shape)
            dispatch = Dispatch(self._runtime, self._target, asked, kind=self._kind, finished=self._finished)
            if self._kind == "pull":
                dispatch.pull()
            else:
                assert self._values is not None
                pushes.add(info.model_id, info.spec.name, self._futures())
                # Whoever comes by issues it, also the thread that receives: room must not be waited for there.
                dispatch.push(self._values[: len(rows)], is_ours=True, waits_for_room=False)
        except BaseException as error:
            if dispatch is not None:
                dispatch.abandon()
            self._fail(error)
            if not isinstance(error, Exception):
                raise  # Ctrl-C is its thread's too

    def _finished(self, dispatch: Dispatch) -> None:
        error = dispatch.error()
        if error is not None:
            self._finish_each(dispatch)
        elif self._kind == "pull":
            assert dispatch.values is not None
            self._deal(dispatch.values)
        else:
            for future in self._futures():
                future.set_result(None)
        if self._kind == "push":
            self._runtime.pushes.done(self._futures())

    def _futures(self) -> list[Future[Any]]:
        return [member[4] for member in self._members]

    def _deal(self, values: NDArray[Any]) -> None:
        """Give each member its own copy: one that is kept must not keep all the others."""
        first = 0
        for asked, _, _, out, future, stop in self._members:
            _deal_to(future, asked, values[first:stop], out)
            first = stop

    def _finish_each(self, dispatch: Dispatch) -> None:
        """Tell each member what became of it: by the servers that it touches, and not by the others'."""
        first = 0
        info = self._target.info
        for asked, rows, _, out, future, stop in self._members:
            servers = {share.server for share in self._target.locate(rows)}
            error = dispatch.error(servers)
            if error is not None:
                error = _copied(error)  # raised in several threads, perhaps, and each adds its traceback
                if self._kind == "push":
                    self._runtime.pushes.failed(info.model_id, info.spec.name, future)
                future.set_exception(error)
            elif self._kind == "push":
                future.set_result(None)
            else:
                assert dispatch.values is not None
                _deal_to(future, asked, dispatch.values[first:stop], out)
            first = stop

    def _fail(self, error: BaseException) -> None:
        info = self._target.info
        for future in self._futures():
            if not future.done():
                # Ctrl-C was told to whom it came; a flush must not raise it again.
                if self._kind == "push" and isinstance(error, Exception):
                    self._runtime.pushes.failed(info.model_id, info.spec.name, future)
                future.set_exception(error)
        self._runtime.pushes.done(self._futures())


_Member = tuple[Asked, NDArray[np.int64], NDArray[np.int64] | None, NDArray[Any] | None, Future[Any], int]
"""What was asked, its rows, its columns if they are paired, a pull's ``out``, its future, and where its values stop."""


def _joined(
    runtime: Runtime, target: AnyTarget, asked: Asked, kind: Kind, array: NDArray[Any] | None
) -> Future[Any] | None:
    """Return the future of a request that joined a bundle, or None: it is to be issued by itself, now."""
    outbox = runtime.outbox
    num_bytes = _num_bytes(asked, target)
    if num_bytes > config.SMALL_BYTES or (
        kind == "push" and not ((target.joins_cells or not asked.paired) and runtime.has_room(num_bytes))
    ):
        outbox.issue()
        return None
    with outbox.lock:
        bundle = outbox.open
        if not (isinstance(bundle, Bundle) and bundle.takes(target, asked, kind)):
            outbox.issue_locked()
            if outbox.is_closed or not runtime.is_busy:
                return None
            bundle = outbox.open = Bundle(runtime, target, kind, paired=asked.paired)
            runtime.poke()
        future = bundle.join(asked, num_bytes, array)
        has_room = kind == "pull" or runtime.has_room(bundle.num_bytes)
        if bundle.is_full or not has_room or not runtime.is_busy:
            outbox.issue_locked()
        return future


def _num_bytes(asked: Asked, target: AnyTarget) -> int:
    """Return the bytes of a request that may join others; of one that may not, too many."""
    if asked.cols is not None and not asked.paired:
        return config.SMALL_BYTES + 1
    if isinstance(asked.rows, range) and len(asked.rows) > config.SMALL_SLICE_ROWS:
        return config.SMALL_BYTES + 1
    num_bytes = target.dtype.itemsize if asked.paired else target.row_bytes
    return asked.wire_shape[0] * (num_bytes + 8)


def _copied(error: GlintError) -> GlintError:
    copied = copy.copy(error)
    if error.__cause__ is not None:
        copied.__cause__ = error.__cause__  # which a copy leaves behind
    return copied


def _joint(arrays: list[NDArray[np.int64]]) -> NDArray[np.int64]:
    return arrays[0] if len(arrays) == 1 else np.concatenate(arrays) if arrays else np.empty(0, np.int64)


def _listed(keys: Keys) -> NDArray[np.int64]:
    return np.arange(keys.start, keys.stop, keys.step, dtype=np.int64) if isinstance(keys, range) else keys


def _deal_to(future: Future[Any], asked: Asked, values: NDArray[Any], out: NDArray[Any] | None) -> None:
    try:
        if out is None:
            future.set_result(asked.finish(values.copy()))
        else:
            asked.to_wire(out)[...] = values
            future.set_result(out)
    except (ValueError, MemoryError) as error:
        # Its ``out`` is read-only by now, or there is no memory for its copy.
        future.set_exception(LocalProtocolError(f"the values came and can't be kept: {error!r}"))
