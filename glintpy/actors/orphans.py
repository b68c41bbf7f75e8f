"""Models that were to be filled before anybody can find them, and whose client has gone; knows no message."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable

from glintpy.actors.catalog import Model

logger = logging.getLogger("glintpy.actors")

GRACE_S = 30.0
"""How long the client of such a model may be away: after a reset or a restart of the master it is back in seconds."""


class Orphans:
    """Notes since when clients are away."""

    def __init__(self) -> None:
        self._since: dict[int, float] = {}

    def due(self, unpublished: Iterable[Model], is_there: Callable[[str], bool], now: float) -> list[int]:
        """Return the models that nobody will ever fill and publish.

        Args:
            unpublished: all that are ready and have no name yet.
            is_there: whether a client is alive, by its member id.
            now: the moment.
        """
        away = {model.info.model_id for model in unpublished if model.owner and not is_there(model.owner)}
        self._since = {model_id: self._since.get(model_id, now) for model_id in away}
        found = [model_id for model_id, since in self._since.items() if now - since > GRACE_S]
        for model_id in found:
            logger.warning("master: model %d goes with the client that was to fill it", model_id)
        return found
