"""What a drill does to a cluster and when, drawn up front from one seed; pure, knows no cluster."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum

from glintpy.errors import ConfigError

KILL_EVERY_S = 3.0
STOP_EVERY_S = 5.0
RESET_EVERY_S = 0.5
MASTER_EVERY_S = 15.0
"""Often enough for each kind to meet the others, seldom enough for traffic between them."""

LONG_STOPS = 5
"""Every so many stops one lasts longer than the master's patience: the server counts as lost, and comes back."""

MASTER = -1
ALL = -2
"""In place of a server's number."""


class Action(StrEnum):
    """What is done to a process or to its links."""

    KILL = "kill -9"
    STOP = "stop"
    CONTINUE = "continue"
    RESET = "reset"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is done.

    Attributes:
        at_s: seconds after the beginning.
        action: what.
        member: to which server; ``MASTER``; or ``ALL`` servers' links.
        length_s: after a kill, until it is restarted; of a stop, until it goes on.
    """

    at_s: float
    action: Action
    member: int
    length_s: float = 0.0


def draw_plan(seed: int, duration_s: float, num_servers: int) -> list[Step]:
    """Return the steps of a drill, in order: the same ones for the same arguments.

    Each kind of fault has as many steps as fit, one at a random moment of each of as many equal slots: so even a short
    drill has some of each, and none is left to luck.

    Args:
        seed: of everything random in it.
        duration_s: of the whole, seconds.
        num_servers: from 1.

    Raises:
        ConfigError: a number out of its range.
    """
    if duration_s <= 0 or num_servers < 1:
        raise ConfigError(f"a drill takes some time and servers, not {duration_s:g} s and {num_servers}")
    source = random.Random(f"{seed} plan")  # noqa: S311 - no secret
    steps: list[Step] = []
    for at_s in _moments(source, duration_s, KILL_EVERY_S):
        server = source.randrange(num_servers)
        steps.append(Step(at_s, Action.KILL, server, source.uniform(0.0, 0.8)))
    for number, at_s in enumerate(_moments(source, duration_s, STOP_EVERY_S), 1):
        length_s = 4.5 if number % LONG_STOPS == 0 else source.uniform(0.1, 1.5)
        steps.append(Step(at_s, Action.STOP, source.randrange(num_servers), length_s))
    whose = [ALL, *range(num_servers)]
    steps += [
        Step(at_s, Action.RESET, source.choice(whose)) for at_s in _moments(source, duration_s, RESET_EVERY_S)
    ]
    steps += [
        Step(at_s, Action.KILL, MASTER, source.uniform(0.2, 1.0))
        for at_s in _moments(source, duration_s, MASTER_EVERY_S)
    ]
    return sorted(steps, key=lambda step: step.at_s)


def _moments(source: random.Random, duration_s: float, every_s: float) -> Iterator[float]:
    num_slots = max(1, round(duration_s / every_s))
    slot_s = duration_s / num_slots
    return ((slot + source.random()) * slot_s for slot in range(num_slots))
