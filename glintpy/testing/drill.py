"""A fault drill: an embedded cluster under kills, stops and resets, with clients that count, and the proof at the end.

What is done, and when, is drawn from a seed before it begins. In the end everything is healed, and each cell and each
push is accounted for.
"""

from __future__ import annotations

import contextlib
import os
import select
import shutil
import signal
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
from glintpy.testing.drill_plan import ALL, MASTER, Action, Step, draw_plan
from glintpy.testing.drill_report import COUNTS, DrillReport, DrillSettings
from glintpy.testing.ledger import Ledger, Record
from glintpy.testing.proxy import Proxy

__all__ = ["Drill", "DrillReport", "DrillSettings"]

PUSHES_PER_S = 1000.0
"""Of each client, at most; two cores do not manage more beside the servers, and fewer would be under way."""

PUSHES_MAX = 1_000_000
"""Of all clients: the ledger has a cell for each, and a long drill pushes more slowly instead."""

ANSWERS_LATE_S = 0.01
"""Answers take so long on their way, and up to twice: so a reset always meets some that are under way."""

LOOK_S = 0.02
TRIES = 3
"""How often a process is restarted that dies while it starts."""

READY_S = 60.0
FINISH_S = 120.0
"""How long clients may take to be ready, and to have all their outcomes after everything was healed."""

