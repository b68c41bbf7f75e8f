"""The push buffer: mistakes, failed flushes, and how it is left."""

from __future__ import annotations

import gc
import threading
from typing import Any

import numpy as np
import pytest

from glintpy.errors import (
    ConfigError,
    DTypeError,
    KeyRangeError,
    ModelNotFound,
    PushRefused,
    ServerLost,
    ShapeError,
)
from glintpy.models import buffered
from glintpy.models.buffered import PushBuffer
from tests.models.fake_model import FakeModel, Waits, flushed, zero_matrix, zero_vector

ROOMY = 1 << 20
ELEMENT_BYTES = 8 + 4
"""An int64 key and a float32."""


@pytest.fixture
def waits(monkeypatch: pytest.MonkeyPatch) -> Waits:
    stand_in = Waits()
    monkeypatch.setattr(buffered, "wait", stand_in)
    return stand_in


def test_mistakes_raise_in_the_call_and_buffer_nothing() -> None:
    m = FakeModel(np.zeros((6, 4), np.float32), finite=True)
    buffer = PushBuffer(m)
    with pytest.raises(KeyRangeError, match="6"):
        buffer.push([6], 1)
    with pytest.raises(KeyRangeError, match="-1"):
        buffer.push([-1], 1)
    with pytest.raises(ShapeError):
        buffer.push([1, 2], 1, cols=[1])
    with pytest.raises(ShapeError):
        buffer.push([1, 2], [1, 2, 3])
    with pytest.raises(DTypeError):
        buffer.push([1], np.nan)
    with pytest.raises(DTypeError):
        buffer.push([1], "x")
    assert buffer.num_bytes == buffer.num_pushes == 0
    with pytest.raises(DTypeError):
        PushBuffer(zero_matrix(dtype="int32")).push([1], 0.5)
    with pytest.raises(ShapeError, match="no columns"):
        PushBuffer(zero_vector()).push([1], 1, cols=[1])


@pytest.mark.parametrize("bad", [0, -5, 1.5, "1", True, None])
def test_max_bytes_is_checked(bad: Any) -> None:
    with pytest.raises(ConfigError, match=f"max_bytes.*{bad!r}"):
        PushBuffer(zero_matrix(), max_bytes=bad)


def test_a_failed_flush_is_raised_once_by_the_next_push_which_buffers_nothing() -> None:
    m = zero_matrix()
    buffer = PushBuffer(m, max_bytes=1)
    buffer.push([1], 1)
    error = ServerLost("gone")
    m.requests[0].fail(error)
    with pytest.raises(ServerLost, match="gone"):
        buffer.push([2], 1)
    assert buffer.num_pushes == 0
    assert len(m.requests) == 1
    buffer.push([3], 1)
    flushed(m, buffer)
    assert m.array.sum(axis=1).tolist() == [0, 0, 0, 4, 0, 0]


def test_a_failed_flush_is_raised_by_flush_and_then_no_more() -> None:
    m = zero_matrix()
    buffer = PushBuffer(m, max_bytes=1)
    buffer.push([1], 1)
    m.requests[0].fail(ServerLost("gone"))
    with pytest.raises(ServerLost, match="gone"):
        buffer.flush().result(0)
    assert buffer.flush().result(0) is None
    buffer.push([2], 1)
    m.complete_all()


def test_a_failed_flush_is_raised_by_leaving_with() -> None:
    m = zero_matrix()

    def fill() -> None:
        with PushBuffer(m, max_bytes=1) as buffer:
            buffer.push([1], 1)
            m.requests[0].fail(ServerLost("gone"))

    with pytest.raises(ServerLost, match="gone"):
        fill()


def test_a_failure_found_while_waiting_for_room_is_raised_by_the_next_push(waits: Waits) -> None:
    m = waits.model = zero_matrix()
    buffer = PushBuffer(m, max_bytes=1)
    buffer.push([1], 1)
    waits.error = ServerLost("gone")
    buffer.push([2], 1)  # was taken and sent, so it doesn't raise
    m.complete_all()
    with pytest.raises(ServerLost, match="gone"):
        buffer.push([3], 1)
    assert m.array.sum(axis=1).tolist() == [0, 0, 4, 0, 0, 0]
    assert buffer.flush().result(0) is None


def test_a_failure_that_somebody_saw_in_a_flush_is_not_raised_again() -> None:
    m = zero_matrix()
    buffer = PushBuffer(m)
    buffer.push([1], 1)
    flush = buffer.flush()
    m.requests[0].fail(ServerLost("gone"))
    assert isinstance(flush.exception(0), ServerLost)
    buffer.push([2], 1)
    flushed(m, buffer)


def test_a_push_refused_in_the_call_fails_the_flush() -> None:
    m = zero_matrix()
    buffer = PushBuffer(m)
    buffer.push([1], 1)
    m.refuse = ModelNotFound("it was destroyed")
    flush = buffer.flush()
    with pytest.raises(ModelNotFound, match="destroyed"):
        flush.result(0)


def test_leaving_by_an_exception_discards_and_warns_with_the_count() -> None:
    m = zero_matrix()

    def fill() -> None:
        with PushBuffer(m) as buffer:
            buffer.push([1], 1)
            buffer.push([1], 1, cols=[2])
            raise KeyError("the user's own")

    with (
        pytest.warns(RuntimeWarning, match=r"^2 buffered pushes were discarded.*KeyError"),
        pytest.raises(KeyError),
    ):
        fill()
    assert m.requests == []


def test_leaving_by_an_exception_with_nothing_buffered_says_nothing() -> None:
    with pytest.raises(KeyError), PushBuffer(zero_matrix()):
        raise KeyError("the user's own")


@pytest.mark.parametrize("fails_before", [True, False])
def test_leaving_by_an_exception_still_reports_a_failed_flush(
    fails_before: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    m = zero_matrix()
    reported: list[str] = []
    is_reported = threading.Event()

    def report(message: str, error: BaseException) -> None:
        reported.append(message % error)
        is_reported.set()

    monkeypatch.setattr(buffered._logger, "error", report)

    def fill() -> None:
        with PushBuffer(m, max_bytes=1) as buffer:
            buffer.push([1], 1)
            if fails_before:
                m.requests[0].fail(PushRefused("too much"))
            raise KeyError("the user's own")

    with pytest.raises(KeyError):
        fill()
    if not fails_before:
        m.requests[0].fail(PushRefused("too much"))
    assert is_reported.wait(30)
    assert len(reported) == 1
    assert "too much" in reported[0]


def test_a_buffer_dropped_with_pushes_in_it_warns() -> None:
    def drop() -> None:
        PushBuffer(zero_matrix()).push([1], 1)
        gc.collect()  # where nothing else ends an object at once

    with pytest.warns(ResourceWarning, match="1 pushes in it"):
        drop()
