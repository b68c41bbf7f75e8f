"""A model in memory whose requests are answered by the test, in any order; knows no network and no thread."""

from __future__ import annotations

import asyncio
import concurrent.futures
from collections.abc import Callable, Generator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy.errors import GlintError
from glintpy.futures import Future
from glintpy.models.buffered import PushBuffer
from glintpy.updaters import named


class FakeFuture(Future[Any]):
    """A future that tells the model when somebody begins to wait for it, so that no thread is needed."""

    def __init__(self, on_wait: Callable[[], None]) -> None:
        super().__init__()
        self.on_wait = on_wait

    def result(self, timeout: float | None = None) -> Any:
        if not self.done():
            self.on_wait()
        return super().result(timeout)

    def __await__(self) -> Generator[Any, None, Any]:
        if not self.done():
            asyncio.get_running_loop().call_soon(self.on_wait)
        return super().__await__()


@dataclass(eq=False)
class Request:
    """A pull or a push that was issued."""

    kind: str
    rows: Any
    cols: Any
    values: Any
    apply: Callable[[], Any]
    future: FakeFuture = field(init=False)

    @property
    def is_open(self) -> bool:
        """Whether it is in flight."""
        return not self.future.done()

    def complete(self) -> None:
        """Carry it out and answer."""
        if self.is_open:
            self.future.set_result(self.apply())

    def fail(self, error: GlintError) -> None:
        """Answer with a failure; nothing is carried out."""
        self.future.set_exception(error)


class FakeModel:
    """A matrix or a vector.

    Attributes:
        requests: all that were issued, in order.
        peak: the most that were ever in flight at once.
        on_wait: what happens when somebody waits for a request: it is completed, unless a test differs.
        refuse: raised by the next pulls and pushes themselves, instead of being sent.
    """

    def __init__(self, array: NDArray[Any], *, finite: bool = False, updater: str = "add") -> None:
        self.array = array
        self.finite = finite
        self.updater = named(updater)
        self.requests: list[Request] = []
        self.peak = 0
        self.on_wait: Callable[[Request], None] = Request.complete
        self.refuse: GlintError | None = None

    @property
    def shape(self) -> tuple[int, ...]:
        return self.array.shape

    @property
    def num_rows(self) -> int:
        return len(self.array)

    @property
    def num_cols(self) -> int:
        return int(self.array.shape[1])

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.array.dtype

    @property
    def in_flight(self) -> list[Request]:
        """Requests without an answer, in order."""
        return [request for request in self.requests if request.is_open]

    def complete_all(self) -> None:
        """Carry out and answer all that is in flight."""
        for request in self.in_flight:
            request.complete()

    def pull(self, rows: Any = None, cols: Any = None) -> Future[NDArray[Any]]:
        # The values as they are when it is carried out.
        return self._issue(
            Request("pull", rows, cols, None, partial(_copied, self.array, _where(rows, cols)))
        )

    def push(self, rows: Any, values: Any, *, cols: Any = None) -> Future[None]:
        where, given = _where(rows, cols), np.array(values)

        def apply() -> None:
            np.add.at(self.array, where, given)

        return self._issue(Request("push", rows, cols, given, apply))

    def _issue(self, request: Request) -> FakeFuture:
        if self.refuse is not None:
            raise self.refuse
        request.future = FakeFuture(lambda: self.on_wait(request))
        self.requests.append(request)
        self.peak = max(self.peak, len(self.in_flight))
        return request.future


class HugeMatrix(FakeModel):
    """A matrix of any number of rows, none of which exist: each row holds its own number."""

    def __init__(self, num_rows: int) -> None:
        super().__init__(np.zeros((0, 1), np.int64))
        self._num_rows = num_rows

    @property
    def num_rows(self) -> int:
        return self._num_rows

    def pull(self, rows: Any = None, cols: Any = None) -> Future[NDArray[Any]]:
        return self._issue(
            Request(
                "pull", rows, cols, None, lambda: np.arange(rows.start, rows.stop, dtype=np.int64)[:, None]
            )
        )


class Waits:
    """Stands for ``concurrent.futures.wait``: answers what is in flight at the moment of a wait."""

    def __init__(self) -> None:
        self.model: FakeModel | None = None
        self.error: GlintError | None = None
        self.in_flight: list[int] = []

    def __call__(self, futures: list[concurrent.futures.Future[Any]]) -> object:
        assert self.model is not None
        self.in_flight.append(len(self.model.in_flight))
        for request in self.model.in_flight:
            if self.error is None:
                request.complete()
            else:
                request.fail(self.error)
        return concurrent.futures.wait(futures, timeout=0)


def zero_matrix(num_rows: int = 6, num_cols: int = 4, dtype: str = "float32") -> FakeModel:
    return FakeModel(np.zeros((num_rows, num_cols), dtype))


def zero_vector(size: int = 6, dtype: str = "float32") -> FakeModel:
    return FakeModel(np.zeros(size, dtype))


def flushed(model: FakeModel, buffer: PushBuffer) -> None:
    """Flush and have everything applied."""
    flush = buffer.flush()
    model.complete_all()
    flush.result(0)


def _copied(array: NDArray[Any], where: Any) -> NDArray[Any]:
    return np.array(array[where])


def _where(rows: Any, cols: Any) -> Any:
    chosen = slice(None) if rows is None else rows
    return chosen if cols is None else (chosen, cols)
