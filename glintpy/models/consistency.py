"""How far a worker may run ahead of others: a gate before its pulls, or rounds; knows no master's inside and no server.

Under ``bsp``, bulk synchronous parallel (Valiant 1990), servers gather pushes until all workers have ticked, and then
apply each row once: a kind of model, so its spec names the group. Pulls need no gate: until then they read what the
last round has left.

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
    from glintpy.protocol.spec import ModelSpec
    from glintpy.updaters import Updater

_SSP = re.compile(r"ssp\((\d{1,18})\)")
ASYNC, BSP = "async", "bsp"
_FORMS = '"async", "bsp", or "ssp(k)", k the steps that others may be behind'


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


def check_group(group: Any) -> None:
    """Refuse what is no place in a group.

    Raises:
        ConfigError: such as a group's name.
    """
    from glintpy.models.group import Group  # noqa: PLC0415 - it imports what handles share, which import this

    if group is not None and not isinstance(group, Group):
        raise ConfigError(
            f"group is this program's place in one, group=client.join(...), or None; not {group!r:.80}"
        )


def gate_of(consistency: Any, group: Group | None) -> Gate | None:
    """Return the gate of a consistency; None: every pull goes at once.

    Args:
        consistency: ``"async"``, ``"bsp"`` or ``"ssp(k)"``.
        group: whose clocks count.

    Raises:
        ConfigError: none of these, or all but ``"async"`` without a group; or what is no group.
    """
    check_group(group)
    if consistency == ASYNC:
        return None
    form = _SSP.fullmatch(consistency) if isinstance(consistency, str) else None
    if form is None and consistency != BSP:
        raise ConfigError(f"consistency is {_FORMS}; not {consistency!r:.80}")
    if group is None:
        raise ConfigError(f"consistency {consistency!r} counts the clocks of a group: group=client.join(...)")
    return None if form is None else Gate(group, int(form[1]))


def group_of(consistency: Any, group: Group | None) -> str:
    """Return the name of the group whose rounds a model of a consistency follows; empty: none.

    Args:
        consistency: see ``gate_of``.
        group: whose clocks count.

    Raises:
        ConfigError: as of ``gate_of``.
    """
    gate_of(consistency, group)
    return group.name if consistency == BSP and group is not None else ""


def check_made_for(spec: ModelSpec, consistency: str, group: Group | None) -> None:
    """Refuse a consistency that a model wasn't made for: whether it follows rounds can't be changed.

    Args:
        spec: the model's.
        consistency: one of those that there are.
        group: the caller's.

    Raises:
        ConfigError: it follows rounds and this is another consistency or group, or it doesn't and this is ``"bsp"``.
    """
    if not spec.group and consistency == BSP:
        raise ConfigError(
            f"model {spec.name!r} was made without rounds, and its servers apply each push as it comes; make one with "
            f"consistency={BSP!r}"
        )
    if spec.group and (consistency != BSP or group is None or group.name != spec.group):
        asked = f"consistency={consistency!r}" + (f" and group {group.name!r}" if group is not None else "")
        raise ConfigError(
            f"model {spec.name!r} was made with consistency={BSP!r} for group {spec.group!r}, not with {asked}"
        )


def check_sums(updater: Updater) -> None:
    """Refuse an updater whose pushes can't be summed up until a round ends.

    Raises:
        ConfigError: it would count them in another way.
    """
    if not updater.sums:
        raise ConfigError(
            f"consistency {BSP!r} sums up what all workers push, and updater {updater.name!r} is not one of sums; "
            'use "add", or one that takes gradients'
        )


def check_pushes(spec: ModelSpec, group: Group | None) -> None:
    """Refuse pushes by who is no worker of the group that a model follows.

    Args:
        spec: the model's.
        group: of the handle.

    Raises:
        ConfigError: the handle has none.
        GlintError, Expelled: as of ``Group.check``.
    """
    if group is not None:
        group.check()
    elif spec.group:
        raise ConfigError(
            f"model {spec.name!r} follows the rounds of group {spec.group!r}, whose workers alone push to it: "
            f"group = client.join({spec.group!r}, ...), and then model.with_options(consistency={BSP!r}, group=group)"
        )
