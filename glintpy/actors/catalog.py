"""The models of a cluster and how one is made and ended on all its servers or none; pure.

What spans several servers is a state machine driven by their answers and by ticks, never a wait, so that a
master that waits for servers still hears heartbeats. It returns orders (what to send to which server) and
settles requests through the callback that came with them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from glintpy import config
from glintpy.actors.configuring import Configuring
from glintpy.actors.rounds import Rounds
from glintpy.errors import (
    GlintError,
    ModelExists,
    ModelNotFound,
    NotEnoughServers,
    RemoteProtocolError,
    ServerLost,
    ShapeError,
)
from glintpy.protocol.spec import ModelInfo, ModelSpec
from glintpy.records import record

Settle = Callable[[dict[str, Any] | GlintError], None]
"""Called once, with the content of the answer or the error."""

CREATION_S = 60.0
"""How long servers may take to initialise a model before its creation is undone."""

RETURN_S = 10.0
"""How long a creation waits for one of its servers that was lost meanwhile: who starts it again takes two or three
seconds, more on a busy machine; when it joins it is told again what to do."""


class Order(NamedTuple):
    """Something to ask of a server; the answer comes back through ``Catalog.answered``."""

    server_id: str
    kind: Literal["reserve", "create", "destroy", "configure", "round", "live"]
    model_id: int
    version: int = 0
    """Of an updater's numbers, of a round, or of who is alive."""


@dataclass(slots=True, eq=False)
class Model:
    """A model, in the making or ready."""

    info: ModelInfo
    sizes: NDArray[np.int64]
    extents: NDArray[np.int64]
    token: str
    is_published: bool
    created: float = 0.0
    """Wall seconds since 1970, by the master's clock, for people and for what clears up; 0: nobody noted it."""
    numbers_version: int = 0
    """How often its updater's numbers have been changed."""
    numbers_made: str = ""
    """The numbers that it was made with, if they have been changed."""
    round_clock: int = 0
    """Of the group that it follows: the last step that all servers have applied."""
    round_version: int = 0
    """How many rounds have been begun to be ended."""
    live: int = 0
    """A bit for each rank of the group that it follows."""
    live_version: int = 0
    """How often these have changed."""
    owner: str = ""
    """Until it is published, the client that fills it."""
    stage: Literal["reserve", "create", "ready", "destroy"] = "reserve"
    pending: set[str] = field(default_factory=set)
    waiting: list[Settle] = field(default_factory=list)
    deadline: float = 0.0
    lost: dict[str, float] = field(default_factory=dict)
    """Servers that were lost while it is made, and when it was seen."""

    @property
    def is_in_the_making(self) -> bool:
        """Whether servers are about to make it."""
        return self.stage in {"reserve", "create"}

    @property
    def server_ids(self) -> list[str]:
        """The servers that hold a part."""
        return [server_id for server_id, _ in self.info.servers]

    def rows_on(self, server_id: str) -> int:
        """Return how many rows a server holds."""
        owners = self.info.owners_array()
        return int(self.sizes[owners == self.server_ids.index(server_id)].sum())

    def extents_on(self, server_id: str) -> NDArray[np.int64]:
        """Return (k, 4): server row, rows, first global row, step, of each partition on a server."""
        if not self.extents.size:
            return np.empty((0, 4), np.int64)
        mine = np.flatnonzero(self.info.owners_array() == self.server_ids.index(server_id))
        sizes = self.sizes[mine]
        offsets = np.cumsum(sizes) - sizes
        return np.column_stack([offsets, sizes, self.extents[mine]])

    def to_content(self) -> dict[str, Any]:
        """Return plain data for the registry."""
        return {
            "info": self.info.to_content(),
            "sizes": self.sizes.tolist(),
            "extents": self.extents.tolist(),
            "token": self.token,
            "is_published": self.is_published,
            "created": self.created,
            "numbers_version": self.numbers_version,
            "numbers_made": self.numbers_made,
            "round_clock": self.round_clock,
            "round_version": self.round_version,
            "live": self.live,
            "live_version": self.live_version,
            "owner": self.owner,
        }

    @classmethod
    def from_content(cls, content: dict[str, Any]) -> Model:
        """Return a model from the registry."""
        return cls(
            ModelInfo.from_content(content["info"]),
            np.array(content["sizes"], dtype=np.int64),
            np.array(content["extents"], dtype=np.int64).reshape(-1, 2),
            content["token"],
            content["is_published"],
            float(content.get("created", 0.0)),  # registries of earlier masters don't say
            int(content.get("numbers_version", 0)),
            str(content.get("numbers_made", "")),
            int(content.get("round_clock", 0)),
            int(content.get("round_version", 0)),
            int(content.get("live", 0)),
            int(content.get("live_version", 0)),
            str(content.get("owner", "")),
            stage="ready",
        )


