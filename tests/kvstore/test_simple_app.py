"""Requests between nodes: each is answered, or says why it isn't; named by what went wrong in ps-lite."""

from __future__ import annotations

import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress
from typing import Any

import numpy as np
import pytest

import glintpy
from glintpy.kvstore import (
    SCHEDULER,
    SERVERS,
    WORKERS,
    Postoffice,
    SimpleApp,
    SimpleData,
    simple_app,
    switchboard,
)
from glintpy.kvstore.switchboard import Letter
from glintpy.protocol.messages_master import LeaveGroup
from tests.cluster.helpers import until
from tests.kvstore.conftest import PATIENCE_S

Make = Callable[..., Postoffice]


def leave(node: Postoffice) -> None:
    with suppress(glintpy.GlintError):  # its client is closed
        node.finalize(do_barrier=False)


@pytest.fixture
def make(cluster: glintpy.LocalCluster, job: str) -> Iterator[Make]:
    """Return what makes a node with a client of its own; all go at the end without meeting."""
    with ExitStack() as stack:

        def make(role: Any = "worker", **options: Any) -> Postoffice:
            client = stack.enter_context(cluster.client(timeout_s=PATIENCE_S))
            node = Postoffice(role, client, job=job, timeout_s=PATIENCE_S, **options)
            stack.callback(leave, node)
            return node

        yield make


@pytest.fixture
def nodes(make: Make) -> list[Postoffice]:
    """A worker and two servers."""
    return [make(role, num_workers=1, num_servers=2) for role in ("worker", "server", "server")]


def echo(request: SimpleData, app: SimpleApp) -> None:
    app.response(request, f"{app.node.node_id} {request.head} {request.body}")


def test_a_group_is_asked_and_all_of_it_answers(nodes: list[Postoffice]) -> None:
    apps = [SimpleApp(node=node, request_handle=echo) for node in nodes]
    shown: list[tuple[int, str]] = []
    apps[0].set_response_handle(lambda response, _: shown.append((response.sender, response.body)))
    first, second = apps[0].request(-3, "ä", SERVERS), apps[0].request(5, "", 10)
    assert (first, second) == (0, 1)
    assert apps[0].wait(second) == {10: "10 5 "}
    assert apps[0].wait(first) == {8: "8 -3 ä", 10: "10 -3 ä"}
    assert sorted(shown) == [(8, "8 -3 ä"), (10, "10 -3 ä"), (10, "10 5 ")]
    assert apps[0].wait(first) == {}  # again
    assert apps[2].wait(apps[2].request(1, "", WORKERS + SERVERS)) == {9: "9 1 ", 8: "8 1 "}  # not itself
    assert apps[1].wait(apps[1].request(1, "me", 8)) == {8: "8 1 me"}


@pytest.mark.soak
def test_nodes_that_start_side_by_side_are_always_ready(cluster: glintpy.LocalCluster, job: str) -> None:
    """In ps-lite one to three starts of a hundred fail."""

    def run(role: Any, number: int) -> dict[int, str]:
        with (
            cluster.client(timeout_s=PATIENCE_S) as client,
            Postoffice(
                role, client, job=f"{job}-{number}", num_workers=2, num_servers=1, timeout_s=PATIENCE_S
            ) as node,
        ):
            app = SimpleApp(node=node, request_handle=echo)
            node.barrier()
            return app.wait(app.request(1, "", WORKERS + SERVERS))

    with ThreadPoolExecutor(3) as pool:
        for number in range(200):
            found = list(pool.map(run, ("worker", "server", "worker"), [number] * 3, timeout=PATIENCE_S))
            assert sorted(len(answers) for answers in found) == [2, 2, 2]


def test_without_a_handler_the_answer_is_empty(nodes: list[Postoffice]) -> None:
    apps = [SimpleApp(node=node) for node in nodes]
    assert apps[0].wait(apps[0].request(1, "x", SERVERS)) == {8: "", 10: ""}


def test_requests_of_one_node_are_handled_in_order_though_it_waits_for_none(nodes: list[Postoffice]) -> None:
    """In ps-lite they are reordered under backlog (5.1)."""
    seen: list[int] = []
    go_on = threading.Event()

    def note(request: SimpleData, app: SimpleApp) -> None:
        assert go_on.wait(PATIENCE_S)
        seen.append(request.head)
        app.response(request)

    server = SimpleApp(node=nodes[1], request_handle=note)
    worker = SimpleApp(node=nodes[0])
    times = [worker.request(number, "", 8) for number in range(20)]
    go_on.set()
    for timestamp in times:
        worker.wait(timestamp)
    assert seen == list(range(20))
    del server


