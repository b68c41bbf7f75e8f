"""What every store is, and where ``create`` finds those of one's own; knows no key and no cluster."""

from __future__ import annotations

import warnings
from abc import ABC, abstractmethod
from typing import Any, ClassVar, TypeVar

from glintpy import ConfigError

Store = TypeVar("Store", bound="type[KVStoreBase]")


class KVStoreBase(ABC):
    """A store that ``create`` can make, MXNet's interface of that name.

    ``@KVStoreBase.register`` in front of a class makes its name, in lower case, a kind for ``create``, which calls the
    class without arguments.
    """

    OPTIMIZER: ClassVar[str] = "optimizer"
    """For ``is_capable``: whether updates can be made by the store."""

    registry: ClassVar[dict[str, type[KVStoreBase]]] = {}
    """The registered classes by their names."""

    @staticmethod
    def register(kind: Store) -> Store:
        """Make a class known to ``create``; one that has the name already is replaced, with a warning.

        Raises:
            ConfigError: it is no store.
        """
        found: Any = kind
        if not (isinstance(found, type) and issubclass(found, KVStoreBase)):
            raise ConfigError(f"{kind!r} is no store: derive it from glintpy.kvstore.KVStoreBase")
        name = kind.__name__.lower()
        known = KVStoreBase.registry.get(name)
        if known is not None:
            warnings.warn(
                f"store {name!r} is now {kind.__module__}.{kind.__qualname__}, and was "
                f"{known.__module__}.{known.__qualname__}",
                stacklevel=2,
            )
        KVStoreBase.registry[name] = kind
        return kind

    @abstractmethod
    def broadcast(self, key: Any, value: Any, out: Any, priority: int = 0) -> Any:
        """Give all workers the value of rank 0.

        Args:
            key: one or a list.
            value: one for each key.
            out: where the values are written.
            priority: for stores that have priorities.
        """

    @abstractmethod
    def pushpull(self, key: Any, value: Any, out: Any = None, priority: int = 0) -> Any:
        """Push values and write what comes of them.

        Args:
            key: one or a list.
            value: one for each key, or a list for each.
            out: where the values are written; None: into ``value``.
            priority: for stores that have priorities.
        """

    @abstractmethod
    def is_capable(self, capability: str) -> bool:
        """Whether the store can do something: ``OPTIMIZER``."""

    def set_optimizer(self, optimizer: Any) -> None:
        """Have the store make updates by an optimiser.

        Raises:
            ConfigError: it can't.
        """
        del optimizer
        raise self._incapable()

    def save_optimizer_states(self, fname: Any, dump_optimizer: bool = False) -> None:
        """Save what the optimiser keeps.

        Raises:
            ConfigError: the store has no optimiser.
        """
        del fname, dump_optimizer
        raise self._incapable()

    def load_optimizer_states(self, fname: Any) -> None:
        """Load what ``save_optimizer_states`` wrote.

        Raises:
            ConfigError: the store has no optimiser.
        """
        del fname
        raise self._incapable()

    def _incapable(self) -> ConfigError:
        return ConfigError(f"a store of type {self.type!r} has no optimiser: workers make the updates")

    @property
    @abstractmethod
    def type(self) -> str:
        """The kind that it was created as."""

    @property
    @abstractmethod
    def rank(self) -> int:
        """This worker's number, from 0."""

    @property
    @abstractmethod
    def num_workers(self) -> int:
        """How many workers there are."""
