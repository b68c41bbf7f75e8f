"""A client's session and the server's lines in its play, for the tests of sessions."""

from __future__ import annotations

import itertools
import random
from collections.abc import Callable

import numpy as np

from glintpy import config
from glintpy.errors import GlintError
from glintpy.protocol import wire
from glintpy.protocol.calls import Call, Failed, Result, Stamp
from glintpy.protocol.failures import code_of
from glintpy.protocol.messages import (
    Applied,
    Failure,
    Hello,
    Message,
    Probe,
    Pull,
    Push,
    Report,
    Welcome,
)
from glintpy.protocol.session import Session

SESSION = bytes(range(16))
OTHER = bytes(range(1, 17))
ROWS = np.array([0], dtype=np.int64)
VALUES = np.array([1], dtype=np.int64)
WINDOW = 1 << 20


class Talk:
    """A session and the server's lines in its play."""

    def __init__(self, settings: config.ClientSettings | None = None) -> None:
        self.now = 50.0
        self.ids = itertools.count(1)
        self.results: dict[int, Result] = {}
        self.session = Session(
            client_id=bytes(16),
            settings=settings or config.ClientSettings(),
            new_request_id=lambda: next(self.ids),
            random_source=random.Random(7),
        )

    @classmethod
    def opened(cls, window_bytes: int = WINDOW) -> Talk:
        talk = cls()
        talk.session.connected(talk.now)
        talk.welcome(window_bytes=window_bytes)
        return talk

    def said(self) -> list[Message]:
        """Return what the session sends now."""
        return [
            message
            for frames in self.session.outgoing(self.now)
            for message in wire.decode_all([bytes(frame) for frame in frames])
        ]

    def pushes(self) -> list[int]:
        return [message.sequence for message in self.said() if isinstance(message, Push)]

    def hear(self, message: Message) -> None:
        self.session.receive(message, self.now)

    def welcome(self, session: bytes = SESSION, *, applied: int = 0, window_bytes: int = WINDOW) -> Hello:
        hellos = [message for message in self.said() if isinstance(message, Hello)]
        self.hear(Welcome(hellos[-1].request_id, 1, "", "server", 1, session, window_bytes, applied))
        return hellos[-1]

    def reconnect(self, *, applied: int) -> Hello:
        self.session.disconnected(self.now)
        self.session.connected(self.now)
        return self.welcome(applied=applied)

    def push(
        self, *, cost_bytes: int = 8, deadline: float | None = None, reads: bool = False, model_id: int = 1
    ) -> int:
        number = next(self.ids)

        def build(stamp: Stamp) -> Push:
            return Push(
                number,
                stamp.session,
                stamp.floor,
                stamp.sequence,
                model_id,
                1,
                0,
                reads,
                False,
                0,
                0,
                0,
                False,
                ROWS,
                None,
                VALUES,
            )

        self._submit(
            number, build, cost_bytes, deadline, model_id, reads=self._reader(number) if reads else None
        )
        return number

    def pull(self, *, cost_bytes: int = 8, deadline: float | None = None, model_id: int = 1) -> int:
        number = next(self.ids)
        self._submit(number, self._reader(number, model_id), cost_bytes, deadline, model_id, numbered=False)
        return number

    def probe(self) -> Probe:
        """Be silent until the session probes."""
        for _ in range(10_000):
            self.now += 0.01
            self.session.tick(self.now)
            for message in self.said():
                if isinstance(message, Probe):
                    return message
        raise AssertionError("it never probed")

    def report(self, probe: Probe, applied: int, outcomes: list[int], first: int = 1) -> None:
        self.hear(Report(probe.request_id, WINDOW, applied, first, np.array(outcomes, dtype=np.uint8)))

    def failed(self, number: int) -> Failed:
        result = self.results[number]
        assert isinstance(result, Failed)
        return result

    @staticmethod
    def _reader(number: int, model_id: int = 1) -> Callable[[Stamp], Message]:
        def build(stamp: Stamp) -> Pull:
            return Pull(
                number, stamp.session, stamp.floor, stamp.after, model_id, 1, 0, 0, 0, 0, False, ROWS, None
            )

        return build

    def _submit(
        self,
        number: int,
        build: Callable[[Stamp], Message],
        cost_bytes: int,
        deadline: float | None,
        model_id: int,
        *,
        numbered: bool = True,
        reads: Callable[[Stamp], Message] | None = None,
    ) -> None:
        def settle(result: Result) -> None:
            assert number not in self.results, "settled twice"
            self.results[number] = result

        self.session.submit(
            Call(
                number,
                build,
                settle,
                deadline=deadline,
                cost_bytes=cost_bytes,
                model_id=model_id,
                numbered=numbered,
                build_read=reads,
            )
        )


def applied(number: int) -> Applied:
    return Applied(number, 0, WINDOW)


def failure(number: int, error: GlintError) -> Failure:
    return Failure(number, 0, code_of(error), WINDOW, str(error))
