"""A push that ends a round with a tag is in with all that it ends, or not at all, also when a server dies."""

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

from glintpy.actors import durable
from glintpy.actors.server import FromMaster
from glintpy.actors.shelf import Shelf
from glintpy.errors import ConfigError, ShapeError
from glintpy.protocol import wire
from glintpy.protocol.failures import APPLIED
from glintpy.protocol.messages import Done, SetLive
from glintpy.protocol.rounds import STEP, Turn
from glintpy.protocol.selection import Selection, slices_of
from glintpy.storage import log, rounds
from glintpy.storage.gathering import Ending, together
from glintpy.storage.journal import Journal
from glintpy.testing.updated import Updated
from glintpy.updaters import SGD, Add
from tests.unit.disk_clients import Issued
from tests.unit.disk_world import World
from tests.unit.test_gathering import end_round
from tests.unit.test_updating import ADAM, NUM_COLS, NUM_ROWS, make, shard_of, spec_of

BOTH = 0b11


def test_what_does_not_belong_to_the_open_round_is_refused() -> None:
    shard = shard_of(Add(), group="g")
    rows = Selection(np.array([3, 3, 5]))
    deltas = np.ones((3, NUM_COLS), np.float32)
    shard.live = BOTH
    assert not shard.push(rows, deltas, turn=Turn(1, 0))
    for turn, text in (
        (Turn(1, 0), "rank 0 has pushed"),
        (Turn(2, 1), "of round 1 to a row that is in round 0, to which ranks 0"),
        (STEP, "of a step to a row that is in round 0"),
    ):
        with pytest.raises(ConfigError, match=text):
            shard.push(rows, deltas, turn=turn)
    with pytest.raises(ShapeError, match="whole rows"):
        shard.push(Selection(rows.rows, np.array([0])), deltas[:, :1], turn=Turn(1, 1))
    with pytest.raises(ConfigError, match="gathers nothing"):
        shard_of(Add()).push(rows, deltas, turn=Turn(1, 0))
    assert shard.is_open(rows, Turn(1, 0))
    assert not shard.is_open(rows, Turn(1, 1))
    assert not shard.is_open(rows, Turn(2, 0))
    assert shard.push(Selection(np.array([5, 4])), deltas[:2], turn=Turn(1, 1)) == range(5, 6)
    assert shard.values[:, 0].tolist() == [0, 0, 0, 0, 0, 2, 0, 0, 0, 0]
    assert shard.push(Selection(np.array([3, 3])), deltas[:2], turn=Turn(1, 1)) == range(3, 4)
    assert shard.values[:, 0].tolist() == [0, 0, 0, 4, 0, 2, 0, 0, 0, 0]


def test_a_rank_that_is_lost_ends_the_rounds_of_the_others() -> None:
    shard = shard_of(Add(), group="g")
    deltas = np.ones((NUM_ROWS, NUM_COLS), np.float32)
    shard.push(Selection(slices_of((0, NUM_ROWS, 1))), deltas, turn=Turn(1, 0))
    end_round(shard)  # a step, which is none of these rows'
    assert not shard.values.any()
    for first, stop in shard.pieces_of_round(Ending(0b10)):
        shard.end_round(first, stop, Ending(0b10))
    assert not shard.values.any()
    for first, stop in shard.pieces_of_round(Ending(0b01)):
        shard.end_round(first, stop, Ending(0b01))
    assert shard.values.tolist() == deltas.tolist()
    assert not any(array.any() for array in shard.arrays[1:-1])


