"""Redis: rows as binary values, single numbers in hashes; knows no other system.

Two systems, since Redis has no command that adds to a row: ``redis`` overwrites (MGET and pipelined SET, which is
fast and loses one of two pushes that meet), ``redis add`` adds number by number (HINCRBYFLOAT), as glintpy does.
"""

from __future__ import annotations

import shutil
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from benchmarks.draws import Draw
from benchmarks.processes import Child, ChildError
from benchmarks.steps import Model, Step
from benchmarks.store import Store
from benchmarks.system import Opening, Setup, System, Unavailable, free_port

if TYPE_CHECKING:
    from numpy.typing import NDArray

READY_S = 20.0

FILL_ROWS = 5_000
"""Rows in one MSET while a table is filled."""

ADD_MAX = 200_000
"""Numbers that one push may add to, one command each: what takes longer than a second says nothing more."""

POOL_OF_ADDS = 4
"""Requests that ``redis add`` goes round over: each number that was ever added to takes about 100 bytes."""


class Redis(System):
    """Servers without persistence, on ports or sockets of their own."""

    name = "redis"
    may_fail = True
    adds = False

    def __init__(self, scheme: str) -> None:
        super().__init__(scheme)
        self._servers: list[Child] = []
        self._folder: tempfile.TemporaryDirectory[str] | None = None

    def start(self, setup: Setup) -> Opening:
        """Start the servers."""
        program = shutil.which("redis-server")
        if program is None:
            raise Unavailable("there is no redis-server; on Debian: apt-get install redis-server")
        if find_spec("redis") is None:
            raise Unavailable("there is no redis client; pip install 'glintpy[bench]'")
        self._folder = tempfile.TemporaryDirectory(prefix="glintpy-benchmark-")
        addresses: list[int | str] = []
        for number in range(setup.servers):
            path = str(Path(self._folder.name) / f"{number}.sock")
            address = free_port() if self.scheme == "tcp" else path
            self._servers.append(self._server(program, address))
            addresses.append(address)
        for address, server in zip(addresses, self._servers, strict=True):
            _wait_ready(address, server)
        return Opening("benchmarks.peers.redis", {"addresses": addresses, "adds": self.adds})

    def _server(self, program: str, address: int | str) -> Child:
        assert self._folder is not None
        where = (
            ["--port", "0", "--unixsocket", address] if isinstance(address, str) else ["--port", str(address)]
        )
        options = ["--bind", "127.0.0.1", "--save", "", "--appendonly", "no", "--dir", self._folder.name]
        # A row of 128 numbers would lie in a list that is searched from its start.
        options += ["--hash-max-listpack-entries", "64", "--loglevel", "warning"]
        return Child([program, *where, *options])

    def leaves_out(self, step: Step) -> str | None:
        """Return why it can't make such requests."""
        if step.into or step.num_models > 1:
            return "measured with the other pulls"
        if step.what == "columns":
            return "its values are rows; a column would be read by reading all of them"
        return None

    def server_pids(self) -> list[int]:
        """Return the servers' processes."""
        return [server.pid for server in self._servers]

    def stop(self) -> None:
        """End the servers."""
        while self._servers:
            self._servers.pop().stop()
        if self._folder is not None:
            self._folder.cleanup()


class RedisAdd(Redis):
    """Servers that are pushed to number by number."""

    name = "redis add"
    adds = True

    def leaves_out(self, step: Step) -> str | None:
        """Return why it can't make such requests."""
        if step.verb != "push":
            return "its pulls are redis's"
        num = step.num if step.what in ("keys", "elements") else step.num * step.model.cols
        if num > ADD_MAX:
            return f"a push would be {num:,} commands; thousand-rows shows what they cost"
        return super().leaves_out(step)


def _client_library() -> Any:
    # The benchmark runs without it, too, and half of its functions have no types.
    return import_module("redis")


