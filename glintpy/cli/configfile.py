"""``--config FILE.toml``: a file's tables as defaults of the commands' options; knows no option by name.

Every table of the file is checked, not only the command's own: who starts the master hears of a mistake that
would stop the servers.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable
from enum import Enum
from pathlib import Path
from typing import Any, get_args, get_type_hints

import typer
from typer.models import OptionInfo

from glintpy.cli.output import Failed

Command = Callable[..., None]
"""A function as typer takes it: each option is a parameter of an annotated type, which has its help."""

_commands: dict[str, dict[str, Command]] = {}
"""By table and name."""

_NOT_IN_FILES = {"config", "json"}

_NAMES: dict[type, str] = {bool: "true or false", int: "an integer", float: "a number", str: "a text"}


def add_command(
    app: typer.Typer, name: str, command: Command, *, panel: str, table: str, interspersed: bool = True
) -> None:
    """Add a command, and let config files speak of it.

    Args:
        app: what it is a command of.
        name: its name.
        command: its function.
        panel: under which heading it stands in the help.
        table: of config files. Where several commands share one, it may name the options that all of them have.
        interspersed: whether options may stand behind arguments; else all behind the first argument are arguments.
    """
    settings = {"allow_interspersed_args": interspersed}
    app.command(name, rich_help_panel=panel, context_settings=settings)(command)
    _commands.setdefault(table, {})[name] = command


def take_config(context: typer.Context, path: Path | None) -> Path | None:
    """Make the file's values the defaults of the command that is about to run; the option's callback.

    Raises:
        Failed: no such file, not TOML, an unknown table or key, or a value of the wrong type.
    """
    if path is not None:
        tables = read_tables(path, {table: list(commands.values()) for table, commands in _commands.items()})
        defaults = dict(context.default_map or {})
        for table, commands in _commands.items():
            if context.info_name in commands:
                defaults |= tables.get(table, {})
        context.default_map = defaults
    return path


def read_tables(path: Path, commands: dict[str, list[Command]]) -> dict[str, dict[str, Any]]:
    """Return the file's values by table and parameter.

    Args:
        path: the file.
        commands: the commands by table.

    Raises:
        Failed: with the file, the table and the key.
    """
    found: dict[str, dict[str, Any]] = {}
    for table, content in _read(path).items():
        if table not in commands:
            known = ", ".join(f"[{name}]" for name in commands)
            what = f"table [{table}]" if isinstance(content, dict) else f"key {table!r} outside of a table"
            raise _wrong(path, f"there is no {what}; the tables are {known}")
        if not isinstance(content, dict):
            raise _wrong(path, f"{table} is a table: write [{table}]")
        known_options = options_of(commands[table])
        found[table] = {}
        for key, value in content.items():
            if key.replace("_", "-") not in known_options:
                raise _wrong(path, f"[{table}] has no key {key!r}; it has {', '.join(sorted(known_options))}")
            parameter, kind, option = known_options[key.replace("_", "-")]
            reason = _objection(value, kind, option)
            if reason:
                raise _wrong(path, f"[{table}] {key}{reason}")
            found[table][parameter] = value
    return found


def options_of(commands: list[Command]) -> dict[str, tuple[str, Any, OptionInfo]]:
    """Return the options that all of some commands have: by name, the parameter, its type and its description."""
    by_command = []
    for command in commands:
        options = {}
        for parameter, hint in get_type_hints(command, include_extras=True).items():
            for option in getattr(hint, "__metadata__", ()):
                if isinstance(option, OptionInfo):
                    options[_name_of(option)] = (parameter, _without_none(get_args(hint)[0]), option)
        by_command.append(options)
    shared = set.intersection(*(set(options) for options in by_command)) - _NOT_IN_FILES
    return {name: by_command[0][name] for name in shared}


def _name_of(option: OptionInfo) -> str:
    # In an annotation typer takes what is given first for the default, and finds out later that it is a name.
    names = (option.default, *(option.param_decls or ()))
    return next(name for name in names if isinstance(name, str) and name.startswith("--")).lstrip("-")


def _without_none(kind: Any) -> Any:
    return next((entry for entry in get_args(kind) if entry is not type(None)), kind)


def _read(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise Failed(f"can't read the config file {path}: {error.strerror}", exit_code=2) from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Failed(f"the config file {path} is not TOML: {error}", exit_code=2) from None


def _objection(value: Any, kind: Any, option: OptionInfo) -> str:
    """Return what is wrong with a value, as the end of a sentence that the key begins; empty if nothing."""
    allowed = _types_for(kind, option)
    if type(value) not in allowed:
        return f" is {' or '.join(_NAMES[entry] for entry in allowed)}, not {value!r:.80}"
    if option.parser is not None:
        try:
            option.parser(value)
        except typer.BadParameter as error:
            return f": {error}"
    if issubclass(kind, Enum) and value not in [entry.value for entry in kind]:
        return f" is one of {', '.join(entry.value for entry in kind)}, not {value!r:.80}"
    low, high = option.min, option.max
    if (low is not None and value < low) or (high is not None and value > high):
        return f" is {value}; it is at least {low}" + (f" and at most {high}" if high is not None else "")
    return ""


def _types_for(kind: Any, option: OptionInfo) -> tuple[type, ...]:
    """Return the types that TOML may give for an option."""
    if option.parser is not None and kind in {int, float}:
        return (int, str) if kind is int else (int, float, str)
    return (kind,) if kind in {bool, int, float} else (str,)


def _wrong(path: Path, text: str) -> Failed:
    return Failed(f"config file {path}: {text}", exit_code=2)
