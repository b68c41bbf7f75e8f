"""Negative controls: each defect that others shipped is put in, and the simulation must notice it."""

from __future__ import annotations

import itertools
from collections import defaultdict, deque
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from glintpy import failpoints
from glintpy.actors.receipts import Apply, Numbered, Read, Receipts
from glintpy.actors.shelf import Shelf
from glintpy.errors import GlintError
from glintpy.models.bundles import Bundle
from glintpy.models.dispatch import Dispatch
from glintpy.protocol import wire
from glintpy.protocol.calls import Call
from glintpy.protocol.failures import APPLIED
from glintpy.protocol.messages import Change, Message, Pull, Push
from glintpy.protocol.messages_tables import PullKeys
from glintpy.protocol.selection import Selection, axis_indices
from glintpy.protocol.session import Session
from glintpy.storage import kernels
from glintpy.storage.journal import Journal
from glintpy.storage.journal import Session as Receipt
from glintpy.testing.simulated_servers import Build
from glintpy.testing.simulated_work import Kind
from glintpy.testing.simulation import Violation, run_seed

SEEDS_MAX = 300


def caught(build: Build, kinds: Sequence[Kind], first: int) -> str:
    """Return what the first seed that notices says."""
    for number, kind in zip(range(first, first + SEEDS_MAX), itertools.cycle(kinds)):
        try:
            run_seed(number, kind=kind, build=build)
        except Violation as violation:
            return str(violation)
    pytest.fail(f"{SEEDS_MAX} seeds of {kinds} from {first} on did not notice")


class AppliesAgain(Receipts):
    def push(self, message: Numbered, now: float, *, apply: Apply, read: Read) -> Message:
        if message.sequence <= self.find(message.session, now).applied:
            apply(message)
        return super().push(message, now, apply=apply, read=read)


class AppliesBeyondGaps(Receipts):
    def push(self, message: Numbered, now: float, *, apply: Apply, read: Read) -> Message:
        self.find(message.session, now).advance(message.sequence)
        return super().push(message, now, apply=apply, read=read)


class RecordsBeforeItApplies(Receipts):
    def push(self, message: Numbered, now: float, *, apply: Apply, read: Read) -> Message:
        session = self._heard(message, now)
        if message.sequence != session.applied + 1:
            return super().push(message, now, apply=apply, read=read)
        session.record(message.sequence, APPLIED)
        apply(message)
        return self.receipt(message, read)


class RemembersFive(Receipts):
    def __init__(self, *arguments: Any, **keywords: Any) -> None:
        super().__init__(*arguments, **keywords)
        self._recent: dict[bytes, deque[int]] = defaultdict(lambda: deque(maxlen=5))

    def push(self, message: Numbered, now: float, *, apply: Apply, read: Read) -> Message:
        session = self.find(message.session, now)
        recent = self._recent[message.session]
        if message.sequence not in recent:
            apply(message)
            recent.append(message.sequence)
            if message.sequence > session.applied:
                session.advance(message.sequence)
                session.record(message.sequence, APPLIED)
        return self.receipt(message, read)


class MakesUnknownSessions(Receipts):
    def find(self, session_id: bytes, now: float) -> Receipt:
        try:
            return super().find(session_id, now)
        except GlintError:
            return self._journal.open_session(session_id, bytes(16), now)


class PullsAtOnce(Receipts):
    def pull(self, message: Pull | PullKeys, now: float, *, read: Read) -> Message:
        return super().pull(replace(message, after=0), now, read=read)


class FloorFromTheWrongEnd(Session):
    @property
    def floor(self) -> int:
        return next(reversed(self._pushes), self._next_sequence)


class NumbersAnew(Session):
    def outgoing(self, now: float) -> list[list[wire.Buffer]]:
        for call in self._again:
            if call.numbered and not call.is_settled:
                del self._pushes[call.sequence]
                call.sequence = self._next_sequence
                self._next_sequence += 1
                self._pushes[call.sequence] = call
        return super().outgoing(now)


class IgnoresTheWindow(Session):
    def _has_room(self, call: Call) -> bool:
        return bool(call.key)


class SendsAllAgain(Session):
    def _probe(self, now: float) -> None:
        super()._probe(now)
        for call in self._open.values():
            self._schedule(call)


class TellsAllTheSame(Bundle):
    def _finish_each(self, dispatch: Dispatch) -> None:
        error = dispatch.error()
        assert error is not None
        for future in self._futures():
            future.set_exception(error)


class TellsOnlyOfTheFirstServer(Bundle):
    def _finish_each(self, dispatch: Dispatch) -> None:
        error = dispatch.error({0})
        for future in self._futures():
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(None)


