"""A TCP proxy that spoils a link on purpose: delays, cuts, resets, stalls; for any TCP link, knows no message.

Put it between two ends, as a client's address of the master or as what a server advertises, and change what the link
suffers while it runs. One thread serves all links of a proxy, and everything random in it comes from one seed.
"""

from __future__ import annotations

import contextlib
import errno
import math
import queue
import random
import selectors
import socket
import struct
import threading
import time
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import replace
from typing import Any, Literal, Self, TypeVar

from glintpy.errors import ConfigError
from glintpy.testing.proxy_pipe import Pipe, Toxics

__all__ = ["Direction", "Proxy", "Toxics"]

Direction = Literal["up", "down"]
"""From whoever connected to the target, or back."""

Result = TypeVar("Result")

READ_BYTES = 256 * 1024
"""Taken from a socket at once."""

ANSWER_S = 10.0
"""How long the proxy's thread may take to do what it is asked; longer means that it is gone."""

_RESET = struct.pack("ii", 1, 0)
"""SO_LINGER with 0 seconds: closing drops what is under way and says RST."""

_CONNECTING = {errno.EINPROGRESS, errno.EWOULDBLOCK}


class _Link:
    """Two sockets and the two pipes between them; belongs to the proxy's thread."""

    def __init__(self, near: socket.socket, far: socket.socket, pipes: dict[Direction, Pipe]) -> None:
        self.near, self.far = near, far
        self.is_connected = False
        self.up, self.down = pipes["up"], pipes["down"]
        self.pipes = pipes
        self.is_blocked = {near: False, far: False}

    def ways(self) -> tuple[tuple[Pipe, socket.socket, socket.socket], ...]:
        """Return each pipe with the socket before and the one behind it."""
        return (self.up, self.near, self.far), (self.down, self.far, self.near)

    def wanted(self, end: socket.socket) -> int:
        """Return the events to wait for at one of the sockets."""
        if end is self.far and not self.is_connected:
            return selectors.EVENT_WRITE
        filled = self.up if end is self.near else self.down
        events = selectors.EVENT_READ if filled.wants_more else 0
        return events | (selectors.EVENT_WRITE if self.is_blocked[end] else 0)

    def due(self) -> float:
        """Return when something is to be passed on that no socket holds up."""
        dues = [pipe.due() for pipe, _, behind in self.ways() if not self.is_blocked[behind]]
        return min(dues, default=math.inf) if self.is_connected else math.inf


