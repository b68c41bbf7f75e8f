"""What workers push until a round ends is applied once, each row once, whole rows or none, also when a server dies."""

from __future__ import annotations

import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glintpy import failpoints
from glintpy.actors import durable
from glintpy.actors.server import FromMaster
from glintpy.actors.shelf import Shelf
from glintpy.protocol import wire
from glintpy.protocol.failures import APPLIED
from glintpy.protocol.messages import Done, EndRound
from glintpy.protocol.selection import Selection, slices_of
from glintpy.storage import gathering, log, rounds
from glintpy.storage.gathering import Ending
from glintpy.storage.journal import Journal
from glintpy.storage.shard import Shard
from glintpy.testing.updated import Updated
from glintpy.updaters import SGD, Adam, Add, Updater, schedules
from tests.unit.disk_clients import Issued
from tests.unit.disk_world import World
from tests.unit.test_updating import ADAM, NUM_COLS, NUM_ROWS, make, shard_of, spec_of

DELTAS = np.ones((2, NUM_COLS), np.float32)


class Gathered:
    """What a shard should have: a reference, and sums with the rows that somebody pushed to."""

    def __init__(self, updater: Updater, num_rows: int = NUM_ROWS) -> None:
        self.updated = Updated(np.zeros((num_rows, NUM_COLS), np.float32), updater)
        self.sums = np.zeros((num_rows, NUM_COLS), np.float32)
        self.touched: set[int] = set()

    def push(self, rows: Any, deltas: NDArray[Any], cols: Any = None) -> None:
        np.add.at(self.sums, rows if cols is None else (rows, cols), deltas)
        self.touched |= set(np.asarray(rows).tolist())

    def end(self) -> None:
        rows = sorted(self.touched)
        if rows:
            self.updated.push(rows, self.sums[rows])
        self.sums[:] = 0
        self.touched.clear()

    def assert_equal(self, shard: Shard) -> None:
        *kept, pushers, tags, sums = shard.arrays
        for found, wanted in zip(kept, [self.updated.values, *self.updated.slots.values()], strict=True):
            np.testing.assert_array_equal(found, wanted, strict=True)
        rows = sorted(self.touched)
        assert np.flatnonzero(pushers).tolist() == rows
        np.testing.assert_array_equal(
            sums[rows], self.sums[rows], strict=True
        )  # of other rows they are anything
        assert not tags.any()


def end_round(shard: Shard) -> None:
    for first, stop in shard.pieces_of_round(Ending()):
        shard.end_round(first, stop, Ending())


def pushes() -> st.SearchStrategy[list[tuple[list[int], bool]]]:
    rows = st.lists(st.integers(0, NUM_ROWS - 1), min_size=1, max_size=6)
    return st.lists(st.tuples(rows, st.booleans()), max_size=6)


@given(st.sampled_from([Add(), SGD(), ADAM]), st.lists(pushes(), max_size=4))
def test_each_row_is_applied_once_a_round_with_the_sum_of_what_was_pushed(
    updater: Updater, rounds_of_pushes: list[list[tuple[list[int], bool]]]
) -> None:
    shard, expected = shard_of(updater, group="g"), Gathered(updater)
    for each in rounds_of_pushes:
        for rows, is_paired in each:
            chosen = np.array(rows)
            cols = chosen % NUM_COLS if is_paired else None
            deltas = np.full((len(rows), *(() if is_paired else (NUM_COLS,))), 0.25, np.float32)
            before = shard.pull(Selection(slices_of((0, NUM_ROWS, 1))))
            shard.push(Selection(chosen, cols, paired=is_paired), deltas)
            np.testing.assert_array_equal(shard.values, before)  # nobody sees it yet
            expected.push(chosen, deltas, cols)
            expected.assert_equal(shard)
        end_round(shard)
        expected.end()
        expected.assert_equal(shard)
        end_round(shard)  # again: nothing is left to be applied
        expected.assert_equal(shard)


