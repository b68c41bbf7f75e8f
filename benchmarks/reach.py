"""What glintpy is to reach, each as a ratio within one run; knows figures by their names only.

Every line says what it is, what was found, what is wanted, and whether that is so. A line whose figures are not
there is left away: it was not measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.table import Table

from benchmarks.lineup import ORDER, PEERS
from benchmarks.ours import NAME
from benchmarks.results import Entry, Figure, Results
from benchmarks.startup import WORKLOAD as START
from benchmarks.system import Setup
from benchmarks.workloads import SIZES

ONE = str(Setup(1, 1))

ECHO_TIMES_MAX = 1.5
PULL_SHARE_MIN, PUSH_SHARE_MIN = 0.60, 0.65
IPC_TIMES_MIN = 1.3
PIPELINED_TIMES_MIN = 2.0
BLOCKS_SHARE_MIN, COLUMNS_SHARE_MIN = 0.80, 0.60
IMPORT_S_MAX, FIRST_PULL_S_MAX = 0.25, 1.5
IDLE_MB_MAX, ABOVE_MB_MAX = 60.0, 170.0
SCALE_TIMES_MIN = 3.0
FLAT_TIMES_MAX = 1.5
MODELS_TIMES_MAX = 1.1
"""A tenth for what two measurements of the same differ by."""

PS_LITE_KEYS_PER_COPIED_BYTE = 27e6 * 4 / 18.4e9
"""ps-lite's 27 M keys/s of 4 bytes, over the 18.4 GB/s that memcpy of 51 MB reached on the machine where that was
measured: where ps-lite itself doesn't run, this share of memcpy stands in for it."""

KEYS_TIMES_MIN = 1.5

Direction = Literal["at least", "at most"]


@dataclass(frozen=True)
class Line:
    """One thing to reach.

    Attributes:
        what: in words.
        found: the ratio, or the number.
        direction: which side of the limit is wanted.
        limit: the limit.
    """

    what: str
    found: float
    direction: Direction
    limit: float

    @property
    def is_reached(self) -> bool:
        """Whether it is so."""
        return self.found >= self.limit if self.direction == "at least" else self.found <= self.limit


def show(results: Results, console: Console) -> None:
    """Print the lines that can be told from what was measured.

    Args:
        results: of a run.
        console: where to.
    """
    table = Table(box=SIMPLE_HEAD, pad_edge=False, title="to reach", title_justify="left")
    for heading in ("what", "found", "wanted", ""):
        table.add_column(heading)
    for line in lines_of(results):
        reached = "[green]yes[/]" if line.is_reached else "[yellow]not yet[/]"
        table.add_row(line.what, f"{line.found:.3g}", f"{line.direction} {line.limit:.3g}", reached)
    if table.row_count:
        console.print(table)


def markdown(results: Results) -> list[str]:
    """Return the same as lines of a Markdown table; none if nothing can be told.

    Args:
        results: of a run.
    """
    rows = [
        f"| {line.what} | {line.found:.3g} | {line.direction} {line.limit:.3g} | "
        f"{'yes' if line.is_reached else 'not yet'} |"
        for line in lines_of(results)
    ]
    return ["| what | found | wanted | reached |", "|---|---|---|---|", *rows] if rows else []


def lines_of(results: Results) -> Iterator[Line]:
    """Yield the lines that can be told from what was measured.

    Args:
        results: of a run.
    """
    for part in (_one_row, _thousand_rows, _bulk, _pipelined, _keys, _iterate, _peers, _start, _scale):
        yield from part(results)


# --- the parts ----------------------------------------------------------------------------------------------------


def _one_row(results: Results) -> Iterator[Line]:
    for step in ("pull", "push"):
        yield from _against(results, "one-row", step, "p50", "zmq", at_most=ECHO_TIMES_MAX)
        p50s, p99s = (_figure(results, "one-row", step, quantity) for quantity in ("p50", "p99"))
        if p50s is None or p99s is None:
            continue
        tails = [_tail(p50s.of(name, "tcp"), p99s.of(name, "tcp")) for name in (NAME, "zmq")]
        if None not in tails:
            ours, echo = (tail for tail in tails if tail is not None)
            yield Line(
                f"one-row {step}: p99 over p50, over zmq's own", ours / echo, "at most", ECHO_TIMES_MAX
            )


def _tail(p50: Entry | None, p99: Entry | None) -> float | None:
    return None if p50 is None or p99 is None else p99.over(p50)


def _thousand_rows(results: Results) -> Iterator[Line]:
    for step in ("pull", "push"):
        yield from _against(results, "thousand-rows", step, "p50", "zmq", at_most=ECHO_TIMES_MAX)


def _bulk(results: Results) -> Iterator[Line]:
    for step in ("pull rows", "pull rows into out="):
        yield from _against(results, "bulk", step, "values", "socket", at_least=PULL_SHARE_MIN)
    yield from _against(results, "bulk", "push rows", "values", "socket", at_least=PUSH_SHARE_MIN)
    for step in ("pull rows", "push rows"):
        figure = _figure(results, "bulk", step, "values")
        if figure is None:
            continue
        tcp, ipc = figure.of(NAME, "tcp"), figure.of(NAME, "ipc")
        if tcp is not None and ipc is not None:
            yield Line(f"bulk {step}: ipc over tcp", ipc.over(tcp), "at least", IPC_TIMES_MIN)


