"""Simulated clusters by the thousand, on all cores: ``python -m tests.trials.seeds --count 100000 --first 1``."""

from __future__ import annotations

import argparse
import os
import sys
import time
from concurrent.futures import ProcessPoolExecutor, as_completed
from multiprocessing import get_context

from glintpy.testing.simulation import KINDS, Kind, Violation, run_seed

BATCH = 50


def run(kind: Kind, first: int, count: int) -> tuple[int, str]:
    """Run some seeds, and return how many went well and what was wrong with the next one, if anything was."""
    for number in range(first, first + count):
        try:
            run_seed(number, kind=kind)
        except Violation as violation:
            return number - first, str(violation)
    return count, ""


def main() -> int:
    """Run seeds of each kind until the count is reached or one is wrong."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000, help="of all kinds together (default 100000)")
    parser.add_argument("--first", type=int, default=1, help="the first seed (default 1)")
    asked = parser.parse_args()
    a_kind = -(-asked.count // len(KINDS))
    batches = [(kind, asked.first + start) for start in range(0, a_kind, BATCH) for kind in KINDS]
    began, done, wrong = time.monotonic(), 0, []
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        asked_for = [pool.submit(run, kind, first, BATCH) for kind, first in batches]
        for future in as_completed(asked_for):
            count, said = future.result()
            done += count
            if said:
                wrong.append(said)
                sys.stdout.write(said + "\n")
            if len(wrong) >= 3:
                pool.shutdown(cancel_futures=True)
                break
    seconds = time.monotonic() - began
    sys.stdout.write(f"{done} seeds of {len(KINDS)} kinds in {seconds:.0f} s, {len(wrong)} wrong\n")
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
