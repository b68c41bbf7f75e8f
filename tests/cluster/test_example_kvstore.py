"""The example of a KVStore: workers reach what one process does, however they are started."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

import glintpy
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


@pytest.mark.parametrize(
    ("options", "status", "said"),
    [
        (
            ["--compress", "2bit", "--threshold", "0"],
            1,
            "error: the threshold of 2bit is a finite number above 0",
        ),
        (["--momentum", "2"], 1, "error: .*momentum"),
        (["--learning-rate", "-1"], 1, "error: .*learning_rate"),
        (["--seed", "-1"], 2, "invalid integer of at least 0 value: '-1'"),
        (["--batch", "1439"], 1, "error: --batch is 1439, and there are 1438 digits to train on"),
    ],
)
def test_options_that_can_t_be_are_said_before_workers_start(
    tmp_path: Path, options: list[str], status: int, said: str
) -> None:
    done = run("kvstore_sgd.py", *options, folder=tmp_path, status=status)
    assert re.search(said, done.stderr), done.stderr
    assert "Traceback" not in done.stderr


def test_the_example_is_a_worker_where_a_tracker_started_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with glintpy.LocalCluster(1) as cluster:
        host, _, port = cluster.address.removeprefix("tcp://").rpartition(":")
        for name, value in [("URI", host), ("PORT", port)]:
            monkeypatch.setenv(f"DMLC_PS_ROOT_{name}", value)
        monkeypatch.setenv("DMLC_NUM_WORKER", "1")
        done = run("kvstore_sgd.py", "--epochs", "1", folder=tmp_path)
    assert "dist_sync, 1 process" in done.stdout
