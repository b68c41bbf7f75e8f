"""One direction of one proxied link: what waits to be passed on, when, and what spoils it; no thread, socket or clock.

Time is an argument and chance a seeded source, so what a link does to its bytes is tested without waiting.
"""

from __future__ import annotations

import math
import random
from collections import deque
from dataclasses import dataclass

from glintpy.errors import ConfigError

WAITING_BYTES_MAX = 4 * 1024 * 1024
"""What one direction holds back; beyond, the sender feels it, as it would with a full network."""

SLOW_STEP_S = 0.05
"""Under a bandwidth bytes go in steps of so long, rather than one at a time or all at once."""


@dataclass(frozen=True, slots=True)
class Toxics:
    """What a direction suffers; as it stands, nothing.

    Attributes:
        latency_s: each byte arrives so much later.
        jitter_s: and up to so much more or less, at random; never out of order.
        bytes_per_s: bandwidth of each link.
        piece_bytes: bytes are passed on in pieces of about so many, half as many or twice; None: as they come.
        piece_gap_s: between two such pieces, so that they don't meet again on the way.
        cut_after_bytes: each link is reset after so many bytes, which may be in the middle of a frame; counted from
            the moment this is set, or from the link's beginning.
        close_delay_s: the end of the stream is passed on so much later.
        is_blackhole: nothing is passed on, not even an end; connections are accepted and stall.
    """

    latency_s: float = 0.0
    jitter_s: float = 0.0
    bytes_per_s: float = math.inf
    piece_bytes: int | None = None
    piece_gap_s: float = 0.001
    cut_after_bytes: int | None = None
    close_delay_s: float = 0.0
    is_blackhole: bool = False

    def __post_init__(self) -> None:
        for name in ("latency_s", "jitter_s", "piece_gap_s", "close_delay_s"):
            if not 0 <= getattr(self, name) < math.inf:
                raise ConfigError(f"{name} is a number of seconds, at least 0; not {getattr(self, name)!r}")
        if not self.bytes_per_s > 0:
            raise ConfigError(f"bytes_per_s is more than 0, not {self.bytes_per_s!r}")
        if self.piece_bytes is not None and self.piece_bytes < 1:
            raise ConfigError(f"piece_bytes is at least 1, not {self.piece_bytes!r}")
        if self.cut_after_bytes is not None and self.cut_after_bytes < 0:
            raise ConfigError(f"cut_after_bytes is at least 0, not {self.cut_after_bytes!r}")


class Pipe:
    """One direction of one link.

    Args:
        toxics: what it suffers at first.
        source: of chance.

    Attributes:
        num_bytes: passed on so far.
        has_ended: its end has been passed on.
    """

    def __init__(self, toxics: Toxics, source: random.Random) -> None:
        self.num_bytes = 0
        self.has_ended = False
        self._toxics = toxics
        self._source = source
        self._waiting: deque[tuple[float, memoryview]] = deque()
        self._num_waiting = 0
        self._last_due = 0.0
        self._free_at = 0.0
        self._end_at = math.inf
        self._num_left = toxics.cut_after_bytes

    def change(self, toxics: Toxics, now: float) -> None:
        """Suffer something else from now on; what waits because of what is over waits no longer."""
        if toxics.cut_after_bytes != self._toxics.cut_after_bytes:
            self._num_left = toxics.cut_after_bytes
        longest_s = toxics.latency_s + toxics.jitter_s
        self._waiting = deque((min(due, now + longest_s), data) for due, data in self._waiting)
        self._last_due = min(self._last_due, now + longest_s)
        self._free_at = now
        if self._end_at < math.inf:
            self._end_at = min(self._end_at, now + toxics.close_delay_s)
        self._toxics = toxics

    # --- what comes in --------------------------------------------------------------------------------------

    @property
    def wants_more(self) -> bool:
        """Whether the sender's bytes should be read."""
        return (
            self._end_at == math.inf
            and self._num_waiting < WAITING_BYTES_MAX
            and not self._toxics.is_blackhole
        )

    def put(self, data: bytes, now: float) -> None:
        """Take bytes that the sender sent."""
        jitter_s = self._toxics.jitter_s
        delay_s = max(0.0, self._toxics.latency_s + self._source.uniform(-jitter_s, jitter_s))
        # A later byte never overtakes an earlier one: that is TCP's promise, and no toxic breaks it.
        self._last_due = max(self._last_due, now + delay_s)
        self._waiting.append((self._last_due, memoryview(data)))
        self._num_waiting += len(data)

    def end(self, now: float) -> None:
        """Take the end of the sender's stream; it is passed on behind what waits."""
        if self._end_at == math.inf:
            self._end_at = now + self._toxics.close_delay_s

    # --- what goes out --------------------------------------------------------------------------------------

    @property
    def is_cut(self) -> bool:
        """Whether the link has passed as many bytes as it may, and must be reset."""
        return self._num_left == 0

    def due(self) -> float:
        """Return the moment from which on there is something to pass on; infinity: not of itself."""
        if self._toxics.is_blackhole or self.has_ended:
            return math.inf
        if self._waiting:
            return max(self._waiting[0][0], self._free_at)
        return self._end_at

    def piece(self, now: float) -> memoryview | None:
        """Return bytes that may be passed on now; tell with ``passed`` how many were."""
        if not self._waiting or now < self.due() or self.is_cut:
            return None
        data = self._waiting[0][1]
        size = len(data)
        if self._toxics.piece_bytes is not None:
            size = min(size, self._source.randint(1, 2 * self._toxics.piece_bytes - 1))
        if self._toxics.bytes_per_s < math.inf:
            size = min(size, max(1, int(self._toxics.bytes_per_s * SLOW_STEP_S)))
        if self._num_left is not None:
            size = min(size, self._num_left)
        return data[:size]

    def passed(self, size: int, now: float) -> None:
        """Note that so many of the bytes offered were taken."""
        due, data = self._waiting.popleft()
        if size < len(data):
            self._waiting.appendleft((due, data[size:]))
        self._num_waiting -= size
        self.num_bytes += size
        if self._num_left is not None:
            self._num_left -= size
        if self._toxics.bytes_per_s < math.inf:
            self._free_at = max(self._free_at, now) + size / self._toxics.bytes_per_s
        elif self._toxics.piece_bytes is not None:
            self._free_at = now + self._toxics.piece_gap_s

    def is_over(self, now: float) -> bool:
        """Whether everything was passed on and only the end is left to say, now."""
        return not self.has_ended and not self._waiting and now >= self.due()
