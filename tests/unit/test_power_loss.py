"""After kills and power cuts at any moment no acknowledged push is lost, none is doubled, and receipts are right."""

from __future__ import annotations

from pathlib import Path

import pytest

from glintpy.actors import durable
from glintpy.actors.durable import Durable
from glintpy.errors import ConfigError
from glintpy.storage import log, rounds
from tests.unit.disk_world import World, run
from tests.unit.power_loss import LossyFiles


@pytest.fixture(autouse=True)
def small_things(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have a snapshot take several turns, so that pushes come between, and logs many files."""
    for module in (rounds, durable):
        monkeypatch.setattr(module, "SLICE_BYTES", 8192)
    for module in (log, durable):
        monkeypatch.setattr(module, "RESERVE_BYTES", 8192)


@pytest.mark.parametrize("number", range(12))
def test_whatever_was_told_holds_after_power_cuts_and_kills(tmp_path: Path, seed: int, number: int) -> None:
    world = World(tmp_path / "server", seed + number)
    run(world, num_crashes=4, kills=0.4)
    world.stop()
    assert world.num_crashes


@pytest.mark.soak
@pytest.mark.parametrize("number", range(200))
def test_whatever_was_told_holds_after_many_power_cuts_and_kills(
    tmp_path: Path, seed: int, number: int
) -> None:
    world = World(tmp_path / "server", 1000 + seed + number)
    run(world, num_crashes=6, kills=0.4)
    world.stop()
    assert world.num_crashes


# --- worlds in which it would not hold ------------------------------------------------------------------------


class NoNames(LossyFiles):
    """Whoever renames a file or makes one never syncs the folder."""

    def sync_folder(self, folder: Path) -> None:
        del folder


class NoSync(LossyFiles):
    """Whoever writes a file never syncs it."""

    def sync(self, descriptor: int) -> None:
        del descriptor


class SnapshotsNotSynced(LossyFiles):
    """A snapshot gets its name before its content is on the disk."""

    def sync(self, descriptor: int) -> None:
        if "snapshot" not in self._open[descriptor][1].name:
            super().sync(descriptor)


class Hasty(Durable):
    """Answers go before the log is synced."""

    @property
    def holds_answers(self) -> bool:
        return False


def is_noticed(
    tmp_path: Path, seed: int, *, disk: type[LossyFiles] = LossyFiles, kind: type[Durable] = Durable
) -> bool:
    """Tell whether one of some worlds complains."""
    for number in range(40):
        world = World(tmp_path / str(number), seed + number, disk=disk(), durable=kind)
        try:
            run(world, num_crashes=4, kills=0.4)
        except (AssertionError, ConfigError):
            return True
        world.stop()
    return False


@pytest.mark.parametrize("disk", [NoNames, NoSync, SnapshotsNotSynced], ids=lambda kind: kind.__name__)
def test_a_sync_that_is_left_out_is_noticed(tmp_path: Path, seed: int, disk: type[LossyFiles]) -> None:
    assert is_noticed(tmp_path, seed, disk=disk)


def test_answers_before_the_sync_are_noticed(tmp_path: Path, seed: int) -> None:
    assert is_noticed(tmp_path, seed, kind=Hasty)


def test_a_log_that_is_ahead_of_what_survived_a_kill_is_noticed(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(durable, "is_done", lambda *_: True)
    assert is_noticed(tmp_path, seed)
