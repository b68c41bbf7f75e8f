"""The ``glintpy`` command; knows only what programs know: the public API."""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Annotated

import typer

from glintpy import config
from glintpy.cluster import READY
from glintpy.errors import GlintError
from glintpy.nodes import Node, start_master, start_server

app = typer.Typer(
    name="glintpy",
    help="A parameter server for Python: matrices and vectors in rows over server processes.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    add_completion=False,
)


@app.command()
def master(
    address: Annotated[str, typer.Option()] = config.DEFAULT_ADDRESS,
    data_dir: Annotated[Path | None, typer.Option()] = None,
    insecure: Annotated[bool, typer.Option()] = False,
    parent: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Run a master."""
    _run("master", lambda _: start_master(address, data_dir=data_dir, insecure=insecure), parent)


@app.command()
def server(
    master: Annotated[str, typer.Option()] = config.DEFAULT_ADDRESS,
    address: Annotated[str, typer.Option()] = "tcp://127.0.0.1:0",
    name: Annotated[str | None, typer.Option()] = None,
    data_dir: Annotated[Path | None, typer.Option()] = None,
    memory_limit: Annotated[int | None, typer.Option()] = None,
    insecure: Annotated[bool, typer.Option()] = False,
    parent: Annotated[int, typer.Option(hidden=True)] = 0,
) -> None:
    """Run a server."""
    settings = config.ServerSettings(memory_limit=memory_limit)
    _run(
        "server",
        lambda _: start_server(
            master, address=address, name=name, data_dir=data_dir, insecure=insecure, settings=settings
        ),
        parent,
    )


def _run(role, start, parent) -> None:
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    stop = threading.Event()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda *_: stop.set())
    try:
        node: Node = start(stop)
    except GlintError as error:
        print(f"glintpy {role}: {error}", file=sys.stderr)
        raise SystemExit(1) from None
    print(f"glintpy {role} {READY}{node.address}", flush=True)
    while not stop.wait(1.0):
        if parent and os.getppid() != parent:
            break
    node.stop()


def main() -> None:
    """Run the command."""
    app()