class Proxy:
    """A TCP proxy on loopback that spoils its links on purpose; a context manager.

    Args:
        target: ``HOST:PORT`` or ``tcp://HOST:PORT``; None: set later, and until then whoever connects is reset.
        seed: of everything random in it.
        port: where to listen; 0 takes any free one.

    Attributes:
        address: where it listens, as ``tcp://127.0.0.1:PORT``.
        host_port: the same as ``127.0.0.1:PORT``, which is how a server's ``--advertise`` takes it.

    Raises:
        ConfigError: the port is taken, or ``target`` is none.

    Threads:
        Safe from any thread; its own serves all links.
    """

    def __init__(self, target: str | None = None, *, seed: int = 0, port: int = 0) -> None:
        self._target = None if target is None else _parsed(target)
        self._seed = seed
        self._toxics: dict[Direction, Toxics] = {"up": Toxics(), "down": Toxics()}
        self._links: list[_Link] = []
        self._num_accepted = 0
        self._past_bytes: dict[Direction, int] = {"up": 0, "down": 0}
        self._listener = socket.socket()
        try:
            self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            self._listener.bind(("127.0.0.1", port))
            self._listener.listen(128)
        except OSError as error:
            self._listener.close()
            raise ConfigError(f"can't listen at 127.0.0.1:{port}: {error.strerror}") from error
        self._listener.setblocking(False)
        self.host_port = f"127.0.0.1:{self._listener.getsockname()[1]}"
        self.address = f"tcp://{self.host_port}"
        self._selector = selectors.DefaultSelector()
        self._selector.register(self._listener, selectors.EVENT_READ)
        self._bell, self._ringer = socket.socketpair()
        self._bell.setblocking(False)
        self._selector.register(self._bell, selectors.EVENT_READ)
        self._wishes: queue.SimpleQueue[tuple[Callable[[], Any], Future[Any]]] = queue.SimpleQueue()
        self._is_stopping = False
        self._thread = threading.Thread(target=self._run, name="glintpy-proxy", daemon=True)
        self._thread.start()

    # --- what its links suffer ------------------------------------------------------------------------------

    def set(self, direction: Direction | Literal["both"] = "both", **changes: Any) -> None:
        """Change what links suffer, those that are open too; what isn't named stays as it was.

        Args:
            direction: ``"up"``, from whoever connected to the target; ``"down"``, back; or ``"both"``.
            changes: fields of ``Toxics``: ``latency_s=0.05``, ``is_blackhole=True``, ...

        Raises:
            ConfigError: a value out of its range.
            TypeError: there is no such toxic.
        """
        wanted: tuple[Direction, ...] = ("up", "down") if direction == "both" else (direction,)
        changed = {way: replace(self._toxics[way], **changes) for way in wanted}
        self._ask(lambda: self._change(changed))

    def heal(self) -> None:
        """Suffer nothing any more: what was held back goes on its way. Links that were reset stay so."""
        self._ask(lambda: self._change({"up": Toxics(), "down": Toxics()}))

    def blackhole(self) -> None:
        """Pass nothing on, in neither direction, until ``heal``; connections are accepted and stall."""
        self.set(is_blackhole=True)

    def reset_all(self) -> int:
        """Reset all links at both ends, as a firewall or a reboot does, and return how many there were."""
        return self._ask(self._reset_all)

    def half_close_all(self, direction: Direction) -> int:
        """Say the end of the stream in one direction, whatever its sender goes on to send; return how many did."""
        return self._ask(lambda: self._half_close_all(direction))

    # --- where it leads -------------------------------------------------------------------------------------

    @property
    def target(self) -> str | None:
        """Where new links lead, as ``HOST:PORT``."""
        target = self._target
        return None if target is None else f"{target[0]}:{target[1]}"

    def lead_to(self, target: str | None) -> None:
        """Have new links lead elsewhere; those that are open stay.

        Raises:
            ConfigError: no address.
        """
        self._target = None if target is None else _parsed(target)

    # --- what it has seen -----------------------------------------------------------------------------------

    @property
    def num_links(self) -> int:
        """Links that are open."""
        return self._ask(lambda: len(self._links))

    @property
    def num_accepted(self) -> int:
        """Connections accepted so far."""
        return self._ask(lambda: self._num_accepted)

    def num_bytes(self, direction: Direction) -> int:
        """Return how many bytes were passed on in a direction, by links that are gone too."""
        return self._ask(
            lambda: self._past_bytes[direction] + sum(link.pipes[direction].num_bytes for link in self._links)
        )

    # --- its end --------------------------------------------------------------------------------------------

    def stop(self) -> None:
        """Reset what is open and stop listening; again does nothing."""
        if self._thread.is_alive():
            with contextlib.suppress(ConfigError):  # the thread ended between the two lines
                self._ask(self._begin_to_stop)
            self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        return f"Proxy({self.host_port} to {self.target})"

    # --- in its thread --------------------------------------------------------------------------------------

    def _ask(self, act: Callable[[], Result]) -> Result:
        answer: Future[Result] = Future()
        self._wishes.put((act, answer))
        try:
            self._ringer.send(b"!")
        except OSError:
            raise ConfigError(f"the proxy at {self.host_port} is stopped") from None
        return answer.result(ANSWER_S)

    def _run(self) -> None:
        try:
            while not self._is_stopping:
                self._turn()
        finally:
            self._reset_all()
            self._selector.close()
            for end in (self._listener, self._bell, self._ringer):
                end.close()
            # Whoever asked while it ended waits for no answer that never comes.
            while not self._wishes.empty():
                self._wishes.get()[1].set_exception(ConfigError(f"the proxy at {self.host_port} is stopped"))

    def _turn(self) -> None:
        due = min((link.due() for link in self._links), default=math.inf)
        timeout_s = None if due == math.inf else max(0.0, due - time.monotonic())
        for key, events in self._selector.select(timeout_s):
            if key.fileobj is self._listener:
                self._accept()
            elif key.fileobj is self._bell:
                self._grant_wishes()
            elif key.data in self._links:  # it may have been reset by the event before
                self._happened(key.data, key.fileobj, events)
        now = time.monotonic()
        for link in list(self._links):
            if link.is_connected:
                self._pass_on(link, now)
        for link in self._links:
            self._watch(link)

    def _accept(self) -> None:
        try:
            near, _ = self._listener.accept()
        except OSError:
            return  # it has gone already
        self._num_accepted += 1
        far = socket.socket()
        near.setblocking(False)
        far.setblocking(False)
        for end in (near, far):
            end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)  # what is cut in pieces stays in pieces
        if self._target is None or far.connect_ex(self._target) not in {0, *_CONNECTING}:
            _reset(near)
            far.close()
            return
        number = self._num_accepted
        # Chance by link and direction: what one link suffers doesn't depend on how busy another one is.
        pipes = {
            way: Pipe(toxics, random.Random(f"{self._seed} {number} {way}"))  # noqa: S311 - no secret
            for way, toxics in self._toxics.items()
        }
        self._links.append(_Link(near, far, pipes))

    def _grant_wishes(self) -> None:
        with contextlib.suppress(BlockingIOError):
            self._bell.recv(4096)
        while not self._wishes.empty():
            act, answer = self._wishes.get()
            try:
                answer.set_result(act())
            except Exception as error:  # noqa: BLE001 - whoever asked gets it
                answer.set_exception(error)

    def _happened(self, link: _Link, end: Any, events: int) -> None:
        if end is link.far and not link.is_connected:
            if link.far.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
                self._end(link, reset=True)  # nobody listens there: whoever connected hears of it
            else:
                link.is_connected = True
            return
        if events & selectors.EVENT_WRITE:
            link.is_blocked[end] = False
        if events & selectors.EVENT_READ:
            pipe = link.up if end is link.near else link.down
            try:
                data = end.recv(READ_BYTES)
            except BlockingIOError:
                return
            except OSError:  # reset by its peer: the other one hears the same
                self._end(link, reset=True)
                return
            now = time.monotonic()
            if data:
                pipe.put(data, now)
            else:
                pipe.end(now)

    def _pass_on(self, link: _Link, now: float) -> None:
        for pipe, _, behind in link.ways():
            while not link.is_blocked[behind] and (data := pipe.piece(now)) is not None:
                try:
                    pipe.passed(behind.send(data), now)
                except BlockingIOError:
                    link.is_blocked[behind] = True
                except OSError:
                    self._end(link, reset=True)
                    return
            if pipe.is_cut:
                self._end(link, reset=True)
                return
            if pipe.is_over(now):
                pipe.has_ended = True
                with contextlib.suppress(OSError):  # that side has gone altogether, which the next read tells
                    behind.shutdown(socket.SHUT_WR)
        if link.up.has_ended and link.down.has_ended:
            self._end(link, reset=False)

    def _watch(self, link: _Link) -> None:
        for end in (link.near, link.far):
            wanted = link.wanted(end)
            known = self._selector.get_map().get(end)
            if known is None:
                if wanted:
                    self._selector.register(end, wanted, link)
            elif not wanted:
                self._selector.unregister(end)
            elif known.events != wanted:
                self._selector.modify(end, wanted, link)

    def _end(self, link: _Link, *, reset: bool) -> None:
        self._links.remove(link)
        for way, pipe in link.pipes.items():
            self._past_bytes[way] += pipe.num_bytes
        for end in (link.near, link.far):
            if end in self._selector.get_map():
                self._selector.unregister(end)
            if reset:
                _reset(end)
            else:
                end.close()

    def _change(self, changed: dict[Direction, Toxics]) -> None:
        now = time.monotonic()
        for way, toxics in changed.items():
            self._toxics[way] = toxics
            for link in self._links:
                link.pipes[way].change(toxics, now)

    def _reset_all(self) -> int:
        links = list(self._links)
        for link in links:
            self._end(link, reset=True)
        return len(links)

    def _half_close_all(self, direction: Direction) -> int:
        now = time.monotonic()
        for link in self._links:
            link.pipes[direction].end(now)
        return len(self._links)

    def _begin_to_stop(self) -> None:
        self._is_stopping = True


def _reset(end: socket.socket) -> None:
    with contextlib.suppress(OSError):  # it is reset already
        end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, _RESET)
    end.close()


def _parsed(target: str) -> tuple[str, int]:
    host, colon, port = target.removeprefix("tcp://").rpartition(":")
    if not (colon and host and port.isdecimal() and 0 < int(port) <= 65535):
        raise ConfigError(f"a target is HOST:PORT or tcp://HOST:PORT, not {target!r}")
    try:
        # Once and here: looking a name up may take long, and the thread serves all links.
        return socket.gethostbyname(host), int(port)
    except OSError as error:
        raise ConfigError(f"nobody knows the host {host!r}: {error}") from error
