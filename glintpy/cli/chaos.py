"""``glintpy chaos``: a fault drill on this machine, and whether the counts hold; starts its own cluster."""

from __future__ import annotations

import json
import re
import secrets
import signal
from enum import StrEnum
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glintpy.cli import options
from glintpy.cli.configfile import add_command
from glintpy.cli.output import Failed, console, log_to_stderr
from glintpy.cli.quantities import duration_text, parse_duration
from glintpy.errors import ConfigError

if TYPE_CHECKING:
    from rich.table import Table

    from glintpy.testing.drill import Drill, DrillReport

_PANEL = "Test it"

SEED_BITS = 31
"""Of a seed that is drawn: short enough to be typed again."""


class Durability(StrEnum):
    """What the drill expects acknowledged pushes to survive: a kill or, beyond, what a disk's syncs cost."""

    PROCESS = "process"
    DISK = "disk"


def _duration(value: Any) -> float:
    try:
        return parse_duration(value)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None


def add_commands(app: typer.Typer) -> None:
    """Add the command of this module."""
    add_command(app, "chaos", _chaos, panel=_PANEL, table="chaos")


Duration = Annotated[
    float,
    typer.Option(
        "--for",
        metavar="DURATION",
        parser=_duration,
        show_default=False,
        help="How long to make trouble." + options.default_text("60 s"),
    ),
]
Seed = Annotated[
    int | None,
    typer.Option(
        "--seed",
        metavar="N",
        min=0,
        show_default=False,
        help="Draw the same faults again." + options.default_text("a new one, which is shown"),
    ),
]
Servers = Annotated[int, typer.Option("--servers", metavar="N", min=1, max=64, help="Servers to harass.")]
Clients = Annotated[int, typer.Option("--clients", metavar="N", min=1, max=64, help="Clients that count.")]
Survives = Annotated[
    Durability, typer.Option("--durability", metavar="LEVEL", help="Of the servers: process or disk.")
]
Failpoints = Annotated[
    str,
    typer.Option(
        "--failpoints",
        metavar="TEXT",
        show_default=False,
        help="Let servers die at named places too: push.half_applied=kill:0.001",
    ),
]
Plant = Annotated[
    str,
    typer.Option(
        "--plant",
        metavar="NAME",
        show_default=False,
        help="Give the servers a defect that the drill must notice: no-dedupe.",
    ),
]
ReportFile = Annotated[
    Path | None,
    typer.Option("--json", metavar="FILE", show_default=False, help="Write the report to a file, too."),
]


def _chaos(
    *,
    duration_s: Duration = 60.0,
    seed: Seed = None,
    servers: Servers = 3,
    clients: Clients = 3,
    durability: Survives = Durability.PROCESS,
    failpoints: Failpoints = "",
    plant: Plant = "",
    report_file: ReportFile = None,
    log_level: options.Level = options.LogLevel.ERROR,
    config_file: options.ConfigFile = None,  # noqa: ARG001 - its callback has read it
) -> None:
    """Kill, stop and cut off servers at random while clients count, and check every count.

    Starts a cluster of its own on this machine. Ends with exit code 0 if the counts hold, and 1 if they don't. Ctrl-C
    ends the trouble early; what was counted is still checked.
    """
    log_to_stderr(log_level)
    from glintpy.testing.drill import Drill, DrillSettings  # noqa: PLC0415 - loads numpy and ZeroMQ

    _check_names(failpoints, plant)
    _check_report(report_file)
    settings = DrillSettings(
        duration_s=duration_s,
        seed=secrets.randbits(SEED_BITS) if seed is None else seed,
        num_servers=servers,
        num_clients=clients,
        durability=durability.value,
        failpoints=failpoints,
        plant=plant,
    )
    screen = console()
    screen.print(
        f"{duration_text(duration_s)} of trouble for {servers} servers and {clients} clients, seed {settings.seed}"
    )
    drill = Drill(settings, lambda at_s, text: screen.print(f"t={at_s:6.1f} s  {text}", style=_style(text)))
    report = _run(drill)
    screen.print(_table(report))
    if report_file is not None:
        report_file.write_text(json.dumps(report.as_dict(), indent=2) + "\n")
    if not report.holds:
        what = "the counts are wrong" if report.num_wrong_cells else "the drill failed"
        raise Failed(f"{what} (seed {settings.seed}): {report.explain()}")
    screen.print("the counts hold", style="bold green")


def _run(drill: Drill) -> DrillReport:
    """Run a drill whose faults the first Ctrl-C ends; a second one interrupts what is under way."""

    def end(number: int, frame: FrameType | None) -> None:
        del number, frame
        signal.signal(signal.SIGINT, signal.default_int_handler)
        drill.ask_to_end()

    before = {number: signal.signal(number, end) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        return drill.run()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _check_names(failpoints_text: str, plant: str) -> None:
    """Refuse here what every server would refuse."""
    from glintpy import failpoints  # noqa: PLC0415 - beside the others
    from glintpy.process.planted import planted  # noqa: PLC0415 - loads numpy

    if plant:
        planted(plant)
    if failpoints_text:
        try:
            failpoints.arm(failpoints_text)
        finally:
            failpoints.disarm()
    if re.search(r"=\s*raise", failpoints_text):
        raise ConfigError(
            "chaos takes kill and sleep: clients whose updates are compared with a reference can't know which parts of "
            "a push that raised are in; arm raise in a test of your own, see glintpy.failpoints"
        )


def _check_report(report_file: Path | None) -> None:
    """Refuse at once what the report couldn't be written to in the end."""
    if report_file is not None:
        try:
            report_file.open("a").close()
        except OSError as error:
            raise Failed(
                f"can't write the report to {report_file}: {error.strerror or error}", exit_code=2
            ) from error


def _style(text: str) -> str:
    if text.startswith(("kill", "SIGSTOP")) or "died" in text or "could not" in text:
        return "red"
    return "dim" if text.startswith("reset") else "green"


def _table(report: DrillReport) -> Table:
    from rich.table import Table  # noqa: PLC0415 - only where something is shown

    audit = report.audit
    rows: list[tuple[str, Any]] = [
        ("servers killed", report.num_kills),
        ("servers that died at a failpoint", report.num_deaths),
        ("servers stopped for a while", report.num_stops),
        ("links reset", report.num_resets),
        ("master killed", report.num_master_kills),
        ("pushes", audit.num_issued if audit else "?"),
        ("of unknown outcome", audit.num_unknown if audit else "?"),
        ("of them in", audit.num_unknown_in if audit else "?"),
        ("lost", audit.num_lost if audit else "?"),
        ("doubled", audit.num_doubled if audit else "?"),
        ("reads compared", report.num_reads),
        ("pushes under Adam", report.num_updates),
        ("values and slots compared", report.num_compared),
        ("wrong cells", report.num_wrong_cells if audit else "?"),
        ("worst recovery", f"{report.worst_recovery_s:.2f} s"),
        ("longest read", f"{report.longest_read_s:.2f} s"),
    ]
    table = Table(show_header=False, box=None, pad_edge=False)
    table.add_column()
    table.add_column(justify="right")
    for name, value in rows:
        table.add_row(name, f"{value:,}" if isinstance(value, int) else str(value))
    return table
