"""Ray: actors that hold the array, one a server; this process never imports it."""

from __future__ import annotations

import secrets
import tempfile

from benchmarks.peers.environments import interpreter
from benchmarks.processes import Child
from benchmarks.steps import Step
from benchmarks.system import Opening, Setup, System

ENVIRONMENT = {
    # It reports nothing to anybody.
    "RAY_USAGE_STATS_ENABLED": "0",
    # Without this it replaces 127.0.0.1 by the address of the machine's network, and is reached from there. The name
    # is of the systems where loopback is its default.
    "RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0",
    "RAY_AUTH_MODE": "token",
    "PYTHONWARNINGS": "ignore",
}

READY_S = 120.0


class Ray(System):
    """A cluster on this machine with an actor for each server."""

    name = "ray"
    may_fail = True

    def __init__(self) -> None:
        super().__init__()
        self._host: Child | None = None
        self._pids: list[int] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self, setup: Setup) -> Opening:
        """Start the cluster and its actors."""
        python = interpreter("ray")
        # A secret of this cluster's own; else Ray would keep one in the user's home.
        environment = {**ENVIRONMENT, "RAY_AUTH_TOKEN": secrets.token_hex(32)}
        # Short, since sockets lie deep in it and their paths have at most 107 bytes.
        self._folder = tempfile.TemporaryDirectory(prefix="gbr-", ignore_cleanup_errors=True)
        program = [python, "-m", "benchmarks.peers.ray_host", str(setup.servers), self._folder.name]
        self._host = Child(program, environment)
        ready = self._host.hear(READY_S)
        self._pids = ready["pids"]
        details = {"address": ready["address"], "servers": setup.servers}
        return Opening("benchmarks.peers.ray_store", details, python, environment)

    def leaves_out(self, step: Step) -> str | None:
        """Return why it can't make such requests."""
        return "measured with the other pulls" if step.into or step.num_models > 1 else None

    def server_pids(self) -> list[int]:
        """Return the actors' processes."""
        return self._pids

    def stop(self) -> None:
        """End the cluster."""
        if self._host is not None:
            self._host.stop()
        if self._folder is not None:
            self._folder.cleanup()
