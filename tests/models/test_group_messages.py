"""Messages between workers of a group: what is sent, received and listened to; one process, several clients."""

from __future__ import annotations

import logging
import queue
import sys
import threading
from collections.abc import Iterator
from typing import Any

import pytest

import glintpy
from glintpy.config import MESSAGE_BYTES_MAX
from tests.cluster.helpers import PATIENCE_S, until
from tests.cluster.working import Waiting, until_waiting
from tests.models.raw_peer import Served, a_cluster


@pytest.fixture(scope="module")
def served() -> Iterator[Served]:
    with a_cluster("tcp") as cluster:
        yield cluster


@pytest.fixture
def clients(served: Served) -> Iterator[list[glintpy.Client]]:
    """Three clients, and no group left of the test before."""
    made = [
        glintpy.Client(served.master.address, timeout_s=PATIENCE_S, name=f"w{index}") for index in range(3)
    ]
    yield made
    for client in made:
        client.close()
    until(lambda: not served.client.status()["groups"], "the groups are gone with their clients")


@pytest.fixture
def groups(clients: list[glintpy.Client]) -> list[glintpy.Group]:
    return [client.join("job", 3) for client in clients]


def test_a_message_is_received_by_whom_it_was_sent_to(groups: list[glintpy.Group]) -> None:
    one, two, three = groups
    assert [group.member for group in groups] == [1, 2, 3]
    assert one.send("to two", 1, head=7).result() == {1: 2}
    assert one.send(b"\x00\xff").result() == {1: 2, 2: 3}
    assert one.send("both", [2, 1]).result() == {1: 2, 2: 3}
    assert two.receive() == glintpy.Received(7, b"to two", 0, 1)
    assert [two.receive().body for _ in range(2)] == [b"\x00\xff", b"both"]
    assert [three.receive().body for _ in range(2)] == [b"\x00\xff", b"both"]
    two.send("äöü", 0)
    received = one.receive()
    assert (received.text, received.rank) == ("äöü", 1)
    with pytest.raises(TimeoutError, match=r"worker 0 of group 'job' received no message within 0\.05 s"):
        one.receive(timeout_s=0.05)


def test_many_messages_that_nobody_waits_for_keep_their_order(groups: list[glintpy.Group]) -> None:
    futures = [groups[0].send(str(number), 1) for number in range(200)]
    assert [groups[1].receive().text for _ in range(200)] == [str(number) for number in range(200)]
    assert glintpy.gather(*futures).result() == [{1: 2}] * 200


def test_who_waits_is_woken(groups: list[glintpy.Group], clients: list[glintpy.Client]) -> None:
    found: list[glintpy.Received] = []
    waiting = Waiting(lambda: found.append(groups[1].receive()))
    until_waiting(clients[0], {1: "a message"})
    groups[0].send("a")
    assert waiting.end() is None
    assert [received.text for received in found] == ["a"]


