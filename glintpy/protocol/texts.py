"""Keys of a table that are texts: how they travel and lie, and what they can be; knows no message and no server.

A text is kept as its UTF-8, a byte 1, and zeros up to the length that all keys of its table have, a multiple of 8. The
byte 1 says where the text ends, so that texts may end in NUL, or be empty; numpy's ``S`` arrays compare, sort and find
such items, of which none ends in a zero that counts.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from glintpy.errors import DTypeError, KeyRangeError, ShapeError

Texts = NDArray[np.bytes_]

BYTES_MAX = 1023
"""Of the UTF-8 of a key, in any table."""

DEFAULT = "str63"
"""What ``"str"`` is short for: items of 64 bytes."""

END = b"\x01"

_NAME = re.compile(r"str([1-9][0-9]{0,3})")


def bytes_of(keys: str) -> int:
    """Return how many bytes of UTF-8 the keys of a table may have; 0: they are no texts.

    Args:
        keys: of its spec: ``"str63"`` and the like, or anything else.
    """
    found = _NAME.fullmatch(keys)
    length = int(found[1]) if found else 0
    return length if length <= BYTES_MAX else 0


def item_dtype(keys: str) -> np.dtype[np.bytes_]:
    """Return the dtype in which a table has its texts; its length is a multiple of 8.

    Args:
        keys: of its spec, with texts.
    """
    return _items_of((bytes_of(keys) // 8 + 1) * 8)


def encoded(texts: Sequence[str], keys: str) -> Texts:
    """Return texts as a table of this kind keeps them.

    Args:
        texts: any.
        keys: of the spec.

    Raises:
        KeyRangeError: one is too long, or has no UTF-8, with its position.
    """
    limit = bytes_of(keys)
    try:
        found = [text.encode() + END for text in texts]
    except UnicodeEncodeError:
        raise _refused(texts, limit) from None
    if max(map(len, found), default=0) > limit + 1:
        raise _refused(texts, limit)
    return np.array(found, item_dtype(keys))


def _refused(texts: Sequence[str], limit: int) -> KeyRangeError:
    """Return what is wrong with the first text that can't be a key."""
    for position, text in enumerate(texts):
        try:
            length = len(text.encode())
        except UnicodeEncodeError:
            return KeyRangeError(
                f"key {text!r:.80} at position {position} has half of a surrogate pair, which UTF-8 can't hold"
            )
        if length > limit:
            return KeyRangeError(
                f"key {text[:40]!r}... at position {position} has {length} bytes in UTF-8, and keys of this table "
                f'have {limit} at most: make it with a longer key_dtype, "str{BYTES_MAX}" at the longest'
            )
    raise AssertionError("none of the texts is wrong")


def decoded(items: Texts) -> NDArray[np.object_]:
    """Return the texts that are kept, (n,) of str.

    Raises:
        ShapeError: items that no client could have sent.
    """
    texts = np.empty(len(items), object)
    try:
        texts[:] = [item[:-1].decode() for item in items.tolist()]
    except UnicodeDecodeError as error:
        raise ShapeError(f"a key is not UTF-8: {error}") from error
    return texts


def to_frame(items: Texts) -> NDArray[np.uint8]:
    """Return items as they travel: (n, w) bytes, w the shortest multiple of 8 that has room for all of them."""
    length = int(lengths_of(items).max(initial=1))
    width = -(-length // 8) * 8
    matrix = matrix_of(items)
    return matrix if matrix.shape[1] == width else np.ascontiguousarray(matrix[:, :width])


def from_frame(frame: NDArray[Any], keys: str) -> Texts:
    """Return the items in a foreign frame, as a table of this kind keeps them.

    Args:
        frame: what came.
        keys: of the spec.

    Raises:
        DTypeError, ShapeError: they can't be its keys.
    """
    dtype = item_dtype(keys)
    if frame.dtype != np.uint8:
        raise DTypeError(f"keys of {frame.dtype.name} for a table whose are {keys}, which travel as uint8")
    if frame.ndim != 2 or not 8 <= frame.shape[1] <= dtype.itemsize or frame.shape[1] % 8:
        raise ShapeError(
            f"keys of {keys} are (n, w) bytes, w a multiple of 8 up to {dtype.itemsize}, not {frame.shape}"
        )
    width = frame.shape[1]
    frame = np.ascontiguousarray(frame)
    try:
        # All in one: whatever ends inside of a letter is followed by a byte 1, which no letter goes on with.
        frame.tobytes().decode()
    except UnicodeDecodeError as error:
        raise ShapeError("a key is not UTF-8") from error
    items = frame.reshape(-1).view(_items_of(width))
    lengths = lengths_of(items)
    if not lengths.all() or bool((frame[np.arange(len(frame)), lengths - 1] != END[0]).any()):
        raise ShapeError("a key doesn't end in a byte 1")
    if int(lengths.max(initial=1)) > bytes_of(keys) + 1:
        raise ShapeError(f"a key has {int(lengths.max()) - 1} bytes, more than {keys} has")
    return items.astype(dtype)


def _items_of(length: int) -> np.dtype[np.bytes_]:
    return np.array(END * length).dtype


def matrix_of(items: Texts) -> NDArray[np.uint8]:
    """Return the bytes of items, (n, length); a view of a contiguous array."""
    found: NDArray[np.uint8] = np.ascontiguousarray(items).view(np.uint8).reshape(len(items), items.itemsize)
    return found


def lengths_of(items: Texts) -> NDArray[np.int64]:
    """Return how many bytes each item has, its end included."""
    found: NDArray[np.int64] = np.strings.str_len(items) if hasattr(np, "strings") else np.char.str_len(items)
    return found
