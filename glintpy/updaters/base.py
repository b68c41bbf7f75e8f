"""What every updater has: a name and a way to combine repeated keys; knows no storage and no message."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from numpy.typing import NDArray


class Updater(ABC):
    """The rule by which a server applies a push."""

    name: ClassVar[str]
    """By which it travels: names and numbers cross the wire, never code."""

    joins: ClassVar[bool] = False
    """Whether pushes that are applied as one, in their order, leave bit for bit what they leave one after the other;
    only then may small ones travel together."""

    @abstractmethod
    def combine(self, keys: NDArray[Any], values: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """Make one update of all updates to the same key.

        Applying the result leaves what applying the arguments would have left, up to the rounding of
        floats.

        Args:
            keys: (n,) integers in any order; repeats are what this is for.
            values: (n, ...) the update of each key, of the model's dtype.

        Returns:
            (k,) keys, rising and without repeats, and the (k, ...) update of each, of the same dtypes.
            Both are new and the caller's to change.
        """
