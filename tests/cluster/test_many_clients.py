"""Thousands of clients: all are served alike, none leaves anything behind, and one that was only away goes on."""

from __future__ import annotations

import selectors
import signal
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import numpy as np
import pytest

import glintpy
from glintpy import config
from glintpy.errors import Expelled, PushOutcomeUnknown
from glintpy.protocol.failures import code_of
from glintpy.protocol.messages import Applied, Failure, Report, Values, Welcome
from tests.cluster.helpers import (
    PATIENCE_S,
    holdings,
    line_of,
    num_descriptors,
    paused,
    program,
    resident_bytes,
    until,
)
from tests.cluster.own_nodes import OwnNode, own_cluster
from tests.cluster.raw_clients import RawClient

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")

MIB = config.MIB


@contextmanager
def raw_clients(address: str, number: int) -> Iterator[list[RawClient]]:
    """Open so many sessions."""
    with ExitStack() as stack:
        clients = []
        for _ in range(number):
            clients.append(RawClient(address))
            stack.callback(clients[-1].close)
            assert isinstance(clients[-1].hello(), Welcome)
        yield clients


@pytest.fixture(scope="module")
def forgetful() -> Iterator[tuple[OwnNode, OwnNode]]:
    """A master and a server that soon forget a client that is silent."""
    with own_cluster("--session-expiry", "2s", "--session-idle", "200ms") as (master, [server]):
        yield master, server


def held(client: glintpy.Client) -> dict[str, int]:
    """Return what the only server says of itself."""
    [found] = holdings(client).values()
    return found


