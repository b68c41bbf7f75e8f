"""The faults of a drill, as they are done to a cluster and undone again; knows no client and counts nothing that is in.

Three threads: one kills and stops processes, one restarts what is due, for that takes as long as it takes, and one
resets links, on time.
"""

from __future__ import annotations

import contextlib
import heapq
import math
import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import replace

from glintpy.errors import GlintError
from glintpy.testing.drill_cluster import ProxiedCluster
from glintpy.testing.drill_plan import ALL, MASTER, Action, Step
from glintpy.testing.drill_report import DrillReport

LOOK_S = 0.02
TRIES = 5
"""How often a process is restarted that dies while it starts."""

LATER_S = 0.05
"""What can't be done yet, because it is down already, is tried again so much later."""

NOTHING = (math.inf, 0)
"""What is due where nothing is down."""

STOP_SIGNAL, CONTINUE_SIGNAL = signal.SIGSTOP, signal.SIGCONT


class Faults:
    """What is done to one cluster.

    Args:
        cluster: to which.
        report: where it is counted.
        say: told of each thing that is done, with the seconds since ``carry_out`` began.
        asked_to_end: set: no more faults.

    Threads:
        Belongs to one thread, and has two of its own while ``carry_out`` runs.
    """

    def __init__(
        self,
        cluster: ProxiedCluster,
        report: DrillReport,
        say: Callable[[float, str], None] | None,
        asked_to_end: threading.Event,
    ) -> None:
        self._cluster = cluster
        self._report = report
        self._say_at = say
        self._asked_to_end = asked_to_end
        self._is_over = threading.Event()
        self._began = time.monotonic()
        self._restart_at: dict[int, float] = {}  # what is down or starting, and when it is to be started
        self._changing = threading.Lock()

    def now_s(self) -> float:
        """Return the seconds since ``carry_out`` began."""
        return time.monotonic() - self._began

    def carry_out(self, plan: list[Step], duration_s: float) -> None:
        """Do what is planned, and return when the time is over or somebody asked to end.

        Late steps are done late, and what is stopped stays stopped for as long as was planned.
        """
        self._began = time.monotonic()
        resets = [step for step in plan if step.action is Action.RESET]
        helpers = [
            threading.Thread(target=self._reset_links, args=(resets,), name="glintpy-drill-links"),
            threading.Thread(target=self._restart_what_is_due, name="glintpy-drill-restarts"),
        ]
        for helper in helpers:
            helper.start()
        try:
            pending = [
                (step.at_s, number, step)
                for number, step in enumerate(plan)
                if step.action is not Action.RESET
            ]
            heapq.heapify(pending)
            while pending and pending[0][0] < duration_s and self._wait_until(pending[0][0]):
                _, number, step = heapq.heappop(pending)
                later = self._do(step)
                if later is not None:
                    heapq.heappush(pending, (later.at_s, number, later))
            self._wait_until(duration_s)
        finally:
            self._is_over.set()
            for helper in helpers:
                helper.join()
        if self._asked_to_end.is_set():
            self.say("asked to end: healing, then checking")

    def heal(self) -> None:
        """Undo everything: processes run, links are whole, and no failpoint is armed."""
        self.go_on()
        for proxy in self._cluster.proxies:
            proxy.heal()
        for _ in range(TRIES):
            self.revive()
            for member in sorted(self._restart_at):  # the master first
                self._restart(member)
        if self._report.settings.failpoints:
            # What is checked must hold still: orderly restarts, without failpoints.
            self._cluster.server_options = replace(self._cluster.server_options, failpoints="")
            for view in self._cluster.servers:
                self._restart(view.index)
        self.say("healed; the clients wait for their outcomes")

    def go_on(self) -> None:
        """Have every server run that stands still: it would not hear that it should stop."""
        for view in self._cluster.servers:
            self._send(view.index, CONTINUE_SIGNAL)

    def revive(self) -> None:
        """Note servers that have died though nobody killed them, so that they are restarted."""
        with self._changing:
            # Looked at under the lock: what has been restarted since the look would seem dead, and wanted.
            dead = [view.index for view in self._cluster.servers if not view.is_alive]
            dead = [index for index in dead if index not in self._restart_at]
            self._restart_at |= dict.fromkeys(dead, self.now_s())
        for index in dead:
            if self._report.settings.failpoints:
                self._report.num_deaths += 1
                self.say(f"server-{index} died at a failpoint")
            else:
                self._report.problems.append(f"server-{index} died unasked")
                self.say(f"server-{index} died, and nobody had killed it")

    def say(self, text: str) -> None:
        """Tell what is done."""
        if self._say_at is not None:
            self._say_at(self.now_s(), text)

    # --- processes ------------------------------------------------------------------------------------------

    def _wait_until(self, at_s: float) -> bool:
        """Return when it is time, or False when somebody asks to end before."""
        while self.now_s() < at_s and not self._asked_to_end.wait(LOOK_S):
            self.revive()
        return not self._asked_to_end.is_set()

    def _do(self, step: Step) -> Step | None:
        """Do a step, and return what is to be done later: itself, if it can't be done now."""
        match step.action:
            case Action.KILL if self._kill(step):
                self.say(f"kill -9 {_name(step.member)}")
                return None
            case Action.STOP if self._send(step.member, STOP_SIGNAL):
                self._report.num_stops += 1
                self.say(f"SIGSTOP server-{step.member} for {step.length_s:.1f} s")
                return Step(self.now_s() + step.length_s, Action.CONTINUE, step.member)
            case Action.CONTINUE:
                if self._send(step.member, CONTINUE_SIGNAL):
                    self.say(f"SIGCONT server-{step.member}")
                return None
        return replace(step, at_s=self.now_s() + LATER_S)

    def _kill(self, step: Step) -> bool:
        with self._changing:
            if step.member in self._restart_at:
                return False
            if step.member == MASTER:
                self._cluster.kill_master()
                self._report.num_master_kills += 1
            else:
                self._cluster.kill_server(step.member)
                self._report.num_kills += 1
            self._restart_at[step.member] = self.now_s() + step.length_s
        return True

    def _send(self, index: int, number: signal.Signals) -> bool:
        with self._changing:
            view = self._cluster.servers[index]
            if index in self._restart_at or not view.is_alive:
                return False
            with contextlib.suppress(ProcessLookupError):  # it died meanwhile
                os.kill(view.pid, number)
                return True
        return False

    def _restart_what_is_due(self) -> None:
        while not self._is_over.wait(LOOK_S):
            with self._changing:
                at_s, member = min(
                    ((at_s, member) for member, at_s in self._restart_at.items()), default=NOTHING
                )
            if at_s <= self.now_s():
                self._restart(member)

    def _restart(self, member: int) -> None:
        began = time.monotonic()
        try:
            if member == MASTER:
                self._cluster.restart_master()
            else:
                self._cluster.restart_server(member)
        except GlintError as error:
            self.say(f"{_name(member)} could not be restarted: {error}")
            if not self._report.settings.failpoints:  # else it may have died at one of them again
                self._report.problems.append(f"{_name(member)} could not be restarted: {error}")
            return
        with self._changing:
            self._restart_at.pop(member, None)
        took_s = time.monotonic() - began
        self._report.worst_recovery_s = max(self._report.worst_recovery_s, took_s)
        self.say(f"restarted {_name(member)} in {took_s:.2f} s")

    # --- links ----------------------------------------------------------------------------------------------

    def _reset_links(self, steps: list[Step]) -> None:
        proxies = self._cluster.proxies
        for step in steps:
            if self._is_over.wait(max(0.0, step.at_s - self.now_s())):
                return
            chosen = proxies if step.member == ALL else [proxies[step.member]]
            num_links = sum(proxy.reset_all() for proxy in chosen)
            self._report.num_resets += num_links
            if num_links:
                self.say(f"reset {num_links} links to {_name(step.member)}")


def _name(member: int) -> str:
    return {MASTER: "master", ALL: "all servers"}.get(member, f"server-{member}")
