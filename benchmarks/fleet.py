"""Fleet: one system with its client processes; knows no workload and compares nothing."""

from __future__ import annotations

import time
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any, Self

from benchmarks.processes import Child
from benchmarks.steps import Model, Step
from benchmarks.system import Setup, System

HEAD_START_S = 0.02
"""Between the message that says when to begin and that moment: every client has read it by then."""


@dataclass(frozen=True)
class Measured:
    """One run of a step.

    Attributes:
        num: requests of all clients.
        elapsed_s: from the first client's start to the last one's end.
        p50_s: of a request, the mean of the clients'; None where several are in flight.
        p99_s: the same.
    """

    num: int
    elapsed_s: float
    p50_s: float | None
    p99_s: float | None


class Fleet:
    """A started system and its clients; a context manager that ends all of it.

    Args:
        system: who is measured.
        setup: how many servers and clients.

    Raises:
        Unavailable: the system can't run here.
        ChildError: something that should have started didn't.
    """

    def __init__(self, system: System, setup: Setup) -> None:
        self.system = system
        self.setup = setup
        self._runs_made: dict[str, int] = {}
        self._stack = ExitStack()
        self._clients: list[Child] = []
        try:
            self._stack.callback(system.stop)
            opening = system.start(setup)
            command = [opening.interpreter, "-m", "benchmarks.client", opening.module]
            for rank in range(setup.clients):
                client = Child([*command, str(rank)], opening.environment)
                self._stack.callback(client.stop)
                self._clients.append(client)
            self._all("open", opening={**opening.details, "clients": setup.clients})
        except BaseException:
            self._stack.close()
            raise

    def attach(self, model: Model) -> None:
        """Make a model, known to all clients, and check that pushes reach it.

        Args:
            model: which one.
        """
        self._all("attach", model=_plain(model))
        self._clients[0].tell(command="check", model=_plain(model))
        self._clients[0].hear()

    def prepare(self, key: str, step: Step, *, seed: int) -> None:
        """Have all clients make the requests of a step.

        Args:
            key: names them.
            step: what is measured.
            seed: for all systems the same.
        """
        self._all("prepare", key=key, step=step.as_json(), seed=seed)
        self._runs_made[key] = 0

    def run(self, key: str, *, seconds: float, num_clients: int | None = None) -> Measured:
        """Have clients make requests for a while, all at the same time.

        Args:
            key: of the step.
            seconds: for how long.
            num_clients: so many of the clients; None: all.
        """
        clients = self._clients[:num_clients]
        first, self._runs_made[key] = self._runs_made[key], self._runs_made[key] + 1
        at = time.perf_counter() + HEAD_START_S + 0.001 * len(clients)
        for client in clients:
            # Where the last run began, the next ones go on: not every run with the same requests.
            client.tell(command="run", key=key, seconds=seconds, at=at, first=first * 97)
        runs = [client.hear() for client in clients]
        return Measured(
            num=sum(run["num"] for run in runs),
            elapsed_s=max(run["ended"] for run in runs) - min(run["began"] for run in runs),
            p50_s=_mean([run["p50_s"] for run in runs if "p50_s" in run]),
            p99_s=_mean([run["p99_s"] for run in runs if "p99_s" in run]),
        )

    def drop(self, model: Model, keys: list[str]) -> None:
        """Let go of a model and of steps' requests.

        Args:
            model: which one.
            keys: of the steps.
        """
        self._all("drop", model=_plain(model), keys=keys)

    def stop(self) -> None:
        """End clients and servers; again does nothing."""
        self._stack.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _all(self, command: str, **arguments: Any) -> None:
        # To all before the first answer: some systems wait for their last client.
        for client in self._clients:
            client.tell(command=command, **arguments)
        for client in self._clients:
            client.hear()


def _mean(numbers: list[float]) -> float | None:
    return sum(numbers) / len(numbers) if numbers else None


def _plain(model: Model) -> dict[str, Any]:
    return {"name": model.name, "rows": model.rows, "cols": model.cols, "dtype": model.dtype}
