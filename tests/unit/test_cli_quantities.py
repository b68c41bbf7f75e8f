"""Sizes and durations are read as people write them, and written as people read them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from glintpy.cli.quantities import duration_text, parse_duration, parse_size, size_text
from glintpy.errors import ConfigError


@pytest.mark.parametrize(
    ("text", "num_bytes"),
    [
        ("1", 1),
        ("1000000", 10**6),
        ("4GB", 4 * 10**9),
        ("4 gb", 4 * 10**9),
        ("512MiB", 512 * 2**20),
        ("1.5 GiB", 3 * 2**29),
        ("64k", 2**16),
        ("2T", 2**41),
        ("7B", 7),
        (4096, 4096),
    ],
)
def test_a_size_is_bytes(text: object, num_bytes: int) -> None:
    assert parse_size(text) == num_bytes


@pytest.mark.parametrize(
    "text", ["", "x", "4XB", "-1", "0", "GB", "1e9", "1,000", "4GB4", 0, -5, 1.5, True, None, 2**63]
)
def test_what_is_no_size_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ConfigError, match="is not a size; one looks like 4GB"):
        parse_size(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("1d", 86400),
        ("12h", 43200),
        ("30m", 1800),
        ("30min", 1800),
        ("45s", 45),
        ("250ms", 0.25),
        ("1h30m", 5400),
        ("1 h 30 min", 5400),
        ("2.5", 2.5),
        ("1.5h", 5400),
        (3, 3),
        (0.5, 0.5),
    ],
)
def test_a_duration_is_seconds(text: object, seconds: float) -> None:
    assert parse_duration(text) == pytest.approx(seconds)


@pytest.mark.parametrize(
    "text",
    ["", "x", "1w", "-1s", "0", "0s", "d", "1d!", "1 2", 0, -1, True, None, float("inf"), float("nan")],
)
def test_what_is_no_duration_is_refused_with_an_example(text: object) -> None:
    with pytest.raises(ConfigError, match="is not a duration; one looks like 1d"):
        parse_duration(text)


@pytest.mark.parametrize(
    ("num_bytes", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 KiB"),
        (1024, "1 KiB"),
        (256 * 2**20, "256 MiB"),
        (12_345_678, "11.8 MiB"),
        (5 * 2**40, "5 TiB"),
        (5000 * 2**40, "5000 TiB"),
    ],
)
def test_sizes_are_shown_with_three_digits(num_bytes: int, text: str) -> None:
    assert size_text(num_bytes) == text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.25, "250 ms"),
        (3.5, "3.5 s"),
        (10, "10 s"),
        (59.4, "59 s"),
        (60, "1 min"),
        (200, "3 min 20 s"),
        (3600, "1 h"),
        (11_520, "3 h 12 min"),
        (86_400, "1 d"),
        (360_000, "4 d 4 h"),
    ],
)
def test_durations_are_shown_in_one_or_two_units(seconds: float, text: str) -> None:
    assert duration_text(seconds) == text


@given(st.integers(1, 2**50))
def test_what_is_shown_of_a_size_can_be_read_again_and_is_near(num_bytes: int) -> None:
    assert parse_size(size_text(num_bytes)) == pytest.approx(num_bytes, rel=0.06)


@given(st.floats(0.001, 10**7))
def test_what_is_shown_of_a_duration_can_be_read_again_and_is_near(seconds: float) -> None:
    assert parse_duration(duration_text(seconds)) == pytest.approx(seconds, rel=0.5, abs=0.001)