def test_a_round_is_ended_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "SCANNED", 3)
    monkeypatch.setattr("glintpy.config.PART_BYTES", 2 * 16)
    shard, expected = shard_of(SGD(), group="g"), Gathered(SGD())
    rows = np.array([9, 0, 1, 2, 4, 6])
    deltas = np.arange(24, dtype=np.float32).reshape(6, 4)
    shard.push(Selection(rows), deltas)
    expected.push(rows, deltas)
    assert list(shard.pieces_of_round(Ending())) == [(0, 2), (2, 3), (4, 5), (6, 7), (9, 10)]
    end_round(shard)
    expected.end()
    expected.assert_equal(shard)


def test_a_vector_gathers_too() -> None:
    shard = shard_of(Add(), num_cols=None, dtype="int64", group="g")
    shard.push(Selection(np.array([3, 3, 5])), np.array([1, 2, 4]))
    assert not shard.values.any()
    end_round(shard)
    assert shard.values.tolist() == [0, 0, 0, 3, 0, 4, 0, 0, 0, 0]


def test_values_that_are_assigned_are_there_at_once() -> None:
    shard = shard_of(SGD(), group="g")
    shard.push(Selection(np.array([1, 2])), DELTAS)
    shard.push(Selection(np.array([1])), DELTAS[:1] * 7, assign=True)
    assert shard.values[:, 0].tolist() == [0, 7, 0, 0, 0, 0, 0, 0, 0, 0]


def test_a_model_without_rounds_has_none_to_end() -> None:
    shard = shard_of(Add())
    assert not list(shard.pieces_of_round(Ending()))
    shard.end_round(0, NUM_ROWS, Ending())
    assert len(shard.arrays) == 1


def test_a_moment_that_is_read_holds_what_was_before_the_round() -> None:
    shard = shard_of(ADAM, group="g")
    shard.push(Selection(np.array([1, 8])), DELTAS)
    expected = [array.copy() for array in shard.arrays]
    moment = shard.begin_cut(1, slice_rows=NUM_ROWS)
    end_round(shard)
    for index, wanted in enumerate(expected):
        np.testing.assert_array_equal(moment.read(index, floor=index), wanted)
    shard.end_cut(1)


def test_sums_count_when_room_is_asked_for(tmp_path: Path) -> None:
    shelf = Shelf(tmp_path)
    shelf.reserve(1, spec_of(SGD(), group="g"), num_rows=NUM_ROWS)
    assert shelf.num_bytes == NUM_ROWS * (16 + 16 + 8 + 8)
    shelf.close()


# --- a server that is killed ------------------------------------------------------------------------------------


KILLED = """
import sys
from pathlib import Path
import numpy as np
from glintpy import failpoints
from glintpy.actors.shelf import Shelf
from glintpy.storage.gathering import Ending
from glintpy.storage.journal import Journal

folder, place = Path(sys.argv[1]), sys.argv[2]
journal = Journal.open(folder / "server.journal")
shelf = Shelf(folder / "models", journal=journal)
shard = shelf.shard(1)
shard.end_round(0, 5, Ending())
failpoints.arm(f"{place}=kill")
shard.end_round(5, 10, Ending())
"""
"""A server's process that dies in the second piece of a round, at a named place."""


@pytest.mark.parametrize(
    "place",
    ["push.before_undo", "push.undo_written", "push.flag_set", "round.half_applied", "round.applied"],
)
def test_a_round_that_was_cut_off_goes_on_and_each_row_counts_once(tmp_path: Path, place: str) -> None:
    journal = Journal.create(tmp_path / "server.journal", "s", 4)
    shelf = Shelf(tmp_path / "models", journal=journal)
    make(shelf, 1, spec_of(ADAM, group="g"))
    expected = Gathered(ADAM)
    rows = np.array([1, 4, 5, 9])
    deltas = np.full((4, NUM_COLS), 0.5, np.float32)
    shelf.shard(1).push(Selection(rows), deltas)
    expected.push(rows, deltas)
    journal.settle()
    shelf.close(clean=False)
    journal.close(clean=False)

    command = [sys.executable, "-c", KILLED, str(tmp_path), place]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL

    journal = Journal.open(tmp_path / "server.journal")
    shelf = Shelf(tmp_path / "models", journal=journal)
    shard = shelf.shard(1)
    assert np.flatnonzero(shard.arrays[-3]).tolist() == [5, 9]  # the piece that was cut off is undone
    end_round(shard)
    assert journal.undo is not None
    assert not journal.undo.is_armed
    expected.end()
    expected.assert_equal(shard)
    shelf.close()
    journal.close(clean=True)


