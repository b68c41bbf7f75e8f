"""Which error travels under which code; knows no message.

A failure crosses the wire as a code and a text. Whoever receives it raises the class of that code with
that text, so that a mistake reads the same whichever side finds it.
"""

from __future__ import annotations

from glintpy import errors

BY_CODE: dict[int, type[errors.GlintError]] = {
    1: errors.ModelNotFound,
    2: errors.ModelExists,
    3: errors.ShapeError,
    4: errors.DTypeError,
    5: errors.KeyRangeError,
    6: errors.ModelError,
    10: errors.ModelLost,
    11: errors.Overloaded,
    12: errors.RemoteFailure,
    13: errors.ServerLost,
    20: errors.NotEnoughServers,
    21: errors.NotEnoughMemory,
    22: errors.Expelled,
    30: errors.RemoteProtocolError,
    31: errors.ProtocolMismatch,
    32: errors.AccessDenied,
    33: errors.ConfigError,
}
"""Code to class. 0 and 255 are outcomes of pushes: applied, and passed over."""

APPLIED = 0
PASSED_OVER = 255

_CODE_OF = {kind: code for code, kind in BY_CODE.items()}


def code_of(error: BaseException) -> int:
    """Return the code under which an error travels: its own class's, or the nearest parent's."""
    for kind in type(error).__mro__:
        if kind in _CODE_OF:
            return _CODE_OF[kind]
    return _CODE_OF[errors.RemoteFailure]


def error_of(code: int, text: str) -> errors.GlintError:
    """Return the error that a peer reported.

    Args:
        code: from the wire; an unknown one is a ``RemoteFailure`` that says so.
        text: the peer's message.
    """
    kind = BY_CODE.get(code)
    if kind is None:
        return errors.RemoteFailure(f"failure of unknown code {code}: {text}")
    return kind(text)


def fitting_text(text: str, *, bytes_max: int = 3000) -> str:
    """Return the text, cut where its UTF-8 would not fit into a header.

    A failure must not fail to travel: 3000 characters may need 12,000 bytes, and halves of surrogate pairs,
    which file names bring into tracebacks, have no UTF-8 at all.

    Args:
        text: whatever an error says.
        bytes_max: what is kept of it, in bytes of UTF-8.
    """
    raw = text.encode("utf-8", "backslashreplace")
    return raw[:bytes_max].decode("utf-8", "ignore")
