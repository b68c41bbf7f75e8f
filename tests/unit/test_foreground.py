"""Signals: the first asks to stop, a second ends the process, and an owner may ask as often as it likes."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from glintpy.errors import MasterUnreachable
from glintpy.process import foreground
from glintpy.process.foreground import Signals, StoppedEarly, is_orphan
from glintpy.process.output import Failed


class Ended(BaseException):
    """The process would have ended with this code."""


@pytest.fixture(autouse=True)
def _signals_as_before(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    def end(code: int) -> None:
        raise Ended(code)

    monkeypatch.setattr(os, "_exit", end)
    monkeypatch.setattr(foreground, "raise_file_limit", lambda: None)
    numbers = (signal.SIGINT, signal.SIGTERM)
    handlers = [signal.getsignal(number) for number in numbers]
    yield
    for number, handler in zip(numbers, handlers, strict=True):
        signal.signal(number, handler)


class Thing:
    """Something that runs."""

    address = "tcp://127.0.0.1:5"

    def __init__(self) -> None:
        self.is_stopped = False

    def stop(self) -> None:
        self.is_stopped = True


def running(signals: Signals) -> Signals:
    signals.install()
    signals.is_starting = False
    return signals


def test_the_first_signal_is_the_reason_to_stop_and_the_second_ends_at_once() -> None:
    signals = running(Signals())
    signal.raise_signal(signal.SIGTERM)
    assert signals.wait(str) == "SIGTERM"
    with pytest.raises(Ended, match="130"):
        signal.raise_signal(signal.SIGINT)


def test_an_owner_may_ask_again() -> None:
    signals = running(Signals(is_owned=True))
    signal.raise_signal(signal.SIGTERM)
    signal.raise_signal(signal.SIGTERM)
    assert signals.wait(str) == "SIGTERM"


def test_a_signal_interrupts_a_start_only_where_that_is_safe() -> None:
    Signals(interrupts=True).install()
    with pytest.raises(StoppedEarly):
        signal.raise_signal(signal.SIGINT)
    patient = Signals()
    patient.install()
    signal.raise_signal(signal.SIGINT)
    assert patient.is_asked
    assert patient.wait(str) == "SIGINT"


def test_a_start_that_a_signal_ended_is_no_failure() -> None:
    def start(signals: Signals) -> Thing:
        signal.raise_signal(signal.SIGINT)
        assert signals.is_asked
        raise MasterUnreachable("nobody answered")

    foreground.run("server", start)


def test_a_start_that_fails_by_itself_is_one() -> None:
    def start(_: Signals) -> Thing:
        raise MasterUnreachable("nobody answered")

    with pytest.raises(MasterUnreachable):
        foreground.run("server", start)


def test_what_was_started_is_announced_and_stopped_by_a_signal(capsys: pytest.CaptureFixture[str]) -> None:
    thing = Thing()

    def look() -> str:
        signal.raise_signal(signal.SIGINT)
        return ""

    foreground.run("server", lambda _: thing, look=look)
    assert thing.is_stopped
    assert capsys.readouterr().out == "glintpy server ready at tcp://127.0.0.1:5\n"


def test_what_ends_by_itself_is_a_failure_with_its_reason() -> None:
    thing = Thing()
    with pytest.raises(Failed, match="replaced"):
        foreground.run("server", lambda _: thing, look=lambda: "it was replaced")
    assert thing.is_stopped

    def start(signals: Signals) -> Thing:
        signals.ask_to_stop("expelled")
        return Thing()

    with pytest.raises(Failed, match="expelled"):
        foreground.run("server", start)


def test_an_orphan_stops_and_removes_the_private_folder(tmp_path: Path) -> None:
    thing, private = Thing(), tmp_path / "private"
    private.mkdir()
    stranger = os.getpid()  # nobody is its own parent
    assert is_orphan(stranger)
    assert not is_orphan(os.getppid())
    assert not is_orphan(0)
    foreground.run("server", lambda _: thing, parent=stranger, private=private)
    assert thing.is_stopped
    assert not private.exists()


def test_an_orphan_s_start_that_fails_is_no_failure_and_removes_the_private_folder(tmp_path: Path) -> None:
    private = tmp_path / "private"
    private.mkdir()

    def start(_: Signals) -> Thing:
        raise MasterUnreachable("nobody answered")

    foreground.run("server", start, parent=os.getpid(), private=private)
    assert not private.exists()
