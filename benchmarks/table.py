"""The table: a row a figure and scheme, a column a system; knows how to show results, not how they came about."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text

from benchmarks.lineup import ORDER
from benchmarks.notes import notes
from benchmarks.ours import NAME
from benchmarks.results import Entry, Figure, Results

WIDTH_MAX = 400
"""A table is as wide as it must be, also on a narrower terminal, which folds lines; it would fold cells."""

OTHER = "other"
"""The column of what stands beside one figure only: the same with one worker, another library's import."""

ARROWS = {"low": "↓", "high": "↑"}
"""Which direction is better."""


@dataclass(frozen=True)
class Row:
    """A row of the table.

    Attributes:
        figure: what was measured.
        scheme: over what.
        ours: glintpy's entry.
        others: the references' entries by column.
    """

    figure: Figure
    scheme: str
    ours: Entry
    others: dict[str, Entry]

    @property
    def label(self) -> str:
        """What it is of, in words."""
        return ", ".join(part for part in (self.figure.step, self.figure.quantity) if part)

    @property
    def unit(self) -> str:
        """Its unit and which direction is better."""
        return f"{self.figure.unit} {ARROWS[self.figure.better]}".strip()

    def ratio_to(self, other: Entry) -> float:
        """Return glintpy's figure over another's, the median of the rounds' ratios.

        Args:
            other: below the line.
        """
        return self.ours.over(other)

    def is_ahead_of(self, other: Entry) -> bool:
        """Whether glintpy's figure is the better one.

        Args:
            other: beside it.
        """
        ratio = self.ratio_to(other)
        return ratio <= 1 if self.figure.better == "low" else ratio >= 1


def rows_of(figure: Figure) -> Iterator[Row]:
    """Yield the rows of a figure, one a scheme.

    Args:
        figure: what was measured.
    """
    for ours in figure.entries:
        if ours.system != NAME:
            continue
        others: dict[str, Entry] = {}
        for entry in figure.entries:
            if entry.system == NAME or not _stands_beside(figure, entry, ours.scheme):
                continue
            others[entry.system if entry.system in ORDER else OTHER] = entry
        yield Row(figure, ours.scheme, ours, others)


def _stands_beside(figure: Figure, entry: Entry, scheme: str) -> bool:
    # Beside ipc stands the system over ipc, and one that has no ipc as it is.
    has_scheme = any(other.system == entry.system and other.scheme == scheme for other in figure.entries)
    return entry.scheme == scheme or (not has_scheme)


def columns_of(results: Results) -> list[str]:
    """Return the references' columns that have something in them, in order.

    Args:
        results: of a run.
    """
    used = {column for figure in results.figures for row in rows_of(figure) for column in row.others}
    return [column for column in (*ORDER[1:], OTHER) if column in used]


def show(results: Results, console: Console) -> None:
    """Print the table, and what is to be known to read it.

    Args:
        results: of a run.
        console: where to.
    """
    columns = columns_of(results)
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title=title_of(results), title_justify="left")
    for heading in ("workload", "figure", "over", NAME):
        table.add_column(heading, no_wrap=True)
    for column in columns:
        table.add_column(column, no_wrap=True)
    before = None
    for figure in results.figures:
        for row in rows_of(figure):
            place = f"{figure.workload}\n{figure.setup}"
            if before not in (None, place):
                table.add_section()
            shown = place if place != before else ""
            before = place
            cells = [_cell(row, row.others.get(column)) for column in columns]
            label = Text.assemble(row.label, "\n", (row.unit, "dim"))
            table.add_row(shown, label, row.scheme, _own_cell(row.ours), *cells)
    wide = console.options.update_width(WIDTH_MAX)
    console.width = max(console.width, Measurement.get(console, wide, table).maximum)
    console.print(table)
    for line in notes(results):
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def title_of(results: Results) -> str:
    """Return what the table is of.

    Args:
        results: of a run.
    """
    about = results.about
    return (
        f"glintpy {about['glintpy']}, {about['date']}, {about['cpu']}, {about['cores']} cores, "
        f"interleaved rounds of {about['seconds']} s each: {about['repeats']}"
    )


def _own_cell(entry: Entry) -> Text:
    return Text.assemble((number(entry.median), "bold"), "\n", (span(entry), "dim"))


def _cell(row: Row, entry: Entry | None) -> Text:
    if entry is None:
        return Text("-", style="dim")
    style = "green" if row.is_ahead_of(entry) else "yellow"
    ratio = f" x{ratio_text(row.ratio_to(entry))}"
    below = span(entry) if entry.system in ORDER else entry.system
    return Text.assemble(number(entry.median), (ratio, style), "\n", (below, "dim"))


def markdown(results: Results) -> list[str]:
    """Return the table and its notes as lines of Markdown.

    Args:
        results: of a run.
    """
    columns = columns_of(results)
    lines = [title_of(results), ""]
    before = None
    for figure in results.figures:
        for row in rows_of(figure):
            place = ", ".join(part for part in (figure.workload, figure.setup) if part)
            if place != before:
                lines += ["", f"**{place}**", ""]
                lines.append("| " + " | ".join(["figure", "over", NAME, *columns]) + " |")
                lines.append("|---" * (3 + len(columns)) + "|")
            before = place
            cells = [_markdown_cell(row, row.others.get(column)) for column in columns]
            own = f"**{number(row.ours.median)}** [{span(row.ours)}]"
            lines.append("| " + " | ".join([f"{row.label}, {row.unit}", row.scheme, own, *cells]) + " |")
    return [*lines, "", *(f"- {line}" for line in notes(results))]


def _markdown_cell(row: Row, entry: Entry | None) -> str:
    if entry is None:
        return "-"
    named = f"{entry.system}: " if entry.system not in ORDER else ""
    return f"{named}{number(entry.median)} [{span(entry)}] x{ratio_text(row.ratio_to(entry))}"


def span(entry: Entry) -> str:
    """Return the range of an entry's samples.

    Args:
        entry: a system's.
    """
    return f"{number(min(entry.samples))}-{number(max(entry.samples))}"


def number(value: float) -> str:
    """Return a number with three digits that count.

    Args:
        value: the number.
    """
    if value == 0 or not math.isfinite(value):
        return f"{value:.0f}"
    digits = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(digits, 4)}f}"


def ratio_text(ratio: float) -> str:
    """Return a ratio with about two digits that count.

    Args:
        ratio: glintpy's figure over another's.
    """
    if ratio < 0.1:
        return f"{ratio:.2g}"
    return f"{ratio:.2f}" if ratio < 10 else f"{ratio:,.0f}"