@pytest.mark.soak
@pytest.mark.parametrize("number", [100, 1000])
def test_each_of_many_sessions_may_use_its_window_and_all_are_served_alike(number: int) -> None:
    settings = config.ServerSettings()
    with own_cluster() as (master, [server]), glintpy.Client(master.address) as client:
        model = client.vector(settings.budget_bytes // 8 // 64, name="wanted")  # 4 MiB
        model.push(None, 7.0).result()
        model_id = model._info.model_id
        with raw_clients(server.address, number) as clients:
            before = resident_bytes(server.pid)
            window = held(client)["window_bytes"]
            assert window == settings.budget_bytes // (number + 1)
            num_rows = min(len(model), window // 8)
            for one in clients:  # each asks for as much as it may, and reads nothing
                one.send(one.pull(model_id, num_rows))
            until(lambda: held(client)["pulls"] >= number, "all are answered")
            grown = resident_bytes(server.pid) - before
            assert grown < settings.budget_bytes + config.KEPT_FREE_BYTES, grown // MIB
            for one in clients:
                answer = one.receive()
                assert isinstance(answer, Values)
                assert answer.values.size == num_rows
                assert (answer.values == 7).all()
            counts = answered_in_turns(clients, model_id, 10 * number)
            assert min(counts) * 2 >= max(counts), (min(counts), max(counts))


def answered_in_turns(clients: list[RawClient], model_id: int, num_answers: int) -> list[int]:
    """Have each ask again as soon as it is answered, until there were so many answers; how many each had."""
    counts = dict.fromkeys(range(len(clients)), 0)
    with selectors.DefaultSelector() as selector:
        for number, one in enumerate(clients):
            selector.register(one.connection, selectors.EVENT_READ, number)
            one.send(one.pull(model_id, 100))
        while sum(counts.values()) < num_answers:
            for key, _ in selector.select(PATIENCE_S):
                one = clients[key.data]
                assert isinstance(one.receive(), Values)
                counts[key.data] += 1
                one.send(one.pull(model_id, 100))
        for one in clients:
            assert isinstance(one.receive(), Values)
    return list(counts.values())


@pytest.mark.soak
def test_beyond_the_most_sessions_the_longest_silent_is_expelled_and_told_so() -> None:
    with own_cluster("--sessions-max", 8) as (_, [server]), raw_clients(server.address, 8) as clients:
        for one in [*clients[1:], clients[0]]:  # the second is the longest silent then
            assert isinstance(one.ask(one.probe()), Report)
        with raw_clients(server.address, 1) as [late]:
            assert isinstance(late.ask(late.probe()), Report)
            expelled = clients.pop(1)
            for answer in (expelled.ask(expelled.probe()), expelled.hello(expelled.session)):
                assert isinstance(answer, Failure)
                assert answer.code == code_of(Expelled())
            for one in clients:
                assert isinstance(one.ask(one.probe()), Report)


# --- born and killed -----------------------------------------------------------------------------------------

PUSHES_AND_DIES = """\
import os, signal, sys
import glintpy

client = glintpy.Client(sys.argv[1])
client.open("counted").push([0], 1).result()
print("pushed", flush=True)
os.kill(os.getpid(), signal.SIGKILL)
"""


@pytest.mark.parametrize(("number", "num_real"), [(300, 1), pytest.param(5000, 20, marks=pytest.mark.soak)])
def test_clients_that_are_born_and_killed_leave_nothing_but_what_they_pushed(
    forgetful: tuple[OwnNode, OwnNode], tmp_path: Path, number: int, num_real: int
) -> None:
    master, server = forgetful
    with glintpy.Client(master.address) as client:
        model = client.vector(1000, name="counted", dtype="int64")
        model.push([0], 0).result()
        model_id = model._info.model_id
        born_and_killed(server, model_id, 50)  # what a process takes once and keeps
        until(lambda: held(client)["sessions"] <= 1, "the first are forgotten")
        files, before = num_descriptors(server.pid), resident_bytes(server.pid)
        born_and_killed(server, model_id, number)
        for _ in range(num_real):
            with program(tmp_path / "dies.py", PUSHES_AND_DIES, master.address) as process:
                assert line_of(process) == "pushed"
                assert process.wait(PATIENCE_S) == -signal.SIGKILL
        until(lambda: held(client)["sessions"] <= 1, "their sessions are forgotten")
        until(lambda: num_descriptors(server.pid) <= files, "their connections are closed")
        if num_real > 1:  # it takes its time
            until(lambda: len(client.clients()) == 1, "the master has forgotten them")
        assert resident_bytes(server.pid) < before + 16 * MIB
        assert held(client)["backlog_bytes"] == 0
        assert model.pull([0]).result()[0] == 50 + number + num_real
        model.destroy()


def born_and_killed(server: OwnNode, model_id: int, number: int) -> None:
    # Few at once: on a busy machine they might be forgotten before they push.
    for first in range(0, number, 10):
        with raw_clients(server.address, min(10, number - first)) as clients:
            for one in clients:
                one.send(one.push(model_id, np.array([0]), np.array([1])))
            for one in clients:
                assert isinstance(one.receive(), Applied)


# --- away for a while ---------------------------------------------------------------------------------------

PUSHES_ON = """\
import sys
import glintpy

with glintpy.Client(sys.argv[1], timeout_s=None) as client:
    model = client.open("counted")
    futures = [model.push([0], 1) for _ in range(500)]
    futures[0].result()
    print("pushing", flush=True)
    for line in sys.stdin:
        if not line.strip():
            break
    futures += [model.push([0], 1) for _ in range(500)]
    failed = sum(future.exception() is not None for future in futures)
    print(failed, flush=True)
"""


@pytest.mark.soak
def test_a_client_that_stood_still_longer_than_anybody_waits_for_it_goes_on_exactly(tmp_path: Path) -> None:
    with (
        own_cluster("--session-idle", "200ms") as (master, [_]),
        glintpy.Client(master.address) as client,
    ):
        model = client.vector(1000, name="counted", dtype="int64")
        with program(tmp_path / "goes_on.py", PUSHES_ON, master.address) as process:
            assert line_of(process) == "pushing"
            with paused(process.pid):
                until(lambda: len(client.clients()) == 1, "the master has forgotten it")
                assert held(client)["sessions"] == 2
            output, errors = process.communicate("\n", timeout=PATIENCE_S)
            assert process.returncode == 0, errors
            assert output.split() == ["0"]
        assert model.pull([0]).result()[0] == 1000


def test_a_client_whose_session_was_forgotten_is_told_and_never_pushes_on_in_silence(
    forgetful: tuple[OwnNode, OwnNode],
) -> None:
    master, _ = forgetful
    with (
        glintpy.Client(master.address) as client,
        glintpy.Client(master.address, timeout_s=PATIENCE_S) as watcher,
        client.vector(10, dtype="int64") as model,
    ):
        model.push([0], 1).result()
        until(lambda: held(watcher)["sessions"] == 0, "its session is forgotten")
        with pytest.raises(PushOutcomeUnknown, match="no longer knows"):
            model.push([0], 1).result()
        # Once more where it was not heard for a moment: what is asked by then is asked of a session that is known.
        assert model.pull([0]).result()[0] == 1
