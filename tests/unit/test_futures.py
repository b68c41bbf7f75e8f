"""The public future in threads and in asyncio."""

from __future__ import annotations

import asyncio
import concurrent.futures
import gc
import logging
import queue
import threading
import weakref
from collections.abc import Callable
from typing import Any

import pytest

from glintpy.errors import PullFailed, ServerLost
from glintpy.futures import Future, completed, failed, gather

WAIT_S = 30.0
"""How long a test waits for what must happen; reached only by a failing one."""


def released(*, after: threading.Event) -> Callable[[object], None]:
    """Return a callback that blocks its thread until the event is set."""

    def block(_: object) -> None:
        assert after.wait(WAIT_S)

    return block


# --- what it has of concurrent.futures ------------------------------------------------------------------


class NoBringer:
    """Brings nothing."""

    def wait_for(self, is_done: Callable[[], bool], timeout_s: float | None) -> None:
        """See ``Bringer``."""

    def expect_others(self) -> None:
        """See ``Bringer``."""


@pytest.mark.parametrize("is_waited_for", [False, True])
def test_the_answer_to_a_request_that_somebody_else_has_completed_is_dropped(
    caplog: pytest.LogCaptureFixture, is_waited_for: bool
) -> None:
    for outcome in (4, RuntimeError("gave up")):
        future: Future[Any] = Future()
        future.bringer = NoBringer()
        called: queue.SimpleQueue[Any] = queue.SimpleQueue()
        if is_waited_for:
            future.add_done_callback(called.put)
        if isinstance(outcome, Exception):
            future.set_exception(outcome)
        else:
            future.set_result(outcome)
        future.set_result("the answer")
        future.set_exception(ValueError("the refusal"))
        assert (future.exception() or future.result()) is outcome
        last: Future[Any] = Future()
        # Callbacks run in order: whatever is still to come comes before it.
        last.add_done_callback(called.put)
        last.set_result(None)
        for expected in [future] * is_waited_for + [last]:
            assert called.get(timeout=WAIT_S) is expected
    assert caplog.text.count("completed by somebody else") == 4
    mine: Future[int] = Future()
    mine.set_result(1)
    again: list[Callable[[], None]] = [lambda: mine.set_result(2), lambda: mine.set_exception(ValueError())]
    for complete in again:
        with pytest.raises(concurrent.futures.InvalidStateError):
            complete()


def test_it_is_a_running_future_that_cannot_be_cancelled() -> None:
    future: Future[int] = Future()
    assert isinstance(future, concurrent.futures.Future)
    assert future.running()
    assert not future.cancel()
    assert not future.cancelled()
    future.set_result(3)
    assert not future.cancel()
    assert future.result() == 3
    assert future.exception() is None


def test_result_timeout_only_stops_waiting() -> None:
    future: Future[int] = Future()
    with pytest.raises(TimeoutError):
        future.result(0)
    with pytest.raises(TimeoutError):
        future.exception(0)
    assert not future.done()
    future.set_result(5)
    assert future.result(0) == 5


def test_wait_and_as_completed_work_while_a_callback_blocks_its_thread() -> None:
    may_go = threading.Event()
    blocker: Future[None] = Future()
    blocker.add_done_callback(released(after=may_go))
    blocker.set_result(None)
    try:
        futures: list[Future[int]] = [Future() for _ in range(4)]

        def complete() -> None:
            for number, future in enumerate(futures):
                future.set_result(number)

        threading.Thread(target=complete, daemon=True).start()
        done, open_ = concurrent.futures.wait(futures, timeout=WAIT_S)
        assert done == set(futures)
        assert not open_
        seen = concurrent.futures.as_completed(futures, timeout=WAIT_S)
        assert sorted(future.result() for future in seen) == [0, 1, 2, 3]
        joined = gather(*futures)
        assert joined.result(WAIT_S) == [0, 1, 2, 3]
    finally:
        may_go.set()


# --- seen -----------------------------------------------------------------------------------------------


def test_a_new_or_finished_future_is_unseen_until_its_outcome_is_told() -> None:
    future: Future[int] = Future()
    with pytest.raises(TimeoutError):
        future.result(0)
    with pytest.raises(TimeoutError):
        future.exception(0)
    concurrent.futures.wait([future], timeout=0)
    assert not future.seen
    future.set_result(1)
    assert future.done()
    assert not future.seen
    future.result()
    assert future.seen


@pytest.mark.parametrize("look", ["result", "exception", "callback"])
def test_looking_at_a_failure_makes_it_seen(look: str) -> None:
    future = failed(PullFailed("late"))
    assert not future.seen
    if look == "result":
        # An outcome that is a TimeoutError itself is not the end of the wait.
        with pytest.raises(PullFailed):
            future.result(0)
    elif look == "exception":
        assert isinstance(future.exception(), PullFailed)
    else:
        future.add_done_callback(lambda _: None)
    assert future.seen


def test_awaiting_makes_it_seen() -> None:
    future: Future[int] = Future()

    async def main() -> int:
        asyncio.get_running_loop().call_soon(future.set_result, 2)
        return await future

    assert asyncio.run(main()) == 2
    assert future.seen


