"""Numbers as users have them: NumPy's scalars count as the numbers they are; knows no model and no message."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

import numpy as np

__all__ = ["make_plain", "plain"]


def plain(value: Any) -> Any:
    """Return Python's own number for one of NumPy's, also inside of a tuple; all else as it is.

    A float32 keeps its value, and so its digits: ``plain(np.float32(0.1))`` is 0.10000000149011612.

    Args:
        value: anything.
    """
    if isinstance(value, np.generic):
        return value.item()
    return tuple(map(plain, value)) if type(value) is tuple else value


def make_plain(instance: Any) -> None:
    """Make the fields of a dataclass that is being made, a frozen one too, plain: they travel as they are.

    Args:
        instance: of a dataclass, in its ``__post_init__``.
    """
    for entry in fields(instance):
        value = getattr(instance, entry.name)
        if isinstance(value, np.generic | tuple):
            object.__setattr__(instance, entry.name, plain(value))
