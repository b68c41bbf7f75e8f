"""What the master writes down is there after it died, belongs to one master, and is never half read."""

from __future__ import annotations

import logging
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest

from glintpy.errors import ConfigError, RemoteFailure
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


def test_a_full_disk_is_no_mistake_of_who_asks_and_is_told_the_operator_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    registry = Registry(tmp_path)
    registry._database.execute("PRAGMA max_page_count = 1")  # SQLite's own limit: no less than there are now
    long = {"name": "x" * 100_000}
    with caplog.at_level(logging.INFO, logger="glintpy.storage"):
        for _ in range(3):
            with pytest.raises(
                RemoteFailure, match=f"can't write .*{FILE_NAME}: database or disk is full; mend"
            ):
                registry.save_model(1, long)
            with pytest.raises(RemoteFailure, match="database or disk is full"):
                registry.save_groups([("groups", "a", long)])
        registry._database.execute("PRAGMA max_page_count = 1000000")
        registry.save_model(1, long)
        registry.save_model(1, {"name": "short"})
    levels = [(record.levelname, FILE_NAME in record.getMessage()) for record in caplog.records]
    assert levels == [("ERROR", True), ("INFO", True)]
    assert (registry.models(), registry.groups()) == ([{"name": "short"}], [])
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
    with pytest.raises(RemoteFailure, match=FILE_NAME):
        registry.save_model(1, {})


# --- an older file, or another one's future ---------------------------------------------------------------


def copied(source: Path, target: Path) -> Path:
    shutil.copytree(source, target)
    return target


def test_a_server_of_this_registry_is_taken_in_every_era(tmp_path: Path) -> None:
    known: list[tuple[str, int]] = [("", 0)]
    for _ in range(4):
        registry = Registry(tmp_path)
        for era, highest in known:
            registry.check_not_older(era, highest)
        for _ in range(2):
            known.append((registry.era, registry.new_model_id()))
            registry.check_not_older(*known[-1])
        registry.close()
    assert len({era for era, _ in known}) == 5


def test_a_registry_from_before_a_models_making_is_refused(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "now")
    registry.new_model_id()
    registry.close()
    copied(tmp_path / "now", tmp_path / "backup")
    registry = Registry(tmp_path / "now")
    era = registry.era
    made = registry.new_model_id()
    registry.close()
    older = Registry(tmp_path / "backup")
    # The era is unknown there, whether or not the id was given out again meanwhile.
    assert older.new_model_id() == made
    for era_of_server in (era, ""):
        if era_of_server:
            with pytest.raises(ConfigError, match=rf"older than the server's models.*era {era}"):
                older.check_not_older(era_of_server, made)
        with pytest.raises(ConfigError, match="holds model 3"):
            older.check_not_older(older.era, made + 1)
    older.check_not_older("", 0)  # a server that holds nothing has nothing to lose
    older.close()


def test_a_copy_that_was_taken_while_the_master_ran_is_refused_even_when_it_went_on(tmp_path: Path) -> None:
    registry = Registry(tmp_path / "now")
    first = registry.new_model_id()
    copied(tmp_path / "now", tmp_path / "backup")  # with its log, as a snapshot of the disk has it
    made = registry.new_model_id()
    era = registry.era
    registry.close()
    older = Registry(tmp_path / "backup")
    while older.new_model_id() < made + 5:
        pass
    older.check_not_older(era, first)
    with pytest.raises(ConfigError, match=rf"holds model {made}.*below {made} by then.*newer"):
        older.check_not_older(era, made)
    older.close()


def test_a_log_that_was_lost_is_an_older_registry(tmp_path: Path) -> None:
    script = (
        "import os, signal, sys\n"
        "from pathlib import Path\n"
        "from glintpy.storage.registry import Registry\n"
        "registry = Registry(Path(sys.argv[1]))\n"
        "print(registry.era, registry.new_model_id(), flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    Registry(tmp_path).close()
    done = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], check=False, timeout=60, capture_output=True, text=True
    )
    era, made = done.stdout.split()
    logs = list(tmp_path.glob(f"{FILE_NAME}-wal"))
    assert len(logs) == 1
    logs[0].unlink()
    registry = Registry(tmp_path)
    with pytest.raises(ConfigError, match="older"):
        registry.check_not_older(era, int(made))
    registry.close()


