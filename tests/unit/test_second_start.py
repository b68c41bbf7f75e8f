"""A server that dies once more while it starts, after a kill: what its files had survived still counts."""

from __future__ import annotations

import errno
from dataclasses import replace
from pathlib import Path
from typing import NoReturn

import numpy as np
import pytest

from glintpy import config, failpoints
from glintpy.actors import durable
from glintpy.errors import ConfigError, NotEnoughMemory
from glintpy.storage import log, mapped, rounds
from glintpy.storage.journal import Journal
from glintpy.storage.shard import Shard
from glintpy.storage.undo import Undo
from tests.unit.disk_clients import NUM_COLS, Issued
from tests.unit.disk_world import World, run
from tests.unit.power_loss import LossyFiles, PowerCut


def die() -> None:
    raise PowerCut


@pytest.fixture
def world(tmp_path: Path, seed: int) -> World:
    """A server with a model that is in a log, 1, one that is not, 2, and one client that is welcome."""
    world = World(tmp_path / "server", seed, num_clients=1)
    world.create(1)
    world.create(2, durability="process")
    world.greet(world.clients[0])
    world.settle()
    return world


def issue(world: World, model_id: int, row: int) -> Issued:
    client = world.clients[0]
    rows, values = np.array([row], np.int64), np.ones((1, NUM_COLS), np.int64)
    issued = Issued(model_id, row, world._push_message(client, model_id, rows, values), is_bad=False)
    client.pushes[client.next_sequence] = issued
    client.next_sequence += 1
    return issued


def start_and_die(world: World) -> None:
    """Start, and die as soon as the journal was opened, as by a kill or for want of a port."""
    Journal.open(world.folder / "server.journal").close(clean=False)


def count_of(world: World, push: Issued) -> int:
    count: int = world.actor.shelf.shard(push.model_id).values[push.own_row, 0] - push.model_id
    return count


@pytest.mark.parametrize("model_id", [1, 2])
@pytest.mark.parametrize("place", ["push.before_undo", "push.half_applied", "push.applied", "push.recorded"])
def test_a_push_that_was_cut_off_is_in_once_after_a_start_that_failed(
    world: World, model_id: int, place: str
) -> None:
    cut_off = issue(world, model_id, 3)
    with failpoints.armed(place, die), pytest.raises(PowerCut):
        world._deliver(world.clients[0], cut_off.message)
    world.end(power=False)
    start_and_die(world)
    world.start()
    world.greet(world.clients[0])
    world.finish(world.clients[0])
    assert count_of(world, cut_off) == 1
    world.stop()


def test_a_start_that_fails_before_a_model_is_back_does_not_forget_it(world: World) -> None:
    push = issue(world, 1, 3)
    world._deliver(world.clients[0], push.message)
    world.settle()
    world.end(power=False)
    # As a process leaves it that was killed while it restored the model, which has no snapshot yet.
    (world.folder / "models" / "1.segment").unlink()
    start_and_die(world)
    world.start()
    assert count_of(world, push) == 1
    world.stop()


class Unreadable(LossyFiles):
    """A disk on which one kind of file can't be read or opened for a while."""

    fails: str = ""

    def open(self, path: Path, *, new: bool = False) -> int:
        if self.fails == "open" and path.name.startswith("snapshot-1-"):
            raise OSError(errno.EMFILE, "Too many open files")
        return super().open(path, new=new)

    def read(self, descriptor: int, num_bytes: int, offset: int) -> bytearray:
        if self.fails == "read" and self._open[descriptor][1].name.startswith("snapshot-1-"):
            raise OSError(errno.EIO, "Input/output error")
        return super().read(descriptor, num_bytes, offset)


@pytest.mark.parametrize("fails", ["open", "read"])
def test_a_snapshot_that_can_not_be_read_once_is_not_removed(tmp_path: Path, seed: int, fails: str) -> None:
    disk = Unreadable()
    world = World(tmp_path / "server", seed, disk=disk, num_clients=1)
    world.create(1)
    world.greet(world.clients[0])
    world.settle()
    push = issue(world, 1, 3)
    world._deliver(world.clients[0], push.message)
    world.settle()
    kept = world.actor.durable
    assert kept._log is not None
    assert list(kept._snapshots.all(kept._log, kept.sync))
    world.end(power=True)
    disk.fails = fails
    with pytest.raises(ConfigError, match="can't be read"):
        world.start()
    disk.fails = ""
    world.start()
    assert count_of(world, push) == 1
    world.stop()


def test_after_a_power_cut_a_start_that_fails_leaves_no_receipt_of_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "server.journal"
    journal = Journal.create(path, "server", 4)
    journal.open_session(bytes(16), bytes(16), 0.0).record(1, 0)
    journal.close(clean=False)
    monkeypatch.setattr(mapped, "boot_number", lambda: 1)

    def fail(path: Path) -> Undo:
        raise NotEnoughMemory(f"no room for {path}")

    with monkeypatch.context() as patched:
        patched.setattr(Undo, "open", fail)
        with pytest.raises(NotEnoughMemory):
            Journal.open(path)
    found = Journal.open(path)
    assert found.has_survived
    assert not found.was_whole
    assert found.num_sessions == 0
    found.close(clean=False)


@pytest.mark.parametrize("model_id", [1, 2])
def test_a_push_that_can_not_be_undone_is_undone_by_the_next_process(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch, model_id: int
) -> None:
    world = World(tmp_path / "server", seed, num_clients=1)
    world.create(model_id, durability="disk" if model_id == 1 else "process")
    world.greet(world.clients[0])
    world.settle()

    def fail(*_: object) -> NoReturn:
        raise MemoryError

    push, later = issue(world, model_id, 3), issue(world, model_id, 4)
    with monkeypatch.context() as patched:
        patched.setattr(Shard, "put_back", fail)
        with failpoints.armed("push.half_applied", fail):
            world._deliver(world.clients[0], push.message)
        world._deliver(world.clients[0], later.message)
        world._deliver(world.clients[0], replace(later.message, sequence=1))
        world.settle()
    assert push.outcome is later.outcome is None
    assert world.actor.is_killed
    assert not world.actor.inbox.empty(), "it told itself to stop"
    world.end(power=False)
    world.start()
    assert count_of(world, push) == 0
    world.greet(world.clients[0])
    world.settle()
    world.finish(world.clients[0])
    assert [told.outcome for told in (push, later)] == [0, 0]
    assert (count_of(world, push), count_of(world, later)) == (1, 1)
    world.stop()


class KillsOnly(World):
    """The machine never stops, so models that keep no log come back, too; and starts fail for other reasons."""

    def end(self, *, power: bool) -> None:
        del power
        super().end(power=False)

    def cut_power(self) -> None:
        self.num_crashes += 1

    def create(self, model_id: int, *, durability: config.Durability = "disk") -> None:
        super().create(model_id, durability=durability)
        self.models = dict.fromkeys(self.models, True)

    def come_back(self) -> None:
        for _ in range(self.source.choice([0, 0, 1, 2])):
            start_and_die(self)
        super().come_back()


@pytest.mark.parametrize("number", range(12))
def test_whatever_was_told_of_any_model_holds_after_kills_and_starts_that_fail(
    tmp_path: Path, seed: int, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    for module in (rounds, durable):
        monkeypatch.setattr(module, "SLICE_BYTES", 8192)
    for module in (log, durable):
        monkeypatch.setattr(module, "RESERVE_BYTES", 8192)
    world = KillsOnly(tmp_path / "server", seed + number)
    run(world, num_crashes=4, kills=1.0)
    world.stop()
    assert world.num_crashes
