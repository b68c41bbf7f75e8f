"""How a client makes a table; knows no server."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, SupportsIndex

from glintpy.errors import ConfigError
from glintpy.models.consistency import group_of
from glintpy.models.indexing import size_of
from glintpy.models.making import make_table, with_updater
from glintpy.models.naming import generated_name
from glintpy.partitioning.keyed import NUM_PARTITIONS
from glintpy.protocol import dtypes
from glintpy.protocol.spec import Init, ModelSpec
from glintpy.protocol.texts import DEFAULT
from glintpy.scalars import plain
from glintpy.storage.arrays import LINK_BYTES, arrays_of

if TYPE_CHECKING:
    from glintpy import config
    from glintpy.models.group import Group
    from glintpy.models.table import BigTable
    from glintpy.ties import Tie
    from glintpy.updaters import Updater

PARTITIONER = "keyed"
"""What a table's spec says of where its keys lie."""


class MakesTables:
    """A client, as far as tables go."""

    _tie: Tie

    def table(
        self,
        cols: SupportsIndex,
        *,
        dtype: Any = "float32",
        key_dtype: str = "int64",
        name: str | None = None,
        exist_ok: bool = False,
        init: Init = 0,
        seed: int = 0,
        updater: str | Updater = "add",
        max_bytes: int | None = None,
        track: bool = False,
        admit_after: int = 0,
        finite: bool = False,
        durability: config.Durability | None = None,
        consistency: str = "async",
        group: Group | None = None,
    ) -> BigTable:
        """Make a table on the cluster's servers: rows named by keys that nobody declares, made when first pushed to.

        Args:
            cols: columns, at least 1; a row has at most 2 MiB.
            dtype: of the values, as of ``matrix``.
            key_dtype: what keys are: ``"int64"``, ``"uint64"``, or ``"str"``: texts of up to 63 bytes in UTF-8
                (``"str200"``: of up to 200, ``"str1023"`` at the most), for which each row has room.
            name: unique in the cluster; None: a random one.
            exist_ok: return the table of this name if its spec is equal.
            init: what rows begin with: a number, ``("uniform", low, high)`` or ``("normal", mean, std)``.
            seed: of random values: a key's row begins the same whenever and wherever it is made.
            updater: how pushes are applied, as of ``matrix``.
            max_bytes: what rows, slots, keys and index may take on all servers, each with its share; None: any.
            track: keep how often and when each row was pushed to, 12 bytes a row, for ``BigTable.evict``.
            admit_after: in how many pushes a key has to be to get a row, up to 255: those before are dropped.
            finite: refuse NaN and infinities.
            durability: what an acknowledged push survives, as of ``matrix``.
            consistency: of this handle's pulls, as of ``matrix``.
            group: for ``"ssp(k)"``: this program's place among the workers.

        Returns:
            A handle; used as a context manager it destroys the table at the end.

        Raises:
            ShapeError: no column, or rows that are too long.
            DTypeError: another dtype, initial values that it can't hold, or one that the updater can't work with.
            ConfigError: a max_bytes of fewer than 1,024 keys; an unknown key_dtype, updater, init or durability; a
                level that a server doesn't offer; another option that is none.
            ModelExists: the name is taken; with ``exist_ok``, by a model that differs.
            NotEnoughServers: there is no server.
            NotEnoughMemory: there is no room for even a few rows.
            MasterUnreachable: the master did not answer.
        """
        name_of_group = group_of(consistency, group)  # a mistake is told before anything is made
        spec = _spec(
            name,
            cols,
            dtype,
            init=init,
            seed=seed,
            finite=finite,
            durability=durability or "",
            group=name_of_group,  # which a table can't have, and its spec says so
            keys=_keys_of(key_dtype),
            track=track,
            admit_after=admit_after,
        )
        spec, updater = with_updater(spec, updater)
        spec = replace(spec, num_rows=_keys_in(max_bytes, spec, updater))
        made = make_table(self._tie, spec, updater, exist_ok=exist_ok)
        return made if consistency == "async" else made.with_options(consistency=consistency, group=group)


def _spec(name: str | None, cols: SupportsIndex, dtype: Any, **options: Any) -> ModelSpec:
    return ModelSpec(
        name if name is not None else generated_name("table"),
        num_rows=0,
        num_cols=size_of("cols", cols),
        dtype=dtypes.model_dtype(dtype).name,
        partitioner=PARTITIONER,
        **options,
    )


def _keys_of(key_dtype: str) -> str:
    """Return what a spec says of keys.

    Raises:
        ConfigError: no text; the spec says the rest.
    """
    if type(key_dtype) is not str or not key_dtype:
        raise ConfigError(f"key_dtype is the name of a dtype, not {key_dtype!r:.80}")
    return DEFAULT if key_dtype == "str" else key_dtype


def _keys_in(max_bytes: int | None, spec: ModelSpec, updater: Updater) -> int:
    """Return how many keys fit into so many bytes; 0: any number.

    Raises:
        ConfigError: fewer than a table has partitions, or no number.
    """
    if max_bytes is None:
        return 0
    key_bytes = LINK_BYTES + sum(array.row_bytes for array in arrays_of(spec, updater))
    max_bytes = plain(max_bytes)
    if type(max_bytes) is not int or max_bytes < key_bytes:
        raise ConfigError(f"max_bytes is a number of bytes, {key_bytes} for each key, not {max_bytes!r:.80}")
    num_keys = max_bytes // key_bytes
    if num_keys < NUM_PARTITIONS:
        raise ConfigError(
            f"a table of {max_bytes} bytes, {key_bytes} for each key, may have {num_keys} keys; it has room for one in "
            f"each of its {NUM_PARTITIONS} partitions at least: max_bytes={key_bytes * NUM_PARTITIONS} or more"
        )
    return num_keys