@given(st.data())
def test_rounds_of_slices_and_lists_leave_what_sums_leave(data: st.DataObject) -> None:
    """Whether rows lie side by side, and who comes first, changes nothing; a moment that is held meanwhile holds."""
    updater = data.draw(st.sampled_from([Add(), SGD(), ADAM]))
    shard = shard_of(updater, group="g")
    shard.live = 0b111
    expected = Updated(np.zeros((NUM_ROWS, NUM_COLS), np.float32), updater)
    sums = np.zeros((NUM_ROWS, NUM_COLS), np.float32)
    pushed = np.zeros((NUM_ROWS, 3), np.bool_)
    tags = np.zeros(NUM_ROWS, np.int64)
    begin = data.draw(st.integers(0, 6))
    moment, before = None, []
    for number in range(data.draw(st.integers(1, 12))):
        rank = data.draw(st.integers(0, 2))
        first = data.draw(st.integers(0, NUM_ROWS - 1))
        stop = data.draw(st.integers(first + 1, NUM_ROWS))
        rows = np.arange(first, stop)
        rows = rows[(tags[rows] == tags[first]) & ~pushed[rows, rank]]
        if not rows.size:
            continue
        selection = together(rows) if data.draw(st.booleans()) else Selection(rows)
        deltas = np.full((len(rows), NUM_COLS), 0.25 * (number + 1), np.float32)
        if number == begin:
            moment, before = shard.begin_cut(1, slice_rows=NUM_ROWS), [array.copy() for array in shard.arrays]
        shard.push(selection, deltas, turn=Turn(int(tags[first]) + 1, rank))
        sums[rows] += deltas
        pushed[rows, rank] = True
        ended = np.flatnonzero(pushed.all(axis=1))
        if ended.size:
            expected.push(ended, sums[ended])
        sums[ended], pushed[ended] = 0, False
        tags[ended] += 1
        for found, wanted in zip(shard.arrays, [expected.values, *expected.slots.values()], strict=False):
            np.testing.assert_array_equal(found, wanted)
    for index, array in enumerate(before):
        assert moment is not None
        np.testing.assert_array_equal(moment.read(index, floor=index), array)


def test_a_sum_that_overflows_is_infinite_and_warns_nobody() -> None:
    shard = shard_of(Add(), group="g")
    shard.live = BOTH
    rows, most = Selection(slices_of((2, 4, 1))), np.full((2, NUM_COLS), 3e38, np.float32)
    shard.push(rows, most, turn=Turn(1, 0))
    shard.push(rows, most, turn=Turn(1, 1))
    assert np.isinf(shard.values[2:4]).all()
    assert not shard.values[:2].any()


KILLED = """
import sys
from pathlib import Path
import numpy as np
from glintpy import failpoints
from glintpy.actors.shelf import Shelf
from glintpy.protocol.rounds import Turn
from glintpy.protocol.selection import Selection
from glintpy.storage.journal import Journal

folder, place = Path(sys.argv[1]), sys.argv[2]
journal = Journal.open(folder / "server.journal")
shelf = Shelf(folder / "models", journal=journal)
failpoints.arm(f"{place}=kill")
session = journal.find(bytes(16))
journal.undo.begin(bytes(16), 2)
shard = shelf.shard(1)
shard.live = 3
shard.push(Selection(np.array([1, 5, 7])), np.full((3, 4), 2.0, np.float32), turn=Turn(1, 1))
session.record(2, 0)
failpoints.hit("push.recorded")
journal.settle()
failpoints.hit("push.flag_cleared")
"""
"""A server's process that dies in the push that ends the round of two rows, at a named place."""

PLACES = [
    "push.flag_set",
    "push.half_applied",
    "round.half_applied",
    "round.applied",
    "push.applied",
    "push.recorded",
]


