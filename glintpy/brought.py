"""Classes that travel by name and numbers: built in, brought by a program, or imported where that is allowed.

The one place where a class is found by what a message or a file says. Built-in classes have short names. One that a
program brings itself is named by its import path, ``package.module.Class``. A process that has the class in its hands
(``bring``) finds it by that path. Any other imports it only from where it was told to, since to import a module is to
run it. Knows neither what the classes do nor who asks.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import ModuleType
from typing import Any, ClassVar, Generic, Protocol, Self, TypeVar

from glintpy.errors import ConfigError


class Named(Protocol):
    """An object with a name and numbers."""

    name: ClassVar[str]

    @classmethod
    def from_content(cls, content: Mapping[str, Any]) -> Self:
        """Return the object of these numbers; those that are missing have their defaults."""
        ...


K = TypeVar("K", bound=Named)


class Kinds(Generic[K]):
    """The classes of one kind that this process knows.

    Args:
        noun: what one is called in messages, with its article: ``"an updater"``.
        root: the class that all derive from.
        home: where users import that from, for messages.
        built_in: the classes that come with the package.
        check: refuses a class with a wrong attribute; given its path and the class.

    Attributes:
        built_in: classes by their names.
        brought: classes that this process has been handed, or was allowed to import, by their paths.
    """

    def __init__(
        self,
        noun: str,
        root: type[K],
        home: str,
        built_in: Iterable[type[K]],
        *,
        check: Callable[[str, type[K]], None],
    ) -> None:
        self._noun_with_article = noun
        self._noun = noun.partition(" ")[2]
        self._root: type = root
        self._home = home
        self._check_attributes = check
        self.built_in: dict[str, type[K]] = {kind.name: kind for kind in built_in}
        self.brought: dict[str, type[K]] = {}

    def named(self, name: str, numbers: Mapping[str, Any] | None = None, *, allow: Sequence[str] = ()) -> K:
        """Return the object of this name and these numbers.

        Args:
            name: of a built-in class, or the import path of another, ``package.module.Class``.
            numbers: of the object; those that are missing have their defaults.
            allow: packages, modules or classes that a path may be imported from, or from below. What was given to
                ``bring`` needs none.

        Raises:
            ConfigError: there is none (the message lists those that exist), the path may not be imported or isn't of
                such a class, or a number is wrong.
        """
        kind = self.built_in.get(name) or self.brought.get(name) or self._imported(name, allow)
        try:
            return kind.from_content(numbers or {})
        except ConfigError:
            raise
        except Exception as error:
            # A class that somebody brought may raise whatever it likes.
            raise ConfigError(
                f"{self._noun} {name!r} refuses the numbers {dict(numbers or {})!r:.200}: {_told(error)}"
            ) from error

    def is_known(self, name: str) -> bool:
        """Whether ``named`` finds this name without importing anything."""
        return name in self.built_in or name in self.brought

    def name_of(self, kind: type[K]) -> str:
        """Return the name by which others find this class, which is brought if it isn't built in.

        Raises:
            ConfigError: others couldn't import it, see ``bring``.
        """
        return kind.name if self.built_in.get(getattr(kind, "name", "")) is kind else self.bring(kind)

    def bring(self, kind: type[K]) -> str:
        """Let ``named`` find a class in this process, by its import path; it may be brought again.

        Args:
            kind: a concrete class at the top level of a module that servers can import.

        Returns:
            Its path.

        Raises:
            ConfigError: it is none, or lies where nobody else can import it.
        """
        path = f"{kind.__module__}.{kind.__qualname__}"
        if kind.__module__ == "__main__":
            raise ConfigError(
                f"{self._noun} {kind.__name__} is defined in the program's own file, which servers can't import; move "
                "it into a module"
            )
        module = sys.modules.get(kind.__module__)
        # The name of a class inside another, or inside a function, has dots in it, which no module's names have.
        if getattr(module, kind.__qualname__, None) is not kind:
            raise ConfigError(
                f"{self._noun} {path} can't be imported by servers; define it at the top level of a module"
            )
        self._check(path, kind)
        self.brought[path] = kind
        return path

    def _imported(self, path: str, allow: Sequence[str]) -> type[K]:
        noun = self._noun
        module_name, dot, class_name = path.rpartition(".")
        if not dot:
            known = ", ".join(map(repr, sorted(self.built_in)))
            raise ConfigError(f"there is no {noun} {path!r:.80}; there is {known}")
        # Not __main__ and its like, whose import is the start of a program.
        if not all(part.isidentifier() and not part.startswith("__") for part in path.split(".")):
            raise ConfigError(
                f"{self._noun_with_article}'s import path is package.module.Class, not {path!r:.80}"
            )
        if not any(path == prefix or path.startswith(f"{prefix}.") for prefix in allow):
            raise ConfigError(
                f"{noun} {path!r} is not built in and may not be imported here; where it is trusted, allow it: "
                f"glintpy server --allow {module_name}"
            )
        found: Any = getattr(self._module(module_name, path), class_name, None)
        if found is None:
            raise ConfigError(f"{noun} {path!r} can't be imported: {module_name} has no {class_name}")
        self._check(path, found)
        if f"{found.__module__}.{found.__qualname__}" != path:
            # A second name would be a second class to everybody who compares them.
            raise ConfigError(
                f"{noun} {path!r} is defined as {found.__module__}.{found.__qualname__}: call it so"
            )
        kind: type[K] = found
        self.brought[path] = kind
        return kind

    def _module(self, name: str, path: str) -> ModuleType:
        try:
            return importlib.import_module(name)
        except (Exception, SystemExit) as error:
            # A module may raise anything, or end the program: not a server's, which others use.
            raise ConfigError(f"{self._noun} {path!r} can't be imported: {_told(error)}") from error

    def _check(self, path: str, kind: Any) -> None:
        """Refuse what can't be used as such a class."""
        if not (isinstance(kind, type) and issubclass(kind, self._root)):
            raise ConfigError(f"{path} is no {self._noun}: derive it from {self._home}")
        missing_names: frozenset[str] = getattr(kind, "__abstractmethods__", frozenset())
        if missing_names:
            missing = ", ".join(sorted(missing_names))
            raise ConfigError(f"{self._noun} {path} has no {missing}")
        found: Any = kind
        self._check_attributes(path, found)


def as_it_is(kind: Any, attribute: str) -> Any:
    """Return what a class has, which need not be what its annotation says."""
    return getattr(kind, attribute)


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"
