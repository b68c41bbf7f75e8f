"""Messages between workers reach each of them once and in order, whatever is repeated, lost or started again."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glintpy.config import MESSAGE_BYTES_MAX
from glintpy.errors import ConfigError, Expelled, Overloaded, RemoteFailure
from tests.unit.group_world import SETTINGS, Asked, Told, World, a_world


def joined(num_workers: int, **settings: Any) -> tuple[World, list[Told]]:
    """Return a world with a group of so many workers."""
    world, workers = a_world(num_workers, **settings)
    for worker in workers:
        worker.join().answer  # noqa: B018 - no error
    return world, workers


def take(worker: Told, asked: Asked | None = None) -> list[str]:
    """Return the bodies that a worker receives, and have it remember what it has."""
    answer = (worker.receive(0.0) if asked is None else asked).answer
    found = [message for message in answer["messages"] if message["number"] > worker.received]
    if found:
        worker.received = found[-1]["number"]
    if answer["members"] is not None:
        worker.departures = answer["departures"]
    return [base64.b64decode(message["body"]).decode() for message in found]


def test_a_message_reaches_those_that_it_is_for_in_the_order_of_their_sender() -> None:
    _, (one, two, three) = joined(3)
    assert one.send("a", 1).answer["to"] == [[1, 2]]
    assert one.send("b").answer["to"] == [[1, 2], [2, 3]]
    assert one.send("c", 2, 1, 2, head=9).answer["to"] == [[2, 3], [1, 2]]
    assert two.send("d", 1).answer["to"] == [[1, 2]]  # to itself
    assert take(three) == ["b", "c"]
    assert take(two) == ["a", "b", "c", "d"]
    three.send("e", 0)
    (told,) = one.receive(0.0).answer["messages"]
    assert {**told, "body": ""} == {"number": 5, "head": 0, "rank": 2, "member": 3, "body": ""}


def test_who_waits_has_a_message_as_soon_as_it_is_sent() -> None:
    world, (one, two, three) = joined(3)
    waiting = [two.receive(), three.receive()]
    one.send("a", 1)
    assert take(two, waiting[0]) == ["a"]
    assert waiting[1].is_open
    world.pass_time(31)
    assert take(three, waiting[1]) == []


def test_what_was_not_let_go_of_is_given_again_and_the_rest_is_not() -> None:
    _, (one, two) = joined(2)
    one.send("a")
    one.send("b")
    assert [len(two.receive(0.0).answer["messages"]) for _ in range(3)] == [2, 2, 2]
    assert take(two) == ["a", "b"]
    assert take(two) == []


def test_a_repeated_message_counts_once_and_has_the_same_answer() -> None:
    world, (one, two) = joined(2)
    first = one.send("a").answer
    assert one.send("a", number=1).answer == first
    assert take(two) == ["a"]
    assert take(two) == []  # lets go of it
    assert one.send("a", number=1).answer == first
    world.restart()
    assert one.send("a", number=1).answer == first
    assert take(two) == []


def test_only_the_last_request_of_a_worker_waits() -> None:
    _, (one, two) = joined(2)
    first, second = two.receive(), two.receive()
    assert first.answer["messages"] == []
    one.send("a")
    assert take(two, second) == ["a"]


def test_a_message_to_nobody_is_sent_to_nobody() -> None:
    _, (one, two) = joined(2)
    assert one.send("a", 1, 5, 7).answer == {"state": "missing", "size": 2, "ranks": [5, 7]}
    assert take(two) == []
    assert one.send("b", 1, number=1).answer["state"] == "done"  # a refusal doesn't take the number
    _, (alone,) = joined(1)
    assert alone.send("a").answer["to"] == []


def test_a_full_inbox_is_told_to_the_sender_and_nobody_gets_anything() -> None:
    _, (one, two, three) = joined(3, messages_max=2)
    for _ in range(2):
        one.send("a", 1).answer  # noqa: B018 - no error
    with pytest.raises(Overloaded, match=r"2 messages of 2 bytes wait for worker 1 of group 'g' \(name-c1\)"):
        one.send("b").answer  # noqa: B018 - raises
    assert take(three) == []
    assert take(two) == ["a", "a"]
    take(two)
    assert one.send("b").answer["state"] == "done"


def test_bytes_that_wait_have_limits_too() -> None:
    world, (one, two, three) = joined(3, messages_bytes_max=10, all_messages_bytes_max=15)
    one.send("a" * 9, 1)
    with pytest.raises(Overloaded, match="at most 1024 of 10 bytes may"):
        one.send("bb", 1).answer  # noqa: B018 - raises
    with pytest.raises(Overloaded, match="messages of 9 bytes wait for workers of all groups; at most 15"):
        one.send("b" * 7, 2).answer  # noqa: B018 - raises
    world.lose(two.client_id)  # what waited for it is gone
    assert one.send("b" * 10, 2).answer["state"] == "done"
    take(three)
    take(three)
    assert one.send("b" * 10, 2).answer["state"] == "done"
    with pytest.raises(ConfigError, match=f"at most {MESSAGE_BYTES_MAX} bytes, not {MESSAGE_BYTES_MAX + 1}"):
        one.send("b" * (MESSAGE_BYTES_MAX + 1), 2).answer  # noqa: B018 - raises


def test_long_messages_come_one_by_one() -> None:
    _, (one, two) = joined(2)
    for _ in range(3):
        one.send("a" * MESSAGE_BYTES_MAX)
    for _ in range(70):
        one.send("b")
    sizes = []
    while found := take(two):
        sizes.append(len(found))
    assert sizes == [2, 64, 7]


def test_what_waits_for_a_worker_ends_with_it_and_its_heir_gets_nothing_of_it() -> None:
    world, (one, two) = joined(2)
    one.send("a")
    waiting = two.receive()
    assert not waiting.is_open
    world.lose(two.client_id)
    assert world.disk["messages"].keys() == {"g/0000000000000000001"}  # its sender may still repeat it
    world.come("c9")
    heir = Told(world, "c9", b"h" * 16)
    assert heir.join().answer["rank"] == 1
    assert take(heir) == []
    assert one.send("b").answer["to"] == [[1, 3]]
    assert take(heir) == ["b"]


def test_a_receiver_that_is_lost_while_it_waits_is_told_so() -> None:
    world, (_, two) = joined(2)
    waiting = two.receive()
    world.lose(two.client_id)
    with pytest.raises(Expelled, match="no heartbeat"):
        waiting.answer  # noqa: B018 - raises


def test_who_waits_hears_who_has_gone_behind_all_that_they_had_said() -> None:
    world, (one, two, three) = joined(3)
    waiting = one.receive()
    two.leave()
    assert waiting.answer["members"] == [1, 3]
    assert waiting.answer["departures"] == 1
    take(one, waiting)
    for _ in range(65):
        three.send("x", 0)
    world.lose(three.client_id)
    first = one.receive(0.0)
    assert first.answer["members"] is None
    assert len(take(one, first)) == 64
    second = one.receive(0.0)
    assert (second.answer["members"], len(take(one, second))) == ([1], 1)
    assert one.receive().is_open


def test_a_message_that_can_not_be_written_is_given_to_nobody_until_it_is() -> None:
    world, (one, two) = joined(2)
    waiting = two.receive()
    world.is_full = True
    for asked in (one.send("a"), waiting, two.receive(0.0)):
        with pytest.raises(RemoteFailure, match="no space left"):
            asked.answer  # noqa: B018 - raises
    world.is_full = False
    assert take(two) == ["a"]


def test_the_disk_holds_nothing_of_a_group_that_has_ended() -> None:
    world, (one, two) = joined(2)
    one.send("a")
    two.send("b")
    world.lose(one.client_id)
    world.lose(two.client_id)
    assert world.disk == {"groups": {}, "workers": {}, "messages": {}}


def test_an_empty_message_survives_a_restart_like_any_other() -> None:
    world, (one, two) = joined(2)
    one.send("")
    world.restart()
    assert take(two) == [""]


Step = tuple[str, int, int]


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["send", "send", "repeat", "ask", "take", "take", "restart", "lose", "time"]),
            st.integers(0, 3),
            st.integers(0, 3),
        ),
        max_size=60,
    )
)
def test_each_gets_what_was_sent_to_it_once_and_in_order(steps: list[Step]) -> None:
    world, workers = joined(4)
    live = dict(enumerate(workers))
    expected: dict[int, list[str]] = {rank: [] for rank in live}
    had: dict[int, list[str]] = {rank: [] for rank in live}
    last: dict[int, tuple[str, int, Asked]] = {}
    for number, (what, one, other) in enumerate(steps):
        if what == "restart":
            world.restart()
            for worker in live.values():
                world.come(worker.client_id)
        elif what == "time":
            world.pass_time(5.0)
        elif one not in live:
            continue
        elif what == "send" and other in live:
            last[one] = (str(number), other, live[one].send(str(number), other))
            expected[other].append(str(number))
        elif what == "repeat" and one in last:
            body, to, first = last[one]
            again = live[one].send(body, to, number=live[one].sent).answer
            assert again == {**first.answer, "size": len(live)}  # the group may have shrunk
        elif what == "ask":
            live[one].receive(0.0)  # and the answer is lost
        elif what == "take":
            had[one] += take(live[one])
        elif what == "lose" and len(live) > 1:
            world.lose(live.pop(one).client_id)
    for rank, worker in live.items():
        while found := take(worker):
            had[rank] += found
        assert had[rank] == expected[rank]
    assert sum(len(world.disk[table]) for table in ("groups", "workers")) == 1 + len(live)


def test_waiting_lasts_no_longer_than_the_master_grants() -> None:
    world, (_, two) = joined(2)
    waiting = two.receive(10_000)
    world.pass_time(SETTINGS.wait_s - 1)
    assert waiting.is_open
    assert world.groups.to_content()[0]["workers"][1]["waits_for"] == "a message"
    world.pass_time(2)
    assert waiting.answer["messages"] == []
