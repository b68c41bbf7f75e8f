"""Runs functions over a shard's values, and trusts neither their arguments nor what they return; knows no message."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from glintpy import config
from glintpy.errors import ConfigError, RemoteFailure, ShapeError
from glintpy.functions.base import (
    ARRAYS_MAX,
    Answer,
    Changing,
    Choosing,
    Function,
    Piece,
    Reading,
    Selected,
)
from glintpy.protocol import dtypes
from glintpy.protocol.selection import Selection, is_slices

if TYPE_CHECKING:
    from collections.abc import Callable

    from glintpy.functions.base import Array
    from glintpy.storage.shard import Shard
    from glintpy.storage.table import TableShard

_ROWS_MAX = config.FRAME_BYTES_MAX // 8
"""Rows without columns have no bytes by which they could be limited."""


def read(
    function: Reading,
    shard: Shard,
    selection: Selection,
    arrays: tuple[Array, ...],
    other: tuple[Shard, Selection] | None = None,
) -> Answer:
    """Run a reading function on some whole rows.

    Args:
        function: which.
        shard: of the model.
        selection: server rows; more than a frame's bytes only if it is one row, or if the function chooses.
        arrays: the arguments for them.
        other: the second model and as many rows of it; of a function that chooses, any run of them.

    Returns:
        Arrays that no later push changes.

    Raises:
        GlintError: what doesn't fit, or what the function says.
        RemoteFailure: it returned something that isn't an answer.
    """
    others = None
    if isinstance(function, Choosing):
        selection, arrays = _chosen(function, shard, selection, arrays, other)
        values = _rows_of(shard, selection)
        return _answer(function, shard, selection, Piece(values, arrays), other)
    values = _rows_of(shard, selection)
    if other is not None:
        others = _rows_of(*other)
        if others.shape != values.shape:
            raise ShapeError(f"other rows of shape {others.shape} for rows of shape {values.shape}")
    _check(function, _selected(shard, selection, len(values)), arrays)
    return _answer(function, shard, selection, Piece(values, arrays, others), other)


def _answer(
    function: Reading, shard: Shard, selection: Selection, piece: Piece, other: tuple[Shard, Selection] | None
) -> Answer:
    def slot(name: str) -> Array:
        if name not in shard.updater.slot_names:
            raise ConfigError(f"updater {shard.updater.name!r} keeps no slot {name!r:.80}")
        return shard.pull(selection, array=1 + shard.updater.slot_names.index(name))

    piece.slot = slot
    answer = _run(lambda: function.read(piece))
    return _checked(function, answer, [*shard.arrays, *(other[0].arrays if other else ())])


def changed(
    function: Changing,
    shard: Shard,
    selection: Selection,
    arrays: tuple[Array, ...],
    other: tuple[Shard, Selection] | None = None,
) -> tuple[Selection, Array]:
    """Return what a changing function changes, and what is to be stored there or pushed to it; nothing is by now.

    Args:
        function: which.
        shard: of the model.
        selection: server rows, and columns if the function works cell by cell.
        arrays: the arguments for them.
        other: for a function that chooses: a second model, and a run of its rows.

    Raises:
        GlintError: what doesn't fit, or what the function says.
        RemoteFailure: it returned something that can't be these cells.
    """
    if selection.cols is not None and not function.by_cell:
        raise ShapeError(f"function {function.name!r} changes whole rows, not columns")
    if isinstance(function, Choosing):
        selection, arrays = _chosen(function, shard, selection, arrays, other)
    elif other is not None:
        raise ShapeError(f"function {function.name!r} has no use for other rows")
    values = shard.pull(selection, bytes_max=config.FRAME_BYTES_MAX)
    if not isinstance(function, Choosing):
        _check(function, _selected(shard, selection, len(values)), arrays)
    return selection, _new_values(function, values, arrays)


def read_table(
    function: Reading, table: TableShard, selection: Selection, arrays: tuple[Array, ...]
) -> Answer:
    """Run a reading function on those rows of a run that have a key.

    Args:
        function: which.
        table: the table.
        selection: one slice of step 1; what lies behind the last row is passed over.
        arrays: the arguments.

    Returns:
        What the function makes of them, and the keys if it names rows; else, or where none has a key, how many have
        one and the row behind the last one of all, (2,) int64.

    Raises:
        GlintError, RemoteFailure: see ``read``.
    """
    _check_for_tables(function)
    rows = _keyed_rows(table, selection)
    counts = np.array([len(rows), table.top], np.int64)
    if not len(rows):
        return (counts,)
    values = table.values[rows]
    values.flags.writeable = False
    _check(
        function, Selected(len(rows), table.spec.num_cols, table.spec.numpy_dtype, table.spec.finite), arrays
    )
    piece = Piece(values, arrays)

    def slot(name: str) -> Array:
        if name not in table.updater.slot_names:
            raise ConfigError(f"updater {table.updater.name!r} keeps no slot {name!r:.80}")
        found: Array = table.arrays[1 + table.updater.slot_names.index(name)][rows]
        return found

    piece.slot = slot
    answer = _run(lambda: function.read(piece))
    last = table.keys_at(rows) if function.names_rows else counts
    return _checked(function, (*answer, last) if isinstance(answer, tuple) else answer, list(table.arrays))


def changed_table(
    function: Changing, table: TableShard, selection: Selection, arrays: tuple[Array, ...]
) -> tuple[Array, Array]:
    """Return keys of a run of rows, and what is to be stored under them or pushed to them; nothing is by now.

    Args:
        function: which.
        table: the table.
        selection: as of ``read_table``.
        arrays: the arguments.

    Raises:
        GlintError, RemoteFailure: see ``changed``.
    """
    _check_for_tables(function)
    rows = _keyed_rows(table, selection)
    values = table.values[rows]
    if len(rows):
        spec = table.spec
        _check(function, Selected(len(rows), spec.num_cols, spec.numpy_dtype, spec.finite), arrays)
        values = _new_values(function, values, arrays)
    return table.keys_at(rows), values


def _check_for_tables(function: Function) -> None:
    if isinstance(function, Choosing) or function.by_row:
        raise ConfigError(f"function {function.name!r} names rows by number, and a table has keys")


def _keyed_rows(table: TableShard, selection: Selection) -> Array:
    rows = selection.rows
    if selection.cols is not None or not is_slices(rows) or len(rows) != 1 or rows[0, 2] != 1:
        raise ShapeError("a function on a table is asked for with one slice of step 1")
    first, stop = int(rows[0, 0]), min(int(rows[0, 1]), table.top)
    num_bytes = (stop - first) * table.heap.kinds[0].row_bytes
    if first < 0 or num_bytes > config.FRAME_BYTES_MAX:
        raise ShapeError(
            f"a function on {num_bytes} bytes from row {first} on; {config.FRAME_BYTES_MAX} are taken"
        )
    return table.rows_between(first, max(first, stop))


def _new_values(function: Changing, values: Array, arrays: tuple[Array, ...]) -> Array:
    shape, dtype = values.shape, values.dtype
    new = _run(lambda: function.change(values, arrays))
    if not isinstance(new, np.ndarray) or new.shape != shape or new.dtype != dtype:
        found = f"{new.dtype.name} {new.shape}" if isinstance(new, np.ndarray) else type(new).__name__
        raise RemoteFailure(
            f"function {function.name!r} made {found} of {dtype.name} {shape}; it keeps dtype and shape"
        )
    return np.ascontiguousarray(new)


def _chosen(
    function: Choosing,
    shard: Shard,
    selection: Selection,
    arrays: tuple[Array, ...],
    other: tuple[Shard, Selection] | None,
) -> tuple[Selection, tuple[Array, ...]]:
    """Return the rows that a function chooses of a run, and what it gets with them."""
    start, num_rows = _run_of(shard, selection)
    others = None
    if other is not None:
        first, length = _run_of(*other)
        others = other[0].values[first : first + length]
        others.flags.writeable = False
    _check(function, _selected(shard, selection, num_rows), arrays)
    found = _run(lambda: function.choose(num_rows, arrays, others))
    if not (isinstance(found, tuple) and len(found) == 2 and isinstance(found[1], tuple)):
        raise RemoteFailure(f"function {function.name!r} chooses rows and arrays, not {type(found).__name__}")
    places, chosen = found
    if not isinstance(places, np.ndarray) or places.ndim != 1 or places.dtype != np.int64:
        shown = f"{places.dtype} {places.shape}" if isinstance(places, np.ndarray) else type(places).__name__
        raise RemoteFailure(f"function {function.name!r} chooses rows by (n,) int64, not by {shown}")
    if len(places) and not 0 <= int(places.min()) <= int(places.max()) < num_rows:
        raise RemoteFailure(f"function {function.name!r} chose a row outside [0, {num_rows})")
    if isinstance(function, Changing) and not bool((places[1:] > places[:-1]).all()):
        raise RemoteFailure(f"function {function.name!r} changes rows, and chose some that don't rise")
    rows = places + start
    return Selection(rows.astype(np.uint32) if shard.num_rows < 2**32 else rows), chosen


def _run_of(shard: Shard, selection: Selection) -> tuple[int, int]:
    """Return the first and the number of rows that lie one behind another; nothing is copied, however many."""
    rows = selection.rows
    (num_rows, *_) = shard.check_pull(selection, None)
    if selection.cols is not None or not is_slices(rows) or len(rows) != 1 or rows[0, 2] != 1:
        raise ShapeError("a function that chooses its rows is asked for with one slice of step 1")
    return int(rows[0, 0]), num_rows


def _rows_of(shard: Shard, selection: Selection) -> Array:
    """Return whole rows, read-only: those of one piece as they lie there, others as a copy."""
    rows = selection.rows
    num_rows = shard.check_pull(selection, None)[0]
    if num_rows != 1:
        shard.check_pull(selection, config.FRAME_BYTES_MAX)
    if num_rows > _ROWS_MAX:
        raise ShapeError(f"{num_rows} rows are too many for one part; at most {_ROWS_MAX} are taken")
    if is_slices(rows) and len(rows) == 1 and rows[0, 2] == 1:
        start, stop, _ = rows[0].tolist()
        values = shard.values[start:stop]
    else:
        values = shard.pull(selection)
    values.flags.writeable = False
    return values


def _selected(shard: Shard, selection: Selection, num_rows: int) -> Selected:
    spec = shard.spec
    num_cols = spec.num_cols if selection.cols is None else selection.shape(spec.num_cols)[1]
    return Selected(num_rows, num_cols, spec.numpy_dtype, spec.finite)


def _check(function: Function, selected: Selected, arrays: tuple[Array, ...]) -> None:
    _run(lambda: function.check(selected, arrays))


def _run(work: Callable[[], Any]) -> Any:
    try:
        with np.errstate(all="ignore"):
            return work()
    except SystemExit as error:
        # A server is not a function's to end.
        raise RemoteFailure(f"a function ended by {error!r}") from error


def _checked(function: Reading, answer: Any, stored: list[Array]) -> Answer:
    if not isinstance(answer, tuple) or len(answer) > ARRAYS_MAX:
        raise RemoteFailure(
            f"function {function.name!r} returns a tuple of at most {ARRAYS_MAX} arrays, not {type(answer).__name__}"
        )
    found = []
    for array in answer:
        if not isinstance(array, np.ndarray) or array.ndim not in {1, 2} or array.dtype not in dtypes.CODE_OF:
            shown = f"{array.dtype} {array.shape}" if isinstance(array, np.ndarray) else type(array).__name__
            raise RemoteFailure(
                f"function {function.name!r} returns arrays of numbers of one or two dimensions, not {shown}"
            )
        if array.nbytes > config.FRAME_BYTES_MAX:
            raise RemoteFailure(
                f"function {function.name!r} returns {array.nbytes} bytes; {config.FRAME_BYTES_MAX} travel"
            )
        # An answer may wait for its socket, and the values must not change meanwhile.
        shared = any(np.may_share_memory(array, each) for each in stored)
        found.append(np.array(array, order="C", copy=True) if shared else np.ascontiguousarray(array))
    return tuple(found)
