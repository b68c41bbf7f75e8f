"""Which updater a name means; the one place where a class is found by what a message or a file says.

Built-in updaters have short names. One that a program brings itself is named by its import path,
``package.module.Class``. A process that has the class in its hands (``bring``) finds it by that path. Any other imports
it only from where it was told to, since to import a module is to run it.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from glintpy.errors import ConfigError
from glintpy.updaters.adagrad import Adagrad
from glintpy.updaters.adam import Adam, AdamW
from glintpy.updaters.add import Add
from glintpy.updaters.assign import Assign
from glintpy.updaters.base import Slot, Updater
from glintpy.updaters.dcasgd import DCASGD
from glintpy.updaters.extremes import Max, Min
from glintpy.updaters.ftrl import Ftrl
from glintpy.updaters.mean import Mean
from glintpy.updaters.momentum import Momentum, Nesterov
from glintpy.updaters.rmsprop import RMSprop
from glintpy.updaters.sgd import SGD

BUILT_IN: dict[str, type[Updater]] = {
    kind.name: kind
    for kind in (
        Add,
        Assign,
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
    )
}

_BROUGHT: dict[str, type[Updater]] = {}
"""Classes that this process has been handed, or was allowed to import, by their paths."""


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
    kind = BUILT_IN.get(name) or _BROUGHT.get(name) or _imported(name, allow)
    try:
        return kind.from_content(numbers or {})
    except ConfigError:
        raise
    except Exception as error:
        # A class that somebody brought may raise whatever it likes.
        raise ConfigError(
            f"updater {name!r} refuses the numbers {dict(numbers or {})!r:.200}: {_told(error)}"
        ) from error


def is_known(name: str) -> bool:
    """Whether ``named`` finds this name without importing anything."""
    return name in BUILT_IN or name in _BROUGHT


def name_of(updater: Updater) -> str:
    """Return the name by which others find this updater; its class is brought, if it isn't built in.

    Raises:
        ConfigError: others couldn't import it, see ``bring``.
    """
    kind = type(updater)
    return kind.name if BUILT_IN.get(getattr(kind, "name", "")) is kind else bring(kind)


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
    path = f"{kind.__module__}.{kind.__qualname__}"
    if kind.__module__ == "__main__":
        raise ConfigError(
            f"updater {kind.__name__} is defined in the program's own file, which servers can't import; move it into a "
            "module"
        )
    module = sys.modules.get(kind.__module__)
    # The name of a class inside another, or inside a function, has dots in it, which no module's names have.
    if getattr(module, kind.__qualname__, None) is not kind:
        raise ConfigError(
            f"updater {path} can't be imported by servers; define it at the top level of a module"
        )
    _check(path, kind)
    _BROUGHT[path] = kind
    return path


def _imported(path: str, allow: Sequence[str]) -> type[Updater]:
    module_name, dot, class_name = path.rpartition(".")
    if not dot:
        raise ConfigError(f"there is no updater {path!r}; there is {', '.join(map(repr, sorted(BUILT_IN)))}")
    # Not __main__ and its like, whose import is the start of a program.
    if not all(part.isidentifier() and not part.startswith("__") for part in path.split(".")):
        raise ConfigError(f"an updater's import path is package.module.Class, not {path!r:.80}")
    if not any(path == prefix or path.startswith(f"{prefix}.") for prefix in allow):
        raise ConfigError(
            f"updater {path!r} is not built in and may not be imported here; where it is trusted, allow it: "
            f"glintpy server --allow {module_name}"
        )
    kind: Any = getattr(_module(module_name, path), class_name, None)
    if kind is None:
        raise ConfigError(f"updater {path!r} can't be imported: {module_name} has no {class_name}")
    _check(path, kind)
    if f"{kind.__module__}.{kind.__qualname__}" != path:
        # A second name would be a second model's updater to everybody who compares them.
        raise ConfigError(f"updater {path!r} is defined as {kind.__module__}.{kind.__qualname__}: call it so")
    found: type[Updater] = kind
    _BROUGHT[path] = found
    return found


def _module(name: str, path: str) -> ModuleType:
    try:
        return importlib.import_module(name)
    except (Exception, SystemExit) as error:
        # A module may raise anything, or end the program: not a server's, which others use.
        raise ConfigError(f"updater {path!r} can't be imported: {_told(error)}") from error


def _check(path: str, kind: Any) -> None:
    """Refuse what can't be used as an updater's class."""
    if not (isinstance(kind, type) and issubclass(kind, Updater)):
        raise ConfigError(f"{path} is no updater: derive it from glintpy.updaters.Updater")
    if inspect.isabstract(kind):
        missing = ", ".join(sorted(kind.__abstractmethods__))
        raise ConfigError(f"updater {path} has no {missing}")
    slots, kinds = _as_it_is(kind, "slots"), _as_it_is(kind, "kinds")
    if not isinstance(slots, tuple) or not all(isinstance(slot, Slot) for slot in slots):
        raise ConfigError(f"slots of updater {path} are a tuple of Slot, not {slots!r:.80}")
    names = [slot.name for slot in slots]
    if len(set(names)) < len(names):
        raise ConfigError(f"slots of updater {path} have different names, unlike {names}")
    if not (isinstance(kinds, str) and kinds and set(kinds) <= set("biuf")):
        raise ConfigError(f"kinds of updater {path} are some of the letters biuf, not {kinds!r:.80}")


def _as_it_is(kind: Any, attribute: str) -> Any:
    """Return what a class has, which need not be what its annotation says."""
    return getattr(kind, attribute)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
