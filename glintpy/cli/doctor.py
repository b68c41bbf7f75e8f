"""``glintpy doctor``: what may keep glintpy from working here, and a cluster that shows whether it does."""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer

from glintpy import config
from glintpy.cli import options
from glintpy.cli.configfile import add_command
from glintpy.cli.machine import Check, machine_checks
from glintpy.cli.output import Failed, console, log_to_stderr, say, say_json
from glintpy.cli.reach import listens

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from glintpy.client import Client

ANSWER_S = 5.0
"""How long whoever listens at the master's port may take to say what it is."""

_PANEL = "Look at it"


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module."""
    add_command(app, "doctor", _doctor, panel=_PANEL, table="client")


def _doctor(
    *,
    master: options.Master = config.DEFAULT_ADDRESS,
    as_json: options.AsJson = False,
    timeout_s: options.Timeout = 30.0,
    log_level: options.Level = options.LogLevel.ERROR,
    config_file: options.ConfigFile = None,  # noqa: ARG001 - its callback has read it
) -> None:
    """Check this machine: versions, limits, memory, and whether a small cluster is exact.

    Exits with 1 if something fails; warnings are for reading.
    """
    log_to_stderr(log_level)
    checks = [*machine_checks(), check_master(master), *self_test(timeout_s)]
    is_well = all(check.state != "fail" for check in checks)
    if as_json:
        say_json({"ok": is_well, "checks": [asdict(check) for check in checks]})
    else:
        from glintpy.cli.tables import checks_table  # noqa: PLC0415 - loads rich

        console().print(checks_table([asdict(check) for check in checks]))
        say(_verdict(checks))
    if not is_well:
        raise typer.Exit(1)


def _verdict(checks: list[Check]) -> str:
    failed = [check.check for check in checks if check.state == "fail"]
    warned = [check.check for check in checks if check.state == "warn"]
    if failed:
        return f"glintpy does not work here: {', '.join(failed)}"
    return f"glintpy works here; mind {', '.join(warned)}" if warned else "glintpy works here"


def check_master(address: str) -> Check:
    """Look at who listens at a master's address."""
    name = "master's port"
    try:
        if not listens(address):
            return Check(name, "ok", f"nothing listens at {address}: a master can")
        from glintpy.client import Client  # noqa: PLC0415 - what is wrong with it is said, not raised

        with Client(address, timeout_s=ANSWER_S, name="glintpy doctor") as client:
            servers = client.servers()
    except Failed as failure:
        return Check(
            name, "warn", str(failure), "see that the master runs, and that a firewall lets you pass"
        )
    except Exception as error:  # noqa: BLE001 - it is the finding
        advice = "something else has the port: give your master another one (--port), and clients its address"
        return Check(name, "warn", f"somebody at {address} is no master: {error}", advice)
    alive = sum(server["state"] == "alive" for server in servers)
    return Check(name, "ok", f"a master runs at {address}, with {alive} of {len(servers)} servers alive")


def self_test(timeout_s: float) -> Iterator[Check]:
    """Start a cluster, use it and stop it; yields a finding for each step up to the first that fails."""
    step, began = "start a cluster", time.monotonic()
    try:
        from glintpy.cluster import LocalCluster  # noqa: PLC0415 - what is wrong with it is said, not raised

        with LocalCluster(2, log_level="error") as cluster, cluster.client(timeout_s=timeout_s) as client:
            yield Check(step, "ok", f"a master and two servers in {time.monotonic() - began:.1f} s")
            for step, use in STEPS.items():
                yield Check(step, "ok", use(client))
            step = "stop the cluster"
        yield Check(step, "ok", "nothing is left of it")
    except Exception as error:  # noqa: BLE001 - it is the finding
        advice = "look at the lines above; if they are all ok, this is a defect: please report it"
        yield Check(step, "fail", f"{type(error).__name__}: {error}", advice)


def _push_and_pull(client: Client) -> str:
    rows, values, expected = _example()
    with client.matrix(*expected.shape, dtype=expected.dtype) as model:
        model.push(rows, values).result()
        _require_equal(model.pull().result(), expected)
    return f"{rows.size:,} rows in, {expected.size:,} values out, all exact"


def _save_and_load(client: Client) -> str:
    rows, values, expected = _example()
    with (
        tempfile.TemporaryDirectory(prefix="glintpy-doctor-") as folder,
        client.matrix(*expected.shape, dtype=expected.dtype) as model,
    ):
        model.push(rows, values)
        url = str(Path(folder) / "saved")
        model.save(url, progress=False)
        with client.load(url, name="loaded", partitioner="cyclic", progress=False) as loaded:
            _require_equal(loaded.pull().result(), expected)
    return "the same values under another partitioner"


STEPS: dict[str, Callable[[Client], str]] = {"push and pull": _push_and_pull, "save and load": _save_and_load}
"""What the self-test does with its cluster; each returns what it found, or raises."""


def _example() -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Return rows, each of them several times, values for them, and the sums by numpy."""
    import numpy as np  # noqa: PLC0415 - what is wrong with it is said, not raised

    rows = np.arange(2000) * 7 % 500
    values = np.arange(2000 * 8, dtype=np.int64).reshape(2000, 8)
    expected = np.zeros((500, 8), np.int64)
    np.add.at(expected, rows, values)
    return rows, values, expected


def _require_equal(found: NDArray[Any], expected: NDArray[Any]) -> None:
    num_wrong = int((found != expected).sum())
    if num_wrong:
        raise Failed(f"{num_wrong} of {expected.size} values are wrong")
