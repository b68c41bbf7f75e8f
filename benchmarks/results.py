"""What was measured: figures with their samples, and who was left out and why; knows no system.

A figure's samples of one round were taken one right after the other, so ratios are taken round by round, and the
median of the ratios is what counts: what the machine did in between weighs on both sides of each.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from pathlib import Path
from statistics import median
from typing import Any, Literal

Better = Literal["low", "high"]


@dataclass(frozen=True)
class Entry:
    """What one system did.

    Attributes:
        system: its name.
        scheme: over what; empty where there is none.
        samples: a number a round.
    """

    system: str
    scheme: str
    samples: list[float]

    @property
    def median(self) -> float:
        """Their median."""
        return median(self.samples)

    def over(self, other: Entry) -> float:
        """Return the median of the ratios to another's samples of the same rounds.

        Args:
            other: whose samples are below the line.
        """
        pairs = zip(self.samples, other.samples, strict=True)
        return median([mine / theirs if theirs else float("inf") for mine, theirs in pairs])


@dataclass(frozen=True)
class Figure:
    """One number of one workload, of all systems.

    Attributes:
        workload: the workload's name.
        setup: servers and clients, or what else stands in their place.
        step: what was done.
        quantity: what was measured of it, such as ``"p50"``.
        unit: of the samples.
        better: which direction is.
        entries: a system's each.
    """

    workload: str
    setup: str
    step: str
    quantity: str
    unit: str
    better: Better
    entries: list[Entry]

    def of(self, system: str, scheme: str | None = None) -> Entry | None:
        """Return what a system did; None if it was left out.

        Args:
            system: its name.
            scheme: over what; one that has none of its own stands beside both. None: any.
        """
        for entry in self.entries:
            if entry.system == system and (scheme is None or entry.scheme in (scheme, "")):
                return entry
        return None


@dataclass(frozen=True)
class LeftOut:
    """A system that didn't take part.

    Attributes:
        system: its title.
        where: in which workload, or everywhere.
        reason: why.
    """

    system: str
    where: str
    reason: str


@dataclass
class Results:
    """All of a run.

    Attributes:
        about: date, machine, versions and sizes.
        figures: what was measured.
        left_out: who was not, and why.
    """

    about: dict[str, Any]
    figures: list[Figure] = field(default_factory=list)
    left_out: list[LeftOut] = field(default_factory=list)

    def leave_out(self, system: str, where: str, reason: str) -> None:
        """Note, once, that a system doesn't take part.

        Args:
            system: its title.
            where: in which workload and step.
            reason: why.
        """
        entry = LeftOut(system, where, reason)
        if entry not in self.left_out:
            self.left_out.append(entry)

    def find(
        self, workload: str, *, step: str | None = None, quantity: str | None = None, setup: str | None = None
    ) -> Iterator[Figure]:
        """Yield figures.

        Args:
            workload: of which workload.
            step: of which step; None: all.
            quantity: which quantity; None: all.
            setup: in which setup; None: all.
        """
        for figure in self.figures:
            if (
                figure.workload == workload
                and step in (None, figure.step)
                and quantity in (None, figure.quantity)
                and setup in (None, figure.setup)
            ):
                yield figure

    def write(self, path: Path) -> None:
        """Write all of it as JSON.

        Args:
            path: where to.
        """
        path.write_text(json.dumps(asdict(self), indent=1) + "\n", encoding="utf-8")


def read(path: Path) -> Results:
    """Read what ``write`` wrote.

    Args:
        path: where from.
    """
    content = json.loads(path.read_text(encoding="utf-8"))
    figures = [
        Figure(**{**figure, "entries": [Entry(**entry) for entry in figure["entries"]]})
        for figure in content["figures"]
    ]
    return Results(content["about"], figures, [LeftOut(**entry) for entry in content["left_out"]])
