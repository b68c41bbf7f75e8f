"""The example of a KVStore: workers reach what one process does, however they are started."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.cluster.example_runs import REPOSITORY, RUN_TIMEOUT_S, run
from tests.cluster.helpers import environment


def accuracies(output: str) -> list[float]:
    return [float(number) for number in re.findall(r"(?:process|workers): (0\.\d{3}) of held-out", output)]


@pytest.mark.parametrize("kind", ["dist_sync", "dist_async"])
def test_workers_read_as_many_digits_as_one_process(tmp_path: Path, kind: str) -> None:
    done = run("kvstore_sgd.py", "--kv", kind, "--epochs", "10", folder=tmp_path)
    assert f"{kind}, 2 workers" in done.stdout
    together, alone = accuracies(done.stdout)
    assert alone > 0.93
    assert abs(together - alone) < 0.03


@pytest.mark.parametrize("kind", ["dist_sync", pytest.param("dist_async", marks=pytest.mark.soak)])
def test_two_bits_a_value_are_enough(tmp_path: Path, kind: str) -> None:
    options = ["--compress", "2bit", "--momentum", "0", "--learning-rate", "0.5", "--epochs", "10"]
    done = run("kvstore_sgd.py", "--kv", kind, *options, folder=tmp_path)
    together, alone = accuracies(done.stdout)
    assert alone > 0.93
    assert abs(together - alone) < 0.05


def test_the_example_runs_under_launch(tmp_path: Path) -> None:
    example = str(REPOSITORY / "examples" / "kvstore_sgd.py")
    command = ["launch", "-n", "2", "-s", "2", sys.executable, example, "--epochs", "10"]
    done = subprocess.run(
        [sys.executable, "-m", "glintpy", *command],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=RUN_TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "[worker 0] dist_sync, 2 workers" in done.stdout
    together, alone = accuracies(done.stdout)
    assert abs(together - alone) < 0.03
