"""What a master must not forget: the cluster's id, its servers and models, in SQLite; knows no socket.

WAL with ``synchronous=FULL``: a change is on the disk before the master answers, for about 0.3 ms.
"""

from __future__ import annotations

import json
import os
import sqlite3
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from glintpy.errors import ConfigError

FORMAT = 1
FILE_NAME = "master.sqlite"

_SCHEMA = """
CREATE TABLE IF NOT EXISTS facts (name TEXT PRIMARY KEY, value TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS servers (
    member_id TEXT PRIMARY KEY, position INTEGER NOT NULL, name TEXT NOT NULL, address TEXT NOT NULL,
    incarnation INTEGER NOT NULL, host TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS models (model_id INTEGER PRIMARY KEY, document TEXT NOT NULL);
"""


@dataclass(frozen=True, slots=True)
class KnownServer:
    """A server as an earlier master knew it."""

    member_id: str
    name: str
    address: str
    incarnation: int
    host: str


class Registry:
    """The master's memory.

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
        self._where = where
        try:
            # The file is opened by the thread that starts the master and used by the actor's thread alone.
            self._database = sqlite3.connect(
                where, timeout=0.5, isolation_level=None, check_same_thread=False
            )
        except sqlite3.Error as error:
            raise ConfigError(f"can't use {where}: {error}") from error
        try:
            # One master at a time: the lock is taken now and kept.
            self._database.execute("PRAGMA locking_mode=EXCLUSIVE")
            self._database.execute("PRAGMA journal_mode=WAL")
            self._database.execute("PRAGMA synchronous=FULL")
            self._database.executescript(_SCHEMA)
            self._check_format()
        except ConfigError:
            self._database.close()
            raise
        except sqlite3.Error as error:
            # Closed here: whoever looks at the error would keep the lock with it.
            self._database.close()
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_BUSY:
                raise ConfigError(
                    f"{where} is in use by another master; stop it, or use another directory"
                ) from error
            raise ConfigError(f"can't use {where}: {error}") from error

    @property
    def cluster_id(self) -> str:
        """The id of the cluster, made with the registry."""
        return self._fact("cluster_id")

    def new_model_id(self) -> int:
        """Return an id that was never used."""
        model_id = int(self._fact("next_model_id"))
        self._write("UPDATE facts SET value = ? WHERE name = 'next_model_id'", (str(model_id + 1),))
        return model_id

    def servers(self) -> list[KnownServer]:
        """Return the servers in the order in which they first joined."""
        rows = self._database.execute(
            "SELECT member_id, name, address, incarnation, host FROM servers ORDER BY position"
        )
        return [KnownServer(*row) for row in rows]

    def save_server(self, server: KnownServer, *, position: int) -> None:
        """Note a server."""
        self._write(
            "INSERT OR REPLACE INTO servers (member_id, position, name, address, incarnation, host)"
            " VALUES (?, ?, ?, ?, ?, ?)",
            (server.member_id, position, server.name, server.address, server.incarnation, server.host),
        )

    def drop_server(self, member_id: str) -> None:
        """Forget a server."""
        self._write("DELETE FROM servers WHERE member_id = ?", (member_id,))

    def models(self) -> list[dict[str, Any]]:
        """Return the models' documents."""
        rows = self._database.execute("SELECT document FROM models ORDER BY model_id")
        return [json.loads(document) for (document,) in rows]

    def save_model(self, model_id: int, document: dict[str, Any]) -> None:
        """Note a model."""
        self._write(
            "INSERT OR REPLACE INTO models (model_id, document) VALUES (?, ?)",
            (model_id, json.dumps(document)),
        )

    def drop_model(self, model_id: int) -> None:
        """Forget a model."""
        self._write("DELETE FROM models WHERE model_id = ?", (model_id,))

    def close(self) -> None:
        """Close the file."""
        self._database.close()

    def _check_format(self) -> None:
        found = self._database.execute("SELECT value FROM facts WHERE name = 'format'").fetchone()
        if found is None:
            facts = {"format": str(FORMAT), "cluster_id": os.urandom(8).hex(), "next_model_id": "1"}
            self._database.executemany("INSERT INTO facts VALUES (?, ?)", facts.items())
        elif found[0] != str(FORMAT):
            raise ConfigError(f"{self._where} has format {found[0]}; this version of glintpy reads {FORMAT}")

    def _fact(self, name: str) -> str:
        row = self._database.execute("SELECT value FROM facts WHERE name = ?", (name,)).fetchone()
        return str(row[0])

    def _write(self, statement: str, values: tuple[Any, ...]) -> None:
        try:
            self._database.execute(statement, values)
        except sqlite3.Error as error:
            raise ConfigError(f"can't write {self._where}: {error}") from error


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ConfigError(f"can't make the directory {folder}: {error.strerror}") from error
