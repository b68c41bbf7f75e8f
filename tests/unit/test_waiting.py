"""Waiters tell when a descriptor is readable; an eager one looks before it sleeps, where that paid the last time."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

from glintpy.transport import waiting
from glintpy.transport.waiting import EagerWaiter, Waiter

WAIT_S = 30.0
STEP_S = 10e-6
SPIN_S = 200e-6
LOOKS = round(SPIN_S / STEP_S)


class Pipe:
    """A descriptor that is readable when the test says so."""

    def __init__(self) -> None:
        self.fileno, self._writer = os.pipe()

    def set(self) -> None:
        os.write(self._writer, b"x")

    def clear(self) -> None:
        os.read(self.fileno, 1)

    def close(self) -> None:
        os.close(self.fileno)
        os.close(self._writer)


class Clock:
    """Time that passes by a step with each look at it; the steps are counted."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.step_s = STEP_S
        self.num_looks = 0

    def __call__(self) -> float:
        self.num_looks += 1
        self.now += self.step_s
        return self.now


class Spinner:
    """An eager waiter for one pipe, in a time of its own."""

    def __init__(self, pipe: Pipe) -> None:
        self.clock = Clock()
        self.waiter = EagerWaiter([pipe.fileno], spin_s=SPIN_S, clock=self.clock)

    def looks(self, timeout_s: float = SPIN_S) -> tuple[bool, int]:
        """Wait, and return whether it was readable and how often the clock was looked at."""
        before = self.clock.num_looks
        return self.waiter.wait(timeout_s), self.clock.num_looks - before


@pytest.fixture
def pipe() -> Iterator[Pipe]:
    made = Pipe()
    yield made
    made.close()


@pytest.fixture
def spinner(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> Spinner:
    monkeypatch.setattr(waiting, "_num_processors", lambda: 2)
    return Spinner(pipe)


@pytest.mark.parametrize("kind", [Waiter, EagerWaiter])
def test_a_waiter_tells_whether_one_is_readable(kind: type[Waiter], pipe: Pipe) -> None:
    waiter = kind([pipe.fileno])
    assert not waiter.wait(0.0)
    assert not waiter.wait(-1.0)
    pipe.set()
    assert waiter.wait(WAIT_S)
    assert waiter.wait(0.0)  # it tells of a level: what isn't taken is told again
    pipe.clear()
    assert not waiter.wait(0.001)


@pytest.mark.parametrize("kind", [Waiter, EagerWaiter])
def test_descriptors_may_be_added_and_removed(kind: type[Waiter], pipe: Pipe) -> None:
    waiter = kind()
    pipe.set()
    assert not waiter.wait(0.0)
    waiter.add(pipe.fileno)
    assert waiter.wait(WAIT_S)
    waiter.remove(pipe.fileno)
    assert not waiter.wait(0.0)


@pytest.mark.parametrize("kind", [Waiter, EagerWaiter])
def test_who_sleeps_is_woken(kind: type[Waiter], pipe: Pipe) -> None:
    waiter = kind([pipe.fileno])
    assert not waiter.wait(0.0)
    other = threading.Thread(target=pipe.set)
    other.start()
    assert waiter.wait(WAIT_S)
    other.join()


def test_a_system_without_poll_waits_by_a_selector(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr("select.poll")
    waiter = Waiter([pipe.fileno])
    assert not waiter.wait(0.0)
    assert not waiter.wait(-1.0)
    pipe.set()
    assert waiter.wait(WAIT_S)
    waiter.remove(pipe.fileno)
    assert not waiter.wait(0.0)
    waiter.add(pipe.fileno)
    assert waiter.wait(WAIT_S)


def test_it_looks_again_and_again_for_as_long_as_it_spins(spinner: Spinner) -> None:
    is_readable, num_looks = spinner.looks()
    assert not is_readable
    assert LOOKS <= num_looks <= LOOKS + 4


def test_what_is_readable_is_told_by_the_first_look(spinner: Spinner, pipe: Pipe) -> None:
    pipe.set()
    for _ in range(3):
        is_readable, num_looks = spinner.looks()
        assert is_readable
        assert num_looks <= 2


def test_one_wait_in_vain_ends_it(spinner: Spinner) -> None:
    spinner.looks()
    for _ in range(3):
        is_readable, num_looks = spinner.looks(0.0)
        assert not is_readable
        assert num_looks < LOOKS // 2


def test_a_prompt_answer_to_a_sleep_begins_it_again(spinner: Spinner, pipe: Pipe) -> None:
    spinner.looks()
    pipe.set()
    is_readable, num_looks = spinner.looks(WAIT_S)
    assert is_readable
    assert num_looks < LOOKS // 2  # it slept, and had no need to
    pipe.clear()
    is_readable, num_looks = spinner.looks()
    assert not is_readable
    assert num_looks >= LOOKS


def test_a_late_answer_does_not(spinner: Spinner, pipe: Pipe) -> None:
    spinner.looks()
    pipe.set()
    spinner.clock.step_s = waiting.PROMPT_S
    assert spinner.waiter.wait(WAIT_S)
    spinner.clock.step_s = STEP_S
    pipe.clear()
    _, num_looks = spinner.looks(0.0)
    assert num_looks < LOOKS // 2


def test_it_spins_no_longer_than_it_may_wait(spinner: Spinner) -> None:
    is_readable, num_looks = spinner.looks(SPIN_S / 4)
    assert not is_readable
    assert num_looks <= LOOKS // 4 + 4


def test_with_one_processor_it_never_spins(pipe: Pipe, monkeypatch: pytest.MonkeyPatch) -> None:
    # There it would only keep the answer's maker from running.
    monkeypatch.setattr(waiting, "_num_processors", lambda: 1)
    spinner = Spinner(pipe)
    _, num_looks = spinner.looks()
    assert num_looks < LOOKS // 2
    pipe.set()
    spinner.looks()
    pipe.clear()
    _, num_looks = spinner.looks()
    assert num_looks < LOOKS // 2


def test_others_may_run_while_it_spins(spinner: Spinner, monkeypatch: pytest.MonkeyPatch) -> None:
    yielded: list[int] = []
    monkeypatch.setattr(waiting, "_yield", lambda: yielded.append(1))
    spinner.looks()
    assert len(yielded) >= LOOKS - 2
