"""Ray's store: a driver that asks actors; run in Ray's own environment."""

from __future__ import annotations

from collections.abc import Callable
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import ray

from benchmarks.peers.ray_host import NAMESPACE, actor_name
from benchmarks.store import Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from benchmarks.draws import Draw
    from benchmarks.steps import Model, Step

Send = Callable[[], list[Any]]
Assemble = Callable[[list[Any]], Any]
Request = tuple[Send, Assemble]

BLOCK_BYTES = 1 << 20

AHEAD = 4
"""Blocks asked for ahead of their use, as glintpy's iterators do."""


class RayStore(Store):
    """A driver of the cluster; rows lie in runs over the actors, numbers by their rows.

    Args:
        address: of the cluster.
        num_servers: actors.
    """

    def __init__(self, address: str, num_servers: int) -> None:
        ray.init(address=address, namespace=NAMESPACE, log_to_driver=False)
        self._actors = [ray.get_actor(actor_name(server)) for server in range(num_servers)]

    def attach(self, model: Model, *, rank: int) -> None:
        """Make each actor's array."""
        if rank:
            return
        made = []
        for actor, (start, stop) in zip(self._actors, self._spans(model), strict=True):
            shape = (stop - start, model.cols) if model.cols else (stop - start,)
            made.append(actor.make.remote(model.name, shape, model.dtype))
        ray.get(made)

    def prepare(self, step: Step, draws: list[Draw]) -> list[Request]:
        """Return calls with each actor's share made already."""
        if step.verb == "iterate":
            return [(list, lambda _: self._iterate(step))]
        return [self._request(step, draw) for draw in draws]

    def issue(self, request: Request) -> tuple[list[Any], Assemble]:
        """Make the calls."""
        send, assemble = request
        return send(), assemble

    def finish(self, pending: tuple[list[Any], Assemble]) -> Any:
        """Wait for the answers, and put them together."""
        references, assemble = pending
        return assemble(ray.get(references))

    def drop(self, model: Model) -> None:
        """Let go of each actor's array."""
        ray.get([actor.drop.remote(model.name) for actor in self._actors])

    def close(self) -> None:
        """Leave the cluster."""
        ray.shutdown()

    # --- requests -------------------------------------------------------------------------------------------------

    def _spans(self, model: Model) -> list[tuple[int, int]]:
        bounds = [model.rows * number // len(self._actors) for number in range(len(self._actors) + 1)]
        return list(pairwise(bounds))

    def _request(self, step: Step, draw: Draw) -> Request:
        method = step.verb if step.what in ("rows", "slice", "all") else f"{step.verb}_numbers"
        calls: list[Callable[[], Any]] = []
        places: list[Any] = []
        for actor, span in zip(self._actors, self._spans(step.model), strict=True):
            place, index = _share(step, draw, span)
            if place is None:
                continue
            arguments = [step.model.name, index]
            if draw.values is not None:
                arguments.append(draw.values[place])
            calls.append(_call(getattr(actor, method), arguments))
            places.append(place)

        def assemble(answers: list[Any]) -> Any:
            if step.verb == "push" or len(answers) == 1:
                return answers[0]
            shape = (step.num, *answers[0].shape[1:])
            out = np.empty(shape, answers[0].dtype)
            for place, answer in zip(places, answers, strict=True):
                out[place] = answer
            return out

        return (lambda: [call() for call in calls]), assemble

    def _iterate(self, step: Step) -> None:
        pending: list[list[Any]] = []
        for references in self._blocks(step) if step.what == "blocks" else self._columns(step):
            pending.append(references)
            if len(pending) > AHEAD:
                ray.get(pending.pop(0))
        for references in pending:
            ray.get(references)

    def _blocks(self, step: Step) -> Any:
        num_rows = max(1, BLOCK_BYTES // step.model.row_bytes)
        for actor, (start, stop) in zip(self._actors, self._spans(step.model), strict=True):
            for first in range(0, stop - start, num_rows):
                yield [actor.pull.remote(step.model.name, (first, min(first + num_rows, stop - start)))]

    def _columns(self, step: Step) -> Any:
        for column in range(step.model.cols):
            yield [actor.pull_column.remote(step.model.name, column) for actor in self._actors]


def make(opening: dict[str, Any]) -> Store:
    """Return the store of a client process.

    Args:
        opening: the details that the system gave.
    """
    return RayStore(opening["address"], opening["servers"])


def _call(method: Any, arguments: list[Any]) -> Callable[[], Any]:
    return lambda: method.remote(*arguments)


def _share(step: Step, draw: Draw, span: tuple[int, int]) -> tuple[Any, Any]:
    """Return where an actor's part stands in the request, and what to ask it for; None for nothing."""
    start, stop = span
    if draw.rows is None:
        low, high = max(start, draw.start), min(stop, draw.stop)
        if low >= high:
            return None, None
        return slice(low - draw.start, high - draw.start), (low - start, high - start)
    positions: NDArray[Any] = np.flatnonzero((draw.rows >= start) & (draw.rows < stop))
    if not len(positions):
        return None, None
    index = draw.rows[positions] - start
    if draw.cols is not None:
        index = index * step.model.cols + draw.cols[positions]
    return positions, index
