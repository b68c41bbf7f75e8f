"""glintpy as a system and as a store, by its public names only; knows no floor and no peer."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal

from numpy.typing import NDArray

import glintpy
from benchmarks.draws import Draw
from benchmarks.steps import Model, Step
from benchmarks.store import Store
from benchmarks.system import Opening, Setup, System

NAME = "glintpy"

BLOCK_BYTES = 1 << 20
"""Of RowBlockIterator's blocks."""


class Glintpy(System):
    """A LocalCluster as users start it: checks, receipts and limits as they are."""

    name = NAME

    def __init__(self, scheme: Literal["tcp", "ipc"]) -> None:
        super().__init__(scheme)
        self._kind = scheme
        self._cluster: glintpy.LocalCluster | None = None

    def start(self, setup: Setup) -> Opening:
        """Start a cluster."""
        self._cluster = glintpy.LocalCluster(setup.servers, scheme=self._kind)
        return Opening("benchmarks.ours", {"address": self._cluster.address})

    @property
    def cluster(self) -> glintpy.LocalCluster:
        """The cluster that was started."""
        assert self._cluster is not None
        return self._cluster

    def server_pids(self) -> list[int]:
        """Return the servers' processes."""
        return [server.pid for server in self.cluster.servers]

    def stop(self) -> None:
        """Stop the cluster."""
        if self._cluster is not None:
            self._cluster.stop()


Request = Callable[[], Any]


class GlintpyStore(Store):
    """A client of a cluster.

    Args:
        address: the master's.
    """

    def __init__(self, address: str) -> None:
        # A first request over a new model may have to wait for fresh pages of the whole of it.
        self._client = glintpy.Client(address, timeout_s=120)
        self._models: dict[str, glintpy.BigMatrix | glintpy.BigVector] = {}

    def attach(self, model: Model, *, rank: int) -> None:
        """Make a model, or find it."""
        del rank  # whoever comes first makes it
        self._models[model.name] = self._made(model, model.name)

    def _made(self, model: Model, name: str) -> glintpy.BigMatrix | glintpy.BigVector:
        if model.cols:
            return self._client.matrix(model.rows, model.cols, dtype=model.dtype, name=name, exist_ok=True)
        return self._client.vector(model.rows, dtype=model.dtype, name=name, exist_ok=True)

    def prepare(self, step: Step, draws: list[Draw]) -> list[Request]:
        """Return calls that return futures, or for iterators None when they are through."""
        models = [self._models[step.model.name]]
        for number in range(1, step.num_models):
            name = f"{step.model.name}-{number}"
            if name not in self._models:
                self._models[name] = self._made(step.model, name)
            models.append(self._models[name])
        return [_request(step, models[number % len(models)], draw) for number, draw in enumerate(draws)]

    def issue(self, request: Request) -> Any:
        """Make the call."""
        return request()

    def finish(self, pending: Any) -> Any:
        """Wait for the future."""
        return pending if pending is None else pending.result()

    def drop(self, model: Model) -> None:
        """Destroy the model, and those that ``num_models`` made beside it."""
        for name in [*self._models]:
            if name == model.name or name.startswith(f"{model.name}-"):
                self._models.pop(name).destroy()

    def close(self) -> None:
        """Close the client."""
        self._client.close()


def make(opening: dict[str, Any]) -> Store:
    """Return the store of a client process.

    Args:
        opening: the details that the system gave.
    """
    return GlintpyStore(opening["address"])


def _request(step: Step, model: glintpy.BigMatrix | glintpy.BigVector, draw: Draw) -> Request:
    if step.verb == "iterate":
        assert isinstance(model, glintpy.BigMatrix)
        return partial(_iterate_blocks if step.what == "blocks" else _iterate_columns, model)
    rows: NDArray[Any] | slice | None = draw.rows
    if rows is None and step.what == "slice":
        rows = slice(draw.start, draw.stop)
    columns: dict[str, Any] = {} if draw.cols is None else {"cols": draw.cols}
    if draw.values is not None:
        call = model.push if step.verb == "push" else model.push_pull
        return partial(call, rows, draw.values, **columns)
    if step.into:
        columns["out"] = model.pull(rows, **columns).result()
    return partial(model.pull, rows, **columns)


def _iterate_blocks(model: glintpy.BigMatrix) -> None:
    block_rows = max(1, BLOCK_BYTES * model.num_rows // model.num_bytes)
    for _ in glintpy.RowBlockIterator(model, block_rows):
        pass


def _iterate_columns(model: glintpy.BigMatrix) -> None:
    for _ in glintpy.ColumnIterator(model):
        pass
