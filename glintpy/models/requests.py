"""Pulls and pushes as users see them: one dispatch, one future; knows no user's type."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from numpy.typing import NDArray

from glintpy.futures import Future
from glintpy.models.dispatch import AnyTarget, Dispatch, Target
from glintpy.models.indexing import Asked
from glintpy.protocol.outcomes import Kind
from glintpy.runtime import Runtime

__all__ = ["AnyTarget", "Requester", "Target"]

Finish = Callable[[NDArray[Any]], Any]


class Requester:
    """Issues one pull or push; what is asked for must not be empty."""

    def __init__(self, runtime: Runtime, target: AnyTarget, asked: Asked, *, kind: Kind) -> None:
        self._runtime = runtime
        self._info = target.info
        self._kind = kind
        self._finish: Finish | None = None
        self._dispatch = Dispatch(runtime, target, asked, kind=kind, finished=self._finished)
        self.future: Future[Any] = Future()
        self.future.bringer = runtime

    def pull(self, into: NDArray[Any] | None, finish: Finish) -> Future[Any]:
        """Read what is asked for.

        Args:
            into: of the asked wire shape; written part by part. None: an array is made.
            finish: makes the future's value of that array.
        """
        self._finish = finish
        self._dispatch.pull(into)
        return self.future

    def push(
        self,
        values: NDArray[Any],
        *,
        assign: bool = False,
        into: NDArray[Any] | None = None,
        finish: Finish | None = None,
    ) -> Future[Any]:
        """Send values; the call returns when they are copied.

        Args:
            values: of the asked wire shape.
            assign: store them as they are.
            into: push_pull: where the values after the push go, of the wire shape; None: an array is made.
            finish: push_pull: makes the future's value of that array; None: nothing is read.
        """
        self._finish = finish
        info, pushes = self._info, self._runtime.pushes
        pushes.add(info.model_id, info.spec.name, (self.future,))
        try:
            self._dispatch.push(values, assign=assign, wants_values=finish is not None, into=into)
        except BaseException:
            pushes.done((self.future,))  # the caller gets no future; nobody waits for it
            raise
        return self.future

    def _finished(self, dispatch: Dispatch) -> None:
        error = dispatch.error()
        info, pushes = self._info, self._runtime.pushes
        # A flush that runs meanwhile must find the failure, or a push that is still open, whose future it waits for.
        if self._kind == "push" and error is not None:
            pushes.failed(info.model_id, info.spec.name, self.future)
        if error is not None:
            self.future.set_exception(error)
        elif self._finish is None:
            self.future.set_result(None)
        else:
            assert dispatch.values is not None
            self.future.set_result(self._finish(dispatch.values))
        if self._kind == "push":
            pushes.done((self.future,))