@record
class Request:
    """What a client asks to be made."""

    spec: ModelSpec
    sizes: NDArray[np.int64]
    extents: NDArray[np.int64]
    token: str
    exist_ok: bool
    publish: bool
    asked: float = 0.0
    """Wall seconds since 1970, by the master's clock."""
    round_clock: int = 0
    """Of the group that the model is to follow: steps up to this one are no round of it."""
    owner: str = ""
    """The client that is to fill it; with ``publish`` nobody's."""

    def check(self) -> None:
        """Refuse sizes that aren't the model's.

        Raises:
            ShapeError, RemoteProtocolError: with the numbers.
        """
        if self.sizes.ndim != 1 or self.sizes.dtype != np.int64 or self.extents.dtype != np.int64:
            raise RemoteProtocolError("sizes are (P,) int64, extents (P, 2) int64")
        if not 1 <= self.sizes.size <= config.PARTITIONS_MAX:
            raise ShapeError(f"{self.sizes.size} partitions; a model has 1 to {config.PARTITIONS_MAX}")
        # Python's integers: int64 sums of hostile sizes wrap.
        if min(self.sizes.tolist()) < 0 or sum(self.sizes.tolist()) != self.spec.num_rows:
            raise ShapeError(f"the partitions' sizes don't add up to {self.spec.num_rows} rows")
        if self.extents.size and self.extents.shape != (self.sizes.size, 2):
            raise ShapeError(f"extents of shape {self.extents.shape} for {self.sizes.size} partitions")
        if self.spec.init_depends_on_row and not self.extents.size and self.publish:
            raise ShapeError("random initial values need the partitions' extents")


