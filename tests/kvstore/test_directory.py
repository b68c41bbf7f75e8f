"""Where keys lie: no two in one place, also after ends and moves, and every follower says the same."""

from __future__ import annotations

import json
from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from glintpy.kvstore.directory import (
    MATRIX_ROWS,
    PACKED_MAX,
    PAGE_CELLS,
    Directory,
    Entry,
    keys_entry,
    model_entry,
)
from glintpy.kvstore.forms import Key, Spec
from glintpy.kvstore.spans import batches_of, joined

F4 = np.dtype("float32")
F8 = np.dtype("float64")


def add(directory: Directory, specs: dict[Key, Spec], *, anew: bool = False) -> list[Entry]:
    makings, places = directory.placed(specs, anew=anew)
    entries = [*map(model_entry, makings)]
    entries.append(
        {"entry": "moved", "keys": [list(p) for p in places]} if anew else keys_entry(places, specs)
    )
    for entry in entries:
        directory.apply(entry)
    return entries


def check_places(directory: Directory) -> None:
    spans: dict[int, list[tuple[int, int]]] = {}
    for place in directory.places.values():
        assert directory.models[place.model].dtype == place.spec.dtype
        spans.setdefault(place.model, []).append((place.offset, place.offset + place.spec.size))
    for model, found in spans.items():
        found.sort()
        assert all(one[1] <= other[0] for one, other in pairwise(found))
        held = directory.models[model]
        if held.kind == "page":
            assert found[-1][1] <= held.used <= held.size


def test_a_list_of_small_keys_is_one_page_that_it_fills() -> None:
    directory = Directory()
    entries = add(directory, {key: Spec((1000,), F4) for key in range(1000)})
    assert [entry["entry"] for entry in entries] == ["model", "keys"]
    assert entries[0]["size"] == 1_000_000
    assert directory.places[999].offset == 999_000


def test_few_small_keys_share_a_page_with_later_ones() -> None:
    directory = Directory()
    add(directory, {"a": Spec((10,), F4)})
    add(directory, {"b": Spec((2, 2), F4), "c": Spec((), F8)})
    assert directory.places["a"].model == directory.places["b"].model
    assert directory.places["b"].offset == 10
    assert directory.models[0].size == PAGE_CELLS
    assert directory.models[directory.places["c"].model].dtype == F8


def test_large_keys_have_models_of_their_own() -> None:
    directory = Directory()
    makings, _ = directory.placed(
        {
            "vector": Spec((PACKED_MAX + 1,), F4),
            "flat": Spec((MATRIX_ROWS - 1, 10_000), F4),
            "matrix": Spec((MATRIX_ROWS, 10, 100), F4),
        }
    )
    assert [(making.kind, making.size, making.cols) for making in makings] == [
        ("vector", PACKED_MAX + 1, 0),
        ("vector", (MATRIX_ROWS - 1) * 10_000, 0),
        ("matrix", MATRIX_ROWS, 1000),
    ]


def test_a_place_is_never_used_twice() -> None:
    directory = Directory()
    add(directory, {"a": Spec((10,), F4)})
    directory.apply({"entry": "deleted", "keys": ["a"]})
    assert directory.empty_models() == []  # there is room for more
    add(directory, {"a": Spec((10,), F4)})
    assert directory.places["a"].offset == 10
    assert directory.places["a"].version == 2


def test_an_entry_about_keys_that_are_gone_is_followed_for_the_others() -> None:
    directory = Directory()
    add(directory, {"a": Spec((10,), F4), "b": Spec((10,), F4)})
    directory.apply({"entry": "deleted", "keys": ["a", "a", "never"]})
    directory.apply({"entry": "again", "keys": ["a", "b"]})
    directory.apply({"entry": "moved", "keys": [["a", 0, 0], ["b", 0, 10]]})
    assert list(directory.places) == ["b"]
    assert directory.versions == {"a": 1, "b": 2}


def test_models_without_keys_end_when_nothing_can_come_into_them() -> None:
    directory = Directory()
    add(directory, {"a": Spec((10,), F4), "big": Spec((100_000,), F4)})
    directory.apply({"entry": "deleted", "keys": ["a", "big"]})
    assert directory.empty_models() == [0]
    directory.apply({"entry": "optimizer", "counts": 1, "anew": 1})
    assert directory.empty_models() == [1]
    assert directory.models == {}


