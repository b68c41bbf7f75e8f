"""The commands that start workers and servers elsewhere: word for word, and safe for any word of the user's."""

from __future__ import annotations

import shlex

import pytest

import glintpy
from glintpy.cluster.far import Far, read_hosts

TOLD = [
    {"GLINTPY_MASTER": "tcp://10.0.0.1:5", "GLINTPY_RANK": str(rank), "DMLC_RANK": str(rank)}
    for rank in range(3)
]
COMMAND = ["python", "train.py", "--name", "it's a b"]


def test_workers_by_ssh_take_hosts_in_turn_and_run_on_a_leash_there() -> None:
    far = Far("ssh", "/data/my job", "/opt/python", hosts=("a", "me@b"))
    tasks = far.workers(COMMAND, 3, TOLD)
    assert [task.label for task in tasks] == ["worker 0", "worker 1", "worker 2"]
    assert [task.command[3] for task in tasks] == ["a", "me@b", "a"]
    assert all(task.holds_input for task in tasks)
    assert list(tasks[1].command[:3]) == ["ssh", "-o", "BatchMode=yes"]
    assert shlex.split(tasks[1].command[4]) == [
        *("cd", "/data/my job", "&&", "exec", "env"),
        *("GLINTPY_MASTER=tcp://10.0.0.1:5", "GLINTPY_RANK=1", "DMLC_RANK=1"),
        *("/opt/python", "-P", "-m", "glintpy.leash"),
        *COMMAND,
    ]


def test_servers_by_ssh_say_where_they_are() -> None:
    far = Far("ssh", "/data", "/opt/python", hosts=("a", "me@b"))
    tasks = far.servers(2, ["--master", "tcp://10.0.0.1:5"])
    words = shlex.split(tasks[1].command[4])
    assert words[words.index("server") :] == [
        *("server", "--master", "tcp://10.0.0.1:5", "--host", "0.0.0.0"),  # noqa: S104 - what is tested
        *("--insecure", "--advertise", "b"),
    ]


def test_mpi_starts_workers_together_and_gives_the_ranks() -> None:
    far = Far("mpi", "/data", "/opt/python", hosts_file="/data/hosts")
    (task,) = far.workers(COMMAND, 3, TOLD)
    assert list(task.command) == [
        *("mpirun", "-n", "3", "--hostfile", "/data/hosts", "env", "GLINTPY_MASTER=tcp://10.0.0.1:5"),
        *COMMAND,
    ]
    assert not task.holds_input


@pytest.mark.parametrize("ends_all", [True, False])
def test_slurm_starts_steps_in_one_allocation(ends_all: bool) -> None:
    far = Far("slurm", "/data", "/opt/python", ends_all=ends_all)
    (task,) = far.workers(COMMAND, 3, TOLD)
    assert list(task.command) == [
        *("srun", "--ntasks=3", "--overlap", f"--kill-on-bad-exit={int(ends_all)}"),
        *("env", "GLINTPY_MASTER=tcp://10.0.0.1:5"),
        *COMMAND,
    ]
    (task,) = Far("slurm", "/data", "/opt/py thon", hosts_file="/h").servers(
        2, ["--master", "tcp://10.0.0.1:5"]
    )
    assert list(task.command[:3]) == ["srun", "--ntasks=2", "--nodefile=/h"]
    assert task.command[-1] == (
        "exec '/opt/py thon' -m glintpy server --master tcp://10.0.0.1:5 --host 0.0.0.0 --insecure "
        '--advertise "$(hostname)"'
    )


def test_hosts_stand_one_a_line() -> None:
    assert read_hosts("# mine\na slots=4\n\nme@b # slow\n", "hosts") == ("a", "me@b")
    with pytest.raises(glintpy.ConfigError, match="hosts names no host"):
        read_hosts("# none\n", "hosts")
    with pytest.raises(glintpy.ConfigError, match="'-oProxyCommand=x', which ssh would take for an option"):
        read_hosts("-oProxyCommand=x\n", "hosts")
