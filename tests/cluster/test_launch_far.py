"""``glintpy launch`` by ssh, mpirun and srun, of which there are only stand-ins here: they run all on this machine."""

from __future__ import annotations

import re
import sys
from pathlib import Path

import pytest

from tests.cluster.test_cli import run
from tests.cluster.test_launch import COUNT, FAIL, launch, script
from tests.cluster.test_leash import wait_gone

SSH = """#!/bin/sh
# ssh -o BatchMode=yes HOST COMMAND
exec sh -c "$4"
"""

TOGETHER = """#!{python}
# Starts a command several times, as MPI and Slurm do, and ends with the first code that isn't 0.
import os, re, signal, subprocess, sys
words = sys.argv[1:]
number, words = (int(words[1]), words[2:]) if words[0] == "-n" else (int(words[0].partition("=")[2]), words[1:])
while words[0].startswith("-"):
    words = words[2:] if words[0] == "--hostfile" else words[1:]
started = [subprocess.Popen(words, env=os.environ | {{"{rank}": str(rank)}}) for rank in range(number)]
def end(*_):
    for process in started:
        process.terminate()
signal.signal(signal.SIGTERM, end)
codes = [process.wait() for process in started]
sys.exit(next((code for code in codes if code), 0))
"""


@pytest.fixture
def stand_ins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, text in (
        ("ssh", SSH),
        ("mpirun", TOGETHER.format(python=sys.executable, rank="OMPI_COMM_WORLD_RANK")),
        ("srun", TOGETHER.format(python=sys.executable, rank="SLURM_PROCID")),
        ("hostname", "#!/bin/sh\necho 127.0.0.1\n"),
    ):
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")
    (tmp_path / "hosts").write_text("127.0.0.1\nlocalhost  # twice the same\n")
    return tmp_path


@pytest.mark.parametrize("way", ["ssh", "mpi", "slurm"])
def test_workers_elsewhere_find_their_cluster_and_each_other(stand_ins: Path, way: str) -> None:
    options = ["--launcher", way, "--hosts", stand_ins / "hosts", "--host", "127.0.0.1"]
    done = launch(stand_ins, "-n", 2, "-s", 2, *options, *script(stand_ins, COUNT))
    assert done.returncode == 0, done.stderr
    assert len(re.findall(r"^\[worker.*\] sums \[1\.0, 2\.0, 0\.0\]$", done.stdout, flags=re.MULTILINE)) == 2
    assert sorted(re.findall(r"said by (\d)", done.stderr)) == ["0", "1"]


def test_a_failure_behind_ssh_ends_all(stand_ins: Path) -> None:
    options = ["--launcher", "ssh", "--hosts", stand_ins / "hosts", "--host", "127.0.0.1"]
    done = launch(stand_ins, "-n", 2, "-s", 1, *options, *script(stand_ins, FAIL))
    assert done.returncode == 7
    assert "worker 1 ended with exit code 7; the job ends" in done.stderr
    wait_gone(map(int, re.findall(r"pid (\d+)", done.stdout)))


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--launcher", "ssh"], "--launcher ssh needs --hosts FILE"),
        (["--launcher", "ssh", "--hosts", "nowhere"], "can't read nowhere: No such file"),
        (["--launcher", "mpi"], "say at which address other machines reach this one: --host HOST"),
        (["--hosts", "x"], "--hosts is for --launcher ssh, mpi or slurm"),
    ],
)
@pytest.mark.usefixtures("stand_ins")
def test_what_is_missing_is_said(options: list[str], said: str) -> None:
    done = run("launch", "-n", 2, *options, "true")
    assert done.returncode == 2
    assert said in done.stderr
    (line,) = done.stderr.splitlines()
    assert line.startswith("glintpy launch: ")


def test_a_program_that_is_not_there_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    assert (
        "runs srun, and there is no such program here"
        in run("launch", "-n", 2, "--launcher", "slurm", "true").stderr
    )
