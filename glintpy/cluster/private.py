"""The private folder of a cluster that goes with the process that made it, and those that killed ones have left."""

from __future__ import annotations

import logging
import os
import shutil
import sys
import tempfile
from pathlib import Path

from glintpy.actors.home import PASSING_NAME

if sys.platform != "win32":
    import fcntl

logger = logging.getLogger("glintpy.cluster")

PREFIX = "glintpy-"

LOCK_NAME = "maker"


class PrivateFolder:
    """A folder, and the lock on a file in it that says that its maker lives.

    Where everything was killed at once, nobody is left who could remove it, and it often lies in memory. So whoever
    makes the next one removes those beside it whose makers are gone.

    Attributes:
        path: of the folder.
    """

    def __init__(self, parent: str | None) -> None:
        """Make one.

        Args:
            parent: where; None: where temporary files lie.
        """
        self.path = Path(tempfile.mkdtemp(prefix=PREFIX, dir=parent))
        _sweep(self.path)
        (self.path / PASSING_NAME).touch()
        # Locked before it has its name: nobody may find one that looks left.
        unnamed = self.path / f"{LOCK_NAME}.new"
        self._lock = unnamed.open("xb")
        _lock(self._lock.fileno())
        unnamed.rename(self.path / LOCK_NAME)

    def remove(self) -> None:
        """Remove it with all that is in it; again does nothing."""
        shutil.rmtree(self.path, ignore_errors=True)
        self._lock.close()


def _sweep(mine: Path) -> None:
    for folder in mine.parent.glob(f"{PREFIX}*"):
        if folder == mine:
            continue
        try:
            descriptor = os.open(folder / LOCK_NAME, os.O_RDWR)
        except OSError:
            continue  # somebody else's, or no cluster's, or on its way out
        try:
            if _lock(descriptor):
                logger.info("removes %s, which a killed cluster has left", folder)
                shutil.rmtree(folder, ignore_errors=True)
        finally:
            os.close(descriptor)


def _lock(descriptor: int) -> bool:
    """Lock an open file, and tell whether nobody else had; where that can't be done everybody is believed to live."""
    if sys.platform == "win32":
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True
