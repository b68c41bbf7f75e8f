"""Whatever arrives at a server, it answers with a typed failure or not at all, and nothing else changes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np
import pytest

from glintpy import config
from glintpy.errors import (
    DTypeError,
    Expelled,
    GlintError,
    KeyRangeError,
    ModelError,
    ModelNotFound,
    ProtocolMismatch,
    RemoteFailure,
    RemoteProtocolError,
    ShapeError,
)
from glintpy.protocol.messages import (
    Applied,
    Failure,
    Gap,
    Hello,
    Probe,
    Push,
    Values,
)
from glintpy.protocol.selection import slices_of
from tests.models.raw_peer import (
    COLS,
    NOBODY,
    ROUTING,
    ROWS,
    RawPeer,
    Served,
    Target,
    check_failure,
    header,
    indices,
)

# --- what is asked for -------------------------------------------------------------------------------------

Change = Callable[[Target, Push], Push]

SELECTIONS: dict[str, tuple[dict[str, object], type[GlintError], str]] = {
    "row beyond the last": ({"rows": indices(3, ROWS)}, KeyRangeError, "row 40 at position 1"),
    "negative row": ({"rows": indices(-1, 3)}, KeyRangeError, "row -1 at position 0"),
    "smallest int64": ({"rows": indices(3, -(2**63))}, KeyRangeError, "[0, 40)"),
    "largest int64": ({"rows": indices(2**63 - 1, 3)}, KeyRangeError, "[0, 40)"),
    "largest uint32": ({"rows": np.array([3, 2**32 - 1], np.uint32)}, KeyRangeError, "4294967295"),
    "slice outside": ({"rows": slices_of((39, 41, 1))}, KeyRangeError, "39:41:1"),
    "slice far outside": ({"rows": slices_of((2**62, 2**62 + 2, 1))}, KeyRangeError, "[0, 40)"),
    "second slice outside": ({"rows": slices_of((0, 1, 1), (40, 41, 1))}, KeyRangeError, "40:41:1"),
    "slice backward": ({"rows": slices_of((5, 3, 1))}, ShapeError, "5:3:1"),
    "slice of step 0": ({"rows": slices_of((3, 5, 0))}, ShapeError, "3:5:0"),
    "slice of negative step": ({"rows": slices_of((5, 3, -1))}, ShapeError, "5:3:-1"),
    "slice from below 0": ({"rows": slices_of((-2, 0, 1))}, ShapeError, "-2:0:1"),
    "column beyond the last": (
        {"cols": indices(*range(COLS - 1), COLS)},
        KeyRangeError,
        "column 6 at position 5",
    ),
    "negative column": ({"cols": indices(*range(COLS - 1), -1)}, KeyRangeError, "column -1"),
    "column slice outside": ({"cols": slices_of((1, COLS + 1, 1))}, KeyRangeError, "[0, 6)"),
    "pairs of two lengths": ({"paired": True, "cols": indices(1)}, ShapeError, "(2,), (1,)"),
    "pairs without columns": ({"paired": True}, ShapeError, "need columns"),
    "pairs of slices": (
        {"paired": True, "rows": slices_of((0, 2, 1)), "cols": slices_of((0, 2, 1))},
        ShapeError,
        "",
    ),
    "pair outside": ({"paired": True, "cols": indices(0, COLS)}, KeyRangeError, "column 6"),
    "other routing": ({"routing": ROUTING + 1}, ModelError, "routing 2"),
    "no such model": ({"model_id": 2**40}, ModelNotFound, str(2**40)),
}
"""Changes to a good push or pull, what answers it, and what the answer says."""

VALUES: dict[str, tuple[dict[str, object], type[GlintError], str]] = {
    "one row too few": ({"values": np.ones((1, COLS), np.float32)}, ShapeError, "(1, 6)"),
    "one column too many": ({"values": np.ones((2, COLS + 1), np.float32)}, ShapeError, "(2, 7)"),
    "flat": ({"values": np.ones(2 * COLS, np.float32)}, ShapeError, "(12,)"),
    "assigned in the wrong shape": (
        {"values": np.ones((1, COLS), np.float32), "assign": True},
        ShapeError,
        "(1, 6)",
    ),
    "pairs with rows of values": ({"paired": True, "cols": indices(0, 1)}, ShapeError, "(2, 6)"),
    "float64": ({"values": np.ones((2, COLS), np.float64)}, DTypeError, "float64"),
    "float16": ({"values": np.ones((2, COLS), np.float16)}, DTypeError, "float16"),
    "int32": ({"values": np.ones((2, COLS), np.int32)}, DTypeError, "int32"),
    "bool, assigned": ({"values": np.ones((2, COLS), np.bool_), "assign": True}, DTypeError, "bool"),
    "NaN": ({"values": np.full((2, COLS), np.nan, np.float32)}, DTypeError, "finite"),
    "infinity": ({"values": np.full((2, COLS), -np.inf, np.float32)}, DTypeError, "-inf at position (0, 0)"),
}


@pytest.mark.parametrize(("change", "error", "word"), [*SELECTIONS.values(), *VALUES.values()])
@pytest.mark.parametrize("wants_values", [False, True])
def test_a_wrong_push_is_refused_and_the_refusal_is_recorded(
    target: Target, change: dict[str, object], error: type[GlintError], word: str, wants_values: bool
) -> None:
    wrong = replace(target.push(), wants_values=wants_values, **change)  # type: ignore[arg-type]
    first = target.peer.refused(wrong, error, word)
    again = target.peer.refused(wrong, error, word)
    assert (again.code, again.text) == (first.code, first.text)
    target.peer.applied += 1  # the refusal is its outcome
    repaired = replace(target.push(), sequence=wrong.sequence)
    target.peer.refused(repaired, error, word)  # the number is used up, whatever comes under it
    target.check()


@pytest.mark.parametrize(("change", "error", "word"), SELECTIONS.values(), ids=SELECTIONS)
def test_a_wrong_pull_is_refused(
    target: Target, change: dict[str, object], error: type[GlintError], word: str
) -> None:
    base = replace(target.pull(), rows=indices(3, 5))
    target.peer.refused(replace(base, **change), error, word)  # type: ignore[arg-type]
    target.check()


def test_a_model_that_was_destroyed_is_not_found(target: Target) -> None:
    target.peer.refused(replace(target.pull(), model_id=target.destroyed_id), ModelNotFound, "destroyed")
    target.peer.refused(replace(target.push(), model_id=target.destroyed_id), ModelNotFound, "destroyed")
    target.peer.applied += 1
    target.check()


def test_a_vector_has_no_columns(target: Target) -> None:
    values = np.ones(2, np.int64)
    push = replace(target.push(), model_id=target.vector_id, cols=indices(0, 0), values=values)
    for paired in (False, True):
        wrong = replace(push, paired=paired, sequence=target.peer.applied + 1)
        target.peer.refused(wrong, ShapeError, "no columns")
        target.peer.applied += 1
        pull = replace(target.pull(), model_id=target.vector_id, paired=paired, cols=indices(0))
        target.peer.refused(pull, ShapeError, "no columns")
    target.check()


def test_an_answer_beyond_the_frame_limit_is_refused(target: Target) -> None:
    # Indices of a few MB ask for one row so often that its copies exceed the limit.
    rows = np.zeros(config.FRAME_BYTES_MAX // (COLS * 4) + 1, np.uint32)
    wrong = replace(target.pull(), rows=rows)
    target.peer.refused(wrong, RemoteProtocolError, str(config.FRAME_BYTES_MAX))
    far = replace(target.pull(), rows=slices_of((0, 2**62, 1)))
    target.peer.refused(far, KeyRangeError, str(2**62))
    target.check()


def test_a_push_whose_values_could_not_be_answered_is_refused_before_it_is_applied(
    served: Served, target: Target
) -> None:
    num_rows = config.FRAME_BYTES_MAX // (COLS * 4) + 1
    fields = target.push_fields()
    fields[7] = True
    frames = [
        header(fields, descriptors=[[4, num_rows], None, [10, num_rows, COLS]]),
        np.zeros(num_rows, np.int64).tobytes(),
        np.ones((num_rows, COLS), np.float32).tobytes(),
    ]
    if served.scheme == "local":
        failure = target.peer.ask_frames(frames, fields[0], Failure)
        check_failure(failure, RemoteProtocolError, str(config.FRAME_BYTES_MAX))
        target.peer.applied += 1
    else:
        # The frame itself is too long for the network: the connection ends, and the session goes on.
        session = target.peer.session
        target.peer.send(*frames)
        target.peer.close()
        target.peer = RawPeer(served.server.address)
        target.peer.hello(session=session)
    target.check()


# --- sessions ----------------------------------------------------------------------------------------------


def test_an_unknown_session_is_refused_and_never_made(target: Target) -> None:
    before = target.peer.status()["sessions"]
    for session in (NOBODY, b"\xff" * 16):
        target.peer.refused(replace(target.push(), session=session), Expelled, session.hex()[:8])
        target.peer.refused(replace(target.pull(), session=session), Expelled)
        target.peer.refused(Probe(target.peer.next_id(), session, 1, 1), Expelled)
        greeting = Hello(target.peer.next_id(), 1, 1, "", NOBODY, session, 1)
        target.peer.refused(greeting, Expelled)
    assert target.peer.status()["sessions"] == before
    target.check()


def test_one_sessions_numbers_are_nothing_to_another(served: Served, target: Target) -> None:
    other = RawPeer(served.server.address)
    assert other.hello().session != target.peer.session
    other.refused(replace(target.push(), session=other.session, floor=1, model_id=2**40), ModelNotFound)
    assert target.peer.applied == 0
    other.close()
    target.check()


def test_a_gap_is_answered_and_changes_nothing(target: Target) -> None:
    for ahead in (1, 7, 2**62):
        gap = target.peer.ask(replace(target.push(), sequence=target.peer.applied + 1 + ahead), Gap)
        assert gap.expected == target.peer.applied + 1
    gap = target.peer.ask(replace(target.pull(), after=target.peer.applied + 1), Gap)
    assert gap.expected == target.peer.applied + 1
    target.check()


def test_a_push_that_is_repeated_is_answered_and_not_applied(target: Target) -> None:
    target.check()
    target.check()
    for sequence in (1, 2):
        repeated = replace(target.push(), sequence=sequence, floor=1)
        target.peer.ask(repeated, Applied)
        found = target.peer.ask(replace(repeated, wants_values=True), Values)
        np.testing.assert_array_equal(found.values, np.full((2, COLS), 2 + 4))
    target.check()


def test_a_number_below_the_floor_is_passed_over_and_never_applied(target: Target) -> None:
    passed = target.peer.applied + 5
    wrong = replace(target.push(), sequence=target.peer.applied + 2, floor=passed + 1)
    target.peer.refused(wrong, RemoteFailure, "given up")
    target.peer.applied = passed
    for sequence in (passed - 1, passed):
        target.peer.refused(replace(target.push(), sequence=sequence, floor=1), RemoteFailure, "given up")
    target.check()


def test_other_versions_are_refused_by_name(target: Target) -> None:
    for low, high in ((2, 9), (255, 255)):
        hello = Hello(target.peer.next_id(), low, high, "", NOBODY, b"", 1)
        target.peer.refused(hello, ProtocolMismatch, f"{low} to {high}", "speaks 1")
    target.check()
