"""A ledger of pushes: afterwards each is known to be in once, not at all, or twice; on the public API alone.

A push changes a row's value cells and, in the same request and the same rows, adds 1 to a cell of its own. So the
servers' own numbers say of every push what became of it, also of those whose outcome the client can't know, and no
sum can hide that one push was lost and another one doubled. Integers only: floats would have to be compared loosely.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Self

import numpy as np
from numpy.typing import NDArray

from glintpy.client import Client
from glintpy.errors import ConfigError, GlintError, NotEnoughServers
from glintpy.futures import Future
from glintpy.models.matrix import BigMatrix
from glintpy.models.vector import BigVector
from glintpy.testing.ledger_audit import Audit, Outcome, Record, Rules

__all__ = ["Account", "Audit", "Ledger", "Outcome", "Record", "Violation"]

BLOCK_CELLS = 4_000_000
"""Cells looked at together: 32 MB, whatever the ledger's size."""

_ABOUT = 6
_VERSION = 1


class Violation(AssertionError):
    """What was read is not what the guarantees allow; the message has the numbers and the seed."""


class Ledger:
    """A matrix of value cells and of one cell for each push that workers may make.

    A row has ``width`` value cells, in which each push that touches the row adds the same value, and then a cell for
    each push. Which rows a push touches, and the value, follow from its number and the seed: one row, all rows of
    one server, or all. Use ``create`` in one process and ``open`` in the others. As a context manager it is destroyed
    at the end.

    Attributes:
        matrix: (rows, width + pushes) int64; a view with another deadline can be given to ``Account.push``.
        num_workers: how many accounts there are.
        num_pushes: of each.
        seed: of what pushes do.

    Threads:
        Safe from any thread; an account belongs to one.
    """

    def __init__(self, matrix: BigMatrix, about: BigVector, numbers: NDArray[np.int64]) -> None:
        """Bind one that exists; programs use ``create`` and ``open``."""
        version, num_workers, num_pushes, width, seed, _ = (int(number) for number in numbers)
        if version != _VERSION:
            raise ConfigError(f"{matrix.name!r} is a ledger of version {version}, not {_VERSION}")
        self.matrix = matrix
        self.num_workers, self.num_pushes, self.seed = num_workers, num_pushes, seed
        self._about = about
        # With one partition a server, as it is made, what lies in one partition lies on one server.
        servers = matrix.partitioner.partition_of(np.arange(matrix.num_rows, dtype=np.int64))
        self.rules = Rules(seed, servers, width)

    @classmethod
    def create(
        cls,
        client: Client,
        *,
        num_workers: int,
        num_pushes: int,
        width: int = 16,
        rows_per_server: int = 2,
        name: str = "ledger",
        seed: int = 0,
    ) -> Self:
        """Make a ledger on all servers that are alive.

        Args:
            client: of the cluster.
            num_workers: how many accounts it has.
            num_pushes: how many pushes each may make.
            width: value cells of a row, which change together.
            rows_per_server: rows that lie together on each server.
            name: by which other processes open it.
            seed: of what pushes do, from 0.

        Raises:
            ConfigError: a number out of its range.
            NotEnoughServers: there is none.
            ModelExists, NotEnoughMemory, MasterUnreachable: as ``client.matrix``.
        """
        limits = {"num_workers": num_workers, "num_pushes": num_pushes, "width": width}
        for what, number in {**limits, "rows_per_server": rows_per_server}.items():
            if type(number) is not int or number < 1:
                raise ConfigError(f"{what} is at least 1, not {number!r}")
        if type(seed) is not int or not 0 <= seed < 2**62:
            raise ConfigError(f"seed is at least 0 and below 2**62, not {seed!r}")
        num_servers = sum(server["state"] == "alive" for server in client.servers())
        if not num_servers:
            raise NotEnoughServers("a ledger needs a server, and none is alive")
        rows, cols = rows_per_server * num_servers, width + num_workers * num_pushes
        about = client.vector(_ABOUT, dtype="int64", name=f"{name}.about")
        try:
            matrix = client.matrix(rows, cols, dtype="int64", name=name)
        except GlintError:
            about.destroy()
            raise
        numbers = np.array([_VERSION, num_workers, num_pushes, width, seed, rows], dtype=np.int64)
        about.push(None, numbers).result()
        return cls(matrix, about, numbers)

    @classmethod
    def open(cls, client: Client, name: str = "ledger", *, wait_s: float = 0.0) -> Self:
        """Open one that another process made.

        Args:
            client: of the cluster.
            name: the ledger's.
            wait_s: seconds to wait for somebody to make it.

        Raises:
            ModelNotFound: there is none.
            ConfigError: the model of this name is no ledger.
        """
        end = time.monotonic() + wait_s
        matrix, about = client.open(name, wait_s), client.open(f"{name}.about", wait_s)
        if not isinstance(matrix, BigMatrix) or not isinstance(about, BigVector):
            raise ConfigError(f"{name!r} is no ledger")
        numbers = about.pull().result()
        while not numbers.any() and time.monotonic() < end:  # it is being written
            numbers = about.pull().result()
        return cls(matrix, about, numbers)

    def worker(self, number: int) -> Account:
        """Return a worker's account; each number is for one worker, once.

        Raises:
            ConfigError: there is no such worker.
        """
        if not 0 <= number < self.num_workers:
            raise ConfigError(f"the ledger has workers 0 to {self.num_workers - 1}, not {number!r}")
        return Account(self, number)

    def audit(self, records: Sequence[Record]) -> Audit:
        """Read the whole ledger and say of each push what became of it; nobody may push meanwhile.

        Args:
            records: of the workers. Pushes of a worker without one may be in or not; more can't be said of them.

        Raises:
            PullFailed, ServerLost, ModelLost: it could not be read.
        """
        outcomes = np.full((self.num_workers, self.num_pushes), Outcome.UNTOLD, dtype=np.uint8)
        for record in records:
            outcomes[record.worker] = record.outcomes
        audit = Audit(self.matrix.name, self.seed)
        width, num_block = self.rules.width, max(1, BLOCK_CELLS // self.matrix.num_rows)
        for worker in range(self.num_workers):
            for start in range(0, self.num_pushes, num_block):
                block = outcomes[worker, start : start + num_block]
                first = worker * self.num_pushes + start
                cells = self.matrix.pull(cols=slice(width + first, width + first + len(block))).result()
                audit.add_block(self.rules, worker=worker, outcomes=block, first=first, cells=cells)
        audit.add_values(self.matrix.pull(cols=slice(0, width)).result())
        return audit

    def check(self, records: Sequence[Record]) -> Audit:
        """Audit, and fail if anything is wrong.

        Args:
            records: as of ``audit``.

        Raises:
            Violation: a push is lost, doubled, torn, or in against its outcome; or a sum is wrong.
            What ``audit`` raises.
        """
        audit = self.audit(records)
        if not audit.holds:
            raise Violation(str(audit))
        return audit

    def destroy(self) -> None:
        """Destroy it on all servers."""
        self.matrix.destroy()
        self._about.destroy()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.destroy()


class Account:
    """One worker's pushes, in order; made by ``Ledger.worker``.

    Attributes:
        worker: its number.

    Threads:
        Belongs to one thread.
    """

    def __init__(self, ledger: Ledger, worker: int) -> None:
        self.worker = worker
        self._ledger = ledger
        self._next = 0
        self._outcomes = np.zeros(ledger.num_pushes, dtype=np.uint8)
        self._open: deque[tuple[int, Future[None]]] = deque()
        self._applied_sums = np.zeros(ledger.matrix.num_rows, dtype=np.int64)
        self._seen = np.zeros(ledger.matrix.num_rows, dtype=np.int64)
        self._reads = 0
        # What each push does, worked out at once: one by one it would cost as much as the push itself.
        self._first = worker * ledger.num_pushes
        numbers = np.arange(self._first, self._first + ledger.num_pushes, dtype=np.int64)
        self._touches, self._values = ledger.rules.touches(numbers), ledger.rules.values(numbers)

    @property
    def num_left(self) -> int:
        """Pushes that it may still make."""
        return self._ledger.num_pushes - self._next

    @property
    def num_open(self) -> int:
        """Pushes of which it doesn't know the outcome yet."""
        self._settle()
        return len(self._open)

    def push(self, matrix: BigMatrix | None = None) -> Future[None]:
        """Make the next push.

        Args:
            matrix: a view of the ledger's, ``ledger.matrix.with_options(timeout_s=0.2)`` say; None: itself.

        Returns:
            Its future. What becomes of it is noted here, whether or not somebody looks at the future.

        Raises:
            ConfigError: all pushes of this account were made.
        """
        if not self.num_left:
            raise ConfigError(f"worker {self.worker} has made all its {self._ledger.num_pushes} pushes")
        self._settle()
        number = self._next
        self._next += 1
        rules = self._ledger.rules
        rows, value, cell = self._what(number)
        cols = np.append(np.arange(rules.width), rules.width + cell)
        values = np.append(np.full(rules.width, value), 1)
        # If the call itself fails, nobody knows; if it returns, its future says.
        self._outcomes[number] = Outcome.UNKNOWN
        future = (self._ledger.matrix if matrix is None else matrix).push(
            np.repeat(rows, len(cols)), np.tile(values, len(rows)), cols=np.tile(cols, len(rows))
        )
        self._open.append((number, future))
        return future

    def read(self, timeout_s: float | None = 30.0) -> None:
        """Read the value cells of a row, taken in turn, and compare them with one another and with what is known.

        They are read in one request to one server: a push must be in all of them or in none. And they only grow: what
        was seen once, or was acknowledged to this worker, is seen from then on.

        Args:
            timeout_s: deadline of the read.

        Raises:
            Violation: the read was torn, or has lost what was in before.
            PullFailed, ServerLost, ModelLost: it could not be read.
        """
        self._settle()
        ledger, width = self._ledger, self._ledger.rules.width
        row = (self._reads + self.worker) % ledger.matrix.num_rows
        self._reads += 1
        least = max(int(self._seen[row]), int(self._applied_sums[row]))
        matrix = ledger.matrix.with_options(timeout_s=timeout_s)
        values = matrix.pull(np.full(width, row), np.arange(width)).result()
        where = (
            f"row {row} of ledger {ledger.matrix.name!r} (seed {ledger.seed}), read by worker {self.worker},"
        )
        if values.min() != values.max():
            raise Violation(
                f"{where} is torn: cells that change together hold {values.min()} to {values.max()}"
            )
        if values[0] < least:
            raise Violation(f"{where} holds {values[0]}, and {least} was seen or acknowledged before")
        self._seen[row] = values[0]

    def record(self, timeout_s: float | None = None) -> Record:
        """Wait until all its pushes have an outcome, and return what became of each.

        Args:
            timeout_s: seconds to wait for each; None: until its own deadline. One without an outcome by then is
                recorded as unknown.
        """
        while self._open:
            number, future = self._open.popleft()
            try:
                self._note(number, future.exception(timeout_s))
            except TimeoutError:
                self._outcomes[number] = Outcome.UNKNOWN
        return Record(self.worker, self._outcomes.copy())

    def _settle(self) -> None:
        while self._open and self._open[0][1].done():
            number, future = self._open.popleft()
            self._note(number, future.exception())

    def _note(self, number: int, error: BaseException | None) -> None:
        if error is None:
            self._outcomes[number] = Outcome.APPLIED
            rows, value, _ = self._what(number)
            self._applied_sums[rows] += value
        elif getattr(error, "outcome", "unknown") == "none":
            self._outcomes[number] = Outcome.REFUSED
        else:
            self._outcomes[number] = Outcome.UNKNOWN

    def _what(self, number: int) -> tuple[NDArray[np.int64], int, int]:
        """Return the rows that a push touches, its value, and its cell."""
        rows = np.flatnonzero(self._touches[:, number])
        return rows, int(self._values[number]), self._first + number
