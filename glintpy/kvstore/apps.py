"""What the workers of an app share: the tables that hold its values, and how many values each key has.

An app whose keys have equally many values is one table. One whose keys vary has tables of several widths, and one of
lengths, to which each worker looks before it first uses a key. The master makes a model once under a name, so all
workers agree on what an app is, also where they begin at the same time.
"""

from __future__ import annotations

import os
import threading
from typing import Any, Protocol

import numpy as np

from glintpy import BigTable, Client, ConfigError, ModelExists, ModelNotFound, ShapeError
from glintpy.kvstore.membership import job_of
from glintpy.kvstore.pairs import LENGTH_MAX, Array, Keys, Lengths, Places, starts_of
from glintpy.kvstore.parts import Part
from glintpy.kvstore.postoffice import Postoffice
from glintpy.updaters import Updater

DTYPE = "float32"
"""Of an app for which nobody said another."""

KNOWN_MAX = 1 << 20
"""Keys whose lengths a worker remembers, before it begins anew."""

UNKNOWN = -1
"""In a table of lengths: nobody has pushed the key. No app's values begin with it, so it tells such a table apart."""

ROW_BYTES_MAX = 2 << 20
"""The longest row that a table has."""

EXACT_MAX = 8
"""Up to so many values a key lies in a table of just that width; beyond, of one up to a quarter wider."""


class Home:
    """Where an app's values lie: a cluster, and the names that its tables have there.

    Args:
        client: a client, or the master's address; None: that of the one node that this process is, or else what the
            environment says.
        job: the job's name; None: the node's, or what the environment says.
        app_id: the app's.

    Attributes:
        client: to the cluster.
        app_id: the app's.
        name: of the app's first model; those of others begin with it.

    Raises:
        ConfigError: nothing says which cluster.
        MasterUnreachable: nobody answers at the address.
    """

    def __init__(self, client: Client | str | None, job: str | None, app_id: int) -> None:
        self.app_id = app_id
        node = None if isinstance(client, str) else Postoffice.with_client(client)
        self._owned = node is None and not isinstance(client, Client)
        if node is not None:
            self.client, job = node.client, node.job if job is None else job
        else:
            found = job_of(client, dict(os.environ), name=job)
            self.client = client if isinstance(client, Client) else Client(found.address)
            job = found.name
        self.name = f"ps/{job}/app-{app_id}"

    def make(self, name: str, k: int, dtype: str, updater: Updater | str, *, init: int = 0) -> BigTable:
        """Return a table of a name, made if there is none.

        Args:
            name: its.
            k: its columns.
            dtype: of its values.
            updater: what pushes do to them.
            init: what a row is before the first push.

        Raises:
            ModelExists: there is one that differs.
        """
        return self.client.table(
            k, dtype=dtype, key_dtype="uint64", updater=updater, init=init, name=name, exist_ok=True
        )

    def find(self, name: str) -> BigTable | None:
        """Return the table of a name; None: there is none."""
        try:
            return self.client.open(name, kind=BigTable)
        except ModelNotFound:
            return None

    def names(self) -> list[str]:
        """Return the names of all models of the app that there are."""
        return [
            name for name in self.client.models() if name == self.name or name.startswith(f"{self.name}/")
        ]

    def close(self) -> None:
        """Close what was opened here."""
        if self._owned:
            self.client.close()


class App(Protocol):
    """What a worker asks of an app."""

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its values."""

    def agreed(self, keys: Keys, lengths: Lengths | int) -> Lengths | int:
        """Return how many values the keys of a push have; all workers know it from then on.

        Raises:
            ShapeError: a key has another number of values.
        """

    def known(self, keys: Keys) -> Lengths | int:
        """Return how many values some keys have; 0: nobody has pushed it."""

    def parts(
        self, keys: Keys, lengths: Lengths | int, values: Array | None, slices: list[Places] | None
    ) -> list[Part]:
        """Return the requests that one is made of.

        Args:
            keys: of it.
            lengths: of each key.
            values: flat, key behind key; None: it is a pull.
            slices: places of keys; None: it isn't cut.
        """


class EqualApp:
    """An app whose keys have equally many values: one table.

    Args:
        home: the app's.
        table: its values.
    """

    def __init__(self, home: Home, table: BigTable) -> None:
        self._home = home
        self._table = table

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its values."""
        return self._table.dtype

    def agreed(self, keys: Keys, lengths: Lengths | int) -> int:
        """Return how many values a key has; see ``App``."""
        check_equal(self._home.app_id, keys, lengths, self._table.num_cols)
        return self._table.num_cols

    def known(self, keys: Keys) -> int:
        """Return how many values a key has."""
        del keys
        return self._table.num_cols

    def parts(
        self, keys: Keys, lengths: Lengths | int, values: Array | None, slices: list[Places] | None
    ) -> list[Part]:
        """Return a request for each slice."""
        del lengths
        k = self._table.num_cols
        rows = None if values is None else values.reshape(len(keys), k)
        if slices is None:
            return [Part(self._table, keys, rows, None)]
        return [
            Part(
                self._table,
                keys[places],
                None if rows is None else rows[places],
                places[:, None] * k + np.arange(k),
            )
            for places in slices
        ]


