"""Messages made from their own rules, by hypothesis or by a seeded generator; knows no test."""

from __future__ import annotations

import random
import string
from collections.abc import Sequence
from typing import Any

import msgpack
import numpy as np
import pytest
from hypothesis import strategies as st
from numpy.typing import NDArray

from glintpy import config
from glintpy.errors import RemoteProtocolError
from glintpy.protocol import dtypes, wire
from glintpy.protocol.fields import Bool, Bytes, Frame, Int, Rule, Text
from glintpy.protocol.kinds import message_types
from glintpy.protocol.messages import VERSION, Message, Values, rules_of

KINDS = list(message_types().values())

NASTY = (
    b"\x90",
    b"\x91",
    b"\x80",
    b"\xc0",
    b"\xc1",
    b"\xdc\x00\x40",
    b"\xdd\xff\xff\xff\xff",
    b"\xcf" + b"\xff" * 8,
)
"""Pieces of msgpack that decoders trip over: nesting, nothing, declared lengths, large numbers."""


def frame_codes(rule: Frame) -> list[int]:
    """Return the dtype codes that an array of this rule may have."""
    if rule.document:
        return [5]
    return sorted(dtypes.INDEX_CODES if rule.index else dtypes.BY_CODE)


def frame_shapes(rule: Frame, code: int, sizes: Sequence[int]) -> list[tuple[int, ...]]:
    """Return the shapes that an array of this rule may have, built from some sizes.

    Args:
        rule: of the field.
        code: the dtype's; slices are int64 only.
        sizes: two lengths.
    """
    first, second = sizes
    if rule.document:
        return [(first,)]
    if rule.index:
        return [(first,), (first, 3)] if code == dtypes.CODE_OF[np.dtype("<i8")] else [(first,)]
    return [(first,), (first, second)]


