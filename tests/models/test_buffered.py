"""The push buffer: what it combines, when it sends, and whom it tells about failures."""

from __future__ import annotations

import multiprocessing
import os
import threading
import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

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


# --- what it combines -----------------------------------------------------------------------------------


def test_whole_rows_are_combined_by_row() -> None:
    m = zero_matrix()
    buffer = PushBuffer(m)
    buffer.push([3, 1, 3], [[1], [2], [4]])
    buffer.push(1, 10)
    buffer.push(slice(5, None, -4), np.arange(8).reshape(2, 4))  # rows 5 and 1
    assert m.requests == []
    flushed(m, buffer)
    (request,) = m.requests
    assert request.rows.tolist() == [1, 3, 5]
    assert request.cols is None
    assert request.values.tolist() == [[16, 17, 18, 19], [5, 5, 5, 5], [0, 1, 2, 3]]
    assert request.values.dtype == np.float32


def test_elements_are_combined_by_row_and_column() -> None:
    m = zero_matrix()
    buffer = PushBuffer(m)
    buffer.push([5, 0, 5], [1, 2, 4], cols=[3, 0, 3])
    buffer.push([5], 8, cols=[2])
    buffer.push(0, 1, cols=0)
    flushed(m, buffer)
    (request,) = m.requests
    assert request.rows.tolist() == [0, 5, 5]
    assert request.cols.tolist() == [0, 2, 3]
    assert request.values.tolist() == [3, 8, 5]


def test_whole_columns_and_whole_models_are_taken() -> None:
    m = zero_matrix(3, 4)
    buffer = PushBuffer(m)
    values = np.arange(6, dtype=np.float32).reshape(3, 2)
    buffer.push(None, values, cols=[3, 0])
    buffer.push(None, 100, cols=slice(None, None, -2))
    buffer.push(None, np.arange(12).reshape(3, 4))
    flushed(m, buffer)
    expected = np.arange(12, dtype=np.float32).reshape(3, 4)
    expected[:, [3, 0]] += values
    expected[:, [3, 1]] += 100
    np.testing.assert_array_equal(m.array, expected)
    assert len(m.requests) == 2


def test_a_vector_is_combined_by_key() -> None:
    v = zero_vector()
    buffer = PushBuffer(v)
    buffer.push([3, 3, 0], 1)
    buffer.push(3, 5)
    flushed(v, buffer)
    (request,) = v.requests
    assert request.rows.tolist() == [0, 3]
    assert request.values.tolist() == [1, 7]


@pytest.mark.parametrize(("dtype", "expected"), [("int8", -128), ("uint8", 128), ("int64", 128), ("bool", 1)])
def test_integers_wrap_as_in_numpy(dtype: str, expected: int) -> None:
    v = zero_vector(dtype=dtype)
    buffer = PushBuffer(v)
    for _ in range(2):
        buffer.push([2], np.array([1 if dtype == "bool" else 64], dtype))
    flushed(v, buffer)
    assert int(v.array[2]) == expected


def test_keys_beyond_32_bits_do_not_overflow() -> None:
    class Tall(FakeModel):
        @property
        def shape(self) -> tuple[int, ...]:
            return (2**40, 2**20)

    m = Tall(np.zeros((1, 1), np.int8))
    buffer = PushBuffer(m)
    buffer.push([2**40 - 1, 0], 1, cols=[2**20 - 1, 0])
    buffer.flush()
    (request,) = m.requests
    assert request.rows.tolist() == [0, 2**40 - 1]
    assert request.cols.tolist() == [0, 2**20 - 1]


PUSHES = st.lists(
    st.tuples(
        st.booleans(),
        st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3)), max_size=6),
        st.integers(-9, 9),
    ),
    max_size=30,
)


@settings(max_examples=60, deadline=None)
@given(pushes=PUSHES, max_bytes=st.integers(1, 300))
def test_what_is_applied_is_what_was_pushed(
    pushes: list[tuple[bool, list[tuple[int, int]], int]], max_bytes: int
) -> None:
    waits = Waits()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(buffered, "wait", waits)
        m = waits.model = zero_matrix(dtype="int16")
        expected = m.array.copy()
        buffer = PushBuffer(m, max_bytes=max_bytes)
        for is_whole, cells, value in pushes:
            rows = [row for row, _ in cells]
            cols = [col for _, col in cells]
            if is_whole:
                buffer.push(rows, value)
                np.add.at(expected, np.array(rows, int), value)
            else:
                buffer.push(rows, value, cols=cols)
                np.add.at(expected, (np.array(rows, int), np.array(cols, int)), value)
        flushed(m, buffer)
        np.testing.assert_array_equal(m.array, expected)
        assert buffer.num_bytes == buffer.num_pushes == 0


def test_the_callers_arrays_may_be_reused_at_once() -> None:
    m = zero_matrix()
    buffer = PushBuffer(m)
    rows, cols, values = np.array([1, 2]), np.array([0, 1]), np.ones((2, 4), np.float32)
    elements = np.ones(2, np.float32)
    buffer.push(rows, values)
    buffer.push(rows, elements, cols=cols)
    for array in (rows, cols, values, elements):
        array.fill(0)
    flushed(m, buffer)
    assert m.array.tolist() == [[0] * 4, [2, 1, 1, 1], [1, 2, 1, 1], [0] * 4, [0] * 4, [0] * 4]


# --- when it sends --------------------------------------------------------------------------------------


