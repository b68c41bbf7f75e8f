"""``glintpy launch`` on several machines: the master here, servers and workers by ssh, mpirun or srun."""

from __future__ import annotations

import contextlib
import os
import queue
import shutil
import sys
from collections.abc import Callable, Iterator, Sequence
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from glintpy.cli.output import Failed

if TYPE_CHECKING:
    from glintpy.cluster.far import Far
    from glintpy.cluster.workers import Crew, Show, Stream

MASTER_S = 30.0
"""How long the master may take to be ready."""

SERVERS_S = 60.0
"""How long the servers of other machines may take to join."""


class Launcher(StrEnum):
    """By what workers are started."""

    LOCAL = "local"
    SSH = "ssh"
    MPI = "mpi"
    SLURM = "slurm"


_PANEL = "Several machines"

By = Annotated[
    Launcher,
    typer.Option(
        "--launcher",
        metavar="WAY",
        rich_help_panel=_PANEL,
        help="local: this machine; ssh, mpi (mpirun) or slurm (srun): others, with the master on this one.",
    ),
]
Hosts = Annotated[
    Path | None,
    typer.Option(
        "--hosts",
        metavar="FILE",
        show_default=False,
        rich_help_panel=_PANEL,
        help="The machines, one a line: needed for ssh, given on to mpirun and srun.",
    ),
]
Host = Annotated[
    str | None,
    typer.Option(
        "--host",
        metavar="HOST",
        envvar="DMLC_PS_ROOT_URI",
        show_default=False,
        rich_help_panel=_PANEL,
        help="The address of this machine at which the others reach it.",
    ),
]
Python = Annotated[
    str | None,
    typer.Option(
        "--python",
        metavar="PATH",
        show_default=False,
        rich_help_panel=_PANEL,
        help="The interpreter on the other machines, with glintpy. [dim]\\[default: this one's path][/dim]",
    ),
]


def far_of(by: Launcher, hosts: Path | None, python: str | None, *, ends_all: bool) -> Far | None:
    """Return how other machines are reached; None: there are none.

    Args:
        by: how workers are started.
        hosts: the file.
        python: the interpreter there.
        ends_all: whether one failure ends all workers.

    Raises:
        Failed: a file that is missing or can't be read, or a program that is not here.
        ConfigError: a file without hosts.
    """
    if by is Launcher.LOCAL:
        if hosts is not None:
            raise Failed("--hosts is for --launcher ssh, mpi or slurm", exit_code=2)
        return None
    from glintpy.cluster.far import Far, read_hosts  # noqa: PLC0415 - loads numpy

    if by is Launcher.SSH and hosts is None:
        raise Failed("--launcher ssh needs --hosts FILE, with one machine a line", exit_code=2)
    program = {Launcher.SSH: "ssh", Launcher.MPI: "mpirun", Launcher.SLURM: "srun"}[by]
    if shutil.which(program) is None:
        raise Failed(f"--launcher {by.value} runs {program}, and there is no such program here")
    names: tuple[str, ...] = ()
    if hosts is not None:
        try:
            names = read_hosts(hosts.read_text(encoding="utf-8"), str(hosts))
        except OSError as error:
            raise Failed(f"can't read {hosts}: {error.strerror}", exit_code=2) from None
    way = {Launcher.SSH: "ssh", Launcher.MPI: "mpi", Launcher.SLURM: "slurm"}[by]
    return Far(
        way,  # type: ignore[arg-type]  # one of its three words
        str(Path.cwd()),
        python or sys.executable,
        str(hosts.resolve()) if hosts is not None else "",
        names,
        ends_all,
    )


@contextlib.contextmanager
def far_cluster(
    far: Far,
    *,
    host: str | None,
    port: int,
    insecure: bool,
    num_servers: int,
    arguments: Sequence[str],
    show: Show,
    wake: Callable[[], None],
) -> Iterator[tuple[str, Crew]]:
    """Run a master here and servers elsewhere, and yield the master's address and the servers.

    Args:
        far: how other machines are reached.
        host: this machine's address.
        port: the master's; 0: any.
        insecure: whether that may be reached by others.
        num_servers: how many.
        arguments: of ``glintpy server``.
        show: shows a line of a server.
        wake: called when a server has ended.

    Raises:
        Failed: nobody said where this machine is reached, or the master didn't start.
        NotEnoughServers: servers didn't join in time.
    """
    from glintpy.client import Client  # noqa: PLC0415 - loads numpy and ZeroMQ
    from glintpy.cluster.fates import Fates  # noqa: PLC0415 - beside the workers
    from glintpy.cluster.workers import Crew, Task  # noqa: PLC0415 - loads numpy

    if host is None:
        raise Failed("say at which address other machines reach this one: --host HOST", exit_code=2)
    command = [sys.executable, "-m", "glintpy", "master", "--host", host, "--port", str(port)]
    command += ["--log-level", "warning", *(["--insecure"] if insecure else [])]
    said: queue.SimpleQueue[str] = queue.SimpleQueue()

    def hear(label: str, stream: Stream, line: str) -> None:
        if stream == "out":
            said.put(line)
        else:
            show(label, stream, line)

    master = Crew([Task("master", command)], Fates(1), show=hear, wake=lambda: said.put(""))
    servers: Crew | None = None
    try:
        master.start()
        address = _ready(said)
        tasks = far.servers(num_servers, ["--master", address, *arguments])
        servers = Crew(tasks, Fates(len(tasks)), show=show, wake=wake)
        servers.start()
        with Client(address, name=f"launch-{os.getpid()}") as client:
            client.wait_for_servers(num_servers, SERVERS_S)
        yield address, servers
    finally:
        if servers is not None:
            servers.stop()
        master.stop()


def _ready(said: queue.SimpleQueue[str]) -> str:
    """Return the address in the line that a master prints when it is ready."""
    try:
        line = said.get(timeout=MASTER_S)
    except queue.Empty:
        raise Failed(f"the master was not ready within {MASTER_S:g} s") from None
    if not line:
        raise Failed("the master did not start; what it said stands above")
    return line.rpartition(" ")[2]
