"""Passes over a matrix with requests ahead of the consumer; knows of it only what ``Matrix`` says.

Nothing is sent before the first item is asked for. Then ``depth`` requests are kept in flight: one is sent
for each that arrives. All counts are Python integers, so no matrix is too large to iterate over.
"""

from __future__ import annotations

import operator
from collections import deque
from collections.abc import AsyncGenerator, Callable, Generator, Iterator
from functools import partial
from types import TracebackType
from typing import Any, Protocol, Self, SupportsIndex

import numpy as np
from numpy.typing import NDArray

from glintpy.config import KIB, MIB
from glintpy.errors import ConfigError, GlintError, ShapeError
from glintpy.futures import Future, derived, failed

__all__ = ["ColumnIterator", "Matrix", "RowBlockIterator", "RowIterator"]

Block = NDArray[Any]

ROW_REQUEST_BYTES = 256 * KIB
"""Rows asked for at once: large enough that a request's own cost vanishes, small enough that the first row
comes soon and that ``depth`` requests are of no weight."""

COLUMN_REQUEST_BYTES = 1 * MIB
"""Columns asked for at once. Reading a column walks over all rows of a server, and reading a few that lie
side by side costs hardly more than one, so these requests are larger."""


class Matrix(Protocol):
    """What the iterators need of a matrix."""

    @property
    def num_rows(self) -> int:
        """How many rows there are."""

    @property
    def num_cols(self) -> int:
        """How many columns there are."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """The dtype of its values."""

    def pull(self, rows: slice | None = None, cols: slice | None = None) -> Future[Block]:
        """Read whole rows, or with ``cols`` alone whole columns."""


def _matrix(m: Matrix) -> Matrix:
    """Return what is to be iterated over, if it has rows and columns.

    Raises:
        TypeError: a vector, a table, or something else.
    """
    if getattr(m, "num_rows", None) is None or getattr(m, "num_cols", None) is None:
        raise TypeError(
            f"rows and columns are a matrix's, not a {type(m).__name__}'s; a vector is iterated over as it is (for "
            "value in v), and a table by its keys or blocks (for key in t, t.blocks(1000))"
        )
    return m


class _AheadIterator:
    """One pass or many over the spans into which an axis of the matrix is cut.

    Each ``iter()``, ``for`` and ``async for`` is a pass of its own from the start. ``next()`` on the object
    itself (and ``anext()``) drives one further pass, begun with its first use. A pass that ended, by its
    end or by a failure, stays ended.
    """

    def __init__(self, m: Matrix, *, spans: range, depth: SupportsIndex) -> None:
        self._matrix = m
        self._spans = spans  # the start of each request; the step is its width
        self._depth = setting("depth", depth)
        self._pass: Iterator[Block] | None = None
        self._async_pass: AsyncGenerator[Block, None] | None = None

    def _request(self, span: slice) -> Future[Block]:
        """Ask for a block."""
        return self._matrix.pull(rows=span)

    def _items(self, block: Block) -> Iterator[Block]:
        """Return what a block gives the consumer."""
        return iter((block,))

    def _item_futures(self, future: Future[Block], span: slice) -> Iterator[Future[Block]]:
        """Return a future for each of a block's items before the block is there."""
        del span
        return iter((future,))

    def __len__(self) -> int:
        return len(self._spans)

    def __iter__(self) -> Iterator[Block]:
        with self._ahead() as ahead:
            while ahead.is_open:
                block = ahead.first.result()
                # Now, so that `depth` requests are under way while the consumer works on this block.
                ahead.advance()
                yield from self._items(block)

    def __next__(self) -> Block:
        if self._pass is None:
            self._pass = iter(self)
        return next(self._pass)

    async def __aiter__(self) -> AsyncGenerator[Block, None]:
        with self._ahead() as ahead:
            while ahead.is_open:
                block = await ahead.first
                ahead.advance()
                for item in self._items(block):
                    yield item

    async def __anext__(self) -> Block:
        if self._async_pass is None:
            self._async_pass = aiter(self)
        return await anext(self._async_pass)

    def futures(self) -> Generator[Future[Block], None, None]:
        """Return a pass that yields futures of the items, in order, instead of the items.

        Each is handed out when asked for, done or not: ``depth`` requests are in flight after the first,
        and one more is sent whenever the consumer comes to the next block, without waiting for anything.

        Returns:
            A generator of futures. Closing it early sends nothing more.

        The future raises:
            What ``pull`` raises. The futures of one block share its failure.
        """
        with self._ahead() as ahead:
            while ahead.is_open:
                yield from self._item_futures(ahead.first, ahead.first_span)
                ahead.advance()

    def _ahead(self) -> _Ahead:
        return _Ahead(self._request, self._spans, self._depth)


class RowBlockIterator(_AheadIterator):
    """Yields a matrix in blocks of consecutive rows, in order.

    The blocks are (k, num_cols) arrays of the matrix's dtype, new and the consumer's to change; the last
    one may be shorter, none is empty. A failed request raises in the place of its block and ends the pass.

    Args:
        m: the matrix.
        block_rows: rows a block, at least 1.
        depth: requests in flight ahead of the consumer, at least 1.

    Raises:
        ConfigError: ``block_rows`` or ``depth`` below 1 or not an integer.

    Threads:
        A pass belongs to one thread at a time; each thread may have a pass of its own.
    """

    def __init__(self, m: Matrix, block_rows: SupportsIndex, *, depth: SupportsIndex = 4) -> None:
        spans = range(0, _matrix(m).num_rows, setting("block_rows", block_rows))
        super().__init__(m, spans=spans, depth=depth)