def test_repeated_keys_stay_in_the_buffer() -> None:
    m = zero_matrix()
    buffer = PushBuffer(m, max_bytes=10 * ELEMENT_BYTES)
    for _ in range(200):
        buffer.push([1, 2], 1, cols=[0, 3])
        assert buffer.num_bytes <= 10 * ELEMENT_BYTES
    assert m.requests == []
    assert buffer.num_pushes == 200
    flushed(m, buffer)
    (request,) = m.requests
    assert request.values.tolist() == [200, 200]
    assert buffer.num_pushes == 0


def test_a_buffer_still_more_than_half_full_when_combined_is_sent() -> None:
    m = zero_matrix()
    buffer = PushBuffer(m, max_bytes=4 * ELEMENT_BYTES)
    buffer.push([0, 0, 1, 1], 1, cols=[0] * 4)
    assert buffer.num_bytes == 4 * ELEMENT_BYTES  # full, and not beyond
    buffer.push([1], 1, cols=[0])
    assert m.requests == []
    assert buffer.num_bytes == 2 * ELEMENT_BYTES  # half is not more than half
    buffer.push([2, 3, 4], 1, cols=[0] * 3)
    (request,) = m.requests
    assert request.rows.tolist() == [0, 1, 2, 3, 4]
    assert request.is_open
    assert buffer.num_bytes == buffer.num_pushes == 0
    m.complete_all()


def test_num_bytes_and_num_pushes_count_what_is_buffered() -> None:
    m = zero_matrix()
    buffer = PushBuffer(m)
    buffer.push([1, 2], 1)
    buffer.push([], 1)  # nothing
    buffer.push([1], 1, cols=[2])
    assert buffer.num_bytes == 2 * (8 + 4 * 4) + ELEMENT_BYTES
    assert buffer.num_pushes == 2
    flushed(m, buffer)


def test_one_flush_is_in_flight_at_a_time(waits: Waits) -> None:
    m = waits.model = zero_matrix()
    buffer = PushBuffer(m, max_bytes=1)
    for number in range(5):
        buffer.push([number], 1)
        assert len(m.in_flight) == 1
    assert waits.in_flight == [1, 1, 1, 1]
    assert m.peak == 1
    flushed(m, buffer)
    assert m.array.sum() == 5 * 4


def test_rows_and_elements_are_one_flush() -> None:
    m = zero_matrix()
    buffer = PushBuffer(m)
    buffer.push([1], 1)
    buffer.push([1], 1, cols=[2])
    flush = buffer.flush()
    first, second = m.requests
    second.complete()
    assert not flush.done()
    first.complete()
    assert flush.result(0) is None
    assert m.array[1].tolist() == [1, 1, 2, 1]


def test_flush_is_done_when_everything_sent_before_is_applied() -> None:
    m = zero_matrix()
    buffer = PushBuffer(m)
    assert buffer.flush().result(0) is None
    buffer.push([1], 1)
    first = buffer.flush()
    buffer.push([2], 1)
    second = buffer.flush()
    nothing_new = buffer.flush()
    assert len(m.requests) == 2
    m.requests[1].complete()
    assert not any(flush.done() for flush in (first, second, nothing_new))
    m.requests[0].complete()
    assert [flush.result(0) for flush in (first, second, nothing_new)] == [None] * 3
    assert buffer.flush().result(0) is None


def test_leaving_with_flushes_and_waits() -> None:
    m = zero_matrix()
    waiters: list[int] = []

    class Counted(PushBuffer):
        def flush(self) -> Any:
            future = super().flush()
            waiters.append(len(m.in_flight))
            m.complete_all()
            return future

    with Counted(m) as buffer:
        buffer.push([2], 3)
        assert m.requests == []
    assert waiters == [1]
    assert m.array[2].tolist() == [3] * 4


# --- threads and processes ------------------------------------------------------------------------------


def test_threads_fill_one_buffer() -> None:
    m = zero_matrix(dtype="int64")
    buffer = PushBuffer(m, max_bytes=40 * (8 + 8))

    def fill() -> None:
        for _ in range(100):
            buffer.push([1, 2, 2], 1, cols=[0, 1, 1])

    threads = [threading.Thread(target=fill) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert buffer.num_pushes == 400
    flushed(m, buffer)
    assert m.array[1, 0] == 400
    assert m.array[2, 1] == 800


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_child_does_not_send_what_the_parent_buffered() -> None:
    m = zero_matrix()
    buffer = PushBuffer(m)
    buffer.push([1], 1)
    reader, writer = multiprocessing.Pipe(duplex=False)
    with buffer._lock, warnings.catch_warnings():
        # Held, as by another thread in the middle of a push; and that threads and fork meet is the point.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
        if pid == 0:
            try:
                inherited = buffer.num_pushes
                buffer.push([5], 1)
                flush = buffer.flush()
                m.complete_all()
                flush.result(0)
                writer.send((inherited, m.array.sum(axis=1).tolist()))
            except BaseException as error:  # noqa: BLE001  the child must never run the rest of the tests
                writer.send(repr(error))
            finally:
                os._exit(0)
    try:
        assert reader.poll(30), "the child said nothing"
        assert reader.recv() == (0, [0, 0, 0, 0, 0, 4])
    finally:
        os.waitpid(pid, 0)
        reader.close()
        writer.close()
    assert buffer.num_pushes == 1
    flushed(m, buffer)
    assert m.array.sum(axis=1).tolist() == [0, 4, 0, 0, 0, 0]