STOP_SIGNAL, CONTINUE_SIGNAL = signal.SIGSTOP, signal.SIGCONT


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
        self._is_over = threading.Event()
        self._began = time.monotonic()
        self._down: set[int] = set()

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
            stack.callback(_go_on, cluster)  # a process that stands still would not hear that it should stop
            workers = stack.enter_context(_running(orders))
            self._began = time.monotonic()
            self._carry_out(cluster)
            self.report.lasted_s = self._now_s()
            self._heal(cluster)
            self._end_workers(cluster, workers)
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
        return ledger, client.vector(COUNTS, dtype="int64", name="drill.counts"), rate

    # --- the faults -------------------------------------------------------------------------------------------

    def _carry_out(self, cluster: ProxiedCluster) -> None:
        # Links are reset from a thread of their own, and on time: a restart takes as long as it takes.
        resets = [step for step in self.plan if step.action is Action.RESET]
        links = threading.Thread(
            target=self._reset_links, args=(cluster.proxies, resets), name="glintpy-drill"
        )
        links.start()
        try:
            for step in self.plan:
                if step.action is not Action.RESET and step.at_s < self._settings.duration_s:
                    self._wait_until(cluster, step.at_s)
                    if self._asked_to_end.is_set():
                        break
                    self._do(cluster, step)
            self._wait_until(cluster, self._settings.duration_s)
        finally:
            self._is_over.set()
            links.join()
        if self._asked_to_end.is_set():
            self._say("asked to end: healing, then checking")

    def _wait_until(self, cluster: ProxiedCluster, at_s: float) -> None:
        while self._now_s() < at_s and not self._asked_to_end.wait(LOOK_S):
            self._revive(cluster)

    def _reset_links(self, proxies: list[Proxy], steps: list[Step]) -> None:
        for step in steps:
            if self._is_over.wait(max(0.0, step.at_s - self._now_s())):
                return
            chosen = proxies if step.member == ALL else [proxies[step.member]]
            num_links = sum(proxy.reset_all() for proxy in chosen)
            self.report.num_resets += num_links
            if num_links:
                self._say(f"reset {num_links} links to {_name(step.member)}")

    def _do(self, cluster: ProxiedCluster, step: Step) -> None:
        match step.action:
            case Action.KILL if step.member == MASTER:
                cluster.kill_master()
                self.report.num_master_kills += 1
                self._say("kill -9 master")
            case Action.RESTART if step.member == MASTER:
                self._restart_master(cluster)
            case Action.KILL if step.member not in self._down:
                self._down.add(step.member)
                cluster.kill_server(step.member)
                self.report.num_kills += 1
                self._say(f"kill -9 server-{step.member}")
            case Action.RESTART:
                self._restart_server(cluster, step.member)
            case Action.STOP if step.member not in self._down:
                if _send(cluster, step.member, STOP_SIGNAL):
                    self.report.num_stops += 1
                    self._say(f"SIGSTOP server-{step.member}")
            case Action.CONTINUE if step.member not in self._down:
                _send(cluster, step.member, CONTINUE_SIGNAL)
                self._say(f"SIGCONT server-{step.member}")
            case _:
                pass  # it is down already

    def _restart_server(self, cluster: ProxiedCluster, index: int) -> None:
        if index not in self._down:
            return
        # A server that starts asks the master who belongs to the cluster, and waits meanwhile, as this thread would.
        self._restart_master(cluster)
        if self._timed(lambda: cluster.restart_server(index), f"server-{index}"):
            self._down.discard(index)

    def _restart_master(self, cluster: ProxiedCluster) -> None:
        if not cluster.master_is_alive:
            self._timed(cluster.restart_master, "master")

    def _revive(self, cluster: ProxiedCluster) -> None:
        """Restart servers that have died though nobody killed them."""
        for view in cluster.servers:
            if not view.is_alive and view.index not in self._down:
                self._down.add(view.index)
                if self._settings.failpoints:
                    self.report.num_deaths += 1
                    self._say(f"server-{view.index} died at a failpoint")
                else:
                    self.report.problems.append(f"server-{view.index} died unasked")
                    self._say(f"server-{view.index} died, and nobody had killed it")
                self._restart_server(cluster, view.index)

    def _timed(self, restart: Callable[[], None], name: str) -> bool:
        """Restart something, and return whether it is there again."""
        began = time.monotonic()
        try:
            restart()
        except GlintError as error:
            self._say(f"{name} could not be restarted: {error}")
            if not self._settings.failpoints:  # else it may have died at one of them again
                self.report.problems.append(f"{name} could not be restarted: {error}")
            return False
        took_s = time.monotonic() - began
        self.report.worst_recovery_s = max(self.report.worst_recovery_s, took_s)
        self._say(f"restarted {name} in {took_s:.2f} s")
        return True

    # --- after ------------------------------------------------------------------------------------------------

    def _heal(self, cluster: ProxiedCluster) -> None:
        _go_on(cluster)
        for proxy in cluster.proxies:
            proxy.heal()
        for _ in range(TRIES):
            self._restart_master(cluster)
            for view in cluster.servers:
                if not view.is_alive:
                    self._down.add(view.index)
                    self._restart_server(cluster, view.index)
        if self._settings.failpoints:
            # What is checked must hold still: orderly restarts, without failpoints.
            cluster.extra_server_options = list(DrillSettings(0, plant=self._settings.plant).server_options())
            for view in cluster.servers:
                self._down.add(view.index)
                self._restart_server(cluster, view.index)
        self._say("healed; the clients wait for their outcomes")

    def _end_workers(self, cluster: ProxiedCluster, workers: list[subprocess.Popen[bytes]]) -> None:
        for worker in workers:
            assert worker.stdin is not None
            worker.stdin.close()
        end = time.monotonic() + FINISH_S
        while any(worker.poll() is None for worker in workers) and time.monotonic() < end:
            time.sleep(LOOK_S)
            self._revive(cluster)
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
            report.problems += entry.problems
        try:
            report.audit = ledger.audit([Record.load(order.record) for order in finished])
            if len(finished) == len(orders):  # else nobody knows what the counts should be
                report.num_wrong_counts = whole_counts(told, counts.pull().result())
        except GlintError as error:
            report.problems.append(f"{type(error).__name__}: {error}")

    def _now_s(self) -> float:
        return time.monotonic() - self._began

    def _say(self, text: str) -> None:
        if self._say_at is not None:
            self._say_at(self._now_s(), text)


def _name(member: int) -> str:
    return {MASTER: "master", ALL: "all servers"}.get(member, f"server-{member}")


def _send(cluster: ProxiedCluster, index: int, number: signal.Signals) -> bool:
    view = cluster.servers[index]
    if view.is_alive:
        with contextlib.suppress(ProcessLookupError):  # it died meanwhile
            os.kill(view.pid, number)
            return True
    return False


def _go_on(cluster: ProxiedCluster) -> None:
    for view in cluster.servers:
        _send(cluster, view.index, CONTINUE_SIGNAL)


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
