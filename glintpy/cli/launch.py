"""``glintpy launch``: a cluster, a command as each worker of it, and one exit code; knows no model."""

from __future__ import annotations

import contextlib
import logging
import signal
import sys
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glintpy.cli import far, options
from glintpy.cli.configfile import add_command
from glintpy.cli.output import Failed, log_to_stderr
from glintpy.cli.reach import can_listen
from glintpy.cli.serve import paths_of
from glintpy.process import foreground
from glintpy.process.orders import ServerOptions

if TYPE_CHECKING:
    from glintpy.cluster import LocalCluster
    from glintpy.cluster.far import Far
    from glintpy.cluster.fates import Fates
    from glintpy.cluster.workers import Crew, Stream, Task

logger = logging.getLogger("glintpy.cli")

ENDED = "a worker has ended"
"""The wish by which the main thread is woken."""


class Loss(StrEnum):
    """What the loss of a worker means for the others."""

    END = "end"
    RAISE = "raise"
    SHRINK = "shrink"


Workers = Annotated[
    int,
    typer.Option(
        "--workers",
        "-n",
        metavar="N",
        min=1,
        max=10_000,
        envvar="DMLC_NUM_WORKER",
        show_default=False,
        help="How many workers run the command.",
    ),
]
Servers = Annotated[
    int | None,
    typer.Option(
        "--servers",
        "-s",
        metavar="N",
        min=1,
        max=1000,
        envvar="DMLC_NUM_SERVER",
        show_default=False,
        help="How many servers to run." + options.default_text("as many as workers"),
    ),
]
RoleServers = Annotated[
    int,
    typer.Option(
        "--role-servers",
        metavar="N",
        min=0,
        max=1000,
        help="How many more processes run the command with DMLC_ROLE=server, as programs of ps-lite have them. They "
        "hold no values, and end by themselves.",
    ),
]
Master = Annotated[
    str | None,
    typer.Option(
        "--master",
        metavar="ADDRESS",
        parser=options.full_address,
        show_default=False,
        help="Use the cluster there, and start none.",
    ),
]
Port = Annotated[
    int,
    typer.Option(
        "--port",
        metavar="PORT",
        min=0,
        max=65535,
        envvar="DMLC_PS_ROOT_PORT",
        help="The master's; 0 takes any free one.",
    ),
]
OnWorkerLost = Annotated[
    Loss,
    typer.Option(
        "--on-worker-lost",
        metavar="WHAT",
        help="end: all others are ended, too; shrink: they go on; raise: they go on, and hear of it by WorkerLost.",
    ),
]
Attempts = Annotated[
    int,
    typer.Option(
        "--attempts",
        metavar="N",
        min=1,
        max=1000,
        envvar="DMLC_NUM_ATTEMPT",
        help="How often a worker is started until it counts as lost for the job. Its group misses it meanwhile, see "
        "--on-worker-lost: with end and raise others' barriers raise WorkerLost, with shrink they go on.",
    ),
]
Command = Annotated[
    list[str],
    typer.Argument(
        metavar="COMMAND...", show_default=False, help="What each worker runs, with its arguments."
    ),
]


def add_commands(app: typer.Typer) -> None:
    """Add the command of this module."""
    # What stands behind the command is the command's own, also if it looks like an option of this one.
    add_command(app, "launch", _launch, panel="Run a cluster", table="launch", interspersed=False)


def _launch(
    command: Command,
    *,
    workers: Workers,
    servers: Servers = None,
    role_servers: RoleServers = 0,
    master: Master = None,
    port: Port = 0,
    on_worker_lost: OnWorkerLost = Loss.END,
    attempts: Attempts = 1,
    launcher: far.By = far.Launcher.LOCAL,
    hosts: far.Hosts = None,
    host: far.Host = None,
    insecure: options.Insecure = False,
    python: far.Python = None,
    data_dir: options.DataDir = None,
    durability: options.Durability = options.DurabilityLevel.PROCESS,
    memory_limit: options.MemoryLimit = None,
    allow: options.Allow = "",
    log_level: options.Level = options.LogLevel.WARNING,
    config_file: options.ConfigFile = None,  # noqa: ARG001 - its callback has read it
) -> None:
    """Run a command as each of several workers, with a cluster for them that ends with it.

    Each worker has the master's address in GLINTPY_MASTER and its number in GLINTPY_RANK, and the variables of dmlc's
    trackers; glintpy.kvstore.create finds them by itself. What a worker prints is shown behind its number.

    The exit code is 0 if all workers ended with 0; with --on-worker-lost shrink or raise, if any did. Else it is that
    of the first worker that was lost.
    """
    log_to_stderr(log_level)
    signals = foreground.Signals(interrupts=True)
    signals.install()
    ends_all = on_worker_lost is Loss.END
    if role_servers and launcher is not far.Launcher.LOCAL:
        raise Failed("--role-servers starts processes of this machine: it needs --launcher local")
    plan = _Plan(
        num_servers=workers if servers is None else servers,
        num_role_servers=role_servers,
        master=master,
        port=port,
        host=host,
        insecure=insecure,
        data_dir=data_dir,
        durability=durability.value,
        memory_limit=memory_limit,
        allow=allow,
        log_level=log_level.value,
        away=far.far_of(launcher, hosts, python, ends_all=ends_all),
    )
    from glintpy.cluster.fates import Fates  # noqa: PLC0415 - loads numpy

    asked: list[str] = []
    code = 0
    try:
        with _cluster(plan, lambda: signals.ask_to_stop(ENDED)) as (address, others):
            tasks = _tasks(command, address, workers, plan=plan, on_worker_lost=on_worker_lost)
            fates = Fates(len(tasks), ends_all=ends_all, attempts=attempts)
            code = _run(tasks, fates, signals, asked, others)
    except foreground.StoppedEarly:
        asked.append("")
    if asked:
        code = signals.exit_code
    raise typer.Exit(code)


