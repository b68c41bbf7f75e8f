"""A round with a tag ends for each row with the push of the last worker, and who pulls with the tag sees it ended."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy import config
from glintpy.errors import (
    ConfigError,
    ModelNotFound,
    PullFailed,
    PushOutcomeUnknown,
    PushRefused,
    ShapeError,
)
from glintpy.protocol import wire
from glintpy.protocol.failures import APPLIED
from glintpy.protocol.messages import Probe, Push, Report, Values
from glintpy.testing.updated import Updated
from glintpy.updaters import Adam
from tests.cluster.helpers import PATIENCE_S, until
from tests.models.raw_peer import ROUTING, RawPeer, Served, a_cluster, indices
from tests.models.test_rounds import BSP, all_tick


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    """Only one scheme: nothing here depends on it."""
    with a_cluster("tcp") as cluster:
        yield cluster


@pytest.fixture
def clients(served: Served) -> Iterator[list[glintpy.Client]]:
    """Three clients, and no group and model left of the test before."""
    made = [
        glintpy.Client(served.master.address, timeout_s=PATIENCE_S, name=f"w{index}") for index in range(3)
    ]
    yield made
    for client in made:
        client.close()
    until(lambda: not served.client.status()["groups"], "the groups are gone with their clients")
    for name in served.client.models():
        served.client.destroy(name)


def matrices(
    clients: list[glintpy.Client], num_workers: int, *, rows: int = 6, **options: Any
) -> tuple[list[glintpy.Group], list[glintpy.BigMatrix]]:
    """Return workers that follow one another, and a handle of each to a matrix."""
    groups = [client.join("job", num_workers) for client in clients[:num_workers]]
    pairs = zip(clients, groups, strict=False)
    return groups, [client.matrix(rows, 2, group=group, **BSP, **options) for client, group in pairs]


def test_a_round_ends_with_the_last_worker_and_the_updater_sees_one_sum(
    clients: list[glintpy.Client],
) -> None:
    rule = Adam(learning_rate=0.1)
    _, models = matrices(clients, 3, updater=rule)
    expected = Updated(np.zeros((6, 2)), rule)
    for tag in range(4):
        for rank, model in enumerate(models):
            np.testing.assert_array_equal(model.pull().result(), expected.values)
            model.push(None, float(rank + tag), round=tag).result()
        expected.push(range(6), 3.0 + 3 * tag)
        for model in models:
            np.testing.assert_array_equal(model.pull(round=tag).result(), expected.values)
    assert models[0].pull_slot("steps").result().tolist() == [4] * 6


def test_rows_end_their_rounds_by_themselves(clients: list[glintpy.Client]) -> None:
    _, (one, two) = matrices(clients, 2)
    one.push([0, 1, 5], 1.0, round=7)
    two.push([1, 2], 2.0, round=7).result()
    assert one.pull([1], round=7).result().tolist() == [[3, 3]]
    assert one.pull([2, 3], round=7).result().tolist() == [[0, 0]] * 2  # it has not pushed there
    waiting = one.pull([0, 1], round=7)
    assert not waiting.done()
    two.push([0], 4.0, round=7)
    assert waiting.result().tolist() == [[5, 5], [3, 3]]
    assert np.asarray(one)[:, 0].tolist() == [5, 3, 0, 0, 0, 0]


def test_workers_that_wait_for_one_another_go_round_by_round(clients: list[glintpy.Client]) -> None:
    _, models = matrices(clients, 3, dtype="int64")

    def work(rank: int) -> list[int]:
        seen = []
        for tag in range(50):
            models[rank].push(slice(0, 6), 1, round=tag)
            found = models[rank].pull(round=tag).result()
            assert (found == found[0, 0]).all()
            seen.append(int(found[0, 0]))
        return seen

    with ThreadPoolExecutor(3) as pool:
        for seen in pool.map(work, range(3)):
            assert seen == [3 * (tag + 1) for tag in range(50)]


def test_a_large_push_ends_part_by_part(clients: list[glintpy.Client]) -> None:
    groups = [client.join("job", 2) for client in clients[:2]]
    options: dict[str, Any] = {"dtype": "float32", **BSP}
    one, two = (
        client.matrix(40_000, 64, group=group, **options)
        for client, group in zip(clients, groups, strict=False)
    )
    values = np.arange(40_000 * 64, dtype=np.float32).reshape(40_000, 64) % 97
    one.push(None, values, round=0)
    waiting = one.pull(round=0)
    two.push(None, values, round=0)
    np.testing.assert_array_equal(waiting.result(), values * 2)
    np.testing.assert_array_equal(two.pull(round=0).result(), values * 2)


def test_pushes_that_want_what_is_there_afterwards_wait_for_the_round(clients: list[glintpy.Client]) -> None:
    rule = Adam(learning_rate=0.1)
    _, models = matrices(clients, 3, updater=rule)
    expected = Updated(np.zeros((6, 2)), rule)
    for tag in range(4):
        outs = [np.empty((6, 2)) for _ in models]
        futures = [
            model.push_pull(None, float(rank + tag), out=out, round=tag)
            for rank, (model, out) in enumerate(zip(models, outs, strict=True))
        ]
        expected.push(range(6), 3.0 + 3 * tag)
        for future, out in zip(futures, outs, strict=True):
            assert future.result() is out
            np.testing.assert_array_equal(out, expected.values)
    # Rows that were named twice are one row of the round, and are given twice.
    one, two, three = models
    waiting = one.push_pull([3, 1, 3], [[1.0, 1.0], [2.0, 2.0], [4.0, 4.0]], round=4)
    two.push([1, 3], 0.0, round=4)
    assert not waiting.done()
    three.push([1, 3], 0.0, round=4)
    expected.push([1, 3], [[2, 2], [5, 5]])
    np.testing.assert_array_equal(waiting.result(), expected.values[[3, 1, 3]])


def test_one_request_to_each_server_is_a_whole_round_of_a_worker(
    served: Served, clients: list[glintpy.Client]
) -> None:
    _, (one, two) = matrices(clients, 2)

    def counts() -> tuple[int, ...]:
        held = served.client.status()["servers"][0]["holds"]
        return tuple(held[name] for name in ("requests", "pulls", "pushes", "repeats", "gaps"))

    before = counts()
    waiting = one.push_pull(None, 1.0, round=0)
    two.push_pull(None, 2.0, round=0).result()
    assert waiting.result().tolist() == [[3, 3]] * 6
    assert [after - first for first, after in zip(before, counts(), strict=True)] == [2, 0, 2, 0, 0]


def test_a_large_push_pull_is_answered_part_by_part(clients: list[glintpy.Client]) -> None:
    _, (one, two) = matrices(clients, 2, rows=400_000)
    values = np.arange(800_000, dtype=np.float64).reshape(400_000, 2) % 97
    kept = values.copy()
    waiting = one.push_pull(None, values, out=values, round=0)  # what is pushed may be what is written to
    np.testing.assert_array_equal(two.push_pull(None, kept, round=0).result(), kept * 2)
    np.testing.assert_array_equal(waiting.result(), kept * 2)


def test_a_push_that_waits_for_its_round_may_be_said_again_and_is_answered_once(
    served: Served, clients: list[glintpy.Client]
) -> None:
    _, (one, _) = matrices(clients, 2)
    peer = RawPeer(served.server.address)
    try:
        peer.hello()
        push = Push(
            peer.next_id(),
            peer.session,
            1,
            1,
            one._info.model_id,
            ROUTING,
            0,
            wants_values=True,
            assign=False,
            array=0,
            round=1,
            rank=1,
            paired=False,
            rows=indices(0, 4),
            cols=None,
            values=np.full((2, 2), 5.0),
        )
        for _ in range(3):
            peer.send(*wire.encode(push))
        report = peer.ask(Probe(peer.next_id(), peer.session, 1, 1), Report)
        assert (report.applied, report.outcomes.tolist()) == (1, [APPLIED])
        assert one.pull([0, 4]).result().tolist() == [[0, 0]] * 2
        one.push(None, 1.0, round=0)
        answer = peer.receive()
        assert isinstance(answer, Values)
        assert (answer.request_id, answer.values.tolist()) == (push.request_id, [[6, 6]] * 2)
        peer.status()  # nothing else was answered before
        again = peer.ask(push, Values)
        assert again.values.tolist() == [[6, 6]] * 2
        assert one.pull([0, 1]).result().tolist() == [[6, 6], [0, 0]]
    finally:
        peer.close()


# --- who is missing -------------------------------------------------------------------------------------------


def test_a_worker_that_has_not_joined_yet_is_waited_for(clients: list[glintpy.Client]) -> None:
    group = clients[0].join("job", 2)
    one = clients[0].matrix(6, 2, group=group, **BSP)
    one.push(None, 1.0, round=0).result()
    with pytest.raises(PullFailed):
        one.with_options(timeout_s=0.3).pull(round=0).result()
    late = clients[1].join("job", 2)
    two = clients[1].matrix(6, 2, group=late, **BSP)
    two.push(None, 2.0, round=0).result()
    assert one.pull(round=0).result().tolist() == [[3, 3]] * 6


def test_a_worker_that_is_lost_is_waited_for_no_more(clients: list[glintpy.Client]) -> None:
    groups, (one, two, three) = matrices(clients, 3)
    one.push(None, 1.0, round=0)
    two.push([0], 2.0, round=0).result()
    three.push(None, 4.0, round=0).result()
    waiting = one.pull(round=0)
    assert not waiting.done()
    groups[1]._leave(is_orderly=False, timeout_s=PATIENCE_S)
    # What it had pushed was acknowledged, and counts.
    assert waiting.result().tolist() == [[7, 7]] + [[5, 5]] * 5
    one.push(None, 1.0, round=1)
    three.push(None, 1.0, round=1)
    assert one.pull([1], round=1).result().tolist() == [[7, 7]]


def test_a_round_waits_for_who_is_to_come_though_another_one_was_started_again(
    clients: list[glintpy.Client],
) -> None:
    one, lost = (clients[index].join("job", 3, rank=index) for index in range(2))
    first = clients[0].matrix(6, 2, group=one, **BSP)
    first.push(None, 1.0, round=0).result()
    lost._leave(is_orderly=False, timeout_s=PATIENCE_S)
    heir = clients[1].join("job", 3, rank=1)
    assert (one.is_successor, heir.is_successor) == (False, True)
    second = clients[1].matrix(6, 2, group=heir, **BSP)
    second.push(None, 2.0, round=0).result()
    waiting = [handle.pull(round=0) for handle in (first, second)]
    assert clients[0].open("shared").pull().result().tolist() == [[0, 0]] * 6
    last = clients[2].join("job", 3, rank=2)
    assert not last.is_successor
    clients[2].matrix(6, 2, group=last, **BSP).push(None, 4.0, round=0).result()
    assert [future.result().tolist() for future in waiting] == [[[7, 7]] * 6] * 2


def test_what_one_has_pushed_that_is_lost_counts_once_and_not_for_who_is_to_come(
    clients: list[glintpy.Client],
) -> None:
    groups = [client.join("job", 3) for client in clients[:2]]
    one, two = (
        client.matrix(6, 2, group=group, **BSP) for client, group in zip(clients, groups, strict=False)
    )
    one.push(None, 1.0, round=0).result()
    two.push(None, 2.0, round=0).result()
    groups[1]._leave(is_orderly=False, timeout_s=PATIENCE_S)
    until(lambda: len(clients[0].status()["groups"][0]["workers"]) == 1, "it is lost")
    assert np.asarray(clients[0].open("shared")).tolist() == [[0, 0]] * 6
    late = clients[2].join("job", 3)
    assert late.rank == 2
    clients[2].matrix(6, 2, group=late, **BSP).push(None, 4.0, round=0).result()
    assert one.pull(round=0).result().tolist() == [[7, 7]] * 6


def test_a_newcomer_takes_part_from_its_first_push_on(clients: list[glintpy.Client]) -> None:
    groups = [clients[0].join("job")]
    one = clients[0].matrix(6, 2, group=groups[0], **BSP)
    one.push(None, 1.0, round=0)
    assert one.pull([0], round=0).result().tolist() == [[1, 1]]
    groups.append(clients[1].join("job"))
    two = clients[1].matrix(6, 2, group=groups[1], **BSP)
    two.push(None, 2.0, round=1).result()
    one.push(None, 1.0, round=1)
    assert one.pull([0], round=1).result().tolist() == [[4, 4]]


def test_who_waits_when_the_model_ends_is_told(served: Served, clients: list[glintpy.Client]) -> None:
    _, (one, _) = matrices(clients, 2)
    one.push(None, 1.0, round=0).result()
    waiting = one.pull(round=0)
    served.client.destroy("shared")
    with pytest.raises(ModelNotFound):
        waiting.result()


def test_who_waits_behind_a_push_when_the_model_ends_is_told_that_it_was_in(
    served: Served, clients: list[glintpy.Client]
) -> None:
    _, (one, _) = matrices(clients, 2)
    waiting = one.push_pull(None, 1.0, round=0)
    assert one.pull([0]).result().tolist() == [[0, 0]]  # the push was before that
    served.client.destroy("shared")
    with pytest.raises(PushOutcomeUnknown, match="ModelNotFound"):
        waiting.result()


def test_a_push_that_waits_too_long_is_in_nonetheless(clients: list[glintpy.Client]) -> None:
    groups, (one, two, three) = matrices(clients, 3)
    with pytest.raises(PushOutcomeUnknown):
        one.with_options(timeout_s=0.3).push_pull(None, 1.0, round=0).result()
    two.push(None, 2.0, round=0).result()
    waiting = [one.pull(round=0), one.with_options(timeout_s=PATIENCE_S).pull([2], round=0)]
    assert not any(future.done() for future in waiting)
    groups[2]._leave(is_orderly=False, timeout_s=PATIENCE_S)
    assert waiting[0].result().tolist() == [[3, 3]] * 6
    assert waiting[1].result().tolist() == [[3, 3]]
    del three


def test_one_that_is_lost_is_waited_for_no_more_behind_a_push(clients: list[glintpy.Client]) -> None:
    groups, (one, two, three) = matrices(clients, 3)
    two.push([0], 2.0, round=0).result()
    waiting = [one.push_pull(None, 1.0, round=0), three.push_pull(None, 4.0, round=0)]
    groups[1]._leave(is_orderly=False, timeout_s=PATIENCE_S)
    for future in waiting:
        assert future.result().tolist() == [[7, 7]] + [[5, 5]] * 5


# --- what does not go together --------------------------------------------------------------------------------


def test_pushing_again_before_the_round_has_ended_is_refused(clients: list[glintpy.Client]) -> None:
    _, (one, two) = matrices(clients, 2)
    one.push([3], 1.0, round=0).result()
    with pytest.raises(PushRefused, match="rank 0 has pushed to a row in round 0 already"):
        one.push([3], 1.0, round=0).result()
    for handle in (one, two):
        with pytest.raises(
            PushRefused, match="of round 1 to a row that is in round 0, to which ranks 0 pushed"
        ):
            handle.push([2, 3], 1.0, round=1).result()
    with pytest.raises(PushRefused, match="a push of a step to a row that is in round 0"):
        two.push([3], 1.0).result()
    two.push([3], 2.0, round=0).result()
    assert np.asarray(one)[:, 0].tolist() == [0, 0, 0, 3, 0, 0]


def test_steps_and_rounds_with_tags_in_turn(clients: list[glintpy.Client]) -> None:
    groups, (one, two) = matrices(clients, 2)
    one.push([0], 1.0).result()
    with pytest.raises(PushRefused, match="of round 0 to a row that is in a step, to which workers pushed"):
        two.push([0], 1.0, round=0).result()
    one.push([1], 1.0, round=0)
    all_tick(groups)
    two.push([1], 1.0, round=0).result()
    two.push([0], 1.0, round=0).result()
    assert np.asarray(two)[:3, 0].tolist() == [1, 2, 0]


def test_what_can_not_be_a_round_is_refused_here(served: Served, clients: list[glintpy.Client]) -> None:
    _, (one,) = matrices(clients, 1)
    plain = clients[0].matrix(6, 2)
    vector = clients[0].vector(6)
    for call in (
        lambda: plain.push([0], 1.0, round=0),
        lambda: plain.pull([0], round=0),
        lambda: vector.push([0], 1.0, round=0),
        lambda: vector.pull([0], round=0),
        lambda: plain.push_pull([0], 1.0, round=0),
        lambda: vector.push_pull([0], 1.0, round=0),
    ):
        with pytest.raises(ConfigError, match=r'round=0 is for handles with consistency="bsp"'):
            call()
    bad: list[Any] = [-1, 2**62, True, 1.0, "x"]
    for tag in bad:
        with pytest.raises(ConfigError, match="round is an integer of at least 0"):
            one.push([0], 1.0, round=tag)
    for change in (one.push, one.push_pull):
        with pytest.raises(ConfigError, match="of whole rows"):
            change([0], 1.0, cols=[1], round=0)
    assert served.client.status()["servers"][0]["state"] == "alive"


def test_a_row_that_is_more_than_a_message_is_refused_before_anything_is_sent(
    clients: list[glintpy.Client], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, (one, two) = matrices(clients, 2)
    with monkeypatch.context() as small:
        small.setattr(config, "PART_BYTES", 15)
        for change in (one.push, one.push_pull):
            with pytest.raises(ShapeError, match="has 16 bytes, and may have 15"):
                change(None, 1.0, round=0)
    for model in (one, two):  # a row that somebody had pushed to would refuse him now
        model.push(None, 1.0, round=0).result()
    assert (one.pull(round=0).result() == 2).all()


def test_threads_of_one_worker_wait_side_by_side(clients: list[glintpy.Client]) -> None:
    _, (one, two) = matrices(clients, 2)
    one.push(None, 1.0, round=0).result()
    results: list[Any] = []
    threads = [
        threading.Thread(target=lambda row=row: results.append(one.pull([row], round=0).result().tolist()))
        for row in range(6)
    ]
    for thread in threads:
        thread.start()
    two.push(None, 1.0, round=0)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert results == [[[2, 2]]] * 6


def test_rounds_with_tags_are_refused_in_groups_of_too_many_before_anything_is_sent(
    clients: list[glintpy.Client],
) -> None:
    with clients[0].join("many", 64) as group:
        vector = clients[0].vector(3, consistency="bsp", group=group)
        for call in (lambda: vector.push([0], 1, round=0), lambda: vector.push_pull([0], 1, round=0)):
            with pytest.raises(
                ConfigError, match=r"at most 63 workers, and this one is rank 0 of 64; use tick\(\)"
            ):
                call()
