"""Whether values may be written where they are wanted while others are still on their way; pure."""

from __future__ import annotations

from collections.abc import Mapping

from glintpy.kvstore.forms import Array, Given, Key, RowSparse


def overlap(outs: Mapping[Key, Array], pushed: Mapping[Key, Given]) -> bool:
    """Tell whether an output shares memory with another key's output, or with what is pushed under another key.

    Args:
        outs: by key, C-contiguous.
        pushed: by key. An array that is its own key's output takes no part.
    """
    spans = [(*_bounds(out), True) for out in outs.values()]
    for key, given in pushed.items():
        array = given.values if isinstance(given, RowSparse) else given
        span = _bounds(array)
        if key not in outs or span != _bounds(outs[key]):
            spans.append((*span, False))
    any_end = out_end = 0
    for begin, end, is_out in sorted(spans):
        if begin < (any_end if is_out else out_end):
            return True
        any_end = max(any_end, end)
        if is_out:
            out_end = max(out_end, end)
    return False


def _bounds(array: Array) -> tuple[int, int]:
    """Return the addresses of an array's first byte, and of the one behind its last; equal for an empty one."""
    low = high = array.ctypes.data
    if array.size:
        for length, stride in zip(array.shape, array.strides, strict=True):
            reach = (length - 1) * stride
            low, high = low + min(reach, 0), high + max(reach, 0)
        high += array.itemsize
    return low, high
