"""The world of one simulated run: it makes servers and clients, lets them work, and looks at what came of it.

Knows no socket, thread or sleep; what happened to parts is judged in ``simulated_history``, what futures and
whole models say is judged here.
"""

from __future__ import annotations

import contextlib
import functools
import random
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from glintpy import failpoints, updaters
from glintpy.models.requests import Target
from glintpy.partitioning import Layout, named
from glintpy.protocol import wire
from glintpy.protocol.calls import Call, Result, Stamp
from glintpy.protocol.messages import CreateShard, Push
from glintpy.testing.simulated_clients import SimulatedEnd, SimulatedRuntime
from glintpy.testing.simulated_history import FIELD_BITS, History, Violation, judge
from glintpy.testing.simulated_network import Network, Scheduler
from glintpy.testing.simulated_requests import (
    Issued,
    bundles_of,
    issue_alone,
    issue_together,
    judge_requests,
    note_parts,
)
from glintpy.testing.simulated_servers import Build, Killed, SimulatedServer
from glintpy.testing.simulated_work import (
    WORK_S,
    Kind,
    Op,
    Plan,
    draw_members,
    draw_models,
    draw_ops,
    draw_selection,
    read_of,
)

MESSAGES_MAX = 20_000
"""A run needs a few hundred; whoever sends so many answers each message with another one."""

KILLED_AT = tuple(
    sorted(name for name in failpoints.NAMES if name.startswith(("push.", "pull.", "recover.")))
)
"""The places inside a server's work at which it may be killed."""

HORIZON_S = 60.0
"""After the last accident everything has an outcome within this time; the longest wait of a probe is 6 s."""


@dataclass(frozen=True, slots=True)
class Report:
    """What happened in one run.

    Attributes:
        seed: the run's.
        kind: of network and accidents.
        num_pushes: pushes issued, bad ones included.
        num_parts: parts of pushes.
        num_applied: parts that were acknowledged.
        num_refused: parts that were refused, or never left their client.
        num_unknown: parts that were given up after they had left.
        num_pulls: parts of pulls.
        num_bundles: requests that were several small ones.
        num_mixed: those of them whose members had different outcomes.
        num_messages: ZeroMQ messages sent.
        num_lost: messages that the network lost.
        num_probes: asked by clients.
        num_payload_resends: pushes sent again with their values.
        num_repeats: pushes that a server saw again and answered from its receipts.
        num_gaps: pushes and pulls that came too early.
        num_kills: servers that were killed.
        virtual_s: how long it took in simulated time.
    """

    seed: int
    kind: Kind
    num_pushes: int
    num_parts: int
    num_applied: int
    num_refused: int
    num_unknown: int
    num_pulls: int
    num_bundles: int
    num_mixed: int
    num_messages: int
    num_lost: int
    num_probes: int
    num_payload_resends: int
    num_repeats: int
    num_gaps: int
    num_kills: int
    virtual_s: float


