"""A master in this process: its socket, tables and actor put together; knows no server's values."""

from __future__ import annotations

import time
from pathlib import Path

from glintpy import config
from glintpy.actors.mailbox import SocketMailbox
from glintpy.actors.master import MasterActor
from glintpy.actors.outlet import Outlet
from glintpy.errors import GlintError
from glintpy.nodes.node import Node, check_reach
from glintpy.storage.registry import Registry
from glintpy.transport import listen


def start_master(
    address: str = config.DEFAULT_ADDRESS,
    *,
    data_dir: str | Path | None = None,
    insecure: bool = False,
    settings: config.MembershipSettings | None = None,
) -> Node:
    """Start a master in this process.

    Args:
        address: where to listen; port 0 takes any free one.
        data_dir: where members and models are written down; None: gone with the process.
        insecure: allow an address that others than this machine's programs can reach.
        settings: of the death watch.

    Raises:
        AccessDenied: an address beyond loopback without ``insecure``.
        ConfigError: the address is taken, or the directory can't be used.
    """
    check_reach(address, insecure=insecure)
    settings = settings or config.MembershipSettings()
    registry = Registry(None if data_dir is None else Path(data_dir))
    try:
        listener = listen(address)
    except GlintError:
        registry.close()
        raise
    mailbox = SocketMailbox(listener, tick_s=settings.tick_s)
    outlet = Outlet(listener, bytes_max=config.ServerSettings().answers_bytes_max)
    actor = MasterActor(
        mailbox, outlet, listener=listener, registry=registry, settings=settings, clock=time.monotonic
    )
    actor.at_stop.extend([listener.close, mailbox.close])
    node = Node(actor, listener.address)
    actor.launch()
    return node
