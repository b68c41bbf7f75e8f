"""Messages of functions from a peer without manners: answered, counted once, and nobody else's problem."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from glintpy import config
from glintpy.errors import (
    ConfigError,
    DTypeError,
    Expelled,
    GlintError,
    KeyRangeError,
    ModelError,
    ModelNotFound,
    RemoteFailure,
    RemoteProtocolError,
    ShapeError,
)
from glintpy.protocol import wire
from glintpy.protocol.messages import Applied, Change, Compute, Computed, Failure, Gap
from glintpy.protocol.selection import slices_of
from tests.models.raw_peer import COLS, NOBODY, ROUTING, ROWS, Target, indices

ALL = slices_of((0, ROWS, 1))


def compute(target: Target, function: str = "sum", numbers: Any = None, **fields: Any) -> Compute:
    """Return a good message, but for what is given."""
    peer = target.peer
    base = Compute(
        *(peer.next_id(), peer.session, 1, 0, target.matrix_id, ROUTING, 0, 0, 0, function),
        numbers=wire.document({} if numbers is None else numbers),
        rows=ALL,
        others=None,
        first=None,
        second=None,
        third=None,
    )
    return replace(base, **fields)


def change(target: Target, function: str = "scale", numbers: Any = None, **fields: Any) -> Change:
    """Return a good message, but for what is given."""
    peer, sequence = target.peer, target.peer.applied + 1
    base = Change(
        *(peer.next_id(), peer.session, sequence, sequence, target.matrix_id, ROUTING, 0, 0, 0, function),
        numbers=wire.document({} if numbers is None else numbers),
        rows=ALL,
        cols=None,
        others=None,
        first=None,
        second=None,
        third=None,
    )
    return replace(base, **fields)


VECTOR = np.ones(COLS)
WORDS = np.array([1, 2], np.uint8)

WRONG: dict[str, tuple[str, Any, dict[str, Any], type[GlintError], str]] = {
    "unknown function": ("summ", {}, {}, ConfigError, "no function 'summ'"),
    "a path that is not allowed": ("os.path.join", {}, {}, ConfigError, "may not be imported here"),
    "a path of the package's own": ("glintpy.functions.reductions.Sum", {}, {}, ConfigError, "imported here"),
    "no name": ("", {}, {}, ConfigError, "no function ''"),
    "one that changes": ("scale", {}, {}, ConfigError, "asked for by a Change"),
    "unknown number": ("sum", {"axes": 1}, {}, ConfigError, "no number 'axes'"),
    "number of another type": ("top_k", {"k": "3"}, {"first": VECTOR}, ConfigError, "k is an int"),
    "number as a list": ("sum", {"axis": [0]}, {}, ConfigError, "axis is None, 0 or 1"),
    "numbers as a list": ("sum", [], {}, RemoteProtocolError, "a JSON object"),
    "numbers without end": ("sum", {"axis": "x" * 5000}, {}, RemoteProtocolError, "at most 4096"),
    "an argument too many": ("sum", {}, {"first": VECTOR}, ShapeError, "takes no arrays; 1 came"),
    "an argument too few": ("top_k", {}, {}, ShapeError, "0 came"),
    "query too long": ("top_k", {}, {"first": np.ones(COLS + 1)}, ShapeError, "(7,)"),
    "query of integers": ("top_k", {}, {"first": np.ones(COLS, np.int64)}, ShapeError, "int64"),
    "query of two dimensions": ("top_k", {}, {"first": np.ones((1, COLS))}, ShapeError, "(1, 6)"),
    "row outside": ("sum", {}, {"rows": indices(ROWS)}, KeyRangeError, "row 40"),
    "slice outside": ("sum", {}, {"rows": slices_of((0, ROWS + 1, 1))}, KeyRangeError, "[0, 40)"),
    "no rows, and none can be told": ("argmax", {}, {"rows": indices()}, RemoteFailure, "empty"),
    "other routing": ("sum", {}, {"routing": ROUTING + 1}, ModelError, "routing 2"),
    "no such model": ("sum", {}, {"model_id": 2**40}, ModelNotFound, str(2**40)),
    "products with nothing": ("dot", {}, {}, ShapeError, "need other rows"),
    "no such other model": ("dot", {}, {"others": ALL, "other_id": 2**40}, ModelNotFound, str(2**40)),
    "others outside": ("dot", {}, {"others": indices(*[ROWS] * ROWS)}, KeyRangeError, "row 40"),
    "too few others": ("dot", {}, {"others": indices(1)}, ShapeError, "(1, 6)"),
    "index outside the vectors": (
        "dot",
        {},
        {"rows": indices(1), "first": np.ones((2, COLS)), "second": indices(2)},
        KeyRangeError,
        "[0, 2)",
    ),
    "negative index": (
        "dot",
        {},
        {"rows": indices(1), "first": np.ones((2, COLS)), "second": indices(-1)},
        KeyRangeError,
        "[0, 2)",
    ),
    "vectors of another width": (
        "dot",
        {},
        {"rows": indices(1), "first": np.ones((2, 9)), "second": indices(1)},
        ShapeError,
        "(2, 9)",
    ),
    "draws of weights that are none": (
        "sample",
        {"n": 2**20, "piece": 0, "power": 2000.0},
        {},
        ModelError,
        "none any more",
    ),
    "a choice among rows in a list": (
        "dot_negative",
        {"seed": 1},
        {"rows": indices(0, 1), "first": WORDS, "second": WORDS, "others": slices_of((0, 1, 1))},
        ShapeError,
        "one slice of step 1",
    ),
    "a table that is a matrix": (
        "dot_negative",
        {"seed": 1},
        {"first": WORDS, "second": WORDS, "others": slices_of((0, 20, 1))},
        ShapeError,
        "running sums of 20 words",
    ),
    "words that there are not": (
        "dot_negative",
        {"seed": 1},
        {"first": WORDS, "second": WORDS + np.uint8(18), "others": slices_of((0, 20, 1))},
        KeyRangeError,
        "outputs 20 at position 1 is outside [0, 20)",
    ),
    "no table": ("dot_negative", {"seed": 1}, {"first": WORDS, "second": WORDS}, ShapeError, "20 words"),
    "a table outside": (
        "dot_negative",
        {"seed": 1},
        {"first": WORDS, "second": WORDS, "others": slices_of((30, 50, 1))},
        KeyRangeError,
        "[0, 40)",
    ),
    "a seed of 65 bits": ("dot_negative", {"seed": 2**64}, {}, ConfigError, "seed is an int"),
}
"""A function, its numbers, changes to a good message, what answers it, and what the answer says."""


@pytest.mark.parametrize(("function", "numbers", "fields", "error", "word"), WRONG.values(), ids=WRONG)
def test_a_wrong_call_is_refused(
    target: Target, function: str, numbers: Any, fields: dict[str, Any], error: type[GlintError], word: str
) -> None:
    if "others" in fields:
        fields = {"other_id": target.matrix_id, "other_routing": ROUTING, **fields}
    target.peer.refused(compute(target, function, numbers, **fields), error, word)
    target.check()


def test_a_call_of_more_than_a_frame_is_refused_unless_it_is_one_row(target: Target) -> None:
    rows = np.zeros(config.FRAME_BYTES_MAX // (COLS * 4) + 1, np.uint32)
    target.peer.refused(compute(target, rows=rows), RemoteProtocolError, str(config.FRAME_BYTES_MAX))
    slices = np.repeat(slices_of((0, ROWS, 1)), config.SLICES_MAX, axis=0)
    vector = compute(target, rows=slices, model_id=target.vector_id)
    target.peer.ask(vector, Computed)
    nothing = target.served.client.matrix(2**20, 0)
    empty = compute(target, rows=np.repeat(slices_of((0, 2**20, 1)), 4096, axis=0))
    target.peer.refused(
        replace(empty, model_id=nothing._info.model_id), ShapeError, "rows are too many for one part"
    )
    nothing.destroy()
    target.check()


def test_a_stranger_runs_no_function(target: Target) -> None:
    target.peer.refused(compute(target, session=NOBODY), Expelled)
    target.peer.refused(change(target, session=NOBODY), Expelled)
    target.check()


def test_a_call_before_its_client_s_pushes_is_answered_gap(target: Target) -> None:
    early = compute(target, after=target.peer.applied + 1)
    assert target.peer.ask(early, Gap).expected == target.peer.applied + 1
    late = change(target, "fill", {"value": 7}, sequence=target.peer.applied + 2, floor=1)
    assert target.peer.ask(late, Gap).expected == target.peer.applied + 1
    target.check()


WRONG_CHANGES: dict[str, tuple[str, Any, dict[str, Any], type[GlintError], str]] = {
    "unknown function": ("scal", {}, {}, ConfigError, "no function 'scal'"),
    "one that reads": ("sum", {}, {}, ConfigError, "asked for by a Compute"),
    "a number that a cell can't hold": ("fill", {"value": 1e40}, {}, DTypeError, "1e+40"),
    "NaN for a model that refuses it": ("fill", {"value": float("nan")}, {}, DTypeError, "finite"),
    "an argument too many": ("scale", {}, {"first": VECTOR}, ShapeError, "1 came"),
    "row outside": ("scale", {}, {"rows": indices(ROWS)}, KeyRangeError, "row 40"),
    "column outside": ("scale", {}, {"cols": indices(COLS)}, KeyRangeError, "column 6"),
    "other routing": ("scale", {}, {"routing": ROUTING + 1}, ModelError, "routing 2"),
    "numbers as a text": ("scale", "by", {}, RemoteProtocolError, "a JSON object"),
    "other rows for a function without a use for them": (
        "scale",
        {},
        {"others": ALL, "other_id": 2**40},
        ModelNotFound,
        str(2**40),
    ),
    "a change of rows that are chosen by nothing": ("adjust", {"seed": 1}, {}, ShapeError, "0 came"),
    "gradients for other pairs": (
        "adjust",
        {"seed": 1},
        {"first": WORDS, "second": WORDS, "third": np.zeros((1, 6))},
        ShapeError,
        "2 pairs with 5 negatives have (2, 6)",
    ),
    "a change by what is not finite": (
        "adjust",
        {"seed": 1},
        {"first": WORDS, "second": WORDS, "third": np.full((2, 6), np.inf)},
        DTypeError,
        "finite=True",
    ),
    "more than a frame": (
        "scale",
        {},
        {"rows": np.zeros(config.FRAME_BYTES_MAX // (COLS * 4) + 1, np.uint32)},
        RemoteProtocolError,
        str(config.FRAME_BYTES_MAX),
    ),
}


@pytest.mark.parametrize(
    ("function", "numbers", "fields", "error", "word"), WRONG_CHANGES.values(), ids=WRONG_CHANGES
)
def test_a_wrong_change_is_refused_and_the_refusal_is_recorded(
    target: Target, function: str, numbers: Any, fields: dict[str, Any], error: type[GlintError], word: str
) -> None:
    wrong = change(target, function, numbers, **fields)
    first = target.peer.refused(wrong, error, word)
    assert target.peer.ask(wrong, Failure).text == first.text
    target.peer.applied += 1  # the refusal is its outcome
    target.check()


def test_a_change_that_comes_again_is_answered_and_runs_once(target: Target) -> None:
    doubled = change(target, "scale", {"by": 2}, rows=indices(20, 21))
    for _ in range(3):
        target.peer.ask(doubled, Applied)
    target.peer.applied += 1
    np.testing.assert_array_equal(target.matrix.pull([20, 21, 22]).result()[:, 0], [4, 4, 2])
    # Pushes and changes share their numbers.
    pushed = target.push()
    assert pushed.sequence == doubled.sequence + 1
    target.peer.ask(doubled, Applied)
    again = change(target, "scale", {"by": 0.5}, rows=indices(20, 21), cols=slices_of((0, COLS, 1)))
    target.peer.ask(again, Applied)
    target.peer.ask(doubled, Applied)
    target.peer.applied += 1
    target.check()


def test_the_answer_of_a_function_is_no_view_of_what_is_stored(target: Target) -> None:
    before = target.peer.ask(compute(target, "take"), Computed)
    assert before.first is not None
    held = before.first.copy()
    target.matrix.push(None, 1).result()
    np.testing.assert_array_equal(before.first, held)
    target.matrix.push(None, -1).result()
    target.check()


def test_numbers_that_are_no_json_are_refused(target: Target) -> None:
    wrong = replace(compute(target), numbers=np.frombuffer(b"{", np.uint8))
    target.peer.refused(wrong, RemoteProtocolError, "not JSON")
    target.check()


def test_rows_of_one_model_are_multiplied_with_its_own(target: Target) -> None:
    answer = target.peer.ask(
        compute(target, "dot", {}, others=ALL, other_id=target.matrix_id, other_routing=ROUTING), Computed
    )
    assert answer.first is not None
    assert answer.first.tolist() == [4.0 * COLS] * ROWS
    assert answer.second is None
