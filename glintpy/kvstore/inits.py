"""Which initialisations of which keys this worker has made, so that its next call is matched with rank 0's; pure.

All workers initialise and delete the same keys in the same order, some of them earlier. A worker's *n*-th ``init`` of a
key is done when the directory has *n* of them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from glintpy.kvstore.directory import Directory
from glintpy.kvstore.forms import Key


class Inits:
    """A worker's initialisations.

    Args:
        directory: followed by others.
        comes_late: the worker counts as having made what was made before it came; its own first ``init`` of a key that
            it finds is the last one of these.
    """

    def __init__(self, directory: Directory, *, comes_late: bool) -> None:
        self._directory = directory
        self._made: dict[Key, int] = dict(directory.versions) if comes_late else {}
        self._ended: dict[Key, int] = {}
        self._found: set[Key] = set(directory.places) if comes_late else set()

    def wanted(self, keys: Iterable[Key]) -> dict[Key, int]:
        """Return for each key the number of this worker's next initialisation."""
        return {key: self._made.get(key, 0) + (key not in self._found) for key in keys}

    def missing(self, wanted: Mapping[Key, int]) -> list[Key]:
        """Return the keys that nobody has initialised so often yet."""
        return [key for key, number in wanted.items() if self._directory.versions.get(key, 0) < number]

    def is_behind(self, key: Key, number: int) -> bool:
        """Whether a key has been initialised more often than so many times."""
        return self._directory.versions.get(key, 0) > number

    def note(self, wanted: Mapping[Key, int]) -> None:
        """Note that initialisations have been made."""
        self._made |= wanted
        self._found.difference_update(wanted)

    def left_of(self, keys: Iterable[Key]) -> list[Key]:
        """Return the keys that nobody has deleted since this worker initialised them."""
        ended = self._directory.ended
        return [key for key in keys if not 0 < self._made.get(key, 0) <= ended.get(key, 0)]

    def has_deleted(self, key: Key) -> bool:
        """Whether this worker has deleted a key, and not initialised it since."""
        return self._ended.get(key) == self._made.get(key, 0)

    def note_deleted(self, keys: Iterable[Key]) -> None:
        """Note that this worker has deleted keys, so that its next ``init`` of them makes them anew."""
        for key in keys:
            self._found.discard(key)
            self._ended[key] = self._made.get(key, 0)