def _pipelined(results: Results) -> Iterator[Line]:
    for step in ("pull", "push"):
        yield from _against(results, "pipelined", step, "requests", "zmq", at_least=PIPELINED_TIMES_MIN)


def _keys(results: Results) -> Iterator[Line]:
    for step in ("pull", "push"):
        yield from _against(results, "keys", step, "keys", "mxnet", at_least=KEYS_TIMES_MIN)
        figure, copied = (
            _figure(results, "keys", step, "keys"),
            _figure(results, "bulk", "pull rows", "values"),
        )
        ours = None if figure is None else figure.of(NAME, "tcp")
        memcpy = None if copied is None else copied.of("memcpy")
        if ours is not None and memcpy is not None:
            share = ours.median * 4 / memcpy.median
            limit = KEYS_TIMES_MIN * PS_LITE_KEYS_PER_COPIED_BYTE
            yield Line(f"keys {step}: bytes of values over memcpy's", share, "at least", limit)


def _iterate(results: Results) -> Iterator[Line]:
    blocks, whole = (_figure(results, "iterate", step, "values") for step in ("row blocks", "pull all"))
    ours, pulled = (None if figure is None else figure.of(NAME, "tcp") for figure in (blocks, whole))
    if ours is not None and pulled is not None:
        yield Line("iterate row blocks: over pulling all", ours.over(pulled), "at least", BLOCKS_SHARE_MIN)
    yield from _against(results, "iterate", "columns", "values", "numpy", at_least=COLUMNS_SHARE_MIN)


def _peers(results: Results) -> Iterator[Line]:
    for peer in [name for name in ORDER if name.partition(" ")[0] in PEERS]:
        worst: tuple[float, Figure] | None = None
        for figure in results.figures:
            ours = figure.of(NAME)
            theirs = figure.of(peer)
            # Redis's round trip stands beside ours, and what it weighs is no workload.
            skipped = figure.workload in (START, SIZES) or (
                peer.startswith("redis") and figure.workload == "one-row"
            )
            if ours is None or theirs is None or skipped:
                continue
            times = theirs.over(ours) if figure.better == "low" else ours.over(theirs)
            if worst is None or times < worst[0]:
                worst = times, figure
        if worst is not None:
            times, figure = worst
            where = f"{figure.workload} {figure.step}, {figure.quantity}, {figure.setup}"
            yield Line(f"times as fast as {peer}, where it is the least ({where})", times, "at least", 1.0)


def _start(results: Results) -> Iterator[Line]:
    wanted: list[tuple[str, str, Direction, float]] = [
        ("import glintpy", "time", "at most", IMPORT_S_MAX),
        ("import all its names", "numba imported", "at most", 0),
        ("local(servers=2), first pull", "time", "at most", FIRST_PULL_S_MAX),
        ("idle server", "resident", "at most", IDLE_MB_MAX),
        ("idle server", "numba imported", "at most", 0),
        ("server with a model", "resident above its bytes", "at most", ABOVE_MB_MAX),
    ]
    for step, quantity, direction, limit in wanted:
        for figure in results.find(START, step=step, quantity=quantity):
            ours = figure.of(NAME)
            if ours is not None:
                unit = f", {figure.unit}" if figure.unit else ""
                yield Line(f"{step}: {quantity}{unit}", ours.median, direction, limit)


def _scale(results: Results) -> Iterator[Line]:
    four = str(Setup(4, 4))
    for figure in results.find("scale", setup=four):
        yield Line(
            f"scale {figure.step}: {four} over {ONE}", _over_least(figure), "at least", SCALE_TIMES_MIN
        )
    flat = _largest(results, "cached rows", lambda figure: figure.setup != "100,000,000 rows")
    if flat is not None:
        yield Line(
            f"scale {flat.step}: {flat.setup} over the fewest", _over_least(flat), "at most", FLAT_TIMES_MAX
        )
    models = _largest(results, "models in turn", lambda _: True)
    if models is not None:
        over = _over_least(models)
        yield Line(f"scale {models.step}: {models.setup} over one", over, "at most", MODELS_TIMES_MAX)


def _largest(results: Results, step: str, wanted: Callable[[Figure], bool]) -> Figure | None:
    found = [
        figure
        for figure in results.find("scale")
        if step in figure.step and len(figure.entries) > 1 and wanted(figure)
    ]
    return found[-1] if found else None


def _over_least(figure: Figure) -> float:
    ours, least = figure.entries
    return ours.over(least)


# --- helpers ------------------------------------------------------------------------------------------------------


def _figure(results: Results, workload: str, step: str, quantity: str) -> Figure | None:
    return next(results.find(workload, step=step, quantity=quantity, setup=ONE), None)


def _against(
    results: Results,
    workload: str,
    step: str,
    quantity: str,
    other: str,
    *,
    at_least: float | None = None,
    at_most: float | None = None,
) -> Iterator[Line]:
    figure = _figure(results, workload, step, quantity)
    if figure is None:
        return
    ours, theirs = figure.of(NAME, "tcp"), figure.of(other, "tcp")
    if ours is not None and theirs is not None:
        direction: Direction = "at most" if at_least is None else "at least"
        limit = at_most if at_least is None else at_least
        assert limit is not None
        yield Line(f"{workload} {step}: {quantity} over {other}'s", ours.over(theirs), direction, limit)
