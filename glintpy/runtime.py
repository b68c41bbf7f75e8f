"""One process's tie to one cluster: its endpoint, heart and sessions; knows no matrix and no vector.

A ``Tie`` is what handles keep: an address and settings, and on demand the process's ``Runtime``. It
survives pickling and forking: in another process it makes a new runtime, with sessions of its own.
"""

from __future__ import annotations

import atexit
import concurrent.futures
import contextlib
import itertools
import logging
import os
import random
import threading
import time
import weakref
from collections.abc import Callable, Hashable, Iterable
from multiprocessing import util as multiprocessing_util
from typing import Any

from glintpy import config
from glintpy.errors import GlintError, MasterUnreachable, ServerLost
from glintpy.futures import Future
from glintpy.heart import Heart, Identity, Listeners
from glintpy.protocol import wire
from glintpy.protocol.calls import Asks, Call, Failed, Result, Stamp
from glintpy.protocol.messages import Bye, ClusterState, Done, Message
from glintpy.protocol.session import Session
from glintpy.rpc import Endpoint
from glintpy.transport import scheme_of

logger = logging.getLogger("glintpy.client")

MASTER = "master"
LOST_STATES = frozenset({"lost", "stopped"})


class Runtime:
    """Connections of one process to one cluster.

    Args:
        address: the master's.
        settings: the client's.

    Raises:
        MasterUnreachable: nobody answered in time.
    """

    def __init__(self, address: str, settings: config.ClientSettings, *, name: str | None = None) -> None:
        self.address = address
        self.settings = settings
        self.pid = os.getpid()
        self.client_id = os.urandom(16)
        self.pushes = OpenPushes()
        self._request_ids = itertools.count(1)
        self._random = random.Random(self.client_id)  # noqa: S311 - jitter, not a secret
        self._lost: frozenset[str] = frozenset()
        self._is_refreshing = False
        self._closed = False
        self._adding = threading.Lock()
        self._endpoint = Endpoint("glintpy-network", on_change=self._connection_changed)
        self._endpoint.add(MASTER, address, Asks())
        identity = Identity(self.client_id.hex(), name or f"client-{os.getpid()}", is_server=False)
        self._heart = Heart(
            address,
            identity,
            settings=config.MembershipSettings(),
            progress=lambda: self._endpoint.progress,
            listeners=Listeners(changed=lambda _: self._refresh(), beat=self._on_beat),
        )
        self._heart.start()
        try:
            limit_s = 30.0 if settings.timeout_s is None else settings.timeout_s
            self._heart.wait_joined(min(limit_s, config.MembershipSettings().join_timeout_s))
        except GlintError as error:
            self.close(error)
            raise

    def new_request_id(self) -> int:
        """Return an id for a request; ids grow."""
        return next(self._request_ids)

    def deadline(self, timeout_s: float | None) -> float | None:
        """Return the moment at which a request issued now is given up."""
        return None if timeout_s is None else time.monotonic() + timeout_s

    # --- servers ------------------------------------------------------------------------------------------------

    def link(self, server_id: str, address: str) -> None:
        """See to it that there is a session with a server, or one on its way."""
        if not self._endpoint.has(server_id):
            with self._adding:
                if not self._endpoint.has(server_id):
                    session = Session(
                        client_id=self.client_id,
                        settings=self.settings,
                        new_request_id=self.new_request_id,
                        random_source=self._random,
                    )
                    self._endpoint.add(server_id, address, session)

    def submit(self, server_id: str, call: Call, *, waits_for_room: bool = False) -> None:
        """Hand a call to a server's session; it is settled in any case.

        Args:
            server_id: linked before.
            call: see ``protocol.calls``.
            waits_for_room: wait here while too much is under way to the server.
        """
        if call.is_hasty and server_id in self._lost:
            call.finish(Failed(self._server_lost(server_id), "unsent"))
            return
        bytes_max = self.settings.queued_bytes_max if waits_for_room else None
        if not self._endpoint.submit(server_id, call, bytes_max=bytes_max):
            closed = GlintError("the client is closed")
            call.finish(Failed(closed, "unsent", timed_out=not self._closed))

    def ask_server(
        self,
        server_id: str,
        build: Callable[[int, Stamp], Message],
        *,
        model_id: int | None,
        timeout_s: float | None,
    ) -> Future[Message]:
        """Ask a server something that bears repetition, in the order of the session.

        The future raises:
            GlintError: the server's answer; MasterUnreachable never.
        """
        future: Future[Message] = Future()
        request_id = self.new_request_id()
        call = Call(
            request_id,
            lambda stamp: build(request_id, stamp),
            lambda result: _settle(future, result, self._timed_out(server_id, timeout_s)),
            deadline=self.deadline(timeout_s),
            model_id=model_id,
        )
        self.submit(server_id, call)
        return future

    def sessions(self) -> dict[str, Session]:
        """Return the sessions by server, for their counters."""
        found = {}
        for key in self._endpoint.keys():  # noqa: SIM118 - an endpoint is no mapping
            link = self._endpoint.link_of(key)
            if isinstance(link, Session):
                found[str(key)] = link
        return found

    # --- the master ---------------------------------------------------------------------------------------------

    def ask_master(self, build: Callable[[int], Message], *, timeout_s: float | None) -> Any:
        """Ask the master and wait for the answer's content.

        Raises:
            MasterUnreachable: no answer in time.
            GlintError: the master's refusal.
        """
        return self.ask_master_later(build, timeout_s=timeout_s).result()

    def ask_master_later(self, build: Callable[[int], Message], *, timeout_s: float | None) -> Future[Any]:
        """Ask the master; a future of the answer's content."""
        future: Future[Any] = Future()
        request_id = self.new_request_id()
        unreachable = MasterUnreachable(
            f"the master at {self.address} did not answer within {timeout_s or 0:g} s; "
            "pulls and pushes go on without it"
        )
        call = Call(
            request_id,
            lambda _: build(request_id),
            lambda result: _settle(future, result, unreachable, content=True),
            deadline=self.deadline(timeout_s),
        )
        if not self._endpoint.submit(MASTER, call):
            call.finish(Failed(GlintError("the client is closed"), "unsent"))
        return future

    def _refresh(self) -> None:
        """Ask where the servers are, and which are lost."""
        if self._is_refreshing or self._closed:
            return
        self._is_refreshing = True
        self.ask_master_later(ClusterState, timeout_s=5.0).add_done_callback(self._refreshed)

    def _refreshed(self, future: Future[Any]) -> None:
        # Runs on the callback thread: under the endpoint's lock, where the answer arrives, nothing may be moved.
        self._is_refreshing = False
        if future.exception() is not None:
            return  # the master is away; the next beat asks again
        servers = future.result()["servers"]
        self._lost = frozenset(server["id"] for server in servers if server["state"] in LOST_STATES)
        for server in servers:
            if not self._endpoint.has(server["id"]):
                continue
            if server["id"] in self._lost:
                self._endpoint.fail(server["id"], self._server_lost(server["id"]))
            else:
                self._endpoint.move(server["id"], server["address"])

    def _connection_changed(self, key: Hashable, is_up: bool) -> None:
        if not is_up and key != MASTER:
            self._refresh()

    def _on_beat(self) -> None:
        if any(key != MASTER for key in self._endpoint.down_peers()):
            self._refresh()

    def _server_lost(self, server_id: str) -> ServerLost:
        address = self._endpoint.address_of(server_id)
        return ServerLost(
            f"server {server_id} at {address} is lost; restart it with its --data-dir, or use "
            'on_server_lost="wait" to wait for its return',
            address=address,
        )

    def _timed_out(self, server_id: str, timeout_s: float | None) -> ServerLost:
        address = self._endpoint.address_of(server_id)
        return ServerLost(
            f"server {server_id} at {address} did not answer within {timeout_s or 0:g} s", address=address
        )

    # --- the end ------------------------------------------------------------------------------------------------

    @property
    def is_usable(self) -> bool:
        """Whether it is this process's own, and open."""
        return not self._closed and self.pid == os.getpid()

    def close(self, error: GlintError | None = None) -> None:
        """End the sessions and connections; what is open fails."""
        if self._closed:
            return
        self._closed = True
        for server_id, session in self.sessions().items():
            if session.session and session.num_waiting == 0:
                self._endpoint.say(server_id, Bye(self.new_request_id(), session.session))
        self._heart.stop()
        self._endpoint.close(error or GlintError("the client was closed before this was answered"))
        self.pushes.report_unseen()


