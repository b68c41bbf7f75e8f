"""``glintpy save``, ``load`` and ``rm``: what a person does with models; knows no server."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING, Annotated, Any

import typer

from glintpy import config
from glintpy.cli import options
from glintpy.cli.configfile import add_command
from glintpy.cli.connect import connected
from glintpy.cli.output import Failed, complain, log_to_stderr, say
from glintpy.cli.quantities import duration_text, parse_duration, size_text
from glintpy.errors import CheckpointError, ConfigError, GlintError, ModelExists
from glintpy.models.naming import is_generated

if TYPE_CHECKING:
    from glintpy.models.matrix import BigMatrix
    from glintpy.models.vector import BigVector

_TIMEOUT_S = 30.0

OLDER_S = 86400.0
"""The age from which ``rm --unnamed`` takes a model: younger ones may belong to a job that runs."""


class Partitioners(StrEnum):
    """How rows may be dealt out."""

    RANGE = "range"
    CYCLIC = "cyclic"


Url = Annotated[
    str,
    typer.Argument(
        metavar="URL", show_default=False, help="A directory, or any URL that fsspec knows: s3://bucket/x."
    ),
]

_PANEL = "Save, load and remove models"


def add_commands(app: typer.Typer) -> None:
    """Add the commands of this module."""
    add_command(app, "save", _save, panel=_PANEL, table="client")
    add_command(app, "load", _load, panel=_PANEL, table="client")
    add_command(app, "rm", _rm, panel=_PANEL, table="client")


def _save(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The model.", show_default=False)],
    url: Url,
    *,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace what is saved there, once this is complete.")
    ] = False,
    master: options.Master = config.DEFAULT_ADDRESS,
    timeout_s: options.Timeout = _TIMEOUT_S,
    log_level: options.Level = options.LogLevel.WARNING,
    config_file: options.ConfigFile = None,  # noqa: ARG001 - its callback has read it
) -> None:
    """Save a model: a manifest and plain .npy files, written by this process."""
    log_to_stderr(log_level)
    with connected(master, timeout_s=timeout_s, name="glintpy save") as client:
        model = client.open(name)
        try:
            model.save(url, overwrite=overwrite)
        except CheckpointError as error:
            raise Failed(str(error).replace("overwrite=True", "--overwrite")) from error
        say(f"saved {_described(model)} to {url}")


def _load(
    url: Url,
    *,
    name: Annotated[
        str | None,
        typer.Option(
            "--name",
            metavar="NAME",
            show_default=False,
            help="Of the new model." + options.default_text("the saved one's"),
        ),
    ] = None,
    partitioner: Annotated[
        Partitioners | None,
        typer.Option(
            "--partitioner",
            metavar="range|cyclic",
            show_default=False,
            help="How to deal out its rows." + options.default_text("as saved"),
        ),
    ] = None,
    partitions_per_server: Annotated[
        int | None,
        typer.Option(
            "--partitions-per-server",
            show_default=False,
            metavar="N",
            min=1,
            help="How finely." + options.default_text("as saved"),
        ),
    ] = None,
    master: options.Master = config.DEFAULT_ADDRESS,
    timeout_s: options.Timeout = _TIMEOUT_S,
    log_level: options.Level = options.LogLevel.WARNING,
    config_file: options.ConfigFile = None,  # noqa: ARG001 - its callback has read it
) -> None:
    """Make a model from a saved one, on any number of servers."""
    log_to_stderr(log_level)
    with connected(master, timeout_s=timeout_s, name="glintpy load") as client:
        try:
            model = client.load(
                url,
                name=name,
                partitioner=None if partitioner is None else partitioner.value,
                partitions_per_server=partitions_per_server,
            )
        except ModelExists as error:
            raise Failed(
                "there is a model of that name already; take another one with --name, or remove it with: glintpy rm"
            ) from error
        say(f"loaded {_described(model)} from {url}")


def _age(value: Any) -> float:
    try:
        return parse_duration(value)
    except ConfigError as error:
        raise typer.BadParameter(str(error)) from None


def _rm(
    names: Annotated[
        list[str] | None, typer.Argument(metavar="NAME...", help="The models.", show_default=False)
    ] = None,
    *,
    unnamed: Annotated[
        bool,
        typer.Option(
            "--unnamed", help="Remove old models that were made without a name: matrix-3f0c41d2a9b8."
        ),
    ] = False,
    older_s: Annotated[
        float | None,
        typer.Option(
            "--older",
            metavar="DURATION",
            parser=_age,
            show_default=False,
            help="With --unnamed: how old, at least." + options.default_text("1 d"),
        ),
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only say what would be removed.")] = False,
    master: options.Master = config.DEFAULT_ADDRESS,
    timeout_s: options.Timeout = _TIMEOUT_S,
    log_level: options.Level = options.LogLevel.WARNING,
    config_file: options.ConfigFile = None,  # noqa: ARG001 - its callback has read it
) -> None:
    """Remove models, by name or the forgotten ones, with their values on all servers."""
    log_to_stderr(log_level)
    names = names or []
    if bool(names) == unnamed:
        raise Failed("name the models to remove, or say --unnamed, one of the two", exit_code=2)
    if older_s is not None and not unnamed:
        raise Failed("--older goes with --unnamed; models that are named are removed at any age", exit_code=2)
    limit_s = OLDER_S if older_s is None else older_s
    failed = 0
    with connected(master, timeout_s=timeout_s, name="glintpy rm") as client:
        if unnamed:
            names = forgotten(client.status()["models"], older_s=limit_s)
            if not names:
                say(f"no model without a name is older than {duration_text(limit_s)}")
        for name in names:
            if dry_run:
                say(f"would remove {name}")
                continue
            try:
                client.destroy(name)
            except GlintError as error:
                failed += 1
                complain(f"glintpy rm: {error}")
            else:
                say(f"removed {name}")
    if failed:
        raise typer.Exit(1)


def forgotten(models: list[dict[str, Any]], *, older_s: float) -> list[str]:
    """Return the names of old models that nobody gave a name; pure.

    Args:
        models: as the master describes them. One whose age nobody noted is left alone.
        older_s: the least age.
    """
    return [
        model["spec"]["name"]
        for model in models
        if is_generated(model["spec"]["name"]) and (model["age_s"] or 0.0) >= older_s
    ]


def _described(model: BigMatrix | BigVector) -> str:
    if model.spec.keys:
        return f"{model.name} ({len(model):,} keys x {model.spec.num_cols:,} {model.dtype.name})"
    shape = " x ".join(f"{length:,}" for length in model.shape)
    return f"{model.name} ({shape} {model.dtype.name}, {size_text(model.num_bytes)})"
