"""``glintpy chaos`` as it is used: it ends with 0 when the counts hold, with 1 when servers double pushes."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.helpers import PATIENCE_S, environment

LONG_S = 4 * PATIENCE_S


@contextmanager
def chaos(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """Run the command until the end of the block, at the latest."""
    process = subprocess.Popen(
        [sys.executable, "-m", "glintpy", "chaos", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        # Its servers and clients watch it, and go when it has gone.
        process.kill()
        process.communicate()


def finished(*arguments: object) -> tuple[int, str, str]:
    """Run the command to its end; return its exit code and what it said."""
    with chaos(*arguments) as process:
        said, errors = process.communicate(timeout=LONG_S)
        return process.returncode, said, errors


def number_of(name: str, said: str) -> int:
    """Return a number of the table."""
    (found,) = re.findall(rf"^{name} +([\d,]+)$", said, re.MULTILINE)
    return int(found.replace(",", ""))


def read(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())
    return found


def test_counts_hold_under_kills_and_resets_also_when_ctrl_c_ends_it(seed: int, tmp_path: Path) -> None:
    options = ("--for", "10m", "--seed", seed, "--servers", 2, "--clients", 1, "--json", tmp_path / "report")
    with chaos(*options) as process:
        assert process.stdout is not None
        said = ""
        while not re.search(r"restarted server-\d", said):
            line = process.stdout.readline()
            assert line, said + process.communicate()[1]
            said += line
        process.send_signal(signal.SIGINT)
        rest, errors = process.communicate(timeout=LONG_S)
        said += rest
        assert process.returncode == 0, said + errors
    assert f"seed {seed}" in said
    assert "the counts hold" in said
    assert re.search(r"^t= +\d+\.\d s  kill -9 server-\d$", said, re.MULTILINE)
    assert number_of("servers killed", said) >= 1
    assert number_of("pushes", said) > 0
    assert number_of("wrong cells", said) == 0
    report = read(tmp_path / "report")
    assert report["holds"]
    assert report["audit"]["num_applied"] > 0
    assert report["lasted_s"] < 600
    assert report["settings"]["seed"] == seed


def test_servers_that_forget_repeats_are_found_out(seed: int) -> None:
    # In two seconds on a busy machine it may be that no cut hits a push that is in and not yet answered.
    for number in range(seed, seed + 4):
        code, said, errors = finished(
            "--for", "2s", "--seed", number, "--servers", 1, "--clients", 2, "--plant", "no-dedupe"
        )
        if code:
            break
    assert code == 1, said + errors
    assert number_of("doubled", said) > 0
    assert number_of("wrong cells", said) > 0
    assert "the counts hold" not in said
    assert re.search(r"the counts are wrong \(seed \d+\).* doubled.*push \d+ .* is in \d+ times", errors)


@pytest.mark.soak
@pytest.mark.parametrize("level", ["process", "disk"])
def test_counts_hold_for_a_minute(seed: int, level: str, tmp_path: Path) -> None:
    code, said, errors = finished(
        "--for", "60s", "--seed", seed, "--durability", level, "--json", tmp_path / "report"
    )
    assert code == 0, said + errors
    report = read(tmp_path / "report")
    assert report["num_kills"] >= 10
    assert report["num_resets"] >= 100
    assert report["num_master_kills"] >= 3
    assert report["audit"]["num_unknown"] > 0


@pytest.mark.soak
def test_counts_hold_when_servers_die_within_a_push(seed: int, tmp_path: Path) -> None:
    places = ("before_undo", "undo_written", "flag_set", "half_applied", "applied", "recorded", "before_ack")
    code, said, errors = finished(
        *("--for", "60s", "--seed", seed, "--json", tmp_path / "report"),
        *("--failpoints", ",".join(f"push.{place}=kill:0.0001" for place in places)),
    )
    assert code == 0, said + errors
    assert read(tmp_path / "report")["num_deaths"] > 0


@pytest.mark.soak
def test_servers_that_forget_repeats_are_found_out_by_any_seed(seed: int) -> None:
    for number in range(seed, seed + 5):
        code, said, errors = finished("--for", "15s", "--seed", number, "--plant", "no-dedupe")
        assert code == 1, said + errors
        assert number_of("doubled", said) > 0