def _settle(future: Future[Any], result: Result, timed_out: GlintError, *, content: bool = False) -> None:
    if isinstance(result, Failed):
        future.set_exception(timed_out if result.timed_out else result.error)
    elif content and isinstance(result, Done):
        try:
            future.set_result(wire.content(result.document))
        except GlintError as error:
            future.set_exception(error)
    else:
        future.set_result(result)


class OpenPushes:
    """Pushes without an outcome, and failed ones that nobody has looked at.

    Threads:
        Safe from any thread.
    """

    UNSEEN_MAX = 1000

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, tuple[int, str, Future[Any]]] = {}
        self._failed: list[tuple[int, str, Future[Any]]] = []

    def add(self, model_id: int, model: str, future: Future[Any]) -> None:
        """Note a push that was issued."""
        with self._lock:
            self._open[id(future)] = (model_id, model, future)

    def done(self, future: Future[Any]) -> None:
        """Note that a push has its outcome; called before the future is completed."""
        with self._lock:
            self._open.pop(id(future), None)

    def failed(self, model_id: int, model: str, future: Future[Any]) -> None:
        """Note a push that is about to fail; what nobody looks at is raised by the next flush."""
        with self._lock:
            self._failed = [entry for entry in self._failed if not entry[2].seen][-self.UNSEEN_MAX :]
            self._failed.append((model_id, model, future))

    def flush(self, timeout_s: float | None, model_id: int | None = None) -> None:
        """Wait until every push issued before has its outcome.

        Raises:
            TimeoutError: not all had one in time.
            GlintError: the first failure that nobody has looked at, with the others as notes.
        """
        with self._lock:
            waiting = [entry[2] for entry in self._open.values() if model_id in {None, entry[0]}]
        _, pending = concurrent.futures.wait(waiting, timeout_s)
        if pending:
            raise TimeoutError(f"{len(pending)} pushes have no outcome after {timeout_s:g} s; they go on")
        unseen = self._take_unseen(model_id)
        if unseen:
            first, *others = [future.exception() for _, _, future in unseen]
            assert first is not None
            for other in others[:8]:
                first.add_note(f"also failed: {type(other).__name__}: {other}")
            if len(others) > 8:
                first.add_note(f"and {len(others) - 8} more failed")
            raise first

    def report_unseen(self) -> None:
        """Log failures that nobody looked at, once a model."""
        by_model: dict[str, list[Future[Any]]] = {}
        for _, model, future in self._take_unseen(None):
            by_model.setdefault(model, []).append(future)
        for model, futures in by_model.items():
            logger.error(
                "%d pushes to %r failed and nobody looked: %s", len(futures), model, futures[0].exception()
            )

    def _take_unseen(self, model_id: int | None) -> list[tuple[int, str, Future[Any]]]:
        with self._lock:
            mine = [entry for entry in self._failed if model_id in {None, entry[0]}]
            self._failed = [entry for entry in self._failed if entry not in mine]
        return [entry for entry in mine if not entry[2].seen]


