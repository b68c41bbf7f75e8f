"""Runtime: one process's connections to one cluster, its endpoint, heart and sessions; knows no model."""

from __future__ import annotations

import itertools
import logging
import os
import random
import threading
import time
from collections.abc import Callable, Hashable
from typing import Any

import numpy as np

from glintpy import config
from glintpy.errors import GlintError, MasterUnreachable, ModelNotFound, ServerLost
from glintpy.futures import Future
from glintpy.heart import Heart, Identity, Listeners
from glintpy.outbox import Outbox
from glintpy.protocol import wire
from glintpy.protocol.calls import Asks, Call, Failed, Result, Stamp
from glintpy.protocol.messages import Bye, Done, Message, ServerStatus
from glintpy.protocol.messages_master import ClusterState, DestroyModel
from glintpy.protocol.outcomes import told_of
from glintpy.protocol.session import Session
from glintpy.pushes import OpenPushes
from glintpy.rpc import Endpoint

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
        self.client_id = os.urandom(16)
        self.outbox = Outbox()
        self.pushes = OpenPushes(before_wait=self.outbox.issue)
        self._request_ids = itertools.count(1)
        self._random = random.Random(self.client_id)  # noqa: S311 - jitter, not a secret
        self._lost: frozenset[str] = frozenset()
        self._is_refreshing = False
        self._closed = False
        self._adding = threading.Lock()
        self._endpoint = Endpoint(
            "glintpy-network", on_change=self._connection_changed, before_wait=self.outbox.issue
        )
        self._endpoint.add(MASTER, address, Asks())
        # Not the client's id at servers: who can list the members could ask for its sessions.
        self.member_id = os.urandom(16).hex()
        identity = Identity(self.member_id, name or f"client-{os.getpid()}", is_server=False)
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
                        server_id=server_id,
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

    @property
    def is_busy(self) -> bool:
        """Whether anything is under way."""
        return self._endpoint.load.num_open > 0

    def has_room(self, num_bytes: int) -> bool:
        """Whether small pushes of so many bytes together need not wait for room at any server."""
        return self._endpoint.load.num_bytes + num_bytes < self.settings.queued_bytes_max // 2

    def poke(self) -> None:
        """Have the outbox issued soon."""
        self._endpoint.poke()

    def put_off(self, work: Callable[[], None]) -> None:
        """Have something done soon, without any lock: also from where an answer is settled; see ``Outbox.put_off``."""
        self.outbox.put_off(work)
        self.poke()

    def wait_for(self, is_done: Callable[[], bool], timeout_s: float | None) -> None:
        """Receive in the caller's thread while it waits; see ``rpc.Endpoint.wait_for``."""
        self._endpoint.wait_for(is_done, timeout_s)

    def expect_others(self) -> None:
        """Note that somebody waits without receiving; see ``rpc.Endpoint.expect_others``."""
        self._endpoint.expect_others()

    def ask_server(
        self,
        server_id: str,
        build: Callable[[int, Stamp], Message],
        *,
        model_id: int | None,
        timeout_s: float | None,
        doing: str = "",
    ) -> Future[Message]:
        """Ask a server something that bears repetition, in the order of the session.

        Args:
            server_id: linked before.
            build: makes the message from a request id and the session's stamp.
            model_id: the model whose pushes it must follow; None: it follows none.
            timeout_s: its deadline.
            doing: what it is for, with the model's name, should the server not have the model.

        The future raises:
            GlintError: the server's answer; MasterUnreachable never.
        """
        self.outbox.issue()  # what was asked for before comes before
        future: Future[Message] = Future()
        request_id = self.new_request_id()
        call = Call(
            request_id,
            lambda stamp: build(request_id, stamp),
            lambda result: _settle(future, result, self._timed_out(server_id, timeout_s), doing=doing),
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

    def ask_master(self, build: Callable[[int], Message], *, timeout_s: float | None, doing: str = "") -> Any:
        """Ask the master and wait for the answer's content.

        Args:
            build: makes the message from a request id.
            timeout_s: its deadline.
            doing: what it is for, with the model's name, should the master not have the model.

        Raises:
            MasterUnreachable: no answer in time.
            GlintError: the master's refusal.
        """
        return self._ask_master(build, timeout_s=timeout_s, doing=doing)[0].result()

    def cluster_status(self, timeout_s: float, *, master_s: float | None) -> dict[str, Any]:
        """Return what the master knows, and what each server says that it holds.

        Args:
            timeout_s: seconds to wait for the servers; one that doesn't answer has ``holds`` None.
            master_s: seconds to wait for the master.

        Raises:
            MasterUnreachable: the master did not answer.
        """
        state: dict[str, Any] = self.ask_master(ClusterState, timeout_s=master_s)
        asked = {}
        for server in state["servers"]:
            server["holds"] = None
            if server["state"] == "alive":
                self.link(server["id"], server["address"])
                asked[server["id"]] = self.ask_server(
                    server["id"],
                    lambda request_id, _: ServerStatus(request_id),
                    model_id=None,
                    timeout_s=timeout_s,
                )
        for server in state["servers"]:
            future = asked.get(server["id"])
            if future is not None and future.exception() is None:
                server["holds"] = wire.content(getattr(future.result(), "document", np.empty(0, np.uint8)))
        return state

    def destroy_model(self, model_id: int, name: str, *, timeout_s: float | None) -> None:
        """Have the master end a model on all servers.

        Args:
            model_id: the model's.
            name: the model's, for people.
            timeout_s: deadline of the request.

        Raises:
            ModelNotFound: there is no such model.
            MasterUnreachable: no answer in time.
        """
        future, call = self._ask_master(
            lambda request_id: DestroyModel(request_id, model_id),
            timeout_s=timeout_s,
            doing=f"destroying {name!r}",
        )
        try:
            future.result()
        except ModelNotFound:
            # Asked again, because the answer was lost with a connection: the first asking ended it.
            if call.attempts < 2:
                raise

    def ask_master_later(
        self,
        build: Callable[[int], Message],
        *,
        timeout_s: float | None,
        then: Callable[[], None] | None = None,
        is_quiet: bool = False,
    ) -> Future[Any]:
        """Ask the master; a future of the answer's content.

        Args:
            build: makes the message from a request id.
            timeout_s: its deadline.
            then: done soon after the answer has come, without any lock; see ``put_off``.
            is_quiet: the answer may take minutes; whoever waits for it leaves receiving to others.
        """
        return self._ask_master(build, timeout_s=timeout_s, then=then, is_quiet=is_quiet)[0]

    def _ask_master(
        self,
        build: Callable[[int], Message],
        *,
        timeout_s: float | None,
        then: Callable[[], None] | None = None,
        is_quiet: bool = False,
        doing: str = "",
    ) -> tuple[Future[Any], Call]:
        future: Future[Any] = Future()
        if not is_quiet:
            future.bringer = self  # without it the answer lies for a millisecond or two: see rpc.STANDBY_S
        request_id = self.new_request_id()
        unreachable = MasterUnreachable(
            f"the master at {self.address} did not answer within {timeout_s or 0:g} s; "
            "pulls and pushes go on without it"
        )

        def settle(result: Result) -> None:
            _settle(future, result, unreachable, content=True, doing=doing)
            if then is not None:
                self.put_off(then)

        call = Call(
            request_id,
            lambda _: build(request_id),
            settle,
            deadline=self.deadline(timeout_s),
            is_quiet=is_quiet,
        )
        if not self._endpoint.submit(MASTER, call):
            call.finish(Failed(GlintError("the client is closed"), "unsent"))
        return future, call

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
                link = self._endpoint.link_of(server["id"])
                if isinstance(link, Session):
                    link.incarnation = max(link.incarnation, int(server["incarnation"]))
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
        """Whether it is open. It is this process's own too: a forked child's ties forget their parent's."""
        return not self._closed

    def close(self, error: GlintError | None = None) -> None:
        """End the sessions and connections; what is open fails."""
        if self._closed:
            return
        self.outbox.close()
        self._closed = True
        for server_id, session in self.sessions().items():
            if session.session and session.num_waiting == 0:
                self._endpoint.say(server_id, Bye(self.new_request_id(), session.session))
        self._heart.stop()
        self._endpoint.close(error or GlintError("the client was closed before this was answered"))
        self.outbox.issue()  # what these failures led to
        self.pushes.report_unseen()


def _settle(
    future: Future[Any], result: Result, timed_out: GlintError, *, content: bool = False, doing: str = ""
) -> None:
    if isinstance(result, Failed):
        error = told_of(doing, result.error) if doing else result.error
        future.set_exception(timed_out if result.timed_out else error)
    elif content and isinstance(result, Done):
        try:
            future.set_result(wire.content(result.document))
        except GlintError as error:
            future.set_exception(error)
    else:
        future.set_result(result)
