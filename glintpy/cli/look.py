"""``glintpy status`` and ``glintpy models``: what a cluster is and holds; changes nothing."""

from __future__ import annotations

import os
import socket
from typing import Any

import typer

from glintpy import config
from glintpy.cli import options
from glintpy.cli.configfile import add_command
from glintpy.cli.connect import connected
from glintpy.cli.output import console, log_to_stderr, say, say_json

_TIMEOUT_S = 30.0

_PANEL = "Look at it"


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module."""
    add_command(app, "status", _status, panel=_PANEL, table="client")
    add_command(app, "models", _models, panel=_PANEL, table="client")


def _status(
    *,
    master: options.Master = config.DEFAULT_ADDRESS,
    as_json: options.AsJson = False,
    timeout_s: options.Timeout = _TIMEOUT_S,
    log_level: options.Level = options.LogLevel.WARNING,
    config_file: options.ConfigFile = None,  # noqa: ARG001 - its callback has read it
) -> None:
    """Show a cluster: servers, what each holds and has done, clients, groups of workers, models."""
    log_to_stderr(log_level)
    state = read_state(master, timeout_s=timeout_s, name="glintpy status")
    if as_json:
        say_json(state)
        return
    from glintpy.cli.tables import status_tables  # noqa: PLC0415 - loads rich

    screen = console()
    for part in status_tables(state):
        screen.print(part)


def _models(
    *,
    master: options.Master = config.DEFAULT_ADDRESS,
    as_json: options.AsJson = False,
    timeout_s: options.Timeout = _TIMEOUT_S,
    log_level: options.Level = options.LogLevel.WARNING,
    config_file: options.ConfigFile = None,  # noqa: ARG001 - its callback has read it
) -> None:
    """List the models: name, shape, dtype, bytes, age."""
    log_to_stderr(log_level)
    found = read_state(master, timeout_s=timeout_s, name="glintpy models")["models"]
    if as_json:
        say_json(found)
    elif found:
        from glintpy.cli.tables import models_table  # noqa: PLC0415 - loads rich

        console().print(models_table(found))
    else:
        say("there are no models")


def read_state(master: str, *, timeout_s: float, name: str) -> dict[str, Any]:
    """Return a cluster's state as plain data, without the client that asks for it.

    Args:
        master: its address.
        timeout_s: deadline of the request.
        name: of the client that asks.

    Raises:
        Failed: nobody listens there.
        GlintError: whoever listens is no master, or doesn't answer.
    """
    with connected(master, timeout_s=timeout_s, name=name) as client:
        state = client.status()
    return document_of(state, master, own=(os.getpid(), socket.gethostname()[:256]))


def document_of(state: dict[str, Any], master: str, *, own: tuple[int, str]) -> dict[str, Any]:
    """Return what is shown of a master's answer; pure.

    Args:
        state: the answer.
        master: where the cluster was reached; a master at every address of a machine calls itself 0.0.0.0.
        own: process and host of the client that asked, which is left out.
    """
    return {
        "cluster_id": state["cluster_id"],
        "address": master,
        "up_s": state["up_s"],
        "servers": state["servers"],
        "clients": [client for client in state["clients"] if (client["pid"], client["host"]) != own],
        "groups": state["groups"],
        "models": [_model(content, state["servers"]) for content in state["models"]],
    }


def _model(content: dict[str, Any], servers: list[dict[str, Any]]) -> dict[str, Any]:
    from glintpy.protocol.spec import ModelSpec  # noqa: PLC0415 - loads numpy

    spec = ModelSpec.from_content(content["spec"])
    num_rows: int | None = spec.num_rows
    num_bytes: int | None = spec.num_bytes
    if spec.keys:
        # Nobody declares its keys, so its spec knows no number of them, or at most the highest.
        num_rows, num_bytes = _held(content, servers)
    return {
        "name": spec.name,
        "kind": "table" if spec.keys else "vector" if spec.num_cols is None else "matrix",
        "shape": [num_rows, *spec.row_shape],
        "dtype": spec.dtype,
        "bytes": num_bytes,
        "partitioner": spec.partitioner,
        "partitions": len(content["owners"]),
        "servers": [server_id for server_id, _ in content["servers"]],
        "updater": spec.updater,
        "finite": spec.finite,
        "created": content["created"],
        "age_s": content["age_s"],
    }


def _held(content: dict[str, Any], servers: list[dict[str, Any]]) -> tuple[int | None, int | None]:
    """Return the keys and bytes of a table on all its servers; None where one didn't answer, or has lost its part."""
    held = {server["id"]: server["holds"]["models"] for server in servers if server["holds"]}
    parts = [
        part
        for server_id, _ in content["servers"]
        for part in held.get(server_id, [])
        if part["model_id"] == content["model_id"] and not part.get("lost")
    ]
    if len(parts) < len(content["servers"]):
        return None, None
    return sum(part["rows"] for part in parts), sum(part["bytes"] for part in parts)
