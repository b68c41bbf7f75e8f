"""The master actor: members, groups, models and routing; never on the path of a pull or push."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np

from glintpy import config
from glintpy.actors.base import LATER, Inbox, Later, RequestActor
from glintpy.actors.catalog import Catalog, Model, Order, Request
from glintpy.actors.configuring import ANSWER_S
from glintpy.actors.groups import GroupMessage, Groups
from glintpy.actors.membership import Membership
from glintpy.actors.orphans import Orphans
from glintpy.actors.outlet import Outlet
from glintpy.errors import ConfigError, GlintError, ProtocolMismatch, RemoteProtocolError
from glintpy.protocol import wire
from glintpy.protocol.failures import error_of
from glintpy.protocol.messages import (
    VERSION,
    ConfigureShard,
    CreateShard,
    DestroyShard,
    Done,
    EndRound,
    Failure,
    Message,
    SetLive,
)
from glintpy.protocol.messages_master import (
    Beat,
    BeatSeen,
    ClusterState,
    ConfigureModel,
    CreateModel,
    DestroyModel,
    Join,
    Leave,
    OpenModel,
    PublishModel,
)
from glintpy.protocol.spec import ModelSpec
from glintpy.storage.registry import KnownServer, Registry
from glintpy.transport import Delivery, Listener

RECHECKS = 8
"""Ticks for which members are asked after a connection ended: libzmq tells of the end before it lets go."""


class MasterActor(RequestActor):
    """Answers members on its socket."""

    role: ClassVar[str] = "master"

    def __init__(
        self,
        inbox: Inbox,
        outlet: Outlet,
        *,
        listener: Listener,
        registry: Registry,
        settings: config.MembershipSettings,
        clock: Callable[[], float],
        wall_clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(inbox, outlet, clock=clock)
        self.wall_clock = wall_clock
        self.listener = listener
        self.registry = registry
        self.settings = settings
        self.cluster_id = registry.cluster_id
        self.members = Membership(settings)
        self._orphans = Orphans()
        self.catalog = Catalog(
            save=lambda model: registry.save_model(model.info.model_id, model.to_content()),
            drop=registry.drop_model,
            new_model_id=registry.new_model_id,
        )
        for server in registry.servers():
            self.members.remember(
                server.member_id,
                name=server.name,
                address=server.address,
                incarnation=server.incarnation,
                host=server.host,
            )
        for content in registry.models():
            self.catalog.restore(Model.from_content(content))
        self.groups = Groups(
            save=registry.save_groups,
            client=self.members.client,
            settings=config.GroupSettings(),
            followed_by=self.catalog.rounds,
        )
        self._started = clock()
        self.groups.restore(registry.groups(), registry.workers(), registry.messages(), self._started)
        self._awaited = {server.member_id for server in self.members.servers()}
        self._postponed: list[tuple[bytes, CreateModel | ClusterState]] = []
        self._asked: dict[int, Order] = {}
        self._request_ids = itertools.count(1)
        self._num_disconnects = 0
        self._rechecks = 0

    def handle(self, peer: bytes, message: Message) -> Message | Later | None:
        """Return the answer to a member."""
        now = self.clock()
        if isinstance(message, CreateModel | ClusterState) and self._awaits_servers(now):
            self._postponed.append((peer, message))
            return LATER
        if isinstance(message, GroupMessage):
            self.groups.ask(message, now, self._settle(peer, message.request_id))
            self._follow_groups(now)
            return LATER
        answer = self._answer(peer, message, now)
        if isinstance(message, Join):
            self._taken(peer, message, answer, now)
            answer = LATER
        self._send_orders()
        return answer

    def _answer(self, peer: bytes, message: Message, now: float) -> Message | Later | None:
        match message:
            case Beat():
                known = self.members.beat(message, peer, now)
                return BeatSeen(message.request_id, known, self.members.changes)
            case Join():
                return self._join(peer, message, now)
            case Leave():
                self._leave(message, now)
                return Done(message.request_id, wire.document({}))
            case CreateModel() | OpenModel() | PublishModel() | DestroyModel() | ConfigureModel():
                return self._about_model(peer, message, now)
            case ClusterState():
                return self._done(message, self.state(now))
            case Done() | Failure():
                self._answered(message)
                self._follow_groups(now)
                return None
            case _:
                raise RemoteProtocolError(f"{type(message).__name__} is not for a master")

    # --- members ------------------------------------------------------------------------------------------------

    def _join(self, peer: bytes, message: Join, now: float) -> Message:
        self._awaited.discard(message.member_id)  # taken or refused: it is there
        if not message.version_min <= VERSION <= message.version_max:
            raise ProtocolMismatch(
                f"{message.name} speaks protocol versions {message.version_min} to {message.version_max}, "
                f"this master speaks {VERSION}: upgrade the older side"
            )
        if message.cluster_id and message.cluster_id != self.cluster_id:
            raise ConfigError(
                f"server {message.name} holds models of cluster {message.cluster_id}, and this master's cluster is "
                f"{self.cluster_id}: start the master with its old --data-dir, or the server with an empty one"
            )
        if message.is_server:
            self.registry.check_not_older(message.era, message.highest_model)
        known_before = self.members.server(message.member_id)
        member = self.members.join(message, peer, now)
        if member.is_server:
            if known_before is not None and known_before.incarnation != member.incarnation:
                # Whatever its last process may still have said is not this one's answer.
                self._expect_nothing_of(member.member_id)
            known = KnownServer(
                member.member_id, member.name, member.address, member.incarnation, member.host
            )
            self.registry.save_server(known, position=member.order)
        models = self.catalog.ids_on(member.member_id) if member.is_server else []
        return self._done(
            message,
            {
                "cluster_id": self.cluster_id,
                "era": self.registry.era,
                "models": models,
                "beat_s": self.settings.beat_s,
            },
        )

    def _taken(self, peer: bytes, message: Join, answer: Message | Later | None, now: float) -> None:
        """Send a new member its answer, and only behind it what was kept for it."""
        # A server forgets what its answer doesn't list: what it is told to make must not overtake that.
        if isinstance(answer, Message):
            self.answer(peer, answer)
        if message.is_server:
            self.catalog.server_joined(message.member_id)
            self._catch_up(now)
        elif (client := self.members.client(message.member_id)) is not None:
            self.groups.came(client, now)

    def _awaits_servers(self, now: float) -> bool:
        """Whether servers that an earlier master knew may yet join this one.

        They take a second. Who would make a model until then would make it on some of them, and who would ask for
        their states would hear that they are lost, and give up what is under way to them.
        """
        if now - self._started > self.settings.silent_s:
            self._awaited.clear()
        return bool(self._awaited)

    def _catch_up(self, now: float) -> None:
        """Answer what was kept until the servers were back."""
        if not self._postponed or self._awaits_servers(now):
            return
        postponed, self._postponed = self._postponed, []
        for peer, message in postponed:
            try:
                answer = self._answer(peer, message, now)
            except Exception as error:  # noqa: BLE001 - whatever one request meets is its own answer
                answer = self.failure(message.request_id, error)
            if isinstance(answer, Message):
                self.answer(peer, answer)

    def _leave(self, message: Leave, now: float) -> None:
        server = self.members.server(message.member_id)
        self.members.leave(message.member_id)
        self._miss_clients(now)
        if server is not None:
            self._give_up(server.member_id, now)
            if not self.catalog.ids_on(server.member_id):
                # It held nothing: nobody waits for its return.
                self.members.forget(server.member_id)
                self.registry.drop_server(server.member_id)

    def on_tick(self, now: float) -> None:
        """Look for members that are gone and for creations that take too long."""
        self._find_lost_connections()
        self.members.tick(now, self.groups.client_ids)
        self._miss_clients(now)
        self.groups.tick(now)
        for server in self.members.servers():
            if server.state in {"lost", "stopped"}:
                self._give_up(server.member_id, now)
        self.catalog.tick(now)
        self._end_orphans(now)
        self._catch_up(now)
        self._follow_groups(now)

    def _end_orphans(self, now: float) -> None:
        due = self._orphans.due(
            self.catalog.unpublished(), lambda owner: self.members.client(owner) is not None, now
        )
        for model_id in due:
            alive = {server.member_id for server in self.members.alive_servers()}
            self.catalog.destroy(model_id, alive, now, lambda _: None)

    def _miss_clients(self, now: float) -> None:
        while self.members.departures:
            departure = self.members.departures.popleft()
            if departure.may_return:
                self.groups.went_away(departure.client_id, now)
            else:
                self.groups.lost(departure.client_id, departure.reason, now)

    def _follow_groups(self, now: float) -> None:
        """Have models end the rounds that their groups have finished, and groups hear of it."""
        for name in self.catalog.rounds.groups:
            self.catalog.rounds.follow(name, self.groups.clocks(name)[0], self.groups.live(name))
            self.groups.applied(name, now)
        self._send_orders()

    def _give_up(self, server_id: str, now: float) -> None:
        """Expect no answer of a server that is gone."""
        self._expect_nothing_of(server_id)
        self.catalog.server_lost(server_id, now)

    def _expect_nothing_of(self, server_id: str) -> None:
        self._asked = {asked: order for asked, order in self._asked.items() if order.server_id != server_id}

    def _find_lost_connections(self) -> None:
        # A ROUTER doesn't say whose connection ended, only that one did. So everybody is sent a few bytes: who
        # can't be reached is gone.
        ended = self.listener.num_disconnects()
        if ended != self._num_disconnects:
            self._num_disconnects, self._rechecks = ended, RECHECKS
        if not self._rechecks:
            return
        self._rechecks -= 1
        news = wire.encode(BeatSeen(0, known=True, changes=self.members.changes))
        for member in [*self.members.servers(), *self.members.clients()]:
            if not member.peer or member.state not in {"alive", "hung"}:
                continue
            if self.listener.send(member.peer, news) is Delivery.GONE:
                self.members.lost_connection(member.peer)

    # --- models -------------------------------------------------------------------------------------------------

    def _about_model(
        self,
        peer: bytes,
        message: CreateModel | OpenModel | PublishModel | DestroyModel | ConfigureModel,
        now: float,
    ) -> Message | Later:
        match message:
            case CreateModel():
                return self._create(peer, message, now)
            case OpenModel():
                return self._done(
                    message, self._current(self.catalog.find(name=message.name, model_id=message.model_id))
                )
            case PublishModel():
                return self._done(message, self._current(self.catalog.publish(message.model_id)))
            case DestroyModel():
                alive = {server.member_id for server in self.members.alive_servers()}
                self.catalog.destroy(message.model_id, alive, now, self._settle(peer, message.request_id))
                return LATER
            case ConfigureModel():
                numbers = wire.content(message.numbers)
                if not isinstance(numbers, dict):
                    raise RemoteProtocolError("numbers of an updater have names")
                deadline = now + min(ANSWER_S, message.wait_ms / 1000)
                self.catalog.configure(
                    message.model_id, numbers, deadline, self._settle(peer, message.request_id)
                )
                return LATER
            case _:
                raise AssertionError(message)

    def _create(self, peer: bytes, message: CreateModel, now: float) -> Later:
        spec = ModelSpec.from_content(wire.content(message.spec))
        request = Request(
            spec,
            np.array(message.sizes),
            np.array(message.extents),
            message.token.hex(),
            message.exist_ok,
            message.publish,
            self.wall_clock(),
            self.groups.clocks(spec.group)[1],
            "" if message.publish else message.owner,
        )
        # By name, so that partitions lie alike in every run, however servers that start side by side race to join.
        alive = sorted(self.members.alive_servers(), key=lambda server: (server.name, server.member_id))
        servers = [(server.member_id, server.address) for server in alive]
        self.catalog.create(request, servers, now, self._settle(peer, message.request_id))
        return LATER

    def _settle(self, peer: bytes, request_id: int) -> Callable[[dict[str, Any] | GlintError], None]:
        def settle(result: dict[str, Any] | GlintError) -> None:
            if isinstance(result, GlintError):
                self.answer(peer, self.failure(request_id, result))
            else:
                self.answer(peer, Done(request_id, wire.document(result)))

        return settle

    def _send_orders(self) -> None:
        orders = self.catalog.orders
        while orders:
            order = orders.popleft()
            server = self.members.server(order.server_id)
            request_id = next(self._request_ids)
            message = self._message(order, request_id)
            reached = (
                server is not None
                and message is not None
                and self.outlet.send(server.peer, wire.encode(message))
            )
            if reached:
                self._asked[request_id] = order
            elif server is not None and message is not None:
                self.catalog.server_lost(order.server_id, self.clock())

    def _message(self, order: Order, request_id: int) -> Message | None:
        if order.kind == "destroy":
            return DestroyShard(request_id, order.model_id)
        model = self.catalog.model_of(order)
        if model is None:
            return None
        if order.kind == "configure":
            numbers = wire.document(model.info.spec.numbers)
            return ConfigureShard(request_id, order.model_id, model.numbers_version, numbers)
        if order.kind == "round":
            return EndRound(request_id, order.model_id, model.round_version)
        if order.kind == "live":
            return SetLive(request_id, order.model_id, model.live_version, model.live)
        return CreateShard(
            request_id,
            order.model_id,
            model.info.routing,
            model.rows_on(order.server_id),
            order.kind == "reserve",
            wire.document(model.info.spec.to_content()),
            model.extents_on(order.server_id),
        )

    def _answered(self, message: Done | Failure) -> None:
        order = self._asked.pop(message.request_id, None)
        if order is not None:
            error = error_of(message.code, message.text) if isinstance(message, Failure) else None
            self.catalog.answered(order, error)

    def _current(self, model: Model) -> dict[str, Any]:
        """Return a model's description with its servers' present addresses."""
        content = model.info.to_content()
        for entry in content["servers"]:
            server = self.members.server(entry[0])
            if server is not None:
                entry[1] = server.address
        return content

    # --- telling ------------------------------------------------------------------------------------------------

    def state(self, now: float) -> dict[str, Any]:
        """Return members, groups and models, as plain data."""
        return {
            "cluster_id": self.cluster_id,
            "up_s": round(now - self._started, 3),
            "address": self.listener.address,
            "changes": self.members.changes,
            "servers": [member.to_content(now) for member in self.members.servers()],
            "clients": [member.to_content(now) for member in self.members.clients()],
            "groups": self.groups.to_content(),
            "models": [self._told(model) for model in self.catalog.models()],
        }

    def _told(self, model: Model) -> dict[str, Any]:
        # The age is this clock's difference: whoever asks may have another clock.
        age_s = max(0.0, round(self.wall_clock() - model.created, 3)) if model.created else None
        return {**self._current(model), "created": model.created or None, "age_s": age_s}

    def close_state(self) -> None:
        """Close the registry."""
        self.registry.close()

    @staticmethod
    def _done(message: Message, content: Any) -> Done:
        return Done(message.request_id, wire.document(content))
