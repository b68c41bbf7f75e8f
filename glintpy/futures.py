"""The public future: a ``concurrent.futures.Future`` that can also be awaited, and ways to join several.

Knows nothing of requests, models or sockets: whoever makes a future completes it.
"""

from __future__ import annotations

import concurrent.futures
import logging
import os
import queue
import threading
import time
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import CancelledError
from concurrent.futures._base import FINISHED, RUNNING
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from glintpy.errors import RequestError

if TYPE_CHECKING:
    import asyncio

__all__ = ["Future", "completed", "derived", "failed", "gather"]

T = TypeVar("T")
U = TypeVar("U")

NOTES_MAX = 8
"""Further failures that ``gather`` describes; a thousand pushes to one dead server fail alike."""

_logger = logging.getLogger("glintpy.futures")


class Bringer(Protocol):
    """Who brings answers."""

    def wait_for(self, is_done: Callable[[], bool], timeout_s: float | None) -> None:
        """Work for a thread that waits until its answer is there; may return early, and waiting then goes on."""
        ...

    def expect_others(self) -> None:
        """Note that somebody waits who can't be given work: never waits itself."""
        ...


class Future(concurrent.futures.Future[T]):
    """The outcome of a request, now or later.

    Everything of ``concurrent.futures`` works with it: ``result``, ``exception``, ``wait``,
    ``as_completed``, ``add_done_callback``; and ``await future`` in asyncio, which never blocks the loop.

    It is running from birth, so ``cancel()`` is False: a request that was issued is issued. An asyncio
    timeout or cancellation stops only the waiting, and so does ``result(timeout)``.

    In a process forked from the one that made it, a future that isn't done fails at once with a
    ``RequestError``: its answer goes to the parent.

    Attributes:
        seen: whether somebody looked at the outcome, or will: ``result`` or ``exception`` told it, it was
            awaited, or a callback was added. What fails unseen is for its maker to report.
    """

    seen: bool = False

    bringer: Bringer | None = None
    """Who brings the answer, and may be helped by a thread that waits for it."""

    def __init__(self) -> None:
        # Not the base's: its condition, which few futures ever need, costs more than all the rest.
        self._pid = _process.pid
        self._own_condition: threading.Condition | None = None
        self._state = RUNNING
        self._result: T | None = None
        self._exception: BaseException | None = None
        self._waiters: list[Any] = []
        self._done_callbacks: list[Callable[[concurrent.futures.Future[T]], object]] = []

    # Every path of concurrent.futures, wait() and as_completed() included, begins by taking a future's
    # _condition. It may have been held by another thread at the moment of a fork, and then nobody in the
    # child would ever release it; and a child would wait for ever for an answer that the parent gets. One
    # property catches both on every path, where a registry of all futures would cost more than a future.
    # It makes the condition too: who is done before anybody waits or adds a callback never has one.
    @property
    def _condition(self) -> threading.Condition:
        if self._pid != _process.pid:
            self._adopt()
        condition = self._own_condition
        if condition is None:
            # Made before the lock is taken: making it may start the collector, and so a destructor that waits here.
            made = threading.Condition()
            with _process.finishing:
                condition = self._own_condition
                if condition is None:
                    condition = self._own_condition = made
            if self.bringer is not None and self._state == RUNNING:
                self.bringer.expect_others()
        return condition

    @_condition.setter
    def _condition(self, condition: threading.Condition) -> None:
        self._own_condition = condition  # the base promises that it can be set

    def set_result(self, result: T) -> None:
        """Complete it with a value; for whoever made it.

        Raises:
            concurrent.futures.InvalidStateError: it is done already, and no request's: that one keeps what it has, and
                the log says so.
        """
        if self._is_unobserved():
            with _process.finishing:
                if self._own_condition is None and self._state == RUNNING:
                    self._result, self._state = result, FINISHED
                    return
        try:
            super().set_result(result)
        except concurrent.futures.InvalidStateError:
            self._keep_what_it_has()

    def set_exception(self, exception: BaseException | None) -> None:
        """Complete it with an error; for whoever made it, as ``set_result``."""
        try:
            super().set_exception(exception)
        except concurrent.futures.InvalidStateError:
            self._keep_what_it_has()

    def _keep_what_it_has(self) -> None:
        """Let a request's future be, which somebody else has completed: who brings answers brings everybody's."""
        if self.bringer is None:
            raise  # noqa: PLE0704 - called where it is handled
        _logger.warning("a request's future had been completed by somebody else when its answer came")

    def _is_unobserved(self) -> bool:
        """Whether nobody waits for it or has put a callback on it so far."""
        return self._own_condition is None and self._state == RUNNING and self._pid == _process.pid

    def _adopt(self) -> None:
        """Make a future that came here by a fork this process's own, failed unless it was done."""
        with _process.adopting:
            if self._pid == _process.pid:
                return
            # Set by hand and not by set_exception: whoever waits for it or put callbacks on it did so in
            # the parent, and must not be called here.
            self._own_condition = threading.Condition()
            if self._state != "FINISHED":
                self._exception = RequestError(
                    f"this request was issued by the parent process {self._pid} before it forked, and its "
                    f"answer goes there; issue it anew in this process ({_process.pid})"
                )
                self._state = "FINISHED"
            # Last: until then other threads of the child come through here, and wait.
            self._pid = _process.pid

    def result(self, timeout: float | None = None) -> T:
        """Wait for the value.

        Args:
            timeout: seconds to wait; the request goes on. None waits until the request's own deadline.

        Returns:
            The value.

        Raises:
            TimeoutError: it isn't done after ``timeout`` seconds.
            GlintError: what the call that made the future says under "The future raises".
        """
        if self._state != FINISHED:
            timeout = self._help(timeout)
        if self._state == FINISHED and self._exception is None:
            self.seen = True
            return self._result  # type: ignore[return-value]  # of a future that is done it is a T
        try:
            value = super().result(timeout)
        except BaseException as error:
            # PullFailed is a TimeoutError too: only the object tells an outcome from the end of the wait.
            if error is self._exception:
                self.seen = True
            raise
        else:
            self.seen = True
            return value
        finally:
            # The traceback holds this frame, which would hold the error again: a cycle that keeps the
            # locals of every frame above alive until the collector comes by.
            del self

    def done(self) -> bool:
        """Tell whether it has its outcome."""
        if self._pid != _process.pid:
            self._adopt()
        return self._state == FINISHED

    def exception(self, timeout: float | None = None) -> BaseException | None:
        """Wait for the outcome and return the failure, or None.

        Args:
            timeout: seconds to wait; the request goes on.

        Returns:
            What ``result`` would raise, or None.

        Raises:
            TimeoutError: it isn't done after ``timeout`` seconds.
        """
        error = super().exception(self._help(timeout))
        self.seen = True
        return error

    def _help(self, timeout: float | None) -> float | None:
        """Help to bring the answer, and return how long is left to wait."""
        if self.bringer is None or self.done():
            return timeout
        if timeout is None:
            self.bringer.wait_for(self.done, None)
            return None
        end = time.monotonic() + timeout
        self.bringer.wait_for(self.done, timeout)
        return max(0.0, end - time.monotonic())

    def add_done_callback(self, fn: Callable[[Future[T]], object]) -> None:
        """Have a function called with this future when it is done.

        Callbacks run in the order in which futures are done, on one thread kept for them, where they may
        push, pull and wait for results. If the future is done already, the function is called at once,
        here. What it raises is logged under ``glintpy.futures``.

        Args:
            fn: called with the future.

        Threads:
            Safe from any thread. A callback that waits makes the later ones wait.
        """
        self.seen = True
        if self.done():
            _run(fn, self)
        else:
            # Should it be done by now, the function still runs once, on the thread for it.
            super().add_done_callback(partial(_process.callbacks.put, fn))

    def _add_direct_callback(self, fn: Callable[[concurrent.futures.Future[T]], object]) -> None:
        """Have ``fn`` called by the thread that completes this future; it must be short and never wait."""
        super().add_done_callback(fn)

    def __await__(self) -> Generator[Any, None, T]:
        self.seen = True
        if not self.done():
            # Not asyncio.wrap_future: its wake-up would be a callback like the users', and wait behind
            # one that blocks, for ever if that one waits for this loop.
            import asyncio  # noqa: PLC0415 - a fifth of the package's import, and who awaits has it already

            loop = asyncio.get_running_loop()
            woken: asyncio.Future[None] = loop.create_future()
            self._add_direct_callback(partial(_wake, loop, woken))
            yield from woken
        return self.result()


