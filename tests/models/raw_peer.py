"""A client without manners: sends whatever frames a test says, and reads what is answered; knows no test."""

from __future__ import annotations

import itertools
import os
import time
from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import msgpack
import numpy as np
from numpy.typing import NDArray

from glintpy import BigMatrix, BigVector, Client
from glintpy.errors import GlintError
from glintpy.nodes import Node, start_master, start_server
from glintpy.protocol import wire
from glintpy.protocol.failures import code_of
from glintpy.protocol.fields import Bool, Bytes, Frame, Int, Text
from glintpy.protocol.messages import (
    VERSION,
    Applied,
    Done,
    Failure,
    Hello,
    Message,
    Probe,
    Pull,
    Push,
    Report,
    ServerStatus,
    Welcome,
    rules_of,
)
from glintpy.testing.waiting import deliver, poll
from glintpy.transport import connect

WAIT_S = 30.0

ROWS, COLS = 40, 6
NOBODY = bytes(16)
ROUTING = 1

Kind = TypeVar("Kind", bound=Message)

_names = itertools.count()


def indices(*found: int) -> NDArray[np.int64]:
    return np.array(found, np.int64)


def header(
    values: Sequence[Any],
    *,
    kind: Any = Push.KIND,
    descriptors: Any = (),
    version: Any = VERSION,
) -> bytes:
    """Return a header frame, however wrong."""
    packed: bytes = msgpack.packb([version, kind, values, descriptors], use_bin_type=True)
    return packed


def any_message(kind: type[Message], *, request_id: int, model_id: int) -> Message:
    """Return a message of some kind whose fields are allowed, and mean nothing but a model where one is named."""
    arguments: list[Any] = []
    for name, rule in rules_of(kind):
        match rule:
            case Int(low):
                arguments.append({"request_id": request_id, "model_id": model_id}.get(name, low))
            case Bytes(lengths):
                arguments.append(bytes(lengths[-1]))
            case Text():
                arguments.append("x")
            case Bool():
                arguments.append(False)
            case Frame(index, document):
                code = np.int64 if index else np.uint8 if document else np.float64
                arguments.append(np.zeros(2, code))
    return kind(*arguments)


class RawPeer:
    """A connection that speaks frames."""

    def __init__(self, address: str) -> None:
        self._connection = connect(address)
        self._answers: deque[Message] = deque()
        self._request_ids = itertools.count(1)
        self._is_new = True
        self.session = b""
        self.applied = 0

    def next_id(self) -> int:
        return next(self._request_ids)

    def send(self, *frames: wire.Buffer) -> None:
        deliver(self._connection, list(frames))

    def receive(self) -> Message:
        deadline = time.monotonic() + WAIT_S
        while not self._answers:
            frames = self._connection.receive()
            if frames is not None:
                self._answers.extend(wire.decode_all(frames))
            else:
                assert poll([self._connection], deadline - time.monotonic()), "no answer"
                self._connection.changes()
        return self._answers.popleft()

    def ask(self, message: Message, kind: type[Kind]) -> Kind:
        """Send a message and return its answer, which is of this kind."""
        return self.ask_frames(wire.encode(message), message.request_id, kind)

    def ask_frames(self, frames: Sequence[wire.Buffer], request_id: int, kind: type[Kind]) -> Kind:
        self.send(*frames)
        answer = self.receive()
        assert isinstance(answer, kind), f"{kind.__name__} expected: {answer!r}"
        assert answer.request_id == request_id
        return answer

    def refused(self, message: Message, error: type[GlintError], *words: str) -> Failure:
        """Send a message that is answered by this error, and return the answer."""
        failure = self.ask(message, Failure)
        check_failure(failure, error, *words)
        return failure

    def hello(self, *, session: bytes = b"", floor: int = 1) -> Welcome:
        """Open a session, or go on with one."""
        greeting = Hello(self.next_id(), VERSION, VERSION, "", os.urandom(16), session, floor)
        welcome = self.ask(greeting, Welcome)
        self.session, self.applied = welcome.session, welcome.applied
        return welcome

    def status(self) -> dict[str, Any]:
        """Ask a server what it has done; also shows that nothing else was answered before."""
        answer = self.ask(ServerStatus(self.next_id()), Done)
        found: dict[str, Any] = wire.content(answer.document)
        return found

    def close(self) -> None:
        self._connection.close()


