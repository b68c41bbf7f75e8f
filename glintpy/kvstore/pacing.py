"""Requests of one worker: some are under way, others wait and leave by priority; knows no key and no value."""

from __future__ import annotations

import atexit
import heapq
import logging
import os
import queue
import threading
import time
import weakref
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from multiprocessing import util as multiprocessing_util
from typing import Any

from glintpy import Future, GlintError

logger = logging.getLogger("glintpy.kvstore")

UNDER_WAY_MAX = 256
"""Requests that are under way at once."""

UNDER_WAY_BYTES = 8 << 20
"""Their values, together; one request may be larger."""

LOOK_S = 0.25
"""How long who waits for a request that hasn't left looks at one that has."""


@dataclass(slots=True, eq=False)
class Asked:
    """A request.

    Attributes:
        timestamp: its number.
        priority: higher ones leave first.
        num_bytes: of its values.
        send: has it leave, and returns what it becomes.
        finish: makes of that what the caller wants, writes it where the caller said, and returns it.
        keep: called once if it doesn't leave at once: copies what is the caller's.
        callback: of the caller's.
        future: what it becomes; None: it waits.
        values: what ``finish`` returned.
        error: why it failed, or what the callback raised.
        pacing: what is to hear that it is done; None: it heard. A future keeps the hooks that have run, and others may
            keep the future.
    """

    timestamp: int
    priority: int
    num_bytes: int
    send: Callable[[], Future[Any]]
    finish: Callable[[Any], Any]
    keep: Callable[[], None]
    callback: Callable[[], object] | None = None
    future: Future[Any] | None = None
    values: Any = None
    error: BaseException | None = None
    pacing: Pacing | None = None
    is_hooked: bool = False
    finisher: threading.Thread | None = None
    is_over: threading.Event = field(default_factory=threading.Event)

    def __lt__(self, other: Asked) -> bool:
        return (-self.priority, self.timestamp) < (-other.priority, other.timestamp)


class Pacing:
    """Has requests leave: those of the same priority in order, others by priority where they have to wait.

    Threads:
        Safe from any thread.
    """

    def __init__(self) -> None:
        # Held while requests leave, so that they do so in order.
        self._lock = threading.RLock()
        self._claiming = threading.Lock()
        self._waiting: list[Asked] = []
        self._under_way: list[Asked] = []  # those that are done are taken out where the room is needed
        self._num_bytes = 0
        self._is_leaving = False
        self._is_at_end = False
        self._pid = os.getpid()
        _see_to_the_end(self)
        # Not the thread that makes the request: a callback that waits would hold it up.
        self._callbacks = _Callbacks()

    def close(self, *, joins: bool) -> None:
        """End the thread of callbacks, behind those that are due.

        Args:
            joins: return when it has ended. Not where a callback may hang.
        """
        self._callbacks.close(joins=joins)

    def add(self, asked: Asked) -> None:
        """Take a request; it leaves at once if there is room and none waits."""
        with self._lock:
            heapq.heappush(self._waiting, asked)
            sent = self._depart()
            if asked.future is None:
                asked.keep()
        self._watch(sent)

    def send_all(self) -> None:
        """Have all leave, room or not: the process ends, and will see to what has left."""
        if os.getpid() == self._pid:  # a forked child has copies, and a lock that the parent may have held
            self._is_at_end = True
            self._leave()

    def finish(self, asked: Asked, timeout_s: float | None = None) -> None:
        """Return when a request is over: done, finished, and its callback has run, here or elsewhere.

        Args:
            asked: a request.
            timeout_s: seconds to wait; None: as long as the client's deadline has it.

        Raises:
            TimeoutError: it isn't over in time.
            GlintError: its own callback waits for it.
        """
        end = None if timeout_s is None else time.monotonic() + timeout_s
        while asked.future is None:
            self._await_room(asked, end, timeout_s)
        try:
            asked.future.exception(_left(end))
        except TimeoutError:
            raise TimeoutError(f"request {asked.timestamp} is not done within {timeout_s:g} s") from None
        if self._finish(asked):
            return
        if asked.finisher is threading.current_thread() and not asked.is_over.is_set():
            raise GlintError(
                f"request {asked.timestamp} is over when its callback has returned, which so can't wait for it"
            )
        if not asked.is_over.wait(_left(end)):
            raise TimeoutError(f"the callback of request {asked.timestamp} still runs after {timeout_s:g} s")

    def _await_room(self, asked: Asked, end: float | None, timeout_s: float | None) -> None:
        """Have requests leave from here: the thread that else does so may be where this waits."""
        self._leave()
        with self._lock:
            first = self._under_way[0].future if self._under_way else None
        if asked.future is not None or first is None:
            return
        left_s = _left(end)
        try:
            first.exception(LOOK_S if left_s is None else min(LOOK_S, left_s))
        except TimeoutError:
            if end is not None and time.monotonic() >= end:
                raise TimeoutError(
                    f"request {asked.timestamp} still waits for others to be done after {timeout_s:g} s"
                ) from None

    # --- leaving --------------------------------------------------------------------------------------------------

    def _leave(self, _: object = None) -> None:
        with self._lock:
            sent = self._depart()
        self._watch(sent)

    def _depart(self) -> list[Asked]:
        """Have all leave that there is room for, and look again when one of those under way is done."""
        sent: list[Asked] = []
        if self._is_leaving or os.getpid() != self._pid:
            return (
                sent  # this very thread will look again; a forked child has copies of what the parent sends
            )
        self._is_leaving = True
        try:
            while True:
                while self._has_room():
                    asked = heapq.heappop(self._waiting)
                    self._send(asked)
                    sent.append(asked)
                self._hook()
                # One that was done before it was hooked has been passed over.
                if not self._has_room():
                    return sent
        finally:
            self._is_leaving = False

    def _has_room(self) -> bool:
        if not self._waiting:
            return False
        if self._is_at_end or self._fits():
            return True
        self._under_way = [one for one in self._under_way if one.future is not None and not one.future.done()]
        self._num_bytes = sum(one.num_bytes for one in self._under_way)
        return not self._under_way or self._fits()

    def _fits(self) -> bool:
        return (
            len(self._under_way) < UNDER_WAY_MAX
            and self._num_bytes + self._waiting[0].num_bytes <= UNDER_WAY_BYTES
        )

    def _send(self, asked: Asked) -> None:
        try:
            future = asked.send()
        except Exception as error:  # noqa: BLE001 - whoever waits for it hears of it
            future = Future()
            future.set_exception(error)
        asked.pacing = self
        asked.is_hooked = asked.callback is not None  # when the lock is free
        asked.future = future
        self._under_way.append(asked)
        self._num_bytes += asked.num_bytes

    def _hook(self) -> None:
        """Where some wait, hear of each that is done."""
        if not self._waiting:
            return
        for one in self._under_way:
            if not one.is_hooked and one.future is not None:
                one.is_hooked = True
                one.future.add_done_callback(partial(_done, one))

    def _watch(self, sent: list[Asked]) -> None:
        """Hear of each that has a callback when it is done, also if it is already."""
        for asked in sent:
            if asked.callback is not None and asked.future is not None:
                asked.future.add_done_callback(partial(_done, asked))

    def _hear(self, asked: Asked) -> None:
        if asked.callback is not None:
            self._callbacks.put(partial(self._finish, asked))
        self._leave()

    # --- finishing ------------------------------------------------------------------------------------------------

    def _finish(self, asked: Asked) -> bool:
        """Finish a request that is done, if nobody does so; return whether it was done here."""
        with self._claiming:
            if asked.finisher is not None:
                return False
            asked.finisher = threading.current_thread()
        assert asked.future is not None, "it has left"
        try:
            asked.values = asked.finish(asked.future.result())
            if asked.callback is not None:
                asked.callback()
        except Exception as error:
            if asked.callback is not None:
                logger.exception("request %d, or its callback, failed", asked.timestamp)
            asked.error = error
        except BaseException as error:
            asked.error = error
            raise
        finally:
            asked.is_over.set()
        return True


