"""Which requests leave when, by futures that tests complete themselves."""

from __future__ import annotations

import threading
from typing import Any

import pytest

import glintpy
from glintpy.kvstore import pacing
from glintpy.kvstore.pacing import Asked, Pacing
from tests.kvstore.conftest import PATIENCE_S


class Line:
    """Requests of a worker, the order in which they left, and their futures."""

    def __init__(self) -> None:
        self.pacing = Pacing()
        self.left: list[int] = []
        self.kept: list[int] = []
        self.futures: dict[int, glintpy.Future[Any]] = {}

    def add(self, number: int, priority: int = 0, num_bytes: int = 1, **options: Any) -> Asked:
        def send() -> glintpy.Future[Any]:
            self.left.append(number)
            self.futures[number] = glintpy.Future()
            return self.futures[number]

        def keep() -> None:
            self.kept.append(number)

        asked = Asked(number, priority, num_bytes, send, lambda found: found, keep, **options)
        self.pacing.add(asked)
        return asked


@pytest.fixture
def line(monkeypatch: pytest.MonkeyPatch) -> Line:
    monkeypatch.setattr(pacing, "UNDER_WAY_MAX", 2)
    monkeypatch.setattr(pacing, "UNDER_WAY_BYTES", 100)
    return Line()


def test_equal_ones_leave_in_order_and_others_by_priority(line: Line) -> None:
    asked = [line.add(number, priority) for number, priority in enumerate([0, 0, 0, 5, -1, 5, 0])]
    assert line.left == [0, 1]
    assert line.kept == [2, 3, 4, 5, 6]
    for number in (0, 1, 3, 5, 2, 6, 4):
        line.futures[number].set_result(number)
        line.pacing.finish(asked[number], PATIENCE_S)
        line.pacing._leave()  # as the thread of callbacks does, when it comes to it
    assert line.left == [0, 1, 3, 5, 2, 6, 4]
    assert [one.values for one in asked] == list(range(7))


def test_large_ones_wait_for_room_but_one_is_never_too_large(line: Line) -> None:
    first = line.add(0, num_bytes=1000)
    second = line.add(1, num_bytes=60)
    assert line.left == [0]
    line.futures[0].set_result(None)
    line.pacing.finish(first, PATIENCE_S)
    line.pacing._leave()
    assert line.left == [0, 1]
    line.add(2, num_bytes=60)
    line.add(3, num_bytes=1)  # it does not overtake
    assert line.left == [0, 1]
    line.futures[1].set_result(None)
    line.pacing.finish(second, PATIENCE_S)
    line.pacing._leave()
    assert line.left == [0, 1, 2, 3]


def test_who_waits_has_them_leave_where_the_thread_of_callbacks_can_t(line: Line) -> None:
    is_stuck, go_on = threading.Event(), threading.Event()

    def stick() -> None:
        is_stuck.set()
        assert go_on.wait(PATIENCE_S)

    line.add(0, callback=stick)
    second = line.add(1)
    third = line.add(2)
    line.futures[0].set_result(None)
    assert is_stuck.wait(PATIENCE_S)
    line.futures[1].set_result("one")
    with pytest.raises(TimeoutError):
        line.pacing.finish(third, 0)
    assert line.left == [0, 1, 2]
    line.futures[2].set_result("two")
    line.pacing.finish(third, PATIENCE_S)
    line.pacing.finish(second, PATIENCE_S)
    assert [second.values, third.values] == ["one", "two"]
    go_on.set()


def test_one_that_can_t_leave_fails_alone(line: Line) -> None:
    def refuse() -> glintpy.Future[Any]:
        raise glintpy.ConfigError("no")

    bad = Asked(0, 0, 1, refuse, lambda found: found, lambda: None)
    line.pacing.add(bad)
    good = line.add(1)
    line.futures[1].set_result(3)
    line.pacing.finish(bad)
    line.pacing.finish(good)
    assert isinstance(bad.error, glintpy.ConfigError)
    assert good.values == 3


def test_waiting_ends_in_time(line: Line) -> None:
    asked = [line.add(number) for number in range(3)]
    with pytest.raises(TimeoutError, match=r"^request 0 is not done within 0\.01 s$"):
        line.pacing.finish(asked[0], 0.01)
    with pytest.raises(TimeoutError, match=r"^request 2 still waits for others to be done after 0\.01 s$"):
        line.pacing.finish(asked[2], 0.01)
    for _ in range(3):
        for future in line.futures.values():
            if not future.done():
                future.set_result(None)
        line.pacing._leave()
    for one in asked:
        line.pacing.finish(one, PATIENCE_S)


def test_a_callback_that_still_runs_is_waited_for_so_long(line: Line) -> None:
    started, go_on = threading.Event(), threading.Event()

    def slow() -> None:
        started.set()
        assert go_on.wait(PATIENCE_S)

    asked = line.add(0, callback=slow)
    line.futures[0].set_result(None)
    assert started.wait(PATIENCE_S)
    with pytest.raises(TimeoutError, match=r"^the callback of request 0 still runs after 0\.01 s$"):
        line.pacing.finish(asked, 0.01)
    go_on.set()
    line.pacing.finish(asked, PATIENCE_S)
    assert asked.error is None


def test_all_that_is_done_at_once_leaves_in_one_go(line: Line) -> None:
    left: list[int] = []

    def at_once(number: int) -> Asked:
        def send() -> glintpy.Future[Any]:
            left.append(number)
            future: glintpy.Future[Any] = glintpy.Future()
            future.set_result(number)
            return future

        return Asked(number, 0, 1, send, lambda found: found, lambda: None)

    line.add(1000)
    line.add(1001)
    for number in range(2000):
        line.pacing.add(at_once(number))
    assert left == []
    line.futures[1000].set_result(None)
    line.pacing._leave()
    assert left == list(range(2000))
    line.futures[1001].set_result(None)
