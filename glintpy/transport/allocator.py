"""Has the C library keep freed memory for the next message, rather than give it back; knows nothing else."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

from glintpy import config

_TRIM_THRESHOLD, _MMAP_THRESHOLD = -1, -3
"""Numbers of ``mallopt``'s parameters, from glibc's malloc.h."""


def keep_freed_memory() -> None:
    """Let blocks up to some megabytes come from memory that the process has already.

    By default glibc maps blocks of more than 128 KiB from the system, or trims its heap after each, and then every
    part of a large pull or push, in libzmq and in numpy, is faulted in page by page: that takes as long as sending it.
    Elsewhere than on glibc this does nothing.
    """
    mallopt = _glibc("mallopt")
    if mallopt is not None:
        mallopt(_MMAP_THRESHOLD, config.MAPPED_BYTES_MIN)
        mallopt(_TRIM_THRESHOLD, config.KEPT_FREE_BYTES)


def give_back_memory() -> None:
    """Give what is free now back to the system, once."""
    trim = _glibc("malloc_trim")
    if trim is not None:
        trim(0)


def _glibc(name: str) -> Callable[..., int] | None:
    return getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
