"""Holds a client's small requests together, and a server's answers back, for as long as a test says."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import pytest

import glintpy
from glintpy.nodes import Node
from glintpy.outbox import Outbox

WAIT_S = 60.0
"""How long anything that must happen may take; reached only by a test that fails."""


class StillOutbox(Outbox):
    """An outbox at which the network's thread doesn't come by: what is open stays so until a caller does something."""

    def issue(self) -> None:
        """Issue what is open, for a caller."""
        if threading.current_thread().name != "glintpy-network":
            super().issue()


@contextmanager
def still_client(
    monkeypatch: pytest.MonkeyPatch, connect: Callable[[], glintpy.Client]
) -> Iterator[glintpy.Client]:
    """Connect a client whose bundles stay open until a caller does something, and close it afterwards."""
    with monkeypatch.context() as patched:
        patched.setattr("glintpy.runtime.Outbox", StillOutbox)
        client = connect()
    with client:
        yield client


def shard_of(server: Node, model: glintpy.BigMatrix | glintpy.BigVector) -> Any:
    """Return what a server in this process has of a model: a ``Shard``, whose methods may be replaced."""
    actor: Any = server._actor
    return actor.shelf.shard(model._info.model_id)


class Gate:
    """A request that is under way until it is let go, and its server with it."""

    def __init__(self, server: Node, vector: glintpy.BigVector) -> None:
        self._shard = shard_of(server, vector)
        self._is_held, self._may_go = threading.Event(), threading.Event()
        self._pull = self._shard.pull
        self._shard.pull = self._wait
        self._future = vector.pull([0])
        assert self._is_held.wait(WAIT_S)

    def _wait(self, *arguments: Any, **named: Any) -> Any:
        self._is_held.set()
        assert self._may_go.wait(WAIT_S)
        return self._pull(*arguments, **named)

    def open(self) -> None:
        """Let the server go on; again does nothing."""
        self._shard.pull = self._pull
        self._may_go.set()


@contextmanager
def gated(server: Node, vector: glintpy.BigVector) -> Iterator[Gate]:
    """Hold a server by a pull from a vector that lies there, at the longest until the block is left."""
    gate = Gate(server, vector)
    try:
        yield gate
    finally:
        gate.open()
