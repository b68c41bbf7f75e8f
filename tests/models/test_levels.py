"""Pushes of values of few levels: what they do is what pushes do, and few bytes travel."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.errors import (
    ConfigError,
    DTypeError,
    Expelled,
    GlintError,
    KeyRangeError,
    ModelError,
    ShapeError,
)
from glintpy.protocol.messages import Applied, Gap, PushLevels
from glintpy.testing.updated import Updated
from glintpy.updaters import Adagrad
from tests.models.raw_peer import COLS, NOBODY, ROUTING, ROWS, Target, indices

TERNARY = [-0.5, 0.0, 0.5]


@pytest.fixture(scope="module")
def client() -> Iterator[glintpy.Client]:
    with glintpy.LocalCluster(3, scheme="local") as cluster, cluster.client() as client:
        yield client


@pytest.mark.parametrize("num_levels", [1, 2, 3, 16, 17, 256])
@pytest.mark.parametrize(
    "selection",
    [
        {"rows": None},
        {"rows": 7},
        {"rows": slice(50, 3, -3)},
        {"rows": [5, 5, 0, 99]},
        {"rows": None, "cols": [2, 0]},
        {"rows": [1, 1, 98], "cols": [0, 3, 4]},
        {"rows": []},
    ],
    ids=str,
)
def test_any_selection_is_pushed_as_values_are(
    client: glintpy.Client, selection: dict[str, Any], num_levels: int, seed: int
) -> None:
    random = np.random.default_rng(seed)
    levels = np.unique(random.normal(size=num_levels).astype("float32"))
    with client.matrix(100, 5, dtype="float32") as plain, client.matrix(100, 5, dtype="float32") as coded:
        values = random.choice(levels, size=plain.pull(**selection).result().shape)
        plain.push(values=values, **selection).result()
        coded.push(values=values, levels=random.permutation(levels), **selection).result()
        np.testing.assert_array_equal(coded[...], plain[...])


def test_order_among_other_pushes_is_that_of_the_calls(client: glintpy.Client) -> None:
    with client.vector(1000, dtype="int64", updater="assign") as vector:
        for turn in range(50):
            vector.push([3, 700], turn)
            vector.push(slice(0, 1000), turn + 1, levels=[turn + 1, -1])
            assert vector[[3, 700]].tolist() == [turn + 1] * 2


def test_repeats_that_an_updater_sums_first_are_summed(client: glintpy.Client) -> None:
    rule = Adagrad(learning_rate=0.1)
    with client.matrix(10, 2, updater=rule) as model:
        expected = Updated(np.zeros((10, 2)), rule)
        for rows in ([4, 4, 1], [2, 3, 9]):
            values = np.array([[0.5, -0.5], [0.5, 0.0], [-0.5, 0.5]])
            model.push(rows, values, levels=TERNARY).result()
            expected.push(rows, values)
        np.testing.assert_allclose(model[...], expected.values, rtol=1e-12)


def test_large_pushes_travel_in_parts_of_few_bytes(seed: int) -> None:
    values = np.random.default_rng(seed).choice(np.array(TERNARY, "float32"), size=(1000, 1500))

    with glintpy.LocalCluster(2, scheme="local") as cluster, cluster.client() as client:

        def bytes_in() -> int:
            return sum(server["holds"]["bytes_in"] for server in client.status()["servers"])

        model = client.matrix(1000, 1500, dtype="float32")
        model.pull(0).result()
        before = bytes_in()
        model.push(None, values).result()
        plain, before = bytes_in() - before, bytes_in()
        model.push(None, values, levels=TERNARY).result()
        coded = bytes_in() - before
        assert plain > values.nbytes
        assert coded < plain / 15.5
        np.testing.assert_array_equal(model[...], 2 * values)


@pytest.mark.parametrize(
    ("values", "levels", "error", "said"),
    [
        (
            [0.5, 0.25],
            TERNARY,
            DTypeError,
            "values at position 1 is 0.25, which is none of the levels -0.5, 0.0, 0.5",
        ),
        ([0.5, 0.5], [], ShapeError, "levels are 1 to 256 numbers"),
        ([0.5, 0.5], 0.5, ShapeError, "levels are 1 to 256 numbers"),
        ([0.5, 0.5], list(range(257)), ShapeError, "levels are 1 to 256 numbers"),
        ([0.5, 0.5], [0.5, float("nan")], DTypeError, "levels at position 1 is nan"),
        ([0.5, 0.5], [0.5, 1e300], DTypeError, r"levels at position 1 is 1e\+300"),
        ([0.5, 0.5], ["a"], DTypeError, "levels"),
    ],
)
def test_what_can_t_be_is_said_before_anything_is_sent(
    client: glintpy.Client, values: Any, levels: Any, error: type, said: str
) -> None:
    with client.vector(2, dtype="float32") as vector:
        with pytest.raises(error, match=said):
            vector.push(None, values, levels=levels)
        assert not vector[...].any()


# --- foreign frames -------------------------------------------------------------------------------------------


def push(target: Target, **fields: Any) -> PushLevels:
    """Return a message that is good, but for what is given."""
    peer, sequence = target.peer, target.peer.applied + 1
    good = PushLevels(
        *(peer.next_id(), peer.session, sequence, sequence, target.matrix_id, ROUTING, 0, 0, 0),
        paired=False,
        rows=indices(3, 5),
        cols=None,
        levels=np.array([0, 1], np.float32),
        codes=np.full(2, 255, np.uint8),
    )
    return replace(good, **fields)


WRONG: dict[str, tuple[dict[str, Any], type[GlintError], str]] = {
    "too few codes": ({"codes": np.zeros(1, np.uint8)}, ShapeError, "(1,)"),
    "codes as values": ({"codes": np.zeros(2, np.float32)}, DTypeError, "float32"),
    "levels of another dtype": ({"levels": np.zeros(2)}, DTypeError, "float64"),
    "no levels": ({"levels": np.zeros(0, np.float32)}, ShapeError, "(0,)"),
    "a code beyond the levels": ({"levels": np.zeros(1, np.float32)}, DTypeError, "none of 1 levels"),
    "what is not finite": ({"levels": np.array([0, np.inf], np.float32)}, DTypeError, "finite"),
    "row outside": ({"rows": indices(3, ROWS)}, KeyRangeError, "row 40"),
    "column outside": ({"cols": indices(*range(1, COLS + 1))}, KeyRangeError, "column 6"),
    "slices without end": ({"rows": np.array([[0, 2**62, 1]] * 4)}, ShapeError, "may stand for"),
    "a slice backward": ({"rows": np.array([[2, 1, 1]])}, ShapeError, "forward"),
    "a round without a group": ({"round": 3}, ConfigError, "gathers nothing"),
    "other routing": ({"routing": ROUTING + 1}, ModelError, "routing 2"),
}


@pytest.mark.parametrize(("fields", "error", "word"), WRONG.values(), ids=WRONG)
def test_a_wrong_push_is_refused_and_changes_nothing(
    target: Target, fields: dict[str, Any], error: type[GlintError], word: str
) -> None:
    message = push(target, **fields)
    target.peer.refused(message, error, word)
    target.peer.applied += 1
    # Again: the recorded refusal.
    target.peer.refused(message, error, word)
    target.check()


def test_a_push_is_applied_once_and_in_its_turn(target: Target) -> None:
    target.peer.refused(push(target, session=NOBODY), Expelled)
    early = push(target, sequence=target.peer.applied + 2, floor=1)
    assert target.peer.ask(early, Gap).expected == target.peer.applied + 1
    message = push(target)
    target.peer.ask(message, Applied)
    target.peer.ask(message, Applied)
    target.peer.applied += 1
    target.num_pushed += 1
    target.check()
