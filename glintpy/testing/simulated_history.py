"""What happened in a simulation, part by part, and whether it was allowed to; knows no network.

Every cell is its own ledger: the i-th push to a model adds 1 (or 2, by position) to the i-th field of four
bits of each cell that it touches. So the values themselves say which push is in, and how often: 0 is lost,
twice is doubled, and in a pull they say what was visible at that moment. Cells are counted by server: a
part's cells are known from the message that carries it.
"""

from __future__ import annotations

import itertools
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from glintpy.protocol.calls import Call, Failed, Result, Stamp
from glintpy.protocol.messages import Message, Pull, Push, Values
from glintpy.protocol.selection import axis_indices
from glintpy.protocol.session import IN_FLIGHT_MAX, Session
from glintpy.testing.simulated_clients import Watcher

FIELD_BITS = 4
PUSHES_MAX = 15
"""Pushes to one model: fields of four bits in a cell of 63."""

Known = Literal["open", "applied", "refused", "unknown"]
Grid = NDArray[np.int64]
"""(cells,) counts by cell of one model on one server, rows laid behind one another."""


class Violation(AssertionError):
    """Something happened that the guarantees exclude; the message names the seed that shows it again."""


@dataclass(slots=True, eq=False)
class Seen:
    """One part on its way.

    Attributes:
        client: its number.
        server: its place.
        model_id: the model's.
        place: the push's field in the model; -1 for a pull.
        issued: when it was issued, as a count of all that happens.
        cells: (n,) cells of the server that it names; what a bad push names may not exist.
        weights: (n,) what a push adds to its field there; None for a pull.
        is_bad: the server must refuse it.
        settled: when it had its outcome; 0: not yet.
        fate: what is known of it.
        failure: why it failed.
        values: (n,) what it read, where it reads.
    """

    client: int
    server: int
    model_id: int
    place: int
    issued: int
    cells: Grid
    weights: Grid | None
    is_bad: bool
    settled: int = 0
    fate: Known = "open"
    failure: Failed | None = None
    values: Grid | None = None
    counts: Grid = field(default_factory=lambda: np.zeros(0, dtype=np.int64))


class History(Watcher):
    """Notes every part that is issued, and checks each send.

    Attributes:
        parts: all parts of pushes and pulls, in order.
        place: the field of the push that is being issued; -1 while none is.
        is_bad: whether it must be refused.
    """

    def __init__(self) -> None:
        self.parts: list[Seen] = []
        self.place = -1
        self.is_bad = False
        self._moments = itertools.count(1)
        self._cols: dict[int, int] = {}  # by model: columns; 1 for a vector
        self._sent: dict[tuple[int, int], dict[tuple[int, int], Call]] = defaultdict(dict)  # open and sent
        self._session_of: dict[tuple[int, int], bytes] = {}
        self._entered: set[tuple[int, int]] = set()  # who sent something new since it was last looked at
        self._floors: dict[bytes, int] = defaultdict(int)

    def add_model(self, model_id: int, *, num_cols: int | None) -> None:
        """Note a model, for its cells."""
        self._cols[model_id] = num_cols or 1

    def moment(self) -> int:
        """Return the next count of what happens."""
        return next(self._moments)

    # --- what sessions do -------------------------------------------------------------------------------------

    def submitted(self, client: int, server: int, call: Call) -> None:
        """Note a part, and what becomes of it."""
        message = call.build(Stamp(session=bytes(16), sequence=1))
        if not isinstance(message, Push | Pull):
            return
        part = self._seen(client, server, message)
        self.parts.append(part)
        build, settle = call.build, call.settle

        def build_and_check(stamp: Stamp) -> Message:
            self._check_stamp(client, server, call, stamp)
            return build(stamp)

        def settle_and_note(result: Result) -> None:
            self._sent[client, server].pop(call.key, None)
            part.settled = self.moment()
            if isinstance(result, Failed):
                part.failure = result
                part.fate = "unknown" if result.fate == "unknown" else "refused"
            else:
                part.fate = "applied"
                if isinstance(result, Values):
                    part.values = result.values.astype(np.int64).ravel()
            settle(result)

        call.build, call.settle = build_and_check, settle_and_note

    def flushed(self, client: int, server: int, session: Session) -> None:
        """Check that what is under way fits into the window that the server granted."""
        under_way = self._sent[client, server].values()
        num_bytes = sum(call.cost_bytes for call in under_way)
        # A window may shrink below what is under way already; only what enters must fit.
        is_beyond = len(under_way) > 1 and num_bytes > session.window_bytes
        if is_beyond and (client, server) in self._entered:
            raise Violation(f"{num_bytes} bytes under way where the window is {session.window_bytes}")
        self._entered.discard((client, server))

    def _check_stamp(self, client: int, server: int, call: Call, stamp: Stamp) -> None:
        if self._session_of.get((client, server)) != stamp.session:
            self._session_of[client, server] = stamp.session
            self._sent[client, server].clear()  # a new session begins with nothing under way
        sent = self._sent[client, server]
        if call.key not in sent:
            sent[call.key] = call
            self._entered.add((client, server))
        if stamp.floor < self._floors[stamp.session]:
            raise Violation(f"the floor fell from {self._floors[stamp.session]} to {stamp.floor}")
        self._floors[stamp.session] = stamp.floor
        if stamp.sequence and not stamp.floor <= stamp.sequence < stamp.floor + IN_FLIGHT_MAX:
            raise Violation(f"push {stamp.sequence} was sent with the floor {stamp.floor}")

    def _seen(self, client: int, server: int, message: Push | Pull) -> Seen:
        num_cols = self._cols[message.model_id]
        rows = axis_indices(message.rows)
        if message.cols is None:
            cells = rows[:, None] * num_cols + np.arange(num_cols)
        elif message.paired:
            cells = rows * num_cols + axis_indices(message.cols)
        else:
            cells = rows[:, None] * num_cols + axis_indices(message.cols)
        weights = None
        if isinstance(message, Push):
            weights = (message.values.astype(np.int64) >> (FIELD_BITS * self.place)).ravel()
        return Seen(
            client,
            server,
            message.model_id,
            self.place,
            self.moment(),
            cells.ravel(),
            weights,
            self.is_bad,
        )