@pytest.mark.parametrize("place", PLACES)
def test_a_push_that_was_cut_off_and_what_it_ends_are_in_together_or_not_at_all(
    tmp_path: Path, place: str
) -> None:
    journal = Journal.create(tmp_path / "server.journal", "s", 4)
    shelf = Shelf(tmp_path / "models", journal=journal)
    make(shelf, 1, spec_of(ADAM, group="g"))
    shelf.shard(1).push(Selection(np.array([5, 7, 8])), np.full((3, 4), 1.0, np.float32), turn=Turn(1, 0))
    journal.settle()
    journal.open_session(bytes(16), bytes(16), 0.0).record(1, 0)
    before = [array.copy() for array in shelf.shard(1).arrays]
    shelf.close(clean=False)
    journal.close(clean=False)

    command = [sys.executable, "-c", KILLED, str(tmp_path), place]
    assert subprocess.run(command, check=False, timeout=60).returncode == -signal.SIGKILL

    journal = Journal.open(tmp_path / "server.journal")
    shelf = Shelf(tmp_path / "models", journal=journal)
    shard = shelf.shard(1)
    if place != "push.recorded":
        for found, wanted in zip(shard.arrays, before, strict=True):
            np.testing.assert_array_equal(found, wanted)
        shard.live = BOTH
        shard.push(Selection(np.array([1, 5, 7])), np.full((3, 4), 2.0, np.float32), turn=Turn(1, 1))
        journal.settle()
    expected = Updated(np.zeros((NUM_ROWS, NUM_COLS), np.float32), ADAM)
    expected.push([5, 7], 3.0)
    for found, wanted in zip(shard.arrays, [expected.values, *expected.slots.values()], strict=False):
        np.testing.assert_array_equal(found, wanted)
    assert np.flatnonzero(shard.arrays[-2]).tolist() == [1, 8]
    shelf.close()
    journal.close(clean=True)


# --- a power cut, and what a master says ------------------------------------------------------------------------


def set_live(world: World, version: int, live: int) -> None:
    before = len(world.told)
    world.actor.on_receive(FromMaster(wire.encode(SetLive(900 + version, 1, version, live))))
    world.settle()
    assert [type(told) for told in world.told[before:]] == [Done]


def test_rounds_with_tags_come_back_from_log_and_snapshots(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (log, durable):
        monkeypatch.setattr(module, "RESERVE_BYTES", 8192)
    for module in (rounds, durable):
        monkeypatch.setattr(module, "SLICE_BYTES", 4096)
    world = World(tmp_path / "server", seed, num_clients=1)
    num_rows = 300
    world.create_of(1, replace(spec_of(ADAM, num_rows=num_rows, durability="disk"), group="g"))
    (client,) = world.clients
    expected = Updated(np.zeros((num_rows, NUM_COLS), np.float32), ADAM)
    random = np.random.default_rng(seed)
    tag, version = 0, 0

    def push(rows: Any, deltas: Any, rank: int) -> None:
        message = replace(world._push_message(client, 1, rows, deltas), round=tag + 1, rank=rank)
        issued = Issued(1, 0, message, is_bad=False)
        client.pushes[client.next_sequence] = issued
        client.next_sequence += 1
        world._deliver(client, message)
        world.settle()
        assert issued.outcome == APPLIED

    for cut in range(6):
        world.greet(client)
        world.settle()
        version += 1
        set_live(world, version, BOTH)
        for turn in range(25):
            tag += 1
            rows = np.unique(random.integers(0, num_rows, 40))
            deltas = (random.integers(-16, 17, (2, len(rows), NUM_COLS)) / 8).astype(np.float32)
            push(rows, deltas[0], 0)
            if turn == 24:
                # The server ends in the middle of a round, and does not know who is alive until it is told.
                world.end(power=cut % 3 != 2)
                world.start()
                assert world.actor.shelf.shard(1).live == 0
                world.greet(client)
                world.settle()
                push(rows, deltas[1], 1)
                np.testing.assert_array_equal(world.actor.shelf.shard(1).values, expected.values)
                version += 1
                set_live(world, version, BOTH)
            else:
                push(rows, deltas[1], 1)
            expected.push(rows, deltas[0] + deltas[1])
            np.testing.assert_array_equal(world.actor.shelf.shard(1).values, expected.values)
        world.end(power=cut % 2 == 0)
        world.start()
        shard = world.actor.shelf.shard(1)
        for found, wanted in zip(shard.arrays, [expected.values, *expected.slots.values()], strict=False):
            np.testing.assert_array_equal(found, wanted)
        assert not any(array.any() for array in shard.arrays[-3:-1])
    world.stop()
