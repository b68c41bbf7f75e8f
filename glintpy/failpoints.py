"""Named places where a drill may have a process die, fail or stand still; off, and free, unless armed.

A place is a line ``failpoints.hit("push.applied")``. Nothing is armed by itself: a server takes failpoints
when it starts only, from who starts it, and from a command line with ``--enable-debug`` only; a test or the simulation
arms them in its own process. Knows nothing of what the places mean.
"""

from __future__ import annotations

import os
import random
import re
import signal
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from glintpy.errors import ConfigError

NAMES = frozenset(
    {
        "push.before_undo",
        "push.undo_written",
        "push.flag_set",
        "push.half_applied",
        "push.applied",
        "push.recorded",
        "push.flag_cleared",
        "push.before_ack",
        "round.half_applied",
        "round.applied",
        "recover.before_undo",
        "recover.undone",
        "recover.replayed",
        "table.grown",
        "table.begun",
        "pull.before_copy",
        "pull.before_send",
        "log.before_write",
        "log.torn_write",
        "log.before_sync",
        "log.after_sync",
        "snapshot.before_file",
        "snapshot.before_rename",
        "snapshot.after_rename",
        "checkpoint.before_file",
        "checkpoint.in_file",
        "checkpoint.after_file",
        "checkpoint.before_manifest",
        "checkpoint.manifest_staged",
        "checkpoint.after_manifest",
        "master.before_commit",
        "master.after_commit",
        "create.reserved",
        "create.allocated",
        "create.filled",
        "session.before_open",
        "heart.before_beat",
        "actor.before_message",
    }
)
"""Every place there is; a test looks that each stands somewhere in the package."""

Action = Callable[[], None]

_FORM = (
    r"(?P<name>[a-z._]+)=(?P<action>kill|raise|sleep)(\((?P<seconds>[0-9.]+)\))?"
    r"(:(?P<probability>[0-9.]+))?(\*(?P<count>[0-9]+))?"
)
"""Not compiled here: every process loads this module, and drills only need it."""


class FailpointError(RuntimeError):
    """What a place raises that was told to."""


_armed: dict[str, Action] = {}


def hit(name: str) -> None:
    """Do at this place what a drill asked for, if one did."""
    if _armed:
        action = _armed.get(name)
        if action is not None:
            action()


def is_armed(name: str) -> bool:
    """Tell whether a place is armed, where being ready for it costs something."""
    return name in _armed


def arm(text: str, *, seed: int = 0) -> None:
    """Arm the places of a text; those armed before stay so.

    Args:
        text: ``name=action``, several with commas between them. An action is ``kill`` (as ``kill -9`` does),
            ``raise`` or ``sleep(SECONDS)``; behind it may stand ``:PROBABILITY`` of each time, and ``*COUNT``, how
            often at most: ``push.half_applied=kill:0.01,pull.before_copy=sleep(2)*1``.
        seed: of the probabilities; each place has a stream of its own.

    Raises:
        ConfigError: not of this form, or a place that there isn't.
    """
    for entry in filter(None, text.split(",")):
        form = re.fullmatch(_FORM, entry.strip())
        if form is None:
            raise ConfigError(
                f"a failpoint is NAME=kill|raise|sleep(SECONDS)[:PROBABILITY][*COUNT], not {entry!r}"
            )
        name, action = form["name"], form["action"]
        if (form["seconds"] is None) is (action == "sleep"):
            raise ConfigError(f"sleep, and only sleep, has seconds in parentheses: {entry!r}")
        probability, count = float(form["probability"] or 1), int(form["count"] or 0) or None
        act = _ACTIONS[action](name, float(form["seconds"] or 0))
        arm_with(name, _sometimes(act, probability, count, random.Random(f"{seed} {name}")))  # noqa: S311 - no secret


def arm_with(name: str, action: Action) -> None:
    """Arm one place with anything that can be called.

    Raises:
        ConfigError: there is no such place.
    """
    if name not in NAMES:
        raise ConfigError(f"there is no failpoint {name!r}; there are {', '.join(sorted(NAMES))}")
    _armed[name] = action


def disarm() -> None:
    """Disarm all places."""
    _armed.clear()


@contextmanager
def armed(name: str, action: Action) -> Iterator[None]:
    """Arm one place for a while."""
    before = dict(_armed)
    arm_with(name, action)
    try:
        yield
    finally:
        _armed.clear()
        _armed.update(before)


def _kill(name: str, seconds: float) -> Action:
    del name, seconds
    return lambda: os.kill(os.getpid(), getattr(signal, "SIGKILL", signal.SIGTERM))


def _raise(name: str, seconds: float) -> Action:
    del seconds

    def act() -> None:
        raise FailpointError(f"failpoint {name}")

    return act


def _sleep(name: str, seconds: float) -> Action:
    del name
    return lambda: time.sleep(seconds)


_ACTIONS: dict[str, Callable[[str, float], Action]] = {"kill": _kill, "raise": _raise, "sleep": _sleep}


def _sometimes(act: Action, probability: float, count: int | None, source: random.Random) -> Action:
    num_left = count

    def maybe() -> None:
        nonlocal num_left
        if num_left == 0 or source.random() >= probability:
            return
        if num_left is not None:
            num_left -= 1
        act()

    return maybe
