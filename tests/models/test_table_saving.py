"""Tables that are saved and loaded: the same keys, rows and slots, on any number of servers, or a precise error."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.models import table_saving
from glintpy.models.saving import CutLostError, ServerCut
from glintpy.updaters import Adam

COLS = 4


@pytest.fixture(scope="module")
def cluster() -> Iterator[glintpy.LocalCluster]:
    with glintpy.LocalCluster(2, scheme="local") as cluster:
        yield cluster


@pytest.fixture
def client(cluster: glintpy.LocalCluster) -> Iterator[glintpy.Client]:
    with cluster.client() as client:
        yield client
        for name in client.models():
            client.destroy(name)


def loaded(client: glintpy.Client, url: Path, **options: Any) -> glintpy.BigTable:
    return client.load(str(url), kind=glintpy.BigTable, **options)


@pytest.mark.parametrize("num_servers", [1, 2, 3])
@pytest.mark.parametrize("key_dtype", ["int64", "uint64"])
def test_a_table_is_the_same_on_any_number_of_servers(
    client: glintpy.Client, tmp_path: Path, key_dtype: str, num_servers: int, seed: int
) -> None:
    limits = np.iinfo(key_dtype)
    keys = np.random.default_rng(seed).integers(limits.min, limits.max, 5000, dtype=key_dtype, endpoint=True)
    table = client.table(
        COLS, key_dtype=key_dtype, updater=Adam(learning_rate=0.5), init=("normal", 0, 1), name="t"
    )
    table.push(keys, 1).result()
    table.push(keys[:100], 1).result()
    table.remove(keys[1000:2000]).result()
    table.save(str(tmp_path / "t"))
    with glintpy.LocalCluster(num_servers, scheme="local") as other, other.client() as there:
        again = loaded(there, tmp_path / "t")
        assert (again.name, again.spec, len(again)) == ("t", table.spec, 4000)
        assert set(again) == set(table)
        # Of those that were removed, too: they read as they would begin.
        assert np.array_equal(again.pull(keys).result(), table.pull(keys).result())
        for slot in table.slots:
            assert np.array_equal(again.pull_slot(slot, keys).result(), table.pull_slot(slot, keys).result())
        again.push(keys[:10], 1).result()
        table.push(keys[:10], 1).result()
        assert np.array_equal(again.pull(keys).result(), table.pull(keys).result())


def test_numpy_alone_reads_it(client: glintpy.Client, tmp_path: Path) -> None:
    table = client.table(COLS)
    table.push([3, -4, 5], [[1], [2], [3]]).result()
    table.remove([5]).result()
    table.save(str(tmp_path))
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    found: dict[int, float] = {}
    for entry in manifest["files"]:
        keys, values = np.load(tmp_path / entry["rows_file"]), np.load(tmp_path / entry["file"])
        found.update(zip(keys.tolist(), values[:, 0].tolist(), strict=True))
    assert found == {3: 1, -4: 2}


def test_an_empty_table_and_another_name_level_and_updater(client: glintpy.Client, tmp_path: Path) -> None:
    client.table(COLS, name="empty").save(str(tmp_path / "empty"))
    assert len(loaded(client, tmp_path / "empty", name="again")) == 0
    table = client.table(COLS, updater="adagrad", name="t")
    table.push(np.arange(100), 1).result()
    table.save(str(tmp_path / "t"))
    other = loaded(client, tmp_path / "t", name="other", updater="add", durability="memory")
    assert (other.slots, other.spec.durability, len(other)) == ((), "memory", 100)
    assert np.array_equal(other.pull(np.arange(100)).result(), table.pull(np.arange(100)).result())
    with pytest.raises(glintpy.ModelExists, match="'t' already; destroy it first"):
        loaded(client, tmp_path / "t")
    with pytest.raises(glintpy.ConfigError, match="by no partitioner"):
        loaded(client, tmp_path / "t", name="x", partitioner="range")


def test_a_save_is_replaced_only_if_asked_for(client: glintpy.Client, tmp_path: Path) -> None:
    table = client.table(COLS)
    table.push([1], 1).result()
    table.save(str(tmp_path))
    table.push([2], 1).result()
    with pytest.raises(glintpy.CheckpointError, match="already"):
        table.save(str(tmp_path))
    table.save(str(tmp_path), overwrite=True)
    assert sorted(loaded(client, tmp_path, name="again")) == [1, 2]


def test_each_servers_part_is_one_moment_while_others_push_and_remove(
    client: glintpy.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = client.table(COLS, name="t")
    keys = np.arange(20_000)
    table.push(keys, 1).result()
    blocks = ServerCut.blocks

    def change_meanwhile(self: ServerCut, *arguments: object, **options: object) -> Iterator[object]:
        for block in blocks(self, *arguments, **options):  # type: ignore[arg-type]  # as they came
            table.push(np.arange(-1000, 5000), 1).result()
            table.remove(np.arange(5000, 6000)).result()
            yield block

    with monkeypatch.context() as patched:
        patched.setattr(ServerCut, "blocks", change_meanwhile)
        table.save(str(tmp_path))
    again = loaded(client, tmp_path, name="again")
    found = again.pull(keys).result()[:, 0]
    # Each server was at the beginning of its own reading: before all changes, or behind those that the other saw.
    there = again.contains(keys).result()
    assert there[:5000].all()
    assert there[6000:].all()
    assert set(found[6000:].tolist()) == {1}
    assert len(set(found[:5000].tolist())) <= 2


def test_a_part_whose_moment_is_lost_is_written_once_more_with_the_keys_of_then(
    client: glintpy.Client, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    table = client.table(COLS, name="t")
    table.push(np.arange(1000), 1).result()
    write, num_lost = table_saving.Writing.write, 0

    def lose_once(self: object, *arguments: object) -> None:
        nonlocal num_lost
        write(self, *arguments)  # type: ignore[arg-type]  # as they came
        if not num_lost:
            num_lost += 1
            table.push(np.arange(1000, 3000), 1).result()
            raise CutLostError("as asked")

    with monkeypatch.context() as patched:
        patched.setattr(table_saving.Writing, "write", lose_once)
        table.save(str(tmp_path))
    again = loaded(client, tmp_path, name="again")
    assert num_lost == 1
    assert 1000 < len(again) < 3000  # the other server's moment was before
    assert set(again.pull(list(again)).result()[:, 0].tolist()) == {1}


def test_keys_that_are_in_two_places_are_found_out(client: glintpy.Client, tmp_path: Path) -> None:
    from glintpy.storage.checkpoint import CheckpointWriter

    table = client.table(COLS, name="t")
    with CheckpointWriter(tmp_path, spec=table.spec, num_partitions=2, overwrite=False) as writer:
        for partition in range(2):
            keys = np.array([7, 8 + partition], np.int64)
            with writer.part(partition, num_rows=2, global_rows=keys) as part:
                part.write(np.ones((2, COLS), np.float32))
        writer.commit()
    with pytest.raises(glintpy.CheckpointCorrupt, match="key 7 is in two places"):
        loaded(client, tmp_path, name="again")
    assert client.models() == ["t"]


def test_what_a_save_has_to_be_can_be_asked_for(client: glintpy.Client, tmp_path: Path) -> None:
    client.table(COLS, name="t").save(str(tmp_path / "t"))
    client.vector(3, name="v").save(str(tmp_path / "v"))
    for name, kind in (("v", glintpy.BigTable), ("t", glintpy.BigMatrix), ("t", glintpy.BigVector)):
        with pytest.raises(glintpy.ConfigError, match=rf"model '{name}' is a .*, not a {kind.__name__}"):
            client.load(str(tmp_path / name), name="again", kind=kind)
    with pytest.raises(glintpy.ConfigError, match="kind is BigMatrix, BigVector or BigTable"):
        client.load(str(tmp_path / "t"), name="again", kind=dict)  # type: ignore[type-var]  # that is the point
    assert sorted(client.models()) == ["t", "v"]
    assert isinstance(client.load(str(tmp_path / "t"), name="again"), glintpy.BigTable)
    assert client.load(str(tmp_path / "v"), name="too", kind=glintpy.BigVector).size == 3
