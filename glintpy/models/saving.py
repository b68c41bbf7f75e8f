"""Saving and loading: a model's values between its servers and files; knows no user's types.

The process that calls writes and reads, so URL and credentials are the caller's and no client chooses a
path on a server. Servers stream a *cut*, one moment each, in slices. A cut is lost with the process that
holds it; then that server's part is written once more, of a later moment.
"""

from __future__ import annotations

import logging
import math
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy import config
from glintpy.errors import GlintError, MasterUnreachable, ModelError, RemoteProtocolError, ServerLost
from glintpy.futures import Future
from glintpy.models.indexing import Asked
from glintpy.models.requests import AnyTarget, Requester, Target
from glintpy.partitioning import Layout
from glintpy.protocol import wire
from glintpy.protocol.calls import Stamp
from glintpy.protocol.messages import BeginCut, Done, EndCut, Message, ReadCut, Values
from glintpy.protocol.messages_master import OpenModel
from glintpy.protocol.spec import ModelInfo, ModelSpec
from glintpy.runtime import Runtime
from glintpy.storage.arrays import ArraySpec
from glintpy.storage.checkpoint import CheckpointWriter

logger = logging.getLogger("glintpy.models")

READS_AHEAD = 3
"""Slices asked for ahead of the one that is being written: enough to copy, send and write at once. Others' pushes to a
server wait behind all of them."""

PUSHES_AHEAD = 8
"""Blocks under way while a model is filled."""

TOUCH_S = 15.0
"""How often a cut whose turn is still to come is read from: a server drops one after a minute of silence, and
all servers' moments should lie close together, also where the first one's part takes long to write."""

MASTER_S = 5.0
"""How long the master is asked for an updater's numbers: a save goes on without it."""

CUTS_LOST_MAX = 10
"""How often one server may lose its cut during one save before that is given up."""

Block = tuple[range | NDArray[np.int64], NDArray[Any]]
Name = Callable[[AnyTarget, Any], tuple[AnyTarget, Any]]


@contextmanager
def progress_bar(what: str, total_bytes: int, *, show: bool | None) -> Iterator[Callable[[int], None]]:
    """Show a bar while something long runs, if a terminal is watching.

    Args:
        what: the words beside the bar.
        total_bytes: of the whole.
        show: None: if a terminal is watching.

    Yields:
        A function that is told how many more bytes are done.
    """
    if show is False or (show is None and not sys.stderr.isatty()):
        yield lambda _: None
        return
    import rich.console  # noqa: PLC0415 - only where somebody watches
    import rich.progress as shown  # noqa: PLC0415 - only where somebody watches

    columns = (shown.TextColumn(what), shown.BarColumn(), shown.DownloadColumn(), shown.TransferSpeedColumn())
    with shown.Progress(*columns, console=rich.console.Console(stderr=True)) as bar:
        task = bar.add_task(what, total=total_bytes)
        yield lambda num_bytes: bar.advance(task, num_bytes)


class CutLostError(Exception):
    """A server no longer has the cut that it is asked about: it was restarted, or not read for too long."""


