"""Making a model from a saved one: verified first, filled next, found last; knows no server's inside.

Imported when it is first needed: it brings fsspec along.
"""

from __future__ import annotations

from dataclasses import replace

from glintpy import config
from glintpy.models.making import make_model
from glintpy.models.matrix import BigMatrix
from glintpy.models.saving import fill_model, progress_bar
from glintpy.models.vector import BigVector
from glintpy.partitioning import Partitioner
from glintpy.storage.checkpoint_reader import CheckpointReader
from glintpy.ties import Tie


def load_model(
    tie: Tie,
    url: str,
    *,
    name: str | None,
    partitioner: str | Partitioner | None,
    partitions_per_server: int | None,
    durability: config.Durability | None,
    progress: bool | None,
) -> BigMatrix | BigVector:
    """Make a model from a saved one; see ``Client.load``.

    Args:
        tie: to the cluster.
        url: where ``save`` wrote it.
        name: of the new model; this and what follows, None: the saved one's.
        partitioner: of the new model.
        partitions_per_server: of the new model.
        durability: of the new model.
        progress: show a bar; None: if a terminal is watching.

    Raises:
        What ``Client.load`` raises.
    """
    reader = CheckpointReader(url)
    saved = reader.spec
    if partitioner is None:
        partitioner = saved.partitioner
    spec = replace(
        saved,
        name=saved.name if name is None else name,
        partitioner=partitioner.signature if isinstance(partitioner, Partitioner) else partitioner,
        partitions_per_server=(
            saved.partitions_per_server if partitions_per_server is None else partitions_per_server
        ),
        durability=saved.durability if durability is None else durability,
    )
    with progress_bar(f"verifying {spec.name}", reader.num_bytes, show=progress) as advance:
        done = 0

        def verified(num_bytes: int, _: int) -> None:
            nonlocal done
            advance(num_bytes - done)
            done = num_bytes

        reader.verify(verified)
    kind: type[BigMatrix | BigVector] = BigVector if spec.num_cols is None else BigMatrix
    with progress_bar(f"loading {spec.name}", spec.num_bytes, show=progress) as advance:
        return make_model(
            tie,
            kind,
            spec,
            partitioner,
            fill=lambda target: fill_model(
                tie.runtime(), target, reader.blocks(config.PART_BYTES), advance=advance
            ),
        )
