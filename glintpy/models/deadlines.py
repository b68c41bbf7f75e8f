"""Until when a caller waits for an answer that the master may put off; knows no group."""

from __future__ import annotations

import time

from glintpy.models.base import ANSWER_S, WAIT_MS_MAX, check_timeout
from glintpy.ties import Tie


class Deadline:
    """A moment, or never.

    Args:
        tie: whose client's setting counts where nothing is given.
        timeout_s: seconds from now; None: the client's own setting.

    Raises:
        ConfigError: a time that can't be.
    """

    def __init__(self, tie: Tie, timeout_s: float | None) -> None:
        limit_s = tie.settings.timeout_s if timeout_s is None else check_timeout(timeout_s)
        self.limit_s = limit_s or 0.0
        self._end = None if limit_s is None else time.monotonic() + limit_s

    @property
    def has_passed(self) -> bool:
        """Whether the time is over."""
        return self._end is not None and time.monotonic() >= self._end

    def left_s(self) -> float | None:
        """Return how long is left; None: for ever."""
        return None if self._end is None else max(0.0, self._end - time.monotonic())

    def wait_ms(self) -> int:
        """Return how long the master may put its answer off."""
        if self._end is None:
            return WAIT_MS_MAX
        left_ms = round((self._end - time.monotonic()) * 1000)
        return max(0, min(left_ms, WAIT_MS_MAX))

    def answer_s(self) -> float | None:
        """Return how long to wait for the answer itself."""
        return None if self._end is None else max(0.0, self._end - time.monotonic()) + ANSWER_S
