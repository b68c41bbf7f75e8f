"""Store: what a client process needs of the system that it measures; knows no system.

Python 3.8 and an old numpy read this module too.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from benchmarks.draws import Draw
    from benchmarks.steps import Model, Step


class Store(ABC):
    """One client's connection to a system.

    A request is issued and finished: in between others may be issued. Whatever a program could have ready before
    it asks (names of keys, values in the system's own form) is made by ``prepare``, outside what is timed.
    """

    holds_values = True
    """Whether pulls return what was pushed, which is checked; floors only move as many bytes."""

    adds = True
    """Whether a push adds to what is there; else it overwrites it."""

    @abstractmethod
    def attach(self, model: Model, *, rank: int) -> None:
        """Make a model, or find it; all clients call it at the same time.

        Args:
            model: which one.
            rank: the client's number; 0 makes what exists once.
        """

    @abstractmethod
    def prepare(self, step: Step, draws: list[Draw]) -> list[Any]:
        """Return requests in the store's own form.

        Args:
            step: what they have in common.
            draws: what each touches.
        """

    @abstractmethod
    def issue(self, request: Any) -> Any:
        """Send a request and return what ``finish`` needs.

        Args:
            request: one that ``prepare`` made.
        """

    @abstractmethod
    def finish(self, pending: Any) -> Any:
        """Wait for a request's end and return what it brought.

        Args:
            pending: what ``issue`` returned.
        """

    def values_of(self, result: Any) -> Any:
        """Return what a pull brought as an array; not timed.

        Args:
            result: what ``finish`` returned.
        """
        return result

    def drop(self, model: Model) -> None:
        """Let go of a model; rank 0 calls it.

        Args:
            model: which one.
        """
        del model

    @abstractmethod
    def close(self) -> None:
        """End the connection."""
