"""Rounds of models that follow a group: when all its workers have finished a step, every server applies it; pure.

What a round is about is the group's clock; what was ended, a model's row in the registry says. So a master that starts
again goes on where the last one was. An order has a version that is never used again, so a server ends a round once,
however often it is told.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Literal

from glintpy.errors import GlintError, ModelError, ModelLost

if TYPE_CHECKING:
    from glintpy.actors.catalog import Model, Order

logger = logging.getLogger("glintpy.master")


Kind = Literal["round", "live"]


@dataclass(slots=True)
class _Round:
    """A round that not all servers have said to have ended."""

    clock: int
    pending: set[str]
    refused: set[str] = field(default_factory=set)
    """Servers that could not, for want of memory, say; they are told again with the next tick."""


class Rounds:
    """The rounds under way.

    Args:
        save: writes a model down.
        order: tells a server to end the round that its model is at by then, or who of the group is alive.
        following: returns the ready models that follow a group; of None: any group.
    """

    def __init__(
        self,
        *,
        save: Callable[[Model], None],
        order: Callable[[Model, str, Kind], None],
        following: Callable[[str | None], list[Model]],
    ) -> None:
        self._save = save
        self._order = order
        self._following = following
        self._under_way: dict[int, _Round] = {}
        self._untold: dict[int, set[str]] = {}  # by model, servers that could not be told who is alive
        self._unwritten: set[int] = set()  # models whose rounds can't be written down; each is said once

    # --- what groups ask and do -------------------------------------------------------------------------------

    @property
    def groups(self) -> set[str]:
        """The groups that are followed."""
        return {model.info.spec.group for model in self._following(None)}

    def follow(self, group: str, clock: int, live: int) -> None:
        """End what all workers of a group have finished, and have rounds wait for those that are alive.

        Args:
            group: its name.
            clock: steps that its slowest worker has finished.
            live: a bit for each rank.
        """
        for model in self._following(group):
            if live != model.live:
                self._set_live(model, live)
            known = self._under_way.get(model.info.model_id)
            if clock > (model.round_clock if known is None else known.clock):
                self._begin(model, clock)

    def position(self, group: str) -> int | None:
        """Return up to which clock all models that follow a group have it applied; None: there are none."""
        return min((model.round_clock for model in self._following(group)), default=None)

    def pending(self, group: str) -> list[str]:
        """Return the servers, by id, on which a group waits."""
        found = [self._under_way.get(model.info.model_id) for model in self._following(group)]
        return sorted({server_id for known in found if known is not None for server_id in known.pending})

    def began_anew(self, group: str) -> None:
        """A group was made whose name one may have had that has ended: it counts from 0 again."""
        for model in self._following(group):
            self._under_way.pop(model.info.model_id, None)
            model.round_clock = 0
            self._write(model)

    # --- what servers say -------------------------------------------------------------------------------------

    def answered(self, model: Model | None, order: Order, error: GlintError | None) -> None:
        """Note a server's answer.

        Args:
            model: the order's; None: it has ended.
            order: what was asked.
            error: what the server refused it for.
        """
        if order.kind == "live":
            # A server that is away is told when it joins.
            if model is not None and error is not None and not isinstance(error, ModelError | ModelLost):
                logger.warning("server %s can't take in who is alive yet: %s", order.server_id, error)
                self._untold.setdefault(order.model_id, set()).add(order.server_id)
            return
        known = self._under_way.get(order.model_id)
        if model is None or known is None or order.version != model.round_version:
            return
        if error is not None and not isinstance(error, ModelError | ModelLost):
            logger.warning("server %s can't end a round yet: %s", order.server_id, error)
            known.refused.add(order.server_id)
            return
        # Where the model is lost, there is nothing to be applied: whoever pulls from there hears of it.
        known.pending.discard(order.server_id)
        self._end_if_over(model, known)

    def server_joined(self, server_id: str) -> None:
        """Tell a server again what it may not have heard."""
        for model in self._following(None):
            if model.live and server_id in model.server_ids:
                self._order(model, server_id, "live")
            known = self._under_way.get(model.info.model_id)
            if known is not None and server_id in known.pending:
                known.refused.discard(server_id)
                self._order(model, server_id, "round")

    def ended(self, model_id: int) -> None:
        """A model is about to end."""
        self._under_way.pop(model_id, None)
        self._untold.pop(model_id, None)
        self._unwritten.discard(model_id)

    def tick(self) -> None:
        """Tell again those that refused, and write down what could not be."""
        for model in self._following(None):
            for server_id in sorted(self._untold.pop(model.info.model_id, ())):
                self._order(model, server_id, "live")
            known = self._under_way.get(model.info.model_id)
            if known is None:
                continue
            self._end_if_over(model, known)
            refused, known.refused = known.refused, set()
            for server_id in sorted(refused):
                self._order(model, server_id, "round")

    # --- inside -----------------------------------------------------------------------------------------------

    def _begin(self, model: Model, clock: int) -> None:
        model.round_version += 1
        # Written down first: a master that starts again must not use the version for another round.
        if not self._write(model):
            return
        self._under_way[model.info.model_id] = _Round(clock, set(model.server_ids))
        for server_id in model.server_ids:
            self._order(model, server_id, "round")

    def _set_live(self, model: Model, live: int) -> None:
        before = model.live
        model.live, model.live_version = live, model.live_version + 1
        if not self._write(model):
            model.live = before
            return
        for server_id in model.server_ids:
            self._order(model, server_id, "live")

    def _end_if_over(self, model: Model, known: _Round) -> None:
        if known.pending:
            return
        before, model.round_clock = model.round_clock, known.clock
        if self._write(model):
            del self._under_way[model.info.model_id]
        else:
            model.round_clock = before

    def _write(self, model: Model) -> bool:
        model_id = model.info.model_id
        try:
            self._save(model)
        except GlintError as error:
            if model_id not in self._unwritten:
                name = model.info.spec.name
                logger.error("can't write rounds of model %s down, so none ends: %s", name, error)  # noqa: TRY400 - a disk's fault, not ours
                self._unwritten.add(model_id)
            return False
        self._unwritten.discard(model_id)
        return True
