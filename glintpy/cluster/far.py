"""The commands that start workers and servers on other machines, by ssh, mpirun or srun; pure, and starts nothing.

What these programs do elsewhere is theirs. A worker behind ssh runs on a leash there, whose other end is ssh's own
standard input: it ends with the connection. MPI and Slurm end their processes themselves, and number the workers.
"""

from __future__ import annotations

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from glintpy.cluster.workers import Task
from glintpy.errors import ConfigError
from glintpy.leash import leashed

Way = Literal["ssh", "mpi", "slurm"]

EVERYWHERE = "0.0.0.0"  # noqa: S104 - the launcher has asked for --insecure by then


@dataclass(frozen=True, slots=True)
class Far:
    """How other machines are reached.

    Attributes:
        way: by which program.
        folder: where commands run there: ssh goes to it, the others do by themselves.
        python: the interpreter there, which has glintpy.
        hosts_file: given to mpirun and srun; empty: they know by themselves.
        hosts: of ssh, taken in turn.
        ends_all: whether Slurm is to end all workers when one fails.
    """

    way: Way
    folder: str
    python: str
    hosts_file: str = ""
    hosts: tuple[str, ...] = ()
    ends_all: bool = True

    def workers(
        self, command: Sequence[str], num_workers: int, environments: Sequence[Mapping[str, str]]
    ) -> list[Task]:
        """Return what starts the workers: a task for each, or one for all where the program starts them together.

        Args:
            command: of each.
            num_workers: how many.
            environments: what each is told; MPI and Slurm give the ranks themselves.
        """
        if self.way == "ssh":
            return [
                self._by_ssh(f"worker {rank}", rank, command, environments[rank])
                for rank in range(num_workers)
            ]
        shared = {name: text for name, text in environments[0].items() if name not in _OF_ONE}
        return [Task("workers", [*self._together(num_workers), "env", *_assigned(shared), *command])]

    def servers(self, num_servers: int, arguments: Sequence[str]) -> list[Task]:
        """Return what starts the servers, each under an address at which others reach its machine.

        Args:
            num_servers: how many.
            arguments: of ``glintpy server``.
        """
        command = [self.python, "-m", "glintpy", "server", *arguments, "--host", EVERYWHERE, "--insecure"]
        if self.way == "ssh":
            return [
                self._by_ssh(f"server {number}", number, [*command, "--advertise", self._host(number)], {})
                for number in range(num_servers)
            ]
        # Only there it is known where it is.
        script = f'exec {shlex.join(command)} --advertise "$(hostname)"'
        return [Task("servers", [*self._together(num_servers), "sh", "-c", script])]

    def _by_ssh(self, label: str, number: int, command: Sequence[str], told: Mapping[str, str]) -> Task:
        words = [*(["env", *_assigned(told)] if told else []), *leashed(command, python=self.python)]
        remote = f"cd {shlex.quote(self.folder)} && exec {shlex.join(words)}"
        host = self.hosts[number % len(self.hosts)]
        return Task(label, ["ssh", "-o", "BatchMode=yes", host, remote], holds_input=True)

    def _host(self, number: int) -> str:
        return self.hosts[number % len(self.hosts)].rpartition("@")[2]

    def _together(self, number: int) -> list[str]:
        if self.way == "mpi":
            return [
                "mpirun",
                "-n",
                str(number),
                *(["--hostfile", self.hosts_file] if self.hosts_file else []),
            ]
        nodes = [f"--nodefile={self.hosts_file}"] if self.hosts_file else []
        # The servers and the workers are two steps in one allocation.
        return ["srun", f"--ntasks={number}", *nodes, "--overlap", f"--kill-on-bad-exit={int(self.ends_all)}"]


_OF_ONE = {"GLINTPY_RANK", "DMLC_RANK", "DMLC_TASK_ID"}
"""What differs from worker to worker."""


def read_hosts(text: str, name: str) -> tuple[str, ...]:
    """Return the hosts of a file: one a line, as ssh knows it; what stands behind a blank is MPI's, and # a comment.

    Args:
        text: of the file.
        name: of the file, for messages.

    Raises:
        ConfigError: there is none.
    """
    lines = (line.partition("#")[0].split() for line in text.splitlines())
    hosts = tuple(words[0] for words in lines if words)
    for host in hosts:
        if host.startswith("-"):
            raise ConfigError(f"{name} names the host {host!r:.80}, which ssh would take for an option")
    if not hosts:
        raise ConfigError(f"{name} names no host: write one a line")
    return hosts


def _assigned(variables: Mapping[str, str]) -> list[str]:
    return [f"{name}={text}" for name, text in variables.items()]
