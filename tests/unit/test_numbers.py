"""An updater's numbers in a segment: the old ones or the new ones, wherever a change was cut off."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from glintpy.errors import ConfigError
from glintpy.protocol.spec import NUMBERS_MAX
from glintpy.storage.numbers import NUMBERS_BYTES, Numbers


def test_there_are_none_until_they_are_written() -> None:
    numbers = Numbers(np.zeros(NUMBERS_BYTES, np.uint8))
    assert numbers.read() == (0, "")
    for version in range(1, 6):
        text = f'{{"rate":{version}}}' * version
        numbers.write(version, text)
        assert numbers.read() == (version, text)


@given(st.integers(0, 2**32), st.integers(0, NUMBERS_BYTES))
def test_a_change_that_was_cut_off_leaves_the_old_or_the_new(seed: int, num_bytes: int) -> None:
    memory = np.zeros(NUMBERS_BYTES, np.uint8)
    numbers = Numbers(memory)
    numbers.write(1, "one")
    numbers.write(2, "two")
    before = memory.copy()
    numbers.write(3, "three")
    # Of the bytes that the change wrote, only some came to be, in any order; the version came last, at once.
    changed = np.flatnonzero(memory != before)
    version = changed[changed % (NUMBERS_BYTES // 2) < 8]
    others = np.setdiff1d(changed, version)
    chosen = np.random.default_rng(seed).permutation(others)[: num_bytes % (len(others) + 1)]
    if len(chosen) == len(others):
        chosen = np.concatenate((chosen, version))
    torn = before.copy()
    torn[chosen] = memory[chosen]
    assert Numbers(torn).read() in {(2, "two"), (3, "three")}


def test_too_long_a_text_is_refused_and_changes_nothing() -> None:
    numbers = Numbers(np.zeros(NUMBERS_BYTES, np.uint8))
    numbers.write(1, "x" * NUMBERS_MAX)
    with pytest.raises(ConfigError, match=f"{NUMBERS_MAX + 1} bytes"):
        numbers.write(2, "x" * (NUMBERS_MAX + 1))
    assert numbers.read() == (1, "x" * NUMBERS_MAX)
