"""The ``glintpy`` command; knows only what programs know: the public API."""

from __future__ import annotations

import contextlib
import logging
import os
import queue
import shutil
import signal
import sys
from collections.abc import Callable
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
    private: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run a master."""
    _run("master", lambda: start_master(address, data_dir=data_dir, insecure=insecure), parent, private)


@app.command()
def server(
    master: Annotated[str, typer.Option()] = config.DEFAULT_ADDRESS,
    address: Annotated[str, typer.Option()] = "tcp://127.0.0.1:0",
    name: Annotated[str | None, typer.Option()] = None,
    data_dir: Annotated[Path | None, typer.Option()] = None,
    memory_limit: Annotated[int | None, typer.Option()] = None,
    insecure: Annotated[bool, typer.Option()] = False,
    parent: Annotated[int, typer.Option(hidden=True)] = 0,
    private: Annotated[Path | None, typer.Option(hidden=True)] = None,
) -> None:
    """Run a server."""
    settings = config.ServerSettings(memory_limit=memory_limit)
    _run(
        "server",
        lambda: start_server(
            master, address=address, name=name, data_dir=data_dir, insecure=insecure, settings=settings
        ),
        parent,
        private,
    )


def _run(role: str, start: Callable[[], Node], parent: int, private: Path | None) -> None:
    """Run a node until a signal asks it to stop, or until the program that started it has gone."""
    logging.basicConfig(level="INFO", format="%(asctime)s %(levelname)s %(message)s", stream=sys.stderr)
    # Not an Event: its set() would wait for ever for a lock that the interrupted wait() holds.
    asked_to_stop: queue.SimpleQueue[int] = queue.SimpleQueue()
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, lambda number, _: asked_to_stop.put(number))
    try:
        try:
            node = start()
        except GlintError as error:
            print(f"glintpy {role}: {error}", file=sys.stderr)
            raise SystemExit(1) from None
        with contextlib.suppress(BrokenPipeError):  # whoever started it has gone meanwhile
            print(f"glintpy {role} {READY}{node.address}", flush=True)
        _wait(asked_to_stop, parent)
        node.stop()
    finally:
        # Nobody else is left to do it. Each orphan does when it has closed its own files, so the last one to
        # go leaves nothing.
        if private is not None and _is_orphan(parent):
            shutil.rmtree(private, ignore_errors=True)


def _wait(asked_to_stop: queue.SimpleQueue[int], parent: int) -> None:
    while not _is_orphan(parent):
        with contextlib.suppress(queue.Empty):
            asked_to_stop.get(timeout=1.0)
            return


def _is_orphan(parent: int) -> bool:
    return parent != 0 and os.getppid() != parent


def main() -> None:
    """Run the command."""
    app()