# --- damage -----------------------------------------------------------------------------------------------


def filled(folder: Path) -> bytes:
    """Make a registry with something in each table, and return its file."""
    registry = Registry(folder)
    registry.save_server(ONE, position=0)
    registry.save_server(TWO, position=1)
    for number in range(3):
        registry.save_model(registry.new_model_id(), {"name": f"model {number}", "owners": [0, 1] * 20})
    registry.close()
    return (folder / FILE_NAME).read_bytes()


def found_in(folder: Path) -> tuple[object, ...] | None:
    """Return what a master reads from a folder; None if it refuses, naming the file and a remedy."""
    try:
        registry = Registry(folder)
    except ConfigError as error:
        text = str(error)
        assert str(folder / FILE_NAME) in text
        assert "backup" in text or "format" in text, text
        return None
    content = (registry.cluster_id, registry.servers(), registry.models(), registry.new_model_id())
    registry.close()
    return content


def test_a_flipped_byte_anywhere_is_found_or_harmless(tmp_path: Path, seed: int) -> None:
    content = filled(tmp_path / "good")
    right = found_in(copied(tmp_path / "good", tmp_path / "copy"))
    source = random.Random(seed)
    # The beginning of the file and of each page is dense, the rest is sampled; text is hit a few hundred times.
    used = [place for place, byte in enumerate(content) if byte]
    places = {*range(110), *source.sample(used, 400), *source.sample(range(len(content)), 100)}
    folder = tmp_path / "damaged"
    folder.mkdir()
    num_refused = 0
    for place in sorted(places):
        damaged = bytearray(content)
        damaged[place] ^= 1 << source.randrange(8)
        for left in folder.iterdir():
            left.unlink()
        (folder / FILE_NAME).write_bytes(damaged)
        found = found_in(folder)
        num_refused += found is None
        assert found in (None, right), f"byte {place}: {found}"
    assert num_refused > 100


def test_a_file_that_was_cut_short_is_refused(tmp_path: Path) -> None:
    content = filled(tmp_path)
    for length in (1, 15, 99, 100, 512, 4095, 4096, 4097, 8192, len(content) - 4096, len(content) - 1):
        for left in tmp_path.iterdir():
            left.unlink()
        (tmp_path / FILE_NAME).write_bytes(content[:length])
        # The end of its last page may be unused: SQLite takes zeros for what is missing there, and nothing is.
        assert (found_in(tmp_path) is None) == bool(content[length:].strip(b"\0")), length


def test_a_file_of_nothing_is_a_new_registry_that_servers_refuse(tmp_path: Path) -> None:
    # No different from a directory that was lost: what tells them apart is the cluster's id at the servers.
    (tmp_path / FILE_NAME).write_bytes(b"")
    registry = Registry(tmp_path)
    with pytest.raises(ConfigError, match="older"):
        registry.check_not_older("an era", 1)
    registry.close()


def test_a_first_start_that_was_cut_off_is_made_good(tmp_path: Path) -> None:
    Registry(tmp_path).close()
    database = sqlite3.connect(tmp_path / FILE_NAME)
    with database:
        database.execute("DELETE FROM facts WHERE name IN ('format', 'next_model_id')")
        database.execute("DELETE FROM eras")
    database.close()
    registry = Registry(tmp_path)
    assert registry.new_model_id() == 1
    registry.close()


def test_a_change_that_dies_before_or_after_its_commit_is_whole(tmp_path: Path) -> None:
    script = (
        "import sys\n"
        "from pathlib import Path\n"
        "from glintpy import failpoints\n"
        "from glintpy.storage.registry import Registry\n"
        "registry = Registry(Path(sys.argv[1]))\n"
        "registry.save_model(1, {'number': 1})\n"
        "failpoints.arm(sys.argv[2] + '=kill')\n"
        "registry.save_model(2, {'number': 2})\n"
    )
    for place, numbers in (("master.before_commit", [1]), ("master.after_commit", [1, 2])):
        folder = tmp_path / place
        done = subprocess.run([sys.executable, "-c", script, str(folder), place], check=False, timeout=60)
        assert done.returncode == -signal.SIGKILL
        registry = Registry(folder)
        assert [document["number"] for document in registry.models()] == numbers
        registry.close()
