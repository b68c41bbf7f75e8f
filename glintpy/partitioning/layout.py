"""Where each key's row lies on the servers, for keys and for slices of keys; knows no message and no socket.

A server keeps its partitions of a model in one array: those it owns in increasing order, one behind
another. A *server row* is a place in that array, so a request to a server needs no loop over partitions,
and a server needs no partitioner.
"""

from __future__ import annotations

import math
import operator
from typing import NamedTuple

import numpy as np
from numpy.typing import ArrayLike, NDArray

from glintpy.errors import ConfigError, KeyRangeError, ShapeError
from glintpy.partitioning.base import Partitioner, check_index, checked_extents, checked_sizes
from glintpy.records import record

_MASKED_SERVERS_MAX = 8
"""Up to here one mask a server is cheaper than sorting."""


_KNOWN_MAX, _KNOWN_SLICES = 256, 16
"""Slices whose shares are kept, and of how many slices on a server: some 100 KiB."""


@record
class Share:
    """What one server has of the keys that were asked for.

    Attributes:
        server: its index in the routing.
        rows: its server rows: (n,) uint32 indices, int64 on a server of 2**32 rows and more; or (k, 3)
            int64 slices (start, stop, step). Of a table: its keys, (n,) int64.
        positions: where in the caller's array each row stands, in the order of ``rows``, slices written
            out: (n,) int64, or a slice.
    """

    server: int
    rows: NDArray[np.uint32] | NDArray[np.int64]
    positions: NDArray[np.int64] | slice


