"""What a server says of pushes that are in, or were given up: an answer must not lie about either."""

from __future__ import annotations

import numpy as np
import pytest

from glintpy import config
from glintpy.actors.receipts import Receipts
from glintpy.errors import Expelled, RemoteFailure
from glintpy.protocol.messages import Applied, Change, Hello, Pull, Push, Values
from glintpy.storage.journal import Journal

ROWS = np.array([0], dtype=np.int64)
VALUES = np.array([1], dtype=np.int64)


class Desk:
    """Receipts with one session, and a value that pushes add to."""

    def __init__(self) -> None:
        self.receipts = Receipts(Journal.create(None, "server", 4), config.ServerSettings())
        self.session = self.receipts.hello(Hello(1, 1, 1, "", bytes(16), b"", 1), 0.0).session
        self.total = 0
        self.can_read = True

    def push(self, sequence: int, floor: int, *, wants_values: bool = False) -> object:
        message = Push(
            sequence,
            self.session,
            floor,
            sequence,
            1,
            1,
            0,
            wants_values,
            False,
            0,
            0,
            0,
            False,
            ROWS,
            None,
            VALUES,
        )
        return self.receipts.push(message, 0.0, apply=self.apply, read=self.read)

    def apply(self, message: Push | Change) -> None:
        assert isinstance(message, Push)
        self.total += int(message.values.sum())

    def read(self, message: Pull | Push) -> np.ndarray:
        if not self.can_read:
            raise MemoryError("no memory for an answer")
        return np.full(message.rows.shape, self.total)


def test_a_push_pull_that_is_in_is_acknowledged_though_its_values_can_not_be_read() -> None:
    desk = Desk()
    desk.can_read = False
    assert isinstance(desk.push(1, 1, wants_values=True), Applied)
    assert isinstance(desk.push(1, 1, wants_values=True), Applied)
    desk.can_read = True
    assert isinstance(desk.push(1, 1, wants_values=True), Values)
    assert desk.total == 1


def test_a_number_that_was_given_up_is_never_applied_and_does_not_end_the_session() -> None:
    desk = Desk()
    desk.push(2, 2)  # number 1 was given up, and the floor says so
    with pytest.raises(RemoteFailure, match="push 1 was given up"):
        desk.push(1, 1)
    assert isinstance(desk.push(3, 2), Applied)
    assert desk.total == 2


def test_a_number_too_far_back_ends_the_session() -> None:
    desk = Desk()
    for sequence in range(1, config.RECEIPTS + 3):
        desk.push(sequence, sequence)
    with pytest.raises(Expelled, match="push 1 lies too far back"):
        desk.push(1, 1)