class World:
    """Servers, clients, the network and what they do.

    Args:
        plan: what is drawn from the seed.
        folder: where servers keep their files; None: in memory.
        build: the classes to use.
    """

    def __init__(self, plan: Plan, folder: Path | None, build: Build) -> None:
        self.plan = plan
        self._build = build
        self._source = random.Random(plan.seed + 1)  # noqa: S311 - drawn again from the same seed
        self._scheduler = Scheduler()
        self._start = self._scheduler.now
        self._network = Network(self._scheduler, plan.faults, random.Random(plan.seed + 2))  # noqa: S311 - as above
        self.history = History()
        self.servers = [
            SimulatedServer(
                number,
                self._network,
                folder=None if folder is None else folder / str(number),
                settings=plan.settings,
                build=build,
            )
            for number in range(self._source.randint(1, 3))
        ]
        for server in self.servers:
            server.at_end = self._count
        addresses = [(server.server_id, server.address) for server in self.servers]
        self._models = draw_models(self._source, addresses)
        self._layouts = [
            Layout(
                named(info.spec.partitioner, info.spec.num_rows, len(info.owners)),
                info.owners_array(),
                len(self.servers),
            )
            for info in self._models
        ]
        self._create_models()
        self.clients = [self._client(number) for number in range(plan.num_clients)]
        self.issued: list[Issued] = []
        self._num_repeats = self._num_gaps = 0
        self._is_healed = False

    # --- running ----------------------------------------------------------------------------------------------

    def run(self) -> None:
        """Let everything happen, until nothing is under way; a send that must not be is a ``Violation``."""
        ops = draw_ops(self._source, self.plan, len(self._models))
        for op in ops:
            self._scheduler.after(op.at_s, functools.partial(self._do, op))
        self._plan_accidents()
        self._scheduler.after(WORK_S + 1.0, self._heal)
        with contextlib.ExitStack() as stack:
            for name in KILLED_AT if self.plan.kill else ():
                stack.enter_context(failpoints.armed(name, self._maybe_kill))
            self._run_until_rest(WORK_S + 1.0)
        for op in self._last_pulls():
            self._do(op)
        self._run_until_rest(0.0)

    def _run_until_rest(self, least_s: float) -> None:
        earliest = self._scheduler.now + least_s
        latest = earliest + HORIZON_S
        while self._scheduler.now < latest:
            for _ in range(32):
                self._scheduler.step()
            if self._network.num_messages > MESSAGES_MAX:
                raise Violation(f"a storm of {self._network.num_messages} messages")
            if self._scheduler.now > earliest and self._is_at_rest():
                return

    def _maybe_kill(self) -> None:
        if not self._is_healed and self._network.source.random() < self.plan.kill:
            raise Killed

    def _is_at_rest(self) -> bool:
        return (
            all(server.is_up for server in self.servers)
            and self._network.num_in_flight == 0
            and all(part.settled for part in self.history.parts)
        )

    def _heal(self) -> None:
        self._is_healed = True
        self._network.heal()
        for node in self._nodes():
            node.resume()

    def _plan_accidents(self) -> None:
        source, after = self._source, self._scheduler.after
        for _ in range(self.plan.num_resets):
            after(source.uniform(0.05, WORK_S + 0.5), self._reset_a_line)
        for _ in range(self.plan.num_restarts):
            after(source.uniform(0.1, WORK_S), self._restart_a_server)
        for _ in range(self.plan.num_kills):
            after(source.uniform(0.1, WORK_S), source.choice(self.servers).kill)
        # One after the other stops, and they come back in another order.
        for _ in range(self.plan.num_pauses):
            node = source.choice(self._nodes())
            begin_s = source.uniform(0.0, WORK_S)
            after(begin_s, node.pause)
            after(begin_s + source.choice([0.05, 0.3, 1.0]), node.resume)

    def _nodes(self) -> list[SimulatedServer | SimulatedRuntime]:
        return [*self.servers, *self.clients]

    def _reset_a_line(self) -> None:
        if self._network.lines:
            self._source.choice(self._network.lines).reset()

    def _restart_a_server(self) -> None:
        server = self._source.choice(self.servers)
        if server.is_up:
            server.stop()
            self._scheduler.after(self._source.uniform(0.02, 0.6), server.start)

    # --- what clients do ----------------------------------------------------------------------------------------

    def _do(self, op: Op) -> None:
        client = self.clients[op.client]
        if client.is_closed:
            return
        if op.what == "close":
            client.close()
            return
        info = self._models[op.model]
        if op.what == "bad rows":
            self._push_bad_rows(client, op)
            return
        history, layout = self.history, self._layouts[op.model]
        first, history.place, history.is_bad = len(history.parts), op.place, op.what == "stale"
        found = replace(info, routing=7) if op.what == "stale" else info
        updater = updaters.named(info.spec.updater, info.spec.numbers)
        target = Target(found, layout, op.timeout_s, updater=updater)
        if op.num_members:
            members = draw_members(self._source, info, op.num_members)
            issued = issue_together(self._build.bundle, client, target, op, members, source=self._source)
        else:
            issued = [
                issue_alone(client, target, op, draw_selection(self._source, info), source=self._source)
            ]
        note_parts(issued, history.parts[first:], layout)
        self.issued += issued
        history.place, history.is_bad = -1, False

    def _push_bad_rows(self, client: SimulatedRuntime, op: Op) -> None:
        """Send what no client of ours would: rows that the server doesn't have, beside one that it has."""
        info, place = self._models[op.model], self._source.randrange(len(self.servers))
        server = self.servers[place]
        num_rows = self._layouts[op.model].num_rows_of(place)
        rows = np.array([0, num_rows + self._source.randrange(3)], dtype=np.int64)
        values = np.full((2, *info.spec.row_shape), 1 << (FIELD_BITS * op.place), dtype=np.int64)
        request_id = client.new_request_id()

        def build(stamp: Stamp) -> Push:
            where = (request_id, stamp.session, stamp.floor, stamp.sequence, info.model_id, info.routing)
            return Push(*where, 0, False, False, 0, 0, 0, False, rows, None, values)

        self.history.place, self.history.is_bad = op.place, True
        client.link(server.server_id, server.address)
        client.submit(
            server.server_id,
            Call(
                request_id,
                build,
                _ignore,
                deadline=client.deadline(op.timeout_s),
                cost_bytes=values.nbytes,
                model_id=info.model_id,
                numbered=True,
            ),
        )
        self.history.place, self.history.is_bad = -1, False

    def _last_pulls(self) -> list[Op]:
        """Make a last client that reads everything."""
        self.clients.append(self._client(len(self.clients)))
        number = len(self.clients) - 1
        models = range(len(self._models))
        return [
            Op(0.0, number, "pull", model, num_members=num_members)
            for model in models
            for num_members in (0, 3)
        ]

    # --- judging ------------------------------------------------------------------------------------------------

    def judge(self) -> Iterator[str]:
        """Yield what was promised and not kept."""
        shards = {
            (place, info.model_id): server.actor.shelf.shard(info.model_id).values
            for place, server in enumerate(self.servers)
            for info in self._models
        }
        yield from judge(self.history, shards, may_expel=self.plan.kind == "expiry")
        wholes = [self._whole(model) for model in range(len(self._models))]
        yield from judge_requests(self.issued, wholes, self._layouts)
        last = len(self.clients) - 1
        for issued in self.issued:
            if issued.op.client != last or not issued.future.done() or issued.future.exception() is not None:
                continue
            read = read_of(wholes[issued.op.model], issued.asked).reshape(np.shape(issued.future.result()))
            if not np.array_equal(issued.future.result(), read):
                yield f"a last pull from {self._models[issued.op.model].spec.name} differs from what lies there"
        resends = sum(end.session.num_payload_resends for end in self._ends())
        if self.plan.kind in {"clean", "pauses"} and resends:
            yield f"{resends} payloads were sent again where no connection broke"

    def _whole(self, model: int) -> NDArray[np.int64]:
        """Return the model as it lies on the servers, by the layout's arithmetic on single keys."""
        info, layout = self._models[model], self._layouts[model]
        whole = np.empty((info.spec.num_rows, *info.spec.row_shape), dtype=np.int64)
        for key in range(info.spec.num_rows):
            (share,) = layout.locate(np.array([key]))
            shard = self.servers[share.server].actor.shelf.shard(info.model_id)
            whole[key] = shard.values[int(share.rows[0])]
        return whole

    def report(self) -> Report:
        """Say what happened in numbers."""
        for server in self.servers:
            self._count(server)
        pushes = [part for part in self.history.parts if part.weights is not None]
        fates = [part.fate for part in pushes]
        sessions = [end.session for end in self._ends()]
        bundles = bundles_of(self.issued)
        return Report(
            seed=self.plan.seed,
            kind=self.plan.kind,
            num_pushes=len({(part.model_id, part.place) for part in pushes}),
            num_parts=len(pushes),
            num_applied=fates.count("applied"),
            num_refused=fates.count("refused"),
            num_unknown=fates.count("unknown"),
            num_pulls=len(self.history.parts) - len(pushes),
            num_bundles=len(bundles),
            num_mixed=sum(
                len({request.future.exception() is None for request in all_}) > 1 for all_ in bundles
            ),
            num_messages=self._network.num_messages,
            num_lost=self._network.num_lost,
            num_probes=sum(session.num_probes for session in sessions),
            num_payload_resends=sum(session.num_payload_resends for session in sessions),
            num_repeats=self._num_repeats,
            num_gaps=self._num_gaps,
            num_kills=sum(server.num_kills for server in self.servers),
            virtual_s=self._scheduler.now - self._start,
        )

    def close(self) -> None:
        """Let go of files."""
        for server in self.servers:
            if server.is_up:
                server.actor.close_state()

    # --- helpers ------------------------------------------------------------------------------------------------

    def _client(self, number: int) -> SimulatedRuntime:
        return SimulatedRuntime(
            number,
            self._network,
            self.servers,
            settings=self.plan.client_settings,
            build=self._build,
            watcher=self.history,
        )

    def _create_models(self) -> None:
        for info, layout in zip(self._models, self._layouts, strict=True):
            self.history.add_model(info.model_id, num_cols=info.spec.num_cols)
            for place, server in enumerate(self.servers):
                spec = wire.document(info.spec.to_content())
                num_rows = layout.num_rows_of(place)
                extents = np.empty((0, 4), dtype=np.int64)
                request = CreateShard(1, info.model_id, info.routing, num_rows, False, spec, extents)
                server.create(request, info.model_id)

    def _count(self, server: SimulatedServer) -> None:
        self._num_repeats += server.actor.receipts.num_repeats
        self._num_gaps += server.actor.receipts.num_gaps

    def _ends(self) -> list[SimulatedEnd]:
        return [end for client in self.clients for end in client.ends.values()]


def _ignore(result: Result) -> None:
    """Settle what the history has noted already."""