def test_several_threads_share_what_comes(groups: list[glintpy.Group]) -> None:
    found: queue.SimpleQueue[str] = queue.SimpleQueue()
    threads = [threading.Thread(target=lambda: found.put(groups[1].receive().text)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for number in range(4):
        groups[0].send(str(number), 1)
    for thread in threads:
        thread.join(PATIENCE_S)
    assert sorted(found.get() for _ in range(4)) == ["0", "1", "2", "3"]


@pytest.mark.parametrize(
    ("body", "options", "match"),
    [
        (3, {}, "is bytes or text, not int"),
        ("a", {"to": -1}, "integers of at least 0, not -1"),
        ("a", {"to": 1.5}, "integers of at least 0, not 1.5"),
        ("a", {"to": [0, True]}, "integers of at least 0, not True"),
        ("a", {"head": True}, "head is an integer of at least 0, not True"),
        ("\ud800", {}, r"travels as UTF-8, which has no '\\ud800'"),
        ("a", {"head": -2}, "head is an integer of at least 0, not -2"),
        (
            b"a" * (MESSAGE_BYTES_MAX + 1),
            {},
            f"at most {MESSAGE_BYTES_MAX} bytes, not {MESSAGE_BYTES_MAX + 1}",
        ),
    ],
    ids=["body", "to", "float", "bool", "head as bool", "surrogate", "head", "long"],
)
def test_what_can_t_be_a_message_is_refused_before_it_is_sent(
    groups: list[glintpy.Group], body: Any, options: dict[str, Any], match: str
) -> None:
    with pytest.raises(glintpy.ConfigError, match=match):
        groups[0].send(body, **options)


def test_a_rank_that_nobody_has_is_named(groups: list[glintpy.Group]) -> None:
    with pytest.raises(
        glintpy.WorkersMissing, match="to ranks that nobody has: 5, 8; it was sent to nobody"
    ) as raised:
        groups[0].send("a", [1, 5, 8]).result()
    assert raised.value.ranks == (5, 8)
    groups[2].leave()
    with pytest.raises(glintpy.WorkersMissing):
        groups[0].send("a", 2).result()


def test_a_worker_that_receives_nothing_holds_its_senders_up_and_they_are_told(
    groups: list[glintpy.Group],
) -> None:
    for _ in range(16):
        groups[0].send(b"a" * MESSAGE_BYTES_MAX, 1).result()
    with pytest.raises(
        glintpy.Overloaded, match=r"wait for worker 1 of group 'job' \(w1\), which has not received"
    ):
        groups[0].send("b").result()
    assert [len(groups[1].receive().body) for _ in range(16)] == [MESSAGE_BYTES_MAX] * 16
    assert groups[0].send("c", 1).result() == {1: 2}
    assert groups[1].receive().text == "c"


def test_a_listener_hears_messages_departures_and_the_end(
    groups: list[glintpy.Group],
    clients: list[glintpy.Client],
    served: Served,
    caplog: pytest.LogCaptureFixture,
) -> None:
    heard: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def hear(received: glintpy.Received) -> None:
        heard.put(received.text)
        if received.text == "bad":
            raise ValueError("what the handler raises")
        if received.text == "ask":
            groups[0].send("answer", received.rank).result()  # waiting in a listener works

    groups[0].listen(hear, on_departure=lambda: heard.put("gone"), on_end=heard.put)
    with pytest.raises(glintpy.GlintError, match="has a listener, which receives"):
        groups[0].receive()
    with pytest.raises(glintpy.GlintError, match="has a listener already"):
        groups[0].listen(hear)
    to = groups[1].send("bad", 0).result()
    groups[1].send("ask", 0)
    assert groups[1].receive().text == "answer"
    assert [heard.get(timeout=PATIENCE_S) for _ in range(2)] == ["bad", "ask"]
    assert "what the handler raises" in caplog.text
    assert to == {0: 1}
    assert not groups[0].has_gone(2)
    groups[1].send("last words", 0).result()
    groups[1].leave()
    assert [heard.get(timeout=PATIENCE_S) for _ in range(2)] == ["last words", "gone"]
    assert [groups[0].has_gone(member) for member in (1, 2, 3)] == [False, True, False]
    with caplog.at_level(logging.CRITICAL, "glintpy.client"):
        clients[0].close()
        assert isinstance(heard.get(timeout=PATIENCE_S), glintpy.GlintError)
    del served


def test_what_can_t_be_called_can_t_listen(groups: list[glintpy.Group]) -> None:
    for functions in ((3,), (None,), (print, 3), (print, None, "x")):
        named = dict(zip(("on_message", "on_departure", "on_end"), functions, strict=False))
        with pytest.raises(glintpy.ConfigError, match=rf"is a function, not {functions[-1]!r}"):
            groups[0].listen(**named)  # type: ignore[arg-type]  # - what the test is about
    groups[1].send("a", 0)
    assert groups[0].receive().text == "a"  # nobody listens


def test_a_listener_that_would_end_its_thread_hears_what_comes_next(
    groups: list[glintpy.Group], caplog: pytest.LogCaptureFixture
) -> None:
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()

    def hear(received: glintpy.Received) -> None:
        if received.text == "leave":
            sys.exit(3)
        heard.put(received.text)

    groups[0].listen(hear)
    groups[1].send("leave", 0)
    groups[1].send("on", 0)
    assert heard.get(timeout=PATIENCE_S) == "on"
    assert "SystemExit: 3" in caplog.text


def test_listening_costs_other_requests_nothing(
    groups: list[glintpy.Group], clients: list[glintpy.Client], served: Served
) -> None:
    """It is open for minutes: what counts as under way would put small requests off, and receive for everybody."""
    heard: queue.SimpleQueue[str] = queue.SimpleQueue()
    groups[0].listen(lambda received: heard.put(received.text))
    until_waiting(served.client, {0: "a message"})
    assert not clients[0]._tie.runtime().is_busy
    groups[1].send("a", 0)
    assert heard.get(timeout=PATIENCE_S) == "a"


def test_leaving_ends_listening_and_what_is_asked_then_is_an_error(groups: list[glintpy.Group]) -> None:
    ends: list[glintpy.GlintError] = []
    before = set(threading.enumerate())
    groups[0].listen(lambda _: None, on_end=ends.append)
    (thread,) = set(threading.enumerate()) - before
    groups[0].leave()
    thread.join(PATIENCE_S)
    assert not thread.is_alive()
    assert ends == []
    for call in (lambda: groups[0].send("a"), groups[0].receive, lambda: groups[0].listen(lambda _: None)):
        with pytest.raises(glintpy.GlintError, match="was left; join again"):
            call()


def test_what_is_under_way_when_the_client_ends_fails(
    clients: list[glintpy.Client], groups: list[glintpy.Group]
) -> None:
    futures = [groups[0].send("a", 1) for _ in range(50)]
    clients[0].close()
    outcomes = [future.exception(PATIENCE_S) for future in futures]
    assert all(outcome is None or isinstance(outcome, glintpy.GlintError) for outcome in outcomes)
    got = sum(outcome is None for outcome in outcomes)
    assert outcomes == [None] * got + outcomes[got:]


def test_a_certain_rank_is_given_refused_and_taken_over(clients: list[glintpy.Client]) -> None:
    one = clients[0].join("ranks", 2, rank=1)
    assert one.rank == 1
    assert clients[2].join("ranks", 2).rank == 0
    with pytest.raises(
        glintpy.ConfigError, match=r"rank 1 of group 'ranks' is taken by w0 \(pid \d+ on .*\), which"
    ):
        clients[1].join("ranks", 2, rank=1)
    with pytest.raises(glintpy.ConfigError, match="of 2 workers has the ranks 0 to 1, and not 2"):
        clients[1].join("ranks", 2, rank=2)
    with pytest.raises(glintpy.ConfigError, match="rank is an integer of at least 0, not 'x'"):
        clients[1].join("ranks", 2, rank="x")  # type: ignore[arg-type]  # - what the test is about
    clients[0].close()  # without a word: it is lost
    heir = clients[1].join("ranks", 2, rank=1)
    assert (heir.rank, heir.member) == (1, 3)
