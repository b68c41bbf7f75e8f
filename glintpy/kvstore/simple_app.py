"""Short requests between nodes: a number and some text, and an answer from each node that is asked.

An app has one thread, on which its handlers run, one after the other. A handler may ask and wait, too: while it
waits, the thread runs what else comes for the app.
"""

from __future__ import annotations

import logging
import numbers
import queue
import threading
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Self

from glintpy import ConfigError, Future, GlintError, Overloaded, RemoteFailure, WorkerLost, WorkersMissing
from glintpy.kvstore.integers import check_number, integer_of
from glintpy.kvstore.postoffice import Postoffice
from glintpy.kvstore.roles import node_name
from glintpy.kvstore.switchboard import Letter, refusal

logger = logging.getLogger("glintpy.kvstore")

WAITING_MAX = 1024
"""Requests of others that wait for an app's handler."""

OPEN_MAX = 10_000
"""Requests of an app that nobody has waited for; of answered ones the oldest are forgotten."""

DEPTH_MAX = 16
"""Handlers that wait within one another."""

LOOK_S = 1.0
"""How often who waits looks at the time."""

ERROR_CHARACTERS = 2000
"""What a requester hears of an error: its end, which says what went wrong."""

Handle = Callable[["SimpleData", "SimpleApp"], object]


@dataclass(slots=True, eq=False)
class SimpleData:
    """A request, or an answer to one.

    Attributes:
        head: the request's number.
        body: its text, or that of the answer.
        sender: the number of the node that sent it.
        timestamp: the request's, at who asked.
        customer_id: of who asked.
    """

    head: int
    body: str
    sender: int
    timestamp: int
    customer_id: int
    _is_answered: bool = False


@dataclass(slots=True, eq=False)
class _Open:
    """A request of this app.

    Attributes:
        to: the nodes that it is for.
        sent: to which member under each number it went.
        arrived: whose answer is there, though its handler may still run.
    """

    to: list[int]
    sent: Future[dict[int, int]]
    arrived: set[int] = field(default_factory=set)
    answers: dict[int, str] = field(default_factory=dict)
    errors: dict[int, BaseException] = field(default_factory=dict)

    @property
    def missing(self) -> list[int]:
        return [number for number in self.to if number not in self.answers and number not in self.errors]


