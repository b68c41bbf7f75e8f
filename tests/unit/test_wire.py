"""Messages to frames and back: everything allowed goes through, everything else is one precise error."""

from __future__ import annotations

import dataclasses
import json
import re
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glintpy import config
from glintpy.errors import LocalProtocolError, RemoteProtocolError
from glintpy.protocol import dtypes, failures, wire
from glintpy.protocol.fields import U63, Bool, Bytes, Frame, Int, Rule, Text
from glintpy.protocol.messages import (
    VERSION,
    Applied,
    Failure,
    Message,
    Probe,
    Push,
    Values,
    rules_of,
)
from tests.unit.wire_cases import (
    KINDS,
    header_of,
    messages,
    messages_of,
    refused,
    same,
    simple_message,
    values_header,
)

SPECIFICATION = Path(__file__).parents[2] / "docs" / "protocol.md"
SESSION = bytes(range(16))

by_kind = pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)


def decode(frames: list[Any]) -> Message:
    (message,) = wire.decode_all(frames)
    return message


def changed(message: Message, **values: Any) -> Message:
    return dataclasses.replace(message, **values)


# --- what is allowed goes through ------------------------------------------------------------------------


@by_kind
@given(data=st.data())
def test_every_message_comes_back_as_it_was(kind: type[Message], data: st.DataObject) -> None:
    message = data.draw(messages_of(kind))
    frames = wire.encode(message)
    assert same(decode(frames), message)
    assert [bytes(frame) for frame in wire.encode(decode(frames))] == [bytes(frame) for frame in frames]


@by_kind
def test_the_longest_texts_and_largest_numbers_fit_into_a_header(kind: type[Message]) -> None:
    largest = changed(
        simple_message(kind), **{name: _largest(rule) for name, rule in rules_of(kind) if _is_scalar(rule)}
    )
    assert same(decode(wire.encode(largest)), largest)


def _is_scalar(rule: Rule) -> bool:
    return not isinstance(rule, Frame)


def _largest(rule: Rule) -> Any:
    match rule:
        case Int(_, high):
            return high
        case Bytes(lengths):
            return b"\xff" * max(lengths)
        case Text(characters_max):
            # Letters of three bytes; what may still be longer than a header is cut by whoever writes it.
            return failures.fitting_text("\u20ac" * characters_max)
        case _:
            return True


@given(st.text() | st.text(st.characters(categories=["Cs"])), st.integers(0, 40))
def test_a_fitting_text_is_the_start_of_the_text_in_so_many_bytes(text: str, bytes_max: int) -> None:
    fitting = failures.fitting_text(text, bytes_max=bytes_max)
    assert len(fitting.encode()) <= bytes_max
    assert text.encode("utf-8", "backslashreplace").decode().startswith(fitting)
    if len(text.encode("utf-8", "backslashreplace")) <= bytes_max - 3:
        assert fitting == text.encode("utf-8", "backslashreplace").decode()


@given(st.lists(messages(), min_size=1, max_size=12))
def test_merged_messages_come_back_in_order(several: list[Message]) -> None:
    joined = list(wire.merge([wire.encode(message) for message in several]))
    found = [message for frames in joined for message in wire.decode_all(frames)]
    assert len(found) == len(several)
    assert all(same(one, other) for one, other in zip(found, several, strict=True))


