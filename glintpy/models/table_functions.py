"""Functions on the servers of a table, over all of its rows; knows no message and no socket.

A server is asked for runs of its rows, whether they have keys or not, and says how many had one, and which where the
result is about single rows. So the client learns what it was all about from the answers, and joins these as a matrix's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glintpy import config
from glintpy.errors import ConfigError, RemoteProtocolError
from glintpy.functions.base import (
    Answer,
    Array,
    Ask,
    Changing,
    Choosing,
    Function,
    Positions,
    Reading,
    Selected,
    Steps,
)
from glintpy.models.calling import ChangingCall, ReadingCall
from glintpy.models.functions import function_of
from glintpy.models.values import as_array
from glintpy.protocol.parts import Part
from glintpy.protocol.selection import Selection, slices_of
from glintpy.protocol.texts import decoded, from_frame

if TYPE_CHECKING:
    from glintpy.futures import Future
    from glintpy.models.table_requests import TableTarget
    from glintpy.protocol.spec import ModelSpec
    from glintpy.ties import Tie

_NO_ROWS = slices_of((0, 0, 1))


class HasTableFunctions:
    """What a table can have computed where its rows lie, over all of them.

    Functions that read see every push that this client issued before. A server's rows are read in pieces of about
    2 MiB: each is one moment, and between them others' pushes may come. Each method returns a future, and can raise
    ``ConfigError``, ``DTypeError`` and ``ShapeError`` before anything is sent. The futures of those that read raise
    what those of ``pull`` do, of those that change what those of ``push`` do.
    """

    _tie: Tie
    _spec: ModelSpec
    _target: TableTarget

    if TYPE_CHECKING:

        def _check_exists(self) -> None:
            """Refuse a table that was destroyed."""

        def _wait_for_others(self) -> None:
            """Let a read go when no worker of the group is too far behind."""

    def call(self, function: str | Function, *arrays: ArrayLike, **numbers: Any) -> Future[Any]:
        """Have the servers run a function on all rows.

        One that changes values is a push in parts of about 2 MiB: each is applied exactly once, and they are not atomic
        together. Keys that come meanwhile may be left out.

        Args:
            function: as of ``BigMatrix.call``; none of those that name rows by number.
            arrays: its arguments, in the order of its ``takes``.
            numbers: its numbers, by name.

        Returns:
            A future of what the function says; where that has something for each row, of (keys, that). None if the
            function changes values.

        Raises:
            ConfigError: no such function or number, or it is not for tables.
            ShapeError, DTypeError: arguments that don't fit.

        The future raises:
            What that of ``BigMatrix.call`` does; ShapeError: the function wants at least one row, and there is none.

        Threads:
            Safe from any thread. A function that changes values waits, in the call, until each server has said how many
            rows it has.
        """
        self._check_exists()
        found = function_of(function, numbers)
        cutting = TableCutting(found, self._target, arrays)
        runtime = self._tie.runtime()
        if isinstance(found, Reading):
            steps = _steps(found, cutting)
            self._wait_for_others()
            return ReadingCall(runtime, self._target, None, found, cutting, steps=steps).start()
        assert isinstance(found, Changing), "a function reads or changes"
        counting = function_of("count_nonzero", {})
        assert isinstance(counting, Reading), "it counts"
        tops = ReadingCall(
            runtime, self._target, None, counting, cutting, steps=_tops(counting, cutting)
        ).start()
        cutting.tops = tops.result()
        return ChangingCall(runtime, self._target, None, found, cutting).start()

    def sum(self, axis: int | None = None) -> Future[Any]:
        """Add up all cells, each column (``axis=0``), or each row (``axis=1``: (keys, sums)); see ``BigMatrix.sum``."""
        return self.call("sum", axis=axis)

    def mean(self, axis: int | None = None) -> Future[Any]:
        """Return the mean of all cells, each column, or each row (with its keys), in float64; of nothing it is NaN."""
        return self.call("mean", axis=axis)

    def min(self, axis: int | None = None) -> Future[Any]:
        """Return the least of all cells, of each column, or of each row (with its keys)."""
        return self.call("min", axis=axis)

    def max(self, axis: int | None = None) -> Future[Any]:
        """Return the largest of all cells, of each column, or of each row (with its keys)."""
        return self.call("max", axis=axis)

    def count_nonzero(self, axis: int | None = None) -> Future[Any]:
        """Count the cells that are not 0: all, of each column, or of each row (with its keys)."""
        return self.call("count_nonzero", axis=axis)

    def norms(self) -> Future[tuple[NDArray[Any], NDArray[np.float64]]]:
        """Return all keys, in no order, and the Euclidean norm of each one's row, in float64."""
        return self.call("norms")

    def top_k(
        self, query: ArrayLike, k: int = 10, *, metric: Literal["dot", "cosine"] = "dot"
    ) -> Future[tuple[NDArray[Any], NDArray[np.float64]]]:
        """Find the rows that are nearest to a vector.

        Args:
            query: (num_cols,) numbers.
            k: how many rows, at most 65,536.
            metric: by the product with the row, or by the cosine of the angle (0 for rows of zeros).

        Returns:
            A future of (k,) keys and (k,) scores, the best first; fewer if there are fewer keys. Of equal scores any;
            NaN is the worst.
        """
        return self.call("top_k", query, k=k, metric=metric)

    def scale(self, by: float) -> Future[None]:
        """Multiply all cells by a number, each exactly once; see ``call``. What the updater keeps stays as it is."""
        return self.call("scale", by=by)

    def fill(self, value: float) -> Future[None]:
        """Store a number in all cells; as ``scale`` otherwise."""
        return self.call("fill", value=value)

    def clip(self, low: float | None = None, high: float | None = None) -> Future[None]:
        """Bring all cells between two limits; NaN stays. As ``scale`` otherwise."""
        return self.call("clip", low=low, high=high)


