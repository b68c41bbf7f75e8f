"""Keys that are texts: exact, whatever they hold and whatever they share, and whole or not there after a kill."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from glintpy import failpoints
from glintpy.errors import ConfigError, DTypeError, KeyRangeError, ShapeError
from glintpy.partitioning.keyed import hashed, partition_of
from glintpy.protocol import texts
from glintpy.protocol.messages_tables import CREATE, REMOVE, UPDATE
from glintpy.storage.log_keys import KeysRecord
from glintpy.storage.log_records import decode
from glintpy.storage.table import TableShard
from tests.unit.tables import COLS, Killed, Server, a_spec, a_table, die, ones
from tests.unit.test_table_kills import PLACES

SPECIFICATION = Path(__file__).parents[2] / "docs" / "protocol.md"
ALIKE = ["glintpy:a", "ScM1hYPA7z::eon", "CtFgVKhXwh!~0*4", "99F4VCiEBo0vu`@", "BuVB3BYl*_G%L6i"]
"""Texts that share all of their 64 bits."""

TEXTS = st.text(max_size=10) | st.sampled_from(["", "\0", "a", "a\0", "a\x01", "a\0\x01", "é" * 31, *ALIKE])


def items(*keys: str, kind: str = "str63") -> texts.Texts:
    return texts.encoded(keys, kind)


def frame(keys: Sequence[str]) -> NDArray[np.uint8]:
    return texts.to_frame(items(*keys))


def state_of(table: TableShard) -> dict[str, list[Any]]:
    rows = np.flatnonzero(table.arrays[-1])
    kept = table.arrays[:-3]
    keys = texts.decoded(table.arrays[-3][rows])
    assert table.arrays[-2][rows].tolist() == hashed(table.arrays[-3][rows]).tolist()
    found = {
        key: [array[row].tolist() for array in kept] for key, row in zip(keys.tolist(), rows, strict=True)
    }
    assert len(found) == len(rows)
    return found


# --- what they are ---------------------------------------------------------------------------------------------


def test_the_bits_are_those_in_the_specification() -> None:
    section = SPECIFICATION.read_text(encoding="utf-8").split("\n### Tables and keys\n", 1)[1]
    rows = re.findall(r'^\| `(".*")` \| `([0-9a-f]{16})` \| (\d+) \|$', section, re.MULTILINE)
    assert len(rows) >= 7
    for quoted, bits, partition in rows:
        for kind in ("str63", "str200"):
            found = hashed(items(json.loads(quoted), kind=kind))
            assert (int(found.view(np.uint64)[0]), int(partition_of(found)[0])) == (
                int(bits, 16),
                int(partition),
            )


def test_some_texts_share_their_bits() -> None:
    assert len(set(hashed(items(*ALIKE)).tolist())) == 1


@given(st.lists(TEXTS, max_size=20))
def test_texts_come_back_as_they_were_however_they_travel(keys: list[str]) -> None:
    kept = items(*keys)
    assert texts.decoded(kept).tolist() == keys
    travels = texts.to_frame(kept)
    assert travels.shape[1] % 8 == 0
    assert travels.shape[1] <= max(8, *(len(key.encode()) + 8 for key in ["", *keys]))
    assert np.array_equal(texts.from_frame(travels, "str63"), kept)
    assert np.array_equal(hashed(texts.from_frame(travels, "str63")), hashed(kept))
    assert len(np.unique(kept)) == len(set(keys))


@pytest.mark.parametrize("limit", [1, 7, 8, 63, 64, 1023])
def test_a_key_has_at_most_so_many_bytes(limit: int) -> None:
    kind = f"str{limit}"
    assert texts.decoded(items("x" * limit, kind=kind)).tolist() == ["x" * limit]
    assert texts.item_dtype(kind).itemsize % 8 == 0
    with pytest.raises(
        KeyRangeError, match=rf"at position 1 has {limit + 1} bytes in UTF-8.* {limit} at most"
    ):
        items("", "x" * (limit + 1), kind=kind)
    long = texts.to_frame(items("x" * (limit + 1), kind="str1023")) if limit < 1023 else None
    if long is not None:
        with pytest.raises(ShapeError):
            texts.from_frame(long, kind)


def test_half_a_surrogate_pair_is_no_key() -> None:
    with pytest.raises(KeyRangeError, match="position 1 has half of a surrogate pair"):
        items("a", "b\udc80")


@pytest.mark.parametrize(
    "kind", ["str0", "str", "str1024", "str063", "str-1", "str63 ", "text", "bytes", "str63\n"]
)
def test_other_kinds_are_refused(kind: str) -> None:
    with pytest.raises(ConfigError, match="key_dtype is one of 'int64', 'uint64', 'str'"):
        a_spec(keys=kind)


@pytest.mark.parametrize(
    ("sent", "error", "match"),
    [
        (np.zeros((1, 8), np.int8), DTypeError, "int8"),
        (np.array([1, 2]), DTypeError, "int64"),
        (np.zeros(8, np.uint8), ShapeError, "bytes"),
        (np.zeros((1, 9), np.uint8), ShapeError, "multiple of 8"),
        (np.zeros((1, 72), np.uint8), ShapeError, "up to 64"),
        (np.zeros((1, 0), np.uint8), ShapeError, "up to 64"),
        (np.zeros((2, 8), np.uint8), ShapeError, "byte 1"),
        (np.array([[97, 0, 0, 0, 0, 0, 0, 0]], np.uint8), ShapeError, "byte 1"),
        (np.array([[97, 1, 0, 2, 0, 0, 0, 0]], np.uint8), ShapeError, "byte 1"),
        (np.array([[0xC3, 1, 0, 0, 0, 0, 0, 0]], np.uint8), ShapeError, "UTF-8"),
        (np.array([[97] * 7 + [0xC3], [0xA9, 1] + [0] * 6], np.uint8), ShapeError, "byte 1"),
        (np.array([[0xED, 0xA0, 0x80, 1, 0, 0, 0, 0]], np.uint8), ShapeError, "UTF-8"),
    ],
)
def test_what_no_client_sends_is_refused(sent: NDArray[Any], error: type[Exception], match: str) -> None:
    table = a_table(keys="str63")
    with pytest.raises(error, match=match):
        table.contains(sent)
    with pytest.raises(error, match=match):
        table.push_keys(sent, None, action=CREATE)
    assert table.num_keys == 0


@pytest.mark.parametrize("values", [None, np.arange(6, dtype=np.float64).reshape(3, 2)])
def test_a_record_of_the_log_comes_back(values: NDArray[Any] | None) -> None:
    keys = frame(["a", "é\0", "x" * 20])
    record = KeysRecord(bytes(16), 3, 9, UPDATE if values is not None else REMOVE, 0, keys, values)
    found = decode(record.KIND, memoryview(b"".join(bytes(piece) for piece in record.body())))
    assert isinstance(found, KeysRecord)
    assert (found.keys.dtype, found.keys.tolist()) == (keys.dtype, keys.tolist())
    assert values is None or (found.values is not None and np.array_equal(found.values, values))
    assert found.values is None or found.values.flags.aligned


# --- on a server -----------------------------------------------------------------------------------------------


def test_texts_that_share_their_bits_are_as_many_keys() -> None:
    table = a_table(keys="str63", init=5)
    values = np.repeat(np.arange(len(ALIKE), dtype=np.float32), COLS).reshape(-1, COLS)
    table.push_keys(frame(ALIKE[:3] + ALIKE[:1]), values[[0, 1, 2, 0]])
    assert table.contains(frame(ALIKE)).tolist() == [True, True, True, False, False]
    assert table.pull_keys(frame(ALIKE))[:, 0].tolist() == [5, 6, 7, 5, 5]
    table.push_keys(frame(ALIKE[1:2]), None, action=REMOVE)
    table.push_keys(frame(ALIKE[::-1]), values[::-1])
    assert table.pull_keys(frame(ALIKE))[:, 0].tolist() == [5, 6, 9, 8, 9]
    for _ in range(2):
        assert table.num_keys == 5
        assert table.contains(frame(ALIKE)).all()
        table._found = None  # as after a restart
    assert texts.decoded(texts.from_frame(table.scan(0, bytes_max=10**6).keys, "str63")).tolist() == [
        *ALIKE[:1],
        ALIKE[4],
        ALIKE[2],
        ALIKE[3],
        ALIKE[1],
    ]


@given(
    st.lists(st.tuples(st.sampled_from([UPDATE, CREATE, REMOVE]), st.lists(TEXTS, max_size=12)), max_size=12)
)
def test_it_does_what_a_dict_does(steps: list[tuple[int, list[str]]]) -> None:
    table = a_table(init=1, keys="str63")
    rows: dict[str, float] = {}
    for action, keys in steps:
        table.push_keys(frame(keys), ones(len(keys)) if action == UPDATE else None, action=action)
        for key in keys:
            if action == REMOVE:
                rows.pop(key, None)
            else:
                rows[key] = rows.get(key, 1.0) + (action == UPDATE)
        assert state_of(table) == {key: [[value] * COLS] for key, value in rows.items()}
        assert table.num_keys == len(rows)
        table._found = None


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.shelf.close(clean=False)
    made.journal.close(clean=False)


@pytest.mark.parametrize("place", PLACES)
def test_a_push_of_texts_is_in_whole_or_not_at_all(server: Server, place: str) -> None:
    server.make(updater="adam", keys="str63", init=("normal", 0, 1))
    words = [f"{number}\0" * 3 for number in range(1100)]
    server.push(frame(words[:1000]), ones(1000))
    server.push(frame(words[:10]), None, REMOVE)
    before, applied = state_of(server.table), server.session.applied
    keys = [*words[500:], *ALIKE]
    with failpoints.armed(place, die), pytest.raises(Killed):
        server.push(frame(keys), ones(len(keys)))
    server.restart()
    if server.session.applied == applied:
        assert state_of(server.table) == before
        server.push(frame(keys), ones(len(keys)))
    untouched = a_table(updater="adam", keys="str63", init=("normal", 0, 1))
    for some in (words[10:1000], keys):
        untouched.push_keys(frame(some), ones(len(some)))
    assert state_of(server.table) == state_of(untouched)
    server.restart(clean=True)
    assert state_of(server.table) == state_of(untouched)
    assert server.table.contains(frame(ALIKE)).all()
