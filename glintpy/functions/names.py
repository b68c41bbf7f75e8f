"""Which function a name means; see ``brought`` for how classes are found."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from glintpy.brought import Kinds, as_it_is
from glintpy.errors import ConfigError
from glintpy.functions.base import Changing, Function, Reading
from glintpy.functions.changes import Clip, Fill, Put, Scale
from glintpy.functions.dot import Dot, Take
from glintpy.functions.nearest import TopK
from glintpy.functions.reductions import Argmax, CountNonzero, Histogram, Max, Mean, Min, Norms, Sum
from glintpy.functions.sampling import Sample
from glintpy.functions.skipgram import Adjust, DotNegative


def named(name: str, numbers: Mapping[str, Any] | None = None, *, allow: Sequence[str] = ()) -> Function:
    """Return the function of this name and these numbers.

    Args:
        name: of a built-in one, or the import path of another, ``package.module.Class``.
        numbers: what ``Function.to_content`` returned; those that are missing have their defaults.
        allow: packages, modules or classes that a path may be imported from, or from below. What was given to ``bring``
            needs none.

    Raises:
        ConfigError: there is none (the message lists those that exist), the path may not be imported or isn't a
            function's, or a number is wrong.
    """
    return KINDS.named(name, numbers, allow=allow)


def name_of(function: Function) -> str:
    """Return the name by which servers find this function; its class is brought, if it isn't built in.

    Raises:
        ConfigError: they couldn't import it, see ``bring``.
    """
    return KINDS.name_of(type(function))


def bring(kind: type[Function]) -> str:
    """Let ``named`` find a class in this process, by its import path, which is returned.

    Args:
        kind: a concrete subclass of ``Reading`` or ``Changing`` at the top level of a module that servers can import.

    Raises:
        ConfigError: it is none, or lies where nobody else can import it.
    """
    return KINDS.bring(kind)


def _check(path: str, kind: type[Function]) -> None:
    """Refuse attributes that can't be a function's."""
    if not issubclass(kind, Reading | Changing):
        raise ConfigError(f"function {path} derives from Reading or from Changing")
    takes, by_row, kinds = (as_it_is(kind, name) for name in ("takes", "by_row", "kinds"))
    if not isinstance(takes, tuple) or not all(isinstance(name, str) for name in takes):
        raise ConfigError(f"takes of function {path} is a tuple of names, not {takes!r:.80}")
    if not isinstance(by_row, tuple) or not set(by_row) <= set(takes):
        raise ConfigError(f"by_row of function {path} has some of the names in takes, not {by_row!r:.80}")
    if not (isinstance(kinds, str) and kinds and set(kinds) <= set("biuf")):
        raise ConfigError(f"kinds of function {path} are some of the letters biuf, not {kinds!r:.80}")


KINDS: Kinds[Function] = Kinds(
    "a function",
    Function,
    "glintpy.functions.Reading or Changing",
    (
        Sum,
        Mean,
        Min,
        Max,
        Argmax,
        CountNonzero,
        Norms,
        Histogram,
        Dot,
        Take,
        TopK,
        Sample,
        Scale,
        Fill,
        Put,
        Clip,
        DotNegative,
        Adjust,
    ),
    check=_check,
)
BUILT_IN = KINDS.built_in
