"""What is measured, as plain data that travels to client processes as JSON; knows no system and no clock.

Client processes of some peers run under Python 3.8 and an old numpy, so this module and the others that they
import (``draws``, ``store``, ``loops``, ``client``) use nothing newer.
"""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any

VALUE_BYTES = {"float32": 4, "int64": 8}
INDEX_BYTES = 4
SELECTION_BYTES = 24
"""What names a slice or a whole model: start, stop and step."""


@dataclass(frozen=True)
class Model:
    """A matrix or vector that all systems hold.

    Attributes:
        name: the same in all systems.
        rows: rows, or the size of a vector.
        cols: columns; 0 for a vector.
        dtype: ``"float32"`` or ``"int64"``.
    """

    name: str
    rows: int
    cols: int
    dtype: str

    @property
    def row_bytes(self) -> int:
        """Bytes of a row's values."""
        return max(1, self.cols) * VALUE_BYTES[self.dtype]


@dataclass(frozen=True)
class Step:
    """One kind of request, made again and again.

    Attributes:
        verb: ``"pull"``, ``"push"``, ``"push_pull"`` or ``"iterate"``.
        what: ``"rows"`` (distinct random rows), ``"slice"`` (the middle half), ``"all"``, ``"keys"`` (of a vector,
            Zipf-distributed with repeats), ``"elements"`` (of a matrix), ``"blocks"`` or ``"columns"``.
        model: of which model.
        num: rows, keys or elements a request.
        window: requests in flight; 1 waits for each.
        into: pulls go into an array that the caller has ready.
        num_models: requests go round over so many models like ``model``.
        pool: different requests to go round over; 0: as many as it takes that none is in a cache.
        label: how it is called in tables.
    """

    verb: str
    what: str
    model: Model
    num: int
    window: int = 1
    into: bool = False
    num_models: int = 1
    pool: int = 0
    label: str = ""

    @property
    def value_bytes(self) -> int:
        """Bytes of values that a request carries in one direction."""
        if self.what in ("keys", "elements"):
            return self.num * VALUE_BYTES[self.model.dtype]
        return self.num * self.model.row_bytes

    @property
    def selection_bytes(self) -> int:
        """Bytes that say what is touched."""
        if self.what == "elements":
            return 2 * self.num * INDEX_BYTES
        return self.num * INDEX_BYTES if self.what in ("rows", "keys") else SELECTION_BYTES

    @property
    def request_bytes(self) -> int:
        """Bytes from client to servers."""
        pushes = self.verb in ("push", "push_pull")
        return self.selection_bytes + (self.value_bytes if pushes else 0)

    @property
    def answer_bytes(self) -> int:
        """Bytes from servers to client, beside the acknowledgement itself."""
        return 0 if self.verb == "push" else self.value_bytes

    def as_json(self) -> dict[str, Any]:
        """Return it as JSON can say it."""
        return asdict(self)


def step_from(content: dict[str, Any]) -> Step:
    """Return the step that ``as_json`` gave.

    Args:
        content: a step as JSON says it.
    """
    return Step(**{**content, "model": Model(**content["model"])})
