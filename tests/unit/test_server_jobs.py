"""A model that ends before its turn to be made has come is never made: nobody would ever end it."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from glintpy.actors.server import Admitted, FromMaster
from glintpy.protocol import wire
from glintpy.protocol.messages import CreateShard, DestroyShard, Done, Message
from glintpy.protocol.spec import ModelSpec
from tests.unit.disk_world import World


def tell(world: World, message: Message | Admitted) -> None:
    if isinstance(message, Admitted):
        world.actor.on_receive(message)
    else:
        world.actor.on_receive(FromMaster([bytes(frame) for frame in wire.encode(message)]))


@pytest.mark.parametrize("end", [DestroyShard(3, model_id=2), Admitted(frozenset({1}))], ids=["told", "away"])
def test_a_creation_whose_model_has_ended_meanwhile_only_answers(
    tmp_path: Path, seed: int, end: Message | Admitted
) -> None:
    world = World(tmp_path / "server", seed, num_clients=1)
    for model_id in (1, 2):
        spec = ModelSpec(f"m{model_id}", 10, 4, "int64", durability="disk")
        request = CreateShard(
            model_id,
            model_id=model_id,
            routing=1,
            num_rows=10,
            reserve_only=False,
            spec=wire.document(spec.to_content()),
            extents=np.empty((0, 4), np.int64),
        )
        tell(world, request)
    tell(world, end)
    world.settle()
    assert world.actor.shelf.highest_model == 1
    answered = {message.request_id for message in world.told if isinstance(message, Done)}
    assert {1, 2} <= answered
    world.stop()
