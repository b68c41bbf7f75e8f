"""LocalCluster: a master and servers on this machine, for one program; nothing survives it."""

from __future__ import annotations

import atexit
import operator
import os
import socket
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal, Self, SupportsIndex

from glintpy import config
from glintpy.actors.home import shared_memory
from glintpy.client import Client
from glintpy.cluster.members import Member, ProcessMember, ServerView, ThreadMember
from glintpy.cluster.ports import keep_port, port_of
from glintpy.cluster.private import PrivateFolder
from glintpy.cluster.supervisor import Supervisor
from glintpy.errors import ClusterError, ConfigError
from glintpy.process.orders import MasterOrder, ServerOptions, ServerOrder
from glintpy.scalars import plain
from glintpy.ties import close_ties

Scheme = Literal["tcp", "ipc", "local"]

MASTER = "the master"
"""The master's key for the supervisor; a server's is its name."""

BUSY_S = 0.5
"""How long the supervisor waits for another thread that starts and stops members."""

_OWN = ("durability", "memory_limit", "allow")
"""Those settings of a server that ``LocalCluster`` takes itself."""


class LocalCluster:
    """A master and servers on this machine.

    Args:
        servers: how many, at least 1.
        data_dir: where master and servers keep their state; with it models survive an orderly stop. None:
            a private folder for the cluster's life.
        scheme: ``"tcp"``: processes on loopback; ``"ipc"``: processes with sockets in a private folder;
            ``"local"``: threads of this process, for tests and notebooks.
        durability: what an acknowledged push survives, of models that don't say: ``"process"``: the end of its
            server's process, by kill -9 too; ``"memory"``: nothing; ``"disk"``: a power cut (needs ``data_dir``).
        memory_limit: bytes for models on each server; None: what is free.
        supervise: start again what dies, and go on with what it held.
        allow: import paths below which updaters and functions of one's own lie, see ``glintpy server --allow``.
        server_options: how each server is to be beside that, see ``ServerOptions``; or a function that returns it for
            a server's number.
        port: of the master, under ``"tcp"``; 0: any free one.
        log_level: from which on lines of the processes are shown on stderr.

    Raises:
        ConfigError: a setting out of its range.
        ClusterError: a process did not start; with what it wrote.

    Threads:
        Belongs to one thread, beside the supervisor's.
    """

    def __init__(
        self,
        servers: int = 2,
        *,
        data_dir: str | Path | None = None,
        scheme: Scheme = "tcp",
        durability: config.Durability = "process",
        memory_limit: int | None = None,
        supervise: bool = False,
        allow: Sequence[str] = (),
        server_options: ServerOptions | Callable[[int], ServerOptions] | None = None,
        port: int = 0,
        log_level: str = "warning",
    ) -> None:
        servers, memory_limit, port = plain((servers, memory_limit, port))
        if type(servers) is not int or servers < 1:
            raise ConfigError(f"servers is at least 1, not {servers!r}")
        if scheme not in {"tcp", "ipc", "local"}:
            raise ConfigError(f'scheme is "tcp", "ipc" or "local", not {scheme!r}')
        if durability not in config.DURABILITIES:
            raise ConfigError(f"durability is one of {', '.join(config.DURABILITIES)}, not {durability!r}")
        if data_dir is not None and not os.fspath(data_dir):
            raise ConfigError("data_dir is a directory or None, not an empty text; the present one is '.'")
        if durability == "disk" and data_dir is None:
            raise ConfigError('durability "disk" needs a data_dir: a private folder goes with the cluster')
        if memory_limit is not None and (type(memory_limit) is not int or memory_limit < 1):
            raise ConfigError(f"memory_limit is a positive number of bytes, not {memory_limit!r}")
        if type(port) is not int or not 0 <= port <= 65535 or (port and scheme != "tcp"):
            raise ConfigError(
                f'port is 0 to 65535, and of a cluster over "tcp"; not {port!r} over {scheme!r}'
            )
        self._scheme: Scheme = scheme
        self._memory_limit = memory_limit
        self._durability: config.Durability = durability
        self._allow = (allow,) if isinstance(allow, str) else tuple(allow)
        self._server_options = ServerOptions() if server_options is None else server_options
        self._port = port
        self._log_level = log_level
        self._owner_pid = os.getpid()
        self._folder = PrivateFolder(_private_parent(data_dir))
        self._private = self._folder.path
        self._data_dir = self._private if data_dir is None else Path(data_dir)
        self._servers: list[Member] = []
        self._master: Member | None = None
        self._reserved: socket.socket | None = None
        self._is_stopped = False
        self._changing = threading.RLock()  # one who starts and stops members at a time
        self._unwanted: set[str] = set()
        self._supervisor: Supervisor | None = None
        atexit.register(self.stop)
        try:
            self._start(servers)
            if supervise:
                self._supervisor = Supervisor(self._find_dead, self._restart)
        except BaseException:
            self.stop()
            raise

    @property
    def address(self) -> str:
        """The master's address."""
        assert self._master is not None
        return self._master.address

    @property
    def servers(self) -> list[ServerView]:
        """The servers, dead ones too."""
        views = []
        for index, member in enumerate(self._servers):
            pid = member.process.pid if isinstance(member, ProcessMember) else os.getpid()
            views.append(ServerView(index, member.address, pid, member.is_alive()))
        return views

    @property
    def master_pid(self) -> int:
        """The process of the master; this one's under ``local``."""
        return self._master.process.pid if isinstance(self._master, ProcessMember) else os.getpid()

    @property
    def master_is_alive(self) -> bool:
        """Whether the master runs."""
        return self._master is not None and self._master.is_alive()

    def client(self, **options: Any) -> Client:
        """Return a client of this cluster.

        Args:
            options: of ``Client``.

        Raises:
            ClusterError: the cluster is stopped.
            What ``Client`` raises.
        """
        self._check_runs()
        return Client(self.address, **options)

    def add_server(self) -> ServerView:
        """Start one more server; models made from now on use it too.

        Raises:
            ClusterError: it did not start, with what it wrote; the cluster is stopped, or its master doesn't run.
        """
        self._check_runs()
        with self._changing:
            if not self.master_is_alive:
                raise ClusterError("the cluster's master is not running; restart_master() first")
            self._servers.append(self._new_server(len(self._servers)))
            try:
                self._wait_ready(self._servers[-1:])
            except ClusterError:
                del self._servers[-1]  # nobody is to start it again
                raise
        return self.servers[-1]

    def kill_server(self, index: int) -> None:
        """Kill a server as ``kill -9`` does.

        Args:
            index: its number in ``servers``.

        Raises:
            ConfigError: there is no such server.
            ClusterError: the cluster is stopped.
        """
        self._servers[self._number(index)].kill()

    def stop_server(self, index: int) -> None:
        """Stop a server in good order; it can be started again with its models.

        Args:
            index: its number in ``servers``.

        Raises:
            ConfigError: there is no such server.
            ClusterError: the cluster is stopped.
        """
        index = self._number(index)
        with self._changing:
            self._unwanted.add(self._name_of(index))
            self._servers[index].stop()

    def restart_server(self, index: int) -> None:
        """Start a server again under its old identity, on its old files; programs that use it go on.

        A server that runs is stopped in good order first. One that was killed comes back with everything that it has
        acknowledged, unless a model's level is ``memory``.

        Args:
            index: its number in ``servers``.

        Raises:
            ConfigError: there is no such server.
            ClusterError: it did not start, with what it wrote; or the cluster is stopped.
        """
        index = self._number(index)
        with self._changing:
            self._unwanted.discard(self._name_of(index))
            if self._servers[index].is_alive():
                self._servers[index].stop()
            self._servers[index].reap()
            self._servers[index] = self._new_server(index)
            self._wait_ready([self._servers[index]])

    def kill_master(self) -> None:
        """Kill the master as ``kill -9`` does.

        Raises:
            ClusterError: the cluster is stopped.
        """
        self._check_runs()
        assert self._master is not None
        self._master.kill()

    def restart_master(self) -> None:
        """Start the master again at its old address, on its old files.

        Raises:
            ClusterError: it did not start, with what it wrote; or the cluster is stopped.
        """
        self._check_runs()
        with self._changing:
            assert self._master is not None
            if self._master.is_alive():
                self._master.stop()
            self._master.reap()
            self._master = self._new_master(self._master.address)
            self._wait_ready([self._master])

    def stop(self) -> None:
        """Stop everything and remove what is private; again does nothing."""
        if self._is_stopped or os.getpid() != self._owner_pid:
            return
        self._is_stopped = True
        atexit.unregister(self.stop)
        if self._supervisor is not None:
            self._supervisor.stop()
        members = [*self._servers, *([self._master] if self._master is not None else [])]
        if self._master is not None:
            close_ties(self._master.address)
        # Ask all servers before waiting for one: they stop side by side. The master goes after them, since each
        # takes leave of it and waits a while for its answer.
        for member in self._servers:
            if isinstance(member, ProcessMember) and member.is_alive():
                member.ask_to_stop()
        for member in members:
            member.stop()
        if self._reserved is not None:
            self._reserved.close()
        self._folder.remove()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._is_stopped else f"at {self.address}"
        return f"LocalCluster({len(self._servers)} servers, {state})"

    # --- inside ---------------------------------------------------------------------------------------------------

    def _check_runs(self) -> None:
        if self._is_stopped:
            raise ClusterError("the cluster is stopped; make a new one")

    def _number(self, index: SupportsIndex) -> int:
        """Return the number of a server that there is.

        Raises:
            ConfigError: there is none of that number.
            ClusterError: the cluster is stopped.
        """
        self._check_runs()
        try:
            number = operator.index(index)
        except TypeError:
            number = -1
        if not 0 <= number < len(self._servers):
            raise ConfigError(
                f"a server's index is its number in servers, 0 to {len(self._servers) - 1}, not {index!r:.80}"
            )
        return number

    def _start(self, num_servers: int) -> None:
        self._master = self._new_master(None)
        if self._master.address.endswith(":0"):
            self._wait_ready([self._master])  # only then servers can be told where it is
        # All at once: each needs most of its time to import numpy.
        for index in range(num_servers):
            self._servers.append(self._new_server(index))
        self._wait_ready([self._master, *self._servers])

    def _find_dead(self) -> Iterator[str]:
        if self._master is not None and not self._master.is_alive():
            yield MASTER
        for index, member in enumerate(list(self._servers)):
            if not member.is_alive() and self._name_of(index) not in self._unwanted:
                yield self._name_of(index)

    def _restart(self, key: str) -> None:
        if not self._changing.acquire(timeout=BUSY_S):
            # There will be another look, unless whoever is at it stops the cluster, and waits for this thread.
            raise ClusterError("another thread starts or stops a member")
        try:
            if key not in set(self._find_dead()):
                return  # somebody else was faster
            if key == MASTER:
                self.restart_master()
            else:
                self.restart_server([self._name_of(index) for index in range(len(self._servers))].index(key))
        finally:
            self._changing.release()

    @staticmethod
    def _name_of(index: int) -> str:
        return f"server-{index}"

    def _new_master(self, address: str | None) -> Member:
        return self._member(
            MasterOrder(
                address=address or self._listen_address("master"),
                data_dir=self._data_dir / "master",
                **self._told_to_all(),
            )
        )

    def _new_server(self, index: int) -> Member:
        name = self._name_of(index)
        known = self._servers[index].address if index < len(self._servers) else ""
        return self._member(
            ServerOrder(
                master=self.address,
                name=name,
                address=known if known and self._scheme == "local" else self._listen_address(name),
                data_dir=self._data_dir / name,
                options=self._options_of(index),
                **self._told_to_all(),
            )
        )

    def _member(self, order: MasterOrder | ServerOrder) -> Member:
        return ThreadMember(order) if self._scheme == "local" else ProcessMember(order)

    def _told_to_all(self) -> dict[str, Any]:
        # Should this process be gone without a word, its children go too, and take the private folder along.
        return {"log_level": self._log_level, "parent": os.getpid(), "private": self._private}

    def _options_of(self, index: int) -> ServerOptions:
        """Return how a server is to be, all in all.

        Raises:
            ConfigError: what only the cluster itself or only a process can take.
        """
        options = self._server_options(index) if callable(self._server_options) else self._server_options
        settings, usual = options.settings, config.ServerSettings()
        for name in _OWN:
            if getattr(settings, name) != getattr(usual, name):
                raise ConfigError(f"{name} is for LocalCluster({name}=...), not for its server_options")
        if self._scheme == "local" and options.needs_process:
            raise ConfigError(
                'under scheme "local" servers share this process: server_options are settings and membership only'
            )
        settings = replace(
            settings, durability=self._durability, memory_limit=self._memory_limit, allow=self._allow
        )
        return replace(options, settings=settings)

    def _listen_address(self, name: str) -> str:
        if self._scheme == "tcp":
            return f"tcp://127.0.0.1:{self._master_port() if name == 'master' else 0}"
        if self._scheme == "ipc":
            return f"ipc://{self._private / name}.sock"
        return f"local://{uuid.uuid4().hex[:12]}-{name}"

    def _master_port(self) -> int:
        """Return the port of the master, known before it listens where that can be."""
        if self._reserved is None:
            self._reserved = keep_port(self._port)
        return self._port if self._reserved is None else port_of(self._reserved)

    @staticmethod
    def _wait_ready(members: list[Member]) -> None:
        for member in members:
            if isinstance(member, ProcessMember):
                member.wait_ready()


def local(
    servers: int = 2,
    *,
    data_dir: str | Path | None = None,
    durability: config.Durability = "process",
    **client_options: Any,
) -> Client:
    """Start a cluster in processes of its own and return a client that owns it.

    Args:
        servers: how many.
        data_dir: where models survive the cluster's end; None: nowhere.
        durability: see ``LocalCluster``.
        client_options: of ``Client``.

    Returns:
        A client; closing it, or leaving its ``with``, stops the cluster.

    Raises:
        ConfigError, ClusterError: see ``LocalCluster`` and ``Client``.
    """
    cluster = LocalCluster(servers, data_dir=data_dir, durability=durability)
    try:
        client = cluster.client(**client_options)
    except BaseException:
        cluster.stop()
        raise
    client._close_with(cluster.stop)  # noqa: SLF001 - a client that owns a cluster is made here only
    return client


def _private_parent(data_dir: str | Path | None) -> str | None:
    """Return where the private folder lies: in memory where the machine offers that, for values lie there."""
    return shared_memory() if data_dir is None else None
