"""Failpoints do what their text says, where it says, and nothing when none is armed."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import glintpy
from glintpy import failpoints
from glintpy.errors import ConfigError
from glintpy.failpoints import FailpointError

PACKAGE = Path(glintpy.__file__).parent


@pytest.fixture(autouse=True)
def _nothing_armed() -> Iterator[None]:
    failpoints.disarm()
    yield
    failpoints.disarm()


def hits(name: str, times: int) -> int:
    """Return how often a place that raises did."""
    count = 0
    for _ in range(times):
        try:
            failpoints.hit(name)
        except FailpointError:
            count += 1
    return count


def test_every_name_is_a_place_and_every_place_has_a_name() -> None:
    source = "".join(
        path.read_text() for path in sorted(PACKAGE.rglob("*.py")) if path.name != "failpoints.py"
    )
    missing = [name for name in sorted(failpoints.NAMES) if f'"{name}"' not in source]
    assert missing == [], "these are named and stand nowhere"


def test_nothing_happens_unarmed() -> None:
    for name in failpoints.NAMES:
        failpoints.hit(name)
        assert not failpoints.is_armed(name)


def test_a_place_raises_as_often_as_its_text_says() -> None:
    failpoints.arm("push.applied=raise*3, pull.before_copy=raise:0.5")
    assert hits("push.applied", 10) == 3
    assert hits("push.before_ack", 10) == 0
    assert 20 < hits("pull.before_copy", 100) < 80
    assert failpoints.is_armed("push.applied")


def test_the_same_seed_strikes_at_the_same_times() -> None:
    struck = []
    for seed in (1, 1, 2):
        failpoints.arm("push.applied=raise:0.3", seed=seed)
        struck.append([hits("push.applied", 1) for _ in range(60)])
    assert struck[0] == struck[1] != struck[2]


def test_a_place_armed_for_a_while_is_as_before_afterwards() -> None:
    failpoints.arm("push.applied=raise")
    seen: list[str] = []
    with failpoints.armed("push.applied", lambda: seen.append("here")):
        failpoints.hit("push.applied")
    assert seen == ["here"]
    assert hits("push.applied", 1) == 1


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("push.applied", "a failpoint is NAME="),
        ("push.applied=explode", "a failpoint is NAME="),
        ("push.aplied=kill", "no failpoint 'push.aplied'; there are"),
        ("push.applied=sleep", "sleep, and only sleep"),
        ("push.applied=kill(3)", "sleep, and only sleep"),
        ("push.applied=kill:often", "a failpoint is NAME="),
    ],
)
def test_a_text_that_is_none_is_refused(text: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        failpoints.arm(text)


def test_a_killed_process_is_killed() -> None:
    code = (
        "from glintpy import failpoints; failpoints.arm('push.applied=kill'); failpoints.hit('push.applied')"
    )
    done = subprocess.run([sys.executable, "-c", code], check=False, timeout=60)
    assert done.returncode == -signal.SIGKILL


def test_a_server_takes_failpoints_only_where_they_are_allowed() -> None:
    command = [sys.executable, "-m", "glintpy", "server", "--failpoints", "push.applied=kill"]
    done = subprocess.run(command, check=False, timeout=60, capture_output=True, text=True)
    assert done.returncode == 2
    assert "need --enable-debug" in done.stderr