# --- judging ------------------------------------------------------------------------------------------------


def judge(history: History, shards: dict[tuple[int, int], NDArray[Any]], *, may_expel: bool) -> Iterator[str]:
    """Yield what the guarantees exclude.

    Args:
        history: of a run that has come to rest.
        shards: by (server, model id) the values that lie there in the end, of any shape, int64.
        may_expel: whether servers may have forgotten sessions whose pushes were under way.
    """
    for part in history.parts:
        yield from _judge_fate(part, may_expel=may_expel)
    for (server, model_id), values in shards.items():
        here = [part for part in history.parts if (part.server, part.model_id) == (server, model_id)]
        pushes = [part for part in here if part.weights is not None]
        final = values.astype(np.int64).ravel()
        for part in pushes:
            if not part.is_bad:
                part.counts = np.bincount(part.cells, part.weights, minlength=final.size).astype(np.int64)
            else:
                part.counts = np.zeros(final.size, dtype=np.int64)
        where = f"model {model_id} on server {server}"
        yield from _judge_end(pushes, final, where)
        reader = _Reader(pushes, final.size)
        for part in here:
            if part.values is not None:
                yield from reader.judge(part, where)


def _judge_fate(part: Seen, *, may_expel: bool) -> Iterator[str]:
    name = f"part of push {part.place} to model {part.model_id} from client {part.client} to server {part.server}"
    failure = part.failure
    if part.fate == "open":
        yield f"a part from client {part.client} to server {part.server} has no outcome"
    elif part.weights is None:
        return
    elif part.is_bad:
        if part.fate == "applied":
            yield f"{name}: it must be refused and was acknowledged"
    elif failure is not None and not failure.timed_out and "client was closed" not in str(failure.error):
        expelled = may_expel and "no longer knows" in str(failure.error)
        if not expelled:
            yield f"{name}: {part.fate} without a reason: {failure.error}"


