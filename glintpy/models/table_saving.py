"""Saving tables, and making them from saved ones; knows no server's inside.

A server's part is one moment of its rows, those without a key among them, which are left out here. Each server's part
is a partition of the checkpoint, and what says a partition's rows are its keys. It may be loaded on any number of
servers: a key finds its place by itself.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from glintpy import config
from glintpy.models.making import make_table
from glintpy.models.saving import ServerCut, current_spec, fill_model, progress_bar, write_servers
from glintpy.models.table_requests import TableTarget
from glintpy.storage.arrays import arrays_of
from glintpy.storage.checkpoint import CheckpointWriter
from glintpy.storage.checkpoint_format import rows_dtype

if TYPE_CHECKING:
    from glintpy.models.requests import AnyTarget
    from glintpy.models.table import BigTable
    from glintpy.protocol.spec import ModelSpec
    from glintpy.runtime import Runtime
    from glintpy.storage.checkpoint_reader import CheckpointReader
    from glintpy.ties import Tie
    from glintpy.updaters import Updater


def save_table(
    runtime: Runtime, target: TableTarget, url: str, *, num_keys: int, overwrite: bool, progress: bool | None
) -> None:
    """Write a table to a URL; all of it or, by an exception, none.

    Args:
        runtime: this process's.
        target: the table.
        url: any fsspec URL of a directory.
        num_keys: about how many there are, for the bar.
        overwrite: replace what is saved there.
        progress: see ``progress_bar``.

    Raises:
        CheckpointError: there is one already, or the place can't be written.
        GlintError: of the servers.
    """
    info, arrays = target.info, target.arrays
    spec = current_spec(runtime, target)
    with CheckpointWriter(
        url, spec=spec, num_partitions=len(info.servers), overwrite=overwrite, slots=arrays[1:]
    ) as writer:
        num_bytes = sum(array.row_bytes for array in arrays) * num_keys
        with progress_bar(f"saving {info.spec.name}", num_bytes, show=progress) as advance:
            write_servers(
                writer,
                runtime,
                target,
                write=Writing(target).write,
                partitions_of=lambda server: [server],
                advance=advance,
            )
        writer.commit()


class Writing:
    """Writes one server's part of a table."""

    def __init__(self, target: TableTarget) -> None:
        self._dtype = rows_dtype(target.info.spec)
        arrays = arrays_of(target.info.spec, target.updater)
        # What says a row's key, and whether it has one: the first of the two behind what is kept, and the last one.
        self._keys_at, self._used_at = len(target.arrays), len(arrays) - 1
        self._keys, self._used = arrays[self._keys_at], arrays[self._used_at]

    def write(
        self, writer: CheckpointWriter, server: int, cut: ServerCut, advance: Callable[[int], None]
    ) -> None:
        """Write all arrays of a server's moment.

        Args:
            writer: of the save.
            server: its index in the routing, and the partition that its part is.
            cut: the moment.
            advance: told how many more bytes are done.

        Raises:
            CutLostError: the moment is lost.
        """
        used = _joined(cut.blocks(self._used_at, self._used, keeps=True), self._used.dtype) != 0
        keys = _joined(cut.blocks(self._keys_at, self._keys, keeps=True), self._keys.dtype)[used]
        for number, array in enumerate(writer.arrays):
            with writer.part(
                server, num_rows=len(keys), array=number, global_rows=keys.view(self._dtype)
            ) as part:
                first = 0
                for block in cut.blocks(number, array):
                    rows = block[used[first : first + len(block)]]
                    first += len(block)
                    part.write(rows)
                    advance(rows.nbytes)


def load_table(
    tie: Tie,
    reader: CheckpointReader,
    spec: ModelSpec,
    *,
    updater: Updater,
    common: dict[str, int],
    progress: bool | None,
) -> BigTable:
    """Make a table from a verified one.

    Args:
        tie: to the cluster.
        reader: of the saved one.
        spec: of the new table.
        updater: the spec's.
        common: the arrays that were saved and are kept by the new table, too: their numbers in it.
        progress: show a bar.

    Raises:
        What ``Client.load`` raises.
    """
    with progress_bar(f"loading {spec.name}", reader.num_bytes, show=progress) as advance:

        def fill(target: TableTarget) -> None:
            for array, number in common.items():
                blocks = reader.blocks(config.PART_BYTES, array=array)
                fill_model(tie.runtime(), target.of(array=number), blocks, advance=advance, name=_named)

        return make_table(tie, spec, updater, fill=fill)


def _named(target: AnyTarget, keys: Any) -> tuple[AnyTarget, NDArray[np.int64]]:
    """Return keys as they were saved as a request has them."""
    if keys.dtype.kind != "S":
        return target, keys.view(np.int64)
    assert isinstance(target, TableTarget), "only tables have texts"
    return target.with_texts(keys), np.arange(len(keys))


def _joined(blocks: Any, dtype: np.dtype[Any]) -> NDArray[Any]:
    # Texts come as bytes, as all that travels.
    pieces = [block.reshape(-1).view(dtype) if dtype.kind == "S" else block for block in blocks]
    return np.concatenate([np.empty(0, dtype), *pieces])