def test_a_handler_that_raises_is_an_error_of_who_asked_and_not_silence(nodes: list[Postoffice]) -> None:
    def fail(request: SimpleData, app: SimpleApp) -> None:
        if app.node.my_rank == 1:
            raise ValueError(f"can't do {request.head}")
        app.response(request, "done")

    apps = [SimpleApp(node=node, request_handle=fail) for node in nodes]
    with pytest.raises(
        glintpy.RemoteFailure, match=r"failed at node 10 \(server 1\)(.|\n)*ValueError: can't do 7"
    ):
        apps[0].wait(apps[0].request(7, "", SERVERS))
    assert apps[0].wait(apps[0].request(7, "", 8)) == {8: "done"}


def test_a_handler_that_would_end_its_thread_is_an_error_and_the_app_goes_on(
    nodes: list[Postoffice], caplog: pytest.LogCaptureFixture
) -> None:
    def leave_once(data: SimpleData, app: SimpleApp) -> None:
        if data.head == 7:
            sys.exit(3)
        if app is server:
            app.response(data, "done")

    server = SimpleApp(node=nodes[1], request_handle=leave_once)
    worker = SimpleApp(node=nodes[0])
    with pytest.raises(glintpy.RemoteFailure, match=r"failed at node 8 \(server 0\)(.|\n)*SystemExit: 3"):
        worker.wait(worker.request(7, "", 8))
    assert "the handler of a request of node 9 failed" in caplog.text
    assert worker.wait(worker.request(1, "", 8)) == {8: "done"}
    worker.set_response_handle(leave_once)
    server.set_request_handle(echo)
    with pytest.raises(SystemExit):
        worker.wait(worker.request(7, "", 8))
    assert "the handler of an answer of node 8 failed" in caplog.text
    assert worker.wait(worker.request(1, "", 8)) == {8: "8 1 "}


def test_waiting_in_the_handler_of_an_answer_does_not_deadlock(nodes: list[Postoffice]) -> None:
    """In ps-lite that thread hangs for ever, silently (5.5)."""
    for node in nodes[1:]:
        SimpleApp(node=node, request_handle=echo)
    found: list[Any] = []

    def ask_on(response: SimpleData, app: SimpleApp) -> None:
        if response.head == 1:
            found.append(app.wait(app.request(2, "", 10)))
        if response.head == 3:
            app.wait(response.timestamp)

    worker = SimpleApp(node=nodes[0], response_handle=ask_on)
    assert worker.wait(worker.request(1, "", 8)) == {8: "8 1 "}
    assert found == [{10: "10 2 "}]
    with pytest.raises(glintpy.GlintError, match="is over when the handler of its answer has returned"):
        worker.wait(worker.request(3, "", 8))


def test_handlers_of_two_nodes_that_ask_each_other_do_not_deadlock(nodes: list[Postoffice]) -> None:
    def ask_back(request: SimpleData, app: SimpleApp) -> None:
        left = request.head
        other = 8 if app.node.node_id == 10 else 10
        said = app.wait(app.request(left - 1, "", other))[other] if left else "end"
        app.response(request, f"{app.node.node_id} {said}")

    apps = [SimpleApp(node=node, request_handle=ask_back) for node in nodes]
    assert apps[0].wait(apps[0].request(6, "", 8)) == {8: "8 10 8 10 8 10 8 end"}
    with pytest.raises(glintpy.RemoteFailure, match="handlers of app 0 wait within one another"):
        apps[0].wait(apps[0].request(3 * simple_app.DEPTH_MAX, "", 8))


def test_an_answer_may_come_later_from_another_thread(nodes: list[Postoffice]) -> None:
    """How synchronous aggregation is built: nobody is answered before all have asked."""
    waiting: list[SimpleData] = []
    asked = threading.Event()

    def keep(request: SimpleData, _: SimpleApp) -> None:
        waiting.append(request)
        if len(waiting) == 2:
            asked.set()

    server = SimpleApp(node=nodes[1], request_handle=keep)
    one, two = SimpleApp(node=nodes[0]), SimpleApp(node=nodes[2])
    times = one.request(1, "", 8), two.request(2, "", 8)
    assert asked.wait(PATIENCE_S)
    with pytest.raises(
        glintpy.WorkersMissing, match=r"no answer within 0\.05 s from node 8 \(server 0\)"
    ) as raised:
        one.wait(times[0], timeout_s=0.05)
    assert raised.value.ranks == (8,)
    for request in waiting:
        server.response(request, str(sum(each.head for each in waiting)))
    assert [one.wait(times[0]), two.wait(times[1])] == [{8: "3"}, {8: "3"}]
    with pytest.raises(glintpy.GlintError, match="was answered before"):
        server.response(waiting[0])


