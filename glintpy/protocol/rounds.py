"""Whose turn a request is in the rounds of a model that follows a group; knows no message and no storage."""

from __future__ import annotations

from typing import Any, NamedTuple

from glintpy.errors import ConfigError
from glintpy.scalars import plain

RANKS_MAX = 63
"""Workers of a group whose rounds have tags: a row marks each by a bit."""

TAG_MAX = 2**62


class Turn(NamedTuple):
    """A worker's part in a round.

    Attributes:
        tag: one more than the caller's, so that 0 says: a step of the group, which ends for all rows at once.
        rank: of the worker, where there is a tag.
    """

    tag: int = 0
    rank: int = 0


STEP = Turn()


def turn_of(tag: Any, rank: int, num_workers: int) -> Turn:
    """Return a worker's turn in a round with a tag.

    Args:
        tag: the caller's.
        rank: the worker's.
        num_workers: of its group.

    Raises:
        ConfigError: a tag that can't be one, or too many workers.
    """
    tag = plain(tag)
    if isinstance(tag, bool) or not isinstance(tag, int) or not 0 <= tag < TAG_MAX:
        raise ConfigError(
            f"round is an integer of at least 0 and below 2**62, the same in all workers; not {tag!r:.80}"
        )
    if max(rank + 1, num_workers) > RANKS_MAX:
        raise ConfigError(
            f"rounds with tags are for groups of at most {RANKS_MAX} workers, and this one is rank {rank} of "
            f"{num_workers}; use tick()"
        )
    return Turn(tag + 1, rank)
