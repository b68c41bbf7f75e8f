"""Evictions as users ask for them, and as requests see them; knows no future and no server's inside."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy.errors import ConfigError
from glintpy.models.indexing import Asked, Keys
from glintpy.models.table_requests import TableTarget
from glintpy.partitioning import Share
from glintpy.partitioning.keyed import NUM_PARTITIONS
from glintpy.protocol.messages_tables import EVICT
from glintpy.protocol.selection import Selection
from glintpy.scalars import plain
from glintpy.storage.use import AGE, USE, Criteria

_BY = {"age": AGE, "use": USE}
_OLDEST_S = 1e9
"""Seconds: thirty years."""


class EvictingTarget(TableTarget):
    """A table as an eviction sees it: it goes to every server, with the criteria of each in place of keys."""

    def __init__(self, target: TableTarget, criteria: Criteria) -> None:
        """Ask a table.

        Args:
            target: the table.
            criteria: for all servers together.
        """
        super().__init__(
            target.info,
            target.layout,
            target.timeout_s,
            updater=target.updater,
            is_hasty=target.is_hasty,
            action=EVICT,
        )
        self._criteria = criteria

    def locate(self, rows: Keys) -> list[Share]:
        """Return the criteria of each server."""
        partitions = np.bincount(self.info.owners_array(), minlength=len(self.info.servers)).tolist()
        return [
            Share(server, self._of(num_partitions).bits(), slice(0, len(rows), 1))
            for server, num_partitions in enumerate(partitions)
        ]

    def _of(self, num_partitions: int) -> Criteria:
        found = self._criteria
        if found.rows_max < 0:
            return found
        return found._replace(rows_max=found.rows_max * num_partitions // NUM_PARTITIONS)

    def keys_of(self, selection: Selection) -> NDArray[Any]:
        """Return the criteria, which travel as they are."""
        return selection.rows


def eviction(
    target: TableTarget,
    *,
    max_rows: int | None,
    older_than: float | None,
    fewer_than: int | None,
    by: str,
) -> tuple[Asked, TableTarget]:
    """Return what asks for an eviction; see ``BigTable.evict``.

    Args:
        target: the table.
        max_rows: as of ``evict``.
        older_than: as of ``evict``.
        fewer_than: as of ``evict``.
        by: as of ``evict``.

    Raises:
        ConfigError: the table doesn't track its rows; nothing is asked for, or what can't be.
    """
    if not target.info.spec.track:
        raise ConfigError(
            f"table {target.info.spec.name!r} doesn't know when its rows were used: make it with track=True"
        )
    if max_rows is None and older_than is None and fewer_than is None:
        raise ConfigError("say what is to go: max_rows, older_than or fewer_than")
    if by not in _BY:
        raise ConfigError(f'by is "age" or "use", not {by!r:.80}')
    criteria = Criteria(
        rows_max=-1 if max_rows is None else _count("max_rows", max_rows),
        older_us=-1 if older_than is None else _microseconds(older_than),
        touches_min=0 if fewer_than is None else _count("fewer_than", fewer_than),
        by=_BY[by],
    )
    places = np.zeros(len(criteria), np.int64)
    shape = (len(criteria),)
    return Asked(places, None, False, shape, shape), EvictingTarget(target, criteria)


def _count(what: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or not 0 <= value < 2**62:
        raise ConfigError(f"{what} is an integer of at least 0, not {value!r:.80}")
    return int(value)


def _microseconds(value: Any) -> int:
    value = plain(value)
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= _OLDEST_S:
        raise ConfigError(f"older_than is 0 to {_OLDEST_S:.0e} seconds, not {value!r:.80}")
    microseconds: int = math.ceil(float(value) * 1e6)
    return microseconds
