"""Functions over one shard, and the order of their messages: without a server or a socket."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from glintpy import functions
from glintpy.errors import ConfigError
from glintpy.functions import Reading
from glintpy.protocol import wire
from glintpy.protocol.calls import Call, Stamp
from glintpy.protocol.messages import Change, Compute, Computed, Message
from glintpy.protocol.selection import Selection, slices_of
from glintpy.protocol.spec import ModelSpec
from glintpy.storage import calling
from glintpy.storage.shard import Shard
from tests.unit.session_talk import ROWS, Talk

NUMBERS = wire.document({})


def a_shard() -> Shard:
    values = np.arange(24, dtype=np.float32).reshape(6, 4)
    return Shard(5, ModelSpec("m", 100, 4, "float32"), 1, values)


def take() -> Reading:
    found = functions.named("take")
    assert isinstance(found, Reading)
    return found


# --- one shard ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("rows", [slices_of((1, 5, 1)), slices_of((1, 2, 1), (4, 5, 1)), np.array([3, 1, 3])])
def test_an_answer_is_a_copy_and_what_a_function_sees_is_read_only(rows: NDArray[Any]) -> None:
    shard = a_shard()
    seen: list[NDArray[Any]] = []

    class Seeing(Reading):
        def read(self, piece: functions.Piece) -> functions.Answer:
            seen.append(piece.values)
            return (piece.values[:, 0],)

    for function in (take(), Seeing()):
        (answer,) = calling.read(function, shard, Selection(rows), ())
        before = answer.copy()
        shard.values += 1
        np.testing.assert_array_equal(answer, before)
    assert not seen[0].flags.writeable
    with pytest.raises(ConfigError, match="updater 'add' keeps no slot 'speed'"):
        calling.read(_slot_of("speed"), shard, Selection(rows), ())


def test_rows_that_lie_together_are_seen_where_they_are() -> None:
    shard = a_shard()
    seen: list[bool] = []

    class Seeing(Reading):
        def read(self, piece: functions.Piece) -> functions.Answer:
            seen.append(np.shares_memory(piece.values, shard.values))
            return ()

    for rows in (slices_of((0, 6, 1)), slices_of((2, 3, 1)), np.array([0, 1])):
        assert calling.read(Seeing(), shard, Selection(rows), ()) == ()
    assert seen == [True, True, False]


def _slot_of(name: str) -> Reading:
    class Slot(Reading):
        def read(self, piece: functions.Piece) -> functions.Answer:
            return (piece.slot(name),)

    return Slot()


# --- one session ----------------------------------------------------------------------------------------------


def compute(request_id: int, model_id: int, other_id: int | None = None) -> Call:
    def build(stamp: Stamp) -> Compute:
        ids = (request_id, stamp.session, stamp.floor, stamp.after, model_id, 1, other_id or 0, 1, 0)
        return Compute(*ids, "dot", NUMBERS, ROWS, ROWS, None, None, None)

    return Call(request_id, build, lambda _: None, model_id=model_id, other_model_id=other_id, cost_bytes=1)


def change(request_id: int, model_id: int) -> Call:
    def build(stamp: Stamp) -> Change:
        ids = (request_id, stamp.session, stamp.floor, stamp.sequence, model_id, 1, 0, 0, 0)
        return Change(*ids, "scale", NUMBERS, ROWS, None, None, None, None, None)

    return Call(request_id, build, lambda _: None, model_id=model_id, numbered=True, cost_bytes=1)


def test_a_call_follows_its_client_s_pushes_to_both_models() -> None:
    talk = Talk.opened()
    session = talk.session
    for number, model_id in enumerate((7, 8, 9, 7)):
        session.submit(change(100 + number, model_id))
    calls = [(8, None), (7, 8), (8, 7), (8, 9), (9, 8), (6, None), (6, 8)]
    for number, (model_id, other_id) in enumerate(calls):
        session.submit(compute(200 + number, model_id, other_id))
    said: list[Message] = talk.said()
    assert [one.sequence for one in said if isinstance(one, Change)] == [1, 2, 3, 4]
    assert [one.after for one in said if isinstance(one, Compute)] == [2, 4, 4, 3, 3, 0, 2]


def test_an_answer_settles_the_call_that_it_belongs_to() -> None:
    talk = Talk.opened()
    found: list[Any] = []
    call = compute(300, 7)
    call.settle = found.append
    talk.session.submit(call)
    talk.said()
    talk.session.receive(Computed(301, 0, 1000, None, None, None), talk.now)
    assert found == []
    answer = Computed(300, 0, 1000, np.ones(2), None, None)
    talk.session.receive(answer, talk.now)
    assert found == [answer]
    assert talk.session.window_bytes == 1000
    assert talk.session.num_waiting == 0
