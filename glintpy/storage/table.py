"""The part of a table on one server: rows that come into being when their key is first pushed; no thread or clock.

A shard whose arrays are a heap that grows (``storage.heap``), with two more of them: ``keys``, the key of each row, and
``used``, 1 where a row has one. Where keys are texts, ``keys`` has 64 bits that stand for one, and a third array,
``texts``, the text itself. These say it all: the index (``storage.index``) and the list of free rows lie in
memory, and are made of them when they are first asked for. What a push changes of a row, its key and mark too, is under
the undo record as the values of a matrix are; the index follows when all is done.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from glintpy import failpoints
from glintpy.errors import ConfigError, DTypeError, NotEnoughMemory, RemoteProtocolError, ShapeError
from glintpy.partitioning.keyed import hashed
from glintpy.protocol import dtypes
from glintpy.protocol.messages_tables import CREATE, EVICT, REMOVE, UPDATE
from glintpy.protocol.rounds import STEP, Turn
from glintpy.protocol.selection import Selection
from glintpy.protocol.texts import from_frame, to_frame
from glintpy.storage import initialise
from glintpy.storage.admission import Admission
from glintpy.storage.arrays import LINK_BYTES, slot_inits
from glintpy.storage.deltas import check_finite
from glintpy.storage.heap import next_rows
from glintpy.storage.index import Index
from glintpy.storage.shard import Shard
from glintpy.storage.table_rows import Asked, FreeRows, Placed, firsts
from glintpy.storage.use import Criteria, chosen, touch

if TYPE_CHECKING:
    from collections.abc import Callable

    from numpy.typing import NDArray

    from glintpy.protocol.spec import ModelSpec
    from glintpy.storage.heap import Heap
    from glintpy.storage.undo import Pending, Undo
    from glintpy.updaters import Updater

ROWS_MAX = 2**31 - 2
"""Rows of one server: the index links them by int32."""

_SCANNED = 65_536
"""Rows that one request looks at, whether they have keys or not."""

_MANY = 65_536
"""Rows: to take fewer out of an index is no work."""


class Scanned(NamedTuple):
    """Some rows of a table.

    Attributes:
        next_row: where the next request should begin; 0: there is no more.
        keys: (k,) of the table's key dtype, or (k, w) of texts as they travel.
        values: (k, num_cols).
    """

    next_row: int
    keys: NDArray[Any]
    values: NDArray[Any]


class TableShard(Shard):
    """The keys of a table that lie on this server, and their rows.

    Attributes:
        heap: where they lie.
        rows_max: how many there may be here.
        check_room: called with the bytes that it is about to grow by; raises ``NotEnoughMemory``.
        has_grown: called when it has.
        admission: counts pushes to keys without a row; None: one is enough.
    """

    def __init__(
        self,
        model_id: int,
        spec: ModelSpec,
        routing: int,
        heap: Heap,
        *,
        updater: Updater | None = None,
        undo: Undo | None = None,
        rows_max: int = ROWS_MAX,
    ) -> None:
        """Put a table over a heap.

        Args:
            model_id: the model's.
            spec: what was asked for.
            routing: its version.
            heap: of the arrays that the spec and the updater have.
            updater: the spec's; None: one of those that come with the package.
            undo: of the server whose files the heap lies in.
            rows_max: how many there may be here.

        Raises:
            ShapeError, DTypeError: a heap that can't be the table's.
        """
        values, *others = heap.arrays()
        super().__init__(model_id, spec, routing, values, slots=others, updater=updater, undo=undo)
        self.heap = heap
        self.rows_max = rows_max
        self.check_room: Callable[[int], None] = lambda _: None
        self.has_grown: Callable[[], None] = lambda: None
        self.admission = Admission(spec.admit_after) if spec.admit_after > 1 else None
        self._found: tuple[Index, FreeRows] | None = None

    # --- what it is ---------------------------------------------------------------------------------------------

    @property
    def num_keys(self) -> int:
        """Keys that have a row here."""
        return int(np.count_nonzero(self._used)) if self._found is None else self._found[0].num_keys

    @property
    def num_bytes(self) -> int:
        """Bytes of the heap, and about what the index takes."""
        counts = 0 if self.admission is None else self.admission.num_bytes
        return self.heap.num_bytes + LINK_BYTES * self.heap.num_rows + counts

    @property
    def _keys(self) -> NDArray[np.int64]:
        return self.arrays[-2]

    @property
    def _used(self) -> NDArray[np.uint8]:
        return self.arrays[-1]

    @property
    def _texts(self) -> NDArray[np.bytes_] | None:
        return self.arrays[-3] if self.spec.has_texts else None

    def _index(self) -> Index:
        return self._known()[0]

    def _known(self) -> tuple[Index, FreeRows]:
        """Return index and free rows, made of ``keys`` and ``used`` if they aren't there."""
        if self._found is None:
            rows = np.flatnonzero(self._used)
            top = int(rows[-1]) + 1 if rows.size else 0
            index = Index(self._keys, rows, self._texts)
            self._found = index, FreeRows(np.flatnonzero(self._used[:top] == 0)[::-1], top)
        return self._found

    # --- reading ------------------------------------------------------------------------------------------------

    def pull_keys(self, keys: NDArray[Any], *, array: int = 0, bytes_max: int | None = None) -> NDArray[Any]:
        """Copy the rows of some keys; unknown ones have what they would begin with.

        Args:
            keys: (n,) of the table's key dtype, or (n, w) of texts as they travel, in any order; repeats are allowed.
            array: which of the arrays that a matrix would have, too.
            bytes_max: refuse to read more; None: anything.

        Returns:
            (n, ...) a new array; a later push doesn't change it.

        Raises:
            DTypeError, ShapeError: keys that can't be this table's, or no such array.
            RemoteProtocolError: more than ``bytes_max``.
        """
        asked = self._checked(keys, array)
        stored = self.arrays[array]
        num_bytes = asked.size * self.heap.kinds[array].row_bytes
        if bytes_max is not None and num_bytes > bytes_max:
            raise RemoteProtocolError(f"a part asks for {num_bytes} bytes, more than {bytes_max}")
        rows = self._index().find(asked.bits, asked.texts)
        unknown = np.flatnonzero(rows < 0)
        if not unknown.size:
            return self._gather(stored, Selection(rows.astype(np.uint32)), None)
        found = np.empty((asked.size, *stored.shape[1:]), stored.dtype)
        known = np.flatnonzero(rows >= 0)
        found[known] = stored[rows[known]]
        found[unknown] = self._first_values(array, asked.bits[unknown])
        return found

    def contains(self, keys: NDArray[Any]) -> NDArray[np.bool_]:
        """Tell which keys have a row, (n,).

        Raises:
            DTypeError, ShapeError: keys that can't be this table's.
        """
        asked = self._checked(keys)
        found: NDArray[np.bool_] = self._index().find(asked.bits, asked.texts) >= 0
        return found

    def scan(self, first_row: int, *, bytes_max: int) -> Scanned:
        """Copy some rows that have keys, in the order in which they lie.

        Args:
            first_row: the first one that is looked at.
            bytes_max: of keys and values; one row is read in any case.
        """
        stop = min(self.top, first_row + _SCANNED)
        rows = self.rows_between(first_row, stop)
        key_bytes = 8 if self._texts is None else self._texts.itemsize
        rows_max = max(1, bytes_max // (key_bytes + self.heap.kinds[0].row_bytes))
        if rows.size > rows_max:
            rows = rows[:rows_max]
            stop = int(rows[-1]) + 1
        return Scanned(stop if stop < self.top else 0, self.keys_at(rows), self.values[rows])

    @property
    def top(self) -> int:
        """The row behind the last one that has a key."""
        return self._known()[1].top

    def rows_between(self, first: int, stop: int) -> NDArray[np.int64]:
        """Return those of [first, stop) that have a key."""
        found: NDArray[np.int64] = first + np.flatnonzero(self._used[first:stop])
        return found

    def keys_at(self, rows: NDArray[np.int64]) -> NDArray[Any]:
        """Return the keys of some rows, as they travel."""
        texts = self._texts
        if texts is not None:
            return to_frame(texts[rows])
        return self._keys[rows].view(dtypes.BY_NAME[self.spec.keys])

    def check_pull(self, selection: Selection, bytes_max: int | None, *, array: int = 0) -> tuple[int, ...]:
        """Refuse to be read by row; see ``pull_keys``."""
        del selection, bytes_max, array
        raise self._has_no_rows()

    def check_push(
        self,
        selection: Selection,
        deltas: NDArray[Any],
        *,
        assign: bool,
        array: int = 0,
        turn: Turn = STEP,
    ) -> tuple[int, ...]:
        """Refuse to be pushed to by row; see ``push_keys``."""
        del selection, deltas, assign, array, turn
        raise self._has_no_rows()

    def _has_no_rows(self) -> ShapeError:
        return ShapeError(f"model {self.spec.name!r} is a table: what it has is asked for by key")

    # --- changing -----------------------------------------------------------------------------------------------

    def check_keys(
        self, keys: NDArray[Any], values: NDArray[Any] | None, *, action: int, array: int = 0
    ) -> Asked:
        """Refuse what could not be applied, but for want of room; return the keys.

        Args:
            keys: as of ``push_keys``.
            values: as of ``push_keys``.
            action: as of ``push_keys``.
            array: as of ``push_keys``.

        Raises:
            ShapeError, DTypeError: it would be refused.
        """
        if action == EVICT:
            return self._checked_eviction(keys, values, array)
        found = self._checked(keys, array)
        if action in {CREATE, REMOVE}:
            if values is not None or array:
                raise ShapeError("to create or remove keys takes no values, and is done to all arrays")
            return found
        if values is None:
            raise ShapeError("a push to keys has values")
        self._check_fits(values, (found.size, *self.arrays[array].shape[1:]), array)
        if array and action == UPDATE:
            raise ShapeError(
                "only the values can be pushed to; what an updater keeps beside them can be assigned"
            )
        if self._checks_finite and action == UPDATE:
            check_finite(values, self.spec.name)
        return found

    def push_keys(
        self,
        keys: NDArray[Any],
        values: NDArray[Any] | None,
        *,
        action: int = UPDATE,
        array: int = 0,
        now: float = 0.0,
    ) -> None:
        """Do something to the rows of some keys; all of it or, by an exception, nothing.

        Args:
            keys: as of ``pull_keys``; repeats all count.
            values: (n, num_cols) of the table's dtype for ``UPDATE``, (n, ...) of the array's for ``ASSIGN``; else
                None.
            action: ``UPDATE`` by the updater, ``ASSIGN`` the values as they are, ``CREATE`` rows for keys that have
                none, ``REMOVE`` keys, or ``EVICT`` them by the criteria that come in their place. The first three give
                each key a row.
            array: which of the arrays, for ``ASSIGN``.
            now: seconds since 1970.

        Raises:
            ShapeError, DTypeError: see ``check_keys``.
            NotEnoughMemory: no room for new rows, or for the undo record.
            MemoryError: no room for a moment's copy of what this would change.
        """
        asked = self.check_keys(keys, values, action=action, array=array)
        if action == REMOVE:
            found = self._index().find(asked.bits, asked.texts)
            self._remove(np.unique(found[found >= 0]))
            return
        if action == EVICT:
            self._remove(self._to_evict(Criteria.of(asked.bits), now))
            return
        placed = self._place(asked)
        touches = self.spec.track and action in {UPDATE, CREATE}
        selection = Selection(
            (placed.new_rows if values is None and not touches else placed.rows).astype(np.uint32)
        )
        if not selection.rows.size:
            return
        changes = self._changes(action, array, has_new=bool(placed.new_rows.size))
        if placed.all_new:
            # Moments keep what lay there; to undo it, it is enough that they have no key again.
            self._tell_cuts(selection, changes)
            changes = changes[-1:]
        self._remember(selection, (selection.rows.size, *self.spec.row_shape), changes)
        if placed.new_rows.size:
            self._begin(placed, now)
        if touches:
            touch(selection.rows, *self._uses(), now)
        if values is None:
            failpoints.hit("push.applied")
        else:
            self._apply(selection, values, assign_to=None if action == UPDATE else array)
        if placed.new_rows.size:
            index, free = self._known()
            free.take(placed.new_rows.size)
            index.add(placed.new_rows)

    def admit(self, keys: NDArray[Any]) -> NDArray[np.bool_]:
        """Count a push to keys that have no row, and return (n,) which of all are to be pushed to.

        Args:
            keys: as of ``pull_keys``.

        Raises:
            ShapeError, DTypeError: see ``check_keys``.
        """
        asked = self._checked(keys)
        found: NDArray[np.bool_] = self._index().find(asked.bits, asked.texts) >= 0
        unknown = np.flatnonzero(~found)
        if self.admission is not None and unknown.size:
            each, origin = firsts(asked.at(unknown))
            found[unknown] = self.admission.count(each.bits)[origin]
        return found

    def put_back(self, pending: Pending) -> None:
        """Undo a push that was under way; again does no harm. See ``Shard.put_back``."""
        super().put_back(pending)
        self._found = None  # it may have known of the push, and it is made anew

    def _place(self, keys: Asked) -> Placed:
        """Find a row for each key, a free one where it has none; nothing is changed but the room that there is."""
        rows = self._index().find(keys.bits, keys.texts)
        unknown = np.flatnonzero(rows < 0)
        if not unknown.size:
            return Placed(rows, keys.at(unknown), rows[:0])
        new_keys, origin = firsts(keys.at(unknown))
        self._make_room(new_keys.size)
        new_rows = self._known()[1].peek(new_keys.size)
        rows[unknown] = new_rows[origin]
        return Placed(rows, new_keys, new_rows, all_new=unknown.size == rows.size)

    def _changes(self, action: int, array: int, *, has_new: bool) -> range:
        """Return the arrays that a push changes."""
        if has_new:
            return range(len(self.arrays))
        if action == UPDATE:
            return range(len(self._kept))
        return range(array, array + 1) if action != CREATE else range(len(self._kept) - 2, len(self._kept))

    def _begin(self, placed: Placed, now: float) -> None:
        """Give new rows their keys, and what they begin with."""
        rows, keys = placed.new_rows, placed.new_keys
        for number, stored in enumerate(self._kept):
            stored[rows] = self._first_values(number, keys.bits)
        if self.spec.track:
            self._uses()[1][rows] = now
        texts = self._texts
        if texts is not None:
            texts[rows] = keys.texts
        self._keys[rows] = keys.bits
        self._used[rows] = 1
        failpoints.hit("table.begun")

    def _to_evict(self, criteria: Criteria, now: float) -> NDArray[np.int64]:
        touches, touched = self._uses()
        ties = self._keys, self._texts
        rows = np.flatnonzero(self._used)
        return np.sort(chosen(criteria, rows, touches=touches, touched=touched, ties=ties, now=now))

    def _remove(self, rows: NDArray[np.int64]) -> None:
        if not rows.size:
            return
        last = len(self.arrays) - 1
        selection = Selection(rows.astype(np.uint32))
        self._remember(selection, (rows.size, *self.spec.row_shape), range(last, last + 1))
        self._used[rows] = 0
        failpoints.hit("push.applied")
        index, free = self._known()
        if rows.size > _MANY and 16 * rows.size > index.num_keys:
            self._found = None  # to make them anew is less work
            return
        index.remove(rows)
        free.give(rows)

    def _make_room(self, num_new: int) -> None:
        index, free = self._known()
        heap, needed = self.heap, free.top + max(0, num_new - free.num_freed)
        if needed <= min(heap.num_rows, self.rows_max):
            return
        try:
            if needed > self.rows_max:
                raise NotEnoughMemory(f"it may have {self.rows_max} there")  # noqa: TRY301 - told as the others
            try:
                self._grow(max(needed, min(self.rows_max, next_rows(heap.num_rows, needed, heap.row_bytes))))
            except NotEnoughMemory:
                self._grow(needed)  # room for just these, perhaps
        except NotEnoughMemory as error:
            raise NotEnoughMemory(
                f"table {self.spec.name!r} has {index.num_keys} keys on this server, and no room for {num_new} more: "
                f"{error}"
            ) from error

    def _grow(self, num_rows: int) -> None:
        heap = self.heap
        self.check_room((num_rows - heap.num_rows) * (heap.row_bytes + LINK_BYTES))
        heap.grow(num_rows)
        values, *others = heap.arrays()
        self._bind(values, others)
        self._index().moved(self._keys, self._texts)
        self.has_grown()
        failpoints.hit("table.grown")

    # --- inside -------------------------------------------------------------------------------------------------

    def _first_values(self, array: int, keys: NDArray[np.int64]) -> Any:
        """Return what rows of some keys begin with, in one of the arrays: one number for all cells, or an array."""
        if array:
            return [*slot_inits(self.updater), 0, 0.0][array - 1]
        if isinstance(self.spec.init, tuple):
            return initialise.random_rows_by_key(self.spec, keys)
        return self.values.dtype.type(self.spec.init)

    def _uses(self) -> tuple[NDArray[np.uint32], NDArray[np.float64]]:
        """Return how often, and when, each row was touched."""
        return self._kept[-2], self._kept[-1]

    def _checked_eviction(self, keys: NDArray[Any], values: NDArray[Any] | None, array: int) -> Asked:
        if not self.spec.track:
            raise ConfigError(
                f"table {self.spec.name!r} doesn't know when its rows were used: make it with track=True"
            )
        if values is not None or array:
            raise ShapeError("to evict keys takes no values, and is done to all arrays")
        Criteria.of(keys)
        return Asked(keys, None)

    def _checked(self, keys: NDArray[Any], array: int = 0) -> Asked:
        """Return keys that can be this table's."""
        if array >= len(self._kept):
            raise ShapeError(f"table {self.spec.name!r} has {len(self._kept)} arrays, and no number {array}")
        if self.spec.has_texts:
            texts = from_frame(keys, self.spec.keys)
            return Asked(hashed(texts), texts)
        if keys.ndim != 1:
            raise ShapeError(f"keys are (n,), not {keys.shape}")
        if keys.dtype != dtypes.BY_NAME[self.spec.keys]:
            raise DTypeError(
                f"keys of {keys.dtype.name} for table {self.spec.name!r}, whose are {self.spec.keys}"
            )
        return Asked(keys.view(np.int64), None)

    def _tell_cuts(self, selection: Selection, changes: range) -> None:
        for cut in self.cuts.values():
            # Rows that weren't there at that moment are none of its business.
            there = selection.rows[selection.rows < cut.num_rows]
            if there.size:
                cut.before_push(Selection(there), changes)
