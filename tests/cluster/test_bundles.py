"""Small requests that travel together, between processes: a server dies, a program forks or just ends."""

from __future__ import annotations

import concurrent.futures
import multiprocessing
from collections.abc import Iterator
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import pytest

import glintpy
from glintpy.models.bundles import Bundle
from glintpy.models.indexing import parse_pull
from tests.cluster.helpers import PATIENCE_S, holders_of, join, paused, program, state_of, until
from tests.holding import StillOutbox, still_client

NUM_KEYS = 1000


@pytest.fixture
def breakable() -> Iterator[glintpy.LocalCluster]:
    with glintpy.LocalCluster(2, scheme="tcp") as cluster:
        yield cluster


@pytest.mark.parametrize("level", ["process", "memory"])
def test_a_server_that_is_killed_under_a_bundle_concerns_those_alone_that_touch_it(
    breakable: glintpy.LocalCluster, monkeypatch: pytest.MonkeyPatch, level: Any
) -> None:
    with still_client(monkeypatch, lambda: breakable.client(timeout_s=PATIENCE_S)) as client:
        vector = client.vector(NUM_KEYS, dtype="int64", durability=level)
        first, last = holders_of(vector, breakable)
        addresses = [breakable.servers[index].address for index in (first, last)]
        vector.push(None, 1).result()
        with paused(breakable.servers[last].pid):
            under_way = vector.push([NUM_KEYS - 1], 1)
            good, bad = vector.push([0], 1), vector.push([NUM_KEYS - 2], 1)
            both = vector.push([1, NUM_KEYS - 3], 1)
            more = vector.push([2], 1)
            pulls = [vector.pull([key]) for key in (0, NUM_KEYS - 1, 1)]
            # Issues all of it; the first server has answered its part by then, the other one can't.
            assert vector.push_pull([0], 0).result().tolist() == [2]
            breakable.kill_server(last)
        breakable.restart_server(last)
        assert [good.result(), more.result()] == [None, None]
        assert [pulls[0].result().tolist(), pulls[2].result().tolist()] == [[2], [2]]
        if level == "process":
            assert [push.result() for push in (under_way, bad, both)] == [None] * 3
            assert pulls[1].result().tolist() == [2]
            last_keys = [NUM_KEYS - 1, NUM_KEYS - 2, NUM_KEYS - 3, NUM_KEYS - 4]
            assert vector.pull(last_keys).result().tolist() == [2, 2, 2, 1]
        else:
            refused = {"applied": 0, "refused": 1, "unknown": 0}
            for push, parts in (
                (under_way, {addresses[1]: refused}),
                (bad, {addresses[1]: refused}),
                (both, {addresses[0]: {"applied": 1, "refused": 0, "unknown": 0}, addresses[1]: refused}),
            ):
                error = push.exception()
                assert isinstance(error, glintpy.ModelLost), error
                assert error.parts == parts
            with pytest.raises(glintpy.ModelLost):
                pulls[1].result()
        client.flush()
        assert vector.pull([0, 1, 2, 3]).result().tolist() == [2, 2, 2, 1]