def _judge_end(pushes: list[Seen], final: Grid, where: str) -> Iterator[str]:
    """Every push once, not at all, or, where unknown, either."""
    by_place: dict[int, list[Seen]] = defaultdict(list)
    for part in pushes:
        by_place[part.place].append(part)
    left_over = final.copy()
    for place, parts in by_place.items():
        found = (final >> (FIELD_BITS * place)) & (2**FIELD_BITS - 1)
        left_over -= found << (FIELD_BITS * place)
        due = sum((part.counts for part in parts if part.fate == "applied"), np.zeros_like(final))
        unknown = [part.counts for part in parts if part.fate == "unknown"]
        if not _is_sum_of_some(found - due, unknown):
            wrong = int(np.flatnonzero(found != due)[0])
            fates = ", ".join(part.fate for part in parts)
            yield (
                f"{where}: push {place} ({fates}) is wrong in {int((found != due).sum())} cells; cell {wrong} "
                f"has it {int(found[wrong])} times and {int(due[wrong])} were acknowledged"
            )
    if left_over.any():
        yield f"{where}: {int((left_over != 0).sum())} cells hold what nobody pushed"


def _is_sum_of_some(rest: Grid, unknown: list[Grid]) -> bool:
    """Whether a rest is explained by some of the parts without a known outcome."""
    if not unknown or not rest.any():
        return not rest.any()
    first, *others = unknown
    choices = [True, False]
    alone = np.flatnonzero(sum(others, np.zeros_like(rest)) < first)
    if alone.size:
        # A cell that the others can't fill tells whether this one is in: so there are not 2**n cases.
        cell = alone[0]
        choices = [bool(rest[cell] >= first[cell])]
    return any(_is_sum_of_some(rest - first if is_in else rest, others) for is_in in choices)


class _Reader:
    """Judges what pulls saw of the pushes to one model on one server."""

    def __init__(self, pushes: list[Seen], num_cells: int) -> None:
        self.pushes = pushes
        self._counts = np.array([part.counts for part in pushes], dtype=np.int64)
        self._counts = self._counts.reshape(len(pushes), num_cells)  # also where there are none
        self._shifts = np.array([FIELD_BITS * part.place for part in pushes], dtype=np.int64)[:, None]
        self._applied = np.array([part.fate == "applied" for part in pushes], dtype=bool)
        self._refused = np.array([part.fate == "refused" for part in pushes], dtype=bool)
        self._clients = np.array([part.client for part in pushes])
        self._issued = np.array([part.issued for part in pushes])
        self._settled = np.array([part.settled for part in pushes])
        # Cells that no other part of the same push touches: there a part is in, or it is not.
        places = self._shifts[:, 0]
        totals = np.zeros_like(self._counts)
        for place in np.unique(places):
            mine = places == place
            totals[mine] = self._counts[mine].sum(axis=0)
        self._alone = np.where(totals == self._counts, self._counts, 0)

    def judge(self, pull: Seen, where: str) -> Iterator[str]:
        assert pull.values is not None
        if not self.pushes:
            return
        found = (pull.values[None, :] >> self._shifts) & (2**FIELD_BITS - 1)  # (pushes, cells read)
        due = self._alone[:, pull.cells]
        touched = due > 0
        overlaps = touched.any(axis=1)
        is_in = overlaps & ((found == due) | ~touched).all(axis=1)
        is_out = overlaps & ((found == 0) | ~touched).all(axis=1)
        own = (self._clients == pull.client) & (self._issued <= pull.issued)
        must = self._applied & (own | (self._settled < pull.issued))
        never = self._refused | (self._issued > pull.settled)
        for what, wrong in (
            ("sees a part of", overlaps & ~is_in & ~is_out),
            ("misses", overlaps & must & is_out),
            ("sees what can't be there:", overlaps & never & is_in),
        ):
            for position in np.flatnonzero(wrong):
                yield f"{where}: a pull of client {pull.client} {what} {self._name(int(position))}"
        yield from self._judge_order(pull, where, is_in, is_out & self._applied)

    def _judge_order(
        self, pull: Seen, where: str, is_in: NDArray[np.bool_], is_missing: NDArray[np.bool_]
    ) -> Iterator[str]:
        for client in np.unique(self._clients):
            mine = self._clients == client
            missing = self._issued[mine & is_missing]
            seen = self._issued[mine & is_in]
            if missing.size and seen.size and missing.min() < seen.max():
                yield f"{where}: a pull of client {pull.client} sees pushes of client {client} out of order"

    def _name(self, position: int) -> str:
        part = self.pushes[position]
        return f"push {part.place} of client {part.client} ({part.fate})"
