"""The command line: options in, a run, a table out; the work is in its neighbours."""

from __future__ import annotations

import argparse
import signal
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import FrameType

from rich.console import Console

import glintpy
from benchmarks import plot, reach, results, scale, startup, table, topics, workloads
from benchmarks.arena import Arena, Run
from benchmarks.lineup import PEERS, SCHEMES, Scheme, systems
from benchmarks.machine import about
from benchmarks.peers import environments
from benchmarks.peers.mxnet import Mxnet
from benchmarks.peers.ray import Ray
from benchmarks.peers.redis import Redis
from benchmarks.processes import ChildError
from benchmarks.sizes import FULL, QUICK, SMALLEST, Sizes
from benchmarks.system import Setup

SIZES = {"full": FULL, "quick": QUICK, "smallest": SMALLEST}

NAMES = (*workloads.SHARED, topics.WORKLOAD, startup.WORKLOAD, scale.WORKLOAD, workloads.SIZES)

EXIT_FAILED = 1
EXIT_INTERRUPTED = 130
"""What shells use for a program that Ctrl-C ended."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the benchmarks.

    Args:
        arguments: the command line without the program's name; None for this process's own.

    Returns:
        The exit status: 0, 1 for an error that was printed, 130 after Ctrl-C.
    """
    options = _parse(arguments)
    if options.install_peers:
        print("\n".join(environments.install()))
        return 0
    # Ended by another program it leaves as after Ctrl-C: by the way that ends its children.
    before = signal.signal(signal.SIGTERM, _interrupt)
    try:
        found = results.read(options.read) if options.read else _measure(options)
        _tell(options, found)
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
        return EXIT_INTERRUPTED
    except (ChildError, plot.PlotError, glintpy.GlintError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return EXIT_FAILED
    finally:
        signal.signal(signal.SIGTERM, before)
    return 0


def _interrupt(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt(f"signal {number} at {frame}")


def _measure(options: argparse.Namespace) -> results.Results:
    sizes = _sizes(options)
    progress = Console(stderr=True)
    run = Run(sizes, results.Results(about(sizes)), partial(progress.print, style="dim", highlight=False))
    schemes: tuple[Scheme, ...] = tuple(options.schemes)
    shared = [make(sizes) for name, make in workloads.SHARED.items() if name in options.only]
    for setup in sizes.setups if shared else ():
        with Arena(systems(schemes, options.peers), setup, run) as arena:
            for workload in shared:
                arena.measure(workload)
    if topics.WORKLOAD in options.only:
        topics.measure(run, schemes)
    if startup.WORKLOAD in options.only:
        peers = {"redis": lambda: Redis("tcp"), "ray": Ray, "mxnet": Mxnet}
        startup.measure(run, [make for name, make in peers.items() if name in options.peers])
    if scale.WORKLOAD in options.only:
        scale.measure(run, schemes[0])
    if workloads.SIZES in options.only:
        with Arena(systems(schemes, options.peers), sizes.setups[0], run) as arena:
            arena.measure(workloads.request_sizes(sizes))
    return run.results


def _tell(options: argparse.Namespace, found: results.Results) -> None:
    if options.json:
        found.write(options.json)
    if options.markdown:
        lines = [*reach.markdown(found), "", *table.markdown(found)]
        options.markdown.write_text("\n".join(lines) + "\n", encoding="utf-8")
    console = Console()
    table.show(found, console)
    reach.show(found, console)
    if options.plot:
        for picture in plot.draw(found, options.plot):
            console.print(f"drawn: {picture}", soft_wrap=True, highlight=False)


def _sizes(options: argparse.Namespace) -> Sizes:
    sizes = SIZES[options.size]
    sizes = replace(sizes, repeats=options.repeats or sizes.repeats, seconds=options.seconds or sizes.seconds)
    if options.servers or options.clients:
        servers = options.servers or sorted({setup.servers for setup in sizes.setups})
        clients = options.clients or sorted({setup.clients for setup in sizes.setups})
        setups = tuple(Setup(server, client) for server in servers for client in clients)
        sizes = replace(sizes, setups=setups)
    return sizes


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        prog="benchmarks/run.py",
        description="Measure glintpy beside raw sockets, bare pyzmq, numpy, Redis, Ray and MXNet's KVStore.",
    )
    add = parser.add_argument
    add("--quick", action="store_const", const="quick", dest="size", help="small and short: a first look")
    add("--size", choices=tuple(SIZES), help="how large and how long; full if not said")
    add(
        "--only",
        action="append",
        choices=NAMES,
        metavar="NAME",
        help=f"one of {', '.join(NAMES)}; may be repeated",
    )
    add("--json", type=Path, metavar="FILE", help="write all samples to a file")
    add("--markdown", type=Path, metavar="FILE", help="write what is reached and the table as Markdown")
    add(
        "--plot",
        type=Path,
        metavar="DIR",
        help="draw pictures; measures 'sizes', too, unless --only says otherwise",
    )
    add("--read", type=Path, metavar="FILE", help="measure nothing: show what --json wrote")
    add("--servers", type=_numbers, metavar="N,...", help="server processes, in place of the size's own")
    add("--clients", type=_numbers, metavar="N,...", help="client processes, in place of the size's own")
    add("--schemes", type=_choices(SCHEMES), default=SCHEMES, metavar="tcp,ipc", help="over what")
    add(
        "--peers",
        type=_choices(PEERS),
        default=PEERS,
        metavar="NAME,...",
        help="which peers; 'none' for none",
    )
    add("--repeats", type=_positive, help="rounds; the fewest to tell anything from are five")
    add("--seconds", type=_seconds, help="of each measurement")
    add(
        "--install-peers",
        action="store_true",
        help="make the environments of Ray and MXNet with pip, and end",
    )
    options = parser.parse_args(arguments)
    options.size = options.size or "full"
    if options.only is None:
        # How throughput goes with size is what the plot shows, and takes its time.
        options.only = [name for name in NAMES if name != workloads.SIZES or options.plot]
    return options


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is less than 1")
    return number


def _seconds(text: str) -> float:
    number = float(text)
    if not 0 < number <= 60:
        raise argparse.ArgumentTypeError(f"{number:g} is not above 0 and up to 60")
    return number


def _numbers(text: str) -> tuple[int, ...]:
    return tuple(_positive(part) for part in text.split(","))


def _choices(known: Sequence[str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        if text == "none":
            return ()
        names = tuple(text.split(","))
        for name in names:
            if name not in known:
                raise argparse.ArgumentTypeError(f"{name!r} is none of {', '.join(known)}")
        return names

    return parse
