"""A fault drill: an embedded cluster under kills, stops and resets, with clients that count, and the proof at the end.

What is done, and when, is drawn from a seed before it begins. In the end everything is healed, and each cell and each
push is accounted for.
"""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from glintpy.client import Client
from glintpy.errors import GlintError
from glintpy.models.vector import BigVector
from glintpy.testing.drill_client import Order, Told, whole_counts
from glintpy.testing.drill_cluster import ProxiedCluster
from glintpy.testing.drill_faults import LOOK_S, Faults
from glintpy.testing.drill_plan import draw_plan
from glintpy.testing.drill_report import COUNTS, DrillReport, DrillSettings
from glintpy.testing.drill_updates import make_model
from glintpy.testing.ledger import Ledger, Record

__all__ = ["Drill", "DrillReport", "DrillSettings"]

PUSHES_PER_S = 1000.0
"""Of each client, at most; two cores do not manage more beside the servers, and fewer would be under way."""

PUSHES_MAX = 1_000_000
"""Of all clients: the ledger has a cell for each, and a long drill pushes more slowly instead."""

ANSWERS_LATE_S = 0.01
"""Answers take so long on their way, and up to twice: so a reset always meets some that are under way."""

READY_S = 60.0
FINISH_S = 120.0
"""How long clients may take to be ready, and to have all their outcomes after everything was healed."""


class Drill:
    """One drill.

    Args:
        settings: what it is to be.
        say: told of each thing that is done, with the seconds since the beginning.

    Threads:
        Belongs to one thread; ``ask_to_end`` is safe from any, and from a signal's handler.
    """

    def __init__(self, settings: DrillSettings, say: Callable[[float, str], None] | None = None) -> None:
        self.report = DrillReport(settings)
        self.plan = draw_plan(settings.seed, settings.duration_s, settings.num_servers)
        self._settings = settings
        self._say_at = say
        self._asked_to_end = threading.Event()

    def ask_to_end(self) -> None:
        """End the faults now; what was done so far is still checked."""
        self._asked_to_end.set()

    def run(self) -> DrillReport:
        """Start a cluster and clients, carry out the plan, heal, check, and stop everything.

        Raises:
            GlintError: the cluster or a client could not be started.
        """
        settings = self._settings
        with ExitStack() as stack:
            folder = Path(tempfile.mkdtemp(prefix="glintpy-drill-"))
            stack.callback(shutil.rmtree, folder, ignore_errors=True)
            cluster = stack.enter_context(
                ProxiedCluster(
                    settings.num_servers,
                    seed=settings.seed,
                    server_options=settings.server_options(),
                    durability=settings.durability,
                    data_dir=folder / "cluster" if settings.durability == "disk" else None,
                    log_level="error",
                )
            )
            for proxy in cluster.proxies:
                proxy.set("down", latency_s=1.5 * ANSWERS_LATE_S, jitter_s=0.5 * ANSWERS_LATE_S)
            client = stack.enter_context(cluster.client())
            ledger, counts, rate = self._make_models(client)
            orders = [
                Order(cluster.address, ledger.matrix.name, number, rate, str(folder / f"worker-{number}"))
                for number in range(settings.num_clients)
            ]
            faults = Faults(cluster, self.report, self._say_at, self._asked_to_end)
            stack.callback(faults.go_on)
            workers = stack.enter_context(_running(orders))
            faults.carry_out(self.plan, settings.duration_s)
            self.report.lasted_s = faults.now_s()
            faults.heal()
            self._end_workers(faults, workers)
            self._check(ledger, counts, orders)
        return self.report

    # --- before -----------------------------------------------------------------------------------------------

    def _make_models(self, client: Client) -> tuple[Ledger, BigVector, float]:
        settings = self._settings
        wanted = PUSHES_PER_S * settings.duration_s
        num_pushes = max(1, int(min(wanted, PUSHES_MAX / settings.num_clients)))
        rate = num_pushes / settings.duration_s
        ledger = Ledger.create(
            client,
            num_workers=settings.num_clients,
            # It must not be used up before the end, which comes late if restarts are slow.
            num_pushes=num_pushes + int(rate * 10) + 1,
            name="drill",
            seed=settings.seed,
        )
        make_model(client, "drill.adam", settings.num_clients)
        return ledger, client.vector(COUNTS, dtype="int64", name="drill.counts"), rate

    # --- after ------------------------------------------------------------------------------------------------

    def _end_workers(self, faults: Faults, workers: list[subprocess.Popen[bytes]]) -> None:
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.close()
        end = time.monotonic() + FINISH_S
        while any(worker.poll() is None for worker in workers) and time.monotonic() < end:
            time.sleep(LOOK_S)
            faults.revive()  # should one die now, the report says so
        for number, worker in enumerate(workers):
            if worker.poll() != 0:
                self.report.problems.append(
                    f"client {number} did not end in {FINISH_S:.0f} s"
                    if worker.returncode is None
                    else f"client {number} ended with {worker.returncode}"
                )

    def _check(self, ledger: Ledger, counts: BigVector, orders: list[Order]) -> None:
        report = self.report
        finished = [order for order in orders if Path(f"{order.record}.json").exists()]
        told = [Told.load(Path(f"{order.record}.json")) for order in finished]
        for entry in told:
            report.longest_read_s = max(report.longest_read_s, entry.longest_read_s)
            report.num_reads += entry.num_reads
            report.num_updates += entry.num_updates
            report.num_compared += entry.num_compared
            report.problems += entry.problems
        try:
            report.audit = ledger.audit([Record.load(order.record) for order in finished])
            if len(finished) == len(orders):  # else nobody knows what the counts should be
                report.num_wrong_counts = whole_counts(told, counts.pull().result())
        except GlintError as error:
            report.problems.append(f"{type(error).__name__}: {error}")


@contextmanager
def _running(orders: list[Order]) -> Iterator[list[subprocess.Popen[bytes]]]:
    """Start a process for each order, wait until all are ready, and leave none behind."""
    here = str(Path(__file__).resolve().parents[2])
    known = os.environ.get("PYTHONPATH", "")
    environment = os.environ | {"PYTHONPATH": f"{here}{os.pathsep}{known}" if known else here}
    workers: list[subprocess.Popen[bytes]] = []
    try:
        for order in orders:
            worker = subprocess.Popen(  # noqa: S603 - our own module, no shell
                order.command(),
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                env=environment,
                start_new_session=True,  # Ctrl-C is the drill's business: clients end when it says so
            )
            workers.append(worker)
        for number, worker in enumerate(workers):
            assert worker.stdout is not None
            if (
                not select.select([worker.stdout], [], [], READY_S)[0]
                or worker.stdout.readline() != b"ready\n"
            ):
                raise GlintError(f"client {number} of the drill could not begin")
        yield workers
    finally:
        for worker in workers:
            worker.kill()
            for stream in (worker.stdin, worker.stdout):
                if stream is not None:
                    stream.close()
            worker.wait()
