"""What has ended, or fails at its end: keys, stores, updaters and commands that name what isn't there."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.kvstore import KVStore, commands, create


def test_a_key_that_was_deleted_is_not_there_to_be_deleted(kv: KVStore) -> None:
    kv.init("w", np.zeros(2))
    kv.delete("w")
    with pytest.raises(glintpy.ModelNotFound, match="'w' was never initialised"):
        kv.delete("w")
    kv.init("w", np.ones(3))
    kv.delete("w")
    with pytest.raises(glintpy.ModelNotFound):
        kv.pull("w")


def test_a_store_that_was_closed_says_so_at_a_barrier(cluster: glintpy.LocalCluster, job: str) -> None:
    with cluster.client() as client:
        with create("dist_async", client, job=job, num_workers=1) as kv:
            kv.init("w", np.zeros(2))
        with pytest.raises(glintpy.ConfigError, match="the store was closed"):
            kv.barrier()


def test_an_updater_that_fails_at_one_key_changes_none() -> None:
    def fails_at_b(key: Any, _: Any, stored: Any) -> None:
        stored += 1
        if key == "b":
            raise ValueError("at b")

    kv = create("local")
    kv.init(["a", "b"], [np.zeros(2), np.zeros(2)])
    kv.set_updater(fails_at_b)
    with pytest.raises(ValueError, match="at b"):
        kv.push(["a", "b"], [np.ones(2), np.ones(2)])
    assert [value.tolist() for value in kv.pull(["a", "b"])] == [[0, 0], [0, 0]]


def test_a_command_s_keys_are_a_key_or_a_list(dist: KVStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(commands, "_registered", {})
    dist.init(["w", "0", "w0", 3], [np.full(2, number) for number in (1.0, 2.0, 3.0, 4.0)])
    assert dist.send_command_to_servers("sum", '{"keys": "w0"}') == {"w0": 6}
    assert dist.send_command_to_servers("sum", '{"keys": 3}') == {3: 8}
    commands.register(np.int64(7), "sum")  # type: ignore[arg-type]
    assert dist.send_command_to_servers(np.int64(7), '{"keys": 3}') == {3: 8}  # type: ignore[arg-type]
    assert dist.send_command_to_servers("sum", '{"keys": ["w", 3]}') == {"w": 2, 3: 8}
    for keys in ("{}", "[[1]]", "1.5"):
        with pytest.raises(glintpy.ConfigError, match="a key or a list of them"):
            dist.send_command_to_servers("sum", f'{{"keys": {keys}}}')
    with pytest.raises(glintpy.ConfigError, match=r"no function has the number \[1\]"):
        dist.send_command_to_servers([1])  # type: ignore[arg-type]