def test_with_raise_a_lost_server_fails_its_own_requests_at_once(
    breakable: glintpy.LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    with still_client(monkeypatch, lambda: breakable.client(timeout_s=PATIENCE_S)) as client:
        vector = client.vector(NUM_KEYS, dtype="int64")
        first, last = holders_of(vector, breakable)
        vector.push(None, 1).result()
        breakable.kill_server(last)
        until(lambda: state_of(client, last) == "lost", "the master has noticed")
        hasty = vector.with_options(on_server_lost="raise")
        until(lambda: hasty.pull([NUM_KEYS - 1]).exception() is not None, "the client has heard of it")
        with paused(breakable.servers[first].pid):
            under_way = vector.pull([5])
            good, bad, both = (
                hasty.push([0], 1),
                hasty.push([NUM_KEYS - 1], 1),
                hasty.push([1, NUM_KEYS - 1], 1),
            )
            read, unread = hasty.pull([0]), hasty.pull([NUM_KEYS - 1])
            assert not any(future.done() for future in (under_way, good, bad, both, read, unread))
            client._tie.runtime().outbox.issue()
            assert not good.done()
            assert not read.done()
        assert good.result() is None
        assert read.result().tolist() == [2]
        with pytest.raises(glintpy.ServerLost) as caught:
            bad.result()
        assert caught.value.outcome == "none"
        with pytest.raises(glintpy.ServerLost) as caught:
            both.result()
        assert caught.value.outcome == "partial"
        with pytest.raises(glintpy.ServerLost):
            unread.result()
        assert under_way.result().tolist() == [1]
        client.flush()


def test_who_receives_does_not_wait_for_room_to_issue_a_bundle(breakable: glintpy.LocalCluster) -> None:
    # It would wait for answers that nobody else takes from the network, until the pushes are given up.
    num_filling, part_bytes = 16, NUM_KEYS // 2 * 8
    queued_bytes_max = num_filling * part_bytes + 8
    with breakable.client(timeout_s=PATIENCE_S, queued_bytes_max=queued_bytes_max) as client:
        vector = client.vector(NUM_KEYS, dtype="int64")
        vector.push(None, 1).result()
        with paused(breakable.servers[0].pid), paused(breakable.servers[1].pid):
            bundle = Bundle(client._tie.runtime(), vector._target, "push", paired=False)
            small = parse_pull([0, NUM_KEYS - 1], num_rows=NUM_KEYS, num_cols=None)
            joined = [bundle.join(small, 32, vector._parsed(small, 1)) for _ in range(3)]
            # Meanwhile others fill all the room but for one number.
            filling = [vector.push(None, 1) for _ in range(num_filling)]
            bundle.issue()
        done = concurrent.futures.wait([*filling, *joined], PATIENCE_S).done
        assert len(done) == len(filling) + 3
        assert [future.exception() for future in done] == [None] * len(done)
        assert vector.pull([0, 1]).result().tolist() == [1 + len(filling) + 3, 1 + len(filling)]


# --- forks and ends ---------------------------------------------------------------------------------------


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_bundle_that_is_open_at_a_fork_is_the_parent_s(
    breakable: glintpy.LocalCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    context = multiprocessing.get_context("fork")
    with still_client(monkeypatch, lambda: breakable.client(timeout_s=PATIENCE_S)) as client:
        vector = client.vector(NUM_KEYS, dtype="int64")
        counts = client.vector(NUM_KEYS, dtype="int64")
        first, last = holders_of(vector, breakable)
        ours, theirs = context.Pipe(duplex=False)
        with paused(breakable.servers[last].pid):
            under_way = vector.push([NUM_KEYS - 1], 1)
            pushes = [vector.push([key], 1) for key in (0, 1, 0)]
            process = context.Process(target=tell_and_push, args=(theirs, pushes, vector, counts))
            process.start()
            assert ours.poll(PATIENCE_S)
            told = ours.recv()
            assert not any(push.done() for push in pushes)
        join([process])
        ours.close()
        theirs.close()
        assert len(told) == 3
        assert all("RequestError" in text and "before it forked" in text for text in told)
        assert [push.result() for push in pushes] == [None] * 3
        under_way.result()
        # Each push is in once: the parent's three, and the child's own.
        assert vector.pull([0, 1, 2, NUM_KEYS - 1]).result().tolist() == [2, 1, 10, 1]
        assert counts.pull([0]).result().tolist() == [10]
        assert {first, last} == {0, 1}


def tell_and_push(
    connection: Connection, pushes: list[Any], vector: glintpy.BigVector, counts: glintpy.BigVector
) -> None:
    """Say what became of the parent's pushes, and push ten times each to two models without waiting."""
    connection.send([repr(push.exception(PATIENCE_S)) for push in pushes])
    connection.close()
    for _ in range(10):
        vector.push([2], 1)
        counts.push([0], 1)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("method", ["fork", pytest.param("spawn", marks=pytest.mark.pickles)])
def test_what_is_open_when_a_child_ends_is_in(
    cluster: glintpy.LocalCluster, client: glintpy.Client, method: str
) -> None:
    assert cluster.servers
    context: Any = multiprocessing.get_context(method)
    vector = client.vector(NUM_KEYS, dtype="int64")
    vector.push([0], 0).result()
    process = context.Process(target=push_and_leave, args=(vector, 45))
    process.start()
    join([process])
    assert vector.pull([0, NUM_KEYS - 1]).result().tolist() == [45, 45]


def push_and_leave(vector: glintpy.BigVector, num_pushes: int) -> None:
    """Push, with an outbox at which the network's thread doesn't come by, and wait for nothing."""
    pytest.MonkeyPatch().setattr("glintpy.runtime.Outbox", StillOutbox)  # for the rest of this process
    for _ in range(num_pushes):
        vector.push([0, NUM_KEYS - 1], 1)


ENDING = """\
import sys
import glintpy
from glintpy import runtime
from tests.holding import StillOutbox

runtime.Outbox = StillOutbox
client = glintpy.Client(sys.argv[1])
model = client.open("ended")
for _ in range(45):
    model.push([0, 999], 1)
if sys.argv[2] == "raise":
    raise SystemExit(4)
"""


@pytest.mark.parametrize("ending", ["end", "raise"])
def test_what_is_open_when_a_program_ends_is_in(
    cluster: glintpy.LocalCluster, client: glintpy.Client, tmp_path: Path, ending: str
) -> None:
    vector = client.vector(NUM_KEYS, dtype="int64", name="ended")
    with program(tmp_path / "ending.py", ENDING, cluster.address, ending) as process:
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == (4 if ending == "raise" else 0), errors
    assert vector.pull([0, NUM_KEYS - 1]).result().tolist() == [45, 45]
