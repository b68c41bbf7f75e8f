"""Messages to frames and back, with every check on foreign bytes; knows no socket and no model.

A message is a header frame, a msgpack array ``[version, kind, [fields...], [[dtype, shape...]...]]``, and
one raw frame an array, little-endian in C order. Several small messages may stand one behind another in
one ZeroMQ message. Decoding returns typed messages or one precise error; it allocates nothing that the
bytes did not bring along.
"""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from operator import attrgetter, itemgetter
from typing import Any

import msgpack
import numpy as np

from glintpy import config
from glintpy.errors import LocalProtocolError, RemoteProtocolError
from glintpy.protocol import dtypes
from glintpy.protocol.fields import U63, Bool, Bytes, Frame, Int, Rule, Text
from glintpy.protocol.kinds import message_types
from glintpy.protocol.messages import VERSION, Array, Document, Message, rules_of

Buffer = bytes | bytearray | memoryview
Check = Callable[[Any], bool]


def encode(message: Message) -> list[Buffer]:
    """Return the frames of a message: its header, then one an array.

    The arrays' frames are views where the array is already contiguous: the caller must own them until
    they are sent. Big-endian arrays are refused, not converted.

    Raises:
        LocalProtocolError: a field against its rule: a defect of ours, found before it leaves.
    """
    shape = _SHAPES[type(message)]
    values = shape.values_of(message)
    if not shape.accepts(values):
        name, value = shape.first_wrong(values)
        raise LocalProtocolError(f"{type(message).__name__}.{name} can't be {_shown(value)}")
    descriptors: list[list[int] | None] = []
    frames: list[Buffer] = []
    for name, rule in shape.frames:
        array = getattr(message, name)
        if array is None and rule.optional:
            descriptors.append(None)
            continue
        if not isinstance(array, np.ndarray):
            raise LocalProtocolError(f"{type(message).__name__}.{name} is an array, not {_shown(array)}")
        if not array.flags.c_contiguous:
            array = np.ascontiguousarray(array)
        code = dtypes.CODE_OF.get(array.dtype)
        if code is None or not _frame_allowed(rule, code, array.shape):
            raise LocalProtocolError(
                f"{type(message).__name__}.{name} can't be {array.dtype} of shape {array.shape}"
            )
        if array.nbytes > config.FRAME_BYTES_MAX:
            raise LocalProtocolError(f"{name} has {array.nbytes} bytes, more than {config.FRAME_BYTES_MAX}")
        descriptors.append([code, *array.shape])
        frames.append(array.data.cast("B") if array.size else b"")
    try:
        header = msgpack.packb([VERSION, message.KIND, values, descriptors], use_bin_type=True)
    except UnicodeEncodeError as error:
        # Half of a surrogate pair: file names that are not UTF-8 bring them into texts of errors.
        raise LocalProtocolError(f"{type(message).__name__} has a text without UTF-8: {error}") from error
    if len(header) > config.HEADER_BYTES_MAX:
        raise LocalProtocolError(f"a header of {len(header)} bytes; at most {config.HEADER_BYTES_MAX} travel")
    return [header, *frames]


def decode_all(frames: Sequence[Buffer]) -> list[Message]:
    """Return the messages in one ZeroMQ message.

    The arrays are read-only views of the frames: whoever keeps one copies it.

    Raises:
        RemoteProtocolError: the first thing that is wrong, wherever it stands: nothing is half taken.
    """
    messages: list[Message] = []
    position = 0
    if not frames:
        raise RemoteProtocolError("a message without frames")
    while position < len(frames):
        if len(messages) == config.MERGED_MESSAGES_MAX:
            raise RemoteProtocolError(f"more than {config.MERGED_MESSAGES_MAX} messages in one")
        message, position = _decode_one(frames, position)
        messages.append(message)
    return messages


def request_id_of(frames: Sequence[Buffer]) -> int | None:
    """Return the request that undecodable frames belong to, if that much can be read of them."""
    try:
        _, values, _ = _decode_header(frames[0])
    except (RemoteProtocolError, IndexError):
        return None
    found = values[0] if values else None
    return found if type(found) is int and 0 <= found <= U63 else None


