"""MXNet's store: a worker with its KVStore; run in MXNet's own environment, under Python 3.8.

Rows travel as row_sparse arrays, whole models as dense ones. What a push of distinct rows brings is made before the
time runs, and so are the arrays that pulls fill. Keys with repeats are summed while it runs: a row_sparse array has
no repeats, so every program that has some must do that.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import mxnet as mx
import numpy as np

from benchmarks.store import Store

if TYPE_CHECKING:
    from benchmarks.draws import Draw
    from benchmarks.steps import Model, Step

BLOCK_BYTES = 1 << 20

AHEAD = 4
"""Blocks asked for ahead of their use, as glintpy's iterators do."""


class MxnetStore(Store):
    """A worker."""

    def __init__(self) -> None:
        self._store = mx.kv.create("dist_async")
        if self._store.rank == 0:
            # What the servers do with a push: weight -= 1 * (-1 * pushed).
            self._store.set_optimizer(mx.optimizer.SGD(learning_rate=1.0, rescale_grad=-1.0, wd=0.0))
        self._store._barrier()  # noqa: SLF001 - it has no public name for it
        self._known: set[str] = set()
        self._num_issued = 0
        self._num_settled = 0

    def attach(self, model: Model, *, rank: int) -> None:
        """Make a table; all workers must."""
        del rank
        # A key is for life, and what stands in it: a later workload finds the table as the last one left it.
        if model.name not in self._known:
            self._known.add(model.name)
            self._store.init(model.name, mx.nd.ones(_shape(model)).tostype("row_sparse"))

    def prepare(self, step: Step, draws: list[Draw]) -> list[Any]:
        """Return what to push, and arrays to pull into."""
        if step.what == "all":
            return [self._on_all(step, draw) for draw in draws]
        if step.what == "blocks":
            return [lambda: self._iterate(step)]
        outs = [mx.nd.sparse.zeros("row_sparse", _shape(step.model)) for _ in range(step.window)]
        return [self._on_rows(step, draw, outs[number % len(outs)]) for number, draw in enumerate(draws)]

    def issue(self, request: Any) -> Any:
        """Make the call, which returns before it is done."""
        self._num_issued += 1
        return request(), self._num_issued

    def finish(self, pending: Any) -> Any:
        """Wait for what a pull fills; for a push, for all that is under way, since it has no way to wait for one."""
        out, number = pending
        if out is not None:
            out.wait_to_read()
        elif number > self._num_settled:
            self._num_settled = self._num_issued
            mx.nd.waitall()
        return out

    def values_of(self, result: Any) -> Any:
        """Return the rows that came."""
        if result is None:
            return None
        values = result.data.asnumpy()
        return values[:, 0] if values.shape[1] == 1 else values

    def close(self) -> None:
        """Nothing: a worker says goodbye when its process ends."""

    # --- requests -------------------------------------------------------------------------------------------------

    def _on_rows(self, step: Step, draw: Draw, out: Any) -> Any:
        store, name, shape = self._store, step.model.name, _shape(step.model)
        assert draw.rows is not None
        if step.verb == "pull":
            ids = mx.nd.array(draw.rows, dtype="int64")
            ids.wait_to_read()
            return lambda: (store.row_sparse_pull(name, out=out, row_ids=ids), out)[1]
        assert draw.values is not None
        rows, values = draw.rows, draw.values.reshape(len(draw.rows), -1)
        if step.what == "keys":
            return lambda: store.push(name, _summed(rows, values, shape))
        pushed = _summed(rows, values, shape)
        pushed.wait_to_read()
        return lambda: store.push(name, pushed)

    def _on_all(self, step: Step, draw: Draw) -> Any:
        store, name = self._store, step.model.name + "-dense"
        if name not in self._known:
            self._known.add(name)
            store.init(name, mx.nd.zeros(_shape(step.model)))
        out = mx.nd.zeros(_shape(step.model))
        out.wait_to_read()
        if step.verb == "pull":
            return lambda: (store.pull(name, out=out), out)[1]
        pushed = mx.nd.array(draw.values)
        pushed.wait_to_read()
        return lambda: store.push(name, pushed)

    def _iterate(self, step: Step) -> None:
        num_rows = max(1, BLOCK_BYTES // step.model.row_bytes)
        outs = [mx.nd.sparse.zeros("row_sparse", _shape(step.model)) for _ in range(AHEAD + 1)]
        for number, start in enumerate(range(0, step.model.rows, num_rows)):
            out = outs[number % len(outs)]
            out.wait_to_read()
            ids = mx.nd.arange(start, min(start + num_rows, step.model.rows), dtype="int64")
            self._store.row_sparse_pull(step.model.name, out=out, row_ids=ids)
        for out in outs:
            out.wait_to_read()


def make(opening: dict[str, Any]) -> Store:
    """Return the store of a client process.

    Args:
        opening: nothing that it needs; where to go says the environment.
    """
    del opening
    return MxnetStore()


def _shape(model: Model) -> tuple[int, int]:
    return model.rows, max(1, model.cols)


def _summed(rows: Any, values: Any, shape: tuple[int, int]) -> Any:
    """Return a row_sparse array: its rows are sorted, and none stands in it twice."""
    distinct, place = np.unique(rows, return_inverse=True)
    summed = np.zeros((len(distinct), shape[1]), np.float32)
    np.add.at(summed, place, values)
    return mx.nd.sparse.row_sparse_array((summed, distinct), shape=shape)
