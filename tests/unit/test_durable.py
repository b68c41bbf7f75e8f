"""Level ``disk`` in one server: groups, a disk that fails or is full, what is bounded, and that no bit changes."""

from __future__ import annotations

import errno
import logging
from pathlib import Path

import numpy as np
import pytest

from glintpy import config
from glintpy.actors import durable
from glintpy.actors.home import Home
from glintpy.actors.mailbox import Idle
from glintpy.errors import ConfigError
from glintpy.protocol.failures import APPLIED
from glintpy.protocol.messages import Done
from glintpy.protocol.spec import ModelSpec
from glintpy.storage import log, rounds
from tests.unit.disk_clients import NUM_COLS, NUM_ROWS, Issued
from tests.unit.disk_world import LOG, World
from tests.unit.power_loss import LossyFiles, failing, nothing

NOT_ENOUGH_MEMORY = 21


@pytest.fixture(autouse=True)
def small_things(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have logs of many files, and snapshots of many slices."""
    for module in (log, durable):
        monkeypatch.setattr(module, "RESERVE_BYTES", 8192)
    for module in (rounds, durable):
        monkeypatch.setattr(module, "SLICE_BYTES", 4096)


@pytest.fixture
def world(tmp_path: Path, seed: int) -> World:
    """A server with one model and one client that is welcome."""
    world = World(tmp_path / "server", seed, num_clients=1)
    world.create(1)
    world.greet(world.clients[0])
    world.settle()
    return world


def push(world: World, *, row: int | None = None) -> Issued:
    """Push ones to a row; nothing else is done, so that the answer may still be held."""
    client = world.clients[0]
    own = row if row is not None else world.num_rows_used[1]
    if row is None:
        world.num_rows_used[1] += 1
    rows, values = np.array([own], np.int64), np.ones((1, NUM_COLS), np.int64)
    issued = Issued(1, own, world._push_message(client, 1, rows, values), is_bad=False)
    client.pushes[client.next_sequence] = issued
    client.next_sequence += 1
    world.issued.append(issued)
    world._deliver(client, issued.message)
    return issued


def calls_of(disk: LossyFiles) -> list[str]:
    """Return a list that grows by the name of each call."""
    calls: list[str] = []
    disk.before = lambda what, _: calls.append(what)
    return calls


def test_pushes_that_arrive_together_share_one_sync_and_are_answered_after_it(world: World) -> None:
    calls = calls_of(world.disk)
    pushes = [push(world) for _ in range(20)]
    assert calls.count("sync") == 0
    assert {issued.outcome for issued in pushes} == {None}
    assert world.actor.held.backlog_bytes
    world.settle()
    assert calls.count("sync") == 1
    assert {issued.outcome for issued in pushes} == {APPLIED}
    assert not world.actor.held.backlog_bytes


def test_a_group_that_is_full_is_synced_although_more_arrives(world: World) -> None:
    pushes = [push(world) for _ in range(durable.GROUP_PUSHES - 1)]
    assert {issued.outcome for issued in pushes} == {None}
    pushes.append(push(world))
    assert {issued.outcome for issued in pushes} == {APPLIED}


def test_a_pull_is_held_back_behind_a_push_that_it_has_seen(world: World) -> None:
    client = world.clients[0]
    issued = push(world)
    world._deliver(client, world._pull_message(client, 1))
    assert not world.seen[1]
    world.settle()
    assert world.seen[1] == {issued.own_row}


def test_models_of_other_levels_wait_for_no_sync(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path / "server", seed, num_clients=1)
    world.create(1, durability="process")
    world.greet(world.clients[0])
    calls = calls_of(world.disk)
    assert push(world).outcome == APPLIED
    assert calls == []
    world.create(2)
    calls.clear()
    assert push(world).outcome == APPLIED
    assert "sync" not in calls


@pytest.mark.parametrize("what", ["sync", "write"])
def test_a_disk_that_fails_ends_the_server_and_nobody_is_answered(
    world: World, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    before = push(world)
    world.settle()
    with failing(world.disk, what), caplog.at_level(logging.CRITICAL):
        issued = push(world)
        world._deliver(world.clients[0], world._pull_message(world.clients[0], 1))
        world.settle()
    assert issued.outcome is None
    assert not world.seen[1]
    assert world.actor.is_killed
    assert not world.actor.inbox.empty(), "it told itself to stop"
    assert "as if killed" in caplog.text
    calls = calls_of(world.disk)
    world.actor.on_tick(world.now)
    world.settle()
    assert calls == [], "nothing is tried again"
    world.end(power=False)
    world.start()
    world.check()
    assert [push.outcome for push in (before, *world.issued)] == [APPLIED] * 3
    # What the failed sync may have dropped is on the disk by now, by other means.
    world.end(power=True)
    world.start()
    world.check()


def test_on_a_full_disk_pushes_are_refused_and_reads_go_on_until_there_is_room(world: World) -> None:
    world.disk.num_free = 0
    size = int(world.actor.durable._log._size)  # type: ignore[union-attr]
    for _ in range(size // 300):
        last = push(world, row=0)
    world.settle()
    assert last.outcome == NOT_ENOUGH_MEMORY
    applied = sum(issued.outcome == APPLIED for issued in world.issued)
    assert applied
    world._deliver(world.clients[0], world._pull_message(world.clients[0], 1))
    assert world.actor.shelf.shard(1).values[0, 0] == applied + 1
    world.disk.num_free = 2**30
    assert (again := push(world, row=0)) is not None
    world.settle()
    assert again.outcome == APPLIED
    outcomes = [issued.outcome for issued in world.issued]
    world.end(power=True)
    world.start()
    for issued in world.issued:
        issued.outcome = None
    world.clients[0].floor = 1
    world.probe(world.clients[0])
    world.settle()
    assert [issued.outcome for issued in world.issued] == outcomes, "receipts are right, refusals too"
    assert world.actor.shelf.shard(1).values[0, 0] == applied + 2


def test_log_and_snapshots_stay_within_their_bound(world: World) -> None:
    grows_by = max(48 * config.KIB, world.actor.shelf.num_bytes)
    highest = 0
    for _ in range(1200):
        push(world, row=0)
        if world.source.random() < 0.5:
            world.actor.on_receive(Idle(is_quiet=world.source.random() < 0.5))
        highest = max(highest, sum(len(world.disk.content(LOG / name)) for name in world.disk.names(LOG)))
    file_bytes = 16384
    assert highest < 2 * grows_by + 2 * world.actor.shelf.num_bytes + 4 * file_bytes
    assert len([name for name in world.disk.names(LOG) if name.startswith("snapshot")]) <= 3


def test_not_one_bit_of_a_float_differs_after_a_replay(tmp_path: Path, seed: int) -> None:
    source = np.random.default_rng(seed)
    world = World(tmp_path / "server", seed, num_clients=2)
    for client in world.clients:
        world.greet(client)
    spec = ModelSpec("floats", 50, None, "float32", init=("normal", 0.0, 1.0), seed=5, durability="disk")
    steps = world.actor.shelf.create(
        7, spec, routing=1, num_rows=50, extents=np.array([[0, 50, 0, 1]], np.int64), slice_cells=100
    )
    for _ in steps:
        pass
    world.settle()
    for number in range(400):
        client = world.clients[number % 2]
        rows = source.integers(0, 50, 20)
        values = source.normal(size=20).astype(np.float32) * np.float32(10.0) ** source.integers(-6, 6)
        message = world._push_message(client, 7, rows, values)
        client.pushes[client.next_sequence] = Issued(7, 0, message, is_bad=False)
        client.next_sequence += 1
        world._deliver(client, message)
    world.settle()
    before = world.actor.shelf.shard(7).values.copy()
    world.models[7] = True
    world.end(power=True)
    world.start()
    np.testing.assert_array_equal(world.actor.shelf.shard(7).values.view(np.uint32), before.view(np.uint32))


def test_a_number_that_was_passed_over_is_never_applied_after_a_power_cut(world: World) -> None:
    client = world.clients[0]
    lost = Issued(
        1,
        5,
        world._push_message(client, 1, np.array([5], np.int64), np.ones((1, NUM_COLS), np.int64)),
        is_bad=False,
        given_up=True,
    )
    client.pushes[client.next_sequence] = lost
    client.next_sequence += 1
    world.probe(client)
    world.settle()
    world.end(power=True)
    world.start()
    world._deliver(client, lost.message)
    world.settle()
    assert (world.actor.shelf.shard(1).values[:NUM_ROWS] == 1).all()


def test_without_a_folder_of_its_users_choice_a_server_refuses_the_level() -> None:
    home = Home.open(None, config.ServerSettings(), wait_s=0)
    shelf = home.open_shelf(config.ServerSettings())
    try:
        with pytest.raises(ConfigError, match=r"asks for durability 'disk'.*start it with --data-dir"):
            shelf.reserve(1, ModelSpec("m", 10, None, "int64", durability="disk"), num_rows=10)
    finally:
        shelf.close()
        home.journal.close(clean=True)
        home.remove_if_private()


def test_a_snapshot_never_holds_a_push_whose_receipt_the_log_may_lose(world: World) -> None:
    issued = push(world)
    kept = world.actor.durable
    assert kept._log is not None
    for _ in kept._snapshots.model(1, kept._log, kept.sync):
        pass
    assert issued.outcome is None, "nobody was answered meanwhile"
    world.end(power=True)
    world.start()
    world.check()
    assert issued.outcome == APPLIED


def test_a_log_that_could_not_be_begun_is_begun_anew_by_the_next_model(tmp_path: Path, seed: int) -> None:
    world = World(tmp_path / "server", seed, num_clients=1)

    def fail(what: str, path: Path) -> None:
        if what == "write" and path.name == log.NOTE:
            raise OSError(errno.ENOSPC, "No space left on device")

    world.disk.before = fail
    world.create(1)
    world.disk.before = nothing
    assert not world.models
    world.create(1)
    assert world.models
    world.greet(world.clients[0])
    world.settle()
    issued = push(world)
    world.settle()
    world.end(power=True)
    world.start()
    world.check()
    assert issued.outcome == APPLIED
    world.stop()


def test_a_model_ends_also_where_nobody_can_look_for_its_snapshots(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    kept = world.actor.durable
    assert kept._log is not None
    assert list(kept._snapshots.all(kept._log, kept.sync))
    assert any(name.startswith("snapshot-1-") for name in world.disk.names(LOG))

    def fail(folder: Path) -> list[str]:
        raise OSError(errno.EMFILE, "Too many open files", str(folder))

    with monkeypatch.context() as patched:
        patched.setattr(world.disk, "names", fail)
        world.destroy(1)
    assert world.actor.shelf.find(1) is None
    assert isinstance(world.told[-1], Done)
    world.end(power=True)
    world.start()
    assert world.actor.shelf.find(1) is None
    assert not any(name.startswith("snapshot-1-") for name in world.disk.names(LOG))
    world.stop()