class VaryingApp:
    """An app whose keys have different numbers of values: tables of several widths, and one of lengths.

    Args:
        home: the app's.
        lengths: the table of them: in columns a key's length, and what is left to one more than the most. Pushes keep
            the greater of each, so two that differ stay visible.

    Threads:
        Safe from any thread.
    """

    def __init__(self, home: Home, lengths: BigTable) -> None:
        self._home = home
        self._lengths = lengths
        first = home.find(width_name(home, 1))
        if first is None:
            raise ConfigError(f"app {home.app_id} has lost its values: {width_name(home, 1)!r} was destroyed")
        self._tables = {1: first}
        self._lock = threading.Lock()
        self._forget()

    def _forget(self) -> None:
        self._keys: Keys = np.zeros(0, np.uint64)
        self._of_keys: Lengths = np.zeros(0, np.int64)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Of its values."""
        return self._tables[1].dtype

    def agreed(self, keys: Keys, lengths: Lengths | int) -> Lengths:
        """Return how many values each key has; see ``App``."""
        given = np.broadcast_to(np.asarray(lengths, np.int64), len(keys))
        found = self.known(keys)
        new = np.flatnonzero(found == 0)
        wrong = np.flatnonzero((found != given) & (found != 0))
        if not wrong.size and new.size:
            check_rows(keys[new], given[new], self.dtype)
            both = np.stack([given[new], LENGTH_MAX + 1 - given[new]], axis=1)
            found[new] = self._read(keys[new], self._lengths.push_pull(keys[new], both).result())
            self._remember(keys[new], found[new])
            wrong = np.flatnonzero(found != given)
        if wrong.size:
            place = int(wrong[0])
            raise ShapeError(
                f"key {int(keys[place])} at position {place} has {int(given[place])} values here, and "
                f"{int(found[place])} since it was first pushed"
            )
        return found

    def known(self, keys: Keys) -> Lengths:
        """Return how many values each key has; 0: nobody has pushed it."""
        found = np.zeros(len(keys), np.int64)
        with self._lock:
            if self._keys.size:
                at = np.minimum(np.searchsorted(self._keys, keys), len(self._keys) - 1)
                is_known = self._keys[at] == keys
                found[is_known] = self._of_keys[at[is_known]]
        new = np.flatnonzero(found == 0)
        if new.size:
            found[new] = self._read(keys[new], self._lengths.pull(keys[new]).result())
            self._remember(keys[new], found[new])
        return found

    def _read(self, keys: Keys, both: Array) -> Lengths:
        longest = both[:, 0].astype(np.int64)
        shortest = LENGTH_MAX + 1 - both[:, 1].astype(np.int64)
        wrong = np.flatnonzero((longest != UNKNOWN) & (longest != shortest))
        if wrong.size:
            place = int(wrong[0])
            raise ShapeError(
                f"two workers pushed key {int(keys[place])} first, one with {shortest[place]} values and one with "
                f"{longest[place]}: it can't be used"
            )
        return np.where(longest == UNKNOWN, 0, longest)

    def _remember(self, keys: Keys, lengths: Lengths) -> None:
        is_known = lengths > 0
        with self._lock:
            if len(self._keys) + len(keys) > KNOWN_MAX:
                self._forget()
            order = np.argsort(keys[is_known])
            new, of_new = keys[is_known][order], lengths[is_known][order]
            at = np.searchsorted(self._keys, new)
            # Another thread may have asked for the same.
            is_new = np.searchsorted(self._keys, new, side="right") == at
            self._keys = np.insert(self._keys, at[is_new], new[is_new])
            self._of_keys = np.insert(self._of_keys, at[is_new], of_new[is_new])

    def parts(
        self, keys: Keys, lengths: Lengths | int, values: Array | None, slices: list[Places] | None
    ) -> list[Part]:
        """Return a request for each slice and width."""
        assert not isinstance(lengths, int), "of this very app"
        starts = starts_of(lengths)
        widths = width_of(lengths)
        found: list[Part] = []
        for places in [np.arange(len(keys))] if slices is None else slices:
            for width in np.unique(widths[places]):
                if not width:
                    continue  # nobody has pushed these
                these = places[widths[places] == width]
                columns = np.arange(width)
                is_there = columns < lengths[these][:, None]
                cells = starts[these][:, None] + columns
                rows = None
                if values is not None:
                    rows = np.zeros(is_there.shape, values.dtype)
                    rows[is_there] = values[cells[is_there]]
                found.append(Part(self._table(int(width)), keys[these], rows, cells, is_there))
        return found

    def _table(self, width: int) -> BigTable:
        with self._lock:
            if width not in self._tables:
                first = self._tables[1]
                self._tables[width] = self._home.make(
                    width_name(self._home, width), width, first.dtype.name, first.updater
                )
            return self._tables[width]


def width_name(home: Home, width: int) -> str:
    """Return the name of an app's table of keys of a width."""
    return f"{home.name}/{width}"


