"""Models against numpy arrays, in any order of steps that hypothesis thinks of; knows a cluster from outside."""

from __future__ import annotations

import shutil
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, precondition, rule
from numpy.typing import NDArray

from glintpy.client import Client
from glintpy.cluster import LocalCluster
from glintpy.errors import ModelNotFound
from glintpy.futures import Future, gather
from glintpy.models.buffered import PushBuffer
from glintpy.models.matrix import BigMatrix
from glintpy.models.vector import BigVector
from glintpy.testing.reference import add, numbers, partitioner_of, read, same

DTYPES = ("int64", "int32", "uint8", "int16", "bool", "float32")
"""Mostly integers: their sums wrap and don't depend on the order. Floats are drawn so that they don't either."""

NUM_CLIENTS = 2


@dataclass(eq=False)
class Tracked:
    """A model, and the array that it must equal.

    Attributes:
        handles: one a client.
        values: what numpy has.
        pushes: those that nobody has waited for yet.
        last: the client that issued them, or the one that is told to do the next step.
    """

    handles: list[BigMatrix | BigVector]
    values: NDArray[Any]
    pushes: list[Future[None]] = field(default_factory=list)
    last: int = 0

    def by(self, client: int) -> BigMatrix | BigVector:
        """Return a client's handle, when it must see what the other client has pushed."""
        if client != self.last:
            self.settle()
            self.last = client
        return self.handles[client]

    def settle(self) -> None:
        """Wait for the pushes that nobody has waited for."""
        gather(*self.pushes).result()
        self.pushes.clear()


