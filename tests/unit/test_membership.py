"""Who beats is alive, who is silent or hangs is not, and nobody takes another's place."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from glintpy.actors.membership import Membership
from glintpy.config import MembershipSettings
from glintpy.errors import Expelled
from glintpy.protocol.messages import VERSION
from glintpy.protocol.messages_master import Beat, Join

SETTINGS = MembershipSettings(silent_s=3.0, hung_s=8.0, client_gone_s=10.0)


def a_join(member_id: str = "s1", **changes: Any) -> Join:
    join = Join(
        1,
        VERSION,
        VERSION,
        is_server=member_id.startswith("s"),
        member_id=member_id,
        name=f"name-{member_id}",
        address=f"tcp://host:{len(member_id)}",
        incarnation=1,
        pid=100,
        host="host",
        cluster_id="",
        era="",
        highest_model=0,
    )
    return replace(join, **changes)


class Cluster:
    """A membership, and members that beat."""

    def __init__(self) -> None:
        self.members = Membership(SETTINGS)

    def join(self, member_id: str = "s1", *, now: float = 0.0, **changes: Any) -> None:
        self.members.join(a_join(member_id, **changes), member_id.encode(), now)

    def beat(self, member_id: str, now: float, *, progress: int, incarnation: int = 1) -> bool:
        return self.members.beat(Beat(1, member_id, incarnation, progress), member_id.encode(), now)

    def states(self) -> dict[str, str]:
        return {member.member_id: member.state for member in self.members.servers()}


@pytest.fixture
def cluster() -> Cluster:
    return Cluster()


def test_servers_are_listed_in_the_order_of_their_first_joins(cluster: Cluster) -> None:
    for member_id in ("s2", "c1", "s1", "s3"):
        cluster.join(member_id)
    cluster.join("s2", incarnation=2, pid=101, now=1.0)  # again
    assert [member.member_id for member in cluster.members.servers()] == ["s2", "s1", "s3"]
    assert [member.member_id for member in cluster.members.clients()] == ["c1"]
    assert cluster.members.server("c1") is None
    assert cluster.members.server("s1") is not None


def test_who_beats_stays_alive(cluster: Cluster) -> None:
    cluster.join()
    for second in range(1, 100):
        assert cluster.beat("s1", float(second), progress=second)
        cluster.members.tick(second + 0.5)
    assert cluster.states() == {"s1": "alive"}


def test_a_silent_server_is_lost_and_stays_on_the_list(
    cluster: Cluster, caplog: pytest.LogCaptureFixture
) -> None:
    cluster.join()
    changes = cluster.members.changes
    cluster.members.tick(3.0)
    assert cluster.states() == {"s1": "alive"}
    cluster.members.tick(3.1)
    assert cluster.states() == {"s1": "lost"}
    assert cluster.members.alive_servers() == []
    assert cluster.members.changes == changes + 1
    cluster.members.tick(50.0)
    assert cluster.members.changes == changes + 1  # one loss
    assert [record.getMessage() for record in caplog.records] == [
        "server name-s1 is lost: no heartbeat for 3.1 s"
    ]
    # Its next beat says that it must join again, and then it is back in its place.
    assert not cluster.beat("s1", 51.0, progress=5)
    cluster.join(now=51.0)
    assert cluster.states() == {"s1": "alive"}


def test_a_server_that_beats_without_progress_hangs_and_may_recover(cluster: Cluster) -> None:
    cluster.join()
    cluster.beat("s1", 0.5, progress=7)
    for second in range(1, 9):
        cluster.beat("s1", float(second), progress=7)
        cluster.members.tick(float(second))
        assert cluster.states() == {"s1": "alive"}
    cluster.beat("s1", 8.6, progress=7)
    cluster.members.tick(8.6)
    assert cluster.states() == {"s1": "hung"}
    assert cluster.members.alive_servers() == []
    changes = cluster.members.changes
    assert cluster.beat("s1", 9.0, progress=7)  # still known
    assert cluster.states() == {"s1": "hung"}
    assert cluster.beat("s1", 9.5, progress=8)
    assert cluster.states() == {"s1": "alive"}
    assert cluster.members.changes == changes + 1
    # A hung one that goes silent is lost.
    cluster.members.tick(20.0)
    assert cluster.states() == {"s1": "lost"}


def test_a_client_hangs_never_and_is_forgotten_when_silent(cluster: Cluster) -> None:
    cluster.join("c1")
    changes = cluster.members.changes
    for second in range(1, 30):
        cluster.beat("c1", float(second), progress=0)
        cluster.members.tick(float(second))
    cluster.members.tick(39.0)
    assert len(cluster.members.clients()) == 1
    cluster.members.tick(39.1)
    assert cluster.members.clients() == []
    assert not cluster.beat("c1", 40.0, progress=0)
    assert cluster.members.changes == changes  # nobody's address changed


def test_a_client_that_others_wait_for_is_missed_as_soon_as_a_server(cluster: Cluster) -> None:
    for member_id in ("c1", "c2"):
        cluster.join(member_id)
    cluster.members.tick(3.0, {"c1"})
    assert len(cluster.members.clients()) == 2
    cluster.members.tick(3.1, {"c1"})
    assert [member.member_id for member in cluster.members.clients()] == ["c2"]
    assert cluster.members.client("c1") is None
    assert cluster.members.client("c2") is not None


def test_clients_that_are_no_longer_there_are_told_with_the_reason(cluster: Cluster) -> None:
    for member_id in ("c1", "c2", "c3", "s1"):
        cluster.join(member_id)
    cluster.members.leave("c1")
    cluster.members.lost_connection(b"c2")
    cluster.members.lost_connection(b"s1")
    cluster.members.tick(10.5)
    told = [(gone.client_id, gone.reason, gone.may_return) for gone in cluster.members.departures]
    assert told == [
        ("c1", "its client was closed", False),
        ("c2", "its connection ended", True),
        ("c3", "no heartbeat for 10.5 s", False),
    ]


def test_an_ended_connection_is_a_loss_at_once(cluster: Cluster) -> None:
    for member_id in ("s1", "s2", "c1"):
        cluster.join(member_id)
    cluster.members.lost_connection(b"s1")
    cluster.members.lost_connection(b"c1")
    cluster.members.lost_connection(b"nobody")
    assert cluster.states() == {"s1": "lost", "s2": "alive"}
    assert cluster.members.clients() == []
    # The connection that a member has now counts, not the one it joined over.
    cluster.members.beat(Beat(1, "s2", 1, 5), b"new", 1.0)
    cluster.members.lost_connection(b"s2")
    assert cluster.states()["s2"] == "alive"


def test_leaving_is_no_loss(cluster: Cluster, caplog: pytest.LogCaptureFixture) -> None:
    cluster.join("s1")
    cluster.join("c1")
    for member_id in ("s1", "c1", "nobody"):
        cluster.members.leave(member_id)
    assert cluster.states() == {"s1": "stopped"}
    assert cluster.members.clients() == []
    cluster.members.tick(100.0)
    cluster.members.lost_connection(b"s1")
    assert cluster.states() == {"s1": "stopped"}
    assert not caplog.records  # nothing to warn of
    assert not cluster.beat("s1", 101.0, progress=9)


def test_a_second_process_with_a_living_servers_identity_is_refused(cluster: Cluster) -> None:
    cluster.join("s1", incarnation=3)
    for changes in ({"pid": 101}, {"host": "elsewhere"}):
        with pytest.raises(Expelled, match="pid 100 on host"):
            cluster.join("s1", incarnation=3, **changes)
    with pytest.raises(Expelled, match=r"incarnation 2.*replaced by incarnation 3"):
        cluster.join("s1", incarnation=2, pid=101)
    cluster.join("s1", incarnation=3)  # the same process, after a reconnect
    # The next incarnation replaces it, and the old one's beats are nobody's.
    cluster.join("s1", incarnation=4, pid=102, address="tcp://moved:1")
    assert not cluster.beat("s1", 1.0, progress=1, incarnation=3)
    assert cluster.beat("s1", 1.0, progress=1, incarnation=4)
    (server,) = cluster.members.servers()
    assert (server.pid, server.address) == (102, "tcp://moved:1")


def test_nobody_joins_as_another_kind_of_member(cluster: Cluster) -> None:
    cluster.join("s1")
    cluster.join("c1")
    with pytest.raises(Expelled, match="s1 is the server name-s1"):
        cluster.join("s1", is_server=False, incarnation=9)
    with pytest.raises(Expelled, match="c1 is the client name-c1"):
        cluster.join("c1", is_server=True)
    assert cluster.states() == {"s1": "alive"}
    assert len(cluster.members.clients()) == 1


def test_a_server_of_an_earlier_master_is_lost_until_it_joins(cluster: Cluster) -> None:
    cluster.members.remember("s2", name="old", address="tcp://old:1", incarnation=5, host="host")
    assert cluster.states() == {"s2": "lost"}
    assert cluster.members.servers()[0].to_content(9.0)["last_beat_s"] is None
    cluster.join("s1")
    with pytest.raises(Expelled, match="replaced"):
        cluster.join("s2", incarnation=4)
    cluster.join("s2", incarnation=5, pid=7, now=8.0)
    assert [member.member_id for member in cluster.members.alive_servers()] == ["s2", "s1"]
    assert cluster.members.servers()[0].to_content(9.0)["last_beat_s"] == 1.0


def test_a_server_without_models_can_be_forgotten(cluster: Cluster) -> None:
    cluster.join("s1")
    changes = cluster.members.changes
    cluster.members.forget("s1")
    cluster.members.forget("s1")
    assert cluster.members.servers() == []
    assert cluster.members.changes == changes + 1
