"""What is no message, or not one for a server, is counted, answered where it can be, and harms nobody."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgpack
import numpy as np
import pytest

from glintpy import config
from glintpy.errors import Expelled, ModelError, RemoteProtocolError
from glintpy.protocol import wire
from glintpy.protocol.kinds import message_types
from glintpy.protocol.messages import Applied, Bye, EndCut, Failure, Message, Probe, Push, ReadCut
from tests.models.raw_peer import (
    COLS,
    NOBODY,
    RawPeer,
    Served,
    Target,
    any_message,
    check_failure,
    header,
    indices,
)

# --- what is no message ------------------------------------------------------------------------------------


def nested(depth: int) -> bytes:
    return b"\x91" * depth + b"\xc0"


GOOD_DESCRIPTORS = [[4, 2], None, [10, 2, COLS]]
ROW_FRAME = indices(3, 5).tobytes()
VALUE_FRAME = np.ones((2, COLS), np.float32).tobytes()

UNREADABLE: dict[str, list[wire.Buffer]] = {
    "no frame's content": [b""],
    "not msgpack": [b"\xc1\xc1\xc1"],
    "text": [b"GET / HTTP/1.1"],
    "too long a header": [header([1, b"x" * 60] * 100)],
    "nested": [nested(1000)],
    "deeply nested and long": [nested(config.HEADER_BYTES_MAX - 1)],
    "declares 4 billion entries": [b"\xdd\xff\xff\xff\xff"],
    "an ext type": [msgpack.packb([1, 4, [msgpack.ExtType(5, b"x")], []])],
    "a timestamp": [msgpack.packb([1, 4, [msgpack.Timestamp(5)], []])],
    "a map": [msgpack.packb({"version": 1})],
    "a list of three": [msgpack.packb([1, 4, []])],
    "a pickle": [b"cos\nsystem\n(S'false'\ntR."],
    "another version": [header([1], version=2)],
    "a version that is no number": [header([1], version="1")],
    "a kind that is no number": [header([1], kind=b"4")],
    "fields that are no list": [msgpack.packb([1, 4, 5, []])],
    "a text without UTF-8": [b"\x94\x01\x04\x91\xa1\xff\x90"],
    "two messages, the second is not": [*wire.encode(Probe(1, NOBODY, 1, 1)), b"\xc1"],
}
"""Frames of which not even the request can be told, or should not be trusted; most get no answer."""


@pytest.mark.parametrize("frames", UNREADABLE.values(), ids=UNREADABLE)
def test_what_cannot_be_read_is_counted_and_harms_nobody(target: Target, frames: list[wire.Buffer]) -> None:
    before = target.peer.status()["malformed"]
    target.peer.send(*frames)
    if wire.request_id_of(frames) is not None:
        answer = target.peer.receive()
        assert isinstance(answer, Failure)
        check_failure(answer, RemoteProtocolError)
    assert target.peer.status()["malformed"] == before + 1
    target.check()


Message4 = tuple[list[Any], int, list[object], list[bytes]]
"""A header's fields, its kind and descriptors, and the frames behind it."""


def _good(target: Target) -> Message4:
    return target.push_fields(), Push.KIND, [*GOOD_DESCRIPTORS], [ROW_FRAME, VALUE_FRAME]


def _with_field(place: int, value: object) -> Callable[[Message4], Message4]:
    return lambda good: ([*good[0][:place], value, *good[0][place + 1 :]], *good[1:])


def _with_array(place: int, descriptor: object, frame: bytes | None = None) -> Callable[[Message4], Message4]:
    def change(good: Message4) -> Message4:
        fields, kind, descriptors, frames = good
        changed = [*descriptors[:place], descriptor, *descriptors[place + 1 :]]
        index = 0 if place == 0 else 1
        return (
            fields,
            kind,
            changed,
            frames if frame is None else [*frames[:index], frame, *frames[index + 1 :]],
        )

    return change


