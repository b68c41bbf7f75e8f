"""Hosts of a network that a test can cut: namespaces of the kernel, joined by a bridge in one of their own.

Nothing of it touches the machine's own network: each host has an address in a network that exists between these
namespaces only, and everything goes with them. Knows no test.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from tests.cluster.drilled import DrilledCluster, Host
from tests.cluster.helpers import PATIENCE_S, environment

_PREFIX = "glintpy-test-"
_PORT = 13370


@cache
def _why_not() -> str:
    """Return why there can be no namespaces here, or nothing."""
    if os.geteuid() != 0:
        return "only root may make network namespaces"
    missing = [name for name in ("ip", "nft", "tc") if shutil.which(name) is None]
    if missing:
        return f"there is no {' and no '.join(missing)} here"
    name = f"{_PREFIX}{os.getpid()}-probe"
    made = subprocess.run(["ip", "netns", "add", name], check=False, capture_output=True, text=True)
    if made.returncode:
        return f"no network namespaces here: {made.stderr.strip()}"
    rules = _run(["ip", "netns", "exec", name, "nft", "list", "ruleset"], check=False)
    _run(["ip", "netns", "del", name])
    return f"no nft in a network namespace: {rules.stderr.strip()}" if rules.returncode else ""


def needs_namespaces(test: Any) -> Any:
    """Mark a test that needs them; it is skipped with the reason where there are none."""
    return pytest.mark.root(pytest.mark.skipif(bool(_why_not()), reason=_why_not() or "-")(test))


class Network:
    """Hosts by name."""

    def __init__(self, names: Sequence[str]) -> None:
        _remove_strays()
        self._own = f"{_PREFIX}{os.getpid()}-"
        self.hosts: dict[str, Host] = {}
        self._names = list(names)

    def build(self) -> None:
        """Make it."""
        hub = f"{self._own}hub"
        _run(["ip", "netns", "add", hub])
        _run(["ip", "-n", hub, "link", "add", "bridge", "type", "bridge"])
        _run(["ip", "-n", hub, "link", "set", "bridge", "up"])
        for number, name in enumerate(self._names, 1):
            space, port, ip = f"{self._own}{name}", f"port{number}", f"10.77.0.{number}"
            _run(["ip", "netns", "add", space])
            _run(
                ["ip", "-n", hub, "link", "add", port, "type", "veth", "peer", "name", "net", "netns", space]
            )
            _run(["ip", "-n", hub, "link", "set", port, "master", "bridge", "up"])
            _run(["ip", "-n", space, "addr", "add", f"{ip}/24", "dev", "net"])
            _run(["ip", "-n", space, "link", "set", "net", "up"])
            _run(["ip", "-n", space, "link", "set", "lo", "up"])
            self.hosts[name] = Host(ip, ("ip", "netns", "exec", space))

    def remove(self) -> None:
        """Remove all of it."""
        for name in [*self._names, "hub"]:
            _run(["ip", "netns", "del", f"{self._own}{name}"], check=False)

    def cut(self, name: str, *, off: str | None = None, after_bytes: int | None = None) -> None:
        """Let nothing through to and from a host any more: no answer, no refusal, as if its cable were out.

        Args:
            name: the host's.
            off: from this host only; None: from all.
            after_bytes: let so many bytes more reach it first; what it sends itself always passes then.
        """
        source = "" if off is None else f"ip saddr {self.hosts[off].ip} "
        if after_bytes is None:
            target = "" if off is None else f"ip daddr {self.hosts[off].ip} "
            self._rules(name, f'iif "net" {source}drop', f'oif "net" {target}drop')
        else:
            self._rules(name, f'iif "net" {source}quota over {after_bytes} bytes drop', "")

    def lose(self, name: str, percent: int) -> None:
        """Lose so many of a hundred packets to and from a host, at random."""
        dice = f"numgen random mod 100 < {percent} drop"
        self._rules(name, f'iif "net" {dice}', f'oif "net" {dice}')

    def slow(self, name: str, rate: str) -> None:
        """Let a host send no faster than this, ``"20mbit"`` for example."""
        shape = [
            "tc",
            "qdisc",
            "add",
            "dev",
            "net",
            "root",
            "tbf",
            "rate",
            rate,
            "burst",
            "64kb",
            "latency",
            "400ms",
        ]
        _run([*self.hosts[name].prefix, *shape])

    def heal(self, name: str) -> None:
        """Let everything through again."""
        _run([*self.hosts[name].prefix, "nft", "flush", "ruleset"])

    def _rules(self, name: str, incoming: str, outgoing: str) -> None:
        text = (
            "flush ruleset\ntable inet drill {\n"
            f"chain in {{ type filter hook input priority 0; {incoming}\n}}\n"
            f"chain out {{ type filter hook output priority 0; {outgoing}\n}}\n}}\n"
        )
        done = subprocess.run(
            [*self.hosts[name].prefix, "nft", "-f", "-"],
            input=text,
            check=False,
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stderr


@contextmanager
def networked_cluster(folder: Path, num_servers: int = 2) -> Iterator[tuple[Network, DrilledCluster]]:
    """Run a cluster with a host for each of its members, and one named "client"; all goes away in any case."""
    names = ["master", *(f"server-{index}" for index in range(num_servers)), "client", "spare"]
    network = Network(names)
    cluster: DrilledCluster | None = None
    try:
        network.build()
        cluster = DrilledCluster(folder, num_servers, hosts=network.hosts)
        cluster.start()
        yield network, cluster
    finally:
        if cluster is not None:
            cluster.close()
        network.remove()


_CLIENT = """\
import json, sys, threading
import numpy as np
import glintpy

