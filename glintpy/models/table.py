"""BigTable: what users hold of a table, whose keys nobody declared; knows no server's inside."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal, SupportsIndex, cast

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glintpy.errors import GlintError, RemoteProtocolError
from glintpy.futures import Future, completed, derived, gather
from glintpy.models.base import Handle
from glintpy.models.bundles import pull, push
from glintpy.models.combining import Combined, without_repeats
from glintpy.models.indexing import Asked
from glintpy.models.iterators import setting
from glintpy.models.requests import Requester
from glintpy.models.table_evicting import eviction
from glintpy.models.table_functions import HasTableFunctions
from glintpy.models.table_requests import TableTarget, parse_request
from glintpy.models.values import check_out, parse_values
from glintpy.partitioning.keyed import KeyedLayout
from glintpy.protocol import dtypes, wire
from glintpy.protocol.messages import Done, Message
from glintpy.protocol.messages_tables import REMOVE, CountKeys, ScanKeys, Scanned
from glintpy.protocol.spec import ModelInfo
from glintpy.protocol.texts import decoded, from_frame
from glintpy.ties import Tie
from glintpy.updaters import Updater

_ROWS_A_REQUEST = 1024
"""Keys that iteration asks for at once."""


class BigTable(Handle, HasTableFunctions):
    """A table over servers: a row for each key that was ever pushed to, and has not been removed.

    ``len(table)`` counts keys, ``key in table`` looks one up, and ``for key in table`` yields them, in no order. A
    handle pickles, and two handles to the same table are equal, as those of a matrix.

    Threads:
        Safe from any thread.
    """

    _target: TableTarget

    def __init__(self, tie: Tie, info: ModelInfo, updater: Updater | None = None) -> None:
        """Bind a handle; programs get theirs from a client."""
        self._layout = KeyedLayout(info.owners_array(), len(info.servers))
        super().__init__(tie, info, updater)

    # --- what it is -----------------------------------------------------------------------------------------------

    @property
    def num_cols(self) -> int:
        """Columns."""
        return self._spec.num_cols or 0

    @property
    def key_dtype(self) -> np.dtype[Any]:
        """The dtype of arrays of its keys; ``object`` of ``str`` where they are texts."""
        return np.dtype("O") if self._spec.has_texts else dtypes.BY_NAME[self._spec.keys]

    @property
    def slots(self) -> tuple[str, ...]:
        """The names of what is kept beside the values, see ``pull_slot``: by the updater, and of tables that track."""
        return tuple(array.name for array in self._target.arrays[1:])

    def num_keys(self) -> Future[int]:
        """Count the keys that have a row.

        A server counts after the pushes that this client issued before; what others push meanwhile may count or not.

        The future raises:
            What ``pull`` does.
        """
        self._check_exists()
        counts = [self._count(server) for server in range(len(self._info.servers))]
        return derived(gather(*counts), sum)

    def __len__(self) -> int:
        return self.num_keys().result()

    def __contains__(self, key: object) -> bool:
        return bool(self.contains(cast("int", key)).result())  # what isn't one is refused there

    def __repr__(self) -> str:
        lost = ", destroyed" if self._destroyed else ""
        return (
            f"BigTable({self.name!r}, cols={self.num_cols}, dtype={self.dtype.name}, keys={self._spec.keys}, "
            f"servers={len(self._info.servers)}{lost})"
        )

    # --- rows -----------------------------------------------------------------------------------------------------

    def pull(
        self, keys: ArrayLike, create: bool = False, *, out: NDArray[Any] | None = None
    ) -> Future[NDArray[Any]]:
        """Read the rows of some keys; at most one request goes to each server.

        A key that has no row reads as what it would begin with, and stays without one, unless ``create`` is set. A pull
        sees every push that this client issued before it.

        Args:
            keys: an int, or (n,) integers in any order with repeats; texts where the table's keys are ``str``.
            create: give keys that have none a row. Then this is a push as well, and fails as one.
            out: C-contiguous, of the exact dtype and shape of the result, to be written into. Not to be read before
                the future is done.

        Returns:
            A future of (n, num_cols) values, entry i of ``keys[i]``; of (num_cols,) for one key. The array is the
            caller's.

        Raises:
            DTypeError, ShapeError, KeyRangeError: here, before anything is sent.
            ModelNotFound: it was destroyed through this handle.

        The future raises:
            PullFailed: the deadline passed.
            ServerLost: with ``on_server_lost="raise"``.
            ModelNotFound, ModelLost, RemoteFailure: of the servers.

        Threads:
            Safe from any thread; doesn't wait, unless ``create`` is set.
        """
        asked, target = parse_request(keys, self._target)
        if create:
            self._check(asked, out)
            return self._create(asked, target, out)
        return self._read(asked, target, out)

    def push(self, keys: ArrayLike, values: ArrayLike) -> Future[None]:
        """Apply values to the rows of some keys by the table's updater, exactly once; keys without a row get one first.

        A push that fits in one part a server (about 2 MiB; nearly all do) changes together there; a larger one part by
        part, and one over several servers server by server. Pushes of one client to one server are applied in the order
        issued.

        Args:
            keys: as in ``pull``; repeats all count.
            values: numbers that broadcast against what ``pull`` with the same keys returns. They are copied before the
                call returns.

        Returns:
            A future that is done when all servers have applied the push.

        Raises:
            DTypeError, ShapeError, KeyRangeError: here, before anything is sent.
            ModelNotFound: it was destroyed through this handle.

        The future raises:
            PushRefused: no cell changed on any server; its cause is ``NotEnoughMemory`` where there was no room for
                new rows.
            PushOutcomeUnknown: some parts may be in, others not, for want of room on one server, say; ``.parts`` says
                what is known.
            ModelNotFound, ModelLost, ServerLost: of the servers, with ``.outcome`` where it applies.

        Threads:
            Safe from any thread. Waits, also under asyncio, while too many bytes are under way to a server.
        """
        asked, target = parse_request(keys, self._target)
        self._check_exists()
        parsed = self._parsed(asked, values)
        if asked.empty:
            return completed(None)
        once = self._without_repeats(asked, parsed)
        if once is not None:
            asked, parsed = once.asked, once.values
        runtime = self._tie.runtime()
        if self._spec.counts_pushes:
            runtime.outbox.issue()  # alone: those that travel together are one to who counts them
            return Requester(runtime, target, asked, kind="push").push(asked.to_wire(parsed))
        return push(runtime, target, asked, parsed)

    def push_pull(
        self, keys: ArrayLike, values: ArrayLike, *, out: NDArray[Any] | None = None
    ) -> Future[NDArray[Any]]:
        """Push, and read the rows after the push, in one request a server.

        Args:
            keys: as in ``push``.
            values: as in ``push``.
            out: as in ``pull``.

        Returns:
            A future of what ``pull`` with the same keys would return after the push.

        Raises:
            DTypeError, ShapeError, KeyRangeError: here, before anything is sent.

        The future raises:
            What ``push`` does.

        Threads:
            As ``push``.
        """
        asked, target = parse_request(keys, self._target)
        self._check(asked, out)
        parsed = self._parsed(asked, values)
        if asked.empty:
            return completed(_finished(asked, np.empty(asked.wire_shape, self.dtype), out))
        self._wait_for_others()
        runtime = self._tie.runtime()
        runtime.outbox.issue()  # what was asked for before comes before
        once = self._without_repeats(asked, parsed)
        sent, values = (asked, asked.to_wire(parsed)) if once is None else (once.asked, once.values)

        def finish(found: NDArray[Any]) -> NDArray[Any]:
            return _finished(asked, found if once is None else once.spread(found), out)

        return Requester(runtime, target, sent, kind="push").push(values, finish=finish)

    def contains(self, keys: ArrayLike) -> Future[NDArray[np.bool_]]:
        """Look which keys have a row.

        Args:
            keys: as in ``pull``.

        Returns:
            A future of an (n,) mask; of one of shape () for one key.

        Raises:
            DTypeError, ShapeError, KeyRangeError: here, before anything is sent.

        The future raises:
            What ``pull`` does.
        """
        asked, target = parse_request(keys, self._target.of(contains=True))
        return self._read(asked, target, None)

    def remove(self, keys: ArrayLike) -> Future[None]:
        """Take some keys out, with their rows and what the updater keeps; those that have none are passed over.

        A push of one issued later gives it a new row.

        Args:
            keys: as in ``pull``.

        Returns:
            A future that is done when all servers have done it; like a push it is done exactly once.

        Raises:
            DTypeError, ShapeError, KeyRangeError: here, before anything is sent.

        The future raises:
            What ``push`` does.
        """
        asked, target = parse_request(keys, self._target.of(action=REMOVE))
        self._check_exists()
        if asked.empty:
            return completed(None)
        runtime = self._tie.runtime()
        runtime.outbox.issue()
        nothing = np.zeros(asked.wire_shape, target.dtype)
        return Requester(runtime, target, asked, kind="push").push(nothing)

    def evict(
        self,
        *,
        max_rows: int | None = None,
        older_than: float | None = None,
        fewer_than: int | None = None,
        by: Literal["age", "use"] = "age",
    ) -> Future[None]:
        """Take out the keys that are little used, with their rows; for tables made with ``track=True``.

        A use is a push, or a ``pull`` with ``create=True``, that has the key, however often; other pulls leave no
        trace. Who goes, each server says, by its own clock; done exactly once, as a push, and in order with the others.

        Args:
            max_rows: so many stay at most of those that the other two leave, each server having its share of them.
            older_than: those go that were not used for so many seconds.
            fewer_than: those go that were used less often than so.
            by: which go of too many rows: those used longest ago (``"age"``), or least often (``"use"``).

        Returns:
            A future that is done when all servers have done it.

        Raises:
            ConfigError: the table doesn't track its rows; nothing is asked for, or what can't be.
            ModelNotFound: it was destroyed through this handle.

        The future raises:
            What ``push`` does.
        """
        self._check_exists()
        asked, target = eviction(
            self._target, max_rows=max_rows, older_than=older_than, fewer_than=fewer_than, by=by
        )
        runtime = self._tie.runtime()
        runtime.outbox.issue()
        nothing = np.zeros(asked.wire_shape, target.dtype)
        return Requester(runtime, target, asked, kind="push").push(nothing)

    def pull_slot(self, name: str, keys: ArrayLike) -> Future[NDArray[Any]]:
        """Read what is kept beside the values, as ``pull`` reads them.

        Of a table that tracks its rows ``"touches"`` and ``"touched"`` say in how many pushes a key was, and when in
        the last one, in seconds since 1970.

        Args:
            name: one of ``slots``.
            keys: as in ``pull``.

        Returns:
            A future of what ``pull`` would return, in the dtype that the updater computes in (float32 for float16);
            of ``"steps"`` (n,) uint32, or () for one key.

        Raises:
            ConfigError: the updater has no such slot.
            DTypeError, ShapeError, KeyRangeError: here, before anything is sent.

        The future raises:
            What ``pull`` does.
        """
        self._check_slot(name)
        asked, target = parse_request(keys, self._target.of(array=1 + self.slots.index(name)))
        return self._read(asked, target, None)

    # --- all keys -------------------------------------------------------------------------------------------------

    def __iter__(self) -> Iterator[Any]:
        for keys, _ in self.blocks(_ROWS_A_REQUEST):
            yield from keys.tolist()

    def blocks(self, n: SupportsIndex) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        """Yield all keys with their rows, in no order, ``n`` at a time.

        A key that is there all the while comes once; one that is pushed first, or removed, meanwhile may come or not.
        Each row is as it is when it is read.

        Args:
            n: keys a block, at least 1; the last one may have fewer.

        Yields:
            (k,) keys, and their (k, num_cols) rows; the caller's to change.

        Raises:
            ConfigError: ``n`` below 1 or not an integer.
            GlintError: as the future of ``pull``, in the place of its block.
        """
        size = setting("n", n)
        self._check_exists()
        return self._blocks(size)

    def _blocks(self, size: int) -> Iterator[tuple[NDArray[Any], NDArray[Any]]]:
        held: list[tuple[NDArray[Any], NDArray[Any]]] = []
        num_held = 0
        for found in self._scan():
            held.append((self._read_keys(found), found.values))
            num_held += len(found.keys)
            if num_held < size:
                continue
            keys = np.concatenate([each for each, _ in held])
            values = np.concatenate([each for _, each in held])
            stop = num_held - num_held % size
            for first in range(0, stop, size):
                yield keys[first : first + size].copy(), values[first : first + size].copy()
            num_held -= stop
            held = [(keys[stop:].copy(), values[stop:].copy())]
        if num_held:
            yield np.concatenate([each for each, _ in held]), np.concatenate([each for _, each in held])

    def _read_keys(self, found: Scanned) -> NDArray[Any]:
        if not self._spec.has_texts:
            return found.keys
        try:
            return decoded(from_frame(found.keys, self._spec.keys))
        except GlintError as error:
            raise RemoteProtocolError(f"a server sent keys that can't be: {error}") from error

    def _scan(self) -> Iterator[Scanned]:
        for server in range(len(self._info.servers)):
            asked: Future[Message] | None = self._scan_from(server, 0)
            while asked is not None:
                found = asked.result()
                if not isinstance(found, Scanned):
                    raise RemoteProtocolError(f"a server answered {found!r:.100} where keys were asked for")
                # Asked for now, so that it is under way while the consumer works on this one.
                asked = self._scan_from(server, found.next_row) if found.next_row else None
                yield found

    def save(self, url: str, *, overwrite: bool = False, progress: bool | None = None) -> None:
        """Save the table: a manifest and plain ``.npy`` files of keys, values and slots, readable with numpy alone.

        This process writes. The save holds every push that this client issued before it; each server's part is one
        moment. ``client.load`` makes a table of it again, on any number of servers.

        Args:
            url: a directory at any fsspec URL: a path, ``s3://...``, ``memory://...``.
            overwrite: replace a model that is saved there; until this one is complete the old one stays.
            progress: show a bar; None: if a terminal is watching.

        Raises:
            CheckpointError: there is one already, or the place can't be written.
            ModelNotFound, ServerLost: of the servers.
        """
        from glintpy.models.table_saving import save_table  # noqa: PLC0415 - loads fsspec, which few programs need

        save_table(
            self._tie.runtime(),
            self._target,
            url,
            num_keys=self.num_keys().result(),
            overwrite=overwrite,
            progress=progress,
        )

    # --- inside ---------------------------------------------------------------------------------------------------

    def _scan_from(self, server: int, row: int) -> Future[Message]:
        info = self._info
        return self._ask(
            server,
            lambda request_id, stamp: ScanKeys(
                request_id, stamp.session, stamp.floor, stamp.after, info.model_id, info.routing, row
            ),
        )

    def _count(self, server: int) -> Future[int]:
        model_id = self._info.model_id

        def number_in(answer: Message) -> int:
            if not isinstance(answer, Done):
                raise RemoteProtocolError(f"a server answered {answer!r:.100} where a count was asked for")
            try:
                return int(wire.content(answer.document)["num_keys"])
            except (KeyError, TypeError, ValueError) as error:
                raise RemoteProtocolError(f"a server's count of keys lacks something: {error!r}") from error

        asked = self._ask(
            server,
            lambda request_id, stamp: CountKeys(
                request_id, stamp.session, stamp.floor, stamp.after, model_id
            ),
        )
        return derived(asked, number_in)

    def _ask(self, server: int, build: Any) -> Future[Message]:
        runtime = self._tie.runtime()
        server_id, address = self._info.servers[server]
        runtime.link(server_id, address)
        return runtime.ask_server(
            server_id,
            build,
            model_id=self._info.model_id,
            timeout_s=self._timeout_s,
            doing=f"keys of {self.name!r}",
        )

    def _read(self, asked: Asked, target: TableTarget, out: NDArray[Any] | None) -> Future[NDArray[Any]]:
        self._check(asked, out)
        if asked.empty:
            return completed(_finished(asked, np.empty(asked.wire_shape, target.dtype), out))
        self._wait_for_others()
        return pull(self._tie.runtime(), target, asked, out)

    def _create(self, asked: Asked, target: TableTarget, out: NDArray[Any] | None) -> Future[NDArray[Any]]:
        if asked.empty:
            return completed(_finished(asked, np.empty(asked.wire_shape, self.dtype), out))
        self._wait_for_others()
        runtime = self._tie.runtime()
        runtime.outbox.issue()
        nothing = np.empty((len(asked.rows), 0), self.dtype)
        requester = Requester(runtime, target.to_create(), asked, kind="push")
        return requester.push(nothing, finish=lambda found: _finished(asked, found, out))

    def _check(self, asked: Asked, out: NDArray[Any] | None) -> None:
        self._check_exists()
        if out is not None:
            check_out(out, shape=asked.shape, dtype=self._target.dtype)

    def _parsed(self, asked: Asked, values: Any) -> NDArray[Any]:
        return parse_values(values, shape=asked.shape, dtype=self._target.dtype, finite=self._spec.finite)

    def _without_repeats(self, asked: Asked, parsed: NDArray[Any]) -> Combined | None:
        return without_repeats(asked, parsed, self._updater, num_cols=self._spec.num_cols)

    def _make_target(self) -> TableTarget:
        return TableTarget(
            self._info,
            self._layout,
            self._timeout_s,
            updater=self._updater,
            is_hasty=self._on_server_lost == "raise",
        )


def _finished(asked: Asked, values: NDArray[Any], out: NDArray[Any] | None) -> NDArray[Any]:
    """Return values of the wire shape as the caller asked for them, in ``out`` if there is one."""
    if out is None:
        return asked.finish(values)
    asked.to_wire(out)[...] = values
    return out