def completed(value: T) -> Future[T]:
    """Return a future that is done.

    Args:
        value: its result.
    """
    future: Future[T] = Future()
    future.set_result(value)
    return future


def failed(error: BaseException) -> Future[Any]:
    """Return a future that has failed.

    Args:
        error: what it raises.
    """
    future: Future[Any] = Future()
    future.set_exception(error)
    return future


def derived(source: concurrent.futures.Future[T], function: Callable[[T], U]) -> Future[U]:
    """Return a future of what a function makes of another's value.

    Args:
        source: counts as seen: who looks at the derived future sees its failure.
        function: called once, by the thread that completes ``source`` (or here, if it is done), so it
            must be short and never wait.

    Returns:
        A future that fails as ``source`` does, or with what ``function`` raises.
    """
    future: Future[U] = Future()
    _watch(source, partial(_derive, function, future))
    return future


def gather(*futures: concurrent.futures.Future[Any]) -> Future[list[Any]]:
    """Join futures into one.

    Args:
        futures: glintpy's or any others of ``concurrent.futures``; none gives an empty list. They count as
            seen from here on: who looks at the joined future sees their failures.

    Returns:
        A future of the results in the order of the arguments. It is done when all of them are, also when
        some fail, so that nothing is in flight afterwards; then it raises the failure that came first,
        with the others as notes.

    Raises:
        TypeError: an argument is no future; none of them is touched.
    """
    for number, future in enumerate(futures, 1):
        if not isinstance(future, concurrent.futures.Future):
            kind = type(future).__name__
            article = "an" if kind[0] in "aeiou" else "a"
            raise TypeError(f"gather takes futures, gather(*futures); argument {number} is {article} {kind}")
    if not futures:
        return completed([])
    return _Gathering(futures).future


