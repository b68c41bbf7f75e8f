"""Masters and servers of real processes, of which a test says while they run where one dies or stands still.

A file in a node's folder arms a place: so a test can let a cluster come up, and then choose. Knows no test.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from tests.cluster.helpers import PATIENCE_S, environment, until

_PROGRAM = """\
import ctypes, os, signal, sys, time
from pathlib import Path

from glintpy import failpoints
from glintpy.cli.app import run

folder = Path(sys.argv[1])

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def leave():
    raise SystemExit("a thread that leaves")

def hang():
    (folder / "hangs").touch()
    time.sleep(3600)

def hang_with_the_lock():
    (folder / "hangs").touch()
    ctypes.PyDLL(None).sleep(3600)  # unlike CDLL, it keeps the interpreter's lock

def at(place):
    num_passed = 0
    def act():
        nonlocal num_passed
        try:
            name, num_to_pass = (folder / place).read_text().split()
        except (OSError, ValueError):
            return
        if num_passed < int(num_to_pass):
            num_passed += 1
            return
        num_passed = 0
        (folder / place).unlink()
        {"die": die, "leave": leave, "hang": hang, "hang_with_the_lock": hang_with_the_lock}[name]()
    return act

for place in sorted(failpoints.NAMES):
    failpoints.arm_with(place, at(place))
sys.exit(run(sys.argv[2:]))
"""


_WAITS = "waiting for another process to let go of"


class DrilledNode:
    """One master or server, started as often as the test wants.

    Attributes:
        folder: with its data and whatever arms it.
        address: where it is reached, once it was started.
    """

    def __init__(
        self,
        role: str,
        folder: Path,
        arguments: Sequence[str],
        *,
        prefix: Sequence[str] = (),
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        self.address = ""
        self._role, self._arguments, self._prefix = role, list(arguments), list(prefix)
        self._process: subprocess.Popen[str] | None = None
        self._errors: IO[str] | None = None

    @property
    def pid(self) -> int:
        """Of the process that runs, or ran last."""
        assert self._process is not None
        return self._process.pid

    @property
    def said(self) -> str:
        """What all its processes wrote to stderr."""
        return (self.folder / "stderr").read_text()

    def begin(self) -> None:
        """Start it, without waiting until it is ready."""
        assert self._process is None or not self.is_alive
        self.close()
        self._errors = (self.folder / "stderr").open("a")
        command = [*self._prefix, sys.executable, "-c", _PROGRAM, str(self.folder)]
        self._process = subprocess.Popen(
            [*command, self._role, *self._arguments, "--data-dir", str(self.folder / "data")],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=self._errors,
            text=True,
            env=environment(),
            start_new_session=True,
        )

    def wait_ready(self) -> None:
        """Return when it has said that it is ready."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert "ready at " in line, f"{self._role} ended with {self._process.wait(PATIENCE_S)}: {self.said}"
        self.address = line.rpartition("ready at ")[2].strip()

    def start(self) -> None:
        """Start it and return when it is ready."""
        self.begin()
        self.wait_ready()

    def arm(self, place: str, action: str, *, passing: int = 0) -> None:
        """Have it do something at a place: "die", "leave" (the thread), "hang", "hang_with_the_lock".

        Args:
            place: a failpoint's name.
            action: one of the above.
            passing: how often it passes there first.
        """
        unfinished = self.folder / "arming"
        unfinished.write_text(f"{action} {passing}")
        unfinished.rename(self.folder / place)

    def disarm(self) -> None:
        """Disarm all places."""
        for place in self.folder.glob("*.*"):
            place.unlink(missing_ok=True)

    @property
    def is_alive(self) -> bool:
        """Whether it runs."""
        return self._process is not None and self._process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send it a signal."""
        os.kill(self.pid, number)

    def kill(self) -> None:
        """Kill it."""
        assert self._process is not None
        self._process.kill()
        self._process.wait()

    def wait_end(self, within_s: float = PATIENCE_S) -> int:
        """Return its exit code, once it ended by itself."""
        until(lambda: not self.is_alive, f"{self._role} ends", within_s=within_s)
        assert self._process is not None
        return int(self._process.wait())

    def close(self) -> None:
        """Kill what runs and let go of it."""
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            assert self._process.stdout is not None
            self._process.stdout.close()
        if self._errors is not None:
            self._errors.close()


@dataclass(frozen=True, slots=True)
class Host:
    """Where a node runs.

    Attributes:
        ip: its address.
        prefix: of the command line of what runs there.
    """

    ip: str
    prefix: tuple[str, ...] = ()

    @property
    def arguments(self) -> list[str]:
        """For a node that listens there."""
        return ["--host", self.ip] + ([] if self.ip == "127.0.0.1" else ["--insecure"])


class DrilledCluster:
    """A master and servers.

    Args:
        folder: for what they keep.
        num_servers: how many.
        hosts: by the nodes' names; None: all on this one.
        server_arguments: more of the servers' command line.
    """

    def __init__(
        self,
        folder: Path,
        num_servers: int,
        *,
        hosts: Mapping[str, Host] | None = None,
        server_arguments: Sequence[str] = (),
    ) -> None:
        self._server_arguments = list(server_arguments)
        self._hosts = hosts or {}
        host = self._host("master")
        self.master = DrilledNode(
            "master", folder / "master", [*host.arguments, "--port", "0"], prefix=host.prefix
        )
        self._folder = folder
        self.servers: list[DrilledNode] = []
        self._replaced: list[DrilledNode] = []
        self._num_servers = num_servers

    def start(self) -> None:
        """Start everything."""
        self.master.start()
        # Later masters are found where the first one was.
        self.master._arguments[-1] = self.master.address.rpartition(":")[2]
        for index in range(self._num_servers):
            host = self._host(f"server-{index}")
            server = DrilledNode(
                "server",
                self._folder / f"server-{index}",
                [*self._common_arguments(f"server-{index}"), *host.arguments],
                prefix=host.prefix,
            )
            self.servers.append(server)
            server.begin()
        for server in self.servers:
            server.wait_ready()

    def _host(self, name: str) -> Host:
        return self._hosts.get(name, Host("127.0.0.1"))

    def _common_arguments(self, name: str) -> list[str]:
        return [
            "--master",
            self.master.address,
            "--name",
            name,
            "--lock-wait",
            str(PATIENCE_S),
            *self._server_arguments,
        ]

    def heir_of(self, index: int) -> DrilledNode:
        """Start a second process on a server's folder and return it when it waits for the first one's end.

        It takes the place in ``servers``; the first one is killed with the rest.
        """
        old = self.servers[index]
        heir = DrilledNode("server", old.folder, old._arguments, prefix=old._prefix)
        self._replaced.append(old)
        self.servers[index] = heir
        waited = old.said.count(_WAITS)
        heir.begin()
        until(lambda: heir.said.count(_WAITS) > waited, "it waits for the folder")
        return heir

    def close(self) -> None:
        """Kill everything."""
        for node in [*self._replaced, *self.servers, self.master]:
            node.close()


@contextmanager
def drilled_cluster(folder: Path, num_servers: int = 2, **options: Any) -> Iterator[DrilledCluster]:
    """Run a cluster; whatever is left of it is killed."""
    cluster = DrilledCluster(folder, num_servers, **options)
    try:
        cluster.start()
        yield cluster
    finally:
        cluster.close()


def report(what: str, seconds: float) -> None:
    """Note how long something took: pytest shows it with -rP, or when the test fails."""
    sys.stdout.write(f"{what}: {seconds:.2f} s\n")
