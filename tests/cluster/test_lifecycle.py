"""A cluster starts, stops, crashes and is interrupted, and nothing of it stays: no process, file or port."""

from __future__ import annotations

import os
import signal
import socket
import time
from pathlib import Path
from typing import Literal

import numpy as np
import pytest

import glintpy
from glintpy.cluster import ServerOptions
from glintpy.config import MIB, ServerSettings
from tests.cluster.drilled import DrilledNode, drilled_cluster
from tests.cluster.helpers import PATIENCE_S, holdings, line_of, nodes_of, num_descriptors, program, until
from tests.leftovers import Leftovers

EIGHT_LINES = """\
import glintpy

with glintpy.local(servers=2) as client:
    m = client.matrix(10_000, 100, dtype="float32")
    m.push([3, 9, 3], 0.05).result()
    print(m.pull([3, 9]).result()[:, 0])
    print(m[3, :4])
"""

OWNER = """\
import os, sys
import glintpy

client = glintpy.local(servers=2)
vector = client.vector(1000, dtype="int64")
vector.push([1, 999], 1).result()
cluster = client._at_close[0].__self__
print(cluster._private, flush=True)
if sys.argv[1] == "exit":
    os._exit(3)
try:
    sys.stdin.read()
finally:
    if sys.argv[1] == "close":
        client.close()
"""

STARTS_ONE = """\
import os, sys, time
from glintpy.cluster import ServerOptions
from glintpy.cluster.members import ProcessMember
from glintpy.config import MembershipSettings
from glintpy.process.orders import ServerOrder

server = ProcessMember(
    ServerOrder(
        address="ipc://" + sys.argv[1] + "/server",
        master="ipc://" + sys.argv[1] + "/nobody",
        parent=os.getpid(),
        log_level="debug",
        options=ServerOptions(membership=MembershipSettings(join_timeout_s=3600.0)),
    )
)
while not any("joining" in line for line in server._errors):
    time.sleep(0.01)
print("joining", flush=True)
sys.stdin.read()
"""


def use_once(cluster: glintpy.LocalCluster) -> None:
    with cluster.client() as client:
        vector = client.vector(1000, dtype="int64")
        vector.push([1, 999, 1], 1).result()
        assert vector.pull([0, 1, 999]).result().tolist() == [0, 2, 1]


def start_use_and_stop(scheme: str) -> None:
    cluster = glintpy.LocalCluster(2, scheme=scheme)  # type: ignore[arg-type]
    with cluster:
        folder = cluster._private
        addresses = [cluster.address, *(server.address for server in cluster.servers)]
        assert folder.is_dir()
        assert len(nodes_of(os.getpid())) == 3
        use_once(cluster)
    assert nodes_of(os.getpid()) == []
    assert not folder.exists()
    assert not [address for address in addresses if listens(address)]


def listens(address: str) -> bool:
    if address.startswith("ipc://"):
        return Path(address.removeprefix("ipc://")).exists()
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    with socket.socket() as probe:
        return probe.connect_ex((host, int(port))) == 0


def start_and_stop_often(num_times: int) -> None:
    start_use_and_stop("ipc")
    before, descriptors = Leftovers.now(), num_descriptors()
    for number in range(num_times):
        start_use_and_stop("ipc" if number % 5 == 0 else "tcp")
    before.check(f"{num_times} clusters")
    assert num_descriptors() <= descriptors


def test_clusters_start_and_stop_again_and_again() -> None:
    start_and_stop_often(4)


@pytest.mark.soak
@pytest.mark.parametrize("batch", range(8))
def test_two_hundred_clusters_start_and_stop(batch: int) -> None:
    # In batches, because each test must keep within the time after which it counts as hanging.
    assert batch in range(8)
    start_and_stop_often(25)


def test_stopping_again_does_nothing_and_names_stay_readable() -> None:
    cluster = glintpy.LocalCluster(1, scheme="ipc")
    cluster.stop()
    cluster.stop()
    assert "stopped" in repr(cluster)
    assert [server.is_alive for server in cluster.servers] == [False]


def test_a_server_that_is_added_is_used_by_new_models() -> None:
    with glintpy.LocalCluster(1, scheme="ipc") as cluster, cluster.client() as client:
        cluster.add_server()
        client.wait_for_servers(2, timeout_s=PATIENCE_S)
        with client.vector(10, dtype="int64") as vector:
            assert "servers=2" in repr(vector)
            assert vector.push_pull(None, range(10)).result().tolist() == list(range(10))