def merge(
    encoded: Iterable[list[Buffer]], *, weights: Iterable[int] = itertools.repeat(0)
) -> Iterator[list[Buffer]]:
    """Join neighbouring small messages, in order, so that fewer are sent.

    Args:
        encoded: the frames of each message; the next is asked for when those before that are complete were taken.
        weights: what each asks for in bytes, where that is more than it brings: large answers are asked for one by
            one, so that the first is on its way while the next is made, and others have their turns between.

    Yields:
        The frames of each ZeroMQ message to send.
    """
    joined: list[Buffer] = []
    count = size = 0
    for frames, weight in zip(encoded, weights, strict=False):
        length = max(weight, sum(map(len, frames)))
        if joined and (count == config.MERGED_MESSAGES_MAX or size + length > config.MERGED_BYTES_MAX):
            yield joined
            joined, count, size = [], 0, 0
        if length > config.MERGED_BYTES_MAX:
            yield frames
            continue
        joined += frames
        count, size = count + 1, size + length
    if joined:
        yield joined


def document(content: Any) -> Document:
    """Return plain data (dicts, lists, text, numbers) as the bytes of a JSON text."""
    return np.frombuffer(json.dumps(content, separators=(",", ":")).encode(), dtype=np.uint8)


def content(text: Document) -> Any:
    """Return the plain data of a document.

    Raises:
        RemoteProtocolError: not a JSON text.
    """
    try:
        return json.loads(text.tobytes())
    except (ValueError, RecursionError) as error:
        raise RemoteProtocolError(f"a document that is not JSON: {error}") from error


class _Shape:
    """A message class, prepared for coding: which fields, which checks.

    ``accepts`` looks at all fields together, since most messages are right; ``first_wrong`` says what isn't.
    """

    def __init__(self, kind: type[Message]) -> None:
        self.kind = kind
        self.name = kind.__name__
        rules = rules_of(kind)
        self.scalars = [(name, _check_of(rule)) for name, rule in rules if not isinstance(rule, Frame)]
        self.frames = [(name, rule) for name, rule in rules if isinstance(rule, Frame)]
        names = [name for name, _ in self.scalars]
        assert [name for name, _ in rules] == [*names, *(name for name, _ in self.frames)]
        self._values_of = attrgetter(*names)
        self._is_lone = len(names) == 1
        self._types = tuple(_TYPE_OF[type(rule)] for _, rule in rules if not isinstance(rule, Frame))
        places = [place for place, kept in enumerate(self._types) if kept is int]
        self._is_lone_int = len(places) == 1  # of one field a getter returns the value, of several a tuple
        self._ints_of: Callable[[Sequence[Any]], Any] = itemgetter(*places)
        # Integers in [0, U63] are looked at together, everything narrower by itself.
        self._narrow = [
            (place, _check_of(rule))
            for place, (_, rule) in enumerate(rules)
            if isinstance(rule, Bytes | Text) or (isinstance(rule, Int) and rule != Int())
        ]

    def values_of(self, message: Message) -> tuple[Any, ...]:
        """Return the scalar fields of a message."""
        values: Any = self._values_of(message)
        return (values,) if self._is_lone else values

    def accepts(self, values: Sequence[Any]) -> bool:
        """Whether every scalar keeps to its rule."""
        if tuple(map(type, values)) != self._types:
            return False
        for place, check in self._narrow:
            if not check(values[place]):
                return False
        if self._is_lone_int:
            lone: int = self._ints_of(values)
            return 0 <= lone <= U63
        ints: tuple[int, ...] = self._ints_of(values)
        return min(ints) >= 0 and max(ints) <= U63

    def first_wrong(self, values: Sequence[Any]) -> tuple[str, Any]:
        """Return the name and the value of the first field that breaks its rule."""
        return next(
            (name, value)
            for value, (name, check) in zip(values, self.scalars, strict=True)
            if not check(value)
        )


_TYPE_OF: dict[type[Rule], type] = {Int: int, Bytes: bytes, Text: str, Bool: bool}


def _check_of(rule: Rule) -> Check:
    match rule:
        case Int(low, high):
            return lambda value: type(value) is int and low <= value <= high
        case Bytes(lengths):
            return lambda value: type(value) is bytes and len(value) in lengths
        case Text(characters_max):
            return lambda value: type(value) is str and len(value) <= characters_max
        case Bool():
            return lambda value: type(value) is bool
        case Frame():
            raise AssertionError("frames are checked by _frame_allowed")


