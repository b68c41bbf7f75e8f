"""From the fates of its parts to the one outcome of a request; pure.

A push is applied, or it fails with an error that says which of the rest is true: no cell changed anywhere,
or some parts may be in. Never a guess.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Literal

from glintpy.errors import (
    GlintError,
    ModelLost,
    ModelNotFound,
    Outcome,
    PullFailed,
    PushOutcomeUnknown,
    PushRefused,
    RequestError,
    ServerLost,
)
from glintpy.protocol.calls import Failed

Kind = Literal["pull", "push"]


def told_of(doing: str, error: GlintError) -> GlintError:
    """Return what a server says of a model with what it was asked to do: it knows the model by a number only.

    Args:
        doing: with the model's name.
        error: the server's; one that is not about the model as such says enough by itself, and stays.
    """
    return type(error)(f"{doing}: {error}") if isinstance(error, ModelNotFound | ModelLost) else error


class Tally:
    """Counts the parts of one request.

    Args:
        kind: whether it changes anything.
        model: the model's name.
        timeout_s: its deadline, for the message.
        doing: what the request is, for the message; None: a pull or a push.
    """

    def __init__(self, kind: Kind, model: str, *, timeout_s: float | None, doing: str | None = None) -> None:
        self._kind = kind
        self._doing = doing or {"pull": "pull from", "push": "push to"}[kind]
        self._model = model
        self._timeout_s = timeout_s
        self._counts: dict[str, dict[str, int]] = defaultdict(
            lambda: {"applied": 0, "refused": 0, "unknown": 0}
        )
        self._first: Failed | None = None
        self._first_address = ""
        self._attempts = 0

    def succeeded(self, address: str) -> None:
        """One part is applied, or read."""
        self._counts[address]["applied"] += 1

    def failed(self, address: str, failed: Failed, *, attempts: int) -> None:
        """One part is not."""
        self._counts[address]["unknown" if failed.fate == "unknown" else "refused"] += 1
        self._attempts = max(self._attempts, attempts)
        if self._first is None:
            self._first, self._first_address = failed, address

    def error(self) -> GlintError | None:
        """Return what the request's future raises; None: all parts succeeded."""
        if self._first is None:
            return None
        return self._pull_error(self._first) if self._kind == "pull" else self._push_error(self._first)

    def _pull_error(self, first: Failed) -> GlintError:
        if not first.timed_out:
            return self._annotated(self._told(first.error), outcome="none")
        error = PullFailed(
            f"{self._doing} {self._model!r}: no answer from {self._first_address} within {self._timeout_s:g} s "
            f"({self._attempts} attempts); see `glintpy status`, or give timeout_s more"
        )
        return self._annotated(error, outcome="none")

    def _push_error(self, first: Failed) -> GlintError:
        totals = {
            fate: sum(counts[fate] for counts in self._counts.values()) for fate in ("applied", "unknown")
        }
        cause = self._told(first.error)
        if totals["applied"] or totals["unknown"]:
            outcome: Outcome = "unknown" if totals["unknown"] else "partial"
            if isinstance(cause, ServerLost | ModelLost):
                return self._annotated(cause, outcome=outcome)
            known = ", ".join(
                f"{address}: " + " ".join(f"{count} {fate}" for fate, count in counts.items() if count)
                for address, counts in self._counts.items()
            )
            unknown = PushOutcomeUnknown(
                f"{self._doing} {self._model!r}: {self._reason(first)}; some parts may be in ({known}). Pull to see, "
                "or make the update again only if doubling it does no harm"
            )
            unknown.__cause__ = cause
            return self._annotated(unknown, outcome=outcome)
        # Not a cell changed, and these say so by what they are.
        if isinstance(cause, ModelNotFound | ServerLost | ModelLost):
            return self._annotated(cause, outcome="none")
        refused = PushRefused(f"{self._doing} {self._model!r}: {self._reason(first)}; no cell changed")
        refused.__cause__ = cause
        return self._annotated(refused, outcome="none")

    def _reason(self, first: Failed) -> str:
        if not first.timed_out:
            return f"{type(first.error).__name__}: {first.error}"
        if first.fate == "unsent":
            return (
                f"there was no way to {self._first_address} within {self._timeout_s:g} s, so nothing was sent"
            )
        return (
            f"no answer from {self._first_address} within {self._timeout_s:g} s ({self._attempts} attempts)"
        )

    def _told(self, error: GlintError) -> GlintError:
        return told_of(f"{self._doing} {self._model!r}", error)

    def _annotated(self, error: GlintError, *, outcome: Outcome) -> GlintError:
        if isinstance(error, RequestError):
            error.model = self._model
            error.address = self._first_address
            error.attempts = self._attempts
            error.outcome = outcome
            if self._kind == "push":
                error.parts = {address: dict(counts) for address, counts in self._counts.items()}
        return error