class Catalog:
    """Models by id.

    Args:
        save: writes a ready model down before anybody hears of it.
        drop: the opposite.
        new_model_id: an id that was never used.
    """

    def __init__(
        self,
        *,
        save: Callable[[Model], None],
        drop: Callable[[int], None],
        new_model_id: Callable[[], int],
    ) -> None:
        self._save = save
        self._drop = drop
        self._new_model_id = new_model_id
        self._models: dict[int, Model] = {}
        self.orders: deque[Order] = deque()
        """To be sent by the master, in order."""
        self.configuring = Configuring(
            save=save,
            order=lambda model, server_id: self.orders.append(
                Order(server_id, "configure", model.info.model_id, model.numbers_version)
            ),
        )
        self.rounds = Rounds(
            save=save,
            order=lambda model, server_id, kind: self.orders.append(
                Order(
                    server_id,
                    kind,
                    model.info.model_id,
                    model.round_version if kind == "round" else model.live_version,
                )
            ),
            following=self._following,
        )

    def restore(self, model: Model) -> None:
        """Take a model from the registry."""
        self._models[model.info.model_id] = model

    # --- looking up -------------------------------------------------------------------------------------------

    def models(self) -> list[Model]:
        """Return the models that can be found."""
        return [model for model in self._models.values() if model.stage == "ready" and model.is_published]

    def unpublished(self) -> list[Model]:
        """Return the models that are ready to be filled, under no name yet."""
        return [model for model in self._models.values() if model.stage == "ready" and not model.is_published]

    def ids_on(self, server_id: str) -> list[int]:
        """Return the models of which a server should hold a part."""
        kept = (model for model in self._models.values() if model.stage != "destroy")
        return [model.info.model_id for model in kept if server_id in model.server_ids]

    def find(self, *, name: str = "", model_id: int = 0) -> Model:
        """Return a ready model by name, or by id where the name is empty.

        Raises:
            ModelNotFound: there is none.
        """
        if name:
            for model in self.models():
                if model.info.spec.name == name:
                    return model
            raise ModelNotFound(f"there is no model {name!r}; there are {len(self.models())} others")
        found = self._models.get(model_id)
        if found is None or found.stage != "ready":
            raise ModelNotFound(f"there is no model {model_id}: it was destroyed, or never made")
        return found

    # --- making -----------------------------------------------------------------------------------------------

    def create(
        self, request: Request, server_list: list[tuple[str, str]], now: float, settle: Settle
    ) -> None:
        """Begin to make a model, or find the one that is asked for.

        Args:
            request: what to make.
            server_list: (id, address) of the servers that may be used, in order.
            now: the moment.
            settle: hears the outcome.

        Raises:
            ModelExists, NotEnoughServers, ShapeError: at once; everything else goes to ``settle``.
        """
        request.check()
        known = self._known(request)
        if known is not None:
            if known.stage == "ready":
                settle(known.info.to_content())
            else:
                known.waiting.append(settle)
            return
        if not server_list:
            raise NotEnoughServers("there is no server; start one with: glintpy server --master ADDRESS")
        num_partitions = request.sizes.size
        used = server_list[: min(len(server_list), num_partitions)]
        owners = tuple(partition % len(used) for partition in range(num_partitions))
        info = ModelInfo(self._new_model_id(), request.spec, 1, tuple(used), owners)
        model = Model(info, request.sizes, request.extents, request.token, request.publish, request.asked)
        model.round_clock, model.owner = request.round_clock, request.owner
        model.waiting.append(settle)
        model.deadline = now + CREATION_S
        self._models[info.model_id] = model
        self._order(model, "reserve")

    def publish(self, model_id: int) -> Model:
        """Let a model be found by its name.

        Raises:
            ModelNotFound: there is no such model.
            ModelExists: the name was taken meanwhile.
        """
        model = self.find(model_id=model_id)
        if not model.is_published:
            taken = self._named(model.info.spec.name)
            if taken is not None:
                raise ModelExists(f"a model {model.info.spec.name!r} was made meanwhile")
            model.is_published = True
            try:
                self._save(model)
            except GlintError:
                model.is_published = False
                raise
        return model

    def configure(self, model_id: int, numbers: dict[str, Any], deadline: float, settle: Settle) -> None:
        """Change numbers of a live model's updater, on all its servers.

        Args:
            model_id: the model's.
            numbers: those that change, by their names.
            deadline: until when servers that are away are waited for.
            settle: hears the outcome.

        Raises:
            ModelNotFound: there is no such model.
            ConfigError: it has no such numbers.
        """
        model = self.find(model_id=model_id)
        model.numbers_made = model.numbers_made or model.info.spec.updater_numbers
        self.configuring.begin(model, numbers, deadline, settle)

    def destroy(self, model_id: int, alive: set[str], now: float, settle: Settle) -> None:
        """End a model on every server that is alive; the others drop it when they come back.

        Args:
            model_id: the model's.
            alive: the servers that can be told.
            now: the moment.
            settle: hears when it is done.

        Raises:
            ModelNotFound: there is no such model.
        """
        model = self.find(model_id=model_id)
        self._drop(model_id)
        self.configuring.ended(model_id)
        self.rounds.ended(model_id)
        model.stage = "destroy"
        model.deadline = now + CREATION_S
        model.waiting = [settle]
        model.pending = {server_id for server_id in model.server_ids if server_id in alive}
        self._send(model, "destroy", model.pending)
        self._proceed(model)

    # --- what servers say ---------------------------------------------------------------------------------------

    def answered(self, order: Order, error: GlintError | None) -> None:
        """Note a server's answer."""
        model = self._models.get(order.model_id)
        if order.kind == "configure":
            self.configuring.answered(model, order, error)
            return
        if order.kind in {"round", "live"}:
            self.rounds.answered(model, order, error)
            return
        if model is None or model.stage != order.kind or order.server_id not in model.pending:
            return
        model.pending.discard(order.server_id)
        if error is not None and model.stage != "destroy":
            self._undo(model, error)
        else:
            self._proceed(model)

    def server_lost(self, server_id: str, now: float) -> None:
        """Expect no answer of a server that is gone, unless it comes back soon; told again while it is gone."""
        for model in list(self._models.values()):
            if model.stage == "destroy" and server_id in model.pending:
                model.pending.discard(server_id)
                self._proceed(model)
            elif model.is_in_the_making and server_id in model.server_ids:
                model.lost.setdefault(server_id, now)

    def server_joined(self, server_id: str) -> None:
        """Tell a server that came back, or whose connection did, again what it may not have heard or may have lost.

        What it reserved went with its process, and so may what it had made of a model that is not ready: it is asked
        for the whole step again. One that has done it already just says so. What is to end there it forgets by
        itself, since its answer to joining doesn't list it.
        """
        ready = [model for model in self._models.values() if model.stage == "ready"]
        self.configuring.server_joined(server_id, ready)
        self.rounds.server_joined(server_id)
        for model in list(self._models.values()):
            if model.stage == "destroy" and server_id in model.pending:
                model.pending.discard(server_id)
                self._proceed(model)
            elif model.is_in_the_making and server_id in model.server_ids:
                model.lost.pop(server_id, None)
                model.pending.add(server_id)
                self._send(model, "reserve" if model.stage == "reserve" else "create", {server_id})

    def tick(self, now: float) -> None:
        """Undo what takes too long."""
        self.configuring.tick(now)
        self.rounds.tick()
        for model in list(self._models.values()):
            if model.stage == "destroy" and now >= model.deadline:
                model.pending.clear()
                self._proceed(model)
            elif model.is_in_the_making and any(now - since >= RETURN_S for since in model.lost.values()):
                self._undo(
                    model, ServerLost(f"a server was lost while model {model.info.spec.name!r} was made")
                )
            elif model.is_in_the_making and now >= model.deadline:
                self._undo(model, ServerLost(f"servers took more than {CREATION_S:.0f} s to make the model"))

    # --- inside -------------------------------------------------------------------------------------------------

    def _known(self, request: Request) -> Model | None:
        for model in self._models.values():
            if model.token == request.token and model.stage != "destroy":
                return model
        taken = self._named(request.spec.name)
        if taken is None:
            return None
        if not request.exist_ok:
            raise ModelExists(
                f"there is a model {request.spec.name!r} already; open it, use exist_ok=True, or take another name"
            )
        made = replace(taken.info.spec, updater_numbers=taken.numbers_made or taken.info.spec.updater_numbers)
        # Programs of a job start alike, also after the numbers were changed.
        difference = request.spec.difference(made) and request.spec.difference(taken.info.spec)
        if difference:
            raise ModelExists(
                f"there is a model {request.spec.name!r} that differs from what is asked: {difference}"
            )
        return taken

    def _named(self, name: str) -> Model | None:
        for model in self._models.values():
            if model.is_published and model.stage != "destroy" and model.info.spec.name == name:
                return model
        return None

    def _following(self, group: str | None) -> list[Model]:
        """Return the ready models that follow the rounds of a group; None: of any."""
        return [
            model
            for model in self._models.values()
            if model.stage == "ready" and model.info.spec.group and group in {None, model.info.spec.group}
        ]

    def _order(self, model: Model, kind: Literal["reserve", "create"]) -> None:
        model.stage = kind
        model.pending = set(model.server_ids)
        self._send(model, kind, model.pending)

    def _send(
        self, model: Model, kind: Literal["reserve", "create", "destroy"], server_ids: set[str]
    ) -> None:
        ordered = [server_id for server_id in model.server_ids if server_id in server_ids]
        self.orders.extend(Order(server_id, kind, model.info.model_id) for server_id in ordered)

    def _proceed(self, model: Model) -> None:
        if model.pending or model.lost:
            return
        if model.stage == "reserve":
            self._order(model, "create")
        elif model.stage == "create":
            try:
                self._save(model)
            except GlintError as error:
                # Ready is what a master that starts again knows, too.
                self._undo(model, error)
                return
            model.stage = "ready"
            self._settle(model, model.info.to_content())
        elif model.stage == "destroy":
            del self._models[model.info.model_id]
            self._settle(model, {})

    def _undo(self, model: Model, error: GlintError) -> None:
        # Whoever asked hears of it now; the servers are told to forget the model, and one that can't be told
        # forgets it when it joins again.
        self._send(model, "destroy", set(model.server_ids))
        del self._models[model.info.model_id]
        self._settle(model, error)

    @staticmethod
    def _settle(model: Model, result: dict[str, Any] | GlintError) -> None:
        waiting, model.waiting = model.waiting, []
        for settle in waiting:
            settle(result)

    def model_of(self, order: Order) -> Model | None:
        """Return the model that an order is about, or None if it is gone (an order to destroy stands)."""
        return self._models.get(order.model_id)
