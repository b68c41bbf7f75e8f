"""Frames that no peer of ours would send: each is one precise error, at little cost, and is nobody else's."""

from __future__ import annotations

import dataclasses
import tracemalloc
from typing import Any

import msgpack
import pytest

from glintpy import config
from glintpy.errors import RemoteProtocolError
from glintpy.protocol import wire
from glintpy.protocol.kinds import message_types
from glintpy.protocol.messages import VERSION, Applied, Message, Push, ServerStatus, Values
from tests.unit.wire_cases import KINDS, header_of, refused, simple_message, values_header

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


# --- headers that no peer of ours would send -------------------------------------------------------------


def test_no_frames_at_all() -> None:
    with pytest.raises(RemoteProtocolError, match="without frames"):
        wire.decode_all([])


@pytest.mark.parametrize(
    "header",
    [b"", b"\xc1", b"\x94", b"\x94\x01\x09", b"\xc0", b"\x80", b"\x94\x01\x09\x90\x90\x00", b"\xa1\xff"],
    ids=lambda header: header.hex() or "empty",
)
def test_a_header_that_is_no_list_of_four(header: bytes) -> None:
    refused(header, match="header")


@pytest.mark.parametrize("header", [[], [1], [1, 9, []], [1, 9, [], [], []], {}, "abcd", 4])
def test_a_header_of_another_form(header: Any) -> None:
    refused(header, match="list of four")


@pytest.mark.parametrize("version", [0, 2, 255, -1, "1", None, True, 1.0, [1], 2**63])
def test_another_version_is_named(version: Any) -> None:
    assert f"this side speaks {VERSION}" in refused([version, 9, [], []], match="version")


@pytest.mark.parametrize("kind", [0, max(message_types()) + 1, 255, -1, 2**63])
def test_an_unknown_kind_is_named(kind: int) -> None:
    assert kind not in message_types()
    refused([VERSION, kind, [1], []], match=f"unknown kind {kind}")


@pytest.mark.parametrize("header", [[1, "9", [], []], [1, 9, {}, []], [1, 9, [], {}], [1, True, [], []]])
def test_kind_fields_and_arrays_have_their_types(header: list[Any]) -> None:
    refused(header, match="wrong type")


@by_kind
def test_one_field_more_or_less_is_refused(kind: type[Message]) -> None:
    message = simple_message(kind)
    version, number, values, arrays = header_of(message)
    frames = wire.encode(message)[1:]
    for fields in ([*values, 0], values[:-1]):
        refused([version, number, fields, arrays], *frames, match=rf"{kind.__name__} has \d+ fields")
    refused(
        [version, number, values, [*arrays, [1, 0]]], *frames, b"", match=rf"{kind.__name__} has \d+ fields"
    )
    if arrays:
        refused(
            [version, number, values, arrays[:-1]], *frames[:-1], match=rf"{kind.__name__} has \d+ fields"
        )


def test_a_header_of_one_byte_too_many() -> None:
    exact = config.HEADER_BYTES_MAX
    refused(b"\x94" + bytes(exact), match=f"{exact + 1} bytes, more than {exact}")
    # At the limit it is read, and found to be something else.
    refused(b"\x94" + bytes(exact - 1), match="not msgpack")


@pytest.mark.parametrize("depth", [1, 100, 500, 900, 1000, 1020, 1100, 4000])
@pytest.mark.parametrize(
    "template", [b"\x94%b\x09\x90\x90", b"\x94\x01%b\x90\x90", b"\x94\x01\x1a\x91%b\x90"]
)
def test_nested_lists_are_refused_at_any_depth(depth: int, template: bytes) -> None:
    # The repr of a thousand nested lists is a RecursionError: such a value is refused without showing it.
    refused(template % (b"\x91" * depth + b"\xc0"))


@pytest.mark.parametrize("empty", [b"\x80", b"\x90", b"\xa0", b"\xc4\x00"])
def test_a_megabyte_of_empties_costs_no_memory(empty: bytes) -> None:
    header = b"\x94\x01\x09\xdd\x00\x10\x00\x00" + empty * 2**20
    assert _peak_bytes(header) < 100_000


@pytest.mark.parametrize(
    "filling",
    [b"\x80", b"\x90", b"\xdc\x00\x40", b"\xdd\x00\x00\x00\x40", b"\x91", b"\x81\x00", b"\xdc\x00\x40\x90"],
    ids=lambda filling: filling.hex(),
)
def test_the_worst_header_within_the_limit_stays_below_two_megabytes(filling: bytes) -> None:
    header = b"\x94\x01\x09" + (b"\xdc\x00\x40" + filling * 64) * 60
    assert _peak_bytes(header[: config.HEADER_BYTES_MAX]) < 2 * config.MIB
    header = b"\x94\x01\x09" + filling * config.HEADER_BYTES_MAX
    assert _peak_bytes(header[: config.HEADER_BYTES_MAX]) < 2 * config.MIB


