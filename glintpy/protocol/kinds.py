"""Which kinds of messages there are, by their numbers; knows none of them."""

from __future__ import annotations

from glintpy.protocol import messages, messages_master, messages_tables
from glintpy.protocol.messages import Message


def message_types() -> dict[int, type[Message]]:
    """Return every kind of message by its number."""
    # Not Message.__subclasses__(): a dataclass with slots is a second class beside the one in the text.
    named = {**vars(messages), **vars(messages_master), **vars(messages_tables)}.values()
    kinds = [kind for kind in named if isinstance(kind, type) and issubclass(kind, Message)]
    found = {kind.KIND: kind for kind in kinds if kind is not Message}
    assert len(found) == len(kinds) - 1, "two messages share a number"
    return found
