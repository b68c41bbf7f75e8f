"""New numbers of updaters on their way to all servers of a model; pure.

The master writes them down first. From then on every server gets them, however often it or the master restarts: one
that joins is told the numbers of all its models that were ever changed. Versions make repetitions harmless.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

from glintpy.errors import ConfigError, GlintError, ModelNotFound, ServerLost
from glintpy.protocol.spec import numbers_text

if TYPE_CHECKING:
    from glintpy.actors.catalog import Model, Order, Settle

ANSWER_S = 10.0
"""The longest that who asks waits for servers that are away; these are told when they are back."""


@dataclass(slots=True)
class _Change:
    """Numbers that not all servers have said to have."""

    version: int
    before: str
    pending: set[str]
    waiting: list[Settle] = field(default_factory=list)
    deadline: float = 0.0


class Configuring:
    """The changes under way.

    Args:
        save: writes a model down.
        order: sends a server the numbers that its model has by then.
    """

    def __init__(self, *, save: Callable[[Model], None], order: Callable[[Model, str], None]) -> None:
        self._save = save
        self._order = order
        self._changes: dict[int, _Change] = {}

    def begin(self, model: Model, numbers: dict[str, Any], deadline: float, settle: Settle) -> None:
        """Change numbers of a model's updater.

        Args:
            model: ready.
            numbers: those that change, by their names.
            deadline: until when servers that are away are waited for.
            settle: hears the model's new description when every server has them.

        Raises:
            ConfigError: no such numbers.
            RemoteFailure: they can't be written down.
        """
        known = model.info.spec.numbers
        unknown = sorted(set(numbers) - set(known))
        if unknown:
            has = ", ".join(known) or "none"
            raise ConfigError(
                f"updater {model.info.spec.updater!r} has no number {unknown[0]!r:.80}; it has {has}"
            )
        before = model.info.spec.updater_numbers
        self._set(model, numbers_text({**known, **numbers}))
        # Not before these are written down: if they can't be, the earlier ones are still waited for.
        earlier = self._changes.pop(model.info.model_id, None)
        change = _Change(model.numbers_version, before, set(model.server_ids), deadline=deadline)
        if earlier is not None:
            # Who asked for those has them, or newer ones, when all servers have these.
            change.waiting += earlier.waiting
        change.waiting.append(settle)
        self._changes[model.info.model_id] = change
        self._tell(model, model.server_ids)

    def answered(self, model: Model | None, order: Order, error: GlintError | None) -> None:
        """Note a server's answer.

        Args:
            model: the order's; None: it has ended.
            order: what was asked.
            error: what the server refused it for.
        """
        change = self._changes.get(order.model_id)
        if model is None:
            if change is not None:
                self._settle(order.model_id, ModelNotFound(f"model {order.model_id} was destroyed meanwhile"))
            return
        if change is None or order.version != change.version:
            return
        if error is not None:
            # Others may have them already. So all get back what they had, under a newer version.
            self._settle(order.model_id, error)
            self._set(model, change.before)
            self._tell(model, model.server_ids)
            return
        change.pending.discard(order.server_id)
        if not change.pending:
            self._settle(order.model_id, model.info.to_content())

    def server_joined(self, server_id: str, models: list[Model]) -> None:
        """Tell a server the numbers of its models that were ever changed."""
        for model in models:
            if model.numbers_version and server_id in model.server_ids:
                self._tell(model, [server_id])

    def ended(self, model_id: int) -> None:
        """A model is about to end."""
        self._settle(model_id, ModelNotFound(f"model {model_id} was destroyed meanwhile"))

    def tick(self, now: float) -> None:
        """Keep nobody waiting for servers that are away."""
        for model_id, change in list(self._changes.items()):
            if now >= change.deadline:
                names = ", ".join(sorted(change.pending))
                self._settle(
                    model_id,
                    ServerLost(
                        f"the new numbers are written down, and {len(change.pending)} servers have not answered in "
                        f"time ({names}); they get them when they are back"
                    ),
                )

    def _set(self, model: Model, text: str) -> None:
        info, version = model.info, model.numbers_version
        model.info = replace(info, spec=replace(info.spec, updater_numbers=text))
        model.numbers_version += 1
        try:
            self._save(model)
        except GlintError:
            model.info, model.numbers_version = info, version
            raise

    def _tell(self, model: Model, server_ids: list[str]) -> None:
        for server_id in server_ids:
            self._order(model, server_id)

    def _settle(self, model_id: int, result: dict[str, Any] | GlintError) -> None:
        change = self._changes.pop(model_id, None)
        for settle in change.waiting if change is not None else ():
            settle(result)
