"""Which updater a name means; see ``brought`` for how classes are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from glintpy.brought import Kinds, as_it_is
from glintpy.errors import ConfigError
from glintpy.updaters.adagrad import Adagrad
from glintpy.updaters.adam import Adam, AdamW
from glintpy.updaters.add import Add
from glintpy.updaters.assign import Assign, Total
from glintpy.updaters.base import Slot, Updater
from glintpy.updaters.dcasgd import DCASGD
from glintpy.updaters.extremes import Max, Min
from glintpy.updaters.ftrl import Ftrl
from glintpy.updaters.mean import Mean
from glintpy.updaters.momentum import Momentum, Nesterov
from glintpy.updaters.rmsprop import RMSprop
from glintpy.updaters.sgd import SGD


def named(name: str, numbers: Mapping[str, Any] | None = None, *, allow: Sequence[str] = ()) -> Updater:
    """Return the updater of this name and these numbers.

    Args:
        name: of a built-in one, or the import path of another, ``package.module.Class``.
        numbers: what ``Updater.to_content`` returned; those that are missing have their defaults.
        allow: packages, modules or classes that a path may be imported from, or from below. What was given to ``bring``
            needs none.

    Raises:
        ConfigError: there is none (the message lists those that exist), the path may not be imported or isn't an
            updater's, or a number is wrong.
    """
    return KINDS.named(name, numbers, allow=allow)


def is_known(name: str) -> bool:
    """Whether ``named`` finds this name without importing anything."""
    return KINDS.is_known(name)


def name_of(updater: Updater) -> str:
    """Return the name by which others find this updater; its class is brought, if it isn't built in.

    Raises:
        ConfigError: others couldn't import it, see ``bring``.
    """
    return KINDS.name_of(type(updater))


def bring(kind: type[Updater]) -> str:
    """Let ``named`` find a class in this process, by its import path.

    May be used as a decorator's work, too; a class may be brought again.

    Args:
        kind: a concrete subclass of ``Updater`` at the top level of a module that servers can import.

    Returns:
        Its path.

    Raises:
        ConfigError: it is none, or lies where nobody else can import it.
    """
    return KINDS.bring(kind)


def _check(path: str, kind: type[Updater]) -> None:
    """Refuse attributes that can't be an updater's."""
    slots, kinds = as_it_is(kind, "slots"), as_it_is(kind, "kinds")
    if not isinstance(slots, tuple) or not all(isinstance(slot, Slot) for slot in slots):
        raise ConfigError(f"slots of updater {path} are a tuple of Slot, not {slots!r:.80}")
    names = [slot.name for slot in slots]
    if len(set(names)) < len(names):
        raise ConfigError(f"slots of updater {path} have different names, unlike {names}")
    if not (isinstance(kinds, str) and kinds and set(kinds) <= set("biuf")):
        raise ConfigError(f"kinds of updater {path} are some of the letters biuf, not {kinds!r:.80}")


KINDS: Kinds[Updater] = Kinds(
    "an updater",
    Updater,  # type: ignore[type-abstract]  # it is compared with, never called
    "glintpy.updaters.Updater",
    (
        Add,
        Assign,
        Total,
        Max,
        Min,
        Mean,
        SGD,
        Momentum,
        Nesterov,
        Adagrad,
        RMSprop,
        Adam,
        AdamW,
        Ftrl,
        DCASGD,
    ),
    check=_check,
)
BUILT_IN = KINDS.built_in
