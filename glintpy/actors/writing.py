"""What is to be written down, and the answers that wait for that; pure, and knows neither groups nor messages.

An answer leaves only when what it rests on has been saved: a master that starts again knows no less than it had said.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any, Literal

from glintpy.errors import GlintError

logger = logging.getLogger("glintpy.master")

Settle = Callable[[dict[str, Any] | GlintError], None]
"""Called once, with the content of the answer or the error."""

Table = Literal["groups", "workers", "messages"]

Row = tuple[Table, str, dict[str, Any] | None]
"""A table, a key and what is to be written there; None: nothing any more."""


class Writing:
    """Rows that have changed, and answers that rest on them.

    Args:
        save: writes rows down, all of them or none, before anybody hears of it.
        row_of: returns what is to be written under a key of a table, as it is now.
    """

    def __init__(
        self, save: Callable[[list[Row]], None], row_of: Callable[[Table, str], dict[str, Any] | None]
    ) -> None:
        self._save = save
        self._row_of = row_of
        self._dirty: dict[tuple[Table, str], None] = {}
        self._outgoing: list[tuple[Settle, dict[str, Any] | GlintError]] = []

    def note(self, table: Table, key: str) -> None:
        """Have a row written down with the next commit."""
        self._dirty[table, key] = None

    def answer(self, settle: Settle, result: dict[str, Any] | GlintError) -> None:
        """Have an answer given after the next commit."""
        self._outgoing.append((settle, result))

    def commit(self) -> None:
        """Write down what has changed, then give the answers."""
        outgoing, self._outgoing = self._outgoing, []
        if self._dirty:
            try:
                self._save([(table, key, self._row_of(table, key)) for table, key in self._dirty])
            except GlintError as error:
                # Nobody hears what is not written down. It is written with what comes next; who asked may ask again.
                logger.error("can't write groups down: %s", error)  # noqa: TRY400 - a disk's fault, not ours
                outgoing = [(settle, error) for settle, _ in outgoing]
            else:
                self._dirty.clear()
        for settle, result in outgoing:
            settle(result)
