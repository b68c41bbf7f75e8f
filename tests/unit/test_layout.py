"""Layouts: whatever was asked for comes together again from what the servers have."""

from __future__ import annotations

import pickle

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from glintpy.errors import ConfigError, KeyRangeError, ShapeError
from glintpy.partitioning import CyclicPartitioner, Layout, Partitioner, RangePartitioner, Share
from glintpy.protocol.selection import axis_indices, axis_length, check_axis, is_slices
from glintpy.testing import strategies
from glintpy.testing.partitioners import TablePartitioner, scattered


def in_turn(partitioner: Partitioner, num_servers: int) -> Layout:
    return Layout(partitioner, np.arange(partitioner.num_partitions) % num_servers, num_servers)


def server_arrays(layout: Layout) -> list[NDArray[np.int64]]:
    """What each server keeps if every key's value is the key; made by the slowest way there is."""
    partitioner = layout.partitioner
    arrays: list[NDArray[np.int64]] = []
    for server in range(layout.num_servers):
        pieces = [np.empty(0, dtype=np.int64)]
        for partition in layout.partitions_of(server):
            assert layout.offset_of(partition) == sum(map(len, pieces))
            pieces.append(partitioner.global_of(partition, np.arange(partitioner.size_of(partition))))
        arrays.append(np.concatenate(pieces))
    return arrays


def reassembled(layout: Layout, shares: list[Share], count: int) -> NDArray[np.int64]:
    """What a client puts together; fails if a position is written twice or not at all."""
    arrays = server_arrays(layout)
    assert [share.server for share in shares] == sorted({share.server for share in shares})
    out = np.full(count, -1, dtype=np.int64)
    written = np.zeros(count, dtype=np.int64)
    for share in shares:
        check_axis(share.rows, layout.num_rows_of(share.server), what="row")
        rows = axis_indices(share.rows)
        assert len(rows) > 0, "only servers with something to do appear"
        written[share.positions] += 1
        out[share.positions] = arrays[share.server][rows]
        assert len(out[share.positions]) == len(rows)
    assert np.all(written == 1)
    return out


# --- keys -----------------------------------------------------------------------------------------------


@given(layout=strategies.layouts(), data=st.data())
def test_keys_come_together_again(layout: Layout, data: st.DataObject) -> None:
    keys = data.draw(strategies.keys(layout.partitioner.num_keys))
    shares = layout.locate(keys)
    np.testing.assert_array_equal(reassembled(layout, shares, len(keys)), keys)
    for share in shares:
        assert share.rows.dtype == np.uint32
        if not isinstance(share.positions, slice):
            assert np.all(np.diff(share.positions) > 0), "a server's rows keep the caller's order"


@pytest.mark.parametrize("num_servers", [1, 2, 8, 9, 40, 300])
@pytest.mark.parametrize("kind", [RangePartitioner, CyclicPartitioner, scattered])
def test_any_number_of_servers_will_do(num_servers: int, kind: type[Partitioner]) -> None:
    layout = in_turn(kind(5_000, 2 * num_servers), num_servers)
    keys = np.random.default_rng(0).integers(5_000, size=3_000)
    shares = layout.locate(keys)
    np.testing.assert_array_equal(reassembled(layout, shares, len(keys)), keys)
    assert len(shares) == num_servers


@pytest.mark.parametrize("num_servers", [2, 12])
def test_one_servers_keys_have_a_slice_of_positions_or_all_of_them(num_servers: int) -> None:
    layout = in_turn(CyclicPartitioner(120, num_servers), num_servers)
    keys = np.array([1, 1 + num_servers, 1, 1 + 2 * num_servers])
    (share,) = layout.locate(keys)
    assert share.server == 1
    assert share.rows.tolist() == [0, 1, 0, 2]
    assert np.arange(4)[share.positions].tolist() == [0, 1, 2, 3]


def test_no_keys_are_no_shares() -> None:
    assert in_turn(RangePartitioner(10, 4), 2).locate(np.empty(0, dtype=np.int64)) == []
    assert in_turn(RangePartitioner(0, 1), 1).locate(np.empty(0, dtype=np.int64)) == []