class _Gathering(Generic[T]):
    """Counts futures down."""

    def __init__(self, futures: Sequence[concurrent.futures.Future[T]]) -> None:
        self.future: Future[list[T]] = Future()
        self._futures = futures
        self._num_open = len(futures)
        self._errors: list[BaseException] = []
        self._lock = threading.Lock()
        for future in futures:
            _watch(future, self._one_done)

    def _one_done(self, future: concurrent.futures.Future[T]) -> None:
        error = _error_of(future)
        with self._lock:
            if error is not None and not any(error is known for known in self._errors):
                self._errors.append(error)
            self._num_open -= 1
            if self._num_open:
                return
        futures, self._futures = self._futures, ()  # the callbacks keep self, and self would keep them all
        if self._errors:
            _note_others(self._errors)
            self.future.set_exception(self._errors[0])
        else:
            self.future.set_result([future.result() for future in futures])


class _Callbacks:
    """The thread on which callbacks run, started when the first one is due."""

    def __init__(self) -> None:
        self._due: queue.SimpleQueue[tuple[Callable[[Any], object], Future[Any]]] = queue.SimpleQueue()
        self._starting = threading.Lock()
        self._is_started = False

    def put(self, fn: Callable[[Any], object], future: Any) -> None:
        """Have ``fn`` called with ``future`` after all that is due already."""
        self._due.put((fn, future))
        if not self._is_started:
            with self._starting:
                if not self._is_started:
                    threading.Thread(target=self._loop, name="glintpy-callbacks", daemon=True).start()
                    self._is_started = True

    def _loop(self) -> None:
        while True:
            fn, future = self._due.get()
            try:
                _run(fn, future)
            except BaseException:
                # sys.exit() in a callback would end only this thread, and every later callback with it.
                _logger.exception("the callback %r tried to leave its thread", fn)
            del fn, future  # else the last one would live until the next is due


class _Process:
    """What belongs to this process and is made anew in a forked child, where no thread has survived."""

    def __init__(self) -> None:
        self.renew()

    def renew(self) -> None:
        """Begin anew."""
        self.pid = os.getpid()
        self.callbacks = _Callbacks()
        self.adopting = threading.Lock()
        self.finishing = threading.Lock()


_process = _Process()
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_process.renew)


def _run(fn: Callable[[Any], object], future: Future[Any]) -> None:
    try:
        fn(future)
    except Exception:
        _logger.exception("the callback %r failed", fn)


def _wake(loop: asyncio.AbstractEventLoop, woken: asyncio.Future[None], _: object) -> None:
    try:
        loop.call_soon_threadsafe(_set_woken, woken)
    except RuntimeError:
        # The loop was closed, and with it went whoever waited.
        _logger.debug("a future was done after the loop that awaited it was closed")


def _set_woken(woken: asyncio.Future[None]) -> None:
    if not woken.done():
        woken.set_result(None)


def _watch(
    future: concurrent.futures.Future[T], fn: Callable[[concurrent.futures.Future[T]], object]
) -> None:
    """Have a short function called by the thread that completes the future; its outcome counts as seen."""
    if isinstance(future, Future):
        future.seen = True
        future._add_direct_callback(fn)  # noqa: SLF001  the same module
    else:
        future.add_done_callback(fn)


def _derive(function: Callable[[T], U], target: Future[U], source: concurrent.futures.Future[T]) -> None:
    error = _error_of(source)
    if error is not None:
        target.set_exception(error)
        return
    try:
        value = function(source.result())
    except Exception as raised:  # noqa: BLE001  it is not swallowed: the target raises it
        target.set_exception(raised)
    else:
        target.set_result(value)


def _error_of(future: concurrent.futures.Future[Any]) -> BaseException | None:
    """Return the failure of a future that is done; a cancelled one (never ours) fails with that."""
    try:
        return future.exception()
    except CancelledError as error:
        return error


def _note_others(errors: list[BaseException]) -> None:
    first, *others = errors
    notes = [f"also failed: {type(error).__name__}: {error}" for error in others[:NOTES_MAX]]
    if len(others) > NOTES_MAX:
        notes.append(f"and {len(others) - NOTES_MAX} more failed")
    for note in notes:
        # The same futures may be gathered twice, and share the error.
        if note not in getattr(first, "__notes__", ()):
            first.add_note(note)
