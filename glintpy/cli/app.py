"""The ``glintpy`` command's commands, and how it ends: each error one clear line, with a non-zero exit."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Annotated, Any

import typer

from glintpy.cli import chaos, doctor, launch, look, manage, serve
from glintpy.cli.output import Failed, complain, say
from glintpy.errors import GlintError

INTERRUPTED = 130
"""What a shell calls a program that Ctrl-C ended."""

app = typer.Typer(
    name="glintpy",
    pretty_exceptions_enable=False,
    add_completion=False,
    rich_markup_mode="rich",
    context_settings={"help_option_names": ["-h", "--help"]},
)

for _module in (serve, launch, look, doctor, manage, chaos):
    _module.add_commands(app)

# What every error of typer's parser is; it has moved between releases, and only these names of it are public.
_UsageError: type[Any] = typer.BadParameter.__mro__[1]
_ClickException: type[Any] = _UsageError.__mro__[1]


def _show_version(wanted: bool) -> None:
    if wanted:
        from glintpy import __version__  # noqa: PLC0415 - only here

        say(f"glintpy {__version__}")
        raise typer.Exit


@app.callback(invoke_without_command=True)
def root(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback has shown it
        bool, typer.Option("--version", callback=_show_version, is_eager=True, help="Show the version.")
    ] = False,
) -> None:
    """A parameter server: matrices and vectors in rows over server processes.

    Try it on this machine with: glintpy local --servers 2
    """
    if context.invoked_subcommand is None:
        say(context.get_help())


def main() -> None:
    """Run the command and end the process with its exit code."""
    sys.exit(run(sys.argv[1:]))


def run(arguments: Sequence[str]) -> int:
    """Run the command and return its exit code.

    Args:
        arguments: what stands behind ``glintpy`` on the command line.
    """
    try:
        result = app(list(arguments), prog_name="glintpy", standalone_mode=False)
    except Failed as failure:
        return _fail(arguments, str(failure), failure.exit_code)
    except BrokenPipeError:
        # Who read has gone, `| head` for example. Python would complain again when it flushes at its end.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except (GlintError, OSError) as error:
        return _fail(arguments, str(error) or type(error).__name__, 1)
    except (KeyboardInterrupt, typer.Abort):
        return INTERRUPTED
    except _ClickException as error:
        text = " ".join(error.format_message().split())
        return _fail(arguments, f"{text.rstrip('.')} (see {_name_in(arguments)} --help)", 2)
    return result if isinstance(result, int) else 0


def _fail(arguments: Sequence[str], text: str, exit_code: int) -> int:
    complain(f"{_name_in(arguments)}: {text}")
    return exit_code


def _name_in(arguments: Sequence[str]) -> str:
    """Return the command that a person typed, without its options."""
    names = [command.name for command in app.registered_commands]
    return " ".join(["glintpy", *[word for word in arguments[:1] if word in names]])