address, num_keys = sys.argv[1], int(sys.argv[2])
client = glintpy.Client(address, timeout_s=300)
vector = client.vector(num_keys, dtype="int64", name="counted", exist_ok=True)
stop = threading.Event()
done, errors = [0], []

def run():
    try:
        while not stop.is_set():
            for push in [vector.push(None, 1) for _ in range(4)]:
                push.result()
                done[0] += 1
            vector.pull([0, num_keys - 1]).result()
    except glintpy.GlintError as error:
        errors.append(repr(error))

def answer(command):
    global thread
    if command == "begin":
        stop.clear()
        thread = threading.Thread(target=run)
        thread.start()
        return None
    if command == "end":
        stop.set()
        thread.join()
        values = vector.pull().result()
        return {"pushes": done[0], "errors": errors, "low": int(values.min()), "high": int(values.max())}
    if command == "pushes":
        return done[0] if not errors else errors
    if command == "down":
        return len(client._tie.runtime()._endpoint.down_peers())
    if command == "state":
        state = client._state()
        return {"changes": state["changes"], "states": [server["state"] for server in state["servers"]]}
    raise ValueError(command)

for line in sys.stdin:
    print(json.dumps(answer(line.strip())), flush=True)
"""


class RemoteClient:
    """A client in another namespace, which pushes ones to a whole vector and counts."""

    def __init__(self, host: Host, address: str, num_keys: int) -> None:
        self._process = subprocess.Popen(
            [*host.prefix, sys.executable, "-c", _CLIENT, address, str(num_keys)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            env=environment(),
            start_new_session=True,
        )

    def ask(self, command: str) -> Any:
        """Have it do something: "begin" and "end" of pushing, or tell its "pushes", "down" peers or the "state"."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(command + "\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        assert line, f"the client ended with {self._process.wait(PATIENCE_S)}"
        return json.loads(line)

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.communicate()


@contextmanager
def remote_client(host: Host, address: str, num_keys: int) -> Iterator[RemoteClient]:
    """Run a client on a host."""
    client = RemoteClient(host, address, num_keys)
    try:
        yield client
    finally:
        client.close()


def _run(command: Sequence[str], *, check: bool = True) -> subprocess.CompletedProcess[str]:
    done = subprocess.run(list(command), check=False, capture_output=True, text=True)
    assert not check or done.returncode == 0, f"{' '.join(command)}: {done.stderr}"
    return done


def _remove_strays() -> None:
    """Remove what tests left that were killed."""
    for line in _run(["ip", "netns", "list"]).stdout.splitlines():
        name = line.split()[0]
        owner = name.removeprefix(_PREFIX).partition("-")[0]
        if name.startswith(_PREFIX) and (owner == str(os.getpid()) or not Path(f"/proc/{owner}").exists()):
            _run(["ip", "netns", "del", name], check=False)