def _done(asked: Asked, _: object) -> None:
    pacing, asked.pacing = asked.pacing, None
    if pacing is not None:
        pacing._hear(asked)  # noqa: SLF001 - the same module


class _Callbacks:
    """A thread for callbacks, made when the first is due.

    It is a daemon, so that a callback that hangs keeps no process from ending; and it ends with who has it, also where
    that is forgotten and not closed.
    """

    def __init__(self) -> None:
        self._due: queue.SimpleQueue[Callable[[], object] | None] = queue.SimpleQueue()
        self._lock = threading.Lock()
        self._thread: threading.Thread | None = None
        self._is_closed = False
        weakref.finalize(self, self._due.put, None).atexit = False

    def put(self, work: Callable[[], object]) -> None:
        """Have something done behind all that is due.

        After the end it isn't: whoever waits for the request does it then.
        """
        with self._lock:
            if self._is_closed:
                return
            self._due.put(work)
            if self._thread is None or not self._thread.is_alive():  # as in a forked child
                self._thread = threading.Thread(
                    target=_run_all, args=(self._due,), name="glintpy-kvworker", daemon=True
                )
                self._thread.start()

    def close(self, *, joins: bool) -> None:
        """End the thread behind what is due."""
        with self._lock:
            self._is_closed = True
            self._due.put(None)
        if joins and self._thread is not None and self._thread is not threading.current_thread():
            self._thread.join()


def _run_all(due: queue.SimpleQueue[Callable[[], object] | None]) -> None:
    while True:
        work = due.get()
        if work is None:
            return
        try:
            work()
        except BaseException:  # as of sys.exit(): it would end this thread, and so all later callbacks
            logger.exception("a callback tried to leave its thread")
        del work  # else it would keep alive, until the next is due, who has this thread


def _left(end: float | None) -> float | None:
    return None if end is None else max(0.0, end - time.monotonic())


_pacings: weakref.WeakSet[Pacing] = weakref.WeakSet()

_finalizer_pid = 0


def _see_to_the_end(pacing: Pacing) -> None:
    """Have requests leave when the process ends, before its pushes are flushed and its connections closed."""
    global _finalizer_pid  # noqa: PLW0603 - once a process
    _pacings.add(pacing)
    if _finalizer_pid != os.getpid():
        _finalizer_pid = os.getpid()
        # A multiprocessing child runs no atexit functions, only these, those of higher priorities first.
        multiprocessing_util.Finalize(None, _send_all, exitpriority=200)


def _send_all() -> None:
    for pacing in list(_pacings):
        pacing.send_all()


atexit.register(_send_all)
