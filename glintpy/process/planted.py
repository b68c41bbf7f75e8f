"""Defects that a server can be given on purpose, so that drills show that they would notice; no server has them else.

A check that never failed proves little. ``glintpy server --enable-debug --plant NAME`` takes one of these.
"""

from __future__ import annotations

from dataclasses import replace

from glintpy.actors.receipts import Apply, Numbered, Read, Receipts
from glintpy.errors import ConfigError
from glintpy.protocol.messages import Hello, Message, Welcome
from glintpy.storage.journal import Session


class ForgetsRepeats(Receipts):
    """Applies what it is sent, whether or not it has applied it before.

    So it can't tell a client that comes back what is in already, either: it knows only the floor, which is what the
    client itself told.
    """

    def hello(self, message: Hello, now: float) -> Welcome:
        """Open a session, or confirm one without knowing what it has applied."""
        welcome = super().hello(message, now)
        return replace(welcome, applied=max(0, message.floor - 1)) if message.session else welcome

    def push(self, message: Numbered, now: float, *, apply: Apply, read: Read) -> Message:
        """Apply a part, again if it comes again.

        Args:
            message: the part.
            now: the moment.
            apply: changes the values.
            read: returns the values of the part.
        """
        session = self.find(message.session, now)
        known = session.applied
        if message.sequence > known:
            return super().push(message, now, apply=apply, read=read)
        _set_applied(session, message.sequence - 1)
        try:
            return super().push(message, now, apply=apply, read=read)
        finally:
            _set_applied(session, known)


RECEIPTS: dict[str, type[Receipts]] = {"no-dedupe": ForgetsRepeats}
"""Defective ways to count pushes, by the name that ``--plant`` takes."""


def planted(name: str) -> type[Receipts]:
    """Return the defective class of a name.

    Raises:
        ConfigError: there is none.
    """
    if name not in RECEIPTS:
        raise ConfigError(f"there is no planted defect {name!r}; there are {', '.join(sorted(RECEIPTS))}")
    return RECEIPTS[name]


def _set_applied(session: Session, applied: int) -> None:
    session.applied = applied
    session._applied[0] = applied  # noqa: SLF001 - a session has no way to forget, and should have none
