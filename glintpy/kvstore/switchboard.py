"""Brings messages between nodes to the apps that they are for; knows neither groups nor what apps do with them.

What comes for an app that isn't there yet waits some seconds for it: nodes start side by side. What can't be delivered
is answered, so that nobody waits for it in vain.
"""

from __future__ import annotations

import json
import logging
import threading
from collections.abc import Callable, Hashable
from dataclasses import asdict, dataclass
from typing import Literal, Protocol

from glintpy import Future, GlintError, Received

logger = logging.getLogger("glintpy.kvstore")

APP_S = 5.0
"""How long a request waits for its app to be made, as in ps-lite."""

HELD_MAX = 1024
"""Requests that wait for apps to be made."""


@dataclass(frozen=True, slots=True)
class Letter:
    """What travels between apps.

    Attributes:
        kind: a request, or what became of one.
        app_id: the app, on both sides.
        customer_id: of who asked.
        timestamp: of the request, at who asked.
        head: the request's.
        body: text; of an error what went wrong.
    """

    kind: Literal["request", "response", "error"]
    app_id: int
    customer_id: int
    timestamp: int
    head: int
    body: str

    def to_text(self) -> str:
        """Return it as it travels."""
        return json.dumps(asdict(self), separators=(",", ":"))

    @classmethod
    def from_text(cls, text: str) -> Letter:
        """Return what has travelled.

        Raises:
            ValueError: it is no such thing.
        """
        content = json.loads(text)
        fields = {"kind": str, "app_id": int, "customer_id": int, "timestamp": int, "head": int, "body": str}
        if not isinstance(content, dict) or content.keys() != fields.keys():
            raise ValueError("other fields")
        if any(type(content[name]) is not kind for name, kind in fields.items()):
            raise ValueError("a field of another type")
        if content["kind"] not in {"request", "response", "error"}:
            raise ValueError("another kind")
        return cls(**content)


class App(Protocol):
    """What the switchboard needs of an app; all of it returns at once."""

    @property
    def app_id(self) -> int:
        """Its number."""
        ...

    @property
    def customer_id(self) -> int:
        """Its number among those of its app in this process."""
        ...

    def take(self, letter: Letter, sender: int) -> bool:
        """Take a message of a node; False: there is no room."""
        ...

    def look_for_departed(self) -> None:
        """Nodes have gone."""

    def end(self, error: GlintError) -> None:
        """Nothing more will come."""


class Switchboard:
    """The apps of a node.

    Args:
        send: sends text to nodes.

    Threads:
        Safe from any thread.
    """

    def __init__(self, send: Callable[[str, list[int]], Future[dict[int, int]]]) -> None:
        self._send = send
        self._lock = threading.Lock()
        self._apps: dict[tuple[int, int], App] = {}
        self._held: dict[Hashable, tuple[Letter, int, threading.Timer]] = {}
        self._error: GlintError | None = None

    def add(self, app: App) -> bool:
        """Add an app, and give it what waited for it; False: there is one of these numbers."""
        with self._lock:
            if (app.app_id, app.customer_id) in self._apps:
                return False
            self._apps[app.app_id, app.customer_id] = app
            held = [key for key, (letter, _, _) in self._held.items() if letter.app_id == app.app_id]
            found = [self._held.pop(key) for key in held]
            error = self._error
        for letter, sender, timer in found:
            timer.cancel()
            self._give(app, letter, sender)
        if error is not None:
            app.end(error)
        return True

    def remove(self, app: App) -> None:
        """Forget an app."""
        with self._lock:
            if self._apps.get((app.app_id, app.customer_id)) is app:
                del self._apps[app.app_id, app.customer_id]

    def heard(self, received: Received) -> None:
        """Take what another node has sent."""
        try:
            letter = Letter.from_text(received.text)
        except (ValueError, RecursionError) as error:
            logger.warning("dropped a message of node %d that is for no app: %s", received.rank, error)
            return
        with self._lock:
            app = self._app_for(letter)
            if app is None and letter.kind == "request" and len(self._held) < HELD_MAX:
                key = object()
                timer = threading.Timer(APP_S, self._give_up, (key,))
                timer.daemon = True
                self._held[key] = letter, received.rank, timer
                timer.start()
                return
        if app is not None:
            self._give(app, letter, received.rank)
        elif letter.kind == "request":
            self._refuse(letter, received.rank, f"{HELD_MAX} requests wait for apps that are not there")

    def departed(self) -> None:
        """Nodes have gone."""
        for app in self._all():
            app.look_for_departed()

    def end(self, error: GlintError) -> None:
        """Nothing more will come."""
        with self._lock:
            self._error = error
            timers = [timer for _, _, timer in self._held.values()]
            self._held.clear()
        for timer in timers:
            timer.cancel()
        for app in self._all():
            app.end(error)

    def answer(self, letter: Letter, to: int) -> None:
        """Send what became of a request."""
        self._send(letter.to_text(), [to]).add_done_callback(lambda sent: _note(sent, to))

    def _app_for(self, letter: Letter) -> App | None:
        app = self._apps.get((letter.app_id, letter.customer_id))
        if app is not None or letter.kind != "request":
            return app
        # Who asks need not have as many customers: the first one answers.
        customers = [customer for app_id, customer in self._apps if app_id == letter.app_id]
        return self._apps[letter.app_id, min(customers)] if customers else None

    def _give(self, app: App, letter: Letter, sender: int) -> None:
        if not app.take(letter, sender):
            self._refuse(letter, sender, "too many requests wait there")

    def _give_up(self, key: Hashable) -> None:
        with self._lock:
            held = self._held.pop(key, None)
        if held is not None:
            self._refuse(
                held[0], held[1], f"it has no app {held[0].app_id}, and none was made within {APP_S:g} s"
            )

    def _refuse(self, letter: Letter, sender: int, why: str) -> None:
        try:
            self.answer(refusal(letter, why), sender)
        except GlintError as error:
            logger.warning("can't tell node %d that %s: %s", sender, why, error)

    def _all(self) -> list[App]:
        with self._lock:
            return list(self._apps.values())


def refusal(letter: Letter, why: str) -> Letter:
    """Return the answer to a request that failed."""
    return Letter("error", letter.app_id, letter.customer_id, letter.timestamp, letter.head, why)


def _note(sent: Future[dict[int, int]], to: int) -> None:
    error = sent.exception()
    if error is not None:
        logger.warning("an answer did not reach node %d: %s", to, error)