class TableCutting:
    """What ``models.asking.AnyCutting`` promises, over all rows of a table.

    Args:
        function: which.
        target: the table.
        arrays: the arguments, as the caller gave them.

    Attributes:
        tops: by server, the row behind the last one.

    Raises:
        ConfigError: a function that is not for tables.
        ShapeError, DTypeError: arguments that don't fit.
    """

    def __init__(self, function: Function, target: TableTarget, arrays: tuple[ArrayLike, ...]) -> None:
        own_steps = isinstance(function, Reading) and type(function).steps is not Reading.steps
        by_place = isinstance(function, Reading) and function.by_place
        if own_steps or by_place or isinstance(function, Choosing) or function.by_row:
            raise ConfigError(f"function {function.name!r} names rows by number, and a table has keys")
        spec = target.info.spec
        # How many rows there are, nobody knows yet: at least one, so that it is not refused for that here.
        self.selected = Selected(1, spec.num_cols, spec.numpy_dtype, spec.finite)
        given = tuple(as_array(array, what=f"array {number}") for number, array in enumerate(arrays))
        function.check_takes(self.selected, given)
        self.arrays = function.prepare(self.selected, given)
        self.servers = list(target.info.servers)
        self.tops: list[int] = []
        self.told: NDArray[Any] | None = None
        self._spec = spec
        self._row_bytes = target.row_bytes

    @property
    def rows_max(self) -> int:
        """See ``Asking``."""
        return max(1, config.PART_BYTES // max(self._row_bytes, 8))

    def runs(self) -> Iterator[tuple[int, int, int]]:
        """Yield server, first row and the row behind the last one of all pieces."""
        for server, top in enumerate(self.tops):
            for first in range(0, top, self.rows_max):
                yield server, first, min(top, first + self.rows_max)

    def asks(self, *, in_order: bool = False) -> list[Ask]:
        """See ``Asking``; where rows stand is known when they have answered."""
        del in_order
        return [
            Ask(server, slices_of((first, stop, 1)), slice(first, stop, 1), self.arrays)
            for server, first, stop in self.runs()
        ]

    def cells(self) -> list[tuple[int, Part]]:
        """See ``AnyCutting``: rows of tables are never cut."""
        return [
            (
                server,
                Part(
                    Selection(slices_of((first, stop, 1))),
                    slice(first, stop),
                    None,
                    (stop - first) * self._row_bytes,
                ),
            )
            for server, first, stop in self.runs()
        ]

    def arrays_at(self, positions: Positions) -> tuple[Array, ...]:
        """See ``AnyCutting``."""
        del positions
        return self.arrays

    def keys(self, positions: Positions | None = None) -> NDArray[Any]:
        """See ``Asking``."""
        assert self.told is not None, "asked for by functions that name rows"
        return self.told if positions is None else self.told[positions]

    def places(self, keys: NDArray[np.int64], *, of_other: bool = False) -> Any:
        """See ``Asking``; no function on tables asks."""
        del keys, of_other
        raise ConfigError("the rows of a table have no places that a function could name")

    def hear(self, frames: list[NDArray[Any]]) -> None:
        """Take in the keys of all rows, piece by piece."""
        if self._spec.has_texts:
            pieces = [decoded(from_frame(frame, self._spec.keys)) for frame in frames]
            self.told = np.concatenate([np.empty(0, object), *pieces])
        else:
            self.told = np.concatenate([np.empty(0, self._spec.keys), *frames])


def _tops(function: Reading, cutting: TableCutting) -> Steps:
    """Ask each server for the row behind its last one."""
    answers = yield [
        Ask(server, _NO_ROWS, slice(0, 0), cutting.arrays, function, touches=1)
        for server in range(len(cutting.servers))
    ]
    return [_counts(answer)[1] for answer in answers]


def _steps(function: Reading, cutting: TableCutting) -> Steps:
    """The client's part of any function that reads."""
    cutting.tops = yield from _tops(function, cutting)
    asks = cutting.asks()
    answers = yield asks
    joined: list[tuple[Ask, Answer]] = []
    keys: list[NDArray[Any]] = []
    num_rows = 0
    for ask, answer in zip(asks, answers, strict=True):
        *found, last = answer
        if not found:
            continue  # no row of this piece has a key
        count = len(last) if function.names_rows else _counts(answer)[0]
        keys.append(last)
        joined.append((replace(ask, positions=slice(num_rows, num_rows + count, 1)), tuple(found)))
        num_rows += count
    cutting.selected = _of_rows(cutting.selected, num_rows)
    function.prepare(cutting.selected, cutting.arrays)  # which may want at least one row
    if not function.names_rows:
        return function.combine(cutting, joined)
    cutting.hear(keys)
    result = function.combine(cutting, joined)
    return (cutting.keys(), result) if function.names_rows == "each" else result


def _of_rows(selected: Selected, num_rows: int) -> Selected:
    """Return the same of so many rows."""
    return Selected(num_rows, selected.num_cols, selected.dtype, selected.finite)


def _counts(answer: Answer) -> tuple[int, int]:
    if not answer or answer[-1].shape != (2,) or answer[-1].dtype != np.int64:
        raise RemoteProtocolError("a server doesn't say how many rows it has")
    num_rows, top = answer[-1].tolist()
    if not 0 <= num_rows <= top < 2**31:
        raise RemoteProtocolError(f"a server says that it has {num_rows} of {top} rows")
    return num_rows, top