class ModelMachine(RuleBasedStateMachine):
    """Make its ``TestCase`` a test, with hypothesis's settings, and it looks for a step that numpy disagrees with.

    ::

        class TestModels(ModelMachine.TestCase):
            settings = hypothesis.settings(max_examples=20, stateful_step_count=30)

    Servers stop in good order and start again, at most ``restarts_max`` times in one example: clients need a
    moment to notice.

    Attributes:
        restarts_max: in one example.
    """

    restarts_max: ClassVar[int] = 2

    models: Bundle[Tracked] = Bundle("models")

    def __init__(self) -> None:
        super().__init__()
        self._folder = Path(tempfile.mkdtemp(prefix="glintpy-stateful-"))
        self._cluster = LocalCluster(3, scheme="local")
        self._clients: list[Client] = [self._new_client() for _ in range(NUM_CLIENTS)]
        self._alive: list[Tracked] = []
        self._num_made = 0
        self._num_restarts = 0

    def teardown(self) -> None:
        """Compare everything once more, and end the cluster."""
        try:
            for tracked in self._alive:
                for client in range(NUM_CLIENTS):
                    self._compare(tracked, client)
            for client_object in self._clients:
                client_object.close()
        finally:
            self._cluster.stop()
            shutil.rmtree(self._folder)

    # --- lives ------------------------------------------------------------------------------------------------------

    @precondition(lambda self: len(self._alive) < 5)
    @rule(
        target=models,
        shape=st.tuples(st.integers(0, 40)) | st.tuples(st.integers(0, 40), st.integers(0, 6)),
        dtype=st.sampled_from(DTYPES),
        kind=st.sampled_from(["range", "cyclic", "custom"]),
        partitions_per_server=st.sampled_from([1, 1, 8]),
        init=st.sampled_from([0, 1]),
    )
    def make(
        self, shape: tuple[int, ...], dtype: str, kind: str, partitions_per_server: int, init: int
    ) -> Tracked:
        """Make a model, and open it by the other client.

        Args:
            shape: (rows, columns), or (size,) for a vector.
            dtype: of the values.
            kind: of partitioner.
            partitions_per_server: how finely rows are dealt out.
            init: the initial values.
        """
        partitioner = partitioner_of(kind, shape[0])
        making = self._clients[0].matrix if len(shape) == 2 else self._clients[0].vector
        made = making(
            *shape,
            dtype=dtype,
            partitioner=partitioner,
            partitions_per_server=partitions_per_server,
            init=init,
            name=self._unused_name(),
        )
        return self._track(made, np.full(shape, init, dtype=dtype))

    @rule(target=models, tracked=models, kind=st.sampled_from(["range", "cyclic"]), client=st.integers(0, 1))
    @precondition(lambda self: len(self._alive) < 5)
    def save_and_load(self, tracked: Tracked, kind: str, client: int) -> Tracked:
        """Save a model, pushes that nobody waited for included, and load it under another name.

        Args:
            tracked: the model.
            kind: the copy's partitioner.
            client: that does both.
        """
        name = self._unused_name()
        tracked.by(client).save(str(self._folder / name))
        copy = self._clients[client].load(str(self._folder / name), name=name, partitioner=kind)
        return self._track(copy, tracked.values.copy())

    @rule(tracked=consumes(models), client=st.integers(0, 1))
    def destroy(self, tracked: Tracked, client: int) -> None:
        """Destroy a model; no handle reads it any more.

        Args:
            tracked: the model.
            client: that does it.
        """
        tracked.by(client).destroy()
        self._alive.remove(tracked)
        for handle in tracked.handles:
            with pytest.raises(ModelNotFound):
                handle.destroy()
            if tracked.values.size:
                with pytest.raises(ModelNotFound):
                    handle.pull().result()
        tracked.settle()

    # --- steps ------------------------------------------------------------------------------------------------------

    @rule(tracked=models, data=st.data(), client=st.integers(0, 1), waits=st.booleans())
    def push(self, tracked: Tracked, data: st.DataObject, client: int, waits: bool) -> None:
        """Push to some keys.

        Args:
            tracked: the model.
            data: draws keys and values.
            client: that does it.
            waits: whether it waits for the outcome.
        """
        rows, cols, updates = self._drawn_update(tracked, data)
        future = tracked.by(client).push(rows, updates, **({} if cols is None else {"cols": cols}))
        tracked.pushes.append(future)
        add(tracked.values, rows, cols, updates)
        if waits:
            tracked.settle()

    @rule(tracked=models, data=st.data(), client=st.integers(0, 1))
    def pull(self, tracked: Tracked, data: st.DataObject, client: int) -> None:
        """Pull some keys.

        Args:
            tracked: the model.
            data: draws keys.
            client: that does it.
        """
        rows, cols = self._drawn_selection(tracked, data)
        handle = tracked.by(client)
        found = handle.pull(rows, **({} if cols is None else {"cols": cols})).result()
        same(found, read(tracked.values, rows, cols), handle, rows, cols)

    @rule(tracked=models, data=st.data(), client=st.integers(0, 1))
    def push_pull(self, tracked: Tracked, data: st.DataObject, client: int) -> None:
        """Push to some keys and compare what comes back.

        Args:
            tracked: the model.
            data: draws keys and values.
            client: that does it.
        """
        rows, cols, updates = self._drawn_update(tracked, data)
        handle = tracked.by(client)
        found = handle.push_pull(rows, updates, **({} if cols is None else {"cols": cols})).result()
        add(tracked.values, rows, cols, updates)
        same(found, read(tracked.values, rows, cols), handle, rows, cols)

    @rule(
        tracked=models, data=st.data(), client=st.integers(0, 1), max_bytes=st.sampled_from([1, 64, 100_000])
    )
    def buffer(self, tracked: Tracked, data: st.DataObject, client: int, max_bytes: int) -> None:
        """Push through a buffer, several times.

        Args:
            tracked: the model.
            data: draws keys and values.
            client: that does it.
            max_bytes: of the buffer.
        """
        with PushBuffer(tracked.by(client), max_bytes=max_bytes) as buffer:
            for _ in range(data.draw(st.integers(1, 4), label="pushes")):
                rows, cols, updates = self._drawn_update(tracked, data)
                buffer.push(rows, updates, **({} if cols is None else {"cols": cols}))
                add(tracked.values, rows, cols, updates)

    @rule(client=st.integers(0, 1))
    def flush(self, client: int) -> None:
        """Flush all that a client has pushed.

        Args:
            client: that does it.
        """
        self._clients[client].flush()
        for tracked in self._alive:
            if tracked.last == client:
                assert all(push.done() for push in tracked.pushes)
                tracked.settle()

    # --- servers ----------------------------------------------------------------------------------------------------

    @precondition(lambda self: self._num_restarts < self.restarts_max)
    @rule(server=st.integers(0, 2))
    def restart(self, server: int) -> None:
        """Stop a server in good order, whatever is under way to it, and start it again.

        Args:
            server: its number.
        """
        self._num_restarts += 1
        self._cluster.stop_server(server)
        self._cluster.restart_server(server)

    @invariant()
    def settled_models_equal_numpy(self) -> None:
        """Where pushes are under way, the steps themselves compare: a comparison here would wait for them."""
        for tracked in self._alive:
            if not tracked.pushes:
                self._compare(tracked, tracked.last)

    # --- inside -----------------------------------------------------------------------------------------------------

    def _new_client(self) -> Client:
        return self._cluster.client()

    def _unused_name(self) -> str:
        self._num_made += 1
        return f"model-{self._num_made}"

    def _track(self, made: BigMatrix | BigVector, values: NDArray[Any]) -> Tracked:
        custom = made.partitioner if made.partitioner.name.startswith("custom:") else None
        tracked = Tracked([client.open(made.name, partitioner=custom) for client in self._clients], values)
        assert all(handle == made for handle in tracked.handles)
        self._alive.append(tracked)
        return tracked

    @staticmethod
    def _compare(tracked: Tracked, client: int) -> None:
        handle = tracked.by(client)
        same(handle.pull().result(), tracked.values, handle, None, None)

    @staticmethod
    def _drawn_selection(tracked: Tracked, data: st.DataObject) -> tuple[Any, Any]:
        shape = tracked.values.shape
        forms = ["rows", "rows", "cols"] + (["elements"] if min(shape) else [])
        form = data.draw(st.sampled_from(forms), label="form")
        if form == "rows" or len(shape) == 1:
            return data.draw(selections(shape[0]), label="rows"), None
        if form == "cols":
            return None, data.draw(selections(shape[1]), label="cols")
        count = data.draw(st.integers(0, 30), label="elements")
        rows = data.draw(st.lists(st.integers(0, shape[0] - 1), min_size=count, max_size=count), label="rows")
        cols = data.draw(st.lists(st.integers(0, shape[1] - 1), min_size=count, max_size=count), label="cols")
        return rows, cols

    @classmethod
    def _drawn_update(cls, tracked: Tracked, data: st.DataObject) -> tuple[Any, Any, NDArray[Any]]:
        rows, cols = cls._drawn_selection(tracked, data)
        shape = read(tracked.values, rows, cols).shape
        generator = np.random.default_rng(data.draw(st.integers(0, 2**16), label="seed of the values"))
        lost_axes = data.draw(st.integers(0, len(shape)), label="axes that are broadcast")
        return rows, cols, numbers(tracked.values.dtype, shape[lost_axes:], generator)


def selections(size: int) -> st.SearchStrategy[Any]:
    """Draw whatever ``rows=``, ``cols=`` and ``keys=`` take, for an axis.

    Args:
        size: of the axis.
    """
    masks = st.lists(st.booleans(), min_size=size, max_size=size).map(lambda mask: np.array(mask, dtype=bool))
    forms: list[st.SearchStrategy[Any]] = [st.none(), st.slices(size), masks]
    if size:
        one = st.integers(0, size - 1)
        listed = st.lists(one, max_size=60)
        forms += [one, listed, listed.map(lambda keys: np.array(keys, dtype=np.int64))]
        forms.append(st.slices(size).map(lambda keys: range(*keys.indices(size))))
    return st.one_of(forms)
