"""MXNet's KVStore, which is ps-lite: ``dist_async`` with an optimizer that adds; this process never imports it."""

from __future__ import annotations

from benchmarks.peers.environments import interpreter
from benchmarks.processes import Child
from benchmarks.steps import Step
from benchmarks.system import Opening, Setup, System, free_port

SERVE = "import mxnet"
"""A process of the role server or scheduler serves inside the import, and ends there."""


class Mxnet(System):
    """A scheduler and servers; clients are its workers, as many as were announced."""

    name = "mxnet"
    may_fail = True
    waits_for_clients = True

    def __init__(self, scheme: str = "tcp") -> None:
        super().__init__(scheme)
        self._scheduler: Child | None = None
        self._servers: list[Child] = []

    def start(self, setup: Setup) -> Opening:
        """Start scheduler and servers; they are ready when the last worker has come."""
        python = interpreter("mxnet")
        environment = {
            "DMLC_PS_ROOT_URI": "127.0.0.1",
            "DMLC_PS_ROOT_PORT": str(free_port()),
            "DMLC_NUM_SERVER": str(setup.servers),
            "DMLC_NUM_WORKER": str(setup.clients),
            "DMLC_NODE_HOST": "127.0.0.1",
            # More threads spin while they wait, and take the cores from those who work.
            "OMP_NUM_THREADS": "1",
            "PYTHONWARNINGS": "ignore",
        }
        command = [python, "-c", SERVE]
        self._scheduler = Child(command, {**environment, "DMLC_ROLE": "scheduler"})
        for _ in range(setup.servers):
            self._servers.append(Child(command, {**environment, "DMLC_ROLE": "server"}))
        return Opening("benchmarks.peers.mxnet_store", {}, python, {**environment, "DMLC_ROLE": "worker"})

    def leaves_out(self, step: Step) -> str | None:
        """Return why it can't make such requests."""
        if step.model.dtype != "float32":
            return "its servers hold floats only"
        if step.into or step.num_models > 1:
            return "measured with the other pulls"
        if step.what in ("slice", "columns"):
            return f"it has no {step.what.removesuffix('s')}s"
        if step.verb == "push_pull" and step.what == "rows":
            return "its pushpull is for dense arrays"
        return None

    def server_pids(self) -> list[int]:
        """Return the servers' processes."""
        return [server.pid for server in self._servers]

    def stop(self) -> None:
        """End all of it: its own end waits for every worker to say goodbye."""
        while self._servers:
            self._servers.pop().stop()
        if self._scheduler is not None:
            self._scheduler.stop()