def test_merging_stops_at_its_two_limits() -> None:
    small = wire.encode(Applied(1, 0, 0))
    joined = list(wire.merge([small] * (config.MERGED_MESSAGES_MAX + 1)))
    assert [len(wire.decode_all(frames)) for frames in joined] == [config.MERGED_MESSAGES_MAX, 1]
    third = wire.encode(Values(1, 0, 0, np.zeros(config.MERGED_BYTES_MAX // 3, np.uint8)))
    assert [len(wire.decode_all(frames)) for frames in wire.merge([third] * 5)] == [2, 2, 1]
    large = wire.encode(Values(1, 0, 0, np.zeros(config.MERGED_BYTES_MAX, np.uint8)))
    assert [len(wire.decode_all(frames)) for frames in wire.merge([small, large, small])] == [1, 1, 1]
    assert list(wire.merge([])) == []


def test_merging_leaves_its_input_alone() -> None:
    small = wire.encode(Applied(1, 0, 0))
    list(wire.merge([small, small]))
    assert len(small) == 1


def test_arrays_are_read_only_views_of_the_frames() -> None:
    frame = bytearray(np.arange(4, dtype="<f8").tobytes())
    message = decode([msgpack.packb(values_header(11, 4)), frame])
    assert isinstance(message, Values)
    assert not message.values.flags.writeable
    frame[:8] = np.array([7.0]).tobytes()
    assert message.values[0] == 7.0


def test_an_array_that_is_not_contiguous_travels_in_c_order() -> None:
    array = np.arange(12, dtype=np.int32).reshape(3, 4)
    message = decode(wire.encode(Values(1, 0, 0, array.T[::2])))
    assert isinstance(message, Values)
    np.testing.assert_array_equal(message.values, array.T[::2])


@pytest.mark.parametrize("shape", [(0,), (0, 0), (3, 0), (0, 3), (0, 2**47)])
def test_empty_arrays_keep_their_shape(shape: tuple[int, ...]) -> None:
    message = decode(wire.encode(Values(1, 0, 0, np.empty(shape, np.float32))))
    assert isinstance(message, Values)
    assert message.values.shape == shape


@given(st.recursive(st.none() | st.booleans() | st.integers() | st.text(), st.lists, max_leaves=8))
def test_documents_come_back(content: Any) -> None:
    assert wire.content(wire.document({"content": content})) == {"content": content}


@pytest.mark.parametrize("text", [b"", b"{", b"[" * 100_000, b"\xff\xfe", b"1" * 10_000])
def test_a_document_that_is_not_json_is_refused(text: bytes) -> None:
    with pytest.raises(RemoteProtocolError, match="not JSON"):
        wire.content(np.frombuffer(text, np.uint8))


# --- each rule, broken by us and by a peer ---------------------------------------------------------------


def _against(rule: Rule) -> list[Any]:
    match rule:
        case Int(low, high):
            return (
                [low - 1, high + 1, None, "1", b"1", 1.0, True, [], [1]]
                if high < U63
                else [low - 1, None, True]
            )
        case Bytes(lengths):
            return [bytes(max(lengths) + 1), bytes(max(lengths) - 1), "x" * max(lengths), None, 0, []]
        case Text(characters_max):
            return (
                ["x" * (characters_max + 1), b"x", None, 0, []] if characters_max < 3000 else [b"x", None, 0]
            )
        case Bool():
            return [0, 1, None, "", b""]
        case Frame():
            return []


SCALARS = [
    pytest.param(kind, index, value, id=f"{kind.__name__}.{name}={value!r:.20}")
    for kind in KINDS
    for index, (name, rule) in enumerate(rules_of(kind))
    for value in _against(rule)
]


@pytest.mark.parametrize(("kind", "index", "value"), SCALARS)
def test_a_field_against_its_rule_is_refused_on_both_sides(
    kind: type[Message], index: int, value: Any
) -> None:
    name, _ = rules_of(kind)[index]
    message = simple_message(kind)
    with pytest.raises(LocalProtocolError, match=f"{kind.__name__}.{name} can't be"):
        wire.encode(changed(message, **{name: value}))
    header = header_of(message)
    header[2][index] = value
    frames = wire.encode(message)[1:]
    refused(header, *frames, match=f"{kind.__name__}.{name} can't be")


ARRAYS = [
    ("rows", np.zeros(3, np.float64), "no index dtype"),
    ("rows", np.zeros(3, np.uint64), "no index dtype"),
    ("rows", np.zeros((3, 3), np.uint32), "slices are int64"),
    ("rows", np.zeros((3, 2), np.int64), "slices are triples"),
    ("rows", np.zeros((config.SLICES_MAX + 1, 3), np.int64), "too many slices"),
    ("rows", np.zeros((), np.int64), "no dimension"),
    ("rows", np.zeros((1, 1, 3), np.int64), "three dimensions"),
    ("cols", np.zeros(3, np.int32), "no index dtype"),
    ("values", np.zeros((), np.float64), "no dimension"),
    ("values", np.zeros((1, 1, 1), np.float64), "three dimensions"),
]


@pytest.mark.parametrize(
    ("name", "array", "reason"), ARRAYS, ids=[f"{name}: {why}" for name, _, why in ARRAYS]
)
def test_an_array_against_its_rule_is_refused_on_both_sides(
    name: str, array: np.ndarray[Any, Any], reason: str
) -> None:
    message = simple_message(Push)
    with pytest.raises(LocalProtocolError, match=f"Push.{name} can't be"):
        wire.encode(changed(message, **{name: array}))
    header = header_of(message)
    index = [field for field, rule in rules_of(Push) if isinstance(rule, Frame)].index(name)
    header[3][index] = [dtypes.CODE_OF[array.dtype], *array.shape]
    frames = [bytes(frame) for frame in wire.encode(message)[1:]]
    frames[index] = array.tobytes()
    assert refused(header, *frames, match=f"Push.{name} "), reason


@pytest.mark.parametrize("dtype", ["M8[s]", "c16", "S3", "O", ">f8", "g"])
def test_an_array_of_a_dtype_without_a_code_is_refused(dtype: str) -> None:
    with pytest.raises(LocalProtocolError, match="can't be"):
        wire.encode(Values(1, 0, 0, np.empty(2, dtype)))


@pytest.mark.parametrize("value", [None, [1, 2], 5, b"12345678"])
def test_what_is_no_array_is_refused(value: Any) -> None:
    with pytest.raises(LocalProtocolError, match=r"Push.rows is an array"):
        wire.encode(changed(simple_message(Push), rows=value))


def test_only_an_optional_array_may_be_none() -> None:
    header = header_of(simple_message(Push))
    rows, cols, values = (bytes(frame) for frame in wire.encode(simple_message(Push))[1:])
    header[3] = [header[3][0], None, header[3][2]]
    message = decode([msgpack.packb(header), rows, values])
    assert isinstance(message, Push)
    assert message.cols is None
    header[3] = [None, header[3][0], header[3][2]]
    refused(header, cols, values, match=r"Push.rows has no dtype and shape")


def test_an_array_beyond_the_longest_frame_is_refused_before_it_leaves() -> None:
    with pytest.raises(LocalProtocolError, match=f"more than {config.FRAME_BYTES_MAX}"):
        wire.encode(Values(1, 0, 0, np.empty(config.FRAME_BYTES_MAX + 1, np.uint8)))


def test_a_text_that_makes_the_header_too_long_is_refused_before_it_leaves() -> None:
    with pytest.raises(LocalProtocolError, match=f"at most {config.HEADER_BYTES_MAX}"):
        wire.encode(Failure(1, 0, 1, 0, "\U0001f9ca" * 3000))


def test_half_a_surrogate_pair_is_refused_before_it_leaves() -> None:
    with pytest.raises(LocalProtocolError, match="without UTF-8"):
        wire.encode(Failure(1, 0, 1, 0, "a file named \udcff"))


# --- the document and the code say the same --------------------------------------------------------------


def vectors() -> list[dict[str, Any]]:
    """Return the test vectors of the specification."""
    section = SPECIFICATION.read_text(encoding="utf-8").split("\n## Test vectors\n", 1)[1]
    return [json.loads(block) for block in re.findall(r"```json\n(.*?)```", section, re.DOTALL)]


def message_of(described: dict[str, Any]) -> Message:
    """Return the message that a vector describes."""
    kind = {kind.__name__: kind for kind in KINDS}[described["kind"]]
    return kind(**{name: _field_of(value) for name, value in described["fields"].items()})


def _field_of(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    if "hex" in value:
        return bytes.fromhex(value["hex"])
    if "document" in value:
        return np.frombuffer(value["document"].encode(), np.uint8)
    return np.array(value["values"], dtype=value["dtype"]).reshape(value["shape"])


by_vector = pytest.mark.parametrize("vector", vectors(), ids=lambda vector: vector["name"])


@by_vector
def test_encoding_gives_the_bytes_in_the_specification(vector: dict[str, Any]) -> None:
    several = [message_of(described) for described in vector["messages"]]
    (frames,) = wire.merge([wire.encode(message) for message in several])
    assert [bytes(frame).hex() for frame in frames] == [text.replace(" ", "") for text in vector["frames"]]


@by_vector
def test_decoding_the_bytes_in_the_specification_gives_the_messages(vector: dict[str, Any]) -> None:
    found = wire.decode_all([bytes.fromhex(text) for text in vector["frames"]])
    expected = [message_of(described) for described in vector["messages"]]
    assert len(found) == len(expected)
    assert all(same(one, other) for one, other in zip(found, expected, strict=True))


def test_the_vectors_show_every_type_of_field_and_a_merged_message() -> None:
    shown = [vector["messages"] for vector in vectors()]
    assert {"Push", "Pull", "Hello", "Welcome", "Values", "Failure", "Report"} <= {
        described["kind"] for several in shown for described in several
    }
    assert any(len(several) > 1 for several in shown)


def rule_in_words(rule: Rule) -> str:
    """Return what the specification's tables call a rule."""
    match rule:
        case Int(low, high):
            top = {U63: "2^63-1", 2**32 - 1: "2^32-1"}.get(high, str(high))
            return f"int {low} to {top}"
        case Bytes(lengths):
            return f"bytes, {' or '.join(map(str, lengths))}"
        case Text(characters_max):
            return f"text, at most {characters_max}"
        case Bool():
            return "bool"
        case Frame(index, document, optional):
            what = "index array" if index else "document" if document else "array"
            return f"{what} or nil" if optional else what


@by_kind
def test_the_specification_has_every_kind_with_its_fields_in_order(kind: type[Message]) -> None:
    text = SPECIFICATION.read_text(encoding="utf-8")
    title = f"#### {kind.KIND} {kind.__name__}\n"
    assert text.count(title) == 1, f"docs/protocol.md lacks the heading {title.strip()!r}"
    section = re.split(r"\n#", text.split(title, 1)[1], maxsplit=1)[0]
    rows = re.findall(r"^\| `(\w+)` \| ([^|]+) \| [^|]+ \|$", section, re.MULTILINE)
    # The request's number stands first in all of them and is explained once.
    expected = [(name, rule_in_words(rule)) for name, rule in rules_of(kind)][1:]
    assert [(name, words.strip()) for name, words in rows] == expected


def test_the_specification_has_no_kind_that_is_not_there() -> None:
    titles = re.findall(r"^#### (\d+) (\w+)$", SPECIFICATION.read_text(encoding="utf-8"), re.MULTILINE)
    assert {(int(number), name) for number, name in titles} == {(kind.KIND, kind.__name__) for kind in KINDS}


def test_the_specification_has_every_dtype_failure_and_limit() -> None:
    text = SPECIFICATION.read_text(encoding="utf-8")
    for code, dtype in dtypes.BY_CODE.items():
        assert re.search(rf"^\| {code} \| {dtype.name} \| {dtype.itemsize} \|", text, re.MULTILINE), dtype
    for code, error in failures.BY_CODE.items():
        assert re.search(rf"^\| {code} \| {error.__name__} \|", text, re.MULTILINE), error
    limits = {
        "header": config.HEADER_BYTES_MAX,
        "frame": config.FRAME_BYTES_MAX,
        "merged messages": config.MERGED_MESSAGES_MAX,
        "merged bytes": config.MERGED_BYTES_MAX,
        "slices": config.SLICES_MAX,
        "outcomes": config.RECEIPTS,
    }
    for what, number in limits.items():
        assert re.search(rf"^\| {what} \| {number} \|", text, re.MULTILINE), what
    assert f"version {VERSION}" in text


def test_probes_stay_below_a_hundred_bytes() -> None:
    # Silence is met with a probe, so it must cost nothing.
    assert sum(map(len, wire.encode(Probe(U63, SESSION, U63, U63)))) < 100
