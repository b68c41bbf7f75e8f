"""Futures that many threads complete, wait for and look at in the same moment."""

from __future__ import annotations

import concurrent.futures
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import InvalidStateError
from typing import Any

import pytest

from glintpy.errors import ServerLost
from glintpy.futures import Future, gather

WAIT_S = 30.0
NUM_ROUNDS = 300


@pytest.fixture(autouse=True)
def _hurried() -> Iterator[None]:
    """Let threads change after every few steps, so that each order of them comes up."""
    before = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)
    yield
    sys.setswitchinterval(before)


class Crowd:
    """Threads that do something in the same moment, round after round."""

    def __init__(self, *works: Callable[[Future[int]], None], num_rounds: int = NUM_ROUNDS) -> None:
        self._works = works
        self._barrier = threading.Barrier(len(works))
        self.futures: list[Future[int]] = [Future() for _ in range(num_rounds)]
        self.errors: list[BaseException] = []

    def run(self) -> None:
        threads = [threading.Thread(target=self._loop, args=(work,), daemon=True) for work in self._works]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(WAIT_S * 2)
            assert not thread.is_alive(), f"a thread hangs; {self.errors}"
        if self.errors:
            raise self.errors[0]

    def _loop(self, work: Callable[[Future[int]], None]) -> None:
        try:
            for future in self.futures:
                self._barrier.wait(WAIT_S)
                work(future)
        except threading.BrokenBarrierError:
            pass  # another one failed, and says why
        except BaseException as error:  # noqa: BLE001 - raised by the test's own thread
            self.errors.append(error)
            self._barrier.abort()


def complete(future: Future[int]) -> None:
    future.set_result(7)


def wait_for_result(future: Future[int]) -> None:
    assert future.result(WAIT_S) == 7


def wait_for_exception(future: Future[int]) -> None:
    assert future.exception(WAIT_S) is None


def wait_by_the_library(future: Future[int]) -> None:
    done, open_ = concurrent.futures.wait([future], WAIT_S)
    assert (done, open_) == ({future}, set())


def take_as_completed(future: Future[int]) -> None:
    assert list(concurrent.futures.as_completed([future], WAIT_S)) == [future]


def gather_it(future: Future[int]) -> None:
    assert gather(future, future).result(WAIT_S) == [7, 7]


def poll(future: Future[int]) -> None:
    while not future.done():
        pass
    assert future.result(0) == 7  # done means that the value is there


def add_a_callback(future: Future[int]) -> None:
    called = threading.Event()
    found: list[int] = []

    def note(done: Future[int]) -> None:
        found.append(done.result(0))
        called.set()

    future.add_done_callback(note)
    assert called.wait(WAIT_S)
    assert found == [7]


LOOKS = [
    wait_for_result,
    wait_for_exception,
    wait_by_the_library,
    take_as_completed,
    gather_it,
    poll,
    add_a_callback,
]


@pytest.mark.parametrize("look", LOOKS)
def test_who_looks_while_it_is_completed_misses_nothing(look: Callable[[Future[int]], None]) -> None:
    Crowd(complete, look, look).run()


def test_all_ways_to_look_at_once() -> None:
    Crowd(complete, *LOOKS, num_rounds=NUM_ROUNDS // 2).run()


@pytest.mark.parametrize("num_waiters", [0, 1])
@pytest.mark.parametrize("second", ["result", "exception"])
def test_of_several_that_complete_it_one_does_and_the_others_are_told(second: str, num_waiters: int) -> None:
    told: list[InvalidStateError] = []
    won: dict[int, list[Any]] = {}

    def complete_with(value: Any) -> Callable[[Future[int]], None]:
        def work(future: Future[int]) -> None:
            try:
                if isinstance(value, BaseException):
                    future.set_exception(value)
                else:
                    future.set_result(value)
            except InvalidStateError as error:
                told.append(error)
            else:
                won.setdefault(id(future), []).append(value)

        return work

    values = [1, 2, ServerLost("x") if second == "exception" else 3]
    waiters = [lambda future: future.exception(WAIT_S)] * num_waiters
    crowd = Crowd(*map(complete_with, values), *waiters)
    crowd.run()
    assert len(told) == 2 * NUM_ROUNDS
    for future in crowd.futures:
        (winner,) = won[id(future)]
        error = future.exception(0)
        assert (future.result(0) if error is None else error) == winner


def test_a_second_outcome_is_refused_whether_somebody_looked_or_not() -> None:
    for looks in (repr, lambda future: future.add_done_callback(lambda _: None)):
        for first in ("result", "exception"):
            future: Future[int] = Future()
            looks(future)
            error = ServerLost("gone")
            if first == "result":
                future.set_result(1)
            else:
                future.set_exception(error)
            with pytest.raises(InvalidStateError):
                future.set_result(2)
            with pytest.raises(InvalidStateError):
                future.set_exception(ServerLost("again"))
            assert future.done()
            assert not future.running()
            assert future.exception(0) is (None if first == "result" else error)


# --- who brings the answer --------------------------------------------------------------------------------


class Bringing:
    """Notes who is helped; completes a future for a thread that waits, where it has one to complete."""

    def __init__(self, future: Future[int] | None = None) -> None:
        self.limits: list[float | None] = []
        self.num_others = 0
        self._future = future

    def wait_for(self, is_done: Callable[[], bool], timeout_s: float | None) -> None:
        self.limits.append(timeout_s)
        if self._future is not None and not is_done():
            self._future.set_result(7)

    def expect_others(self) -> None:
        self.num_others += 1


def brought(*, completes: bool) -> tuple[Future[int], Bringing]:
    future: Future[int] = Future()
    bringing = Bringing(future if completes else None)
    future.bringer = bringing
    return future, bringing


@pytest.mark.parametrize("timeout", [None, WAIT_S])
@pytest.mark.parametrize("look", ["result", "exception"])
def test_a_thread_that_waits_is_given_work_and_needs_no_other(look: str, timeout: float | None) -> None:
    future, bringing = brought(completes=True)
    assert getattr(future, look)(timeout) == (7 if look == "result" else None)
    assert bringing.limits == [timeout]
    assert future.result(timeout) == 7
    assert future.exception(timeout) is None
    assert bringing.limits == [timeout]  # what is done needs nobody
    assert bringing.num_others == 0


@pytest.mark.parametrize("look", ["result", "exception"])
def test_who_waits_in_vain_is_told_so_by_its_own_time(look: str) -> None:
    future, bringing = brought(completes=False)
    with pytest.raises(TimeoutError):
        getattr(future, look)(0.001)
    assert bringing.limits == [0.001]
    assert not future.done()
    assert not future.seen


@pytest.mark.parametrize(
    "look",
    [
        lambda future: future.add_done_callback(lambda _: None),
        lambda future: concurrent.futures.wait([future], 0),
        gather,
        lambda future: future.running(),
    ],
    ids=["callback", "wait", "gather", "running"],
)
def test_who_looks_without_working_is_announced_once(look: Callable[[Future[int]], object]) -> None:
    future, bringing = brought(completes=False)
    look(future)
    look(future)
    assert bringing.num_others == 1
    assert bringing.limits == []
    future.set_result(1)
    look(future)
    assert bringing.num_others == 1


def test_who_is_done_before_anybody_looks_announces_nobody() -> None:
    future, bringing = brought(completes=False)
    future.set_result(1)
    concurrent.futures.wait([future], 0)
    future.add_done_callback(lambda _: None)
    assert bringing.num_others == 0
