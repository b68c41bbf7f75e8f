"""What people see of a cluster: its state as tables; knows no connection."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from rich.console import RenderableType
from rich.table import Table
from rich.text import Text

from glintpy.cli.quantities import duration_text, size_text

ROWS_MAX = 50
"""Rows of clients, workers and models that status shows; programs, and whoever wants all, take ``--json``."""

_COLOURS = {"alive": "green", "hung": "yellow", "lost": "red", "stopped": "yellow"}


def status_tables(state: dict[str, Any]) -> Iterator[RenderableType]:
    """Yield what ``glintpy status`` prints.

    Args:
        state: the cluster's document.
    """
    servers = sorted(state["servers"], key=lambda server: _natural(server["name"]))
    clients, models = state["clients"], state["models"]
    num_alive = sum(server["state"] == "alive" for server in servers)
    yield Text.assemble(
        ("cluster ", "bold"),
        f"{state['cluster_id']} at {state['address']}, up {duration_text(state['up_s'])}: ",
        f"{num_alive} of {_count(len(servers), 'server')} alive, ",
        f"{_count(len(clients), 'client')}, {_count(len(models), 'model')}",
    )
    if servers:
        yield ""
        yield servers_table(servers)
        yield ""
        yield holdings_table(servers)
    else:
        yield f"start servers with: glintpy server --master {state['address']}"
    if clients:
        yield ""
        yield clients_table(clients[:ROWS_MAX])
        yield from _more(clients, "clients", "status")
    if state["groups"]:
        yield ""
        yield workers_table(state["groups"])
        yield from _more(
            [worker for group in state["groups"] for worker in group["workers"]], "workers", "status"
        )
    if models:
        yield ""
        yield models_table(models[:ROWS_MAX])
        yield from _more(models, "models", "models")


def servers_table(servers: list[dict[str, Any]]) -> Table:
    """Return where the servers are and how they do."""
    table = _table("server", "state", "address", "host", "pid>", "last beat>", "up>")
    for server in servers:
        holds = server["holds"]
        table.add_row(
            server["name"],
            Text(server["state"], style=_COLOURS.get(server["state"], "")),
            server["address"],
            server["host"],
            str(server["pid"] or "-"),
            "-" if server["last_beat_s"] is None else f"{duration_text(server['last_beat_s'])} ago",
            duration_text(holds["up_s"]) if holds else "-",
        )
    return table


def holdings_table(servers: list[dict[str, Any]]) -> Table:
    """Return what the servers hold and have done since they started."""
    headings = ("models", "held", "of", "requests", "pulls", "pushes", "in", "out", "backlog")
    table = _table("server", *(f"{heading}>" for heading in headings))
    for server in servers:
        holds = server["holds"]
        if holds is None:
            silence = "did not answer" if server["state"] == "alive" else f"is {server['state']}"
            table.add_row(server["name"], Text(silence, style="dim"), *[""] * (len(headings) - 1))
            continue
        table.add_row(
            server["name"],
            f"{len(holds['models']):,}",
            size_text(holds["model_bytes"]),
            size_text(holds["memory_limit"]),
            *(f"{holds[name]:,}" for name in ("requests", "pulls", "pushes")),
            *(size_text(holds[name]) for name in ("bytes_in", "bytes_out", "backlog_bytes")),
        )
    return table


def clients_table(clients: list[dict[str, Any]]) -> Table:
    """Return who uses the cluster."""
    table = _table("client", "host", "pid>", "last beat>")
    for client in clients:
        beat = "-" if client["last_beat_s"] is None else f"{duration_text(client['last_beat_s'])} ago"
        table.add_row(client["name"], client["host"], str(client["pid"]), beat)
    return table


def workers_table(groups: list[dict[str, Any]]) -> Table:
    """Return the workers of the groups, and what each of them waits for."""
    table = _table("group", "worker>", "clock>", "waits for", "name", "host", "pid>")
    workers = [(group["name"], worker) for group in groups for worker in group["workers"]]
    for name, worker in workers[:ROWS_MAX]:
        table.add_row(
            name,
            str(worker["rank"]),
            f"{worker['clock']:,}",
            worker["waits_for"] or ("its connection" if worker["is_away"] else "-"),
            worker["name"],
            worker["host"],
            str(worker["pid"]),
        )
    return table


def models_table(models: list[dict[str, Any]]) -> Table:
    """Return the models."""
    table = _table("model", "kind", "shape>", "dtype", "size>", "partitioner", "servers>", "age>")
    for model in models:
        table.add_row(
            model["name"],
            model["kind"],
            " x ".join("-" if length is None else f"{length:,}" for length in model["shape"]),
            model["dtype"],
            "-" if model["bytes"] is None else size_text(model["bytes"]),
            model["partitioner"],
            str(len(model["servers"])),
            "-" if model["age_s"] is None else duration_text(model["age_s"]),
        )
    return table


def checks_table(checks: list[dict[str, str]]) -> Table:
    """Return the findings of ``glintpy doctor``."""
    colours = {"ok": "green", "warn": "yellow", "fail": "red"}
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), show_header=False)
    for check in checks:
        found = Text(check["found"])
        if check["advice"]:
            found.append(f"\n-> {check['advice']}")
        table.add_row(Text(check["state"], style=colours[check["state"]]), check["check"], found)
    return table


def _table(*headings: str) -> Table:
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for heading in headings:
        # Numbers stand to the right, so that their digits can be compared.
        table.add_column(
            heading.rstrip(">").upper(), justify="right" if heading.endswith(">") else "left", overflow="fold"
        )
    return table


def _natural(name: str) -> list[tuple[int, str]]:
    """Return a key that sorts server-10 behind server-9."""
    return [(int(text) if text.isdecimal() else -1, text) for text in re.split(r"(\d+)", name)]


def _count(number: int, noun: str) -> str:
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def _more(rows: list[Any], noun: str, command: str) -> list[str]:
    rest = len(rows) - ROWS_MAX
    return [f"and {rest:,} more {noun}: glintpy {command} --json"] if rest > 0 else []
