"""Functions that change values, on a server that is killed or loses its power anywhere in the middle of one."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from glintpy import failpoints, functions
from glintpy.protocol import wire
from glintpy.protocol.messages import Applied, Change, Message
from glintpy.protocol.selection import slices_of
from glintpy.storage.log_records import PushRecord, decode
from glintpy.transport import Delivery
from tests.unit.disk_clients import NUM_COLS, NUM_ROWS, NUM_SHARED
from tests.unit.disk_world import PLACES, World
from tests.unit.power_loss import PowerCut

ROWS = slices_of((0, NUM_ROWS, 2), (1, 4, 1))


class Calls(World):
    """A server whose one client has it scale every other row, and three more."""

    def __init__(self, folder: Path, seed: int, durability: Any) -> None:
        self.answers: list[Message] = []
        super().__init__(folder, seed, num_clients=1)
        self.create(1, durability=durability)
        self.greet(self.clients[0])
        self.settle()

    def send(self, peer: bytes, frames: Sequence[Any]) -> Delivery:
        self.answers += wire.decode_all([bytes(frame) for frame in frames])
        return super().send(peer, frames)

    def scale(self, sequence: int, by: int) -> None:
        """Deliver a change; nothing else is done."""
        numbers = wire.document({"by": by})
        session = self.clients[0].session
        ids = (self._next_id(), session, 1, sequence, 1, 1, 0, 0, 0)
        message = Change(*ids, "scale", numbers, ROWS, None, None, None, None, None)
        self._deliver(self.clients[0], message)

    def come_back_to(self) -> None:
        self.start()
        self.greet(self.clients[0])
        self.settle()

    @property
    def values(self) -> list[int]:
        """The first column of the first five rows; each row has one number."""
        values = self.actor.shelf.shard(1).values
        assert (values == values[:, :1]).all()
        assert values.shape == (NUM_ROWS + NUM_SHARED, NUM_COLS)
        found: list[int] = values[:5, 0].tolist()
        return found


@pytest.mark.parametrize(("durability", "power"), [("process", False), ("disk", False), ("disk", True)])
@pytest.mark.parametrize("place", PLACES)
def test_a_change_that_is_cut_off_anywhere_counts_once(
    tmp_path: Path, seed: int, place: str, durability: str, power: bool
) -> None:
    world = Calls(tmp_path / "server", seed, durability)
    world.scale(1, 3)
    world.settle()
    assert isinstance(world.answers[-1], Applied)
    # Row 2 is named twice, and is changed once.
    assert world.values == [3, 3, 3, 3, 3]

    def cut() -> None:
        raise PowerCut

    failpoints.arm_with(place, cut)
    with pytest.raises(PowerCut):
        world.scale(2, 5)
    world.end(power=power)
    world.come_back_to()
    assert world.values in ([3] * 5, [15] * 5)
    for _ in range(2):
        world.scale(2, 5)
        world.settle()
        assert isinstance(world.answers[-1], Applied)
        assert world.values == [15] * 5
    world.end(power=power)
    world.come_back_to()
    assert world.values == [15] * 5
    world.end(power=False)


def test_a_log_holds_what_a_change_made_and_not_its_name(
    tmp_path: Path, seed: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = Calls(tmp_path / "server", seed, "disk")
    log = world.actor.durable._log
    assert log is not None
    world.scale(1, 3)
    entry = log.last_entry()
    assert entry is not None
    record = decode(entry.kind, entry.body)
    assert isinstance(record, PushRecord)
    assert record.assign
    np.testing.assert_array_equal(record.values, np.full((NUM_ROWS // 2 + 3, NUM_COLS), 3))
    world.settle()
    world.end(power=True)
    # So a replay needs no function, which may be another one by then, or none.
    monkeypatch.setattr(functions, "named", lambda *_, **__: pytest.fail("a replay looks for a function"))
    world.come_back_to()
    assert world.values == [3] * 5
    world.end(power=False)
