"""Integers as users have them: NumPy's count as the numbers they are, True and False as none; pure."""

from __future__ import annotations

import operator
from typing import Any

from glintpy import ConfigError


def integer_of(value: Any) -> int | None:
    """Return Python's own integer for one of any kind; None: it is none."""
    if isinstance(value, bool):
        return None
    try:
        return operator.index(value)
    except TypeError:
        return None


def check_number(name: str, number: Any) -> int:
    """Return a number from 0.

    Raises:
        ConfigError: it is none.
    """
    found = integer_of(number)
    if found is None or found < 0:
        raise ConfigError(f"{name} is an integer of at least 0, not {number!r:.80}")
    return found
