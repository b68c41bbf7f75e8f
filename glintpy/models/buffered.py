"""Gathers small pushes and sends few large ones; knows of a model only what ``Model`` says.

Pushes to the same key become one before anything travels, by the updater's own rule. Counts of a topic
model or gradients of frequent words hit the same few keys over and over: sent one by one they would cost a
request each, and gathered they cost one entry.
"""

from __future__ import annotations

import logging
import os
import threading
import warnings
import weakref
from collections.abc import Callable
from concurrent.futures import wait
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glintpy.config import MIB
from glintpy.errors import ConfigError, GlintError
from glintpy.futures import Future, completed, derived, failed, gather
from glintpy.models.consistency import check_pushes
from glintpy.models.dense import BigModel
from glintpy.models.indexing import Asked, Keys, parse_pull
from glintpy.models.values import parse_values
from glintpy.scalars import plain
from glintpy.updaters import Add, Updater

__all__ = ["Model", "PushBuffer"]

_logger = logging.getLogger("glintpy.models")


class Model(Protocol):
    """What a buffer needs of a matrix or a vector."""

    @property
    def shape(self) -> tuple[int, ...]:
        """(rows, columns), or (size,) of a vector."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of its values."""

    @property
    def finite(self) -> bool:
        """Whether it refuses NaN and infinities."""

    @property
    def updater(self) -> Updater:
        """How pushes are applied."""

    @property
    def push(self) -> Callable[..., Future[None]]:
        """Send updates: ``push(rows, values, cols=...)``, or ``push(keys, values)`` of a vector."""


class PushBuffer:
    """Gathers pushes to a matrix or a vector and sends them combined.

    ::

        with PushBuffer(m) as buffer:
            for topic, word in assignments:
                buffer.push([word], 1, cols=[topic])

    A full buffer is first combined by key, and sent in the background only if it is still more than half
    full: pushes that keep hitting the same keys stay for long. One such flush is under way at a time: a
    push that fills the buffer before the last flush is applied waits for it, in the call.

    Leaving ``with`` flushes and waits. Left by an exception it discards what is buffered and warns with the
    number of pushes. Pulls don't see what is buffered. In a forked child the buffer is empty: what was
    buffered is the parent's to send.

    Args:
        model: a matrix or a vector.
        max_bytes: of keys and values, from which on it is full.

    Raises:
        ConfigError: ``max_bytes`` below 1 or not an integer; or a handle that can't push, see ``BigModel.group``.
        TypeError: another model.

    Threads:
        Safe from any thread: they fill one buffer. Use one a thread where they'd contend for it.
    """

    _num_pushes: int = 0

    def __init__(self, model: Model, *, max_bytes: int = 4 * MIB) -> None:
        max_bytes = plain(max_bytes)
        if type(max_bytes) is not int or max_bytes < 1:
            raise ConfigError(f"max_bytes is an integer of at least 1, not {max_bytes!r}")
        if isinstance(model, BigModel):
            check_pushes(model.spec, model.group)  # rather than when it is full
        if not hasattr(model, "shape"):
            raise TypeError(
                f"a PushBuffer is for a matrix or a vector, not a {type(model).__name__}; small pushes to a table "
                "travel together by themselves"
            )
        self._model = model
        self._num_rows = model.shape[0]
        self._num_cols = model.shape[1] if len(model.shape) > 1 else None
        self._max_bytes = max_bytes
        self._updater = model.updater
        self._begin()
        _buffers.add(self)

    def _begin(self) -> None:
        """Be new: when made, and in a forked child, where no thread is left that could hold the lock."""
        self._lock = threading.Lock()
        self._clear()

    def _clear(self) -> None:
        self._rows = _Gathered(self._updater)
        self._elements = _Gathered(self._updater)
        self._num_pushes = 0
        self._in_flight: Future[None] | None = None

    @property
    def num_bytes(self) -> int:
        """Bytes of the keys and values that are buffered."""
        return self._rows.num_bytes + self._elements.num_bytes

    @property
    def num_pushes(self) -> int:
        """Calls of ``push`` whose updates are buffered and not yet sent."""
        return self._num_pushes

    def push(self, rows: Any, values: ArrayLike, *, cols: Any = None) -> None:
        """Buffer updates; the arguments are those of the model's own ``push``, and copied.

        Args:
            rows: (n,) integers, or whatever else ``model.push`` takes; the keys of a vector.
            values: broadcast against what ``model.pull`` with the same keys would return.
            cols: (n,) integers paired with ``rows``, or columns alone with ``rows`` None.

        Raises:
            ShapeError, KeyRangeError, DTypeError: a mistake in this call.
            GlintError: an earlier flush failed and nobody was told yet. In both cases this call has
                buffered nothing.
        """
        asked = parse_pull(rows, cols, num_rows=self._num_rows, num_cols=self._num_cols)
        given = parse_values(values, shape=asked.shape, dtype=self._model.dtype, finite=self._model.finite)
        with self._lock:
            self._raise_failure()
            if asked.empty:
                return
            self._gather(asked, given)
            self._num_pushes += 1
            if self.num_bytes > self._max_bytes:
                self._make_room()

    def flush(self) -> Future[None]:
        """Send what is buffered, now.

        Returns:
            A future that is done when this and everything sent before is applied.

        The future raises:
            What ``model.push`` raises, for anything sent whose failure nobody was told yet.
        """
        with self._lock:
            self._send()
            return completed(None) if self._in_flight is None else self._in_flight

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if kind is None:
            self.flush().result()
            return
        with self._lock:
            num_discarded, in_flight = self._num_pushes, self._in_flight
            self._clear()
        if in_flight is not None and not in_flight.seen:
            # Another exception is on its way out: this one is told without getting in its way.
            in_flight.add_done_callback(_log_failure)
        if num_discarded:
            warnings.warn(
                f"{num_discarded} buffered pushes were discarded, since the buffer was left by "
                f"{kind.__name__}; call flush() before what may fail to keep them",
                RuntimeWarning,
                stacklevel=2,
            )

    def __del__(self) -> None:
        if self._num_pushes:
            warnings.warn(
                f"a PushBuffer was dropped with {self._num_pushes} pushes in it, which are lost; use it in "
                "a with statement, or call flush()",
                ResourceWarning,
                source=self,
                stacklevel=2,
            )

    def _gather(self, asked: Asked, given: NDArray[Any]) -> None:
        """Copy a push into the rows or the elements."""
        values = asked.to_wire(given)  # a view, perhaps of the caller's own array
        if not isinstance(self._updater, Add) and (
            self._elements.num_bytes if asked.cols is None else self._rows.num_bytes
        ):
            # Sums of rows and of elements may go in any order; by other rules the later one comes later.
            self._send()
        if asked.cols is None:
            self._rows.add(_written(asked.rows), values.copy())
            return
        assert self._num_cols is not None
        rows, cols = _written(asked.rows), _written(asked.cols)
        if not asked.paired:
            rows = rows[:, np.newaxis]  # (rows, 1) against (cols,)
        # A model has fewer than 2**62 cells, so no key overflows.
        self._elements.add((rows * self._num_cols + cols).ravel(), values.flatten())

    def _make_room(self) -> None:
        self._rows.combine()
        self._elements.combine()
        # Were it sent when hardly fuller than full, or kept when hardly emptier, then each further push
        # would combine all of it again.
        if 2 * self.num_bytes > self._max_bytes:
            if self._in_flight is not None:
                wait([self._in_flight])  # its failure, if any, goes on to what is sent now
            self._send()

    def _send(self) -> None:
        """Send what is buffered; what is in flight from then on is that and everything before."""
        in_flight = self._in_flight
        if in_flight is not None and in_flight.done() and in_flight.seen:
            in_flight = None
        # Rows and elements are two pushes, in any order: of other updaters than sums there is only one kind.
        pushes = []
        if self._rows.num_bytes:
            keys, values = self._rows.take()
            pushes.append(self._pushed(keys, values))
        if self._elements.num_bytes:
            keys, values = self._elements.take()
            assert self._num_cols is not None
            rows, cols = np.divmod(keys, self._num_cols)
            pushes.append(self._pushed(rows, values, cols=cols))
        self._num_pushes = 0
        if pushes:
            before = [] if in_flight is None else [in_flight]
            in_flight = derived(gather(*before, *pushes), _nothing)
        self._in_flight = in_flight

    def _pushed(self, *arguments: NDArray[Any], **cols: NDArray[Any]) -> Future[None]:
        try:
            return self._model.push(*arguments, **cols)
        except GlintError as error:
            # Not this call's mistake: the model is gone, or sums of finite numbers became infinite.
            return failed(error)

    def _raise_failure(self) -> None:
        """Raise the failure of what was sent, once, unless somebody looked at it already."""
        in_flight = self._in_flight
        if in_flight is None or not in_flight.done():
            return
        self._in_flight = None
        if not in_flight.seen:
            in_flight.result()


