"""The guide's tables of updaters and schedules, against the classes."""

from __future__ import annotations

import inspect
import re
from dataclasses import MISSING, fields
from pathlib import Path
from typing import Any

from glintpy import updaters
from glintpy.updaters import Updater, named, schedules

GUIDE = Path(__file__).parents[2] / "docs" / "guide" / "updaters.md"

NAMES = [
    *("add", "assign", "total", "max", "min", "mean", "sgd", "momentum", "nesterov"),
    *("adagrad", "rmsprop", "adam", "adamw", "ftrl", "dcasgd"),
]

SHARED = {"weight_decay", "clip_gradient"}
"""Numbers that the text below the table speaks of."""


def rows_of(title: str) -> list[list[str]]:
    """Return the cells of a table's rows, by the first word of its title."""
    lines = GUIDE.read_text(encoding="utf-8").splitlines()
    start = next(n for n, line in enumerate(lines) if line.startswith(f"| {title} |"))
    found = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        found.append([cell.strip() for cell in line.strip("|").split(" | ")])
    return found


def code_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def numbers_in(text: str) -> dict[str, Any]:
    return {name: float(value) for name, value in re.findall(r"(\w+)=([\d.e-]+)", text)}


def table() -> dict[str, list[str]]:
    return {name: row for row in rows_of("name") for name in code_in(row[0])}


def test_every_updater_is_in_the_table_and_nothing_else() -> None:
    assert list(table()) == NAMES
    classes = {
        kind.name
        for kind in vars(updaters).values()
        if isinstance(kind, type) and issubclass(kind, Updater) and not inspect.isabstract(kind)
    }
    assert classes == set(NAMES)


def test_slots_numbers_and_dtypes_in_the_table_are_those_of_the_classes() -> None:
    rows = table()
    for name, (_, _, slots, numbers, dtypes) in rows.items():
        updater = named(name)
        assert tuple(code_in(slots)) == updater.slot_names, name
        assert dtypes == ("floats" if updater.kinds == "f" else "all"), name
        listed = numbers_in(numbers)
        if "as `adam`" in numbers:
            listed |= numbers_in(rows["adam"][3])
        defaults = {entry.name: entry.default for entry in fields(updater)}
        assert set(listed) | SHARED >= set(defaults), name
        assert listed == {key: defaults[key] for key in listed}, name
        assert defaults.get("clip_gradient") is None
        if name != "adamw":
            assert defaults.get("weight_decay", 0) == 0, name


def test_every_schedule_is_in_the_table_with_its_defaults() -> None:
    listed = {}
    for row in rows_of("schedule"):
        found = re.fullmatch(r"`(\w+)\((.*)\)`", row[0])
        assert found
        listed[found[1]] = [
            (name, float(default) if default else MISSING)
            for name, _, default in (part.partition("=") for part in found[2].split(", "))
        ]
    assert listed == {
        kind.__name__: [(entry.name, entry.default) for entry in fields(kind)]
        for kind in schedules.Schedule.__subclasses__()
    }
