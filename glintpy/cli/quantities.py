"""Sizes and durations as people write and read them; pure, knows no option."""

from __future__ import annotations

import math
import re
from typing import Any

from glintpy.errors import ConfigError

_SIZE = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]*)", re.IGNORECASE)
_DURATION = re.compile(r"(\d+(?:\.\d+)?) ?([a-z]+) ?", re.IGNORECASE)

_DECIMAL = {"b": 1, "kb": 10**3, "mb": 10**6, "gb": 10**9, "tb": 10**12}
# A letter alone is binary, as for docker and systemd.
_BINARY = {"k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_BYTES = {"": 1} | _DECIMAL | _BINARY | {f"{letter}ib": size for letter, size in _BINARY.items()}

_SECONDS = {"ms": 0.001, "s": 1.0, "min": 60.0, "m": 60.0, "h": 3600.0, "d": 86400.0}

SIZE_BYTES_MAX = 2**62


def parse_size(value: Any) -> int:
    """Return a number of bytes, at least 1.

    Args:
        value: an integer, or a text like ``"4GB"``, ``"512MiB"`` or ``"1000"``.

    Raises:
        ConfigError: not a size.
    """
    num_bytes = 0
    if isinstance(value, int) and not isinstance(value, bool):
        num_bytes = value
    elif isinstance(value, str):
        found = _SIZE.fullmatch(value.strip())
        unit = _BYTES.get(found[2].lower()) if found else None
        if found is not None and unit is not None:
            num_bytes = int(float(found[1]) * unit) if "." in found[1] else int(found[1]) * unit
    if not 1 <= num_bytes <= SIZE_BYTES_MAX:
        raise ConfigError(f"{value!r} is not a size; one looks like 4GB, 512MiB or 1000000 (bytes)")
    return num_bytes


def parse_duration(value: Any) -> float:
    """Return a positive number of seconds.

    Args:
        value: a number of seconds, or a text like ``"1d"``, ``"12h"``, ``"30m"``, ``"45s"``, ``"250ms"``, ``"1h30m"``.

    Raises:
        ConfigError: not a duration.
    """
    seconds = math.nan
    if isinstance(value, int | float) and not isinstance(value, bool):
        seconds = float(value)
    elif isinstance(value, str):
        seconds = _seconds_in(value.strip())
    if not 0 < seconds < math.inf:
        raise ConfigError(
            f"{value!r} is not a duration; one looks like 1d, 12h, 30m, 45s, 250ms or 2.5 (seconds)"
        )
    return seconds


def _seconds_in(text: str) -> float:
    if re.fullmatch(r"\d+(\.\d+)?", text):
        return float(text)
    parts = _DURATION.findall(text)
    if not parts or _DURATION.sub("", text) or any(unit.lower() not in _SECONDS for _, unit in parts):
        return math.nan
    return sum(float(number) * _SECONDS[unit.lower()] for number, unit in parts)


def size_text(num_bytes: int) -> str:
    """Return a number of bytes for people: three digits and a binary unit."""
    size = float(num_bytes)
    for unit in ("B", "KiB", "MiB", "GiB", "TiB"):
        if size < 1000 or unit == "TiB":
            break
        size /= 1024
    digits = 0 if size >= 100 or size == int(size) else 1
    return f"{size:.{digits}f} {unit}"


def duration_text(seconds: float) -> str:
    """Return a duration for people: one or two units."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 10 and seconds != int(seconds):
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return _two_units(whole, 60, "min", 1, "s")
    if whole < 86400:
        return _two_units(whole, 3600, "h", 60, "min")
    return _two_units(whole, 86400, "d", 3600, "h")


def _two_units(seconds: int, size: int, unit: str, rest_size: int, rest_unit: str) -> str:
    rest = seconds % size // rest_size
    return f"{seconds // size} {unit} {rest} {rest_unit}" if rest else f"{seconds // size} {unit}"
