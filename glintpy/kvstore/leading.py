"""One worker decides where keys lie, and all follow what it has written down; knows no values."""

from __future__ import annotations

from collections.abc import Callable

from glintpy import WorkersMissing
from glintpy.kvstore.directory import Directory, Entry
from glintpy.kvstore.forms import Key
from glintpy.kvstore.log import Log
from glintpy.kvstore.membership import Membership, wait_until
from glintpy.kvstore.models import Models

LEADS_EVERY_S = 1.0
"""How often a worker that waits for rank 0 looks whether it has to do the work itself."""


class Leading:
    """A worker's part in a store's directory.

    Args:
        membership: the worker's place in its job.
        log: what was written down.
        directory: what it says; changed here only.
        models: whose handles end with their models.
        have_ended: told which keys were deleted, so that what the worker kept for them ends, too.

    Attributes:
        timeout_s: how long others are waited for.

    Threads:
        Belongs to one thread at a time.
    """

    def __init__(
        self,
        membership: Membership,
        log: Log,
        directory: Directory,
        models: Models,
        *,
        have_ended: Callable[[list[Key]], None],
    ) -> None:
        self._membership = membership
        self._log = log
        self._directory = directory
        self._models = models
        self._have_ended = have_ended
        self.timeout_s = membership.timeout_s

    def publish(self, entries: list[Entry]) -> None:
        """Write entries down and follow them; by who leads."""
        self._log.add(entries)
        self._apply(entries)

    def follow(self) -> None:
        """Take in what was written down since the last look."""
        news = self._log.news()
        self._apply(news)
        if news:
            for model in self._directory.empty_models():
                self._models.handles.pop(model, None)

    def _apply(self, entries: list[Entry]) -> None:
        for entry in entries:
            self._directory.apply(entry)
            if entry["entry"] == "deleted":
                self._have_ended(entry["keys"])

    def sweep(self) -> None:
        """End models in which no key lies any more; by who leads."""
        for model in self._directory.empty_models():
            self._models.end(model)

    def lead_or_wait(
        self, is_done: Callable[[], bool], lead: Callable[[], None], what: Callable[[], str]
    ) -> None:
        """Do what one worker does for all, or wait until it has.

        Args:
            is_done: whether the directory says so.
            lead: does it.
            what: what is missing, for the message.

        Raises:
            WorkersMissing: it was not done in time.
        """
        if self._membership.group.rank == 0:
            if not is_done():
                lead()
            return

        def has_come() -> bool:
            self.follow()
            return is_done()

        left_s = self.timeout_s
        while not wait_until(has_come, min(left_s, LEADS_EVERY_S)):
            if self._membership.leads():
                lead()
                return
            left_s -= LEADS_EVERY_S
            if left_s <= 0:
                raise WorkersMissing(
                    f"{what()} by rank 0 within {self.timeout_s:g} s; all workers have to call it", ranks=(0,)
                )

    def together(self, lead: Callable[[], None], is_done: Callable[[], bool]) -> None:
        """Have one worker do something while no other has anything under way; all workers call it.

        Args:
            lead: does it.
            is_done: whether the directory says that it was done.

        Raises:
            WorkersMissing: others did not call it in time, or who leads could not do it.
        """
        group = self._membership.group
        group.barrier(self.timeout_s)
        leads = self._membership.leads()
        try:
            if leads:
                lead()
        finally:
            # Also after an error: others would wait for who met it.
            group.barrier(self.timeout_s)
        if leads:
            self.sweep()
        self.follow()
        if not is_done():
            raise WorkersMissing("rank 0 could not do it; its own error says why", ranks=(0,))
