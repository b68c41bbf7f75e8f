"""Measure glintpy beside floors and peers, and print one table: ``python benchmarks/run.py --help``.

Where to read on, in the order of a run: ``command.py`` (options, outputs), ``workloads.py`` (what is measured),
``arena.py`` (who takes part, and the interleaved rounds), ``fleet.py`` (one system with its clients),
``client.py`` (what each client process does), ``table.py``, ``reach.py`` and ``plot.py`` (what comes out).
"""

from __future__ import annotations

import sys
from pathlib import Path

# In place of this script's own folder, whose modules must not hide libraries of the same names.
sys.path[0] = str(Path(__file__).resolve().parents[1])

from benchmarks.command import main  # noqa: E402 - found through the path above

if __name__ == "__main__":
    sys.exit(main())
