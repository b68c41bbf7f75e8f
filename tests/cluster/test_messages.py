"""Messages between workers in processes of their own: none is lost, repeated or mixed up, whoever is killed."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest

import glintpy
from glintpy.nodes import start_master
from glintpy.testing.proxy import Proxy
from tests.cluster.drilled import DrilledCluster
from tests.cluster.helpers import PATIENCE_S, line_of, program, until
from tests.cluster.working import Waiting, told, until_waiting

MANY = 150

ECHO = """\
import sys
import glintpy

with glintpy.Client(sys.argv[1], timeout_s=60) as client:
    with client.join("job", rank=1) as group:
        print(group.member, flush=True)
        while True:
            received = group.receive()
            group.send(received.body, received.rank, head=received.head)
"""


@pytest.fixture
def master_address() -> Iterator[str]:
    """A master in this process, which knows nothing of other tests."""
    master = start_master("tcp://127.0.0.1:0")
    yield master.address
    master.stop()


def test_a_receiver_that_is_killed_in_mid_message_loses_what_waits_and_its_heir_begins_anew(
    master_address: str, tmp_path: Path
) -> None:
    with glintpy.Client(master_address, timeout_s=PATIENCE_S) as client:
        group = client.join("job", rank=0)
        with program(tmp_path / "victim.py", ECHO, master_address) as victim:
            assert int(line_of(victim)) == 2
            assert group.send("a", 1).result() == {1: 2}
            assert group.receive().text == "a"
            victim.send_signal(signal.SIGSTOP)
            for _ in range(5):
                assert group.send("lost", 1).result() == {1: 2}
            victim.send_signal(signal.SIGKILL)
            until(lambda: set(told(client)) == {0}, "it is missed")
        with pytest.raises(glintpy.WorkersMissing):
            group.send("nobody", 1).result()
        with pytest.raises(TimeoutError):
            group.receive(timeout_s=0.1)
        assert group.has_gone(2)
        with program(tmp_path / "heir.py", ECHO, master_address) as heir:
            assert int(line_of(heir)) == 3
            assert group.send("b", 1).result() == {1: 3}
            assert group.receive().text == "b"


def test_connections_that_are_reset_neither_lose_nor_repeat_a_message(master_address: str) -> None:
    with (
        Proxy(master_address) as proxy,
        glintpy.Client(proxy.address, timeout_s=PATIENCE_S) as one,
        glintpy.Client(proxy.address, timeout_s=PATIENCE_S) as two,
    ):
        sender, receiver = one.join("job"), two.join("job")
        had: list[int] = []
        for turn in range(3):
            futures = [sender.send(str(100 * turn + number), 1) for number in range(100)]
            had += [int(receiver.receive().text) for _ in range(30)]
            proxy.reset_all()
            had += [int(receiver.receive().text) for _ in range(70)]
            assert glintpy.gather(*futures).result() == [{1: 2}] * 100
        assert had == list(range(300))


def test_a_master_that_is_killed_in_mid_message_neither_loses_nor_repeats_one(tmp_path: Path) -> None:
    cluster = DrilledCluster(tmp_path, 0)
    try:
        cluster.start()
        address = cluster.master.address
        with (
            glintpy.Client(address, timeout_s=PATIENCE_S) as one,
            glintpy.Client(address, timeout_s=PATIENCE_S) as two,
        ):
            sender, receiver = one.join("job", 2), two.join("job", 2)
            futures = [sender.send(str(number), 1) for number in range(50)]
            had = [int(receiver.receive().text) for _ in range(10)]
            cluster.master.kill()
            futures += [sender.send(str(number), 1) for number in range(50, 60)]
            cluster.master.start()
            had += [int(receiver.receive().text) for _ in range(50)]
            assert had == list(range(60))
            assert glintpy.gather(*futures).result() == [{1: 2}] * 60
            # And with everybody waiting.
            waiting = Waiting(lambda: had.append(int(receiver.receive().text)))
            until_waiting(one, {1: "a message"})
            cluster.master.kill()
            cluster.master.start()
            sender.send("60", 1).result()
            assert waiting.end() is None
            assert had == list(range(61))
    finally:
        cluster.close()


@pytest.mark.soak
@pytest.mark.parametrize("place", ["master.before_commit", "master.after_commit"])
def test_a_message_is_given_once_though_the_master_dies_of_it(tmp_path: Path, place: str) -> None:
    cluster = DrilledCluster(tmp_path, 0)
    try:
        cluster.start()
        address = cluster.master.address
        with (
            glintpy.Client(address, timeout_s=PATIENCE_S) as one,
            glintpy.Client(address, timeout_s=PATIENCE_S) as two,
        ):
            sender, receiver = one.join("job", 2), two.join("job", 2)
            cluster.master.arm(place, "die")
            sending = Waiting(lambda: sender.send("a").result())
            cluster.master.wait_end()
            cluster.master.disarm()
            cluster.master.start()
            assert sending.end() is None
            sender.send("b").result()
            assert [receiver.receive().text for _ in range(2)] == ["a", "b"]
            with pytest.raises(TimeoutError):
                receiver.receive(timeout_s=0.1)
    finally:
        cluster.close()


@pytest.mark.soak
def test_everybody_tells_everybody_once_and_in_order_through_resets_and_kills_of_the_master(
    tmp_path: Path,
) -> None:
    cluster = DrilledCluster(tmp_path, 0)
    with ExitStack() as stack:
        stack.callback(cluster.close)
        cluster.start()
        proxies = [stack.enter_context(Proxy(cluster.master.address)) for _ in range(4)]
        clients = [
            stack.enter_context(glintpy.Client(proxy.address, timeout_s=2 * PATIENCE_S)) for proxy in proxies
        ]
        groups = [client.join("job", 4) for client in clients]
        had: list[list[tuple[int, int]]] = [[] for _ in groups]

        def tell(group: glintpy.Group) -> None:
            for number in range(MANY):
                group.send(str(number), head=number).result()

        def hear(group: glintpy.Group) -> None:
            for _ in range(3 * MANY):
                received = group.receive()
                assert received.text == str(received.head)
                had[group.rank].append((received.rank, received.head))

        calls = [Waiting(partial(call, group)) for group in groups for call in (tell, hear)]
        for turn in range(6):
            seen = [len(found) for found in had]
            until(
                lambda seen=seen: (
                    all(len(found) > before for found, before in zip(had, seen, strict=True))  # type: ignore[misc]  # - the default binds it
                    or all(call.is_over for call in calls)
                ),
                "all have heard something",
            )
            if turn % 2:
                cluster.master.kill()
                cluster.master.start()
            else:
                for proxy in proxies:
                    proxy.reset_all()
        assert [call.end() for call in calls] == [None] * 8
        for rank, found in enumerate(had):
            for other in set(range(4)) - {rank}:
                assert [head for sender, head in found if sender == other] == list(range(MANY))


def test_a_listener_goes_on_when_the_master_is_back(tmp_path: Path) -> None:
    cluster = DrilledCluster(tmp_path, 0)
    try:
        cluster.start()
        address = cluster.master.address
        with (
            glintpy.Client(address, timeout_s=PATIENCE_S) as one,
            glintpy.Client(address, timeout_s=PATIENCE_S) as two,
        ):
            sender, receiver = one.join("job", 2), two.join("job", 2)
            heard: list[str] = []
            receiver.listen(lambda received: heard.append(received.text))
            sender.send("a").result()
            cluster.master.kill()
            cluster.master.start()
            sender.send("b").result()
            until(partial(_has, heard, 2), "both are heard")
            assert heard == ["a", "b"]
    finally:
        cluster.close()


def _has(heard: list[str], number: int) -> bool:
    return len(heard) == number
