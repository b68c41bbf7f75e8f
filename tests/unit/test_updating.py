"""Updaters in a server: entries in order, steps of rows, and values and slots that change together or not at all."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glintpy import failpoints
from glintpy.actors import durable
from glintpy.actors.shelf import Shelf
from glintpy.errors import ConfigError, DTypeError, NotEnoughMemory, ShapeError
from glintpy.protocol.failures import APPLIED
from glintpy.protocol.selection import Selection, slices_of
from glintpy.protocol.spec import ModelSpec, numbers_text
from glintpy.storage import log, rounds
from glintpy.storage.arrays import arrays_of
from glintpy.storage.compiled import prove_update
from glintpy.storage.journal import Journal
from glintpy.storage.kernels import Kernels
from glintpy.storage.shard import Shard
from glintpy.storage.updating import count_steps, entries_of, ranks_of, rounds_of
from glintpy.testing.updated import Updated
from glintpy.updaters import SGD, Adagrad, Adam, Ftrl, Mean, Updater, name_of, named, schedules
from tests.cluster.helpers import until
from tests.unit.disk_clients import Issued
from tests.unit.disk_world import World
from tests.unit.own_updaters import Halves

NUM_ROWS, NUM_COLS = 10, 4
ADAM = Adam(learning_rate=schedules.InverseTime(0.1, 0.5))


def spec_of(rule: Updater, **changes: Any) -> ModelSpec:
    numbers = numbers_text(rule.to_content())
    return ModelSpec(
        **{
            "name": "m",
            "num_rows": NUM_ROWS,
            "num_cols": NUM_COLS,
            "dtype": "float32",
            "updater": name_of(rule),
            "updater_numbers": numbers,
            **changes,
        }
    )


def shard_of(updater: Updater, **changes: Any) -> Shard:
    spec = spec_of(updater, **changes)
    values, *slots = (np.zeros((NUM_ROWS, *a.row_shape), a.dtype) for a in arrays_of(spec, updater))
    return Shard(1, spec, 1, values, slots=slots)


def make(shelf: Shelf, model_id: int, spec: ModelSpec) -> None:
    empty = np.empty((0, 4), np.int64)
    for _ in shelf.create(model_id, spec, routing=1, num_rows=NUM_ROWS, extents=empty, slice_cells=8):
        pass


def assert_equal(shard: Shard, expected: Updated) -> None:
    for found, wanted in zip(shard.arrays, [expected.values, *expected.slots.values()], strict=True):
        np.testing.assert_array_equal(found, wanted, strict=True)


# --- entries --------------------------------------------------------------------------------------------------


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20), st.booleans())
def test_steps_are_counted_in_the_order_of_the_entries(rows: list[int], is_paired: bool) -> None:
    steps = np.arange(6, dtype=np.uint32)
    expected, counted = steps.copy(), []
    for index, row in enumerate(rows):
        if not (is_paired and index and rows[index - 1] == row):
            expected[row] += 1
        counted.append(int(expected[row]))
    assert count_steps(steps, np.array(rows), is_paired=is_paired).tolist() == counted
    assert steps.tolist() == expected.tolist()


@given(st.lists(st.integers(0, 5), min_size=1, max_size=20))
def test_rounds_take_each_entry_once_and_each_cell_once_in_a_round(keys: list[int]) -> None:
    array = np.array(keys)
    ranks = ranks_of(array)
    assert (ranks is None) == (len(set(keys)) == len(keys))
    if ranks is not None:
        assert ranks.tolist() == [keys[:index].count(key) for index, key in enumerate(keys)]
    taken = [np.arange(len(keys))[chosen] for chosen in rounds_of(array)]
    assert sorted(np.concatenate(taken).tolist()) == list(range(len(keys)))
    for chosen in taken:
        assert len(set(array[chosen].tolist())) == len(chosen)


@pytest.mark.parametrize(
    ("selection", "starts", "width"),
    [
        (Selection(np.array([3, 1], np.uint32)), [12, 4], 4),
        (Selection(slices_of((0, 6, 3))), [0, 12], 4),
        (Selection(np.array([3, 1]), np.array([0, 2]), paired=True), [12, 6], 1),
        (Selection(np.array([3, 1]), np.array([0, 2])), [12, 14, 4, 6], 1),
        (Selection(np.array([3, 1]), slices_of((1, 4, 1))), [13, 5], 3),
        (Selection(np.array([3]), slices_of((0, 4, 2))), [12, 14], 1),
        (Selection(np.array([3]), slices_of((2, 2, 1))), [14], 0),
    ],
)
def test_a_selection_is_runs_of_cells(selection: Selection, starts: list[int], width: int) -> None:
    found, length = entries_of(selection, NUM_COLS)
    assert (found.tolist(), length) == (starts, width)
    assert found.dtype == np.int64


@pytest.mark.parametrize(
    ("slices", "starts", "width"),
    [
        ([(2, 6, 1)], [8], 16),
        ([(0, 6, 3)], [0, 12], 4),
        ([(2, 2, 1)], [8], 0),
        ([(0, 1, 1), (1, 2, 1)], [0, 4], 4),
    ],
)
def test_rows_side_by_side_are_one_run_where_they_are_alike(
    slices: list[tuple[int, int, int]], starts: list[int], width: int
) -> None:
    found, length = entries_of(Selection(slices_of(*slices)), NUM_COLS, joined=True)
    assert (found.tolist(), length) == (starts, width)
    assert found.dtype == np.int64


@pytest.mark.parametrize("num_cols", [None, 3])
@pytest.mark.parametrize("updater", [SGD(0.5), Adagrad(0.5), ADAM], ids=lambda updater: updater.name)
def test_a_slice_leaves_what_its_rows_leave_one_by_one(updater: Updater, num_cols: int | None) -> None:
    shards = [shard_of(updater, num_cols=num_cols) for _ in range(2)]
    for number in range(3):
        deltas = np.arange(7 * (num_cols or 1), dtype=np.float32).reshape(7, -1)[:, : num_cols or 1] - number
        deltas = deltas if num_cols else deltas[:, 0]
        shards[0].push(Selection(slices_of((2, 9, 1))), deltas)
        shards[1].push(Selection(np.arange(2, 9, dtype=np.uint32)), deltas)
    for sliced, listed in zip(shards[0].arrays, shards[1].arrays, strict=True):
        np.testing.assert_array_equal(sliced, listed)


def test_rows_beyond_32_bits_of_cells_have_64_bit_starts() -> None:
    starts, _ = entries_of(Selection(np.array([2**31], np.uint32)), 2**20)
    assert starts.tolist() == [2**51]


# --- a shard --------------------------------------------------------------------------------------------------


def test_what_a_push_is_refused_for_changes_neither_values_nor_slots() -> None:
    shard = shard_of(ADAM, finite=True)
    before = [array.copy() for array in shard.arrays]
    bad = np.full((1, NUM_COLS), np.nan, np.float32)
    with pytest.raises(DTypeError, match="not finite"):
        shard.push(Selection(np.array([1])), bad)
    with pytest.raises(ShapeError, match="only the values can be pushed to"):
        shard.push(Selection(np.array([1])), np.zeros((1, NUM_COLS), np.float32), array=1)
    with pytest.raises(ShapeError, match="has 4 arrays, and no number 4"):
        shard.pull(Selection(np.array([1])), array=4)
    with pytest.raises(ShapeError, match="values of shape"):
        shard.push(Selection(np.array([1])), np.zeros((1, NUM_COLS), np.uint32), assign=True, array=3)
    with pytest.raises(DTypeError, match="for a model of uint32"):
        shard.push(Selection(np.array([1])), np.zeros(1, np.float32), assign=True, array=3)
    for found, wanted in zip(shard.arrays, before, strict=True):
        np.testing.assert_array_equal(found, wanted)


def test_arrays_that_are_not_the_updaters_are_refused() -> None:
    with pytest.raises(ShapeError, match="has other arrays"):
        Shard(1, spec_of(ADAM), 1, np.zeros((NUM_ROWS, NUM_COLS), np.float32))


def test_a_moment_holds_values_and_slots_of_one_instant() -> None:
    shard = shard_of(ADAM)
    rows = np.arange(NUM_ROWS, dtype=np.uint32)
    shard.push(Selection(rows), np.ones((NUM_ROWS, NUM_COLS), np.float32))
    expected = [array.copy() for array in shard.arrays]
    moment = shard.begin_cut(1, slice_rows=3)
    assert moment.num_slices == 4 * len(shard.arrays)
    shard.push(Selection(rows[2:7], np.array([0, 1, 2, 3, 0]), paired=True), np.ones(5, np.float32))
    shard.push(Selection(np.array([9])), np.ones((1, NUM_COLS), np.float32))
    for number, wanted in enumerate(expected):
        slices = [moment.read(number * 4 + index, floor=number * 4 + index) for index in range(4)]
        np.testing.assert_array_equal(np.concatenate(slices), wanted)
    assert moment.num_bytes <= sum(array[-3:].nbytes for array in shard.arrays)
    shard.end_cut(1)


def test_a_loop_that_is_not_its_formula_is_not_used() -> None:
    def wrong(values: NDArray[Any], *_: Any) -> None:
        values += 1

    with pytest.raises(RuntimeError, match="'mean' doesn't give what its formula gives"):
        prove_update(wrong, Mean(), np.dtype("<f4"))


@pytest.mark.parametrize("updater", [ADAM, Ftrl(), Mean()], ids=lambda updater: updater.name)
def test_a_formula_gives_way_to_its_loop_and_nobody_can_tell(updater: Updater, seed: int) -> None:
    random = np.random.default_rng(seed)
    plain, compiled = shard_of(updater), shard_of(updater)
    kernels = Kernels(np.dtype("<f4"), 2, updater, compilable=True)
    steps = kernels.prepare()
    while kernels.wants_preparing:  # another process of the tests may be compiling into the folder
        until(lambda: next(steps, True), "the other's turn ends")
    assert kernels.update_loop is not None
    assert compiled._updating is not None
    for turn in range(40):
        if turn == 10:
            compiled._updating._kernels = kernels
        rows = random.integers(0, NUM_ROWS, 7)
        deltas = random.normal(size=(7, NUM_COLS)).astype(np.float32)
        selection = Selection(rows) if turn % 3 else Selection(rows, rows % NUM_COLS, paired=True)
        for shard in (plain, compiled):
            shard.push(selection, deltas if turn % 3 else deltas[:, 0])
    for one, other in zip(plain.arrays, compiled.arrays, strict=True):
        assert one.tobytes() == other.tobytes()


# --- a server that is killed ------------------------------------------------------------------------------------


KILLED = """
import sys
from pathlib import Path
import numpy as np
from glintpy import failpoints
from glintpy.actors.shelf import Shelf
from glintpy.protocol.selection import Selection
from glintpy.storage.journal import Journal