class Tie:
    """An address and settings, and the runtime that this process has for them.

    Threads:
        Safe from any thread.
    """

    def __init__(self, address: str, settings: config.ClientSettings) -> None:
        scheme_of(address)
        self.address = address
        self.settings = settings
        self._runtime: Runtime | None = None
        self._lock = threading.RLock()
        self._is_closed = False
        _ties.add(self)

    def runtime(self, name: str | None = None) -> Runtime:
        """Return this process's runtime, made when it is first needed.

        Args:
            name: of the client, for people to read.

        Raises:
            MasterUnreachable: nobody answered in time.
            GlintError: the client is closed.
        """
        runtime = self._runtime
        if runtime is not None and runtime.is_usable:
            return runtime
        with self._lock:
            if self._is_closed:
                raise GlintError("the client is closed; make a new one, or open the model with another")
            if self._runtime is None or not self._runtime.is_usable:
                self._runtime = Runtime(self.address, self.settings, name=name)
                _flush_at_end_of_child()
            return self._runtime

    def current(self) -> Runtime | None:
        """Return this process's runtime if there is one."""
        runtime = self._runtime
        return runtime if runtime is not None and runtime.is_usable else None

    def flush(self, timeout_s: float | None = None) -> None:
        """Wait for this process's pushes; see ``OpenPushes.flush``."""
        runtime = self.current()
        if runtime is not None:
            runtime.pushes.flush(timeout_s)

    def close(self) -> None:
        """End this process's runtime for good."""
        with self._lock:
            self._is_closed = True
            runtime, self._runtime = self._runtime, None
            if _shared.get((self.address, self.settings)) is self:
                del _shared[self.address, self.settings]
        if runtime is not None and runtime.is_usable:
            runtime.close()

    def after_fork(self) -> None:
        """Forget the parent's runtime; its sockets and threads are not this process's."""
        self._lock = threading.RLock()
        if self._runtime is not None:
            _inherited.append(self._runtime)
            self._runtime = None

    def __reduce__(self) -> tuple[Callable[..., Tie], tuple[str, config.ClientSettings]]:
        return shared_tie, (self.address, self.settings)


