"""Loops that write down what they change as they go: the bits of two passes, and undone wherever they are killed."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glintpy import failpoints
from glintpy.errors import ConfigError
from glintpy.protocol.selection import Selection
from glintpy.protocol.spec import ModelSpec
from glintpy.storage import compiled, kernels, loops
from glintpy.storage.kernels import Kernels
from glintpy.storage.shard import Shard
from glintpy.storage.undo import Undo
from glintpy.updaters import Add
from tests.unit.kernel_cases import DTYPES, any_bits, bits, ready

NUM_ROWS, NUM_COLS, NUM_CELLS = 7, 5, 12
PLAIN = {
    1: compiled.saving_of_vectors(loops.add_keys_saving),
    2: compiled.saving_of_matrices(loops.add_pairs_saving),
}


@pytest.fixture(autouse=True)
def _few_are_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(compiled, "_FEW_KEYS", 1)


@pytest.fixture
def undo(tmp_path: Path) -> Iterator[Undo]:
    made = Undo.open(tmp_path / "server.undo")
    yield made
    made.close(clean=False)


def cells_of(random: np.random.Generator, ndim: int, index: str) -> Selection:
    """Select cells of which many repeat."""
    rows = random.integers(0, NUM_ROWS, NUM_CELLS).astype(index)
    if ndim == 1:
        return Selection(rows)
    return Selection(rows, random.integers(0, 2, NUM_CELLS).astype(index), paired=True)


def shard_over(values: np.ndarray[Any, Any], undo: Undo | None) -> Shard:
    """Return a model over an array that saves as it goes, by the loops as plain Python."""
    num_cols = None if values.ndim == 1 else values.shape[1]
    spec = ModelSpec("m", values.shape[0], num_cols, values.dtype.name)
    shard = Shard(9, spec, 0, values, undo=undo)
    shard.kernels = Kernels(values.dtype, values.ndim, Add())
    shard.kernels._saving = PLAIN[values.ndim]
    return shard


class Killed(BaseException):
    """The process ends here."""


@pytest.mark.parametrize("ndim", [1, 2])
@pytest.mark.parametrize("index", ["<u4", "<i8"])
def test_wherever_it_is_killed_everything_is_put_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int, ndim: int, index: str
) -> None:
    random = np.random.default_rng(seed)
    shape = (NUM_ROWS, NUM_COLS)[:ndim]
    before = any_bits(random, shape, np.dtype("float64"))
    selection = cells_of(random, ndim, index)
    deltas = random.normal(size=NUM_CELLS)
    states: set[bytes] = set()
    for last in range(2 * NUM_CELLS):
        made = Undo.open(tmp_path / f"{last}.undo")
        values = before.copy()
        steps = itertools.count()

        def step(steps: Iterator[int] = steps, last: int = last) -> None:
            if next(steps) == last:
                raise Killed

        monkeypatch.setattr(loops, "in_order", step)
        made.begin(bytes(16), 3)
        with pytest.raises(Killed), np.errstate(all="ignore"):
            shard_over(values, made).push(selection, deltas)
        made.close(clean=False)
        states.add(values.tobytes())
        found = Undo.open(tmp_path / f"{last}.undo")
        pending = found.pending()
        assert pending is not None
        assert (pending.sequence, pending.selection.num_rows()) == (3, (last + 1) // 2)
        shard_over(values, found).put_back(pending)
        assert values.tobytes() == before.tobytes()
        shard_over(values, found).put_back(pending)
        assert values.tobytes() == before.tobytes()
        del pending
        found.close(clean=False)
    assert len(states) > NUM_CELLS // 2  # it was killed in different places


def test_a_whole_record_after_one_that_was_counted_is_whole(undo: Undo) -> None:
    values = np.arange(10.0)
    shard = shard_over(values, undo)
    shard.push(Selection(np.array([1, 1, 2])), np.ones(3))
    assert values[:3].tolist() == [0, 3, 3]
    counted = undo.pending()
    assert counted is not None
    assert counted.is_begun
    assert counted.selection.rows.tolist() == [2, 1, 1]
    shard.push(Selection(np.array([[0, 10, 1]])), np.ones(10))
    whole = undo.pending()
    assert whole is not None
    assert not whole.is_begun
    shard.put_back(whole)
    assert values[:3].tolist() == [0, 3, 3]
    del counted, whole


def test_a_count_beyond_the_rows_is_an_error(undo: Undo) -> None:
    shard_over(np.arange(10.0), undo).push(Selection(np.array([1, 1, 2])), np.ones(3))
    undo._body[56:64] = (9).to_bytes(8, "little")
    with pytest.raises(ConfigError, match="holds 8 old values of"):
        undo.pending()


def test_what_it_is_not_for_takes_two_passes(undo: Undo, monkeypatch: pytest.MonkeyPatch) -> None:
    def never(*_: object) -> None:
        raise AssertionError

    vector, matrix = np.zeros(9), np.zeros((9, 4))
    of_vector, of_matrix = shard_over(vector, undo), shard_over(matrix, undo)
    for shard in (of_vector, of_matrix):
        shard.kernels._saving = never
    of_vector.push(Selection(np.array([[0, 9, 1]])), np.ones(9))
    of_vector.push(Selection(np.array([3])), np.ones(1), assign=True)
    of_matrix.push(Selection(np.array([3, 4])), np.ones((2, 4)))
    of_matrix.push(Selection(np.array([3, 4]), np.array([0])), np.ones((2, 1)))
    without = shard_over(vector, None)
    without.kernels._saving = never
    without.push(Selection(np.array([3])), np.ones(1))
    monkeypatch.setattr(failpoints, "is_armed", lambda name: name == "push.half_applied")
    of_vector.push(Selection(np.array([3, 4])), np.ones(2))
    monkeypatch.setattr(compiled, "_FEW_KEYS", 3)
    monkeypatch.setattr(failpoints, "is_armed", lambda _: False)
    of_vector.push(Selection(np.array([3, 4])), np.ones(2))
    assert vector[3:5].tolist() == [4, 3]


def test_a_moment_that_is_being_read_keeps_what_changes(undo: Undo) -> None:
    values = np.zeros(9)
    shard = shard_over(values, undo)
    cut = shard.begin_cut(1, slice_rows=4)
    shard.push(Selection(np.array([3, 3, 8])), np.ones(3))
    assert np.concatenate([np.array(cut.read(at)) for at in range(cut.num_slices)]).tolist() == [0.0] * 9
    assert values.sum() == 3


@pytest.mark.parametrize(
    "dtype",
    [
        pytest.param(dtype, marks=[] if dtype.name in {"float32", "int64", "bool"} else [pytest.mark.soak])
        for dtype in DTYPES
    ],
    ids=str,
)
@pytest.mark.parametrize("ndim", [1, 2])
@settings(max_examples=30)
@given(data=st.data())
def test_compiled_and_plain_they_give_the_bits_of_two_passes(
    dtype: np.dtype[Any], ndim: int, data: st.DataObject
) -> None:
    random = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    before = any_bits(random, (NUM_ROWS, NUM_COLS)[:ndim], dtype)
    selection = cells_of(random, ndim, data.draw(st.sampled_from(["<u4", "<i8"])))
    deltas = any_bits(random, (NUM_CELLS,), dtype)
    expected = before.copy()
    kernels.scatter_add(expected, selection, deltas)
    compiled_one = ready(dtype, ndim).saving_of(selection)
    assert compiled_one is not None
    found = []
    for saving in (compiled_one, PLAIN[ndim]):
        values, old, saved = before.copy(), np.zeros(NUM_CELLS, dtype), np.zeros(1, np.uint64)
        with np.errstate(all="ignore"):
            saving(values, selection, deltas, old, saved)
        assert saved.tolist() == [NUM_CELLS + 1]
        found.append(bits(old))
        assert bits(values) == bits(expected)
        rows, cols = selection.rows[::-1], None if selection.cols is None else selection.cols[::-1]
        kernels.assign(values, Selection(rows, cols, selection.paired), old[::-1])
        assert bits(values) == bits(before)
    assert found[0] == found[1]
