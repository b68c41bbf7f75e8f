"""Tables whose process is killed: each push is in whole or not at all; what can't be trusted is lost and says so."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from glintpy import failpoints
from glintpy.actors.shelf import Shelf
from glintpy.actors.stores import Stores
from glintpy.errors import ModelLost, NotEnoughMemory
from glintpy.protocol.messages_tables import CREATE, REMOVE, UPDATE
from glintpy.storage.table import TableShard
from tests.unit.tables import (
    Killed,
    Server,
    a_spec,
    a_table,
    contents,
    die,
    keys_of,
    ones,
    state_of,
)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.shelf.close(clean=False)
    made.journal.close(clean=False)


PLACES = [
    *sorted(name for name in failpoints.NAMES if name.startswith("push.") and name != "push.before_ack"),
    "table.begun",
    "table.grown",
]


@pytest.mark.parametrize("updater", ["add", "adam"])
@pytest.mark.parametrize("place", PLACES)
def test_a_push_that_its_process_was_killed_in_is_in_whole_or_not_at_all(
    server: Server, place: str, updater: str
) -> None:
    server.make(updater=updater)
    server.push(np.arange(1000), ones(1000))
    server.push(np.arange(10), None, REMOVE)
    before = state_of(server.table)
    applied = server.session.applied
    keys = np.arange(500, 1100)
    with failpoints.armed(place, die), pytest.raises(Killed):
        server.push(keys, ones(600))
    server.restart()
    assert server.session.applied == applied + (place in {"push.recorded", "push.flag_cleared"})
    if server.session.applied == applied:
        assert state_of(server.table) == before
        server.push(keys, ones(600))
    assert server.table.num_keys == 1090
    untouched = a_table(updater=updater)
    for some in (np.arange(10, 1000), keys):
        untouched.push_keys(some, ones(len(some)))
    assert state_of(server.table) == state_of(untouched)
    server.restart(clean=True)
    assert state_of(server.table) == state_of(untouched)


@pytest.mark.parametrize("action", [REMOVE, CREATE])
@pytest.mark.parametrize(
    "place", ["push.before_undo", "push.undo_written", "push.flag_set", "push.applied", "push.recorded"]
)
def test_so_is_a_removal_and_a_creation(server: Server, place: str, action: int) -> None:
    server.make(init=3)
    server.push(np.arange(100), ones(100))
    before = state_of(server.table)
    keys = np.arange(50, 150)
    with failpoints.armed(place, die), pytest.raises(Killed):
        server.push(keys, None, action)
    server.restart()
    if place != "push.recorded":
        assert state_of(server.table) == before
        server.push(keys, None, action)
    assert server.table.num_keys == {REMOVE: 50, CREATE: 150}[action]
    assert server.table.contains(np.arange(50)).all()
    server.push(keys, ones(100))
    # 4 where the row was new, of those that were there 3 + 1 + 1.
    assert server.table.pull_keys(keys)[:, 0].tolist() == (
        [4.0] * 100 if action == REMOVE else [5.0] * 50 + [4.0] * 50
    )


def test_an_exception_in_the_middle_of_a_push_is_undone_and_the_index_with_it(server: Server) -> None:
    server.make()
    server.push(keys_of(1, 2), ones(2))
    before = state_of(server.table)

    def fail() -> None:
        raise failpoints.FailpointError("as asked")

    for place in ("push.half_applied", "push.applied", "table.begun"):
        with failpoints.armed(place, fail), pytest.raises(failpoints.FailpointError):
            server.push(keys_of(2, 3, 4), ones(3))
        server.shelf.roll_back()
        assert state_of(server.table) == before
        assert server.table.contains(keys_of(1, 2, 3, 4)).tolist() == [True, True, False, False]
    server.push(keys_of(2, 3, 4), ones(3))
    assert contents(server.table) == {1: [1.0] * 3, 2: [2.0] * 3, 3: [1.0] * 3, 4: [1.0] * 3}


@settings(max_examples=30)
@given(data=st.data())
def test_any_pushes_with_kills_anywhere_leave_what_a_dict_has(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    server = Server(tmp_path_factory.mktemp("server"))
    server.make()
    rows: dict[int, float] = {}
    try:
        for _ in range(data.draw(st.integers(1, 8))):
            keys = data.draw(st.lists(st.integers(0, 2000), max_size=30), label="keys")
            is_large = data.draw(st.booleans())
            if keys and is_large:
                keys += range(keys[0], keys[0] + 1500)
            action = data.draw(st.sampled_from([UPDATE, UPDATE, CREATE, REMOVE]))
            place = data.draw(st.sampled_from([None, None, *PLACES, "recover.before_undo"]))
            applied = server.session.applied
            values = ones(len(keys)) if action == UPDATE else None
            try:
                if place is None:
                    server.push(np.array(keys, np.int64), values, action)
                else:
                    with failpoints.armed(place, die):
                        server.push(np.array(keys, np.int64), values, action)
            except Killed:
                server.restart()
            if server.session.applied == applied:
                server.push(np.array(keys, np.int64), values, action)
            for key in keys:
                if action == REMOVE:
                    rows.pop(key, None)
                else:
                    rows[key] = rows.get(key, 0.0) + (action == UPDATE)
        server.restart()
        assert {key: row[0] for key, row in contents(server.table).items()} == rows
    finally:
        server.shelf.close(clean=False)
        server.journal.close(clean=False)


# --- on a shelf ------------------------------------------------------------------------------------------------


def test_a_destroyed_table_leaves_no_file_and_one_that_lost_a_file_is_lost(server: Server) -> None:
    server.make()
    server.push(keys_of(1), ones(1))
    folder = server.folder / "segments"
    assert len(list(folder.glob("5*"))) == 4
    server.shelf.destroy(5)
    assert list(folder.glob("5*")) == []
    server.make()
    next(folder.glob("5.1.heap")).unlink()
    server.restart()
    with pytest.raises(ModelLost):
        server.shelf.shard(5)
    server.shelf.destroy(5)
    assert list(folder.glob("5*")) == []


def test_a_table_that_was_being_made_is_not_there_and_can_be_made_anew(server: Server) -> None:
    description = {
        "model_id": 5,
        "spec": a_spec().to_content(),
        "routing": 1,
        "num_rows": 0,
        "rows_max": 0,
        "durability": "process",
    }
    Stores(server.folder / "segments", ()).new(description, "process").close(clean=False)
    assert len(list((server.folder / "segments").glob("5*"))) == 4
    server.restart()
    assert server.shelf.find(5) is None
    assert list((server.folder / "segments").glob("5*")) == []
    server.make()
    server.push(keys_of(1), ones(1))


def test_a_table_in_memory_is_lost_with_its_process(server: Server) -> None:
    server.make(durability="memory")
    server.table.push_keys(np.arange(5000), ones(5000))
    assert server.table.num_keys == 5000
    server.restart()
    with pytest.raises(ModelLost, match="went with the process"):
        server.shelf.shard(5)


def test_a_table_may_grow_up_to_the_limit_of_its_server_and_no_further() -> None:
    shelf = Shelf(None, memory_limit=200_000)
    shelf.reserve(5, a_spec(), num_rows=0)
    for _ in shelf.create(
        5, a_spec(), routing=1, num_rows=0, extents=np.empty((0, 4), np.int64), slice_cells=10
    ):
        pass
    table = shelf.shard(5)
    assert isinstance(table, TableShard)
    with pytest.raises(NotEnoughMemory, match=r"no room for 100000 more: .* may take 200000 and have"):
        table.push_keys(np.arange(100_000), ones(100_000))
    assert table.num_keys == 0
    for first in range(0, 6000, 1000):
        table.push_keys(np.arange(first, first + 1000), ones(1000))
    assert table.num_keys == 6000
    assert shelf.num_bytes <= 200_000
    assert shelf.status()[0]["rows"] == 6000
    shelf.close()
