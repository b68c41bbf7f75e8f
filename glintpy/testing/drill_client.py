"""One client of a drill, in a process of its own: pushes to a ledger until it is told to stop, and leaves its record.

Run as ``python -m glintpy.testing.drill_client JSON``. It stops when its standard input ends, so it goes with the
program that started it. It knows nothing of what is done to the cluster.
"""

from __future__ import annotations

import json
import os
import select
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from glintpy.client import Client
from glintpy.errors import GlintError
from glintpy.models.matrix import BigMatrix
from glintpy.models.vector import BigVector
from glintpy.testing.drill_updates import Updates
from glintpy.testing.ledger import Ledger, Violation

if TYPE_CHECKING:
    from collections.abc import Callable

    from glintpy.futures import Future
    from glintpy.testing.ledger import Account

PATIENCE_S = 60.0
"""Deadline of ordinary pushes: any fault of a drill is over long before."""

HURRY_S = 0.15
HURRIED = 16
"""Every so many pushes one has no patience: so there are some whose outcome can't be known."""

OPEN_MAX = 500
"""Pushes under way at once."""

STEP_S = 0.01
READ_EVERY_S = 0.05
UPDATES_PER_S = 100.0
UPDATES_AT_ONCE = 20
COMPARED = 4
"""Every so many reads values and slots are compared, too."""

WHOLE_EVERY_S = 1.0
"""Between two pushes of ones to the whole vector of counts, which travel in several parts."""


@dataclass(frozen=True, slots=True)
class Order:
    """What a client is to do.

    Attributes:
        address: of the master.
        ledger: its name; the vector of counts is called the same with ``.counts`` behind it, and the matrix that
            learns with ``.adam``.
        worker: the number of its account.
        pushes_per_s: at most.
        record: the file for the ledger's record; the rest goes beside it, with ``.json`` behind the name.
    """

    address: str
    ledger: str
    worker: int
    pushes_per_s: float
    record: str

    def command(self) -> list[str]:
        """Return the command line that carries it out."""
        return [sys.executable, "-m", "glintpy.testing.drill_client", json.dumps(asdict(self))]


@dataclass(slots=True)
class Told:
    """What a client tells beside its record.

    Attributes:
        counts_in: pushes to the whole vector of counts that were acknowledged.
        counts_unknown: those of unknown outcome.
        longest_read_s: the longest that a read took, waiting for a server's return included.
        num_reads: reads that were made.
        num_updates: pushes of gradients under an updater.
        num_compared: how often values and slots were compared with what they should be.
        problems: reads that were torn or went back, and requests that failed though they had time.
    """

    counts_in: int = 0
    counts_unknown: int = 0
    longest_read_s: float = 0.0
    num_reads: int = 0
    num_updates: int = 0
    num_compared: int = 0
    problems: list[str] = field(default_factory=list)

    @classmethod
    def load(cls, path: Path) -> Self:
        """Read what a client has written beside its record."""
        return cls(**json.loads(path.read_text()))


class _Worker:
    """The traffic of one client."""

    def __init__(
        self, order: Order, account: Account, ledger: Ledger, counts: BigVector, updates: Updates
    ) -> None:
        self._order = order
        self._account = account
        self._hurried = ledger.matrix.with_options(timeout_s=HURRY_S)
        self._counts = counts
        self._updates = updates
        self._wholes: list[Future[None]] = []
        self._num_pushed = 0
        self._next_read = self._next_whole = 0.0
        self.told = Told()

    def run(self) -> None:
        """Push and read until standard input ends or the account is used up; then wait for all outcomes."""
        began = time.monotonic()
        while self._account.num_left and not select.select([0], [], [], STEP_S)[0]:
            elapsed_s = time.monotonic() - began
            self._push(int(elapsed_s * self._order.pushes_per_s))
            if elapsed_s >= self._next_whole:
                self._next_whole = elapsed_s + WHOLE_EVERY_S
                self._wholes.append(self._counts.push(None, 1))
            self._push_updates(int(elapsed_s * UPDATES_PER_S))
            if elapsed_s >= self._next_read:
                self._next_read = elapsed_s + READ_EVERY_S
                self._read()

    def finish(self) -> None:
        """Wait for all outcomes, and note them."""
        record = self._account.record()
        record.save(self._order.record)
        for push in self._wholes:
            error = push.exception()
            self.told.counts_in += error is None
            self.told.counts_unknown += error is not None and getattr(error, "outcome", "") != "none"
        self._try(self._updates.finish)
        self.told.num_updates, self.told.num_compared = self._updates.num_pushes, self._updates.num_compared
        Path(f"{self._order.record}.json").write_text(json.dumps(asdict(self.told)))

    def _push(self, allowed: int) -> None:
        while self._num_pushed < allowed and self._account.num_left and self._account.num_open < OPEN_MAX:
            self._num_pushed += 1
            self._account.push(self._hurried if self._num_pushed % HURRIED == 0 else None)

    def _read(self) -> None:
        began = time.monotonic()
        self._try(lambda: self._account.read(PATIENCE_S))
        if self.told.num_reads % COMPARED == 0:
            self._try(self._updates.compare)
        self.told.num_reads += 1
        self.told.longest_read_s = max(self.told.longest_read_s, time.monotonic() - began)

    def _push_updates(self, allowed: int) -> None:
        for _ in range(min(UPDATES_AT_ONCE, allowed - self._updates.num_pushes)):
            self._try(self._updates.push)

    def _try(self, act: Callable[[], object]) -> None:
        """Do something, and note what it says or raises."""
        try:
            said = act()
        except (Violation, GlintError) as problem:
            said = f"{type(problem).__name__}: {problem}"
        if isinstance(said, str) and said and len(self.told.problems) < 10:
            self.told.problems.append(f"worker {self._order.worker}: {said}")


def work(order: Order) -> None:
    """Carry out an order."""
    with Client(order.address, timeout_s=PATIENCE_S, name=f"drill-{order.worker}") as client:
        ledger = Ledger.open(client, order.ledger)
        counts = client.open(f"{order.ledger}.counts")
        assert isinstance(counts, BigVector)
        adam = client.open(f"{order.ledger}.adam")
        assert isinstance(adam, BigMatrix)
        updates = Updates(adam, order.worker, ledger.num_workers, ledger.seed)
        worker = _Worker(order, ledger.worker(order.worker), ledger, counts, updates)
        os.write(1, b"ready\n")
        worker.run()
        worker.finish()


def whole_counts(told: list[Told], values: np.ndarray[Any, Any]) -> int:
    """Return how many cells of the vector of counts are outside of what the clients' outcomes allow."""
    least = sum(entry.counts_in for entry in told)
    most = least + sum(entry.counts_unknown for entry in told)
    return int(((values < least) | (values > most)).sum())


if __name__ == "__main__":
    work(Order(**json.loads(sys.argv[1])))
