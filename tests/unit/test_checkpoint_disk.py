"""Saves to a real disk that is full or can't be written to: a typed error with the path, and the old one stays."""

from __future__ import annotations

import os
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

import glintpy
from glintpy.errors import CheckpointError
from glintpy.protocol.spec import ModelSpec
from glintpy.storage.checkpoint import CheckpointWriter
from glintpy.storage.checkpoint_reader import CheckpointReader

pytestmark = pytest.mark.root

DISK_MIB = 10


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 10 MiB."""
    if os.geteuid() != 0:
        pytest.skip("only root may mount a file system")
    path = tmp_path / "disk"
    path.mkdir()
    command = ["mount", "-t", "tmpfs", "-o", f"size={DISK_MIB}m", "none", str(path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"no file system can be mounted here: {done.stderr.strip()}")
    try:
        yield path
    finally:
        subprocess.run(["umount", "--lazy", str(path)], check=True)


def save(url: Path, *, mib: int, fill: int) -> None:
    spec = ModelSpec(name="m", num_rows=mib << 17, num_cols=None, dtype="int64")
    with CheckpointWriter(url, spec=spec, num_partitions=2, overwrite=True) as writer:
        for partition in range(2):
            first = partition * (spec.num_rows // 2)
            with writer.part(partition, num_rows=spec.num_rows // 2, first=first, step=1) as part:
                for _ in range(mib):
                    part.write(np.full(1 << 16, fill))
        writer.commit()


def loaded(url: Path) -> tuple[int, set[int]]:
    """Return the saved model's MiB and the values in it."""
    blocks = [block for _, block in CheckpointReader(url).blocks(1 << 20)]
    found: set[int] = set()
    for block in blocks:
        found.update(np.unique(block).tolist())
    return sum(block.nbytes for block in blocks) >> 20, found


@pytest.mark.parametrize("mib", [7, 8, 20])
def test_a_save_that_fills_the_disk_is_given_up_and_the_old_one_stays(disk: Path, mib: int) -> None:
    url = disk / "saved"
    save(url, mib=3, fill=1)
    files = sorted(url.iterdir())
    with pytest.raises(CheckpointError, match=f"values-.* at {url} failed: .*No space left"):
        save(url, mib=mib, fill=2)
    assert sorted(url.iterdir()) == files
    assert loaded(url) == (3, {1})
    save(url, mib=6, fill=3)
    assert loaded(url) == (6, {3})


def test_a_disk_without_room_for_the_manifest_keeps_the_old_one(disk: Path) -> None:
    url = disk / "saved"
    save(url, mib=2, fill=1)
    spec = ModelSpec(name="m", num_rows=1 << 17, num_cols=None, dtype="int64")
    with CheckpointWriter(url, spec=spec, num_partitions=1, overwrite=True) as writer:
        with writer.part(0, num_rows=1 << 17, first=0, step=1) as part:
            part.write(np.full(1 << 17, 2))
        room = os.statvfs(disk).f_bavail * os.statvfs(disk).f_bsize
        (disk / "others").write_bytes(bytes(room))
        with pytest.raises(CheckpointError, match=f"manifest-.* at {url} failed: .*No space left"):
            writer.commit()
    assert len(list(url.iterdir())) == 3
    assert loaded(url) == (2, {1})


def test_a_disk_that_cant_be_written_to_is_a_typed_error(disk: Path) -> None:
    url = disk / "saved"
    save(url, mib=1, fill=1)
    subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
    for place in (url, disk / "new"):
        with pytest.raises(CheckpointError, match=f"{place} failed: .*Read-only file system"):
            save(place, mib=1, fill=2)
    assert loaded(url) == (1, {1})


def test_a_disk_that_becomes_read_only_during_a_save_keeps_the_old_one(disk: Path) -> None:
    # Without the right to delete anything, what was written stays; the next save takes it away.
    url = disk / "saved"
    save(url, mib=1, fill=1)
    spec = ModelSpec(name="m", num_rows=1 << 17, num_cols=None, dtype="int64")
    with CheckpointWriter(url, spec=spec, num_partitions=1, overwrite=True) as writer:
        with writer.part(0, num_rows=1 << 17, first=0, step=1) as part:
            part.write(np.full(1 << 17, 2))
        subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        with pytest.raises(CheckpointError, match=f"{url} failed: .*Read-only file system"):
            writer.commit()
    assert loaded(url) == (1, {1})
    subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
    save(url, mib=1, fill=3)
    assert loaded(url) == (1, {3})
    assert len(list(url.iterdir())) == 3


def test_a_models_save_to_a_full_disk_lets_go_of_its_cuts(disk: Path) -> None:
    with (
        glintpy.LocalCluster(2, scheme="local") as cluster,
        cluster.client() as client,
        client.vector(1 << 19, dtype="int64", name="large") as vector,
        client.vector(1 << 20, dtype="int64", name="larger") as larger,
    ):
        vector.save(str(disk / "saved"))
        vector.push(None, 1)
        with pytest.raises(CheckpointError, match=r"No space left"):
            larger.save(str(disk / "saved"), overwrite=True)
        with client.load(str(disk / "saved"), name="again") as again:
            assert not again[:].any()
        end = time.monotonic() + 60
        while any(server["holds"]["cuts"] for server in client.status(60)["servers"]):
            assert time.monotonic() < end
