"""The plots: throughput by the size of a request, and glintpy's figures over the others'; knows results only."""

from __future__ import annotations

from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from benchmarks.lineup import ORDER
from benchmarks.ours import NAME
from benchmarks.results import Results
from benchmarks.system import Setup
from benchmarks.table import OTHER, rows_of
from benchmarks.workloads import COLS, SIZES

ROW_BYTES = 4 * COLS

COLORS = dict(zip(ORDER, [f"C{number}" for number in range(len(ORDER))], strict=True))

LINES = {"tcp": "-", "ipc": "--", "": ":"}


class PlotError(Exception):
    """There is nothing to plot with, or nothing to plot."""


def draw(results: Results, folder: Path) -> list[Path]:
    """Draw what the results allow.

    Args:
        results: of a run.
        folder: where pictures go; made if it isn't there.

    Returns:
        The pictures.

    Raises:
        PlotError: matplotlib isn't installed, or nothing was measured that is plotted.
    """
    if find_spec("matplotlib") is None:
        raise PlotError("plots need matplotlib; pip install 'glintpy[bench]'")
    import_module("matplotlib").use("Agg")
    folder.mkdir(parents=True, exist_ok=True)
    pictures = [*_throughput(results, folder), *_ratios(results, folder)]
    if not pictures:
        raise PlotError("nothing that is plotted was measured")
    return pictures


def _pyplot() -> Any:
    # Only plots need it, and the benchmark runs without it, too.
    return import_module("matplotlib.pyplot")


def _throughput(results: Results, folder: Path) -> list[Path]:
    plt = _pyplot()
    if not any(results.find(SIZES)):
        return []
    picture, panels = plt.subplots(1, 2, figsize=(14, 5.5), sharey=True)
    for panel, verb in zip(panels, ("pull", "push"), strict=True):
        _throughput_panel(results, panel, verb)
    panels[0].set_ylabel("MB/s of values")
    panels[1].legend(fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0))
    setup = next(results.find(SIZES)).setup
    picture.suptitle(
        f"{setup}; {results.about['cpu']}, {results.about['cores']} cores, {results.about['date']}"
    )
    return [_saved(picture, folder / "throughput.png")]


def _throughput_panel(results: Results, panel: Any, verb: str) -> None:
    series: dict[tuple[str, str], list[tuple[float, float, float, float]]] = {}
    for figure in results.find(SIZES):
        if not figure.step.startswith(f"{verb} "):
            continue
        num_rows = int(figure.step.split()[1].replace(",", ""))
        for entry in figure.entries:
            point = (num_rows * ROW_BYTES, entry.median, min(entry.samples), max(entry.samples))
            series.setdefault((entry.system, entry.scheme), []).append(point)
    for (system, scheme), points in series.items():
        at, middle, low, high = zip(*sorted(points), strict=True)
        is_ours = system == NAME
        panel.plot(
            at,
            middle,
            LINES[scheme],
            color=COLORS[system],
            label=f"{system} {scheme}",
            marker="o",
            markersize=4,
            linewidth=2.5 if is_ours else 1.2,
        )
        panel.fill_between(at, low, high, color=COLORS[system], alpha=0.12)
    panel.set_xscale("log")
    panel.set_yscale("log")
    panel.set_xlabel("bytes of values in a request")
    panel.set_title(f"{verb}, waiting for each")
    panel.grid(visible=True, which="major", alpha=0.3)


def _ratios(results: Results, folder: Path) -> list[Path]:
    plt = _pyplot()
    rows = [
        row
        for figure in results.figures
        if figure.setup in ("", str(Setup(1, 1))) and figure.workload != SIZES
        for row in rows_of(figure)
        if row.scheme == "tcp" and any(column != OTHER for column in row.others)
    ]
    if not rows:
        return []
    picture, panel = plt.subplots(figsize=(11, 1.5 + 0.32 * len(rows)))
    for place, row in enumerate(reversed(rows)):
        for column, entry in row.others.items():
            if column == OTHER:
                continue
            # To the right is better, whichever direction the figure itself has.
            ratio = row.ratio_to(entry)
            times = 1 / ratio if row.figure.better == "low" else ratio
            panel.plot(times, place, "o", color=COLORS[column], label=column)
    panel.axvline(1.0, color="black", linewidth=0.8)
    panel.set_xscale("log")
    panel.set_yticks(range(len(rows)), [f"{row.figure.workload}: {row.label}" for row in reversed(rows)])
    panel.set_xlabel("glintpy is so many times as fast as")
    panel.grid(visible=True, alpha=0.3)
    handles = dict(zip(*reversed(panel.get_legend_handles_labels()), strict=True))
    panel.legend(
        handles.values(), handles.keys(), fontsize="small", loc="upper left", bbox_to_anchor=(1.0, 1.0)
    )
    return [_saved(picture, folder / "ratios.png")]


def _saved(picture: Any, path: Path) -> Path:
    plt = _pyplot()
    picture.tight_layout()
    picture.savefig(path, dpi=120)
    plt.close(picture)
    return path
