"""``glintpy master``, ``server`` and ``local``: nodes in the foreground; knows no model."""

from __future__ import annotations

import logging
from dataclasses import fields
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glintpy import config
from glintpy.cli import options
from glintpy.cli.configfile import add_command
from glintpy.cli.output import Failed, log_to_stderr
from glintpy.cli.reach import can_listen
from glintpy.process import foreground
from glintpy.process.orders import MasterOrder, ServerOptions, ServerOrder
from glintpy.process.running import run_master, run_server

if TYPE_CHECKING:
    from glintpy.cluster import LocalCluster

logger = logging.getLogger("glintpy.cli")

_LIMITS = config.ServerSettings()
_WATCH = config.MembershipSettings()

_PANEL = "Run a cluster"


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module."""
    add_command(app, "master", _master, panel=_PANEL, table="master")
    add_command(app, "server", _server, panel=_PANEL, table="server")
    add_command(app, "local", _local, panel=_PANEL, table="local")


def _master(
    context: typer.Context,
    *,
    host: options.Host = "127.0.0.1",
    port: options.Port = config.MASTER_PORT,
    address: options.Address = None,
    insecure: options.Insecure = False,
    data_dir: options.MasterDataDir = None,
    silent_s: options.Silent = _WATCH.silent_s,
    hung_s: options.Hung = _WATCH.hung_s,
    client_gone_s: options.ClientGone = _WATCH.client_gone_s,
    tick_s: options.Tick = _WATCH.tick_s,
    log_level: options.Level = options.LogLevel.INFO,
    config_file: options.ConfigFile = None,  # noqa: ARG001 - its callback has read it
) -> None:
    """Run the master, which knows servers and models and is on the path of no request.

    Prints its address when it is ready. Ctrl-C and SIGTERM stop it in good order.
    """
    run_master(
        MasterOrder(
            address=_where(context, host, port, address),
            data_dir=data_dir,
            insecure=insecure,
            membership=config.MembershipSettings(
                silent_s=silent_s, hung_s=hung_s, client_gone_s=client_gone_s, tick_s=tick_s
            ),
            log_level=log_level.value,
        )
    )


def _server(
    context: typer.Context,
    *,
    master: options.Master = config.DEFAULT_ADDRESS,
    name: options.ServerName = None,
    host: options.Host = "127.0.0.1",
    port: options.Port = 0,
    address: options.Address = None,
    advertise: options.Advertise = None,
    insecure: options.Insecure = False,
    data_dir: options.DataDir = None,
    durability: options.Durability = options.DurabilityLevel.PROCESS,
    memory_limit: options.MemoryLimit = None,
    allow: options.Allow = "",
    budget_bytes: options.Budget = _LIMITS.budget_bytes,
    window_bytes_max: options.WindowMax = _LIMITS.window_bytes_max,
    window_bytes_min: options.WindowMin = _LIMITS.window_bytes_min,
    answers_bytes_max: options.AnswersMax = _LIMITS.answers_bytes_max,
    sessions_max: options.SessionsMax = _LIMITS.sessions_max,
    session_idle_s: options.SessionIdle = _LIMITS.session_idle_s,
    session_expiry_s: options.SessionExpiry = _LIMITS.session_expiry_s,
    cut_idle_s: options.CutIdle = _LIMITS.cut_idle_s,
    log_bytes_max: options.LogMax = _LIMITS.log_bytes_max,
    slice_cells: options.SliceCells = _LIMITS.slice_cells,
    beat_s: options.Beat = _WATCH.beat_s,
    join_timeout_s: options.JoinTimeout = _WATCH.join_timeout_s,
    lock_wait_s: options.LockWait = _WATCH.lock_wait_s,
    tick_s: options.Tick = _WATCH.tick_s,
    watchdog_s: options.Watchdog = None,
    enable_debug: options.EnableDebug = False,
    failpoints: options.Failpoints = "",
    plant: options.Plant = "",
    log_level: options.Level = options.LogLevel.INFO,
    config_file: options.ConfigFile = None,
) -> None:
    """Run a server, which holds a part of each model and answers pulls and pushes.

    Prints its address when the master has taken it. Ctrl-C and SIGTERM stop it in good order.
    """
    given = {**locals(), "durability": durability.value, "allow": paths_of(allow)}
    if (failpoints or plant) and (not enable_debug or insecure):
        raise Failed(
            "--failpoints and --plant make a server fail: they need --enable-debug, and no --insecure",
            exit_code=2,
        )
    if given["durability"] == "disk" and data_dir is None:
        raise Failed("--durability disk needs --data-dir: a private folder goes with the server", exit_code=2)
    run_server(
        ServerOrder(
            master=master,
            name=name,
            address=_where(context, host, port, address),
            data_dir=data_dir,
            insecure=insecure,
            options=ServerOptions(
                settings=_checked(config.ServerSettings(**_of(config.ServerSettings, given))),
                membership=config.MembershipSettings(**_of(config.MembershipSettings, given)),
                advertise=_advertised(advertise),
                watchdog_s=watchdog_s,
                failpoints=failpoints,
                plant=plant,
            ),
            log_level=log_level.value,
        )
    )


def _local(
    servers: Annotated[
        int, typer.Option("--servers", metavar="N", min=1, max=1000, help="How many servers to run.")
    ] = 2,
    *,
    port: options.Port = config.MASTER_PORT,
    data_dir: options.DataDir = None,
    durability: options.Durability = options.DurabilityLevel.PROCESS,
    memory_limit: options.MemoryLimit = None,
    supervise: Annotated[
        bool, typer.Option("--supervise", help="Start again what dies, and go on with what it held.")
    ] = False,
    allow: options.Allow = "",
    log_level: options.Level = options.LogLevel.INFO,
    config_file: options.ConfigFile = None,  # noqa: ARG001 - its callback has read it
) -> None:
    """Run a whole cluster on this machine, a master and servers, until Ctrl-C.

    Without --data-dir the models go when it stops.
    """
    log_to_stderr(log_level)
    if port and not can_listen("127.0.0.1", port):
        raise Failed(
            f"can't listen at tcp://127.0.0.1:{port}: the port is taken. See who answers there with: "
            "glintpy status; or take another with --port (0: any free one)"
        )
    started: list[LocalCluster] = []

    def start(_: foreground.Signals) -> LocalCluster:
        from glintpy.cluster import LocalCluster  # noqa: PLC0415 - loads numpy and ZeroMQ

        cluster = LocalCluster(
            servers,
            data_dir=data_dir,
            durability=durability.value,
            memory_limit=memory_limit,
            supervise=supervise,
            allow=paths_of(allow),
            # Where somebody starts it again, a server that hangs may as well end.
            server_options=ServerOptions(watchdog_s=10.0 if supervise else None),
            port=port,
            log_level=log_level.value,
        )
        started.append(cluster)
        kept = (
            f"models are kept in {data_dir}"
            if data_dir
            else "models go when it stops (--data-dir keeps them)"
        )
        logger.info("%d servers; %s; Ctrl-C stops it", servers, kept)
        return cluster

    look = (lambda: "") if supervise else _Deaths(started)
    foreground.run("local", start, look=look, interrupts=True)


class _Deaths:
    """Says which processes of a local cluster have ended unasked."""

    def __init__(self, started: list[LocalCluster]) -> None:
        self._started = started
        self._known: set[int] = set()

    def __call__(self) -> str:
        for cluster in self._started:
            if not cluster.master_is_alive:
                return "the master's process has ended"
            for view in cluster.servers:
                if not view.is_alive and view.pid not in self._known:
                    self._known.add(view.pid)
                    logger.error("the process of server-%d (pid %d) has ended", view.index, view.pid)
            if not any(view.is_alive for view in cluster.servers):
                return "the processes of all servers have ended"
        return ""


def paths_of(allow: str) -> tuple[str, ...]:
    """Return the import paths of an option, of which commas part one from the other."""
    return tuple(path for entry in allow.split(",") if (path := entry.strip()))


def _where(context: typer.Context, host: str, port: int, address: str | None) -> str:
    if address is None:
        return f"tcp://[{host.strip('[]')}]:{port}" if ":" in host else f"tcp://{host}:{port}"
    for name in ("host", "port"):
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE":
            raise typer.BadParameter(f"--address {address} says it all; leave --{name} out")
    return address


def _advertised(advertise: str | None) -> str | None:
    if advertise is None or "://" in advertise or ":" not in advertise:
        return advertise
    from glintpy.transport import scheme_of  # noqa: PLC0415 - beside what is loaded anyway by then

    scheme_of(f"tcp://{advertise}")
    return f"tcp://{advertise}"


def _of(kind: type, given: dict[str, Any]) -> dict[str, Any]:
    """Return those values that are fields of a kind of settings."""
    return {field.name: given[field.name] for field in fields(kind) if field.name in given}


def _checked(settings: config.ServerSettings) -> config.ServerSettings:
    """Return settings whose windows fit into one another."""
    low, high, budget = settings.window_bytes_min, settings.window_bytes_max, settings.budget_bytes
    if not low <= high <= budget:
        raise Failed(
            f"--window-min ({low} bytes) is at most --window-max ({high}), and that at most --budget ({budget})",
            exit_code=2,
        )
    return settings
