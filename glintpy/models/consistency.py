"""How far a worker's pulls may run ahead of others: a gate before them; knows no master's inside and no server.

Under ``ssp(k)``, stale synchronous parallel (Ho et al. 2013), a worker at clock ``c`` reads only once every worker of
its group has finished step ``c - k``. A tick flushes, so what was pushed up to that step is in then; of later steps
whatever has arrived. The fast wait for the slow, by at most ``k`` steps, and not at each step.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from glintpy.errors import ConfigError

if TYPE_CHECKING:
    from glintpy.models.group import Group

_SSP = re.compile(r"ssp\((\d{1,18})\)")
_FORMS = '"async" or "ssp(k)", k the steps that others may be behind'


class Gate:
    """Lets a worker's pulls through when no other is too far behind.

    Threads:
        Safe from any thread: who comes while another asks, asks too.
    """

    def __init__(self, group: Group, staleness: int) -> None:
        """Guard the pulls of a worker.

        Args:
            group: the worker's place.
            staleness: steps that others may be behind.
        """
        self.group = group
        self.staleness = staleness
        self._passed = -1

    def wait(self, timeout_s: float | None) -> None:
        """Return when a pull may go; at once, if one went since the last tick: others' clocks only grow.

        Args:
            timeout_s: seconds to wait; None: the client's own setting.

        Raises:
            WorkersMissing, WorkerLost, Expelled, MasterUnreachable, GlintError: as ``Group.wait``.
        """
        clock = self.group.clock
        if clock <= self.staleness or clock == self._passed:
            return  # at the beginning nobody can be that far behind
        self.group.wait(self.staleness, timeout_s)
        self._passed = clock


def gate_of(consistency: Any, group: Group | None) -> Gate | None:
    """Return the gate of a consistency; None: every pull goes at once.

    Args:
        consistency: ``"async"`` or ``"ssp(k)"``.
        group: whose clocks count.

    Raises:
        ConfigError: neither, or ``ssp`` without a group.
    """
    if consistency == "async":
        return None
    form = _SSP.fullmatch(consistency) if isinstance(consistency, str) else None
    if form is None:
        raise ConfigError(f"consistency is {_FORMS}; not {consistency!r:.80}")
    if group is None:
        raise ConfigError(f"consistency {consistency!r} counts the clocks of a group: group=client.join(...)")
    return Gate(group, int(form[1]))
