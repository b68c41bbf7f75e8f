"""The command line, as it is used: processes that are started, looked at, killed, asked to stop and restarted."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import glintpy
from tests.cluster.helpers import PATIENCE_S, environment, nodes_of, until

EVERYWHERE = "0.0.0.0"  # noqa: S104 - it is bound with --insecure only, which is what is tested

LOST_S = 5.0
"""Within so long status must show that a server was killed."""


class Running:
    """A command in a process of its own, and what it has said so far."""

    def __init__(self, *arguments: object) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "glintpy", *map(str, arguments)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env=environment(),
            start_new_session=True,
        )
        self.said: dict[str, list[str]] = {"stdout": [], "stderr": []}
        self._readers = [threading.Thread(target=self._read, args=(name,)) for name in self.said]
        for reader in self._readers:
            reader.start()

    def _read(self, name: str) -> None:
        for line in getattr(self.process, name):
            self.said[name].append(line.rstrip("\n"))

    def wait_for(self, words: str, *, name: str = "stderr") -> str:
        """Wait until a line with these words was said, and return it."""

        def find() -> str:
            return next((line for line in self.said[name] if words in line), "")

        until(lambda: find() or self.process.poll() is not None, f"a line with {words!r}")
        assert find(), f"it ended with {self.process.poll()}: {self.said}"
        return find()

    def ready(self) -> str:
        """Wait until it is ready, and return its address."""
        return self.wait_for("ready at", name="stdout").rpartition(" ")[2]

    def ask_to_stop(self, number: signal.Signals) -> int:
        """Send a signal and return the exit code."""
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> int:
        """Wait for its end and return the exit code."""
        code = self.process.wait(PATIENCE_S)
        self._close()
        return code

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()
        self._close()

    def _close(self) -> None:
        for reader, name in zip(self._readers, self.said, strict=True):
            reader.join()
            getattr(self.process, name).close()


@contextmanager
def running(*arguments: object) -> Iterator[Running]:
    """Run a command until the end of the block, at the latest."""
    command = Running(*arguments)
    try:
        yield command
    finally:
        command.kill()


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [sys.executable, "-m", "glintpy", *map(str, arguments)],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        env=environment(),
        timeout=PATIENCE_S,
        check=False,
    )


def output_of(*arguments: object) -> str:
    """Run a command that must succeed and return what it printed."""
    result = run(*arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def refusal_of(*arguments: object) -> str:
    """Run a command that must fail, and return the one line that says why."""
    result = run(*arguments)
    assert result.returncode in {1, 2}, result.stdout
    assert result.stdout == ""
    (line,) = result.stderr.splitlines()
    return line


def state_of(master: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(output_of("status", "--master", master, "--json"))
    return found


def states(master: str) -> dict[str, str]:
    return {server["name"]: server["state"] for server in state_of(master)["servers"]}


# --- a cluster by hand ------------------------------------------------------------------------------------


@contextmanager
def cluster_by_hand(folder: Path) -> Iterator[tuple[Running, list[Running]]]:
    """Start a master and two servers with data directories."""
    with running("master", "--port", 0, "--data-dir", folder / "master") as master:
        address = master.ready()
        options = ["server", "--master", address, "--data-dir"]
        with (
            running(*options, folder / "a", "--name", "a", "--memory-limit", "1GB") as first,
            running(*options, folder / "b", "--name", "b") as second,
        ):
            first.ready()
            second.ready()
            yield master, [first, second]


def test_a_cluster_is_started_looked_at_and_stopped_in_good_order(tmp_path: Path) -> None:
    with cluster_by_hand(tmp_path) as (master, servers):
        address = master.ready()
        with glintpy.Client(address, name="worker") as client:
            client.vector(1000, dtype="int64", name="counts").push([1, 999, 1], 1).result()
            state = state_of(address)
        assert [client["name"] for client in state["clients"]] == ["worker"]
        assert {server["state"] for server in state["servers"]} == {"alive"}
        first, second = (
            server["holds"] for server in sorted(state["servers"], key=lambda entry: entry["name"])
        )
        assert first["memory_limit"] == 10**9
        assert len(first["models"]) == len(second["models"]) == 1
        assert first["model_bytes"] + second["model_bytes"] == 8000
        assert first["pushes"] + second["pushes"] == 2
        assert first["bytes_in"] > 0
        assert [model["name"] for model in state["models"]] == ["counts"]
        table = output_of("status", "--master", address)
        assert "2 of 2 servers alive" in table
        assert "counts" in table
        for server in servers:
            server.process.send_signal(signal.SIGINT)
        assert [server.wait() for server in servers] == [0, 0]
        assert states(address) == {"a": "stopped", "b": "stopped"}
        assert master.ask_to_stop(signal.SIGTERM) == 0
        assert master.said["stdout"] == [f"glintpy master ready at {address}"]
        said = "\n".join(master.said["stderr"])
        for news in ("server a joined", "client worker joined", "client worker left", "server b is stopped"):
            assert news in said
        assert "Traceback" not in said
    assert "the master is down: nothing listens at" in refusal_of("status", "--master", address)
    # Everything is there again, at the same place, by the same commands.
    with cluster_by_hand(tmp_path) as (master, _), glintpy.Client(master.ready()) as client:
        assert client.open("counts").pull([0, 1, 999]).result().tolist() == [0, 2, 1]


def test_a_killed_server_is_shown_as_lost_within_seconds(tmp_path: Path) -> None:
    with cluster_by_hand(tmp_path) as (master, servers):
        address = master.ready()
        servers[0].kill()
        until(lambda: states(address) == {"a": "lost", "b": "alive"}, "a is lost", within_s=LOST_S)
        (lost,) = (server for server in state_of(address)["servers"] if server["name"] == "a")
        assert lost["holds"] is None
        assert "is lost" in output_of("status", "--master", address)


def test_a_server_that_was_replaced_ends_and_says_so(tmp_path: Path) -> None:
    with running("master", "--port", 0) as master:
        options = ["server", "--master", master.ready(), "--data-dir"]
        with running(*options, tmp_path / "a") as first:
            first.ready()
            shutil.copytree(tmp_path / "a", tmp_path / "copy")
            with running(*options, tmp_path / "copy") as second:
                second.ready()
                assert first.wait() == 1
        assert "was replaced" in first.said["stderr"][-1]
        assert first.said["stderr"][-1].startswith("glintpy server: ")


def test_a_server_that_waits_for_its_master_can_be_stopped() -> None:
    with running("server", "--master", "tcp://127.0.0.1:1", "--log-level", "debug") as server:
        server.wait_for("joining the master")
        assert server.ask_to_stop(signal.SIGINT) == 0
        assert not server.said["stdout"]


def test_a_signal_shows_where_every_thread_stands() -> None:
    with running("master", "--port", 0) as master:
        master.ready()
        master.process.send_signal(signal.SIGUSR1)
        master.wait_for("most recent call first")
        master.wait_for("_actor_loop")
        assert master.ask_to_stop(signal.SIGTERM) == 0


def test_master_and_server_allow_themselves_all_open_files() -> None:
    with running("master", "--port", 0) as master:
        master.ready()
        limits = Path(f"/proc/{master.process.pid}/limits").read_text()
        (line,) = (line for line in limits.splitlines() if line.startswith("Max open files"))
        soft, hard = line.split()[3:5]
        assert soft == hard


# --- what can't be -------------------------------------------------------------------------------------------


def test_what_can_t_be_started_says_why_in_one_line(tmp_path: Path) -> None:
    with running("master", "--port", 0, "--data-dir", tmp_path / "master") as master:
        address = master.ready()
        port = address.rpartition(":")[2]
        with running("server", "--master", address, "--data-dir", tmp_path / "a") as server:
            server.ready()
            assert f"can't listen at {address}" in refusal_of("master", "--port", port)
            assert "the port is taken" in refusal_of("local", "--port", port)
            assert "in use by another master" in refusal_of(
                "master", "--port", 0, "--data-dir", tmp_path / "master"
            )
            in_use = ("--data-dir", tmp_path / "a", "--lock-wait", "100ms", "--log-level", "warning")
            refusal = refusal_of("server", "--master", address, *in_use)
            assert "in use by another process" in refusal
            for command in ("status", "server"):
                assert "this is a server's address" in refusal_of(command, "--master", server.ready())
    refusal = refusal_of("server", "--master", address, "--join-timeout", "300ms")
    assert refusal.startswith(f"glintpy server: no master answered at {address} within 0.3 s")
    refusal = refusal_of("master", "--host", EVERYWHERE, "--port", 0)
    assert "no encryption and no access control" in refusal
    assert "--insecure" in refusal
    assert "can't make the directory" in refusal_of("master", "--port", 0, "--data-dir", "/proc/none")


def test_an_open_address_is_allowed_on_request() -> None:
    with running("master", "--host", EVERYWHERE, "--port", 0, "--insecure") as master:
        port = master.ready().rpartition(":")[2]
        assert state_of(f"127.0.0.1:{port}")["servers"] == []


# --- models ----------------------------------------------------------------------------------------------------


def test_models_are_listed_saved_loaded_and_removed(cluster: glintpy.LocalCluster, tmp_path: Path) -> None:
    at = ("--master", cluster.address)
    url = tmp_path / "saved"
    with cluster.client() as client:
        matrix = client.matrix(100, 10, dtype="int32", name="weights")
        values = np.arange(1000, dtype=np.int32).reshape(100, 10)
        matrix.push(range(100), values).result()
        assert "saved weights (100 x 10 int32, 3.9 KiB)" in output_of("save", "weights", url, *at)
        assert "pass --overwrite to replace it" in refusal_of("save", "weights", url, *at)
        output_of("save", "weights", url, "--overwrite", *at)
        output_of("load", url, "--name", "again", "--partitioner", "cyclic", *at)
        assert (client.open("again").pull().result() == values).all()
        assert "a model of that name already" in refusal_of("load", url, "--name", "again", *at)
        assert "there is no checkpoint" in refusal_of("load", tmp_path / "nothing", *at)
        listed = {model["name"]: model for model in json.loads(output_of("models", "--json", *at))}
        assert listed["weights"]["shape"] == [100, 10]
        assert listed["again"]["partitioner"] == "cyclic"
        assert "100 x 10" in output_of("models", *at)
        result = run("rm", "weights", "nothing", "again", *at)
        assert result.stdout.splitlines() == ["removed weights", "removed again"]
        assert "there is no model 'nothing'" in result.stderr
        assert result.returncode == 1
        assert client.models() == []
    assert output_of("models", *at) == "there are no models\n"


def test_tables_are_listed_with_the_keys_that_they_have(cluster: glintpy.LocalCluster) -> None:
    at = ("--master", cluster.address)
    with cluster.client() as client, client.table(8, name="keys") as table:
        table.push(np.arange(1234), np.ones((1234, 8), np.float32)).result()
        (listed,) = json.loads(output_of("models", "--json", *at))
        assert listed["shape"] == [1234, 8]
        assert listed["bytes"] > 1234 * 8 * 4
        assert "1,234 x 8" in output_of("models", *at)
        assert "1,234 x 8" in output_of("status", *at)


def test_forgotten_models_are_removed_by_their_age(cluster: glintpy.LocalCluster) -> None:
    at = ("--master", cluster.address)
    with cluster.client() as client:
        client.vector(10, name="named")
        unnamed = [made.name for made in (client.vector(10), client.table(2), client.matrix(3, 2))]
        assert "older than 1 d" in output_of("rm", "--unnamed", *at)
        assert output_of("rm", "--unnamed", "--older", "1ms", "--dry-run", *at).splitlines() == [
            f"would remove {name}" for name in unnamed
        ]
        assert sorted(client.models()) == sorted(["named", *unnamed])
        assert output_of("rm", "--unnamed", "--older", "1ms", *at).splitlines() == [
            f"removed {name}" for name in unnamed
        ]
        assert client.models() == ["named"]
        client.destroy("named")


def test_the_age_of_a_model_outlives_its_master(tmp_path: Path) -> None:
    with glintpy.LocalCluster(1, data_dir=tmp_path) as cluster:
        with cluster.client() as client:
            client.vector(10, name="old")
            (before,) = client.status()["models"]
        cluster.restart_master()
        with cluster.client() as client:
            (after,) = client.status()["models"]
        assert after["created"] == before["created"]
        assert after["age_s"] >= before["age_s"]


# --- local and doctor ------------------------------------------------------------------------------------------


def test_a_local_cluster_runs_in_the_foreground_until_it_is_interrupted() -> None:
    with running("local", "--servers", 2, "--port", 0) as local:
        address = local.ready()
        with glintpy.Client(address) as client:
            assert len(client.servers()) == 2
        assert len(nodes_of(local.process.pid)) == 3
        assert local.ask_to_stop(signal.SIGINT) == 0
        assert nodes_of(local.process.pid) == []
        assert local.said["stdout"] == [f"glintpy local ready at {address}"]


def test_a_local_cluster_whose_servers_are_dead_ends_and_says_so() -> None:
    with running("local", "--servers", 1, "--port", 0) as local:
        with glintpy.Client(local.ready()) as client:
            (server,) = client.servers()
        os.kill(server["pid"], signal.SIGKILL)
        assert local.wait() == 1
        assert local.said["stderr"][-1] == "glintpy local: the processes of all servers have ended"
        assert nodes_of(local.process.pid) == []


def test_the_doctor_finds_this_machine_well(cluster: glintpy.LocalCluster) -> None:
    found = json.loads(output_of("doctor", "--json", "--master", cluster.address))
    assert found["ok"] is True
    states = {check["check"]: check["state"] for check in found["checks"]}
    assert "fail" not in states.values()
    for step in (
        "start a cluster",
        "push and pull",
        "save and load",
        "stop the cluster",
        "libzmq",
        "open files",
    ):
        assert step in states
    (port,) = (check for check in found["checks"] if check["check"] == "master's port")
    assert "a master runs at" in port["found"]


@pytest.mark.parametrize("stop", [signal.SIGINT, signal.SIGTERM], ids=lambda number: number.name)
def test_a_local_cluster_can_be_stopped_while_it_starts(stop: signal.Signals) -> None:
    with running("local", "--servers", 1, "--port", 0) as local:
        # Its first child is there: it is starting, and has its signals.
        children: Callable[[], list[int]] = lambda: nodes_of(local.process.pid)  # noqa: E731 - read twice
        until(children, "a child")
        assert local.ask_to_stop(stop) == 0
        until(lambda: not children(), "the children have gone")


def test_a_local_cluster_under_supervision_goes_on_when_a_server_is_killed() -> None:
    with running("local", "--servers", 1, "--port", 0, "--supervise") as local:
        address = local.ready()
        with glintpy.Client(address, timeout_s=PATIENCE_S) as client:
            vector = client.vector(100, dtype="int64")
            vector.push(None, 1).result()
            os.kill(client.servers()[0]["pid"], signal.SIGKILL)
            vector.push(None, 1).result()
            assert set(vector.pull().result().tolist()) == {2}
        local.wait_for("server-0 has died; it is started again")
