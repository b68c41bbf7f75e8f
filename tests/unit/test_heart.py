"""A heart joins, beats, joins again when it is forgotten, and says goodbye; the master here is the test."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from queue import SimpleQueue
from typing import Any, TypeVar

import pytest

from glintpy.config import MembershipSettings
from glintpy.errors import Expelled, GlintError, MasterUnreachable, ProtocolMismatch
from glintpy.heart import Heart, Identity, Listeners
from glintpy.protocol import wire
from glintpy.protocol.failures import code_of
from glintpy.protocol.messages import VERSION, DestroyShard, Done, Failure, Message, ServerStatus
from glintpy.protocol.messages_master import Beat, BeatSeen, Join, Leave
from glintpy.testing.waiting import receive_from, until
from glintpy.transport import Delivery, listen

WAIT_S = 60.0

Kind = TypeVar("Kind", bound=Message)

_names = itertools.count()


def taken(request_id: int, cluster_id: str = "cluster-1") -> Done:
    """Return a master's answer to a join."""
    content = {"cluster_id": cluster_id, "era": f"era of {cluster_id}", "models": [3], "beat_s": 1}
    return Done(request_id, wire.document(content))


class Master:
    """A master that says what the test has it say."""

    def __init__(self, address: str | None = None) -> None:
        self.listener = listen(address or f"local://heart-{next(_names)}")
        self.peer = b""

    def next_of(self, kind: type[Kind]) -> Kind:
        """Return the next message of a kind; others, beats mostly, are passed over."""
        deadline = time.monotonic() + WAIT_S
        while time.monotonic() < deadline:
            self.peer, frames = receive_from(self.listener)
            for message in wire.decode_all(frames):
                if isinstance(message, kind):
                    return message
        raise AssertionError(f"no {kind.__name__} came")

    def say(self, *messages: Message) -> None:
        for message in messages:
            self.say_frames(wire.encode(message))

    def say_frames(self, frames: list[wire.Buffer]) -> None:
        assert self.listener.send(self.peer, frames) is Delivery.SENT

    def accept(self, *, cluster_id: str = "cluster-1") -> Join:
        join = self.next_of(Join)
        self.say(taken(join.request_id, cluster_id))
        return join

    def refuse(self, error: GlintError) -> None:
        join = self.next_of(Join)
        self.say(Failure(join.request_id, 0, code_of(error), 0, str(error)))

    def close(self) -> None:
        self.listener.close()


class Member:
    """A heart, and what it told its listeners."""

    def __init__(self, address: str, *, highest_model: int = 0, beat_s: float = 0.01) -> None:
        self.joined: SimpleQueue[dict[str, Any]] = SimpleQueue()
        self.changed: SimpleQueue[int] = SimpleQueue()
        self.arrived: SimpleQueue[list[wire.Buffer]] = SimpleQueue()
        self.refused: SimpleQueue[GlintError] = SimpleQueue()
        self.num_beats = 0
        self.progress = 5
        self.heart = Heart(
            address,
            Identity(
                "member",
                "name",
                is_server=True,
                address="tcp://here:1",
                incarnation=4,
                cluster_id="old",
                era="of old",
            ),
            settings=MembershipSettings(beat_s=beat_s),
            progress=lambda: self.progress,
            highest_model=lambda: highest_model,
            listeners=Listeners(
                joined=self.joined.put,
                changed=self.changed.put,
                arrived=self.arrived.put,
                beat=self._count,
                refused=self.refused.put,
            ),
        )
        self.heart.start()

    def _count(self) -> None:
        self.num_beats += 1


@pytest.fixture
def master() -> Iterator[Master]:
    made = Master()
    yield made
    made.close()


@pytest.fixture
def member(master: Master) -> Iterator[Member]:
    made = Member(master.listener.address)
    yield made
    made.heart.stop(say_goodbye=False)


def test_it_joins_with_its_identity(master: Master, member: Member) -> None:
    join = master.accept()
    assert (join.version_min, join.version_max) == (VERSION, VERSION)
    assert (join.member_id, join.name, join.address, join.incarnation) == (
        "member",
        "name",
        "tcp://here:1",
        4,
    )
    assert join.is_server
    assert (join.cluster_id, join.era, join.highest_model) == ("", "", 0), (
        "it holds no models, so any cluster's master may have it"
    )
    member.heart.wait_joined(WAIT_S)
    assert member.joined.get(timeout=WAIT_S)["models"] == [3]


def test_it_beats_with_its_progress(master: Master, member: Member) -> None:
    master.accept()
    first = master.next_of(Beat)
    assert (first.member_id, first.incarnation, first.progress) == ("member", 4, 5)
    member.progress = 9
    while master.next_of(Beat).progress != 9:
        pass
    assert member.num_beats >= 2


def test_changes_among_the_servers_are_told_once_each(master: Master, member: Member) -> None:
    master.accept()
    for changes in (7, 7, 7, 8, 8, 9):
        beat = master.next_of(Beat)
        master.say(BeatSeen(beat.request_id, known=True, changes=changes))
    assert [member.changed.get(timeout=WAIT_S) for _ in range(3)] == [7, 8, 9]
    assert member.changed.empty()


def test_who_is_not_known_any_more_joins_again(master: Master, member: Member) -> None:
    first = master.accept()
    beat = master.next_of(Beat)
    master.say(BeatSeen(beat.request_id, known=False, changes=0))
    again = master.accept()
    assert again.request_id != first.request_id
    assert again.member_id == first.member_id
    for _ in range(2):
        member.joined.get(timeout=WAIT_S)
    master.next_of(Beat)


