"""A worker that asks for a certain rank has it, or hears who does."""

from __future__ import annotations

import pytest

from glintpy.errors import ConfigError
from tests.unit.group_world import SETTINGS, a_world


def test_a_rank_that_is_asked_for_is_given_if_it_is_free() -> None:
    world, (one, two, three) = a_world(3)
    assert one.join(num_workers=3, rank=2).answer["rank"] == 2
    assert two.join(num_workers=3).answer["rank"] == 0
    waiting = three.join(num_workers=3, rank=2)
    assert waiting.is_open
    world.pass_time(SETTINGS.place_s)
    with pytest.raises(
        ConfigError, match=r"rank 2 of group 'g' is taken by name-c0 \(pid 100 on host\), which is"
    ):
        waiting.answer  # noqa: B018 - raises
    with pytest.raises(ConfigError, match="3 workers have no rank 3"):
        three.join(num_workers=3, rank=3).answer  # noqa: B018 - raises
    assert three.join(num_workers=3).answer["rank"] == 1


def test_the_rank_of_a_lost_worker_is_taken_over_by_who_asks_for_it() -> None:
    world, (one, two, heir) = a_world(3)
    assert one.join(rank=7).answer["rank"] == 7
    assert two.join(rank=0).answer["rank"] == 0
    waiting = heir.join(rank=7)
    assert waiting.is_open
    world.lose("c0")
    assert waiting.answer["rank"] == 7
    assert waiting.answer["member"] == 3