@pytest.mark.parametrize("scheme", ["ipc", "local"])
def test_servers_are_as_their_options_say(scheme: Literal["ipc", "local"]) -> None:
    def options(index: int) -> ServerOptions:
        return ServerOptions(settings=ServerSettings(window_bytes_max=(1 + index) * MIB))

    with (
        glintpy.LocalCluster(2, scheme=scheme, server_options=options) as cluster,
        cluster.client() as client,
    ):
        use_once(cluster)
        held = holdings(client)
        assert [held[name]["window_bytes"] for name in ("server-0", "server-1")] == [MIB, 2 * MIB]


@pytest.mark.parametrize("durable", [False, True])
def test_a_child_that_cannot_start_is_named_with_its_reason(tmp_path: Path, *, durable: bool) -> None:
    (tmp_path / "master").write_text("not a folder")
    if durable:
        with pytest.raises(glintpy.ClusterError, match=r"before it was ready: .*master"):
            glintpy.LocalCluster(1, data_dir=tmp_path)
        assert nodes_of(os.getpid()) == []
    else:
        with pytest.raises(glintpy.ConfigError, match="servers is at least 1, not 0"):
            glintpy.LocalCluster(0)


# --- as programs ------------------------------------------------------------------------------------------


def test_eight_lines_at_the_top_of_a_script_work(tmp_path: Path) -> None:
    with program(tmp_path / "eight.py", EIGHT_LINES) as process:
        output, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
        assert output.splitlines() == ["[0.1  0.05]", "[0.1 0.1 0.1 0.1]"]
        assert nodes_of(process.pid) == []


@pytest.mark.parametrize("ending", ["close", "forget"])
def test_a_script_that_ends_leaves_nothing(tmp_path: Path, ending: str) -> None:
    with program(tmp_path / "owner.py", OWNER, ending) as process:
        folder = Path(line_of(process))
        assert folder.is_dir()
        assert len(nodes_of(process.pid)) == 3
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == 0, errors
        assert nodes_of(process.pid) == []
        assert not folder.exists()


@pytest.mark.parametrize("ending", ["exit", "kill"])
def test_a_script_that_crashes_leaves_nothing(tmp_path: Path, ending: str) -> None:
    with program(tmp_path / "owner.py", OWNER, ending) as process:
        folder = Path(line_of(process))
        if ending == "kill":
            assert len(nodes_of(process.pid)) == 3
            process.kill()
        process.wait(PATIENCE_S)
        until(lambda: not nodes_of(process.pid), "the orphans have gone")
        assert not folder.exists()


def test_a_script_that_crashes_after_a_server_did_leaves_nothing(tmp_path: Path) -> None:
    with program(tmp_path / "owner.py", OWNER, "kill") as process:
        folder = Path(line_of(process))
        os.kill(nodes_of(process.pid)[-1], signal.SIGKILL)
        process.kill()
        process.wait(PATIENCE_S)
        until(lambda: not nodes_of(process.pid), "the orphans have gone")
        assert not folder.exists()


def test_a_server_that_still_joins_goes_with_its_script(tmp_path: Path) -> None:
    """It would look for its master for an hour."""
    with program(tmp_path / "starts.py", STARTS_ONE, str(tmp_path)) as process:
        assert line_of(process) == "joining"
        (server,) = nodes_of(process.pid)
        process.kill()
        process.wait(PATIENCE_S)
        until(lambda: server not in nodes_of(process.pid), "the orphan has gone")


@pytest.mark.parametrize("ending", ["close", "forget"])
def test_a_script_that_is_interrupted_leaves_nothing(tmp_path: Path, ending: str) -> None:
    with program(tmp_path / "owner.py", OWNER, ending) as process:
        folder = Path(line_of(process))
        os.killpg(process.pid, signal.SIGINT)  # as a terminal does on Ctrl-C
        _, errors = process.communicate(timeout=PATIENCE_S)
        assert process.returncode == -signal.SIGINT
        assert "KeyboardInterrupt" in errors
        until(lambda: not nodes_of(process.pid), "the nodes have gone")
        assert not folder.exists()


# --- coming back ------------------------------------------------------------------------------------------


