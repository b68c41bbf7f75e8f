"""A server's folder: whose models lie in it, where it listened, and that nobody else serves it; knows no socket.

One process serves a folder: it holds the lock on the journal in it. Whoever comes early, because the process
before is still on its way out, waits a while.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Callable
from pathlib import Path

from glintpy.actors.durable import Durable
from glintpy.actors.shelf import Shelf
from glintpy.actors.stores import SUFFIX
from glintpy.config import ServerSettings
from glintpy.errors import ConfigError
from glintpy.storage.journal import Journal
from glintpy.storage.mapped import FileInUse
from glintpy.storage.memory import free_in

logger = logging.getLogger("glintpy.nodes")

JOURNAL_NAME = "server.journal"
_MODELS_NAME = "models"
_LOG_NAME = "log"
_CLUSTER_NAME = "cluster"
_ERA_NAME = "era"
_ADDRESS_NAME = "address"
PASSING_NAME = "goes-with-its-cluster"
"""A file that says that a folder, and the servers' folders in it, go with the cluster that made it."""
_LOOK_S = 0.02
_PREFIX = "glintpy-server-"


class Home:
    """A folder and the journal in it; a server that keeps nothing has a journal in memory.

    Attributes:
        folder: None: in memory only.
        journal: open, and locked.
        is_private: the folder was made for this process, and goes when it stops in good order.
    """

    def __init__(self, folder: Path | None, journal: Journal, *, is_private: bool = False) -> None:
        """Bind a folder; use ``open``."""
        self.folder = folder
        self.journal = journal
        self.is_private = is_private

    @classmethod
    def open(
        cls,
        folder: Path | None,
        settings: ServerSettings,
        *,
        wait_s: float,
        keep_trying: Callable[[], bool] = lambda: True,
    ) -> Home:
        """Open a server's folder, or make it.

        Args:
            folder: None: a private one, in memory where the machine offers that, unless all models are of level
                ``memory`` and nothing is kept at all.
            settings: of the server.
            wait_s: how long to wait for another process to let go of it.
            keep_trying: asked now and then meanwhile; False gives up.

        Raises:
            ConfigError: it can't be used, or is in use.
            NotEnoughMemory: no room for the journal.
        """
        server_id = os.urandom(8).hex()
        if folder is None and settings.durability == "memory":
            return cls(None, Journal.create(None, server_id, settings.sessions_max))
        is_private = folder is None
        try:
            if folder is None:
                import tempfile  # noqa: PLC0415 - loads four compressors, for those only that have no folder

                folder = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=shared_memory()))
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise ConfigError(f"can't make the directory {folder or ''}: {error.strerror}") from error
        try:
            journal = _open_journal(folder / JOURNAL_NAME, server_id, settings, wait_s, keep_trying)
        except BaseException:
            if is_private:
                _remove(folder)
            raise
        return cls(folder, journal, is_private=is_private)

    def open_shelf(self, settings: ServerSettings) -> Shelf:
        """Open the models that lie here, undo what the last process was killed in, replay what a power cut took.

        Raises:
            ConfigError: one of the files can't be used.
        """
        folder = self.folder
        for name in (_CLUSTER_NAME, _ERA_NAME):
            self._read(name)  # what can't be read stops the start here, where all is let go of
        # A private folder goes with its server or its cluster, and often lies in memory: no place for what shall last.
        log = None if folder is None or self.is_private or is_passing(folder.parent) else folder / _LOG_NAME
        shelf = Shelf(
            None if folder is None else folder / _MODELS_NAME,
            journal=self.journal,
            durability=settings.durability,
            durable=Durable(log, self.journal, log_bytes_max=settings.log_bytes_max),
            memory_limit=settings.memory_limit,
            free_bytes=lambda: free_in(folder),
            allow=settings.allow,
        )
        try:
            shelf.recover(time.monotonic())
        except BaseException:
            shelf.close(clean=False)
            raise
        return shelf

    def say_where(self) -> None:
        """Tell where the models lie, if nobody has chosen that: it is wanted after a kill."""
        if self.is_private:
            logger.info(
                "models lie in %s; should this server be killed, start it with that --data-dir", self.folder
            )

    def remove_if_private(self) -> None:
        """Remove a folder that was made for this process, at the end of a stop in good order."""
        if self.is_private and self.folder is not None:
            _remove(self.folder)

    @property
    def cluster_id(self) -> str:
        """The cluster that the models here belong to; empty: none yet."""
        return self._read(_CLUSTER_NAME)

    @cluster_id.setter
    def cluster_id(self, cluster_id: str) -> None:
        self._write(_CLUSTER_NAME, cluster_id)

    @property
    def era(self) -> str:
        """Of the master that took this server last; empty: none did yet."""
        return self._read(_ERA_NAME)

    @era.setter
    def era(self, era: str) -> None:
        self._write(_ERA_NAME, era)

    @property
    def last_address(self) -> str:
        """Where the process before this one listened; empty: there was none."""
        return self._read(_ADDRESS_NAME)

    @last_address.setter
    def last_address(self, address: str) -> None:
        self._write(_ADDRESS_NAME, address)

    def _read(self, name: str) -> str:
        if self.folder is None:
            return ""
        try:
            return (self.folder / name).read_text().strip()[:256]
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError) as error:
            # Not as if there were nothing: a server that names no cluster is told by any to forget its models.
            raise ConfigError(f"can't read {self.folder / name}: {error}") from error

    def _write(self, name: str, text: str) -> None:
        if self.folder is None or self._read(name) == text:
            return
        # Under another name first: whoever is killed in here leaves the old word, not half of a new one.
        unfinished = self.folder / f"{name}.new"
        try:
            with unfinished.open("w") as file:
                file.write(text + "\n")
                file.flush()
                # An old era beside newer models, left by a power cut, would look like an old directory of the master's.
                os.fsync(file.fileno())
            unfinished.replace(self.folder / name)
        except OSError as error:
            raise ConfigError(f"can't write into {self.folder}: {error.strerror}") from error