def array_of(raw: bytes, code: int, shape: tuple[int, ...]) -> NDArray[Any]:
    """Return an array with these bytes, repeated as often as needed."""
    dtype = dtypes.BY_CODE[code]
    num_bytes = int(np.prod(shape)) * dtype.itemsize
    repeated = (raw * (num_bytes // max(1, len(raw)) + 1))[:num_bytes] if raw else bytes(num_bytes)
    if dtype.kind == "b":
        repeated = bytes(byte & 1 for byte in repeated)
    return np.frombuffer(repeated, dtype=dtype).reshape(shape)


@st.composite
def arrays(draw: st.DrawFn, rule: Frame) -> NDArray[Any]:
    """Any array that a rule allows, small."""
    code = draw(st.sampled_from(frame_codes(rule)))
    sizes = draw(st.tuples(st.integers(0, 5), st.integers(0, 5)))
    shape = draw(st.sampled_from(frame_shapes(rule, code, sizes)))
    return array_of(draw(st.binary(max_size=48)), code, shape)


def field_values(rule: Rule) -> st.SearchStrategy[Any]:
    """Any value that a rule allows."""
    match rule:
        case Int(low, high):
            return st.integers(low, high)
        case Bytes(lengths):
            return st.sampled_from(lengths).flatmap(
                lambda length: st.binary(min_size=length, max_size=length)
            )
        case Text(characters_max):
            # Any letter, but four texts of four-byte letters must still fit into one header.
            letters = st.characters(exclude_categories=["Cs"])
            return st.text(letters, max_size=min(characters_max, 128))
        case Bool():
            return st.booleans()
        case Frame(optional=True):
            return st.none() | arrays(rule)
        case Frame():
            return arrays(rule)


def messages_of(kind: type[Message]) -> st.SearchStrategy[Message]:
    """Any message of one kind."""
    return st.builds(kind, **{name: field_values(rule) for name, rule in rules_of(kind)})


def messages() -> st.SearchStrategy[Message]:
    """Any message."""
    return st.sampled_from(KINDS).flatmap(messages_of)


def random_message(source: random.Random) -> Message:
    """Return a message of a random kind: for fuzzers, which have no use for shrinking."""
    kind = source.choice(KINDS)
    return kind(**{name: _random_value(rule, source) for name, rule in rules_of(kind)})


def random_frames(source: random.Random) -> list[bytes]:
    """Return the frames of a few random messages, one behind another."""
    count = source.choice([1, 1, 1, 2, 5])
    return [bytes(frame) for _ in range(count) for frame in wire.encode(random_message(source))]


def mutated(frames: Sequence[bytes], source: random.Random) -> list[bytes]:
    """Return frames with a few things done to them that a broken or hostile peer might do."""
    changed = list(frames)
    for _ in range(source.randint(1, 3)):
        index = source.randrange(len(changed)) if changed else 0
        match source.randrange(8):
            case 0 if changed:
                changed[index] = _with_bytes_changed(changed[index], source)
            case 1 if changed:
                changed[index] = changed[index][: source.randint(0, len(changed[index]))]
            case 2 if changed:
                del changed[index]
            case 3 if changed:
                changed.insert(index, changed[source.randrange(len(changed))])
            case 4:
                source.shuffle(changed)
            case 5:
                changed.insert(index, source.randbytes(source.randint(0, 40)))
            case 6 if changed:
                changed[index] += source.randbytes(source.randint(1, 9))
            case _ if changed:
                position = source.randint(0, len(changed[index]))
                nested = source.choice(NASTY) * source.choice([1, 3, 1010])
                changed[index] = changed[index][:position] + nested + changed[index][position:]
    return changed


def _with_bytes_changed(frame: bytes, source: random.Random) -> bytes:
    changed = bytearray(frame)
    for _ in range(source.randint(1, 4)):
        if changed:
            changed[source.randrange(len(changed))] = source.choice(
                [0, 0x7F, 0x80, 0xFF, source.randrange(256)]
            )
    return bytes(changed)


def header_of(message: Message) -> list[Any]:
    """Return the header of a message as plain data."""
    header: list[Any] = msgpack.unpackb(wire.encode(message)[0])
    return header


def values_header(code: Any, *shape: Any) -> list[Any]:
    """Return the header of a ``Values`` whose array has this dtype code and shape."""
    return [VERSION, Values.KIND, [1, 0, 0], [[code, *shape]]]


def refused(*frames: Any, match: str = ".") -> str:
    """Assert that these frames, header first, are refused, and return the reason."""
    first = frames[0] if isinstance(frames[0], bytes) else msgpack.packb(frames[0])
    with pytest.raises(RemoteProtocolError, match=match) as caught:
        wire.decode_all([first, *frames[1:]])
    # What a peer sends must not fill our log.
    assert len(str(caught.value)) < 400
    return str(caught.value)


def simple_message(kind: type[Message]) -> Message:
    """Return the same plain message of a kind each time."""
    return kind(**{name: _simple_value(rule) for name, rule in rules_of(kind)})


def same(first: Message, second: Message) -> bool:
    """Compare two messages field by field; arrays by dtype, shape and bytes, so that NaN equals itself."""
    if type(first) is not type(second):
        return False
    pairs = [(getattr(first, name), getattr(second, name)) for name, _ in rules_of(type(first))]
    return all(_same_value(one, other) for one, other in pairs)


def _same_value(one: Any, other: Any) -> bool:
    if isinstance(one, np.ndarray) and isinstance(other, np.ndarray):
        facts = (one.dtype, one.shape, one.tobytes())
        return facts == (other.dtype, other.shape, other.tobytes())
    return type(one) is type(other) and bool(one == other)


def _random_value(rule: Rule, source: random.Random) -> Any:
    match rule:
        case Int(low, high):
            return source.choice(
                [low, high, source.randint(low, high), min(high, low + source.randint(0, 300))]
            )
        case Bytes(lengths):
            return source.randbytes(source.choice(lengths))
        case Text(characters_max):
            letters = source.choices(string.printable + "\u00e4\u20ac\U0001f9ca", k=min(characters_max, 40))
            return "".join(letters[: source.randint(0, len(letters))])
        case Bool():
            return source.random() < 0.5
        case Frame(optional=True) if source.random() < 0.5:
            return None
        case Frame():
            code = source.choice(frame_codes(rule))
            sizes = (source.randint(0, 6), source.randint(0, 6))
            return array_of(source.randbytes(16), code, source.choice(frame_shapes(rule, code, sizes)))


def _simple_value(rule: Rule) -> Any:
    match rule:
        case Int(low, _):
            return low
        case Bytes(lengths):
            return bytes(max(lengths))
        case Text():
            return "text"
        case Bool():
            return False
        case Frame(document=True):
            return wire.document({"a": 1})
        case Frame():
            return np.arange(3, dtype=np.int64)


assert config.HEADER_BYTES_MAX > 4 * 4 * 128, "four texts of 128 four-byte letters fit into a header"
