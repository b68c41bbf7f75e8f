"""What a master must not forget: the cluster's id, servers, models and groups, in SQLite; knows no socket.

WAL with ``synchronous=FULL``: a change is on the disk before the master answers, for about 0.3 ms. Each row has a
checksum, since SQLite finds a damaged page but not a damaged letter. What no checksum finds is a file that is whole
and old, as after a backup was put back: a master that knows less than its servers would have them delete what it
doesn't know. So each start of a master begins an *era*, under a random name, and notes which model ids had been given
out by then. A server says in which era it was last taken, and up to which id it holds models.
"""

from __future__ import annotations

import json
import logging
import os
import sqlite3
import zlib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

from glintpy import failpoints
from glintpy.errors import ConfigError, RemoteFailure
from glintpy.records import record

logger = logging.getLogger("glintpy.storage")

FORMAT = 1
FILE_NAME = "master.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS eras (position INTEGER PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS servers (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS models (model_id INTEGER PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS groups (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS workers (token TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL);
CREATE TABLE IF NOT EXISTS messages (name TEXT PRIMARY KEY, value TEXT NOT NULL, checksum INTEGER NOT NULL);
"""

_KEYS = {
    "facts": "name",
    "eras": "position",
    "servers": "name",
    "models": "model_id",
    "groups": "name",
    "workers": "token",
    "messages": "name",
}

_FILE_BYTES_MIN = 512
"""The smallest page that SQLite knows."""

_OF_THE_DISK = {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL, sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_PERM}
"""Errors that say nothing against the file itself."""

_REMEDY = (
    "put back a backup of the master's directory that is newer than the servers' models, or move the directory away "
    "and start a new cluster from the last checkpoints"
)


class KnownServer(NamedTuple):
    """A server as an earlier master knew it."""

    member_id: str
    name: str
    address: str
    incarnation: int
    host: str


@record
class Era:
    """One life of a master on this registry.

    Attributes:
        name: random, so that two masters that went on from copies of one file have different ones.
        first_model_id: the first id that was not given out when it began.
    """

    name: str
    first_model_id: int


class Registry:
    """The master's memory.

    What can't be written later on, on a disk that is full or fails, is a ``RemoteFailure`` for whoever asked for it.

    Args:
        folder: where it lies; None: gone with the process.

    Raises:
        ConfigError: the file is damaged, of another format, or can't be written; nothing is changed.
    """

    def __init__(self, folder: Path | None) -> None:
        where = ":memory:"
        if folder is not None:
            _make(folder)
            where = str(folder / FILE_NAME)
            _check_beginning(folder / FILE_NAME)
        self._where = where
        self._is_failing = False  # whether the last write did
        try:
            # The file is opened by the thread that starts the master and used by the actor's thread alone.
            self._database = sqlite3.connect(
                where, timeout=0.5, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise ConfigError(f"can't use {where}: {error}") from error
        try:
            self._begin()
        except ConfigError:
            self._database.close()
            raise
        except (
            sqlite3.Error,
            UnicodeDecodeError,
        ) as error:  # the latter: damage that SQLite's own words quote
            # Closed here: whoever looks at the error would keep the lock with it.
            self._database.close()
            raise self._unusable(error) from error

    def _begin(self) -> None:
        # One master at a time: the lock is taken now and kept.
        self._database.execute("PRAGMA locking_mode=EXCLUSIVE")
        self._database.execute("PRAGMA journal_mode=WAL")
        self._database.execute("PRAGMA synchronous=FULL")
        self._check()
        self._database.executescript(_SCHEMA)
        if not self._has("facts", "format"):
            for name, value in (("cluster_id", os.urandom(8).hex()), ("next_model_id", "1")):
                self._put("facts", name, value)
            # The last one: what is without a format was cut off here, and begins anew.
            self._put("facts", "format", str(FORMAT))
        self._eras = [Era(*json.loads(value)) for _, value in self._rows("eras")]
        self._next_model_id = int(self._fact("next_model_id"))
        era = Era(os.urandom(8).hex(), self._next_model_id)
        self._put("eras", len(self._eras), json.dumps([era.name, era.first_model_id]))
        self._eras.append(era)

    @property
    def cluster_id(self) -> str:
        """The id of the cluster, made with the registry."""
        return self._fact("cluster_id")

    @property
    def era(self) -> str:
        """The name of this start of a master."""
        return self._eras[-1].name

    def check_not_older(self, era: str, highest_model_id: int) -> None:
        """Refuse to be the memory of a cluster whose server knows more.

        Args:
            era: in which the server was last taken; empty: it doesn't say.
            highest_model_id: of the models that it holds; 0: none.

        Raises:
            ConfigError: this registry is a copy from before something that the server has.
        """
        if not highest_model_id:
            return
        positions = {known.name: position for position, known in enumerate(self._eras)}
        if era and era not in positions:
            raise ConfigError(
                f"{self._where} is older than the server's models, or another copy of it was in use meanwhile: this "
                f"master doesn't know the era {era} in which the server was last taken. {_REMEDY.capitalize()}"
            )
        # Ids of that era end where the next one began: what was given out later here is other models.
        is_past = bool(era) and positions[era] + 1 < len(self._eras)
        end = self._eras[positions[era] + 1].first_model_id if is_past else self._next_model_id
        if highest_model_id >= end:
            raise ConfigError(
                f"{self._where} is older than the server's models: the server holds model {highest_model_id}, and this "
                f"master had given out ids below {end} by then. {_REMEDY.capitalize()}"
            )

    def new_model_id(self) -> int:
        """Return an id that was never used."""
        model_id = self._next_model_id
        self._write("facts", "next_model_id", str(model_id + 1))
        self._next_model_id = model_id + 1
        return model_id

    def servers(self) -> list[KnownServer]:
        """Return the servers in the order in which they first joined."""
        found = [json.loads(value) for _, value in self._rows("servers")]
        return [KnownServer(**known) for _, known in sorted(found, key=lambda entry: entry[0])]

    def save_server(self, server: KnownServer, *, position: int) -> None:
        """Note a server."""
        self._write("servers", server.member_id, json.dumps([position, server._asdict()]))

    def drop_server(self, member_id: str) -> None:
        """Forget a server."""
        self._write("servers", member_id, None)

    def models(self) -> list[dict[str, Any]]:
        """Return the models' documents."""
        return [json.loads(value) for _, value in self._rows("models")]

    def save_model(self, model_id: int, document: dict[str, Any]) -> None:
        """Note a model."""
        self._write("models", model_id, json.dumps(document))

    def drop_model(self, model_id: int) -> None:
        """Forget a model."""
        self._write("models", model_id, None)

    def groups(self) -> list[dict[str, Any]]:
        """Return the groups' rows."""
        return [json.loads(value) for _, value in self._rows("groups")]

    def workers(self) -> list[dict[str, Any]]:
        """Return the rows of the workers of groups."""
        return [json.loads(value) for _, value in self._rows("workers")]

    def messages(self) -> list[dict[str, Any]]:
        """Return the rows of the messages between workers, by group in the order in which they were sent."""
        return [json.loads(value) for _, value in self._rows("messages")]

    def save_groups(self, rows: Iterable[tuple[str, str, dict[str, Any] | None]]) -> None:
        """Note groups, workers and messages, all of them or none: (table, key, row), None for what is no more."""
        failpoints.hit("master.before_commit")
        try:
            self._database.execute("BEGIN")
            try:
                for table, key, row in rows:
                    self._put(table, key, None if row is None else json.dumps(row))
                self._database.execute("COMMIT")
            except sqlite3.Error:
                if self._database.in_transaction:
                    self._database.execute("ROLLBACK")
                raise
        except sqlite3.Error as error:
            raise self._failed(error) from error
        self._written()

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    # --- looking for damage -----------------------------------------------------------------------------------

    def _check(self) -> None:
        """Look at every page and every row before anything is written."""
        found = [str(row[0]) for row in self._database.execute("PRAGMA integrity_check(3)")]
        if found != ["ok"]:
            raise ConfigError(f"{self._where} is damaged: {'; '.join(found)}. {_REMEDY.capitalize()}")
        made = self._database.execute("SELECT name FROM sqlite_master WHERE type = 'table'")
        tables = {str(row[0]) for row in made}
        if not tables <= _KEYS.keys():
            unknown = ", ".join(sorted(tables - _KEYS.keys()))
            raise ConfigError(f"{self._where} is damaged: there is a table {unknown}. {_REMEDY.capitalize()}")
        if "facts" not in tables:
            return  # new
        if "format" in dict(self._database.execute("SELECT name, value FROM facts")):
            self._check_format()
        for table in tables:  # an earlier version had fewer
            for _ in self._rows(table):
                pass

    def _check_format(self) -> None:
        found = self._database.execute("SELECT value FROM facts WHERE name = 'format'").fetchone()[0]
        if found != str(FORMAT):
            raise ConfigError(f"{self._where} has format {found}; this version of glintpy reads {FORMAT}")

    def _rows(self, table: str) -> Iterator[tuple[Any, str]]:
        """Return (key, value) of each row, in the order of the keys."""
        key = _KEYS[table]
        rows = self._database.execute(f"SELECT {key}, value, checksum FROM {table} ORDER BY {key}")  # noqa: S608 - our own names
        for name, value, checksum in rows:
            if checksum != _checksum(table, name, value):
                raise ConfigError(
                    f"{self._where} is damaged in {name!r} of its {table}. {_REMEDY.capitalize()}"
                )
            yield name, value

    def _unusable(self, error: Exception) -> ConfigError:
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
            return ConfigError(
                f"{self._where} is in use by another master; stop it, or use another directory"
            )
        if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_READONLY:
            return ConfigError(
                f"can't write {self._where}: let this user write it; if it may, the file is damaged, and then "
                f"{_REMEDY}"
            )
        if getattr(error, "sqlite_errorcode", 0) & 0xFF in _OF_THE_DISK:
            return ConfigError(f"can't use {self._where}: {error}")
        return ConfigError(f"{self._where} is damaged: {error}. {_REMEDY.capitalize()}")

    # --- rows -------------------------------------------------------------------------------------------------

    def _fact(self, name: str) -> str:
        return next(value for known, value in self._rows("facts") if known == name)

    def _has(self, table: str, key: str) -> bool:
        return any(known == key for known, _ in self._rows(table))

    def _put(self, table: str, key: str | int, value: str | None) -> None:
        name = _KEYS[table]
        if value is None:
            self._database.execute(f"DELETE FROM {table} WHERE {name} = ?", (key,))  # noqa: S608 - our own names
            return
        self._database.execute(
            f"INSERT OR REPLACE INTO {table} ({name}, value, checksum) VALUES (?, ?, ?)",  # noqa: S608 - our own names
            (key, value, _checksum(table, key, value)),
        )

    def _write(self, table: str, key: str | int, value: str | None) -> None:
        failpoints.hit("master.before_commit")
        try:
            self._put(table, key, value)
        except sqlite3.Error as error:
            raise self._failed(error) from error
        self._written()

    def _written(self) -> None:
        failpoints.hit("master.after_commit")
        if self._is_failing:
            self._is_failing = False
            logger.info("master: %s can be written again", self._where)

    def _failed(self, error: sqlite3.Error) -> RemoteFailure:
        """Return what whoever asked is told, and tell the operator, once until the next write that succeeds."""
        if not self._is_failing:
            self._is_failing = True
            logger.error("master: can't write %s: %s; what would change it is refused", self._where, error)
        return RemoteFailure(f"the master can't write {self._where}: {error}; mend that there, and ask again")


def _checksum(table: str, key: str | int, value: object) -> int:
    return zlib.crc32(f"{table} {key} {value}".encode(errors="surrogateescape"))


def _check_beginning(path: Path) -> None:
    """Refuse what SQLite would take for a file that it may begin anew: one of a few bytes."""
    try:
        with path.open("rb") as file:
            beginning = file.read(_FILE_BYTES_MIN)
    except FileNotFoundError:
        return
    except OSError as error:
        raise ConfigError(f"can't read {path}: {error.strerror}") from error
    if beginning and (len(beginning) < _FILE_BYTES_MIN or not beginning.startswith(b"SQLite format 3\0")):
        raise ConfigError(
            f"{path} is damaged: it doesn't begin as a master's file does. {_REMEDY.capitalize()}"
        )


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"can't make the directory {folder}: {error.strerror}") from error
