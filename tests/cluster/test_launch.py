"""``glintpy launch`` as it is used: workers that do their part, fail and are interrupted; nothing stays behind."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

import glintpy
from tests.cluster.helpers import PATIENCE_S, environment, nodes_of
from tests.cluster.test_cli import run, running
from tests.cluster.test_leash import wait_gone

COUNT = """
import os, sys
import glintpy
from glintpy.kvstore.environment import Job

job = Job.from_environment(os.environ)
with glintpy.Client(job.address) as client, client.join(job.name, job.num_workers) as group:
    v = client.vector(10, name="sums", exist_ok=True)
    v.push([job.rank], 1 + job.rank)
    group.barrier()
    # Whole lines: under MPI and Slurm workers share an output, into which print() writes piece by piece.
    sys.stdout.write(f"sums {v.pull(range(3)).result().tolist()}\\n")
    sys.stderr.write(f"said by {job.rank}\\n")
    group.barrier()
"""

FAIL = """
import os, signal
rank = int(os.environ["GLINTPY_RANK"])
print("pid", os.getpid(), flush=True)
if rank == 1:
    raise SystemExit(7)
signal.pause()
"""

RETRY = """
import os, pathlib
mark = pathlib.Path("tried-" + os.environ["GLINTPY_RANK"])
if not mark.exists():
    mark.touch()
    os.kill(os.getpid(), 9)
print("well", flush=True)
"""


ROLES = """
from glintpy.kvstore import SERVERS, Postoffice, SimpleApp

def answer(request, app):
    app.response(request, f"{request.body}, {app.node.node_id}")

with Postoffice() as node, SimpleApp(request_handle=answer) as app:
    node.barrier()
    if node.is_worker:
        print(node.my_rank, app.wait(app.request(1, "hello", SERVERS)), flush=True)
    node.barrier()
"""


def script(folder: Path, text: str) -> list[str]:
    path = folder / "worker.py"
    path.write_text(text)
    return [sys.executable, str(path)]


def launch(folder: Path, *arguments: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "glintpy", "launch", *map(str, arguments)],
        cwd=folder,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE_S * 2,
        check=False,
    )


def test_workers_find_their_cluster_and_each_other(tmp_path: Path) -> None:
    done = launch(tmp_path, "-n", 3, "-s", 2, *script(tmp_path, COUNT))
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == [f"[worker {rank}] sums [1.0, 2.0, 3.0]" for rank in range(3)]
    assert sorted(done.stderr.splitlines()) == [f"[worker {rank}] said by {rank}" for rank in range(3)]


def test_a_cluster_that_runs_can_be_used(tmp_path: Path, cluster: glintpy.LocalCluster) -> None:
    done = launch(tmp_path, "-n", 2, "--master", cluster.address, *script(tmp_path, COUNT))
    assert done.returncode == 0, done.stderr
    with cluster.client() as client:
        assert client.open("sums").pull([0, 1]).result().tolist() == [1, 2]
        client.destroy("sums")


def test_programs_of_ps_lite_have_nodes_with_the_role_of_a_server(tmp_path: Path) -> None:
    done = launch(tmp_path, "-n", 2, "-s", 1, "--role-servers", 2, *script(tmp_path, ROLES))
    assert done.returncode == 0, done.stderr
    expected = [f"[worker {rank}] {rank} {{8: 'hello, 8', 10: 'hello, 10'}}" for rank in range(2)]
    assert sorted(done.stdout.splitlines()) == expected


def test_nodes_with_roles_are_of_this_machine(tmp_path: Path) -> None:
    done = launch(tmp_path, "-n", 2, "--role-servers", 2, "--launcher", "slurm", "true")
    assert done.returncode != 0
    assert "--role-servers starts processes of this machine" in done.stderr


def test_one_failure_ends_all_with_its_exit_code(tmp_path: Path) -> None:
    done = launch(tmp_path, "-n", 3, "-s", 1, *script(tmp_path, FAIL))
    assert done.returncode == 7
    assert "worker 1 ended with exit code 7; the job ends" in done.stderr
    wait_gone(map(int, re.findall(r"pid (\d+)", done.stdout)))


def test_others_go_on_where_losses_are_borne(tmp_path: Path) -> None:
    text = "import os; r = os.environ['GLINTPY_RANK']; print(r, flush=True); raise SystemExit(5 * (r == '0'))"
    done = launch(tmp_path, "-n", 3, "-s", 1, "--on-worker-lost", "shrink", *script(tmp_path, text))
    assert done.returncode == 0, done.stderr
    # Which of them ends last is for the machine to say.
    assert re.search(r"worker 0 ended with exit code 5; (the others go on|it was the last)", done.stderr)
    assert "the job ends" not in done.stderr


def test_a_worker_that_failed_is_started_again(tmp_path: Path) -> None:
    done = launch(tmp_path, "-n", 2, "-s", 1, "--attempts", 2, *script(tmp_path, RETRY))
    assert done.returncode == 0, done.stderr
    assert sorted(done.stdout.splitlines()) == ["[worker 0] well", "[worker 1] well"]
    assert done.stderr.count("was ended by SIGKILL; it is started again") == 2


def test_a_command_that_is_not_there_is_said(tmp_path: Path) -> None:
    done = launch(tmp_path, "-n", 1, "-s", 1, "no-such-program")
    assert done.returncode == 127
    assert "[worker 0] can't run 'no-such-program': there is no such program" in done.stderr


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_everything(tmp_path: Path, number: signal.Signals) -> None:
    text = "import os, signal; print('pid', os.getpid(), flush=True); signal.pause()"
    with running("launch", "-n", 2, "-s", 1, *script(tmp_path, text)) as command:
        pids = {int(command.wait_for(f"[worker {rank}] pid", name="stdout").split()[-1]) for rank in range(2)}
        pids |= set(nodes_of(command.process.pid))
        assert len(pids) == 4
        assert command.ask_to_stop(number) == 128 + number
        wait_gone(pids)


def test_nothing_outlives_a_launcher_that_is_killed(tmp_path: Path) -> None:
    text = "import os, signal; print('pid', os.getpid(), flush=True); signal.pause()"
    with running("launch", "-n", 1, "-s", 1, *script(tmp_path, text)) as command:
        pids = {int(command.wait_for("pid", name="stdout").split()[-1]), *nodes_of(command.process.pid)}
        command.process.kill()
        wait_gone(pids)


def test_numbers_may_come_from_the_environment_of_dmlc_s_trackers(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DMLC_NUM_WORKER", "2")
    monkeypatch.setenv("DMLC_NUM_SERVER", "1")
    text = "import os; print(*(os.environ['DMLC_' + n] for n in ('NUM_WORKER', 'NUM_SERVER', 'ROLE', 'TASK_ID')))"
    done = launch(tmp_path, *script(tmp_path, text))
    assert sorted(done.stdout.splitlines()) == [f"[worker {rank}] 2 1 worker {rank}" for rank in range(2)]


def test_what_is_missing_is_said() -> None:
    assert "Missing option '--workers' / '-n'" in run("launch", "true").stderr
    assert "Missing argument 'COMMAND...'" in run("launch", "-n", 2).stderr
