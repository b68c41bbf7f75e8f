"""BigVector: what users hold of a distributed vector; knows no server."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from numpy.typing import ArrayLike, NDArray

from glintpy.config import PART_BYTES
from glintpy.futures import Future
from glintpy.models.dense import BigModel
from glintpy.models.indexing import Asked, parse_pull


class BigVector(BigModel):
    """A vector over servers, read and added to by keys.

    Besides the methods, ``vector[...]`` reads as numpy does and ``np.asarray(vector)`` pulls the whole.
    """

    @property
    def size(self) -> int:
        """Its length."""
        return self._spec.num_rows

    @property
    def num_rows(self) -> int:
        """Its length, under the name that it shares with matrices."""
        return self._spec.num_rows

    @property
    def num_cols(self) -> None:
        """None: a vector has no columns."""
        return

    def pull(
        self,
        keys: ArrayLike | slice | None = None,
        *,
        out: NDArray[Any] | None = None,
        round: int | None = None,  # noqa: A002 - what it is
    ) -> Future[NDArray[Any]]:
        """Read values; at most one request goes to each server, and own pushes are seen.

        Args:
            keys: an int, a slice, (n,) integers in [0, size) in any order with repeats, a (size,) boolean
                mask, or None for all.
            out: C-contiguous, of the exact dtype and shape of the result, to be written into.
            round: as of ``BigMatrix.pull``.

        Returns:
            A future of (n,) values, or () for an int; entry i belongs to ``keys[i]``.

        Raises:
            ShapeError, DTypeError, KeyRangeError: here, before anything is sent.
            ModelNotFound: it was destroyed through this handle.

        The future raises:
            PullFailed, ServerLost, ModelNotFound, ModelLost, RemoteFailure: see ``BigMatrix.pull``.

        Threads:
            Safe from any thread; doesn't wait.
        """
        return self._pull(self._asked(keys), out, round)

    def push(
        self,
        keys: ArrayLike | slice | None,
        values: ArrayLike,
        *,
        round: int | None = None,  # noqa: A002 - what it is
        levels: ArrayLike | None = None,
    ) -> Future[None]:
        """Add values at keys, exactly once; repeats all count. See ``BigMatrix.push`` for what changes together.

        Args:
            keys: as in ``pull``.
            values: numbers that broadcast against what ``pull`` with the same keys returns; copied before
                the call returns.
            round: as of ``BigMatrix.push``.
            levels: as of ``BigMatrix.push``.

        Returns:
            A future that is done when all servers have applied the push.

        Raises:
            ShapeError, DTypeError, KeyRangeError, ConfigError: here, before anything is sent.
            ModelNotFound: it was destroyed through this handle.

        The future raises:
            PushRefused, PushOutcomeUnknown, ModelNotFound, ModelLost, ServerLost: see ``BigMatrix.push``.

        Threads:
            Safe from any thread. Waits, also under asyncio, while too many bytes are under way to a server.
        """
        return self._push(self._asked(keys), values, round, levels)

    def push_pull(
        self,
        keys: ArrayLike | slice | None,
        values: ArrayLike,
        *,
        out: NDArray[Any] | None = None,
        round: int | None = None,  # noqa: A002 - what it is
    ) -> Future[NDArray[Any]]:
        """Push, and read the values after the push, in one request a server.

        Args:
            keys: as in ``pull``.
            values: as in ``push``.
            out: as in ``pull``.
            round: as of ``BigMatrix.push_pull``.

        Returns:
            A future of what ``pull`` with the same keys would return after the push.

        Raises:
            ShapeError, DTypeError, KeyRangeError: here, before anything is sent.

        The future raises:
            What ``push`` does.

        Threads:
            As ``push``.
        """
        return self._push_pull(self._asked(keys), values, out, round)

    def pull_slot(self, name: str, keys: ArrayLike | slice | None = None) -> Future[NDArray[Any]]:
        """Read what the updater keeps beside the values; see ``BigMatrix.pull_slot``.

        Args:
            name: one of ``slots``.
            keys: as in ``pull``.
        """
        self._check_slot(name)
        return self._pull_slot(name, self._asked(keys))

    def __iter__(self) -> Iterator[Any]:
        # In blocks: iterating by __getitem__ would send a request for each value.
        block = max(1, PART_BYTES // self.dtype.itemsize)
        for first in range(0, self.size, block):
            yield from self[first : first + block]

    def _asked(self, keys: Any) -> Asked:
        return parse_pull(keys, num_rows=self.size, num_cols=None, what="keys")
