"""Commands on a leash: they end when whoever started them has gone, with all that they started."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import pytest

from glintpy.leash import leashed
from tests.cluster.helpers import PATIENCE_S, environment, until

CHILD = """
import os, signal, subprocess, sys
if "--deaf" in sys.argv:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
helper = subprocess.Popen([sys.executable, "-c", "import signal; signal.pause()"])
print(os.getpid(), helper.pid, flush=True)
signal.pause()
"""


def is_gone(pid: int) -> bool:
    """Return whether a process has ended; what nobody waited for counts as ended."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return True


def wait_gone(pids: Iterable[int]) -> None:
    """Wait until all of some processes have ended."""
    for pid in pids:
        until(partial(is_gone, pid), f"process {pid} has ended")


@contextmanager
def held(*command: str) -> Iterator[subprocess.Popen[str]]:
    process = subprocess.Popen(
        leashed(command),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(),
        start_new_session=True,
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


@contextmanager
def with_children(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    with held(sys.executable, "-c", CHILD, *arguments) as process:
        assert process.stdout is not None
        yield process, [int(word) for word in process.stdout.readline().split()]


def code_of(*command: str) -> tuple[int, str]:
    with held(*command) as process:
        assert process.stderr is not None
        code = process.wait(PATIENCE_S)
        return code, process.stderr.read()


def test_the_exit_code_is_the_command_s() -> None:
    assert code_of(sys.executable, "-c", "raise SystemExit(3)") == (3, "")
    assert code_of(sys.executable, "-c", "import os; os.kill(os.getpid(), 9)") == (137, "")


def test_what_can_t_be_run_is_said_in_a_line(tmp_path: Path) -> None:
    assert code_of("no-such-program") == (127, "can't run 'no-such-program': there is no such program\n")
    assert code_of(str(tmp_path)) == (126, f"can't run {str(tmp_path)!r}: Permission denied\n")


def test_everything_ends_when_the_other_end_of_the_pipe_is_closed() -> None:
    with with_children() as (process, pids):
        assert process.stdin is not None
        process.stdin.close()
        assert process.wait(PATIENCE_S) == 128 + signal.SIGTERM
        wait_gone(pids)
        process.stdin = None


def test_a_signal_is_passed_on_to_everything() -> None:
    with with_children() as (process, pids):
        process.send_signal(signal.SIGINT)
        assert process.wait(PATIENCE_S) == 130
        wait_gone(pids)


def test_who_is_deaf_is_killed_after_a_while() -> None:
    with with_children("--deaf") as (process, pids):
        process.terminate()
        assert process.wait(PATIENCE_S) == 128 + signal.SIGKILL
        wait_gone(pids)


EARLY = """
import os, signal, subprocess, sys
from glintpy import leash

started = subprocess.Popen

def popen(*arguments, **options):
    os.kill(os.getpid(), signal.SIGTERM)  # as if it came while the command was being started
    return started(*arguments, **options)

subprocess.Popen = popen
sys.exit(leash.main([sys.executable, "-c", "import signal; signal.pause()"]))
"""


def test_a_signal_that_comes_before_the_command_is_passed_on_too() -> None:
    done = subprocess.run(
        [sys.executable, "-c", EARLY],
        stdin=subprocess.PIPE,
        env=environment(),
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode == 128 + signal.SIGTERM


ORPHAN = """
import os, signal, subprocess
from functools import partial
from glintpy.leash import _die_with

subprocess.Popen(["true"], preexec_fn=partial(_die_with, os.getpid())).wait()
try:
    process = subprocess.Popen(["sleep", "60"], preexec_fn=partial(_die_with, os.getppid()))
except subprocess.SubprocessError as error:
    print("killed in time:", error)
else:
    print("ended by", signal.Signals(-process.wait()).name)
"""


def test_a_command_whose_leash_has_gone_by_then_does_not_begin() -> None:
    done = subprocess.run(
        [sys.executable, "-c", ORPHAN],
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE_S,
        check=True,
    )
    assert re.search("killed in time|ended by SIGKILL", done.stdout), done.stdout


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux kills children with their parent")
def test_a_killed_leash_takes_the_command_along() -> None:
    with with_children() as (process, pids):
        process.kill()
        process.wait(PATIENCE_S)
        until(lambda: is_gone(pids[0]), "the command has ended")
        os.kill(pids[1], signal.SIGKILL)  # nobody else is left to do it