# --- a power cut, and what a master says ------------------------------------------------------------------------


def end_the_round(world: World, version: int) -> list[Any]:
    before = len(world.told)
    world.actor.on_receive(FromMaster(wire.encode(EndRound(900 + version, 1, version))))
    world.settle()
    return world.told[before:]


def test_rounds_come_back_from_log_and_snapshots(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (log, durable):
        monkeypatch.setattr(module, "RESERVE_BYTES", 8192)
    for module in (rounds, durable):
        monkeypatch.setattr(module, "SLICE_BYTES", 4096)
    monkeypatch.setattr("glintpy.config.PART_BYTES", 1024)
    world = World(tmp_path / "server", seed, num_clients=1)
    num_rows, rule = 300, Adam(learning_rate=schedules.InverseTime(0.1, 0.5))
    world.create_of(1, replace(spec_of(rule, num_rows=num_rows, durability="disk"), group="g"))
    (client,) = world.clients
    expected = Gathered(rule, num_rows)
    random = np.random.default_rng(seed)
    version = 0
    for cut in range(6):
        world.greet(client)
        world.settle()
        for turn in range(30):
            rows = np.unique(random.integers(0, num_rows, 40))
            deltas = (random.integers(-16, 17, (len(rows), NUM_COLS)) / 8).astype(np.float32)
            issued = Issued(1, 0, world._push_message(client, 1, rows, deltas), is_bad=False)
            client.pushes[client.next_sequence] = issued
            client.next_sequence += 1
            world._deliver(client, issued.message)
            world.settle()
            assert issued.outcome == APPLIED
            expected.push(rows, deltas)
            if turn % 7 == cut:
                version += 1
                assert [type(told) for told in end_the_round(world, version)] == [Done]
                expected.end()
                # An order that comes again, behind pushes of the next round, ends nothing.
                assert [type(told) for told in end_the_round(world, version)] == [Done]
        expected.assert_equal(world.actor.shelf.shard(1))
        world.end(power=cut % 3 != 2)
        world.start()
        expected.assert_equal(world.actor.shelf.shard(1))
    world.stop()


@pytest.mark.parametrize("place", ["round.half_applied", "round.applied"])
@pytest.mark.parametrize("power", [False, True])
def test_a_round_cut_off_by_a_kill_or_a_power_cut_goes_on(
    tmp_path: Path, seed: int, place: str, power: bool
) -> None:
    world = World(tmp_path / "server", seed, num_clients=1)
    world.create_of(1, replace(spec_of(ADAM, durability="disk"), group="g"))
    (client,) = world.clients
    world.greet(client)
    world.settle()
    rows, deltas = np.array([1, 4, 9]), np.full((3, NUM_COLS), 0.5, np.float32)
    issued = Issued(1, 0, world._push_message(client, 1, rows, deltas), is_bad=False)
    client.pushes[client.next_sequence] = issued
    world._deliver(client, issued.message)
    world.settle()
    expected = Gathered(ADAM)
    expected.push(rows, deltas)

    def stop() -> None:
        raise KeyboardInterrupt  # not an Exception: nothing handles it, as nothing handles a kill

    world.actor.on_receive(FromMaster(wire.encode(EndRound(900, 1, 1))))
    with failpoints.armed(place, stop), pytest.raises(KeyboardInterrupt):
        world.settle()
    world.end(power=power)
    world.start()
    assert [type(told) for told in end_the_round(world, 1)] == [Done]
    expected.end()
    expected.assert_equal(world.actor.shelf.shard(1))
    world.stop()