def width_of(lengths: Lengths) -> Lengths:
    """Return how wide the tables are in which keys of some lengths lie; at most some eighty of them are different."""
    steps = np.maximum(1, 2 ** np.floor(np.log2(np.maximum(lengths - 1, 1))).astype(np.int64) // 4)
    return np.where(lengths <= EXACT_MAX, lengths, -(-lengths // steps) * steps)


def check_equal(app_id: int, keys: Keys, lengths: Lengths | int, k: int) -> None:
    """Refuse keys that have another number of values than those of their app.

    Args:
        app_id: the app's.
        keys: (n,) of a push.
        lengths: (n,) how many values each has; or one number, if all have as many.
        k: how many a key of the app has.

    Raises:
        ShapeError: one has.
    """
    if isinstance(lengths, int) and lengths == k:
        return
    wrong = np.flatnonzero(np.broadcast_to(np.asarray(lengths) != k, len(keys)))
    if wrong.size:
        place = int(wrong[0])
        given = lengths if isinstance(lengths, int) else int(lengths[place])
        raise ShapeError(
            f"key {int(keys[place])} at position {place} has {given} values here, and keys of app {app_id} have {k}: "
            f"say KVServer({app_id}, k={given}), or varying=True where keys have different numbers of values, before "
            "the first push"
        )


def check_rows(keys: Keys, lengths: Lengths, dtype: np.dtype[Any]) -> None:
    """Refuse keys of more values than a row has room for: before anybody knows that they have so many.

    Args:
        keys: (n,) of a push.
        lengths: (n,) how many values each has.
        dtype: of the values.

    Raises:
        ShapeError: one has.
    """
    # What is kept of float16 may be float32.
    cell_bytes = max(dtype.itemsize, 4) if dtype.kind == "f" else dtype.itemsize
    row_bytes = width_of(lengths) * cell_bytes
    wrong = np.flatnonzero(row_bytes > ROW_BYTES_MAX)
    if wrong.size:
        place = int(wrong[0])
        raise ShapeError(
            f"key {int(keys[place])} has {int(lengths[place])} values of {dtype}, which take a row of "
            f"{int(row_bytes[place])} bytes; a row has at most {ROW_BYTES_MAX}"
        )


def found_app(home: Home) -> App | None:
    """Return an app that was begun by anybody; None: it wasn't.

    Raises:
        MasterUnreachable: the master did not answer.
    """
    table = home.find(home.name)
    if table is None:
        return None
    return VaryingApp(home, table) if table.spec.init == UNKNOWN else EqualApp(home, table)


def begun_app(home: Home, k: int, dtype: str, updater: Updater | str, *, varying: bool) -> App:
    """Begin an app, or return it if it was begun in the same way.

    Args:
        home: the app's.
        k: values of a key, where they don't vary.
        dtype: of the values.
        updater: what pushes do to them.
        varying: whether keys have different numbers of values.

    Raises:
        ConfigError: it was begun otherwise, or can't be.
        ShapeError, DTypeError: see ``Client.table``.
    """
    try:
        if not varying:
            return EqualApp(home, home.make(home.name, k, dtype, updater))
        # In this order: who finds the second finds the first, which says what others are to be like.
        home.make(width_name(home, 1), 1, dtype, updater)
        return VaryingApp(home, home.make(home.name, 2, "int32", "max", init=UNKNOWN))
    except ModelExists as error:
        raise ConfigError(f"app {home.app_id} was begun otherwise: {error}") from None