def test_a_node_that_goes_before_it_answers_ends_the_wait_with_its_name(nodes: list[Postoffice]) -> None:
    """In ps-lite that wait never returns (5.9, 5.11)."""
    came = threading.Event()
    for node in nodes[1:]:
        SimpleApp(node=node, request_handle=lambda *_: came.set())
    worker = SimpleApp(node=nodes[0])
    timestamp = worker.request(1, "", 8)
    assert came.wait(PATIENCE_S)
    nodes[1].client.close()
    with pytest.raises(
        glintpy.WorkerLost, match=r"node 8 \(server 0\) has left, or was lost, before it answered"
    ):
        worker.wait(timestamp)
    with pytest.raises(glintpy.WorkersMissing, match=r"was not sent: there is no node 8 \(server 0\)"):
        worker.wait(worker.request(1, "", SERVERS))


def test_who_comes_in_a_dead_node_s_place_gets_what_is_asked_from_then_on(
    nodes: list[Postoffice], make: Make
) -> None:
    """In ps-lite only if it comes after a time-out, and what waits is never answered (5.10 to 5.12)."""
    SimpleApp(node=nodes[1], request_handle=lambda *_: None)
    SimpleApp(node=nodes[2], request_handle=echo)
    worker = SimpleApp(node=nodes[0])
    lost = worker.request(1, "", SERVERS)
    nodes[1].client.close()
    heir = make("server", num_workers=1, num_servers=2)
    SimpleApp(node=heir, request_handle=echo)
    with pytest.raises(glintpy.WorkerLost):
        worker.wait(lost)
    assert worker.wait(worker.request(2, "", SERVERS)) == {8: "8 2 ", 10: "10 2 "}


def test_an_app_that_is_made_a_little_later_gets_what_came_before(nodes: list[Postoffice]) -> None:
    """In ps-lite a message for an app that isn't there kills the process after 5 s."""
    worker = SimpleApp(3, node=nodes[0])
    timestamp = worker.request(1, "", 8)
    with pytest.raises(glintpy.WorkersMissing):
        worker.wait(timestamp, timeout_s=0.1)
    SimpleApp(3, node=nodes[1], request_handle=echo)
    assert worker.wait(timestamp) == {8: "8 1 "}


def test_an_app_that_is_never_made_is_an_error(
    nodes: list[Postoffice], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(switchboard, "APP_S", 0.1)
    worker = SimpleApp(3, node=nodes[0])
    with pytest.raises(
        glintpy.RemoteFailure, match=r"at node 8 \(server 0\): it has no app 3, and none was made"
    ):
        worker.wait(worker.request(1, "", 8))


def test_several_apps_and_customers_of_a_process_do_not_mix(nodes: list[Postoffice]) -> None:
    """In ps-lite two customers of a process hang with resending on (5.8)."""
    SimpleApp(0, node=nodes[1], request_handle=echo)
    SimpleApp(1, node=nodes[1], request_handle=lambda request, app: app.response(request, "one"))
    SimpleApp(1, 5, node=nodes[1], request_handle=lambda request, app: app.response(request, "five"))
    with pytest.raises(
        glintpy.ConfigError, match="has an app 1 with customer 5: give this one another customer_id"
    ):
        SimpleApp(1, 5, node=nodes[1])
    apps = [
        SimpleApp(app_id, customer, node=nodes[0]) for app_id, customer in ((0, 0), (0, 1), (1, 0), (1, 5))
    ]

    def ask(app: SimpleApp) -> set[str]:
        return {app.wait(app.request(4, "", 8))[8] for _ in range(20)}

    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(ask, apps)) == [{"8 4 "}, {"8 4 "}, {"one"}, {"five"}]