def test_a_page_that_a_follower_has_forgotten_gets_no_key() -> None:
    leader, follower = Directory(), Directory()

    def follow(entries: list[Entry]) -> None:
        for entry in entries:
            follower.apply(entry)
        follower.empty_models()

    def delete(key: Key) -> list[Entry]:
        entry: Entry = {"entry": "deleted", "keys": [key]}
        leader.apply(entry)
        leader.empty_models()
        return [entry]

    follow(add(leader, {"a": Spec((10,), F4)}))
    follow(delete("a"))
    for key, size in (("b", PAGE_CELLS - 1), ("c", 1), ("d", 1)):  # the second page is full when "d" comes
        follow(add(leader, {key: Spec((size,), F4)}))
    assert follower.places == leader.places
    follow(add(leader, {"whole": Spec((PAGE_CELLS,), F4)}))
    follow([*delete("whole"), *delete("d")])
    follow(add(leader, {"e": Spec((1,), F4)}))
    assert follower.places == leader.places


SPECS = st.builds(
    Spec,
    st.sampled_from([(), (0,), (3,), (1000,), (70_000,), (300, 300), (9, 40_000)]),
    st.sampled_from([F4, F8]),
)
KEYS = st.one_of(st.integers(0, 5), st.sampled_from("abc"))
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("add"), st.dictionaries(KEYS, SPECS, min_size=1, max_size=5)),
        st.tuples(st.just("delete"), st.lists(KEYS, min_size=1, max_size=3, unique=True)),
        st.tuples(st.just("switch"), st.none()),
    ),
    max_size=20,
)


@given(steps=STEPS)
def test_whoever_follows_the_entries_finds_what_their_writer_decided(steps: list[tuple[str, object]]) -> None:
    leader, follower = Directory(), Directory()
    for kind, argument in steps:
        entries: list[Entry] = []
        if kind == "add":
            assert isinstance(argument, dict)
            fresh = {key: spec for key, spec in argument.items() if key not in leader.places}
            entries = add(leader, fresh) if fresh else []
        elif kind == "delete":
            assert isinstance(argument, list)
            there = [key for key in argument if key in leader.places]
            entries = [{"entry": "deleted", "keys": there}] if there else []
            for entry in entries:
                leader.apply(entry)
        else:
            entries = [{"entry": "optimizer", "counts": 1, "anew": 1}]
            leader.apply(entries[0])
            entries += add(leader, {key: place.spec for key, place in leader.places.items()}, anew=True)
        check_places(leader)
        ended = leader.empty_models()
        for entry in json.loads(json.dumps(entries)):
            follower.apply(entry)
        assert follower.empty_models() == ended
        assert follower.places == leader.places
        assert follower.versions == leader.versions
        assert set(follower.models) == set(leader.models)


@given(
    sizes=st.lists(st.integers(0, 50), max_size=60),
    order=st.randoms(use_true_random=False),
    chosen=st.floats(0, 1),
)
def test_keys_of_a_vector_are_few_requests_that_hold_each_cell_once(
    sizes: list[int], order: object, chosen: float
) -> None:
    offsets = np.cumsum([0, *sizes])
    spans = [(int(offset), size) for offset, size in zip(offsets, sizes, strict=False)]
    order.shuffle(spans)  # type: ignore[attr-defined]
    spans = spans[: int(len(spans) * chosen)]
    vector = np.arange(offsets[-1], dtype=float)
    found = np.full(len(vector), -1.0)
    values = [vector[offset : offset + size] for offset, size in spans]
    batches = batches_of(spans)
    assert len(batches) <= 16
    for batch in batches:
        found[batch.keys] = joined(batch, values, vector.dtype)
        for which, at, size in batch.members:
            assert (vector[batch.keys][at : at + size] == values[which]).all()
    wanted = np.full(len(vector), -1.0)
    for offset, size in spans:
        wanted[offset : offset + size] = vector[offset : offset + size]
    assert (found == wanted).all()