WRONG: dict[str, tuple[Callable[[Message4], Message4], str]] = {
    "unknown kind": (lambda good: (good[0], 99, good[2], good[3]), "unknown kind 99"),
    "negative kind": (lambda good: (good[0], -1, good[2], good[3]), "unknown kind -1"),
    "a field too few": (lambda good: (good[0][:-1], *good[1:]), "13 fields and 3 arrays"),
    "a field too many": (lambda good: ([*good[0], 0], *good[1:]), "13 fields and 3 arrays"),
    "an array too few": (lambda good: (*good[:2], good[2][:-1], good[3]), "3 arrays"),
    "an array too many": (lambda good: (*good[:2], [*good[2], None], good[3]), "3 arrays"),
    "a frame too few": (lambda good: (*good[:3], good[3][:-1]), "lacks the frame of values"),
    "a frame too many": (lambda good: (*good[:3], [*good[3], VALUE_FRAME]), ""),
    "session of 15 bytes": (_with_field(1, bytes(15)), "Push.session"),
    "session as text": (_with_field(1, "x" * 16), "Push.session"),
    "negative floor": (_with_field(2, -1), "Push.floor"),
    "sequence 0": (_with_field(3, 0), "Push.sequence"),
    "sequence of 64 bits": (_with_field(3, 2**64 - 1), "Push.sequence"),
    "sequence as float": (_with_field(3, 1.0), "Push.sequence"),
    "model as None": (_with_field(4, None), "Push.model_id"),
    "part beyond 32 bits": (_with_field(6, 2**32), "Push.part"),
    "a bool as number": (_with_field(7, 1), "Push.wants_values"),
    "a nested field": (_with_field(4, [[[1]]]), "Push.model_id"),
    "rows as int32": (_with_array(0, [3, 2], indices(3).tobytes()), "can't have dtype 3"),
    "rows as float64": (_with_array(0, [11, 2]), "can't have dtype 11"),
    "rows as uint64": (_with_array(0, [8, 2]), "can't have dtype 8"),
    "rows as bool": (_with_array(0, [12, 16]), "can't have dtype 12"),
    "rows in pairs": (_with_array(0, [4, 1, 2]), "shape (1, 2)"),
    "rows missing": (_with_array(0, None), "Push.rows"),
    "too many slices": (
        _with_array(0, [4, config.SLICES_MAX + 1, 3], bytes(24 * config.SLICES_MAX + 24)),
        "4097",
    ),
    "unknown dtype": (_with_array(2, [13, 2, COLS]), "dtype 13"),
    "dtype 0": (_with_array(2, [0, 2, COLS]), "dtype 0"),
    "three dimensions": (_with_array(2, [10, 2, COLS, 1]), "no dtype and shape"),
    "no dimension": (_with_array(2, [10]), "no dtype and shape"),
    "negative length": (_with_array(2, [10, -2, -COLS]), "not a small number"),
    "absurd length": (_with_array(2, [10, 2**40, 2**40]), "48 bytes where"),
    "huge length": (_with_array(2, [10, 2**63, 2]), "not a small number"),
    "length as float": (_with_array(2, [10, 2.0, COLS]), "not a small number"),
    "a byte too few": (_with_array(2, [10, 2, COLS], VALUE_FRAME[:-1]), "47 bytes where its shape needs 48"),
    "a byte too many": (_with_array(2, [10, 2, COLS], VALUE_FRAME + b"x"), "49 bytes"),
    "no bytes": (_with_array(2, [10, 2, COLS], b""), "0 bytes"),
    "bytes for no cell": (_with_array(2, [10, 0, COLS]), "48 bytes where its shape needs 0"),
    "a bool that is neither": (_with_array(2, [12, 6, 8], b"\x02" * 48), "neither True nor False"),
}
"""Changes to a good push that make it none, and what the answer says."""


@pytest.mark.parametrize(("change", "word"), WRONG.values(), ids=WRONG)
def test_a_wrong_message_is_answered_and_uses_no_number(
    target: Target, change: Callable[[Message4], Message4], word: str
) -> None:
    before = target.peer.status()["malformed"]
    fields, kind, descriptors, frames = change(_good(target))
    sent = [header(fields, kind=kind, descriptors=descriptors), *frames]
    failure = target.peer.ask_frames(sent, fields[0], Failure)
    check_failure(failure, RemoteProtocolError, word)
    assert target.peer.status()["malformed"] == before + 1
    target.check()


def test_the_message_that_the_wrong_ones_are_made_from_is_good(target: Target) -> None:
    fields, kind, descriptors, frames = _good(target)
    sent = [header(fields, kind=kind, descriptors=descriptors), *frames]
    target.peer.ask_frames(sent, fields[0], Applied)
    target.peer.applied += 1
    target.num_pushed += 1
    target.check()


def test_malformed_messages_do_not_fill_the_log(
    served: Served, target: Target, caplog: pytest.LogCaptureFixture
) -> None:
    peers = [RawPeer(served.server.address) for _ in range(3)]
    with caplog.at_level(logging.WARNING, logger="glintpy.actors"):
        for peer in peers:
            for _ in range(5):
                peer.send(b"\xc1")
            peer.status()  # answered after them
    lines = [record for record in caplog.records if "malformed" in record.getMessage()]
    assert len(lines) <= 1  # others of this module may have been complained of within the last seconds
    for peer in peers:
        peer.close()
    target.check()


# --- what is not for a server ------------------------------------------------------------------------------

FOR_SERVERS = {
    "Hello",
    "Pull",
    "Push",
    "Compute",
    "Change",
    "Probe",
    "Bye",
    "BeginCut",
    "ReadCut",
    "EndCut",
    "ServerStatus",
    "PushLevels",
    "PushKeys",
    "PullKeys",
    "CountKeys",
    "ScanKeys",
}
OTHERS = {name: kind for kind in message_types().values() if (name := kind.__name__) not in FOR_SERVERS}


@pytest.mark.parametrize("kind", OTHERS.values(), ids=OTHERS)
def test_a_kind_that_is_not_for_a_server_is_refused(target: Target, kind: type[Message]) -> None:
    message = any_message(kind, request_id=target.peer.next_id(), model_id=target.matrix_id)
    failure = target.peer.refused(message, RemoteProtocolError, kind.__name__, "is not for a server")
    assert failure.request_id == message.request_id
    target.check()


def test_a_stranger_ends_no_session_and_reads_no_cut(target: Target) -> None:
    target.peer.send(*wire.encode(Bye(target.peer.next_id(), NOBODY)))
    peer = target.peer
    peer.refused(ReadCut(peer.next_id(), NOBODY, 1, 0, 0, 0), Expelled)
    peer.refused(EndCut(peer.next_id(), NOBODY, 1), Expelled)
    peer.refused(ReadCut(peer.next_id(), peer.session, 2**40, 0, 0, 0), ModelError, "no cut 1099511627776")
    target.check()
