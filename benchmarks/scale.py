"""How glintpy's own cost grows: with processes, rows of a model, models, and clients."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Iterable, Sequence
from contextlib import ExitStack

from benchmarks.arena import SEED, Run
from benchmarks.fleet import Fleet, Measured
from benchmarks.lineup import Scheme
from benchmarks.ours import NAME, Glintpy
from benchmarks.results import Entry, Figure
from benchmarks.steps import Model, Step
from benchmarks.system import Setup
from benchmarks.workloads import COLS, MEGABYTES, NANOSECONDS_A_ROW, P50, REQUESTS, Quantity

WORKLOAD = "scale"

NARROW_COLS = 4
"""Columns of the models whose rows are many: 10^8 of them have 1.6 GB."""

TINY_ROWS = 100

PROCESS_ROWS = 1_000_000

Case = tuple[str, Fleet, str, Step, int | None]
"""A label, who is measured, the key and the step, and how many of the clients."""


def measure(run: Run, scheme: Scheme) -> None:
    """Measure all of it.

    Args:
        run: what measurements share.
        scheme: over what.
    """
    run.say("scale: servers and clients")
    _processes(run, scheme)
    run.say("scale: rows of a model")
    _rows(run, scheme)
    run.say("scale: models")
    _models(run, scheme)
    run.say("scale: clients")
    _clients(run, scheme)


def _processes(run: Run, scheme: Scheme) -> None:
    cores = os.cpu_count() or 1
    table = Model("table", min(PROCESS_ROWS, run.sizes.table_rows), COLS, "float32")
    with ExitStack() as stack:
        fleets = []
        for num in run.sizes.scale_processes:
            setup = Setup(num, num)
            if num > cores:
                run.results.leave_out(NAME, f"{WORKLOAD}: {setup}", f"this machine has {cores} cores")
                continue
            fleets.append(stack.enter_context(Fleet(Glintpy(scheme), setup)))
            fleets[-1].attach(table)
        for verb in ("pull", "push"):
            step = Step(
                verb, "rows", table, run.sizes.some_rows, label=f"{verb} {run.sizes.some_rows:,} rows"
            )
            cases: list[Case] = [(str(fleet.setup), fleet, step.label, step, None) for fleet in fleets]
            _report(run, scheme, step.label, cases, (MEGABYTES,))


def _rows(run: Run, scheme: Scheme) -> None:
    with Fleet(Glintpy(scheme), Setup(1, 1)) as fleet:
        models = [Model(f"rows-{num}", num, NARROW_COLS, "float32") for num in run.sizes.scale_rows]
        for model in models:
            fleet.attach(model)
        for label, pool in (("cached rows", 1), ("random rows", 0)):
            cases: list[Case] = []
            for model in models:
                step = Step(
                    "pull", "rows", model, min(run.sizes.some_rows, model.rows), pool=pool, label=label
                )
                cases.append((f"{model.rows:,} rows", fleet, f"{label} of {model.name}", step, None))
            _report(run, scheme, f"pull {run.sizes.some_rows:,} {label}", cases, (NANOSECONDS_A_ROW,))


def _models(run: Run, scheme: Scheme) -> None:
    with Fleet(Glintpy(scheme), Setup(1, 1)) as fleet:
        model = Model("one-of-many", TINY_ROWS, COLS, "float32")
        fleet.attach(model)
        cases: list[Case] = []
        for num in run.sizes.scale_models:
            step = Step("pull", "rows", model, 1, num_models=num, label=f"{num} models")
            label = "1 model" if num == 1 else f"{num:,} models"
            cases.append((label, fleet, step.label, step, None))
        _report(run, scheme, "pull 1 row, models in turn", cases, (P50,))


def _clients(run: Run, scheme: Scheme) -> None:
    most = max(run.sizes.scale_clients)
    with Fleet(Glintpy(scheme), Setup(1, most)) as fleet:
        model = Model("table", run.sizes.bulk_rows, COLS, "float32")
        fleet.attach(model)
        step = Step("pull", "rows", model, 1, label="pull")
        cases: list[Case] = []
        for num in run.sizes.scale_clients:
            label = "1 client" if num == 1 else f"{num:,} clients"
            cases.append((label, fleet, step.label, step, num))
        _report(run, scheme, "pull 1 row", cases, (P50, REQUESTS))


def _report(
    run: Run, scheme: Scheme, label: str, cases: Sequence[Case], quantities: Iterable[Quantity]
) -> None:
    prepared = set()
    for _, fleet, key, step, _ in cases:
        if (fleet, key) not in prepared:
            prepared.add((fleet, key))
            fleet.prepare(key, step, seed=SEED)
    measured: dict[str, list[Measured]] = defaultdict(list)
    for number in range(-1, run.sizes.repeats):
        start = number % len(cases)
        for case, fleet, key, _, num_clients in [*cases[start:], *cases[:start]]:
            measured[case].append(fleet.run(key, seconds=run.sizes.seconds, num_clients=num_clients))
    for quantity in quantities:
        samples = {
            case: [quantity.of(step, one) for one in measured[case][1:]] for case, _, _, step, _ in cases
        }
        least = cases[0][0]
        for case, some in samples.items():
            entries = [Entry(NAME, scheme, some)]
            if case != least:
                entries.append(Entry(least, "", samples[least]))
            run.results.figures.append(
                Figure(WORKLOAD, case, label, quantity.name, quantity.unit, quantity.better, entries)
            )
