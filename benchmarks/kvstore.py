"""The KVStore beside MXNet's: ``python -m benchmarks.kvstore``. Asserts nothing.

Each case runs in both systems, one after the other, round after round; of each round the slower worker's loop counts.
MXNet takes part where ``python benchmarks/run.py --install-peers`` could make its environment.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from dataclasses import asdict, dataclass, replace
from itertools import count

import glintpy
from benchmarks.peers.mxnet import Mxnet
from benchmarks.processes import Child, ChildError
from benchmarks.system import Setup, Unavailable

WORKER = "benchmarks.peers.kvstore_worker"

_jobs = count()


@dataclass(frozen=True)
class Case:
    """A loop of workers.

    Attributes:
        name: how the table calls it.
        kind: of store.
        sizes: cells of each key.
        op: what an iteration is.
        iterations: of a loop that is measured; as many are made before, while servers compile their loops.
        optimizer: by MXNet's name; None: none.
        workers: processes.
        compress: whether to two bits a value.
    """

    name: str
    kind: str
    sizes: tuple[int, ...]
    op: str
    iterations: int
    optimizer: str | None = "sgd"
    workers: int = 2
    compress: bool = False


SYNC = Case("", "dist_sync", (1_000_000,), "push_pull", 150)
CASES = (
    replace(SYNC, name="dist_sync, 2 workers, 1 M floats, sgd: push + pull"),
    replace(SYNC, name="dist_sync, 2 workers, 1 M floats, sgd: pushpull", op="pushpull"),
    replace(SYNC, name="dist_sync, 2 workers, 1 M floats, no optimizer: push + pull", optimizer=None),
    replace(
        SYNC, name="dist_sync, 2 workers, 1 M floats, no optimizer: pushpull", optimizer=None, op="pushpull"
    ),
    replace(SYNC, name="dist_sync, 2 workers, 1 M floats, sgd, 2 bits: push + pull", compress=True),
    replace(SYNC, name="dist_sync, 2 workers, 128 floats, sgd: push + pull", sizes=(128,), iterations=1500),
    replace(
        SYNC,
        name="dist_sync, 2 workers, 128 floats, sgd: pushpull",
        sizes=(128,),
        op="pushpull",
        iterations=1500,
    ),
    Case(
        "dist_async, 1 worker, 128 floats, sgd: pipelined pushes",
        "dist_async",
        (128,),
        "push",
        10_000,
        workers=1,
    ),
    Case(
        "dist_async, 1 worker, 1,000 keys of 1,000: push + pull",
        "dist_async",
        (1000,) * 1000,
        "push_pull",
        20,
        workers=1,
    ),
    Case(
        "dist_async, 1 worker, 1 key of 1 M: push + pull",
        "dist_async",
        (1_000_000,),
        "push_pull",
        300,
        workers=1,
    ),
)


def rate(case: Case, command: list[str], environment: dict[str, str], **more: object) -> float:
    """Return the iterations a second of the slower worker."""
    options = json.dumps({**asdict(case), **more})
    workers = [Child([*command, "-m", WORKER, options], environment) for _ in range(case.workers)]
    try:
        return case.iterations / max(float(worker.hear()) for worker in workers)
    finally:
        for worker in workers:
            worker.stop()


def of_mxnet(case: Case) -> float:
    """Return the iterations a second of MXNet's KVStore with one server."""
    system = Mxnet()
    try:
        opening = system.start(Setup(1, case.workers))
        return rate(case, [opening.interpreter], dict(opening.environment), system="mxnet")
    finally:
        system.stop()


def of_ours(case: Case) -> float:
    """Return the iterations a second of our KVStore with one server."""
    with glintpy.LocalCluster(1) as cluster:
        job = f"bench-{next(_jobs)}"
        return rate(case, [sys.executable], {}, system="ours", address=cluster.address, job=job)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else "")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default="", help="cases with this in their names")
    options = parser.parse_args()
    cases = [case for case in CASES if options.only in case.name]
    rates: dict[str, dict[str, list[float]]] = {case.name: {"ours": [], "mxnet": []} for case in cases}
    systems = {"ours": of_ours, "mxnet": of_mxnet}
    for _ in range(options.rounds):
        for case in cases:
            for name, measure in list(systems.items()):
                try:
                    rates[case.name][name].append(measure(case))
                except Unavailable as error:
                    print(f"without {name}: {error}")
                    del systems[name]
                except ChildError as error:
                    print(f"{name}, {case.name}: {error}", file=sys.stderr)
    print(f"{'iterations a second, medians':<66}{'ours':>10}{'mxnet':>10}{'ratio':>8}")
    for case in cases:
        found = rates[case.name]
        ours, mxnet = (
            statistics.median(found[name]) if found[name] else float("nan") for name in ("ours", "mxnet")
        )
        print(f"{case.name:<66}{ours:>10.1f}{mxnet:>10.1f}{ours / mxnet:>8.2f}")


if __name__ == "__main__":
    main()
