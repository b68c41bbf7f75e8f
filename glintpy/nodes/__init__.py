"""A master or a server in this process: its sockets, actor and heart put together and taken apart.

A master needs half of the modules that a server does, so each is imported when it is asked for.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from glintpy.nodes.master import start_master
    from glintpy.nodes.node import Node
    from glintpy.nodes.server import start_server

__all__ = ["Node", "start_master", "start_server"]

_HOMES = {"Node": "node", "start_master": "master", "start_server": "server"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = globals()[name] = getattr(import_module(f"{__name__}.{_HOMES[name]}"), name)
    return value