class SimpleApp:
    """An app of this node, which asks apps of the same number on other nodes and answers them.

    Args:
        app_id: its number, the same on all nodes.
        customer_id: tells apart those of one number in a process.
        node: this process's place; None: the only one that it has.
        request_handle: as ``set_request_handle``, but before the first request can come.
        response_handle: as ``set_response_handle``.

    Raises:
        ConfigError: this process is no node, or several; or there is an app of these numbers.

    Threads:
        Safe from any thread.
    """

    def __init__(
        self,
        app_id: int = 0,
        customer_id: int = 0,
        node: Postoffice | None = None,
        *,
        request_handle: Handle | None = None,
        response_handle: Handle | None = None,
    ) -> None:
        self.app_id = check_number("app_id", app_id)
        self.customer_id = check_number("customer_id", customer_id)
        self.node = Postoffice.of_process() if node is None else node
        self._request_handle = request_handle or _answer_nothing
        self._response_handle = response_handle
        self._changed = threading.Condition()
        self._open: dict[int, _Open] = {}
        self._next_timestamp = 0
        self._error: GlintError | None = None
        self._due: queue.SimpleQueue[tuple[Letter, int] | None] = queue.SimpleQueue()
        self._depth = 0
        self._answering: list[int] = []
        self._thread = threading.Thread(target=self._run, name="glintpy-app", daemon=True)
        if not self.node.switchboard.add(self):
            raise ConfigError(
                f"{self.node!r} has an app {app_id} with customer {customer_id}: give this one another customer_id"
            )
        self._thread.start()

    # --- asking -----------------------------------------------------------------------------------------------

    def request(self, head: int, body: str, to: int) -> int:
        """Send a request, and return its timestamp, to be waited for.

        Args:
            head: any integer.
            body: text, of up to about 1 MiB.
            to: a node's number, or a sum of ``SCHEDULER``, ``SERVERS`` and ``WORKERS``: all of these but this node.

        Raises:
            ConfigError: what can't be sent; or nobody is in the group.
            Overloaded: 10,000 requests are open, or too much waits for one of the nodes (1,024 messages).
            MasterUnreachable: it was asked who is there, and did not answer.
            GlintError: the app is closed.
        """
        number = integer_of(head)
        if number is None or type(body) is not str:
            raise ConfigError(f"a request is an int and a str, not {head!r:.80} and {type(body).__name__}")
        receivers = self.node.receivers(to)
        with self._changed:
            self._check()
            self._make_room()
            timestamp = self._next_timestamp
            letter = Letter("request", self.app_id, self.customer_id, timestamp, number, body)
            # Under the lock: an answer may be here before this is noted.
            self._open[timestamp] = _Open(receivers, self.node.send(letter.to_text(), receivers))
            self._next_timestamp += 1
        return timestamp

    def wait(self, timestamp: int, timeout_s: float | None = None) -> dict[int, str]:
        """Return when each node has answered a request, and what; handlers of answers have run then.

        Works in handlers too.

        Args:
            timestamp: of the request.
            timeout_s: seconds to wait; None: the node's own setting.

        Returns:
            Texts by the numbers of nodes, in their order; empty if it was waited for before.

        Raises:
            ConfigError: no such request.
            WorkersMissing: a node that is asked isn't there, and nothing was sent; or some had not answered in time,
                and calling again waits on. The message says who.
            WorkerLost: a node went before it answered.
            RemoteFailure: a node's handler raised; the message has its traceback.
            Overloaded: too much waits for one of the nodes; nothing was sent.
            GlintError: the handler of this very answer waits for it; or the app is closed.
        """
        number = integer_of(timestamp)
        if number is None or not 0 <= number < self._next_timestamp:
            raise ConfigError(
                f"app {self.app_id} has made {self._next_timestamp} requests, and none has the timestamp "
                f"{timestamp!r:.80}"
            )
        limit_s = self.node.timeout_s if timeout_s is None else _seconds(timeout_s)
        timestamp, opened = number, self._open.get(number)
        if opened is None:
            return {}
        end = time.monotonic() + limit_s
        self._await_sending(timestamp, opened, end)
        if threading.current_thread() is self._thread:
            self._wait_inside(timestamp, opened, end)
        else:
            with self._changed:
                while self._is_open(opened) and time.monotonic() < end:
                    self._changed.wait(max(0.0, min(LOOK_S, end - time.monotonic())))
        missing = opened.missing
        if missing and self._error is None:
            raise WorkersMissing(
                f"request {timestamp} of app {self.app_id}: no answer within {limit_s:g} s from "
                + ", ".join(map(node_name, missing)),
                ranks=tuple(missing),
            )
        self._forget(timestamp)
        if missing and self._error is not None:
            raise type(self._error)(str(self._error))
        if opened.errors:
            first, *others = [opened.errors[number] for number in opened.to if number in opened.errors]
            for other in others:
                first.add_note(str(other))
            raise first
        return dict(sorted(opened.answers.items()))

    def _await_sending(self, timestamp: int, opened: _Open, end: float) -> None:
        error: BaseException | None
        try:
            error = opened.sent.exception(max(0.0, end - time.monotonic()))
        except TimeoutError:
            raise WorkersMissing(
                f"request {timestamp} of app {self.app_id}: the master has not taken it in time",
                ranks=tuple(opened.to),
            ) from None
        if error is not None:
            self._forget(timestamp)
            if isinstance(error, WorkersMissing):
                raise WorkersMissing(
                    f"request {timestamp} of app {self.app_id} was not sent: there is no "
                    + ", no ".join(map(node_name, error.ranks)),
                    ranks=error.ranks,
                )
            raise error
        with self._changed:
            self._see_departed(opened)

    def _wait_inside(self, timestamp: int, opened: _Open, end: float) -> None:
        """Wait in this app's own thread: it does what comes meanwhile, or nobody would."""
        if timestamp in self._answering:
            raise GlintError(
                f"request {timestamp} of app {self.app_id} is over when the handler of its answer has returned, "
                "which so can't wait for it"
            )
        if self._depth >= DEPTH_MAX:
            raise GlintError(f"{DEPTH_MAX} handlers of app {self.app_id} wait within one another")
        self._depth += 1
        try:
            while self._is_open(opened) and (left_s := end - time.monotonic()) > 0:
                try:
                    due = self._due.get(timeout=min(LOOK_S, left_s))
                except queue.Empty:
                    continue
                if due is not None:
                    self._handle(*due)
        finally:
            self._depth -= 1

    def _forget(self, timestamp: int) -> None:
        with self._changed:
            self._open.pop(timestamp, None)

    def _is_open(self, opened: _Open) -> bool:
        return self._error is None and bool(opened.missing)

    def _make_room(self) -> None:
        if len(self._open) < OPEN_MAX:
            return
        for timestamp, opened in self._open.items():
            if not opened.sent.done():
                continue
            failure = opened.sent.exception()
            if failure is not None or not opened.missing:
                for error in [failure] if failure is not None else opened.errors.values():
                    logger.warning(
                        "request %d of app %d, for which nobody waited: %s", timestamp, self.app_id, error
                    )
                del self._open[timestamp]
                return
        raise Overloaded(f"{OPEN_MAX} requests of app {self.app_id} are open; wait for some")

    # --- answering --------------------------------------------------------------------------------------------

    def set_request_handle(self, handle: Handle) -> None:
        """Have requests answered by a function of the request and this app, which calls ``response``, now or later.

        If it raises, who asked hears that. Until one is set each request is answered by an empty text.
        """
        self._request_handle = handle

    def set_response_handle(self, handle: Handle) -> None:
        """Have answers shown to a function of the answer and this app, before ``wait`` returns.

        What it raises is raised by ``wait``.
        """
        self._response_handle = handle

    def response(self, request: SimpleData, body: str = "") -> None:
        """Answer a request; from any thread.

        Args:
            request: what the handler was given.
            body: text.

        Raises:
            ConfigError: no text, or one of more than about 1 MiB; the request is still to be answered.
            GlintError: it was answered before, or the node has left.
        """
        if type(body) is not str:
            raise ConfigError(f"an answer is a str, not {type(body).__name__}")
        self._answer(request, "response", body)

    def _answer(self, request: SimpleData, kind: str, body: str) -> None:
        with self._changed:
            if request._is_answered:  # noqa: SLF001 - of this module
                raise GlintError(
                    f"request {request.timestamp} of {node_name(request.sender)} was answered before"
                )
            request._is_answered = True  # noqa: SLF001 - of this module
        letter = Letter("response", self.app_id, request.customer_id, request.timestamp, request.head, body)
        try:
            self.node.switchboard.answer(
                letter if kind == "response" else refusal(letter, body), request.sender
            )
        except ConfigError:
            request._is_answered = False  # noqa: SLF001 - of this module
            raise

    # --- for the switchboard ----------------------------------------------------------------------------------

    def take(self, letter: Letter, sender: int) -> bool:
        """Take a message of a node; False: there is no room."""
        if letter.kind == "request":
            if self._due.qsize() >= WAITING_MAX:
                return False
            self._due.put((letter, sender))
            return True
        with self._changed:
            opened = self._open.get(letter.timestamp)
            if opened is None or sender not in opened.to or sender in opened.arrived:
                return True  # nobody waits for it any more
            opened.arrived.add(sender)
            if letter.kind == "response" and self._response_handle is not None:
                self._due.put((letter, sender))
                return True
            if letter.kind == "response":
                opened.answers[sender] = letter.body
            else:
                opened.errors[sender] = RemoteFailure(
                    f"request {letter.timestamp} of app {self.app_id} failed at {node_name(sender)}: {letter.body}"
                )
            self._wake()
        return True

    def look_for_departed(self) -> None:
        """Nodes have gone: expect no answers of theirs."""
        with self._changed:
            for opened in self._open.values():
                if opened.sent.done():
                    self._see_departed(opened)
            self._wake()

    def end(self, error: GlintError) -> None:
        """Nothing more will come."""
        with self._changed:
            self._error = self._error or error
            self._wake()

    def _see_departed(self, opened: _Open) -> None:
        if opened.sent.exception() is not None:
            return
        for number, member in opened.sent.result().items():
            if number not in opened.arrived and self.node.has_gone(member):
                opened.arrived.add(number)
                opened.errors[number] = WorkerLost(
                    f"{node_name(number)} has left, or was lost, before it answered app {self.app_id}",
                    ranks=(number,),
                )

    def _wake(self) -> None:
        self._changed.notify_all()
        if self._depth or self._error is not None:
            self._due.put(None)  # the app's own thread waits there

    # --- the thread -------------------------------------------------------------------------------------------

    def _run(self) -> None:
        while self._error is None:
            due = self._due.get()
            if due is not None:
                self._handle(*due)

    def _handle(self, letter: Letter, sender: int) -> None:
        data = SimpleData(letter.head, letter.body, sender, letter.timestamp, letter.customer_id)
        if letter.kind == "request":
            self._handle_request(data)
        else:
            self._handle_response(data)

    def _handle_request(self, request: SimpleData) -> None:
        try:
            self._request_handle(request, self)
        except BaseException as error:  # as of sys.exit(): it would end this thread
            logger.exception(
                "app %d: the handler of a request of node %d failed", self.app_id, request.sender
            )
            text = "".join(traceback.format_exception(error))[-ERROR_CHARACTERS:]
            try:
                self._answer(request, "error", text)
            except GlintError as failure:
                logger.warning("app %d can't say so to node %d: %s", self.app_id, request.sender, failure)

    def _handle_response(self, response: SimpleData) -> None:
        handle = self._response_handle
        failure: BaseException | None = None
        self._answering.append(response.timestamp)
        try:
            if handle is not None:
                handle(response, self)
        except BaseException as error:
            logger.exception(
                "app %d: the handler of an answer of node %d failed", self.app_id, response.sender
            )
            failure = error
        finally:
            self._answering.pop()
        with self._changed:
            opened = self._open.get(response.timestamp)
            if opened is not None and failure is None:
                opened.answers[response.sender] = response.body
            elif opened is not None and failure is not None:
                opened.errors[response.sender] = failure
            self._wake()

    # --- the end ----------------------------------------------------------------------------------------------

    def _check(self) -> None:
        if self._error is not None:
            raise GlintError(f"app {self.app_id} takes no requests any more: {self._error}")

    def close(self) -> None:
        """End the app: what is open fails, and who asks it is refused. Again it does nothing."""
        self.node.switchboard.remove(self)
        self.end(GlintError(f"app {self.app_id} was closed"))
        if threading.current_thread() is not self._thread:
            self._thread.join(self.node.timeout_s)  # a handler of the user's may go on

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"SimpleApp({self.app_id}, {self.customer_id}, {self.node!r})"


def _seconds(timeout_s: Any) -> float:
    is_number = isinstance(timeout_s, numbers.Real) and not isinstance(timeout_s, bool)
    if not is_number or not 0 <= timeout_s < 1e9:
        raise ConfigError(f"timeout_s is a number of seconds, or None; not {timeout_s!r:.80}")
    return float(timeout_s)


def _answer_nothing(request: SimpleData, app: SimpleApp) -> None:
    app.response(request)
