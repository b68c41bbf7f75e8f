"""Private folders of clusters: none stays for good, whatever was killed, and none goes while its maker lives."""

from __future__ import annotations

import logging
import os
import signal
from pathlib import Path

import pytest

import glintpy
from glintpy.actors.home import PASSING_NAME
from glintpy.cluster import private
from glintpy.cluster.private import LOCK_NAME, PrivateFolder
from tests.cluster.helpers import line_of, program

MAKES_ONE = """\
import glintpy, sys
from glintpy.cluster import local_cluster
local_cluster._private_parent = lambda _: sys.argv[1]
cluster = glintpy.LocalCluster(2, scheme="local")
with cluster.client() as client:
    client.vector(10).push(None, 1).result()
print(cluster._private, flush=True)
sys.stdin.readline()
"""


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_what_a_killed_cluster_has_left_goes_when_the_next_one_is_made(
    tmp_path: Path, how: signal.Signals, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "memory").mkdir()
    with program(tmp_path / "one.py", MAKES_ONE, str(tmp_path / "memory")) as running:
        left = Path(line_of(running))
        first = PrivateFolder(str(tmp_path / "memory"))
        assert left.exists(), "its maker lives"
        running.send_signal(how)
        running.wait()
    assert (left / LOCK_NAME).exists()
    caplog.set_level(logging.INFO, "glintpy.cluster")
    second = PrivateFolder(str(tmp_path / "memory"))
    assert not left.exists()
    assert f"removes {left}" in caplog.text
    assert first.path.exists()
    for folder in (first, second, second):
        folder.remove()
    assert list((tmp_path / "memory").iterdir()) == []


def test_what_is_nobody_s_or_somebody_else_s_stays(tmp_path: Path) -> None:
    for name in ("glintpy-server-1", "glintpy-notes", "other"):
        (tmp_path / name).mkdir()
    (tmp_path / "other" / LOCK_NAME).touch()
    (tmp_path / "glintpy-notes" / PASSING_NAME).touch()  # of a version that locked nothing
    (tmp_path / "glintpy-file").touch()
    PrivateFolder(str(tmp_path)).remove()
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_keeps_the_folder_of_its_parent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(private, "PREFIX", "glintpy-forked-")
    mine = PrivateFolder(str(tmp_path))
    reading, writing = os.pipe()
    child = os.fork()
    if not child:
        os.close(writing)
        os.read(reading, 1)
        os._exit(0)
    os.close(reading)
    mine._lock.close()  # as if this process had ended
    other = PrivateFolder(str(tmp_path))
    assert mine.path.exists()
    other.remove()
    os.close(writing)
    os.waitpid(child, 0)
    PrivateFolder(str(tmp_path)).remove()
    assert not mine.path.exists()


def test_a_cluster_that_stops_leaves_nothing() -> None:
    with glintpy.LocalCluster(1, scheme="local") as cluster:
        folder = cluster._private
        assert (folder / PASSING_NAME).exists()
    assert not folder.exists()