def test_models_are_back_when_a_whole_cluster_starts_again_on_its_data(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    values = rng.normal(size=(1000, 7))
    with glintpy.LocalCluster(2, data_dir=tmp_path) as cluster, cluster.client() as client:
        matrix = client.matrix(1000, 7, name="kept", partitioner="cyclic", partitions_per_server=3)
        matrix.push(None, values).result()
        client.vector(10, name="gone").destroy()
    with glintpy.LocalCluster(2, data_dir=tmp_path) as cluster, cluster.client() as client:
        assert client.models() == ["kept"]
        matrix = client.open("kept")  # type: ignore[assignment]
        assert np.array_equal(np.asarray(matrix), values)
        matrix.push([0], 1.0).result()
        assert np.array_equal(matrix[0], values[0] + 1.0)
        assert client.vector(10, name="gone").pull().result().tolist() == [0] * 10


# --- the ends of programs -----------------------------------------------------------------------------------

ENDING = """\
import os, signal, sys, threading
import glintpy

address, ending = sys.argv[1:]
client = glintpy.Client(address, timeout_s=20)
vector = client.open("counts")
pushes = [vector.push(None, 1) for _ in range(50)]
print("pushed", flush=True)

if ending == "close twice":
    client.close()
    client.close()
elif ending == "close in threads":
    threads = [threading.Thread(target=client.close) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
elif ending == "use after close":
    client.close()
    try:
        vector.push(None, 1).result()
    except glintpy.GlintError:
        sys.exit(5)
elif ending == "close in a callback":
    closed = threading.Event()
    def close(_):
        client.close()
        closed.set()
    pushes[-1].add_done_callback(close)
    closed.wait()
elif ending == "sys.exit in a callback":
    left = threading.Event()
    def leave(_):
        left.set()
        sys.exit(3)
    pushes[-1].add_done_callback(leave)
    left.wait()
elif ending == "os._exit in a callback":
    pushes[-1].add_done_callback(lambda _: os._exit(3))
    threading.Event().wait()
elif ending == "a daemon pushes on":
    def push_on():
        while True:
            vector.push(None, 0)
    threading.Thread(target=push_on, daemon=True).start()
elif ending == "fork":
    child = os.fork()
    more = [vector.push(None, 1) for _ in range(25)]
    if child:
        assert os.waitpid(child, 0)[1] == 0
elif ending == "fork and os._exit":
    child = os.fork()
    if not child:
        os._exit(0)
    assert os.waitpid(child, 0)[1] == 0
elif ending in {"SIGTERM", "SIGINT"}:
    os.kill(os.getpid(), getattr(signal, ending))
    threading.Event().wait()
elif ending == "sys.exit on SIGTERM":
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(6))
    os.kill(os.getpid(), signal.SIGTERM)
    threading.Event().wait()
elif ending == "raise":
    raise ZeroDivisionError
"""

ENDINGS: dict[str, tuple[int, int | None]] = {
    "end": (0, 50),
    "close twice": (0, 50),
    "close in threads": (0, 50),
    "use after close": (5, 50),
    "close in a callback": (0, 50),
    "sys.exit in a callback": (0, 50),
    "os._exit in a callback": (3, 50),
    "a daemon pushes on": (0, 50),
    "fork": (0, 100),
    "fork and os._exit": (0, 50),
    "SIGTERM": (-signal.SIGTERM, None),
    "SIGINT": (-signal.SIGINT, 50),
    "sys.exit on SIGTERM": (6, 50),
    "raise": (1, 50),
}
"""By ending, the exit code and how many pushes are in; None: any number."""

END_S = 15.0
"""Within which a program that ends has ended; as the machine may be busy, tests allow twice as much."""


def end_programs(tmp_path: Path, endings: list[str]) -> None:
    with glintpy.LocalCluster(2) as cluster, cluster.client() as client:
        vector = client.vector(10_000, dtype="int64", name="counts")
        expected = 0
        for ending in endings:
            code, num_pushes = ENDINGS[ending]
            with program(tmp_path / "ending.py", ENDING, cluster.address, ending) as process:
                assert line_of(process) == "pushed"
                begun = time.monotonic()
                _, errors = process.communicate(timeout=PATIENCE_S)
                assert time.monotonic() - begun < 2 * END_S, ending
                assert process.returncode == code, f"{ending}: {errors}"
            values = vector.pull().result()
            if num_pushes is None:
                halves = [set(half.tolist()) for half in np.split(values, 2)]
                assert all(len(half) == 1 for half in halves), ending
                assert all(0 <= half.pop() - expected <= 50 for half in halves), ending
                vector.push(None, expected - values).result()
            else:
                expected += num_pushes
                assert set(values.tolist()) == {expected}, ending
        until(lambda: len(client.clients()) == 1, "the others are gone")


@pytest.mark.soak
def test_a_program_may_end_in_any_way(tmp_path: Path) -> None:
    end_programs(tmp_path, list(ENDINGS))


@pytest.mark.soak
def test_a_program_whose_server_is_gone_ends_when_its_pushes_are_past_their_time(tmp_path: Path) -> None:
    text = ENDING.replace("timeout_s=20", "timeout_s=3")
    with glintpy.LocalCluster(2) as cluster:
        with cluster.client() as client:
            client.vector(10_000, dtype="int64", name="counts")
        cluster.kill_server(1)
        for ending, code in (("end", 0), ("raise", 1), ("sys.exit on SIGTERM", 6)):
            with program(tmp_path / "ending.py", text, cluster.address, ending) as process:
                assert line_of(process) == "pushed"
                begun = time.monotonic()
                _, errors = process.communicate(timeout=PATIENCE_S)
                assert time.monotonic() - begun < 2 * END_S
                assert process.returncode == code, errors
                # What became of them is said, though nobody set up logging.
                assert "glintpy: at the end of the process" in errors
                assert "pushes have no outcome" in errors or "push to 'counts'" in errors


STOP_S = 10.0
"""Within which a node that is asked to stop has stopped."""


@pytest.mark.soak
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_nodes_stop_in_good_order_under_traffic_and_without_a_master(
    tmp_path: Path, number: signal.Signals
) -> None:
    with (
        drilled_cluster(tmp_path) as cluster,
        glintpy.Client(cluster.master.address, timeout_s=PATIENCE_S) as client,
    ):
        vector = client.vector(1_000_000, dtype="int64", name="counts")
        pushes: list[glintpy.Future[None]] = []

        def stop_and_start(node: DrilledNode) -> None:
            pushes.extend(vector.push(None, 1) for _ in range(20))
            begun = time.monotonic()
            node.signal(number)
            assert node.wait_end() == 0
            assert time.monotonic() - begun < 2 * STOP_S
            node.start()

        for node in (*cluster.servers, cluster.master):
            stop_and_start(node)
        client.flush()
        client.wait_for_servers(2)
        cluster.master.kill()
        for server in cluster.servers:
            begun = time.monotonic()
            server.signal(number)
            assert server.wait_end() == 0
            assert time.monotonic() - begun < 2 * STOP_S
        cluster.master.start()
        for server in cluster.servers:
            server.start()
        assert set(vector.pull().result().tolist()) == {len(pushes)}
        assert [push.exception() for push in pushes] == [None] * len(pushes)
        for node in (*cluster.servers, cluster.master):
            assert "Traceback" not in node.said
            assert "ResourceWarning" not in node.said


@pytest.mark.soak
def test_a_node_that_hangs_ends_all_the_same_and_at_once_when_asked_twice(tmp_path: Path) -> None:
    with drilled_cluster(tmp_path, 1) as cluster:
        (server,) = cluster.servers
        for num_signals, within_s in ((1, 2 * END_S), (2, STOP_S)):
            server.arm("actor.before_message", "hang")
            until((server.folder / "hangs").exists, "it hangs")
            heard = server.said.count("stops: SIGTERM")  # by those before it
            begun = time.monotonic()
            server.signal(signal.SIGTERM)
            if num_signals == 2:
                until(lambda: server.said.count("stops: SIGTERM") > heard, "the first one is heard")  # noqa: B023 - at once
                server.signal(signal.SIGTERM)
            code = server.wait_end()
            assert time.monotonic() - begun < within_s
            assert code == (128 + signal.SIGTERM if num_signals == 2 else 0)
            (server.folder / "hangs").unlink()
            server.start()


@pytest.mark.soak
def test_a_stop_in_good_order_is_never_taken_for_a_loss(tmp_path: Path) -> None:
    # A beat that is sent behind the word of leaving comes about once in some hundred stops: here each server beats
    # every few milliseconds.
    with drilled_cluster(tmp_path, 4, server_arguments=["--beat", "0.005"]) as cluster:
        for _ in range(8):
            for server in cluster.servers:
                server.signal(signal.SIGTERM)
            for server in cluster.servers:
                assert server.wait_end() == 0
                server.start()
        assert "is stopped: stopped" in cluster.master.said
        assert "is lost" not in cluster.master.said
