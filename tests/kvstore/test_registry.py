"""Stores of one's own, and MXNet's names of kinds."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

import glintpy
from glintpy.kvstore import KVStoreBase, create
from glintpy.kvstore.creating import LOCAL


@pytest.fixture(autouse=True)
def registry_as_before() -> Iterator[None]:
    before = dict(KVStoreBase.registry)
    yield
    KVStoreBase.registry.clear()
    KVStoreBase.registry.update(before)


class Mine(KVStoreBase):
    """As small as a store can be."""

    type = "mine"
    rank = 0
    num_workers = 1

    def broadcast(self, *given: Any, **more: Any) -> Any:
        return given, more

    def pushpull(self, *given: Any, **more: Any) -> Any:
        return given, more

    def is_capable(self, capability: str) -> bool:
        return capability == "nothing"


def test_a_registered_class_is_a_kind_of_store() -> None:
    assert KVStoreBase.register(Mine) is Mine
    made = create("MINE")
    assert isinstance(made, Mine)
    for name in ("set_optimizer", "save_optimizer_states", "load_optimizer_states"):
        with pytest.raises(glintpy.ConfigError, match="a store of type 'mine' has no optimiser"):
            getattr(made, name)("x")


def test_who_takes_a_name_that_is_taken_is_warned() -> None:
    KVStoreBase.register(Mine)
    other = type("Mine", (Mine,), {})
    with pytest.warns(UserWarning, match="store 'mine' is now"):
        KVStoreBase.register(other)
    assert type(create("mine")) is other


def test_what_is_no_store_can_t_be_registered() -> None:
    with pytest.raises(glintpy.ConfigError, match="derive it from glintpy"):
        KVStoreBase.register(int)  # type: ignore[type-var]


@pytest.mark.parametrize("kind", LOCAL)
def test_kinds_of_one_process_have_mxnet_s_names(kind: str) -> None:
    assert create(kind).type == kind
    assert create(kind.upper()).type == kind
