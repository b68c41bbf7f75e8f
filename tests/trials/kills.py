"""Thousands of kills of real servers while real clients push, and every push accounted for.

``python -m tests.trials.kills --kills 2000`` takes some six minutes on two cores. Ends with the numbers, and exit code
1 if one cell is wrong.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

from glintpy import Client, config
from glintpy.actors.home import shared_memory
from glintpy.nodes import start_master
from glintpy.testing.drill_client import Order as ClientOrder
from glintpy.testing.drill_client import Told
from glintpy.testing.drill_updates import make_model
from glintpy.testing.ledger import Ledger, Record
from tests.trials.nursery import Order

ROOT = Path(__file__).parents[2]

FAILPOINTS = ",".join(
    f"{place}=kill:{probability}"
    for place, probability in {
        "push.before_undo": 0.0015,
        "push.undo_written": 0.0015,
        "push.flag_set": 0.0015,
        "push.half_applied": 0.003,
        "push.applied": 0.0015,
        "push.recorded": 0.0015,
        "push.flag_cleared": 0.0015,
        "push.before_ack": 0.0015,
        "pull.before_send": 0.01,
        "session.before_open": 0.1,
        "recover.before_undo": 0.2,
        "recover.undone": 0.2,
    }.items()
)
OUTSIDE_S = 1.0
PUSHES_MAX = 400_000
PATIENCE_S = 120.0


@dataclass(frozen=True, slots=True)
class Trial:
    """What came of it."""

    num_kills: int
    num_inside: int
    num_pushes: int
    num_unknown: int
    wrong: tuple[str, ...]
    seconds: float

    def __str__(self) -> str:
        found = "every cell is right" if not self.wrong else "; ".join(self.wrong)
        return (
            f"{self.num_kills} kills -9, {self.num_inside} of them at failpoints; {self.num_pushes} pushes, "
            f"{self.num_unknown} of unknown outcome; {self.seconds:.0f} s: {found}"
        )


def run(
    *,
    num_kills: int,
    seed: int,
    num_servers: int = 2,
    num_clients: int = 2,
    pushes_per_s: float = 400,
    durability: config.Durability = "process",
) -> Trial:
    """Kill servers so often while clients push, and look at every cell.

    Args:
        num_kills: in all.
        seed: of what clients push, and of when servers die.
        num_servers: processes that are killed.
        num_clients: processes that push.
        pushes_per_s: of each client, at most.
        durability: of the models.
    """
    began = time.monotonic()
    with ExitStack() as stack:
        folder = Path(
            stack.enter_context(tempfile.TemporaryDirectory(prefix="glintpy-trials-", dir=shared_memory()))
        )
        master = start_master("tcp://127.0.0.1:0", data_dir=folder / "master")
        stack.callback(master.stop)
        order = Order(
            master.address, str(folder), num_servers, num_kills, FAILPOINTS, OUTSIDE_S, durability, seed
        )
        nursery = stack.enter_context(child(order.command()))
        client = stack.enter_context(Client(master.address, timeout_s=PATIENCE_S, name="trial"))
        client.wait_for_servers(num_servers, timeout_s=PATIENCE_S)
        ledger = Ledger.create(
            client, num_workers=num_clients, num_pushes=PUSHES_MAX // num_clients, width=8, seed=seed
        )
        counts = client.vector(4_000, dtype="int64", name=f"{ledger.matrix.name}.counts")
        make_model(client, f"{ledger.matrix.name}.adam", num_clients)
        records = [folder / f"record-{number}" for number in range(num_clients)]
        pushers = [
            stack.enter_context(
                child(
                    ClientOrder(master.address, ledger.matrix.name, number, pushes_per_s, str(path)).command()
                )
            )
            for number, path in enumerate(records)
        ]
        killed, inside = last_word(nursery, num_kills)
        for pusher in pushers:
            assert pusher.stdin is not None
            pusher.stdin.close()
        for pusher in pushers:
            if pusher.wait(PATIENCE_S * 2):
                raise RuntimeError(f"a client ended with {pusher.returncode}")
        audit = ledger.audit([Record.load(path) for path in records])
        told = [Told.load(path.with_name(path.name + ".json")) for path in records]
        wrong = [
            *([str(audit)] if not audit.holds else []),
            *(problem for each in told for problem in each.problems),
        ]
        low = sum(each.counts_in for each in told)
        high = low + sum(each.counts_unknown for each in told)
        cells = counts.pull().result()
        if not (low <= cells.min() and cells.max() <= high):
            wrong.append(f"counts of {cells.min()} to {cells.max()} after {low} to {high} pushes")
        return Trial(
            killed, inside, audit.num_issued, audit.num_unknown, tuple(wrong), time.monotonic() - began
        )


def last_word(nursery: subprocess.Popen[str], num_kills: int) -> tuple[int, int]:
    """Wait until as many kills are done, and return how many, and how many of them at failpoints."""
    assert nursery.stdout is not None
    for line in nursery.stdout:
        words = line.split()
        if words[:1] == ["kills"]:
            if sys.stderr.isatty():
                sys.stderr.write(line)
            if int(words[1]) >= num_kills:
                return int(words[1]), int(words[3])
        else:
            break
    raise RuntimeError(f"the servers' process said {line!r} and ended")


@contextmanager
def child(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """Run a process that ends when its standard input does."""
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
    try:
        yield process
    finally:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.close()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        process.stdout.close()


def main() -> int:
    """Run one trial as asked."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--servers", type=int, default=2)
    parser.add_argument("--clients", type=int, default=2)
    parser.add_argument("--pushes-per-s", type=float, default=400)
    parser.add_argument("--durability", choices=config.DURABILITIES, default="process")
    asked = parser.parse_args()
    trial = run(
        num_kills=asked.kills,
        seed=asked.seed,
        num_servers=asked.servers,
        num_clients=asked.clients,
        pushes_per_s=asked.pushes_per_s,
        durability=asked.durability,
    )
    sys.stdout.write(f"seed {asked.seed}: {trial}\n")
    return 1 if trial.wrong else 0


if __name__ == "__main__":
    sys.exit(main())
