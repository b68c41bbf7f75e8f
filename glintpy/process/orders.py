"""What a process that is a master or a server is told when it starts, and the text that tells it; starts nothing.

The text is JSON with what differs from the defaults, so that ``ps`` shows what somebody chose.
"""

from __future__ import annotations

import json
from dataclasses import MISSING, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any

from glintpy.config import MembershipSettings, ServerSettings
from glintpy.errors import ConfigError
from glintpy.process.output import Failed

PATIENCE_S = 25.0
"""How long a server that a program starts tries to reach its master: the master may be starting again, too."""

_LIMITS = ServerSettings()
_WATCH = MembershipSettings()
_PATIENT = MembershipSettings(join_timeout_s=PATIENCE_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class ServerOptions:
    """How a server is to be, beside who and where it is.

    Attributes:
        settings: its limits.
        membership: its heartbeats, and how long it waits for its master and its folder.
        advertise: ``HOST:PORT`` or an address that clients are told; None: the one that it listens at.
        watchdog_s: end the process, with a traceback of every thread, when it stands still for so long; None: never.
        failpoints: for drills: where it fails, see ``glintpy.failpoints.arm``.
        plant: for drills: the name of a planted defect.

    Raises:
        ConfigError: the settings' windows don't fit into one another.
    """

    settings: ServerSettings = _LIMITS
    membership: MembershipSettings = _PATIENT
    advertise: str | None = None
    watchdog_s: float | None = None
    failpoints: str = ""
    plant: str = ""

    def __post_init__(self) -> None:
        low, high = self.settings.window_bytes_min, self.settings.window_bytes_max
        if not low <= high <= self.settings.budget_bytes:
            raise ConfigError(
                f"window_bytes_min ({low}) is at most window_bytes_max ({high}), and that at most budget_bytes "
                f"({self.settings.budget_bytes})"
            )

    @property
    def needs_process(self) -> bool:
        """Whether only a server with a process of its own can be so."""
        return bool(self.advertise or self.watchdog_s is not None or self.failpoints or self.plant)


_OPTIONS = ServerOptions()


@dataclass(slots=True, kw_only=True, eq=False)
class Order:
    """What masters and servers are told alike.

    Attributes:
        address: where to listen.
        data_dir: where it keeps its state; None: nowhere that lasts.
        insecure: allow an address that others than this machine's programs can reach.
        log_level: from which on its lines are shown on stderr.
        parent: the process that started it and with which it goes; 0: nobody.
        private: a folder to remove when the parent has gone.
    """

    address: str
    data_dir: Path | None = None
    insecure: bool = False
    log_level: str = "info"
    parent: int = 0
    private: Path | None = None


@dataclass(slots=True, kw_only=True, eq=False)
class MasterOrder(Order):
    """What a master is told.

    Attributes:
        membership: of the death watch.
    """

    membership: MembershipSettings = _WATCH


@dataclass(slots=True, kw_only=True, eq=False)
class ServerOrder(Order):
    """What a server is told.

    Attributes:
        master: the master's address.
        name: for people to read; None: made from its id.
        options: how it is to be.
    """

    master: str
    name: str | None = None
    options: ServerOptions = _OPTIONS


def text_of(order: MasterOrder | ServerOrder) -> str:
    """Return an order as a text."""
    return json.dumps(_chosen(order), default=str)


def order_of(role: str, text: str) -> MasterOrder | ServerOrder:
    """Return the order that a text is.

    Args:
        role: ``"master"`` or ``"server"``.
        text: see ``text_of``.

    Raises:
        Failed: no such role, or not the text of its order.
    """
    if role not in {"master", "server"}:
        raise Failed(f"{role!r} is neither master nor server", exit_code=2)
    try:
        told = json.loads(text)
        told |= {name: Path(told[name]) for name in ("data_dir", "private") if name in told}
        if role == "master":
            return MasterOrder(**_typed(told))
        return ServerOrder(**told | {"options": ServerOptions(**_typed(told.get("options", {})))})
    except (TypeError, ValueError) as error:
        raise Failed(f"{text:.200} is not what a {role} is told: {error}", exit_code=2) from None


def _typed(told: dict[str, Any]) -> dict[str, Any]:
    """Return what was told with its settings as such; JSON has no tuples either."""
    typed = dict(told)
    if "settings" in told:
        typed["settings"] = ServerSettings(
            **told["settings"] | {"allow": tuple(told["settings"].get("allow", ()))}
        )
    if "membership" in told:
        typed["membership"] = MembershipSettings(**told["membership"])
    return typed


def _chosen(settings: Any) -> dict[str, Any]:
    """Return what differs from the defaults."""
    chosen = {}
    for field in fields(settings):
        value = getattr(settings, field.name)
        if field.default is MISSING or value != field.default:
            chosen[field.name] = _chosen(value) if is_dataclass(value) else value
    return chosen
