"""BigMatrix: what users hold of a distributed matrix; knows no server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import ArrayLike, NDArray

from glintpy.errors import ShapeError
from glintpy.futures import Future
from glintpy.models.dense import BigModel
from glintpy.models.indexing import Asked, parse_pull
from glintpy.models.iterators import RowIterator
from glintpy.updaters.base import STEPS


class BigMatrix(BigModel):
    """A matrix in rows over servers.

    Besides the methods, ``matrix[...]`` reads as numpy does and ``np.asarray(matrix)`` pulls the whole.
    """

    @property
    def num_rows(self) -> int:
        """Rows."""
        return self._spec.num_rows

    @property
    def num_cols(self) -> int:
        """Columns."""
        return self._spec.num_cols or 0

    def pull(
        self,
        rows: ArrayLike | slice | None = None,
        cols: ArrayLike | slice | None = None,
        *,
        out: NDArray[Any] | None = None,
        round: int | None = None,  # noqa: A002 - what it is
    ) -> Future[NDArray[Any]]:
        """Read rows, columns or single elements; at most one request goes to each server.

        A pull sees every push that this client issued before it. What comes from one server in one part
        (about 2 MiB) is one moment; across parts and servers others' pushes may come between.

        Args:
            rows: an int, a slice, (n,) integers in [0, num_rows) in any order with repeats, a (num_rows,)
                boolean mask, or None for all.
            cols: the same for columns. With ``rows`` too: element i is (rows[i], cols[i]).
            out: C-contiguous, of the exact dtype and shape of the result, to be written into. Not to be
                read before the future is done.
            round: of such a model: wait until these rows are out of the round with this tag to which this worker has
                pushed. None: read what the last round has left.

        Returns:
            A future of (num_cols,) values for an int; (n, num_cols) for rows; (num_rows, len(cols)) for
            columns alone; (n,) for elements. Entry i belongs to ``rows[i]``. The array is the caller's.

        Raises:
            ShapeError, DTypeError, KeyRangeError: here, before anything is sent.
            ModelNotFound: it was destroyed through this handle.

        The future raises:
            PullFailed: the deadline passed.
            ServerLost: with ``on_server_lost="raise"``.
            ModelNotFound, ModelLost, RemoteFailure: of the servers.

        Threads:
            Safe from any thread; doesn't wait.
        """
        return self._pull(self._asked(rows, cols), out, round)

    def push(
        self,
        rows: ArrayLike | slice | None,
        values: ArrayLike,
        *,
        cols: ArrayLike | slice | None = None,
        round: int | None = None,  # noqa: A002 - what it is
        levels: ArrayLike | None = None,
    ) -> Future[None]:
        """Add values to rows, columns or single elements, exactly once; repeats all count.

        A push that fits in one part a server (about 2 MiB; nearly all do) changes together there; a larger
        one part by part, and one over several servers server by server. Pushes of one client to one server
        are applied in the order issued.

        Args:
            rows: as in ``pull``.
            values: numbers that broadcast against what ``pull`` with the same arguments returns. They are
                copied before the call returns. Integers wrap as numpy's do.
            cols: as in ``pull``.
            round: of a model that follows a group (``consistency="bsp"``): the push belongs to a round with this tag,
                an integer, which ends for each row by itself, as soon as all workers of the group have pushed to it
                with the same tag, each once; None: it belongs to the step that ``group.tick`` finishes. The future is
                done when the push lies on its servers; ``pull(..., round=tag)`` waits for the round's end.
            levels: at most 256 numbers, each value being one of them: for up to 2, 4, 16 or 256 levels 1, 2, 4 or 8
                bits a value travel. For gradients that were quantised. What servers do is the same, but for the sign of
                zeros. If the updater sums repeats of a row first, and there are any, values travel as they are.

        Returns:
            A future that is done when all servers have applied the push.

        Raises:
            ShapeError, DTypeError, KeyRangeError, ConfigError: here, before anything is sent.
            ModelNotFound: it was destroyed through this handle.

        The future raises:
            PushRefused: no cell changed on any server.
            PushOutcomeUnknown: some parts may be in; ``.parts`` says what is known.
            ModelNotFound, ModelLost, ServerLost: of the servers, with ``.outcome`` where it applies.

        Threads:
            Safe from any thread. Waits, also under asyncio, while too many bytes are under way to a server.
        """
        return self._push(self._asked(rows, cols), values, round, levels)

    def push_pull(
        self,
        rows: ArrayLike | slice | None,
        values: ArrayLike,
        *,
        cols: ArrayLike | slice | None = None,
        out: NDArray[Any] | None = None,
        round: int | None = None,  # noqa: A002 - what it is
    ) -> Future[NDArray[Any]]:
        """Push, and read the values after the push, in one request a server.

        Args:
            rows: as in ``pull``.
            values: as in ``push``.
            cols: as in ``pull``.
            out: as in ``pull``.
            round: as of ``push``; the values are those that the round has left, so the future waits for its end.

        Returns:
            A future of what ``pull`` with the same arguments would return after the push.

        Raises:
            ShapeError, DTypeError, KeyRangeError: here, before anything is sent.

        The future raises:
            What ``push`` does.

        Threads:
            As ``push``.
        """
        return self._push_pull(self._asked(rows, cols), values, out, round)

    def pull_slot(
        self, name: str, rows: ArrayLike | slice | None = None, cols: ArrayLike | slice | None = None
    ) -> Future[NDArray[Any]]:
        """Read what the updater keeps beside the values, as ``pull`` reads them.

        Args:
            name: one of ``slots``.
            rows: as in ``pull``.
            cols: as in ``pull``; ``"steps"`` has one number a row, and no columns.

        Returns:
            A future of what ``pull`` would return, in the dtype that the updater computes in (float32 for float16);
            of ``"steps"`` (n,) uint32, or () for an int.

        Raises:
            ConfigError: the updater has no such slot.
            ShapeError, DTypeError, KeyRangeError: here, before anything is sent.

        The future raises:
            What ``pull`` does.
        """
        self._check_slot(name)
        if name != STEPS:
            return self._pull_slot(name, self._asked(rows, cols))
        if cols is not None:
            raise ShapeError("steps are counted by row: ask for them without cols")
        return self._pull_slot(name, parse_pull(rows, None, num_rows=self.num_rows, num_cols=None))

    def __iter__(self) -> Iterator[NDArray[Any]]:
        return iter(RowIterator(self))

    def _asked(self, rows: Any, cols: Any) -> Asked:
        return parse_pull(rows, cols, num_rows=self.num_rows, num_cols=self.num_cols)