def test_a_raised_failure_holds_no_cycle() -> None:
    def look() -> weakref.ref[Future[int]]:
        # In no variable of this frame, which the traceback keeps too.
        only: list[Future[int]] = [failed(ValueError("x"))]
        kept = weakref.ref(only[0])
        with pytest.raises(ValueError, match="x"):
            only.pop().result()
        return kept

    gc.disable()
    try:
        assert look()() is None
    finally:
        gc.enable()


# --- callbacks ------------------------------------------------------------------------------------------


def test_callbacks_run_on_one_daemon_thread_in_the_order_of_completion() -> None:
    futures: list[Future[int]] = [Future() for _ in range(20)]
    called: queue.SimpleQueue[tuple[int, threading.Thread]] = queue.SimpleQueue()
    for future in futures:
        future.add_done_callback(lambda f: called.put((f.result(), threading.current_thread())))
    order = [*range(19, -1, -2), *range(0, 20, 2)]
    for number in order:
        futures[number].set_result(number)
    calls = [called.get(timeout=WAIT_S) for _ in futures]
    assert [number for number, _ in calls] == order
    (thread,) = {thread for _, thread in calls}
    assert thread is not threading.current_thread()
    assert thread.daemon


def test_a_callback_on_a_finished_future_runs_at_once_in_the_caller() -> None:
    called: list[threading.Thread] = []
    completed(1).add_done_callback(lambda _: called.append(threading.current_thread()))
    assert called == [threading.current_thread()]


def test_a_callback_may_wait_for_another_future() -> None:
    first: Future[int] = Future()
    second: Future[int] = Future()
    results: queue.SimpleQueue[int] = queue.SimpleQueue()
    first.add_done_callback(lambda f: results.put(f.result() + second.result(WAIT_S)))
    first.set_result(1)
    second.set_result(10)
    assert results.get(timeout=WAIT_S) == 11


@pytest.mark.parametrize("error", [ValueError("from a callback"), SystemExit(3), KeyboardInterrupt()])
def test_what_a_callback_raises_is_logged_and_the_next_one_runs(
    error: BaseException, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(_: object) -> None:
        raise error

    def thread_of(future: Future[Any]) -> threading.Thread:
        ran: queue.SimpleQueue[threading.Thread] = queue.SimpleQueue()
        future.add_done_callback(lambda _: ran.put(threading.current_thread()))
        future.set_result(None)
        return ran.get(timeout=WAIT_S)

    before = thread_of(Future())
    future: Future[None] = Future()
    future.add_done_callback(fail)
    with caplog.at_level(logging.ERROR, logger="glintpy.futures"):
        assert thread_of(future) is before
    assert [record.exc_info[1] for record in caplog.records if record.exc_info] == [error]
    assert caplog.records[0].name == "glintpy.futures"


def test_a_failing_callback_in_the_caller_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    def fail(_: object) -> None:
        raise ValueError("at once")

    completed(1).add_done_callback(fail)
    (record,) = caplog.records
    assert record.name == "glintpy.futures"
    assert record.exc_info
    assert str(record.exc_info[1]) == "at once"


# --- asyncio --------------------------------------------------------------------------------------------


def test_awaiting_gives_the_result_or_raises_the_failure() -> None:
    async def main() -> None:
        assert await completed(4) == 4
        with pytest.raises(ServerLost, match="gone"):
            await failed(ServerLost("gone"))
        future: Future[int] = Future()
        threading.Thread(target=future.set_result, args=(9,), daemon=True).start()
        assert await asyncio.wait_for(future, WAIT_S) == 9
        many: list[Future[int]] = [Future() for _ in range(3)]
        for number, one in enumerate(many):
            threading.Thread(target=one.set_result, args=(number,), daemon=True).start()
        assert await asyncio.gather(*many) == [0, 1, 2]

    asyncio.run(main())


def test_an_asyncio_timeout_stops_only_the_waiting() -> None:
    future: Future[int] = Future()

    async def main() -> int:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(future, 0)
        waiting = asyncio.ensure_future(future)
        await asyncio.sleep(0)
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        assert not future.done()
        future.set_result(6)
        return await future

    assert asyncio.run(main()) == 6


def test_the_loop_goes_on_while_a_future_is_awaited() -> None:
    future: Future[str] = Future()

    async def complete() -> None:
        future.set_result("by the same loop")

    async def main() -> tuple[str, None]:
        return await asyncio.gather(future, complete())

    assert asyncio.run(main())[0] == "by the same loop"


def test_an_await_does_not_wait_for_the_callback_thread() -> None:
    may_go = threading.Event()
    blocker: Future[None] = Future()
    blocker.add_done_callback(released(after=may_go))
    blocker.set_result(None)
    future: Future[int] = Future()

    async def main() -> int:
        waiting = asyncio.ensure_future(future)
        await asyncio.sleep(0)  # it waits from here on
        future.set_result(7)
        return await asyncio.wait_for(waiting, WAIT_S)

    try:
        assert asyncio.run(main()) == 7
    finally:
        may_go.set()


def test_a_future_done_after_its_loop_was_closed_harms_nobody(caplog: pytest.LogCaptureFixture) -> None:
    future: Future[int] = Future()

    async def main() -> None:
        task = asyncio.ensure_future(future)
        await asyncio.sleep(0)
        task.cancel()

    asyncio.run(main())
    with caplog.at_level(logging.WARNING):
        future.set_result(1)
    assert not caplog.records
    assert future.result() == 1
