"""What the master writes down is there after it died, belongs to one master, and is never half read."""

from __future__ import annotations

import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from glintpy.errors import ConfigError
from glintpy.storage.registry import FILE_NAME, KnownServer, Registry

ONE = KnownServer("s1", "one", "tcp://one:1", 1, "host")
TWO = KnownServer("s2", "two", "tcp://two:2", 4, "host")


def test_everything_is_there_when_it_is_opened_again(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "new" / "folder")
    cluster_id = registry.cluster_id
    assert [registry.new_model_id() for _ in range(3)] == [1, 2, 3]
    registry.save_server(TWO, position=7)
    registry.save_server(ONE, position=3)
    registry.save_model(2, {"name": "zwei", "owners": [0, 1]})
    registry.save_model(1, {"name": "eins"})
    registry.close()
    registry = Registry(tmp_path / "new" / "folder")
    assert registry.cluster_id == cluster_id
    assert registry.new_model_id() == 4
    assert registry.servers() == [ONE, TWO]
    assert registry.models() == [{"name": "eins"}, {"name": "zwei", "owners": [0, 1]}]
    registry.close()


def test_what_is_saved_again_replaces_and_what_is_dropped_is_gone(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.save_server(ONE, position=1)
    moved = KnownServer("s1", "one", "tcp://elsewhere:1", 2, "host")
    registry.save_server(moved, position=1)
    registry.save_model(1, {"is_published": False})
    registry.save_model(1, {"is_published": True})
    assert registry.servers() == [moved]
    assert registry.models() == [{"is_published": True}]
    for _ in range(2):  # again does nothing
        registry.drop_server("s1")
        registry.drop_model(1)
    registry.close()
    registry = Registry(tmp_path)
    assert (registry.servers(), registry.models()) == ([], [])
    registry.close()


def test_a_master_that_was_killed_loses_nothing_it_had_said(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from glintpy.storage.registry import Registry\n"
        "registry = Registry(Path(sys.argv[1]))\n"
        "for number in range(50):\n"
        "    registry.save_model(registry.new_model_id(), {'number': number})\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    subprocess.run([sys.executable, "-c", script, str(tmp_path)], check=False, timeout=60)
    registry = Registry(tmp_path)
    assert [document["number"] for document in registry.models()] == list(range(50))
    assert registry.new_model_id() == 51
    registry.close()


def test_without_a_folder_it_is_gone_with_its_process() -> None:
    registry = Registry(None)
    registry.save_model(registry.new_model_id(), {"name": "m"})
    other = Registry(None)
    assert other.cluster_id != registry.cluster_id
    assert other.models() == []
    registry.close()
    other.close()


def test_two_masters_never_share_one(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    with pytest.raises(ConfigError, match="another master") as refused:
        Registry(tmp_path)
    assert str(tmp_path / FILE_NAME) in str(refused.value)
    registry.save_model(1, {"name": "still mine"})
    registry.close()
    registry = Registry(tmp_path)  # now it is free
    assert registry.models() == [{"name": "still mine"}]
    registry.close()


@pytest.mark.parametrize("content", [b"not a database", b"SQLite format 3\0" + bytes(84), b"\xff" * 5000])
def test_a_damaged_file_is_named_and_left_as_it_is(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / FILE_NAME
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        Registry(tmp_path)
    assert str(path) in str(refused.value)
    assert path.read_bytes() == content


def test_a_page_that_was_overwritten_is_found(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.save_model(1, {"name": "m"})
    registry.close()
    path = tmp_path / FILE_NAME
    content = bytearray(path.read_bytes())
    content[200:] = b"\xa5" * (len(content) - 200)
    path.write_bytes(content)
    with pytest.raises(ConfigError) as refused:
        Registry(tmp_path)
    assert str(path) in str(refused.value)


def test_another_format_is_named_and_not_touched(tmp_path: Path) -> None:
    Registry(tmp_path).close()
    database = sqlite3.connect(tmp_path / FILE_NAME)
    with database:
        database.execute("UPDATE facts SET value = '99' WHERE name = 'format'")
    database.close()
    for _ in range(2):
        with pytest.raises(ConfigError, match="format 99"):
            Registry(tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ConfigError, match="file"):
        Registry(tmp_path / "file" / "below")


def test_a_write_that_fails_is_named(tmp_path: Path) -> None:
    registry = Registry(tmp_path)
    registry.close()
    with pytest.raises(ConfigError, match=FILE_NAME):
        registry.save_model(1, {})
