"""Values under keys that nobody declares, as ps-lite's workers push and pull them: by timestamps."""

from __future__ import annotations

import logging
import os
import threading
from collections.abc import Callable
from typing import Any, Self

import numpy as np
from numpy.typing import ArrayLike

from glintpy import Client, ConfigError, GlintError, Overloaded, ShapeError
from glintpy.kvstore.apps import DTYPE, App, Home, begun_app, check_equal, check_rows, found_app
from glintpy.kvstore.integers import check_number, integer_of
from glintpy.kvstore.pacing import Asked, Pacing
from glintpy.kvstore.pairs import (
    INT64,
    Array,
    Keys,
    Lengths,
    Slicer,
    as_values,
    cast,
    check_output,
    dtype_of,
    keys_of,
    lengths_of,
    slices_of,
)
from glintpy.kvstore.parts import Exchange

logger = logging.getLogger("glintpy.kvstore")

OPEN_MAX = 10_000
"""Requests that nobody has waited for; of those that are done the oldest are forgotten."""

Callback = Callable[[], object]


class KVWorker:
    """A worker of an app: pushes values under keys to servers, and pulls them.

    Requests of equal priority leave in the order in which they were made, and a pull sees the pushes that left before
    it.

    Args:
        app_id: the app's, the same for all its workers.
        customer_id: tells apart workers of one app in a process; each has its own timestamps.
        client: a client, or the master's address; None: that of the one node that this process is, or else what the
            environment says.
        job: the job's name; None: the node's, or what the environment says.
        dtype: of the values, where no ``KVServer`` says it; None: float32.
        varying: whether keys have different numbers of values, where no ``KVServer`` says it.

    Raises:
        ConfigError: what can't be; or nothing says which cluster.
        DTypeError: no dtype.
        MasterUnreachable: nobody answers at the address.

    Threads:
        Safe from any thread. Callbacks have one of their own, unless somebody who waits runs them. A forked process
        makes a worker of its own. One that ends without ``close`` sends what it has pushed, and runs no more callbacks.
    """

    def __init__(
        self,
        app_id: int = 0,
        customer_id: int = 0,
        client: Client | str | None = None,
        *,
        job: str | None = None,
        dtype: str | None = None,
        varying: bool = False,
    ) -> None:
        self.app_id = check_number("app_id", app_id)
        self.customer_id = check_number("customer_id", customer_id)
        self._dtype = None if dtype is None else dtype_of(dtype)
        self._varying = varying
        self._home = Home(client, job, self.app_id)
        self._found: App | None = None
        self._slicer: Slicer | None = None
        self._pacing = Pacing()
        self._lock = threading.RLock()
        self._open: dict[int, Asked] = {}
        self._next_timestamp = 0
        self._is_closed = False
        self._pid = os.getpid()

    # --- asking ---------------------------------------------------------------------------------------------------

    def push(  # noqa: PLR0917 - ps-lite's order
        self,
        keys: ArrayLike,
        vals: ArrayLike,
        lens: ArrayLike | None = None,
        cmd: int = 0,
        callback: Callback | None = None,
        priority: int = 0,
    ) -> int:
        """Push values, and return the request's timestamp, to be waited for.

        Args:
            keys: (n,) integers from 0 to 2**64 - 1, in any order, each once.
            vals: numbers, those of a key behind those of the key before, in an array of any shape. Copied if they don't
                leave at once.
            lens: (n,) how many values each key has; None: all as many.
            cmd: 0.
            callback: called without arguments when the push is applied, once, before ``wait`` returns.
            priority: of requests that have to wait higher ones leave first.

        Raises:
            ShapeError: a key stands twice; values that don't fit keys or ``lens``, or what a key had before.
            DTypeError, KeyRangeError: what can't be a key or a value.
            ConfigError: a cmd other than 0; what can't be a callback or a priority.
            Overloaded: 10,000 requests are open.
            GlintError: the worker is closed; the servers can't begin the app, or don't answer. Nothing was sent.
        """
        priority = self._check(cmd, callback, priority)
        exchange = self._push_of(keys, vals, lens, reads=False, outs=None)
        return self._issue(exchange, callback, priority, takes=False)

    def pull(  # noqa: PLR0917 - ps-lite's order
        self,
        keys: ArrayLike,
        vals: Array | None = None,
        lens: Array | None = None,
        cmd: int = 0,
        callback: Callback | None = None,
        priority: int = 0,
    ) -> int:
        """Pull values, and return the request's timestamp, to be waited for.

        Keys that nobody has pushed have zeros, where all keys have as many values, and else none; they are not made.

        Args:
            keys: as in ``push``.
            vals: an array to write into, of as many cells as there are values, and of any shape; None: ``values``
                returns them. Not to be looked at before ``wait`` returns.
            lens: an array of n integers to write to how many values each key has; None: nowhere.
            cmd: 0.
            callback: called without arguments when the values are there, once, before ``wait`` returns.
            priority: as in ``push``.

        Raises:
            ShapeError: a key stands twice; arrays of another size.
            DTypeError, KeyRangeError: what can't be a key, or be written to.
            ConfigError: a cmd other than 0; or nobody has begun the app and nothing says how many values a key has.
            Overloaded: 10,000 requests are open.
            GlintError: the worker is closed; the servers don't answer.
        """
        priority = self._check(cmd, callback, priority)
        found = keys_of(keys)
        if lens is not None:
            check_output(lens, "lens", len(found), INT64)
        app = self._app()
        if app is None:
            exchange = self._pull_of_nothing(found, vals, lens)
        else:
            lengths = app.known(found) if found.size else 0
            size = lengths * len(found) if isinstance(lengths, int) else int(lengths.sum())
            if vals is not None:
                check_output(vals, "vals", size, app.dtype)
            parts = app.parts(found, lengths, None, slices_of(self._slicer, found)) if found.size else []
            exchange = Exchange(
                parts, reads=True, dtype=app.dtype, size=size, vals=vals, lens=lens, lengths=lengths
            )
        return self._issue(exchange, callback, priority, takes=vals is None)

    def pushpull(  # noqa: PLR0917 - ps-lite's order
        self,
        keys: ArrayLike,
        vals: ArrayLike,
        outs: Array | None = None,
        lens: ArrayLike | None = None,
        cmd: int = 0,
        callback: Callback | None = None,
        priority: int = 0,
    ) -> int:
        """Push values, pull what comes of it, in one request a server, and return its timestamp.

        Args:
            keys: as in ``push``.
            vals: as in ``push``.
            outs: as ``vals`` in ``pull``.
            lens: as in ``push``.
            cmd: 0.
            callback: as in ``pull``.
            priority: as in ``push``.

        Raises:
            What ``push`` does; and ShapeError, DTypeError: what ``outs`` can't be.
        """
        priority = self._check(cmd, callback, priority)
        exchange = self._push_of(keys, vals, lens, reads=True, outs=outs)
        return self._issue(exchange, callback, priority, takes=outs is None)

    def set_slicer(self, fn: Slicer | None) -> None:
        """Cut later requests into parts, each of which is at most one request a server.

        It doesn't say where keys lie, as ps-lite's does: their server follows from a hash of the key.

        Args:
            fn: called with the keys of a request, (n,) uint64, in the order given; returns a list of integer arrays,
                the places of the keys of each part. Each key is in one of them. None: requests aren't cut.

        Raises:
            ConfigError: it can't be called.
        """
        if fn is not None and not callable(fn):
            raise ConfigError(f"a slicer is a function of keys, or None, not {fn!r:.80}")
        self._slicer = fn

    # --- waiting --------------------------------------------------------------------------------------------------

    def wait(self, timestamp: int, timeout_s: float | None = None) -> None:
        """Return when a request is done, and its callback has run; works in callbacks, too.

        Args:
            timestamp: of the request. One that was waited for before returns at once.
            timeout_s: seconds to wait; None: as long as the client's own deadline has it, and as its callback takes.

        Raises:
            ConfigError: no such request.
            TimeoutError: it isn't done in time; calling again waits on.
            PushRefused, PushOutcomeUnknown, PullFailed, ServerLost, ModelNotFound: what became of it.
            GlintError: the request's own callback waits for it.
            What its callback raised.
        """
        asked = self._asked(timestamp)
        if asked is None:
            return
        self._pacing.finish(asked, timeout_s)
        if asked.error is not None or asked.values is None:
            self._forget(timestamp)
        if asked.error is not None:
            raise asked.error

    def values(self, timestamp: int, timeout_s: float | None = None) -> Array:
        """Wait for a pull, and return what it brought, once.

        Args:
            timestamp: of a ``pull`` or ``pushpull`` that was given no array to write into.
            timeout_s: as in ``wait``.

        Returns:
            The values, flat, those of a key behind those of the key before; the caller's.

        Raises:
            ConfigError: no such request, or it has none: it was a push, was given an array, or they were taken.
            What ``wait`` does.
        """
        asked = self._asked(timestamp)
        self.wait(timestamp, timeout_s)
        if asked is None or asked.values is None:
            raise ConfigError(
                f"request {timestamp} has no values: it was a push, or was given an array, or they were taken before, "
                f"or forgotten behind {OPEN_MAX} others"
            )
        self._forget(timestamp)
        found: Array = asked.values
        return found

    def flush(self, timeout_s: float | None = None) -> None:
        """Return when all requests made so far are done, and their callbacks have run.

        Args:
            timeout_s: seconds to wait for each; None: as long as the client's own deadline has it.

        Raises:
            What ``wait`` does: the first failure, with others as notes.
        """
        failures: list[Exception] = []
        for timestamp in list(self._open):
            try:
                self.wait(timestamp, timeout_s)
            except Exception as error:  # noqa: BLE001 - raised below, when all are done
                failures.append(error)
        if failures:
            for failure in failures[1:]:
                failures[0].add_note(str(failure))
            raise failures[0]

    def close(self) -> None:
        """Wait for all requests, and let go of the cluster; the values stay. Again it does nothing.

        Raises:
            What ``flush`` does; it is closed all the same.
        """
        if self._is_closed or os.getpid() != self._pid:
            return
        is_flushed = False
        try:
            self.flush()
            is_flushed = True
        finally:
            self._end(joins=is_flushed)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _check(self, cmd: object, callback: object, priority: object) -> int:
        """Refuse what says nothing of keys and values, before anything is begun; return the priority."""
        self._check_process()
        if self._is_closed:
            raise GlintError(f"{self!r} was closed")
        if integer_of(cmd) != 0:
            raise ConfigError(
                f"cmd is 0, not {cmd!r:.80}: a push does what its app's handle does, and servers run no other "
                "function on keys and values; an app for each cmd has a handle of its own"
            )
        if callback is not None and not callable(callback):
            raise ConfigError(f"a callback is a function without arguments, not {callback!r:.80}")
        found = integer_of(priority)
        if found is None:
            raise ConfigError(f"a priority is an integer, not {priority!r:.80}")
        with self._lock:
            if len(self._open) >= OPEN_MAX:
                self._make_room()
        return found

    def _check_process(self) -> None:
        if os.getpid() != self._pid:
            raise GlintError(
                f"{self!r} is the one of process {self._pid}, from which this was forked: make one here"
            )

    def _app(self) -> App | None:
        if self._found is None:
            with self._lock:
                if self._found is None:
                    self._found = found_app(self._home)
        return self._found

    @property
    def _dtype_or_default(self) -> np.dtype[Any]:
        return dtype_of(DTYPE) if self._dtype is None else self._dtype

    def _begun(self, keys: Keys, lengths: Lengths | int) -> App:
        """Begin the app; what its keys have is refused before."""
        k = lengths if isinstance(lengths, int) else int(lengths[0])
        if self._varying:
            check_rows(keys, np.broadcast_to(np.asarray(lengths), len(keys)), self._dtype_or_default)
        else:
            check_equal(self.app_id, keys, lengths, k)
        with self._lock:
            try:
                app = begun_app(self._home, k, self._dtype_or_default.name, "add", varying=self._varying)
            except ConfigError:
                found = found_app(self._home)  # by another worker, meanwhile
                if found is None:
                    raise
                app = found
            self._found = app
        return app

    def _cast(self, values: Array, outs: Any, app: App | None) -> Array:
        """Return values in the dtype of the app, or of the one that is to be begun."""
        dtype = self._dtype_or_default if app is None else app.dtype
        if self._dtype is not None and self._dtype != dtype:
            raise ConfigError(f"{self!r} has {self._dtype}, and the app's values are of {dtype}")
        flat = cast(values, dtype)
        if outs is not None:
            check_output(outs, "outs", flat.size, dtype)
        return flat

    def _push_of(self, keys: ArrayLike, vals: ArrayLike, lens: Any, *, reads: bool, outs: Any) -> Exchange:
        found, values = keys_of(keys), as_values(vals)
        if not found.size:
            if values.size:
                raise ShapeError(f"{values.size} values for no keys")
            if outs is not None:
                check_output(outs, "outs", 0, values.dtype)
            return Exchange([], reads=reads, dtype=values.dtype, size=0, vals=outs)
        given = lengths_of(lens, len(found), values.size)
        slices = slices_of(self._slicer, found)
        app = self._app()
        flat = self._cast(values, outs, app)
        if app is None:
            app = self._begun(found, given)
            flat = self._cast(values, outs, app)  # another worker may have begun it, with another dtype
        # At the end, behind all that may refuse the push: from here on the keys have so many values.
        parts = app.parts(found, app.agreed(found, given), flat, slices)
        return Exchange(parts, reads=reads, dtype=app.dtype, size=flat.size, vals=outs)

    def _pull_of_nothing(self, keys: Keys, vals: Array | None, lens: Array | None) -> Exchange:
        """Return the pull of an app that nobody has begun: zeros, if it is known how many."""
        if vals is None and keys.size and not self._varying:
            raise ConfigError(
                f"nobody has pushed to app {self.app_id}, so nobody knows how many values its keys have: say "
                f"KVServer({self.app_id}, k=...).set_request_handle(...), or give vals"
            )
        size = 0
        lengths: Lengths | int = 0
        dtype = self._dtype_or_default
        if vals is not None:
            check_output(vals, "vals", 0 if self._varying or not keys.size else None, dtype)
            size = vals.size
            lengths = lengths_of(None, len(keys), size) if size else 0
            if keys.size and not size and not self._varying:
                raise ShapeError(f"vals has room for no value of {len(keys)} keys")
        return Exchange([], reads=True, dtype=dtype, size=size, vals=vals, lens=lens, lengths=lengths)

    def _issue(self, exchange: Exchange, callback: Callback | None, priority: int, *, takes: bool) -> int:
        def finish(answer: Any) -> Array | None:
            values = exchange.finish(answer)
            return values if takes else None  # else they are in the caller's array

        with self._lock:
            timestamp = self._next_timestamp
            self._next_timestamp += 1
            asked = Asked(
                timestamp, priority, exchange.num_bytes, exchange.send, finish, exchange.keep, callback
            )
            self._open[timestamp] = asked
        self._pacing.add(asked)
        return timestamp

    def _asked(self, timestamp: int) -> Asked | None:
        self._check_process()
        number = integer_of(timestamp)
        if number is None or not 0 <= number < self._next_timestamp:
            raise ConfigError(
                f"{self!r} has made {self._next_timestamp} requests, and none has the timestamp {timestamp!r:.80}"
            )
        return self._open.get(number)

    def _forget(self, timestamp: int) -> None:
        with self._lock:
            self._open.pop(timestamp, None)

    def _make_room(self) -> None:
        for timestamp, asked in list(self._open.items()):
            if asked.future is None or not asked.future.done():
                continue
            if asked.callback is not None and not asked.is_over.is_set():
                continue
            failure = asked.future.exception()
            if failure is not None and asked.callback is None:
                logger.warning("request %d of %r, for which nobody waited: %s", timestamp, self, failure)
            del self._open[timestamp]
        if len(self._open) >= OPEN_MAX:
            raise Overloaded(f"{OPEN_MAX} requests of {self!r} are open; wait for some")

    def _end(self, *, joins: bool) -> None:
        self._is_closed = True
        self._pacing.close(joins=joins)
        self._home.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: object, *_: object) -> None:
        if kind is None:
            self.close()
        elif not self._is_closed and os.getpid() == self._pid:
            self._end(joins=False)

    def __repr__(self) -> str:
        return f"KVWorker({self.app_id}, {self.customer_id})"
