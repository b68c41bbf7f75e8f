"""A worker that asks for a certain rank has it, or hears who does; all that had a rank count as one."""

from __future__ import annotations

import json
from typing import Any

import pytest

from glintpy.actors.group import VACANT_KEPT, Group
from glintpy.errors import ConfigError
from tests.unit.group_world import SETTINGS, Asked, Told, World, a_world


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


def place(asked: Asked) -> tuple[int, int, bool]:
    return asked.answer["rank"], asked.answer["member"], asked.answer["is_successor"]


@pytest.fixture
def begun_again() -> tuple[World, list[Told]]:
    """Two of three workers, of which one was started again before the third has come, and the third."""
    world, (one, lost, heir, last) = a_world(4)
    assert place(one.join(num_workers=3, rank=0)) == (0, 1, False)
    assert place(lost.join(num_workers=3, rank=1)) == (1, 2, False)
    world.lose(lost.client_id)
    assert place(heir.join(num_workers=3, rank=1)) == (1, 3, True)
    return world, [one, heir, last]


@pytest.mark.parametrize("restarts", [False, True])
@pytest.mark.parametrize("asks", [False, True])
def test_who_is_started_again_before_all_have_come_counts_once(
    begun_again: tuple[World, list[Told]], restarts: bool, asks: bool
) -> None:
    world, (one, heir, last) = begun_again
    if restarts:
        world.restart()
        for worker in (one, heir, last):
            world.come(worker.client_id)
        assert place(heir.join(num_workers=3, rank=1)) == (1, 3, True)  # the same worker, who asks again
    waiting = [one.arrive(), heir.arrive()]
    assert [asked.is_open for asked in waiting] == [True, True]
    assert world.groups.to_content()[0]["num_unjoined"] == 1
    assert place(last.join(num_workers=3, rank=2 if asks else None)) == (2, 4, False)
    assert world.groups.to_content()[0]["num_unjoined"] == 0
    assert [asked.is_open for asked in waiting] == [True, True]  # it is no newcomer, and has the same barrier
    assert [asked.answer["state"] for asked in (last.arrive(), *waiting)] == ["done"] * 3


def test_clocks_wait_for_who_is_to_come_though_another_one_is_started_again(
    begun_again: tuple[World, list[Told]],
) -> None:
    _, (one, heir, last) = begun_again
    for worker in (one, heir):
        worker.tick()
    waiting = one.wait()
    assert waiting.is_open
    last.join(num_workers=3, rank=2)
    last.tick()
    assert waiting.answer["state"] == "done"


def test_who_asks_for_no_rank_is_one_of_those_that_are_to_come_and_then_a_successor() -> None:
    world, (one, lost, two, three, heir) = a_world(5)
    one.join(num_workers=3)
    lost.join(num_workers=3)
    world.lose(lost.client_id)
    # Nobody may ever start the lost one again: who could be the third is taken for it.
    assert place(two.join(num_workers=3)) == (2, 3, False)
    assert world.groups.to_content()[0]["num_unjoined"] == 0
    assert place(three.join(num_workers=3)) == (1, 4, True)
    one.leave()
    assert place(heir.join(num_workers=3)) == (0, 5, True)


def test_a_group_without_a_size_remembers_a_bounded_number_of_ranks() -> None:
    group = Group("g", 0, tells_losses=False)
    group.join(b"stays", "c0", 0)
    for rank in range(1, VACANT_KEPT + 3):
        group.remove(group.join(b"%d" % rank, "c1", rank), is_lost=False)
    assert len(group.vacant) == VACANT_KEPT
    assert [group.join(b"x%d" % rank, "c2", rank).is_successor for rank in (1, 2, 3)] == [False, False, True]


@pytest.mark.parametrize(
    ("size", "ranks", "lost", "num_joins", "vacant"),
    [
        (3, [0, 2], [], 2, []),
        (3, [0], [2], 2, [2]),
        (3, [0, 1], [1], 3, [2]),  # one came twice, and the group counted as complete
        (4, [3], [], 3, [0, 1]),  # two have left
        (0, [5], [7, 5, 7], 9, [7]),
    ],
)
def test_a_group_that_an_earlier_version_wrote_down_counts_as_it_did(
    size: int, ranks: list[int], lost: list[int], num_joins: int, vacant: list[int]
) -> None:
    row: dict[str, Any] = Group("g", size, tells_losses=False, num_joins=num_joins).to_row()
    del row["vacant"]
    world, workers = a_world(len(ranks))
    for worker, rank in zip(workers, ranks, strict=True):
        worker.join(num_workers=size, rank=rank)
    world.disk["groups"]["g"] = json.dumps({**row, "lost": [{"rank": rank} for rank in lost]})
    for key, written in world.disk["workers"].items():
        kept = json.loads(written)
        del kept["is_successor"]
        world.disk["workers"][key] = json.dumps(kept)
    world.restart()
    (told,) = world.groups.to_content()
    assert told["num_unjoined"] == max(0, size - num_joins)
    for worker in workers:
        worker.tick()
    world.come("c9")
    heir = Told(world, "c9", b"n" * 16)
    wanted = vacant[0] if vacant else 1
    assert place(heir.join(num_workers=size, rank=wanted)) == (wanted, num_joins + 1, bool(vacant))
    assert json.loads(world.disk["groups"]["g"])["vacant"] == vacant[1:]
