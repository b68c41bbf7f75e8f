"""The options that commands share, with their help; knows no command.

Each is an annotated type: a command names it in its signature, with the default.
"""

from __future__ import annotations

from collections.abc import Callable
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, TypeVar

import typer

from glintpy import config
from glintpy.cli.configfile import take_config
from glintpy.cli.quantities import duration_text, parse_duration, parse_size, size_text
from glintpy.errors import ConfigError

Number = TypeVar("Number", int, float)


class LogLevel(StrEnum):
    """From which level on log lines are shown."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


class DurabilityLevel(StrEnum):
    """What an acknowledged push survives; the same words as ``config.Durability``."""

    MEMORY = "memory"
    PROCESS = "process"
    DISK = "disk"


def default_text(text: str) -> str:
    """Return what help says of a default that is not the value itself."""
    # The backslash keeps rich from taking it for one of its tags.
    return rf" [dim]\[default: {text}][/dim]"


def _size(value: Any) -> int:
    return _parsed(parse_size, value)


def _duration(value: Any) -> float:
    return _parsed(parse_duration, value)


def _parsed(parse: Callable[[Any], Number], value: Any) -> Number:
    try:
        return parse(value)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None


def _member_name(value: str | None) -> str | None:
    if value is not None and not (value.isprintable() and 1 <= len(value) <= 100):
        raise typer.BadParameter(f"{value!r:.80} is not a name of 1 to 100 printable characters")
    return value


def _directory(value: Any) -> Path:
    if not str(value):
        raise typer.BadParameter("a directory has a name; write . for the present one")
    return Path(value)


def full_address(text: str) -> str:
    """Return a master's address from what a person writes: the scheme and the default port may be left out."""
    if "://" in text:
        return text
    if text.startswith("[") or text.count(":") > 1:  # IPv6
        return f"tcp://{text}" if "]:" in text else f"tcp://[{text.strip('[]')}]:{config.MASTER_PORT}"
    return f"tcp://{text}" if ":" in text else f"tcp://{text}:{config.MASTER_PORT}"


# --- of all -----------------------------------------------------------------------------------------------

ConfigFile = Annotated[
    Path | None,
    typer.Option(
        "--config",
        callback=take_config,
        is_eager=True,
        metavar="FILE.toml",
        show_default=False,
        help="Read options from a file; what stands on the command line wins.",
    ),
]
Level = Annotated[
    LogLevel,
    typer.Option(
        "--log-level", metavar="LEVEL", help="Show log lines from here on: debug, info, warning, error."
    ),
]

# --- of client commands -----------------------------------------------------------------------------------

Master = Annotated[
    str,
    typer.Option("--master", metavar="ADDRESS", parser=full_address, help="Where the master is."),
]
Timeout = Annotated[
    float,
    typer.Option(
        "--timeout",
        metavar="DURATION",
        parser=_duration,
        show_default=False,
        help="How long one request may take." + default_text("30 s"),
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print JSON, for programs.")]

# --- of nodes: where ----------------------------------------------------------------------------------------

_WHERE = "Where it is reached"
_KEPT = "What it keeps"
_LIMITS = "Limits"
_WATCH = "Heartbeats"

Host = Annotated[
    str,
    typer.Option(
        "--host", metavar="HOST", rich_help_panel=_WHERE, help="The address of this machine to listen at."
    ),
]
Port = Annotated[
    int,
    typer.Option(
        "--port",
        metavar="PORT",
        min=0,
        max=65535,
        rich_help_panel=_WHERE,
        help="The port; 0 takes any free one.",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        metavar="ADDRESS",
        hidden=True,
        help="Instead of host and port: tcp://HOST:PORT or ipc:///PATH.",
    ),
]
Advertise = Annotated[
    str | None,
    typer.Option(
        "--advertise",
        metavar="HOST[:PORT]",
        show_default=False,
        rich_help_panel=_WHERE,
        help="What others are told to connect to, where that is not what it listens at (containers, NAT).",
    ),
]
Insecure = Annotated[
    bool,
    typer.Option(
        "--insecure",
        rich_help_panel=_WHERE,
        help="Allow an address that other machines can reach: whoever reaches it can read and change every model.",
    ),
]
DataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        parser=_directory,
        show_default=False,
        rich_help_panel=_KEPT,
        help="Keep the state in this directory, for the next start."
        + default_text("a private folder, which goes with an orderly stop"),
    ),
]
MasterDataDir = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        metavar="DIR",
        parser=_directory,
        show_default=False,
        rich_help_panel=_KEPT,
        help="Keep members and models in this directory, for the next start."
        + default_text("in memory only"),
    ),
]
ServerName = Annotated[
    str | None,
    typer.Option(
        "--name",
        callback=_member_name,
        metavar="NAME",
        show_default=False,
        help="For people to read in status and logs.",
    ),
]
MemoryLimit = Annotated[
    int | None,
    typer.Option(
        "--memory-limit",
        metavar="SIZE",
        parser=_size,
        show_default=False,
        rich_help_panel=_KEPT,
        help="For all models together: 4GB, 512MiB or bytes." + default_text("what is free"),
    ),
]

