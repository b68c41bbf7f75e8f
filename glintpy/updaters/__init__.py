"""How a pushed value meets the stored one, a file each; knows no storage and no message.

An updater is a name and the rule by which repeated keys are summed up before they are sent. The loop that
changes stored values is the server's: a plain function in ``storage/loops.py``, found and compiled by
``storage/kernels.py`` under the updater's name.
"""

from __future__ import annotations

from glintpy.errors import ConfigError
from glintpy.updaters.add import Add
from glintpy.updaters.base import Updater

__all__ = ["Add", "Updater", "named"]

_BY_NAME: dict[str, Updater] = {Add.name: Add()}


def named(name: str) -> Updater:
    """Return the updater of this name.

    Raises:
        ConfigError: there is none; the message lists those that exist.
    """
    found = _BY_NAME.get(name)
    if found is None:
        raise ConfigError(f"there is no updater {name!r}; there is {', '.join(map(repr, sorted(_BY_NAME)))}")
    return found
