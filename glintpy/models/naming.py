"""The names of models that nobody gave a name; knows no model, and loads nothing."""

from __future__ import annotations

import os
import re

KINDS = ("matrix", "table", "vector")
"""Of models, as names and people call them."""

_GENERATED = re.compile(rf"(?:{'|'.join(KINDS)})-[0-9a-f]{{12}}")


def generated_name(kind: str) -> str:
    """Return a name for a model that was given none.

    Args:
        kind: of the model, one of ``KINDS``: else ``is_generated`` would not know its name again.
    """
    assert kind in KINDS, kind
    return f"{kind}-{os.urandom(6).hex()}"


def is_generated(name: str) -> bool:
    """Tell whether ``generated_name`` made a name, or somebody one that looks like it."""
    return _GENERATED.fullmatch(name) is not None