class Layout:
    """Keys to (server, server row) and back, for one partitioner and one routing; doesn't change.

    Keys are in [0, num_keys): the caller has refused the others.

    Attributes:
        interleaved: P, if key k lies in partition k mod P at row k // P; else 0.

    Args:
        partitioner: keys to partitions.
        owners: (P,) integers: each partition's server.
        num_servers: servers in the routing, which may own nothing; None: the highest owner and those below.

    Raises:
        ShapeError: not one owner for each partition.
        ConfigError: an owner that is no server; a partitioner whose sizes or spacing contradict themselves.
    """

    def __init__(self, partitioner: Partitioner, owners: ArrayLike, num_servers: int | None = None) -> None:
        self.partitioner = partitioner
        self._owners = _checked_owners(owners, partitioner.num_partitions)
        highest = int(self._owners.max())
        self.num_servers = highest + 1 if num_servers is None else operator.index(num_servers)
        if highest >= self.num_servers:
            raise ConfigError(f"a partition belongs to server {highest} of {self.num_servers}")
        self._sizes = checked_sizes(partitioner)
        self._extents = checked_extents(partitioner, self._sizes)
        self.interleaved = _interleaved(self._extents)
        # Partitions server after server, in increasing order on each.
        self._order = np.argsort(self._owners, kind="stable")
        counts = np.bincount(self._owners, minlength=self.num_servers)
        self._bounds = np.concatenate(([0], np.cumsum(counts)))  # (S + 1,): each server's place in the order
        ends = np.concatenate(([0], np.cumsum(self._sizes[self._order])))  # (P + 1,)
        firsts = ends[self._bounds]  # (S + 1,)
        self._num_rows = np.diff(firsts)
        self._offsets = np.empty_like(self._sizes)
        self._offsets[self._order] = ends[:-1] - firsts[self._owners[self._order]]
        self._has_offsets = bool(self._offsets.any())
        # Narrow, because comparing and sorting them is most of the work: numpy sorts 8 and 16 bits by radix.
        self._owners_narrow = self._owners.astype(np.min_scalar_type(highest))
        self._lone_server = highest if counts[highest] == len(self._owners) else None
        # Programs ask for the same slices again and again; by (start, count, step).
        self._known: dict[tuple[int, int, int], list[Share]] = {}
        self._is_identity = self._lone_server is not None and _is_identity(self._extents, self._offsets)

    def num_rows_of(self, server: int) -> int:
        """Return how many rows a server keeps.

        Args:
            server: in [0, num_servers).

        Raises:
            KeyRangeError: no such server.
        """
        return int(self._num_rows[check_index("server", server, self.num_servers)])

    def offset_of(self, partition: int) -> int:
        """Return where a partition begins in its server's array.

        Args:
            partition: in [0, num_partitions).

        Raises:
            KeyRangeError: no such partition.
        """
        return int(self._offsets[check_index("partition", partition, len(self._owners))])

    def partitions_of(self, server: int) -> list[int]:
        """Return a server's partitions in the order in which they lie there, empty ones included.

        Args:
            server: in [0, num_servers).

        Raises:
            KeyRangeError: no such server.
        """
        partitions: list[int] = self._partitions_of(server).tolist()
        return partitions

    def sizes(self) -> NDArray[np.int64]:
        """Return how many rows each partition has, as (P,) int64, the caller's to change."""
        return self._sizes.copy()

    def affine_extents(self) -> NDArray[np.int64] | None:
        """Return (P, 2) int64: key of each partition's first row, and step; None where keys have no step."""
        return None if self._extents is None else self._extents.copy()

    def locate(self, keys: NDArray[np.int64]) -> list[Share]:
        """Return what each server has of some keys.

        Args:
            keys: (n,) int64 in [0, num_keys), in any order; repeats are allowed.

        Returns:
            One share for each server that has something, by rising server; its rows in the caller's order.
            The arrays are new.
        """
        keys = np.asarray(keys, dtype=np.int64)
        if keys.size == 0:
            return []
        if self._lone_server is not None:
            rows = keys if self._is_identity else self._server_rows(*self.partitioner.split(keys))
            return [self._indexed(self._lone_server, rows, slice(0, keys.size, 1))]
        partitions, local_rows = self.partitioner.split(keys)
        rows = self._server_rows(partitions, local_rows)
        servers = self._owners_narrow[partitions]
        if self.num_servers <= _MASKED_SERVERS_MAX:
            return self._shares_by_mask(servers, rows)
        return self._shares_by_sort(servers, rows)

    def locate_slice(self, start: int, stop: int, step: int) -> list[Share]:
        """Return what each server has of a slice of keys, as slices of its rows where keys are evenly spaced.

        No key is written out but in ``positions``, and there only for servers of several slices.

        Args:
            start: first key.
            stop: end of the keys, ``start <= stop <= num_keys``.
            step: from one key to the next, at least 1.

        Returns:
            One share for each server that has something, by rising server. Neighbouring slices that
            follow one upon the other are one; a whole server is the slice (0, num_rows, 1).

        Raises:
            ShapeError: a slice that doesn't run forward.
            KeyRangeError: a slice outside the keys.
        """
        start, stop, step = operator.index(start), operator.index(stop), operator.index(step)
        num_keys = self.partitioner.num_keys
        if step < 1 or stop < start:
            raise ShapeError(f"slice {start}:{stop}:{step} doesn't run forward")
        if start < 0 or stop > num_keys:
            raise KeyRangeError(f"slice {start}:{stop}:{step} reaches outside [0, {num_keys})")
        count = len(range(start, stop, step))
        if count == 0:
            return []
        if count == 1:
            step = 1  # that of a single key can be any number, also one that would overflow
        if self._extents is not None:
            return self._shares_of_slice(start, count, step)
        if count == num_keys:
            return self._whole()
        return self.locate(start + step * np.arange(count, dtype=np.int64))  # its own count is a float's

    def global_rows(self, server: int, start: int, stop: int) -> NDArray[np.int64]:
        """Return the keys of neighbouring server rows.

        Args:
            server: in [0, num_servers).
            start: first server row.
            stop: end of the server rows, ``start <= stop <= num_rows_of(server)``.

        Returns:
            (stop - start,) int64.

        Raises:
            KeyRangeError: no such server, or rows that it hasn't.
        """
        num_rows = self.num_rows_of(server)
        if not 0 <= start <= stop <= num_rows:
            raise KeyRangeError(f"rows {start} to {stop} of server {server}, which has rows 0 to {num_rows}")
        partitions = self._partitions_of(server)
        offsets = self._offsets[partitions]
        touched = (offsets < stop) & (offsets + self._sizes[partitions] > start)
        pieces = [np.empty(0, np.int64)]
        for partition in partitions[touched].tolist():
            offset, size = int(self._offsets[partition]), int(self._sizes[partition])
            local_rows = np.arange(max(start - offset, 0), min(stop - offset, size), dtype=np.int64)
            pieces.append(self.partitioner.global_of(partition, local_rows))
        return np.concatenate(pieces)

    def _partitions_of(self, server: int) -> NDArray[np.int64]:
        server = check_index("server", server, self.num_servers)
        return self._order[self._bounds[server] : self._bounds[server + 1]]

    def _server_rows(self, partitions: NDArray[np.int64], local_rows: NDArray[np.int64]) -> NDArray[np.int64]:
        # With one partition a server, the usual case, they are the same.
        return self._offsets[partitions] + local_rows if self._has_offsets else local_rows

    def _indexed(self, server: int, rows: NDArray[np.int64], positions: NDArray[np.int64] | slice) -> Share:
        # Half the traffic where the numbers allow it. Either way a copy: rows may be the caller's keys.
        narrow = int(self._num_rows[server]) < 2**32
        return Share(server, rows.astype(np.uint32) if narrow else rows.astype(np.int64), positions)

    def _shares_by_mask(self, servers: NDArray[np.unsignedinteger], rows: NDArray[np.int64]) -> list[Share]:
        shares: list[Share] = []
        missing = rows.size
        for server in range(self.num_servers):
            positions = np.flatnonzero(servers == server)
            if positions.size == rows.size:
                return [self._indexed(server, rows, slice(0, rows.size, 1))]
            if positions.size:
                shares.append(self._indexed(server, rows[positions], positions))
            missing -= positions.size
            if missing == 0:
                break
        return shares

    def _shares_by_sort(self, servers: NDArray[np.unsignedinteger], rows: NDArray[np.int64]) -> list[Share]:
        # Stable, so that each server's rows keep the caller's order.
        order = np.argsort(servers, kind="stable")
        shares: list[Share] = []
        for begin, end in _equal_runs(servers[order]):
            positions = order[begin:end].copy()  # not a view: one share must not keep all positions alive
            shares.append(self._indexed(int(servers[positions[0]]), rows[positions], positions))
        return shares

    def _whole(self) -> list[Share]:
        """Return every server's all, for partitioners whose keys have no step."""
        return [
            Share(server, _slices([0], [num_rows], step=1), self.global_rows(server, 0, num_rows))
            for server, num_rows in enumerate(self._num_rows.tolist())
            if num_rows
        ]

    def _shares_of_slice(self, start: int, count: int, step: int) -> list[Share]:
        """Return the shares of a slice; those that are small are kept, and nobody changes them."""
        known = self._known.get((start, count, step))
        if known is None:
            known = self._shares_of_runs(self._runs(start=start, count=count, step=step))
            if all(
                isinstance(share.positions, slice) and len(share.rows) <= _KNOWN_SLICES for share in known
            ):
                if len(self._known) >= _KNOWN_MAX:
                    self._known.clear()
                self._known[start, count, step] = known
        return list(known)

    def _runs(self, *, start: int, count: int, step: int) -> _Runs:
        """Return, for each partition that a slice touches, which of the slice's keys lie there.

        Two evenly spaced series meet at evenly spaced places. Key number i of the slice, start + i * step,
        lies in the partition whose keys are first + j * spacing if i * step = first - start modulo spacing:
        divided by their greatest common divisor, i is known modulo what is left of spacing.

        Args:
            start: first key.
            count: keys, at least 1.
            step: from one key to the next.
        """
        extents = self._extents
        assert extents is not None, "only evenly spaced keys meet a slice in slices"
        spacing = int(extents[0, 1])
        divisor = math.gcd(step, spacing)
        period = spacing // divisor
        inverse = pow(step // divisor, -1, period)
        distances = extents[self._order, 0] - start  # (P,)
        # Numbers i whose keys are neither before the partition's first nor behind its last.
        lowest = np.maximum(-(-distances // step), 0)
        lasts = distances + (self._sizes[self._order] - 1) * spacing
        highest = np.minimum(lasts // step, count - 1)
        begins = lowest + (distances // divisor % period * inverse - lowest) % period
        touched = np.flatnonzero((begins <= highest) & (distances % divisor == 0))
        begins, partitions = begins[touched], self._order[touched]
        return _Runs(
            servers=self._owners[partitions],
            rows=self._offsets[partitions] + (begins * step - distances[touched]) // spacing,
            row_step=step // divisor,
            positions=begins,
            position_step=period,
            lengths=(highest[touched] - begins) // period + 1,
        )

    def _shares_of_runs(self, runs: _Runs) -> list[Share]:
        shares: list[Share] = []
        for begin, end in _equal_runs(runs.servers):
            rows, positions = runs.rows[begin:end], runs.positions[begin:end]
            lengths = runs.lengths[begin:end]
            heads, merged = _merge(rows, lengths, step=runs.row_step)
            stops = heads + (merged - 1) * runs.row_step + 1
            shares.append(
                Share(
                    int(runs.servers[begin]),
                    _slices(heads, stops, step=runs.row_step),
                    _written_out(positions, lengths, step=runs.position_step),
                )
            )
        return shares


class _Runs(NamedTuple):
    """Where a slice of keys meets partitions, ordered by server and partition; arrays are (k,) int64."""

    servers: NDArray[np.int64]
    rows: NDArray[np.int64]
    """The first server row of each run."""
    row_step: int
    positions: NDArray[np.int64]
    """The position of each run's first row among the slice's keys."""
    position_step: int
    lengths: NDArray[np.int64]


def _checked_owners(owners: ArrayLike, num_partitions: int) -> NDArray[np.int64]:
    given = np.asarray(owners)
    if given.shape != (num_partitions,) or given.dtype.kind not in "iu":
        raise ShapeError(
            f"owners are {num_partitions} integers, one for each partition, "
            f"not {given.dtype.name} of shape {given.shape}"
        )
    if int(given.min()) < 0:
        raise ConfigError(f"partition {int(given.argmin())} belongs to server {int(given.min())}")
    return given.astype(np.int64)


def _interleaved(extents: NDArray[np.int64] | None) -> int:
    """Return the number of partitions if keys are dealt out to them one by one, else 0."""
    if extents is None or int(extents[0, 1]) != len(extents):
        return 0
    return len(extents) if np.array_equal(extents[:, 0], np.arange(len(extents))) else 0


def _is_identity(extents: NDArray[np.int64] | None, offsets: NDArray[np.int64]) -> bool:
    """Tell whether every key is its own server row, given that all lie on one server."""
    return extents is not None and int(extents[0, 1]) == 1 and bool(np.array_equal(extents[:, 0], offsets))


def _equal_runs(ordered: NDArray[np.integer]) -> list[tuple[int, int]]:
    """Return begin and end of each run of equal numbers, for (n,) ordered numbers."""
    borders = (np.flatnonzero(ordered[1:] != ordered[:-1]) + 1).tolist()
    return list(zip([0, *borders], [*borders, len(ordered)], strict=True)) if len(ordered) else []


def _merge(
    firsts: NDArray[np.int64], lengths: NDArray[np.int64], *, step: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Join each run to the one before where it goes on with the same step; return firsts and lengths."""
    goes_on = firsts[1:] == firsts[:-1] + lengths[:-1] * step
    heads = np.flatnonzero(np.concatenate(([True], ~goes_on)))
    return firsts[heads], np.add.reduceat(lengths, heads)


def _written_out(
    firsts: NDArray[np.int64], lengths: NDArray[np.int64], *, step: int
) -> NDArray[np.int64] | slice:
    """Return the members of runs, one behind another: as a slice if they are one run, else as (n,) int64."""
    heads, merged = _merge(firsts, lengths, step=step)
    if len(heads) == 1:
        first, length = int(heads[0]), int(merged[0])
        return slice(first, first + (length - 1) * step + 1, step)
    before = np.cumsum(merged) - merged  # members of earlier runs
    return np.repeat(heads - before * step, merged) + np.arange(int(merged.sum()), dtype=np.int64) * step


def _slices(starts: ArrayLike, stops: ArrayLike, *, step: int) -> NDArray[np.int64]:
    """Return (k, 3) int64 slices of one step."""
    heads = np.asarray(starts, dtype=np.int64)
    return np.stack([heads, np.asarray(stops, dtype=np.int64), np.full_like(heads, step)], axis=1)
