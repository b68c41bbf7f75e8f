"""Arena: all systems side by side in one setup, measured in interleaved rounds; knows none of them."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from functools import partial
from typing import Self

from benchmarks.fleet import Fleet, Measured
from benchmarks.processes import ChildError
from benchmarks.results import Entry, Figure, Results
from benchmarks.sizes import Sizes
from benchmarks.steps import Step
from benchmarks.system import Setup, System, Unavailable
from benchmarks.workloads import Workload

SEED = 13370

Runs = dict[tuple[str, Fleet], list[Measured]]


@dataclass(frozen=True)
class Run:
    """What all measurements of a run share.

    Attributes:
        sizes: how large and how long.
        results: where figures go.
        say: shows progress.
    """

    sizes: Sizes
    results: Results
    say: Callable[[str], None]


class Arena:
    """Systems that were started for one setup; a context manager that ends them.

    Args:
        systems: who takes part; those that can't are noted and left out.
        setup: servers and clients of each.
        run: what measurements share.

    Raises:
        ChildError: one without which there is nothing to tell didn't start.
    """

    def __init__(self, systems: Sequence[System], setup: Setup, run: Run) -> None:
        self._setup = setup
        self._run = run
        self._stack = ExitStack()
        self._fleets: list[Fleet] = []
        try:
            for system in systems:
                run.say(f"{setup}: starting {system.title}")
                self._enter(system)
        except BaseException:
            self._stack.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def measure(self, workload: Workload) -> None:
        """Measure all systems by one workload.

        Args:
            workload: what is done.
        """
        steps = {f"{workload.name}/{step.label}": step for step in workload.steps}
        self._run.say(f"{self._setup}: {workload.name}")
        taking_part = self._prepare_all(workload, steps)
        measured: Runs = defaultdict(list)

        def run_once(fleet: Fleet, key: str) -> None:
            measured[key, fleet].append(fleet.run(key, seconds=self._run.sizes.seconds))

        # Once for nothing: connections, caches and fresh pages are not what is compared.
        for number in range(-1, self._run.sizes.repeats):
            for key in steps:
                for fleet in self._rotated(number):
                    if key in taking_part[fleet]:
                        self._attempt(fleet, partial(run_once, key=key))
        for fleet in [*self._fleets]:
            for model in workload.models:
                self._attempt(fleet, partial(Fleet.drop, model=model, keys=[*steps]))
        self._report(workload, steps, measured)

    # --- inside ---------------------------------------------------------------------------------------------------

    def _enter(self, system: System) -> None:
        try:
            self._fleets.append(self._stack.enter_context(Fleet(system, self._setup)))
        except Unavailable as reason:
            self._run.results.leave_out(system.title, "everything", str(reason))
        except ChildError as error:
            if not system.may_fail:
                raise
            self._run.results.leave_out(
                system.title, str(self._setup), f"it did not start: {_last_line(error)}"
            )

    def _attempt(self, fleet: Fleet, action: Callable[[Fleet], object]) -> None:
        try:
            action(fleet)
        except ChildError as error:
            if not fleet.system.may_fail:
                raise
            self._run.results.leave_out(
                fleet.system.title, str(self._setup), f"it failed: {_last_line(error)}"
            )
            self._fleets.remove(fleet)
            fleet.stop()

    def _prepare_all(self, workload: Workload, steps: dict[str, Step]) -> dict[Fleet, list[str]]:
        prepared: dict[Fleet, list[str]] = {}

        def prepare(fleet: Fleet) -> None:
            prepared[fleet] = self._prepare(fleet, workload, steps)

        for fleet in [*self._fleets]:
            self._attempt(fleet, prepare)
        return prepared

    def _prepare(self, fleet: Fleet, workload: Workload, steps: dict[str, Step]) -> list[str]:
        kept: list[str] = []
        for key, step in steps.items():
            reason = fleet.system.leaves_out(step)
            if reason is None:
                kept.append(key)
            else:
                self._run.results.leave_out(fleet.system.title, key, reason)
        for model in workload.models:
            if any(steps[key].model == model for key in kept):
                fleet.attach(model)
        for key in kept:
            fleet.prepare(key, steps[key], seed=SEED)
        return kept

    def _rotated(self, number: int) -> list[Fleet]:
        # Each round begins with another system, so none is always the one behind the heaviest.
        start = number % max(1, len(self._fleets))
        return self._fleets[start:] + self._fleets[:start]

    def _report(self, workload: Workload, steps: dict[str, Step], measured: Runs) -> None:
        for key, step in steps.items():
            for quantity in workload.quantities:
                entries = []
                for fleet in self._fleets:
                    runs = measured.get((key, fleet), [])[1:]
                    if runs:
                        samples = [quantity.of(step, one) for one in runs]
                        entries.append(Entry(fleet.system.name, fleet.system.scheme, samples))
                self._run.results.figures.append(
                    Figure(
                        workload.name,
                        str(self._setup),
                        step.label,
                        quantity.name,
                        quantity.unit,
                        quantity.better,
                        entries,
                    )
                )


def _last_line(error: Exception) -> str:
    return str(error).strip().splitlines()[-1]
