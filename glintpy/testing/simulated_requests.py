"""Requests of a simulation and what must become of them: their futures, values and cells; knows no network.

A request is issued by itself, or as one of several that travel in a ``Bundle``: then all of them belong to one
op, and to one field of the cells.
"""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
from numpy.typing import NDArray

from glintpy.errors import PushOutcomeUnknown, RequestError
from glintpy.futures import Future
from glintpy.models.bundles import Bundle
from glintpy.models.dispatch import Target
from glintpy.models.indexing import Asked
from glintpy.models.requests import Requester
from glintpy.partitioning import Layout
from glintpy.protocol.outcomes import Kind
from glintpy.runtime import Runtime
from glintpy.testing.simulated_clients import SimulatedRuntime
from glintpy.testing.simulated_history import FIELD_BITS, Seen
from glintpy.testing.simulated_work import Op, counts_of, draw_weights

Grid = NDArray[np.int64]


@dataclass(slots=True, eq=False)
class Issued:
    """A request.

    Attributes:
        op: which it is, or is one of several of.
        asked: what it touches.
        weights: what a push adds there.
        future: its outcome.
        parts: those of the op that go to a server which it touches.
        is_bundled: whether it travels with others.
        out: where a bundled pull's values must go; None: anywhere.
    """

    op: Op
    asked: Asked
    weights: Grid
    future: Future[Any]
    parts: list[Seen]
    is_bundled: bool = False
    out: Grid | None = None

    @property
    def name(self) -> str:
        """What it is, for people."""
        bundled = "bundled " if self.is_bundled else ""
        return f"{bundled}{self.op.what} {self.op.place} of client {self.op.client}"


# --- issuing ------------------------------------------------------------------------------------------------


def issue_alone(
    client: SimulatedRuntime, target: Target, op: Op, asked: Asked, *, source: random.Random
) -> Issued:
    """Issue a request by itself; its parts are yet to be noted.

    Args:
        client: who issues it.
        target: the model.
        op: what is done.
        asked: what it touches.
        source: draws what a push adds.
    """
    weights = draw_weights(source, asked)
    requester = Requester(cast("Runtime", client), target, asked, kind=_kind(op))
    into = np.full(asked.wire_shape, -1, dtype=np.int64)
    if op.what == "pull":
        return Issued(op, asked, weights, requester.pull(into, _as_it_is), [])
    values = weights << (FIELD_BITS * op.place)
    reads = op.what == "push_pull"
    future = requester.push(values, into=into if reads else None, finish=_as_it_is if reads else None)
    values[...] = -1  # the caller's array is the caller's again
    return Issued(op, asked, weights, future, [])


def issue_together(
    bundle_type: type[Bundle],
    client: SimulatedRuntime,
    target: Target,
    op: Op,
    members: Sequence[Asked],
    *,
    source: random.Random,
) -> list[Issued]:
    """Issue requests as one bundle; their parts are yet to be noted.

    Args:
        bundle_type: the real one, or one with a defect.
        client: who issues them.
        target: the model.
        op: what each of them does.
        members: what each of them touches.
        source: draws what pushes add, and which pulls bring an array along.
    """
    bundle = bundle_type(cast("Runtime", client), target, _kind(op), paired=members[0].paired)
    issued = []
    for asked in members:
        weights = draw_weights(source, asked)
        out = None
        if op.what == "pull":
            out = np.full(asked.shape, -1, dtype=np.int64) if source.random() < 0.5 else None
            future = bundle.join(asked, 1, out)
        else:
            values = (weights << (FIELD_BITS * op.place)).reshape(asked.shape)
            future = bundle.join(asked, 1, values)
            values[...] = -1  # the caller's array is the caller's again
        issued.append(Issued(op, asked, weights, future, [], is_bundled=True, out=out))
    bundle.issue()
    return issued


def note_parts(issued: Sequence[Issued], parts: Sequence[Seen], layout: Layout) -> None:
    """Note for each request of one op those of its parts that go where it goes."""
    for request in issued:
        if request.is_bundled:
            servers = {server for server, _ in _places(layout, request.asked)}
            request.parts += [part for part in parts if part.server in servers]
        else:
            request.parts += parts


def bundles_of(issued: Sequence[Issued]) -> list[list[Issued]]:
    """Return the requests that travelled together."""
    found: dict[int, list[Issued]] = defaultdict(list)
    for request in issued:
        if request.is_bundled:
            found[id(request.op)].append(request)
    return list(found.values())


