"""Which rounds of which keys this worker takes part in; pure.

In a store whose workers push in rounds, each key has rounds of its own, counted by each worker: its *n*-th push of the
key belongs to round *n*, which ends when all workers have made theirs. A worker is in one round of a key at a time.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from glintpy import Future
from glintpy.kvstore.forms import Key


@dataclass(slots=True, eq=False)
class Rounds:
    """A worker's rounds.

    Attributes:
        num_pushes: by key, how often this worker has pushed to it.
        open: keys whose last round this worker has not seen end.
        pushes: by key, the request of the last push.
    """

    num_pushes: dict[Key, int] = field(default_factory=dict)
    open: set[Key] = field(default_factory=set)
    pushes: dict[Key, Future[Any]] = field(default_factory=dict)

    def begin(self, keys: Iterable[Key]) -> dict[Key, int]:
        """Take part in the next round of some keys, none of which is open, and return its number for each."""
        found: dict[Key, int] = {}
        for key in keys:
            assert key not in self.open, "one round of a key at a time"
            found[key] = self.num_pushes.get(key, 0)
            self.num_pushes[key] = found[key] + 1
            self.open.add(key)
            self.pushes.pop(key, None)
        return found

    def tags(self, keys: Iterable[Key]) -> dict[Key, int]:
        """Return the number of the open round of those keys that are in one."""
        return {key: self.num_pushes[key] - 1 for key in keys if key in self.open}

    def end(self, keys: Iterable[Key]) -> None:
        """Note that the rounds of some keys have ended."""
        self.open.difference_update(keys)

    def forget(self, keys: Iterable[Key]) -> None:
        """Drop some keys, which have ended: new ones of these names begin with their first round."""
        for key in keys:
            self.open.discard(key)
            self.num_pushes.pop(key, None)
            self.pushes.pop(key, None)

    def take_back(self, keys: Iterable[Key]) -> None:
        """Leave the open rounds of some keys: nothing of what this worker pushed is in."""
        for key in keys:
            self.open.remove(key)
            self.num_pushes[key] -= 1
            self.pushes.pop(key, None)