class DealsTheNextOnesRows(Bundle):
    def _deal(self, values: NDArray[Any]) -> None:
        super()._deal(np.roll(values, 1, axis=0))


class ListsRowsInAnotherOrder(Bundle):
    def issue(self) -> None:
        if self._kind == "push":
            self._members.reverse()  # and not their values
        super().issue()


def forget_the_last(journal: Journal) -> None:
    """Make receipts what they were three pushes ago, as a table that is saved now and then."""
    for session in journal.sessions():
        session.applied = max(0, session.applied - 3)
        session._applied[0] = session.applied


class PutsNothingBack(Shelf):
    def _roll_back(self, journal: Journal) -> None:
        assert journal.undo is not None
        journal.undo.clear()


class PutsBackWhatHasItsReceipt(Shelf):
    def _roll_back(self, journal: Journal) -> None:
        del journal
        self.roll_back()


class DisarmsBeforeTheReceipt(Receipts):
    def push(self, message: Numbered, now: float, *, apply: Apply, read: Read) -> Message:
        def apply_and_disarm(push: Push | Change) -> None:
            apply(push)
            self._journal.settle()
            failpoints.hit("push.flag_cleared")

        return super().push(message, now, apply=apply_and_disarm, read=read)


DEFECTS: dict[str, tuple[Build, tuple[Kind, ...]]] = {
    "no dedupe": (Build(receipts=AppliesAgain), ("hostile", "resets")),
    "floor from the newest": (Build(session=FloorFromTheWrongEnd), ("hostile",)),
    "unknown session made anew": (Build(receipts=MakesUnknownSessions), ("hostile", "expiry")),
    "receipts older than the data": (Build(at_restart=forget_the_last), ("restarts",)),
    "receipts older than the data, after a kill": (Build(at_restart=forget_the_last), ("kills",)),
    "no undo": (Build(shelf=PutsNothingBack), ("kills",)),
    "undo of a push that has its receipt": (Build(shelf=PutsBackWhatHasItsReceipt), ("kills",)),
    "disarmed before the receipt": (Build(receipts=DisarmsBeforeTheReceipt), ("kills",)),
    "no dedupe, under kills": (Build(receipts=AppliesAgain), ("kills",)),
    "resend under a new number": (Build(session=NumbersAnew), ("hostile", "resets")),
    "recorded before it is applied": (Build(receipts=RecordsBeforeItApplies), ("hostile",)),
    "gap applied": (Build(receipts=AppliesBeyondGaps), ("hostile",)),
    "the last five receipts": (Build(receipts=RemembersFive), ("hostile", "restarts")),
    "pull that doesn't wait for its pushes": (Build(receipts=PullsAtOnce), ("hostile",)),
    "window ignored": (Build(session=IgnoresTheWindow), ("clean",)),
    "one outcome for a whole bundle": (Build(bundle=TellsAllTheSame), ("pauses", "resets", "hostile")),
    "a bundle's outcome at one server": (
        Build(bundle=TellsOnlyOfTheFirstServer),
        ("pauses", "resets", "hostile"),
    ),
    "a bundle's values dealt wrongly": (Build(bundle=DealsTheNextOnesRows), ("clean",)),
    "a bundle's values at others' rows": (Build(bundle=ListsRowsInAnotherOrder), ("clean",)),
    "payloads resent unasked": (Build(session=SendsAllAgain), ("pauses",)),
}


SLOW = {"no dedupe, under kills"}
"""What takes as long as all others together, and is planted without kills as well."""


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[pytest.mark.soak] if name in SLOW else []) for name in DEFECTS]
)
def test_a_planted_defect_is_noticed(seed: int, name: str) -> None:
    build, kinds = DEFECTS[name]
    assert "again with run_seed(" in caught(build, kinds, seed)


def add_by_index(values: NDArray[Any], selection: Selection, deltas: NDArray[Any]) -> None:
    rows = axis_indices(selection.rows)
    if selection.cols is None:
        values[rows] += deltas
    elif selection.paired:
        values[rows, axis_indices(selection.cols)] += deltas
    else:
        values[rows[:, None], axis_indices(selection.cols)] += deltas


def test_a_scatter_that_loses_repeated_rows_is_noticed(seed: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "scatter_add", add_by_index)
    assert "acknowledged" in caught(Build(), ("clean",), seed)


def test_rows_that_nobody_checks_on_the_server_are_noticed(
    seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def believed(self: Selection, num_rows: int, num_cols: int | None) -> tuple[int, ...]:
        del num_rows
        return self.shape(num_cols)

    monkeypatch.setattr(Selection, "check", believed)
    assert "again with run_seed(" in caught(Build(), ("clean",), seed)
