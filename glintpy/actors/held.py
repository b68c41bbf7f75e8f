"""An outlet that keeps answers back until what they tell of is on the disk; knows no message."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress

from glintpy.actors.durable import GROUP_BYTES, Durable
from glintpy.actors.outlet import Buffer, Outlet
from glintpy.storage.log_format import LogFailed


class HeldOutlet:
    """An outlet that keeps answers back while something is not synced; without a log it is the one that it wraps."""

    def __init__(
        self,
        outlet: Outlet,
        durable: Durable,
        *,
        on_held: Callable[[], None],
        on_failed: Callable[[LogFailed], None],
    ) -> None:
        """Wrap an outlet.

        Args:
            outlet: the way out.
            durable: says when nobody may be answered.
            on_held: called when an answer is kept back: ``release`` must follow soon.
            on_failed: called once when the disk has refused: the server must end as if killed.
        """
        self._outlet = outlet
        self._durable = durable
        self._on_held = on_held
        self._on_failed = on_failed
        self._has_ended = False
        self._held: list[Callable[[], object]] = []
        self._held_bytes = 0

    def send(self, peer: bytes, frames: Sequence[Buffer]) -> bool:
        """Send now or after the next sync; False as the outlet's, if it is known by now."""
        if not self._held and not self._durable.holds_answers:
            return self._outlet.send(peer, frames)
        self.when_synced(lambda: self._outlet.send(peer, frames), num_bytes=sum(map(len, frames)))
        return True

    def when_synced(self, answer: Callable[[], object], *, num_bytes: int = 0) -> None:
        """Give an answer after the next sync, and after those that wait already; now if nothing has to be synced."""
        self._held.append(answer)
        self._held_bytes += num_bytes
        durable = self._durable
        if not durable.holds_answers or durable.is_full or self._held_bytes > GROUP_BYTES:
            self.release()
        else:
            self._on_held()

    @property
    def is_holding(self) -> bool:
        """Whether anything waits."""
        return bool(self._held)

    def release(self) -> None:
        """Sync, and let the answers go; after a failure none of them ever goes."""
        durable = self._durable
        if durable.failure is None and durable.holds_answers:
            with suppress(LogFailed):
                durable.sync()
        held, self._held, self._held_bytes = self._held, [], 0
        if durable.failure is None:
            for answer in held:
                answer()
        elif not self._has_ended:
            self._has_ended = True
            self._on_failed(durable.failure)

    def flush(self) -> None:
        """Try again what slow peers didn't take."""
        self._outlet.flush()

    @property
    def is_waiting(self) -> bool:
        """Whether the outlet keeps anything for slow peers."""
        return self._outlet.is_waiting

    @property
    def backlog_bytes(self) -> int:
        """Bytes kept for all peers, unsynced or slow."""
        return self._outlet.backlog_bytes + self._held_bytes

    @property
    def num_dropped(self) -> int:
        """Answers that were dropped."""
        return self._outlet.num_dropped

    @property
    def num_bytes(self) -> int:
        """Bytes sent."""
        return self._outlet.num_bytes