folder, place, kind = Path(sys.argv[1]), sys.argv[2], sys.argv[3]
journal = Journal.open(folder / "server.journal")
shelf = Shelf(folder / "models", journal=journal)
failpoints.arm(f"{place}=kill")
session = journal.find(bytes(16))
journal.undo.begin(bytes(16), 2)
rows = np.array([1, 5, 7], np.uint32)
if kind == "cells":
    shelf.shard(1).push(Selection(rows, np.array([3, 0, 0]), paired=True), np.full(3, 5.0, np.float32))
else:
    shelf.shard(1).push(Selection(rows), np.full((3, 4), 5.0, np.float32))
session.record(2, 0)
failpoints.hit("push.recorded")
journal.settle()
failpoints.hit("push.flag_cleared")
failpoints.hit("push.before_ack")
"""
"""A server's process that dies in a push, at a named place."""

PLACES = [name for name in sorted(failpoints.NAMES) if name.startswith("push.")]


@pytest.mark.parametrize("place", PLACES)
def test_values_and_slots_of_a_push_that_was_cut_off_are_in_together_or_not_at_all(
    tmp_path: Path, place: str
) -> None:
    kind = "cells" if len(place) % 2 and place != "push.half_applied" else "rows"
    journal = Journal.create(tmp_path / "server.journal", "s", 4)
    shelf = Shelf(tmp_path / "models", journal=journal)
    make(shelf, 1, spec_of(ADAM))
    expected = Updated(np.zeros((NUM_ROWS, NUM_COLS), np.float32), ADAM)
    rows = np.arange(NUM_ROWS)
    shelf.shard(1).push(Selection(rows), np.full((NUM_ROWS, NUM_COLS), 0.5, np.float32))
    expected.push(rows, 0.5)
    journal.settle()
    journal.open_session(bytes(16), bytes(16), 0.0).record(1, 0)
    shelf.close(clean=False)
    journal.close(clean=False)

    command = [sys.executable, "-c", KILLED, str(tmp_path), place, kind]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL

    journal = Journal.open(tmp_path / "server.journal")
    shelf = Shelf(tmp_path / "models", journal=journal)
    if place in {"push.recorded", "push.flag_cleared", "push.before_ack"}:
        expected.push([1, 5, 7], 5.0, [3, 0, 0] if kind == "cells" else None)
    assert shelf.shard(1).updater == ADAM
    assert_equal(shelf.shard(1), expected)
    shelf.close()
    journal.close(clean=True)


