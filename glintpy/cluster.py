"""LocalCluster: a master and servers on this machine, for one program; nothing survives it.

Real processes are started with ``subprocess`` as ``python -m glintpy ...``, never by multiprocessing: the
script that starts a cluster at its top level must not start itself again. Each child watches its parent and
goes when the parent has gone, however that happened.
"""

from __future__ import annotations

import atexit
import os
import queue
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, Self

from glintpy import config
from glintpy.client import Client
from glintpy.errors import ClusterError, ConfigError
from glintpy.ties import close_ties

if TYPE_CHECKING:
    from glintpy.nodes import Node

Scheme = Literal["tcp", "ipc", "local"]

READY = "ready at "
"""What the line that a node prints when it is ready says before its address."""

START_S = 30.0
"""How long a process may take to be ready: it imports numpy, on a machine that may be busy."""

STOP_S = 15.0
"""How long one may take to stop before it is killed."""


class Member(Protocol):
    """A master or server, as the cluster holds it."""

    address: str

    def stop(self) -> None:
        """Stop it in good order."""
        ...

    def kill(self) -> None:
        """Stop it as ``kill -9`` does."""
        ...

    def is_alive(self) -> bool:
        """Whether it runs."""
        ...


class ProcessMember:
    """A node in a process of its own.

    Attributes:
        process: the process.
        address: where the node is reached.
    """

    def __init__(self, arguments: list[str], private: Path) -> None:
        command = [sys.executable, "-m", "glintpy", *arguments]
        # Should this process be gone without a word, the children go too, and take the private folder along.
        command += ["--parent", str(os.getpid()), "--private", str(private)]
        self.process = subprocess.Popen(  # noqa: S603 - our own module, no shell
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            # Ctrl-C reaches the whole terminal group; the parent decides when its servers stop.
            start_new_session=True,
            env=_environment(),
        )
        self._errors: list[str] = []
        self._lines: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._readers = [
            threading.Thread(target=self._read_errors, name="glintpy-child-log", daemon=True),
            threading.Thread(target=self._read_output, name="glintpy-child-output", daemon=True),
        ]
        for reader in self._readers:
            reader.start()
        self.address = ""

    def wait_ready(self) -> None:
        """Wait for the line that says where the node is.

        Raises:
            ClusterError: it ended, or took too long; with what it wrote.
        """
        end = time.monotonic() + START_S
        while True:
            try:
                line = self._lines.get(timeout=max(0.0, end - time.monotonic()))
            except queue.Empty:
                self.kill()
                raise ClusterError(
                    f"a process was not ready within {START_S:.0f} s: {self._said()}"
                ) from None
            if line is None:
                self.kill()
                raise ClusterError(f"a process ended before it was ready: {self._said()}")
            if READY in line:
                self.address = line.rpartition(READY)[2].strip()
                return

    def stop(self) -> None:
        """Ask it to stop, and kill it if it doesn't."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                self.process.kill()
        self._reap()

    def kill(self) -> None:
        """Kill it."""
        self.process.kill()
        self._reap()

    def is_alive(self) -> bool:
        """Whether the process runs."""
        return self.process.poll() is None

    def _reap(self) -> None:
        self.process.wait()
        for reader in self._readers:
            reader.join()
        for stream in (self.process.stdout, self.process.stderr):
            if stream is not None:
                stream.close()

    def _read_errors(self) -> None:
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self._errors.append(line)
            del self._errors[:-50]
            sys.stderr.write(line)

    def _read_output(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def _said(self) -> str:
        return " ".join(line.strip() for line in self._errors[-5:]) or "it wrote nothing"


class LocalMember:
    """A node in a thread of this process."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self.address = node.address

    def stop(self) -> None:
        """Stop it in good order."""
        self._node.stop()

    def kill(self) -> None:
        """Drop its mailbox and memory without an answer."""
        self._node.crash()

    def is_alive(self) -> bool:
        """Whether it runs."""
        return not self._node.stopped.is_set()