def test_what_can_t_be_asked_is_refused_before_it_is_sent(make: Make) -> None:
    node = make(num_workers=1)
    app = SimpleApp(node=node)
    with pytest.raises(
        glintpy.ConfigError, match=r"group 2 has no node but this one .*send_command_to_servers"
    ):
        app.request(1, "", SERVERS)
    with pytest.raises(glintpy.ConfigError, match=r"group 5 has no node but this one to send anything to$"):
        app.request(1, "", SCHEDULER + WORKERS)
    for wrong in (0, -8, "8", None):
        with pytest.raises(glintpy.ConfigError, match="or a sum of these, not"):
            app.request(1, "", wrong)  # type: ignore[arg-type]  # - what the test is about
    for head, body in (("1", ""), (1, b""), (True, "")):
        with pytest.raises(glintpy.ConfigError, match="a request is an int and a str"):
            app.request(head, body, 9)  # type: ignore[arg-type]  # - what the test is about
    with pytest.raises(glintpy.ConfigError, match="at most 1048576 bytes"):
        app.request(1, "x" * 2**20, 9)
    with pytest.raises(glintpy.ConfigError, match="has made 0 requests, and none has the timestamp 0"):
        app.wait(0)
    with pytest.raises(glintpy.ConfigError, match="app_id is an integer of at least 0, not -1"):
        SimpleApp(-1, node=node)
    with pytest.raises(glintpy.WorkersMissing, match=r"there is no node 108 \(server 50\)"):
        app.wait(app.request(1, "", 108))


def test_numpy_s_numbers_are_numbers(nodes: list[Postoffice]) -> None:
    number: Any = np.int64
    SimpleApp(number(3), number(0), node=nodes[1], request_handle=echo)
    worker = SimpleApp(number(3), number(2), node=nodes[0])
    timestamp: Any = worker.request(number(5), "a", number(8))
    assert worker.wait(number(timestamp), timeout_s=np.float64(PATIENCE_S)) == {8: "8 5 a"}
    assert worker.wait(worker.request(1, "", number(8)), timeout_s=number(PATIENCE_S)) == {8: "8 1 "}
    assert nodes[0].live_nodes(number(SERVERS)) == [8, 10]
    nodes[0].barrier(number(WORKERS))
    unanswered = worker.request(1, "", 108)
    for timeout_s in (True, -1, "1", float("nan"), 10**400):
        with pytest.raises(glintpy.ConfigError, match="timeout_s is a number of seconds"):
            worker.wait(unanswered, timeout_s=timeout_s)  # type: ignore[arg-type]  # - what the test is about
    for wrong in (True, 1.0, np.True_):
        with pytest.raises(glintpy.ConfigError, match="app_id is an integer of at least 0"):
            SimpleApp(wrong, node=nodes[0])  # type: ignore[arg-type]  # - what the test is about
        with pytest.raises(glintpy.ConfigError, match="a request is an int and a str"):
            worker.request(wrong, "", 8)  # type: ignore[arg-type]  # - what the test is about
        with pytest.raises(glintpy.ConfigError, match="none has the timestamp"):
            worker.wait(wrong)  # type: ignore[arg-type]  # - what the test is about


def test_a_stranger_s_message_is_dropped(nodes: list[Postoffice], caplog: pytest.LogCaptureFixture) -> None:
    """In ps-lite random bytes end a server (5.17)."""
    SimpleApp(node=nodes[1], request_handle=echo)
    worker = SimpleApp(node=nodes[0])
    for text in ("", "null", "{}", "[" * 1000, '{"kind":1}', Letter("error", 0, 0, 99, 0, "x").to_text()):
        nodes[2].send(text, [8, 9]).result()
    assert worker.wait(worker.request(1, "", 8)) == {8: "8 1 "}
    assert "dropped a message of node 10" in caplog.text


def test_too_many_requests_are_refused_and_the_others_answered(
    nodes: list[Postoffice], monkeypatch: pytest.MonkeyPatch
) -> None:
    from glintpy.kvstore import simple_app

    monkeypatch.setattr(simple_app, "WAITING_MAX", 2)
    go_on = threading.Event()

    def stay(request: SimpleData, app: SimpleApp) -> None:
        assert go_on.wait(PATIENCE_S)
        app.response(request, "ok")

    SimpleApp(node=nodes[1], request_handle=stay)
    worker = SimpleApp(node=nodes[0])
    times = [worker.request(number, "", 8) for number in range(6)]
    with pytest.raises(glintpy.RemoteFailure, match="too many requests wait there"):
        worker.wait(times.pop())
    go_on.set()
    assert worker.wait(times[0]) == {8: "ok"}


