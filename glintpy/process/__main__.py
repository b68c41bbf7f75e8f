"""``python -m glintpy.process ROLE JSON``: a node that a program starts, see ``orders``; people type ``glintpy``."""

from __future__ import annotations

import sys
from collections.abc import Sequence

from glintpy.errors import GlintError
from glintpy.process.orders import MasterOrder, order_of
from glintpy.process.output import Failed, complain, log_to_stderr
from glintpy.process.running import run_master, run_server


def run(arguments: Sequence[str]) -> int:
    """Run a node until it is to stop, and return the exit code of its process.

    Args:
        arguments: the role, and the order as a text.
    """
    if len(arguments) != 2:
        complain("python -m glintpy.process is for programs: it takes a role and JSON; use glintpy --help")
        return 2
    role, text = arguments
    try:
        order = order_of(role, text)
        log_to_stderr(order.log_level)
        if isinstance(order, MasterOrder):
            run_master(order)
        else:
            run_server(order)
    except Failed as failure:
        complain(f"glintpy {role}: {failure}")
        return failure.exit_code
    except (GlintError, OSError) as error:
        complain(f"glintpy {role}: {str(error) or type(error).__name__}")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