class _SingleIterator(_AheadIterator):
    """Yields the rows or columns of the blocks one by one."""

    _axis: int

    def __len__(self) -> int:
        return self._spans.stop - self._spans.start

    def _items(self, block: Block) -> Iterator[Block]:
        return (_owned(block, self._axis, position) for position in range(block.shape[self._axis]))

    def _item_futures(self, future: Future[Block], span: slice) -> Iterator[Future[Block]]:
        for position in range(span.stop - span.start):
            yield derived(future, partial(_owned, axis=self._axis, position=position))


class RowIterator(_SingleIterator):
    """Yields the rows of a matrix in order; ``for row in m`` is the same.

    The rows are (num_cols,) arrays of the matrix's dtype, new and the consumer's to change. Each is a copy
    of its own: a kept row keeps only itself alive, not the block with which it came. A failed request
    raises in the place of its rows and ends the pass.

    Args:
        m: the matrix.
        block_rows: rows a request, at least 1; None: about 256 KiB.
        depth: requests in flight ahead of the consumer, at least 1.
        start: the first row.
        stop: behind the last row; None: all.

    Raises:
        ConfigError: ``block_rows`` or ``depth`` below 1 or not an integer.
        ShapeError: not 0 <= start <= stop <= num_rows.

    Threads:
        A pass belongs to one thread at a time; each thread may have a pass of its own.
    """

    _axis = 0

    def __init__(
        self,
        m: Matrix,
        *,
        block_rows: SupportsIndex | None = None,
        depth: SupportsIndex = 4,
        start: SupportsIndex = 0,
        stop: SupportsIndex | None = None,
    ) -> None:
        num_rows = _matrix(m).num_rows
        first = _bound("start", start)
        last = num_rows if stop is None else _bound("stop", stop)
        if not 0 <= first <= last <= num_rows:
            raise ShapeError(f"start is {first} and stop {last}; 0 <= start <= stop <= num_rows = {num_rows}")
        if block_rows is None:
            block_rows = _fitting(ROW_REQUEST_BYTES, item_bytes=m.num_cols * m.dtype.itemsize)
        super().__init__(m, spans=range(first, last, setting("block_rows", block_rows)), depth=depth)


class ColumnIterator(_SingleIterator):
    """Yields the columns of a matrix in order.

    The columns are (num_rows,) contiguous arrays of the matrix's dtype, new and the consumer's to change.
    Several small columns travel in one request, as a slice of columns. A failed request raises in the
    place of its columns and ends the pass.

    Args:
        m: the matrix.
        depth: requests in flight ahead of the consumer, at least 1.

    Raises:
        ConfigError: ``depth`` below 1 or not an integer.

    Threads:
        A pass belongs to one thread at a time; each thread may have a pass of its own.
    """

    _axis = 1

    def __init__(self, m: Matrix, *, depth: SupportsIndex = 4) -> None:
        width = _fitting(COLUMN_REQUEST_BYTES, item_bytes=_matrix(m).num_rows * m.dtype.itemsize)
        super().__init__(m, spans=range(0, m.num_cols, width), depth=depth)

    def _request(self, span: slice) -> Future[Block]:
        return self._matrix.pull(cols=span)


class _Ahead:
    """The requests of one pass: the first is the consumer's next block, the others are ahead of it."""

    def __init__(self, request: Callable[[slice], Future[Block]], spans: range, depth: int) -> None:
        self._request = request
        self._spans = spans
        self._unsent = iter(spans)
        self._open: deque[tuple[Future[Block], slice]] = deque()
        for _ in range(min(depth, len(spans))):
            self._send()

    @property
    def is_open(self) -> bool:
        """Whether there is a first request."""
        return bool(self._open)

    @property
    def first(self) -> Future[Block]:
        """The request that the consumer comes to next."""
        return self._open[0][0]

    @property
    def first_span(self) -> slice:
        """What it asked for."""
        return self._open[0][1]

    def advance(self) -> None:
        """Leave the first request and send another at the end."""
        self._open.popleft()
        self._send()

    def _send(self) -> None:
        start = next(self._unsent, None)
        if start is None:
            return
        span = slice(start, min(start + self._spans.step, self._spans.stop))
        try:
            future = self._request(span)
        except GlintError as error:
            # Raised in its own place, behind the blocks that are still to come, and nothing is sent after it.
            future = failed(error)
            self._unsent = iter(range(0))
        self._open.append((future, span))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        # Left early: what is in flight finishes by itself, and its failures are nobody's concern.
        for future, _ in self._open:
            future.seen = True
        self._open.clear()


def _owned(block: Block, axis: int, position: int) -> Block:
    """Return one row or column as a contiguous array that keeps nothing else alive.

    Views would save about a microsecond an item, and let a consumer that keeps one row in a thousand keep
    the whole matrix in memory. A block of a single row or column is handed over as it is.
    """
    item: Block = block[position] if axis == 0 else block[:, position]
    return item if block.shape[axis] == 1 else item.copy()


def _fitting(request_bytes: int, *, item_bytes: int) -> int:
    """Return how many items make up a request: at least one, however large, and many of no bytes."""
    return max(1, request_bytes // max(1, item_bytes))


def setting(name: str, value: SupportsIndex) -> int:
    """Return a number that is at least 1.

    Args:
        name: of the argument, for the message.
        value: as typed.

    Raises:
        ConfigError: below 1, or not an integer.
    """
    try:
        number = operator.index(value)
    except TypeError as error:
        raise ConfigError(f"{name} is an integer of at least 1, not {value!r}") from error
    if number < 1:
        raise ConfigError(f"{name} is {number}; it is at least 1")
    return number


def _bound(name: str, value: SupportsIndex) -> int:
    try:
        return operator.index(value)
    except TypeError as error:
        raise ShapeError(f"{name} is a row number, an integer, not {value!r}") from error
