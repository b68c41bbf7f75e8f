"""Futures in a process that was forked while they were pending."""

from __future__ import annotations

import asyncio
import concurrent.futures
import multiprocessing
import os
import queue
import threading
import warnings
from collections.abc import Callable

import pytest

from glintpy.errors import RequestError
from glintpy.futures import Future, completed

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

WAIT_S = 30.0
"""How long a test waits for what must happen; reached only by a failing one."""


def in_forked_child(work: Callable[[], str]) -> str:
    """Run a function in a forked child and return what it returned, or how it failed."""
    reader, writer = multiprocessing.Pipe(duplex=False)
    with warnings.catch_warnings():
        # That a process with threads forks is what is tested here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            writer.send(work())
        except BaseException as error:  # noqa: BLE001  the child must never run the rest of the tests
            writer.send(f"{type(error).__name__}: {error}")
        finally:
            os._exit(0)
    writer.close()
    try:
        assert reader.poll(WAIT_S), "the child said nothing"
        answer: str = reader.recv()
        return answer
    finally:
        reader.close()
        os.waitpid(pid, 0)


@pytest.mark.parametrize("look", ["result", "exception", "wait", "as_completed", "await", "callback", "done"])
def test_a_pending_future_fails_at_once_in_a_forked_child(look: str) -> None:
    future: Future[int] = Future()
    parent = os.getpid()

    def child() -> str:
        if look == "result":
            future.result(WAIT_S)
        elif look == "exception":
            return repr(future.exception(WAIT_S))
        elif look == "wait":
            done, _ = concurrent.futures.wait([future], timeout=WAIT_S)
            return repr(done.pop().exception(0))
        elif look == "as_completed":
            next(concurrent.futures.as_completed([future], timeout=WAIT_S)).result(0)
        elif look == "await":

            async def main() -> int:
                return await future

            asyncio.run(main())
        elif look == "callback":
            called: list[str] = []
            future.add_done_callback(lambda f: called.append(repr(f.exception(0))))
            return called[0]
        elif future.done():
            future.result(0)
        return "nothing was raised"

    answer = in_forked_child(child)
    assert answer.startswith("RequestError")
    assert f"parent process {parent}" in answer
    # The parent's own is untouched.
    future.set_result(8)
    assert future.result() == 8


def test_a_fork_while_another_thread_holds_a_future_hangs_nobody() -> None:
    future: Future[int] = Future()
    done = completed(12)
    is_held, may_go = threading.Event(), threading.Event()

    def hold() -> None:
        with future._condition, done._condition:
            is_held.set()
            assert may_go.wait(WAIT_S)

    holder = threading.Thread(target=hold, daemon=True)
    holder.start()
    assert is_held.wait(WAIT_S)

    def child() -> str:
        return f"{type(future.exception(WAIT_S)).__name__} {done.result(WAIT_S)}"

    assert in_forked_child(child) == f"{RequestError.__name__} 12"
    may_go.set()
    holder.join(WAIT_S)


def test_a_child_has_a_callback_thread_of_its_own_and_leaves_the_parents_callbacks() -> None:
    ran: queue.SimpleQueue[int] = queue.SimpleQueue()
    first: Future[int] = Future()
    first.add_done_callback(lambda _: ran.put(os.getpid()))
    first.set_result(0)
    assert ran.get(timeout=WAIT_S) == os.getpid()  # the parent's thread exists
    inherited: Future[int] = Future()
    inherited.add_done_callback(lambda _: ran.put(-1))

    def child() -> str:
        assert isinstance(inherited.exception(WAIT_S), RequestError)
        future: Future[int] = Future()
        future.add_done_callback(lambda _: ran.put(os.getpid()))
        future.set_result(1)
        return "own" if ran.get(timeout=WAIT_S) == os.getpid() and ran.empty() else "inherited"

    assert in_forked_child(child) == "own"
    inherited.set_result(1)
    assert ran.get(timeout=WAIT_S) == -1
