"""Pushes without an outcome, and failures that nobody has looked at; knows no server."""

from __future__ import annotations

import concurrent.futures
import logging
import threading
from collections.abc import Callable, Iterable
from typing import Any

from glintpy.futures import Future

logger = logging.getLogger("glintpy.client")


class OpenPushes:
    """Pushes without an outcome, and failed ones that nobody has looked at.

    Args:
        before_wait: called before pushes are waited for: issues what was put off.

    Threads:
        Safe from any thread.
    """

    UNSEEN_MAX = 1000

    def __init__(self, *, before_wait: Callable[[], None] = lambda: None) -> None:
        self._before_wait = before_wait
        self._lock = threading.Lock()
        self._open: dict[int, tuple[int, str, Future[Any]]] = {}
        self._failed: list[tuple[int, str, Future[Any]]] = []

    def add(self, model_id: int, model: str, futures: Iterable[Future[Any]]) -> None:
        """Note pushes that are about to be issued."""
        with self._lock:
            for future in futures:
                self._open[id(future)] = (model_id, model, future)

    def done(self, futures: Iterable[Future[Any]]) -> None:
        """Note that pushes have their outcome; called when their futures are completed, and failures noted."""
        with self._lock:
            for future in futures:
                self._open.pop(id(future), None)

    def failed(self, model_id: int, model: str, future: Future[Any]) -> None:
        """Note a push that is about to fail; what nobody looks at is raised by the next flush."""
        with self._lock:
            self._failed = [entry for entry in self._failed if not entry[2].seen][-self.UNSEEN_MAX :]
            self._failed.append((model_id, model, future))

    def wait(self, timeout_s: float | None, model_id: int | None = None) -> int:
        """Wait until every push issued before has its outcome, whatever it is; return how many have none yet."""
        self._before_wait()
        with self._lock:
            waiting = [entry[2] for entry in self._open.values() if model_id in {None, entry[0]}]
        return len(concurrent.futures.wait(waiting, timeout_s).not_done)

    def flush(self, timeout_s: float | None, model_id: int | None = None) -> None:
        """Wait until every push issued before has its outcome.

        Raises:
            TimeoutError: not all had one in time.
            GlintError: the first failure that nobody has looked at, with the others as notes.
        """
        num_pending = self.wait(timeout_s, model_id)
        if num_pending:
            raise TimeoutError(f"{num_pending} pushes have no outcome after {timeout_s:g} s; they go on")
        unseen = self._take_unseen(model_id)
        if unseen:
            first, *others = [future.exception() for _, _, future in unseen]
            assert first is not None
            for other in others[:8]:
                first.add_note(f"also failed: {type(other).__name__}: {other}")
            if len(others) > 8:
                first.add_note(f"and {len(others) - 8} more failed")
            raise first

    def report_unseen(self) -> None:
        """Log failures that nobody looked at, once a model."""
        by_model: dict[str, list[Future[Any]]] = {}
        for _, model, future in self._take_unseen(None):
            by_model.setdefault(model, []).append(future)
        for model, futures in by_model.items():
            logger.error(
                "%d pushes to %r failed and nobody looked: %s", len(futures), model, futures[0].exception()
            )

    def _take_unseen(self, model_id: int | None) -> list[tuple[int, str, Future[Any]]]:
        with self._lock:
            mine = [entry for entry in self._failed if model_id in {None, entry[0]}]
            self._failed = [entry for entry in self._failed if entry not in mine]
        return [entry for entry in mine if not entry[2].seen]