def _shown(value: Any) -> str:
    # Only what has a short repr is shown: the repr of a thousand nested lists is a RecursionError, and such
    # lists fit into a header.
    return repr(value)[:80] if isinstance(value, int | float | str | bytes) else f"a {type(value).__name__}"


def _frame_allowed(rule: Frame, code: int, shape: tuple[int, ...]) -> bool:
    if rule.document:
        return code == 5 and len(shape) == 1
    if rule.index:
        slices = len(shape) == 2 and shape[1] == 3 and code == 4 and shape[0] <= config.SLICES_MAX
        return slices or (len(shape) == 1 and code in dtypes.INDEX_CODES)
    return 1 <= len(shape) <= 2


_SHAPES = {kind: _Shape(kind) for kind in message_types().values()}
_BY_KIND = {shape.kind.KIND: shape for shape in _SHAPES.values()}


def _decode_one(frames: Sequence[Buffer], position: int) -> tuple[Message, int]:
    kind, values, descriptors = _decode_header(frames[position])
    shape = _BY_KIND.get(kind)
    if shape is None:
        raise RemoteProtocolError(f"a message of unknown kind {kind}")
    if len(values) != len(shape.scalars) or len(descriptors) != len(shape.frames):
        raise RemoteProtocolError(
            f"{shape.name} has {len(shape.scalars)} fields and {len(shape.frames)} arrays"
        )
    if not shape.accepts(values):
        field_name, value = shape.first_wrong(values)
        raise RemoteProtocolError(f"{shape.name}.{field_name} can't be {_shown(value)}")
    position += 1
    for descriptor, (field_name, rule) in zip(descriptors, shape.frames, strict=True):
        if descriptor is None and rule.optional:
            values.append(None)
            continue
        if position >= len(frames):
            raise RemoteProtocolError(f"{shape.name} lacks the frame of {field_name}")
        try:
            values.append(_decode_array(rule, descriptor, frames[position]))
        except RemoteProtocolError as error:
            raise RemoteProtocolError(f"{shape.name}.{field_name} {error}") from error
        position += 1
    return shape.kind(*values), position


def _decode_header(frame: Buffer) -> tuple[int, list[Any], list[Any]]:
    if len(frame) > config.HEADER_BYTES_MAX:
        raise RemoteProtocolError(f"a header of {len(frame)} bytes, more than {config.HEADER_BYTES_MAX}")
    try:
        header = msgpack.unpackb(
            frame,
            raw=False,
            strict_map_key=True,
            max_array_len=64,
            max_map_len=0,
            max_ext_len=0,
            max_str_len=config.HEADER_BYTES_MAX,
            max_bin_len=64,
        )
    # msgpack raises its own errors, ValueError, UnicodeDecodeError and RecursionError for foreign bytes.
    except Exception as error:
        raise RemoteProtocolError(f"a header that is not msgpack: {type(error).__name__}: {error}") from error
    if type(header) is not list or len(header) != 4:
        raise RemoteProtocolError("a header that is not a list of four")
    version, kind, values, descriptors = header
    if type(version) is not int or version != VERSION:
        raise RemoteProtocolError(f"a message of version {_shown(version)}; this side speaks {VERSION}")
    if type(kind) is not int or type(values) is not list or type(descriptors) is not list:
        raise RemoteProtocolError("a header whose kind, fields or arrays have the wrong type")
    return kind, values, descriptors


def _decode_array(rule: Frame, descriptor: Any, frame: Buffer) -> Array:
    if type(descriptor) is not list or not 2 <= len(descriptor) <= 3:
        raise RemoteProtocolError("has no dtype and shape")
    size = 1
    for number in descriptor:
        if type(number) is not int or not 0 <= number < 2**48:
            raise RemoteProtocolError("has a dtype or shape that is not a small number")
        size *= number
    code, *lengths = descriptor
    shape = tuple(lengths)
    dtype = dtypes.BY_CODE.get(code)
    if dtype is None or not _frame_allowed(rule, code, shape):
        raise RemoteProtocolError(f"can't have dtype {code} and shape {shape}")
    expected = size // code * dtype.itemsize
    if len(frame) != expected:
        raise RemoteProtocolError(f"has {len(frame)} bytes where its shape needs {expected}")
    array: Array = np.ndarray(shape, dtype, frame)
    array.setflags(write=False)
    if dtype.kind == "b" and array.size and array.view(np.uint8).max() > 1:
        raise RemoteProtocolError("has bytes that are neither True nor False")
    return array