_ties: weakref.WeakSet[Tie] = weakref.WeakSet()
_shared: dict[tuple[str, config.ClientSettings], Tie] = {}
_shared_lock = threading.Lock()
_inherited: list[Runtime] = []
"""Runtimes of parent processes, kept so that no destructor touches their sockets."""


def shared_tie(address: str, settings: config.ClientSettings) -> Tie:
    """Return the process's one tie to an address, with these settings."""
    with _shared_lock:
        tie = _shared.get((address, settings))
        if tie is None:
            tie = _shared[address, settings] = Tie(address, settings)
        return tie


def share(tie: Tie) -> None:
    """Let handles that are unpickled in this process use a client's own connection."""
    with _shared_lock:
        _shared.setdefault((tie.address, tie.settings), tie)


def close_ties(address: str) -> None:
    """Close the process's ties to a cluster that is about to stop."""
    for tie in _all_ties():
        if tie.address == address:
            tie.close()


def _all_ties() -> Iterable[Tie]:
    return list(_ties)


def _finish_all() -> None:
    """Flush and close everything: the process ends."""
    for tie in _all_ties():
        runtime = tie.current()
        if runtime is None:
            continue
        # What failed unseen is logged by close; raising here would only hide it behind another traceback.
        with contextlib.suppress(GlintError, TimeoutError):
            runtime.pushes.flush(tie.settings.timeout_s)
        tie.close()


_finalizer_pid = 0


def _flush_at_end_of_child() -> None:
    # In a multiprocessing child neither atexit nor weakref.finalize runs, only multiprocessing's own finalizers.
    global _finalizer_pid  # noqa: PLW0603 - once a process
    if _finalizer_pid != os.getpid():
        _finalizer_pid = os.getpid()
        multiprocessing_util.Finalize(None, _finish_all, exitpriority=100)


def _after_fork_in_child() -> None:
    global _shared_lock  # noqa: PLW0603 - another thread may have held it at the moment of the fork
    _shared_lock = threading.Lock()
    for tie in _all_ties():
        tie.after_fork()


atexit.register(_finish_all)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork_in_child)