class _Gathered:
    """Keys and an update for each, in pieces as they came."""

    def __init__(self, updater: Updater) -> None:
        self.num_bytes = 0
        self._updater = updater
        self._keys: list[NDArray[np.int64]] = []
        self._values: list[NDArray[Any]] = []
        self._is_combined = False

    def add(self, keys: NDArray[np.int64], values: NDArray[Any]) -> None:
        """Keep (n,) keys and (n, ...) values, from now on ours."""
        self._keys.append(keys)
        self._values.append(values)
        self.num_bytes += keys.nbytes + values.nbytes
        self._is_combined = False

    def combine(self) -> None:
        """Make one update of all updates to the same key."""
        if self._keys:
            keys, values = self.take()
            self.add(keys, values)
            self._is_combined = True

    def take(self) -> tuple[NDArray[np.int64], NDArray[Any]]:
        """Return what there is, combined, and be empty."""
        if self._is_combined:
            (keys,), (values,) = self._keys, self._values
        else:
            keys, values = self._updater.combine(np.concatenate(self._keys), np.concatenate(self._values))
        self._keys, self._values, self.num_bytes = [], [], 0
        return keys, values


_buffers: weakref.WeakSet[PushBuffer] = weakref.WeakSet()


def _begin_all() -> None:
    for buffer in list(_buffers):
        buffer._begin()  # noqa: SLF001  the same module


if hasattr(os, "register_at_fork"):
    # Both processes would send what was buffered at the fork, and it would count twice.
    os.register_at_fork(after_in_child=_begin_all)


def _written(keys: Keys) -> NDArray[np.int64]:
    """Return keys as (n,) int64, ranges written out."""
    return np.arange(keys.start, keys.stop, keys.step, dtype=np.int64) if isinstance(keys, range) else keys


def _nothing(_: object) -> None:
    """Stand for the results of pushes, which have none."""


def _log_failure(flush: Future[None]) -> None:
    error = flush.exception()
    if error is not None:
        _logger.error("pushes sent by a PushBuffer that was left by an exception failed: %r", error)
