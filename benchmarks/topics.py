"""Tokens a second of the topic model in ``examples/``, run as users run it."""

from __future__ import annotations

import re
import sys
import tempfile
from statistics import median

from benchmarks.arena import Run
from benchmarks.lineup import Scheme
from benchmarks.ours import NAME, Glintpy
from benchmarks.processes import ROOT, Child, ChildError
from benchmarks.results import Entry, Figure
from benchmarks.system import Setup

WORKLOAD = "topic-model"

WORKERS = (1, 2)

SERVERS = 2

TOKENS = re.compile(r"([\d,]+) tokens/s")

PROOF = "proof: "
"""How the line begins that says that the counts were exact after every sweep."""

LAST_LINE = " s in all"


def measure(run: Run, schemes: tuple[Scheme, ...]) -> None:
    """Measure it with one and two workers.

    Args:
        run: what measurements share.
        schemes: over what.
    """
    for scheme in schemes:
        run.say(f"topic-model over {scheme}")
        samples: dict[int, list[float]] = {workers: [] for workers in WORKERS}
        system = Glintpy(scheme)
        try:
            system.start(Setup(SERVERS, 1))
            for _ in range(run.sizes.repeats):
                for workers, some in samples.items():
                    some.append(_tokens_per_s(run, system.cluster.address, workers))
        finally:
            system.stop()
        for workers, some in samples.items():
            name = "1 worker" if workers == 1 else f"{workers} workers"
            entries = [Entry(NAME, scheme, some)]
            if workers > 1:
                entries.append(Entry("1 worker", "", samples[1]))
            run.results.figures.append(
                Figure(WORKLOAD, f"{SERVERS} servers, {name}", "sweeps", "tokens", "1/s", "high", entries)
            )


def _tokens_per_s(run: Run, address: str, workers: int) -> float:
    with tempfile.TemporaryDirectory(prefix="glintpy-benchmark-") as folder:
        command = [sys.executable, str(ROOT / "examples" / "topic_model.py"), "--master", address]
        command += ["--workers", str(workers), "--sweeps", str(run.sizes.sweeps), "--checkpoint", folder]
        command += ["--limit-documents", str(run.sizes.documents)]
        child = Child(command)
        lines = [""]
        try:
            while not lines[-1].endswith(LAST_LINE):
                lines.append(child.read_line())
        except ChildError as error:
            raise ChildError("\n".join([*lines[-3:], str(error)])) from error
        finally:
            child.stop()
    found = [match[1] for line in lines if (match := TOKENS.search(line))]
    # Fast and wrong is not fast.
    if not found or not any(line.startswith(PROOF) for line in lines):
        raise ChildError("the topic model said nothing of its speed or its proof:\n" + "\n".join(lines))
    return median([float(number.replace(",", "")) for number in found])
