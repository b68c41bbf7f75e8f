"""What drills may ask of a server at its start: places to fail at and planted defects; off unless allowed."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from glintpy.cli.output import Failed

if TYPE_CHECKING:
    from glintpy.actors.receipts import Receipts


def prepare(*, enable_debug: bool, failpoints: str, plant: str, insecure: bool) -> type[Receipts] | None:
    """Arm failpoints and return the class to count pushes with; None: the real one.

    Args:
        enable_debug: whether any of it is allowed.
        failpoints: see ``glintpy.failpoints.arm``.
        plant: a defect's name.
        insecure: others than this machine's programs can reach the server.

    Raises:
        Failed: it is not allowed.
        ConfigError: a text that is no failpoint; no such defect.
    """
    if not (failpoints or plant):
        return None
    if not enable_debug or insecure:
        raise Failed(
            "--failpoints and --plant make a server fail: they need --enable-debug, and no --insecure",
            exit_code=2,
        )
    from glintpy import failpoints as places  # noqa: PLC0415 - for drills only

    places.arm(failpoints, seed=os.getpid())
    if not plant:
        return None
    from glintpy.testing.planted import planted  # noqa: PLC0415 - for drills only

    return planted(plant)
