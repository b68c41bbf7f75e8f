"""Servers that are killed over and over: ``python -m tests.trials.nursery JSON``; one thread, no socket of its own.

Each server is a process of its own, forked from this one, which has imported everything: so thousands of kills take
minutes. They are killed at failpoints inside and at random instants from outside, and forked again on their folder.
After as many kills as were asked for all run without failpoints, until the standard input ends.
"""

from __future__ import annotations

import json
import os
import random
import select
import signal
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

from glintpy import config, failpoints
from glintpy.nodes import start_server


@dataclass(frozen=True, slots=True)
class Order:
    """What is asked for.

    Attributes:
        master: its address.
        folder: the servers' folders lie in it.
        failpoints: armed in each process, with another seed each time.
        outside_s: mean time until a server is killed from outside.
    """

    master: str
    folder: str
    num_servers: int
    num_kills: int
    failpoints: str
    outside_s: float
    durability: config.Durability
    seed: int

    def command(self) -> list[str]:
        """Return the command line that carries it out."""
        return [sys.executable, "-m", "tests.trials.nursery", json.dumps(asdict(self))]


@dataclass(slots=True)
class Child:
    """A server's process."""

    pid: int = 0
    kill_at: float = 0.0


@dataclass(slots=True)
class Nursery:
    """The processes."""

    order: Order
    source: random.Random
    children: list[Child] = field(default_factory=list)
    num_kills: int = 0
    num_inside: int = 0

    def run(self) -> None:
        """Fork servers until as many have died as were asked for, then let them live."""
        self.children = [Child() for _ in range(self.order.num_servers)]
        for number in range(self.order.num_servers):
            self.fork(number)
        while self.num_kills < self.order.num_kills:
            if select.select([sys.stdin], [], [], 0.002)[0]:
                break
            self.look()
        for child in self.children:
            child.kill_at = 0.0
        while not select.select([sys.stdin], [], [], 0.002)[0]:
            self.look()
        for child in self.children:
            os.kill(child.pid, signal.SIGKILL)
            os.waitpid(child.pid, 0)

    def look(self) -> None:
        """Kill whose time has come; fork anew who has died."""
        is_over, now = self.num_kills >= self.order.num_kills, time.monotonic()
        for number, child in enumerate(self.children):
            if child.kill_at and now >= child.kill_at and not is_over:
                child.kill_at = 0.0
                os.kill(child.pid, signal.SIGKILL)
                self.num_inside -= 1
            pid, status = os.waitpid(child.pid, os.WNOHANG)
            if not pid:
                continue
            if not os.WIFSIGNALED(status) or os.WTERMSIG(status) != signal.SIGKILL:
                say(f"server-{number} ended by itself: status {status}")
                sys.exit(1)
            self.num_kills += 1
            self.num_inside += 1
            self.fork(number)
            if self.num_kills % 100 == 0 or self.num_kills == self.order.num_kills:
                say(f"kills {self.num_kills} inside {self.num_inside}")

    def fork(self, number: int) -> None:
        """Start a server on its folder."""
        is_over = self.num_kills >= self.order.num_kills
        seed = self.source.getrandbits(32)
        child = self.children[number]
        child.kill_at = time.monotonic() + self.source.expovariate(1 / self.order.outside_s)
        child.pid = os.fork()
        if child.pid == 0:
            try:
                serve(self.order, number, None if is_over else seed)
            finally:
                os._exit(1)


def say(line: str) -> None:
    """Tell whoever reads."""
    sys.stdout.write(line + "\n")
    sys.stdout.flush()


def serve(order: Order, number: int, seed: int | None) -> None:
    """Run one server until it is killed."""
    if seed is not None and order.failpoints:
        failpoints.arm(order.failpoints, seed=seed)
    start_server(
        order.master,
        name=f"server-{number}",
        data_dir=Path(order.folder) / f"server-{number}",
        settings=config.ServerSettings(durability=order.durability),
        # Its clients know where it is; who isn't among them waits for the master's word anyway.
        membership=config.MembershipSettings(join_timeout_s=30.0),
    )
    while True:
        signal.pause()


def main() -> None:
    """Carry out the order on the command line."""
    order = Order(**json.loads(sys.argv[1]))
    Nursery(order, random.Random(f"{order.seed} nursery")).run()


if __name__ == "__main__":
    main()