def test_a_lone_server_gets_everything_in_one_slice_of_positions() -> None:
    for kind in (RangePartitioner, CyclicPartitioner):
        layout = Layout(kind(100, 4), [2, 2, 2, 2], 5)
        (share,) = layout.locate(np.array([5, 99, 5]))
        assert share.server == 2
        assert share.positions == slice(0, 3, 1)
        assert server_arrays(layout)[2][share.rows].tolist() == [5, 99, 5]


def test_rows_are_a_copy_that_the_callers_keys_can_not_change() -> None:
    huge = Layout(RangePartitioner(2**40, 1), [0], 1)
    keys = np.array([3, 2**39], dtype=np.int64)
    (share,) = huge.locate(keys)
    keys[:] = 0
    assert share.rows.tolist() == [3, 2**39]


def test_rows_are_narrow_below_two_to_the_32_and_wide_from_there() -> None:
    layout = Layout(RangePartitioner(2**33 - 1, 2), [0, 1], 2)
    narrow, wide = layout.locate(np.array([2**33 - 2, 0]))
    assert (layout.num_rows_of(0), layout.num_rows_of(1)) == (2**32 - 1, 2**32)
    assert (narrow.rows.dtype.name, narrow.rows.tolist()) == ("uint32", [0])
    assert (wide.rows.dtype.name, wide.rows.tolist()) == ("int64", [2**32 - 1])


@pytest.mark.parametrize("kind", [RangePartitioner, CyclicPartitioner])
def test_a_thousand_keys_on_two_servers_are_five_hundred_each(kind: type[Partitioner]) -> None:
    layout = in_turn(kind(1000, 2), 2)
    shares = layout.locate(np.arange(1000))
    assert [(share.server, len(share.rows)) for share in shares] == [(0, 500), (1, 500)]
    assert [layout.num_rows_of(server) for server in range(2)] == [500, 500]


# --- slices ---------------------------------------------------------------------------------------------


@settings(max_examples=300)
@given(layout=strategies.layouts(), data=st.data())
def test_slices_come_together_again(layout: Layout, data: st.DataObject) -> None:
    num_keys = layout.partitioner.num_keys
    start, stop, step = data.draw(strategies.forward_slices(num_keys))
    shares = layout.locate_slice(start, stop, step)
    expected = np.arange(num_keys)[start:stop:step]
    np.testing.assert_array_equal(reassembled(layout, shares, len(expected)), expected)
    if layout.affine_extents() is None:
        return
    for share in shares:
        assert is_slices(share.rows), "evenly spaced keys travel as slices"
        assert len(share.rows) <= len(layout.partitions_of(share.server))
        if len(share.rows) == 1 and len(layout.partitions_of(share.server)) == 1:
            assert isinstance(share.positions, slice)