def _remove(folder: Path) -> None:
    import shutil  # noqa: PLC0415 - loads compressors, as above

    shutil.rmtree(folder, ignore_errors=True)


def is_passing(folder: Path) -> bool:
    """Tell whether a folder goes with its cluster."""
    return (folder / PASSING_NAME).exists()


def shared_memory() -> str | None:
    """Return a folder whose files lie in memory, or None where the machine has none that may be written to."""
    folder = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a folder of our own in it
    return str(folder) if folder.is_dir() and os.access(folder, os.W_OK) else None


def _check_forgets_nothing(folder: Path) -> None:
    """Refuse a folder that has lost its journal: under another name its server would be told to forget the models."""
    if any(folder.glob(f"{_MODELS_NAME}/*{SUFFIX}")) or any(folder.glob(f"{_LOG_NAME}/snapshot-*")):
        raise ConfigError(
            f"{folder} holds models, and its {JOURNAL_NAME} is missing, which says whose they are: put it back, or "
            "move the folder away to start without them"
        )


def _open_journal(
    path: Path, server_id: str, settings: ServerSettings, wait_s: float, keep_trying: Callable[[], bool]
) -> Journal:
    end = time.monotonic() + wait_s
    has_said = False
    while True:
        try:
            if not path.exists():
                _check_forgets_nothing(path.parent)
                return Journal.create(path, server_id, settings.sessions_max)
            journal = Journal.open(path)
        except FileInUse:
            if time.monotonic() >= end or not keep_trying():
                raise
            if not has_said:
                has_said = True
                logger.info("waiting for another process to let go of %s", path.parent)
            time.sleep(_LOOK_S)
        else:
            break
    now = time.monotonic()
    for session in journal.sessions():
        session.last_heard = (
            now  # the clock of another boot says nothing here, and nobody is late for having waited
        )
    return journal
