"""How a process ends that can't go on: at once, and never without a word; knows nothing else."""

from __future__ import annotations

import logging
import os
import sys
import traceback
from typing import NoReturn

EXIT_CODE = 70
"""``EX_SOFTWARE`` of BSD's sysexits.h: an internal error."""


def end_process(logger: logging.Logger, reason: str) -> NoReturn:
    """End the process because of the exception that is being handled.

    Args:
        logger: who says so. Where nobody set logging up, as in many a user's program, the standard error does.
        reason: what happened.
    """
    logger.critical("%s; the process ends", reason, exc_info=sys.exception())
    if not logging.getLogger().hasHandlers() and sys.stderr is not None:
        sys.stderr.write(f"glintpy: {reason}; the process ends\n{traceback.format_exc()}")
        sys.stderr.flush()
    os._exit(EXIT_CODE)