@given(data=st.data())
def test_slices_of_huge_models_are_exact(data: st.DataObject) -> None:
    num_keys = data.draw(st.integers(2**40, 2**62))
    kind = data.draw(st.sampled_from([RangePartitioner, CyclicPartitioner]))
    layout = in_turn(kind(num_keys, data.draw(st.integers(1, 50))), data.draw(st.integers(1, 12)))
    count = data.draw(st.integers(1, 300))
    step = data.draw(st.integers(1, num_keys // count))
    start = data.draw(st.integers(0, num_keys - (count - 1) * step - 1))
    expected = [start + index * step for index in range(count)]
    found = [-1] * count
    for share in layout.locate_slice(start, expected[-1] + 1, step):
        check_axis(share.rows, layout.num_rows_of(share.server), what="row")
        positions = np.arange(count)[share.positions].tolist()
        for position, row in zip(positions, axis_indices(share.rows).tolist(), strict=True):
            assert found[position] == -1
            found[position] = int(layout.global_rows(share.server, row, row + 1)[0])
    assert found == expected


def test_the_whole_of_a_huge_model_is_a_slice_a_server() -> None:
    for kind in (RangePartitioner, CyclicPartitioner):
        layout = in_turn(kind(2**62, 4), 4)
        shares = layout.locate_slice(0, 2**62, 1)
        assert [share.rows.tolist() for share in shares] == [[[0, 2**60, 1]]] * 4
        assert all(isinstance(share.positions, slice) for share in shares)
    first, second, *_ = layout.locate_slice(0, 2**62, 1)
    assert (first.positions, second.positions) == (slice(0, 2**62 - 3, 4), slice(1, 2**62 - 2, 4))


def test_neighbouring_partitions_on_one_server_are_one_slice() -> None:
    layout = Layout(RangePartitioner(100, 7), [1] * 7, 2)
    (share,) = layout.locate_slice(3, 98, 5)
    assert share.rows.tolist() == [[3, 94, 5]]
    assert share.positions == slice(0, 19, 1)
    (whole,) = layout.locate_slice(0, 100, 1)
    assert (whole.rows.tolist(), whole.positions) == ([[0, 100, 1]], slice(0, 100, 1))


def test_distant_partitions_on_one_server_keep_their_order() -> None:
    layout = in_turn(RangePartitioner(40, 4), 2)
    first, second = layout.locate_slice(5, 35, 10)
    assert (first.server, first.rows.tolist()) == (0, [[5, 16, 10]])
    assert np.asarray(first.positions).tolist() == [0, 2]
    assert (second.server, second.rows.tolist(), second.positions) == (1, [[5, 6, 10]], slice(1, 2, 1))


@pytest.mark.parametrize("step", [1, 2, 3, 4, 6, 8, 12, 24])
def test_a_step_meets_every_cyclic_partition_that_it_should(step: int) -> None:
    layout = in_turn(CyclicPartitioner(100, 12), 12)
    shares = layout.locate_slice(5, 100, step)
    keys = np.arange(5, 100, step)
    assert [share.server for share in shares] == sorted(set((keys % 12).tolist()))
    assert sum(axis_length(share.rows) for share in shares) == len(keys)


def test_the_whole_of_a_table_is_a_slice_a_server_and_a_part_is_indices() -> None:
    layout = in_turn(scattered(100, 5), 2)
    whole = layout.locate_slice(0, 100, 1)
    assert [share.rows.tolist() for share in whole] == [
        [[0, layout.num_rows_of(server), 1]] for server in (0, 1)
    ]
    part = layout.locate_slice(0, 99, 1)
    assert [share.rows.dtype for share in part] == [np.uint32, np.uint32]


def test_a_server_without_rows_has_no_share_of_the_whole() -> None:
    layout = Layout(TablePartitioner([0, 2, 0], 3), [0, 1, 2], 4)
    assert [share.server for share in layout.locate_slice(0, 3, 1)] == [0, 2]


@pytest.mark.parametrize("kind", [RangePartitioner, CyclicPartitioner, scattered])
def test_an_empty_slice_is_no_share(kind: type[Partitioner]) -> None:
    assert in_turn(kind(10, 3), 2).locate_slice(4, 4, 1) == []
    assert in_turn(kind(0, 1), 1).locate_slice(0, 0, 1) == []


@pytest.mark.parametrize(
    ("triple", "error"),
    [
        ((5, 4, 1), ShapeError),
        ((0, 5, 0), ShapeError),
        ((0, 5, -1), ShapeError),
        ((-1, 5, 1), KeyRangeError),
        ((0, 11, 1), KeyRangeError),
        ((11, 11, 1), KeyRangeError),
    ],
)
def test_a_slice_that_can_not_be_is_refused(triple: tuple[int, int, int], error: type[Exception]) -> None:
    start, stop, step = triple
    with pytest.raises(error, match=f"slice {start}:{stop}:{step}"):
        in_turn(RangePartitioner(10, 2), 2).locate_slice(start, stop, step)


# --- what lies where ------------------------------------------------------------------------------------


@given(layout=strategies.layouts(), data=st.data())
def test_global_rows_are_the_keys_of_server_rows(layout: Layout, data: st.DataObject) -> None:
    arrays = server_arrays(layout)
    assert [layout.num_rows_of(server) for server in range(layout.num_servers)] == list(map(len, arrays))
    server = data.draw(st.integers(0, layout.num_servers - 1))
    start = data.draw(st.integers(0, len(arrays[server])))
    stop = data.draw(st.integers(start, len(arrays[server])))
    found = layout.global_rows(server, start, stop)
    assert found.dtype == np.int64
    np.testing.assert_array_equal(found, arrays[server][start:stop])


def test_partitions_lie_in_increasing_order() -> None:
    layout = Layout(RangePartitioner(25, 5), [1, 0, 1, 3, 0], 5)
    assert [layout.partitions_of(server) for server in range(5)] == [[1, 4], [0, 2], [], [3], []]
    assert [layout.offset_of(partition) for partition in range(5)] == [0, 0, 5, 0, 5]
    assert [layout.num_rows_of(server) for server in range(5)] == [10, 10, 0, 5, 0]


def test_sizes_and_extents_are_told_and_stay_ours() -> None:
    layout = in_turn(CyclicPartitioner(7, 3), 2)
    told = layout.affine_extents()
    assert told is not None
    assert told.tolist() == [[0, 3], [1, 3], [2, 3]]
    told[:] = 0
    layout.sizes()[:] = 0
    assert layout.sizes().tolist() == [3, 2, 2]
    again = layout.affine_extents()
    assert again is not None
    assert again.tolist() == [[0, 3], [1, 3], [2, 3]]
    assert in_turn(scattered(7, 3), 2).affine_extents() is None


@pytest.mark.pickles
def test_a_layout_pickles() -> None:
    layout = in_turn(CyclicPartitioner(50, 4), 3)
    copy: Layout = pickle.loads(pickle.dumps(layout))  # noqa: S301 - our own bytes
    assert copy.partitioner == layout.partitioner
    np.testing.assert_array_equal(reassembled(copy, copy.locate_slice(3, 50, 2), 24), np.arange(3, 50, 2))


def test_owners_are_copied_and_their_highest_gives_the_servers() -> None:
    owners = np.array([0, 3], dtype=np.int32)
    layout = Layout(RangePartitioner(10, 2), owners)
    owners[:] = 0
    assert layout.num_servers == 4
    assert layout.partitions_of(3) == [1]


def test_servers_and_partitions_that_are_not_there_are_refused() -> None:
    layout = in_turn(RangePartitioner(10, 2), 2)
    for ask in (layout.num_rows_of, layout.partitions_of, lambda server: layout.global_rows(server, 0, 1)):
        for server in (-1, 2):
            with pytest.raises(KeyRangeError, match=rf"server {server} is outside \[0, 2\)"):
                ask(server)
    with pytest.raises(KeyRangeError, match=r"partition -1 is outside"):
        layout.offset_of(-1)
    for start, stop in ((-1, 2), (3, 2), (0, 6)):
        with pytest.raises(KeyRangeError, match="which has rows 0 to 5"):
            layout.global_rows(0, start, stop)


@pytest.mark.parametrize(
    ("owners", "num_servers", "error"),
    [
        ([0], 2, ShapeError),
        ([[0, 1]], 2, ShapeError),
        ([0.0, 1.0], 2, ShapeError),
        ([0, -1], 2, ConfigError),
        ([0, 2], 2, ConfigError),
    ],
)
def test_owners_that_can_not_be_are_refused(
    owners: list[int], num_servers: int, error: type[Exception]
) -> None:
    with pytest.raises(error):
        Layout(RangePartitioner(10, 2), owners, num_servers)


class Wrong(RangePartitioner):
    """A partitioner whose author was mistaken, in a way that the test chooses."""

    def __init__(self, *, extra: int = 0, places: dict[int, tuple[int, int] | None] | None = None) -> None:
        super().__init__(10, 2)
        self.extra, self.places = extra, places or {}

    def size_of(self, partition: int) -> int:
        return super().size_of(partition) + self.extra

    def affine(self, partition: int) -> tuple[int, int] | None:  # type: ignore[override]
        return self.places.get(partition, super().affine(partition))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (Wrong(extra=1), "have 12 keys together"),
        (Wrong(extra=-6), "the smallest -1"),
        (Wrong(places={1: None}), "spacing of 1 of 2 partitions"),
        (Wrong(places={1: (5, 2)}), r"steps \[1, 2\]"),
        (Wrong(places={0: (0, 0), 1: (5, 0)}), r"steps \[0\]"),
        (Wrong(places={1: (6, 1)}), "partition 1 has 5 keys from 6 in steps of 1"),
        (Wrong(places={0: (-1, 1)}), "partition 0 has 5 keys from -1"),
    ],
)
def test_a_partitioner_that_contradicts_itself_is_refused(wrong: Partitioner, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        Layout(wrong, [0, 1], 2)