def test_an_exception_in_the_middle_of_a_push_undoes_the_slots_too(tmp_path: Path) -> None:
    def give_up() -> None:
        raise failpoints.FailpointError("as asked")

    journal = Journal.create(tmp_path / "server.journal", "s", 4)
    assert journal.undo is not None
    shelf = Shelf(tmp_path / "models", journal=journal)
    make(shelf, 1, spec_of(ADAM, dtype="float16"))
    shard = shelf.shard(1)
    expected = Updated(np.zeros((NUM_ROWS, NUM_COLS), np.float16), ADAM)
    journal.undo.begin(bytes(16), 1)
    deltas = np.ones((5, NUM_COLS), np.float16)
    with failpoints.armed("push.half_applied", give_up), pytest.raises(failpoints.FailpointError):
        shard.push(Selection(slices_of((0, 10, 2))), deltas)
    assert shard.arrays[3].any(), "the place was not in the middle"
    shelf.roll_back()
    assert_equal(shard, expected)
    journal.undo.begin(bytes(16), 2)
    shard.push(Selection(slices_of((0, 10, 2))), deltas)
    journal.settle()
    expected.push(range(0, 10, 2), 1.0)
    assert_equal(shard, expected)
    shelf.close()
    journal.close(clean=True)


def test_slots_count_when_room_is_asked_for(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path, memory_limit=NUM_ROWS * (3 * 16 + 4) - 1)
    with pytest.raises(NotEnoughMemory, match=f"needs {NUM_ROWS * (3 * 16 + 4)} bytes"):
        shelf.reserve(1, spec_of(ADAM), num_rows=NUM_ROWS)
    shelf.reserve(1, spec_of(named("sgd")), num_rows=NUM_ROWS)
    shelf.close()


