"""The ways to make one future of several, or of another."""

from __future__ import annotations

import concurrent.futures
import sys
import threading
from typing import Any

import pytest

from glintpy.errors import PushRefused, ServerLost
from glintpy.futures import NOTES_MAX, Future, completed, derived, failed, gather

WAIT_S = 30.0
"""How long a test waits for what must happen; reached only by a failing one."""


def test_gather_keeps_the_order_of_its_arguments() -> None:
    futures: list[Future[int]] = [Future() for _ in range(5)]
    joined = gather(*futures)
    for number in (3, 0, 4, 1):
        futures[number].set_result(number)
        assert not joined.done()
    futures[2].set_result(2)
    assert joined.result(0) == [0, 1, 2, 3, 4]


def test_gather_of_nothing_is_done() -> None:
    assert gather().result(0) == []


@pytest.mark.parametrize(
    ("value", "kind"), [([], "a list"), ([Future()], "a list"), (1, "an int"), (None, "a NoneType")]
)
def test_gather_refuses_what_is_no_future_before_any_is_watched(value: Any, kind: str) -> None:
    future: Future[int] = Future()
    with pytest.raises(
        TypeError, match=rf"^gather takes futures, gather\(\*futures\); argument 2 is {kind}$"
    ):
        gather(future, value)
    assert not future.seen


def test_gather_raises_the_first_failure_by_time_when_all_are_done() -> None:
    futures: list[Future[int]] = [Future() for _ in range(4)]
    joined = gather(*futures)
    first, second = ServerLost("first by time"), PushRefused("second by time")
    futures[3].set_exception(first)
    futures[0].set_exception(second)
    futures[1].set_result(1)
    assert not joined.done()
    futures[2].set_exception(first)  # the same error again says nothing new
    assert joined.exception(0) is first
    assert first.__notes__ == ["also failed: PushRefused: second by time"]
    assert gather(*futures).exception(0) in {first, second}
    assert len(first.__notes__) == 1


def test_gather_describes_a_bounded_number_of_failures() -> None:
    joined = gather(*[failed(ServerLost(f"number {i}")) for i in range(NOTES_MAX + 5)])
    error = joined.exception(0)
    assert str(error) == "number 0"
    assert error is not None
    assert len(error.__notes__) == NOTES_MAX + 1
    assert error.__notes__[-1] == "and 4 more failed"


def test_gather_takes_any_future_and_marks_its_inputs_as_seen() -> None:
    ours: Future[int] = Future()
    theirs: concurrent.futures.Future[str] = concurrent.futures.Future()
    cancelled: concurrent.futures.Future[str] = concurrent.futures.Future()
    joined = gather(ours, theirs, ours)
    assert ours.seen
    assert not joined.seen
    theirs.set_result("b")
    ours.set_result(1)
    assert joined.result(0) == [1, "b", 1]
    assert cancelled.cancel()
    with pytest.raises(concurrent.futures.CancelledError):
        gather(cancelled).result(0)


def test_gather_is_safe_when_many_threads_complete() -> None:
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    try:
        futures: list[Future[int]] = [Future() for _ in range(400)]
        joined = gather(*futures)

        def complete(first: int) -> None:
            for number in range(first, len(futures), 4):
                futures[number].set_result(number)

        threads = [threading.Thread(target=complete, args=(first,)) for first in range(4)]
        for thread in threads:
            thread.start()
        assert joined.result(WAIT_S) == list(range(400))
        for thread in threads:
            thread.join(WAIT_S)
    finally:
        sys.setswitchinterval(interval)


def test_derived_makes_a_value_of_a_value() -> None:
    source: Future[int] = Future()
    double = derived(source, lambda value: value * 2)
    assert source.seen
    assert not double.done()
    source.set_result(21)
    assert double.result(0) == 42
    assert derived(source, str).result(0) == "21"


def test_derived_fails_with_its_source_or_its_function() -> None:
    lost = ServerLost("gone")
    assert derived(failed(lost), str).exception(0) is lost
    assert isinstance(derived(completed("x"), int).exception(0), ValueError)
