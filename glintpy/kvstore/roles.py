"""Roles of nodes and their numbers, as ps-lite has them; pure, and knows no cluster."""

from __future__ import annotations

from typing import Literal, get_args

from glintpy import ConfigError
from glintpy.kvstore.integers import integer_of

SCHEDULER, SERVERS, WORKERS = 1, 2, 4
"""Groups of nodes; a sum of them is all that are in one of them."""

ALL = SCHEDULER + SERVERS + WORKERS

Role = Literal["scheduler", "server", "worker"]

ROLES: tuple[Role, ...] = get_args(Role)

GROUP_OF: dict[Role, int] = {"scheduler": SCHEDULER, "server": SERVERS, "worker": WORKERS}
"""Which group holds the nodes of a role."""


def check_role(role: object, *, whose: str) -> Role:
    """Return a role.

    Raises:
        ConfigError: it is none; ``whose`` says where it stood.
    """
    for known in ROLES:
        if role == known:
            return known
    raise ConfigError(f"{whose} is scheduler, server or worker, not {role!r:.80}")


def check_group(group: object) -> int:
    """Return a group.

    Raises:
        ConfigError: no sum of ``SCHEDULER``, ``SERVERS`` and ``WORKERS``.
    """
    found = integer_of(group)
    if found is None or not 0 < found <= ALL:
        raise ConfigError(
            f"a group is 1 (scheduler), 2 (servers), 4 (workers) or a sum of these, not {group!r:.80}"
        )
    return found


def node_id(role: Role, rank: int) -> int:
    """Return a node's number: 1 the scheduler, 8, 10, 12 ... servers, 9, 11, 13 ... workers."""
    return SCHEDULER if role == "scheduler" else 2 * rank + (8 if role == "server" else 9)


def node_of(number: int) -> tuple[Role, int] | None:
    """Return the role and rank behind a node's number; None: no node has it."""
    if number == SCHEDULER:
        return "scheduler", 0
    if number < 8:
        return None
    return ("server" if number % 2 == 0 else "worker"), (number - 8) // 2


def node_name(number: int) -> str:
    """Return a node's number in words."""
    found = node_of(number)
    assert found is not None
    role, rank = found
    return f"node {number} (the scheduler)" if role == "scheduler" else f"node {number} ({role} {rank})"