def test_updaters_that_a_server_cannot_have_are_refused_before_anything_is_made(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    with pytest.raises(ConfigError, match="no updater 'magic'"):
        shelf.reserve(1, spec_of(ADAM, updater="magic"), num_rows=NUM_ROWS)
    with pytest.raises(ConfigError, match="--allow os"):
        shelf.reserve(1, spec_of(ADAM, updater="os.system"), num_rows=NUM_ROWS)
    with pytest.raises(ConfigError, match="beta9"):
        shelf.reserve(1, spec_of(ADAM, updater_numbers='{"beta9":1}'), num_rows=NUM_ROWS)
    with pytest.raises(DTypeError, match="computes with fractions"):
        shelf.reserve(1, spec_of(ADAM, dtype="int32"), num_rows=NUM_ROWS)
    assert shelf.num_bytes == 0
    shelf.close()


# --- a power cut ------------------------------------------------------------------------------------------------


def test_values_and_slots_come_back_from_log_and_snapshots(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (log, durable):
        monkeypatch.setattr(module, "RESERVE_BYTES", 8192)
    for module in (rounds, durable):
        monkeypatch.setattr(module, "SLICE_BYTES", 4096)
    world = World(tmp_path / "server", seed, num_clients=1)
    num_rows = 300
    world.create_of(1, spec_of(ADAM, num_rows=num_rows, durability="disk"))
    world.create_of(2, spec_of(Halves(), name="halves", durability="disk"))
    (client,) = world.clients
    expected = Updated(np.zeros((num_rows, NUM_COLS), np.float32), ADAM)
    random = np.random.default_rng(seed)
    for cut in range(6):
        world.greet(client)
        world.settle()
        for _ in range(40):
            rows = np.unique(random.integers(0, num_rows, 40))
            deltas = (random.integers(-16, 17, (len(rows), NUM_COLS)) / 8).astype(np.float32)
            issued = Issued(1, 0, world._push_message(client, 1, rows, deltas), is_bad=False)
            client.pushes[client.next_sequence] = issued
            client.next_sequence += 1
            world._deliver(client, issued.message)
            world.settle()
            assert issued.outcome == APPLIED
            expected.push(rows, deltas)
        assert_equal(world.actor.shelf.shard(1), expected)
        world.end(power=cut % 3 != 2)
        world.start()
        assert_equal(world.actor.shelf.shard(1), expected)
        assert_equal(
            world.actor.shelf.shard(2), Updated(np.zeros((NUM_ROWS, NUM_COLS), np.float32), Halves())
        )
    world.stop()
