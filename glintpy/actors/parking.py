"""Requests for values that wait until a round has ended; pure: time is an argument.

Whoever waits asks again now and then, as for any answer that doesn't come. So one that is forgotten here is not lost,
and one that asks again is still one.
"""

from __future__ import annotations

from glintpy.protocol.messages import Pull, Push
from glintpy.protocol.selection import axis_indices
from glintpy.records import record

PARKED_MAX = 10_000
"""Requests of all clients; the oldest are forgotten for more."""

FORGOTTEN_S = 30.0
"""A client that lives asks again every five seconds."""


class RoundOpenError(Exception):
    """Rows are still in a round to which who reads has pushed; no error for anybody but who parks the request."""


@record
class _Waiting:
    peer: bytes
    message: Pull | Push
    since: float
    first: int
    last: int


class Parked:
    """Pulls, and pushes that are in and want the values behind them: by model, session, request and part."""

    def __init__(self) -> None:
        self._by_model: dict[int, dict[tuple[bytes, int, int], _Waiting]] = {}
        self.num = 0

    def add(self, peer: bytes, message: Pull | Push, now: float) -> None:
        """Keep a request, whose rows are checked, in the place of the same one that was asked for before."""
        waiting = self._by_model.setdefault(message.model_id, {})
        key = (message.session, message.request_id, message.part)
        if waiting.pop(key, None) is None:
            self.num += 1
        rows = axis_indices(message.rows)
        waiting[key] = _Waiting(peer, message, now, int(rows.min()), int(rows.max()))
        if self.num > PARKED_MAX:
            del waiting[next(iter(waiting))]
            self.num -= 1

    def take(self, model_id: int, rows: range | None = None) -> list[tuple[bytes, Pull | Push]]:
        """Return, and let go of, what waits for a model, in the order in which it came.

        Args:
            model_id: the model's.
            rows: only what may wait for these; None: all.
        """
        waiting = self._by_model.get(model_id, {})
        found = [
            key
            for key, one in waiting.items()
            if rows is None or (one.first < rows.stop and one.last >= rows.start)
        ]
        self.num -= len(found)
        return [(one.peer, one.message) for one in (waiting.pop(key) for key in found)]

    def forget(self, now: float) -> None:
        """Drop what nobody has asked for again."""
        for model_id, waiting in list(self._by_model.items()):
            for key in [key for key, one in waiting.items() if now - one.since > FORGOTTEN_S]:
                del waiting[key]
                self.num -= 1
            if not waiting:
                del self._by_model[model_id]
