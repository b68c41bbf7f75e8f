"""Who is dead is missed in time, however it died, and who is merely busy, or told a wrong time, is not."""

from __future__ import annotations

import itertools
import signal
import threading
import time
from pathlib import Path

import numpy as np
import pytest

import glintpy
from glintpy.nodes import start_master, start_server
from tests.cluster.drilled import DrilledNode, drilled_cluster, report
from tests.cluster.helpers import PATIENCE_S, until

KILLED_S = 0.1
SILENT_S = 5.0
HUNG_S = 10.0
"""Within which the master notices; as the machine may be busy, tests allow twice as much, and a second at least."""


def seconds_until_said(node: DrilledNode, text: str, count: int = 1) -> float:
    """Return how long it takes until a node has written a text so often."""
    begun = time.monotonic()
    until(lambda: node.said.count(text) >= count, f"{text!r} is said")
    return time.monotonic() - begun


def within(bound_s: float) -> float:
    return max(1.0, 2 * bound_s)


@pytest.mark.soak
def test_a_killed_server_is_missed_at_once(tmp_path: Path) -> None:
    with drilled_cluster(tmp_path, 1) as cluster:
        (server,) = cluster.servers
        for number in range(1, 6):
            server.signal(signal.SIGKILL)
            noticed_s = seconds_until_said(cluster.master, "is lost: its connection ended", number)
            report("a killed server is missed after", noticed_s)
            assert noticed_s < within(KILLED_S)
            server.wait_end()
            server.start()


@pytest.mark.soak
def test_a_server_that_stands_still_is_missed_and_found_again(tmp_path: Path) -> None:
    with (
        drilled_cluster(tmp_path, 1) as cluster,
        glintpy.Client(cluster.master.address, timeout_s=PATIENCE_S) as client,
    ):
        vector = client.vector(1000, dtype="int64")
        (server,) = cluster.servers
        for number in range(1, 4):
            server.signal(signal.SIGSTOP)
            push = vector.push(None, 1)
            noticed_s = seconds_until_said(cluster.master, "is lost: no heartbeat", number)
            server.signal(signal.SIGCONT)
            report("a stopped server is missed after", noticed_s)
            assert noticed_s < within(SILENT_S)
            push.result()
            client.wait_for_servers(1)
        assert vector.pull().result().tolist() == [3] * 1000


@pytest.mark.soak
def test_an_actor_that_hangs_is_told_from_one_that_is_dead(tmp_path: Path) -> None:
    with (
        drilled_cluster(tmp_path, 2) as cluster,
        glintpy.Client(cluster.master.address, timeout_s=PATIENCE_S) as client,
    ):
        vector = client.vector(1000, dtype="int64")
        vector.push(None, 1).result()
        server = cluster.servers[0]
        server.arm("actor.before_message", "hang")
        until((server.folder / "hangs").exists, "it hangs")
        noticed_s = seconds_until_said(cluster.master, "is hung: beats, but has handled nothing")
        report("an actor that hangs is noticed after", noticed_s)
        assert noticed_s < within(HUNG_S)
        assert "is lost" not in cluster.master.said
        push = vector.push(None, 1)
        # New models do without it, and whoever looks after it starts it again.
        with client.vector(10) as other:
            assert "servers=1" in repr(other)
        server.kill()
        server.start()
        push.result()
        assert vector.pull().result().tolist() == [2] * 1000


@pytest.mark.soak
def test_operations_of_ten_million_cells_bury_nobody(tmp_path: Path) -> None:
    num_cells = 10_000_000
    with (
        drilled_cluster(tmp_path, 1) as cluster,
        glintpy.Client(cluster.master.address, timeout_s=600) as client,
    ):
        before = client._state()["changes"]
        stop = threading.Event()
        errors: list[BaseException] = []
        counts = [0, 0, 0]

        def work(number: int) -> None:
            try:
                with glintpy.Client(cluster.master.address, timeout_s=600) as own:
                    model = own.vector(num_cells, dtype="int64", name="large", exist_ok=True)
                    source = np.random.default_rng(number)
                    while not stop.is_set():
                        if number == 0:
                            model.push(None, 1).result()
                        elif number == 1:
                            model.push(
                                source.permutation(num_cells), 1
                            ).result()  # every key once, in no order
                        else:
                            with own.vector(num_cells, dtype="float64", init=("normal", 0.0, 1.0)) as passing:
                                passing.pull().result()
                        counts[number] += 1
            except BaseException as error:
                errors.append(error)
                raise

        workers = [threading.Thread(target=work, args=(number,)) for number in range(3)]
        for worker in workers:
            worker.start()
        try:
            until(lambda: errors or min(counts) >= 3, "each has done its work three times", within_s=240)
        finally:
            stop.set()
            for worker in workers:
                worker.join()
        assert errors == []
        values = client.open("large").pull().result()
        assert set(np.unique(values)) == {counts[0] + counts[1]}
        assert client._state()["changes"] == before, cluster.master.said


def test_no_clock_on_the_wall_counts(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # A day forward and a day back, at each look.
    wall, jumps = time.time, itertools.cycle([86_400.0, -86_400.0, 0.0])
    monkeypatch.setattr("time.time", lambda: wall() + next(jumps))
    address = f"ipc://{tmp_path / 'master'}"
    master = start_master(address, data_dir=tmp_path / "m")
    servers = [
        start_server(
            address, address=f"ipc://{tmp_path / name}", name=name, data_dir=tmp_path / f"data-{name}"
        )
        for name in ("a", "b")
    ]
    try:
        with glintpy.Client(address, timeout_s=PATIENCE_S) as client:
            before = client._state()["changes"]
            vector = client.vector(1000, dtype="int64", name="m")
            beats = [server["last_beat_s"] for server in client.servers()]
            assert all(0 <= beat < 60 for beat in beats)
            end = time.monotonic() + 2.5  # two beats of everybody
            num_pushes = 0
            while time.monotonic() < end:
                vector.push(None, 1)
                num_pushes += 1
                assert vector.pull([0]).result()[0] == num_pushes
            vector.save(str(tmp_path / "saved"))
            assert client.load(str(tmp_path / "saved"), name="again").pull([999]).result()[0] == num_pushes
            assert client._state()["changes"] == before
            assert len(client.clients()) == 1
    finally:
        for server in servers:
            server.stop()
        master.stop()