@dataclass(frozen=True, kw_only=True)
class _Plan:
    """What the options say about the cluster."""

    num_servers: int
    num_role_servers: int
    master: str | None
    port: int
    host: str | None
    insecure: bool
    data_dir: Path | None
    durability: Any
    memory_limit: int | None
    allow: str
    log_level: str
    away: Far | None


@contextlib.contextmanager
def _cluster(plan: _Plan, wake: Callable[[], None]) -> Iterator[tuple[str, Crew | None]]:
    """Run the cluster that the options ask for; yield its address, and servers that nobody else looks after."""
    if plan.master is not None:
        yield plan.master, None
    elif plan.away is not None:
        arguments = ["--durability", plan.durability, "--log-level", plan.log_level]
        arguments += ["--memory-limit", str(plan.memory_limit)] if plan.memory_limit is not None else []
        arguments += ["--allow", plan.allow] if plan.allow else []
        with far.far_cluster(
            plan.away,
            host=plan.host,
            port=plan.port,
            insecure=plan.insecure,
            num_servers=plan.num_servers,
            arguments=arguments,
            show=_Shown(),
            wake=wake,
        ) as started:
            yield started
    else:
        with _local_cluster(plan) as cluster:
            yield cluster.address, None


def _local_cluster(plan: _Plan) -> LocalCluster:
    if plan.port and not can_listen("127.0.0.1", plan.port):
        raise Failed(
            f"can't listen at tcp://127.0.0.1:{plan.port}: the port is taken; --port 0 takes any free one"
        )
    from glintpy.cluster import LocalCluster  # noqa: PLC0415 - loads numpy and ZeroMQ

    return LocalCluster(
        plan.num_servers,
        data_dir=plan.data_dir,
        durability=plan.durability,
        memory_limit=plan.memory_limit,
        supervise=True,
        allow=paths_of(plan.allow),
        server_options=ServerOptions(watchdog_s=10.0),
        port=plan.port,
        log_level=plan.log_level,
    )


def _tasks(
    command: list[str],
    address: str,
    workers: int,
    *,
    plan: _Plan,
    on_worker_lost: Loss,
) -> list[Task]:
    from glintpy.cluster.workers import Task  # noqa: PLC0415 - loads numpy
    from glintpy.kvstore.environment import Job  # noqa: PLC0415 - loads numpy

    job = Job(
        address,
        f"job-{uuid.uuid4().hex[:12]}",
        num_workers=workers,
        num_servers=plan.num_servers,
        on_worker_lost="shrink" if on_worker_lost is Loss.SHRINK else "raise",
        num_role_servers=plan.num_role_servers or None,
    )
    told = [replace(job, rank=rank).to_environment() for rank in range(workers)]
    if plan.away is not None:
        return plan.away.workers(command, workers, told)
    others = [
        Task(f"server {rank}", command, replace(job, role="server", rank=rank).to_environment())
        for rank in range(plan.num_role_servers)
    ]
    return [*(Task(f"worker {rank}", command, told[rank]) for rank in range(workers)), *others]


def _run(
    tasks: list[Task],
    fates: Fates,
    signals: foreground.Signals,
    asked: list[str],
    others: Crew | None,
) -> int:
    """Run workers to the end of their job, and return its exit code.

    Args:
        tasks: of the workers.
        fates: what the end of one means.
        signals: to this process.
        asked: a signal that ends the job early is noted here.
        others: servers without which the job can't go on; None: somebody else looks after them.
    """
    from glintpy.cluster.workers import Crew  # noqa: PLC0415 - loads numpy

    crew = Crew(tasks, fates, show=_Shown(), wake=lambda: signals.ask_to_stop(ENDED))
    try:
        crew.start()
        signals.is_starting = False
        while not crew.is_over:
            reason = signals.wait(lambda: "")
            if reason in signal.Signals.__members__:
                asked.append(reason)
                logger.warning("%s: the workers are ended", reason)
                crew.stop(signal.Signals[reason])
                break
            crew.settle()
            if others is not None:
                others.settle()
                if others.is_over and not crew.is_over:
                    raise Failed("a server has ended, and the job with it")
    finally:
        crew.stop()
    return fates.exit_code


class _Shown:
    """Shows lines of workers, each behind its worker's name, on the stream that it was written to."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def __call__(self, label: str, stream: Stream, line: str) -> None:
        # The streams that the process was born with: a line is one write, so that two never mix.
        with self._lock, contextlib.suppress(BrokenPipeError, ValueError):
            where = sys.stdout if stream == "out" else sys.stderr
            where.write(f"[{label}] {line}\n")
            where.flush()