class ServerCut:
    """One server's moment of a model, and another one should the server lose it."""

    def __init__(self, runtime: Runtime, info: ModelInfo, server: int, timeout_s: float | None) -> None:
        self._runtime = runtime
        self._timeout_s = timeout_s
        self._server_id, address = info.servers[server]
        self._model_id = info.model_id
        self._doing = f"saving {info.spec.name!r}"
        runtime.link(self._server_id, address)
        self.begin()

    def begin(self) -> None:
        """Ask for this moment, in place of an earlier one that is lost."""
        self._begun = self._runtime.ask_server(
            self._server_id,
            lambda request_id, stamp: BeginCut(
                request_id, stamp.session, stamp.floor, stamp.after, self._model_id
            ),
            model_id=self._model_id,
            timeout_s=self._timeout_s,
            doing=self._doing,
        )
        self._ended = False

    def touch(self) -> None:
        """Read something, so that a server doesn't take the cut for forgotten while others are read."""
        # Nobody looks at the answer: that a cut is lost is noticed when its turn comes.
        if self._begun.done() and self._begun.exception() is None:
            self._read(self._found()[0], 0, 0, done_below=0)

    def end(self, *, waits: bool) -> None:
        """Let go of the moment; a server that doesn't hear of it forgets a cut that nobody reads.

        Args:
            waits: until the server has done so; otherwise nobody learns whether it did.
        """
        if self._ended or not self._begun.done() or self._begun.exception() is not None:
            return
        self._ended = True
        cut_id = self._found()[0]
        answer = self._ask(lambda request_id, stamp: EndCut(request_id, stamp.session, cut_id))
        if waits:
            answer.exception()

    def blocks(self, number: int, array: ArraySpec, *, keeps: bool = False) -> Iterator[NDArray[Any]]:
        """Yield the server's rows of one array in order, in blocks; array after array.

        Args:
            number: of the array.
            array: what it is.
            keeps: earlier arrays are still to be read.

        Raises:
            CutLostError: what was yielded belongs to a moment that can't be read to its end.
        """
        cut_id, num_slices = self._found()
        slices = range(number * num_slices, (number + 1) * num_slices)
        if array.row_bytes > config.PART_BYTES:
            yield from self._wide_rows(cut_id, slices, array)
        else:
            yield from self._pieces(cut_id, ((index, 0) for index in slices), keeps=keeps)

    def _found(self) -> tuple[int, int]:
        """Return the cut's id and the number of slices of each array, once the server has said them."""
        answer = self._begun.result()
        if not isinstance(answer, Done):
            raise RemoteProtocolError(f"a server answered {answer!r:.100} where a cut was asked")
        found = wire.content(answer.document)
        try:
            return int(found["cut_id"]), -(-int(found["num_rows"]) // int(found["slice_rows"]))
        except (KeyError, TypeError, ValueError, ArithmeticError) as error:
            raise RemoteProtocolError(f"a server describes a cut as {found!r:.100}") from error

    def _wide_rows(self, cut_id: int, rows: range, array: ArraySpec) -> Iterator[NDArray[Any]]:
        """Yield rows of which each alone is longer than a part, and travels in several pieces."""
        starts = range(0, math.prod(array.row_shape), config.PART_BYTES // array.dtype.itemsize)
        pieces = self._pieces(cut_id, ((row, start) for row in rows for start in starts))
        for _ in rows:
            yield np.concatenate([next(pieces) for _ in starts]).reshape(1, -1)

    def _pieces(
        self, cut_id: int, wanted: Iterable[tuple[int, int]], *, keeps: bool = False
    ) -> Iterator[NDArray[Any]]:
        """Yield the pieces that begin at (slice, first cell), several asked for ahead."""
        waiting: deque[tuple[int, Future[Message]]] = deque()
        for index, first_cell in wanted:
            done_below = 0 if keeps else waiting[0][0] if waiting else index
            waiting.append((index, self._read(cut_id, index, first_cell, done_below=done_below)))
            if len(waiting) == READS_AHEAD:
                yield self._values(waiting.popleft()[1])
        while waiting:
            yield self._values(waiting.popleft()[1])

    def _read(self, cut_id: int, index: int, first_cell: int, *, done_below: int) -> Future[Message]:
        return self._ask(
            lambda request_id, stamp: ReadCut(
                request_id, stamp.session, cut_id, index, done_below, first_cell
            )
        )

    def _ask(self, build: Callable[[int, Stamp], Message]) -> Future[Message]:
        return self._runtime.ask_server(
            self._server_id, build, model_id=None, timeout_s=self._timeout_s, doing=self._doing
        )

    @staticmethod
    def _values(future: Future[Message]) -> NDArray[Any]:
        try:
            answer = future.result()
        except ModelError as error:
            # The plain one means the cut; those derived from it (lost, not found) mean the model.
            if type(error) is ModelError:
                raise CutLostError(str(error)) from error
            raise
        if not isinstance(answer, Values):
            raise RemoteProtocolError(f"a server answered {answer!r:.100} where a slice was asked")
        return answer.values


def current_spec(runtime: Runtime, target: AnyTarget) -> ModelSpec:
    """Return a model's spec with the updater's numbers as they are now: a handle knows those that it began with.

    Without the master it is the handle's own, and the log says so.
    """
    info = target.info
    if not info.spec.numbers:
        return info.spec
    try:
        told = runtime.ask_master(
            lambda request_id: OpenModel(request_id, info.model_id, ""),
            timeout_s=MASTER_S,
            doing=f"saving {info.spec.name!r}",
        )
    except MasterUnreachable as error:
        logger.warning(
            "saving %s with the numbers of its updater that this handle knows of: %s", info.spec.name, error
        )
        return info.spec
    return ModelInfo.from_content(told).spec


def save_model(runtime: Runtime, target: Target, url: str, *, overwrite: bool, progress: bool | None) -> None:
    """Write a model to a URL; all of it or, by an exception, none.

    Args:
        runtime: this process's.
        target: the model.
        url: any fsspec URL of a directory.
        overwrite: replace what is saved there.
        progress: see ``progress_bar``.

    Raises:
        CheckpointError: there is one already, or the place can't be written.
        GlintError: of the servers.
    """
    info, arrays = target.info, target.arrays
    layout = target.layout

    def write(writer: CheckpointWriter, server: int, cut: ServerCut, advance: Callable[[int], None]) -> None:
        for number, array in enumerate(writer.arrays):
            _write_partitions(writer, layout, server, cut.blocks(number, array), advance, array=number)

    with CheckpointWriter(
        url,
        # Whose rounds it follows is not its content.
        spec=replace(current_spec(runtime, target), group=""),
        num_partitions=len(info.owners),
        overwrite=overwrite,
        slots=arrays[1:],
    ) as writer:
        num_bytes = sum(array.row_bytes for array in arrays) * info.spec.num_rows
        with progress_bar(f"saving {info.spec.name}", num_bytes, show=progress) as advance:
            write_servers(
                writer, runtime, target, write=write, partitions_of=layout.partitions_of, advance=advance
            )
        writer.commit()


Write = Callable[[CheckpointWriter, int, ServerCut, Callable[[int], None]], None]
"""Writes a server's parts from its moment, and says how many bytes more are done."""


def write_servers(
    writer: CheckpointWriter,
    runtime: Runtime,
    target: AnyTarget,
    *,
    write: Write,
    partitions_of: Callable[[int], list[int]],
    advance: Callable[[int], None],
) -> None:
    """Write what all servers have of a model, each of one moment, all moments close together.

    Args:
        writer: of the save.
        runtime: this process's.
        target: the model.
        write: for each server, and again if it loses its moment meanwhile.
        partitions_of: the partitions that a server's parts are of.
        advance: told how many more bytes are done.

    Raises:
        GlintError: of the servers, or of the writer.
    """
    info = target.info
    with ExitStack() as stack:
        cuts: list[ServerCut] = []
        for server in range(len(info.servers)):
            cuts.append(ServerCut(runtime, info, server, target.timeout_s))
            stack.callback(cuts[-1].end, waits=False)
        for server, cut in enumerate(cuts):
            touching = _touching(cuts[server + 1 :], advance)
            _write_server(writer, server, cut, touching, write=write, partitions=partitions_of(server))
            cut.end(waits=True)


def _touching(cuts: list[ServerCut], advance: Callable[[int], None]) -> Callable[[int], None]:
    """Return ``advance``, with a sign of life for the cuts whose turn is still to come now and then."""
    touched_at = time.monotonic()

    def advance_and_touch(num_bytes: int) -> None:
        nonlocal touched_at
        advance(num_bytes)
        if time.monotonic() - touched_at >= TOUCH_S:
            touched_at = time.monotonic()
            for cut in cuts:
                cut.touch()

    return advance_and_touch


def _write_server(
    writer: CheckpointWriter,
    server: int,
    cut: ServerCut,
    advance: Callable[[int], None],
    *,
    write: Write,
    partitions: list[int],
) -> None:
    """Write a server's partitions; from their beginning, of another moment, if the server loses its cut.

    A server that is restarted has its values and no cut. Its files of the lost moment can't be used: one
    file, and all of one server's files, are one moment.
    """
    num_lost = num_bytes = 0

    def count(more: int) -> None:
        nonlocal num_bytes
        num_bytes += more
        advance(more)

    while True:
        try:
            write(writer, server, cut, count)
        except CutLostError as error:
            num_lost += 1
            if num_lost > CUTS_LOST_MAX:
                raise ServerLost(
                    f"a server lost what was being saved {num_lost} times, last: {error}; "
                    "does it restart again and again?"
                ) from error
            logger.info("saving %s: begun anew with one server's part: %s", writer.spec.name, error)
            for partition in partitions:
                writer.withdraw(partition)
            advance(-num_bytes)
            num_bytes = 0
            cut.begin()
        else:
            return


def _write_partitions(
    writer: CheckpointWriter,
    layout: Layout,
    server: int,
    blocks: Iterator[NDArray[Any]],
    advance: Callable[[int], None],
    *,
    array: int,
) -> None:
    """Deal a server's rows of one array out to the files of its partitions, which lie in it one behind another."""
    sizes, extents = layout.sizes(), layout.affine_extents()
    held: NDArray[Any] | None = None
    for partition in layout.partitions_of(server):
        num_rows = int(sizes[partition])
        where: dict[str, Any]
        if extents is None:
            local_rows = np.arange(num_rows, dtype=np.int64)
            where = {"global_rows": layout.partitioner.global_of(partition, local_rows)}
        else:
            where = {"first": int(extents[partition, 0]), "step": int(extents[partition, 1])}
        with writer.part(partition, num_rows=num_rows, array=array, **where) as part:
            left = num_rows
            while left:
                if held is None or not len(held):
                    held = next(blocks, None)
                    if held is None or not len(held):
                        raise RemoteProtocolError("a server sent fewer rows than it holds")
                piece, held = held[:left], held[left:]
                part.write(piece)
                left -= len(piece)
                advance(piece.nbytes)
    if next(blocks, None) is not None:
        raise RemoteProtocolError("a server sent more rows than it holds")


def fill_model(
    runtime: Runtime,
    target: AnyTarget,
    blocks: Iterable[Block],
    *,
    advance: Callable[[int], None] = lambda _: None,
    name: Name = lambda target, rows: (target, rows),
) -> None:
    """Store values as they are, whatever the updater, in a model that nobody can find yet.

    Args:
        runtime: this process's.
        target: the model, and which of its arrays.
        blocks: (global rows, their values), in any order.
        advance: told how many more bytes are done.
        name: from the rows of a block to those of a request, and what it goes to.

    Raises:
        GlintError: the first push that failed.
    """
    waiting: deque[tuple[Future[Any], int]] = deque()
    for global_rows, values in blocks:
        if not values.size:
            continue
        named, rows = name(target, global_rows)
        asked = Asked(rows, None, paired=False, shape=values.shape, wire_shape=values.shape)
        future = Requester(runtime, named, asked, kind="push").push(values, assign=True)
        waiting.append((future, values.nbytes))
        if len(waiting) > PUSHES_AHEAD:
            _finish(waiting, advance)
    while waiting:
        _finish(waiting, advance)


def _finish(waiting: deque[tuple[Future[Any], int]], advance: Callable[[int], None]) -> None:
    future, num_bytes = waiting.popleft()
    try:
        future.result()
    except GlintError:
        for other, _ in waiting:
            other.exception()
        raise
    advance(num_bytes)


def random_blocks(info: ModelInfo) -> Iterator[Block]:
    """Yield the random initial values of a model whose rows have no regular order on their servers."""
    from glintpy.storage.initialise import random_rows  # noqa: PLC0415 - rarely needed by a client

    block_rows = max(1, config.PART_BYTES // max(1, info.spec.row_bytes))
    for first in range(0, info.spec.num_rows, block_rows):
        rows = range(first, min(info.spec.num_rows, first + block_rows))
        yield rows, random_rows(info.spec, np.arange(rows.start, rows.stop, dtype=np.int64))
