"""A table on a server does what a dict of rows does, whole or not at all, also when its process is killed."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glintpy.errors import (
    DTypeError,
    GlintError,
    NotEnoughMemory,
    RemoteProtocolError,
    ShapeError,
)
from glintpy.protocol.messages_tables import ASSIGN, CREATE, REMOVE, UPDATE
from glintpy.protocol.selection import Selection
from glintpy.protocol.spec import ModelSpec
from glintpy.storage.arrays import LINK_BYTES
from glintpy.updaters import named
from tests.unit.tables import (
    COLS,
    a_table,
    contents,
    keys_of,
    ones,
)

# --- what a dict does ------------------------------------------------------------------------------------------


def test_rows_come_into_being_when_they_are_first_pushed() -> None:
    table = a_table(init=0.5)
    assert table.pull_keys(keys_of(7, -7)).tolist() == [[0.5] * COLS] * 2
    assert (table.num_keys, table.contains(keys_of(7)).tolist()) == (0, [False])
    table.push_keys(keys_of(7, -7, 7), ones(3))
    assert table.pull_keys(keys_of(-7, 1, 7)).tolist() == [[1.5] * COLS, [0.5] * COLS, [2.5] * COLS]
    assert (table.num_keys, table.contains(keys_of(7, 1, -7)).tolist()) == (2, [True, False, True])


def test_removed_keys_are_gone_and_come_back_as_new_ones() -> None:
    table = a_table(updater="adam", init=2)
    table.push_keys(keys_of(1, 2, 3), ones(3))
    table.push_keys(keys_of(2, 9, 2), None, action=REMOVE)
    assert table.contains(keys_of(1, 2, 3, 9)).tolist() == [True, False, True, False]
    table.push_keys(keys_of(4, 2), None, action=CREATE)
    assert table.pull_keys(keys_of(2, 4)).tolist() == [[2.0] * COLS] * 2
    assert [table.pull_keys(keys_of(2), array=number).max() for number in (1, 2, 3)] == [0, 0, 0]
    assert table.num_keys == 4


def test_creating_what_is_there_and_removing_what_is_not_changes_nothing() -> None:
    table = a_table()
    table.push_keys(keys_of(1), ones(1))
    table.push_keys(keys_of(1, 1), None, action=CREATE)
    table.push_keys(keys_of(2), None, action=REMOVE)
    table.push_keys(keys_of(), None, action=CREATE)
    table.push_keys(keys_of(), ones(0))
    assert contents(table) == {1: [1.0] * COLS}


def test_assigning_stores_values_and_slots_as_they_are() -> None:
    table = a_table(updater="adagrad")
    table.push_keys(keys_of(3, 4), 7 * ones(2), action=ASSIGN)
    table.push_keys(keys_of(4, 5), 9 * ones(2), action=ASSIGN, array=1)
    assert table.pull_keys(keys_of(3, 4, 5)).tolist() == [[7.0] * COLS, [7.0] * COLS, [0.0] * COLS]
    assert table.pull_keys(keys_of(3, 4, 5), array=1)[:, 0].tolist() == [0, 9, 9]


@given(
    st.lists(
        st.tuples(
            st.sampled_from([UPDATE, ASSIGN, CREATE, REMOVE]), st.lists(st.integers(0, 30), max_size=12)
        ),
        max_size=15,
    )
)
def test_it_does_what_a_dict_does(steps: list[tuple[int, list[int]]]) -> None:
    table = a_table(init=1)
    rows: dict[int, float] = {}
    for number, (action, keys) in enumerate(steps):
        values = (number + np.arange(len(keys), dtype=np.float32))[:, None] * np.ones(COLS, np.float32)
        table.push_keys(
            np.array(keys, np.int64), None if action in {CREATE, REMOVE} else values, action=action
        )
        for place, key in enumerate(keys):
            if action == REMOVE:
                rows.pop(key, None)
                continue
            rows.setdefault(key, 1.0)
            rows[key] = {UPDATE: rows[key] + number + place, ASSIGN: number + place, CREATE: rows[key]}[
                action
            ]
        assert contents(table) == {key: [value] * COLS for key, value in rows.items()}
        assert table.num_keys == len(rows)
        table._found = None  # as after a restart
        assert table.contains(np.arange(31)).tolist() == [key in rows for key in range(31)]


@pytest.mark.parametrize("updater", ["add", "adagrad", "adam", "max", "momentum"])
def test_an_updater_does_to_a_table_what_it_does_to_a_matrix(updater: str, seed: int) -> None:
    from glintpy.storage.arrays import kept_arrays
    from glintpy.storage.shard import Shard

    source = np.random.default_rng(seed)
    table = a_table(updater=updater)
    spec = ModelSpec("m", 50, COLS, "float32", updater=updater)
    values, *slots = (
        np.zeros((50, *kind.row_shape), kind.dtype) for kind in kept_arrays(spec, named(updater))
    )
    matrix = Shard(6, spec, 1, values, slots=slots)
    order = source.permutation(50) * 1_000_003 - 7
    for _ in range(20):
        rows = source.integers(0, 50, 30)
        deltas = source.normal(size=(30, COLS)).astype(np.float32)
        table.push_keys(order[rows], deltas)
        matrix.push(Selection(rows), deltas)
    for number, stored in enumerate(matrix.arrays):
        assert np.array_equal(table.pull_keys(order, array=number), stored)


def test_random_rows_follow_from_seed_and_key_alone() -> None:
    first, second = (a_table(init=("normal", 0, 1), seed=seed) for seed in (3, 3))
    other = a_table(init=("normal", 0, 1), seed=4)
    before = first.pull_keys(keys_of(5, -5, 2**62))
    first.push_keys(keys_of(5, 2**62, -5), None, action=CREATE)
    second.push_keys(keys_of(2**62), None, action=CREATE)
    assert np.array_equal(first.pull_keys(keys_of(5, -5, 2**62)), before)
    assert np.array_equal(second.pull_keys(keys_of(5, -5, 2**62)), before)
    assert not np.any(other.pull_keys(keys_of(5, -5, 2**62)) == before)
    assert len(np.unique(first.pull_keys(np.arange(1000)))) > 2990


def test_unsigned_keys_come_out_as_they_went_in() -> None:
    table = a_table(keys="uint64")
    keys = np.array([2**64 - 1, 0, 2**63], np.uint64)
    table.push_keys(keys, ones(3))
    found = table.scan(0, bytes_max=10_000)
    assert found.keys.dtype == np.uint64
    assert sorted(found.keys.tolist()) == sorted(keys.tolist())


# --- bad requests ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("keys", "values", "options", "error", "text"),
    [
        (np.zeros(2, np.uint64), ones(2), {}, DTypeError, "keys of uint64 for table 't', whose are int64"),
        (np.zeros(2, np.int32), ones(2), {}, DTypeError, "keys of int32"),
        (np.zeros((2, 1), np.int64), ones(2), {}, ShapeError, r"keys are \(n,\), not \(2, 1\)"),
        (keys_of(1, 2), ones(3), {}, ShapeError, r"\(3, 3\)"),
        (keys_of(1), ones(1).astype("f8"), {}, DTypeError, "float64"),
        (keys_of(1), None, {}, ShapeError, "has values"),
        (keys_of(1), ones(1), {"action": REMOVE}, ShapeError, "takes no values"),
        (keys_of(1), None, {"action": CREATE, "array": 1}, ShapeError, "takes no values"),
        (keys_of(1), ones(1), {"array": 1}, ShapeError, "can be assigned"),
        (keys_of(1), ones(1), {"action": ASSIGN, "array": 2}, ShapeError, "no number 2"),
        (keys_of(1), ones(1) * np.float32("nan"), {}, DTypeError, "not finite"),
    ],
)
def test_a_push_that_does_not_fit_changes_nothing(
    keys: NDArray[Any],
    values: NDArray[Any] | None,
    options: dict[str, int],
    error: type[GlintError],
    text: str,
) -> None:
    table = a_table(updater="adagrad", finite=True)
    with pytest.raises(error, match=text):
        table.push_keys(keys, values, **options)
    assert contents(table) == {}


def test_what_is_asked_by_row_is_refused_and_so_is_too_much() -> None:
    table = a_table()
    rows = Selection(np.array([0], np.int64))
    for ask in (lambda: table.pull(rows), lambda: table.push(rows, ones(1))):
        with pytest.raises(ShapeError, match="asked for by key"):
            ask()
    with pytest.raises(RemoteProtocolError, match="24 bytes, more than 20"):
        table.pull_keys(keys_of(1, 2), bytes_max=20)


def test_without_room_a_push_is_refused_whole_and_the_next_one_that_fits_is_not() -> None:
    table = a_table()
    table.push_keys(np.arange(1000), ones(1000))

    def no_room(num_bytes: int) -> None:
        raise NotEnoughMemory(f"no {num_bytes} bytes")

    table.check_room = no_room
    with pytest.raises(NotEnoughMemory, match="has 1000 keys on this server, and no room for 25 more: no "):
        table.push_keys(np.arange(999, 1025), ones(26))
    assert np.array_equal(table.pull_keys(np.arange(999, 1025))[:, 0], [1.0] + [0.0] * 25)
    table.push_keys(np.arange(999, 1024), ones(25))
    table.push_keys(np.arange(100), None, action=REMOVE)
    table.push_keys(-np.arange(1, 101), ones(100))
    assert table.num_keys == 1024


def test_a_table_has_no_more_keys_than_it_may() -> None:
    table = a_table(num_rows=2000)
    table.rows_max = 1500
    table.push_keys(np.arange(1400), ones(1400))
    with pytest.raises(
        NotEnoughMemory, match="1400 keys on this server, and no room for 101 more: it may have 1500"
    ):
        table.push_keys(np.arange(1400, 1501), ones(101))
    table.push_keys(np.arange(1400, 1500), ones(100))
    assert table.heap.num_rows == 1500
    with pytest.raises(NotEnoughMemory):
        table.push_keys(keys_of(-1), ones(1))
    table.push_keys(keys_of(3), None, action=REMOVE)
    table.push_keys(keys_of(-1), ones(1))
    assert table.num_keys == 1500


def test_where_there_is_room_for_just_what_comes_no_more_is_asked_for() -> None:
    table = a_table()
    row_bytes = table.heap.row_bytes + LINK_BYTES

    def room(num_bytes: int) -> None:
        if num_bytes > 10 * row_bytes:
            raise NotEnoughMemory("no more")

    table.check_room = room
    table.push_keys(np.arange(1034), ones(1034))
    assert table.heap.num_rows == 1034


# --- moments ---------------------------------------------------------------------------------------------------


def test_a_moment_shows_keys_marks_and_values_as_they_were_however_the_table_grows() -> None:
    table = a_table()
    table.push_keys(np.arange(1000), ones(1000))
    table.push_keys(keys_of(3), None, action=REMOVE)
    moment = table.begin_cut(1, slice_rows=100)
    expected = [array.copy() for array in table.arrays]
    table.push_keys(np.arange(500, 5000), ones(4500))
    table.push_keys(np.arange(0, 900), None, action=REMOVE)
    table.push_keys(-np.arange(1, 3000), ones(2999))
    each = moment.num_slices // len(expected)
    for number, array in enumerate(expected):
        found = np.concatenate([moment.read(index) for index in range(number * each, (number + 1) * each)])
        assert np.array_equal(found, array)
    table.end_cut(1)


def test_a_moment_has_what_lay_in_a_row_that_another_key_took_since() -> None:
    table = a_table()
    table.push_keys(keys_of(1, 2, 3), np.arange(9, dtype=np.float32).reshape(3, COLS))
    expected = [array.copy() for array in table.arrays]
    moment = table.begin_cut(1, slice_rows=table.num_rows)
    table.push_keys(keys_of(2), None, action=REMOVE)
    table.push_keys(keys_of(7, 8), 50 * ones(2))
    assert table.pull_keys(keys_of(7)).tolist() == [[50.0] * COLS]
    used = expected[-1] != 0
    for number, wanted in enumerate(expected):
        assert np.array_equal(moment.read(number)[used], wanted[used])
    table.end_cut(1)
