"""Making a model from a saved one: verified first, filled next, found last; knows no server's inside.

Imported when it is first needed: it brings fsspec along.
"""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import TYPE_CHECKING

from glintpy import config
from glintpy.errors import ConfigError, ModelExists
from glintpy.models.consistency import check_sums, group_of
from glintpy.models.group import Group
from glintpy.models.making import check_row_bytes, make_model, with_updater
from glintpy.models.matrix import BigMatrix
from glintpy.models.requests import Target
from glintpy.models.saving import fill_model, progress_bar
from glintpy.models.table_saving import load_table
from glintpy.models.vector import BigVector
from glintpy.partitioning import Partitioner
from glintpy.protocol.spec import ModelSpec
from glintpy.storage.arrays import kept_arrays
from glintpy.storage.checkpoint_reader import CheckpointReader
from glintpy.ties import Tie
from glintpy.updaters import Updater, named

if TYPE_CHECKING:
    from collections.abc import Callable

    from glintpy.models.table import BigTable

logger = logging.getLogger("glintpy.models")


def load_model(
    tie: Tie,
    url: str,
    *,
    name: str | None,
    partitioner: str | Partitioner | None,
    partitions_per_server: int | None,
    durability: config.Durability | None,
    updater: str | Updater | None,
    consistency: str,
    group: Group | None,
    progress: bool | None,
    check: Callable[[ModelSpec], None],
) -> BigMatrix | BigVector | BigTable:
    """Make a model from a saved one; see ``Client.load``.

    Args:
        tie: to the cluster.
        url: where ``save`` wrote it.
        name: of the new model; this and what follows, None: the saved one's.
        partitioner: of the new model.
        partitions_per_server: of the new model.
        durability: of the new model.
        updater: of the new model.
        consistency: of the new handle, see ``Client.matrix``.
        group: for all but ``"async"``.
        progress: show a bar; None: if a terminal is watching.
        check: refuses a saved model, before any more of it is read.

    Raises:
        What ``Client.load`` raises.
    """
    name_of_group = group_of(consistency, group)  # a mistake is told before anything is read
    reader = CheckpointReader(url)
    saved = reader.spec
    check(saved)
    if saved.keys and (partitioner is not None or partitions_per_server is not None):
        raise ConfigError(
            f"{saved.name!r} was a table: where its keys lie follows from them, by no partitioner"
        )
    if partitioner is None:
        partitioner = saved.partitioner
    if updater is None:
        updater = named(saved.updater, saved.numbers)
    spec, updater = with_updater(saved, updater)
    spec = replace(
        spec,
        name=saved.name if name is None else name,
        partitioner=partitioner.signature if isinstance(partitioner, Partitioner) else partitioner,
        partitions_per_server=(
            saved.partitions_per_server if partitions_per_server is None else partitions_per_server
        ),
        durability=saved.durability if durability is None else durability,
        group=name_of_group,
    )
    if spec.group:
        check_sums(updater)
    check_row_bytes(spec, updater)
    _verify(reader, spec.name, progress=progress)
    try:
        made = _load(tie, reader, spec, partitioner, updater, progress=progress)
    except ModelExists:
        # The master's advice is for who makes a model.
        raise ModelExists(
            f"there is a model {spec.name!r} already; destroy it first, or give this one another name: load(..., "
            "name=...)"
        ) from None
    return made if consistency == "async" else made.with_options(consistency=consistency, group=group)


def _load(
    tie: Tie,
    reader: CheckpointReader,
    spec: ModelSpec,
    partitioner: str | Partitioner,
    updater: Updater,
    *,
    progress: bool | None,
) -> BigMatrix | BigVector | BigTable:
    common = _common(spec, updater, reader)
    if spec.keys:
        return load_table(tie, reader, spec, updater=updater, common=common, progress=progress)
    kind: type[BigMatrix | BigVector] = BigVector if spec.num_cols is None else BigMatrix
    num_bytes = spec.num_rows * sum(array.row_bytes for array in reader.arrays if array.name in common)
    with progress_bar(f"loading {spec.name}", num_bytes, show=progress) as advance:

        def fill(target: Target) -> None:
            for array, number in common.items():
                blocks = reader.blocks(config.PART_BYTES, array=array)
                fill_model(tie.runtime(), target.of_array(number), blocks, advance=advance)

        return make_model(tie, kind, spec, partitioner, updater, fill=fill)


def _verify(reader: CheckpointReader, name: str, *, progress: bool | None) -> None:
    with progress_bar(f"verifying {name}", reader.num_bytes, show=progress) as advance:
        done = 0

        def verified(num_bytes: int, _: int) -> None:
            nonlocal done
            advance(num_bytes - done)
            done = num_bytes

        reader.verify(verified)


def _common(spec: ModelSpec, updater: Updater, reader: CheckpointReader) -> dict[str, int]:
    """Return the arrays that were saved and are kept by the new model's updater, too: their numbers in the model."""
    saved = {array.name: array for array in reader.arrays}
    found = {
        array.name: number
        for number, array in enumerate(kept_arrays(spec, updater))
        if saved.get(array.name) == array
    }
    dropped = sorted(set(saved) - set(found))
    if dropped:
        logger.info("loading %s: updater %r has no %s", spec.name, updater.name, ", ".join(dropped))
    return found