Durability = Annotated[
    DurabilityLevel,
    typer.Option(
        "--durability",
        metavar="LEVEL",
        rich_help_panel=_KEPT,
        help="What an acknowledged push survives, for models that don't say. memory: nothing; process: the end of the "
        "process, by kill -9 too; disk: a power cut (needs --data-dir).",
    ),
]

Allow = Annotated[
    str,
    typer.Option(
        "--allow",
        metavar="PATH,...",
        show_default=False,
        help="Python packages, modules or classes from which one's own updaters and functions may be imported, with "
        "commas between: mypackage.updaters. Their code runs in this server." + default_text("none"),
    ),
]

# --- of nodes: limits ---------------------------------------------------------------------------------------


def _limit(name: str, setting: str, text: str) -> Any:
    return typer.Option(
        name,
        metavar="SIZE",
        parser=_size,
        show_default=False,
        rich_help_panel=_LIMITS,
        help=text + default_text(size_text(getattr(config.ServerSettings(), setting))),
    )


def _time(name: str, settings: Any, setting: str, text: str, *, panel: str) -> Any:
    return typer.Option(
        name,
        metavar="DURATION",
        parser=_duration,
        show_default=False,
        rich_help_panel=panel,
        help=text + default_text(duration_text(getattr(settings, setting))),
    )


def _silence(name: str, setting: str, text: str) -> Any:
    return _time(name, config.ServerSettings(), setting, text, panel=_LIMITS)


def _watch(name: str, setting: str, text: str) -> Any:
    return _time(name, config.MembershipSettings(), setting, text, panel=_WATCH)


def _count(name: str, text: str) -> Any:
    return typer.Option(name, metavar="N", min=1, rich_help_panel=_LIMITS, help=text)


Budget = Annotated[
    int, _limit("--budget", "budget_bytes", "Bytes on their way, to and from all clients together.")
]
WindowMax = Annotated[
    int, _limit("--window-max", "window_bytes_max", "Bytes on their way for one client, at most.")
]
WindowMin = Annotated[
    int, _limit("--window-min", "window_bytes_min", "The same, at least, however many clients there are.")
]
AnswersMax = Annotated[
    int, _limit("--answers-max", "answers_bytes_max", "Answers kept for a client that doesn't read.")
]
SessionsMax = Annotated[
    int, _count("--sessions-max", "Clients remembered; beyond, the longest silent one goes.")
]
SessionIdle = Annotated[
    float, _silence("--session-idle", "session_idle_s", "Silence after which a client gets no share.")
]
SessionExpiry = Annotated[
    float, _silence("--session-expiry", "session_expiry_s", "Silence after which a client is forgotten.")
]
CutIdle = Annotated[
    float, _silence("--cut-idle", "cut_idle_s", "Silence after which a save that nobody reads is dropped.")
]
LogMax = Annotated[
    int, _limit("--log-max", "log_bytes_max", "Growth of the log of level 'disk' until it is cut, at least.")
]
SliceCells = Annotated[int, _count("--slice-cells", "Values touched between two looks at the network.")]

Beat = Annotated[
    float, _watch("--beat", "beat_s", "Between two heartbeats; stay well below the master's --silent.")
]
JoinTimeout = Annotated[
    float, _watch("--join-timeout", "join_timeout_s", "How long to try to reach the master at the start.")
]
LockWait = Annotated[
    float,
    _watch(
        "--lock-wait", "lock_wait_s", "How long to wait for another process to let go of the data directory."
    ),
]
Silent = Annotated[float, _watch("--silent", "silent_s", "Silence after which a server counts as lost.")]
Hung = Annotated[
    float, _watch("--hung", "hung_s", "Heartbeats without any work after which a server counts as hung.")
]
ClientGone = Annotated[
    float, _watch("--client-gone", "client_gone_s", "Silence after which a client is forgotten.")
]
Watchdog = Annotated[
    float | None,
    typer.Option(
        "--watchdog",
        metavar="DURATION",
        parser=_duration,
        show_default=False,
        rich_help_panel=_WATCH,
        help="End the process, with a traceback of every thread, when it stands still for so long. (default: never)",
    ),
]
Tick = Annotated[float, _watch("--tick", "tick_s", "How often deadlines are looked at.")]

# --- of nodes: for drills -----------------------------------------------------------------------------------

EnableDebug = Annotated[
    bool,
    typer.Option(
        "--enable-debug", hidden=True, help="Allow what the two options below do; on loopback only."
    ),
]
Failpoints = Annotated[
    str, typer.Option("--failpoints", hidden=True, metavar="TEXT", help="See glintpy.failpoints.arm.")
]
Plant = Annotated[
    str, typer.Option("--plant", hidden=True, metavar="NAME", help="A planted defect, for a drill to find.")
]
