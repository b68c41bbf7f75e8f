"""Whatever arrives at a master, it answers with a typed failure, and models and members stay as they are."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from glintpy import config
from glintpy.config import MESSAGE_BYTES_MAX
from glintpy.errors import (
    ConfigError,
    DTypeError,
    Expelled,
    GlintError,
    ModelExists,
    ModelNotFound,
    NotEnoughMemory,
    ProtocolMismatch,
    RemoteProtocolError,
    ShapeError,
)
from glintpy.protocol import wire
from glintpy.protocol.failures import code_of
from glintpy.protocol.kinds import message_types
from glintpy.protocol.messages import VERSION, Done, Failure, Message
from glintpy.protocol.messages_master import (
    Advance,
    Arrive,
    AwaitClocks,
    Beat,
    BeatSeen,
    ClusterState,
    CreateModel,
    DestroyModel,
    Join,
    JoinGroup,
    Leave,
    LeaveGroup,
    OpenModel,
    PublishModel,
    ReceiveMessages,
    SendMessage,
)
from glintpy.protocol.spec import ModelSpec
from tests.models.raw_peer import RawPeer, Served, a_cluster, any_message, check_failure, header

NO_EXTENTS = np.empty((0, 2), np.int64)


@pytest.fixture(scope="module", params=["local", "tcp"])
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    with a_cluster(request.param) as cluster:
        cluster.client.vector(7, name="kept", init=3)
        yield cluster


@pytest.fixture
def peer(served: Served) -> Iterator[RawPeer]:
    made = RawPeer(served.master.address)
    yield made
    made.close()
    check(served)


def check(served: Served) -> None:
    """See that models and members are what they were, and that the next model can be made."""
    client = served.client
    assert client.models() == ["kept"]
    assert [server["state"] for server in client.servers()] == ["alive"]
    with client.vector(5, init=1) as made:
        np.testing.assert_array_equal(made.pull().result(), np.ones(5))
    np.testing.assert_array_equal(client.open("kept")[:], np.full(7, 3))
    holds = client.status()["servers"][0]["holds"]
    assert [model["name"] for model in holds["models"]] == ["kept"]
    assert holds["model_bytes"] == 7 * 8, "a refused model left a reservation"


def sizes(*found: int) -> NDArray[np.int64]:
    return np.array(found, np.int64)


def a_spec(**changes: Any) -> dict[str, Any]:
    content = ModelSpec("made", 10, 4, "float32").to_content()
    return {**content, **changes}


def creation(peer: RawPeer, *, text: bytes | None = None, **changes: Any) -> CreateModel:
    """Return a wish for a model that is good but for the changes to its spec, or its whole text."""
    spec = wire.document(a_spec(**changes)) if text is None else np.frombuffer(text, np.uint8)
    return CreateModel(
        peer.next_id(),
        os.urandom(16),
        exist_ok=False,
        publish=True,
        owner="",
        spec=spec,
        sizes=sizes(10),
        extents=NO_EXTENTS,
    )


# --- wishes for models -------------------------------------------------------------------------------------

TEXTS = {
    "nothing": b"",
    "no JSON": b"{",
    "no UTF-8": b'"\xff\xfe"',
    "a list": b"[]",
    "a number": b"5",
    "null": b"null",
    "deeply nested lists": b"[" * 100_000,
    "deeply nested maps": b'{"name":' * 50_000,
    "a huge number": b'{"name": ' + b"9" * 10_000 + b"}",
    "a key twice": b'{"name": "a", "name": "b"}',
    "no fields": b"{}",
    "a field too few": json.dumps({key: value for key, value in a_spec().items() if key != "seed"}).encode(),
    "a field too many": json.dumps({**a_spec(), "code": "import os"}).encode(),
    "a megabyte of it": b"[" + b"0," * 500_000 + b"0]",
}


@pytest.mark.parametrize("text", TEXTS.values(), ids=TEXTS)
def test_a_spec_that_is_none_is_refused(peer: RawPeer, text: bytes) -> None:
    peer.refused(creation(peer, text=text), RemoteProtocolError)


FIELDS: dict[str, tuple[dict[str, Any], type[GlintError]]] = {
    "no name": ({"name": ""}, ConfigError),
    "a name that is no text": ({"name": 5}, ConfigError),
    "a name that is a list of lists": ({"name": [[["x"]]]}, ConfigError),
    "a long name": ({"name": "x" * (config.MODEL_NAME_MAX + 1)}, ConfigError),
    "a name with a line break": ({"name": "a\nb"}, ConfigError),
    "negative rows": ({"num_rows": -1}, ShapeError),
    "rows as float": ({"num_rows": 10.0}, ShapeError),
    "rows as text": ({"num_rows": "10"}, ShapeError),
    "rows as bool": ({"num_rows": True}, ShapeError),
    "too many rows": ({"num_rows": 2**62}, ShapeError),
    "rows beyond any integer": ({"num_rows": 10**100}, ShapeError),
    "too many cells": ({"num_rows": 2**40, "num_cols": 2**40}, ShapeError),
    "negative columns": ({"num_cols": -4}, ShapeError),
    "unknown dtype": ({"dtype": "complex64"}, DTypeError),
    "dtype as numpy's language": ({"dtype": "f8,f8"}, DTypeError),
    "object dtype": ({"dtype": "O"}, DTypeError),
    "dtype as number": ({"dtype": 5}, DTypeError),
    "no partitions": ({"partitions_per_server": 0}, ConfigError),
    "absurd partitions": ({"partitions_per_server": 2**60}, ConfigError),
    "unknown updater": ({"updater": "os.system"}, ConfigError),
    "an updater of many wide letters": ({"updater": "\U0001f4a3" * 100_000}, ConfigError),
    "an updater that is no letter": ({"updater": "\ud800"}, ConfigError),
    "init of an unknown kind": ({"init": ["exec", 0, 1]}, ConfigError),
    "init of two": ({"init": ["uniform", 0]}, ConfigError),
    "init of infinite width": ({"init": ["uniform", -3e38, 3e39]}, ConfigError),
    "init as a map": ({"init": {"uniform": 1}}, ConfigError),
    "init that doesn't fit": ({"init": 1e300}, DTypeError),
    "a seed of 65 bits": ({"seed": 2**64}, ConfigError),
    "finite as number": ({"finite": 1}, ConfigError),
    "partitioner without a name": ({"partitioner": ""}, ConfigError),
    "random init without extents": ({"init": ["normal", 0, 1]}, ShapeError),
    "rows that the sizes don't have": ({"num_rows": 11}, ShapeError),
}


@pytest.mark.parametrize(("changes", "error"), FIELDS.values(), ids=FIELDS)
def test_a_spec_with_a_wrong_field_is_refused(
    peer: RawPeer, changes: dict[str, Any], error: type[GlintError]
) -> None:
    peer.refused(creation(peer, **changes), error)


ARRAYS: dict[str, tuple[dict[str, Any], type[GlintError], str]] = {
    "too few": ({"sizes": sizes(4, 5)}, ShapeError, "10 rows"),
    "negative": ({"sizes": sizes(11, -1)}, ShapeError, "10 rows"),
    "wrapping": ({"sizes": sizes(*[2**62] * 4, 10)}, ShapeError, "10 rows"),
    "none": ({"sizes": sizes()}, ShapeError, "0 partitions"),
    "too many": (
        {"sizes": np.zeros(config.PARTITIONS_MAX + 1, np.int64)},
        ShapeError,
        str(config.PARTITIONS_MAX + 1),
    ),
    "floats": ({"sizes": np.array([10.0])}, RemoteProtocolError, "int64"),
    "unsigned": ({"sizes": np.array([10], np.uint64)}, RemoteProtocolError, "int64"),
    "two dimensions": ({"sizes": sizes(10).reshape(1, 1)}, RemoteProtocolError, "int64"),
    "extents for two": ({"extents": sizes(0, 1, 0, 1).reshape(2, 2)}, ShapeError, "(2, 2)"),
    "extents in a row": ({"extents": sizes(0, 1)}, ShapeError, "(2,)"),
    "extents as floats": ({"extents": np.zeros((1, 2))}, RemoteProtocolError, "extents"),
}


@pytest.mark.parametrize(("changes", "error", "word"), ARRAYS.values(), ids=ARRAYS)
def test_partitions_that_do_not_fit_are_refused(
    peer: RawPeer, changes: dict[str, Any], error: type[GlintError], word: str
) -> None:
    peer.refused(replace(creation(peer), **changes), error, word)


def test_a_model_that_does_not_fit_is_refused_with_the_numbers(peer: RawPeer) -> None:
    num_rows = 2**50
    wish = replace(creation(peer, num_rows=num_rows), sizes=sizes(num_rows))
    peer.refused(wish, NotEnoughMemory, str(num_rows * 16), "free")


def test_a_name_that_is_taken_is_refused(peer: RawPeer) -> None:
    peer.refused(creation(peer, name="kept"), ModelExists, "'kept'")
    peer.refused(replace(creation(peer, name="kept"), exist_ok=True), ModelExists, "differs")


@pytest.mark.parametrize("extent", [(2**62, 2**62), (-(2**63), -1), (0, 0), (2**63 - 1, 2**63 - 1)])
def test_extents_that_name_absurd_rows_are_answered(peer: RawPeer, extent: tuple[int, int]) -> None:
    wish = replace(creation(peer, init=["uniform", 0, 1]), extents=sizes(*extent).reshape(1, 2))
    answer = peer.ask(wish, Message)
    if isinstance(answer, Done):  # values of other rows: the sender's own model, and nobody else's
        model_id = wire.content(answer.document)["model_id"]
        peer.ask(DestroyModel(peer.next_id(), model_id), Done)
    else:
        assert isinstance(answer, Failure)


def test_a_wish_that_is_repeated_is_granted_once(peer: RawPeer) -> None:
    wish = creation(peer)
    first = wire.content(peer.ask(wish, Done).document)
    assert wire.content(peer.ask(wish, Done).document) == first
    peer.ask(DestroyModel(peer.next_id(), first["model_id"]), Done)


@pytest.mark.parametrize("kind", [PublishModel, DestroyModel])
def test_a_model_that_is_not_there_is_not_found(peer: RawPeer, kind: Callable[[int, int], Message]) -> None:
    for model_id in (0, 2**62):
        peer.refused(kind(peer.next_id(), model_id), ModelNotFound, str(model_id))
        peer.refused(OpenModel(peer.next_id(), model_id, ""), ModelNotFound, str(model_id))
    peer.refused(OpenModel(peer.next_id(), 0, "no\nsuch"), ModelNotFound)


# --- members -----------------------------------------------------------------------------------------------


def a_join(peer: RawPeer, **changes: Any) -> Join:
    join = Join(
        peer.next_id(),
        VERSION,
        VERSION,
        is_server=False,
        member_id="stranger",
        name="stranger",
        address="",
        incarnation=0,
        pid=1,
        host="elsewhere",
        cluster_id="",
        era="",
        highest_model=0,
    )
    return replace(join, **changes)


@pytest.mark.parametrize("versions", [(2, 9), (255, 255)])
@pytest.mark.parametrize("is_server", [False, True])
def test_another_version_is_refused_and_both_are_named(
    peer: RawPeer, versions: tuple[int, int], is_server: bool
) -> None:
    low, high = versions
    join = a_join(peer, version_min=low, version_max=high, is_server=is_server)
    peer.refused(join, ProtocolMismatch, f"{low} to {high}", f"speaks {VERSION}")


def test_a_server_of_another_cluster_is_refused(peer: RawPeer) -> None:
    mine = wire.content(peer.ask(ClusterState(peer.next_id()), Done).document)["cluster_id"]
    peer.refused(a_join(peer, is_server=True, cluster_id="another"), ConfigError, "another", mine)


def test_nobody_takes_a_servers_place(served: Served, peer: RawPeer) -> None:
    server = served.client.servers()[0]
    join = a_join(peer, member_id=server["id"], name=server["name"], incarnation=server["incarnation"])
    peer.refused(replace(join, is_server=True), Expelled, str(server["pid"]))
    older = replace(join, request_id=peer.next_id(), is_server=True, incarnation=server["incarnation"] - 1)
    peer.refused(older, Expelled, "replaced")
    peer.refused(replace(join, request_id=peer.next_id()), Expelled, "server")
    # Neither does a server take a client's.
    client = served.client.clients()[0]
    taken = a_join(peer, member_id=client["id"], is_server=True, address="tcp://127.0.0.1:9")
    peer.refused(taken, Expelled, "client")


def test_a_beat_and_a_leave_of_nobody_change_nothing(peer: RawPeer) -> None:
    assert not peer.ask(Beat(peer.next_id(), "nobody", 1, 1), BeatSeen).known
    peer.ask(Leave(peer.next_id(), "nobody"), Done)


# --- what nobody in a group would ask ----------------------------------------------------------------------


def test_workers_that_can_not_be_are_refused_and_make_no_group(served: Served, peer: RawPeer) -> None:
    token = os.urandom(16)
    peer.refused(JoinGroup(peer.next_id(), "x", token, "g\n", 0, 0, False, 0), ConfigError, "printable")
    peer.refused(JoinGroup(peer.next_id(), "x", token, "g", 2**62, 0, False, 0), ConfigError, "at most")
    for message in (
        Arrive(peer.next_id(), token, 1, 0, 2**32 - 1),
        Advance(peer.next_id(), token, 2**63 - 1),
        AwaitClocks(peer.next_id(), token, 0, 0, False, 0, 0),
        SendMessage(peer.next_id(), token, 1, 0, None, np.empty(0, np.uint8)),
        ReceiveMessages(peer.next_id(), token, 0, 0, 0),
    ):
        peer.refused(message, Expelled, "knows no such worker")
    peer.ask(LeaveGroup(peer.next_id(), token, is_orderly=False), Done)
    assert served.client.status()["groups"] == []


def test_a_worker_with_numbers_of_any_size_has_its_answers(served: Served, peer: RawPeer) -> None:
    token, most = os.urandom(16), 2**63 - 1
    peer.ask(JoinGroup(peer.next_id(), served.client.clients()[0]["id"], token, "g", 0, 0, True, 0), Done)
    peer.refused(Arrive(peer.next_id(), token, most, 0, 0), RemoteProtocolError, "after barrier 0")
    peer.ask(Advance(peer.next_id(), token, most), Done)
    peer.ask(AwaitClocks(peer.next_id(), token, most, 0, False, most, 0), Done)
    peer.ask(AwaitClocks(peer.next_id(), token, 0, most, True, most, 2**32 - 1), Done)
    peer.ask(Arrive(peer.next_id(), token, 1, most, 2**32 - 1), Done)
    peer.ask(LeaveGroup(peer.next_id(), token, is_orderly=True), Done)
    assert served.client.status()["groups"] == []


def test_messages_that_cannot_be_are_refused_and_change_nothing(served: Served, peer: RawPeer) -> None:
    token, most = os.urandom(16), 2**63 - 1
    empty = np.empty(0, np.uint8)
    peer.ask(JoinGroup(peer.next_id(), served.client.clients()[0]["id"], token, "g", 0, 6, True, 0), Done)
    peer.refused(
        SendMessage(peer.next_id(), token, 1, 0, np.zeros((1, 3), np.int64), empty),
        RemoteProtocolError,
        "are a list",
    )
    too_long = np.zeros(MESSAGE_BYTES_MAX + 1, np.uint8)
    peer.refused(SendMessage(peer.next_id(), token, 1, 0, None, too_long), ConfigError, "at most")
    peer.refused(
        ReceiveMessages(peer.next_id(), token, 1, 0, 0),
        RemoteProtocolError,
        "it has message 1 and heard of 0",
    )
    peer.refused(ReceiveMessages(peer.next_id(), token, 0, most, 0), RemoteProtocolError, str(most))
    peer.ask(SendMessage(peer.next_id(), token, most, most, np.array([5, 5]), empty), Done)
    (found,) = served.client.status()["groups"][0]["workers"]
    assert (found["rank"], found["num_messages"]) == (5, 1)
    peer.ask(LeaveGroup(peer.next_id(), token, is_orderly=True), Done)
    assert served.client.status()["groups"] == []


# --- what is not for a master ------------------------------------------------------------------------------

FOR_MASTERS = {
    *(
        "Beat",
        "Join",
        "Leave",
        "CreateModel",
        "OpenModel",
        "PublishModel",
        "DestroyModel",
        "ConfigureModel",
        "ClusterState",
    ),
    *("JoinGroup", "Arrive", "Advance", "AwaitClocks", "LeaveGroup", "SendMessage", "ReceiveMessages"),
    *("Done", "Failure"),
}
OTHERS = {name: kind for kind in message_types().values() if (name := kind.__name__) not in FOR_MASTERS}


@pytest.mark.parametrize("kind", OTHERS.values(), ids=OTHERS)
def test_a_kind_that_is_not_for_a_master_is_refused(peer: RawPeer, kind: type[Message]) -> None:
    message = any_message(kind, request_id=peer.next_id(), model_id=1)
    peer.refused(message, RemoteProtocolError, kind.__name__, "is not for a master")


def test_answers_that_nobody_asked_for_are_dropped(peer: RawPeer) -> None:
    for request_id in (*range(1, 40), 2**62):
        peer.send(*wire.encode(Done(request_id, wire.document({}))))
        peer.send(*wire.encode(Failure(request_id, 0, code_of(NotEnoughMemory()), 0, "no")))
    peer.ask(ClusterState(peer.next_id()), Done)  # the next answer is its own


def test_what_cannot_be_read_is_answered_where_it_can_be(peer: RawPeer) -> None:
    peer.send(b"\xc1")
    peer.send(b"GET / HTTP/1.1")
    failure = peer.ask_frames([header([7], kind=44)], 7, Failure)
    check_failure(failure, RemoteProtocolError, "CreateModel")
    peer.ask(ClusterState(peer.next_id()), Done)
