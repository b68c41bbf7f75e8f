"""How a client finds a model that is there, or makes one of a save; knows no server."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any, TypeVar, overload

from glintpy.errors import ConfigError, ModelNotFound
from glintpy.models.making import handle_of
from glintpy.models.matrix import BigMatrix
from glintpy.models.table import BigTable
from glintpy.models.vector import BigVector
from glintpy.protocol.messages_master import OpenModel
from glintpy.protocol.spec import ModelInfo, ModelSpec, check_name

if TYPE_CHECKING:
    from collections.abc import Callable

    from glintpy import config
    from glintpy.models.group import Group
    from glintpy.partitioning import Partitioner
    from glintpy.ties import Tie
    from glintpy.updaters import Updater

Kind = TypeVar("Kind", BigMatrix, BigVector, BigTable)

POLL_S = 0.05
"""Between two looks at the master while waiting for a model to appear."""


class OpensModels:
    """A client, as far as models go that are there or were saved."""

    _tie: Tie
    _allowed: dict[str, type[Partitioner]]

    if TYPE_CHECKING:

        def _ask(self, build: Callable[[int], Any]) -> Any: ...

    @overload
    def open(
        self, name: str, wait_s: float = 0, *, partitioner: Partitioner | None = None, kind: None = None
    ) -> BigMatrix | BigVector: ...

    @overload
    def open(
        self, name: str, wait_s: float = 0, *, partitioner: Partitioner | None = None, kind: type[Kind]
    ) -> Kind: ...

    def open(
        self, name: str, wait_s: float = 0, *, partitioner: Partitioner | None = None, kind: Any = None
    ) -> Any:
        """Return a handle to a model that exists: a matrix, vector or table, as it was made.

        Type checkers are told that it is a matrix or vector, unless ``kind`` says what it is, as for tables it should.

        Args:
            name: the model's.
            wait_s: seconds to wait for somebody to make it.
            partitioner: of a model made with a custom one: an equal instance.
            kind: ``BigMatrix``, ``BigVector`` or ``BigTable``: what it has to be; None: any.

        Raises:
            ModelNotFound: there is no such model.
            ConfigError: it has a custom partitioner that was not given, or another one; it is of another kind; or
                what can't be a name.
            MasterUnreachable: the master did not answer.
        """
        check_name(name)
        check_kind(kind)
        end = time.monotonic() + wait_s
        while True:
            try:
                content = self._ask(lambda request_id: OpenModel(request_id, 0, name))
            except ModelNotFound:
                if time.monotonic() >= end:
                    raise
                time.sleep(POLL_S)
            else:
                info = ModelInfo.from_content(content)
                check_is(info.spec, kind)
                return handle_of(self._tie, info, partitioner, allowed=self._allowed)

    @overload
    def load(
        self,
        url: str,
        *,
        name: str | None = None,
        partitioner: str | Partitioner | None = None,
        partitions_per_server: int | None = None,
        durability: config.Durability | None = None,
        updater: str | Updater | None = None,
        consistency: str = "async",
        group: Group | None = None,
        progress: bool | None = None,
        kind: None = None,
    ) -> BigMatrix | BigVector: ...

    @overload
    def load(
        self,
        url: str,
        *,
        name: str | None = None,
        partitioner: str | Partitioner | None = None,
        partitions_per_server: int | None = None,
        durability: config.Durability | None = None,
        updater: str | Updater | None = None,
        consistency: str = "async",
        group: Group | None = None,
        progress: bool | None = None,
        kind: type[Kind],
    ) -> Kind: ...

    def load(
        self,
        url: str,
        *,
        name: str | None = None,
        partitioner: str | Partitioner | None = None,
        partitions_per_server: int | None = None,
        durability: config.Durability | None = None,
        updater: str | Updater | None = None,
        consistency: str = "async",
        group: Group | None = None,
        progress: bool | None = None,
        kind: Any = None,
    ) -> Any:
        """Make a model, of the kind that it was, from a saved one, on any number of servers and with any partitioner.

        Every checksum is verified before anything is made; the model can be found when it is complete.

        Args:
            url: where ``save`` wrote it.
            name: of the new model; None: the saved one's.
            partitioner: of the new model; None: the saved one's (a custom one must be given).
            partitions_per_server: of the new model; None: the saved one's.
            durability: of the new model; None: what the saved one asked for.
            updater: of the new model; None: the saved one's, with its numbers. Slots of the same names are loaded,
                others begin anew.
            consistency: as of ``matrix``.
            group: as of ``matrix``.
            progress: show a bar; None: if a terminal is watching.
            kind: as of ``open``.

        Raises:
            CheckpointNotFound, CheckpointCorrupt, CheckpointMismatch: nothing was made.
            ConfigError: it is of another kind.
            What ``matrix`` raises.
        """
        check_kind(kind)
        from glintpy.models.loading import load_model  # noqa: PLC0415 - loads fsspec

        return load_model(
            self._tie,
            url,
            name=name,
            partitioner=partitioner,
            partitions_per_server=partitions_per_server,
            durability=durability,
            updater=updater,
            consistency=consistency,
            group=group,
            progress=progress,
            check=lambda saved: check_is(saved, kind),
        )


def check_kind(kind: Any) -> None:
    """Refuse what is no kind of model.

    Raises:
        ConfigError: it is none.
    """
    if kind is not None and kind not in {BigMatrix, BigVector, BigTable}:
        raise ConfigError(f"kind is BigMatrix, BigVector or BigTable, or None for any, not {kind!r:.80}")


def check_is(spec: ModelSpec, kind: type[BigMatrix | BigVector | BigTable] | None) -> None:
    """Refuse a model of another kind than the one that was asked for.

    Raises:
        ConfigError: it is of another.
    """
    found = kind_of(spec)
    if kind is not None and found is not kind:
        raise ConfigError(f"model {spec.name!r} is a {found.__name__}, not a {kind.__name__}")


def kind_of(spec: ModelSpec) -> type[BigMatrix | BigVector | BigTable]:
    """Return the class of a model's handles."""
    if spec.keys:
        return BigTable
    return BigVector if spec.num_cols is None else BigMatrix
