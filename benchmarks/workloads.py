"""The workloads that every system can be asked for: their models, requests, and what is told of them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from benchmarks.fleet import Measured
from benchmarks.results import Better
from benchmarks.sizes import Sizes
from benchmarks.steps import Model, Step

COLS = 128
ELEMENT_COLS = 100
SMALL_ROWS = 10
WINDOW = 64


@dataclass(frozen=True)
class Quantity:
    """A number that a run of a step gives.

    Attributes:
        name: what it is.
        unit: of the number.
        better: which direction is.
        of: computes it.
    """

    name: str
    unit: str
    better: Better
    of: Callable[[Step, Measured], float]


def _microseconds(seconds: float | None) -> float:
    assert seconds is not None, "only requests that are waited for have latencies"
    return seconds * 1e6


P50 = Quantity("p50", "us", "low", lambda _, run: _microseconds(run.p50_s))
P99 = Quantity("p99", "us", "low", lambda _, run: _microseconds(run.p99_s))
REQUESTS = Quantity("requests", "1/s", "high", lambda _, run: run.num / run.elapsed_s)
MEGABYTES = Quantity(
    "values",
    "MB/s",
    "high",
    # Values only, in whichever directions they travel; 10^6 bytes.
    lambda step, run: (
        run.num * (step.request_bytes - step.selection_bytes + step.answer_bytes) / run.elapsed_s / 1e6
    ),
)
MEGAKEYS = Quantity("keys", "M/s", "high", lambda step, run: run.num * step.num / run.elapsed_s / 1e6)
MEGAELEMENTS = Quantity("elements", "M/s", "high", MEGAKEYS.of)
NANOSECONDS_A_ROW = Quantity(
    "time per row", "ns", "low", lambda step, run: _microseconds(run.p50_s) * 1e3 / step.num
)


@dataclass(frozen=True)
class Workload:
    """Requests that belong together.

    Attributes:
        name: for ``--only``, and in tables.
        models: what they need.
        steps: the requests.
        quantities: what is told of each step.
    """

    name: str
    models: tuple[Model, ...]
    steps: tuple[Step, ...]
    quantities: tuple[Quantity, ...]


def one_row(sizes: Sizes) -> Workload:
    """One row, waiting for each."""
    table = Model("table", sizes.table_rows, COLS, "float32")
    verbs = ("pull", "push", "push_pull")
    steps = tuple(Step(verb, "rows", table, 1, label=verb) for verb in verbs)
    return Workload("one-row", (table,), steps, (P50, P99))


def thousand_rows(sizes: Sizes) -> Workload:
    """Some random rows, waiting for each."""
    table = Model("table", sizes.table_rows, COLS, "float32")
    verbs = ("pull", "push", "push_pull")
    steps = tuple(Step(verb, "rows", table, sizes.some_rows, label=verb) for verb in verbs)
    return Workload("thousand-rows", (table,), steps, (P50, MEGABYTES))


def bulk(sizes: Sizes) -> Workload:
    """Many random rows of a larger matrix, a whole matrix, and half of it."""
    table = Model("table", sizes.table_rows, COLS, "float32")
    whole = Model("whole", sizes.bulk_rows, COLS, "float32")
    steps = []
    for verb in ("pull", "push"):
        steps += [
            Step(verb, "rows", table, sizes.bulk_rows, label=f"{verb} rows"),
            Step(verb, "all", whole, whole.rows, label=f"{verb} all"),
            Step(verb, "slice", whole, whole.rows // 2, label=f"{verb} slice"),
        ]
    steps.append(Step("pull", "rows", table, sizes.bulk_rows, into=True, label="pull rows into out="))
    return Workload("bulk", (table, whole), tuple(steps), (MEGABYTES,))


def pipelined(sizes: Sizes) -> Workload:
    """Small requests, many in flight."""
    table = Model("table", sizes.table_rows, COLS, "float32")
    steps = tuple(
        Step(verb, "rows", table, SMALL_ROWS, window=WINDOW, label=verb) for verb in ("pull", "push")
    )
    return Workload("pipelined", (table,), steps, (REQUESTS,))


def keys(sizes: Sizes) -> Workload:
    """Keys of a large vector."""
    vector = Model("vector", sizes.vector_size, 0, "float32")
    steps = tuple(Step(verb, "keys", vector, sizes.keys, label=verb) for verb in ("pull", "push"))
    return Workload("keys", (vector,), steps, (MEGAKEYS,))


def elements(sizes: Sizes) -> Workload:
    """Single elements of an integer matrix."""
    counts = Model("counts", sizes.element_rows, ELEMENT_COLS, "int64")
    steps = tuple(Step(verb, "elements", counts, sizes.elements, label=verb) for verb in ("pull", "push"))
    return Workload("elements", (counts,), steps, (MEGAELEMENTS,))


def iterate(sizes: Sizes) -> Workload:
    """A pass over all rows and over all columns, and pulling the whole to compare."""
    whole = Model("whole", sizes.bulk_rows, COLS, "float32")
    steps = (
        Step("iterate", "blocks", whole, whole.rows, label="row blocks"),
        Step("iterate", "columns", whole, whole.rows, label="columns"),
        Step("pull", "all", whole, whole.rows, label="pull all"),
    )
    return Workload("iterate", (whole,), steps, (MEGABYTES,))


def request_sizes(sizes: Sizes) -> Workload:
    """Throughput by the size of a request, for the plot."""
    table = Model("table", sizes.table_rows, COLS, "float32")
    steps = tuple(
        Step(verb, "rows", table, num, label=f"{verb} {num:,} {'row' if num == 1 else 'rows'}")
        for verb in ("pull", "push")
        for num in sizes.request_rows
    )
    return Workload("sizes", (table,), steps, (MEGABYTES,))


SHARED: dict[str, Callable[[Sizes], Workload]] = {
    "one-row": one_row,
    "thousand-rows": thousand_rows,
    "bulk": bulk,
    "pipelined": pipelined,
    "keys": keys,
    "elements": elements,
    "iterate": iterate,
}
"""What all systems are measured by, in this order."""

SIZES = "sizes"
