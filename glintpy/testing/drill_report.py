"""What a drill is to be, what was done, and what came of it; plain data, knows no cluster."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from glintpy.cluster import ServerOptions
from glintpy.testing.ledger import Audit

COUNTS = 600_000
"""Cells of the vector that clients push as a whole: more than one part a server with up to two of them."""


@dataclass(frozen=True, slots=True)
class DrillSettings:
    """What a drill is to be.

    Attributes:
        duration_s: of the faults, seconds.
        seed: of the plan, the proxies and the pushes.
        num_servers: from 1.
        num_clients: from 1.
        durability: what pushes survive, as ``LocalCluster`` takes it.
        failpoints: armed in the servers, so that they die there of themselves; see ``glintpy.failpoints``.
        plant: a defect for the servers, which the drill must notice; see ``glintpy.process.planted``.
    """

    duration_s: float
    seed: int = 0
    num_servers: int = 3
    num_clients: int = 3
    durability: str = "process"
    failpoints: str = ""
    plant: str = ""

    def server_options(self) -> ServerOptions:
        """Return how the servers are to be for it."""
        return ServerOptions(failpoints=self.failpoints, plant=self.plant)


@dataclass(slots=True)
class DrillReport:
    """What was done, and what came of it.

    Attributes:
        settings: what it was to be.
        lasted_s: how long the faults went on; less than planned after Ctrl-C.
        num_kills: servers that were killed.
        num_deaths: servers that died at a failpoint.
        num_stops: servers that were stopped and went on.
        num_resets: links that were reset.
        num_master_kills: how often the master was killed.
        worst_recovery_s: the longest from the start of a restarted process to its being ready.
        longest_read_s: the longest that a client waited for a read.
        num_reads: reads that were made and compared.
        num_updates: pushes of gradients under Adam.
        num_compared: how often a client compared its values and slots under Adam with what they should be.
        audit: of the ledger; None: it could not be read.
        num_wrong_counts: cells of the vector of counts that are wrong.
        problems: what else went wrong, in words.
    """

    settings: DrillSettings
    lasted_s: float = 0.0
    num_kills: int = 0
    num_deaths: int = 0
    num_stops: int = 0
    num_resets: int = 0
    num_master_kills: int = 0
    worst_recovery_s: float = 0.0
    longest_read_s: float = 0.0
    num_reads: int = 0
    num_updates: int = 0
    num_compared: int = 0
    audit: Audit | None = None
    num_wrong_counts: int = 0
    problems: list[str] = field(default_factory=list)

    @property
    def num_wrong_cells(self) -> int:
        """Cells that hold something else than they should."""
        return self.num_wrong_counts + (self.audit.num_wrong_cells if self.audit is not None else 0)

    @property
    def holds(self) -> bool:
        """Whether there was something to account for, and all of it is as it should be."""
        return not self.explain()

    def as_dict(self) -> dict[str, Any]:
        """Return it as plain data."""
        names = [name for name in self.__dataclass_fields__ if name not in {"settings", "audit"}]
        return {
            "settings": asdict(self.settings),
            "holds": self.holds,
            **{name: getattr(self, name) for name in names},
            "num_wrong_cells": self.num_wrong_cells,
            "audit": None if self.audit is None else self.audit.as_dict(),
        }

    def explain(self) -> str:
        """Return what is wrong, in a sentence or several; empty if nothing is."""
        found = list(self.problems)
        if self.audit is None:
            found.append("the ledger could not be read")
        elif not self.audit.holds:
            found.insert(0, str(self.audit))
        elif not self.audit.num_issued:
            found.append("nothing was pushed, so nothing was shown")
        if self.num_wrong_counts:
            found.append(f"{self.num_wrong_counts:,} of {COUNTS:,} counts are wrong")
        return "; ".join(found)
