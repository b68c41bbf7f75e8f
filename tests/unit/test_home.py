"""A server's folder outlives a power cut soon after it was made, and is not begun anew over models that lie in it."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from glintpy.actors.home import JOURNAL_NAME, Home
from glintpy.config import ServerSettings
from glintpy.errors import ConfigError
from glintpy.protocol.spec import ModelSpec


def test_a_folder_that_has_lost_its_journal_keeps_its_models(tmp_path: Path) -> None:
    settings = ServerSettings()
    home = Home.open(tmp_path, settings, wait_s=0)
    shelf = home.open_shelf(settings)
    spec = ModelSpec("m", 10, None, "int64")
    for _ in shelf.create(
        1, spec, routing=1, num_rows=10, extents=np.empty((0, 4), np.int64), slice_cells=100
    ):
        pass
    shelf.close()
    home.journal.close(clean=True)
    journal = (tmp_path / JOURNAL_NAME).rename(tmp_path / "elsewhere")
    with pytest.raises(ConfigError, match=r"holds models, and its .* is missing"):
        Home.open(tmp_path, settings, wait_s=0)
    journal.rename(tmp_path / JOURNAL_NAME)
    home = Home.open(tmp_path, settings, wait_s=0)
    shelf = home.open_shelf(settings)
    assert shelf.shard(1).num_rows == 10
    shelf.close()
    home.journal.close(clean=True)


def test_a_cluster_that_can_not_be_read_is_not_taken_for_none(tmp_path: Path) -> None:
    home = Home.open(tmp_path, ServerSettings(), wait_s=0)
    assert not home.cluster_id
    home.cluster_id = "c0ffee"
    assert home.cluster_id == "c0ffee"
    (tmp_path / "cluster").write_bytes(b"\xff\xfe")
    with pytest.raises(ConfigError, match="can't read"):
        assert home.cluster_id
    home.journal.close(clean=True)


def test_a_new_journal_and_its_name_are_on_the_disk_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    synced = []
    monkeypatch.setattr(os, "fsync", lambda descriptor: synced.append(os.fstat(descriptor).st_ino))
    home = Home.open(tmp_path, ServerSettings(), wait_s=0)
    assert {(tmp_path / JOURNAL_NAME).stat().st_ino, tmp_path.stat().st_ino} <= set(synced)
    home.journal.close(clean=True)