def _peak_bytes(header: bytes) -> int:
    tracemalloc.start()
    try:
        with pytest.raises(RemoteProtocolError):
            wire.decode_all([header])
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize(
    "value",
    [
        msgpack.ExtType(1, b""),
        msgpack.ExtType(5, b"abc"),
        msgpack.Timestamp(1, 0),
        {1: 2},
        {"a": {}},
        1.5,
        2**64 - 1,
    ],
    ids=repr,
)
def test_types_that_no_field_has_are_refused(value: Any) -> None:
    refused([VERSION, ServerStatus.KIND, [value], []])


@pytest.mark.parametrize(
    "declared", [b"\xdd\xff\xff\xff\xff", b"\xdf\xff\xff\xff\xff", b"\xdb\xff\xff\xff\xff"]
)
def test_a_length_that_the_bytes_do_not_bring_along_allocates_nothing(declared: bytes) -> None:
    assert _peak_bytes(b"\x94\x01\x09" + declared) < 100_000


# --- arrays that don't fit their frames ------------------------------------------------------------------


@pytest.mark.parametrize("change", [-8, -1, 1, 8])
def test_a_frame_of_another_length_than_its_shape_needs(change: int) -> None:
    refused(
        values_header(11, 4), bytes(32 + change), match=f"has {32 + change} bytes where its shape needs 32"
    )


def test_frames_missing_and_frames_too_many() -> None:
    refused(values_header(11, 4), match=r"Values.values lacks the frame|lacks the frame of values")
    frames = wire.encode(simple_message(Push))
    for count in range(1, len(frames)):
        refused(*[bytes(frame) for frame in frames[:count]], match="lacks the frame")
    refused(*[bytes(frame) for frame in frames], b"", match="header")


@pytest.mark.parametrize(
    "shape",
    [
        (2**63,),
        (2**64 - 1,),
        (2**48,),
        (2**32, 2**32),
        (2**47, 2**47),
        (2**31, 2**33),
        (-1,),
        (-1, -4),
        (2, -2),
    ],
)
def test_absurd_shapes_are_refused(shape: tuple[int, ...]) -> None:
    # 2**32 x 2**32 is 0 in 64 bits, the length of an empty frame.
    refused(values_header(11, *shape), b"")
    refused(values_header(11, *shape), bytes(32))


@pytest.mark.parametrize(
    "descriptor", [None, 3, [], [11], [11, 1, 1, 1], ["11", 1], [11, "1"], [11, 1.0], [True, 1]]
)
def test_a_descriptor_that_is_no_dtype_and_shape(descriptor: Any) -> None:
    refused([VERSION, Values.KIND, [1, 0, 0], [descriptor]], bytes(8), match=r"Values.values")


@pytest.mark.parametrize("code", [0, 13, 255, 2**40])
def test_an_unknown_dtype(code: int) -> None:
    refused(values_header(code, 1), bytes(8), match=f"can't have dtype {code}")


@pytest.mark.parametrize("byte", [2, 128, 255])
def test_bytes_that_are_neither_true_nor_false(byte: int) -> None:
    refused(values_header(12, 3), bytes([0, 1, byte]), match="neither True nor False")


def test_one_bad_message_refuses_all_that_came_with_it() -> None:
    good = [bytes(frame) for frame in wire.encode(simple_message(Values))]
    refused(*good, b"\xc0", match="list of four")


def test_more_messages_than_may_travel_together() -> None:
    frames = wire.encode(Applied(1, 0, 0)) * (config.MERGED_MESSAGES_MAX + 1)
    refused(*[bytes(frame) for frame in frames], match=f"more than {config.MERGED_MESSAGES_MAX}")


# --- the request that broken frames belong to ------------------------------------------------------------


@by_kind
def test_the_request_is_found_in_frames_that_cannot_be_decoded(kind: type[Message]) -> None:
    message = dataclasses.replace(simple_message(kind), request_id=77)
    header = header_of(message)
    header[2].append("one field too many")
    assert wire.request_id_of([msgpack.packb(header)]) == 77


@pytest.mark.parametrize(
    "frames",
    [[], [b""], [b"\xff"], [msgpack.packb([1, 9, [], []])], [msgpack.packb([1, 9, [True], []])]]
    + [[msgpack.packb([1, 9, [value], []])] for value in (-1, 2**63, "7", None, [7])],
    ids=repr,
)
def test_no_request_is_made_up(frames: list[bytes]) -> None:
    assert wire.request_id_of(frames) is None
