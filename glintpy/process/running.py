"""Runs a master or a server in this process until it is to stop; knows no option and no text."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING

from glintpy.errors import Expelled, GlintError
from glintpy.process import foreground
from glintpy.process.orders import MasterOrder, Order, ServerOrder
from glintpy.process.output import log_to_stderr

if TYPE_CHECKING:
    from glintpy.actors.receipts import Receipts
    from glintpy.nodes import Node

logger = logging.getLogger("glintpy.process")


def run_master(order: MasterOrder) -> None:
    """Run a master.

    Raises:
        Failed: it ended by itself.
        GlintError, OSError: it could not start.
    """

    def start(_: foreground.Signals) -> Node:
        from glintpy.nodes import start_master  # noqa: PLC0415 - loads numpy and ZeroMQ
        from glintpy.transport.descriptors import raise_descriptor_limit  # noqa: PLC0415 - loads ZeroMQ

        raise_descriptor_limit()
        node = start_master(
            order.address, data_dir=order.data_dir, insecure=order.insecure, settings=order.membership
        )
        if not order.parent:
            logger.info("start servers with: glintpy server --master %s", node.address)
        return node

    _run("master", order, start)


def run_server(order: ServerOrder) -> None:
    """Run a server.

    Raises:
        Failed: it ended by itself.
        GlintError, OSError: it could not start.
    """

    def start(signals: foreground.Signals) -> Node:
        from glintpy.actors import preparing  # noqa: PLC0415 - loads numpy
        from glintpy.nodes import start_server  # noqa: PLC0415 - loads numpy and ZeroMQ
        from glintpy.transport import descriptors  # noqa: PLC0415 - loads ZeroMQ

        options, settings = order.options, order.options.settings
        num_sessions = descriptors.sessions_within(
            descriptors.raise_descriptor_limit(), settings.sessions_max
        )
        preparing.own_process()
        node = start_server(
            order.master,
            address=order.address,
            advertise=options.advertise,
            name=order.name,
            data_dir=order.data_dir,
            insecure=order.insecure,
            settings=replace(settings, sessions_max=num_sessions),
            membership=options.membership,
            on_refused=_Refusals(signals),
            keep_trying=lambda: not (signals.is_asked or foreground.is_orphan(order.parent)),
            receipts=_spoilt(options.failpoints, options.plant),
        )
        if options.watchdog_s is not None:
            node.watch(options.watchdog_s)
        return node

    _run("server", order, start)


def _run(role: str, order: Order, start: Callable[[foreground.Signals], Node]) -> None:
    log_to_stderr(order.log_level)
    nodes: list[Node] = []

    def start_and_note(signals: foreground.Signals) -> Node:
        nodes.append(start(signals))
        return nodes[0]

    def look() -> str:
        return f"the {role} stopped by itself" if nodes[0].stopped.is_set() else ""

    foreground.run(role, start_and_note, look=look, parent=order.parent, private=order.private)


def _spoilt(failpoints: str, plant: str) -> type[Receipts] | None:
    """Arm failpoints and return the class to count pushes with, for a drill; None: the real one.

    Raises:
        ConfigError: a text that is no failpoint; no such defect.
    """
    if failpoints:
        from glintpy import failpoints as places  # noqa: PLC0415 - for drills only

        places.arm(failpoints, seed=os.getpid())
    if not plant:
        return None
    from glintpy.process.planted import planted  # noqa: PLC0415 - for drills only

    return planted(plant)


class _Refusals:
    """What the master says against a server that had joined: in the heart's thread."""

    def __init__(self, signals: foreground.Signals) -> None:
        self._signals = signals
        self._last = ""

    def __call__(self, error: GlintError) -> None:
        if isinstance(error, Expelled):
            # Another process is this server now; going on would only confuse clients.
            self._signals.ask_to_stop(str(error))
        elif str(error) != self._last and not self._signals.is_starting:
            # Anything else may be mended at the master's side, and the models wait here meanwhile.
            logger.error("the master refuses this server, which tries again: %s", error)
        self._last = str(error)
