"""How a function's selection is cut over servers: rows, arguments, places; knows no message and no socket."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from glintpy import config
from glintpy.functions.base import Array, Ask, Asking, Function, Positions, Selected
from glintpy.models.indexing import Keys
from glintpy.partitioning import Layout, Share
from glintpy.protocol.parts import Part, cut
from glintpy.protocol.selection import axis_indices, is_slices

if TYPE_CHECKING:
    from glintpy.models.dispatch import Target

_CELL_BYTES = 8
"""Of one answer a row: a part has at most as many rows as there is room for in as many bytes."""


class AnyCutting(Asking, Protocol):
    """What a call needs beside what a function does.

    Attributes:
        servers: (id, address) of all servers; asks count in them.
    """

    servers: list[tuple[str, str]]

    def cells(self) -> list[tuple[int, Part]]:
        """Return (server, part) of a selection for a function that works cell by cell."""
        ...

    def arrays_at(self, positions: Positions) -> tuple[Array, ...]:
        """Return the arguments that go along with some rows."""
        ...


class Cutting:
    """What ``functions.Asking`` promises, over one or two models.

    Args:
        function: whose arguments they are.
        target: the model.
        keys: the selected rows.
        selected: the same for the function.
        arrays: the arguments, as the function prepared them.
        other: the second model; None: rows of a second one are rows of the first.

    Attributes:
        servers: (id, address) of all servers of both models; asks count in them.
    """

    def __init__(
        self,
        function: Function,
        target: Target,
        keys: Keys,
        selected: Selected,
        arrays: tuple[Array, ...],
        *,
        other: Target | None = None,
    ) -> None:
        self.selected = selected
        self.arrays = arrays
        self._function = function
        self._target = target
        self._other = other or target
        self._keys = keys
        self.servers = list(target.info.servers)
        known = [server_id for server_id, _ in self.servers]
        self.servers += [server for server in self._other.info.servers if server[0] not in known]
        known = [server_id for server_id, _ in self.servers]
        self._numbers = np.array(
            [known.index(server_id) for server_id, _ in self._other.info.servers], np.int64
        )

    @property
    def rows_max(self) -> int:
        """See ``Asking``."""
        row_bytes = max(self._target.row_bytes, self._other.row_bytes, _CELL_BYTES)
        return max(1, config.PART_BYTES // row_bytes)

    def keys(self, positions: Positions | None = None) -> NDArray[np.int64]:
        """See ``Asking``."""
        if positions is None:
            positions = slice(0, len(self._keys), 1)
        if not isinstance(self._keys, range):
            return self._keys[positions]
        if isinstance(positions, slice):
            found = self._keys[positions]
            return np.arange(found.start, found.stop, found.step, dtype=np.int64)
        return self._keys.start + np.asarray(positions, np.int64) * self._keys.step

    def places(
        self, keys: NDArray[np.int64], *, of_other: bool = False
    ) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """See ``Asking``."""
        layout = (self._other if of_other else self._target).layout
        servers, rows = np.empty(len(keys), np.int64), np.empty(len(keys), np.int64)
        for share in layout.locate(keys):
            servers[share.positions] = self._numbers[share.server] if of_other else share.server
            rows[share.positions] = share.rows
        return servers, rows

    def asks(self, *, in_order: bool = False) -> list[Ask]:
        """See ``Asking``."""
        item_bytes = max(self._target.row_bytes, _CELL_BYTES)
        found = []
        for share, part in self._parts(in_order=in_order, num_cols=None, item_bytes=item_bytes):
            found.append(Ask(share.server, part.selection.rows, part.rows_at, self.arrays_at(part.rows_at)))
        return found

    def cells(self) -> list[tuple[int, Part]]:
        """Return (server, part) of a selection for a function that works cell by cell: wide rows are cut, too."""
        target = self._target
        if target.num_cols == 0:
            return []
        parts = self._parts(num_cols=target.num_cols, item_bytes=target.dtype.itemsize)
        return [(share.server, part) for share, part in parts]

    def arrays_at(self, positions: Positions) -> tuple[Array, ...]:
        """Return the arguments that go along with some rows."""
        function = self._function
        return tuple(
            np.ascontiguousarray(array[positions]) if name in function.by_row else array
            for name, array in zip(function.takes, self.arrays, strict=True)
        )

    def _parts(
        self, *, num_cols: int | None, item_bytes: int, in_order: bool = False
    ) -> Iterator[tuple[Share, Part]]:
        for share in _shares(self._target.layout, self._keys):
            for rows, positions in _in_order(share) if in_order else [(share.rows, share.positions)]:
                for part in cut(
                    rows, positions, cols=None, paired=False, num_cols=num_cols, item_bytes=item_bytes
                ):
                    yield share, part


def _shares(layout: Layout, keys: Keys) -> list[Share]:
    if not isinstance(keys, range):
        return layout.locate(keys)
    return layout.locate_slice(keys[0], keys[-1] + 1, keys.step) if keys else []


def _in_order(share: Share) -> Iterator[tuple[NDArray[Any], Positions]]:
    """Cut a share where its rows don't stand in the caller's order; what stands in none is put in order."""
    positions = share.positions
    if isinstance(positions, slice) or _rises(positions):
        yield share.rows, positions
        return
    if is_slices(share.rows):
        first = 0
        for triple in share.rows.tolist():
            stop = first + len(range(*triple))
            yield from _sorted(np.array([triple], np.int64), positions[first:stop])
            first = stop
    else:
        yield from _sorted(share.rows, positions)


def _sorted(rows: NDArray[Any], positions: NDArray[np.int64]) -> Iterator[tuple[NDArray[Any], Positions]]:
    if not _rises(positions):
        order = np.argsort(positions, kind="stable")
        rows, positions = axis_indices(rows)[order], positions[order]
        if not len(rows) or int(rows.max()) < 2**32:
            rows = rows.astype(np.uint32)
    yield rows, positions


def _rises(positions: NDArray[np.int64]) -> bool:
    return bool((positions[1:] > positions[:-1]).all())
