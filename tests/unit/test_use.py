"""Rows of a table that are little used go, by rules that say exactly which, and whole or not at all after a kill."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glintpy import failpoints
from glintpy.errors import ConfigError, ShapeError
from glintpy.protocol.messages_tables import ASSIGN, CREATE, EVICT, REMOVE
from glintpy.protocol.texts import encoded, to_frame
from glintpy.storage.table import TableShard
from glintpy.storage.use import AGE, USE, Criteria
from tests.unit.tables import COLS, Killed, Server, a_table, die, keys_of, ones, state_of
from tests.unit.test_texts import ALIKE

NOTHING = Criteria(-1, -1, 0, AGE)


def evict(table: TableShard, now: float = 0.0, **changes: int) -> None:
    table.push_keys(NOTHING._replace(**changes).bits(), None, action=EVICT, now=now)


def used(*counts: int, **changes: object) -> TableShard:
    """Return a table in which key i was pushed to ``counts[i]`` times, the last time at i."""
    table = a_table(track=True, **changes)
    for key, count in enumerate(counts):
        for _ in range(count):
            table.push_keys(keys_of(key), ones(1), now=float(key))
    return table


def keys_in(table: TableShard) -> list[int]:
    return sorted(state_of(table))


def uses_of(table: TableShard, *keys: int) -> list[tuple[int, float]]:
    touches, touched = (table.pull_keys(keys_of(*keys), array=len(table._kept) - back) for back in (2, 1))
    return list(zip(touches.tolist(), touched.tolist(), strict=True))


@pytest.mark.parametrize("updater", ["add", "adam"])
def test_a_push_counts_once_for_a_key_however_often_it_names_it(updater: str) -> None:
    table = a_table(track=True, updater=updater)
    table.push_keys(keys_of(1, 2, 1), ones(3), now=10)
    table.push_keys(keys_of(1), ones(1), now=11)
    table.push_keys(keys_of(2, 3, 3), None, action=CREATE, now=12)
    assert uses_of(table, 1, 2, 3, 4) == [(2, 11.0), (2, 12.0), (1, 12.0), (0, 0.0)]
    # Assigning, as loading does, is no use; a row that it makes has the time at least.
    table.push_keys(keys_of(1, 5), ones(2), action=ASSIGN, now=20)
    assert uses_of(table, 1, 5) == [(2, 11.0), (0, 20.0)]
    table.push_keys(keys_of(5), np.array([7], np.uint32), action=ASSIGN, array=len(table._kept) - 2)
    table.push_keys(keys_of(5), np.array([3.0]), action=ASSIGN, array=len(table._kept) - 1)
    assert uses_of(table, 5) == [(7, 3.0)]
    table.push_keys(keys_of(1), None, action=REMOVE, now=30)
    table.push_keys(keys_of(1), ones(1), now=31)
    assert uses_of(table, 1) == [(1, 31.0)]


def test_what_goes_by_age_count_and_use() -> None:
    def left(by: int = AGE, **criteria: int) -> list[int]:
        table = used(3, 1, 2, 5, 1)
        evict(table, now=10.0, by=by, **criteria)
        return keys_in(table)

    assert left() == [0, 1, 2, 3, 4]
    assert left(older_us=8_000_000) == [2, 3, 4]  # keys 0 and 1 were touched at 0 and 1
    assert left(older_us=7_999_999) == [3, 4]
    assert left(older_us=0) == []
    assert left(touches_min=2) == [0, 2, 3]
    assert left(touches_min=6) == []
    assert left(rows_max=2) == [3, 4]
    assert left(rows_max=2, by=USE) == [0, 3]
    assert left(rows_max=4, by=USE) == [0, 2, 3, 4]  # of two that were used once the older one
    assert left(rows_max=0) == []
    assert left(rows_max=9) == [0, 1, 2, 3, 4]
    # What the others leave is counted.
    assert left(touches_min=2, rows_max=2) == [2, 3]
    assert left(touches_min=2, older_us=8_000_000, rows_max=1, by=USE) == [3]


@given(st.permutations(range(8)), st.integers(0, 8), st.booleans())
def test_rows_that_are_alike_go_by_their_keys_wherever_they_lie(
    order: list[int], rows_max: int, are_texts: bool
) -> None:
    def table_of(keys: list[int]) -> TableShard:
        table = a_table(track=True, keys="str63" if are_texts else "int64")
        for key in keys:
            items = to_frame(encoded([str(key)], "str63")) if are_texts else keys_of(key)
            table.push_keys(items, ones(1), now=5.0)
        evict(table, now=6.0, rows_max=rows_max)
        return table

    one, other = table_of(list(range(8))), table_of(order)
    rows = [np.sort(table.arrays[-2][table.arrays[-1] != 0]).tolist() for table in (one, other)]
    assert rows[0] == rows[1]
    assert len(rows[0]) == rows_max


def test_texts_that_share_their_bits_go_in_their_order() -> None:
    for keys in (ALIKE, ALIKE[::-1]):
        table = a_table(track=True, keys="str63")
        for key in keys:
            table.push_keys(to_frame(encoded([key], "str63")), ones(1), now=5.0)
        evict(table, now=6.0, rows_max=2)
        left = [key for key in ALIKE if table.contains(to_frame(encoded([key], "str63")))[0]]
        assert sorted(left) == sorted(ALIKE)[-2:]


def test_what_is_taken_out_is_gone_and_room_for_others() -> None:
    table = used(*([1] * 1000), updater="adam", init=2)
    num_rows = table.heap.num_rows
    evict(table, rows_max=10)
    assert (table.num_keys, table.contains(np.arange(1000)).sum()) == (10, 10)
    assert table.pull_keys(keys_of(5)).tolist() == [[2.0] * COLS]
    table.push_keys(np.arange(2000, 2900), ones(900), now=1.0)
    assert table.num_keys == 910
    assert table.heap.num_rows == num_rows
    evict(table, rows_max=0)
    assert (table.num_keys, keys_in(table)) == (0, [])


def test_so_many_at_once_that_the_index_is_made_anew() -> None:
    table = a_table(track=True)
    table.push_keys(np.arange(100_000), ones(100_000), now=1.0)
    table.push_keys(np.arange(5), ones(5), now=2.0)
    evict(table, rows_max=5)
    assert table.contains(np.arange(7)).tolist() == [True] * 5 + [False] * 2
    table.push_keys(keys_of(6, 7), ones(2), now=3.0)
    assert table.num_keys == 7


def test_what_no_client_sends_is_refused() -> None:
    table = used(1, 1)
    for keys in (
        np.zeros(3, np.int64),
        np.zeros(4, np.uint64),
        np.array([-2, -1, 0, 0]),
        np.array([0, 0, -1, 0]),
        np.array([0, 0, 0, 2]),
        np.zeros((1, 4), np.int64),
    ):
        with pytest.raises(ShapeError, match="eviction"):
            table.push_keys(keys, None, action=EVICT)
    with pytest.raises(ShapeError, match="takes no values"):
        table.push_keys(NOTHING.bits(), ones(4), action=EVICT)
    with pytest.raises(ConfigError, match="track=True"):
        a_table().push_keys(NOTHING.bits(), None, action=EVICT)
    assert table.num_keys == 2


def test_matrices_neither_track_nor_admit() -> None:
    from glintpy.protocol.spec import ModelSpec

    for option in ({"track": True}, {"admit_after": 2}):
        with pytest.raises(ConfigError, match="is no table"):
            ModelSpec("m", 3, 3, "float32", **option)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.shelf.close(clean=False)
    made.journal.close(clean=False)


@pytest.mark.parametrize(
    "place", ["push.before_undo", "push.undo_written", "push.flag_set", "push.applied", "push.recorded"]
)
def test_an_eviction_that_its_process_was_killed_in_is_in_whole_or_not_at_all(
    server: Server, place: str
) -> None:
    server.make(track=True, updater="adam")
    for now in range(3):
        server.push(np.arange(100 * now, 1000), ones(1000 - 100 * now), now=float(now))
    before, applied = state_of(server.table), server.session.applied
    assert set(before[0][-2:]) == {1, 0.0}
    criteria = NOTHING._replace(rows_max=700).bits()
    with failpoints.armed(place, die), pytest.raises(Killed):
        server.push(criteria, None, EVICT, now=9.0)
    server.restart()
    if server.session.applied == applied:
        assert state_of(server.table) == before
        server.push(criteria, None, EVICT, now=9.0)
    expected = {key: row for key, row in before.items() if key >= 200}
    found = state_of(server.table)
    assert len(found) == 700
    assert found.items() <= expected.items()


@pytest.mark.parametrize("place", ["push.flag_set", "push.half_applied", "push.applied", "table.begun"])
@pytest.mark.parametrize("action", ["push", "create"])
def test_a_use_goes_with_its_push(server: Server, place: str, action: str) -> None:
    server.make(track=True)
    server.push(keys_of(1, 2), ones(2), now=1.0)
    before = state_of(server.table)
    keys = keys_of(1, 2) if place != "table.begun" else keys_of(1, 7)
    values, number = (ones(2), 0) if action == "push" else (None, CREATE)
    if place == "push.half_applied" and values is None:
        return  # a creation has no halves
    with failpoints.armed(place, die), pytest.raises(Killed):
        server.push(keys, values, number, now=2.0)
    server.restart()
    assert state_of(server.table) == before
    server.push(keys, values, number, now=3.0)
    assert uses_of(server.table, 1) == [(2, 3.0)]