def check_failure(failure: Failure, error: type[GlintError], *words: str) -> None:
    assert failure.code == code_of(error()), f"{error.__name__} expected: {failure.code} {failure.text}"
    for word in words:
        assert word in failure.text, failure.text


@dataclass(frozen=True)
class Served:
    """A master and one server in this process, and a client in good order."""

    scheme: str
    master: Node
    server: Node
    client: Client


@contextmanager
def a_cluster(scheme: str) -> Iterator[Served]:
    """Start a master and a server whose sockets are of this scheme."""

    def address() -> str:
        return "tcp://127.0.0.1:0" if scheme == "tcp" else f"local://raw-{os.getpid()}-{next(_names)}"

    master = start_master(address())
    try:
        server = start_server(master.address, address=address())
        try:
            with Client(master.address) as client:
                yield Served(scheme, master, server, client)
        finally:
            server.stop()
    finally:
        master.stop()


class Target:
    """Models with known values, a good client's handles to them, and a raw peer with a session."""

    def __init__(self, served: Served) -> None:
        self.served = served
        client = served.client
        self.matrix: BigMatrix = client.matrix(ROWS, COLS, dtype="float32", init=2, finite=True)
        self.vector: BigVector = client.vector(ROWS, dtype="int64", init=2)
        self.matrix_id, self.vector_id = self.matrix._info.model_id, self.vector._info.model_id
        gone = client.vector(5)
        gone.destroy()
        self.destroyed_id = gone._info.model_id
        self.peer = RawPeer(served.server.address)
        self.peer.hello()
        self.num_pushed = 0

    def push(self) -> Push:
        """Return a push to the matrix that is good as it is."""
        peer = self.peer
        return Push(
            peer.next_id(),
            peer.session,
            peer.applied + 1,
            peer.applied + 1,
            self.matrix_id,
            ROUTING,
            0,
            wants_values=False,
            assign=False,
            array=0,
            round=0,
            rank=0,
            paired=False,
            rows=indices(3, 5),
            cols=None,
            values=np.ones((2, COLS), np.float32),
        )

    def push_fields(self) -> list[Any]:
        """Return the same push's fields, as they stand in a header."""
        good = self.push()
        return [getattr(good, name) for name, rule in rules_of(Push) if not isinstance(rule, Frame)]

    def pull(self) -> Pull:
        """Return a pull from the matrix that is good as it is."""
        peer = self.peer
        return Pull(
            peer.next_id(),
            peer.session,
            1,
            0,
            self.matrix_id,
            ROUTING,
            0,
            0,
            round=0,
            rank=0,
            paired=False,
            rows=indices(3),
            cols=None,
        )

    def check(self) -> None:
        """See that no cell changed, that the session stands as it stood, and that others are served."""
        report = self.peer.ask(Probe(self.peer.next_id(), self.peer.session, 1, self.peer.applied), Report)
        assert report.applied == self.peer.applied
        self._check_values()
        # The next good push, with the number that is expected, is applied once; so is another client's.
        self.peer.ask(self.push(), Applied)
        self.peer.applied += 1
        self.matrix.push([3, 5], 1).result()
        self.num_pushed += 2
        self._check_values()

    def _check_values(self) -> None:
        expected = np.full((ROWS, COLS), 2, np.float32)
        expected[[3, 5]] += self.num_pushed
        np.testing.assert_array_equal(self.matrix.pull().result(), expected)
        np.testing.assert_array_equal(self.vector.pull().result(), np.full(ROWS, 2))

    def close(self) -> None:
        self.peer.close()
        self.matrix.destroy()
        self.vector.destroy()