def _connection(address: int | str) -> Any:
    redis = _client_library()
    if isinstance(address, str):
        return redis.UnixDomainSocketConnection(path=address, socket_timeout=None)
    return redis.Connection(host="127.0.0.1", port=address, socket_timeout=None)


def _wait_ready(address: int | str, server: Child) -> None:
    redis = _client_library()
    end = time.monotonic() + READY_S
    while True:
        try:
            connection = _connection(address)
            connection.connect()
            connection.disconnect()
        except redis.ConnectionError:
            if server.process.poll() is not None or time.monotonic() > end:
                raise ChildError(f"redis-server did not get ready: {server.said()}") from None
            time.sleep(0.02)
        else:
            return


Command = tuple[Any, ...]


@dataclass(frozen=True)
class Request:
    """Commands for each server, and what to make of the answers.

    Attributes:
        commands: for each server its commands.
        assemble: makes an array of all answers, server by server; None if nobody asks.
    """

    commands: list[list[Command]]
    assemble: Callable[[list[list[Any]]], NDArray[Any]] | None


class RedisStore(Store):
    """One connection a server; keys are dealt out to the servers by their remainder.

    Args:
        addresses: of the servers.
        adds: whether pushes add, number by number.
    """

    def __init__(self, addresses: list[int | str], *, adds: bool) -> None:
        self.adds = False
        # Numbers that were added to are texts, which no pull here reads.
        self.holds_values = not adds
        self._by_number = adds
        self._connections = [_connection(address) for address in addresses]

    def attach(self, model: Model, *, rank: int) -> None:
        """Fill the rows of a table; numbers need no table."""
        if rank or not model.cols or self._by_number:
            return
        row = b"\0" * model.row_bytes
        for start in range(0, model.rows, FILL_ROWS):
            rows = np.arange(start, min(start + FILL_ROWS, model.rows))
            self._roundtrip(
                [
                    [("MSET", *_alternating(keys, [row] * len(keys)))] if keys else []
                    for keys in self._keys(model, rows)
                ]
            )

    def prepare(self, step: Step, draws: list[Draw]) -> list[Request]:
        """Return commands with the names of their keys, and values as bytes, made already."""
        if step.what in ("keys", "elements"):
            requests = [self._on_numbers(step, draw) for draw in self._few(draws)]
            for draw in self._few(draws):
                self._fill_numbers(step, draw)
            return requests
        return [self._on_rows(step, draw) for draw in self._few(draws)]

    def _few(self, draws: list[Draw]) -> list[Draw]:
        return draws[:POOL_OF_ADDS] if self._by_number else draws

    def issue(self, request: Request) -> Request:
        """Send the commands of each server, all at once."""
        for connection, commands in self._pairs(request.commands):
            if len(commands) == 1:
                connection.send_command(*commands[0])
            elif commands:
                connection.send_packed_command(connection.pack_commands(commands))
        return request

    def finish(self, pending: Request) -> NDArray[Any] | None:
        """Read as many answers as there were commands, and make an array of them."""
        answers = [
            [connection.read_response(disable_decoding=True) for _ in commands]
            for connection, commands in self._pairs(pending.commands)
        ]
        return None if pending.assemble is None else pending.assemble(answers)

    def drop(self, model: Model) -> None:
        """Empty the servers: they hold one workload's models at a time."""
        del model
        self._roundtrip([[("FLUSHALL",)] for _ in self._connections])

    def close(self) -> None:
        """Close the connections."""
        for connection in self._connections:
            connection.disconnect()

    # --- requests -------------------------------------------------------------------------------------------------

    def _on_rows(self, step: Step, draw: Draw) -> Request:
        model = step.model
        rows = draw.rows if draw.rows is not None else np.arange(draw.start, draw.stop)
        commands: list[list[Command]] = []
        for keys, positions in zip(self._keys(model, rows), self._positions(rows), strict=True):
            mine: list[Command] = []
            if draw.values is not None:
                mine += self._pushes(keys, draw.values[positions])
            if step.verb != "push" and keys:
                mine.append(("MGET", *keys))
            commands.append(mine)
        if step.verb == "push":
            return Request(commands, None)
        order = np.concatenate(self._positions(rows))

        def assemble(answers: list[list[Any]]) -> NDArray[Any]:
            values = b"".join([row for answer in answers if answer for row in answer[-1]])
            return _placed(np.frombuffer(values, model.dtype).reshape(-1, model.cols), order)

        return Request(commands, assemble)

    def _pushes(self, keys: list[bytes], values: NDArray[Any]) -> list[Command]:
        if not self._by_number:
            return [("SET", key, row.tobytes()) for key, row in zip(keys, values, strict=True)]
        texts = [[repr(float(number)) for number in row] for row in values]
        return [
            ("HINCRBYFLOAT", key, column, number)
            for key, row in zip(keys, texts, strict=True)
            for column, number in enumerate(row)
        ]

    def _on_numbers(self, step: Step, draw: Draw) -> Request:
        flat, name = _flat(step, draw), step.model.name.encode()
        commands: list[list[Command]] = []
        for positions in self._positions(flat):
            fields = flat[positions].tolist()
            if step.verb == "pull":
                commands.append([("HMGET", name, *fields)] if fields else [])
            elif self._by_number:
                assert draw.values is not None
                verb = "HINCRBY" if step.model.dtype == "int64" else "HINCRBYFLOAT"
                numbers = draw.values[positions].tolist()
                commands.append([(verb, name, *pair) for pair in zip(fields, numbers, strict=True)])
            else:
                assert draw.values is not None
                numbers = [number.tobytes() for number in draw.values[positions]]
                commands.append([("HSET", name, *_alternating(fields, numbers))] if fields else [])
        if step.verb == "push":
            return Request(commands, None)
        order = np.concatenate(self._positions(flat))

        def assemble(answers: list[list[Any]]) -> NDArray[Any]:
            values = b"".join([number for answer in answers if answer for number in answer[0]])
            return _placed(np.frombuffer(values, step.model.dtype), order)

        return Request(commands, assemble)

    def _fill_numbers(self, step: Step, draw: Draw) -> None:
        if self._by_number:
            return
        flat, zero = _flat(step, draw), b"\0" * np.dtype(step.model.dtype).itemsize
        name = step.model.name.encode()
        # Only where there is nothing yet: steps are prepared one after another for the same numbers.
        self._roundtrip(
            [
                [("HSETNX", name, field, zero) for field in flat[positions].tolist()]
                for positions in self._positions(flat)
            ]
        )

    # --- servers --------------------------------------------------------------------------------------------------

    def _positions(self, rows: NDArray[Any]) -> list[NDArray[Any]]:
        num = len(self._connections)
        return [np.flatnonzero(rows % num == server) for server in range(num)]

    def _keys(self, model: Model, rows: NDArray[Any]) -> list[list[bytes]]:
        name = model.name.encode()
        return [[b"%s:%d" % (name, row) for row in rows[mine].tolist()] for mine in self._positions(rows)]

    def _roundtrip(self, commands: list[list[Command]]) -> None:
        self.finish(self.issue(Request(commands, None)))

    def _pairs(self, commands: list[list[Command]]) -> Iterable[tuple[Any, list[Command]]]:
        return zip(self._connections, commands, strict=True)


def make(opening: dict[str, Any]) -> Store:
    """Return the store of a client process.

    Args:
        opening: the details that the system gave.
    """
    return RedisStore(opening["addresses"], adds=opening["adds"])


def _flat(step: Step, draw: Draw) -> NDArray[Any]:
    assert draw.rows is not None
    return draw.rows if draw.cols is None else draw.rows * step.model.cols + draw.cols


def _alternating(keys: list[Any], values: list[Any]) -> list[Any]:
    return [part for pair in zip(keys, values, strict=True) for part in pair]


def _placed(values: NDArray[Any], order: NDArray[Any]) -> NDArray[Any]:
    out = np.empty_like(values)
    out[order] = values
    return out