@dataclass(frozen=True, slots=True)
class ServerView:
    """A server of a local cluster.

    Attributes:
        index: its number, for ``kill_server`` and ``restart_server``.
        address: where it is reached, or was.
        pid: of its process; this one's under ``local``.
        is_alive: whether it runs.
    """

    index: int
    address: str
    pid: int
    is_alive: bool


class LocalCluster:
    """A master and servers on this machine.

    Args:
        servers: how many, at least 1.
        data_dir: where master and servers keep their state; with it models survive an orderly stop. None:
            a private folder for the cluster's life.
        scheme: ``"tcp"``: processes on loopback; ``"ipc"``: processes with sockets in a private folder;
            ``"local"``: threads of this process, for tests and notebooks.
        durability: ``"process"``, the only level yet: values lie in memory-mapped files, which survive an orderly
            stop. What a killed server held is reported as lost.
        memory_limit: bytes for models on each server; None: what is free.
        port: of the master, under ``"tcp"``; 0: any free one.
        log_level: from which on lines of the processes are shown on stderr.

    Raises:
        ConfigError: a setting out of its range.
        ClusterError: a process did not start; with what it wrote.

    Threads:
        Belongs to one thread.
    """

    def __init__(
        self,
        servers: int = 2,
        *,
        data_dir: str | Path | None = None,
        scheme: Scheme = "tcp",
        durability: Literal["process"] = "process",
        memory_limit: int | None = None,
        port: int = 0,
        log_level: str = "warning",
    ) -> None:
        if type(servers) is not int or servers < 1:
            raise ConfigError(f"servers is at least 1, not {servers!r}")
        if scheme not in {"tcp", "ipc", "local"}:
            raise ConfigError(f'scheme is "tcp", "ipc" or "local", not {scheme!r}')
        if durability != "process":
            raise ConfigError(f'durability is "process", not {durability!r}: there is no other level yet')
        if memory_limit is not None and (type(memory_limit) is not int or memory_limit < 1):
            raise ConfigError(f"memory_limit is a positive number of bytes, not {memory_limit!r}")
        if type(port) is not int or not 0 <= port <= 65535 or (port and scheme != "tcp"):
            raise ConfigError(
                f'port is 0 to 65535, and of a cluster over "tcp"; not {port!r} over {scheme!r}'
            )
        self._scheme: Scheme = scheme
        self._memory_limit = memory_limit
        self._port = port
        self._log_level = log_level
        self._owner_pid = os.getpid()
        self._private = Path(tempfile.mkdtemp(prefix="glintpy-", dir=_private_parent(data_dir)))
        self._data_dir = self._private if data_dir is None else Path(data_dir)
        self._servers: list[Member] = []
        self._master: Member | None = None
        self._is_stopped = False
        atexit.register(self.stop)
        try:
            self._start(servers)
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
        """
        return Client(self.address, **options)

    def add_server(self) -> ServerView:
        """Start one more server; models made from now on use it too."""
        self._servers.append(self._new_server(len(self._servers)))
        self._wait_ready(self._servers[-1:])
        return self.servers[-1]

    def kill_server(self, index: int) -> None:
        """Kill a server as ``kill -9`` does.

        Args:
            index: its number in ``servers``.
        """
        self._servers[index].kill()

    def stop_server(self, index: int) -> None:
        """Stop a server in good order; it can be started again with its models.

        Args:
            index: its number in ``servers``.
        """
        self._servers[index].stop()

    def restart_server(self, index: int) -> None:
        """Start a server again under its old identity, on its old files.

        Args:
            index: its number in ``servers``.
        """
        if self._servers[index].is_alive():
            self._servers[index].stop()
        self._servers[index] = self._new_server(index)
        self._wait_ready([self._servers[index]])

    def kill_master(self) -> None:
        """Kill the master as ``kill -9`` does."""
        assert self._master is not None
        self._master.kill()

    def restart_master(self) -> None:
        """Start the master again at its old address, on its old files."""
        assert self._master is not None
        if self._master.is_alive():
            self._master.stop()
        self._master = self._new_master(self._master.address)
        self._wait_ready([self._master])

    def stop(self) -> None:
        """Stop everything and remove what is private; again does nothing."""
        if self._is_stopped or os.getpid() != self._owner_pid:
            return
        self._is_stopped = True
        atexit.unregister(self.stop)
        members = [*self._servers, *([self._master] if self._master is not None else [])]
        if self._master is not None:
            close_ties(self._master.address)
        # Ask all servers before waiting for one: they stop side by side. The master goes after them, since each
        # takes leave of it and waits a while for its answer.
        for member in self._servers:
            if isinstance(member, ProcessMember) and member.is_alive():
                member.process.send_signal(signal.SIGTERM)
        for member in members:
            member.stop()
        shutil.rmtree(self._private, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __repr__(self) -> str:
        state = "stopped" if self._is_stopped else f"at {self.address}"
        return f"LocalCluster({len(self._servers)} servers, {state})"

    # --- inside ---------------------------------------------------------------------------------------------------

    def _start(self, num_servers: int) -> None:
        self._master = self._new_master(None)
        self._wait_ready([self._master])
        # All at once: each needs most of its time to import numpy.
        for index in range(num_servers):
            self._servers.append(self._new_server(index))
        self._wait_ready(self._servers)

    def _new_master(self, address: str | None) -> Member:
        address = address or self._listen_address("master")
        folder = self._data_dir / "master"
        if self._scheme == "local":
            from glintpy.nodes import start_master  # noqa: PLC0415 - only a cluster inside the process needs it

            return LocalMember(start_master(address, data_dir=folder))
        arguments = ["master", "--address", address, "--data-dir", str(folder)]
        return self._process(arguments)

    def _new_server(self, index: int) -> Member:
        folder = self._data_dir / f"server-{index}"
        address = self._listen_address(f"server-{index}")
        name = f"server-{index}"
        if self._scheme == "local":
            settings = replace(config.ServerSettings(), memory_limit=self._memory_limit)
            from glintpy.nodes import start_server  # noqa: PLC0415 - only a cluster inside the process needs it

            return LocalMember(
                start_server(self.address, address=address, name=name, data_dir=folder, settings=settings)
            )
        arguments = ["server", "--master", self.address, "--address", address, "--name", name]
        arguments += ["--data-dir", str(folder)]
        if self._memory_limit is not None:
            arguments += ["--memory-limit", str(self._memory_limit)]
        return self._process(arguments)

    def _process(self, arguments: list[str]) -> ProcessMember:
        return ProcessMember([*arguments, "--log-level", self._log_level], self._private)

    def _listen_address(self, name: str) -> str:
        if self._scheme == "tcp":
            return f"tcp://127.0.0.1:{self._port if name == 'master' else 0}"
        if self._scheme == "ipc":
            return f"ipc://{self._private / name}.sock"
        return f"local://{uuid.uuid4().hex[:12]}-{name}"

    @staticmethod
    def _wait_ready(members: list[Member]) -> None:
        for member in members:
            if isinstance(member, ProcessMember):
                member.wait_ready()


def local(
    servers: int = 2,
    *,
    data_dir: str | Path | None = None,
    durability: Literal["process"] = "process",
    **client_options: Any,
) -> Client:
    """Start a cluster in processes of its own and return a client that owns it.

    Args:
        servers: how many.
        data_dir: where models survive an orderly stop; None: nowhere.
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
    shared_memory = Path("/dev/shm")  # noqa: S108 - mkdtemp makes a folder of our own in it
    if data_dir is None and shared_memory.is_dir() and os.access(shared_memory, os.W_OK):
        return str(shared_memory)
    return None


def _environment() -> dict[str, str]:
    environment = dict(os.environ)
    # The children must find the same glintpy as this process, also when it is not installed.
    here = str(Path(__file__).resolve().parent.parent)
    known = environment.get("PYTHONPATH", "")
    environment["PYTHONPATH"] = f"{here}{os.pathsep}{known}" if known else here
    # A server's numpy does element-wise work only: threads of a linear algebra library would just idle.
    environment.setdefault("OPENBLAS_NUM_THREADS", "1")
    return environment
