"""System: one of those who take part, with its servers; knows no workload.

A system is started for a number of servers and clients, tells client processes how to reach it, and says which
requests it can't make, and why.
"""

from __future__ import annotations

import socket
import sys
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from benchmarks.steps import Step


class Unavailable(Exception):
    """A system can't take part here; the message says why."""


@dataclass(frozen=True, order=True)
class Setup:
    """How many take part.

    Attributes:
        servers: server processes.
        clients: client processes.
    """

    servers: int
    clients: int

    def __str__(self) -> str:
        servers = "1 server" if self.servers == 1 else f"{self.servers} servers"
        clients = "1 client" if self.clients == 1 else f"{self.clients} clients"
        return f"{servers}, {clients}"


@dataclass(frozen=True)
class Opening:
    """How client processes reach a system that was started.

    Attributes:
        module: whose ``make(details)`` returns the store.
        details: what ``make`` gets; JSON can say it.
        interpreter: the Python that runs the client processes.
        environment: beside the benchmark's own.
    """

    module: str
    details: dict[str, Any]
    interpreter: str = sys.executable
    environment: Mapping[str, str] = field(default_factory=dict)


class System(ABC):
    """One of those who take part.

    Args:
        scheme: ``"tcp"``, ``"ipc"``, or empty where the system has its own way or needs none.
    """

    name: str
    """How tables call it."""

    may_fail = False
    """Whether a run goes on without it: a peer's trouble is noted, our own ends the run."""

    waits_for_clients = False
    """Whether its servers are ready only when all clients have come, so that a start alone says nothing."""

    def __init__(self, scheme: str = "") -> None:
        self.scheme = scheme

    @property
    def title(self) -> str:
        """Its name and scheme."""
        return f"{self.name} {self.scheme}".strip()

    @abstractmethod
    def start(self, setup: Setup) -> Opening:
        """Start its servers.

        Args:
            setup: how many servers, and clients to come.

        Raises:
            Unavailable: it can't run here.
            ChildError: it should, and didn't.
        """

    def leaves_out(self, step: Step) -> str | None:
        """Return why it can't make such requests; None if it can.

        Args:
            step: what is measured.
        """
        del step
        return None

    def server_pids(self) -> list[int]:
        """Return its server processes, without masters and schedulers."""
        return []

    @abstractmethod
    def stop(self) -> None:
        """End all its processes; again, or before a start, does nothing."""


def free_port() -> int:
    """Return a port of loopback that nobody uses, for programs that can't choose one themselves."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port
