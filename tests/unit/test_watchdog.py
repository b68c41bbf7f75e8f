"""A watchdog is wound up by the ticks of an actor, not too often, and lets go when the actor stops."""

from __future__ import annotations

from typing import Any, cast

import pytest

from glintpy.actors import watchdog
from glintpy.actors.base import RequestActor
from glintpy.actors.watchdog import LIMIT_S_MIN, Watchdog, watch
from glintpy.errors import ConfigError


class Timer:
    """What a watchdog does to its timer."""

    def __init__(self) -> None:
        self.now = 100.0
        self.wound: list[tuple[float, float]] = []
        self.num_stops = 0

    def wind(self, limit_s: float) -> None:
        self.wound.append((self.now, limit_s))

    def stop(self) -> None:
        self.num_stops += 1


class Actor:
    """What it needs of an actor."""

    role = "server"

    def __init__(self) -> None:
        self.seen: list[object] = []

    def on_tick(self, now: float) -> None:
        self.seen.append(now)

    def on_stop(self) -> None:
        self.seen.append("stopped")


@pytest.fixture
def timer() -> Timer:
    return Timer()


def a_dog(timer: Timer, limit_s: float = 5.0) -> Watchdog:
    return Watchdog(limit_s, clock=lambda: timer.now, wind=timer.wind, stop=timer.stop)


def test_it_is_wound_up_at_most_once_a_second(timer: Timer) -> None:
    dog = a_dog(timer)
    for _ in range(12):
        dog.alive()
        timer.now += 0.25
    assert timer.wound == [(100.0, 5.0), (101.0, 5.0), (102.0, 5.0)]


def test_one_that_was_let_go_is_not_wound_up_again(timer: Timer) -> None:
    dog = a_dog(timer)
    dog.alive()
    dog.stop()
    timer.now += 9
    dog.alive()
    assert len(timer.wound) == 1
    assert timer.num_stops == 1


def test_it_looks_at_the_ticks_and_the_stop_of_its_actor(
    timer: Timer, monkeypatch: pytest.MonkeyPatch
) -> None:
    def made(limit_s: float, **_: Any) -> Watchdog:
        return a_dog(timer, limit_s)

    monkeypatch.setattr(watchdog, "Watchdog", made)
    actor, other = Actor(), Actor()
    watch(cast("RequestActor", actor), 7.0)
    actor.on_tick(1.0)
    other.on_tick(1.0)
    assert timer.wound == [(100.0, 7.0)]
    actor.on_stop()
    assert timer.num_stops == 1
    assert actor.seen == [1.0, "stopped"]


@pytest.mark.parametrize("limit_s", [0.0, -1.0, LIMIT_S_MIN - 0.1, float("nan")])
def test_a_limit_that_a_busy_machine_would_reach_is_refused(limit_s: float) -> None:
    with pytest.raises(ConfigError, match="at least 2 s"):
        Watchdog(limit_s)


def test_without_a_stderr_there_is_nothing_to_say(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sys.__stderr__", None)
    with pytest.raises(ConfigError, match="stderr"):
        Watchdog(5.0)