def _kind(op: Op) -> Kind:
    return "pull" if op.what == "pull" else "push"


def _as_it_is(values: Grid) -> Grid:
    return values


def _places(layout: Layout, asked: Asked) -> list[tuple[int, int]]:
    """Return (server, row there) of each row or element, by the layout's arithmetic on single keys."""
    shares = [layout.locate(np.array([key]))[0] for key in np.asarray(asked.rows).tolist()]
    return [(share.server, int(share.rows[0])) for share in shares]


# --- judging ------------------------------------------------------------------------------------------------


def judge_requests(
    issued: Sequence[Issued], wholes: Sequence[Grid], layouts: Sequence[Layout]
) -> Iterator[str]:
    """Yield what was promised of requests and not kept.

    Args:
        issued: all of them.
        wholes: each model as it lies on the servers in the end, by its index.
        layouts: of the models.
    """
    by_field: dict[tuple[int, int], list[Issued]] = defaultdict(list)
    for request in issued:
        yield from _judge_future(request)
        if request.is_bundled and request.op.what == "pull":
            yield from _judge_dealt(
                request, layouts[request.op.model], num_cols=wholes[request.op.model][0].size
            )
        if request.op.place >= 0:
            by_field[request.op.model, request.op.place].append(request)
    for (model, _), requests in by_field.items():
        yield from _judge_field(requests, wholes[model])


def _judge_future(issued: Issued) -> Iterator[str]:
    name = issued.name
    if not issued.future.done():
        yield f"{name} never had an outcome"
        return
    error = issued.future.exception()
    fates = [part.fate for part in issued.parts]
    if (error is None) != all(fate == "applied" for fate in fates):
        yield f"{name} has the parts {fates} and raises {error!r}"
    if issued.op.what == "pull" or error is None or not isinstance(error, RequestError):
        return
    is_unknown, is_in = "unknown" in fates, "applied" in fates
    expected = "unknown" if is_unknown else "partial" if is_in else "none"
    if error.outcome != expected or isinstance(error, PushOutcomeUnknown) != (is_unknown or is_in):
        yield f"{name} has the parts {fates} and says {error.outcome!r} by {type(error).__name__}"
    told = {fate: sum(counts[fate] for counts in error.parts.values()) for fate in set(fates)}
    if told != {fate: fates.count(fate) for fate in set(fates)}:
        yield f"{name} has the parts {fates} and tells of {told}"


def _judge_field(requests: Sequence[Issued], whole: Grid) -> Iterator[str]:
    """What is in must lie where numpy would have put it, whoever travelled with whom."""
    fates = {part.fate for request in requests for part in request.parts}
    if len(fates) != 1 or not fates <= {"applied", "refused"}:
        return
    op = requests[0].op
    found = (whole >> (FIELD_BITS * op.place)) & (2**FIELD_BITS - 1)
    due = np.zeros_like(whole)
    if fates == {"applied"}:
        for request in requests:
            due += counts_of(request.asked, request.weights, whole.shape)
    if not np.array_equal(found, due):
        yield f"{op.what} {op.place} ({fates.pop()}) is not what numpy makes of it"


def _judge_dealt(issued: Issued, layout: Layout, *, num_cols: int) -> Iterator[str]:
    """What each pull of a bundle is given is what its own cells' parts have read."""
    if not issued.future.done() or issued.future.exception() is not None:
        return
    result = issued.future.result()
    if issued.out is not None and result is not issued.out:
        yield f"{issued.name} has its values somewhere else than it said"
    read: dict[tuple[int, int], set[int]] = defaultdict(set)  # by (server, cell)
    for part in issued.parts:
        if part.values is not None:
            for cell, value in zip(part.cells.tolist(), part.values.tolist(), strict=True):
                read[part.server, cell].add(value)
    cols = np.asarray(issued.asked.cols).tolist() if issued.asked.paired else None
    cells = []
    for position, (server, row) in enumerate(_places(layout, issued.asked)):
        mine = range(num_cols) if cols is None else [cols[position]]
        cells += [(server, row * num_cols + col) for col in mine]
    values = np.asarray(result)
    if values.shape != issued.asked.shape or values.size != len(cells):
        yield f"{issued.name} asked for {issued.asked.shape} and was given {values.shape}"
        return
    wrong = [
        cell for cell, value in zip(cells, values.ravel().tolist(), strict=True) if value not in read[cell]
    ]
    if wrong:
        yield f"{issued.name} was given others' values in {len(wrong)} of {len(cells)} cells, first {wrong[0]}"
