"""How many connections a process may hold: as many as it has descriptors for; knows no socket."""

from __future__ import annotations

import logging
import sys

if sys.platform != "win32":
    import resource

logger = logging.getLogger("glintpy.transport")

DESCRIPTORS_A_SESSION = 4
"""One for its connection; the rest is for connections that have no session yet, files and the process itself. Once a
process has none left, libzmq asks for one without a pause, and nobody new gets in until somebody leaves."""


def raise_descriptor_limit() -> int | None:
    """Raise this process's limit on open descriptors as far as it may go.

    For processes that are glintpy's own, before they listen: whoever imports the package as a library keeps the limit
    that was chosen for it.

    Returns:
        The limit now; None where there is none.
    """
    if sys.platform == "win32":
        return None
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft != hard:
        try:
            resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
        except (OSError, ValueError):  # macOS has a lower limit of its own and calls the hard one unlimited
            logger.debug("the limit of %d descriptors can't be raised to %d", soft, hard)
        soft = resource.getrlimit(resource.RLIMIT_NOFILE)[0]
    return None if soft == resource.RLIM_INFINITY else soft


def sessions_within(descriptors: int | None, sessions_max: int) -> int:
    """Return how many sessions a server may hold.

    Args:
        descriptors: what ``raise_descriptor_limit`` returned.
        sessions_max: as asked for; never exceeded.
    """
    if descriptors is None:
        return sessions_max
    bound = max(1, descriptors // DESCRIPTORS_A_SESSION)
    if bound < sessions_max:
        logger.warning(
            "%d sessions at most, not %d: this process may open only %d descriptors (ulimit -n)",
            bound,
            sessions_max,
            descriptors,
        )
    return min(sessions_max, bound)