def test_it_joins_a_master_that_came_back_and_names_its_cluster(master: Master) -> None:
    member = Member(master.listener.address, highest_model=7)
    try:
        join = master.accept()
        assert (join.cluster_id, join.era, join.highest_model) == ("old", "of old", 7)
        member.joined.get(timeout=WAIT_S)
        address = master.listener.address
        master.close()
        master.listener = listen(address)
        join = master.accept()
        assert (join.cluster_id, join.era) == ("cluster-1", "era of cluster-1"), "what it was told last"
        member.joined.get(timeout=WAIT_S)
        master.next_of(Beat)
    finally:
        member.heart.stop(say_goodbye=False)


def test_a_refusal_is_raised_and_told(master: Master, member: Member) -> None:
    master.refuse(ProtocolMismatch("you speak 1, I speak 2"))
    with pytest.raises(ProtocolMismatch, match="I speak 2"):
        member.heart.wait_joined(WAIT_S)
    assert isinstance(member.refused.get(timeout=WAIT_S), ProtocolMismatch)


def test_one_that_was_refused_tries_again(master: Master, member: Member) -> None:
    master.refuse(Expelled("replaced"))
    assert isinstance(member.refused.get(timeout=WAIT_S), Expelled)
    master.accept()
    assert member.joined.get(timeout=WAIT_S)["cluster_id"] == "cluster-1"


def test_nobody_at_the_address_is_said_with_the_address() -> None:
    member = Member("local://nobody-is-here")
    try:
        with pytest.raises(MasterUnreachable, match=r"local://nobody-is-here within 0\.01 s.*glintpy master"):
            member.heart.wait_joined(0.01)
    finally:
        member.heart.stop()  # it never joined: there is nobody to say goodbye to


def test_a_master_that_does_not_answer_is_unreachable_too(master: Master, member: Member) -> None:
    master.next_of(Join)
    with pytest.raises(MasterUnreachable):
        member.heart.wait_joined(0.01)
    with pytest.raises(MasterUnreachable):
        member.heart.wait_joined(WAIT_S, keep_trying=lambda: False)


def test_it_says_goodbye_and_waits_until_it_is_heard(master: Master, member: Member) -> None:
    master.accept()
    member.heart.wait_joined(WAIT_S)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(member.heart.stop)
        leave = master.next_of(Leave)
        assert leave.member_id == "member"
        master.say(Done(leave.request_id, wire.document({})))
        stopping.result(WAIT_S)
    assert "glintpy-heart" not in {thread.name for thread in threading.enumerate()}
    member.heart.stop()  # again does nothing


def test_one_that_leaves_neither_beats_nor_joins_any_more(master: Master, member: Member) -> None:
    # A master that has heard the word of leaving doesn't know who beats after it, and says so. Joining again then
    # would be the last thing it hears of a member that is gone the next moment: lost, instead of stopped.
    master.accept()
    member.heart.wait_joined(WAIT_S)
    with ThreadPoolExecutor(1) as pool:
        stopping = pool.submit(member.heart.stop)
        leave = master.next_of(Leave)
        beats = member.num_beats
        master.say(BeatSeen(1, known=False, changes=0))
        until(lambda: member.num_beats > beats + 3, what="it would have beaten several times")
        master.say(Done(leave.request_id, wire.document({})))
        stopping.result(WAIT_S)
    heard = []
    while (arrived := master.listener.receive()) is not None:
        heard += wire.decode_all(arrived[1])
    # One beat may have been on its way when the leaving began.
    assert [type(message) for message in heard] in ([], [Beat])


def test_it_goes_without_a_word_when_told_so(master: Master, member: Member) -> None:
    master.accept()
    member.heart.wait_joined(WAIT_S)
    member.heart.stop(say_goodbye=False)
    found = []
    while (arrived := master.listener.receive()) is not None:
        found += wire.decode_all(arrived[1])
    assert {type(message) for message in found} <= {Beat}
    assert master.listener.num_disconnects() == 1


def test_what_is_for_the_server_is_handed_on_and_its_answer_sent(master: Master, member: Member) -> None:
    master.accept()
    member.heart.wait_joined(WAIT_S)
    master.say(DestroyShard(70, 5), ServerStatus(71))
    for request_id in (70, 71):
        (message,) = wire.decode_all(member.arrived.get(timeout=WAIT_S))
        assert message.request_id == request_id
        member.heart.send(wire.encode(Done(request_id, wire.document({}))))
    assert [master.next_of(Done).request_id for _ in range(2)] == [70, 71]


def test_what_cannot_be_read_is_dropped_and_the_heart_beats_on(
    master: Master, member: Member, caplog: pytest.LogCaptureFixture
) -> None:
    master.accept()
    member.heart.wait_joined(WAIT_S)
    master.say_frames([b"\xc1"])
    master.say(DestroyShard(70, 5))
    assert member.arrived.get(timeout=WAIT_S)
    assert "malformed" in caplog.text
    master.next_of(Beat)


def test_late_answers_of_a_join_before_change_nothing(master: Master, member: Member) -> None:
    first = master.next_of(Join)
    master.say(taken(first.request_id + 1000, "wrong"))
    master.say(Failure(first.request_id + 1001, 0, code_of(Expelled()), 0, "wrong"))
    master.say(taken(first.request_id, "right"))
    member.heart.wait_joined(WAIT_S)
    assert member.joined.get(timeout=WAIT_S)["cluster_id"] == "right"
    assert member.refused.empty()