def test_requests_that_nobody_answers_are_no_more_than_so_many(
    nodes: list[Postoffice], monkeypatch: pytest.MonkeyPatch
) -> None:
    """In ps-lite the table of requests grows for ever."""
    monkeypatch.setattr(simple_app, "OPEN_MAX", 3)
    SimpleApp(node=nodes[1], request_handle=lambda *_: None)
    SimpleApp(node=nodes[2], request_handle=echo)
    worker = SimpleApp(node=nodes[0])
    done = worker.request(0, "", 10)
    with pytest.raises(glintpy.WorkersMissing):
        worker.wait(worker.request(1, "", 8), 0.05)
    until(lambda: not worker._open[done].missing, "it is answered")
    worker.request(2, "", 8)
    worker.request(3, "", 8)  # the answered one is forgotten
    assert worker.wait(done) == {}
    with pytest.raises(glintpy.Overloaded, match="3 requests of app 0 are open"):
        worker.request(4, "", 8)


def test_a_request_that_was_not_sent_leaves_nothing_behind(
    nodes: list[Postoffice], monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(simple_app, "OPEN_MAX", 1)
    worker = SimpleApp(node=nodes[0])
    for _ in range(3):
        unsent = worker.request(1, "", 108)
        until(worker._open[unsent].sent.done, "nobody has that number")
    assert caplog.text.count("for which nobody waited: worker 9 of group") == 2
    with pytest.raises(glintpy.WorkersMissing):
        worker.wait(unsent)


def test_closing_fails_what_is_open(nodes: list[Postoffice]) -> None:
    SimpleApp(node=nodes[1], request_handle=lambda *_: None)
    worker = SimpleApp(node=nodes[0])
    timestamp = worker.request(1, "", 8)
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(worker.wait, timestamp)
        with pytest.raises(glintpy.WorkersMissing):
            worker.wait(timestamp, 0.05)
        worker.close()
        with pytest.raises(glintpy.GlintError, match="app 0 was closed"):
            waiting.result(PATIENCE_S)
    with pytest.raises(glintpy.GlintError, match="takes no requests any more"):
        worker.request(1, "", 8)
    with SimpleApp(node=nodes[0]) as again:
        second = again.request(1, "", 8)
        nodes[0].finalize(do_barrier=False)
        with pytest.raises(glintpy.GlintError, match="has left"):
            again.wait(second)
    until(
        lambda: not [t for t in threading.enumerate() if t.name == "glintpy-app" and not t.daemon],
        "none is left",
    )


def test_a_node_that_is_expelled_hears_so_in_what_it_waits_for(nodes: list[Postoffice]) -> None:
    """In ps-lite one that was taken for dead goes on for ever, and is told nothing."""
    SimpleApp(node=nodes[1], request_handle=lambda *_: None)
    worker = SimpleApp(node=nodes[0])
    timestamp = worker.request(1, "", 8)
    with pytest.raises(glintpy.WorkersMissing):
        worker.wait(timestamp, 0.05)
    nodes[0].client._tie.runtime().ask_master(
        lambda request_id: LeaveGroup(request_id, nodes[0]._nodes._token, is_orderly=False),
        timeout_s=PATIENCE_S,
    )
    with pytest.raises(glintpy.Expelled, match=r"worker 9 of group .*: its membership has ended"):
        worker.wait(timestamp)
    with pytest.raises(glintpy.GlintError, match="takes no requests any more"):
        worker.request(1, "", 8)


def test_an_answer_that_can_t_travel_is_an_error_of_who_asked(nodes: list[Postoffice]) -> None:
    SimpleApp(node=nodes[1], request_handle=lambda request, app: app.response(request, "x" * 2**20))
    SimpleApp(node=nodes[2], request_handle=lambda request, app: app.response(request, 7))  # type: ignore[arg-type]  # - what the test is about
    worker = SimpleApp(node=nodes[0])
    with pytest.raises(glintpy.RemoteFailure, match="at most 1048576 bytes"):
        worker.wait(worker.request(1, "", 8))
    with pytest.raises(glintpy.RemoteFailure, match="an answer is a str, not int"):
        worker.wait(worker.request(1, "", 10))


def test_what_the_handler_of_an_answer_raises_is_raised_by_wait(nodes: list[Postoffice]) -> None:
    def fail(response: SimpleData, _: SimpleApp) -> None:
        raise LookupError(f"no place for {response.body}")

    for node in nodes[1:]:
        SimpleApp(node=node, request_handle=echo)
    worker = SimpleApp(node=nodes[0], response_handle=fail)
    with pytest.raises(LookupError, match="no place for 8 1 ") as raised:
        worker.wait(worker.request(1, "", SERVERS))
    assert raised.value.__notes__ == ["no place for 10 1 "]
